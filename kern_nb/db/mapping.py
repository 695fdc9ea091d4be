"""Convert records to rows and back. Rows are dicts by column name; the column types encode the values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from kern_nb.db import codec
from kern_nb.db.column_types import Json, Real, StoredRow, UnreadableCell, text_type_error, to_float, to_integer
from kern_nb.db.schema import (
    ALLOWED_VALUES,
    MAX_TOKENS,
    MIN_VALUES,
    USAGE_COLUMNS,
    Tables,
    find_problem,
    micros_per_unit,
    shared_tables,
)
from kern_nb.errors import UnstorableValue
from kern_nb.records import (
    OPEN_STATUSES,
    RESULT_ROLES,
    YEARS,
    Message,
    Requirement,
    Run,
    Session,
    ToolCall,
    ToolStatus,
    Usage,
    is_parts,
    text_of,
    to_utc,
    unix_seconds,
)

Row = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_ID_LENGTH = 1000
"""PostgreSQL's indexes allow little more, in any script."""

_INTEGER_BOUND = 2**63
_MICROSECOND = timedelta(microseconds=1)


class RunRows(NamedTuple):
    """The rows of one run, to insert when the run has its index."""

    run: Row
    messages: list[Row]
    tool_calls: list[Row]


def to_micros(time: datetime | None) -> int | None:
    """Unix microseconds, exactly."""
    if type(time) is datetime and time.tzinfo is UTC:
        return (time - _EPOCH) // _MICROSECOND
    if time is None or (isinstance(time, datetime) and time != time):  # noqa: PLR0124 - pandas' NaT passes for one
        return None
    return (to_utc(time) - _EPOCH) // _MICROSECOND


def from_micros(value: int | None) -> datetime | None:
    """The inverse of `to_micros`."""
    return None if value is None else _EPOCH + value * _MICROSECOND


def split_content(content: Any, *, is_result: bool = False) -> tuple[str | None, Any]:
    """The text column and the JSON column of a content.

    The text of a person's or a model's message parts is their texts; that of any other value, and of a tool's result
    (``is_result``), is its JSON.
    """
    if content is None or isinstance(content, str):
        return (None if content is None else str(content)), None
    if not isinstance(content, (list, dict)):
        content = codec.loads(codec.dumps(content))  # a scalar as it is read back: a missing value is None
        if content is None or isinstance(content, str):
            return split_content(content)
    elif not is_result and is_parts(content):
        return text_of(content), content
    return codec.dumps(content), content


# The fields that are columns of the same name and value.
_RUN_FIELDS = (
    "session_id", "run_index", "run_id", "parent_run_id", "run_type", "agent_id", "team_id", "workflow_id", "user_id",
    "status", "model", "model_provider", "duration_s", "time_to_first_token_s", "error", "session_state",
)  # fmt: skip
_MESSAGE_FIELDS = (
    "message_index", "message_id", "role", "tool_call_id", "tool_name", "is_error", "model", "from_history", "partial",
)  # fmt: skip
_CALL_FIELDS = ("tool_call_id", "tool_name", "args", "status", "caller", "message_index", "duration_s")


def _to_row(record: Run | Message | ToolCall, names: Sequence[str]) -> Row:
    """The columns of these fields, and those that every record has."""
    fields = vars(record)  # faster than getattr
    row = {name: fields[name] for name in names}
    row["created_at"] = to_micros(record.created_at)
    row["extra"], row["internal"] = record.extra or None, record.internal or None
    return row


def _to_fields(row: StoredRow, names: Iterable[str]) -> dict[str, Any]:
    """The inverse of `_to_row`."""
    fields = {name: row[name] for name in names}
    fields["created_at"] = from_micros(row["created_at"])
    fields["extra"], fields["internal"] = row["extra"] or {}, row["internal"] or {}
    return fields


