"""Anthropic's Messages API: requests and responses as clients log them, batches, and conversations in its layout.

* ``{"request": {...}, "response": {...}}``, one exchange a line: each request repeats the history (`chats.exchanges`),
* results of a batch, ``{"custom_id": ..., "result": {...}}``; the file with the requests lies beside,
* requests alone, ``{"model": ..., "max_tokens": ..., "system": ..., "messages": [...]}``,
* answers alone, ``{"type": "message", "stop_reason": ..., "content": [...]}``,
* conversations, ``{"messages": [...]}`` with tool blocks in the contents.

``tool_use`` blocks are calls, ``tool_result`` blocks of a user's message are tool messages (`chats.blocks`), ``system``
is the first message. The counts of the API exclude cached tokens: ``input_tokens`` here includes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from kern_nb.ingest.chats.batches import (
    custom_ids,
    iterate_records,
    read_requests,
    request_files,
)
from kern_nb.ingest.chats.blocks import has_anthropic_blocks, to_content
from kern_nb.ingest.chats.drafts import (
    SESSION_IDS,
    TRAJECTORY_IDS,
    describe_error,
    file_id,
    line_id,
)
from kern_nb.ingest.chats.exchanges import ConversationTrees, Exchange, find_failure, in_order, split_exchange
from kern_nb.ingest.chats.fields import find_id, find_time
from kern_nb.ingest.chats.messages import (
    has_local_times,
    is_message,
    parse_message,
    parse_messages,
    says_something,
)
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, json_type
from kern_nb.ingest.importers.kubiya.body import is_control_plane_body
from kern_nb.ingest.parsing.values import drop_null, to_object
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

NAME = "anthropic"

_RESULT_TYPES = frozenset({"succeeded", "errored", "canceled", "expired"})
# The fields of a response that map to fields of its message.
_RESPONSE_FIELDS = frozenset({"type", "role", "content", "status_code"})


class Anthropic(Importer):
    """Requests and responses of Anthropic's Messages API."""

    name = NAME
    reads = "requests and responses of Anthropic's Messages API"

    def recognizes(self, source: Source) -> bool:
        """Requests with responses, batch results, or messages with blocks that only this layout has."""
        return any(_is_anthropic(value) for head in source.head for value in iterate_records(head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of each conversation; a tree is several."""
        exchanges: list[Exchange] = []
        single: dict[str, Exchange] = {}
        requests: dict[str, dict[str, Any]] | None = None
        line = position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in iterate_records(item.value):
                position, line = (position + 1 if item.line == line else 1), item.line
                if requests is None and _is_batch_result(value):
                    requests = read_requests(source, is_request=_is_batch_request)
                try:
                    if is_message(value):
                        _add_message(source, single, value, line)
                    else:
                        exchanges.append(_parse(source, value, line, position, requests or {}))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")
        trees = ConversationTrees()
        for exchange in (*in_order(exchanges), *single.values()):
            trees.add(exchange)
        yield from trees.drafts(source, NAME)

    def companions(self, source: Source) -> Iterable[Path]:
        """The requests of a file with batch results."""
        records = [value for head in source.head for value in iterate_records(head)]
        ids = custom_ids(filter(_is_batch_result, records))
        return request_files(source, ids, is_request=_is_batch_request) if ids else ()


def _is_anthropic(value: Any) -> bool:
    if isinstance(value, list) or is_message(value):
        return _is_request({"messages": value if isinstance(value, list) else [value]})
    if not isinstance(value, dict) or is_control_plane_body(value):
        return False
    if _is_batch_result(value):
        return True
    if _is_batch_request(value):
        return _is_request(value["params"])
    if _is_response(value):
        return True
    exchange = split_exchange(value)
    if exchange is not None:
        request, response, _ = exchange
        if response and not (response.get("type") == "error" or _is_response(response)):
            return False
        return (bool(response) and "messages" in request) or _is_request(request)
    return not ({"response", "choices", "samples", "simulations"} & drop_null(value).keys()) and _is_request(value)


def _is_request(value: dict[str, Any]) -> bool:
    """Whether it has messages in this layout: blocks, or a system prompt beside the messages."""
    messages = value.get("messages")
    if not isinstance(messages, list) or not any(map(is_message, messages)):
        return False
    if any(isinstance(item, dict) and has_anthropic_blocks(item.get("content")) for item in messages):
        return True
    return bool(value.get("system")) and any(map(says_something, messages))


def _is_response(value: dict[str, Any]) -> bool:
    is_answer = value.get("role") == "assistant" and isinstance(value.get("content"), list)
    return is_answer and "stop_reason" in value and (value.get("type") == "message" or "usage" in value)


def _is_batch_result(value: Any) -> bool:
    result = to_object(value.get("result")) if isinstance(value, dict) and "custom_id" in value else {}
    return result.get("type") in _RESULT_TYPES


def _is_batch_request(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "custom_id" in value
        and isinstance(to_object(value.get("params")).get("messages"), list)
    )


def _parse(source: Source, value: Any, line: int, position: int, requests: dict[str, dict[str, Any]]) -> Exchange:
    name = line_id(source, line, position)
    if isinstance(value, list):
        exchange = _exchange({"messages": value}, {}, {}, line, name)
        exchange.session_id = name
        return exchange
    if not isinstance(value, dict):
        raise MalformedRecord(f"the record must be an object, got {json_type(value)}")
    if "custom_id" in value and ("result" in value or "params" in value):
        return _parse_batch_record(source, value, line, requests)
    if _is_response(value):
        return _exchange({}, value, {}, line, name)
    if (parts := split_exchange(value)) is not None:
        return _exchange(*parts, line, name)
    record_id = find_id(value, TRAJECTORY_IDS)
    exchange = _exchange(value, {}, {}, line, name)
    if exchange.session_id is None and (record_id is not None or "max_tokens" not in value):
        exchange.session_id = record_id or name  # a conversation of its own, no request that repeats another
    return exchange


def _add_message(source: Source, single: dict[str, Exchange], value: dict[str, Any], line: int) -> None:
    """Add a message that has a line of its own to the session that it names, or to that of the file."""
    session_id = find_id(value, SESSION_IDS) or file_id(source)
    record = {key: item for key, item in value.items() if key not in SESSION_IDS}
    messages = parse_message(record, 0)
    exchange = single.setdefault(session_id, Exchange(line, session_id, session_id))
    exchange.history += messages
    exchange.has_local_times = exchange.has_local_times or has_local_times([record])


def _parse_batch_record(
    source: Source, value: dict[str, Any], line: int, requests: dict[str, dict[str, Any]]
) -> Exchange:
    [custom_id] = custom_ids([value]) or [line_id(source, line)]
    result = to_object(value.get("result"))
    request = to_object(value.get("params")) or requests.get(custom_id, {})
    response = to_object(result.get("message"))
    kind = result.get("type")
    error = None
    if kind not in (None, "succeeded"):
        error = describe_error(result["error"]) if result.get("error") else kind
        if not request:
            raise MalformedRecord(f"the request {custom_id!r}, which is in no file beside it, failed: {error}")
    exchange = _exchange(request, response, {"custom_id": custom_id}, line, custom_id)
    exchange.session_id = f"{file_id(source)}-{custom_id}"
    if error is not None:
        exchange.error, exchange.error_status = error, "CANCELLED" if kind == "canceled" else "ERROR"
    elif "result" in value and not response:
        raise MalformedRecord(f"the result of {custom_id!r} has no message")
    return exchange


def _exchange(
    request: dict[str, Any], response: dict[str, Any], rest: dict[str, Any], line: int, name: str
) -> Exchange:
    messages = request.get("messages") or []
    if not isinstance(messages, list):
        raise MalformedRecord("'messages' must be a list")
    request_model = request.get("model") if isinstance(request.get("model"), str) else None
    system = parse_message({"role": "system", "content": request["system"]}, 0) if request.get("system") else []
    history = parse_messages(messages, request_model)
    leading = next((i for i, item in enumerate(history) if item.message.role not in ("system", "developer")), 0)
    is_error = response.get("type") == "error" or (bool(response.get("error")) and "content" not in response)
    answer = [] if is_error or not response else _parse_response(response, rest, request_model)
    for item in (*system, *history, *answer):
        item.message.content = to_content(item.message.content)
    if not history and not answer:
        raise MalformedRecord("it has neither messages nor an answer")
    fields = {key: item for key, item in (request | rest).items() if key not in ("messages", "system", *SESSION_IDS)}
    metadata = to_object(request.get("metadata"))
    return Exchange(
        line=line,
        name=name,
        session_id=find_id(rest, SESSION_IDS) or find_id(request, SESSION_IDS) or find_id(metadata, SESSION_IDS),
        system=[*system, *history[:leading]],
        history=history[leading:],
        answer=answer,
        fields=fields,
        model=request_model,
        error=describe_error(response) if is_error else None if answer else find_failure(response, rest),
        created_at=next((item.message.created_at for item in answer), None) or _time_of(rest),
        has_local_times=has_local_times([*messages, rest, response]),
    )


def _time_of(record: dict[str, Any]) -> datetime | None:
    time = find_time(record)
    return time[1] if time else None


def _parse_response(response: dict[str, Any], rest: dict[str, Any], model: str | None) -> list[SourceMessage]:
    record = {key: value for key, value in response.items() if key not in _RESPONSE_FIELDS}
    record |= {"role": "assistant", "content": response.get("content")}
    if find_time(record) is None and (time := find_time(rest)) is not None:
        record[time[0]] = rest[time[0]]
    return parse_message(record, 0, model)
