"""Requests of Visual Studio Code's chat as messages: the prompt, the answer with its calls, results."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kern_nb.ingest.parsing.times import to_time_from_ms
from kern_nb.ingest.parsing.values import (
    first_text,
    to_args,
    to_count,
    to_flag,
    to_id,
    to_list,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall, Usage

Record = dict[str, Any]

_CALL = "toolInvocationSerialized"
_TEXTS = (None, "markdownContent", "markdownVuln")
_NOISE = frozenset({"undoStop", "prepareToolInvocation", "codeblockUri", "progressMessage", "progressTaskSerialized"})
_MAPPED_REQUEST = frozenset(
    {"requestId", "timestamp", "message", "modelId", "response", "result", "agent", "responseId"}
)
_MAPPED_CALL = ("kind", "toolId", "toolCallId", "isComplete")
_NOT_RUN = (0, 5)
"""The types of a confirmation that was denied or skipped."""


def is_request(value: Any) -> bool:
    """Whether a value is a request: it has a message, and a response or an id."""
    if not isinstance(value, dict) or not ("response" in value or "requestId" in value):
        return False
    message = value.get("message")
    return isinstance(message, str) or (isinstance(message, dict) and ("text" in message or "parts" in message))


def parse_request(request: Record, key: str) -> list[SourceMessage]:
    """The messages of a request: the prompt, the answer, the results."""
    time = to_time_from_ms(request.get("timestamp"))
    extra = {k: v for k, v in request.items() if k not in _MAPPED_REQUEST and v not in (None, [], {})}
    prompt = Message(
        role="user",
        content=_prompt_text(request["message"]),
        message_id=to_id(request.get("requestId")),
        created_at=time,
        extra=extra,
    )
    source = [SourceMessage(prompt, [request["message"], extra], key, starts_run=True)]
    metadata = to_object(to_object(request.get("result")).get("metadata"))
    answer, results = _parse_response(request, metadata)
    if answer.content is not None or answer.tool_calls or answer.usage is not None:
        record = [request.get("response"), request.get("result"), request.get("modelId")]
        source.append(SourceMessage(answer, record, f"{key}:answer", starts_run=False))
    for index, result in enumerate(results):
        source.append(SourceMessage(result, result.content, f"{key}:{index}", starts_run=False))
    return source


def _prompt_text(message: Any) -> str | None:
    if isinstance(message, str):
        return message
    texts = (to_text(to_object(part).get("text")) for part in to_list(message.get("parts")))
    return to_text(message.get("text")) or " ".join(text for text in texts if text) or None


def _parse_response(request: Record, metadata: Record) -> tuple[Message, list[Message]]:
    texts: list[str] = []
    thinking: list[Any] = []
    others: list[Any] = []
    items: list[Record] = []
    for item in to_list(request.get("response")):
        kind = item.get("kind") if isinstance(item, dict) else None
        if isinstance(item, str):
            texts.append(item)
        elif kind == _CALL:
            items.append(item)
        elif kind == "thinking":
            if text := _text_of(item.get("value")):
                thinking.append({"type": "thinking", "thinking": text})
        elif isinstance(item, dict) and kind in _TEXTS and (text := _text_of(item.get("value", item.get("content")))):
            texts.append(text)
        elif item is not None and kind not in _NOISE:
            others.append(item)
    rounds = list(_calls_of_rounds(metadata))
    calls, results = [], []
    for index, item in enumerate(items):
        stated = _find_round_call(item, index, rounds, n_calls=len(items))
        call = _to_call(item, stated)
        calls.append(call)
        if (result := _to_result(item, call, stated, metadata)) is not None:
            results.append(result)
    text = "".join(texts).strip()
    content: Any = [*thinking, *([{"type": "text", "text": text}] if text else [])] if thinking else text or None
    usage = Usage(
        input_tokens=to_count(metadata.get("promptTokens")), output_tokens=to_count(metadata.get("outputTokens"))
    )
    extra = {"parts": others, "usage": {k: metadata[k] for k in ("promptTokens", "outputTokens") if k in metadata}}
    answer = Message(
        role="assistant",
        content=content,
        tool_calls=calls,
        message_id=to_id(request.get("responseId")),
        model=to_text(metadata.get("resolvedModel")) or to_text(request.get("modelId")),
        usage=None if usage == Usage() else usage,
        created_at=_completion_time(request),
        extra={k: v for k, v in extra.items() if v},
    )
    return answer, results


def _completion_time(request: Record) -> datetime | None:
    return to_time_from_ms(to_object(request.get("modelState")).get("completedAt"))


def _text_of(value: Any) -> str | None:
    """Text, a Markdown object or a list of texts."""
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, list):
        return "\n".join(text for text in value if isinstance(text, str)) or None
    return to_text(value)


def _calls_of_rounds(metadata: Record) -> Iterable[Record]:
    for round_ in to_list(metadata.get("toolCallRounds")):
        for call in to_list(to_object(round_).get("toolCalls")):
            if isinstance(call, dict):
                yield call


def _find_round_call(item: Record, index: int, rounds: list[Record], *, n_calls: int) -> Record | None:
    """The call of the model to which an invocation belongs: by its id, else by its position if none is missing."""
    call_id = to_id(item.get("toolCallId"))
    if call_id is not None:
        for call in rounds:
            if (to_id(call.get("id")) or "").partition("__vscode")[0] == call_id.partition("__vscode")[0]:
                return call
    return rounds[index] if len(rounds) == n_calls else None


def _to_call(item: Record, stated: Record | None) -> ToolCall:
    details, specific = to_object(item.get("resultDetails")), to_object(item.get("toolSpecificData"))
    args: Any = None
    notes: Record = {}
    if stated is not None:
        args, notes = to_args(stated.get("arguments"))
    elif isinstance(details.get("input"), str):
        args, notes = to_args(details["input"])
    elif specific.get("rawInput") is not None:
        args = specific["rawInput"]
    confirmation = item.get("isConfirmed")
    kind = confirmation.get("type") if isinstance(confirmation, dict) else confirmation
    is_refused = confirmation is False or (type(kind) is int and kind in _NOT_RUN)
    return ToolCall(
        tool_call_id=to_id(item.get("toolCallId")),
        tool_name=to_text(item.get("toolId")),
        args=args,
        status="completed" if item.get("isComplete") is True and not is_refused else None,
        extra=without(item, _MAPPED_CALL) | notes,
    )


def _to_result(item: Record, call: ToolCall, stated: Record | None, metadata: Record) -> Message | None:
    """The result that the response or the model's rounds state."""
    details = to_object(item.get("resultDetails"))
    content = _result_text(details.get("output"))
    if content is None:
        specific = to_object(item.get("toolSpecificData"))
        outputs = (to_object(specific.get("terminalCommandOutput")).get("text"), specific.get("result"))
        content = first_text(outputs)  # the latter is that of a nested agent
    if content is None and stated is not None:
        results = to_object(metadata.get("toolCallResults"))
        content = _result_text(to_object(results.get(str(stated.get("id")))).get("content"))
    if content is None:
        return None
    is_error = details.get("isError")
    return Message(
        role="tool",
        content=content,
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        is_error=to_flag(is_error),
    )


def _result_text(output: Any) -> Any:
    """The texts of an output; an output of other parts is a value."""
    if not isinstance(output, list):
        return output
    texts = [text for part in output if isinstance(text := to_object(part).get("value"), str)]
    return "\n".join(texts) if output and len(texts) == len(output) else output or None
