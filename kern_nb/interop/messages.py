"""Conversion between `Message` and the messages of pydantic-ai.

A response's text and calls have columns. What a provider adds (thinking with its signature, ids, native tools) is kept
as pydantic-ai's dump in ``internal["parts"]``, because the provider needs it in later requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import messages as pai

from kern_nb.db import SessionStore
from kern_nb.extra_keys import BY_TOOL, FILES, PARTS, RESPONSE_ID, RETRY
from kern_nb.interop import media
from kern_nb.records import RESULT_ROLES, Message, ToolCall, Usage, text_of

_RESPONSE_PARTS: TypeAdapter[list[pai.ModelResponsePart]] = TypeAdapter(list[pai.ModelResponsePart])
_ASSISTANTS = ("assistant", "ai", "model", "bot", "agent")


def is_result(message: Message) -> bool:
    """Whether a message is a tool's result, or was added by a tool beside its result."""
    return message.role in RESULT_ROLES or BY_TOOL in message.internal


def part_to_message(part: Any, keep: media.Keep) -> Message | None:
    """Convert a part of a request; None for a part that is internal to pydantic-ai."""
    if isinstance(part, pai.ToolReturnPart):
        failed = part.outcome != "success"
        # Argument errors are a list, which the model receives as text.
        content = part.model_response_str(wrap_if_error=False) if part.outcome == "retried" else part.content
        output = media.store_result(content, keep)
        return result_message(part.tool_call_id, part.tool_name, output, is_error=failed)
    if isinstance(part, pai.RetryPromptPart):
        text = part.model_response()
        if part.tool_name is None:
            return Message(role="user", content=text, internal={RETRY: True})
        return result_message(part.tool_call_id, part.tool_name, media.ToolOutput(text, text), is_error=True)
    if isinstance(part, pai.RetryFeedbackPart):
        return Message(role="user", content=media.plain_value(part.content), internal={RETRY: True})
    if isinstance(part, pai.UserPromptPart):  # a tool's text beside its result
        return Message(role="user", content=media.store_content(part.content, keep), internal={BY_TOOL: True})
    return None


def result_message(tool_call_id: str, tool_name: str, output: media.ToolOutput, *, is_error: bool) -> Message:
    """Create the message of a tool's result."""
    message = Message(role="tool", tool_call_id=tool_call_id, tool_name=tool_name, is_error=is_error)
    message.internal = {FILES: True} if output.has_files else {}
    message.content = output.stored
    return message


def response_to_message(response: pai.ModelResponse, keep: media.Keep) -> Message:
    """Convert a model's response."""
    text = "".join(part.content for part in response.parts if isinstance(part, pai.TextPart))
    calls = [
        ToolCall(tool_call_id=part.tool_call_id, tool_name=part.tool_name, args=_args(part))
        for part in response.parts
        if isinstance(part, pai.ToolCallPart)
    ]
    internal: dict[str, Any] = {}
    if any(_has_provider_data(part) for part in response.parts):
        internal[PARTS] = media.store_parts(_RESPONSE_PARTS.dump_python(list(response.parts), exclude_none=True), keep)
    is_usual = response.finish_reason in (None, "stop", "tool_call")
    if response.provider_response_id is not None:
        internal[RESPONSE_ID] = response.provider_response_id
    return Message(
        role="assistant",
        content=text or None,
        tool_calls=calls,
        model=response.model_name,
        usage=usage_of(response),
        created_at=response.timestamp,
        extra={} if is_usual else {"finish_reason": response.finish_reason},
        internal=internal,
    )


def _args(part: pai.ToolCallPart) -> Any:
    """Return the arguments as a dict; as text where the model did not write a JSON object."""
    try:
        return part.args_as_dict(raise_if_invalid=True)
    except (ValueError, AssertionError):
        return part.args


def _has_provider_data(part: Any) -> bool:
    return not isinstance(part, (pai.TextPart, pai.ToolCallPart)) or bool(part.id or part.provider_details)


def without_results(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove the results of a provider's own tools from the dumped parts of a response."""
    return [part | {"content": None} if part.get("part_kind") == "builtin-tool-return" else part for part in parts]


def usage_of(response: pai.ModelResponse) -> Usage | None:
    """Return the tokens of a response, and its cost where the model's price is known."""
    usage = response.usage
    if not usage.has_values():
        return None
    details = usage.details or {}
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens or None,
        cache_write_tokens=usage.cache_write_tokens or None,
        reasoning_tokens=details.get("reasoning_tokens") or None,
        total_tokens=usage.total_tokens,
        cost=_cost(response),
    )