def run_rows(run: Run, session_id: str) -> RunRows:
    """A run as rows, its messages numbered from 0. The insert assigns the ``run_index`` of all rows."""
    row = _to_row(run, _RUN_FIELDS) | {"session_id": require_id(session_id), "run_id": require_id(run.run_id)}
    row |= {name: normalize_number(row[name]) for name in ("duration_s", "time_to_first_token_s")}
    row["input"], row["input_json"] = split_content(run.input)
    row["output"], row["output_json"] = split_content(run.output)
    row |= usage_row(run.usage) | {"finished_at": to_micros(run.finished_at)}
    messages = [message_row(m, run.run_id, session_id, i) for i, m in enumerate(run.messages)]
    calls = tool_call_rows(run.run_id, session_id, run.messages, run.tool_calls, open_run=run.status in OPEN_STATUSES)
    return RunRows(row, messages, calls)


def message_row(message: Message, run_id: str, session_id: str, index: int) -> Row:
    """A message as a row; without ``run_index``."""
    row = _to_row(message, _MESSAGE_FIELDS)
    row.update(usage_row(message.usage))
    row["content"], row["content_json"] = split_content(message.content, is_result=message.role in RESULT_ROLES)
    row["run_id"], row["session_id"], row["message_index"] = run_id, session_id, index
    return row


def usage_row(usage: Usage | None) -> Row:
    """The usage columns, NULL for what is unknown."""
    if usage is None:
        return dict.fromkeys(USAGE_COLUMNS)
    row = {name: None if (value := getattr(usage, name)) is None else normalize_number(value) for name in USAGE_COLUMNS}
    for name, value in row.items():
        if name != "cost" and value is not None and not -MAX_TOKENS <= value <= MAX_TOKENS:
            raise UnstorableValue(f"{name}={value} is too large for a number of tokens.", "Keep it in extra.")
    return row


def require_id(value: str) -> str:
    """An id that fits the index of every engine; raises UnstorableValue if it is too long, BadUsage if not a str."""
    if not isinstance(value, str):
        raise text_type_error(value)
    if len(value) > MAX_ID_LENGTH:
        message = f"An id of {len(value):,} characters, {value[:20]}…, is longer than {MAX_ID_LENGTH:,}."
        raise UnstorableValue(message, "Use a shorter id, and store the long one in extra.")
    return value


def normalize_number(value: float | None) -> float | None:
    """A number that fits the columns of every engine, None for NaN; raises UnstorableValue if too large or infinite."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    if type(value) is int and -_INTEGER_BOUND <= value < _INTEGER_BOUND:
        return value
    return to_integer(value) if isinstance(value, int) else to_float(value)


def tool_call_rows(
    run_id: str,
    session_id: str,
    messages: list[Message],
    calls: Iterable[ToolCall],
    *,
    open_run: bool,
    first_message: int = 0,
    used_ids: Iterable[str] = (),
    join: bool = True,
) -> list[Row]:
    """The tool calls of a run, from its messages and from ``calls``, with their results; without ``run_index``.

    A call that is in both is one row; the one in ``calls`` has more fields. The second of two different calls with one
    id becomes ``id~2``, so that neither is lost; ``used_ids`` are those of the run's stored calls. With ``join``, a
    result is joined by id within the run, to the first call without one. A call without a result is started in an
    ``open_run``, otherwise unknown. ``first_message`` is the index of the first message.
    """
    in_messages = [(call, i) for i, message in enumerate(messages, first_message) for call in message.tool_calls]
    message_ids = {call.tool_call_id for call, _ in in_messages}
    calls = list(calls)
    by_id = {call.tool_call_id: call for call in calls if call.tool_call_id is not None}
    indexed: list[tuple[ToolCall, int | None]] = [
        (_merge_calls(call, by_id.get(call.tool_call_id or "")), index) for call, index in in_messages
    ]
    only_in_calls = (call for call in calls if call.tool_call_id is None or call.tool_call_id not in message_ids)
    indexed += [(call, call.message_index) for call in only_in_calls]

    ids, rows = set(used_ids), []
    unanswered: dict[str, list[Row]] = {}
    suffixes: dict[str, int] = {}  # the last one of each id
    for call, message_index in indexed:
        call_id = unique_id = call.tool_call_id or f"call_{len(ids) + 1}"
        while unique_id in ids:
            suffixes[call_id] = suffixes.get(call_id, 1) + 1
            unique_id = f"{call_id}~{suffixes[call_id]}"
        row = _to_row(call, _CALL_FIELDS) | {"run_id": run_id, "session_id": session_id}
        row |= {"tool_call_id": require_id(unique_id), "message_index": message_index, "call_index": len(ids)}
        row["duration_s"] = normalize_number(call.duration_s)
        row["result"], row["result_json"] = split_content(call.result, is_result=True)
        ids.add(unique_id)
        rows.append(row)
        if call.result is None:
            unanswered.setdefault(call_id, []).append(row)
    for index, message in enumerate(messages, first_message):
        if not join or message.role not in RESULT_ROLES:
            continue
        # A result comes after its call.
        candidates = unanswered.get(message.tool_call_id or "", [])
        position = next((i for i, row in enumerate(candidates) if (row["message_index"] or 0) <= index), None)
        if position is not None:
            row = candidates.pop(position)
            row["result"], row["result_json"] = split_content(message.content, is_result=True)
            row["status"] = row["status"] or result_status(message)
    for row in rows:
        has_result = row["result"] is not None or row["result_json"] is not None
        row["status"] = row["status"] or ("completed" if has_result else "started" if open_run else "unknown")
    return rows


def result_status(message: Message) -> ToolStatus:
    """The status of the call that a tool's message answers."""
    return "failed" if message.is_error else "completed"


