"""`SessionSummaryManager`: a model's summary of a session, made after a run or when asked, and kept with the session.

It is incremental: the model is given the old summary and the runs since, never the whole again. ``last_run_index``,
beside the summary, says up to where it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from kern_nb import models
from kern_nb.db import SessionStore
from kern_nb.db.reads import INSTRUCTION_ROLES
from kern_nb.errors import BadUsage, ReadOnlyStore, SummaryFailed
from kern_nb.records import Message, Session, SessionSummary, message_text
from kern_nb.runtime import event_loop
from kern_nb.runtime.threads import in_thread

_PROMPT = """\
You keep the summary of a conversation between a user and an assistant, for the assistant to go on from.
Write what was asked, found, decided and left open, with names and numbers, in a few sentences.
Answer with JSON: {"summary": "...", "topics": ["...", ...]}"""

_SINCE = "What was said since:"

LONGEST = 4_000
"""Of one message, so many characters are summarized."""

_PORTION = 60_000
"""So many characters at a time."""

_MOST_STARTS = 100
"""So many braces of an answer are looked at for its JSON; each may be followed to the end of the answer."""

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

        pending[session_id] = begun = event_loop.start(work)
        return begun

    def wait(self, store: SessionStore, session_id: str) -> None:
        """Wait for a summary that is being made."""
        pending = self._pending.get(store, {}).pop(session_id, None)
        if pending is not None:
            pending.result()

    async def update(
        self, store: SessionStore, session_id: str, model: Any = None, *, on_answer: Callable[[], None] | None = None
    ) -> SessionSummary | None:
        """The summary with the runs since it was made; None where there is nothing to summarize.

        Args:
            store: The store of the session.
            session_id: The session.
            model: The model that writes it, where the manager has none of its own.
            on_answer: Called whenever a further part is done, and stored.

        Raises:
            SessionNotFound: there is no such session.
            ReadOnlyStore: there are new runs, and the summary could not be stored; no model was asked.
        """
        session = await in_thread(lambda: store.get_session(session_id, runs=False))
        old = (session.summary if session else None) or {}
        last, missing = _covered(old)
        new = await in_thread(lambda: _runs_since(store, session_id, session, last, missing))
        if not new:
            found = record(session)
            return found.model_copy(update={"runs_since": 0}) if found else None
        if store.read_only:
            raise ReadOnlyStore(
                f"{store.url} is open read-only: a summary of {session_id!r} could not be kept; no model was asked.",
                "Attach it without --read-only, or digest it without a model.",
            )
        summary = old
        for portion in _portions(new):  # each is saved, so that one that fails loses no other
            summary = await self._extended(store, session_id, summary, portion, model)
            if on_answer is not None:
                on_answer()
        return _record(session_id, summary).model_copy(update={"runs_since": 0})

    async def _extended(
        self, store: SessionStore, session_id: str, old: dict[str, Any], runs: dict[int, list[Message]], model: Any
    ) -> dict[str, Any]:
        """The summary with further runs, as it is stored."""
        last, missing = _covered(old)
        reached = max(last, *runs)
        left = await in_thread(lambda: store.unfinished_runs(session_id, upto=reached))
        told = old.get("summary") if isinstance(old.get("summary"), str) else None
        lines = [_line(message) for messages in runs.values() for message in messages]
        summary = await self.extended(told, lines, model)
        summary |= {"updated_at": datetime.now(UTC).isoformat(), "last_run_index": reached}
        summary["model"] = models.name_of(self.model or model)
        late = sorted({index for index in (*left, *missing) if index not in runs})
        if late:
            summary["unfinished_runs"] = late
        await in_thread(lambda: store.save_summary(session_id, summary))
        return summary

    async def of_run(self, store: SessionStore, session_id: str, run_index: int, model: Any = None) -> SessionSummary:
        """A summary of one run alone, however it ended, or of what it said so far. It is not stored.

        Raises:
            BadUsage: nothing was said in it.
        """
        lines = await in_thread(lambda: _lines_of_run(store, session_id, run_index))
        if not lines:
            place = f"{session_id}/{run_index}"
            raise BadUsage(f"Nothing was said in run {place} yet.", f"See what there is with %kern show {place}")
        made = await self.extended(None, lines, model)
        made |= {"updated_at": datetime.now(UTC).isoformat(), "model": models.name_of(self.model or model)}
        return _record(session_id, made).model_copy(update={"run_index": run_index})

    async def extended(
        self, old: str | None, lines: Iterable[str], model: Any = None, *, heading: str = _SINCE
    ) -> dict[str, Any]:
        """The summary and topics of an old summary and of what was said since.

        The model is told at once what it can well take: of more, each answer goes on from the one before.

        Raises:
            SummaryFailed: the model answered nothing.
        """
        made: dict[str, Any] = {"summary": old or "", "topics": []}
        for piece in _pieces(lines):
            made = _parsed(await self._ask(made["summary"], f"{heading}\n{piece}", model))
            if not made["summary"].strip():
                raise SummaryFailed("The model answered with an empty summary.", "Ask again, or ask another model.")
        return made

    async def _ask(self, old: str, new: str, model: Any) -> str:
        from pydantic_ai import Agent

        told = f"The summary so far:\n{old}\n\n{new}" if old else new
        async with models.opened(self.model or model) as opened:
            return (await Agent(opened, instructions=self.prompt).run(told)).output

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


def _runs_since(
    store: SessionStore, session_id: str, session: Session | None, last: int, also: list[int]
) -> dict[int, list[Message]]:
    """What was said in the runs after one and in some before it; a workflow's run is its input and its output."""
    runs = store.history_by_run(session_id, after_run=last, also=also)
    if session is None or session.session_type != "workflow":
        return runs
    frame = store.runs_df(
        session_id, lineage=True, columns=["run_index", "run_id", "run_type", "status", "parent_run_id"]
    )
    is_new = (frame["run_index"] > last) | frame["run_index"].isin(also)
    is_whole = (frame["run_type"] == "workflow") & frame["parent_run_id"].isna() & (frame["status"] == "COMPLETED")
    for run_id in frame["run_id"][is_new & is_whole]:
        run = store.get_run(str(run_id))
        ends = (("user", run.input), ("assistant", run.output))
        runs[run.run_index or 0] = [
            Message(role=role, content=content) for role, content in ends if content is not None
        ]
    return runs


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


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined, together as many as a model can well be told at once."""
    piece: list[str] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > _PORTION:
            yield "\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield "\n".join(piece)


def _lines_of_run(store: SessionStore, session_id: str, run_index: int) -> list[str]:
    """What was said in a run; of one without messages, what it was given and gave."""
    ended = store.history_by_run(session_id, after_run=run_index - 1, before_run=run_index + 1)
    if run_index in ended:
        return [_line(message) for message in ended[run_index]]
    runs = store.runs_df(session_id, lineage=True, columns=["run_index", "run_id"])
    run = store.get_run(str(runs["run_id"][runs["run_index"] == run_index].iloc[0]))
    said = [m for m in run.messages if m.role not in INSTRUCTION_ROLES and not m.from_history]
    if not said:
        ends = (("user", run.input), ("assistant", run.output))
        said = [Message(role=role, content=content) for role, content in ends if content is not None]
    lines = [_line(message) for message in said]
    return lines + ([f"The run ended as {run.status}: {run.error}"] if run.error else [])


def _covered(summary: dict[str, Any]) -> tuple[int, list[int]]:
    """The last run that a summary tells of, and earlier ones that had not ended then."""
    last, missing = summary.get("last_run_index"), summary.get("unfinished_runs")
    known = isinstance(last, int) and isinstance(summary.get("summary"), str)
    return (last if known and isinstance(last, int) else -1), (missing if isinstance(missing, list) else [])


def record(session: Session | None) -> SessionSummary | None:
    """The summary of a session."""
    summary = session.summary if session else None
    if session is None or not summary or not isinstance(summary.get("summary"), str):
        return None
    return _record(session.session_id, summary)


def _record(session_id: str, summary: dict[str, Any]) -> SessionSummary:
    last, _ = _covered(summary)
    model = summary.get("model")
    return SessionSummary(
        summary=summary["summary"],
        topics=_topics(summary),
        updated_at=_time(summary),
        session_id=session_id,
        last_run_index=None if last < 0 else last,
        model=model if isinstance(model, str) else None,
    )


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
    said = message_text(message)
    if said is None and message.content is not None:
        said = json.dumps(message.content, default=str)
    broke_off = " (partial: it broke off)" if message.is_partial else ""
    return f"{message.role}{broke_off}: {(said or '')[:LONGEST]}{calls}"


def _parsed(answer: str) -> dict[str, Any]:
    """The summary and topics of an answer: of the JSON in it, or the answer itself."""
    for start in islice(re.finditer(r"\{", answer), _MOST_STARTS):
        with contextlib.suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(answer, start.start())
            if isinstance(value, dict) and isinstance(value.get("summary"), str):
                return {"summary": value["summary"], "topics": _topics(value)}
    return {"summary": answer.strip(), "topics": []}
