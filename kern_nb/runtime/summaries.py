"""`SessionSummaryManager`: a model's summary of a session, stored with the session; and a model's title.

Summaries are incremental: the model receives the previous summary and the runs since. ``last_run_index`` is stored
beside the summary.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from kern_nb import models
from kern_nb.batches import group_by_size
from kern_nb.db import SessionStore
from kern_nb.db.reads import INSTRUCTION_ROLES, input_and_output
from kern_nb.errors import BadUsage, ReadOnlyStore, RunFailed, SummaryFailed
from kern_nb.record_methods.summaries import stored_summary, summary_coverage, summary_record, summary_topics
from kern_nb.records import Message, Session, SessionSummary, message_text
from kern_nb.runtime import event_loop
from kern_nb.runtime.event_loop import in_thread

_PROMPT = """\
You keep the summary of a conversation between a user and an assistant, for the assistant to go on from.
Write what was asked, found, decided and left open, with names and numbers, in a few sentences.
Answer with JSON: {"summary": "...", "topics": ["...", ...]}"""

_TITLE_PROMPT = "Give this conversation a title of at most six words. Answer with the title alone."
_TITLE_INPUT_CHARACTERS = 2_000
_TITLE_CHARACTERS = 80

_NEW_RUNS_HEADING = "New messages:"

MAX_MESSAGE_CHARACTERS = 4_000  # of a message are summarized
_BATCH_CHARACTERS = 60_000  # are in one request
_MAX_JSON_STARTS = 100  # braces at which JSON is tried to be read: each attempt may scan the whole answer

MAX_WAIT_S = 10
"""How long a run waits for the summary that its model is to be sent; after that, it is sent the stored one."""

_log = logging.getLogger("kern_nb")


class SessionSummaryManager:
    """Creates and stores the summaries of sessions.

    Args:
        model: The model that writes them; the agent's own where None.
        prompt: The instructions of the model; a default prompt where None. It should ask for JSON with ``summary`` and
            ``topics``; any other answer is used as the summary.
    """

    def __init__(self, model: Any = None, *, prompt: str | None = None) -> None:
        self.model = model
        self.prompt = prompt or _PROMPT
        self._pending: WeakKeyDictionary[SessionStore, dict[str, Future[None]]] = WeakKeyDictionary()

    def start(self, store: SessionStore, session_id: str, model: Any) -> Future[None]:
        """Update the summary in the background."""
        pending = self._pending.setdefault(store, {})
        previous = pending.get(session_id)

        async def work() -> None:
            if previous is not None:  # in sequence, so that each extends the previous one
                await asyncio.wrap_future(previous)
            try:
                await self.update(store, session_id, model)
            except Exception as error:  # noqa: BLE001 - a summary that fails must not fail the run it follows
                _log.warning("The summary of session %s failed: %s", session_id, error)

        pending[session_id] = future = event_loop.start(work)
        return future

    def wait(self, store: SessionStore, session_id: str) -> None:
        """Wait for a summary that is being written."""
        pending = self._pending.get(store, {}).pop(session_id, None)
        if pending is not None:
            pending.result()

    async def wait_async(self, store: SessionStore, session_id: str) -> None:
        """Wait a few seconds for a summary that is being written, which continues if the caller goes on without it."""
        pending = self._pending.get(store, {}).get(session_id)
        if pending is not None:
            await asyncio.wait([asyncio.wrap_future(pending)], timeout=MAX_WAIT_S)

    async def update(
        self, store: SessionStore, session_id: str, model: Any = None, *, on_answer: Callable[[], None] | None = None
    ) -> SessionSummary | None:
        """Extend the summary by the runs since it was written; None where there is nothing to summarize.

        Args:
            store: The store of the session.
            session_id: The session.
            model: The model that writes it, where the manager has none of its own.
            on_answer: Called after each part that was summarized and stored.

        Raises:
            SessionNotFound: there is no such session.
            ReadOnlyStore: there are new runs, and the store is read-only; the model is not called.
        """
        session = await in_thread(lambda: store.get_session(session_id, runs=False))
        old = (session.summary if session else None) or {}
        last, unfinished = summary_coverage(old)
        new = await in_thread(lambda: store.history_by_run(session_id, after_run=last, also=unfinished))
        if not new:
            current = parse_summary(session)
            return current.model_copy(update={"runs_since": 0}) if current else None
        if store.read_only:
            raise ReadOnlyStore(
                f"Cannot store a summary of {session_id!r}: {store.url} is open read-only; the model was not called.",
                "Attach it without --read-only, or digest it without a model.",
            )
        summary = old
        for indexes in group_by_size(
            sorted(new), lambda index: sum(len(_line(m)) for m in new[index]), _BATCH_CHARACTERS
        ):
            batch = {index: new[index] for index in indexes}  # each is stored, so that a failure loses no other
            summary = await self._update_batch(store, session_id, summary, batch, model)
            if on_answer is not None:
                on_answer()
        return summary_record(session_id, summary).model_copy(update={"runs_since": 0})

    async def _update_batch(
        self, store: SessionStore, session_id: str, old: dict[str, Any], runs: dict[int, list[Message]], model: Any
    ) -> dict[str, Any]:
        """Extend the summary by a batch of runs, and store it."""
        last, unfinished = summary_coverage(old)
        reached = max(last, *runs)
        new_unfinished = await in_thread(lambda: store.unfinished_runs(session_id, upto=reached))
        text = old.get("summary") if isinstance(old.get("summary"), str) else None
        lines = [_line(message) for messages in runs.values() for message in messages]
        summary = await self.extend(text, lines, model)
        summary |= {"updated_at": datetime.now(UTC).isoformat(), "last_run_index": reached}
        summary["model"] = models.model_name(self.model or model)
        if unfinished_runs := sorted({index for index in (*new_unfinished, *unfinished) if index not in runs}):
            summary["unfinished_runs"] = unfinished_runs
        await in_thread(lambda: store.save_summary(session_id, summary))
        return summary

    async def summarize_run(
        self, store: SessionStore, session_id: str, run_index: int, model: Any = None
    ) -> SessionSummary:
        """Summarize one run, whatever its status; arguments as for `update`. The summary is not stored.

        Raises:
            BadUsage: the run has no messages.
        """
        lines = await in_thread(lambda: _lines_of_run(store, session_id, run_index))
        if not lines:
            ref = f"{session_id}/{run_index}"
            raise BadUsage(f"Run {ref} has no messages.", f"Show it with %kern show {ref}")
        summary = await self.extend(None, lines, model)
        summary |= {"updated_at": datetime.now(UTC).isoformat(), "model": models.model_name(self.model or model)}
        return summary_record(session_id, summary).model_copy(update={"run_index": run_index})

    async def extend(
        self, old: str | None, lines: Iterable[str], model: Any = None, *, heading: str = _NEW_RUNS_HEADING
    ) -> dict[str, Any]:
        """Extend a summary by lines of text, in several requests if they are long; its ``summary`` and ``topics``.

        Args:
            old: The summary to extend.
            lines: The new text.
            model: The model that writes it, where the manager has none of its own.
            heading: The heading of the new text in the request.

        Raises:
            SummaryFailed: the model's answer is empty.
        """
        from pydantic_ai import Agent

        summary: dict[str, Any] = {"summary": old or "", "topics": []}
        for batch in group_by_size(lines, len, _BATCH_CHARACTERS):
            request = "\n".join([heading, *batch])
            if previous := summary["summary"]:
                request = f"The summary so far:\n{previous}\n\n{request}"
            async with models.open_model(self.model or model) as opened:
                result = await Agent(opened, instructions=self.prompt).run(request)
            summary = _parse_answer(result.output)
            if not summary["summary"].strip():
                raise SummaryFailed("The model answered with an empty summary.", "Try again, or use another model.")
        return summary

    async def ensure_covers(self, store: SessionStore, session_id: str, runs: set[int], model: Any) -> str | None:
        """Return the text of a summary that covers the runs, after an update if necessary; None where that fails."""
        session = await in_thread(lambda: store.get_session(session_id, runs=False))
        last, unfinished = summary_coverage((session.summary if session else None) or {})
        if any(run > last or run in unfinished for run in runs):
            try:
                await self.update(store, session_id, model)
            except Exception as error:  # noqa: BLE001 - the run continues without it
                _log.warning("The summary of the older runs of session %s failed: %s", session_id, error)
            session = await in_thread(lambda: store.get_session(session_id, runs=False))
        return self.text_of(session)

    @staticmethod
    def text_of(session: Session | None) -> str | None:
        """Return the text of a session's summary."""
        summary = parse_summary(session)
        return summary.summary if summary else None


