"""A run that was just stored, as reading it gives it, without reading it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kern_nb.db import codec, mapping
from kern_nb.db.schema import Json, Real, Tables
from kern_nb.records import Run


def as_stored(tables: Tables, run: Run) -> Run:
    """The record that `SessionStore.get_run` gives of a run without requirements, of which all is known here.

    Each value takes the way through its column: as text and back.
    """
    row_set = mapping.run_rows(run, run.session_id or "")
    index = {"run_index": run.run_index}
    row = _read_back(tables.runs, row_set.run | index)
    messages = [mapping.message_of(_read_back(tables.messages, message | index)) for message in row_set.messages]
    calls = [mapping.tool_call_of(_read_back(tables.tool_calls, call | index)) for call in row_set.tool_calls]
    return mapping.run_of(row, messages, calls)


def _read_back(table: sa.Table, row: mapping.Row) -> mapping.Row:
    return {column.name: _value(column, row.get(column.name)) for column in table.columns}


def _value(column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, Json):
        return codec.loads(codec.dumps(value))
    return float(value) if isinstance(column.type, Real) else value
