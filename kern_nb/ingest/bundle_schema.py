"""A session's rows as one record of a bundle, and back. It says what the tables hold, and nothing twice.

A record is ``{"session": {...}, "runs": [{..., "messages": [...], "tool_calls": [...], "requirements": [...]}],
"scores": [...]}``. The fields are the columns of the tables (`db.schema`), those that are NULL left out; a value and
the text that people read of it are one field. Times are as stored: unix seconds on sessions, microseconds elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import sqlalchemy as sa

from kern_nb.db import codec, mapping
from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text
from kern_nb.db.mapping import Row
from kern_nb.db.schema import ALLOWED_VALUES, Tables
from kern_nb.ingest.importer import Malformed, kind_of
from kern_nb.records import YEARS

Rows = dict[str, list[Row]]
"""The rows of one session, by table; one of them is in ``sessions``."""

OF_RUN = ("messages", "tool_calls", "requirements")
TABLES = ("sessions", "runs", *OF_RUN, "scores")

# What follows from where a row stands, or means nothing elsewhere: the process that writes a run, a score's key.
_LEFT_OUT = {
    "sessions": frozenset(),
    "runs": frozenset({"session_id", "process"}),
    "messages": frozenset({"session_id", "run_id", "run_index"}),
    "tool_calls": frozenset({"session_id", "run_id", "run_index"}),
    "requirements": frozenset({"session_id", "run_id"}),
    "scores": frozenset({"session_id", "score_id"}),
}
_WITH_JSON = {"runs": ("input", "output"), "messages": ("content",), "tool_calls": ("result",)}

_IDS = (
    ("sessions", "session_id"),
    ("runs", "run_id"),
    ("tool_calls", "tool_call_id"),
    ("requirements", "requirement_id"),
)
_PLACES = ("run_index", "message_index", "call_index", "fork_run_index", "fork_message_index")
_ANY_JSON = ("args", "answer")

_WIDEST = 2**63
_FARTHEST = 10**15


def packed(made: Rows) -> dict[str, Any]:
    """The record of a session's rows."""
    [session] = made["sessions"]
    children: dict[str, dict[str, list[Row]]] = {}
    for name in OF_RUN:
        of_run: dict[str, list[Row]] = defaultdict(list)
        for row in made[name]:
            of_run[row["run_id"]].append(_fields(name, row))
        children[name] = of_run
    runs = []
    for row in made["runs"]:
        found = {name: of_run[row["run_id"]] for name, of_run in children.items() if row["run_id"] in of_run}
        runs.append(_fields("runs", row) | found)
    record = {"session": _fields("sessions", session), "runs": runs}
    return record | ({"scores": [_fields("scores", row) for row in made["scores"]]} if made["scores"] else {})


def _fields(table: str, row: Mapping[str, Any]) -> Row:
    left_out = _LEFT_OUT[table]
    # str: what SQLAlchemy calls a column is of a class of its own.
    fields = {str(name): value for name, value in row.items() if value is not None and name not in left_out}
    for name in _WITH_JSON.get(table, ()):
        value = fields.pop(f"{name}_json", None)
        if value is not None:
            fields[name] = value
    return fields


class Unpacking:
    """From records back to rows, each value looked at: a bundle may have been edited, or be damaged.

    Args:
        tables: The tables of a store.
    """

    def __init__(self, tables: Tables) -> None:
        self._columns = {name: _fields_of(name, getattr(tables, name)) for name in TABLES}

    def rows(self, record: Any) -> Rows:
        """The rows of a record.

        Raises:
            Malformed: it is not as `packed` makes it.
        """
        session = self._row("sessions", _member(record, "session", dict), "the session")
        session_id = session["session_id"]
        found: Rows = {name: [] for name in TABLES} | {"sessions": [session]}
        for position, given in enumerate(_member(record, "runs", list)):
            what = f"run {position}"
            if not isinstance(given, dict):
                raise Malformed(f"{what} is {kind_of(given)}, not an object")
            run = self._row("runs", {k: v for k, v in given.items() if k not in OF_RUN}, what)
            found["runs"].append(run | {"session_id": session_id})
            place = {"session_id": session_id, "run_id": run["run_id"]}
            for name in OF_RUN:
                where = place if name == "requirements" else place | {"run_index": run["run_index"]}
                found[name] += self._many(name, given.get(name, []), what, where)
        found["scores"] = self._many("scores", record.get("scores", []), "the session", {"session_id": session_id})
        _require_apart(found)
        return found

    def _many(self, table: str, given: Any, owner: str, where: Row) -> list[Row]:
        if not isinstance(given, list):
            raise Malformed(f"{table!r} of {owner} is {kind_of(given)}, not a list")
        return [self._row(table, one, f"{table}[{i}] of {owner}") | where for i, one in enumerate(given)]

    def _row(self, table: str, given: Any, what: str) -> Row:
        if not isinstance(given, dict):
            raise Malformed(f"{what} is {kind_of(given)}, not an object")
        columns = self._columns[table]
        unknown = [name for name in given if name not in columns]
        if unknown:
            raise Malformed(f"{what} has {unknown[0]!r}, which is no field of it")
        row = {}
        for name, field in columns.items():
            value = row[name] = given.get(name)
            if value is None and field.needed:
                raise Malformed(f"{what} has no {name!r}")
            if value is not None and not field.fits(value):
                raise Malformed(f"{name!r} of {what} is not {field.noun}")
        for name in _WITH_JSON.get(table, ()):
            is_result = table == "tool_calls" or row.get("role") in mapping.RESULT_ROLES
            row[name], row[f"{name}_json"] = mapping.split_content(row[name], is_result=is_result)
        return row


