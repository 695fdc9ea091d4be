"""Records to rows and back. Rows are plain dicts keyed by column name; the column types do the encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.engine import RowMapping

from kern_nb.db import codec
from kern_nb.db.schema import USAGE, not_text
from kern_nb.errors import UnstorableValue
from kern_nb.records import (
    OPEN_STATUSES,
    RESULT_ROLES,
    Message,
    Requirement,
    Run,
    Session,
    ToolCall,
    ToolStatus,
    Usage,
    is_parts,
    text_of,
)

Row = dict[str, Any]
Stored = Mapping[str, Any] | RowMapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANSWERS = RESULT_ROLES
"""The roles of messages that answer a call."""

LONGEST_ID = 1000
"""PostgreSQL's indexes take little more, in any script."""

_WIDEST = 2**63
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class RunRows:
    """The rows of one run, ready to insert once the run's index is known."""

    run: Row
    messages: list[Row] = field(default_factory=list)
    tool_calls: list[Row] = field(default_factory=list)


def micros(time: datetime | None) -> int | None:
    """Unix microseconds, exactly."""
    if time is None or time != time:  # noqa: PLR0124 - pandas' NaT, which passes for a datetime
        return None
    return (time - _EPOCH) // _MICROSECOND


def moment(value: int | None) -> datetime | None:
    """The time of `micros`."""
    return None if value is None else _EPOCH + value * _MICROSECOND


def split(content: Any, *, is_result: bool = False) -> tuple[str | None, Any]:
    """A content as (what people read, the value itself where that is no text).

    People read the texts of what a person or a model says in parts; any other value, and whatever a tool returned
    (``is_result``), as JSON.
    """
    if content is None or isinstance(content, str):
        return (None if content is None else str(content)), None
    if not isinstance(content, (list, dict)):
        content = codec.loads(codec.dumps(content))  # a scalar as it will come back: a missing value is None
        return split(content) if content is None or isinstance(content, str) else (codec.dumps(content), content)
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
    values |= {name: number(values[name]) for name in ("duration_s", "time_to_first_token_s")}
    values |= {
        "session_id": key(session_id),
        "run_id": key(run.run_id),
        "session_state": run.session_state,
        "extra": run.extra or None,
        "internal": run.internal or None,
    }
    values["input"], values["input_json"] = split(run.input)
    values["output"], values["output_json"] = split(run.output)
    values |= usage_row(run.usage)
    values |= {"created_at": micros(run.created_at), "finished_at": micros(run.finished_at)}
    messages = [message_row(m, run.run_id, session_id, i) for i, m in enumerate(run.messages)]
    calls = tool_call_rows(run.run_id, session_id, run.messages, run.tool_calls, open_run=run.status in OPEN_STATUSES)
    return RunRows(values, messages, calls)


def message_row(message: Message, run_id: str, session_id: str, index: int) -> Row:
    """A message as a row; ``run_index`` is set when the run has one."""
    text, value = split(message.content, is_result=message.role in ANSWERS)
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
        "created_at": micros(message.created_at),
        "extra": message.extra or None,
        "from_history": message.from_history,
        "partial": message.partial,
        "internal": message.internal or None,
    }


def usage_row(usage: Usage | None) -> Row:
    """The usage columns, all NULL where nothing is known."""
    if usage is None:
        return dict.fromkeys(USAGE)
    return {name: None if (value := getattr(usage, name)) is None else number(value) for name in USAGE}


def key(value: str) -> str:
    """An id that every engine's index takes.

    Raises:
        UnstorableValue: it is longer.
        BadUsage: it is no text.
    """
    if not isinstance(value, str):
        raise not_text(value)
    if len(value) > LONGEST_ID:
        message = f"An id of {len(value):,} characters, {value[:20]}…, is longer than {LONGEST_ID:,}."
        raise UnstorableValue(message, "Use a shorter id, and keep the long one in extra.")
    return value


def number(value: float | None) -> float | None:
    """A number that every engine's columns hold; NaN is not known.

    Raises:
        UnstorableValue: it is a wider integer than a column.
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    if isinstance(value, int) and not -_WIDEST <= value < _WIDEST:
        message = f"The number {value:.4g} is too large for a column."
        raise UnstorableValue(message, "Keep it in extra, where numbers may be of any size.")
    return value


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
    for call, message_index in placed:
        given = call.tool_call_id or f"call_{len(ids) + 1}"
        unique = _unique(given, ids)
        row = _tool_call_row(call, run_id, session_id, unique, message_index=message_index, call_index=len(ids))
        ids.add(unique)
        rows.append(row)
        if call.result is None:
            waiting.setdefault(given, []).append(row)
    for index, message in enumerate(messages, first_message):
        if not join or message.role not in ANSWERS:
            continue
        # A result stands after its call.
        calls_before = [r for r in waiting.get(message.tool_call_id or "", ()) if (r["message_index"] or 0) <= index]
        if calls_before:
            row = calls_before[0]
            waiting[message.tool_call_id or ""].remove(row)
            row["result"], row["result_json"] = split(message.content, is_result=True)
            row["status"] = row["status"] or ended(message)
    for row in rows:
        has_result = row["result"] is not None or row["result_json"] is not None
        row["status"] = row["status"] or ("completed" if has_result else "started" if open_run else "unknown")
    return rows


def ended(message: Message) -> ToolStatus:
    """How the call ended that a tool's message answers."""
    return "failed" if message.is_error else "completed"


def _merge_calls(call: ToolCall, fuller: ToolCall | None) -> ToolCall:
    if fuller is None:
        return call
    known = {k: v for k in ToolCall.model_fields if (v := getattr(fuller, k)) is not None and v != {}}
    return call.model_copy(update=known)


def _unique(given: str, taken: set[str]) -> str:
    unique, n = given, 1
    while unique in taken:
        n += 1
        unique = f"{given}~{n}"
    return unique


def _tool_call_row(
    call: ToolCall, run_id: str, session_id: str, unique: str, *, message_index: int | None, call_index: int
) -> Row:
    text, value = split(call.result, is_result=True)
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
        "duration_s": number(call.duration_s),
        "created_at": micros(call.created_at),
        "extra": call.extra or None,
        "internal": call.internal or None,
    }


SESSION_FIELDS = tuple(name for name in Session.model_fields if name != "runs")


def session_row(session: Session) -> Row:
    """A session as a row; its runs are rows of their own."""
    return {name: getattr(session, name) for name in SESSION_FIELDS} | {"session_id": key(session.session_id)}


def session_of(row: Stored, runs: list[Run] | None = None) -> Session:
    """The session of a row."""
    return Session.model_construct(**{name: row[name] for name in SESSION_FIELDS}, runs=runs)


def run_of(row: Stored, messages: list[Message], tool_calls: list[ToolCall]) -> Run:
    """The run of a row; each message is given the calls it made."""
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
    row |= {name: micros(row[name]) for name in _REQUIREMENT_TIMES}
    return row | {"requirement_id": key(requirement.requirement_id), "extra": requirement.extra or None}


def requirement_of(row: Stored) -> Requirement:
    """The requirement of a row."""
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
