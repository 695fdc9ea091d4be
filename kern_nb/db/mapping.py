"""Records to rows and back. Rows are plain dicts keyed by column name; the column types do the encoding."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy.engine import RowMapping

from kern_nb.db import codec
from kern_nb.db.schema import (
    LEAST,
    MOST_TOKENS,
    USAGE,
    WORDS,
    Real,
    Tables,
    UnreadableCell,
    micros_per_unit,
    not_text,
    problem,
    real,
    whole,
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
Stored = Mapping[str, Any] | RowMapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANSWERS = RESULT_ROLES
"""The roles of messages that answer a call."""

MAX_ID_LENGTH = 1000
"""PostgreSQL's indexes take little more, in any script."""

_WIDEST = 2**63
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class RunRows:
    """The rows of one run, ready to insert once the run's index is known."""

    run: Row
    messages: list[Row] = field(default_factory=list)
    tool_calls: list[Row] = field(default_factory=list)


def to_micros(time: datetime | None) -> int | None:
    """Unix microseconds, exactly."""
    if time is None or (isinstance(time, datetime) and time != time):  # noqa: PLR0124 - pandas' NaT passes for one
        return None
    return (to_utc(time) - _EPOCH) // _MICROSECOND


def moment(value: int | None) -> datetime | None:
    """The time of `to_micros`."""
    return None if value is None else _EPOCH + value * _MICROSECOND


def split_content(content: Any, *, is_result: bool = False) -> tuple[str | None, Any]:
    """A content as (what people read, the value itself where that is no text).

    People read the texts of what a person or a model says in parts; any other value, and whatever a tool returned
    (``is_result``), as JSON.
    """
    if content is None or isinstance(content, str):
        return (None if content is None else str(content)), None
    if not isinstance(content, (list, dict)):
        content = codec.loads(codec.dumps(content))  # a scalar as it will come back: a missing value is None
        return (
            split_content(content) if content is None or isinstance(content, str) else (codec.dumps(content), content)
        )
    if not is_result and is_parts(content):
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
        "session_id": key(session_id),
        "run_id": key(run.run_id),
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
    """A message as a row; ``run_index`` is set when the run has one."""
    text, value = split_content(message.content, is_result=message.role in ANSWERS)
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
    """The usage columns, all NULL where nothing is known."""
    if usage is None:
        return dict.fromkeys(USAGE)
    row = {name: None if (value := getattr(usage, name)) is None else normalize_number(value) for name in USAGE}
    for name, value in row.items():
        if name != "cost" and value is not None and not -MOST_TOKENS <= value <= MOST_TOKENS:
            raise UnstorableValue(f"{name}={value} is too large for a count of tokens.", "Keep it in extra.")
    return row


def key(value: str) -> str:
    """An id that every engine's index takes.

    Raises:
        UnstorableValue: it is longer.
        BadUsage: it is no text.
    """
    if not isinstance(value, str):
        raise not_text(value)
    if len(value) > MAX_ID_LENGTH:
        message = f"An id of {len(value):,} characters, {value[:20]}…, is longer than {MAX_ID_LENGTH:,}."
        raise UnstorableValue(message, "Use a shorter id, and keep the long one in extra.")
    return value


