"""Branches that inherit rows of a session: loaded before these rows change, and named where that is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db.column_types import StoredRow
from kern_nb.db.lineage import BranchPoint, fork_point
from kern_nb.errors import HasBranches

if TYPE_CHECKING:
    from kern_nb.db.database import Database


@dataclass(frozen=True)
class Heir:
    """A branch that inherits rows of its parent's own.

    Attributes:
        row: Its row.
        fork: Its branch point.
    """

    row: StoredRow
    fork: BranchPoint

    def sees(self, run_index: int, message_index: int) -> bool:
        """Whether it inherits a message."""
        if self.fork.run_index != run_index or self.fork.message_index is None:
            return self.fork.run_index >= run_index
        return message_index <= self.fork.message_index


def load_heirs(connection: Connection, store: Database, session_id: str, run_index: int) -> list[Heir]:
    """The branches of a session that inherit its run of this index or a later one, locked; the session is locked.

    Branches of branches need not be known: they see the rows through the branch, which has its own copy if it is
    detached.
    """
    s = store.tables.sessions
    query = sa.select(s).where(s.c.parent_session_id == session_id, s.c.fork_run_index >= run_index)
    rows = connection.execute(store.locked(query)).mappings().all()
    return [Heir(row, fork) for row in rows if (fork := fork_point(row)) is not None]


def branches_error(what: str, branches: Iterable[StoredRow], hint: str, user_id: str | None = None) -> HasBranches:
    """The error that names the branches; with a ``user_id``, those of that user."""
    rows = list(branches)
    own = [row for row in rows if user_id in (None, row["user_id"])]
    unnamed = [f"{len(rows) - len(own)} of another user"] if len(own) < len(rows) else []
    names = ", ".join([*(repr(row["session_id"]) for row in own), *unnamed])
    return HasBranches(f"Branches inherit {what}: {names}.", hint)
