"""Run one step of a workflow: an agent or a function, as a run of the session, with its attempts after errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from kern_nb.errors import BadUsage, KernError, RunFailed
from kern_nb.events import workflow
from kern_nb.extra_keys import ADDITIONAL_DATA, STEP, STEP_OUTPUT, STEP_PATH
from kern_nb.interop.media import plain_value
from kern_nb.records import Run
from kern_nb.runtime import run_lifecycle
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Event, EventOptions, EventSource, ignore
from kern_nb.runtime.history import past_exchanges
from kern_nb.runtime.recorder import Recorder, Storage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.settings import OwnerSettings, Request
from kern_nb.runtime.workflow_functions import call_step
from kern_nb.runtime.workflow_history import agent_message, history_text
from kern_nb.runtime.workflow_node import Step
from kern_nb.runtime.workflow_reviews import Paused, Rejected, Reviews
from kern_nb.runtime.workflow_types import StepInput, StepOutput, WorkflowExecutionInput, agent_text, last_content


@dataclass(frozen=True)
class Scope:
    """What a node knows of the nodes before it.

    Attributes:
        previous: The output of the previous node.
        outputs: The outputs of the nodes before, by name.
        on_error: What follows an error, as the nodes around it say.
        additional: What a step finds in its ``additional_data`` beside what the caller passed.
    """

    previous: StepOutput | None = None
    outputs: dict[str, StepOutput] = field(default_factory=dict)
    on_error: str | None = None
    additional: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> Any:
        """The content of the previous node."""
        return None if self.previous is None else last_content(self.previous)

    def after(self, outputs: Sequence[StepOutput]) -> Scope:
        """Return the scope after further nodes."""
        by_name = {str(output.step_name): output for output in outputs}
        return replace(self, previous=outputs[-1] if outputs else self.previous, outputs=self.outputs | by_name)


class StepRunner:
    """The steps of one run of a workflow, some of which may be stored."""

    def __init__(
        self,
        settings: OwnerSettings,
        context: RunContext,
        reviews: Reviews,
        stored: Sequence[Run] = (),
        *,
        rerun_interrupted: bool = False,
    ) -> None:
        self.settings, self.context, self.recorder = settings, context, context.recorder
        self.events = context.recorder.events
        self._reviews, self._rerun_interrupted = reviews, rerun_interrupted
        self._stored = {run.internal[STEP_PATH]: run for run in stored if STEP_PATH in run.internal}
        self._n_failures = Counter(run.internal.get(STEP_PATH) for run in stored if run.status == "ERROR")
        self._additional = context.recorder.run.internal.get(ADDITIONAL_DATA)

    @cached_property
    def _input(self) -> Any:
        """The workflow's input. It may not fit a changed ``input_schema``, which is then the error of the run."""
        return self.settings.owner.load_input(self.recorder.run.input)

    def is_completed(self, path: str) -> bool:
        """Whether a step is stored as completed."""
        return path in self._stored and self._stored[path].status == "COMPLETED"

    async def run(self, step: Step, path: str, scope: Scope) -> StepOutput | None:
        """Run a step, unless it is completed; None if a person decided to skip it after an error."""
        stored, policy = self._stored.get(path), "skip" if step.skip_on_failure else scope.on_error
        n_attempts = step.max_retries + 1
        if stored is not None:
            _require_same(step, stored)
            if stored.status == "COMPLETED":
                output = replace(_stored_output(stored), content=_typed(step, stored.output))
                return _with_names(output, step, path, stored.run_id)
            if stored.status == "ERROR" and policy == "skip":
                n_attempts = 0 if isinstance(step.executor, SessionOwner) else n_attempts - self._n_failures[path]
            if stored.status == "ERROR" and policy == "pause":
                n = max(self._reviews.n_errors(path) - 1, 0)
                if not self._tries_again(step, path, _error_text(stored), n):
                    return None
        if stored is not None and n_attempts <= 0:
            return self._skipped(step, path, _error_text(stored))
        is_function = not isinstance(step.executor, SessionOwner)
        self.recorder.has_written |= stored is None or is_function
        self.emit_event(workflow.StepStartedEvent, step.title, path)
        await self.events.caught_up()  # a consumer that stops here has stopped the step
        with self._reported(step, path):
            output = await self._try(step, path, scope, policy, n_attempts)
        content = plain_value(output.content)
        if is_function:
            self.emit_event(workflow.StepOutputEvent, step.title, path, content=content)
        self.emit_event(workflow.StepCompletedEvent, step.title, path, content=content)
        await self.events.caught_up()
        return output

    @contextmanager
    def _reported(self, step: Step, path: str) -> Iterator[None]:
        """Pass on the event of a step that pauses or fails."""
        try:
            yield
        except Paused:
            self.emit_event(workflow.StepPausedEvent, step.title, path)
            raise
        except Rejected:
            raise
        except Exception as error:
            self.emit_event(workflow.StepErrorEvent, step.title, path, error=str(error))
            raise

    def emit_event(self, kind: type[Event], name: str, path: str, **fields: Any) -> None:
        """Pass on an event of a step or of a group of steps."""
        self.events.emit(kind, **_position(name, path), **fields)

    async def _try(self, step: Step, path: str, scope: Scope, policy: str | None, n_attempts: int) -> StepOutput:
        """Run a step until it succeeds; after the last attempt, do what follows an error."""
        error_text = ""
        for n_left in range(n_attempts - 1, -1, -1):
            try:
                return await self._run_once(step, path, scope, policy)
            except Exception as error:
                if not _is_failure(error) or (n_left == 0 and policy not in ("skip", "pause")):
                    raise
                failed = await self._load(path)
                error_text = str(error) if failed is None else _error_text(failed)
        if policy == "pause":
            self._tries_again(step, path, error_text, self._reviews.n_errors(path))
        return self._skipped(step, path, error_text)

    def _tries_again(self, step: Step, path: str, error: str, n: int) -> bool:
        """Whether a person decided to try a failed step again, and not to skip it."""
        verdict = self._reviews.on_error(step, path, error, n)
        if verdict == "cancel":
            raise Rejected(f"nobody decided in time about the error of step {step.title}: {error}")
        return verdict == "approve"

    def _skipped(self, step: Step, path: str, error: str) -> StepOutput:
        content = (
            f"Step {step.title} failed but skipped" if step.skip_on_failure else f"Step skipped due to error: {error}"
        )
        return _with_names(StepOutput(content, success=False, error=error), step, path, None)

    async def _load(self, path: str) -> Run | None:
        """Load the latest run of a step, which failed; None if it failed before its start was stored."""
        for run in await in_thread(lambda: self.context.store.member_runs(self.context.run_id)):
            if run.internal.get(STEP_PATH) == path:
                self._stored[path] = run
        return self._stored.get(path)

    async def _run_once(self, step: Step, path: str, scope: Scope, policy: str | None) -> StepOutput:
        if step.strict_input_validation and self._input is None and scope.content is None:
            raise BadUsage(f"Step {step.title} has no input.", "Pass one to run(), or strict_input_validation=False.")
        if isinstance(step.executor, SessionOwner):
            return await self._run_agent(step, path, scope)
        return await self._run_function_step(step, path, scope, policy)

    async def _run_agent(self, step: Step, path: str, scope: Scope) -> StepOutput:
        """Run a step that is an agent, a team or a workflow, as a run in this session."""
        executor, stored, context = step.executor, self._stored.get(path), self.context
        is_workflow = executor.session_type == "workflow"
        owner = {"workflow_id": self.settings.owner.id, "workflow_run_id": context.run_id}
        emit = self.events.members(**_position(step.title, path), **owner)
        if stored is not None:
            options = {"rerun_interrupted": True} if self._rerun_interrupted and is_workflow else {}
            run = await executor._resume_run(stored.run_id, None, emit, context, **options)  # noqa: SLF001 - a workflow runs its steps
            self.recorder.has_written = True
        else:
            prompt = await self._prompt(step, scope)
            extra = {STEP: step.title, STEP_PATH: path}
            if is_workflow and self._additional:
                extra[ADDITIONAL_DATA] = self._additional
            work = executor._prepare_run(prompt, context.session_id, context.user_id, extra, parent=context)  # noqa: SLF001 - as above
            run = await work(emit)
        if run.status == "PAUSED":
            raise Paused
        if run.status == "CANCELLED" and run.run_type == "workflow":
            raise Rejected(run.error)
        if run.status != "COMPLETED":
            raise RunFailed(f"Step {step.title} ended as {run.status}: {run.error}")
        return _with_names(StepOutput(run.output), step, path, run.run_id)

    async def _prompt(self, step: Step, scope: Scope) -> Any:
        """Return what an agent, a team or a workflow is told."""
        prompt = agent_text(scope.previous) or self._input
        if step.executor_type == "workflow":
            return prompt
        owner, history = self.settings.owner, None
        is_added = step.add_workflow_history
        if owner.add_workflow_history_to_steps if is_added is None else is_added:
            n = owner.num_history_runs if step.num_history_runs is None else step.num_history_runs
            history = history_text(await in_thread(lambda: past_exchanges(self.context, n)))
        if isinstance(prompt, BaseModel):
            prompt = prompt.model_dump_json(indent=2, exclude_none=True)
        return agent_message(prompt, history, scope.additional)

    async def _run_function_step(self, step: Step, path: str, scope: Scope, policy: str | None) -> StepOutput:
        step_input, values = self.step_input(scope), self.injectable_values(scope)
        members, loop = self.events.members(**_position(step.title, path)), asyncio.get_running_loop()

        def forward(event: Event) -> None:  # a generator may run in a thread
            loop.call_soon_threadsafe(members, event)

        async def work() -> StepOutput:
            output = await call_step(step.executor, step_input, values, step.title, forward)
            if not output.success and policy == "fail":
                raise RunFailed(output.error or f"step {step.title} reported that it failed")
            return output

        return await self.run_function(step.title, path, scope, work, step)

    async def run_function(
        self, name: str, path: str, scope: Scope, work: Callable[[], Awaitable[StepOutput]], step: Step | None = None
    ) -> StepOutput:
        """Do the work of a function, unless it is completed, as a run of the workflow with its input and output."""
        stored, context = self._stored.get(path), self.context
        if stored is not None and stored.status == "COMPLETED":
            return _stored_output(stored)
        if stored is not None and stored.status in ("RUNNING", "INTERRUPTED", "CANCELLED"):
            await self._require_rerun(name, stored)
        prompt = plain_value(self._input if scope.content is None else scope.content)
        request = Request(prompt, context.session_id, context.user_id, {}, context, {STEP: name, STEP_PATH: path})
        # The workflow's run has set the default state: a key that a step deleted since then must not come back.
        settings = replace(self.settings, default_state={})
        run = await run_lifecycle.store_request(settings, context.store, request, input=prompt)
        events = EventSource(run, None, ignore, EventOptions())  # the step's events are the workflow's
        folder = self.recorder.folder
        recorder = Recorder(context.store, run, context.session_state, Storage(), events, folder=folder)
        try:
            output = await work()
        except asyncio.CancelledError:
            await recorder.fail("cancelled", "CANCELLED")
            raise
        except Exception as error:
            prefix = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
            await recorder.fail(f"{prefix}{error}", internal={STEP_OUTPUT: {"error": str(error)}})
            raise
        flags = {"success": output.success, "stop": output.stop}
        internal = None if flags == {"success": True, "stop": False} else {STEP_OUTPUT: flags}
        await recorder.finish("COMPLETED", output=output.content, error=output.error, internal=internal)
        return output if step is None else _with_names(output, step, path, run.run_id)

    async def _require_rerun(self, name: str, stored: Run) -> None:
        """Check that a function which was interrupted may run again."""
        if not self._rerun_interrupted:
            raise KernError(
                f"Step {name} was interrupted, and may have taken effect.",
                "Check, then run it again with continue_run(run_id, rerun_interrupted=True).",
            )
        if stored.status == "RUNNING":  # its process has ended
            store = self.context.store
            await in_thread(lambda: store.claim_run(stored.run_id))
            await in_thread(lambda: store.finish_run(stored.run_id, status="INTERRUPTED"))

    def step_input(self, scope: Scope) -> StepInput:
        """Return the argument of a function."""
        additional = (self._additional or {}) | scope.additional
        return StepInput(
            self._input,
            scope.content,
            dict(scope.outputs),
            additional if additional or self._additional is not None else None,
            self.context.session_state,
            self.context,
        )

    def injectable_values(self, scope: Scope) -> dict[str, Any]:
        """Return the values of parameters that are filled in by name."""
        return {
            "run_context": self.context,
            "session_state": self.context.session_state,
            "workflow": self.settings.owner,
            "execution_input": WorkflowExecutionInput(self._input, self.step_input(scope).additional_data),
        }


