"""Messages of ours to pydantic-ai's and back.

A response's text and calls are columns of ours. What a provider adds (thinking with its signature, ids, native tools)
is kept as pydantic-ai dumps it, in ``internal["parts"]``, because the provider wants it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import messages as pai

from kern_nb.db import SessionStore
from kern_nb.extra_keys import BY_TOOL, FILES, PARTS, RESPONSE_ID, RETRY
from kern_nb.interop import media
from kern_nb.records import Message, ToolCall, Usage, text_of

_RESPONSE_PARTS: TypeAdapter[list[pai.ModelResponsePart]] = TypeAdapter(list[pai.ModelResponsePart])
_ASSISTANTS = ("assistant", "ai", "model", "bot", "agent")
_TOOLS = ("tool", "function")
_PLAIN = (pai.TextPart, pai.ToolCallPart)


def of_prompt(content: Any) -> Message:
    """A user's message."""
    return Message(role="user", content=content)


def is_result(message: Message) -> bool:
    """Whether a message holds what a tool gave, or said beside it."""
    return message.role in _TOOLS or BY_TOOL in message.internal


def of_part(part: Any, keep: media.Keep) -> Message | None:
    """The message of a part of a request; None for what pydantic-ai notes for itself."""
    if isinstance(part, pai.ToolReturnPart):
        failed = part.outcome != "success"
        # What is wrong with arguments is a list, which the model is told as text.
        said = part.model_response_str(wrap_if_error=False) if part.outcome == "retried" else part.content
        result = media.result(said, keep)
        return of_result(part.tool_call_id, part.tool_name, result, is_error=failed)
    if isinstance(part, pai.RetryPromptPart):
        text = part.model_response()
        if part.tool_name is None:
            return Message(role="user", content=text, internal={RETRY: True})
        return of_result(part.tool_call_id, part.tool_name, media.Result(text, text), is_error=True)
    if isinstance(part, pai.RetryFeedbackPart):
        return Message(role="user", content=media.plain_value(part.content), internal={RETRY: True})
    if isinstance(part, pai.UserPromptPart):  # what a tool says beside its result
        return Message(role="user", content=media.of_content(part.content, keep), internal={BY_TOOL: True})
    return None


def of_result(tool_call_id: str, tool_name: str, result: media.Result, *, is_error: bool) -> Message:
    """A tool's message."""
    message = Message(role="tool", tool_call_id=tool_call_id, tool_name=tool_name, is_error=is_error)
    message.internal = {FILES: True} if result.has_files else {}
    message.content = result.stored
    return message


def of_response(response: pai.ModelResponse, keep: media.Keep) -> Message:
    """An assistant's message."""
    text = "".join(part.content for part in response.parts if isinstance(part, pai.TextPart))
    calls = [
        ToolCall(tool_call_id=part.tool_call_id, tool_name=part.tool_name, args=_args(part))
        for part in response.parts
        if isinstance(part, pai.ToolCallPart)
    ]
    extra: dict[str, Any] = {}
    internal: dict[str, Any] = {}
    if any(_says_more(part) for part in response.parts):
        internal[PARTS] = media.stored(_RESPONSE_PARTS.dump_python(list(response.parts), exclude_none=True), keep)
    if response.finish_reason not in (None, "stop", "tool_call"):
        extra["finish_reason"] = response.finish_reason
    if response.provider_response_id is not None:
        internal[RESPONSE_ID] = response.provider_response_id
    return Message(
        role="assistant",
        content=text or None,
        tool_calls=calls,
        model=response.model_name,
        usage=usage_of(response),
        created_at=response.timestamp,
        extra=extra,
        internal=internal,
    )


def _args(part: pai.ToolCallPart) -> Any:
    """The arguments as an object; as text where the model wrote no JSON object."""
    try:
        return part.args_as_dict(raise_if_invalid=True)
    except (ValueError, AssertionError):
        return part.args


def _says_more(part: Any) -> bool:
    """Whether a part holds what text and calls do not."""
    return not isinstance(part, _PLAIN) or bool(part.id or part.provider_details)


