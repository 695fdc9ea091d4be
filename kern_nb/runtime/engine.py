"""One run of an agent or a team, from its input to its end, written as it happens.

`start_run` makes a run, `resume_run` continues one; both end in `_drive`, which iterates over pydantic-ai's loop and
passes every message to the recorder before the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import AgentRunResult, DeferredToolRequests
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.tools import DeferredToolResults
from pydantic_ai.usage import UsageLimits

from kern_nb import extra_keys, models
from kern_nb.db import SessionStore, codec
from kern_nb.errors import AlreadyClaimed, KernError, RunFailed, RunNotFound, StillWaiting, StoreBusy
from kern_nb.events import base
from kern_nb.interop import media, messages
from kern_nb.records import Message, Run
from kern_nb.runtime import cancellation, history, model_events, resume
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Emit, EventSource
from kern_nb.runtime.prompt_text import has_placeholders, load_instructions, prepare_prompt
from kern_nb.runtime.recorder import Recorder, opening_messages
from kern_nb.runtime.run_state import initial_state, resumed_state
from kern_nb.runtime.settings import AgentSettings, OwnerSettings, Request


@dataclass(frozen=True)
class _ModelInput:
    """The input of pydantic-ai's loop."""

    history: list[ModelMessage]
    instructions: str | None
    prompt: Any = None
    results: DeferredToolResults | None = None


async def start_run(settings: AgentSettings, store: SessionStore, request: Request, emit: Emit) -> Run:
    """Make a run, and return it as stored at its end or its pause.

    Args:
        settings: The agent's settings.
        store: The store of the session.
        request: The run to make.
        emit: Receives the events of the run.

    Raises:
        BadUsage: the model cannot be used; nothing is stored.
        RunFailed: the run ended with an error, and is stored with it.
    """
    async with models.open_model(settings.model) as model:
        # The files themselves are stored with the first message, once the session is known to be the user's.
        keep = media.hash_only if settings.storage.media else media.discard
        run_input = None if request.prompt is None else media.store_content(request.prompt, keep)
        opening = await _static_opening(settings, request)
        model_name = models.model_name(settings.model)
        run = await store_request(settings, store, request, input=run_input, model=model_name, messages=opening or ())
        state = initial_state(settings, run, request)
        recorder = Recorder(store, run, state, settings.storage, event_source(settings, run, emit), is_new=True)
        ids = (run.run_id, request.session_id, request.user_id)
        context = RunContext(*ids, state, settings.owner, store, recorder, model=settings.model)

        async def load_input() -> _ModelInput:
            recorder.events.emit(base.Started, model=model_name or "")
            await recorder.events.caught_up()
            return await _opening_input(settings, context, request.prompt, is_stored=opening is not None)

        return await finish(settings, context, lambda: _drive(settings, context, model, load_input))


async def _static_opening(settings: AgentSettings, request: Request) -> list[Message] | None:
    """Return the first messages of a run, if they are known before it starts; else None.

    They are not known with a history, with placeholders or a function for instructions, which read the run, or with
    files.
    """
    options = settings.history
    is_built = options.add or options.add_summary or settings.add_session_state
    is_built = is_built or not {extra_keys.RERUN_OF, extra_keys.CONTINUES}.isdisjoint(request.extra)
    if is_built or not settings.has_static_instructions or not isinstance(request.prompt, str):
        return None
    instructions = await settings.load_instructions(None)
    if settings.resolve_in_context and (has_placeholders(instructions) or has_placeholders(request.prompt)):
        return None
    return opening_messages(instructions, [], request.prompt)


async def _opening_input(
    settings: AgentSettings, context: RunContext, prompt: Any, *, is_stored: bool = False
) -> _ModelInput:
    """Load the input of a new run, and write its first messages unless they are stored."""
    past, summary = await history.load(settings, context)
    instructions = await load_instructions(settings, context, summary)
    if prompt is None:
        context.recorder.continue_after(past)
    else:
        prompt = prepare_prompt(prompt, settings, context)
    if not is_stored:
        await context.recorder.write_opening(instructions, past, prompt)
    model_history = await in_thread(lambda: messages.to_pydantic(past, context.store))
    parts = [media.printable(part) for part in prompt] if isinstance(prompt, list) else media.printable(prompt)
    return _ModelInput(model_history, media.printable(instructions), parts)


