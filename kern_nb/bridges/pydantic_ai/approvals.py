"""Paused runs: what they require, and the claim of one that is resumed with results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied

from kern_nb.bridges.pydantic_ai.questions import find_questions
from kern_nb.db.open_runs import set_internal
from kern_nb.db.store import SessionStore
from kern_nb.errors import AlreadyResolved
from kern_nb.extra_keys import PAUSE, QUESTIONS, RESUMED_AS
from kern_nb.interop import media
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.runtime import resume


def build_requirements(requests: DeferredToolRequests) -> list[Requirement]:
    """Create a requirement for each call that waits for an approval, an answer or a result."""
    requirements = resume.build_requirements(requests, {})
    for requirement in requirements:
        if requests.kind(requirement.tool_call_id or "") != "question":
            continue
        requirement.kind = "user_input"
        if questions := find_questions(requirement):
            requirement.kind = "user_feedback"
            requirement.extra[QUESTIONS] = questions
    return requirements


def claim(store: SessionStore, run_id: str, resumed_as: str, results: DeferredToolResults) -> Run:
    """Store the answers to a paused run's requirements, and claim it, before a tool runs.

    Args:
        store: The store.
        run_id: The paused run.
        resumed_as: The id under which the framework resumes it.
        results: The answers.

    Raises:
        AlreadyClaimed: Somebody else resumed it.
        RunClosed: It was resumed, and has ended.
        AlreadyResolved: A person has answered otherwise.
        StillWaiting: Requirements are pending.
    """
    with store.transaction():  # the answers of one resumer, and its claim
        run = store.get_run(run_id)
        if run.status == "PAUSED":
            for requirement in run.requirements:
                call_id = requirement.tool_call_id or ""
                if call_id in results.approvals or call_id in results.calls:
                    _answer(store, requirement, _read_answer(results, call_id))
        claimed = store.claim_run(run_id)
        names = [*(claimed.internal.get(RESUMED_AS) or ()), resumed_as]
        changes = {RESUMED_AS: names, PAUSE: None}
        store.write(lambda connection: set_internal(connection, store, run_id, changes))
    return claimed


def _read_answer(results: DeferredToolResults, tool_call_id: str) -> dict[str, Any]:
    """The arguments of `SessionStore.resolve` for one call."""
    by = results.answered_by.get(tool_call_id)
    if tool_call_id in results.approvals:
        approval = results.approvals[tool_call_id]
        if approval is True or isinstance(approval, ToolApproved):
            args = approval.override_args if isinstance(approval, ToolApproved) else None
            return {"approve": True, "args": media.plain_value(args), "by": by}
        note = approval.message if isinstance(approval, ToolDenied) else None
        return {"approve": False, "note": note, "by": by}
    value: Any = results.calls[tool_call_id]
    if isinstance(value, (ModelRetry, ToolFailed)):
        return {"approve": False, "note": value.message, "by": by}
    if isinstance(value, ToolReturn):
        value = value.return_value
    if getattr(value, "outcome", "success") != "success" or getattr(value, "part_kind", None) == "retry-prompt":
        return {"approve": False, "note": media.as_text(value.content), "by": by}
    return {"value": media.plain_value(value), "by": by}


def _answer(store: SessionStore, requirement: Requirement, answer: Mapping[str, Any]) -> None:
    if requirement.status in UNRESOLVED_STATUSES:
        store.resolve(requirement, **answer)
        return
    is_approved = answer.get("approve", True)
    if requirement.approved is not None and requirement.approved != is_approved:
        verdict = "approved" if requirement.approved else "rejected"
        raise AlreadyResolved(
            f"Requirement {requirement.requirement_id} ({requirement.tool_name}) was {verdict} by "
            f"{requirement.resolved_by or 'somebody'}; the results that resume the run say otherwise.",
            "Resume it with kern_nb.bridges.pydantic_ai.deferred_tool_results(store, run_id).",
        )
