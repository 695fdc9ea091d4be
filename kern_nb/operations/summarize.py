"""`summarize`: a digest, which is computed; or a model's summary, which is kept with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kern_nb import models, store_registry
from kern_nb.errors import BadUsage, KernError, SummaryFailed
from kern_nb.text.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from kern_nb.analysis.conversation import Named
    from kern_nb.analysis.digest import Digest
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import When
    from kern_nb.db.references import Reference
    from kern_nb.records import SessionSummary
    from kern_nb.runtime.summaries import SessionSummaryManager

__all__ = ["Summaries", "summarize"]

T = TypeVar("T")

_TOGETHER = """\
You are given summaries of several conversations between users and an assistant.
Write for an analyst what they were about, what they have in common, how they ended and where they differ, with names \
and numbers, in a few sentences.
Answer with JSON: {"summary": "...", "topics": ["...", ...]}"""
_HEADING = "Summaries of further conversations:"

_AGAIN = "Call it again, or ask another model."
_GO_ON = f"What was summarized before is kept, and goes on from there. {_AGAIN}"

_AT_ONCE = 4
"""So many sessions are summarized at once; services limit how often they are asked."""

_EVERY_S = 0.1


@dataclass(frozen=True, repr=False)
class Summaries:
    """A model's summaries of several sessions and runs, and one text over all, which is stored nowhere.

    Attributes:
        summary: The text over all.
        topics: Its topics.
        summaries: One each; those of sessions are stored with them.
        without: Sessions that have no run to tell of yet, as a person writes them.
        model: The model that wrote the text.
    """

    summary: str
    topics: tuple[str, ...]
    summaries: tuple[SessionSummary, ...]
    without: tuple[str, ...] = ()
    model: str | None = None

    @property
    def df(self) -> pd.DataFrame:
        """One row a summary, with the fields of `SessionSummary`; topics as one text."""
        from kern_nb.analysis.dataframe import framed

        names = ("session_id", "run_index", "summary", "topics", "last_run_index", "updated_at")
        kinds: dict[str, Any] = dict.fromkeys(names, "text")
        kinds |= {"run_index": "count", "last_run_index": "count", "updated_at": "time"}
        told = [one.model_copy(update={"topics": ", ".join(one.topics)}) for one in self.summaries]
        return framed([tuple(getattr(one, name) for name in names) for one in told], kinds)

    def __repr__(self) -> str:
        from kern_nb.views.summary import summaries_text

        return summaries_text(self)

    def _repr_html_(self) -> str:
        from kern_nb.views.summary import summaries_html

        return summaries_html(self)


@overload
def summarize(
    *references: Named,
    store: SessionStore | str | None = None,
    model: None = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: When | None = None,
    until: When | None = None,
    progress: bool = True,
) -> Digest: ...


@overload
def summarize(
    *references: Named,
    store: SessionStore | str | None = None,
    model: Any,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: When | None = None,
    until: When | None = None,
    progress: bool = True,
) -> SessionSummary | Summaries: ...


def summarize(
    *references: Named,
    store: SessionStore | str | None = None,
    model: Any = None,
    where: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: When | None = None,
    until: When | None = None,
    progress: bool = True,
) -> Digest | SessionSummary | Summaries:
    """Summarize a run, a session, several of either, or the sessions that fit.

    Without a model that is computed: what was asked, how it ended, tools, tokens, cost, time and the longest steps.

    With a model, each session gets a summary that is stored with it, the one that its agents keep up to date and are
    told. It is incremental: the model is given the old summary and the runs since, and is not asked where there are
    none. Runs that have not ended, or not well, are told of once they have. A run that is named is summarized alone,
    however it ended, and nothing is stored. Of several, the model then writes one text over all, which is not stored.

    Args:
        *references: ``"chat"``, ``"chat/2"``, a `Session` or a `Run`.
        store: The store they are in, or its name; the one in use where None.
        model: A name (``"openai:gpt-5.2"``), one of `kern_nb.models`, an agent, whose model it is then, or a
            `SessionSummaryManager` with a model and a prompt of its own.
        where: In place of names, the sessions with these values, ``{"metadata.domain": "airline"}``; the names are
            those of `compare_groups`. Empty, all sessions.
        user_id: Whose sessions: another's are not there. Alone, all of that user's.
        agent_id: In place of names, the sessions of an agent.
        since: In place of names, those created then or later; naive times are UTC.
        until: In place of names, those created before then.
        progress: Whether to show how far a model is, where it takes longer than a moment.

    Returns:
        A `Digest` without a model; with one a `SessionSummary`, or `Summaries` of several.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: a name fits nothing, or several things.
        BadUsage: nothing is named, a message is, nothing fits, there is nothing to summarize, or it is no model.
        ReadOnlyStore: a summary could not be stored; no model was asked.
        SummaryFailed: the model failed. What was stored before stays, and the same call goes on from there.
    """
    from kern_nb.analysis.digest import digest
    from kern_nb.analysis.selection import Fitting, chosen

    if model is None:
        fits = {"where": where, "user_id": user_id, "agent_id": agent_id, "since": since, "until": until}
        return digest(*references, store=store, **fits)  # type: ignore[arg-type]
    from kern_nb.runtime import event_loop

    found = store_registry.find(store)
    manager = _manager(model)
    fitting = Fitting(where=where, agent_id=agent_id, since=since, until=until)
    places = chosen(found, references, fitting, user_id)
    with _Progress(len(places), shown=progress) as bar:
        made: SessionSummary | Summaries = event_loop.run(
            lambda: _summarized(found, places, manager, bar), watch=bar.follow
        )
    return made


class _Progress(Progress):
    """How many sessions are summarized. Counted in the loop's thread, shown in the one that waits."""

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

    def follow(self, future: Future[Any]) -> None:
        """Show how far it is until it has ended."""
        while not future.done():
            self._done = self.ended
            self.look()
            wait([future], timeout=_EVERY_S)


