"""One run, driven from its input to its end, and written as it happens.

`begin` makes a run, `proceed` goes on with one; both end in `_drive`, which steps through pydantic-ai's loop and hands
every message to the recorder before the next step is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import AgentRunResult, DeferredToolRequests
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model
from pydantic_ai.tools import DeferredToolResults
from pydantic_ai.usage import UsageLimits

from kern_nb import extra_keys, models
from kern_nb.db import SessionStore, codec
from kern_nb.db.state_merge import merge
from kern_nb.errors import AlreadyClaimed, BadUsage, KernError, RunFailed, RunNotFound, StillWaiting, StoreBusy
from kern_nb.interop import media, messages
from kern_nb.records import Message, Run
from kern_nb.runtime import history, resume
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.events import Emit, Ended, Started, ignore
from kern_nb.runtime.history import HistoryOptions
from kern_nb.runtime.recorder import Recorder, Storage, opening_messages
from kern_nb.runtime.summaries import SessionSummaryManager
from kern_nb.runtime.threads import in_thread
from kern_nb.runtime.tools import Tool


class _Timed(Protocol):
    timeout_s: float | None


class _Stateful(Protocol):
    overwrite_db_session_state: bool
    default_state: dict[str, Any]


class Runner(_Timed, _Stateful, Protocol):
    """What the engine needs to know of an agent or a team."""

    model: Any
    max_requests: int | None

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools by name."""

    @property
    def has_toolsets(self) -> bool:
        """Whether it has tools that are known only when it runs, an MCP server's for example."""

    @property
    def storage(self) -> Storage:
        """What of a run is kept."""

    @property
    def history(self) -> HistoryOptions:
        """How much of the past goes into the model's context."""

    @property
    def summaries(self) -> SessionSummaryManager:
        """Who makes the summaries."""

    def owner(self) -> dict[str, Any]:
        """Whose run it is: session_type and the id of the agent or team."""

    def loop(self) -> PydanticAgent[RunContext, Any]:
        """pydantic-ai's agent with our tools."""

    @property
    def has_fixed_instructions(self) -> bool:
        """Whether its instructions are known before a run starts."""

    async def instructed(self, context: RunContext | None) -> str | None:
        """The instructions for a run; None stands for one that has not started, where they are fixed."""

    async def known_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """Results of open calls that members' runs give; None where one of those waits again."""


@dataclass(frozen=True)
class Request:
    """A run to be made.

    Attributes:
        prompt: The input: a text, or texts and files.
        session_id: The session it goes into.
        user_id: Whose it is.
        session_state: What the caller sets of the state.
        parent: The run within which it is made, whose state it shares.
        extra: What is kept with the run.
    """

    prompt: Any
    session_id: str
    user_id: str | None = None
    session_state: dict[str, Any] = field(default_factory=dict)
    parent: RunContext | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def internal(self) -> dict[str, Any]:
        """What is noted of the run: whoever runs it again passes the same state."""
        return extra_keys.run_internal(self.extra, copy.deepcopy(self.session_state))


async def begin(runner: Runner, store: SessionStore, request: Request, emit: Emit = ignore) -> Run:
    """Make a run, to its end or its pause; the run as stored.

    Raises:
        BadUsage: its model or its tools cannot be used; nothing was stored.
        RunFailed: it ended with an error, and is stored with it.
    """
    async with models.opened(runner.model) as model:
        return await _begun(runner, store, request, emit, model)


