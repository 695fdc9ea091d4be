"""How the events of a run get from the engine to who listens: a cell that prints, a chat, or a stream.

The engine has one `EventSource` for each run. It creates the typed events of `kern_nb.events`, passes them on, and
collects those to store. A listener is any function; a `Listener` also receives the events of members and steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.events import base, event_class
from kern_nb.events.base import BaseRunOutputEvent
from kern_nb.extra_keys import EVENTS
from kern_nb.interop.media import plain_value
from kern_nb.records import UNRESOLVED_STATUSES, Run, ToolCall

if TYPE_CHECKING:
    from kern_nb.runtime.session_owner import SessionOwner

Event = BaseRunOutputEvent
Emit = Callable[[Event], None]

DEFAULT_EVENTS_TO_SKIP = frozenset({"RunContent", "TeamRunContent"})
"""The events that are not stored by default: the run's messages have the same text."""


def ignore(_event: Event) -> None:
    """Ignore an event."""


class Listener(ABC):
    """Receives the events of a run, and of the runs of its members and steps; it may let the run wait.

    Attributes:
        wants_details: Whether it needs the events that `BaseRunOutputEvent.is_detail` marks.
    """

    wants_details: bool

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Receive an event, in the thread of the run; must not block."""

    @abstractmethod
    async def caught_up(self) -> None:
        """Return once the listener is ready for the next event."""


@dataclass(frozen=True)
class EventOptions:
    """What happens to the events of the runs of an agent, a team or a workflow.

    Attributes:
        store: Whether they are stored with the run.
        skip: The values of ``event`` that are not stored.
        members: Whether the events of members and steps are passed on.
    """

    store: bool = False
    skip: frozenset[str] = DEFAULT_EVENTS_TO_SKIP
    members: bool = True


class EventSource:
    """Creates the events of one run.

    Attributes:
        is_streamed: Whether somebody listens, so that the model's answers are streamed.
    """

    def __init__(
        self, run: Run, owner: SessionOwner | None, emit: Emit, options: EventOptions, *, with_results: bool = True
    ) -> None:
        self._run = run
        self._emit = emit
        self._options = options
        self._with_results = with_results
        self.is_streamed = emit is not ignore
        self._stored: list[Any] | None = list(run.internal.get(EVENTS) or []) if options.store else None
        self._fields: dict[str, Any] = {"run_id": run.run_id, "session_id": run.session_id}
        self._fields["parent_run_id"] = run.parent_run_id
        if owner is not None:
            self._fields |= {f"{run.run_type}_id": owner.id, f"{run.run_type}_name": owner.name or ""}

    @property
    def is_active(self) -> bool:
        """Whether an event is passed on or collected."""
        return self.is_streamed or self._stored is not None

    def create(self, kind: type[Event], **fields: Any) -> Event | None:
        """Create an event of a kind, or of a workflow's class; None if such a run has no events of the kind."""
        cls = event_class(self._run.run_type, kind) if kind.__module__ == base.__name__ else kind
        return None if cls is None else cls(**self._fields, **fields)

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Create an event, pass it on, and collect it if it is to be stored."""
        if self.is_active and (event := self.create(kind, **fields)) is not None:
            self.forward(event)

    def forward(self, event: Event) -> None:
        """Pass on an event of this run, or of a member's or step's run."""
        if self._stored is not None:
            self._collect(event)
        self._emit(event)

    def _collect(self, event: Event) -> None:
        if self._stored is not None and event.event not in self._options.skip:
            values = event.to_dict()
            if not self._with_results and isinstance(values.get("tool"), dict):
                values["tool"].pop("result", None)
                values.pop("error", None)
            self._stored.append(plain_value(values))

    async def caught_up(self) -> None:
        """Wait until a `Listener` is ready for the next event."""
        if isinstance(self._emit, Listener):
            await self._emit.caught_up()

    def members(self, **fields: Any) -> Emit:
        """Return what receives the events of a member's or step's run; ``fields`` are added to them."""
        if self._options.members and isinstance(self._emit, Listener):
            return _Members(self, self._emit, fields)
        return ignore

    # The end of the run -----------------------------------------------------------------------------------------------

    def to_store(self, status: str, *, output: Any = None, error: str | None = None) -> dict[str, Any] | None:
        """Return the ``internal`` of a run that ends or pauses now: its events, the last one included."""
        if self._stored is None:
            return None
        content = {"COMPLETED": output}.get(status, error)
        event = self.create(_LAST.get(status, base.Completed), content=content)
        if event is not None:
            self._collect(event)
        return {EVENTS: self._stored}

    def ended(self, run: Run) -> None:
        """Pass on the last event of a run, which is stored as it is here."""
        kind = _LAST.get(run.status, base.Completed)
        fields: dict[str, Any] = {"run": run, "content": run.output if kind is base.Completed else run.error}
        if kind is base.Paused:
            fields |= {"content": run.output, "requirements": run.requirements, "tools": _pending_calls(run)}
        elif kind is base.Cancelled:
            fields["reason"] = run.error
        elif kind is base.Completed and not isinstance(run.output, str) and run.output is not None:
            fields["content_type"] = type(run.output).__name__
        self._pass_last(kind, fields)

    def failed(self, error: BaseException, text: str) -> None:
        """Pass on that the run failed."""
        self._pass_last(base.Failed, {"content": text, "error_type": type(error).__name__})

    def cancelled(self, reason: str) -> None:
        """Pass on that the run was cancelled."""
        self._pass_last(base.Cancelled, {"content": reason, "reason": reason})

    def _pass_last(self, kind: type[Event], fields: dict[str, Any]) -> None:
        if self.is_streamed and (event := self.create(kind, **fields)) is not None:
            self._emit(event)  # `to_store` has collected it


_LAST: dict[str, type[Event]] = {"PAUSED": base.Paused, "CANCELLED": base.Cancelled, "ERROR": base.Failed}


def _pending_calls(run: Run) -> list[ToolCall]:
    """Return the calls that a paused run waits for."""
    calls = {call.tool_call_id: call for call in run.tool_calls}
    pending = [item for item in run.requirements if item.status in UNRESOLVED_STATUSES]
    return [
        calls.get(item.tool_call_id)
        or ToolCall(tool_call_id=item.tool_call_id, tool_name=item.tool_name, args=item.args)
        for item in pending
        if item.tool_name
    ]


class _Members(Listener):
    """Receives the events of a member's or step's run for the listener of the run that made it."""

    def __init__(self, source: EventSource, emit: Listener, fields: dict[str, Any]) -> None:
        self._source, self._emit, self._fields = source, emit, fields
        self.wants_details = emit.wants_details

    def __call__(self, event: Event) -> None:
        for name, value in self._fields.items():
            if getattr(event, name) is None:
                setattr(event, name, value)
        self._source.forward(event)

    async def caught_up(self) -> None:
        await self._emit.caught_up()