def without_results(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts of a response as dumped, without what a provider's own tools gave."""
    return [part | {"content": None} if part.get("part_kind") == "builtin-tool-return" else part for part in parts]


def usage_of(response: pai.ModelResponse) -> Usage | None:
    """The tokens of a response, and its cost where the model's price is known."""
    used = response.usage
    if not used.has_values():
        return None
    details = used.details or {}
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cache_read_tokens or None,
        cache_write_tokens=used.cache_write_tokens or None,
        reasoning_tokens=details.get("reasoning_tokens") or None,
        total_tokens=used.total_tokens,
        cost=_cost(response),
    )


def _cost(response: pai.ModelResponse) -> float | None:
    try:
        return float(response.cost().total_price)
    except (LookupError, AssertionError, ValueError):
        return None  # a price nobody knows is not 0


def to_pydantic(messages: Iterable[Message], store: SessionStore) -> list[pai.ModelMessage]:
    """Messages of ours as a history for pydantic-ai; system messages are left out, an agent gives its own."""
    history: list[pai.ModelMessage] = []
    users_own: set[str | None] = set()
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        if message.role in _ASSISTANTS:
            users_own -= {call.tool_call_id for call in message.tool_calls}
            history.append(_response(message, store))
            continue
        # A simulated user's calls are not the model's business, nor are their results.
        users_own |= {call.tool_call_id for call in message.tool_calls}
        if message.role in _TOOLS and message.tool_call_id in users_own:
            users_own.discard(message.tool_call_id)
            continue
        if message.content is None and message.role not in _TOOLS:
            continue
        part = _request_part(message, store)
        if history and isinstance(history[-1], pai.ModelRequest):
            history[-1] = pai.ModelRequest(parts=[*history[-1].parts, part])
        else:
            history.append(pai.ModelRequest(parts=[part]))
    return history


def _request_part(message: Message, store: SessionStore) -> pai.ModelRequestPart:
    if message.role in _TOOLS:
        return pai.ToolReturnPart(
            tool_name=message.tool_name or "tool",
            content=_result(message, store),
            tool_call_id=message.tool_call_id or "",
            outcome="failed" if message.is_error else "success",
        )
    return pai.UserPromptPart(media.to_content(message.content, store))


def _result(message: Message, store: SessionStore) -> Any:
    """What the model is told of a stored result."""
    return media.tellable(media.to_result(message.content, store) if FILES in message.internal else message.content)


def _response(message: Message, store: SessionStore) -> pai.ModelResponse:
    if PARTS in message.internal:
        parts = _with_results(_RESPONSE_PARTS.validate_python(media.loaded(message.internal[PARTS], store)), message)
    else:
        text = text_of(message.content)
        if isinstance(message.content, list) and all(isinstance(part, str) for part in message.content):
            text = "\n".join(message.content)  # texts of an answer, in the shape of some formats
        if text is None and message.content not in (None, []):
            text = media.as_text(message.content)
        parts = [pai.TextPart(media.tellable(text))] if text else []
        parts += [
            pai.ToolCallPart(call.tool_name or "tool", _given(call.args), call.tool_call_id or "")
            for call in message.tool_calls
        ]
    provider_id = message.internal.get(RESPONSE_ID)
    return pai.ModelResponse(parts=parts, model_name=message.model, provider_response_id=provider_id)


def _with_results(parts: list[pai.ModelResponsePart], message: Message) -> list[pai.ModelResponsePart]:
    """The parts without the calls that the history left out, because a branch point parts them from their results."""
    calls = [part for part in parts if isinstance(part, pai.ToolCallPart)]
    if len(calls) == len(message.tool_calls):
        return parts
    told = {call.tool_call_id for call in message.tool_calls}
    return [part for part in parts if not isinstance(part, pai.ToolCallPart) or part.tool_call_id in told]


def _given(args: Any) -> Any:
    """Arguments as a model gives them: an object, or text where a record holds anything else."""
    return media.tellable(args if args is None or isinstance(args, (str, dict)) else media.as_text(args))


def told(messages: Sequence[pai.ModelMessage], instructions: str | None) -> list[Message]:
    """What a model was told, as messages of ours: what a script's function is given."""
    found = [Message(role="system", content=instructions)] if instructions else []
    for message in messages:
        if isinstance(message, pai.ModelResponse):
            found.append(of_response(message, media.forget))
            continue
        for part in message.parts:
            if isinstance(part, pai.SystemPromptPart):
                found.append(Message(role="system", content=part.content))
            elif (one := of_part(part, media.forget)) is not None:
                found.append(one)
    return found
