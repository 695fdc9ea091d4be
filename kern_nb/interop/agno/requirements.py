"""What a paused run of Agno waits for, as requirements, and their answers, as Agno has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from kern_nb.extra_keys import INPUT_FIELDS, METADATA, REQUIRED_FIELDS
from kern_nb.interop.agno.values import JsonObject, to_text, without_none
from kern_nb.records import Requirement


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
    extra: JsonObject = {METADATA: {"approval_type": approval}} if (approval := tool.get("approval_type")) else {}
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


def _kind(tool: JsonObject) -> Literal["confirmation", "user_input", "user_feedback", "external_execution"]:
    if tool.get("user_feedback_schema"):
        return "user_feedback"
    if tool.get("external_execution_required"):
        return "external_execution"
    return "user_input" if tool.get("requires_user_input") else "confirmation"


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


def step_requirements_from_agno(data: JsonObject, ids: Collection[str], *, is_paused: bool) -> list[Requirement]:
    """The requirements of a workflow's step: its own, or those of its agent's calls; ``ids`` are in use."""
    executor = data.get("executor_requirements")
    if isinstance(executor, list) and executor:
        return [requirement_from_agno(r, is_paused=is_paused) for r in executor if isinstance(r, dict) and r.get("id")]
    schema = [field for field in data.get("user_input_schema") or () if isinstance(field, dict) and "name" in field]
    is_choice = bool(data.get("requires_route_selection"))
    answer = data.get("selected_choices") if is_choice else data.get("user_input")
    is_input = is_choice or bool(data.get("requires_user_input"))
    confirmed = data.get("confirmed")
    is_resolved = confirmed is not None or (is_input and bool(answer))
    extra: JsonObject = {}
    if schema:
        extra[INPUT_FIELDS] = [field["name"] for field in schema]
        extra[REQUIRED_FIELDS] = [f["name"] for f in schema if f.get("required", True) and f.get("value") is None]
    if is_choice:
        extra["options"] = data.get("available_choices")
    prompts = (data.get(f"{name}_message") for name in ("confirmation", "user_input", "output_review"))
    requirement_id = str(data.get("step_id") or data.get("step_name") or "step")
    while requirement_id in ids:
        requirement_id += "~"
    requirement = Requirement(
        requirement_id=requirement_id,
        kind="user_input" if is_input else "confirmation",
        status="resolved" if is_resolved else "pending" if is_paused else "expired",
        tool_name=to_text(data.get("step_name")),
        prompt=next((prompt for prompt in prompts if isinstance(prompt, str)), None),
        approved=confirmed if isinstance(confirmed, bool) else True if is_resolved else None,
        answer=answer if is_input and is_resolved else None,
        note=to_text(data.get("rejection_feedback")),
        extra=extra,
    )
    return [requirement]


def answered_step(data: JsonObject, requirements: Mapping[str, Requirement]) -> JsonObject:
    """Agno's dict of a step's requirement with the answers that were stored since, by their ids."""
    executor = data.get("executor_requirements")
    if isinstance(executor, list) and executor:
        with_answers = [
            answered(r, requirements[r["id"]]) if r.get("id") in requirements and not is_answered(r) else r
            for r in executor
        ]
        return data | {"executor_requirements": with_answers}
    requirement = requirements.get(str(data.get("step_id") or data.get("step_name") or "step"))
    if requirement is None:
        return data
    if requirement.approved is False:
        return data | {"confirmed": False, "rejection_feedback": requirement.note}
    result = dict(data)
    if data.get("requires_confirmation") or data.get("requires_output_review"):
        result["confirmed"] = True
    if data.get("requires_route_selection"):
        choice = requirement.answer
        result["selected_choices"] = choice if isinstance(choice, list) else [choice]
    elif isinstance(requirement.answer, dict):
        result["user_input"] = requirement.answer
        schema = data.get("user_input_schema")
        result |= {"user_input_schema": [_filled(f, requirement.answer) for f in schema]} if schema else {}
    return result


def is_answered(data: JsonObject) -> bool:
    """Whether Agno's dict of a requirement has its answer."""
    return requirement_from_agno(data, is_paused=True).status == "resolved"


def answered(data: JsonObject, requirement: Requirement) -> JsonObject:
    """Agno's dict of a requirement with an answer that was given in the store, in the inbox for example."""
    tool = dict(data.get("tool_execution") or {})
    result = dict(data)
    if requirement.approved is False:
        changes = {"confirmed": False, "confirmation_note": requirement.note}
        result |= without_none({"confirmation": False, "confirmation_note": requirement.note})
        tool |= without_none(changes)
    elif _kind(tool) == "confirmation":
        result["confirmation"], tool["confirmed"] = True, True
        if isinstance(requirement.answer, dict):
            tool["tool_args"] = requirement.answer
    elif _kind(tool) == "external_execution":
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


def answer_of(data: JsonObject) -> JsonObject | None:
    """The answer in Agno's dict of a requirement, as arguments of `SessionStore.resolve`; None if it has none."""
    requirement = requirement_from_agno(data, is_paused=True)
    if requirement.status != "resolved":
        return None
    answer: JsonObject = {} if requirement.note is None else {"note": requirement.note}
    if requirement.approved is False:
        return answer | {"approve": False}
    if requirement.kind == "confirmation":
        return answer | {"approve": True}
    return answer | {"value": requirement.answer}


def answers_of_step(data: JsonObject) -> dict[str, JsonObject]:
    """The answers in Agno's dict of a step's requirement by the id of each requirement, as `answer_of`."""
    executor = data.get("executor_requirements")
    if isinstance(executor, list) and executor:
        many = {r["id"]: answer_of(r) for r in executor if isinstance(r, dict) and r.get("id")}
        return {key: answer for key, answer in many.items() if answer is not None}
    requirement = step_requirements_from_agno(data, (), is_paused=True)[0]
    if requirement.status != "resolved":
        return {}
    answer: JsonObject = {} if requirement.note is None else {"note": requirement.note}
    if requirement.approved is False or requirement.kind == "confirmation":
        return {requirement.requirement_id: answer | {"approve": requirement.approved is not False}}
    return {requirement.requirement_id: answer | {"value": requirement.answer}}
