"""Sessions as a database of Agno 3 (SQLite), which its agents continue: `SqliteDb(db_file=...)`.

A session is a row of ``agno_sessions``, a run one of ``agno_runs``. Agno has no branches: a branch gets copies of the
runs that it inherits, under ids of their own, as Agno copies the runs of a session that it forks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from kern_nb.interop.agno import as_copy, in_agnos_order, inherited_id, is_nested, to_agno
from kern_nb.operations.export.conversations import Conversation
from kern_nb.operations.export.plain import to_json
from kern_nb.records import Run

_VERSION = "3.0.0"
"""The version of the layout, with which Agno stamps its tables."""

_OWNERS = ("agent_id", "team_id", "workflow_id", "user_id")
_DATA = ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary")
_SESSION = ("session_id", "session_type", *_OWNERS, *_DATA, "created_at", "updated_at")
_RUN = (
    "run_id", "session_id", "run_type", *_OWNERS, "parent_run_id", "status", "run_index", "run_data", "created_at",
    "updated_at",
)  # fmt: skip
_INDEXED = {
    "agno_sessions": ("session_type", "created_at"),
    "agno_runs": ("session_id", "run_type", "agent_id", "team_id", "workflow_id", "user_id", "status", "created_at"),
}
_TABLES = """
CREATE TABLE agno_sessions (session_id VARCHAR NOT NULL PRIMARY KEY, session_type VARCHAR NOT NULL, agent_id VARCHAR,
    team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, session_data JSON, agent_data JSON, team_data JSON,
    workflow_data JSON, metadata JSON, summary JSON, created_at BIGINT NOT NULL, updated_at BIGINT);
CREATE TABLE agno_runs (run_id VARCHAR NOT NULL PRIMARY KEY,
    session_id VARCHAR NOT NULL REFERENCES agno_sessions (session_id) ON DELETE CASCADE, run_type VARCHAR NOT NULL,
    agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, parent_run_id VARCHAR, status VARCHAR,
    run_index BIGINT, run_data JSON NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT);
CREATE TABLE agno_schema_versions (table_name VARCHAR NOT NULL PRIMARY KEY, version VARCHAR NOT NULL,
    created_at VARCHAR NOT NULL, updated_at VARCHAR);
CREATE INDEX idx_agno_runs_session_id_run_index ON agno_runs (session_id, run_index);
"""


def write_database(file: IO[bytes], conversations: Iterable[Conversation]) -> None:
    """Write sessions as a database. It is made in memory: SQLite would leave files beside one on a disk."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_TABLES)
        for table, columns in _INDEXED.items():
            for column in columns:
                connection.execute(f"CREATE INDEX idx_{table}_{column} ON {table} ({column})")
        now = datetime.now(UTC).replace(tzinfo=None).isoformat()
        stamps = [(table, _VERSION, now, now) for table in _INDEXED]
        connection.executemany("INSERT INTO agno_schema_versions VALUES (?, ?, ?, ?)", stamps)
        for conversation in conversations:
            runs = list(_run_rows(conversation))
            _insert(connection, "agno_sessions", _SESSION, [_session_row(conversation, runs)])
            _insert(connection, "agno_runs", _RUN, runs)
        connection.commit()
        file.write(connection.serialize())
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    marks = ", ".join("?" * len(columns))
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - own names
    connection.executemany(sql, [[row[name] for name in columns] for row in rows])


def _session_row(conversation: Conversation, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    session = conversation.session
    row = {name: getattr(session, name) for name in _SESSION} | {"session_id": conversation.session_id}
    row |= {name: None if row[name] is None else to_json(row[name]) for name in _DATA}
    first = runs[0]["created_at"] if runs else 0
    row["created_at"] = first if session.created_at is None else session.created_at
    return row


def _run_rows(conversation: Conversation) -> Iterator[dict[str, Any]]:
    """The rows of the runs of a session, inherited ones included, in Agno's order."""
    every = sorted(_every_run(conversation), key=lambda run: run.run_index or 0)
    by_id = {run.run_id: run for run in every}
    session_id = conversation.session_id
    ids = {run.run_id: inherited_id(session_id, run.run_id) for run in every if run.session_id != session_id}
    for index, run in enumerate(in_agnos_order([run for run in every if not is_nested(run)])):
        data = to_agno(run, inside=by_id)
        if run.run_id in ids:
            data = as_copy(data, session_id, ids)
        created_at = data.get("created_at") or conversation.session.created_at or 0
        yield {
            "run_id": data["run_id"],
            "session_id": session_id,
            "run_type": run.run_type,
            **{name: getattr(run, name) for name in _OWNERS},
            "parent_run_id": data.get("parent_run_id"),
            "status": data.get("status"),
            "run_index": index,
            "run_data": to_json(data | {"created_at": created_at}),
            "created_at": created_at,
            "updated_at": created_at,
        }


def _every_run(conversation: Conversation) -> Iterator[Run]:
    """The runs of a conversation, with those of members and steps."""
    remaining = list(conversation.runs)
    while remaining:
        run = remaining.pop()
        yield run
        remaining += conversation.members.get(run.run_id, ())
