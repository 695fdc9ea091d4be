"""Tools that an agent gets by its parameters: for its history, the other sessions of its user, and its state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from kern_nb.interop.media import as_text
from kern_nb.records import Message, Session, ToolCall, message_text
from kern_nb.runtime.context import RunContext

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_MAX_MATCHES = 20
_EXCERPT_CHARACTERS = 500
_PREVIEW_CHARACTERS = 200
_MAX_CHARACTERS = 20_000  # of a message in a tool's result


def get_chat_history(run_context: RunContext, num_runs: int | None = None) -> str:
    """Read the earlier conversation of this session, or only its latest `num_runs` runs."""
    history = run_context.store.history(run_context.session_id, last_runs=num_runs, user_id=run_context.user_id)
    return _json([_line(message) for message in history])


def get_tool_call_history(run_context: RunContext, num_calls: int | None = 3) -> str:
    """Read the latest `num_calls` tool calls of the earlier runs of this session, newest first; all if it is null."""
    store, calls, n_runs = run_context.store, list[ToolCall](), 8
    while True:
        last = store.last_runs(run_context.session_id, n_runs, status="COMPLETED", user_id=run_context.user_id)
        calls = [call for run in reversed(last) for call in reversed(run.tool_calls)]
        if len(last) < n_runs or (num_calls is not None and len(calls) >= num_calls):
            break
        n_runs *= 4
    fields = ("tool_name", "args", "status", "result")
    return _json([{name: _value(getattr(call, name)) for name in fields} for call in calls[:num_calls]])


def update_session_state(run_context: RunContext, session_state_updates: dict[str, Any]) -> str:
    """Set keys of the session state: `session_state_updates` has the new value of each, {"items": ["milk"]}."""
    run_context.session_state.update(session_state_updates)
    return f"Updated session state: {run_context.session_state}"


def past_session_tools(max_sessions: int, preview_runs: int) -> list[Callable[..., Any]]:
    """Create the tools of `search_past_sessions`. They read only the sessions of the run's own user."""

    def search_past_sessions(run_context: RunContext, query: str | None = None) -> str:
        """List this user's earlier sessions with their first words, or the messages with all the words of `query`."""
        store, user_id = run_context.store, run_context.user_id
        past = (s for s in _user_sessions(store, user_id) if s.session_id != run_context.session_id)
        selected = islice(past, max_sessions)
        words = (query or "").lower().split()
        if words:
            return _json(_search(store, selected, words))
        return _json([_preview(store, session, preview_runs) for session in selected])

    def read_past_session(run_context: RunContext, session_id: str, num_runs: int | None = None) -> str:
        """Read an earlier session of this user, whose id `search_past_sessions` tells, or its first `num_runs` runs."""
        session = run_context.store.get_session(session_id, runs=False)
        if session is None or session.user_id != run_context.user_id:
            return f"This user has no session {session_id!r}."
        by_run = run_context.store.history_by_run(session_id, user_id=session.user_id)
        return _json([_line(message) for index in list(by_run)[:num_runs] for message in by_run[index]])

    return [search_past_sessions, read_past_session]


def _user_sessions(store: SessionStore, user_id: str | None) -> Iterator[Session]:
    """Iterate over the sessions of a user, newest first; without a user, over those without an owner."""
    cursor = None
    while True:
        page = store.list_sessions(user_id=user_id, cursor=cursor)
        yield from (session for session in page if session.user_id == user_id)
        if (cursor := page.cursor) is None:
            return


def _search(store: SessionStore, sessions: Iterable[Session], words: list[str]) -> list[dict[str, Any]]:
    matches: list[dict[str, Any]] = []
    for session in sessions:
        for run, messages in store.history_by_run(session.session_id, user_id=session.user_id).items():
            for message in messages:
                text = _text(message).lower()
                if all(word in text for word in words):
                    matches.append({"session": session.session_id, "run": run} | _line(message, _EXCERPT_CHARACTERS))
            if len(matches) >= _MAX_MATCHES:
                return matches[:_MAX_MATCHES]
    return matches


def _preview(store: SessionStore, session: Session, n_runs: int) -> dict[str, Any]:
    """Return a session's id and time, and the first words of the user and the answer in its first runs."""
    by_run = store.history_by_run(session.session_id, before_run=n_runs, user_id=session.user_id)
    runs = [{role: _first_text(messages, role) for role in ("user", "assistant")} for messages in by_run.values()]
    return {"session_id": session.session_id, "created_at": session.created_at, "runs": runs}


def _first_text(messages: Iterable[Message], role: str) -> str:
    text = next((text for m in messages if m.role == role and (text := _text(m))), "")
    return text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}…"


def _text(message: Message) -> str:
    """Return the text of a message; another content as JSON."""
    text = message_text(message)
    return ("" if message.content is None else as_text(message.content)) if text is None else text


def _line(message: Message, max_characters: int = _MAX_CHARACTERS) -> dict[str, Any]:
    line: dict[str, Any] = {"role": message.role, "content": _cut(_text(message), max_characters)}
    if message.tool_calls:
        line["calls"] = [call.tool_name for call in message.tool_calls]
    return line


def _value(value: Any) -> Any:
    """Return a value of a tool call for a model: a long text or value is cut."""
    text = value if isinstance(value, str) else as_text(value)
    return value if len(text) <= _MAX_CHARACTERS else _cut(text, _MAX_CHARACTERS)


def _cut(text: str, n: int) -> str:
    return text if len(text) <= n else f"{text[:n]}… ({len(text) - n} more characters)"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=as_text)
