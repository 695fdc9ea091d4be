"""The store's health: what contradicts an invariant, and what can be mended.

A run left open by a process that is gone was interrupted: its messages are kept, its status becomes INTERRUPTED, and
a tool call that had started becomes unknown, because nobody can tell whether it took effect. It is never run again by
itself.

A damaged value is moved to a table of its own (`damage`), so that it can be had again; `SessionStore.damaged_values`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.control_characters import escape_controls
from kern_nb.db import damaged_rows
from kern_nb.db.process_identity import State, host_of, this_process
from kern_nb.db.process_identity import process_state as state_of_process
from kern_nb.db.schema import Tables, UnreadableCell
from kern_nb.display import DisplayMixin

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db.store import SessionStore


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: ``damaged``, ``interrupted``, ``running elsewhere``, ``left started``, ``no session``, ``no run``,
            ``no parent``, ``fork beyond the parent``, ``cycle`` or ``gap``.
        session_id: The session it concerns.
        run_id: The run, where it concerns one.
        detail: What was found, in words.
        repaired: Whether it was mended.
    """

    kind: str
    session_id: str
    run_id: str | None
    detail: str
    repaired: bool = False


@dataclass(frozen=True)
class CheckReport(DisplayMixin):
    """What `SessionStore.check` found; true where nothing was, or all of it was mended."""

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
        """One row a problem."""
        import pandas as pd

        names = ["kind", "session_id", "run_id", "detail", "repaired"]
        return pd.DataFrame([[getattr(p, n) for n in names] for p in self.problems], columns=names)


def check(store: SessionStore, *, repair: bool, hosts_gone: Collection[str] = ()) -> CheckReport:
    """See `SessionStore.check`."""
    tables = store.tables
    if not repair:
        with store.reading() as connection:
            damaged = [_of_cells(tables, row) for row in damaged_rows.scan(connection, tables)]
            return CheckReport([*itertools.chain.from_iterable(damaged), *_findings(connection, tables, hosts_gone)])

    def mend(connection: Connection) -> CheckReport:
        # First, as the other tests cannot read what is damaged, and see the rows as the repair leaves them.
        problems = []
        for row in damaged_rows.scan(connection, tables):
            where = damaged_rows.repair(connection, store, row)
            problems += [
                replace(finding, detail=f"{finding.detail}; {where}", repaired=True)
                for finding in _of_cells(tables, row)
            ]
        found = list(_findings(connection, tables, hosts_gone))
        return CheckReport([*problems, *(_repaired(connection, store, finding) for finding in found)])

    return store.write(mend)


def _of_cells(tables: Tables, row: damaged_rows.DamagedCells) -> list[Finding]:
    """What is wrong with a row, a finding for each of its damaged cells."""
    table = getattr(tables, row.attribute).name
    where = damaged_rows.describe(row.attribute, row.row)
    session_id, run_id = row.key("session_id") or "", row.key("run_id")
    return [
        Finding("damaged", session_id, run_id, f"{table}.{cell.column} of {where}: {cell.reason}") for cell in row.cells
    ]


_abandoned: set[str] = set()


def abandon(run_id: str) -> None:
    """Note that this process writes a run no more, though it could not say so in the store."""
    _abandoned.add(run_id)


def _findings(connection: Connection, tables: Tables, hosts_gone: Collection[str]) -> Iterator[Finding]:
    open_runs = partial(_open_runs, hosts_gone=hosts_gone)
    for test in (open_runs, _calls_left_started, _rows_without_owner, _broken_forks, _cycles, _gaps):
        found = []
        with contextlib.suppress(UnreadableCell):  # a damaged key, which is a finding of its own
            for finding in test(connection, tables):
                found.append(finding)  # noqa: PERF402 - those before the damaged row count
        yield from found


def _open_runs(connection: Connection, tables: Tables, hosts_gone: Collection[str]) -> Iterator[Finding]:
    r = tables.runs
    query = sa.select(r.c.session_id, r.c.run_id, r.c.run_index, r.c.process).where(r.c.status == "RUNNING")
    for row in connection.execute(query.order_by(r.c.session_id, r.c.run_index)).mappings():
        state, where = process_state(row["process"], row["run_id"])
        host = host_of(row["process"])
        if state == "elsewhere" and host in hosts_gone:
            state, where = "gone", f"its host {host} is gone"
        elif state == "elsewhere":
            where += f"; if that host is gone: store.check(repair=True, hosts_gone=[{host!r}])"
        if state != "alive":
            kind = "interrupted" if state == "gone" else "running elsewhere"
            yield Finding(kind, row["session_id"], row["run_id"], f"run {row['run_index']} was never finished; {where}")


def process_state(process: str | None, run_id: str) -> tuple[State, str]:
    """Whether the process that wrote a run is alive, gone or out of sight, and that in words; see `process`."""
    if run_id in _abandoned and process == this_process():
        return "gone", "its process gave it up"
    return state_of_process(process)


def _calls_left_started(connection: Connection, tables: Tables) -> Iterator[Finding]:
    r, t = tables.runs, tables.tool_calls
    query = (
        sa.select(t.c.session_id, t.c.run_id, t.c.tool_call_id, t.c.tool_name)
        .join(r, r.c.run_id == t.c.run_id)
        .where(t.c.status == "started", r.c.status.not_in(("PENDING", "RUNNING", "PAUSED")))
    )
    for row in connection.execute(query).mappings():
        detail = f"tool call {row['tool_call_id']} ({row['tool_name']}) started and never ended in a run that has"
        yield Finding("left started", row["session_id"], row["run_id"], detail)


