"""One run of an agent or a team, from its input to its end, written as it happens.

`start_run` makes a run, `resume_run` continues one; both end in `_drive`, which iterates over pydantic-ai's loop and
passes every message to the recorder before the next step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import AgentRunResult, DeferredToolRequests
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.tools import DeferredToolResults
from pydantic_ai.usage import UsageLimits

from kern_nb import extra_keys, models
from kern_nb.db import SessionStore
from kern_nb.errors import RunFailed
from kern_nb.events import base
from kern_nb.interop import media, messages
from kern_nb.records import Message, Run
from kern_nb.runtime import history, model_events, resume
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Emit
from kern_nb.runtime.known_run import opening_messages
from kern_nb.runtime.prompt_text import has_placeholders, load_instructions, prepare_prompt
from kern_nb.runtime.recorder import Recorder
from kern_nb.runtime.run_lifecycle import claim, event_source, finish, load_owner, store_request
from kern_nb.runtime.run_state import initial_state, resumed_state
from kern_nb.runtime.settings import AgentSettings, Request


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
