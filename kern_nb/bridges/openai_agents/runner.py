"""The SDK's runner, with runs of attached agents recorded.

``Runner.run``, ``run_sync`` and ``run_streamed`` call the default runner, and nothing else of the SDK sees how a run
ends: hooks are not told of exceptions, tracing can be disabled. While agents are attached, the default runner is one
that records their runs, and the runs that these start, and passes all others on.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agents.lifecycle import RunHooksBase
from agents.run import get_default_agent_runner, set_default_agent_runner
from agents.run_state import RunState
from agents.tool_context import ToolContext

from kern_nb.bridges.openai_agents import pauses
from kern_nb.bridges.openai_agents.hooks import RecordingHooks
from kern_nb.bridges.openai_agents.models import describe_model
from kern_nb.bridges.openai_agents.recorder import (
    Recording,
    current_recording,
    describe,
    recording_context,
    run_input,
)
from kern_nb.bridges.openai_agents.session import KernSession
from kern_nb.extra_keys import FRAMEWORK, TOOL_CALL_ID
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.provenance import current_cell

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_stores: dict[int, tuple[Any, SessionStore]] = {}
"""The stores of attached agents, by the identity of the agent, which is kept alive."""


def attach(agent: Any, store: SessionStore) -> Callable[[], None]:
    """Record the runs of an agent in a store; returns what undoes it.

    A run with a `KernSession` is recorded in its session, one with another session under that one's id, and one without
    in the session of its ``conversation_id`` or ``group_id``, or in a new one. Runs that the agent's tools start, those
    of ``agent.as_tool()`` included, are members' runs of it. A clone of the agent is another agent.
    """
    before = _stores.get(id(agent))
    _stores[id(agent)] = (agent, store)
    if not isinstance(get_default_agent_runner(), RecordingRunner):
        set_default_agent_runner(RecordingRunner(get_default_agent_runner()))  # type: ignore[arg-type]

    def undo() -> None:
        if before is None:
            _stores.pop(id(agent), None)
        else:
            _stores[id(agent)] = before
        runner: Any = get_default_agent_runner()
        if not _stores and isinstance(runner, RecordingRunner):
            set_default_agent_runner(runner.inner)

    return undo


class RecordingRunner:
    """A runner that records runs of attached agents and lets another one run them.

    Attributes:
        inner: The other runner.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def run(self, starting_agent: Any, input: Any, **options: Any) -> Any:
        """See ``Runner.run``."""
        recorded = _find_target(starting_agent, input, options)
        if recorded is None:
            return await self.inner.run(starting_agent, input, **options)
        recording = await in_thread(recorded)
        with recording_context(recording):
            try:
                result = await self.inner.run(starting_agent, input, **_with_hooks(recording, options))
            except BaseException as error:
                await _settle(recording, error)
                raise
            await in_thread(lambda: pauses.end(recording, result))
            return result

    def run_sync(self, starting_agent: Any, input: Any, **options: Any) -> Any:
        """See ``Runner.run_sync``."""
        recorded = _find_target(starting_agent, input, options)
        if recorded is None:
            return self.inner.run_sync(starting_agent, input, **options)
        recording = recorded()
        with recording_context(recording):
            try:
                result = self.inner.run_sync(starting_agent, input, **_with_hooks(recording, options))
            except BaseException as error:
                _store_failure(recording, error)
                raise
            pauses.end(recording, result)
            return result

    def run_streamed(self, starting_agent: Any, input: Any, **options: Any) -> Any:
        """See ``Runner.run_streamed``."""
        recorded = _find_target(starting_agent, input, options)
        if recorded is None:
            return self.inner.run_streamed(starting_agent, input, **options)
        recording = recorded()
        with recording_context(recording):
            try:
                result = self.inner.run_streamed(starting_agent, input, **_with_hooks(recording, options))
            except BaseException as error:
                _store_failure(recording, error)
                raise
        # Not awaited anywhere: who consumes the stream to its end finds the run ended.
        result.run_loop_task.add_done_callback(lambda task: _end_stream(recording, result, task))
        return result


def _with_hooks(recording: Recording, options: dict[str, Any]) -> dict[str, Any]:
    hooks = options.get("hooks")
    if hooks is not None and not isinstance(hooks, RunHooksBase):
        return options  # which the SDK refuses
    return options | {"hooks": RecordingHooks(recording, hooks, options.get("run_config"))}


