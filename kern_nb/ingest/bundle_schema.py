"""The record of a session in a bundle: serializing the rows of a session, and validating them when they are read.

A record is ``{"session": {...}, "runs": [{..., "messages": [...], "tool_calls": [...], "requirements": [...]}],
"scores": [...]}``. The fields are the columns of the tables (`db.schema`) without those that are NULL; a value and its
text are one field. Times are as stored: unix seconds on sessions, microseconds elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NamedTuple

import sqlalchemy as sa

from kern_nb.db import mapping
from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text
from kern_nb.db.mapping import Row
from kern_nb.db.schema import ALLOWED_VALUES, Tables
from kern_nb.ingest.importer import MalformedRecord, json_type, require_field
from kern_nb.records import RESULT_ROLES, YEARS

Rows = dict[str, list[Row]]
"""The rows of one session, by table; ``sessions`` has one row."""

RUN_TABLES = ("messages", "tool_calls", "requirements")
TABLES = ("sessions", "runs", *RUN_TABLES, "scores")
ORDER = {
    "sessions": (),
    "runs": ("run_index",),
    "messages": ("run_index", "message_index"),
    "tool_calls": ("run_index", "call_index"),
    "requirements": ("created_at", "requirement_id"),
    "scores": ("created_at", "score_id"),
}
"""The columns that order a session's rows."""

# Columns implied by the position of a record, or meaningless in another store: a count of changes, an index that is not
# to be used again there, the writing process, a score's key.
_OMITTED = {
    "sessions": frozenset({"revision", "last_deleted_run_index"}),
    "runs": frozenset({"session_id", "process", "heartbeat_at"}),
    "messages": frozenset({"session_id", "run_id", "run_index"}),
    "tool_calls": frozenset({"session_id", "run_id", "run_index"}),
    "requirements": frozenset({"session_id", "run_id"}),
    "scores": frozenset({"session_id", "score_id"}),
}
_TEXT_AND_JSON = {"runs": ("input", "output"), "messages": ("content",), "tool_calls": ("result",)}

_IDS = {"sessions": "session_id", "runs": "run_id", "tool_calls": "tool_call_id", "requirements": "requirement_id"}
_INDEXES = ("run_index", "message_index", "call_index", "fork_run_index", "fork_message_index")
_ANY_JSON = ("args", "answer")

_INTEGER_LIMIT = 2**63
_INDEX_LIMIT = 10**15


def pack_session(rows: Rows) -> dict[str, Any]:
    """Serialize the rows of a session as one record."""
    [session] = rows["sessions"]
    runs = {row["run_id"]: _to_fields("runs", row) for row in rows["runs"]}
    for name in RUN_TABLES:
        for row in rows[name]:
            runs[row["run_id"]].setdefault(name, []).append(_to_fields(name, row))
    record = {"session": _to_fields("sessions", session), "runs": list(runs.values())}
    return record | ({"scores": [_to_fields("scores", row) for row in rows["scores"]]} if rows["scores"] else {})


def _to_fields(table: str, row: Mapping[str, Any]) -> Row:
    omitted = _OMITTED[table]
    # str: SQLAlchemy's column names are of a subclass.
    fields = {str(name): value for name, value in row.items() if value is not None and name not in omitted}
    for name in _TEXT_AND_JSON.get(table, ()):
        if f"{name}_json" in fields:
            fields[name] = fields.pop(f"{name}_json")
    return fields


def parse_record(record: Any) -> Rows:
    """Convert a record to rows; raise MalformedRecord if it is not as `pack_session` writes it.

    Each value is validated, because a bundle may be edited or damaged.
    """
    session = _parse_row("sessions", require_field(record, "session", dict, "the record"), "the session")
    session_id = session["session_id"]
    rows: Rows = {name: [] for name in TABLES} | {"sessions": [session]}
    for position, value in enumerate(require_field(record, "runs", list, "the record")):
        owner = f"run {position}"
        run = _parse_row("runs", value, owner)
        rows["runs"].append(run | {"session_id": session_id})
        keys = {"session_id": session_id, "run_id": run["run_id"]}
        for name in RUN_TABLES:
            row_keys = keys if name == "requirements" else keys | {"run_index": run["run_index"]}
            rows[name] += _parse_rows(name, value.get(name, []), owner, row_keys)
    rows["scores"] = _parse_rows("scores", record.get("scores", []), "the session", {"session_id": session_id})
    _require_consistent(rows)
    return rows