def _manager(model: Any) -> SessionSummaryManager:
    """What asks the model.

    Raises:
        BadUsage: it is of a kind that has no model.
    """
    from kern_nb.runtime.session_owner import SessionOwner
    from kern_nb.runtime.summaries import SessionSummaryManager

    if isinstance(model, SessionSummaryManager):
        return model
    if isinstance(model, SessionOwner):
        if not hasattr(model, "model"):
            raise BadUsage(f"{model!r} has no model of its own.", 'Give one, for example model="openai:gpt-5.2".')
        model = model.model
    return SessionSummaryManager(model)


async def _summarized(
    store: SessionStore, places: Sequence[Reference], manager: SessionSummaryManager, bar: _Progress
) -> SessionSummary | Summaries:
    async def one(place: Reference) -> SessionSummary | None:
        made: SessionSummary | None
        with _Failing(str(place), _GO_ON if place.run_index is None else _AGAIN):
            if place.run_index is not None:
                made = await manager.of_run(store, place.session_id, place.run_index)
                bar.answered()
            else:
                made = await manager.update(store, place.session_id, on_answer=bar.answered)
        bar.ended += 1
        return made

    found = await _at_once([partial(one, place) for place in places])
    made = [summary for summary in found if summary is not None]
    without = tuple(str(place) for place, summary in zip(places, found, strict=True) if summary is None)
    if not made:
        what = without[0] if len(without) == 1 else f"any of the {len(without):,} sessions"
        message = f"There is nothing to summarize in {what}: no run has ended."
        raise BadUsage(message, "Without a model there is a digest of what there is.")
    return made[0] if len(places) == 1 else await _together(made, without, manager)


async def _together(
    made: Sequence[SessionSummary], without: tuple[str, ...], manager: SessionSummaryManager
) -> Summaries:
    """One text over all summaries; of a single one it is that one's."""
    from kern_nb.runtime.summaries import LONGEST, SessionSummaryManager

    name = models.name_of(manager.model)
    if len(made) == 1:
        return Summaries(made[0].summary, tuple(made[0].topics), tuple(made), without, made[0].model)
    lines = [f"{n}. {one.summary[:LONGEST]}" for n, one in enumerate(made, start=1)]
    with _Failing("all together", _GO_ON):
        text = await SessionSummaryManager(manager.model, prompt=_TOGETHER).extended(None, lines, heading=_HEADING)
    return Summaries(text["summary"], tuple(text["topics"]), tuple(made), without, name)


class _Failing:
    """Says of what no summary was made, where the model fails within the block, and what to do then."""

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, KernError):
            raise SummaryFailed(
                f"The summary of {self._what} was not made: {type(error).__name__}: {error}", self._hint
            ) from error


async def _at_once(works: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """What all give, a few at a time. Where one fails or is interrupted, the others end, too."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with gate:
            return await work()

    tasks = [asyncio.ensure_future(one(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
