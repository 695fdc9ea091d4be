"""The history of a session in the model's context, and the tools that read more of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore, codec
from kern_nb.extra_keys import CONTINUES, RERUN_OF
from kern_nb.interop.media import as_text
from kern_nb.records import Message, Session, message_text
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread

if TYPE_CHECKING:
    from kern_nb.runtime.settings import AgentSettings

_CHARACTERS_PER_TOKEN = 4
_MAX_MATCHES = 20
_EXCERPT_CHARACTERS = 500
_MAX_CHARACTERS = 20_000  # of a message in a tool's result


@dataclass(frozen=True)
class HistoryOptions:
    """How much of the past goes into the model's context; see `kern_nb.agent.Agent` for each."""

    add: bool = False
    runs: int | None = 3
    messages: int | None = None
    token_budget: int | None = None
    add_summary: bool = False


async def load(settings: AgentSettings, context: RunContext) -> tuple[list[Message], str | None]:
    """Load the messages for the model before a run, and the summary where it belongs to the context.

    A rerun gets the whole conversation before it, except for limits in messages or tokens.
    """
    options, store, run, user_id = settings.history, context.store, context.recorder.run, context.user_id
    session_id = run.session_id or ""
    if RERUN_OF in run.internal:
        options = replace(options, add=True, runs=None)
    by_run: dict[int, list[Message]] = {}
    if options.add:
        runs = options.runs if options.messages is None else None
        by_run = await in_thread(
            lambda: store.history_by_run(
                session_id, last_runs=runs, last_messages=options.messages, before_run=run.run_index, user_id=user_id
            )
        )
    if CONTINUES in run.internal:  # whatever the limits
        by_run |= await in_thread(
            lambda: store.history_by_run(session_id, last_runs=1, before_run=run.run_index, user_id=user_id)
        )
    dropped = _over_budget(by_run, options.token_budget)
    summary = None
    if dropped:
        by_run = {run: messages for run, messages in by_run.items() if run not in dropped}
        summary = await settings.summaries.ensure_covers(store, session_id, dropped, settings.model)
    elif options.add_summary:
        session = await in_thread(lambda: store.get_session(session_id, user_id=user_id, runs=False))
        summary = settings.summaries.text_of(session)
    return [message for messages in by_run.values() for message in messages], summary


def _over_budget(by_run: dict[int, list[Message]], budget: int | None) -> set[int]:
    """Return the oldest runs that exceed the budget; whole runs, so that a call keeps its result."""
    if budget is None:
        return set()
    dropped, remaining = set(by_run), budget
    for run in sorted(by_run, reverse=True):
        remaining -= sum(estimate_tokens(message) for message in by_run[run])
        if remaining < 0:
            break
        dropped.discard(run)
    return dropped


def estimate_tokens(message: Message) -> int:
    """Estimate the tokens of a message from its length: four characters are about one token."""
    text = message_text(message) or ("" if message.content is None else codec.dumps(message.content))
    calls = sum(len(codec.dumps([call.tool_name, call.args])) for call in message.tool_calls)
    return 1 + (len(text) + calls) // _CHARACTERS_PER_TOKEN


def get_chat_history(run_context: RunContext, num_runs: int | None = None) -> str:
    """Read the earlier conversation of this session, or only its latest `num_runs` runs."""
    history = run_context.store.history(run_context.session_id, last_runs=num_runs, user_id=run_context.user_id)
    return json.dumps([_line(message) for message in history], ensure_ascii=False)


def past_sessions_tool(max_sessions: int) -> Callable[..., Any]:
    """Create the tool of `search_past_sessions`. It reads only the sessions of the run's own user."""

    def search_past_sessions(run_context: RunContext, query: str) -> str:
        """Search this user's earlier sessions for messages with all the words of `query`."""
        store, user_id = run_context.store, run_context.user_id
        past = (s for s in _user_sessions(store, user_id) if s.session_id != run_context.session_id)
        matches = _search(store, islice(past, max_sessions), query.lower().split())
        return json.dumps(matches, ensure_ascii=False)

    return search_past_sessions


def _user_sessions(store: SessionStore, user_id: str | None) -> Iterator[Session]:
    """Iterate over the sessions of a user, newest first; without a user, over those without an owner."""
    cursor = None
    while True:
        page = store.list_sessions(user_id=user_id, cursor=cursor)
        yield from (session for session in page if session.user_id == user_id)
        if (cursor := page.cursor) is None:
            return


def _search(store: SessionStore, sessions: Iterable[Session], words: list[str]) -> list[dict[str, Any]]:
    """Return the messages with all the words, in the order of the sessions."""
    matches: list[dict[str, Any]] = []
    for session in sessions:
        for run, messages in store.history_by_run(session.session_id, user_id=session.user_id).items():
            for message in messages:
                text = _text(message).lower()
                if words and all(word in text for word in words):
                    matches.append({"session": session.session_id, "run": run} | _line(message, _EXCERPT_CHARACTERS))
            if len(matches) >= _MAX_MATCHES:
                return matches[:_MAX_MATCHES]
    return matches


def _text(message: Message) -> str:
    """Return the text of a message; another content as JSON."""
    text = message_text(message)
    return ("" if message.content is None else as_text(message.content)) if text is None else text


def _line(message: Message, max_characters: int = _MAX_CHARACTERS) -> dict[str, Any]:
    text = _text(message)
    cut = f"… ({len(text) - max_characters} more characters)" if len(text) > max_characters else ""
    line: dict[str, Any] = {"role": message.role, "content": text[:max_characters] + cut}
    if message.tool_calls:
        line["calls"] = [call.tool_name for call in message.tool_calls]
    return line
