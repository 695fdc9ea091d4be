"""What a paused run of Agno waits for, and the answers.

A requirement has a copy of the call that it is about. Confirming one clears the flag that says that it was one: the
kind of an answered requirement is that of its answer. Runs of early versions state the flags of the calls only. Steps
of a workflow have requirements of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from kern_nb.extra_keys import INPUT_FIELDS
from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import to_flag, to_id, to_list, to_object, to_text, without
from kern_nb.records import Requirement

_Kind = Literal["confirmation", "user_input", "external_execution", "handoff"]

_REQUIREMENT_FIELDS = frozenset(
    {"id", "created_at", "confirmation", "confirmation_note", "external_execution_result", "tool_execution",
     "user_input_schema", "user_feedback_schema"}
)  # fmt: skip
_STEP_FIELDS = frozenset(
    {"confirmed", "confirmation_message", "user_input_message", "output_review_message", "user_input",
     "selected_choices", "step_input", "step_output", "timeout_at"}
)  # fmt: skip
_FINISHED = ("CANCELLED", "ERROR", "REGENERATED")


def parse_requirements(data: Mapping[str, Any], run_id: str, status: str, problems: list[str]) -> list[Requirement]:
    """The requirements of a run; each has an id of its own."""
    parsed: dict[str, Requirement] = {}
    for name, requirement in _parse_all(data, run_id, status, problems):
        number, unique = 2, name
        while unique in parsed:
            unique, number = f"{name}~{number}", number + 1
        requirement.requirement_id = unique
        parsed[unique] = requirement
    return list(parsed.values())


def _parse_all(
    data: Mapping[str, Any], run_id: str, status: str, problems: list[str]
) -> Iterator[tuple[str, Requirement]]:
    records: list[tuple[Any, bool]] = [(record, False) for record in to_list(data.get("requirements"))]
    if not records and status == "PAUSED":
        records = [({"tool_execution": tool}, False) for tool in to_list(data.get("tools")) if _is_paused(tool)]
    records += [(record, True) for record in to_list(data.get("step_requirements"))]
    for index, (record, is_step) in enumerate(records):
        try:
            requirement = _parse_step(record) if is_step else _parse(record)
        except RECORD_ERRORS as error:
            problems.append(f"requirement {index} of run {run_id!r} is not imported: {error_text(error)}")
            continue
        if requirement is None:
            continue
        if requirement.status == "pending" and status in _FINISHED:
            requirement.status = "expired"
        name = requirement.tool_call_id or to_id(record.get("step_id")) or index
        yield to_id(record.get("id")) or f"{run_id}:{name}", requirement


def _is_paused(tool: Any) -> bool:
    names = ("requires_confirmation", "requires_user_input", "external_execution_required", "user_feedback_schema")
    return any(to_object(tool).get(name) for name in names)


def _parse(record: Any) -> Requirement | None:
    if not isinstance(record, dict):
        raise MalformedRecord("it is not an object")
    tool = to_object(record.get("tool_execution"))
    approved = to_flag(record.get("confirmation"))
    approved = to_flag(tool.get("confirmed")) if approved is None else approved
    fields = to_list(record.get("user_input_schema") or tool.get("user_input_schema"))
    questions = to_list(record.get("user_feedback_schema") or tool.get("user_feedback_schema"))
    extra = without(record, _REQUIREMENT_FIELDS) | ({INPUT_FIELDS: fields} if fields else {})
    kind: Any
    answer: Any = None
    if questions:
        kind, extra["questions"] = "user_feedback", questions
        answers = {str(q.get("question")): q.get("selected_options") for q in map(to_object, questions)}
        answer = answers if all(value is not None for value in answers.values()) else None
        is_open = tool.get("answered") is not True and answer is None
    elif tool.get("external_execution_required") or record.get("external_execution_result") is not None:
        kind, answer = "external_execution", record.get("external_execution_result")
        answer = tool.get("result") if answer is None else answer
        is_open = answer is None and bool(tool.get("external_execution_required"))
    elif tool.get("requires_user_input") or fields:
        kind = "user_input"
        values = {str(item.get("name")): item.get("value") for item in map(to_object, fields)}
        is_missing = bool(tool.get("requires_user_input")) or None in values.values()
        is_open = is_missing and tool.get("answered") is not True
        answer = None if is_open else values
    else:
        kind = "confirmation"
        is_open = approved is None and bool(tool.get("requires_confirmation"))
    if kind not in get_args(Requirement.model_fields["kind"].annotation):
        kind, extra["kind"] = "user_input", kind
    return Requirement(
        kind=kind,
        status="pending" if is_open else "resolved",
        tool_call_id=to_id(tool.get("tool_call_id")),
        tool_name=to_text(tool.get("tool_name")),
        args=tool.get("tool_args"),
        approved=approved,
        answer=answer,
        note=to_text(record.get("confirmation_note")) or to_text(tool.get("confirmation_note")),
        created_at=parse_time(record.get("created_at")),
        extra=extra,
    )


def _parse_step(record: Any) -> Requirement | None:
    """The requirement of a step; None if it repeats those of the step's own run."""
    if not isinstance(record, dict):
        raise MalformedRecord("it is not an object")
    if record.get("requires_executor_input"):
        return None
    kind: _Kind = "confirmation"
    answer: Any = record.get("edited_output")
    approved = to_flag(record.get("confirmed"))
    is_open = approved is None
    prompt = to_text(record.get("confirmation_message")) or to_text(record.get("output_review_message"))
    if record.get("requires_user_input") or record.get("requires_route_selection"):
        kind, prompt = "user_input", to_text(record.get("user_input_message")) or prompt
        answer = record.get("user_input") if record.get("requires_user_input") else record.get("selected_choices")
        is_open = answer is None
    fields = to_list(record.get("user_input_schema"))
    return Requirement(
        kind=kind,
        status="pending" if is_open else "resolved",
        prompt=prompt,
        approved=approved,
        answer=answer,
        note=to_text(record.get("rejection_feedback")),
        expires_at=parse_time(record.get("timeout_at")),
        extra=without(record, _STEP_FIELDS) | ({INPUT_FIELDS: fields} if fields else {}),
    )
