"""References that a person writes to a session, run or message: ``chat``, ``chat/2``, ``chat/2.5``, or a prefix."""

from __future__ import annotations

import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.lineage import find_run, load_lineage, resolve_branch_point
from kern_nb.db.reads import get_run, require_session, session_row
from kern_nb.db.schema import Tables, sort_time, starts_with
from kern_nb.errors import AmbiguousReference, BadUsage, RunNotFound, SessionNotFound
from kern_nb.records import Run

_RUN = re.compile(r"(?P<session>.+)/(?P<run>\d+|[^/.]+)(?:\.(?P<message>\d+))?\Z", re.DOTALL)

_MAX_DIGITS = 18
"""No column holds a number of more digits."""

_MAX_CANDIDATES = 5
"""An error names so many candidates of an ambiguous prefix."""


class Reference(NamedTuple):
    """A session, one of its runs, or a message of that run."""

    session_id: str
    run_index: int | None = None
    message_index: int | None = None

    def __str__(self) -> str:
        """As a person writes it."""
        run = "" if self.run_index is None else f"/{self.run_index}"
        return f"{self.session_id}{run}" + ("" if self.message_index is None else f".{self.message_index}")

    @property
    def branch_point(self) -> int | tuple[int, int] | None:
        """The ``after`` or ``before`` of `SessionStore.branch`."""
        if self.run_index is None or self.message_index is None:
            return self.run_index
        return self.run_index, self.message_index


def resolve_reference(connection: Connection, tables: Tables, text: str, user_id: str | None = None) -> Reference:
    """See `SessionStore.locate`. A session whose id has a slash takes precedence over a run."""
    if session_row(connection, tables, text, user_id) is not None:
        return Reference(text)
    parts = _RUN.match(text)
    if parts is None:
        return Reference(_resolve_session(connection, tables, text, user_id))
    try:
        session_id = _resolve_session(connection, tables, parts["session"], user_id)
    except SessionNotFound:
        if _find_by_prefix(connection, tables, text, user_id):
            return Reference(_resolve_session(connection, tables, text, user_id))
        raise
    lineage = load_lineage(connection, tables, require_session(connection, tables, session_id))
    is_index = parts["run"].isdecimal() and len(parts["run"]) <= _MAX_DIGITS
    run = find_run(connection, tables, lineage, int(parts["run"]) if is_index else parts["run"])
    message = None if parts["message"] is None else int(parts["message"][:_MAX_DIGITS])
    if message is not None:
        resolve_branch_point(connection, tables, lineage, after=(int(run["run_index"]), message), before=None)
    return Reference(session_id, int(run["run_index"]), message)


def find_run_by_reference(connection: Connection, tables: Tables, text: str, user_id: str | None = None) -> Run:
    """See `SessionStore.find_run`."""
    reference = resolve_reference(connection, tables, text, user_id)
    if reference.run_index is None:
        raise RunNotFound(f"{text!r} is a session, not a run.", f"Name one of its runs: {reference}/0")
    lineage = load_lineage(connection, tables, require_session(connection, tables, reference.session_id))
    run = get_run(connection, tables, find_run(connection, tables, lineage, reference.run_index)["run_id"])
    if run.session_id != reference.session_id:
        message = f"{reference} is inherited: it is a run of session {run.session_id!r}."
        raise BadUsage(message, f"Resume it there: {run.session_id}/{reference.run_index}")
    return run


def _resolve_session(connection: Connection, tables: Tables, text: str, user_id: str | None) -> str:
    """A session's id, from the id or a unique prefix of it."""
    if session_row(connection, tables, text, user_id) is not None:
        return text
    matches = _find_by_prefix(connection, tables, text, user_id)
    if len(matches) == 1:
        return matches[0]
    if matches:
        candidates = ", ".join(matches[:_MAX_CANDIDATES]) + (", …" if len(matches) > _MAX_CANDIDATES else "")
        raise AmbiguousReference(f"{text!r} matches several sessions: {candidates}.", "Use more of the session id.")
    return str(require_session(connection, tables, text, user_id)["session_id"])  # raises, with a hint


def _find_by_prefix(connection: Connection, tables: Tables, text: str, user_id: str | None) -> list[str]:
    s = tables.sessions
    query = sa.select(s.c.session_id).where(starts_with(s.c.session_id, text))
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    query = query.order_by(sort_time(s.c.created_at).desc(), s.c.session_id).limit(_MAX_CANDIDATES + 1)
    return list(connection.execute(query).scalars())
