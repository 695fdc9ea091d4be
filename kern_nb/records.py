"""The nouns: what a store takes and gives. Pydantic validates them at the edges; inside the store, rows are rows.

A session holds runs, a run holds messages and tool calls. Field names are the columns of the frames
(`docs/columns.md`). Times are aware datetimes in UTC, except a session's ``created_at`` and ``updated_at``, which are
unix seconds as documented. Unknown is ``None``, never 0. What a source said beyond these fields is kept in ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeGuard
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

SessionType = Literal["agent", "team", "workflow"]
RunStatus = Literal["PENDING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED"]
ToolStatus = Literal["started", "completed", "failed", "unknown"]

_SHORT = 80

OPEN_STATUSES = ("PENDING", "RUNNING", "PAUSED")
"""A run in one of these may still be written to."""

RESULT_ROLES = ("tool", "function")
"""The roles of messages that answer a call."""

PART_TYPES = frozenset(
    {
        "text", "input_text", "output_text", "summary_text", "reasoning_text", "reasoning", "refusal", "thinking",
        "redacted_thinking", "image", "image_url", "input_image", "audio", "audio_url", "input_audio", "output_audio",
        "video", "video_url", "input_video", "document", "document_url", "file", "input_file", "media", "tool_use",
        "tool_result", "server_tool_use", "web_search_tool_result", "search_result", "container_upload",
    }
)  # fmt: skip
"""The types of the parts that a content is made of: the store's own, and those of the formats of providers."""

UNANSWERED = ("pending", "claimed")
"""A requirement in one of these waits."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a string is needed, not {type(value).__name__}")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a dict is needed, not {type(value).__name__}")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


YEARS = (-62_135_596_800, 253_402_300_799)
"""Unix seconds from the year 1 to 9999: what Python and pandas know as times."""

_TIMES = "Times are of the years 1 to 9999."


def utc(value: datetime, name: str = "A time") -> datetime:
    """A time in UTC. Naive times are read as UTC, as importers state in the session's metadata.

    Raises:
        UnstorableValue: it is no time, its zone has no answer, or it is outside the years 1 to 9999 in UTC.
    """
    if not isinstance(value, datetime):
        raise UnstorableValue(f"{name} is {_shortened(value)}, not a datetime.", _TIMES)
    if value.tzinfo is UTC:
        return value
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except Exception as error:  # a zone may raise anything
        raise UnstorableValue(f"{name} cannot be told in UTC: {type(error).__name__}: {error}.", _TIMES) from error


def unix_seconds(value: int, name: str = "A time") -> int:
    """A time in unix seconds, of a year that every reader knows.

    Raises:
        UnstorableValue: it is not.
    """
    if YEARS[0] <= value <= YEARS[1]:
        return value
    hint = f"{_TIMES} Divide by 1,000 or 1,000,000 where it is in milliseconds or microseconds."
    raise UnstorableValue(f"{name} is {_shortened(value)}: not a time in unix seconds.", hint)


def _time_field(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> datetime:
    name = str(info.field_name)
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        time = handler(value)
    except ValidationError:
        if isinstance(value, (int, float)):  # read as unix seconds, or milliseconds where it is large
            raise UnstorableValue(f"{name} is {_shortened(value)}: not a unix time.", _TIMES) from None
        raise
    return utc(time, name)


def _seconds_field(value: int, info: ValidationInfo) -> int:
    return unix_seconds(value, str(info.field_name))


# Pydantic's own str and dict refuse lone surrogates, which do occur in what models and tools return.
Text = Annotated[str, PlainValidator(_text)]
Object = Annotated[dict[str, Any], PlainValidator(_object)]
Time = Annotated[datetime, WrapValidator(_time_field)]
Seconds = Annotated[int, AfterValidator(_seconds_field)]


class Record(BaseModel):
    """The common ground: unknown fields are refused, assignment is free."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Only what is known."""
        known = ((name, value) for name, value in super().__repr_args__() if value is not None)
        return [(name, value) for name, value in known if not (isinstance(value, (list, dict)) and len(value) == 0)]


class Usage(Record):
    """Tokens and money. ``cost`` is in the currency the source charges, US dollars unless it says otherwise."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None

    @classmethod
    def total(cls, usages: Iterable[Usage | None]) -> Usage | None:
        """The sum of what is known; None where nothing is."""
        known = [usage for usage in usages if usage is not None]
        sums = {}
        for name in Usage.model_fields:
            values = [value for usage in known if (value := getattr(usage, name)) is not None]
            sums[name] = sum(values) if values else None
        return Usage(**sums) if known else None


class SessionMetrics(Usage):
    """What a session took, computed from its rows: the agent's tokens, cost, calls and time."""

    n_runs: int = 0
    n_messages: int = 0
    n_tool_calls: int = 0
    n_tool_errors: int = 0
    duration_s: float | None = None


