"""The records that a store reads and writes. Pydantic validates them at the edges; inside the store, rows are rows.

A session has runs, a run has messages and tool calls. Field names are the columns of the frames (`docs/columns.md`).
Times are aware datetimes in UTC, except a session's ``created_at`` and ``updated_at``, which are unix seconds as
documented. Unknown is ``None``, never 0. Further data of a source is in ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeGuard
from uuid import uuid4

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from kern_nb.control_characters import escape_controls
from kern_nb.display import DisplayMixin
from kern_nb.errors import UnstorableValue
from kern_nb.extra_keys import EVENTS
from kern_nb.record_methods.requirements import RequirementMethods
from kern_nb.record_methods.runs import RunMethods
from kern_nb.record_methods.sessions import SessionMethods
from kern_nb.record_methods.steps import StepRequirementMethods, StepRunMethods
from kern_nb.record_methods.tool_calls import ToolCallMethods

if TYPE_CHECKING:
    from kern_nb.events.base import BaseRunOutputEvent

SessionType = Literal["agent", "team", "workflow"]
RunStatus = Literal["PENDING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED"]
ToolStatus = Literal["started", "completed", "failed", "unknown"]

_MAX_REPR_LENGTH = 80

OPEN_STATUSES = ("PENDING", "RUNNING", "PAUSED")
"""A run with one of these statuses can be written to."""

RESULT_ROLES = ("tool", "function")
"""The roles of messages with a tool's result."""

PART_TYPES = frozenset(
    {
        "text", "input_text", "output_text", "summary_text", "reasoning_text", "reasoning", "refusal", "thinking",
        "redacted_thinking", "image", "image_url", "input_image", "audio", "audio_url", "input_audio", "output_audio",
        "video", "video_url", "input_video", "document", "document_url", "file", "input_file", "media", "tool_use",
        "tool_result", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "mcp_tool_use",
        "mcp_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result", "tool_search_tool_result", "search_result", "container_upload",
    }
)  # fmt: skip
"""The types of message parts: the store's own, and those of the formats of providers."""

UNRESOLVED_STATUSES = ("pending", "claimed")
"""A requirement with one of these statuses has no answer."""


def _require(kind: type) -> PlainValidator:
    """Validate without pydantic's own str and dict: these refuse lone surrogates, which models and tools do return."""

    def check(value: object) -> object:
        if isinstance(value, kind):
            return value
        raise ValueError(f"must be a {kind.__name__}, got {type(value).__name__}")  # pydantic reports ValueErrors

    return PlainValidator(check)


YEARS = (-62_135_596_800, 253_402_300_799)
"""Unix seconds from the year 1 to 9999, the times of Python and pandas."""

_TIMES_HINT = "Times must be in the years 1 to 9999."


def to_utc(value: datetime, name: str = "A time") -> datetime:
    """Convert a time to UTC. Naive times are UTC, as importers state in the session's metadata.

    Raises:
        UnstorableValue: It is not a datetime, its zone fails, or it is outside the years 1 to 9999 in UTC.
    """
    if not isinstance(value, datetime):
        raise UnstorableValue(f"{name} must be a datetime, got {_short_repr(value)}.", _TIMES_HINT)
    if value.tzinfo is UTC:
        return value
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except Exception as error:  # a zone may raise anything
        message = f"{name} cannot be converted to UTC: {type(error).__name__}: {error}."
        raise UnstorableValue(message, _TIMES_HINT) from error


def unix_seconds(value: int, name: str = "A time") -> int:
    """Check a time in unix seconds; raise UnstorableValue if it is outside the years 1 to 9999."""
    if YEARS[0] <= value <= YEARS[1]:
        return value
    hint = f"{_TIMES_HINT} Divide milliseconds by 1,000 and microseconds by 1,000,000."
    raise UnstorableValue(f"{name} must be a time in unix seconds, got {_short_repr(value)}.", hint)


