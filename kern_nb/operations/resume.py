"""Going on with a run from a line: which run is meant, in which store, and by which agent of the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.errors import BadUsage, KernError, NoStore, RequirementNotFound, SessionNotFound
from kern_nb.operations import agent_registry
from kern_nb.operations.inbox import find_requirement
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.views.requirements import continue_line

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run
    from kern_nb.runtime.session_owner import SessionOwner

UNFINISHED = ("PAUSED", "INTERRUPTED", "RUNNING")
"""Of these runs a session's reference may mean one; one that still runs somewhere is refused when it is claimed."""


def continue_run(reference: str, *, agent: str | None = None, store: str | SessionStore | None = None) -> Run:
    """Go on with a run that paused and has its answers, or that was interrupted.

    Args:
        reference: The run (``chat/2``), its session where only one run of it did not end, or what the run waits for.
        agent: Who goes on: a variable of the notebook, an id or a name; the one whose run it is where None.
        store: Where the run is; an agent without a ``db`` of its own goes on there. Where None, the named agent's
            store, else the one in use, else that of any agent here.

    Returns:
        The run, completed or paused again.

    Raises:
        BadUsage: no agent here fits, or it keeps its runs in another store.
        SessionNotFound, RunNotFound: there is no such run.
        StillWaiting, AlreadyClaimed, RunClosed: it cannot be gone on with; see `SessionStore.claim_run`.
    """
    named = None if agent is None else agent_registry.find(agent)
    found, place = _find(reference, _stores(named, store))
    runner = named or _whose(place, found)
    if store is not None and runner.db is None:
        runner = runner.variant(db=found)  # an agent without a store of its own goes on in the one that is named
    if not is_same_store(runner.store, found):
        raise BadUsage(
            f"Run {place} is in {found.url}, and {runner!r} keeps its runs in {runner.store.url}.",
            "Use the run's store: %kern use NAME" if runner.db is None else "Name an agent with that db: --agent NAME",
        )
    return runner.continue_run(place.run_id, session_id=place.session_id)


def _stores(named: SessionOwner | None, store: str | SessionStore | None) -> list[SessionStore]:
    """Where to look, in this order."""
    if store is not None:
        return [store_registry.find(store)]
    if named is not None:
        return [named.store]
    found: list[SessionStore] = []
    try:
        found.append(store_registry.current_store())
    except NoStore:
        if not agent_registry.notebook_agents():
            raise
    found += [one.store for one in agent_registry.notebook_agents().values()]
    return found


def _find(reference: str, stores: list[SessionStore]) -> tuple[SessionStore, RunEntry]:
    """The first store that has such a run."""
    missing: KernError | None = None
    for store in stores:
        try:
            return store, _located(store, reference)
        except SessionNotFound as error:
            missing = missing or error
    raise missing or NoStore("No store is attached.", "Attach one, for example: %kern attach sessions.duckdb")


def _located(store: SessionStore, reference: str) -> RunEntry:
    try:
        place = store.locate(reference)
    except SessionNotFound as error:
        try:
            requirement = find_requirement(store, reference)
        except RequirementNotFound:
            raise error from None
        return _top(RunIndex(store, [requirement.session_id]), requirement.run_id, reference)
    places = RunIndex(store, [place.session_id])
    if place.run_index is None:
        return _unfinished(places, place.session_id)
    df = store.runs_df(place.session_id, lineage=True)
    row = df[df["run_index"] == place.run_index].iloc[0]
    if row["session_id"] != place.session_id:
        origin = f"{row['session_id']}/{place.run_index}"
        raise BadUsage(
            f"Run {place.session_id}/{place.run_index} is inherited: it belongs to {row['session_id']}.",
            f"Go on with it there: {continue_line(origin)}",
        )
    return _top(places, row["run_id"], reference)


def _top(places: RunIndex, run_id: str | None, reference: str) -> RunEntry:
    """The run itself; of a member's run, its team's."""
    found = places.top_level(run_id)
    if found is None:  # deleted in between
        raise SessionNotFound(f"There is no run {reference!r}.", "See %kern load runs.")
    return found


def _unfinished(places: RunIndex, session_id: str) -> RunEntry:
    """The one run of a session that did not end."""
    found = [one for one in places.all() if one.parent_run_id is None and one.status in UNFINISHED]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadUsage(f"No run of {session_id} waits or was interrupted.", f"See its runs: %kern show {session_id}")
    several = ", ".join(f"{one} {one.status}" for one in found)
    raise BadUsage(
        f"{session_id} has several runs that did not end: {several}.", f"Name one: {continue_line(str(found[-1]))}"
    )


def _whose(place: RunEntry, store: SessionStore) -> SessionOwner:
    """The agent of the notebook whose run it is."""
    here = agent_registry.notebook_agents()
    fitting = {name: one for name, one in here.items() if place.owner in (one.id, one.name)}
    fitting = {name: one for name, one in fitting.items() if is_same_store(one.store, store)} or fitting
    if len({id(one) for one in fitting.values()}) == 1:
        return next(iter(fitting.values()))
    name = next(iter(fitting or here), "NAME")
    hint = f"Name one: {continue_line(str(place), name)}"
    if fitting:
        raise BadUsage(f"Several agents here are {place.owner!r}: {', '.join(fitting)}.", hint)
    there = f"agents here: {', '.join(here)}" if here else "there is no agent here"
    raise BadUsage(f"Run {place} is of {place.owner!r}, and {there}.", hint if here else agent_registry.CREATE_HINT)


def is_same_store(one: SessionStore, other: SessionStore) -> bool:
    """Whether two stores are one place."""
    return one is other or (
        ":memory:" not in one.url and (one.database, one.tables.name) == (other.database, other.tables.name)
    )
