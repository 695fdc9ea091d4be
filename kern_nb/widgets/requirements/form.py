"""A requirement as a form for a script, and the parsing of what was entered."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from kern_nb.errors import BadUsage
from kern_nb.extra_keys import FIXED_ARGS, REQUIRED_FIELDS
from kern_nb.operations import agent_registry, value_parser
from kern_nb.records import Requirement
from kern_nb.text import formatting
from kern_nb.views import feedback, requirements
from kern_nb.widgets.base import encode_key
from kern_nb.widgets.transcript_data import clip

if TYPE_CHECKING:
    from kern_nb.runtime.session_owner import SessionOwner

PREVIEW_LENGTH = 1_500  # the most characters of an argument that are visible
MAX_EDITABLE = 20_000  # the most characters of an argument that can be edited
_NAME = 80
_MAX_ARGUMENTS = 100

TITLES = {
    "confirmation": "approval required",
    "user_input": "input required",
    "user_feedback": "feedback required",
    "external_execution": "result required",
    "handoff": "handed off",
}
"""What each kind of requirement asks for."""


def form_data(requirement: Requirement, name: str, text_names: Collection[str] = ()) -> dict[str, Any]:
    """Convert a requirement for a script; ``name`` is its short id, ``text_names`` the fields that take text only."""
    args = requirement.args if isinstance(requirement.args, dict) else {}
    fields = requirements.field_names(requirement)[:_MAX_ARGUMENTS]
    is_handoff = requirement.kind == "handoff"
    visible = [(k, v) for k, v in args.items() if not is_handoff or v != requirement.prompt][:_MAX_ARGUMENTS]
    if feedback.is_question_args(requirement):
        visible, args = [], {}
    is_edited = requirement.kind == "confirmation" and isinstance(requirement.answer, dict)
    edits = requirement.answer if is_edited else {}
    answer = "" if is_edited or requirement.answer is None else formatting.format_value(requirement.answer)
    questions = feedback.questions_of(requirement)
    if questions and isinstance(requirement.answer, dict):
        answer = feedback.format_choices(questions, requirement.answer, by="\n")
    required = requirement.extra.get(REQUIRED_FIELDS)
    required = required if isinstance(required, list) else []
    is_raw = requirement.args is not None and not isinstance(requirement.args, dict)
    created, expires = requirement.created_at, requirement.expires_at
    return {
        # The name of a requirement whose id several runs have includes its run.
        "key": encode_key(requirement.requirement_id if requirement.requirement_id.startswith(name) else name),
        "name": formatting.escape_controls(name),
        "kind": requirement.kind,
        "title": TITLES[requirement.kind],
        "tool": formatting.truncate(requirement.tool_name or "", _NAME),
        "prompt": clip(requirement.prompt or "", PREVIEW_LENGTH),
        "args": [_argument(key, value, edits) for key, value in visible if key not in fields],
        "more": max(0, len(args) - _MAX_ARGUMENTS),
        "raw": clip(formatting.format_value(requirement.args), PREVIEW_LENGTH) if is_raw else None,
        "fields": [
            _field(key, args.get(key), is_text=key in text_names, is_required=key in required) for key in fields
        ],
        "questions": [_question(question) for question in questions],
        "fixed": FIXED_ARGS in requirement.extra,
        "for": formatting.truncate(requirement.assignee or "", _NAME),
        "note": clip(requirement.note or "", PREVIEW_LENGTH),
        "since": "" if created is None else f"{formatting.format_time(created)} UTC",
        "at": None if created is None else created.timestamp(),
        "until": "" if expires is None else f"{formatting.format_time(expires)} UTC",
        "waiting": requirements.is_pending(requirement),
        "state": formatting.truncate(requirements.describe_state(requirement), _NAME),
        "answer": formatting.escape_controls(answer[:PREVIEW_LENGTH]),
    }


def _argument(name: str, value: Any, edits: dict[str, Any]) -> dict[str, Any]:
    text, edited = formatting.format_value(value), edits.get(name, value)
    new_text = None if edited == value else formatting.format_value(edited)[:PREVIEW_LENGTH]
    return {
        "name": formatting.truncate(name, _NAME),
        "is_text": isinstance(value, str),
        "whole": formatting.escape_controls(text) if len(text) <= MAX_EDITABLE else None,
        **clip(text, PREVIEW_LENGTH),
        "now": None if new_text is None else formatting.escape_controls(new_text),
    }


def _field(name: str, value: Any, *, is_text: bool, is_required: bool) -> dict[str, Any]:
    text = "" if value is None else formatting.escape_controls(formatting.format_value(value)[:MAX_EDITABLE])
    return {"name": formatting.truncate(name, _NAME), "filled": text, "is_text": is_text, "needed": is_required}


def _question(question: feedback.Question) -> dict[str, Any]:
    options = [
        {
            "label": formatting.truncate(option.label, PREVIEW_LENGTH),
            "description": formatting.truncate(option.description, PREVIEW_LENGTH),
        }
        for option in question.options
    ]
    return {
        "header": formatting.truncate(question.header, _NAME),
        "text": formatting.escape_controls(question.text[:PREVIEW_LENGTH]),
        "several": question.is_multiple,
        "options": options,
    }


def text_fields(requirement: Requirement, owner: SessionOwner | None) -> set[str]:
    """Return the fields that are text by the type hints of the tool, so that ``75001`` is not parsed as a number."""
    tools = getattr(owner, "_tools", ())
    for tool in tools if requirement.kind == "user_input" else ():
        function = getattr(tool, "function", tool)
        if requirement.tool_name in (getattr(tool, "name", None), getattr(function, "__name__", None)):
            with contextlib.suppress(Exception):  # unresolvable hints are ignored
                hints = {n: p.annotation for n, p in inspect.signature(function, eval_str=True).parameters.items()}
                return {name for name, hint in hints.items() if hint is str or set(get_args(hint)) == {str, type(None)}}
    return set()


def find_owner(name: str | None) -> SessionOwner | None:
    """Return the agent of the notebook with this id or name; None if there is not exactly one."""
    variable = agent_registry.find_variable(name)
    return None if variable is None else agent_registry.notebook_agents().get(variable)


def parse_edits(requirement: Requirement, edits: Mapping[str, str]) -> dict[str, Any] | None:
    """Parse edited arguments, given by index: text if the model passed text, else JSON; None without edits.

    Raises:
        BadUsage: a text is not valid JSON, or there is no such argument.
    """
    args = requirement.args if isinstance(requirement.args, dict) else {}
    visible = list(args.items())[:_MAX_ARGUMENTS]
    result = {}
    for index, text in edits.items():
        if not index.isdecimal() or int(index) >= len(visible):
            raise BadUsage(f"No argument {index!r}.", "Run the cell again.")
        name, original = visible[int(index)]
        try:
            result[name] = text if isinstance(original, str) else value_parser.parse_json(text)
        except (ValueError, RecursionError) as error:
            message = f"{formatting.truncate(name, _NAME)} must be JSON: {error}."
            raise BadUsage(message, 'Enter a number, true, false, null, "text", a list or an object.') from None
    return result or None


def parse_values(requirement: Requirement, texts: Sequence[str], text_names: Collection[str], *, as_text: bool) -> Any:
    """Parse the entered value: by field if the requirement has fields, else one value.

    Empty fields are left out. ``text_names`` are the fields that take text only; with ``as_text``, all texts stay text,
    even if they are JSON. Of a question with options, the text is a JSON list with the positions of the chosen ones.

    Raises:
        BadUsage: no value was entered, or an option was not chosen.
    """
    if questions := feedback.questions_of(requirement):
        entered_choices = zip(questions, texts, strict=False)
        choices = {q.text: _choices(text) if q.options else text for q, text in entered_choices if text}
        return feedback.check_choices(questions, choices)
    parse = str if as_text else value_parser.parse_value
    names = requirements.field_names(requirement)
    if not names:
        if not "".join(texts):
            raise BadUsage("The answer must not be empty.", "Enter a text, or JSON.")
        return parse("".join(texts))
    entered = zip(names, texts, strict=False)
    return {name: text if name in text_names else parse(text) for name, text in entered if text}


def _choices(text: str) -> list[int]:
    """The numbers, from 1, of the options at the positions in a JSON list."""
    try:
        positions = value_parser.parse_json(text)
    except (ValueError, RecursionError):
        positions = None
    if not isinstance(positions, list) or not all(type(position) is int for position in positions):
        raise BadUsage(f"The choice must be a list of positions, got {text!r}.", "Run the cell again.")
    return [position + 1 for position in positions]


def format_choices(requirement: Requirement, answer: Mapping[str, Sequence[str]]) -> list[str]:
    """Format the choices of user feedback as the words of a command."""
    questions = feedback.questions_of(requirement)
    words = []
    for question in questions:
        chosen = answer[question.text]
        word = _word(list(chosen) if question.is_multiple else chosen[0])
        words.append(word if len(questions) == 1 else f"{question.name}={word}")
    return words


def format_answer(answer: Any, *, by_field: bool) -> list[str]:
    """Format an answer as the words of a command."""
    if by_field and isinstance(answer, dict):
        return [f"{name}={_word(value)}" for name, value in answer.items()]
    return [_word(answer)]


def _word(answer: Any) -> str:
    is_plain = isinstance(answer, str) and answer.isprintable() and answer[:1] not in "-$" and "=" not in answer
    if is_plain and value_parser.parse_value(answer) == answer and " ".join(answer.split()) == answer:
        return str(answer)
    return json.dumps(answer, ensure_ascii=False)
