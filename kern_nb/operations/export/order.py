"""Select what is exported, and order it: a parent precedes its branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from kern_nb.analysis.selection import SessionFilter, select_sessions
from kern_nb.batches import batched
from kern_nb.db.lineage import find_run, load_lineage
from kern_nb.db.reads import require_session
from kern_nb.db.references import Reference
from kern_nb.db.schema import sort_time
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore


def select(store: SessionStore, references: Sequence[ReferenceLike], user_id: str | None = None) -> list[Reference]:
    """Return the named sessions and runs, each once; without names all sessions (of a user), oldest first.

    Raises BadUsage if a message is named, or the store is empty.
    """
    if not references:
        parents = _parents(store, [sa.true() if user_id is None else store.tables.sessions.c.user_id == user_id])
        if not parents:
            raise BadUsage(f"{store.url} has no sessions to export.", "List the attached stores with %kern stores.")
        return [Reference(session_id) for session_id in _parents_first(list(parents), parents)]
    selected = select_sessions(store, references, SessionFilter(), user_id)
    session_ids = [reference.session_id for reference in selected if reference.run_index is None]
    runs = [reference for reference in selected if reference.run_index is not None]
    with store.read_connection() as connection:
        for session_id, run_index, _ in runs:  # references of many sessions are resolved without their runs
            visible = load_lineage(connection, store.tables, require_session(connection, store.tables, session_id))
            find_run(connection, store.tables, visible, run_index or 0)
    in_batches = [store.tables.sessions.c.session_id.in_(batch) for batch in batched(session_ids)]
    return [*map(Reference, _parents_first(session_ids, _parents(store, in_batches))), *runs]


def _parents(store: SessionStore, conditions: Sequence[sa.ColumnElement[bool]]) -> dict[str, str | None]:
    """Return the parents of the sessions that fit each condition, oldest first."""
    s = store.tables.sessions
    query = sa.select(s.c.session_id, s.c.parent_session_id).order_by(sort_time(s.c.created_at), s.c.session_id)
    with store.read_connection() as connection:
        rows = [row for condition in conditions for row in connection.execute(query.where(condition))]
    return {row.session_id: row.parent_session_id for row in rows}


def _parents_first(session_ids: Sequence[str], parents: dict[str, str | None]) -> list[str]:
    ordered: dict[str, None] = {}
    selected = set(session_ids)
    for session_id in session_ids:
        chain: dict[str, None] = {}
        link: str | None = session_id
        while link is not None and link in selected and link not in ordered and link not in chain:
            chain[link] = None
            link = parents.get(link)
        ordered |= dict.fromkeys(reversed(chain))
    return list(ordered)
