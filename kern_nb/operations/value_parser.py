"""Values as people type them in a line: JSON if it parses as JSON, else text."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.records import Requirement
from kern_nb.views import feedback
from kern_nb.views.feedback import Question
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
    Choices of user feedback are checked against the options of its questions.

    Raises:
        BadUsage: A field is missing or unknown, or a choice is not an option.
    """
    if questions := feedback.questions_of(requirement):
        return feedback.check_choices(questions, _parse_choices(words, questions))
    names = field_names(requirement)
    return _parse_fields(words, requirement, names) if names else parse_value(" ".join(words))


def _parse_fields(words: Sequence[str], requirement: Requirement, names: Sequence[str]) -> Any:
    value = parse_value(" ".join(words))
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


def _parse_choices(words: Sequence[str], questions: Sequence[Question]) -> Any:
    """The choices of feedback: an object by question, ``question=choice`` for each, or the choice of a single one."""
    text = " ".join(words)
    value = parse_value(text)
    if isinstance(value, dict):
        return value
    is_label = len(questions) == 1 and text in questions[0].labels
    if is_label or not all("=" in word for word in words):
        return _choice(text)
    names = {name for question in questions for name in (question.header, question.text) if name}
    return dict(_named_choice(word, names) for word in words)


def _named_choice(word: str, names: Collection[str]) -> tuple[str, Any]:
    """The name and the choice of ``name=choice``; a question may have an equals sign itself."""
    name = max((name for name in names if word.startswith(f"{name}=")), key=len, default=word.partition("=")[0])
    return name, _choice(word[len(name) + 1 :])


def _choice(text: str) -> Any:
    """A choice as text, a number, or a list of these."""
    value = parse_value(text)
    return value if isinstance(value, (list, int, str)) and not isinstance(value, bool) else text


def _example(names: Sequence[str]) -> str:
    return "Write " + " ".join(f"{name}=VALUE" for name in names)
