"""The statements that write runs, built once per workload: SQLAlchemy needs as long to build one as to execute it.

The parameters of an INSERT have the names of its columns; those of an UPDATE have the prefix ``new_``. Rows of a run
are selected by (session_id, run_index), by which they are clustered: an engine without an index skips most of a store.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.db.schema import USAGE_COLUMNS
from kern_nb.db.sql_expressions import current_micros
from kern_nb.records import OPEN_STATUSES

if TYPE_CHECKING:
    from kern_nb.db.database import Database


def _param(column: sa.Column[Any], name: str | None = None) -> sa.BindParameter[Any]:
    """A parameter of a column's type."""
    return sa.bindparam(name or column.name, type_=column.type)


class Statements:
    """The statements of one store; each is built at its first use."""

    def __init__(self, store: Database) -> None:
        self._tables, self._locked = store.tables, store.locked

    def _of_run(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Select the rows of one run, by the parameters ``of_session`` and ``of_index``."""
        session_id, run_index = table.c.session_id, table.c.run_index
        return (session_id == _param(session_id, "of_session")) & (run_index == _param(run_index, "of_index"))

    TOUCH_COLUMNS = ("session_id", "updated_at", "user_id")

    @cached_property
    def touch_session(self) -> sa.UpdateBase:
        """Set the time of a session's last change, unless it belongs to another user."""
        s = self._tables.sessions
        session_id, updated_at, user_id = (_param(s.c[name], f"new_{name}") for name in self.TOUCH_COLUMNS)
        changed = {"updated_at": updated_at, "user_id": sa.func.coalesce(s.c.user_id, user_id)}
        is_writable = sa.or_(user_id.is_(None), s.c.user_id.is_(None), s.c.user_id == user_id)
        update = s.update().where(s.c.session_id == session_id, is_writable).values(**changed)
        return update.returning(s.c.session_data, s.c.fork_run_index, s.c.last_deleted_run_index, s.c.revision)

    @cached_property
    def touch_session_of_run(self) -> sa.UpdateBase:
        """Set the time of the last change of a run's session; locks it."""
        s = self._tables.sessions
        update = s.update().where(s.c.session_id == _param(s.c.session_id, "of_session"))
        return update.values(updated_at=_param(s.c.updated_at, "new_updated_at")).returning(s.c.session_data)

    @cached_property
    def insert_run(self) -> sa.UpdateBase:
        """Insert a run; the statement computes its index."""
        r = self._tables.runs
        names = [c.name for c in r.columns if c.name != "run_index"]
        last, floor = sa.func.max(r.c.run_index), sa.bindparam("floor", type_=sa.BigInteger)
        next_index = sa.case((last > floor, last), else_=floor) + 1
        values: dict[str, sa.ColumnElement[Any]] = {name: _param(r.c[name]) for name in names}
        values["heartbeat_at"] = sa.case((values["process"].is_not(None), current_micros(values["heartbeat_at"])))
        row = sa.select(*values.values(), next_index)
        row = row.where(r.c.session_id == _param(r.c.session_id))
        return r.insert().from_select([*names, "run_index"], row).returning(r.c.run_index)

    @cached_property
    def find_run(self) -> sa.Select[Any]:
        """Select the key of a run by its id."""
        r = self._tables.runs
        return sa.select(r.c.session_id, r.c.run_index).where(r.c.run_id == _param(r.c.run_id))

    @cached_property
    def insert_message(self) -> sa.UpdateBase:
        """Insert the next message of an open run and lock the run; the statement computes the index."""
        r, m = self._tables.runs, self._tables.messages
        last = sa.select(sa.func.max(m.c.message_index).label("last")).where(self._of_run(m)).subquery()
        values: dict[str, sa.ColumnElement[Any]] = {c.name: _param(c) for c in m.columns}
        values |= {"session_id": r.c.session_id, "run_index": r.c.run_index}
        values["message_index"] = sa.func.coalesce(last.c.last + 1, 0)
        is_open = sa.or_(*(r.c.status == sa.literal_column(f"'{status}'") for status in OPEN_STATUSES))
        row = sa.select(*values.values()).select_from(r).join(last, sa.true())
        row = self._locked(row.where(self._of_run(r), r.c.run_id == _param(r.c.run_id), is_open), r)
        return m.insert().from_select(list(values), row, include_defaults=False).returning(m.c.message_index)

    @cached_property
    def call_ids(self) -> sa.Select[Any]:
        """Select the ids of a run's tool calls."""
        t = self._tables.tool_calls
        return sa.select(t.c.tool_call_id).where(self._of_run(t))

    @cached_property
    def insert_call(self) -> sa.UpdateBase:
        """Insert the next call of a run, unless the run has a call of this id; the statement computes the index."""
        t = self._tables.tool_calls
        same = sa.case((t.c.tool_call_id == _param(t.c.tool_call_id), 1), else_=0)
        calls = sa.select(sa.func.count().label("number"), sa.func.sum(same).label("same")).where(self._of_run(t))
        existing = calls.subquery()
        values: dict[str, sa.ColumnElement[Any]] = {c.name: _param(c) for c in t.columns}
        values |= {"session_id": _param(t.c.session_id, "of_session"), "run_index": _param(t.c.run_index, "of_index")}
        values["call_index"] = existing.c.number
        row = sa.select(*values.values()).select_from(existing).where(sa.func.coalesce(existing.c.same, 0) == 0)
        return t.insert().from_select(list(values), row, include_defaults=False).returning(t.c.call_index)

    @cached_property
    def complete_call(self) -> sa.UpdateBase:
        """Store the result of a call started before a message; its duration is computed if not given."""
        t = self._tables.tool_calls
        since = (sa.bindparam("now", type_=sa.BigInteger) - t.c.created_at) / sa.literal_column("1000000.0")
        before = t.c.message_index < sa.bindparam("before_message", type_=sa.BigInteger)
        is_call = self._of_run(t) & (t.c.tool_call_id == _param(t.c.tool_call_id, "of_call"))
        is_open = (t.c.status == sa.literal_column("'started'")) & (t.c.message_index.is_(None) | before)
        values = {name: _param(t.c[name], f"new_{name}") for name in ("status", "result", "result_json")}
        duration = sa.func.coalesce(_param(t.c.duration_s, "new_duration_s"), sa.cast(since, sa.Double))
        return t.update().where(is_call, is_open).values(**values, duration_s=duration)

    @cached_property
    def calls_unknown(self) -> sa.UpdateBase:
        """Mark the started calls of a run that have no result as unknown."""
        t = self._tables.tool_calls
        started = t.c.status == sa.literal_column("'started'")
        return t.update().where(self._of_run(t), started).values(status=sa.literal_column("'unknown'"))

    END_COLUMNS = ("status", "error", *USAGE_COLUMNS, "output", "output_json", "session_state", "finished_at")
    OPTIONAL_COLUMNS = ("model", "model_provider", "time_to_first_token_s")

    @cached_property
    def end_run(self) -> sa.UpdateBase:
        """End a running run: set `END_COLUMNS`, and those of `OPTIONAL_COLUMNS` that are not NULL."""
        r = self._tables.runs
        names = (*self.END_COLUMNS, *self.OPTIONAL_COLUMNS)
        values: dict[str, Any] = {name: _param(r.c[name], f"new_{name}") for name in names}
        values |= {name: sa.func.coalesce(values[name], r.c[name]) for name in self.OPTIONAL_COLUMNS}
        elapsed = (_param(r.c.finished_at, "new_finished_at") - r.c.created_at) / sa.literal_column("1000000.0")
        values["duration_s"] = sa.func.coalesce(_param(r.c.duration_s, "new_duration_s"), sa.cast(elapsed, sa.Double))
        values["process"] = None
        # None leaves the state as it was; a run without a state ends with an empty one, if its session has one by now.
        no_state = _param(r.c.session_state, "no_state")
        values["session_state"] = sa.func.coalesce(values["session_state"], r.c.session_state, no_state)
        running = (r.c.run_id == _param(r.c.run_id, "of_run")) & (r.c.status == sa.literal_column("'RUNNING'"))
        update = r.update().where(self._of_run(r), running).values(**values)
        return update.returning(r.c.session_state, r.c.internal)
