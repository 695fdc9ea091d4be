"""`summarize`: a digest, which is computed; or a model's summary, which is stored with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from kern_nb import models, store_registry
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, KernError, SummaryFailed
from kern_nb.text.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from kern_nb.analysis.digest import Digest
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import TimeLike
    from kern_nb.db.references import Reference
    from kern_nb.records import SessionSummary
    from kern_nb.runtime.summaries import SessionSummaryManager

_OVERALL = """\
You are given summaries of several conversations between users and an assistant.
Write for an analyst what they were about, what they have in common, how they ended and where they differ, with names \
and numbers, in a few sentences.
Answer with JSON: {"summary": "...", "topics": ["...", ...]}"""
_HEADING = "Summaries of further conversations:"

_RETRY = "Retry, or use another model."
_CONTINUE = f"Summaries made before are stored; the next call continues from them. {_RETRY}"

_CONCURRENCY = 4  # sessions at once; services limit the rate of requests
_INTERVAL_S = 0.1


@dataclass(frozen=True, repr=False)
class Summaries(DisplayMixin):
    """A model's summaries of several sessions and runs, and one overall summary, which is not stored.

    Attributes:
        summary: The overall summary.
        topics: Its topics.
        summaries: One per session or run; those of sessions are stored with them.
        without: References of sessions without a finished run.
        model: The model that wrote the overall summary.
    """

    _view = "kern_nb.views.summary:summaries"

    summary: str
    topics: tuple[str, ...]
    summaries: tuple[SessionSummary, ...]
    without: tuple[str, ...] = ()
    model: str | None = None

    @property
    def df(self) -> pd.DataFrame:
        """One row per summary, with the fields of `SessionSummary`; topics as one text."""
        from kern_nb.analysis.dataframe import build_frame

        names = ("session_id", "run_index", "summary", "topics", "last_run_index", "updated_at")
        kinds: dict[str, Any] = dict.fromkeys(names, "text")
        kinds |= {"run_index": "count", "last_run_index": "count", "updated_at": "time"}
        rows = [summary.model_copy(update={"topics": ", ".join(summary.topics)}) for summary in self.summaries]
        return build_frame([tuple(getattr(row, name) for name in names) for row in rows], kinds)


@overload
def summarize(
    *references: ReferenceLike,
    store: SessionStore | str | None = None,
    model: None = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    progress: bool = True,
) -> Digest: ...


@overload
def summarize(
    *references: ReferenceLike,
    store: SessionStore | str | None = None,
    model: Any,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    progress: bool = True,
) -> SessionSummary | Summaries: ...


def summarize(
    *references: ReferenceLike,
    store: SessionStore | str | None = None,
    model: Any = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    progress: bool = True,
) -> Digest | SessionSummary | Summaries:
    """Summarize a run, a session, several of either, or the sessions that match filters.

    Without a model, the result is computed: inputs, outcomes, tools, tokens, cost, time and the longest steps.

    With a model, each session gets a summary that is stored with it, the same one that its agents keep and receive. It
    is incremental: the model receives the old summary and the runs since then, and is not called without new runs. Runs
    that are unfinished or failed are included once they are completed. A run named by its reference is summarized
    alone, however it ended, and its summary is not stored. For several, the model also writes an overall summary, which
    is not stored.

    Args:
        *references: ``"chat"``, ``"chat/2"``, a `Session` or a `Run`.
        store: The store or its name; by default the one in use.
        model: A name (``"openai:gpt-5.2"``), an object of `kern_nb.models`, an agent, whose model is used, or a
            `SessionSummaryManager` with its own model and prompt.
        where: Instead of references, the sessions with these values, ``{"metadata.domain": "airline"}``, named as in
            `compare_groups`. If empty, all sessions.
        user_id: Only sessions of this user; alone, all of them.
        agent_id: Instead of references, the sessions of an agent.
        since: Instead of references, sessions created then or later; naive times are UTC.
        until: Instead of references, sessions created before then.
        progress: Whether to show the progress of a model after a moment.

    Returns:
        A `Digest` without a model; with one a `SessionSummary`, or `Summaries` of several.

    Raises:
        SessionNotFound: A reference names no session.
        RunNotFound: A reference names no run.
        AmbiguousReference: A reference names several.
        BadUsage: No session is named or matches, a message is named, no run is finished, or the model is invalid.
        ReadOnlyStore: The store cannot store a summary; no model was called.
        SummaryFailed: The model failed. Earlier summaries stay stored, and the same call continues from them.

    Example:
        >>> from kern_nb import Run, summarize
        >>> from kern_nb.db import InMemoryDb
        >>> store = InMemoryDb()
        >>> run = store.append_run("chat", Run(input="Hi", output="Hello"))
        >>> summarize("chat", store=store).output
        'Hello'
    """
    from kern_nb.analysis.digest import digest
    from kern_nb.analysis.selection import SessionFilter, select_sessions

    if model is None:
        return digest(
            *references, store=store, where=where, user_id=user_id, agent_id=agent_id, since=since, until=until
        )
    from kern_nb.runtime import event_loop

    opened = store_registry.find(store)
    manager = _manager(model)
    fitting = SessionFilter(where=where, agent_id=agent_id, since=since, until=until)
    targets = select_sessions(opened, references, fitting, user_id)
    with _Progress(len(targets), shown=progress) as bar:
        return event_loop.run(lambda: _summarize(opened, targets, manager, bar), watch=bar.follow)


class _Progress(Progress):
    """The number of summarized sessions, counted in the loop's thread and shown in the waiting one."""

    def __init__(self, total: int, *, shown: bool) -> None:
        super().__init__(total, shown=shown)
        self.answers = self.ended = 0

    def line(self, bar: str) -> str:
        return f"{bar} {self.ended:,} of {self._total:,} summarized, {self.answers:,} answers"

    def summary(self, took: float) -> str:
        return f"Summarized {self.ended:,} of {self._total:,} in {took:.1f} s, with {self.answers:,} answers."

    def answered(self) -> None:
        """Count an answer of the model."""
        self.answers += 1

    def follow(self, future: Future[SessionSummary | Summaries]) -> None:
        """Show the progress until the future is done."""
        while not future.done():
            self._done = self.ended
            self.look()
            wait([future], timeout=_INTERVAL_S)


