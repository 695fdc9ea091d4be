"""Convert records to rows and back. Rows are dicts by column name; the column types encode the values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from kern_nb.db import codec
from kern_nb.db.column_types import Real, StoredRow, UnreadableCell, text_type_error, to_float, to_integer
from kern_nb.db.schema import (
    ALLOWED_VALUES,
    MAX_TOKENS,
    MIN_VALUES,
    USAGE_COLUMNS,
    Tables,
    find_problem,
    micros_per_unit,
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


@dataclass
class RunRows:
    """The rows of one run, to insert when the run has its index."""

    run: Row
    messages: list[Row] = field(default_factory=list)
    tool_calls: list[Row] = field(default_factory=list)


def to_micros(time: datetime | None) -> int | None:
    """Unix microseconds, exactly."""
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


_RUN_SCALARS = (
    "run_id", "parent_run_id", "run_type", "agent_id", "team_id", "workflow_id", "user_id", "status", "model",
    "model_provider", "duration_s", "time_to_first_token_s", "error",
)  # fmt: skip


def run_rows(run: Run, session_id: str) -> RunRows:
    """A run as rows, its messages numbered from 0."""
    values = {name: getattr(run, name) for name in _RUN_SCALARS}
    values |= {name: normalize_number(values[name]) for name in ("duration_s", "time_to_first_token_s")}
    values |= {
        "session_id": require_id(session_id),
        "run_id": require_id(run.run_id),
        "session_state": run.session_state,
        "extra": run.extra or None,
        "internal": run.internal or None,
    }
    values["input"], values["input_json"] = split_content(run.input)
    values["output"], values["output_json"] = split_content(run.output)
    values |= usage_row(run.usage)
    values |= {"created_at": to_micros(run.created_at), "finished_at": to_micros(run.finished_at)}
    messages = [message_row(m, run.run_id, session_id, i) for i, m in enumerate(run.messages)]
    calls = tool_call_rows(run.run_id, session_id, run.messages, run.tool_calls, open_run=run.status in OPEN_STATUSES)
    return RunRows(values, messages, calls)


def message_row(message: Message, run_id: str, session_id: str, index: int) -> Row:
    """A message as a row; without ``run_index``, which an insert of the run assigns."""
    text, value = split_content(message.content, is_result=message.role in RESULT_ROLES)
    return {
        "run_id": run_id,
        "message_index": index,
        "session_id": session_id,
        "message_id": message.message_id,
        "role": message.role,
        "content": text,
        "content_json": value,
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
        "is_error": message.is_error,
        "model": message.model,
        **usage_row(message.usage),
        "created_at": to_micros(message.created_at),
        "extra": message.extra or None,
        "from_history": message.from_history,
        "partial": message.partial,
        "internal": message.internal or None,
    }


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
    """An id that fits the index of every engine.

    Raises:
        UnstorableValue: It is too long.
        BadUsage: It is not a string.
    """
    if not isinstance(value, str):
        raise text_type_error(value)
    if len(value) > MAX_ID_LENGTH:
        message = f"An id of {len(value):,} characters, {value[:20]}…, is longer than {MAX_ID_LENGTH:,}."
        raise UnstorableValue(message, "Use a shorter id, and store the long one in extra.")
    return value


def normalize_number(value: float | None) -> float | None:
    """A number that fits the columns of every engine; None for NaN.

    Raises:
        UnstorableValue: It is an integer of more than 64 bits, or not finite.
    """
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
    """The tool calls of a run, from its messages and from ``calls``, with their results.

    A call that is in both is one row. The second of two different calls with one id becomes ``id~2``, so that neither
    is lost. A result is joined by id within the run, to the first call without one.

    Args:
        run_id: The run.
        session_id: Its session.
        messages: Its messages.
        calls: Its calls; of a call that is also in a message, these have more fields.
        open_run: Whether calls without a result are started, otherwise unknown.
        first_message: The index of the first message.
        used_ids: Ids of the run's stored calls.
        join: Whether to join results.

    Returns:
        The rows, without ``run_index``.
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
    suffixes: dict[str, int] = {}
    for call, message_index in indexed:
        call_id = call.tool_call_id or f"call_{len(ids) + 1}"
        unique_id = _unique_id(call_id, ids, suffixes)
        row = _tool_call_row(call, run_id, session_id, unique_id, message_index=message_index, call_index=len(ids))
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


def _unique_id(call_id: str, used_ids: set[str], suffixes: dict[str, int]) -> str:
    """The id itself, or with the first free suffix; ``suffixes`` has the last one of each id."""
    unique_id = call_id
    while unique_id in used_ids:
        suffixes[call_id] = suffixes.get(call_id, 1) + 1
        unique_id = f"{call_id}~{suffixes[call_id]}"
    return unique_id


