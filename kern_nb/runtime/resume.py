"""Pending calls of a run: the requirements that a pause creates, and the result of every call when the run resumes.

A call that had started when its process died is never made again: the model learns that its effect is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied

from kern_nb.errors import BadUsage
from kern_nb.extra_keys import METADATA, PERSON, REQUIRED_FIELDS
from kern_nb.interop import media
from kern_nb.records import Message, Requirement, Run, ToolCall
from kern_nb.runtime.tools import Tool

MEMBER_RUN = "member_run"
"""The metadata key of a call that is deferred because a member's run is paused; the requirement is in that run."""

_UNKNOWN = (
    "It is not known whether this call took effect: its process was interrupted. Find out before you call it again."
)
_NOT_STORED = "(This tool has run. Its result was not stored.)"


def build_requirements(deferred: DeferredToolRequests, tools: Mapping[str, Tool]) -> list[Requirement]:
    """Create a requirement for each deferred call, except those of members' runs."""
    requirements = [_requirement(call, "confirmation", tools) for call in deferred.approvals]
    own = [call for call in deferred.calls if MEMBER_RUN not in deferred.metadata.get(call.tool_call_id, {})]
    requirements += [_requirement(call, "external_execution", tools) for call in own]
    for requirement in requirements:
        if metadata := deferred.metadata.get(requirement.tool_call_id or ""):  # the tool's own, of its pause
            requirement.extra[METADATA] = media.plain_value(metadata)
    return requirements


def _requirement(call: ToolCallPart, default_kind: str, tools: Mapping[str, Tool]) -> Requirement:
    tool = tools.get(call.tool_name)
    kind = (tool.kind if tool else None) or default_kind
    requirement = Requirement.model_validate(
        {"kind": kind, "tool_call_id": call.tool_call_id, "tool_name": call.tool_name}
    )
    now = datetime.now(UTC)
    args = call.args_as_dict()
    requirement.args, requirement.created_at = args, now
    if tool is not None:
        requirement.prompt, requirement.assignee = tool.prompt, tool.assignee
        if tool.expires_after_s is not None:
            requirement.expires_at = now + timedelta(seconds=tool.expires_after_s)
        if requirement.kind == "user_input":
            requirement.extra = {"fields": list(tool.fields or tool.parameters)}
            if tool.required_fields:
                requirement.extra[REQUIRED_FIELDS] = list(tool.required_fields)
    if requirement.kind == "handoff" and requirement.prompt is None:
        requirement.prompt = str(args.get("reason") or next(iter(args.values()), "")) or None
    return requirement


def pending_calls(run: Run) -> list[ToolCall]:
    """Return the calls of the latest answer that have no result."""
    with_result = {message.tool_call_id for message in run.messages if message.role == "tool"}
    answer = last_answer(run)
    return [call for call in answer.tool_calls if call.tool_call_id not in with_result] if answer else []


def last_answer(run: Run) -> Message | None:
    """Return the latest complete message of the model."""
    answers = (message for message in reversed(run.messages) if message.role == "assistant")
    return next((message for message in answers if not message.is_partial), None)


def unknown_calls(results: DeferredToolResults | None) -> set[str | None]:
    """Return the calls whose effect is unknown."""
    return {call_id for call_id, value in (results.calls if results else {}).items() if value == ToolFailed(_UNKNOWN)}


def build_results(
    run: Run, tools: Mapping[str, Tool], member_results: Mapping[str, Any], *, has_toolsets: bool
) -> DeferredToolResults | None:
    """Build a result for every pending call, before the model is called; None without pending calls.

    Args:
        run: The run, with its requirements.
        tools: The agent's tools.
        member_results: The results of members' runs, by call.
        has_toolsets: Whether the agent may have further tools, known only in a run.

    Raises:
        BadUsage: the agent does not have a tool that was approved.
    """
    calls = pending_calls(run)
    if not calls:
        return None
    requirements = {requirement.tool_call_id: requirement for requirement in run.requirements}
    results = DeferredToolResults()
    for call in calls:
        call_id = call.tool_call_id or ""
        if call_id in member_results:
            results.calls[call_id] = member_results[call_id]
        elif call.status == "completed":
            results.calls[call_id] = _NOT_STORED
        elif call.status != "started" or call_id not in requirements:
            results.calls[call_id] = ToolFailed(_UNKNOWN)
        else:
            _add_answer(results, call, requirements[call_id], tools.get(call.tool_name or ""))
    approved = {call_id for call_id, answer in results.approvals.items() if isinstance(answer, ToolApproved)}
    names = {call.tool_name or "" for call in calls if call.tool_call_id in approved}
    if (unavailable := sorted(names - set(tools))) and not has_toolsets:
        hint = f"Pass the agent the tools that it had; it has {', '.join(tools) or 'none'}."
        raise BadUsage(f"Tool {unavailable[0]!r} was approved, and the agent does not have it.", hint)
    return results


def _add_answer(results: DeferredToolResults, call: ToolCall, requirement: Requirement, tool: Tool | None) -> None:
    call_id = call.tool_call_id or ""
    if not requirement.approved:
        default = "Nobody answered in time." if requirement.status == "expired" else "It was refused."
        reason = requirement.note or default
        if requirement.kind in ("confirmation", "user_input"):
            results.approvals[call_id] = ToolDenied(reason)
        else:
            results.calls[call_id] = ToolFailed(reason)
    elif requirement.kind == "confirmation":
        results.approvals[call_id] = ToolApproved(override_args=requirement.answer)
    elif requirement.kind == "user_input" and (args := _complete_args(call, requirement, tool)) is not None:
        results.approvals[call_id] = ToolApproved(override_args=args)
    elif requirement.kind == "handoff" and requirement.answer is None:
        results.calls[call_id] = "The person handed the session back."
    else:
        results.calls[call_id] = requirement.answer


def _complete_args(call: ToolCall, requirement: Requirement, tool: Tool | None) -> dict[str, Any] | None:
    """Return the arguments with a person's input; None where the input is the result itself."""
    args = call.args if isinstance(call.args, dict) else {}
    if requirement.answer is None:
        return args
    names = tool.parameters if tool else list(args)
    if isinstance(requirement.answer, dict) and set(requirement.answer) <= set(names):
        return args | requirement.answer
    fields: Sequence[str] = tool.fields if tool and tool.fields else names
    return args | {fields[0]: requirement.answer} if len(fields) == 1 else None


def split_replies(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Separate what a person wrote while a run waited for them: the results of its pending calls come before that."""
    last = max((i for i, message in enumerate(messages) if message.tool_calls), default=-1)
    replies = [i for i, message in enumerate(messages) if i > last and PERSON in message.internal]
    return [m for i, m in enumerate(messages) if i not in replies], [messages[i] for i in replies]


def handoff_prompt(run: Run) -> str | None:
    """Return the answer of the person that the session was handed to, as a prompt; None once the run has it."""
    for requirement in run.requirements:
        if requirement.kind == "handoff" and requirement.tool_call_id is None and requirement.status == "resolved":
            person = requirement.resolved_by or requirement.assignee or "A person"
            answer = requirement.answer if requirement.approved else requirement.note or "declined to answer."
            if requirement.approved and answer is None:
                answer = "handed the session back."
            prompt = f"{person}: {media.as_text(answer)}"
            return None if any(message.content == prompt for message in run.messages) else prompt
    return None