def _rows_without_owner(connection: Connection, tables: Tables) -> Iterator[Finding]:
    s, r = tables.sessions, tables.runs
    lost_runs = sa.select(r.c.session_id, r.c.run_id, r.c.run_index).outerjoin(s, s.c.session_id == r.c.session_id)
    for row in connection.execute(lost_runs.where(s.c.session_id.is_(None))).mappings():
        yield Finding("no session", row["session_id"], row["run_id"], f"run {row['run_index']} has no session")
    for table in (tables.messages, tables.tool_calls, tables.requirements):
        count = sa.func.count().label("n")
        lost = sa.select(table.c.session_id, table.c.run_id, count).outerjoin(r, r.c.run_id == table.c.run_id)
        lost = lost.where(r.c.run_id.is_(None)).group_by(table.c.session_id, table.c.run_id)
        for row in connection.execute(lost).mappings():
            detail = f"{row['n']} rows of {table.name} have no run"
            yield Finding("no run", row["session_id"], row["run_id"], detail)


def _broken_forks(connection: Connection, tables: Tables) -> Iterator[Finding]:
    s, r = tables.sessions, tables.runs
    parent = s.alias()
    last = sa.select(r.c.session_id, sa.func.max(r.c.run_index).label("last")).group_by(r.c.session_id).subquery()
    query = (
        sa.select(s.c.session_id, s.c.parent_session_id, s.c.fork_run_index, parent.c.session_id.label("found"))
        .add_columns(sa.func.coalesce(last.c.last, parent.c.fork_run_index, -1).label("last"))
        .select_from(s)
        .outerjoin(parent, parent.c.session_id == s.c.parent_session_id)
        .outerjoin(last, last.c.session_id == s.c.parent_session_id)
        .where(s.c.parent_session_id.is_not(None))
    )
    for row in connection.execute(query).mappings():
        if row["found"] is None:
            detail = f"its parent {row['parent_session_id']} is not there, so what it inherits is lost to it"
            yield Finding("no parent", row["session_id"], None, detail)
        elif row["fork_run_index"] > row["last"]:
            detail = f"it inherits up to run {row['fork_run_index']} of a parent whose last is {row['last']}"
            yield Finding("fork beyond the parent", row["session_id"], None, detail)


def _cycles(connection: Connection, tables: Tables) -> Iterator[Finding]:
    """Branches whose parents lead back to themselves; of each cycle, the session that was made first."""
    s = tables.sessions
    branches = sa.select(s.c.session_id, s.c.parent_session_id, s.c.created_at).where(
        s.c.parent_session_id.is_not(None)
    )
    rows = {row["session_id"]: row for row in connection.execute(branches).mappings()}
    checked: set[str] = set()
    for start in rows:
        path: dict[str, None] = {}
        at = start
        while at in rows and at not in path and at not in checked:
            path[at] = None
            at = rows[at]["parent_session_id"]
        if at in path:
            members = list(path)[list(path).index(at) :]
            first = min(members, key=lambda one: (rows[one]["created_at"] or 0, one))
            detail = f"its parent {rows[first]['parent_session_id']} is a branch of it: {len(members)} in a cycle"
            yield Finding("cycle", first, None, detail)
        checked.update(path)


def _end_cycle(connection: Connection, store: SessionStore, finding: Finding) -> str:
    """Make a session of a cycle one that is no branch."""
    found = damaged_rows.link_of(connection, store.tables, finding.session_id)
    return damaged_rows.repair(connection, store, found)


def _gaps(connection: Connection, tables: Tables) -> Iterator[Finding]:
    """Messages are numbered from 0 without a hole: a hole is a message that was lost."""
    m = tables.messages
    n, last = sa.func.count(), sa.func.max(m.c.message_index)
    query = sa.select(m.c.session_id, m.c.run_id, n.label("n"), last.label("last")).group_by(m.c.session_id, m.c.run_id)
    for row in connection.execute(query.having(n != last + 1)).mappings():
        detail = f"it has {row['n']} messages, and the last is numbered {row['last']}"
        yield Finding("gap", row["session_id"], row["run_id"], detail)


def _repaired(connection: Connection, store: SessionStore, finding: Finding) -> Finding:
    """Mend one thing, where that is possible without guessing."""
    repairs: dict[str, Callable[[Connection, Tables, Finding], Any]] = {
        "interrupted": _mark_interrupted,
        "left started": _end_calls,
    }
    if finding.kind == "cycle":
        where = _end_cycle(connection, store, finding)
        return replace(finding, detail=f"{finding.detail}; {where}", repaired=True)
    if finding.kind not in repairs:
        return finding
    repairs[finding.kind](connection, store.tables, finding)
    return replace(finding, repaired=True)


def _mark_interrupted(connection: Connection, tables: Tables, finding: Finding) -> None:
    r = tables.runs
    still_open = (r.c.run_id == finding.run_id) & (r.c.status == "RUNNING")
    ended = {"status": "INTERRUPTED", "process": None}
    ended["session_state"] = session_state(connection, tables, finding.session_id)
    connection.execute(r.update().where(still_open).values(**ended))
    _end_calls(connection, tables, finding)


def session_state(connection: Connection, tables: Tables, session_id: str) -> Any:
    """The state of a session as it stands."""
    s = tables.sessions
    data = connection.execute(sa.select(s.c.session_data).where(s.c.session_id == session_id)).scalar()
    return data.get("session_state") if isinstance(data, dict) else None


def _end_calls(connection: Connection, tables: Tables, finding: Finding) -> None:
    mark_unknown(connection, tables, finding.run_id or "")


def mark_unknown(connection: Connection, tables: Tables, run_id: str) -> None:
    """Calls that had started in a run whose process is gone: nobody can tell whether they took effect."""
    t = tables.tool_calls
    left = (t.c.run_id == run_id) & (t.c.status == "started")
    connection.execute(t.update().where(left).values(status="unknown"))