def normalize_number(value: float | None) -> float | None:
    """A number that every engine's columns hold; NaN is not known.

    Raises:
        UnstorableValue: it is a wider integer than a column, or not finite.
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    return value if type(value) is int and -_WIDEST <= value < _WIDEST else _checked(value)


def _checked(value: Any) -> float:
    return whole(value) if isinstance(value, int) else real(value)


def tool_call_rows(
    run_id: str,
    session_id: str,
    messages: list[Message],
    calls: Iterable[ToolCall],
    *,
    open_run: bool,
    first_message: int = 0,
    taken: Iterable[str] = (),
    join: bool = True,
) -> list[Row]:
    """The tool calls of a run, those on its messages and those given beside them, with their results.

    A call that both name is one call. Of two different calls with one id the second becomes ``id~2``, so that neither
    is lost. Results are joined by id within the run, each to the first call still without one.
    """
    found = [(call, index) for index, message in enumerate(messages, first_message) for call in message.tool_calls]
    known = {call.tool_call_id for call, _ in found}
    beside = list(calls)
    by_id = {call.tool_call_id: call for call in beside if call.tool_call_id is not None}
    # The list beside the messages knows more of a call (its result, its duration) than the message does.
    placed: list[tuple[ToolCall, int | None]] = [
        (_merge_calls(call, by_id.get(call.tool_call_id or "")), index) for call, index in found
    ]
    placed += [
        (call, call.message_index) for call in beside if call.tool_call_id is None or call.tool_call_id not in known
    ]

    ids, rows = set(taken), []
    waiting: dict[str, list[Row]] = {}
    suffixes: dict[str, int] = {}
    for call, message_index in placed:
        given = call.tool_call_id or f"call_{len(ids) + 1}"
        unique = _unique(given, ids, suffixes)
        row = _tool_call_row(call, run_id, session_id, unique, message_index=message_index, call_index=len(ids))
        ids.add(unique)
        rows.append(row)
        if call.result is None:
            waiting.setdefault(given, []).append(row)
    for index, message in enumerate(messages, first_message):
        if not join or message.role not in ANSWERS:
            continue
        # A result stands after its call.
        unanswered = waiting.get(message.tool_call_id or "", [])
        at = next((at for at, row in enumerate(unanswered) if (row["message_index"] or 0) <= index), None)
        if at is not None:
            row = unanswered.pop(at)
            row["result"], row["result_json"] = split_content(message.content, is_result=True)
            row["status"] = row["status"] or result_status(message)
    for row in rows:
        has_result = row["result"] is not None or row["result_json"] is not None
        row["status"] = row["status"] or ("completed" if has_result else "started" if open_run else "unknown")
    return rows


def result_status(message: Message) -> ToolStatus:
    """How the call ended that a tool's message answers."""
    return "failed" if message.is_error else "completed"


def _merge_calls(call: ToolCall, fuller: ToolCall | None) -> ToolCall:
    if fuller is None:
        return call
    known = {
        k: v for k in ToolCall.model_fields if (v := getattr(fuller, k)) is not None and not (type(v) is dict and not v)
    }
    return call.model_copy(update=known)


def _unique(given: str, taken: set[str], suffixes: dict[str, int]) -> str:
    """The id itself, or with the first suffix that is free; ``suffixes`` remembers the last one of each id."""
    unique = given
    while unique in taken:
        suffixes[given] = suffixes.get(given, 1) + 1
        unique = f"{given}~{suffixes[given]}"
    return unique