def _merge_calls(call: ToolCall, other: ToolCall | None) -> ToolCall:
    """A call with the fields that ``other`` has."""
    if other is None:
        return call
    values = ((name, getattr(other, name)) for name in ToolCall.model_fields)
    return call.model_copy(update={k: v for k, v in values if v is not None and not (type(v) is dict and not v)})


@cache
def _rules(table: str) -> tuple[list[str], list[tuple[str, float, float]], list[tuple[str, frozenset[str]]]]:
    """The constraints of `schema.find_problem`: required columns, ranges of numbers, allowed words."""
    columns = getattr(shared_tables("rules"), table).c
    ranges: list[tuple[str, float, float]] = []
    for column in columns:
        if column.name.endswith("_at"):
            bounds = YEARS[0] * 1_000_000, (YEARS[1] + 1) * 1_000_000 - 1  # the last second to its end
            first, last = (bound // micros_per_unit(table) for bound in bounds)
            ranges.append((column.name, first, last))
        elif column.name in MIN_VALUES:
            ranges.append((column.name, MIN_VALUES[column.name], _INTEGER_BOUND))
        elif isinstance(column.type, Real):
            ranges.append((column.name, -sys.float_info.max, sys.float_info.max))
    words = [(name, frozenset(allowed)) for (of, name), allowed in ALLOWED_VALUES.items() if of == table]
    return [c.name for c in columns if not c.nullable], ranges, words


def require_valid(table: str, row: StoredRow) -> None:
    """Raise UnreadableCell unless a row, with all its columns, can be a row of a table, an attribute of `Tables`."""
    required, ranges, words = _rules(table)
    for name in required:
        if row[name] is None:
            raise _invalid_cell(table, name, row)
    for name, least, most in ranges:
        value = row[name]
        if value is not None and not least <= value <= most:
            raise _invalid_cell(table, name, row)
    for name, allowed in words:
        if row[name] not in allowed:
            raise _invalid_cell(table, name, row)


def _invalid_cell(table: str, name: str, row: StoredRow) -> UnreadableCell:
    reason = find_problem(table, getattr(shared_tables("rules"), table).c[name], row[name]) or "it cannot be read"
    return UnreadableCell((table, name), row[name], reason, row)


SESSION_FIELDS = tuple(name for name in Session.model_fields if name != "runs")


def session_row(session: Session) -> Row:
    """A session as a row, without its runs and its revision, which the store counts."""
    row = {name: getattr(session, name) for name in SESSION_FIELDS if name != "revision"}
    row["session_id"] = require_id(session.session_id)
    # Fields may have been set after the record was validated.
    times = {name: row[name] for name in ("created_at", "updated_at") if row[name] is not None}
    return row | {name: unix_seconds(to_integer(value)) for name, value in times.items()}


def session_from_row(row: StoredRow, runs: list[Run] | None = None) -> Session:
    """The session of a row."""
    require_valid("sessions", row)
    return _construct_session(row, runs)


def listed_session(row: Row, damaged: Sequence[str]) -> Session:
    """The session of a row in a list; of a damaged row, the readable values, and the names of the other columns."""
    if damaged:
        row = row | {name: "None" for name in ("session_id", "session_type") if row[name] is None}
    session = _construct_session(row, None)
    session.note_damage(damaged)
    return session


def _construct_session(row: StoredRow, runs: list[Run] | None) -> Session:
    fields = {name: row[name] for name in SESSION_FIELDS} | {"revision": row["revision"] or 0}
    session = Session.model_construct(**fields, runs=runs)
    session.note_stored_data(row["session_data"])
    return session


def run_from_row(row: StoredRow, messages: list[Message], tool_calls: list[ToolCall]) -> Run:
    """The run of a row, with its messages and tool calls."""
    require_valid("runs", row)
    attach_calls(messages, tool_calls)
    fields = _to_fields(row, _RUN_FIELDS) | {"input": _content(row, "input"), "output": _content(row, "output")}
    fields |= {"usage": _usage_from_row(row), "finished_at": from_micros(row["finished_at"])}
    return Run.model_construct(**fields, messages=messages, tool_calls=tool_calls, requirements=[])


def as_stored(tables: Tables, run: Run) -> Run:
    """The record that `SessionStore.get_run` returns of a run that was just stored, without reading it.

    Each value is encoded and decoded as its column does. The run is complete, and has no requirements.
    """
    rows, index = run_rows(run, run.session_id or ""), {"run_index": run.run_index}
    row = _round_trip(tables.runs, rows.run)
    messages = [message_from_row(_round_trip(tables.messages, row | index)) for row in rows.messages]
    calls = [tool_call_from_row(_round_trip(tables.tool_calls, row | index)) for row in rows.tool_calls]
    return run_from_row(row, messages, calls)


def _round_trip(table: sa.Table, row: Row) -> Row:
    stored = {column.name: row.get(column.name) for column in table.columns}
    for column in table.columns:
        value = stored[column.name]
        if value is not None and isinstance(column.type, Json):
            stored[column.name] = codec.loads(codec.dumps(value))
        elif value is not None and isinstance(column.type, Real):
            stored[column.name] = float(value)
    return stored


def attach_calls(messages: Iterable[Message], calls: Iterable[ToolCall]) -> None:
    """Set the calls of each message, by message index."""
    by_message: dict[int | None, list[ToolCall]] = {}
    for call in calls:
        by_message.setdefault(call.message_index, []).append(call)
    for message in messages:
        message.tool_calls = by_message.get(message.message_index, [])


def message_from_row(row: StoredRow) -> Message:
    """The message of a row."""
    require_valid("messages", row)
    fields = _to_fields(row, _MESSAGE_FIELDS)
    return Message.model_construct(
        **fields, content=_content(row, "content"), tool_calls=[], usage=_usage_from_row(row)
    )


def tool_call_from_row(row: StoredRow) -> ToolCall:
    """The tool call of a row."""
    require_valid("tool_calls", row)
    return ToolCall.model_construct(**_to_fields(row, _CALL_FIELDS), result=_content(row, "result"))


_REQUIREMENT_TIMES = ("created_at", "resolved_at", "expires_at")


def requirement_row(requirement: Requirement) -> Row:
    """A requirement as a row."""
    row = {name: getattr(requirement, name) for name in Requirement.model_fields}
    row |= {name: to_micros(row[name]) for name in _REQUIREMENT_TIMES}
    return row | {"requirement_id": require_id(requirement.requirement_id), "extra": requirement.extra or None}


def requirement_from_row(row: StoredRow) -> Requirement:
    """The requirement of a row."""
    require_valid("requirements", row)
    values = {name: row[name] for name in Requirement.model_fields}
    values |= {name: from_micros(row[name]) for name in _REQUIREMENT_TIMES}
    return Requirement.model_construct(**values | {"extra": row["extra"] or {}})


def _usage_from_row(row: StoredRow) -> Usage | None:
    """The usage of a row; None if all of it is unknown."""
    usage = {name: row[name] for name in USAGE_COLUMNS}
    return None if all(value is None for value in usage.values()) else Usage.model_construct(**usage)


def _content(row: StoredRow, name: str) -> Any:
    value = row[f"{name}_json"]
    return row[name] if value is None else value