async def _begun(runner: Runner, store: SessionStore, request: Request, emit: Emit, model: Model) -> Run:
    run_id = str(uuid4())
    runner.loop()  # tools that cannot be used are refused before anything is stored
    codec.dumps([runner.default_state, request.session_state])  # what cannot be stored is refused before anything is
    # The files themselves are kept with the first message, once the session is known to be the user's.
    given = media.of_content(request.prompt, media.name_only if runner.storage.media else media.forget)
    opening = await _fixed_opening(runner, request)

    def start() -> Run:
        return store.start_run(
            request.session_id,
            run_id=run_id,
            input=given,
            user_id=request.user_id,
            model=models.name_of(runner.model),
            parent_run_id=request.parent.run_id if request.parent else None,
            default_state=defaults(runner),
            extra=request.extra,
            internal=request.internal,
            messages=opening or (),
            **runner.owner(),
        )

    run = await started(store, run_id, start)
    emit(Started(run))
    state = starting_state(runner, run.session_state, request)
    recorder = Recorder(store, run, state, runner.storage, emit, is_new=True)
    context = RunContext(run_id, request.session_id, request.user_id, state, runner, store, recorder)

    async def work() -> None:
        await _drive(
            runner, context, model, lambda: _opened(runner, context, request.prompt, stored=opening is not None)
        )

    return await kept(runner, context, work)


async def _fixed_opening(runner: Runner, request: Request) -> list[Message] | None:
    """The first messages of a run, where they are known before it starts; else None.

    They are not where the model is told of the past, nor where a function makes the instructions, which may look at the
    run. Files are kept once the session is known to be the user's.
    """
    options = runner.history
    past = options.add or options.add_summary or extra_keys.RERUN_OF in request.extra
    if past or not runner.has_fixed_instructions or not isinstance(request.prompt, str):
        return None
    return opening_messages(_joined(await runner.instructed(None), None), [], request.prompt)


async def _opened(runner: Runner, context: RunContext, prompt: Any, *, stored: bool = False) -> _Told:
    """What a run begins with, written (unless it was ``stored`` with its start) and ready to be told."""
    store, run = context.store, context.recorder.run
    past, summary = await history.told(store, run, runner.history, runner.summaries, runner.model, context.user_id)
    instructions = _joined(await runner.instructed(context), summary)
    if not stored:
        await context.recorder.opening(instructions, past, prompt)
    before = await in_thread(lambda: messages.to_pydantic(past, store))
    said = [media.tellable(part) for part in prompt] if isinstance(prompt, list) else media.tellable(prompt)
    return _Told(before, media.tellable(instructions), said)


async def started(store: SessionStore, run_id: str, start: Callable[[], Run]) -> Run:
    """Start a run; one that is cancelled meanwhile is stored as such."""
    try:
        return await in_thread(start)
    except asyncio.CancelledError:
        with contextlib.suppress(RunNotFound):  # it may not have come to be
            await in_thread(lambda: store.finish_run(run_id, status="CANCELLED", error="cancelled"))
        raise


def starting_state(runner: _Stateful, kept: dict[str, Any] | None, request: Request) -> dict[str, Any]:
    """The state that a run starts from: what the caller gives, before what is stored, before the agent's default."""
    if request.parent is not None:
        return request.parent.session_state
    given = merge({}, copy.deepcopy(runner.default_state), copy.deepcopy(request.session_state))
    if runner.overwrite_db_session_state and given:
        return given
    return merge({}, copy.deepcopy(kept or {}), copy.deepcopy(request.session_state))


def defaults(runner: _Stateful) -> dict[str, Any]:
    """What a session's state gets where it lacks it, before the run: so it is not what the run has set."""
    return {} if runner.overwrite_db_session_state else runner.default_state


def _joined(instructions: str | None, summary: str | None) -> str | None:
    told = [instructions] if instructions else []
    told += [f"Summary of the conversation so far:\n{summary}"] if summary else []
    return "\n\n".join(told) or None


async def proceed(
    runner: Runner,
    store: SessionStore,
    before: Run,
    emit: Emit = ignore,
    parent: RunContext | None = None,
    user_id: str | None = None,
) -> Run:
    """Go on with a run (``before``) that waits no more, or that was interrupted; the run as stored then.

    With a ``user_id``, only in that user's session.

    Raises:
        StillWaiting, AlreadyClaimed, RunClosed, RunNotFound: it cannot be gone on with; see `SessionStore.claim_run`.
        RunFailed: it ended with an error, and is stored with it.
    """
    require_kind(before, runner.owner()["session_type"])
    runner.loop()
    async with models.opened(runner.model) as model:
        run = await claimed(store, before, user_id)
        return await _gone_on_with(runner, store, run, before, emit, parent, model)


