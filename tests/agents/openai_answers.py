"""An answer in the form of OpenAI's two APIs, Responses and Chat Completions, whole or streamed."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openai_requests import Body, conversation, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_numbers = itertools.count(1)


def _new_id(prefix: str) -> str:
    """Never given before in this process, as ids of the real service are."""
    return f"{prefix}_{next(_numbers):08x}"


@dataclass(frozen=True)
class Call:
    """A function that the model wants called; arguments given as a string are sent as they are, valid JSON or not."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str = field(default_factory=lambda: _new_id("call"))

    @property
    def json(self) -> str:
        """The arguments as the API writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Answer:
    """What the model says, or what goes wrong.

    `delay`, `gate`, `drop` and a `status` other than 200 come before anything is sent or, if the answer is streamed,
    after so many events: `after`.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    status: int = 200
    message: str = ""  # of an error
    delay: float = 0.0  # seconds
    gate: threading.Event | None = None  # wait until it is set
    drop: bool = False  # cut the connection
    after: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def error_body(status: int, message: str = "") -> Body:
    """An error in OpenAI's form."""
    kind, code, default = {
        401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    }.get(status, ("invalid_request_error", None, "The request is not valid."))
    if status >= 500:
        kind, default = "server_error", "The server had an error while processing your request."
    return {"error": {"message": message or default, "type": kind, "param": None, "code": code}}


def _counts(body: Body, answer: Answer) -> tuple[int, int]:
    sent = tokens(*(text for _, text in conversation(body)))
    return sent, tokens(answer.text, *(call.json for call in answer.calls)) + answer.reasoning_tokens


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+", text)


def _event(data: Any, name: str | None = None) -> bytes:
    line = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {line}\n\n".encode()


# --- Responses


def response(body: Body, answer: Answer) -> Body:
    """A finished response."""
    output: list[Body] = []
    if answer.text or not answer.calls:
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        message = {"id": _new_id("msg"), "type": "message", "status": "completed", "role": "assistant"}
        output.append({**message, "content": [part]})
    for call in answer.calls:
        named = {"id": _new_id("fc"), "type": "function_call", "status": "completed", "call_id": call.id}
        output.append({**named, "name": call.name, "arguments": call.json})
    sent, said = _counts(body, answer)
    return {
        "id": _new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "usage": {
            "input_tokens": sent,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": sent + said,
        },
    }


def response_stream(body: Body, answer: Answer) -> Iterator[bytes]:
    """The same response as it happens, one event at a time."""
    whole = response(body, answer)
    for number, (name, data) in enumerate(_response_events(whole, answer.status)):
        yield _event({"type": name, "sequence_number": number, **data}, name)


def _response_events(whole: Body, status: int) -> Iterator[tuple[str, Body]]:
    started = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": started}
    yield "response.in_progress", {"response": started}
    for index, item in enumerate(whole["output"]):
        place = {"item_id": item["id"], "output_index": index}
        empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = {**item, "status": "in_progress", **empty}
        yield "response.output_item.added", {"output_index": index, "item": added}
        if item["type"] == "message":
            (part,) = item["content"]
            place["content_index"] = 0
            yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
            for piece in _pieces(part["text"]):
                yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
            yield "response.content_part.done", {**place, "part": part}
        else:
            for piece in _pieces(item["arguments"]):
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            yield "response.function_call_arguments.done", {**place, "arguments": item["arguments"]}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": whole}


def response_failure(body: Body, answer: Answer) -> bytes:
    """What a stream that has begun ends with when the model fails."""
    error = error_body(answer.status, answer.message)["error"]
    failed = {**response(body, answer), "status": "failed", "output": [], "usage": None}
    failed["error"] = {"code": error["code"] or "server_error", "message": error["message"]}
    name = "response.failed"
    return _event({"type": name, "sequence_number": answer.after, "response": failed}, name)


# --- Chat Completions


def _completion(body: Body, kind: str) -> Body:
    return {"id": _new_id("chatcmpl"), "object": kind, "created": int(time.time()), "model": body["model"]}


def _completion_usage(body: Body, answer: Answer) -> Body:
    sent, said = _counts(body, answer)
    return {
        "prompt_tokens": sent,
        "completion_tokens": said,
        "total_tokens": sent + said,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
    }


def _called(call: Call, arguments: str) -> Body:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def completion(body: Body, answer: Answer) -> Body:
    """A finished chat completion."""
    message: Body = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [_called(call, call.json) for call in answer.calls]
    reason = "tool_calls" if answer.calls else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {**_completion(body, "chat.completion"), "choices": [choice], "usage": _completion_usage(body, answer)}


def completion_stream(body: Body, answer: Answer) -> Iterator[bytes]:
    """The same completion as it happens, one chunk at a time."""
    chunk = _completion(body, "chat.completion.chunk")
    counted = bool((body.get("stream_options") or {}).get("include_usage"))
    if counted:
        chunk["usage"] = None

    def said(delta: Body, reason: str | None = None) -> bytes:
        return _event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    yield said({"role": "assistant", "content": "", "refusal": None})
    for piece in _pieces(answer.text):
        yield said({"content": piece})
    for index, call in enumerate(answer.calls):
        yield said({"tool_calls": [{"index": index, **_called(call, "")}]})
        for piece in _pieces(call.json):
            yield said({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield said({}, "tool_calls" if answer.calls else "stop")
    if counted:
        yield _event({**chunk, "choices": [], "usage": _completion_usage(body, answer)})
    yield _event("[DONE]")


def completion_failure(body: Body, answer: Answer) -> bytes:
    """What a stream that has begun ends with when the model fails."""
    return _event(error_body(answer.status, answer.message))
