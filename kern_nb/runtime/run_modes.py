"""`RunModes`: how a run is made: to its end, as a stream of events, or printed; and what happens to its events."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.runtime.session_cache import SessionCache

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.events import Emit, EventOptions
    from kern_nb.runtime.run_options import AsyncStream, Stream
    from kern_nb.runtime.streams import StreamOptions

    RunFunction = Callable[[Emit], Coroutine[Any, Any, Run]]
    """Makes a run, and emits its events."""

_EVENTS = "For example: events_to_skip=[RunEvent.run_content], from kern_nb.run.agent."


class RunModes(SessionCache):
    """Makes the runs of an agent, a team or a workflow, in one of three modes."""

    _members_argument: ClassVar[str] = ""
    """The parameter of the constructor that says whether events of members or steps are part of a stream."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Set what agents, teams and workflows have in common, from ``locals()`` of their constructor."""
        super().__init__(arguments)
        self.stream: bool | None = arguments["stream"]
        self.stream_events: bool | None = arguments["stream_events"]
        self.store_events: bool = arguments["store_events"]
        self.events_to_skip: Sequence[Any] | None = _require_events(arguments["events_to_skip"])

    def _event_options(self) -> EventOptions:
        from kern_nb.events import event_values
        from kern_nb.runtime.events import DEFAULT_EVENTS_TO_SKIP, EventOptions

        skip, known = self.events_to_skip, event_values()
        values = DEFAULT_EVENTS_TO_SKIP if skip is None else frozenset(str(getattr(e, "value", e)) for e in skip)
        if unknown := sorted(values - known):
            raise BadUsage(
                f"events_to_skip has {unknown[0]!r}, which is not an event.", did_you_mean(unknown[0], known)
            )
        members = self._arguments.get(self._members_argument, True)
        return EventOptions(store=self.store_events, skip=values, members=members)

    def _options(self, *, stream: bool | None, details: bool | None, yield_run: bool) -> StreamOptions | None:
        """Return what the stream of a run has; None for a run without one."""
        if not (self.stream if stream is None else stream):
            return None
        from kern_nb.runtime.streams import StreamOptions

        return StreamOptions(bool(self.stream_events if details is None else details), yield_run)

    def _run_async(self, work: RunFunction, options: StreamOptions | None) -> Coroutine[Any, Any, Run] | AsyncStream:
        from kern_nb.runtime import events, streams

        return work(events.ignore) if options is None else streams.aiterate(work, options)

    def _run_sync(self, work: RunFunction, options: StreamOptions | None) -> Run | Stream:
        from kern_nb.runtime import event_loop, events, streams

        return event_loop.run(lambda: work(events.ignore)) if options is None else streams.iterate(work, options)

    def _print(self, work: RunFunction, *, stream: bool | None) -> None:
        from kern_nb.runtime.printing import print_run

        print_run(work, as_it_comes=self._prints_stream(stream=stream))

    async def _aprint(self, work: RunFunction, *, stream: bool | None) -> None:
        from kern_nb.runtime.events import ignore
        from kern_nb.runtime.printing import print_ended, printer

        if self._prints_stream(stream=stream):
            await work(printer())
        else:
            print_ended(await work(ignore))

    def _prints_stream(self, *, stream: bool | None) -> bool:
        default = True if self.stream is None else self.stream
        return default if stream is None else stream


def _require_events(events: Any) -> Sequence[Any] | None:
    """Check ``events_to_skip``; the values are known without pydantic only by their type."""
    if events is None or (isinstance(events, Sequence | set | frozenset) and not isinstance(events, str)):
        if wrong := [event for event in events or () if not isinstance(event, str)]:
            raise BadUsage(f"events_to_skip must be a list of events, got {wrong[0]!r} in it.", _EVENTS)
        return None if events is None else list(events)
    raise BadUsage(f"events_to_skip must be a list of events, got {events!r}.", _EVENTS)
