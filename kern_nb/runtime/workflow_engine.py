"""One run of a workflow: executes its steps, each of which is a run of its own, and skips those that are completed.

A step's run is found by its path (``1.0.2``: the third step in the first iteration of the loop that is step 1). The
result of a condition is stored in the same way, so that a resumed run takes the same branches.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kern_nb.db import SessionStore
from kern_nb.errors import BadUsage, KernError, RunFailed
from kern_nb.extra_keys import STEP, STEP_PATH
from kern_nb.interop.media import plain_value
from kern_nb.records import Requirement, Run
from kern_nb.runtime import engine
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import CallEnded, CallStarted, Emit, Started, ignore
from kern_nb.runtime.iteration import IterationFailed, is_pending, resolve
from kern_nb.runtime.recorder import Recorder, Storage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.settings import OwnerSettings, Request
from kern_nb.runtime.workflow_nodes import Condition, Loop, Node, Parallel, Step, StepInput, node_title

_CONTENT = "previous_step_content"


class _Paused(Exception):
    """A step is paused."""


class _Rejected(Exception):
    """A person rejected a step."""


async def start_run(settings: OwnerSettings, store: SessionStore, request: Request, emit: Emit) -> Run:
    """Run a workflow, and return the run as stored at its end or its pause; arguments as for `engine.start_run`.

    Raises:
        RunFailed: a step failed; the run is stored with the error.
    """
    run = await engine.store_request(settings, store, request, input=plain_value(request.prompt))
    state = engine.initial_state(settings, run.session_state, request)
    return await _execute(_Execution(settings, store, run, state, emit, request.user_id))


async def resume_run(
    settings: OwnerSettings,
    store: SessionStore,
    before: Run,
    emit: Emit,
    parent: RunContext | None,
    user_id: str | None,
    *,
    rerun_interrupted: bool = False,
) -> Run:
    """Resume a run at the step where it stopped; see `kern_nb.workflow.Workflow.acontinue_run`."""
    step_runs = await in_thread(lambda: store.member_runs(before.run_id))
    run = await engine.claim(store, before, user_id)
    owner_id = await engine.load_owner(store, run, parent)
    state = parent.session_state if parent else dict(run.session_state or {})
    execution = _Execution(settings, store, run, state, emit, owner_id, rerun_interrupted=rerun_interrupted)
    execution.step_runs = {step.internal[STEP_PATH]: step for step in step_runs if STEP_PATH in step.internal}
    execution.requirements = {r.extra[STEP_PATH]: r for r in run.requirements if STEP_PATH in r.extra}
    return await _execute(execution, before)


async def _execute(execution: _Execution, before: Run | None = None) -> Run:
    recorder, run = execution.recorder, execution.run
    execution.emit(Started(run))

    async def work() -> None:
        handoffs = (r for r in run.requirements if r.kind == "handoff" and not r.extra.get(STEP_PATH))
        if handoff := next(handoffs, None):
            # The session was handed to a person, and this run is their answer: it has no steps.
            if handoff.approved:
                await recorder.finish("COMPLETED", output=handoff.answer)
            else:
                await recorder.finish("CANCELLED", error=handoff.note or "nobody took the session over")
            return
        try:
            output = await execution.run_sequence(execution.settings.owner.steps.steps, "", None)
        except _Paused:
            await recorder.pause(execution.new_requirements)
        except _Rejected as rejected:
            await recorder.finish("CANCELLED", error=str(rejected))
        else:
            await recorder.finish("COMPLETED", output=output)

    return await engine.finish(execution.settings, execution.context, work, before=before)


@dataclass
class _Execution:
    """The execution of the steps of one run."""

    settings: OwnerSettings
    store: SessionStore
    run: Run
    state: dict[str, Any]
    emit: Emit
    user_id: str | None
    rerun_interrupted: bool = False
    step_runs: dict[str, Run] = field(default_factory=dict)
    requirements: dict[str, Requirement] = field(default_factory=dict)
    new_requirements: list[Requirement] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.store, self.run, self.state, Storage(), self.emit)
        session_id, owner = self.run.session_id or "", self.settings.owner
        self.context = RunContext(
            self.run.run_id, session_id, self.user_id, self.state, owner, self.store, self.recorder
        )

    async def run_sequence(self, steps: Sequence[Node], path: str, previous: Any) -> Any:
        for index, step in enumerate(steps):
            previous = await self.run_node(step, f"{path}{index}", previous)
        return previous

    async def run_node(self, node: Node, path: str, previous: Any) -> Any:
        if isinstance(node, Step):
            output = await self.run_step(node, path, previous)
        elif isinstance(node, Parallel):
            output = await self.run_parallel(node, path, previous)
        elif isinstance(node, Condition):
            output = await self.run_condition(node, path, previous)
        elif isinstance(node, Loop):
            output = await self.run_loop(node, path, previous)
        else:
            output = await self.run_sequence(node.steps, f"{path}.", previous)
        self.outputs[node_title(node)] = output
        return output

    async def run_parallel(self, node: Parallel, path: str, previous: Any) -> dict[str, Any]:
        """Run steps concurrently. All of them end, or pause, before an error of one is raised."""
        work = [self.run_node(step, f"{path}.{index}", previous) for index, step in enumerate(node.steps)]
        outputs = await asyncio.gather(*work, return_exceptions=True)
        errors = [output for output in outputs if isinstance(output, BaseException)]
        for error in sorted(errors, key=lambda error: isinstance(error, _Paused)):
            raise error
        return {node_title(step): output for step, output in zip(node.steps, outputs, strict=True)}

    async def run_condition(self, node: Condition, path: str, previous: Any) -> Any:
        """Run the steps of the branch that the condition selects; an empty branch returns its input."""
        holds = await self.run_function(node.evaluator, f"{node.name}: if", f"{path}.if", previous, bool)
        steps, branch = (node.steps, "then") if holds else (node.else_steps, "else")
        return await self.run_sequence(steps, f"{path}.{branch}.", previous)

    async def run_loop(self, node: Loop, path: str, previous: Any) -> Any:
        for iteration in range(node.max_iterations):
            previous = await self.run_sequence(node.steps, f"{path}.{iteration}.", previous)
            if node.end_condition is not None:
                name, end_path = f"{node.name}: until", f"{path}.{iteration}.until"
                if await self.run_function(node.end_condition, name, end_path, previous, bool):
                    break
        return previous

    async def run_step(self, step: Step, path: str, previous: Any) -> Any:
        """Run one step, unless it is completed."""
        stored = self.step_runs.get(path)
        if stored is not None:
            _require_same(step, stored)
            if stored.status == "COMPLETED":
                return stored.output
        if step.requires_confirmation:
            previous = self._require_confirmation(step, path, previous)
        self.recorder.has_written |= stored is None or not isinstance(step.executor, SessionOwner)
        self.emit(CallStarted(path, step.title, {}))
        if isinstance(step.executor, SessionOwner):
            output = await self.run_agent(step.executor, step.title, path, previous)
        else:
            output = await self.run_function(step.executor, step.title, path, previous)
        self.emit(CallEnded(path, step.title, output, is_error=False))
        return output

    def _require_confirmation(self, step: Step, path: str, previous: Any) -> Any:
        """Return the step's input once a person has approved it, as they edited it; pause before that."""
        requirement = self.requirements.get(path)
        if requirement is None:
            args = {_CONTENT: plain_value(previous)}
            requirement = Requirement(kind="confirmation", tool_name=step.title, args=args, prompt=step.prompt)
            requirement.assignee, requirement.extra = step.assignee, {STEP_PATH: path}
            self.new_requirements.append(requirement)
            raise _Paused
        if not requirement.approved:
            reason = "nobody answered in time" if requirement.status == "expired" else requirement.note
            raise _Rejected(f"step {step.title} was rejected" + (f": {reason}" if reason else ""))
        edited = requirement.answer if isinstance(requirement.answer, dict) else {}
        return edited.get(_CONTENT, previous)

    async def run_agent(self, executor: Any, name: str, path: str, previous: Any) -> Any:
        """Run a step that is an agent, a team or a workflow, as a run in this session."""
        stored = self.step_runs.get(path)
        if stored is not None:
            is_rerun = self.rerun_interrupted and executor.session_type == "workflow"
            options = {"rerun_interrupted": True} if is_rerun else {}
            run = await executor._resume_run(stored.run_id, None, ignore, self.context, **options)  # noqa: SLF001 - a workflow runs its steps
            self.recorder.has_written = True
        else:
            prompt = self.run.input if previous is None else previous
            extra = {STEP: name, STEP_PATH: path}
            work = executor._prepare_run(prompt, self.context.session_id, self.user_id, extra, parent=self.context)  # noqa: SLF001 - as above
            run = await work(ignore)
        if run.status == "PAUSED":
            raise _Paused
        if run.status == "CANCELLED" and run.run_type == "workflow":
            raise _Rejected(run.error)
        if run.status != "COMPLETED":
            raise RunFailed(f"Step {name} ended as {run.status}: {run.error}")
        return run.output

    async def run_function(
        self,
        function: Callable[..., Any],
        name: str,
        path: str,
        previous: Any,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Run a function, as a run of the workflow with the function's input and output; a condition's is a `bool`."""
        stored = self.step_runs.get(path)
        if stored is not None and stored.status == "COMPLETED":
            return stored.output
        if stored is not None and stored.status in ("RUNNING", "INTERRUPTED", "CANCELLED"):
            if not self.rerun_interrupted:
                raise KernError(
                    f"Step {name} was interrupted, and may have taken effect.",
                    "Check, then run it again with continue_run(run_id, rerun_interrupted=True).",
                )
            if stored.status == "RUNNING":  # its process has ended
                await in_thread(lambda: self.store.claim_run(stored.run_id))
                await in_thread(lambda: self.store.finish_run(stored.run_id, status="INTERRUPTED"))
        step_input = StepInput(self.run.input, previous, dict(self.outputs), self.state, self.context)
        prompt = self.run.input if previous is None else previous
        extra = {STEP: name, STEP_PATH: path}
        request = Request(prompt, self.context.session_id, self.user_id, {}, self.context, extra)
        # The workflow's run has set the default state: a key that a step deleted since then must not come back.
        settings = replace(self.settings, default_state={})
        run = await engine.store_request(settings, self.store, request, input=plain_value(prompt))
        recorder = Recorder(self.store, run, self.state, Storage(), ignore, folder=self.recorder.folder)
        try:
            output = plain_value(await _call(function, step_input, name, convert))
        except asyncio.CancelledError:
            await recorder.fail("cancelled", "CANCELLED")
            raise
        except Exception as error:
            prefix = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
            await recorder.fail(f"{prefix}{error}")
            raise
        await recorder.finish("COMPLETED", output=output)
        return output


async def _call(
    function: Callable[..., Any], step_input: StepInput, name: str, convert: Callable[[Any], Any] | None
) -> Any:
    """Call a function and return its result; of a generator, the list of its values.

    A condition's function must not be a generator, which is true whatever it yields.
    """
    try:
        is_async = inspect.iscoroutinefunction(function)
        result = await function(step_input) if is_async else await in_thread(lambda: function(step_input))
        if not is_async and inspect.isawaitable(result):
            result = await result
        if convert is not None and is_pending(result):
            raise BadUsage(f"{name!r} must return a value, got a generator.", "Use return instead of yield.")
        content = _unwrap_run(name, await resolve(result, lambda item: _unwrap_run(name, item)))
    except (IterationFailed, SystemExit, KeyboardInterrupt) as failed:
        error = failed.cause if isinstance(failed, IterationFailed) else failed
        if isinstance(error, (SystemExit, KeyboardInterrupt)):  # asyncio would end its loop, and every run with it
            raise RunFailed(f"{type(error).__name__}: {error}") from error
        raise error from None
    return convert(content) if convert else content


def _unwrap_run(name: str, result: Any) -> Any:
    """Return a function's result; of a `Run`, its output. Nothing would resume a run that is not completed."""
    if not isinstance(result, Run):
        return result
    if result.status != "COMPLETED":
        message = f"Step {name} returned a run with status {result.status}."
        raise BadUsage(message, "Use the agent itself as the step.")
    return result.output


def _require_same(step: Step, stored: Run) -> None:
    """Check that the step of a stored run, which is found by its path, is still the same."""
    old_title, owner_id = stored.extra.get(STEP), stored.agent_id or stored.team_id
    run_type = step.executor.session_type if isinstance(step.executor, SessionOwner) else "workflow"
    has_other_executor = run_type != stored.run_type or (owner_id is not None and owner_id != step.executor.id)
    if old_title != step.title or has_other_executor:
        executor = f" ({getattr(step.executor, 'id', 'a function')})" if has_other_executor else ""
        message = f"Step {stored.extra.get(STEP_PATH)} was {old_title!r}, and is {step.title!r}{executor} now."
        raise BadUsage(message, "Continue with the original steps, or start a new run.")
