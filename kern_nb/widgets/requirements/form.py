"""What a run waits for as data for a script, and what was typed into it as the answer it means."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from kern_nb.errors import BadUsage
from kern_nb.operations import agent_registry, value_parser
from kern_nb.records import Requirement
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.widgets.base import key_of

if TYPE_CHECKING:
    from kern_nb.runtime.session_owner import SessionOwner

SHOWN = 1_500
"""So many characters of an argument are shown."""

EDITED = 20_000
"""An argument longer than this is not edited in a page."""

_NAME = 80
_MOST = 100

TITLES = {
    "confirmation": "may it run?",
    "user_input": "to fill in",
    "external_execution": "needs its result",
    "handoff": "handed to a person",
}
"""What each kind of requirement asks, in a few words."""


def card(one: Requirement, name: str, texts: Collection[str] = ()) -> dict[str, Any]:
    """A requirement as a script shows it.

    Args:
        one: The requirement.
        name: What stands for it in a line.
        texts: Those of its fields that take text, whatever is typed.
    """
    args = one.args if isinstance(one.args, dict) else {}
    told = {name: value for name, value in args.items() if one.kind != "handoff" or value != one.prompt}
    is_edit = one.kind == "confirmation" and isinstance(one.answer, dict)
    changed = one.answer if is_edit else {}
    required = one.extra.get("required")
    needed = required if isinstance(required, list) else []
    fields = requirements.fields(one)[:_MOST]
    return {
        "key": key_of(one.requirement_id),
        "name": formatting.visible(name),
        "kind": one.kind,
        "title": TITLES[one.kind],
        "tool": formatting.cut(one.tool_name or "", _NAME),
        "prompt": _beginning(one.prompt or ""),
        "args": [_argument(key, value, changed) for key, value in list(told.items())[:_MOST] if key not in fields],
        "more": max(0, len(args) - _MOST),
        "raw": None if one.args is None or isinstance(one.args, dict) else _beginning(formatting.pretty(one.args)),
        "fields": [_field(key, args.get(key), key in texts, key in needed) for key in fields],
        "for": formatting.cut(one.assignee or "", _NAME),
        "note": _beginning(one.note or ""),
        "since": "" if one.created_at is None else f"{formatting.when(one.created_at)} UTC",
        "at": None if one.created_at is None else one.created_at.timestamp(),
        "until": "" if one.expires_at is None else f"{formatting.when(one.expires_at)} UTC",
        "waiting": requirements.is_waiting(one),
        "state": formatting.cut(requirements.state(one), _NAME),
        "answer": "" if is_edit or one.answer is None else formatting.visible(formatting.pretty(one.answer)[:SHOWN]),
    }


def _argument(name: str, value: Any, changed: dict[str, Any]) -> dict[str, Any]:
    text = formatting.pretty(value)
    whole = formatting.visible(text) if len(text) <= EDITED else None
    told = {"name": formatting.cut(name, _NAME), "is_text": isinstance(value, str), "whole": whole, **_beginning(text)}
    now = changed.get(name, value)
    return told | {"now": None if now == value else formatting.visible(formatting.pretty(now)[:SHOWN])}


def _field(name: str, value: Any, is_text: bool, is_needed: bool) -> dict[str, Any]:  # noqa: FBT001 - two facts of it
    filled = "" if value is None else formatting.visible(formatting.pretty(value)[:EDITED])
    return {"name": formatting.cut(name, _NAME), "filled": filled, "is_text": is_text, "needed": is_needed}


def _beginning(text: str) -> dict[str, Any]:
    return {"text": formatting.visible(text[:SHOWN]), "left": max(0, len(text) - SHOWN)}


def text_fields(one: Requirement, owner: SessionOwner | None) -> set[str]:
    """The fields that are text by the type hints of the tool, where its agent is at hand: ``75001`` is no number."""
    tools = getattr(owner, "_given_tools", ())
    for tool in tools if one.kind == "user_input" else ():
        function = getattr(tool, "function", tool)
        if one.tool_name in (getattr(tool, "name", None), getattr(function, "__name__", None)):
            with contextlib.suppress(Exception):  # hints that do not resolve say nothing
                hints = {n: p.annotation for n, p in inspect.signature(function, eval_str=True).parameters.items()}
                return {name for name, hint in hints.items() if hint is str or set(get_args(hint)) == {str, type(None)}}
    return set()


def owner_here(name: str | None) -> SessionOwner | None:
    """The one agent of the notebook of this id or name; None where there is none, or several."""
    variable = agent_registry.find_variable(name)
    return None if variable is None else agent_registry.notebook_agents().get(variable)


def edited(one: Requirement, edits: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments as they were edited; None where none was.

    Args:
        one: What is approved.
        edits: By the argument's place among those shown, what stands in its field: text where the model gave text,
            else JSON.

    Raises:
        BadUsage: it is no JSON, or there is no such argument.
    """
    args = one.args if isinstance(one.args, dict) else {}
    shown = list(args.items())[:_MOST]
    found = {}
    for place, text in edits.items():
        if not place.isdecimal() or int(place) >= len(shown):
            raise BadUsage(f"There is no argument {place!r}.", "Run the cell again.")
        name, before = shown[int(place)]
        found[name] = text if isinstance(before, str) else _json(name, text)
    return found or None


def _json(name: str, text: str) -> Any:
    try:
        return value_parser.parse_json(text)
    except (ValueError, RecursionError) as error:
        wrong = f"{formatting.cut(name, _NAME)} is no JSON: {error}."
        raise BadUsage(wrong, 'Write a number, true, false, null, "text", a list or an object.') from None


def value(one: Requirement, texts: Sequence[str], asked: Collection[str], *, as_text: bool) -> Any:
    """The value that was typed: by field where fields are asked for, else the one text.

    Args:
        one: What is answered.
        texts: What stands in each field; an empty one is not given.
        asked: Fields that take text, whatever is typed.
        as_text: Whether all of it is text, also where it could be JSON.

    Raises:
        BadUsage: nothing was given.
    """
    read = str if as_text else value_parser.parse_value
    names = requirements.fields(one)
    if not names:
        if not "".join(texts):
            raise BadUsage("There is no answer yet.", "Write a text, or JSON.")
        return read("".join(texts))
    given = zip(names, texts, strict=False)
    return {name: text if name in asked else read(text) for name, text in given if text}


def words(answer: Any, *, by_field: bool) -> list[str]:
    """An answer as the words of a line that mean the same."""
    if by_field and isinstance(answer, dict):
        return [f"{name}={_word(one)}" for name, one in answer.items()]
    return [_word(answer)]


def _word(answer: Any) -> str:
    is_plain = isinstance(answer, str) and answer.isprintable() and answer[:1] not in "-$" and "=" not in answer
    if is_plain and value_parser.parse_value(answer) == answer and " ".join(answer.split()) == answer:
        return str(answer)
    return json.dumps(answer, ensure_ascii=False)