async def store_request(settings: OwnerSettings, store: SessionStore, request: Request, **fields: Any) -> Run:
    """Store the start of a requested run; if it is cancelled meanwhile, store that.

    A value that cannot be stored is refused before that.
    """
    codec.dumps([settings.default_state, request.session_state])
    run_id = str(uuid4())
    fields |= settings.owner_fields | {
        "run_id": run_id,
        "user_id": request.user_id,
        "parent_run_id": request.parent.run_id if request.parent else None,
        # Set before the run, so that it is not a change by the run.
        "default_state": {} if settings.overwrite_state else settings.default_state,
        "metadata": None if request.parent else settings.metadata,
        "extra": request.extra | ({"metadata": settings.metadata} if settings.metadata else {}),
        "internal": extra_keys.run_internal(request.extra, copy.deepcopy(request.session_state)),
    }
    try:
        return await in_thread(lambda: store.start_run(request.session_id, **fields))
    except asyncio.CancelledError:
        with contextlib.suppress(RunNotFound):  # the start may not have been stored
            await in_thread(lambda: store.finish_run(run_id, status="CANCELLED", error="cancelled"))
        raise


async def resume_run(
    settings: AgentSettings,
    store: SessionStore,
    before: Run,
    emit: Emit,
    parent: RunContext | None,
    user_id: str | None,
) -> Run:
    """Resume a run that is ready or was interrupted, and return it as stored then.

    Args:
        settings: The agent's settings.
        store: The store of the run.
        before: The run as it is stored.
        emit: Receives the events of the run.
        parent: The leader's or workflow's run that resumes this one.
        user_id: The user whose session it must be.

    Raises:
        StillWaiting: requirements are pending.
        AlreadyClaimed: another caller resumed it.
        RunClosed: it has ended.
        RunNotFound: there is no such run of the user.
        RunFailed: it ended with an error, and is stored with it.
    """
    async with models.open_model(settings.model) as model:
        run = await claim(store, before, user_id)
        owner_id = await load_owner(store, run, parent)
        state = resumed_state(settings, run, owner_id, parent)
        recorder = Recorder(store, run, state, settings.storage, event_source(settings, run, emit))
        ids = (run.run_id, run.session_id or "", owner_id)
        context = RunContext(*ids, state, settings.owner, store, recorder, model=settings.model)

        async def load_input() -> _ModelInput | None:
            if all(m.role == "system" for m in run.messages):  # interrupted before the first prompt was stored
                prompt = None if run.input is None else media.load_content(run.input, store)
                return await _opening_input(settings, context, prompt)
            return await _resume_input(settings, context, run)

        async def work() -> None:
            recorder.events.emit(base.Continued)
            await recorder.events.caught_up()
            answer = resume.last_answer(run)
            if answer is not None and not answer.tool_calls and run.messages[-1] is answer:
                output = answer.content  # only the end was not stored
                if settings.output is not None and isinstance(output, str):
                    output = settings.output.to_json(settings.output.from_text(output))
                await recorder.finish("COMPLETED", output=output)
            else:
                await _drive(settings, context, model, load_input)

        return await finish(settings, context, work, before=before)


async def load_owner(store: SessionStore, run: Run, parent: RunContext | None) -> str | None:
    """Return the user whose history and sessions a resumed run may read: the owner of its session."""
    if parent is not None:
        return parent.user_id
    session = await in_thread(lambda: store.get_session(run.session_id or "", runs=False))
    return session.user_id if session else None


async def claim(store: SessionStore, before: Run, user_id: str | None = None) -> Run:
    """Claim a run; release it if this is cancelled meanwhile."""
    claimed: list[Run] = []
    try:
        await in_thread(lambda: claimed.append(store.claim_run(before.run_id, user_id=user_id)))
    except asyncio.CancelledError:
        if claimed:  # by this task, not by another one of this process
            await in_thread(lambda: store.release_run(before))
        raise
    return claimed[0]


