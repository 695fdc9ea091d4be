"""What people write to name a session, run or message: ``chat``, ``chat/2``, ``chat/2.5``; a unique prefix serves."""

from __future__ import annotations

import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.lineage import find_point, find_run, load_lineage
from kern_nb.db.reads import get_run, require_session, session_row
from kern_nb.db.schema import Tables, newest_first, starts_with
from kern_nb.errors import AmbiguousReference, BadUsage, RunNotFound, SessionNotFound
from kern_nb.records import Run

_RUN = re.compile(r"(?P<session>.+)/(?P<run>\d+|[^/.]+)(?:\.(?P<message>\d+))?\Z", re.DOTALL)


_DIGITS = 18
"""No column holds a number of more digits."""

_NAMED = 5
"""So many candidates are named where a prefix fits several."""


class Reference(NamedTuple):
    """A session, one of its runs, or a message of that run."""

    session_id: str
    run_index: int | None = None
    message_index: int | None = None

    def __str__(self) -> str:
        """As people write it."""
        run = "" if self.run_index is None else f"/{self.run_index}"
        return f"{self.session_id}{run}" + ("" if self.message_index is None else f".{self.message_index}")

    @property
    def place(self) -> int | tuple[int, int] | None:
        """The place, as `SessionStore.branch` takes it."""
        if self.run_index is None or self.message_index is None:
            return self.run_index
        return self.run_index, self.message_index


def locate(connection: Connection, tables: Tables, text: str, user_id: str | None = None) -> Reference:
    """See `SessionStore.locate`. A session whose id holds a slash goes before a run."""
    if session_row(connection, tables, text, user_id) is not None:
        return Reference(text)
    parts = _RUN.match(text)
    if parts is None:
        return Reference(_session(connection, tables, text, user_id))
    try:
        session_id = _session(connection, tables, parts["session"], user_id)
    except SessionNotFound:
        if _with_prefix(connection, tables, text, user_id):
            return Reference(_session(connection, tables, text, user_id))
        raise
    seen = load_lineage(connection, tables, require_session(connection, tables, session_id))
    key = int(parts["run"]) if parts["run"].isdecimal() and len(parts["run"]) <= _DIGITS else parts["run"]
    run = find_run(connection, tables, seen, key)
    message = None if parts["message"] is None else int(parts["message"][:_DIGITS])
    if message is not None:
        find_point(connection, tables, seen, after=(int(run["run_index"]), message), before=None)
    return Reference(session_id, int(run["run_index"]), message)


def find(connection: Connection, tables: Tables, text: str, user_id: str | None = None) -> Run:
    """See `SessionStore.find_run`."""
    place = locate(connection, tables, text, user_id)
    if place.run_index is None:
        raise RunNotFound(f"{text!r} is a session, not a run.", f"Name one of its runs: {place}/0")
    seen = load_lineage(connection, tables, require_session(connection, tables, place.session_id))
    run = get_run(connection, tables, find_run(connection, tables, seen, place.run_index)["run_id"])
    if run.session_id != place.session_id:
        raise BadUsage(f"{place} is inherited: it is a run of {run.session_id!r}.", "Go on with it there.")
    return run


def _session(connection: Connection, tables: Tables, text: str, user_id: str | None) -> str:
    """A session by its id or a unique prefix of it."""
    if session_row(connection, tables, text, user_id) is not None:
        return text
    found = _with_prefix(connection, tables, text, user_id)
    if len(found) == 1:
        return found[0]
    if found:
        candidates = ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise AmbiguousReference(f"{text!r} fits several sessions: {candidates}.", "Write more of the session id.")
    return str(require_session(connection, tables, text, user_id)["session_id"])  # raises, with a hint


def _with_prefix(connection: Connection, tables: Tables, text: str, user_id: str | None) -> list[str]:
    s = tables.sessions
    query = sa.select(s.c.session_id).where(starts_with(s.c.session_id, text))
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    newest = query.order_by(newest_first(s.c.created_at).desc(), s.c.session_id).limit(_NAMED + 1)
    return list(connection.execute(newest).scalars())
