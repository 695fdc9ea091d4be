"""One run of a workflow: executes its nodes, and skips the steps that are completed.

Each step is a run of its own, found by its path (``1.0.2``: the third step in the first iteration of the loop that is
step 1). What a condition, a router or the end of a loop decided is stored in the same way, so that a resumed run takes
the same branches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from kern_nb.db import SessionStore
from kern_nb.events import base, workflow
from kern_nb.extra_keys import STEP_PATH
from kern_nb.interop.media import plain_value
from kern_nb.record_methods.steps import OUTPUT
from kern_nb.records import Requirement, Run
from kern_nb.runtime import engine
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Emit, Event
from kern_nb.runtime.recorder import Recorder, Storage
from kern_nb.runtime.run_state import RunState, initial_state, resumed_state
from kern_nb.runtime.settings import OwnerSettings, Request
from kern_nb.runtime.workflow_functions import call_function
from kern_nb.runtime.workflow_nodes import Condition, Loop, Node, Parallel, Router, Step, Steps
from kern_nb.runtime.workflow_reviews import PREVIOUS, Answers, Paused, Rejected, Reviews
from kern_nb.runtime.workflow_steps import Scope, StepRunner
from kern_nb.runtime.workflow_types import IterationOutputs, StepOutput, last_content


async def start_run(settings: OwnerSettings, store: SessionStore, request: Request, emit: Emit) -> Run:
    """Run a workflow, and return the run as stored at its end or its pause; arguments as for `engine.start_run`.

    Raises:
        RunFailed: a step failed; the run is stored with the error.
    """
    run = await engine.store_request(settings, store, request, input=plain_value(request.prompt))
    state = initial_state(settings, run, request)
    model = request.parent.model if request.parent else None
    return await _execute(_Execution(settings, store, run, state, emit, request.user_id, model=model))


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
    state = resumed_state(settings, run, owner_id, parent)
    model = parent.model if parent else None
    options = {"rerun_interrupted": rerun_interrupted}
    execution = _Execution(settings, store, run, state, emit, owner_id, model, step_runs, **options)
    return await _execute(execution, before)


async def _execute(execution: _Execution, before: Run | None = None) -> Run:
    recorder, run = execution.steps.recorder, execution.run

    async def work() -> None:
        recorder.events.emit(base.Started if before is None else base.Continued)
        await recorder.events.caught_up()
        handoffs = (r for r in run.requirements if r.kind == "handoff" and not r.extra.get(STEP_PATH))
        if handoff := next(handoffs, None):
            # The session was handed to a person, and this run is their answer: it has no steps.
            if handoff.approved:
                await recorder.finish("COMPLETED", output=handoff.answer)
            else:
                await recorder.finish("CANCELLED", error=handoff.note or "nobody took the session over")
            return
        try:
            outputs = await execution.run_sequence(execution.settings.owner.steps.steps, "", Scope())
        except Paused:
            await recorder.pause(execution.reviews.new)
        except Rejected as rejected:
            await recorder.finish("CANCELLED", error=str(rejected))
        else:
            await recorder.finish("COMPLETED", output=plain_value(outputs[-1].content) if outputs else None)

    return await engine.finish(execution.settings, execution.steps.context, work, before=before)


@dataclass
class _Execution:
    """The execution of the nodes of one run."""

    settings: OwnerSettings
    store: SessionStore
    run: Run
    state: RunState
    emit: Emit
    user_id: str | None
    model: Any = None
    step_runs: Sequence[Run] = ()
    rerun_interrupted: bool = False

    def __post_init__(self) -> None:
        self.reviews = Reviews(self.run)
        events = engine.event_source(self.settings, self.run, self.emit)
        recorder = Recorder(self.store, self.run, self.state, Storage(), events)
        session_id, owner = self.run.session_id or "", self.settings.owner
        own_model = getattr(owner, "model", None)
        model = self.model if own_model is None else own_model
        ids = (self.run.run_id, session_id, self.user_id)
        context = RunContext(*ids, self.state, owner, self.store, recorder, model=model)
        self.steps = StepRunner(
            self.settings, context, self.reviews, self.step_runs, rerun_interrupted=self.rerun_interrupted
        )

    async def run_sequence(
        self, nodes: Sequence[Node], path: str, scope: Scope, *, ends_at_failure: bool = False
    ) -> list[StepOutput]:
        """Run nodes one after the other, until one stops the workflow; return their outputs."""
        outputs: list[StepOutput] = []
        for index, node in enumerate(nodes):
            output = await self.run_node(node, f"{path}{index}", scope)
            if output is None:
                continue
            outputs.append(output)
            scope = scope.after([output])
            if output.stop or (ends_at_failure and not output.success):
                break
        return outputs

    async def run_node(self, node: Node, path: str, scope: Scope) -> StepOutput | None:
        """Run a node between the reviews before and after it; None if it is skipped."""
        review = node.human_review
        scope = replace(scope, on_error=review.on_error or scope.on_error)
        is_completed = isinstance(node, Step) and self.steps.is_completed(path) and not self.reviews.has_asked(path)
        try:
            answers = Answers() if is_completed else self.reviews.before(node, path, scope.content)
        except Paused:
            self.steps.emit_event(workflow.StepPausedEvent, node.title, path, content=review.confirmation_message)
            raise
        if PREVIOUS in answers.edited:
            scope = replace(scope, previous=StepOutput(answers.edited[PREVIOUS]))
        attempt_path, feedback = path, dict[str, Any]()
        for attempt in count(1):
            if answers.is_skipped:
                return None
            additional = scope.additional | feedback
            additional |= {"user_input": answers.user_input} if answers.user_input else {}
            output = await self._run(node, attempt_path, replace(scope, additional=additional), answers)
            is_required = review.requires_output_review
            if output is None or not (is_required(output) if callable(is_required) else is_required):
                return output
            message = review.output_review_message or f"Accept the output of {node.title}?"
            answer = self.reviews.after(node, attempt_path, output, message)
            verdict = self.reviews.judge(node, answer, is_last=attempt > review.max_retries)
            if verdict != "retry":
                return _edited(output, answer) if verdict == "approve" else None
            attempt_path, feedback = f"{path}.retry.{attempt}", _feedback(output, answer)
            if isinstance(node, Router):
                answers = self.reviews.select_again(node, attempt_path, scope.content)
        return None

    async def _run(self, node: Node, path: str, scope: Scope, answers: Answers) -> StepOutput | None:
        if isinstance(node, Step):
            return await self.steps.run(node, path, scope)
        if isinstance(node, Parallel):
            return await self._run_parallel(node, path, scope)
        if isinstance(node, Loop):
            return await self._run_loop(node, path, scope)
        fields: dict[str, Any]
        ended: dict[str, Any]
        nodes: Sequence[Node]
        if isinstance(node, Condition):
            holds = not answers.is_else and await self._evaluate(node, path, scope)
            fields, ended = {"condition_result": holds}, {"branch": "if" if holds else "else"}
            nodes, inner = (node.steps, f"{path}.then.") if holds else (node.else_steps, f"{path}.else.")
        elif isinstance(node, Router):
            names = answers.choices if answers.choices is not None else await self._select(node, path, scope)
            choices = {choice.title: choice for choice in node.choices}
            nodes, inner, fields, ended = [choices[name] for name in names], f"{path}.", {"selected_steps": names}, {}
        elif isinstance(node, Steps):
            nodes, inner, fields, ended = node.steps, f"{path}.", {"steps_count": len(node.steps)}, {}
        else:
            raise TypeError(f"unknown node {node!r}")
        ends_at_failure = node.human_review.on_error == "skip"
        started_event, completed_event = _EVENTS[type(node)]
        self.steps.emit_event(started_event, node.title, path, **fields)
        outputs = await self.run_sequence(nodes, inner, scope, ends_at_failure=ends_at_failure)
        output = _combine(node, path, outputs)
        self.steps.emit_event(completed_event, node.title, path, content=_content(output), **fields, **ended)
        return output

    async def _run_parallel(self, node: Parallel, path: str, scope: Scope) -> StepOutput:
        """Run steps concurrently. All of them end, or pause, before an error of one is raised."""
        count = {"parallel_step_count": len(node.steps)}
        self.steps.emit_event(workflow.ParallelExecutionStartedEvent, node.title, path, **count)
        work = [self.run_node(step, f"{path}.{index}", scope) for index, step in enumerate(node.steps)]
        results = await asyncio.gather(*work, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in sorted(errors, key=lambda error: isinstance(error, Paused)):
            raise error
        outputs = [result for result in results if isinstance(result, StepOutput)]
        contents = {
            step.title: result.content if isinstance(result, StepOutput) else None
            for step, result in zip(node.steps, results, strict=True)
        }
        combined = _combine(node, path, outputs) or StepOutput(step_name=node.title, step_type=node.kind)
        combined = replace(combined, content=contents)
        self.steps.emit_event(
            workflow.ParallelExecutionCompletedEvent, node.title, path, content=_content(combined), **count
        )
        return combined

    async def _run_loop(self, node: Loop, path: str, scope: Scope) -> StepOutput | None:
        start, outputs, limit = scope, list[StepOutput](), {"max_iterations": node.max_iterations}
        self.steps.emit_event(workflow.LoopExecutionStartedEvent, node.title, path, **limit)
        n_iterations = 0
        for iteration in range(node.max_iterations):
            iteration_path = f"{path}.{iteration}"
            fields: dict[str, Any] = {"iteration": iteration + 1, **limit}
            self.steps.emit_event(workflow.LoopIterationStartedEvent, node.title, path, **fields)
            latest = await self.run_sequence(node.steps, f"{iteration_path}.", scope)
            n_iterations += 1
            outputs += latest
            end = scope.after(latest)
            is_end = await self._ends(node, iteration_path, end, latest) or any(output.stop for output in latest)
            fields |= {"should_continue": not is_end and n_iterations < node.max_iterations}
            self.steps.emit_event(
                workflow.LoopIterationCompletedEvent, node.title, path, content=plain_value(end.content), **fields
            )
            if is_end:
                break
            scope = end if node.forward_iteration_output else start
            combined = _combine(node, path, outputs)
            if node.human_review.requires_iteration_review and combined and iteration + 1 < node.max_iterations:
                default = f"{node.title}, iteration {iteration + 1} of {node.max_iterations}: accept its output?"
                message = node.human_review.iteration_review_message or default
                answer = self.reviews.after(node, iteration_path, combined, message)
                verdict = self.reviews.judge(node, answer)
                if verdict != "retry":
                    return _edited(combined, answer) if verdict == "approve" else None
                scope = replace(scope, additional=start.additional | _feedback(combined, answer))
        output = _combine(node, path, outputs)
        ended = {"content": _content(output), "total_iterations": n_iterations, **limit}
        self.steps.emit_event(workflow.LoopExecutionCompletedEvent, node.title, path, **ended)
        return output

    async def _evaluate(self, node: Condition, path: str, scope: Scope) -> bool:
        if isinstance(node.evaluator, bool):
            return node.evaluator
        argument = self.steps.step_input(scope)
        return bool(await self._decide(node.evaluator, f"{node.title}: if", f"{path}.if", scope, argument, bool))

    async def _ends(self, node: Loop, path: str, scope: Scope, outputs: Sequence[StepOutput]) -> bool:
        if node.end_condition is None:
            return False
        argument, name = IterationOutputs(outputs, self.steps.step_input(scope)), f"{node.title}: until"
        return bool(await self._decide(node.end_condition, name, f"{path}.until", scope, argument, bool))

    async def _select(self, node: Router, path: str, scope: Scope) -> list[str]:
        if node.selector is None:  # a person selects
            return []
        argument, name = self.steps.step_input(scope), f"{node.title}: select"
        values = {"step_choices": node.choices}
        names: list[str] = await self._decide(
            node.selector, name, f"{path}.select", scope, argument, node.selected_names, values
        )
        return names

    async def _decide(
        self,
        function: Callable[..., Any],
        name: str,
        path: str,
        scope: Scope,
        argument: Any,
        convert: Callable[[Any], Any],
        values: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function that decides something, as a run of the workflow, and return what it decided."""
        values = self.steps.injectable_values(scope) | (values or {})

        async def work() -> StepOutput:
            return StepOutput(convert(await call_function(function, argument, values, name)))

        return (await self.steps.run_function(name, path, scope, work)).content


