"""The tables of Agno: sessions, and their runs in a table of their own, in a column of the sessions, or in both.

Tables are recognized by their columns, whatever they are called: version 3 adds a table of runs, and leaves the column
``runs`` of version 2 as it was. Where both have a run, the table's copy is the newer one. JSON is encoded twice in
SQLite before version 3.0.11, and decoded in PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables, select_rows
from kern_nb.ingest.parsing.values import is_number, to_object, to_text

FORKED_FROM = "forked_from_session_id"

_SESSION_COLUMNS = frozenset({"session_id", "session_type", "session_data"})
_RUN_COLUMNS = frozenset({"run_id", "session_id", "run_data"})
# A table of sessions that have no run yet, in a file without a table of runs.
_ALL_SESSION_COLUMNS = _SESSION_COLUMNS | {
    "agent_id", "team_id", "workflow_id", "user_id", "agent_data", "team_data", "workflow_data", "metadata", "summary",
    "created_at", "updated_at",
}  # fmt: skip
# A column of this library's own sessions, which have the documented ones, too.
_OWN_COLUMN = "fork_run_index"
_JSON_COLUMNS = ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary")


class Layout(NamedTuple):
    """A table of sessions and the tables that have their runs."""

    sessions: str
    runs: tuple[str, ...]


@dataclass
class RunRecord:
    """A run as Agno stores it.

    Attributes:
        run_id: Its id.
        data: What it serialized of the run.
        row: The other columns of its row; empty for a run in a column of the session.
        position: Its place among the runs of the session.
    """

    run_id: str
    data: dict[str, Any]
    row: dict[str, Any] = field(default_factory=dict)
    position: int = 0

    def get(self, name: str) -> Any:
        """A field of the run: what it serialized, else the column."""
        value = self.data.get(name)
        return self.row.get(name) if value is None else value

    @property
    def parent_run_id(self) -> str | None:
        """The run of the team or workflow that this run is part of."""
        return to_text(self.get("parent_run_id"))


@dataclass
class SessionRecord:
    """A session as Agno stores it.

    Attributes:
        session_id: Its id.
        row: Its columns, decoded.
        runs: Its runs, in order.
        problems: What of it cannot be read.
    """

    session_id: str
    row: dict[str, Any]
    runs: list[RunRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def forked_from(self) -> str | None:
        """The session that this one is a copy of."""
        return to_text(to_object(self.row.get("session_data")).get(FORKED_FROM))


def find_layouts(tables: Tables) -> list[Layout]:
    """The tables of sessions, each with those of its runs."""
    names = [name for name, columns in tables.items() if _is_sessions(columns)]
    all_runs = [name for name, columns in tables.items() if set(columns) >= _RUN_COLUMNS]
    by_name = {name: runs for name in names if (runs := _runs_name(name)) in all_runs}
    others = tuple(runs for runs in all_runs if runs not in by_name.values())
    layouts = []
    for name in names:
        layout = Layout(name, (by_name[name],) if name in by_name else others)
        if layout.runs or "runs" in tables[name] or set(tables[name]) >= _ALL_SESSION_COLUMNS:
            layouts.append(layout)
    return layouts


def _is_sessions(columns: Any) -> bool:
    return set(columns) >= _SESSION_COLUMNS and _OWN_COLUMN not in columns


def _runs_name(sessions: str) -> str:
    """The table of runs that Agno creates beside a table of sessions."""
    return "agno_runs" if sessions == "agno_sessions" else f"{sessions}_runs"


class _Head(NamedTuple):
    session_id: str
    created_at: float
    forked_from: str | None


@dataclass(frozen=True)
class Reader:
    """Reads the sessions of a layout, one at a time."""

    connection: AnyConnection
    tables: Tables
    layout: Layout
    schema: str | None = None

    def session_ids(self) -> list[str]:
        """The ids of the sessions, oldest first, and each after the one that it is a copy of."""
        columns = [name for name in ("session_id", "created_at", "session_data") if name in self._columns]
        heads: dict[str, _Head] = {}
        for row in select_rows(self.connection, self.layout.sessions, columns, schema=self.schema):
            name, created_at = to_text(row["session_id"]), row.get("created_at")
            if name is not None and name not in heads:
                forked_from = to_text(to_object(decode_or_none(row["session_data"])).get(FORKED_FROM))
                heads[name] = _Head(name, created_at if is_number(created_at) else 0, forked_from)
        ordered: dict[str, None] = {}
        for head in sorted(heads.values(), key=lambda head: head.created_at):
            chain: list[str] = []
            name = head.session_id
            while name is not None and name in heads and name not in ordered and name not in chain:
                chain.append(name)
                name = heads[name].forked_from
            ordered.update(dict.fromkeys(reversed(chain)))
        return list(ordered)

    def load(self, session_id: str) -> SessionRecord:
        """Load a session with its runs; one that is not stored has none."""
        where = {"session_id": session_id}
        rows = select_rows(self.connection, self.layout.sessions, self._columns, where=where, schema=self.schema)
        row = next(rows, None)
        if row is None:  # deleted, maybe without its runs
            return SessionRecord(session_id, {})
        session = SessionRecord(session_id, row)
        for name in _JSON_COLUMNS:
            try:
                row[name] = decode(row.get(name))
            except (ValueError, RecursionError) as error:
                row[name] = None
                session.problems.append(f"its {name} is not valid JSON: {error}")
        stored = self._load_rows(session)
        for run_id, data in _decode_runs(row.pop("runs", None), session.problems):
            session.runs.append(stored.pop(run_id) if run_id in stored else RunRecord(run_id, data))
        session.runs += sorted(stored.values(), key=_order)
        for position, run in enumerate(session.runs):
            run.position = position
        return session

    @property
    def _columns(self) -> list[str]:
        return list(self.tables[self.layout.sessions])

    def _load_rows(self, session: SessionRecord) -> dict[str, RunRecord]:
        """The rows of the runs of a session, by id."""
        runs: dict[str, RunRecord] = {}
        where = {"session_id": session.session_id}
        for table in self.layout.runs:
            for row in select_rows(self.connection, table, list(self.tables[table]), where=where, schema=self.schema):
                value = row.pop("run_data")
                try:
                    data = decode(value)
                except (ValueError, RecursionError) as error:
                    session.problems.append(f"the data of run {row['run_id']!r} is not valid JSON: {error}")
                    continue
                run_id = to_text(row["run_id"])
                if isinstance(data, dict) and run_id is not None:
                    runs.setdefault(run_id, RunRecord(run_id, data, row))
                else:
                    session.problems.append(f"the data of run {row['run_id']!r} is not an object")
        return runs


def _order(run: RunRecord) -> tuple[Any, ...]:
    index, created_at = run.row.get("run_index"), run.row.get("created_at")
    numbers = (index, created_at)
    return (*((not is_number(number), number if is_number(number) else 0) for number in numbers), run.run_id)


def _decode_runs(value: Any, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the runs in the column ``runs`` of a session with their ids."""
    try:
        values = decode(value)
    except (ValueError, RecursionError) as error:
        problems.append(f"its runs are not valid JSON: {error}")
        return
    if values is None:
        return
    if not isinstance(values, list):
        problems.append("its runs are not a list")
        return
    seen: set[str] = set()
    for index, data in enumerate(values):
        run_id = to_text(to_object(data).get("run_id"))
        if run_id is None:
            problems.append(f"run {index} has no id")
        elif run_id in seen:
            problems.append(f"run {index} has the id of an earlier one, {run_id!r}")
        else:
            seen.add(run_id)
            yield run_id, data


def decode(value: Any) -> Any:
    """The value of a JSON column, which is encoded up to twice; raises ValueError or RecursionError."""
    for _ in range(2):
        if not isinstance(value, (str, bytes)):
            break
        value = json.loads(value)
    return value


def decode_or_none(value: Any) -> Any:
    """The value of a JSON column; None if it is not valid JSON."""
    try:
        return decode(value)
    except (ValueError, RecursionError):
        return None
