"""Questions with options, which user feedback answers: their parts, and the check of what a person chooses.

A requirement has them in ``extra["questions"]`` in the shape of Agno; the answer is a dict with the labels of the
chosen options by the text of each question.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.extra_keys import QUESTIONS
from kern_nb.records import Requirement


@dataclass(frozen=True)
class Option:
    """An option of a question."""

    label: str
    description: str = ""


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        text: What is asked.
        header: A short name of it; empty without one.
        options: What can be chosen; of a question without options, the answer is any text.
        is_multiple: Whether several options can be chosen.
    """

    text: str
    header: str
    options: tuple[Option, ...]
    is_multiple: bool

    @property
    def name(self) -> str:
        """What names it in an answer: its header, else its text."""
        return self.header or self.text

    @property
    def labels(self) -> list[str]:
        """The labels of the options."""
        return [option.label for option in self.options]

    @property
    def numbered(self) -> str:
        """The options on a line, with their numbers."""
        options = ", ".join(f"{number} {label}" for number, label in enumerate(self.labels, 1))
        return f"{options} (several can be chosen)" if self.is_multiple else options


def questions_of(requirement: Requirement) -> list[Question]:
    """The questions of a requirement; what is no question in its source is left out."""
    stated = requirement.extra.get(QUESTIONS)
    if requirement.kind != "user_feedback" or not isinstance(stated, list):
        return []
    return [_question(item) for item in stated if isinstance(item, Mapping) and isinstance(item.get("question"), str)]


def is_question_args(requirement: Requirement) -> bool:
    """Whether the arguments of a requirement's call are its questions, and nothing else."""
    names = {"questions", "question", "header", "options", "multi_select"}
    return bool(questions_of(requirement)) and isinstance(requirement.args, dict) and set(requirement.args) <= names


def _question(item: Mapping[str, Any]) -> Question:
    stated = item.get("options")
    options = []
    for option in stated if isinstance(stated, list) else ():
        if isinstance(option, Mapping) and isinstance(option.get("label"), str):
            description = option.get("description")
            options.append(Option(option["label"], description if isinstance(description, str) else ""))
    header = item.get("header")
    is_multiple = item.get("multi_select") is True
    return Question(item["question"], header if isinstance(header, str) else "", tuple(options), is_multiple)


def check_choices(questions: Sequence[Question], answer: Any) -> dict[str, list[str]]:
    """Return the chosen labels by question.

    Args:
        questions: The questions.
        answer: A dict by the text or the header of each question; of a single question, the choice suffices. A choice
            is a label, its number from 1, or a list of these. Labels are compared without regard to case.

    Raises:
        BadUsage: A question is not answered or unknown, or the choice is none of its options or too many.
    """
    by_name = {name: question for question in questions for name in (question.header, question.text) if name}
    if not isinstance(answer, dict):
        if len(questions) != 1:
            names = ", ".join(repr(question.name) for question in questions)
            raise BadUsage(f"The answer needs a choice for each question: {names}.", _example(questions))
        answer = {questions[0].text: answer}
    choices: dict[str, list[str]] = {}
    for name, value in answer.items():
        if name not in by_name:
            hint = did_you_mean(str(name), by_name, _example(questions))
            raise BadUsage(f"Unknown question {name!r}.", hint)
        choices[by_name[name].text] = _check(by_name[name], value)
    if missing := [question.name for question in questions if question.text not in choices]:
        raise BadUsage(f"No choice for {', '.join(map(repr, missing))}.", _example(questions))
    return {question.text: choices[question.text] for question in questions}


def _check(question: Question, value: Any) -> list[str]:
    values = value if isinstance(value, list) else _split(question, value)
    chosen = list(dict.fromkeys(_label(question, item) for item in values))
    if not chosen:
        raise BadUsage(f"No choice for {question.name!r}.", _options(question))
    if len(chosen) > 1 and not question.is_multiple:
        message = f"{question.name!r} takes one choice, got {len(chosen)}: {', '.join(chosen)}."
        raise BadUsage(message, _options(question))
    return chosen


def _split(question: Question, value: Any) -> list[Any]:
    """The items of a text with commas, unless it is a label itself."""
    is_list = isinstance(value, str) and question.is_multiple and "," in value
    if not is_list or value.strip().casefold() in (label.casefold() for label in question.labels):
        return [value]
    return [item.strip() for item in value.split(",") if item.strip()]


def _label(question: Question, value: Any) -> str:
    if not question.options:
        return value if isinstance(value, str) else str(value)
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text in question.labels:
        return text
    by_fold = {label.strip().casefold(): label for label in reversed(question.labels)}
    by_number = {str(number): label for number, label in enumerate(question.labels, 1)}
    label = (by_number | by_fold).get(text.strip().casefold())
    if label is not None:
        return label
    hint = did_you_mean(str(value), question.labels, _options(question))
    raise BadUsage(f"{value!r} is not an option of {question.name!r}.", hint)


def _options(question: Question) -> str:
    return f"Options: {question.numbered}." if question.options else "Write a text."


def _example(questions: Sequence[Question]) -> str:
    words = " ".join(shlex.quote(f"{question.name}=CHOICE") for question in questions)
    return f"Write {words}. " + " ".join(f"{question.name}: {question.numbered}." for question in questions)


def format_choices(questions: Sequence[Question], answer: Any, *, by: str = "; ") -> str:
    """Return the chosen labels, after the name of its question if there are several, which ``by`` separates."""
    choices = answer if isinstance(answer, Mapping) else {}
    texts = [(q.name, ", ".join(map(str, choices.get(q.text) or ()))) for q in questions]
    return texts[0][1] if len(texts) == 1 else by.join(f"{name}: {text}" for name, text in texts)