async def owner_of(store: SessionStore, run: Run, parent: RunContext | None) -> str | None:
    """Whose history and sessions a run that goes on may see: what its session says, whatever the run's row does."""
    if parent is not None:
        return parent.user_id
    session = await in_thread(lambda: store.get_session(run.session_id or "", runs=False))
    return session.user_id if session else None


async def claimed(store: SessionStore, before: Run, user_id: str | None = None) -> Run:
    """Take a run on; one that is cancelled meanwhile is given back."""
    taken: list[Run] = []
    try:
        await in_thread(lambda: taken.append(store.claim_run(before.run_id, user_id=user_id)))
    except asyncio.CancelledError:
        if taken:  # by us, not by another task of this process
            await in_thread(lambda: store.release_run(before))
        raise
    return taken[0]


async def _gone_on_with(
    runner: Runner, store: SessionStore, run: Run, before: Run, emit: Emit, parent: RunContext | None, model: Model
) -> Run:
    emit(Started(run))
    session_id = run.session_id or ""
    state = parent.session_state if parent else copy.deepcopy(run.session_state or {})
    recorder = Recorder(store, run, state, runner.storage, emit)
    context = RunContext(run.run_id, session_id, await owner_of(store, run, parent), state, runner, store, recorder)

    async def prepared() -> _Told | None:
        if all(m.role == "system" for m in run.messages):  # it was interrupted before it was told anything
            return await _opened(runner, context, media.to_content(run.input, store))
        known = await runner.known_results(run, context)
        if known is None:
            return None
        past, summary = await history.told(store, run, runner.history, runner.summaries, runner.model, context.user_id)
        own = [m for m in run.messages if not m.from_history and not m.is_partial]
        answers = resume.results(run, runner.tools, known)
        resume.require_tools(answers, run, runner.tools, others=runner.has_toolsets)
        recorder.unknown = resume.unknown(answers)
        prompt = resume.handed_back(run)
        if prompt is not None:
            await recorder.prompt(prompt)
        told_before = await in_thread(lambda: messages.to_pydantic([*past, *own], store))
        instructions = next((m.content for m in own if m.role == "system"), None)
        if instructions is None and prompt is not None:  # the run was made by handing the session over
            instructions = _joined(await runner.instructed(context), summary)
            await recorder.instructions(instructions)
        return _Told(told_before, instructions, prompt, answers)

    async def work() -> None:
        said = resume.last_answer(run)
        if said is not None and not said.tool_calls and run.messages[-1] is said:
            await recorder.finish("COMPLETED", output=said.content)  # only its end was lost
        else:
            await _drive(runner, context, model, prepared)

    return await kept(runner, context, work, before=before)


@dataclass(frozen=True)
class _Told:
    """What pydantic-ai is given."""

    history: list[ModelMessage]
    instructions: str | None
    prompt: Any = None
    results: DeferredToolResults | None = None


def require_kind(run: Run, kind: str) -> None:
    """See that a run is an agent's, a team's or a workflow's.

    Raises:
        BadUsage: it is a run of another kind.
    """
    if run.run_type != kind:
        owner = run.agent_id or run.team_id or run.workflow_id
        said = f"Run {run.run_id} is of the {run.run_type} {owner!r}, not of a {kind}."
        raise BadUsage(said, "Go on with it by that one.")


async def kept(
    runner: _Timed, context: RunContext, work: Callable[[], Awaitable[None]], *, before: Run | None = None
) -> Run:
    """Do the work of a run; however that ends, the run is stored with its status, its error and its state.

    A run that was gone on with, and failed before anything came of it, is given back as it was (``before``): its
    answers stand, and it can be gone on with once the reason is mended.
    """
    recorder, store = context.recorder, context.store
    try:
        async with asyncio.timeout(runner.timeout_s) as limit:
            await work()
    except BaseException as error:
        await _ended_badly(runner, context, error, before, expired=isinstance(error, TimeoutError) and limit.expired())
        raise
    run = recorder.stored
    if run is None:
        run = await in_thread(lambda: store.get_run(context.run_id))
    recorder.emit(Ended(run))
    return run


