"""`SessionOwner`: what agents, teams and workflows share: their parameters, variants, and how they are run."""

from __future__ import annotations

import asyncio
import copy
import logging
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack, overload

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.extra_keys import CONTINUES
from kern_nb.runtime.run_modes import RunModes
from kern_nb.runtime.session_access import require_state, require_text

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kern_nb.db import SessionStore
    from kern_nb.record_methods.requirements import ToolExecution
    from kern_nb.records import Requirement, Run
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.continuation import ContinueFrom
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.run_modes import RunFunction
    from kern_nb.runtime.run_options import AsyncStream, ResumeOptions, RunOptions, Stream
    from kern_nb.runtime.settings import OwnerSettings

_SETTABLE = (
    "model", "instructions", "role", "name", "user_id", "timeout_s", "max_requests", "cache_session",
    "overwrite_db_session_state", "output_schema", "stream", "stream_events", "store_events", "events_to_skip",
)  # fmt: skip
"""Parameters that are attributes of the same name: `variant` uses the current value."""


class SessionOwner(RunModes):
    """Base class of agents, teams and workflows."""

    _engine_module: ClassVar[str]
    """The module with `start_run` and `resume_run`; imported by a run, because it imports pydantic-ai."""

    _keeps_summaries: bool
    _reinitialize: ClassVar[Callable[..., None]]
    """The constructor of `Agent`, `Team` or `Workflow`: that of a subclass may have fewer parameters."""

    @abstractmethod
    def _configuration(self) -> dict[str, Any]:
        """Return what is stored of the owner with a new session."""

    def variant(self, **changes: Any) -> Self:
        """Create a copy with some parameters changed: ``agent.variant(model="openai:gpt-5.2-mini")``.

        The copy has this object's current parameters, and so the same store, tools and members, but its own cache, lock
        and generated session. This object is not changed.

        Args:
            **changes: Parameters of the constructor: ``model``, ``instructions``, ``tools``, ``num_history_runs``. Of a
                team, model, instructions and tools are the leader's.

        Raises:
            BadUsage: a parameter is unknown, or its value is not valid.
        """
        parameters = self._parameters()
        if unknown := [name for name in changes if name not in parameters]:
            hint = did_you_mean(unknown[0], parameters, f"Its parameters are {', '.join(parameters)}.")
            raise BadUsage(f"{self!r} has no parameter {unknown[0]!r}.", hint)
        new = copy.copy(self)  # a subclass may have further attributes
        new._reinitialize(**parameters | changes)  # noqa: SLF001 - an instance of this class
        return new

    def _parameters(self) -> dict[str, Any]:
        """Return the constructor's parameters with their current values."""
        current = {name: getattr(self, name) for name in _SETTABLE if name in self._arguments}
        state = copy.deepcopy(self._default_state)
        return self._arguments | current | {"db": self._db, "session_state": state}

    # Running ----------------------------------------------------------------------------------------------------------

    @overload
    def run(self, input: Any, *, stream: Literal[False] | None = None, **options: Unpack[RunOptions]) -> Run: ...
    @overload
    def run(self, input: Any, *, stream: Literal[True], **options: Unpack[RunOptions]) -> Stream: ...
    def run(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Run | Stream:
        """Run synchronously; see `arun`. Also works inside a running event loop, like that of a notebook's cell.

        With ``stream``, returns a plain iterator of the events, which works in scripts, cells and threads.
        """
        work = self._start(input, session_id, user_id, session_state)
        return self._run_sync(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    @overload
    def arun(
        self, input: Any, *, stream: Literal[False] | None = None, **options: Unpack[RunOptions]
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def arun(self, input: Any, *, stream: Literal[True], **options: Unpack[RunOptions]) -> AsyncStream: ...
    def arun(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Coroutine[Any, Any, Run] | AsyncStream:
        """Run on an input: ``await owner.arun(...)``. Every message is stored as it comes.

        With ``stream``: ``async for event in owner.arun(..., stream=True)``. The run is at most one event ahead of who
        reads the stream: it waits before it calls the model or a tool. A stream that is closed before its end cancels
        the run, which is stored with the partial answer.

        Args:
            input: A text, or any other value, which becomes JSON.
            session_id: The session; the owner's own where None, and a new one where it has none.
            user_id: The owner of the session; the default user where None.
            session_state: State that takes precedence over the stored one.
            stream: Return an iterator of events; the default of the constructor where None.
            stream_events: Also the finer events: model requests, reasoning, summaries, steps.
            yield_run_output: Yield the run after the last event of a stream.

        Returns:
            The run as stored; its status is PAUSED if it has pending requirements.

        Raises:
            RunFailed: the run ended with an error, and is stored with it. A stream has the error's event before.
            OwnerMismatch: the session belongs to another user; nothing is stored.
        """
        work = self._start(input, session_id, user_id, session_state)
        return self._run_async(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    def print_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        stream: bool | None = None,
    ) -> None:
        """Run, and print the response into the cell, or on the terminal. Parameters as for `arun`.

        It is printed as it comes, or with ``stream=False`` once at the end.
        """
        self._print(self._start(input, session_id, user_id, session_state), stream=stream)

    async def aprint_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        stream: bool | None = None,
    ) -> None:
        """Do `print_response` asynchronously."""
        await self._aprint(self._start(input, session_id, user_id, session_state), stream=stream)

    @overload
    def continue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[ResumeOptions],
    ) -> Run: ...
    @overload
    def continue_run(
        self, run_id: str | int | Run | None = None, *, stream: Literal[True], **options: Unpack[ResumeOptions]
    ) -> Stream: ...
    def continue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        updated_tools: Sequence[ToolExecution] | None = None,
        input: Any = None,
        continue_from: ContinueFrom = "end",
        fork: bool = False,
        regenerate: bool = False,
        session_id: str | None = None,
        user_id: str | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Run | Stream:
        """Continue a run synchronously; see `acontinue_run`."""
        arguments = {"requirements": requirements, "tools": updated_tools, "input": input, "fork": fork}
        arguments |= {"continue_from": continue_from, "regenerate": regenerate}
        work = self._prepare_continuation(run_id, run_response, session_id, user_id, arguments)
        return self._run_sync(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    @overload
    def acontinue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[ResumeOptions],
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def acontinue_run(
        self, run_id: str | int | Run | None = None, *, stream: Literal[True], **options: Unpack[ResumeOptions]
    ) -> AsyncStream: ...
    def acontinue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        updated_tools: Sequence[ToolExecution] | None = None,
        input: Any = None,
        continue_from: ContinueFrom = "end",
        fork: bool = False,
        regenerate: bool = False,
        session_id: str | None = None,
        user_id: str | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Coroutine[Any, Any, Run] | AsyncStream:
        """Continue a run whose requirements are resolved, or that was interrupted, also one of another process.

        Of several concurrent callers, one continues the run. A tool that had started when its process died is not run
        again: the model learns that its effect is unknown.

        With ``input``, of a run that is not paused, and with ``continue_from``, ``fork`` or ``regenerate``, the result
        is a new run in a branch of the session, whose id is ``run.session_id``. The original run does not change.

        Args:
            run_id: The run, or its id; or ``chat/2``; or, with ``session_id``, its index or a unique prefix of its id.
            run_response: The run, as an agent returned it.
            requirements: Requirements with answers to store first: all of them, or none if one has an answer by now.
                Those of a run that is passed as an object are among them.
            updated_tools: Calls of ``run.tools``, whose answers are stored likewise.
            input: A further input after the run.
            continue_from: The number of the run's messages to keep; ``"last_user"`` for those up to its last user's
                message; ``"end"`` for all. Without an ``input``, the model answers the last of them.
            fork: Whether to continue in a branch in any case.
            regenerate: Whether the model is to give the last answer again; results of tools are kept.
            session_id: Its session.
            user_id: The owner of the session; the agent's own user where None. A session without an owner becomes
                theirs.
            stream: Return an iterator of events, as `arun` does; likewise the next two.
            stream_events: Also the finer events.
            yield_run_output: Yield the run after the last event.

        Raises:
            RunNotFound: there is no such run, or its session belongs to another user.
            StillWaiting: requirements are pending.
            AlreadyResolved: a requirement has an answer already; none is stored.
            AlreadyClaimed: another caller continues it.
            RunClosed: it has ended.
            RunFailed: it ended with an error.
            BadUsage: the arguments contradict each other, or there is nothing to answer.
        """
        arguments = {"requirements": requirements, "tools": updated_tools, "input": input, "fork": fork}
        arguments |= {"continue_from": continue_from, "regenerate": regenerate}
        work = self._prepare_continuation(run_id, run_response, session_id, user_id, arguments)
        return self._run_async(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    def _prepare_continuation(
        self,
        run_id: str | int | Run | None,
        run_response: Run | None,
        session_id: str | None,
        user_id: str | None,
        arguments: dict[str, Any],
        **options: Any,
    ) -> RunFunction:
        """Check the arguments of `continue_run`, and return what continues the run."""
        from kern_nb.runtime.continuation import Continuation, continue_run, find_run_id

        requirements = list(arguments.pop("requirements", None) or ())
        reference = find_run_id(run_id, run_response, requirements)
        requirements += getattr(reference, "requirements", ())
        tools = arguments.pop("tools", None) or ()
        continuation = Continuation(requirements=requirements, tools=tools, **arguments)
        return lambda emit: continue_run(self, reference, continuation, session_id, user_id, emit, **options)

    def _require_kind(self, run: Run) -> None:
        """Raise BadUsage for a run of another kind of owner."""
        if (kind := run.run_type) != self.session_type:
            owner = run.agent_id or run.team_id or run.workflow_id
            message = f"Run {run.run_id} belongs to the {kind} {owner!r}, not to a {self.session_type}."
            raise BadUsage(message, f"Continue it with the {kind}.")

    def _start(
        self,
        input: Any,
        session_id: str | None,
        user_id: str | None,
        session_state: dict[str, Any] | None = None,
        **media: Any,
    ) -> RunFunction:
        """Prepare a run. What only the calling thread knows, like its cell, is recorded here."""
        from kern_nb.runtime.provenance import current_cell

        require_text("session_id", session_id)
        require_text("user_id", user_id)
        extra = {"notebook": cell} if (cell := current_cell()) else {}
        session_id, user_id = self._session(session_id), self._user(user_id)
        return self._prepare_run(input, session_id, user_id, extra, session_state=session_state, **media)

    def _prepare_run(
        self,
        input: Any,
        session_id: str,
        user_id: str | None,
        extra: dict[str, Any],
        session_state: dict[str, Any] | None = None,
        parent: RunContext | None = None,
        **media: Any,
    ) -> RunFunction:
        """Check the arguments of a run, before anything is stored, and return what makes it."""
        from kern_nb.runtime.settings import Request

        # A run that continues another one may just answer its last message.
        prompt = None if input is None and CONTINUES in extra else self._build_prompt(input, **media)
        store = parent.store if parent else self.store
        request = Request(prompt, session_id, user_id, require_state(session_state), parent, extra)

        async def work(emit: Emit) -> Run:
            try:
                run: Run = await import_module(self._engine_module).start_run(
                    self._settings(parent), store, request, emit
                )
            finally:
                self._forget(store, session_id)
            await self._summarize_after(store, run, emit)
            return run

        return work

    async def _resume_run(
        self,
        run_id: str | int | Run,
        session_id: str | None,
        emit: Emit,
        parent: RunContext | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> Run:
        """Continue a run; see `acontinue_run`. A member or a step is continued by its id, in the run of its parent."""
        from kern_nb.runtime.event_loop import in_thread

        if parent is not None:
            store, user_id = parent.store, None
            before = await in_thread(lambda: store.get_run(str(run_id)))
        else:
            store, user_id = self.store, self._user(user_id)
            before = await in_thread(lambda: self._find_run(run_id, session_id, user_id))
        try:
            settings = self._settings(parent)
            self._require_kind(before)
            resume = import_module(self._engine_module).resume_run
            run: Run = await resume(settings, store, before, emit, parent, user_id, **options)
        finally:
            self._forget(store)
        await self._summarize_after(store, run, emit)
        return run

    def _build_prompt(self, input: Any) -> Any:
        return input

    def _settings(self, parent: RunContext | None = None) -> OwnerSettings:
        """Return the settings of a run that starts now, as a part of the run ``parent``."""
        from kern_nb.runtime.settings import OwnerSettings

        return OwnerSettings(
            owner=self,
            owner_fields=owner_fields(self),
            default_state=self._default_state,
            metadata=self._metadata,
            overwrite_state=self.overwrite_db_session_state,
            timeout_s=self.timeout_s,
            events=self._event_options(),
        )

    async def _summarize_after(self, store: SessionStore, run: Run, emit: Emit) -> None:
        """Start the update of the session's summary; a stream with ``stream_events`` waits for it, and reports it."""
        from kern_nb.runtime.events import EventOptions, EventSource, Listener

        future = self._start_summary(store, run)
        if future is not None and isinstance(emit, Listener) and emit.wants_details:
            from kern_nb.events.base import SummaryCompleted, SummaryStarted
            from kern_nb.runtime.event_loop import in_thread
            from kern_nb.runtime.summaries import parse_summary

            events = EventSource(run, self, emit, EventOptions())
            events.emit(SummaryStarted)
            await asyncio.shield(asyncio.wrap_future(future))
            session = await in_thread(lambda: store.get_session(run.session_id or "", runs=False))
            events.emit(SummaryCompleted, session_summary=parse_summary(session))

    def _start_summary(self, store: SessionStore, run: Run) -> Future[None] | None:
        """Update the session's summary in the background after a completed run, where summaries are enabled.

        The model is the manager's, else the owner's; a workflow has none, and uses that of the environment.
        """
        if not self._keeps_summaries or run.status != "COMPLETED" or run.parent_run_id is not None:
            return None
        try:
            future = self._summaries().start(store, run.session_id or "", getattr(self, "model", None))
            future.add_done_callback(lambda _: self._forget(store, run.session_id))
        except Exception as error:  # noqa: BLE001 - the run is completed, and its answer is there
            logging.getLogger("kern_nb").warning("Session %s has no new summary: %s", run.session_id, error)
            return None
        return future


def owner_fields(owner: SessionOwner) -> dict[str, Any]:
    """Return an owner's kind, id and configuration, as parameters of `SessionStore.start_run`."""
    return {
        "session_type": owner.session_type,
        f"{owner.session_type}_id": owner.id,
        "owner_data": {"name": owner.name, **owner._configuration()},  # noqa: SLF001 - of this module
    }