_EVENTS: dict[type[Node], tuple[type[Event], type[Event]]] = {
    Condition: (workflow.ConditionExecutionStartedEvent, workflow.ConditionExecutionCompletedEvent),
    Router: (workflow.RouterExecutionStartedEvent, workflow.RouterExecutionCompletedEvent),
    Steps: (workflow.StepsExecutionStartedEvent, workflow.StepsExecutionCompletedEvent),
}
"""The events of the start and the end of the nodes that run others one after the other."""


def _content(output: StepOutput | None) -> Any:
    """Return the content of an output in an event."""
    return None if output is None else plain_value(output.content)


def _feedback(output: StepOutput, answer: Requirement) -> dict[str, Any]:
    """Return what the next attempt learns of a rejected output."""
    note = {"rejection_feedback": answer.note} if answer.note else {}
    return {"previous_output": last_content(output)} | note


def _edited(output: StepOutput, answer: Requirement) -> StepOutput:
    """Return an accepted output, as the person edited it."""
    edited = answer.answer if isinstance(answer.answer, dict) else {}
    return replace(output, content=edited[OUTPUT], steps=None) if OUTPUT in edited else output


def _combine(node: Node, path: str, outputs: Sequence[StepOutput]) -> StepOutput | None:
    """Return the output of a node that has others within it; None if none of them ran."""
    if not outputs:
        return None
    return StepOutput(
        content=outputs[-1].content,
        success=all(output.success for output in outputs),
        error=next((output.error for output in outputs if not output.success), None),
        stop=any(output.stop for output in outputs),
        step_name=node.title,
        step_id=path.rstrip("."),
        step_type=node.kind,
        steps=list(outputs),
    )