class _Field(NamedTuple):
    """What a field may hold."""

    fits: Callable[[Any], bool]
    noun: str
    needed: bool


def _fields_of(table: str, columns: sa.Table) -> dict[str, _Field]:
    """The fields of a table's rows, as records have them."""
    found = {}
    beside = {f"{name}_json" for name in _WITH_JSON.get(table, ())}
    for column in columns.c:
        name = column.name
        if name in _LEFT_OUT[table] or name in beside:
            continue
        words = ALLOWED_VALUES.get((table, name))
        if words:
            kind: tuple[Callable[[Any], bool], str] = words.__contains__, "one of " + ", ".join(words)
        elif (table, name) in _IDS:
            kind = _is_id, f"text of up to {mapping.MAX_ID_LENGTH:,} characters"
        elif name in _WITH_JSON.get(table, ()) or name in _ANY_JSON:
            kind = _is_anything, "a value"
        elif name in _PLACES:
            kind = _is_place, "a place"
        elif name.endswith("_at"):
            kind = partial(_is_time, unit=1 if table == "sessions" else 1_000_000), "a time"
        else:
            kind = _KINDS[type(column.type)]
        found[name] = _Field(*kind, needed=not column.nullable)
    return found


def restored(value: Any) -> Any:
    """A record as it was before the codec wrote it, from the JSON that was read.

    Raises:
        Malformed: it holds a value that the codec did not write.
    """
    try:
        return codec.restore(value)
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
        raise Malformed(f"it holds a value that is not as it was written: {error!r}") from error


def _member(record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise Malformed(f"{name!r} is {kind_of(value)}, not {kind_of(kind())}")
    return value


_KEYS = (
    ("runs", "run_id"),
    ("runs", "run_index"),
    ("messages", "message_index"),
    ("tool_calls", "tool_call_id"),
    ("requirements", "requirement_id"),
)


def _require_apart(found: Rows) -> None:
    """Refuse rows that no store holds side by side.

    Raises:
        Malformed: there are such.
    """
    for table, name in _KEYS:
        seen: set[Any] = set()
        for row in found[table]:
            key = row[name] if table in ("runs", "requirements") else (row["run_id"], row[name])
            if key in seen:
                raise Malformed(f"two of its {table.replace('_', ' ')} have the {name} {row[name]!r}")
            seen.add(key)
    [session] = found["sessions"]
    if session["parent_session_id"] is not None and session["fork_run_index"] is None:
        raise Malformed(f"it is a branch of {session['parent_session_id']!r}, and does not say from where on")
    ids = {row["run_id"] for row in found["runs"]} | {None}
    for row in found["scores"]:
        if row["run_id"] not in ids:
            raise Malformed(f"a score is of run {row['run_id']!r}, which is not there")


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_id(value: Any) -> bool:
    return type(value) is str and len(value) <= mapping.MAX_ID_LENGTH


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_WIDEST <= value < _WIDEST


def _is_place(value: Any) -> bool:
    return type(value) is int and -1 <= value < _FARTHEST  # a branch that inherits nothing forks at -1


def _is_time(value: Any, unit: int) -> bool:
    return type(value) is int and YEARS[0] <= value // unit <= YEARS[1]


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and isfinite(value))


def _is_switch(value: Any) -> bool:
    return type(value) is bool


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_anything(_: Any) -> bool:
    return True


_KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    Text: (_is_text, "text"),
    Json: (_is_object, "an object"),
    Integer: (_is_whole, "a whole number"),
    Real: (_is_number, "a number"),
    Boolean: (_is_switch, "true or false"),
}