async def _ended_badly(
    runner: _Timed, context: RunContext, error: BaseException, before: Run | None, *, expired: bool
) -> None:
    """Store how a run ended that did not end well, and raise what the caller is told.

    Raises:
        RunFailed: it failed. Nothing is raised where it was cancelled, which goes on as it is.
    """
    recorder, store = context.recorder, context.store
    untouched = before is not None and before.status != "RUNNING" and not recorder.wrote
    task = asyncio.current_task()
    # A library's own CancelledError looks like ours, but nobody has asked this task to end.
    cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    text = f"no answer within {runner.timeout_s:g} s" if expired else str(error) or "no reason given"
    name = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
    said = "cancelled" if cancelled else f"{name}{text}"
    with contextlib.suppress(StoreBusy):  # what happened first is what is said
        if untouched and before is not None:
            await in_thread(lambda: store.release_run(before))
        else:
            await recorder.give_up(said, "CANCELLED" if cancelled else "ERROR")
    if untouched and isinstance(error, (AlreadyClaimed, StillWaiting)):
        raise error  # of a member's run; nothing failed
    if not cancelled:
        place = f"{context.session_id}/{recorder.run.run_index}"
        stored = "It is as it was before: go on with it again." if untouched else f"It is stored: %kern show {place}"
        hint = error.hint if isinstance(error, KernError) and error.hint else stored
        raise RunFailed(f"Run {place} failed: {said}", hint) from error


async def _drive(
    runner: Runner, context: RunContext, model: Model, prepared: Callable[[], Awaitable[_Told | None]]
) -> None:
    recorder = context.recorder
    told = await prepared()
    if told is None:  # a member's run waits again, and this one with it
        await recorder.pause([])
        return
    try:
        result = await _loop(runner, context, told, model)
    except UsageLimitExceeded as error:
        hint = "Where that is no circle, give it more: Agent(..., max_requests=200)"
        raise RunFailed(f"its model was asked {runner.max_requests} times, which is max_requests.", hint) from error
    output = result.output if result else None
    if isinstance(output, DeferredToolRequests):
        last = result.new_messages()[-1:] if result else []
        for message in last:  # what the calls beside it were answered, where no tool ran
            if message.kind == "request":
                await recorder.request(message)
        await recorder.pause(resume.requirements(output, runner.tools))
    else:
        await recorder.finish("COMPLETED", output=output)


async def _loop(runner: Runner, context: RunContext, told: _Told, model: Model) -> AgentRunResult[Any] | None:
    """Step through pydantic-ai's loop, and write each step before the next."""
    recorder = context.recorder
    resuming = told.results is not None  # the first answer is the one that the run goes on from
    # A prompt in the first request is written: it is the run's, or the one that a run ended at that is gone on with.
    opening = told.prompt is not None or not resuming
    async with runner.loop().iter(
        told.prompt,
        message_history=told.history,
        deferred_tool_results=told.results,
        deps=context,
        model=model,
        instructions=told.instructions,
        infer_name=False,
        usage_limits=UsageLimits(request_limit=runner.max_requests),
    ) as steps:
        async for node in steps:
            if PydanticAgent.is_model_request_node(node):
                await recorder.request(node.request, opening=opening)
                opening = False
                if recorder.emit is not ignore:
                    async with node.stream(steps.ctx) as events:
                        async for event in events:
                            _tell(event, recorder)
            elif PydanticAgent.is_call_tools_node(node) and node.model_response is not None:
                if not resuming:
                    await recorder.response(node.model_response)
                resuming = False
        if runner.has_toolsets:  # which are closed now: a server may take its time to end
            await recorder.release()
        return steps.result


def _tell(event: Any, recorder: Recorder) -> None:
    """Pass on what the model says while it says it."""
    delta = ""
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        delta = event.part.content
    elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        delta = event.delta.content_delta
    if delta or isinstance(event, PartStartEvent):
        recorder.first_token()
    if delta:
        recorder.said(delta)
