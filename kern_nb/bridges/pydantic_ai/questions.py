"""Questions with options that a tool of pydantic-ai asks, and their answers as its model gets them.

A call that is deferred with ``kind="question"`` may state, in its metadata or its arguments, either ``questions``, each
with ``question``, ``options`` and perhaps ``header`` and ``multi_select``, or these for a single question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern_nb.extra_keys import METADATA, QUESTIONS
from kern_nb.records import Requirement
from kern_nb.views import feedback


def find_questions(requirement: Requirement) -> list[dict[str, Any]]:
    """The questions of a call if each of them states options, else an empty list."""
    for source in (requirement.extra.get(METADATA), requirement.args):
        if not isinstance(source, Mapping):
            continue
        stated = source.get("questions")
        many = stated if isinstance(stated, list) else [source]
        prompt = requirement.prompt or requirement.tool_name or "question"
        questions = [_question(item, prompt) for item in many]
        if questions and all(question.get("options") for question in questions):
            return questions
    return []


def _question(item: Any, default: str) -> dict[str, Any]:
    if not isinstance(item, Mapping) or not isinstance(item.get("options"), list):
        return {}
    options = [{"label": option} if isinstance(option, str) else option for option in item["options"]]
    if not all(isinstance(option, Mapping) and isinstance(option.get("label"), str) for option in options):
        return {}
    texts = (item.get(name) for name in ("question", "prompt", "message", "text"))
    question = next((text for text in texts if isinstance(text, str) and text), default)
    header = {"header": item["header"]} if isinstance(item.get("header"), str) else {}
    return {"question": question, **header, "options": options, "multi_select": item.get("multi_select") is True}


def framework_answer(requirement: Requirement) -> Any:
    """The answer to a requirement as the result of its call.

    It is the option that was chosen, or a list of them; of several questions a dict by their headers, which the tool of
    pydantic-ai for questions has, or else by their texts.
    """
    answer, stated = requirement.answer, requirement.extra.get(QUESTIONS)
    if requirement.kind != "user_feedback" or not isinstance(answer, dict) or not isinstance(stated, list):
        return answer
    questions = feedback.questions_of(requirement)
    if set(answer) != {question.text for question in questions}:
        return answer
    sources = (requirement.extra.get(METADATA), requirement.args)
    if any(isinstance(source, Mapping) and isinstance(source.get("questions"), list) for source in sources):
        has_headers = all(question.header for question in questions)
        return {question.header if has_headers else question.text: answer[question.text] for question in questions}
    [question] = questions
    chosen = answer[question.text]
    return chosen if question.is_multiple or not isinstance(chosen, list) else chosen[0]