def _manager(model: Any) -> SessionSummaryManager:
    """Return the manager that calls the model; raise BadUsage for a workflow without one."""
    from kern_nb.runtime.session_owner import SessionOwner
    from kern_nb.runtime.summaries import SessionSummaryManager

    if isinstance(model, SessionSummaryManager):
        return model
    if isinstance(model, SessionOwner):
        own = getattr(model, "model", None)
        if own is None and model.session_type == "workflow":  # an agent without one has the default model
            raise BadUsage(f"{model!r} has no model.", 'Pass one, for example model="openai:gpt-5.2".')
        model = own
    return SessionSummaryManager(model)


async def _summarize(
    store: SessionStore, targets: Sequence[Reference], manager: SessionSummaryManager, bar: _Progress
) -> SessionSummary | Summaries:
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def summarize_target(target: Reference) -> SessionSummary | None:
        summary: SessionSummary | None
        async with gate:
            with _translate_errors(str(target), _CONTINUE if target.run_index is None else _RETRY):
                if target.run_index is not None:
                    summary = await manager.summarize_run(store, target.session_id, target.run_index)
                    bar.answered()
                else:
                    summary = await manager.update(store, target.session_id, on_answer=bar.answered)
            bar.ended += 1
            return summary

    tasks = [asyncio.ensure_future(summarize_target(target)) for target in targets]
    try:
        results = await asyncio.gather(*tasks)
    except BaseException:  # one failed, or all are interrupted: the others end
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    summaries = [summary for summary in results if summary is not None]
    without = tuple(str(target) for target, summary in zip(targets, results, strict=True) if summary is None)
    if not summaries:
        subject = without[0] if len(without) == 1 else f"any of the {len(without):,} sessions"
        raise BadUsage(f"No finished run to summarize in {subject}.", "Call summarize without a model for a digest.")
    return summaries[0] if len(targets) == 1 else await _combine(summaries, without, manager)


async def _combine(
    summaries: Sequence[SessionSummary], without: tuple[str, ...], manager: SessionSummaryManager
) -> Summaries:
    """Return the summaries with an overall one; for a single summary that is its text."""
    from kern_nb.runtime.summaries import MAX_MESSAGE_CHARACTERS, SessionSummaryManager

    if len(summaries) == 1:
        only = summaries[0]
        return Summaries(only.summary, tuple(only.topics), (only,), without, only.model)
    lines = [f"{n}. {summary.summary[:MAX_MESSAGE_CHARACTERS]}" for n, summary in enumerate(summaries, start=1)]
    with _translate_errors("all sessions together", _CONTINUE):
        text = await SessionSummaryManager(manager.model, prompt=_OVERALL).extend(None, lines, heading=_HEADING)
    name = models.model_name(manager.model)
    return Summaries(text["summary"], tuple(text["topics"]), tuple(summaries), without, name)


@contextmanager
def _translate_errors(subject: str, hint: str) -> Iterator[None]:
    """Raise SummaryFailed, with the subject and the next step, where the model fails within the block."""
    try:
        yield
    except KernError:
        raise
    except Exception as error:
        message = f"Could not summarize {subject}: {type(error).__name__}: {error}"
        raise SummaryFailed(message, hint) from error
