"""The history of a session in the model's context; `agent_tools` has the tools that read more of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kern_nb.db import codec
from kern_nb.extra_keys import BY_TOOL, CONTINUES, RERUN_OF, STEP_PATH, TOOL_CALL_ID
from kern_nb.interop.media import as_text
from kern_nb.records import RESULT_ROLES, Message, message_text
from kern_nb.runtime.context import RunContext
from kern_nb.runtime.event_loop import in_thread

if TYPE_CHECKING:
    from kern_nb.runtime.settings import AgentSettings

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class HistoryOptions:
    """How much of the past goes into the model's context; see `kern_nb.agent.Agent` for each."""

    add: bool = False
    runs: int | None = 3
    messages: int | None = None
    token_budget: int | None = None
    tool_calls: int | None = None
    add_summary: bool = False


async def load(settings: AgentSettings, context: RunContext) -> tuple[list[Message], str | None]:
    """Load the messages for the model before a run, and the summary where it belongs to the context.

    A rerun gets the whole conversation before it, except for limits in messages or tokens; a member of a team its own
    runs; and a step of a workflow none, since its input has what the steps before it found out.
    """
    options, store, run, user_id = settings.history, context.store, context.recorder.run, context.user_id
    session_id = run.session_id or ""
    if RERUN_OF in run.internal:
        options = replace(options, add=True, runs=None)
    by_run: dict[int, list[Message]] = {}
    if options.add and STEP_PATH not in run.internal:
        member_id = settings.owner.id if TOOL_CALL_ID in run.internal else None
        runs = options.runs if options.messages is None else None
        by_run = await in_thread(
            lambda: store.history_by_run(
                session_id,
                last_runs=runs,
                last_messages=options.messages,
                before_run=run.run_index,
                member_id=member_id,
                user_id=user_id,
            )
        )
    if CONTINUES in run.internal:  # whatever the limits
        by_run |= await in_thread(
            lambda: store.history_by_run(session_id, last_runs=1, before_run=run.run_index, user_id=user_id)
        )
    dropped = _over_budget(by_run, options.token_budget)
    summary = None
    if dropped:
        by_run = {run: messages for run, messages in by_run.items() if run not in dropped}
        summary = await settings.summaries.ensure_covers(store, session_id, dropped, settings.model)
    elif options.add_summary:
        await settings.summaries.wait_async(store, session_id)
        session = await in_thread(lambda: store.get_session(session_id, user_id=user_id, runs=False))
        summary = settings.summaries.text_of(session)
    past = [message for messages in by_run.values() for message in messages]
    return past if options.tool_calls is None else limit_tool_calls(past, options.tool_calls), summary


def _over_budget(by_run: dict[int, list[Message]], budget: int | None) -> set[int]:
    """Return the oldest runs that exceed the budget; whole runs, so that a call keeps its result."""
    if budget is None:
        return set()
    dropped, remaining = set(by_run), budget
    for run in sorted(by_run, reverse=True):
        remaining -= sum(estimate_tokens(message) for message in by_run[run])
        if remaining < 0:
            break
        dropped.discard(run)
    return dropped


def past_exchanges(context: RunContext, num_runs: int | None = None) -> list[tuple[str, str]]:
    """Return the inputs and last answers of the session's runs before a run, of the latest ``num_runs`` only."""
    by_run = context.store.history_by_run(
        context.session_id,
        last_runs=num_runs,
        before_run=context.recorder.run.run_index,
        user_id=context.user_id,
    )
    return [(_first_text(messages, "user"), _first_text(messages[::-1], "assistant")) for messages in by_run.values()]


def _first_text(messages: Sequence[Message], role: str) -> str:
    message = next((message for message in messages if message.role == role), None)
    if message is None or message.content is None:
        return ""
    return message_text(message) or as_text(message.content)


def limit_tool_calls(history: Sequence[Message], n: int) -> list[Message]:
    """Return a history with its latest ``n`` tool calls: earlier ones, their results and empty answers are left out."""
    calls_in_order = [call.tool_call_id for message in history for call in message.tool_calls]
    dropped = set(calls_in_order[: max(len(calls_in_order) - n, 0)])
    limited: list[Message] = []
    is_dropped = False  # the result before this message
    for message in history:
        if message.role in RESULT_ROLES:
            is_dropped = message.tool_call_id in dropped
        if is_dropped and (message.role in RESULT_ROLES or BY_TOOL in message.internal):
            continue  # with what the tool added beside its result
        calls = [call for call in message.tool_calls if call.tool_call_id not in dropped]
        if len(calls) == len(message.tool_calls):
            limited.append(message)
        elif calls or message.content:
            limited.append(message.model_copy(update={"tool_calls": calls}))
    return limited


def estimate_tokens(message: Message) -> int:
    """Estimate the tokens of a message from its length: four characters are about one token."""
    text = message_text(message) or ("" if message.content is None else codec.dumps(message.content))
    calls = sum(len(codec.dumps([call.tool_name, call.args])) for call in message.tool_calls)
    return 1 + (len(text) + calls) // _CHARACTERS_PER_TOKEN
