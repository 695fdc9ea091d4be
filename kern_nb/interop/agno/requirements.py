"""What a paused run of Agno waits for, as requirements, and their answers, as Agno has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from kern_nb.extra_keys import INPUT_FIELDS, METADATA, REQUIRED_FIELDS
from kern_nb.interop.agno.values import JsonObject, to_text, without_none
from kern_nb.records import Requirement

_KINDS = get_args(Requirement.model_fields["kind"].annotation)


def requirement_from_agno(data: JsonObject, *, is_paused: bool) -> Requirement:
    """A requirement of a store, from Agno's dict of it."""
    tool = data.get("tool_execution")
    tool = tool if isinstance(tool, dict) else {}
    kind = _kind(tool)
    schema = data.get("user_input_schema") or tool.get("user_input_schema") or []
    fields = [field for field in schema if isinstance(field, dict) and isinstance(field.get("name"), str)]
    answer = _answer(data, tool, kind, fields)
    approved = data.get("confirmation") if data.get("confirmation") is not None else tool.get("confirmed")
    is_resolved = approved is not None or answer is not None or tool.get("answered") is True
    extra: JsonObject = {METADATA: without_none({"agno_type": _type(tool), "approval_type": tool.get("approval_type")})}
    if fields:
        extra[INPUT_FIELDS] = [field["name"] for field in fields]
        extra[REQUIRED_FIELDS] = [field["name"] for field in fields if field.get("value") is None]
    if questions := data.get("user_feedback_schema") or tool.get("user_feedback_schema"):
        extra["questions"] = questions
    return Requirement(
        requirement_id=str(data.get("id") or ""),
        kind=kind,
        status="resolved" if is_resolved else "pending" if is_paused else "expired",
        tool_call_id=to_text(tool.get("tool_call_id")),
        tool_name=to_text(tool.get("tool_name")),
        args=tool.get("tool_args"),
        approved=approved if isinstance(approved, bool) else True if is_resolved else None,
        answer=answer if is_resolved else None,
        note=to_text(data.get("confirmation_note")) or to_text(tool.get("confirmation_note")),
        created_at=_parse_time(data.get("created_at")),
        extra=extra,
    )


def _type(tool: JsonObject) -> str:
    if tool.get("user_feedback_schema"):
        return "user_feedback"
    if tool.get("external_execution_required"):
        return "external_execution"
    return "user_input" if tool.get("requires_user_input") else "confirmation"


def _kind(tool: JsonObject) -> Literal["confirmation", "user_input", "external_execution", "handoff"]:
    kind: Any = _type(tool)
    return kind if kind in _KINDS else "user_input"  # type: ignore[no-any-return]


def _answer(data: JsonObject, tool: JsonObject, kind: str, fields: Sequence[JsonObject]) -> Any:
    """The value that was entered; None if there is none yet."""
    if kind == "external_execution":
        result = data.get("external_execution_result")
        return tool.get("result") if result is None else result
    if tool.get("answered") is not True:
        return None
    questions = data.get("user_feedback_schema") or tool.get("user_feedback_schema") or []
    answers = {q["question"]: q.get("selected_options") for q in questions if isinstance(q, dict) and "question" in q}
    return answers or {field["name"]: field.get("value") for field in fields}


def _parse_time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def answered(data: JsonObject, requirement: Requirement) -> JsonObject:
    """Agno's dict of a requirement with an answer that was given in the store, in the inbox for example."""
    tool = dict(data.get("tool_execution") or {})
    result = dict(data)
    if requirement.approved is False:
        changes = {"confirmed": False, "confirmation_note": requirement.note}
        result |= without_none({"confirmation": False, "confirmation_note": requirement.note})
        tool |= without_none(changes)
    elif _type(tool) == "confirmation":
        result["confirmation"], tool["confirmed"] = True, True
        if isinstance(requirement.answer, dict):
            tool["tool_args"] = requirement.answer
    elif _type(tool) == "external_execution":
        value = requirement.answer if isinstance(requirement.answer, str) else str(requirement.answer)
        result["external_execution_result"], tool["result"] = value, value
    else:
        values = requirement.answer if isinstance(requirement.answer, dict) else {}
        for name in ("user_input_schema", "user_feedback_schema"):
            for owner in (result, tool):
                if owner.get(name):
                    owner[name] = [_filled(field, values) for field in owner[name]]
        tool["answered"] = True
    return result | {"tool_execution": tool}


def _filled(field: Any, values: JsonObject) -> Any:
    """A field or question with its value."""
    if not isinstance(field, dict):
        return field
    if (name := field.get("name")) in values and name is not None:
        return field | {"value": values[name]}
    if (question := field.get("question")) not in values or question is None:
        return field
    selected = values[question] if isinstance(values[question], list) else [values[question]]
    options = [o | {"selected": o.get("label") in selected} for o in field.get("options") or () if isinstance(o, dict)]
    return field | {"selected_options": selected} | ({"options": options} if options else {})