async def _resume_input(settings: AgentSettings, context: RunContext, run: Run) -> _ModelInput | None:
    """Load the input of a resumed run, with a result for every pending call; None if a member's run is paused."""
    store, recorder = context.store, context.recorder
    member_results = await settings.load_member_results(run, context)
    if member_results is None:
        return None
    past, summary = await history.load(settings, context)
    own = [m for m in run.messages if not m.from_history and not m.is_partial]
    results = resume.build_results(run, settings.tools, member_results, has_toolsets=settings.has_toolsets)
    own, replies = resume.split_replies(own) if results else (own, [])
    recorder.unknown_calls = resume.unknown_calls(results)
    prompt = resume.handoff_prompt(run)
    if prompt is not None:
        await recorder.append([Message(role="user", content=prompt)])
    model_history = await in_thread(lambda: messages.to_pydantic([*past, *own], store))
    instructions = next((m.content for m in own if m.role == "system"), None)
    if instructions is None and prompt is not None:  # the run was created by a handoff of the session
        instructions = await load_instructions(settings, context, summary)
        if instructions:
            await recorder.append([Message(role="system", content=instructions)])
    if replies:
        prompt = "\n\n".join(str(message.content) for message in replies)
    return _ModelInput(model_history, instructions, prompt, results)


async def finish(
    settings: OwnerSettings, context: RunContext, work: Callable[[], Awaitable[None]], *, before: Run | None = None
) -> Run:
    """Do the work of a run; however it ends, the run is stored with its status, its error and its state.

    Args:
        settings: The settings with the time limit.
        context: The run.
        work: Does the work.
        before: A resumed run as it was. If it fails before anything is written, it is released as it was: its answers
            are kept, and it can be resumed again.

    Raises:
        RunFailed: the run failed, and is stored with the error.
    """
    recorder, store = context.recorder, context.store
    with cancellation.cancellable(store, recorder.run) as request:
        try:
            async with asyncio.timeout(settings.timeout_s) as limit:
                await work()
        except BaseException as error:
            expired = isinstance(error, TimeoutError) and limit.expired()
            reason = f"no answer within {settings.timeout_s:g} s" if expired else str(error) or "no reason given"
            try:
                await _fail(context, error, None if cancellation.is_requested() else before, reason)
            finally:
                is_request_alone = request.end()
            if not (isinstance(error, asyncio.CancelledError) and is_request_alone):
                raise
        finally:
            if recorder.folder.is_open:
                await in_thread(recorder.folder.close)
        request.end()
    run = recorder.stored_run
    if run is None:
        run = await in_thread(lambda: store.get_run(context.run_id))
    if isinstance(settings, AgentSettings) and settings.output is not None and run.output is not None:
        run.output = settings.output.from_json(run.output)
    recorder.events.ended(run)
    return run


def event_source(settings: OwnerSettings, run: Run, emit: Emit) -> EventSource:
    """Create the source of a run's events."""
    has_results = not isinstance(settings, AgentSettings) or settings.storage.tool_messages
    return EventSource(run, settings.owner, emit, settings.events, with_results=has_results)


async def _fail(context: RunContext, error: BaseException, before: Run | None, reason: str) -> None:
    """Store the end of a run that was cancelled, or failed: then raise RunFailed."""
    recorder, store = context.recorder, context.store
    is_released = before is not None and before.status != "RUNNING" and not recorder.has_written
    task = asyncio.current_task()
    # A library's own CancelledError looks the same, but then nobody has cancelled this task.
    is_cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    name = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
    text = "cancelled" if is_cancelled else f"{name}{reason}"
    with contextlib.suppress(StoreBusy):  # the first error is the one to report
        if is_released and before is not None:
            await in_thread(lambda: store.release_run(before))
        else:
            await recorder.fail(text, "CANCELLED" if is_cancelled else "ERROR")
    if is_released and isinstance(error, (AlreadyClaimed, StillWaiting)):
        raise error  # from a member's run; nothing failed
    if is_cancelled:
        recorder.events.cancelled(text)
    else:
        recorder.events.failed(error, text)
        ref = f"{context.session_id}/{recorder.run.run_index}"
        stored = "The run is unchanged: continue it again." if is_released else f"It is stored: %kern show {ref}"
        hint = error.hint if isinstance(error, KernError) and error.hint else stored
        raise RunFailed(f"Run {ref} failed: {text}", hint) from error


