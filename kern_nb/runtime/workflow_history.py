"""What an agent in a workflow is told: its prompt, the session's earlier runs, and what a person entered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def history_text(pairs: Sequence[tuple[str, str]]) -> str | None:
    """Return the text that precedes the message of an agent; None without earlier runs."""
    if not pairs:
        return None
    lines = ["<workflow_history_context>"]
    for number, (question, answer) in enumerate(pairs, 1):
        lines.append(f"[Workflow Run-{number}]")
        lines += [f"User input: {question}"] if question else []
        lines += [f"Workflow output: {answer}"] if answer else []
        lines.append("")
    return "\n".join([*lines, "</workflow_history_context>", ""])


def agent_message(prompt: Any, history: str | None, additional: Mapping[str, Any]) -> Any:
    """Return what an agent is told: its prompt, after the history and before what a person entered or rejected."""
    from kern_nb.interop.media import as_text

    parts = [] if prompt is None else [as_text(prompt)]
    if entered := additional.get("user_input"):
        parts.append(
            "User preferences:\n" + "\n".join(f"- {name}: {as_text(value)}" for name, value in entered.items())
        )
    if (rejected := additional.get("previous_output")) is not None:
        parts.append(f"Your previous output:\n{as_text(rejected)}")
    if feedback := additional.get("rejection_feedback"):
        parts.append(f"Feedback from reviewer:\n{feedback}")
    if history is None and len(parts) == 1 and prompt is not None:
        return prompt
    return (history or "") + "\n\n".join(parts)
