"""What of a session's past the model is told, and the tools by which it may ask for more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore, codec
from kern_nb.extra_keys import RERUN_OF
from kern_nb.interop.media import as_text
from kern_nb.records import Message, Run, Session, message_text
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.threads import in_thread

if TYPE_CHECKING:
    from kern_nb.runtime.summaries import SessionSummaryManager

_CHARACTERS_A_TOKEN = 4
_MOST_MESSAGES_FOUND = 20
_EXCERPT = 500
_LONGEST = 20_000
"""Of one message, so many characters are given back."""


@dataclass(frozen=True)
class HistoryOptions:
    """How much of the past goes into the model's context; see `kern_nb.agent.Agent` for each."""

    add: bool = False
    runs: int | None = 3
    messages: int | None = None
    token_budget: int | None = None
    add_summary: bool = False


async def told(
    store: SessionStore,
    run: Run,
    options: HistoryOptions,
    summaries: SessionSummaryManager,
    model: Any,
    user_id: str | None = None,
) -> tuple[list[Message], str | None]:
    """The messages of the session that a model is given before a run, and the summary where it is to have that.

    A run that is made again is told the whole conversation it goes on from, but for limits in messages or tokens.
    """
    session_id = run.session_id or ""
    if RERUN_OF in run.internal:
        options = replace(options, add=True, runs=None)
    by_run: dict[int, list[Message]] = {}
    if options.add:
        runs = options.runs if options.messages is None else None
        by_run = await in_thread(
            lambda: store.history_by_run(
                session_id,
                last_runs=runs,
                last_messages=options.messages,
                before_run=run.run_index,
                user_id=user_id,
            )
        )
    dropped = _over_budget(by_run, options.token_budget)
    summary = None
    if dropped:
        kept = {run: messages for run, messages in by_run.items() if run not in dropped}
        summary = await summaries.covering(store, session_id, dropped, model)
        by_run = kept
    elif options.add_summary:
        summary = summaries.text_of(await in_thread(lambda: store.get_session(session_id, user_id=user_id, runs=False)))
    return [message for messages in by_run.values() for message in messages], summary


def _over_budget(by_run: dict[int, list[Message]], budget: int | None) -> set[int]:
    """The oldest runs, those that do not fit; a run is kept or left out whole, so a call keeps its result."""
    if budget is None:
        return set()
    dropped, left = set(by_run), budget
    for run in sorted(by_run, reverse=True):
        left -= sum(tokens(message) for message in by_run[run])
        if left < 0:
            break
        dropped.discard(run)
    return dropped


def tokens(message: Message) -> int:
    """An estimate, from the length of what a message holds: four characters are about one token."""
    said = message_text(message) or ("" if message.content is None else codec.dumps(message.content))
    calls = sum(len(codec.dumps([call.tool_name, call.args])) for call in message.tool_calls)
    return 1 + (len(said) + calls) // _CHARACTERS_A_TOKEN


def chat_history_tool() -> Callable[..., Any]:
    """The tool that `read_chat_history` gives a model."""

    def get_chat_history(run_context: RunContext, num_runs: int | None = None) -> str:
        """Read the earlier conversation of this session; of the latest `num_runs` turns only, where that is given."""
        history = run_context.store.history(run_context.session_id, last_runs=num_runs, user_id=run_context.user_id)
        return json.dumps([_line(message) for message in history], ensure_ascii=False)

    return get_chat_history


def past_sessions_tool(most_sessions: int) -> Callable[..., Any]:
    """The tool that `search_past_sessions` gives a model. It sees the sessions of the run's own user, no one else's."""

    def search_past_sessions(run_context: RunContext, query: str) -> str:
        """Search this user's earlier sessions for messages that hold all the words of `query`."""
        store, user_id = run_context.store, run_context.user_id
        others = (s for s in _sessions_of(store, user_id) if s.session_id != run_context.session_id)
        found = _search(store, islice(others, most_sessions), query.lower().split())
        return json.dumps(found, ensure_ascii=False)

    return search_past_sessions


def _sessions_of(store: SessionStore, user_id: str | None) -> Iterator[Session]:
    """The sessions of one user, newest first; those of no user where there is none."""
    cursor = None
    while True:
        page = store.list_sessions(user_id=user_id, cursor=cursor)
        yield from (session for session in page if session.user_id == user_id)
        if (cursor := page.cursor) is None:
            return


def _search(store: SessionStore, sessions: Iterable[Session], words: list[str]) -> list[dict[str, Any]]:
    """The messages that hold all the words, of the newest session first."""
    found: list[dict[str, Any]] = []
    for session in sessions:
        for run, messages in store.history_by_run(session.session_id, user_id=session.user_id).items():
            for message in messages:
                said = _said(message)
                if words and all(word in said.lower() for word in words):
                    found.append({"session": session.session_id, "run": run} | _line(message, _EXCERPT))
            if len(found) >= _MOST_MESSAGES_FOUND:
                return found[:_MOST_MESSAGES_FOUND]
    return found


def _said(message: Message) -> str:
    """The text of a message; JSON where it is another value."""
    text = message_text(message)
    return ("" if message.content is None else as_text(message.content)) if text is None else text


def _line(message: Message, longest: int = _LONGEST) -> dict[str, Any]:
    said = _said(message)
    cut = f"… ({len(said) - longest} more characters)" if len(said) > longest else ""
    line: dict[str, Any] = {"role": message.role, "content": said[:longest] + cut}
    if message.tool_calls:
        line["calls"] = [call.tool_name for call in message.tool_calls]
    return line