def _lines_of_run(store: SessionStore, session_id: str, run_index: int) -> list[str]:
    """Return the messages of a run as lines; of one without messages, its input and output."""
    ended = store.history_by_run(session_id, after_run=run_index - 1, before_run=run_index + 1)
    if run_index in ended:
        return [_line(message) for message in ended[run_index]]
    runs = store.runs_df(session_id, lineage=True, columns=["run_index", "run_id"])
    run = store.get_run(str(runs["run_id"][runs["run_index"] == run_index].iloc[0]))
    messages = [m for m in run.messages if m.role not in INSTRUCTION_ROLES and not m.from_history]
    lines = [_line(message) for message in messages or input_and_output(run)]
    return lines + ([f"The run ended as {run.status}: {run.error}"] if run.error else [])


def parse_summary(session: Session | None) -> SessionSummary | None:
    """Return the summary of a session as a record; None without one."""
    return None if session is None else stored_summary(session.session_id, session.summary)


def _line(message: Message) -> str:
    calls = "".join(f" [calls {call.tool_name}]" for call in message.tool_calls)
    text = message_text(message)
    if text is None and message.content is not None:
        text = json.dumps(message.content, default=str)
    partial = " (partial: it broke off)" if message.is_partial else ""
    return f"{message.role}{partial}: {(text or '')[:MAX_MESSAGE_CHARACTERS]}{calls}"


