"""Values as people type them in a line: JSON if it parses as JSON, else text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.records import Requirement
from kern_nb.views.requirements import field_names


def parse_value(text: str) -> Any:
    """Return the value of a JSON text; of any other text, the text itself."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text


def parse_json_object(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object of an option; raise BadUsage for any other text."""
    example = f"""For example: {option} '{{"path": "notes.txt", "n": 2}}'"""
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{option} must be JSON, got {text!r}: {error}.", example) from None
    if not isinstance(value, dict):
        raise BadUsage(f"{option} must be a JSON object, got {text!r}.", example)
    return value


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, parsed strictly: Python also accepts NaN and Infinity, which are not JSON.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_parse_finite)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _parse_finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def parse_answer(words: Sequence[str], requirement: Requirement) -> Any:
    """Parse the words of an answer, and check them against the fields that the requirement asks for.

    If the model has filled in some of these already, none is mandatory, and anything but fields is the tool's result.

    Raises:
        BadUsage: A field is missing or unknown.
    """
    value, names = parse_value(" ".join(words)), field_names(requirement)
    if not names:
        return value
    is_mandatory = not (isinstance(requirement.args, dict) and set(names) & set(requirement.args))
    if isinstance(value, dict):
        answer = value
        if not is_mandatory and not set(answer) <= set(names):
            return answer
    elif all(word.partition("=")[1] for word in words):
        answer = {name: parse_value(text) for name, _, text in (word.partition("=") for word in words)}
    elif len(names) == 1:
        answer = {names[0]: value}
    elif is_mandatory:
        raise BadUsage(f"The answer needs {len(names)} fields: {', '.join(names)}.", _example(names))
    else:
        return value
    for name in answer:
        if name not in names:
            hint = did_you_mean(name, names, _example(names))
            raise BadUsage(f"Unknown field {name!r}; the fields are: {', '.join(names)}.", hint)
    missing = [name for name in names if name not in answer]
    if missing and is_mandatory:
        raise BadUsage(f"Missing fields: {', '.join(missing)}.", f"{_example(names)}; null for an empty one.")
    return answer


def _example(names: Sequence[str]) -> str:
    return "Write " + " ".join(f"{name}=VALUE" for name in names)