def _tool_call_row(
    call: ToolCall, run_id: str, session_id: str, call_id: str, *, message_index: int | None, call_index: int
) -> Row:
    text, value = split_content(call.result, is_result=True)
    return {
        "run_id": run_id,
        "tool_call_id": require_id(call_id),
        "session_id": session_id,
        "message_index": message_index,
        "call_index": call_index,
        "tool_name": call.tool_name,
        "caller": call.caller,
        "args": call.args,
        "result": text,
        "result_json": value,
        "status": call.status,
        "duration_s": normalize_number(call.duration_s),
        "created_at": to_micros(call.created_at),
        "extra": call.extra or None,
        "internal": call.internal or None,
    }


class _Rules(NamedTuple):
    """The constraints on a table's rows beyond the types of its columns; see `schema.problem`."""

    required: tuple[str, ...]
    ranges: tuple[tuple[str, float, float], ...]
    words: tuple[tuple[str, frozenset[str]], ...]


@cache
def _rules(table: str) -> _Rules:
    columns = getattr(Tables("rules"), table).c
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
    words = tuple((name, frozenset(ALLOWED_VALUES[of, name])) for of, name in ALLOWED_VALUES if of == table)
    return _Rules(tuple(c.name for c in columns if not c.nullable), tuple(ranges), words)


def require_valid(table: str, row: StoredRow) -> None:
    """Check that a row can be a row of its table.

    Args:
        table: The attribute of `Tables`.
        row: All its columns.

    Raises:
        UnreadableCell: A value breaks a constraint.
    """
    rules = _rules(table)
    for name in rules.required:
        if row[name] is None:
            raise _invalid_cell(table, name, row)
    for name, least, most in rules.ranges:
        value = row[name]
        if value is not None and not least <= value <= most:
            raise _invalid_cell(table, name, row)
    for name, words in rules.words:
        if row[name] not in words:
            raise _invalid_cell(table, name, row)


def _invalid_cell(table: str, name: str, row: StoredRow) -> UnreadableCell:
    reason = find_problem(table, getattr(Tables("rules"), table).c[name], row[name]) or "it cannot be read"
    return UnreadableCell((table, name), row[name], reason, row)


SESSION_FIELDS = tuple(name for name in Session.model_fields if name != "runs")


def session_row(session: Session) -> Row:
    """A session as a row, without its runs."""
    row = {name: getattr(session, name) for name in SESSION_FIELDS} | {"session_id": require_id(session.session_id)}
    # Fields may have been set after the record was validated.
    times = {name: row[name] for name in ("created_at", "updated_at") if row[name] is not None}
    return row | {name: unix_seconds(to_integer(value)) for name, value in times.items()}


def session_from_row(row: StoredRow, runs: list[Run] | None = None) -> Session:
    """The session of a row."""
    require_valid("sessions", row)
    return Session.model_construct(**{name: row[name] for name in SESSION_FIELDS}, runs=runs)


def listed_session(row: Row, damaged: Sequence[str]) -> Session:
    """The session of a row in a list; of a damaged row, the readable values, and the names of the other columns."""
    if damaged:
        row = row | {name: codec.short_repr(None) for name in ("session_id", "session_type") if row[name] is None}
    session = Session.model_construct(**{name: row[name] for name in SESSION_FIELDS}, runs=None)
    session.note_damage(damaged)
    return session


def run_from_row(row: StoredRow, messages: list[Message], tool_calls: list[ToolCall]) -> Run:
    """The run of a row, with its messages and tool calls."""
    require_valid("runs", row)
    attach_calls(messages, tool_calls)
    scalars = (
        "run_id", "session_id", "run_index", "parent_run_id", "run_type", "agent_id", "team_id", "workflow_id",
        "user_id", "status", "model", "model_provider", "duration_s", "time_to_first_token_s", "error", "session_state",
    )  # fmt: skip
    return Run.model_construct(
        **{name: row[name] for name in scalars},
        input=_content(row, "input"),
        output=_content(row, "output"),
        messages=messages,
        tool_calls=tool_calls,
        requirements=[],
        usage=_usage_from_row(row),
        created_at=from_micros(row["created_at"]),
        finished_at=from_micros(row["finished_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


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
    scalars = (
        "role", "tool_call_id", "tool_name", "is_error", "model", "message_id", "message_index", "from_history",
        "partial",
    )  # fmt: skip
    return Message.model_construct(
        **{name: row[name] for name in scalars},
        content=_content(row, "content"),
        tool_calls=[],
        usage=_usage_from_row(row),
        created_at=from_micros(row["created_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


def tool_call_from_row(row: StoredRow) -> ToolCall:
    """The tool call of a row."""
    require_valid("tool_calls", row)
    scalars = ("tool_call_id", "tool_name", "args", "status", "caller", "message_index", "duration_s")
    return ToolCall.model_construct(
        **{name: row[name] for name in scalars},
        result=_content(row, "result"),
        created_at=from_micros(row["created_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


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
