"""`plot`: plots of sessions in a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.analysis.plots.branch_layout import RUN_COLUMNS, SESSION_COLUMNS, limit_with_ancestors
from kern_nb.analysis.plots.runs import COLUMNS, MAX_SESSIONS, over_runs
from kern_nb.analysis.plots.tools import tool_use
from kern_nb.analysis.plots.tree import MAX_NODES, branch_tree
from kern_nb.analysis.selection import format_reference, with_descendants
from kern_nb.control_characters import replace_surrogates
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.text.formatting import truncate

if TYPE_CHECKING:
    from kern_nb.analysis.plots.figure import Plot
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

KINDS = ("runs", "tools", "tree")
"""Tokens, cost and time over runs; tool calls; sessions and their branches."""

NEWEST = 200
"""The number of sessions that are read where none is named."""


def plot(
    reference: ReferenceLike | None = None, *, kind: str | None = None, store: str | SessionStore | None = None
) -> Plot:
    """Plot a session, or the newest sessions.

    Args:
        reference: ``chat``, a unique prefix of it, or a `Session`; with ``kind="tools"`` also a run, ``chat/2``. The
            newest sessions where None.
        kind: ``runs`` for tokens, cost and time over runs (the default); ``tools`` for tool calls; ``tree`` for the
            branches of a session, or of the newest ones.
        store: A store or its name; the current store where None.

    Returns:
        The plot, which displays itself; its data is in ``df``.

    Raises:
        BadUsage: The kind is unknown, or does not take this reference.
        SessionNotFound: No session matches.
        RunNotFound: The session has no such run.
        AmbiguousReference: Several sessions match.
        NoStore: No store has that name, or there is no current store.

    Example:
        >>> from kern_nb import InMemoryDb, Run, Usage, plot
        >>> store = InMemoryDb()
        >>> for tokens in (120, 80):
        ...     usage = Usage(input_tokens=tokens, output_tokens=20)
        ...     _ = store.append_run("chat", Run(input="Hi", output="Hello", usage=usage))
        >>> chart = plot("chat", store=store)
        >>> chart.title
        'Tokens, cost and time over runs'
        >>> chart.df["total_tokens"].tolist()
        [140, 100]
    """
    kind = KINDS[0] if kind is None else kind
    if kind not in KINDS:
        raise BadUsage(f"Unknown plot kind {kind!r}.", did_you_mean(kind, KINDS, f"Kinds are {', '.join(KINDS)}."))
    store = store_registry.find(store)
    draw = {"runs": _plot_runs, "tools": _plot_tools, "tree": _plot_tree}[kind]
    if reference is None:
        return draw(store, None)
    located = store.locate(format_reference(reference))
    is_message, is_run = located.message_index is not None, located.run_index is not None
    if is_message or (is_run and kind != "tools"):
        raise BadUsage(
            f"{str(located)!r} is a {'message' if is_message else 'run'}; a plot of {kind} takes a session.",
            f"Name it: {located.session_id}",
        )
    return draw(store, located).with_notes(f"{'Run' if is_run else 'Session'} {truncate(str(located), 60)}.")


def _newest_ids(store: SessionStore) -> tuple[list[str], bool]:
    """The ids of the newest sessions, and whether there are more."""
    page = store.list_sessions(limit=NEWEST)
    return [session.session_id for session in page], page.cursor is not None


def _plot_runs(store: SessionStore, reference: Reference | None) -> Plot:
    if reference is not None:
        return over_runs(store.runs_df(reference.session_id, columns=COLUMNS, lineage=True))
    ids, has_more = _newest_ids(store)
    runs = store.runs_df(ids, columns=COLUMNS)
    if not has_more:
        return over_runs(runs)
    if runs["session_id"].duplicated().any():  # one line a session: only as many as can be distinguished
        has_runs = set(runs["session_id"])
        ids = [session_id for session_id in ids if session_id in has_runs][:MAX_SESSIONS]
    return over_runs(runs[runs["session_id"].isin(ids)]).with_notes(f"The {len(ids):,} newest sessions.")


def _plot_tools(store: SessionStore, reference: Reference | None) -> Plot:
    columns = ("run_index", "tool_name", "caller", "is_error")
    if reference is None:
        ids, has_more = _newest_ids(store)
        notes = [f"The {len(ids):,} newest sessions."] if has_more else []
        return tool_use(store.tool_calls_df(ids, columns=columns)).with_notes(*notes)
    calls = store.tool_calls_df(reference.session_id, columns=columns, lineage=True)
    return tool_use(calls if reference.run_index is None else calls[calls["run_index"] == reference.run_index])


def _plot_tree(store: SessionStore, reference: Reference | None) -> Plot:
    """Plot a session with its ancestors and their branches; or the newest sessions that have branches or are one."""
    sessions = store.sessions_df(columns=("session_id", "parent_session_id"))
    branches = sessions[sessions["parent_session_id"].notna()]
    parents = dict(zip(branches["session_id"], branches["parent_session_id"], strict=True))
    related = parents.keys() | set(parents.values())
    notes = []
    if reference is not None:
        children: dict[str | None, list[str]] = defaultdict(list)
        for child, parent in parents.items():
            children[parent].append(child)
        ids, order = with_descendants(_ancestors(reference.session_id, parents), children), "the nearest first"
    elif related:
        ids, order = [session_id for session_id in sessions["session_id"] if session_id in related], "the newest first"
        notes = ["Sessions without branches are left out."] if len(ids) < len(sessions) else []
    else:
        ids, order = list(sessions["session_id"]), "the newest"
        notes = ["No session has a branch."] if ids else []
    shown_ids = limit_with_ancestors(ids, lambda session_id: _ancestors(session_id, parents), MAX_NODES)
    if len(shown_ids) < len(ids):
        notes.append(f"{len(shown_ids):,} of {len(ids):,} sessions, {order}.")
    rank = {replace_surrogates(session_id): n for n, session_id in enumerate(shown_ids)}
    nodes = store.sessions_df(shown_ids, columns=SESSION_COLUMNS)
    nodes = nodes.sort_values("session_id", key=lambda column: column.map(rank))
    return branch_tree(nodes, store.runs_df(shown_ids, columns=RUN_COLUMNS)).with_notes(*notes)


def _ancestors(session_id: str, parents: Mapping[str, str]) -> list[str]:
    """A session and its ancestors."""
    chain = {session_id: None}
    while (parent_id := parents.get(next(reversed(chain)))) is not None and parent_id not in chain:
        chain[parent_id] = None
    return list(chain)
