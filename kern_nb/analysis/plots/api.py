"""`plot`: the frames that a plot is made of, from a store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.analysis.conversation import reference_of, spelled
from kern_nb.analysis.plots.branch_layout import RUNS, SESSIONS
from kern_nb.analysis.plots.runs import COLUMNS, MOST_SESSIONS, over_runs
from kern_nb.analysis.plots.tools import tool_use
from kern_nb.analysis.plots.tree import MOST_LANES, branch_tree
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.text.formatting import truncate

if TYPE_CHECKING:
    from kern_nb.analysis.conversation import Named
    from kern_nb.analysis.plots.figure import Plot
    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

KINDS = ("runs", "tools", "tree")
"""Tokens, cost and time over runs; tool calls; sessions and their branches."""

NEWEST = 200
"""So many sessions are looked at where none is named."""


def plot(reference: Named | None = None, *, kind: str | None = None, store: str | SessionStore | None = None) -> Plot:
    """Draw a session, or the newest ones.

    Args:
        reference: ``chat``, or a unique prefix of it, or a `Session`; of a run, ``chat/2``, only its tools are drawn.
            The newest sessions where None.
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
    found = store_registry.find(store)
    place = None if reference is None else found.locate(reference_of(reference))
    if place is not None and (place.message_index is not None or (place.run_index is not None and kind != "tools")):
        what = "message" if place.message_index is not None else "run"
        raise BadUsage(f"{str(place)!r} is a {what}; {kind} are drawn of a session.", f"Name it: {place.session_id}")
    drawn = {"runs": _runs, "tools": _tools, "tree": _tree}[kind](found, place)
    return drawn if place is None else drawn.with_notes(f"Of {truncate(str(place), 60)}.")


def _newest(store: SessionStore, most: int) -> tuple[list[str], bool]:
    """The ids of the newest sessions, and whether there are more."""
    page = store.list_sessions(limit=most)
    return [session.session_id for session in page], page.cursor is not None


def _runs(store: SessionStore, place: Reference | None) -> Plot:
    if place is not None:
        return over_runs(store.runs_df(place.session_id, columns=COLUMNS, lineage=True))
    ids, has_more = _newest(store, NEWEST)
    runs = store.runs_df(ids, columns=COLUMNS)
    if not has_more:
        return over_runs(runs)
    if runs["session_id"].duplicated().any():  # a line each, of as many as can be told apart
        has_runs = set(runs["session_id"])
        ids = [session_id for session_id in ids if session_id in has_runs][:MOST_SESSIONS]
    return over_runs(runs[runs["session_id"].isin(ids)]).with_notes(f"The {len(ids):,} newest sessions.")


def _tools(store: SessionStore, place: Reference | None) -> Plot:
    columns = ("run_index", "tool_name", "caller", "is_error")
    if place is None:
        ids, has_more = _newest(store, NEWEST)
        notes = [f"Of the {len(ids):,} newest sessions."] if has_more else []
        return tool_use(store.tool_calls_df(ids, columns=columns)).with_notes(*notes)
    calls = store.tool_calls_df(place.session_id, columns=columns, lineage=True)
    return tool_use(calls if place.run_index is None else calls[calls["run_index"] == place.run_index])


def _tree(store: SessionStore, place: Reference | None) -> Plot:
    """A session's whole family; or, of the newest sessions, those that have branches or are one."""
    known = store.sessions_df(columns=("session_id", "parent_session_id"))
    branches = known[known["parent_session_id"].notna()]
    parents = dict(zip(branches["session_id"], branches["parent_session_id"], strict=True))
    related = parents.keys() | set(parents.values())
    notes = []
    if place is not None:
        family, order = _family(place.session_id, parents), "the nearest first"
    elif related:
        family, order = [one for one in known["session_id"] if one in related], "the newest first"
        notes = ["Sessions without branches are left out."] if len(family) < len(known) else []
    else:
        family, order = list(known["session_id"]), "the newest"
        notes = ["No session has a branch."] if family else []
    ids = _with_parents(family, parents)
    if len(ids) < len(family):
        notes.append(f"{len(ids):,} of {len(family):,} sessions, {order}.")
    rank = {spelled(session_id): place for place, session_id in enumerate(ids)}
    sessions = store.sessions_df(ids, columns=SESSIONS).sort_values("session_id", key=lambda column: column.map(rank))
    return branch_tree(sessions, store.runs_df(ids, columns=RUNS)).with_notes(*notes)


def _line(session_id: str, parents: dict[str, str]) -> list[str]:
    """A session and all that it comes from."""
    line = {session_id: None}
    while (parent_id := parents.get(next(reversed(line)))) is not None and parent_id not in line:
        line[parent_id] = None
    return list(line)


def _with_parents(ids: list[str], parents: dict[str, str]) -> list[str]:
    """The first of these, each with what it comes from; no more than are drawn."""
    kept: dict[str, None] = {}
    for session_id in ids:
        more = kept | dict.fromkeys(_line(session_id, parents)[:MOST_LANES])
        kept = more if len(more) <= MOST_LANES else kept
        if len(kept) == MOST_LANES:
            break
    return list(kept)


def _family(session_id: str, parents: dict[str, str]) -> list[str]:
    """A session, all that it comes from, and then all that comes from these."""
    children = defaultdict(list)
    for child, parent in parents.items():
        children[parent].append(child)
    line = _line(session_id, parents)
    found = set(line)
    for one in line:  # grows while it is read
        fresh = [child for child in children[one] if child not in found]
        found.update(fresh)
        line += fresh
    return line
