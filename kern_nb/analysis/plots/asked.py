"""`plot`: the frames that a plot is made of, from a store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kern_nb import attached
from kern_nb.analysis.plots.frames import records
from kern_nb.analysis.plots.runs import over_runs
from kern_nb.analysis.plots.tools import tool_use
from kern_nb.analysis.plots.tree import MOST_LANES, branch_tree
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.render.plain import cut

if TYPE_CHECKING:
    from kern_nb.analysis.plots.figure import Plot
    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

KINDS = ("runs", "tools", "tree")
"""Tokens, cost and time over runs; tool calls; sessions and their branches."""

NEWEST = 200
"""So many sessions are looked at where none is named."""


def plot(reference: str | None = None, *, kind: str | None = None, store: str | SessionStore | None = None) -> Plot:
    """Draw a session, or the newest ones.

    Args:
        reference: ``chat``, or a unique prefix of it; of a run, ``chat/2``, only its tools are drawn. The newest
            sessions where None.
        kind: ``runs``, tokens, cost and time over runs (the default); ``tools``, which tools were called; ``tree``,
            the branches of a session, or of the newest ones.
        store: A store or the name of one; the one in use where None.

    Raises:
        BadUsage: there is no such kind, or the kind does not draw what is named.
        SessionNotFound, RunNotFound, AmbiguousReference: it names nothing, or several things.
    """
    kind = KINDS[0] if kind is None else kind
    if kind not in KINDS:
        raise BadUsage(
            f"There is no plot of kind {kind!r}.", did_you_mean(kind, KINDS, f"Kinds are {', '.join(KINDS)}.")
        )
    found = attached.find(store)
    place = None if reference is None else found.locate(reference)
    if place is not None and (place.message_index is not None or (place.run_index is not None and kind != "tools")):
        what = "message" if place.message_index is not None else "run"
        raise BadUsage(f"{str(place)!r} is a {what}; {kind} are drawn of a session.", f"Name it: {place.session_id}")
    drawn = {"runs": _runs, "tools": _tools, "tree": _tree}[kind](found, place)
    return drawn if place is None else drawn.with_notes(f"Of {cut(str(place), 60)}.")


def _newest(store: SessionStore, most: int) -> tuple[list[str], list[str]]:
    """The ids of the newest sessions; and what there is to say about others."""
    page = store.list_sessions(limit=most)
    return [session.session_id for session in page], [f"Of the {most:,} newest sessions."] if page.cursor else []


def _runs(store: SessionStore, place: Reference | None) -> Plot:
    if place is not None:
        return over_runs(store.runs_df(place.session_id, lineage=True))
    ids, notes = _newest(store, NEWEST)
    return over_runs(store.runs_df(ids)).with_notes(*notes)


def _tools(store: SessionStore, place: Reference | None) -> Plot:
    if place is None:
        ids, notes = _newest(store, NEWEST)
        return tool_use(store.tool_calls_df(ids)).with_notes(*notes)
    calls = store.tool_calls_df(place.session_id, lineage=True)
    return tool_use(calls if place.run_index is None else calls[calls["run_index"] == place.run_index])


def _tree(store: SessionStore, place: Reference | None) -> Plot:
    """A session's whole family, the newest families where none is named."""
    branches = store.sql("SELECT session_id, parent_session_id FROM sessions WHERE parent_session_id IS NOT NULL")
    parents = {r["session_id"]: r["parent_session_id"] for r in records(branches, branches.columns)}
    ids, notes = ([place.session_id], []) if place is not None else _newest(store, MOST_LANES)
    family = _family(ids, parents, whole=place is not None)
    sessions = store.sessions_df(family)
    return branch_tree(sessions, store.runs_df(family)).with_notes(*notes)


def _family(ids: list[str], parents: dict[str, str], *, whole: bool) -> list[str]:
    """Sessions with all they come from; and with all that comes from these, where the whole family is meant."""
    found: dict[str, None] = {}
    for one in ids:
        session_id: str | None = one
        while session_id is not None and session_id not in found:
            found[session_id] = None
            session_id = parents.get(session_id)
    if whole:
        children = defaultdict(list)
        for child, parent in parents.items():
            children[parent].append(child)
        line = list(found)
        for session_id in line:  # grows while it is read
            fresh = [child for child in children[session_id] if child not in found]
            found |= dict.fromkeys(fresh)
            line += fresh
    return list(found)
