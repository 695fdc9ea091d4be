"""What a request to one of OpenAI's APIs says, what the real service would refuse it for, and what to answer."""

from __future__ import annotations

import re
from typing import Any

Body = dict[str, Any]


def conversation(body: Body) -> list[tuple[str, str]]:
    """Read what was sent, of either API, as pairs of role and text; what a function returned has the role "tool"."""
    said = [("system", body["instructions"])] if body.get("instructions") else []
    sent = body.get("input", body.get("messages", []))
    for item in [{"role": "user", "content": sent}] if isinstance(sent, str) else sent:
        if item.get("type") == "function_call_output":
            said.append(("tool", _text(item["output"])))
        elif text := _text(item.get("content")):  # calls are no speech
            said.append((item["role"], text))
    return said


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def refusal(body: Body) -> str | None:
    """Say what the real service would reject the request for: here, what a wrongly kept history gives."""
    if not body.get("model"):
        return "you must provide a model parameter"
    if previous := body.get("previous_response_id"):  # nothing is kept here: a conversation has to be sent
        return f"Previous response with id '{previous}' not found."
    asked: set[str] = set()
    answered: set[str] = set()
    ids: set[str] = set()
    for item in sent if isinstance(sent := body.get("input", body.get("messages", [])), list) else []:
        if asked - answered and "messages" in body and item.get("role") != "tool":
            break
        if item.get("type") == "function_call":
            asked.add(item["call_id"])
        asked |= {call["id"] for call in item.get("tool_calls") or ()}
        if output_of := item.get("tool_call_id") or (item.get("type") == "function_call_output" and item["call_id"]):
            if output_of not in asked:
                return f"No tool call found for function call output with call_id {output_of}."
            answered.add(output_of)
        if item.get("id") in ids:
            return f"Duplicate item found with id {item['id']}. Remove duplicate items from your input and try again."
        ids |= {item["id"]} if item.get("id") else set()
    if pending_tools := sorted(asked - answered):
        return f"No tool output found for function call {pending_tools[0]}."
    return None


def tokens(*texts: str) -> int:
    """How the server counts: a word is a token."""
    return sum(len(text.split()) for text in texts)


def small_model(body: Body) -> str:
    """Answer from what was sent and nothing else: whoever wants it to remember has to send the past."""
    said = [text for role, text in conversation(body) if role == "user"]
    last = said[-1] if said else ""
    if re.search(r"what.s my name", last, re.IGNORECASE):
        names = [found[1] for text in said if (found := re.search(r"my name is (\w+)", text, re.IGNORECASE))]
        return f"Your name is {names[-1]}." if names else "I do not know your name."
    if "capital of France" in last:
        return "Paris is the capital of France."
    return f"You said: {last[:80]}"