def _time_field(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> datetime:
    name = str(info.field_name)
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        time = handler(value)
    except ValidationError:
        if isinstance(value, (int, float)):  # unix seconds, or milliseconds if it is large
            raise UnstorableValue(f"{name} must be a unix time, got {_short_repr(value)}.", _TIMES_HINT) from None
        raise
    return to_utc(time, name)


Text = Annotated[str, _require(str)]
Object = Annotated[dict[str, Any], _require(dict)]
Time = Annotated[datetime, WrapValidator(_time_field)]
Seconds = Annotated[int, AfterValidator(lambda value, info: unix_seconds(value, str(info.field_name)))]


class Record(BaseModel):
    """The base of records: unknown fields are refused, assignment is not validated."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        fields = ((name, value) for name, value in super().__repr_args__() if value is not None)
        return [(name, value) for name, value in fields if not (isinstance(value, (list, dict)) and len(value) == 0)]


class Usage(Record):
    """Tokens and cost. ``cost`` is in the source's currency, US dollars unless it states another.

    Example:
        >>> Usage.total([Usage(input_tokens=10, output_tokens=2), Usage(input_tokens=5, cost=0.01)])
        Usage(input_tokens=15, output_tokens=2, cost=0.01)
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None

    @classmethod
    def total(cls, usages: Iterable[Usage | None]) -> Usage | None:
        """The sum of each field over the usages that have it; None if there are no usages."""
        present = [usage for usage in usages if usage is not None]
        sums = {}
        for name in Usage.model_fields:
            values = [value for usage in present if (value := getattr(usage, name)) is not None]
            sums[name] = sum(values) if values else None
        return Usage(**sums) if present else None


class RunMetrics(Usage):
    """The tokens, the cost and the times in seconds of a run; see `Run.metrics`."""

    duration: float | None = None
    time_to_first_token: float | None = None


class SessionMetrics(Usage):
    """The totals of a session, computed from its rows: the agent's tokens, cost, calls and time."""

    n_runs: int = 0
    n_messages: int = 0
    n_tool_calls: int = 0
    n_tool_errors: int = 0
    duration_s: float | None = None


class ToolCall(ToolCallMethods, Record):
    """One call of a tool.

    ``args`` is the decoded object, or the source's text if that is not JSON. ``caller`` is "assistant", or "user" for
    the tools of a simulated user. Without a ``status`` the store derives one: completed with a result, otherwise
    started in an open run and unknown in a finished one.

    Example:
        >>> ToolCall(tool_call_id="1", name="search", args={"q": "x"}, result="found", status="completed").is_error
        False
    """

    tool_call_id: Text | None = None
    tool_name: Text | None = Field(default=None, validation_alias=AliasChoices("tool_name", "name"))
    args: Any = None
    result: Any = None
    status: ToolStatus | None = None
    caller: Text = "assistant"
    message_index: int | None = None
    duration_s: float | None = None
    created_at: Time | None = None
    extra: Object = Field(default_factory=dict)
    internal: Object = Field(default_factory=dict)

    @property
    def is_error(self) -> bool | None:
        """Whether the tool failed; None if that is unknown."""
        return {"completed": False, "failed": True}.get(self.status or "")


class Message(Record):
    """One message of a run.

    ``content`` is text, a list of parts, any other JSON, or None. A tool's message has ``tool_call_id``, and
    ``is_error`` if the tool failed; an assistant's has its ``tool_calls``. The store assigns ``message_index``.
    ``from_history`` marks a copy of an earlier run's message, which is not counted again, ``partial`` an answer that
    was interrupted. ``internal`` is data of kern_nb, ``extra`` data of the source.

    Example:
        >>> Message(role="user", content="Hello")
        Message(role='user', content='Hello')
    """

    role: Text
    content: Any = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: Text | None = None
    tool_name: Text | None = Field(default=None, validation_alias=AliasChoices("tool_name", "name"))
    is_error: bool | None = None
    model: Text | None = None
    usage: Usage | None = None
    message_id: Text | None = None
    message_index: int | None = None
    created_at: Time | None = None
    from_history: bool | None = None
    partial: bool | None = None
    extra: Object = Field(default_factory=dict)
    internal: Object = Field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether it is the beginning of an interrupted answer; it is not part of the history."""
        return self.partial is True


class Requirement(StepRequirementMethods, RequirementMethods, Record):
    """What a paused run requires from a person, and the answer. Its id is unique within its run.

    ``approved`` is whether the call may run. ``answer`` is the edited arguments (confirmation) or the requested value.
    ``extra["fields"]`` lists the arguments that a person enters. ``user_feedback`` asks questions with options.

    An answer by `confirm`, `reject`, `provide_user_input` or `set_external_execution_result` is noted in the record;
    ``agent.continue_run(requirements=[...])`` stores it. ``store.resolve`` stores one at once.

    Example:
        >>> Requirement(requirement_id="r1", kind="confirmation", tool_name="delete", args={"path": "x"})
        Requirement(requirement_id='r1', kind='confirmation', status='pending', tool_name='delete', args={'path': 'x'})
    """

    requirement_id: Text = Field(default_factory=lambda: str(uuid4()))
    session_id: Text | None = None
    run_id: Text | None = None
    kind: Literal["confirmation", "user_input", "user_feedback", "external_execution", "handoff"]
    status: Literal["pending", "claimed", "resolved", "expired"] = "pending"
    tool_call_id: Text | None = None
    tool_name: Text | None = None
    args: Any = None
    prompt: Text | None = None
    assignee: Text | None = None
    approved: bool | None = None
    answer: Any = None
    note: Text | None = None
    created_at: Time | None = None
    resolved_at: Time | None = None
    resolved_by: Text | None = None
    claimed_by: Text | None = None
    expires_at: Time | None = None
    extra: Object = Field(default_factory=dict)

    @property
    def key(self) -> tuple[str | None, str]:
        """The run and the id, which identify it in a store."""
        return self.run_id, self.requirement_id


class Run(StepRunMethods, RunMethods, DisplayMixin, Record):
    """One interaction of a session: an input, messages and tool calls, an output.

    ``tool_calls`` lists every call of the run; calls that are only in messages are added. In a branch, a run with
    another ``session_id`` is inherited; one that the branch point cuts has the messages up to there and no output.

    Example:
        >>> Run(run_id="r1", input="Hello", output="Hi!", messages=[Message(role="user", content="Hello")])
        <Run r1 COMPLETED, 1 message, 0 tool calls: 'Hi!'>
    """

    _view: ClassVar[str] = "kern_nb.views.transcript:run"

    run_id: Text = Field(default_factory=lambda: str(uuid4()))
    session_id: Text | None = None
    run_index: int | None = None
    parent_run_id: Text | None = None
    run_type: SessionType = "agent"
    agent_id: Text | None = None
    team_id: Text | None = None
    workflow_id: Text | None = None
    user_id: Text | None = None
    status: RunStatus = "COMPLETED"
    model: Text | None = None
    model_provider: Text | None = None
    input: Any = None
    output: Any = None
    messages: list[Message] = Field(default_factory=list)
    tool_calls: list[ToolCall] = Field(default_factory=list)
    requirements: list[Requirement] = Field(default_factory=list)
    usage: Usage | None = None
    duration_s: float | None = None
    time_to_first_token_s: float | None = None
    error: Text | None = None
    session_state: Object | None = None
    created_at: Time | None = None
    finished_at: Time | None = None
    extra: Object = Field(default_factory=dict)
    internal: Object = Field(default_factory=dict)

    member_responses: list[Run] = Field(default_factory=list, exclude=True, repr=False)
    """The members' runs, of a team with ``store_member_responses``; they are stored as runs of their own."""

    @property
    def events(self) -> list[BaseRunOutputEvent]:
        """The events of a run of an agent with ``store_events``, in order; they are in ``internal["events"]``."""
        from kern_nb.events import event_from_dict

        stored = self.internal.get(EVENTS)
        return [event_from_dict(item) for item in stored if isinstance(item, dict)] if isinstance(stored, list) else []

    def __repr__(self) -> str:
        reference = f"{self.session_id}/{self.run_index}" if self.run_index is not None else self.run_id
        output = "" if self.output is None else f": {_short_repr(text_of(self.output) or self.output)}"
        counts = f"{_format_count(len(self.messages), 'message')}, {_format_count(len(self.tool_calls), 'tool call')}"
        return escape_controls(f"<Run {reference} {self.status}, {counts}{output}>")


class SessionSummary(DisplayMixin, Record):
    """A model's summary of a session, or of one of its runs.

    ``last_run_index`` is the last run that a session's summary includes, ``runs_since`` the number of runs that ended
    after it; None if unknown. A summary with a ``run_index`` is of that run, and is not stored.

    Example:
        >>> SessionSummary(summary="Alice asks for a refund.", topics=["refund"]).topics
        ['refund']
    """

    _view: ClassVar[str] = "kern_nb.views.summary:summary"

    summary: Text
    topics: list[str] = Field(default_factory=list)
    updated_at: Time | None = None
    session_id: Text | None = None
    run_index: int | None = None
    last_run_index: int | None = None
    runs_since: int | None = None
    model: Text | None = None


class _StoredData:
    """The ``session_data`` as it was read, which says what a saver has changed; no part of a session's equality."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.data = _copy_json(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StoredData)

    __hash__ = None  # type: ignore[assignment]


def _copy_json(value: Any) -> Any:
    """A copy of a value's containers; several times faster than ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {key: _copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_json(item) for item in value]
    return set(value) if isinstance(value, set) else value


class Session(SessionMethods, DisplayMixin, Record):
    """One conversation thread: the fifteen documented fields, and its branch point.

    ``fork_run_index`` is the last run that a branch inherits (-1: none), ``fork_message_index`` the last message of
    that run (None: all of it). ``duration_s`` is the source's wall time of the whole session. ``revision`` counts the
    changes of the stored fields, from 0; a new session has None. ``runs`` is None if the session was listed, not
    loaded.

    Example:
        >>> Session(session_id="chat", session_data={"session_name": "Refund"}, runs=[])
        <Session chat 'Refund', 0 runs>
    """

    _view: ClassVar[str] = "kern_nb.views.transcript:session"

    session_id: Text = Field(default_factory=lambda: str(uuid4()))
    session_type: SessionType = "agent"
    agent_id: Text | None = None
    team_id: Text | None = None
    workflow_id: Text | None = None
    user_id: Text | None = None
    session_data: Object | None = None
    agent_data: Object | None = None
    team_data: Object | None = None
    workflow_data: Object | None = None
    metadata: Object | None = None
    runs: list[Run] | None = None
    summary: Object | None = None
    created_at: Seconds | None = None
    updated_at: Seconds | None = None
    parent_session_id: Text | None = None
    fork_run_index: int | None = None
    fork_message_index: int | None = None
    duration_s: float | None = None
    revision: int | None = Field(default=None, exclude=True)
    _damaged: tuple[str, ...] = PrivateAttr(default=())
    _stored_data: _StoredData = PrivateAttr(default_factory=_StoredData)

    @property
    def damaged(self) -> tuple[str, ...]:
        """In a list: the fields that are None because their stored value is damaged; see `SessionStore.check`."""
        return self._damaged

    def note_damage(self, fields: Iterable[str]) -> None:
        """Set `damaged`."""
        self._damaged = tuple(fields)

    @property
    def stored_data(self) -> dict[str, Any]:
        """``session_data`` as it was read from a store; empty for a new session. Saving compares with it."""
        return self._stored_data.data or {}

    def note_stored_data(self, data: dict[str, Any] | None) -> None:
        """Set `stored_data`."""
        self._stored_data = _StoredData(data)

    @property
    def session_name(self) -> str | None:
        """The title, stored in ``session_data`` as documented."""
        name = (self.session_data or {}).get("session_name")
        return name if isinstance(name, str) else None

    @property
    def session_state(self) -> dict[str, Any]:
        """The state after the latest run, stored in ``session_data`` as documented."""
        state = (self.session_data or {}).get("session_state")
        return state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        title = f" {self.session_name!r}" if self.session_name not in (None, self.session_id) else ""
        runs = "" if self.runs is None else f", {_format_count(len(self.runs), 'run')}"
        branch = f", branch of {self.parent_session_id}" if self.parent_session_id else ""
        damaged = f", damaged: {', '.join(self.damaged)}" if self.damaged else ""
        return escape_controls(f"<Session {self.session_id}{title}{runs}{branch}{damaged}>")


def _short_repr(value: Any) -> str:
    """The repr of a value, cut to a part of a line."""
    try:
        text = repr(value[:_MAX_REPR_LENGTH] if isinstance(value, str) else value)
    except Exception:  # noqa: BLE001 - the repr of a tool's value may fail
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_REPR_LENGTH else text[: _MAX_REPR_LENGTH - 1] + "…"


def _format_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_parts(content: object) -> TypeGuard[list[Any]]:
    """Whether a content is a list of message parts: strings, and at least one part of a known type."""
    if not isinstance(content, list):
        return False
    typed = [part for part in content if not isinstance(part, str)]
    return bool(typed) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in PART_TYPES for part in typed
    )


def message_text(message: Message) -> str | None:
    """The text of a message; None if its content is a value, as a tool's result is, whatever its shape."""
    is_value = message.role in RESULT_ROLES and not isinstance(message.content, str)
    return None if is_value else text_of(message.content)


def text_of(content: object) -> str | None:
    """The text of a person's or a model's content: text parts joined by a line break; None if it has none.

    Parts have the shape of the chat, responses and content-block formats: ``{"type": ..., "text": ...}``. Any other
    list is a value, without text.
    """
    if content is None or isinstance(content, str):
        return content
    if not is_parts(content):
        return None
    texts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, (str, dict))]
    return "\n".join(t for t in texts if isinstance(t, str)) or None
