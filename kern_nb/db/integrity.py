"""Check a store for broken invariants, and repair what can be repaired.

A run whose process ended without finishing it is interrupted: its messages are kept, its status becomes INTERRUPTED,
and tool calls that had started become unknown, because they may have taken effect. They are never run again
automatically. `damage_repair` moves damaged values to a table of their own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.control_characters import escape_controls
from kern_nb.db import damage_repair, heartbeats, process_identity
from kern_nb.db.column_types import UnreadableCell
from kern_nb.db.damaged_rows import describe_row
from kern_nb.db.open_runs import set_state_after, update_run
from kern_nb.db.process_identity import ProcessState, current_process, process_host
from kern_nb.db.schema import Tables
from kern_nb.db.sql_expressions import current_micros
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db.database import Database


@dataclass(frozen=True)
class Finding:
    """A broken invariant.

    Attributes:
        kind: ``damaged``, ``interrupted``, ``running elsewhere``, ``left started``, ``no session``, ``no run``,
            ``no parent``, ``fork beyond the parent``, ``cycle`` or ``gap``.
        session_id: The session.
        run_id: The run, if one is concerned.
        detail: A description.
        repaired: Whether it was repaired.
    """

    kind: str
    session_id: str
    run_id: str | None
    detail: str
    repaired: bool = False


@dataclass(frozen=True)
class CheckReport(DisplayMixin):
    """The result of `SessionStore.check`; true if there are no problems, or all are repaired."""

    _view = "kern_nb.views.reports:check"

    problems: list[Finding] = field(default_factory=list)

    def __bool__(self) -> bool:
        return all(problem.repaired for problem in self.problems)

    def __repr__(self) -> str:
        if not self.problems:
            return "No problems found."
        lines = [f"{len(self.problems)} found, {sum(p.repaired for p in self.problems)} repaired:"]
        for p in self.problems:
            run = f" run {p.run_id}" if p.run_id else ""
            lines.append(f"  {'repaired ' if p.repaired else ''}{p.kind}: session {p.session_id}{run}: {p.detail}")
        return escape_controls("\n".join(lines))

    @property
    def df(self) -> pd.DataFrame:
        """A DataFrame with one row per problem."""
        import pandas as pd

        return pd.DataFrame([vars(p) for p in self.problems], columns=[f.name for f in fields(Finding)])


def check(store: Database, *, repair: bool, hosts_gone: Collection[str] = ()) -> CheckReport:
    """See `SessionStore.check`."""
    tables = store.tables
    if not repair:
        with store.read_connection() as connection:
            damage = [_damage_findings(tables, row) for row in damage_repair.scan(connection, tables)]
            findings = _findings(connection, tables, hosts_gone)
            return CheckReport([*itertools.chain.from_iterable(damage), *findings])

    def repair_all(connection: Connection) -> CheckReport:
        # Damage first, as the other checks cannot read damaged values, and see the rows as the repair leaves them.
        problems = []
        for row in damage_repair.scan(connection, tables):
            location = damage_repair.repair(connection, store, row)
            problems += [
                replace(finding, detail=f"{finding.detail}; {location}", repaired=True)
                for finding in _damage_findings(tables, row)
            ]
        findings = list(_findings(connection, tables, hosts_gone))
        return CheckReport([*problems, *(_repair(connection, store, finding) for finding in findings)])

    return store.write(repair_all)


def _damage_findings(tables: Tables, row: damage_repair.RowDamage) -> list[Finding]:
    session_id, run_id = row.key("session_id") or "", row.key("run_id")
    name, keys = getattr(tables, row.attribute).name, describe_row(row.attribute, row.row)
    return [
        Finding("damaged", session_id, run_id, f"{name}.{cell.column} of {keys}: {cell.reason}") for cell in row.cells
    ]


_abandoned: set[str] = set()


def abandon(run_id: str) -> None:
    """Record that this process no longer writes a run, where it could not update the store."""
    _abandoned.add(run_id)


def _findings(connection: Connection, tables: Tables, hosts_gone: Collection[str]) -> Iterator[Finding]:
    open_runs = partial(_open_runs, hosts_gone=hosts_gone)
    for check_rows in (open_runs, _started_calls, _orphans, _broken_forks, _cycles, _gaps):
        with contextlib.suppress(UnreadableCell):  # a damaged key, which is a finding of its own
            yield from check_rows(connection, tables)


def _open_runs(connection: Connection, tables: Tables, hosts_gone: Collection[str]) -> Iterator[Finding]:
    r = tables.runs
    silence = (current_micros() - r.c.heartbeat_at).label("silence")
    query = sa.select(r.c.session_id, r.c.run_id, r.c.run_index, r.c.process, silence).where(r.c.status == "RUNNING")
    for row in connection.execute(query.order_by(r.c.session_id, r.c.run_index)).mappings():
        state, detail = process_state(row["process"], row["run_id"], row["silence"])
        host = process_host(row["process"])
        if state == "elsewhere" and host in hosts_gone:
            state, detail = "gone", f"its host {host} is gone"
        elif state == "elsewhere":
            detail += f"; if that host is gone: store.check(repair=True, hosts_gone=[{host!r}])"
        if state != "alive":
            kind = "interrupted" if state == "gone" else "running elsewhere"
            yield Finding(kind, row["session_id"], row["run_id"], f"run {row['run_index']} is not finished; {detail}")


def process_state(process: str | None, run_id: str, silence: int | None = None) -> tuple[ProcessState, str]:
    """Whether the process that writes a run is alive, gone or on another host, and a description.

    One on another host that has had no heartbeat for `heartbeats.SILENT_S` is gone; ``silence`` is the time since its
    last one, in microseconds, None if it never had one.
    """
    if run_id in _abandoned and process == current_process():
        return "gone", "its process abandoned it"
    state, detail = process_identity.process_state(process)
    if state == "elsewhere" and silence is not None and silence > heartbeats.SILENT_S * 1_000_000:
        host = process_host(process)
        return "gone", f"its process on {host} has been silent for {silence // 1_000_000:,} s"
    return state, detail


def _started_calls(connection: Connection, tables: Tables) -> Iterator[Finding]:
    r, t = tables.runs, tables.tool_calls
    query = (
        sa.select(t.c.session_id, t.c.run_id, t.c.tool_call_id, t.c.tool_name)
        .join(r, r.c.run_id == t.c.run_id)
        .where(t.c.status == "started", r.c.status.not_in(("PENDING", "RUNNING", "PAUSED")))
    )
    for session_id, run_id, call_id, tool in connection.execute(query):
        detail = f"tool call {call_id} ({tool}) started and did not end, though its run has"
        yield Finding("left started", session_id, run_id, detail)


def _orphans(connection: Connection, tables: Tables) -> Iterator[Finding]:
    s, r = tables.sessions, tables.runs
    query = sa.select(r.c.session_id, r.c.run_id, r.c.run_index).outerjoin(s, s.c.session_id == r.c.session_id)
    for session_id, run_id, run_index in connection.execute(query.where(s.c.session_id.is_(None))):
        yield Finding("no session", session_id, run_id, f"run {run_index} has no session")
    for table in (tables.messages, tables.tool_calls, tables.requirements):
        keys = (table.c.session_id, table.c.run_id)
        query = sa.select(*keys, sa.func.count()).outerjoin(r, r.c.run_id == table.c.run_id)
        query = query.where(r.c.run_id.is_(None)).group_by(*keys)
        for session_id, run_id, n in connection.execute(query):
            yield Finding("no run", session_id, run_id, f"{n} rows of {table.name} have no run")


def _broken_forks(connection: Connection, tables: Tables) -> Iterator[Finding]:
    s, r = tables.sessions, tables.runs
    parent = s.alias()
    last = sa.select(r.c.session_id, sa.func.max(r.c.run_index).label("last")).group_by(r.c.session_id).subquery()
    query = (
        sa.select(s.c.session_id, s.c.parent_session_id, s.c.fork_run_index, parent.c.session_id.label("parent"))
        .add_columns(sa.func.coalesce(last.c.last, parent.c.fork_run_index, -1).label("last"))
        .select_from(s)
        .outerjoin(parent, parent.c.session_id == s.c.parent_session_id)
        .outerjoin(last, last.c.session_id == s.c.parent_session_id)
        .where(s.c.parent_session_id.is_not(None))
    )
    for row in connection.execute(query).mappings():
        if row["parent"] is None:
            detail = f"its parent {row['parent_session_id']} does not exist, so its inherited runs are lost"
            yield Finding("no parent", row["session_id"], None, detail)
        elif row["fork_run_index"] is not None and row["fork_run_index"] > row["last"]:
            detail = f"it inherits up to run {row['fork_run_index']} of a parent whose last is {row['last']}"
            yield Finding("fork beyond the parent", row["session_id"], None, detail)


def _cycles(connection: Connection, tables: Tables) -> Iterator[Finding]:
    """Branches that are their own ancestors; one finding for each cycle, with its oldest session."""
    s = tables.sessions
    query = sa.select(s.c.session_id, s.c.parent_session_id, s.c.created_at)
    branches = connection.execute(query.where(s.c.parent_session_id.is_not(None))).mappings()
    rows = {row["session_id"]: row for row in branches}
    checked: set[str] = set()
    for start in rows:
        path: dict[str, None] = {}
        session_id = start
        while session_id in rows and session_id not in path and session_id not in checked:
            path[session_id] = None
            session_id = rows[session_id]["parent_session_id"]
        if session_id in path:
            members = list(path)[list(path).index(session_id) :]
            first = min(members, key=lambda member: (rows[member]["created_at"] or 0, member))
            detail = f"its parent {rows[first]['parent_session_id']} is a branch of it: {len(members)} in a cycle"
            yield Finding("cycle", first, None, detail)
        checked.update(path)


def _gaps(connection: Connection, tables: Tables) -> Iterator[Finding]:
    """Runs whose messages are not numbered from 0 without gaps: a gap is a lost message."""
    m = tables.messages
    count, maximum = sa.func.count(), sa.func.max(m.c.message_index)
    query = sa.select(m.c.session_id, m.c.run_id, count, maximum).group_by(m.c.session_id, m.c.run_id)
    for session_id, run_id, n, last in connection.execute(query.having(count != maximum + 1)):
        yield Finding("gap", session_id, run_id, f"it has {n} messages, and the last is numbered {last}")


def _repair(connection: Connection, store: Database, finding: Finding) -> Finding:
    """Repair a finding, if that is possible without guessing; the finding as it is then."""
    tables, detail = store.tables, finding.detail
    if finding.kind == "cycle":
        link = damage_repair.parent_link(connection, tables, finding.session_id)
        detail += f"; {damage_repair.repair(connection, store, link)}"
    elif finding.kind in ("interrupted", "left started"):
        if finding.kind == "interrupted":
            r, run_id = tables.runs, finding.run_id or ""
            interrupt = r.update().where(r.c.run_id == run_id, r.c.status == "RUNNING")
            values = {"status": "INTERRUPTED", "process": None}
            run = connection.execute(interrupt.values(values).returning(r.c.session_state, r.c.internal)).first()
            current = load_session_state(connection, tables, finding.session_id)
            if run is not None and isinstance(current, dict):
                state = run.session_state or {}
                update_run(connection, store, run_id, session_state=state)
                set_state_after(connection, store, run_id, run.internal, state, current)
        mark_unknown(connection, tables, finding.run_id or "")
    else:
        return finding
    return replace(finding, detail=detail, repaired=True)


def load_session_state(connection: Connection, tables: Tables, session_id: str) -> Any:
    """The current state of a session."""
    s = tables.sessions
    data = connection.execute(sa.select(s.c.session_data).where(s.c.session_id == session_id)).scalar()
    return data.get("session_state") if isinstance(data, dict) else None


def mark_unknown(connection: Connection, tables: Tables, run_id: str) -> None:
    """Mark the started calls of a run whose process is gone as unknown: they may have taken effect."""
    t = tables.tool_calls
    started = (t.c.run_id == run_id) & (t.c.status == "started")
    connection.execute(t.update().where(started).values(status="unknown"))
