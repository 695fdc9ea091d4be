"""One run of a workflow: walks its steps, each of which is a run of its own, and knows by these what is done.

A step is found again by its path (``1.0.2``: the third step of the first round of the loop that is step 1). What a
condition decided is stored in the same way, so that a run that goes on takes the same turns.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kern_nb import extra_keys
from kern_nb.db import SessionStore, codec
from kern_nb.errors import BadUsage, KernError, RunFailed
from kern_nb.extra_keys import STEP_PATH
from kern_nb.interop.media import plain_value
from kern_nb.records import Requirement, Run
from kern_nb.runtime import engine
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.engine import Request
from kern_nb.runtime.events import CallEnded, CallStarted, Emit, Started, ignore
from kern_nb.runtime.iteration import IterationFailed, is_pending, resolve
from kern_nb.runtime.recorder import Recorder, Storage
from kern_nb.runtime.session_owner import SessionOwner
from kern_nb.runtime.threads import in_thread
from kern_nb.runtime.workflow_nodes import Condition, Loop, Node, Parallel, Step, StepInput

if TYPE_CHECKING:
    from kern_nb.workflow import Workflow


_CONTENT = "previous_step_content"


class _Paused(Exception):
    """A step waits."""


class _Refused(Exception):
    """A person said no to a step."""


async def begin(workflow: Workflow, store: SessionStore, request: Request, emit: Emit) -> Run:
    """Run a workflow, to its end or its pause; the run as stored.

    Raises:
        RunFailed: a step failed; the run is stored with the error.
    """
    run_id = str(uuid4())
    codec.dumps([workflow.default_state, request.session_state])  # what cannot be stored is refused before anything is

    def start() -> Run:
        return store.start_run(
            request.session_id,
            run_id=run_id,
            input=plain_value(request.prompt),
            user_id=request.user_id,
            parent_run_id=request.parent.run_id if request.parent else None,
            default_state=engine.defaults(workflow),
            extra=request.extra,
            internal=request.internal,
            **workflow.owner(),
        )

    run = await engine.started(store, run_id, start)
    state = engine.starting_state(workflow, run.session_state, request)
    return await _walk(workflow, _Walk(workflow, store, run, state, emit, request.user_id))


async def proceed(
    workflow: Workflow,
    store: SessionStore,
    before: Run,
    emit: Emit,
    parent: RunContext | None,
    *,
    rerun_interrupted: bool,
    user_id: str | None = None,
) -> Run:
    """Go on with a run at the step where it stood; see `kern_nb.workflow.Workflow.acontinue_run`."""
    engine.require_kind(before, "workflow")
    made = await in_thread(lambda: store.member_runs(before.run_id))
    run = await engine.claimed(store, before, user_id)
    owner = await engine.owner_of(store, run, parent)
    state = parent.session_state if parent else dict(run.session_state or {})
    walk = _Walk(workflow, store, run, state, emit, owner, rerun_interrupted=rerun_interrupted)
    walk.made = {one.internal[STEP_PATH]: one for one in made if STEP_PATH in one.internal}
    walk.asked = {one.extra["step_path"]: one for one in run.requirements if "step_path" in one.extra}
    return await _walk(workflow, walk, before)


async def _walk(workflow: Workflow, walk: _Walk, before: Run | None = None) -> Run:
    walk.emit(Started(walk.run))

    async def work() -> None:
        if back := next(
            (r for r in walk.run.requirements if r.kind == "handoff" and not r.extra.get("step_path")), None
        ):
            # The session was handed to a person, and this run is what they said: no step has a part in it.
            if back.approved:
                await walk.recorder.finish("COMPLETED", output=back.answer)
            else:
                await walk.recorder.finish("CANCELLED", error=back.note or "nobody took the session over")
            return
        try:
            output = await walk.several(workflow.steps.steps, "", None)
        except _Paused:
            await walk.recorder.pause(walk.asking)
        except _Refused as refused:
            await walk.recorder.finish("CANCELLED", error=str(refused))
        else:
            await walk.recorder.finish("COMPLETED", output=output)

    run = await engine.kept(workflow, walk.context, work, before=before)
    workflow.start_summary(walk.store, run)
    return run


@dataclass
class _Walk:
    """One walk through the steps of one run."""

    workflow: Workflow
    store: SessionStore
    run: Run
    state: dict[str, Any]
    emit: Emit
    user_id: str | None
    rerun_interrupted: bool = False
    made: dict[str, Run] = field(default_factory=dict)
    asked: dict[str, Requirement] = field(default_factory=dict)
    asking: list[Requirement] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.store, self.run, self.state, Storage(), self.emit)
        self.context = RunContext(
            self.run.run_id,
            self.run.session_id or "",
            self.user_id,
            self.state,
            self.workflow,
            self.store,
            self.recorder,
        )

    def _given(self, previous: Any) -> StepInput:
        return StepInput(self.run.input, previous, dict(self.outputs), self.state, self.context)

    async def several(self, steps: Sequence[Node], path: str, previous: Any) -> Any:
        """Steps one after the other; what the last one gave."""
        for index, step in enumerate(steps):
            previous = await self.one(step, f"{path}{index}", previous)
        return previous

    async def one(self, node: Node, path: str, previous: Any) -> Any:
        """A node of any kind; what it gave."""
        if isinstance(node, Step):
            found = await self.step(node, path, previous)
        elif isinstance(node, Parallel):
            found = await self.at_once(node, path, previous)
        elif isinstance(node, Condition):
            found = await self.condition(node, path, previous)
        elif isinstance(node, Loop):
            found = await self.loop(node, path, previous)
        else:
            found = await self.several(node.steps, f"{path}.", previous)
        self.outputs[_title(node)] = found
        return found

    async def at_once(self, node: Parallel, path: str, previous: Any) -> dict[str, Any]:
        """Steps at once. All of them end, or pause, before what one of them raised is."""
        work = [self.one(step, f"{path}.{index}", previous) for index, step in enumerate(node.steps)]
        found = await asyncio.gather(*work, return_exceptions=True)
        raised = [one for one in found if isinstance(one, BaseException)]
        for error in sorted(raised, key=lambda one: isinstance(one, _Paused)):
            raise error
        return {_title(step): one for step, one in zip(node.steps, found, strict=True)}

    async def condition(self, node: Condition, path: str, previous: Any) -> Any:
        """Steps if, or others if not; without any, what was given."""
        holds = await self.function(node.evaluator, f"{node.name}: if", f"{path}.if", previous, bool)
        chosen, way = (node.steps, "then") if holds else (node.else_steps, "else")
        return await self.several(chosen, f"{path}.{way}.", previous)

    async def loop(self, node: Loop, path: str, previous: Any) -> Any:
        """Steps again, until it is enough."""
        for turn in range(node.max_iterations):
            previous = await self.several(node.steps, f"{path}.{turn}.", previous)
            if node.end_condition is not None:
                name = f"{node.name}: until"
                if await self.function(node.end_condition, name, f"{path}.{turn}.until", previous, bool):
                    break
        return previous

    async def step(self, step: Step, path: str, previous: Any) -> Any:
        """One step, unless it has ended before."""
        done = self.made.get(path)
        if done is not None:
            _require_same(step, done)
        if done is not None and done.status == "COMPLETED":
            return done.output
        if step.requires_confirmation:
            previous = self._confirmed(step, path, previous)
        self.recorder.wrote |= done is None or not isinstance(step.executor, SessionOwner)
        self.emit(CallStarted(path, step.title, {}))
        if isinstance(step.executor, SessionOwner):
            found = await self.agent(step.executor, step.title, path, previous, done)
        else:
            found = await self.function(step.executor, step.title, path, previous)
        self.emit(CallEnded(path, step.title, found, is_error=False))
        return found

    def _confirmed(self, step: Step, path: str, previous: Any) -> Any:
        """What the step is given, once a person has agreed: as it was, or as they edited it."""
        answered = self.asked.get(path)
        if answered is None:
            args = {_CONTENT: plain_value(previous)}
            asks = Requirement(kind="confirmation", tool_name=step.title, args=args, prompt=step.prompt)
            asks.assignee, asks.extra = step.assignee, {"step_path": path}
            self.asking.append(asks)
            raise _Paused
        if not answered.approved:
            reason = "nobody answered in time" if answered.status == "expired" else answered.note
            raise _Refused(f"step {step.title} was refused" + (f": {reason}" if reason else ""))
        edited = answered.answer if isinstance(answered.answer, dict) else {}
        return edited.get(_CONTENT, previous)

    async def agent(self, executor: Any, name: str, path: str, previous: Any, done: Run | None) -> Any:
        """A step that is an agent, a team or a workflow: its own run, in this session."""
        if done is not None:
            again = (
                {"rerun_interrupted": True} if self.rerun_interrupted and executor.session_type == "workflow" else {}
            )
            run = await executor._proceed(done.run_id, None, ignore, self.context, **again)  # noqa: SLF001 - a workflow runs its steps
            self.recorder.wrote = True
        else:
            given = self.run.input if previous is None else previous
            place = {"step": name, "step_path": path}
            work = executor._prepared(given, self.context.session_id, self.user_id, place, parent=self.context)  # noqa: SLF001
            run = await work(ignore)
        if run.status == "PAUSED":
            raise _Paused
        if run.status == "CANCELLED" and run.run_type == "workflow":
            raise _Refused(run.error)
        if run.status != "COMPLETED":
            raise RunFailed(f"Step {name} ended as {run.status}: {run.error}")
        return run.output

    async def function(
        self,
        function: Callable[..., Any],
        name: str,
        path: str,
        previous: Any,
        kind: Callable[[Any], Any] | None = None,
    ) -> Any:
        """A function: a run of the workflow's own, with what it was given and what it gave."""
        done = self.made.get(path)
        if done is not None and done.status == "COMPLETED":
            return done.output
        if done is not None and done.status in ("RUNNING", "INTERRUPTED", "CANCELLED") and not self.rerun_interrupted:
            raise KernError(
                f"Step {name} was interrupted, and may have taken effect.",
                "Look, then run it again with continue_run(run_id, rerun_interrupted=True).",
            )
        if done is not None and done.status == "RUNNING":  # its process is gone
            await in_thread(lambda: self.store.claim_run(done.run_id))
            await in_thread(lambda: self.store.finish_run(done.run_id, status="INTERRUPTED"))
        given = self._given(previous)
        owner = {"session_type": "workflow", "workflow_id": self.workflow.id, "user_id": self.user_id}
        seen = self.run.input if previous is None else previous
        extra = {"step": name, STEP_PATH: path}
        place = {"parent_run_id": self.run.run_id, "extra": extra, "internal": extra_keys.run_internal(extra)}
        run_id, session_id = str(uuid4()), self.context.session_id

        def start() -> Run:
            return self.store.start_run(session_id, run_id=run_id, input=plain_value(seen), **owner, **place)  # type: ignore[arg-type]

        run = await engine.started(self.store, run_id, start)
        recorder = Recorder(self.store, run, self.state, Storage(), ignore)
        try:
            found = await _called(function, given)
            found = await _resolved(name, found, kind)
        except asyncio.CancelledError:
            await recorder.give_up("cancelled", "CANCELLED")
            raise
        except Exception as error:
            prefix = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
            await recorder.give_up(f"{prefix}{error}")
            raise
        output = plain_value(found)
        await recorder.finish("COMPLETED", output=output)
        return output