class ToolCall(Record):
    """One call of a tool.

    ``args`` is the decoded object, or the source's text where that is no JSON. ``caller`` is "assistant", or "user"
    where a simulated user calls tools. Without a ``status`` the store derives one: completed with a result, else
    started in an open run and unknown in a finished one.
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
        """Whether the tool failed; None while or where that is not known."""
        return {"completed": False, "failed": True}.get(self.status or "")


class Message(Record):
    """One message of a run.

    ``content`` is text, a list of parts, any other JSON, or None. A tool's message carries ``tool_call_id``, and
    ``is_error`` where the tool failed; an assistant's carries the ``tool_calls`` it made. ``message_index`` is given by
    the store. ``from_history`` is set on a copy of an earlier run's message, which is not counted again, ``partial``
    on the beginning of an answer that broke off. ``internal`` is what kern_nb notes for its own use; what stands in
    ``extra`` has no meaning to it.
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
        """Whether it is the beginning of an answer whose end was never said; a model is not told it again."""
        return self.partial is True


class Requirement(Record):
    """What a paused run waits for, and the answer it got.

    ``approved`` says whether the call may go on. ``answer`` holds the arguments as the answerer edited them
    (confirmation), or the value that was asked for. ``extra["fields"]`` names the arguments that a person is to fill.
    """

    requirement_id: Text = Field(default_factory=lambda: str(uuid4()))
    session_id: Text | None = None
    run_id: Text | None = None
    kind: Literal["confirmation", "user_input", "external_execution", "handoff"]
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


class Run(DisplayMixin, Record):
    """One interaction of a session: an input, the messages and tool calls it led to, an output.

    ``tool_calls`` lists every call of the run; a call that stands only on its message is added. In a branch, a run
    whose ``session_id`` is not the branch's is inherited; one that the branch point cuts has only the messages up to
    there and no output.
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

    def __repr__(self) -> str:
        """Where it stands, its status and its size; the fields hold the rest."""
        place = f"{self.session_id}/{self.run_index}" if self.run_index is not None else self.run_id
        messages, calls = len(self.messages), len(self.tool_calls)
        said = "" if self.output is None else f": {_shortened(text_of(self.output) or self.output)}"
        counts = f"{_counted(messages, 'message')}, {_counted(calls, 'tool call')}"
        return escape_controls(f"<Run {place} {self.status}, {counts}{said}>")


class SessionSummary(DisplayMixin, Record):
    """A model's summary of a session, or of one of its runs.

    ``last_run_index`` is the last run that a session's summary tells of, and ``runs_since`` how many ended after it;
    None where nobody has looked. A summary with a ``run_index`` is of that run alone, and is not stored.
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


class Session(DisplayMixin, Record):
    """One conversation thread: the fifteen documented fields, and where it branched off.

    ``fork_run_index`` is the last run that a branch inherits (-1: none), ``fork_message_index`` the last message of
    that run (None: all of it). ``duration_s`` is the wall time that a source states for the whole session. ``runs``
    is None where a session was listed, not loaded.
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
    _damaged: tuple[str, ...] = PrivateAttr(default=())

    @property
    def damaged(self) -> tuple[str, ...]:
        """In a list: the fields that are None because what is stored of them is damaged; see `SessionStore.check`."""
        return self._damaged

    def note_damage(self, fields: Iterable[str]) -> None:
        """Name the fields whose stored value is damaged."""
        self._damaged = tuple(fields)

    @property
    def session_name(self) -> str | None:
        """The title, which is kept in ``session_data`` as documented."""
        name = (self.session_data or {}).get("session_name")
        return name if isinstance(name, str) else None

    @property
    def session_state(self) -> dict[str, Any]:
        """The state after the latest run, which is kept in ``session_data`` as documented."""
        state = (self.session_data or {}).get("session_state")
        return state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        """Its id, title, size and origin; the fields hold the rest."""
        title = f" {self.session_name!r}" if self.session_name not in (None, self.session_id) else ""
        runs = "" if self.runs is None else f", {_counted(len(self.runs), 'run')}"
        branch = f", branch of {self.parent_session_id}" if self.parent_session_id else ""
        damaged = f", damaged: {', '.join(self.damaged)}" if self.damaged else ""
        return escape_controls(f"<Session {self.session_id}{title}{runs}{branch}{damaged}>")


def _shortened(value: Any) -> str:
    """A value as its repr, cut to what a line holds."""
    try:
        said = repr(value[:_SHORT] if isinstance(value, str) else value)
    except Exception:  # noqa: BLE001 - a tool's value may not be able to show itself
        said = f"<{type(value).__name__}>"
    return said if len(said) <= _SHORT else said[: _SHORT - 1] + "…"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_parts(content: object) -> TypeGuard[list[Any]]:
    """Whether a content is made of texts and files: a list with at least one part of a known type, and nothing else."""
    if not isinstance(content, list):
        return False
    typed = [part for part in content if not isinstance(part, str)]
    return bool(typed) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in PART_TYPES for part in typed
    )


def message_text(message: Message) -> str | None:
    """The text of a message; None where its content is a value. What a tool returned is a value, whatever its shape."""
    is_value = message.role in RESULT_ROLES and not isinstance(message.content, str)
    return None if is_value else text_of(message.content)


def text_of(content: object) -> str | None:
    """The text of what a person or a model says: text parts joined by a line break; None where there is none.

    Parts are read in the shapes of the chat, responses and content-block formats: ``{"type": ..., "text": ...}``. Any
    other list is a value, and has no text.
    """
    if content is None or isinstance(content, str):
        return content
    if not is_parts(content):
        return None
    texts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, (str, dict))]
    return "\n".join(t for t in texts if isinstance(t, str)) or None