def _parse_answer(answer: str) -> dict[str, Any]:
    """Parse the summary and topics of an answer: its JSON, or else the whole answer."""
    for start in islice(re.finditer(r"\{", answer), _MAX_JSON_STARTS):
        with contextlib.suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(answer, start.start())
            if isinstance(value, dict) and isinstance(value.get("summary"), str):
                return {"summary": value["summary"], "topics": summary_topics(value)}
    return {"summary": answer.strip(), "topics": []}


async def generate_title(store: SessionStore, session_id: str, model: Any, user_id: str | None = None) -> str:
    """Let a model write a title from the beginning of a session.

    Raises:
        SessionNotFound: there is no such session of the user.
        BadUsage: the model cannot be used.
        RunFailed: the model failed.
    """
    from pydantic_ai import Agent

    history = await in_thread(lambda: store.history(session_id, user_id=user_id))
    text = "\n".join(f"{message.role}: {message_text(message) or ''}" for message in history)
    async with models.open_model(model) as opened:
        try:
            agent = Agent(opened, instructions=_TITLE_PROMPT)
            result = await agent.run(text[:_TITLE_INPUT_CHARACTERS] or "(no messages)")
        except Exception as error:
            message = f"The model failed to title session {session_id!r}: {type(error).__name__}: {error}"
            raise RunFailed(message, "Set a title yourself: agent.set_session_name('...')") from error
    first_line = next(iter(result.output.strip().splitlines()), "")
    return first_line.strip().strip("\"'").strip()[:_TITLE_CHARACTERS] or "Untitled"