def _tool_call_row(
    call: ToolCall, run_id: str, session_id: str, unique: str, *, message_index: int | None, call_index: int
) -> Row:
    text, value = split_content(call.result, is_result=True)
    return {
        "run_id": run_id,
        "tool_call_id": key(unique),
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
    """What the rows of a table hold beyond the types of their columns; see `schema.problem`."""

    needed: tuple[str, ...]
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
        elif column.name in LEAST:
            ranges.append((column.name, LEAST[column.name], _WIDEST))
        elif isinstance(column.type, Real):
            ranges.append((column.name, -sys.float_info.max, sys.float_info.max))
    words = tuple((name, frozenset(WORDS[of, name])) for of, name in WORDS if of == table)
    return _Rules(tuple(c.name for c in columns if not c.nullable), tuple(ranges), words)


def require_sound(table: str, row: Stored) -> None:
    """Refuse a row that holds what no row of its table can hold.

    Args:
        table: The attribute of `Tables`.
        row: All columns of it.

    Raises:
        UnreadableCell: it does.
    """
    rules = _rules(table)
    for name in rules.needed:
        if row[name] is None:
            raise _unsound(table, name, row)
    for name, least, most in rules.ranges:
        value = row[name]
        if value is not None and not least <= value <= most:
            raise _unsound(table, name, row)
    for name, words in rules.words:
        if row[name] not in words:
            raise _unsound(table, name, row)


def _unsound(table: str, name: str, row: Stored) -> UnreadableCell:
    reason = problem(table, getattr(Tables("rules"), table).c[name], row[name]) or "it cannot be read"
    return UnreadableCell((table, name), row[name], reason, row)


SESSION_FIELDS = tuple(name for name in Session.model_fields if name != "runs")


def session_row(session: Session) -> Row:
    """A session as a row; its runs are rows of their own."""
    row = {name: getattr(session, name) for name in SESSION_FIELDS} | {"session_id": key(session.session_id)}
    # Fields are free to be set after the record was validated.
    times = {name: row[name] for name in ("created_at", "updated_at") if row[name] is not None}
    return row | {name: unix_seconds(whole(value)) for name, value in times.items()}


def session_of(row: Stored, runs: list[Run] | None = None) -> Session:
    """The session of a row."""
    require_sound("sessions", row)
    return Session.model_construct(**{name: row[name] for name in SESSION_FIELDS}, runs=runs)


def listed_session_of(row: Row, damaged: Sequence[str]) -> Session:
    """The session of a row in a list: of a damaged one, what can be read, and the names of the other columns."""
    if damaged:
        needed = {name: codec.shown(None) for name in ("session_id", "session_type") if row[name] is None}
        row = row | needed
    session = Session.model_construct(**{name: row[name] for name in SESSION_FIELDS}, runs=None)
    session.note_damage(damaged)
    return session


def run_of(row: Stored, messages: list[Message], tool_calls: list[ToolCall]) -> Run:
    """The run of a row; each message is given the calls it made."""
    require_sound("runs", row)
    by_message: dict[int | None, list[ToolCall]] = {}
    for call in tool_calls:
        by_message.setdefault(call.message_index, []).append(call)
    for message in messages:
        message.tool_calls = by_message.get(message.message_index, [])
    same = (
        "run_id", "session_id", "run_index", "parent_run_id", "run_type", "agent_id", "team_id", "workflow_id",
        "user_id", "status", "model", "model_provider", "duration_s", "time_to_first_token_s", "error", "session_state",
    )  # fmt: skip
    return Run.model_construct(
        **{name: row[name] for name in same},
        input=_joined(row, "input"),
        output=_joined(row, "output"),
        messages=messages,
        tool_calls=tool_calls,
        requirements=[],
        usage=usage_of(row),
        created_at=moment(row["created_at"]),
        finished_at=moment(row["finished_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


def message_of(row: Stored) -> Message:
    """The message of a row."""
    require_sound("messages", row)
    same = (
        "role", "tool_call_id", "tool_name", "is_error", "model", "message_id", "message_index", "from_history",
        "partial",
    )  # fmt: skip
    return Message.model_construct(
        **{name: row[name] for name in same},
        content=_joined(row, "content"),
        tool_calls=[],
        usage=usage_of(row),
        created_at=moment(row["created_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


def tool_call_of(row: Stored) -> ToolCall:
    """The tool call of a row."""
    require_sound("tool_calls", row)
    same = ("tool_call_id", "tool_name", "args", "status", "caller", "message_index", "duration_s")
    return ToolCall.model_construct(
        **{name: row[name] for name in same},
        result=_joined(row, "result"),
        created_at=moment(row["created_at"]),
        extra=row["extra"] or {},
        internal=row["internal"] or {},
    )


_REQUIREMENT_TIMES = ("created_at", "resolved_at", "expires_at")


def requirement_row(requirement: Requirement) -> Row:
    """A requirement as a row."""
    row = {name: getattr(requirement, name) for name in Requirement.model_fields}
    row |= {name: to_micros(row[name]) for name in _REQUIREMENT_TIMES}
    return row | {"requirement_id": key(requirement.requirement_id), "extra": requirement.extra or None}


def requirement_from_row(row: Stored) -> Requirement:
    """The requirement of a row."""
    require_sound("requirements", row)
    values = {name: row[name] for name in Requirement.model_fields}
    values |= {name: moment(row[name]) for name in _REQUIREMENT_TIMES}
    return Requirement.model_construct(**values | {"extra": row["extra"] or {}})


def usage_of(row: Stored) -> Usage | None:
    """The usage of a row, None where nothing is known."""
    known = {name: row[name] for name in USAGE}
    return None if all(v is None for v in known.values()) else Usage.model_construct(**known)


def _joined(row: Stored, name: str) -> Any:
    value = row[f"{name}_json"]
    return row[name] if value is None else value
