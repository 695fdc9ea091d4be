"""A run as reading it would return it, right after it was stored and without reading it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kern_nb.db import codec, mapping
from kern_nb.db.column_types import Json, Real
from kern_nb.db.schema import Tables
from kern_nb.records import Run


def as_stored(tables: Tables, run: Run) -> Run:
    """The record that `SessionStore.get_run` returns of a run without requirements that is complete here.

    Each value is encoded and decoded as its column does.
    """
    row_set = mapping.run_rows(run, run.session_id or "")
    index = {"run_index": run.run_index}
    row = _round_trip(tables.runs, row_set.run | index)
    messages = [mapping.message_from_row(_round_trip(tables.messages, row | index)) for row in row_set.messages]
    calls = [mapping.tool_call_from_row(_round_trip(tables.tool_calls, row | index)) for row in row_set.tool_calls]
    return mapping.run_from_row(row, messages, calls)


def _round_trip(table: sa.Table, row: mapping.Row) -> mapping.Row:
    return {column.name: _round_trip_value(column, row.get(column.name)) for column in table.columns}


def _round_trip_value(column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, Json):
        return codec.loads(codec.dumps(value))
    return float(value) if isinstance(column.type, Real) else value
