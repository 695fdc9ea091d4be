"""What the events of agents, teams and workflows have in common: the fields of every event, and a class for each kind.

An event of an agent is of a kind and of `kern_nb.events.agent.RunOutputEvent`: ``RunContentEvent`` is a `Content`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from time import time
from typing import Any, ClassVar

from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run, SessionSummary, ToolCall

_NOT_STORED = ("run", "requirements", "session_summary")


@dataclass(kw_only=True, repr=False)
class BaseRunOutputEvent:
    """An event of a run.

    Attributes:
        event: What happened, as a text: ``"RunContent"``; equal to ``RunEvent.run_content``.
        content: The text that the model added, or the output of what completed; None where the event has none.
        run_id: The run that the event is of; of a team's member or a workflow's step, its own.
        parent_run_id: The run of the team or the workflow that made it.
        session_id: Its session.
        created_at: The time of the event, in unix seconds.
        tools: The tool calls that a paused run waits for.
        workflow_id: The workflow that the run is a step of, or that the event is of.
        workflow_run_id: The run of that workflow.
        step_id: The position of that step: ``"1.0"`` is the first step within the second.
        step_name: The name of that step.
        step_index: The position of that step as a number, or as a tuple for a step within others.
    """

    is_detail: ClassVar[bool] = False
    """Whether it is part of a stream only with ``stream_events=True``."""

    event: str = ""
    content: Any = None
    run_id: str = ""
    parent_run_id: str | None = None
    session_id: str | None = None
    created_at: int = field(default_factory=lambda: int(time()))
    tools: list[ToolCall] | None = None
    workflow_id: str | None = None
    workflow_run_id: str | None = None
    step_id: str | None = None
    step_name: str | None = None
    step_index: int | tuple[int, ...] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the run waits for a person now."""
        return isinstance(self, Paused)

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return isinstance(self, Cancelled)

    def __repr__(self) -> str:
        """Name the fields that differ from their default: a stream that a cell prints has hundreds of events."""
        values = [(item, getattr(self, item.name)) for item in fields(self) if item.name != "created_at"]
        shown = [f"{item.name}={value!r}" for item, value in values if not _is_default(value, item.default)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that have a value, without those that are stored with the run itself."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _NOT_STORED}
        return {name: _plain(value) for name, value in values.items() if value is not None}


def _is_default(value: Any, default: Any) -> bool:
    """Whether a field has its default; an output of any type is not compared."""
    return value is default or (isinstance(value, str) and value == default)


def _plain(value: Any) -> Any:
    if isinstance(value, ToolCall):
        return {name: item for name, item in value.model_dump().items() if item not in (None, {})}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@dataclass(kw_only=True, repr=False)
class Started(BaseRunOutputEvent):
    """The run is stored, and starts."""

    model: str = ""


@dataclass(kw_only=True, repr=False)
class Continued(BaseRunOutputEvent):
    """A run that was paused or interrupted continues."""


@dataclass(kw_only=True, repr=False)
class Content(BaseRunOutputEvent):
    """The model added ``content`` to its answer. The contents between two requests, joined, are an answer."""

    content_type: str = "str"


@dataclass(kw_only=True, repr=False)
class ContentCompleted(BaseRunOutputEvent):
    """The last answer of the model is complete."""

    is_detail: ClassVar[bool] = True


@dataclass(kw_only=True, repr=False)
class Ended(BaseRunOutputEvent):
    """The run ended or paused: ``run`` is the run as it is stored, where its end was regular."""

    run: Run | None = None


@dataclass(kw_only=True, repr=False)
class Completed(Ended):
    """The run is completed: ``content`` is its output, ``run`` the run as it is stored."""

    content_type: str = "str"

    @property
    def metrics(self) -> Any:
        """The tokens of the run."""
        return None if self.run is None else getattr(self.run, "metrics", self.run.usage)

    @property
    def session_state(self) -> dict[str, Any] | None:
        """The state after the run."""
        return None if self.run is None else self.run.session_state


@dataclass(kw_only=True, repr=False)
class Paused(Ended):
    """The run waits for its ``requirements``; ``run`` is the run as it is stored."""

    requirements: list[Requirement] | None = None

    @property
    def active_requirements(self) -> list[Requirement]:
        """The requirements that nobody has answered."""
        return [item for item in self.requirements or [] if item.status in UNRESOLVED_STATUSES]


@dataclass(kw_only=True, repr=False)
class Failed(BaseRunOutputEvent):
    """The run ended with an error, which is the ``content``, and is stored with it."""

    error_type: str | None = None

    @property
    def error(self) -> Any:
        """The error."""
        return self.content


@dataclass(kw_only=True, repr=False)
class Cancelled(Ended):
    """The run was cancelled, and is stored with what it has."""

    reason: str | None = None


@dataclass(kw_only=True, repr=False)
class CallStarted(BaseRunOutputEvent):
    """A tool is about to run: ``tool`` has its name and arguments. It does not run if the stream is closed here."""

    tool: ToolCall | None = None


@dataclass(kw_only=True, repr=False)
class CallCompleted(BaseRunOutputEvent):
    """A tool has run: ``tool`` has its result, which may be an error."""

    tool: ToolCall | None = None


@dataclass(kw_only=True, repr=False)
class CallFailed(BaseRunOutputEvent):
    """A tool has failed with ``error``; follows `CallCompleted`."""

    is_detail: ClassVar[bool] = True
    tool: ToolCall | None = None
    error: str | None = None


@dataclass(kw_only=True, repr=False)
class ReasoningStarted(BaseRunOutputEvent):
    """The model starts to reason."""

    is_detail: ClassVar[bool] = True


@dataclass(kw_only=True, repr=False)
class ReasoningDelta(BaseRunOutputEvent):
    """The model added ``reasoning_content`` to its reasoning."""

    is_detail: ClassVar[bool] = True
    reasoning_content: str = ""


@dataclass(kw_only=True, repr=False)
class ReasoningEnded(BaseRunOutputEvent):
    """The reasoning is complete, and is the ``content``."""

    is_detail: ClassVar[bool] = True


@dataclass(kw_only=True, repr=False)
class RequestStarted(BaseRunOutputEvent):
    """A request is sent to the model."""

    is_detail: ClassVar[bool] = True
    model: str | None = None


@dataclass(kw_only=True, repr=False)
class RequestCompleted(BaseRunOutputEvent):
    """The model has answered a request; token counts are None where the provider states none."""

    is_detail: ClassVar[bool] = True
    model: str | None = None
    model_provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


@dataclass(kw_only=True, repr=False)
class SummaryStarted(BaseRunOutputEvent):
    """The summary of the session is being updated."""

    is_detail: ClassVar[bool] = True


@dataclass(kw_only=True, repr=False)
class SummaryCompleted(BaseRunOutputEvent):
    """The summary of the session is stored; ``session_summary`` is None if that failed."""

    is_detail: ClassVar[bool] = True
    session_summary: SessionSummary | None = None
