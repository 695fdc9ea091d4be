"""Values as people type them in a line: JSON where it is JSON, else text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.records import Requirement
from kern_nb.views.requirements import fields


def parse_value(text: str) -> Any:
    """The value of a JSON text; of any other, the text itself."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text


def parse_json_object(text: str, option: str) -> dict[str, Any]:
    """The JSON object that an option has.

    Raises:
        BadUsage: it is none.
    """
    example = f"""Write it like {option} '{{"path": "notes.txt", "n": 2}}'."""
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{option} {text!r} is no JSON: {error}.", example) from None
    if not isinstance(value, dict):
        raise BadUsage(f"{option} {text!r} is no JSON object.", example)
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text, read strictly.

    Raises:
        ValueError, RecursionError: it is none.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _refuse(name: str) -> NoReturn:
    """Python reads NaN and Infinity, which are no JSON."""
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def parse_answer(words: Sequence[str], requirement: Requirement) -> Any:
    """What the words of an answer say, checked against the fields that are to be filled in.

    Where the model has filled some of them already, none has to be given, and anything but fields is the tool's result.

    Raises:
        BadUsage: a field is missing or unknown.
    """
    value, names = parse_value(" ".join(words)), fields(requirement)
    if not names:
        return value
    has_blanks = not (isinstance(requirement.args, dict) and set(names) & set(requirement.args))
    if isinstance(value, dict):
        given = value
        if not has_blanks and not set(given) <= set(names):
            return given
    elif all(word.partition("=")[1] for word in words):
        given = {name: parse_value(text) for name, _, text in (word.partition("=") for word in words)}
    elif len(names) == 1:
        given = {names[0]: value}
    elif has_blanks:
        raise BadUsage(f"{len(names)} fields are asked for: {', '.join(names)}.", _example(names))
    else:
        return value
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, _example(names))
            raise BadUsage(f"No field {name!r} is asked for; there are: {', '.join(names)}.", hint)
    missing = [name for name in names if name not in given]
    if missing and has_blanks:
        raise BadUsage(f"The answer lacks {', '.join(missing)}.", f"{_example(names)}; null where there is none.")
    return given


def _example(names: Sequence[str]) -> str:
    return "Write " + " ".join(f"{name}=VALUE" for name in names)