async def _called(function: Callable[..., Any], given: StepInput) -> Any:
    try:
        if inspect.iscoroutinefunction(function):
            return await function(given)
        result = await in_thread(lambda: function(given))
        return await result if inspect.isawaitable(result) else result
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end its loop, and every run with it
        raise RunFailed(f"{type(error).__name__}: {error}") from error


async def _resolved(name: str, result: Any, kind: Callable[[Any], Any] | None) -> Any:
    """What a function returned; of a generator, the list of what it yields.

    Raises:
        BadUsage: a condition's function is a generator, which is true whatever it yields.
    """
    if kind is not None and is_pending(result):
        raise BadUsage(f"{name!r} must return a value, got a generator.", "Use return instead of yield.")
    try:
        content = _content(name, await resolve(result, lambda item: _content(name, item)))
    except IterationFailed as failed:
        if isinstance(failed.cause, (SystemExit, KeyboardInterrupt)):
            raise RunFailed(f"{type(failed.cause).__name__}: {failed.cause}") from failed.cause
        raise failed.cause from None
    return kind(content) if kind else content


def _content(name: str, found: Any) -> Any:
    """What a function gave; of a run that it made, the output.

    Raises:
        BadUsage: that run waits, and nobody would go on with it.
    """
    if not isinstance(found, Run):
        return found
    if found.status != "COMPLETED":
        raise BadUsage(f"Step {name} gave a run that is {found.status}.", "Make the agent itself the step.")
    return found.output


def _require_same(step: Step, done: Run) -> None:
    """A step is found again by its place, so another one must not stand there now.

    Raises:
        BadUsage: one does.
    """
    was, owner = done.extra.get("step"), done.agent_id or done.team_id
    kind = step.executor.session_type if isinstance(step.executor, SessionOwner) else "workflow"
    changed = kind != done.run_type or (owner is not None and owner != step.executor.id)
    if was != step.title or changed:
        place = f"Step {done.extra.get('step_path')}"
        is_now = f"{step.title!r}" + (f" ({getattr(step.executor, 'id', 'a function')})" if changed else "")
        raise BadUsage(f"{place} was {was!r}, and is {is_now} now.", "Go on with the steps it began with, or run anew.")


def _title(node: Node) -> str:
    return node.title if isinstance(node, Step) else node.name
