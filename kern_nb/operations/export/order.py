"""What is exported, and in which order: a parent comes before its branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from kern_nb.db.lineage import find_run, load_lineage
from kern_nb.db.reads import require_session
from kern_nb.db.references import Reference
from kern_nb.db.schema import sort_time
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore


_AT_ONCE = 5_000
"""So many parameters every engine takes."""


def chosen(store: SessionStore, references: Sequence[ReferenceLike], user_id: str | None = None) -> list[Reference]:
    """The sessions and runs that are named, each once; all sessions (of a user), oldest first, where none is.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: a name fits nothing, or several things.
        BadUsage: a message is named, or the store is empty.
    """
    if not references:
        every = _parents(store, user_id=user_id)
        if not every:
            raise BadUsage(
                f"{store.url} has no sessions.", "There is nothing to export; %kern stores lists the stores."
            )
        return [Reference(session_id) for session_id in _parents_first(list(every), every)]
    places = _named(store, references, user_id)
    wanted = [place.session_id for place in places if place.run_index is None]
    runs = [place for place in places if place.run_index is not None]
    _require_runs(store, runs)
    return [*map(Reference, _parents_first(wanted, _parents(store, wanted))), *runs]


def _named(store: SessionStore, references: Sequence[ReferenceLike], user_id: str | None) -> list[Reference]:
    from kern_nb.analysis.selection import SessionFilter
    from kern_nb.analysis.selection import select_sessions as located

    return located(store, references, SessionFilter(), user_id)


def _require_runs(store: SessionStore, places: Sequence[Reference]) -> None:
    """See that there are such runs: names of many sessions are looked up together, without their runs.

    Raises:
        RunNotFound: there is one that is not.
    """
    with store.read_connection() as connection:
        for session_id, run_index, _ in places:
            seen = load_lineage(connection, store.tables, require_session(connection, store.tables, session_id))
            find_run(connection, store.tables, seen, run_index or 0)


def _parents(
    store: SessionStore, ids: Sequence[str] | None = None, *, user_id: str | None = None
) -> dict[str, str | None]:
    """The parents of sessions; of all, oldest first, where None are named."""
    s = store.tables.sessions
    query = sa.select(s.c.session_id, s.c.parent_session_id).order_by(sort_time(s.c.created_at), s.c.session_id)
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    found: dict[str, str | None] = {}
    with store.read_connection() as connection:
        for some in [None] if ids is None else [ids[i : i + _AT_ONCE] for i in range(0, len(ids), _AT_ONCE)]:
            narrowed = query if some is None else query.where(s.c.session_id.in_(some))
            found |= {row.session_id: row.parent_session_id for row in connection.execute(narrowed)}
    return found


def _parents_first(wanted: Sequence[str], parents: dict[str, str | None]) -> list[str]:
    placed: dict[str, None] = {}
    selected = set(wanted)
    for session_id in wanted:
        chain: dict[str, None] = {}
        link: str | None = session_id
        while link is not None and link in selected and link not in placed and link not in chain:
            chain[link] = None
            link = parents.get(link)
        placed |= dict.fromkeys(reversed(chain))
    return list(placed)
