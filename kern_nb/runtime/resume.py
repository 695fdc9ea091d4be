"""From a run's rows to what pydantic-ai needs to go on with it: what was said, and an answer for every open call.

A call that had started when its process died is never made again: the model is told that nobody knows whether it took
effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied

from kern_nb.errors import BadUsage
from kern_nb.interop import media
from kern_nb.records import Message, Requirement, Run, ToolCall
from kern_nb.runtime.tools import Tool

MEMBER_RUN = "member_run"
"""In the metadata of a call that waits for a member's run; what that waits for stands there."""

_UNKNOWN = (
    "It is not known whether this call took effect: its process was interrupted. Find out before you call it again."
)
_NOT_STORED = "(This tool has run. Its result was not stored.)"


def requirements(asked: DeferredToolRequests, tools: Mapping[str, Tool]) -> list[Requirement]:
    """What a run waits for, one a call; those of members' runs stand with those."""
    found = [_requirement(call, "confirmation", tools) for call in asked.approvals]
    own = [call for call in asked.calls if MEMBER_RUN not in asked.metadata.get(call.tool_call_id, {})]
    found += [_requirement(call, "external_execution", tools) for call in own]
    for requirement in found:  # what the tool said of its pause
        if said := asked.metadata.get(requirement.tool_call_id or ""):
            requirement.extra["metadata"] = media.plain_value(said)
    return found


def _requirement(call: ToolCallPart, kind: str, tools: Mapping[str, Tool]) -> Requirement:
    made = tools.get(call.tool_name)
    now = datetime.now(UTC)
    args = call.args_as_dict()
    asked = Requirement.model_validate(
        {"kind": (made.kind if made else None) or kind, "tool_call_id": call.tool_call_id, "tool_name": call.tool_name}
    )
    asked.args, asked.created_at = args, now
    if made is not None:
        asked.prompt, asked.assignee = made.prompt, made.assignee
        asked.expires_at = now + timedelta(seconds=made.expires_after_s) if made.expires_after_s is not None else None
        if asked.kind == "user_input":
            asked.extra = {"fields": list(made.fields or made.parameters)}
            if made.required_fields:
                asked.extra["required"] = list(made.required_fields)
    if asked.kind == "handoff" and asked.prompt is None:
        asked.prompt = str(args.get("reason") or next(iter(args.values()), "")) or None
    return asked


def pending(run: Run) -> list[ToolCall]:
    """The calls that the model waits for: those of its latest message that have no result."""
    answered = {message.tool_call_id for message in run.messages if message.role == "tool"}
    latest = last_answer(run)
    return [call for call in latest.tool_calls if call.tool_call_id not in answered] if latest else []


def last_answer(run: Run) -> Message | None:
    """The latest message of the model that is whole."""
    said = (message for message in reversed(run.messages) if message.role == "assistant")
    return next((message for message in said if not message.is_partial), None)


def unknown(answers: DeferredToolResults | None) -> set[str | None]:
    """The calls of which nobody knows whether they took effect."""
    return {call_id for call_id, told in (answers.calls if answers else {}).items() if told == ToolFailed(_UNKNOWN)}


def results(run: Run, tools: Mapping[str, Tool], known: Mapping[str, Any]) -> DeferredToolResults | None:
    """An answer for every call that the model waits for; None where it waits for none.

    Args:
        run: The run, with its requirements.
        tools: The agent's tools.
        known: Results that are known otherwise, by call: what members' runs gave.
    """
    calls = pending(run)
    if not calls:
        return None
    by_call = {requirement.tool_call_id: requirement for requirement in run.requirements}
    found = DeferredToolResults()
    for call in calls:
        call_id = call.tool_call_id or ""
        if call_id in known:
            found.calls[call_id] = known[call_id]
        elif call.status == "completed":
            found.calls[call_id] = _NOT_STORED
        elif call.status != "started" or call_id not in by_call:
            found.calls[call_id] = ToolFailed(_UNKNOWN)
        else:
            _answer(found, call, by_call[call_id], tools.get(call.tool_name or ""))
    return found


def require_tools(found: DeferredToolResults | None, run: Run, tools: Mapping[str, Tool], *, others: bool) -> None:
    """See that every tool that a person allowed is there, before the model is told anything.

    Raises:
        BadUsage: one is not.
    """
    allowed = {
        call_id for call_id, answer in (found.approvals if found else {}).items() if isinstance(answer, ToolApproved)
    }
    names = {call.tool_name or "" for call in pending(run) if call.tool_call_id in allowed}
    if (missing := sorted(names - set(tools))) and not others:
        hint = f"Give the agent the tools it had; it has {', '.join(tools) or 'none'}."
        raise BadUsage(f"{missing[0]} was approved, and is no tool of this agent.", hint)


def _answer(found: DeferredToolResults, call: ToolCall, answered: Requirement, made: Tool | None) -> None:
    call_id = call.tool_call_id or ""
    runs_here = answered.kind in ("confirmation", "user_input")
    if not answered.approved:
        reason = answered.note or ("Nobody answered in time." if answered.status == "expired" else "It was refused.")
        if runs_here:
            found.approvals[call_id] = ToolDenied(reason)
        else:
            found.calls[call_id] = ToolFailed(reason)
    elif answered.kind == "confirmation":
        found.approvals[call_id] = ToolApproved(override_args=answered.answer)
    elif answered.kind == "user_input" and (args := _filled(call, answered, made)) is not None:
        found.approvals[call_id] = ToolApproved(override_args=args)
    else:
        found.calls[call_id] = answered.answer


def _filled(call: ToolCall, answered: Requirement, made: Tool | None) -> dict[str, Any] | None:
    """The arguments as a person filled them in; None where what they gave is the result itself."""
    given = call.args if isinstance(call.args, dict) else {}
    if answered.answer is None:
        return given
    names = made.parameters if made else list(given)
    if isinstance(answered.answer, dict) and set(answered.answer) <= set(names):
        return given | answered.answer
    blanks: Sequence[str] = made.fields if made and made.fields else names
    return given | {blanks[0]: answered.answer} if len(blanks) == 1 else None


def handed_back(run: Run) -> str | None:
    """What a person said to whom the session was handed; the agent goes on from that."""
    for requirement in run.requirements:
        if requirement.kind == "handoff" and requirement.tool_call_id is None and requirement.status == "resolved":
            who = requirement.resolved_by or requirement.assignee or "A person"
            said = requirement.answer if requirement.approved else requirement.note or "declined to answer."
            back = f"{who}: {media.as_text(said)}"
            return None if any(message.content == back for message in run.messages) else back
    return None
