"""`SessionSummaryManager`: a model's summary of a session, made after a run and kept with the session.

It is incremental: the model is given the old summary and the runs since, never the whole again. ``last_run_index``,
beside the summary, says up to where it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from kern_nb import models
from kern_nb.db import SessionStore
from kern_nb.records import Message, Session, SessionSummary, text_of
from kern_nb.runtime import loop
from kern_nb.runtime.threads import in_thread

_PROMPT = """\
You keep the summary of a conversation between a user and an assistant, for the assistant to go on from.
Write what was asked, found, decided and left open, with names and numbers, in a few sentences.
Answer with JSON: {"summary": "...", "topics": ["...", ...]}"""

_LONGEST = 4_000
"""Of one message, so many characters are summarized."""

_PORTION = 60_000
"""So many characters at a time."""

_log = logging.getLogger("kern_nb")


class SessionSummaryManager:
    """Makes and keeps the summaries of sessions.

    Args:
        model: The model that writes them; the agent's own where None.
        prompt: What it is told; a prompt of ours where None. It should ask for JSON with ``summary`` and ``topics``;
            an answer that is none is taken as the summary.
    """

    def __init__(self, model: Any = None, *, prompt: str | None = None) -> None:
        self.model = model
        self.prompt = prompt or _PROMPT
        self._pending: WeakKeyDictionary[SessionStore, dict[str, Future[None]]] = WeakKeyDictionary()

    def start(self, store: SessionStore, session_id: str, model: Any) -> Future[None]:
        """Bring the summary up to date in the background; nobody waits for it."""
        pending = self._pending.setdefault(store, {})
        before = pending.get(session_id)

        async def work() -> None:
            if before is not None:  # one after the other, so that each goes on from the last
                await asyncio.wrap_future(before)
            try:
                await self.update(store, session_id, model)
            except Exception as error:  # noqa: BLE001 - a summary that fails must not fail the run it follows
                _log.warning("The summary of session %s was not made: %s", session_id, error)

        pending[session_id] = begun = loop.start(work)
        return begun

    def wait(self, store: SessionStore, session_id: str) -> None:
        """Wait for a summary that is being made."""
        pending = self._pending.get(store, {}).pop(session_id, None)
        if pending is not None:
            pending.result()

    async def update(self, store: SessionStore, session_id: str, model: Any = None) -> SessionSummary | None:
        """The summary with the runs since it was made; None where there is nothing to summarize.

        Raises:
            SessionNotFound: there is no such session.
        """
        session = await in_thread(lambda: store.get_session(session_id, runs=False))
        old = (session.summary if session else None) or {}
        last, missing = _covered(old)
        new = await in_thread(lambda: store.history_by_run(session_id, after_run=last, also=missing))
        if not new:
            return record(session)
        summary = old
        for portion in _portions(new):  # each is saved, so that one that fails loses no other
            summary = await self._extended(store, session_id, summary, portion, model)
        return _record(summary)

    async def _extended(
        self, store: SessionStore, session_id: str, old: dict[str, Any], runs: dict[int, list[Message]], model: Any
    ) -> dict[str, Any]:
        """The summary with further runs, as it is stored."""
        last, missing = _covered(old)
        reached = max(last, *runs)
        left = await in_thread(lambda: store.unfinished_runs(session_id, upto=reached))
        told = old.get("summary") if isinstance(old.get("summary"), str) else None
        answer = await self._ask(told, runs, model)
        summary = _parsed(answer) | {"updated_at": datetime.now(UTC).isoformat(), "last_run_index": reached}
        late = sorted({index for index in (*left, *missing) if index not in runs})
        if late:
            summary["unfinished_runs"] = late
        await in_thread(lambda: store.save_summary(session_id, summary))
        return summary

    async def _ask(self, old: str | None, runs: dict[int, list[Message]], model: Any) -> str:
        from pydantic_ai import Agent

        told = [f"The summary so far:\n{old}"] if old else []
        told.append("What was said since:\n" + "\n".join(_line(m) for messages in runs.values() for m in messages))
        async with models.opened(self.model or model) as opened:
            return (await Agent(opened, instructions=self.prompt).run("\n\n".join(told))).output

    async def covering(self, store: SessionStore, session_id: str, runs: set[int], model: Any) -> str | None:
        """A summary that tells of these runs, brought up to date if need be. None where it cannot be made."""
        session = await in_thread(lambda: store.get_session(session_id, runs=False))
        last, missing = _covered((session.summary if session else None) or {})
        if any(run > last or run in missing for run in runs):
            try:
                await self.update(store, session_id, model)
            except Exception as error:  # noqa: BLE001 - the run goes on with what is known
                _log.warning("Session %s has no summary of its older runs: %s", session_id, error)
            session = await in_thread(lambda: store.get_session(session_id, runs=False))
        return self.text_of(session)

    @staticmethod
    def text_of(session: Session | None) -> str | None:
        """The summary's text."""
        found = record(session)
        return found.summary if found else None


def _portions(runs: dict[int, list[Message]]) -> Iterator[dict[int, list[Message]]]:
    """Runs in order, together as many as a model can well be told at once."""
    portion: dict[int, list[Message]] = {}
    size = 0
    for index in sorted(runs):
        length = sum(len(_line(message)) for message in runs[index])
        if portion and size + length > _PORTION:
            yield portion
            portion, size = {}, 0
        portion[index], size = runs[index], size + length
    if portion:
        yield portion


def _covered(summary: dict[str, Any]) -> tuple[int, list[int]]:
    """The last run that a summary tells of, and earlier ones that had not ended then."""
    last, missing = summary.get("last_run_index"), summary.get("unfinished_runs")
    known = isinstance(last, int) and isinstance(summary.get("summary"), str)
    return (last if known and isinstance(last, int) else -1), (missing if isinstance(missing, list) else [])


def record(session: Session | None) -> SessionSummary | None:
    """The summary of a session."""
    summary = session.summary if session else None
    return _record(summary) if summary and isinstance(summary.get("summary"), str) else None


def _record(summary: dict[str, Any]) -> SessionSummary:
    return SessionSummary(summary=summary["summary"], topics=_topics(summary), updated_at=_time(summary))


def _topics(summary: dict[str, Any]) -> list[str]:
    topics = summary.get("topics")
    topics = topics.split(",") if isinstance(topics, str) else topics
    return [topic.strip() for topic in topics if isinstance(topic, str)] if isinstance(topics, list) else []


def _time(summary: dict[str, Any]) -> datetime | None:
    """When it was made, as we write it or as unix seconds; another framework may write what it likes."""
    at = summary.get("updated_at")
    try:
        return datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC) if at else None
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _line(message: Message) -> str:
    calls = "".join(f" [calls {call.tool_name}]" for call in message.tool_calls)
    said = text_of(message.content)
    if said is None and message.content is not None:
        said = json.dumps(message.content, default=str)
    return f"{message.role}: {(said or '')[:_LONGEST]}{calls}"


def _parsed(answer: str) -> dict[str, Any]:
    """The summary and topics of an answer: of the JSON in it, or the answer itself."""
    for start in re.finditer(r"\{", answer):
        with contextlib.suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(answer, start.start())
            if isinstance(value, dict) and isinstance(value.get("summary"), str):
                return {"summary": value["summary"], "topics": _topics(value)}
    return {"summary": answer.strip(), "topics": []}