def _cost(response: pai.ModelResponse) -> float | None:
    try:
        return float(response.cost().total_price)
    except (LookupError, AssertionError, ValueError):
        return None  # an unknown price is not 0


def to_pydantic(messages: Iterable[Message], store: SessionStore) -> list[pai.ModelMessage]:
    """Convert messages to a history for pydantic-ai, without system messages: an agent passes its own instructions."""
    history: list[pai.ModelMessage] = []
    user_call_ids: set[str | None] = set()
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        if message.role in _ASSISTANTS:
            user_call_ids -= {call.tool_call_id for call in message.tool_calls}
            history.append(_response(message, store))
            continue
        # A simulated user's calls and their results are not part of the model's history.
        user_call_ids |= {call.tool_call_id for call in message.tool_calls}
        if message.role in RESULT_ROLES and message.tool_call_id in user_call_ids:
            user_call_ids.discard(message.tool_call_id)
            continue
        if message.content is None and message.role not in RESULT_ROLES:
            continue
        part = _request_part(message, store)
        if history and isinstance(history[-1], pai.ModelRequest):
            history[-1] = pai.ModelRequest(parts=_add_part(history[-1].parts, part))
        else:
            history.append(pai.ModelRequest(parts=[part]))
    return history


def _add_part(parts: Sequence[pai.ModelRequestPart], part: pai.ModelRequestPart) -> list[pai.ModelRequestPart]:
    """Add a part; a result before the prompts that a person wrote while its call was pending: providers require it."""
    n = len(parts)
    if isinstance(part, pai.ToolReturnPart):
        n = next((i for i, other in enumerate(parts) if isinstance(other, pai.UserPromptPart)), n)
    return [*parts[:n], part, *parts[n:]]


def _request_part(message: Message, store: SessionStore) -> pai.ModelRequestPart:
    if message.role in RESULT_ROLES:
        has_files = FILES in message.internal
        return pai.ToolReturnPart(
            tool_name=message.tool_name or "tool",
            content=media.printable(media.load_result(message.content, store) if has_files else message.content),
            tool_call_id=message.tool_call_id or "",
            outcome="failed" if message.is_error else "success",
        )
    return pai.UserPromptPart(media.load_content(message.content, store))


def _response(message: Message, store: SessionStore) -> pai.ModelResponse:
    if PARTS in message.internal:
        parts = _RESPONSE_PARTS.validate_python(media.load_parts(message.internal[PARTS], store))
        # A branch point may separate calls from their results; the message lacks these calls.
        present = {call.tool_call_id for call in message.tool_calls}
        if sum(isinstance(part, pai.ToolCallPart) for part in parts) != len(message.tool_calls):
            parts = [p for p in parts if not isinstance(p, pai.ToolCallPart) or p.tool_call_id in present]
    else:
        text = text_of(message.content)
        if isinstance(message.content, list) and all(isinstance(part, str) for part in message.content):
            text = "\n".join(message.content)  # some formats store an answer as a list of texts
        if text is None and message.content not in (None, []):
            text = media.as_text(message.content)
        parts = [pai.TextPart(media.printable(text))] if text else []
        parts += [
            pai.ToolCallPart(call.tool_name or "tool", _model_args(call.args), call.tool_call_id or "")
            for call in message.tool_calls
        ]
    provider_id = message.internal.get(RESPONSE_ID)
    return pai.ModelResponse(parts=parts, model_name=message.model, provider_response_id=provider_id)


def _model_args(args: Any) -> Any:
    return media.printable(args if args is None or isinstance(args, (str, dict)) else media.as_text(args))


def to_messages(messages: Sequence[pai.ModelMessage], instructions: str | None) -> list[Message]:
    """Convert a model's input to messages, for a script's function."""
    converted = [Message(role="system", content=instructions)] if instructions else []
    for message in messages:
        if isinstance(message, pai.ModelResponse):
            converted.append(response_to_message(message, media.discard))
            continue
        for part in message.parts:
            if isinstance(part, pai.SystemPromptPart):
                converted.append(Message(role="system", content=part.content))
            elif (new := part_to_message(part, media.discard)) is not None:
                converted.append(new)
    return converted