def _position(name: str, path: str) -> dict[str, Any]:
    """Return the fields of an event that identify its step; the index is a tuple for a step within others."""
    parts = tuple(int(part) for part in path.split(".") if part.isdecimal())
    return {"step_id": path, "step_name": name, "step_index": parts[0] if len(parts) == 1 else parts}


def _is_failure(error: Exception) -> bool:
    """Whether a step failed: not that it paused, was rejected, or cannot be run as it is."""
    is_usage = isinstance(error, KernError) and not isinstance(error, RunFailed)
    return not isinstance(error, (Paused, Rejected)) and not is_usage


def _error_text(failed: Run) -> str:
    """Return the error of a failed step, without the name of its exception if the step is a function."""
    flags = failed.internal.get(STEP_OUTPUT) or {}
    return str(flags.get("error") or failed.error)


def _stored_output(stored: Run) -> StepOutput:
    flags = stored.internal.get(STEP_OUTPUT) or {}
    success, stop = flags.get("success", True), flags.get("stop", False)
    return StepOutput(stored.output, success=success, error=stored.error, stop=stop)


def _typed(step: Step, output: Any) -> Any:
    """Return a stored output as the object that an agent with an ``output_schema`` returned."""
    load_schema = getattr(step.executor, "_output_schema", None)
    schema = None if load_schema is None else load_schema()
    return output if schema is None else schema.from_json(output)


def _with_names(output: StepOutput, step: Step, path: str, run_id: str | None) -> StepOutput:
    executor = step.executor
    name = getattr(executor, "name", None) or getattr(executor, "__name__", None) or step.title
    return replace(
        output,
        step_name=step.title,
        step_id=path,
        step_type="Step",
        executor_type=step.executor_type,
        executor_name=str(name),
        step_run_id=run_id,
    )


def _require_same(step: Step, stored: Run) -> None:
    """Check that the step of a stored run, which is found by its path, is still the same."""
    old_title, owner_id = stored.extra.get(STEP), stored.agent_id or stored.team_id
    run_type = step.executor.session_type if isinstance(step.executor, SessionOwner) else "workflow"
    has_other_executor = run_type != stored.run_type or (owner_id is not None and owner_id != step.executor.id)
    if old_title != step.title or has_other_executor:
        executor = f" ({getattr(step.executor, 'id', 'a function')})" if has_other_executor else ""
        message = f"Step {stored.extra.get(STEP_PATH)} was {old_title!r}, and is {step.title!r}{executor} now."
        raise BadUsage(message, "Continue with the original steps, or start a new run.")