def _find_target(agent: Any, value: Any, options: dict[str, Any]) -> Callable[[], Recording] | None:
    """What starts the recording of a run, or resumes it; None if the run is not to be recorded."""
    parent = current_recording()
    parent = None if parent is None or parent.has_ended else parent
    own = _stores.get(id(agent))
    if own is None and parent is None:
        return None
    session = options.get("session")
    store = own[1] if own is not None else parent.store  # type: ignore[union-attr]
    store = session.store if isinstance(session, KernSession) else store
    is_nested = parent is not None and parent.store is store
    session_id = _session_id(session)
    if session_id is None and is_nested:
        session_id = parent.session_id  # type: ignore[union-attr]
    parent = parent if parent is not None and is_nested and session_id == parent.session_id else None

    def start() -> Recording:
        resumed = None
        if isinstance(value, RunState):
            resumed = pauses.resume(store, value, session_id=session_id, parent=parent, has_memory=has_memory)
        recording = resumed or _start(store, agent, value, options, session_id, parent, has_memory=has_memory)
        recording.options = options
        return recording

    # Without a session, the memory of a run is what happened in it. That of a nested run is not its parent's.
    has_memory = isinstance(session, KernSession) or parent is not None
    return start


def _session_id(session: Any) -> str | None:
    """The id of a session; None if it has none yet: that of a conversation on a server is created with it."""
    try:
        value = getattr(session, "session_id", None)
    except ValueError:
        return None
    return value if isinstance(value, str) and value else None


def _start(
    store: SessionStore,
    agent: Any,
    value: Any,
    options: dict[str, Any],
    session_id: str | None,
    parent: Recording | None,
    *,
    has_memory: bool,
) -> Recording:
    """Start the run of an agent."""
    config = options.get("run_config")
    group_id = config.get("group_id") if isinstance(config, dict) else getattr(config, "group_id", None)
    session = options.get("session")
    model, provider = describe_model(agent, config)
    context = options.get("context")
    internal: dict[str, Any] = {FRAMEWORK: "agents"}
    if parent is not None and isinstance(context, ToolContext):
        internal[TOOL_CALL_ID] = context.tool_call_id
    is_state = isinstance(value, RunState)
    extra: dict[str, Any] = {"resumed": True} if is_state else {}
    cell = current_cell()
    extra |= {} if cell is None else {"notebook": cell}
    run = store.start_run(
        session_id or options.get("conversation_id") or group_id or str(uuid4()),
        input=None if is_state else run_input(value),
        agent_id=agent.name,
        user_id=session.user_id if isinstance(session, KernSession) else None,
        model=model,
        model_provider=provider,
        parent_run_id=None if parent is None else parent.run_id,
        extra=extra,
        internal=internal,
        messages=() if is_state else Recording.start_messages(agent, value, has_memory=has_memory),
    )
    return Recording(store, run, has_memory=has_memory)


async def _settle(recording: Recording, error: BaseException) -> None:
    try:
        await in_thread(lambda: _store_failure(recording, error))
    except asyncio.CancelledError:
        if not isinstance(error, asyncio.CancelledError):
            raise


def _store_failure(recording: Recording, error: BaseException) -> None:
    """Store how a run failed. If that fails, too, the run's own error is the one to raise: the other is a warning."""
    try:
        pauses.fail(recording, error)
    except Exception as failure:  # noqa: BLE001 - see above
        recording.give_up()
        message = f"The end of run {recording.run_id} was not stored: {describe(failure)}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _end_stream(recording: Recording, result: Any, task: asyncio.Task[Any]) -> None:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    tripped = [r for r in result.input_guardrail_results if r.output.tripwire_triggered]
    if isinstance(error, asyncio.CancelledError) and tripped:
        name = tripped[0].guardrail.get_name()
        recording_error = RuntimeError(f"Guardrail {name} triggered tripwire")
        _store_failure(recording, recording_error)
        return
    if error is not None:
        _store_failure(recording, error)
        return
    try:
        pauses.end(recording, result)
    except Exception as failure:  # noqa: BLE001 - nobody awaits a callback
        _store_failure(recording, failure)
        message = f"The end of run {recording.run_id} was not stored: {describe(failure)}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