async def _drive(
    settings: AgentSettings, context: RunContext, model: Model, load_input: Callable[[], Awaitable[_ModelInput | None]]
) -> None:
    recorder = context.recorder
    model_input = await load_input()
    if model_input is None:  # a member's run is paused again, and so is this one
        await recorder.pause([])
        return
    try:
        result = await _loop(settings, context, model_input, model)
    except UsageLimitExceeded as error:
        hint = "If the agent is not stuck in a loop, raise the limit: Agent(..., max_requests=200)"
        raise RunFailed(
            f"the limit of max_requests={settings.max_requests} model requests is reached.", hint
        ) from error
    except UnexpectedModelBehavior as error:
        await recorder.end_invalid_calls(error)
        hint = "If the model needs more attempts, allow them: Agent(..., retries=10)"
        reason = error.message.partition(". Consider ")[0]  # without advice that is not for an agent of kern_nb
        raise RunFailed(f"{type(error).__name__}: {reason}", hint) from error
    output = result.output if result else None
    if result is None and recorder.outputs:
        await recorder.finish("COMPLETED", output=combine_outputs(recorder.outputs))
    elif isinstance(output, DeferredToolRequests):
        last = result.new_messages()[-1:] if result else []
        for message in last:  # results of calls beside the deferred ones, for which no tool ran
            if message.kind == "request":
                await recorder.write_request(message)
        await recorder.pause(resume.build_requirements(output, settings.tools))
    else:
        recorder.events.emit(base.ContentCompleted)
        if settings.output is not None and output is not None:
            output = settings.output.to_json(output)
        await recorder.finish("COMPLETED", output=output)


def combine_outputs(outputs: Sequence[Any]) -> Any:
    """Return the output of a run that ends with results of tools: the only one, or the texts of several."""
    values = [media.plain_value(output) for output in outputs]
    return values[0] if len(values) == 1 else "\n\n".join(media.as_text(value) for value in values)


async def _loop(
    settings: AgentSettings, context: RunContext, model_input: _ModelInput, model: Model
) -> AgentRunResult[Any] | None:
    """Iterate over pydantic-ai's loop, and write each step before the next."""
    recorder = context.recorder
    resuming = model_input.results is not None  # the first response is the stored one that the run resumes at
    # The prompt in the first request is stored already: it is the run's, or the one at which the run was interrupted.
    opening = model_input.prompt is not None or not resuming
    async with settings.pydantic_agent.iter(
        model_input.prompt,
        message_history=model_input.history,
        deferred_tool_results=model_input.results,
        deps=context,
        model=model,
        instructions=model_input.instructions,
        infer_name=False,
        usage_limits=UsageLimits(request_limit=settings.max_requests),
        output_type=settings.output.output_types(model) if settings.output else None,
        retries=settings.retries.invalid_calls,
        capabilities=settings.retries.capabilities(),
    ) as steps:
        async for node in steps:
            if PydanticAgent.is_model_request_node(node):
                await recorder.write_request(node.request, opening=opening)
                opening = False
                if recorder.outputs:
                    return None
                recorder.events.emit(base.RequestStarted, model=model.model_name)
                await recorder.events.caught_up()
                if recorder.events.is_streamed:
                    async with node.stream(steps.ctx) as events:
                        async for event in events:
                            model_events.record(event, recorder)
                            await recorder.events.caught_up()
            elif PydanticAgent.is_call_tools_node(node) and node.model_response is not None:
                if not resuming:
                    await recorder.write_response(node.model_response)
                    model_events.record_usage(node.model_response, recorder)
                resuming = False
        if settings.has_toolsets:  # they are closed next: a server may take long to end
            await recorder.flush()
        return steps.result