def _parse_rows(table: str, values: Any, owner: str, keys: Row) -> list[Row]:
    if not isinstance(values, list):
        raise MalformedRecord(f"{table!r} of {owner} must be a list, got {json_type(values)}")
    return [_parse_row(table, value, f"{table}[{i}] of {owner}") | keys for i, value in enumerate(values)]


def _parse_row(table: str, values: Any, owner: str) -> Row:
    if not isinstance(values, dict):
        raise MalformedRecord(f"{owner} must be an object, got {json_type(values)}")
    fields = _FIELDS[table]
    nested = RUN_TABLES if table == "runs" else ()
    for name in values:
        if name not in fields and name not in nested:
            raise MalformedRecord(f"{owner} has an unknown field {name!r}")
    row = {}
    for name, field in fields.items():
        value = row[name] = values.get(name)
        if value is None and field.is_required:
            raise MalformedRecord(f"{owner} has no {name!r}")
        if value is not None and not field.accepts(value):
            raise MalformedRecord(f"{name!r} of {owner} must be {field.expected}")
    for name in _TEXT_AND_JSON.get(table, ()):
        is_result = table == "tool_calls" or row.get("role") in RESULT_ROLES
        row[name], row[f"{name}_json"] = mapping.split_content(row[name], is_result=is_result)
    return row


class _Field(NamedTuple):
    accepts: Callable[[Any], bool]
    expected: str
    is_required: bool


def _fields_of_table(table: str, columns: sa.Table) -> dict[str, _Field]:
    fields = {}
    json_columns = {f"{name}_json" for name in _TEXT_AND_JSON.get(table, ())}
    unit = 1 if table == "sessions" else 1_000_000
    for column in columns.c:
        name = column.name
        if name in _OMITTED[table] or name in json_columns:
            continue
        if allowed := ALLOWED_VALUES.get((table, name)):
            kind: tuple[Callable[[Any], bool], str] = allowed.__contains__, "one of " + ", ".join(allowed)
        elif _IDS.get(table) == name:
            kind = (
                lambda value: type(value) is str and len(value) <= mapping.MAX_ID_LENGTH,
                f"a string of up to {mapping.MAX_ID_LENGTH:,} characters",
            )
        elif name in _TEXT_AND_JSON.get(table, ()) or name in _ANY_JSON:
            kind = lambda _: True, "a value"
        elif name in _INDEXES:  # a branch that inherits nothing forks at -1
            kind = lambda value: type(value) is int and -1 <= value < _INDEX_LIMIT, "an index"
        elif name.endswith("_at"):
            kind = lambda value: type(value) is int and YEARS[0] <= value // unit <= YEARS[1], "a time"
        else:
            kind = _KINDS[type(column.type)]
        fields[name] = _Field(*kind, is_required=not column.nullable)
    return fields


_UNIQUE_COLUMNS = (
    ("runs", "run_id"),
    ("runs", "run_index"),
    ("messages", "message_index"),
    ("tool_calls", "tool_call_id"),
    ("requirements", "requirement_id"),
)


def _require_consistent(rows: Rows) -> None:
    """Raise MalformedRecord if rows contradict each other."""
    for table, name in _UNIQUE_COLUMNS:
        seen: set[Any] = set()
        for row in rows[table]:
            key = row[name] if table == "runs" else (row["run_id"], row[name])
            if key in seen:
                raise MalformedRecord(f"two of its {table.replace('_', ' ')} have the {name} {row[name]!r}")
            seen.add(key)
    [session] = rows["sessions"]
    if session["parent_session_id"] is not None and session["fork_run_index"] is None:
        raise MalformedRecord(f"it is a branch of {session['parent_session_id']!r} and has no fork_run_index")
    run_ids = {row["run_id"] for row in rows["runs"]} | {None}
    for row in rows["scores"]:
        if row["run_id"] not in run_ids:
            raise MalformedRecord(f"a score refers to run {row['run_id']!r}, which the record does not have")


def _is_integer(value: Any) -> bool:
    return type(value) is int and -_INTEGER_LIMIT <= value < _INTEGER_LIMIT


_KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    Text: (lambda value: type(value) is str, "a string"),
    Json: (lambda value: type(value) is dict, "an object"),
    Integer: (_is_integer, "an integer"),
    Real: (lambda value: _is_integer(value) or (type(value) is float and isfinite(value)), "a number"),
    Boolean: (lambda value: type(value) is bool, "true or false"),
}

# The columns are the same whatever the names of the tables.
_tables = Tables("agno_sessions")
_FIELDS = {name: _fields_of_table(name, getattr(_tables, name)) for name in TABLES}
