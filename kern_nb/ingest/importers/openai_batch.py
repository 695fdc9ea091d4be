"""OpenAI's batches, stored completions, and logs of requests to the chat API with their responses.

* results of a batch, ``{"custom_id": ..., "response": {"body": ...}, "error": ...}``: the file with the requests lies
  beside, and is read with them (``custom_id``; the order differs). Errors may be in a file of their own,
* requests of a batch, ``{"custom_id": ..., "url": ..., "body": ...}``, alone: prompts without an answer,
* completions, ``{"object": "chat.completion", "choices": [...]}``, as the API lists those that it stored; the prompt
  may be in ``messages`` or ``input``,
* logs, ``{"request": {"messages": ...}, "response": {"choices": ...}}``, and records with ``messages`` and ``choices``:
  each request repeats the history (`chats.exchanges`). A response may be one of Ollama's own API.

A session of a batch is named after the file and its ``custom_id``. Further choices are further lines of the session.
A body of the Responses API is read as its importer does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kern_nb.ingest.chats.batches import custom_ids, iterate_records, read_requests, request_files
from kern_nb.ingest.chats.drafts import SESSION_IDS, describe_error, file_id, line_id
from kern_nb.ingest.chats.exchanges import (
    FIRST_ERROR_STATUS,
    ConversationTrees,
    Exchange,
    find_failure,
    in_order,
    split_exchange,
)
from kern_nb.ingest.chats.fields import find_id, find_time
from kern_nb.ingest.chats.messages import has_local_times, is_message, parse_message, parse_messages
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, json_type
from kern_nb.ingest.importers.openai_responses import is_response, is_responses_request, make_exchange
from kern_nb.ingest.parsing.values import drop_null, to_object
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

NAME = "openai_batch"

_ENDPOINTS = ("/chat/completions", "/responses", "/completions")
# The fields of a completion that its message has.
_COMPLETION_FIELDS = ("id", "usage", "created", "created_at", "service_tier", "system_fingerprint")
_MAPPED_FIELDS = frozenset({"choices", "messages", "message", "input", "object", "usage", "error"})


class OpenAIBatch(Importer):
    """Batches, stored completions and logged requests of OpenAI's chat API."""

    name = NAME
    reads = "batches, stored completions and logs of OpenAI's chat API"

    def recognizes(self, source: Source) -> bool:
        """Requests or results of a batch, completions, or requests with completions."""
        return any(_is_record(record) for head in source.head for record in iterate_records(head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of each conversation; a tree is several."""
        exchanges: list[Exchange] = []
        requests: dict[str, dict[str, Any]] | None = None
        line = position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in iterate_records(item.value):
                position, line = (position + 1 if item.line == line else 1), item.line
                if requests is None and _is_result(value):
                    requests = read_requests(source, is_request=is_batch_request)
                try:
                    exchanges.append(_parse(source, value, line, position, requests or {}))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")
        trees = ConversationTrees()
        for exchange in in_order(exchanges):
            trees.add(exchange)
        yield from trees.drafts(source, NAME)

    def companions(self, source: Source) -> Iterable[Path]:
        """The requests of a file with results."""
        ids = custom_ids(filter(_is_result, (record for head in source.head for record in iterate_records(head))))
        return request_files(source, ids, is_request=is_batch_request) if ids else ()


def is_batch_request(value: Any) -> bool:
    """Whether a value is a request of a batch to a model that answers in words."""
    if not isinstance(value, dict) or "custom_id" not in value:
        return False
    url, body = value.get("url"), to_object(value.get("body"))
    if isinstance(url, str) and not url.endswith(_ENDPOINTS):
        return False
    return isinstance(body.get("messages"), list) or is_responses_request(body) or isinstance(body.get("prompt"), str)


def _is_result(value: Any) -> bool:
    if not isinstance(value, dict) or "custom_id" not in value or "response" not in value:
        return False
    body = to_object(to_object(value["response"]).get("body"))
    return "choices" in body or is_response(body) or bool(value.get("error") or body.get("error"))


def _is_completion(value: Any) -> bool:
    choices = value.get("choices") if isinstance(value, dict) else None
    return isinstance(choices, list) and any(isinstance(choice, dict) and _said(choice) for choice in choices)


def _said(choice: Mapping[str, Any]) -> Any:
    """The message of a choice, or the text of an older API."""
    message, text = choice.get("message"), choice.get("text")
    return message if is_message(message) else {"role": "assistant", "content": text} if isinstance(text, str) else None


def _is_record(value: Any) -> bool:
    if is_batch_request(value) or _is_result(value) or _is_completion(value):
        return True
    parts = split_exchange(value)
    if parts is None or "messages" not in parts[0]:
        return False
    return _is_completion(parts[1]) or ("done" in parts[1] and is_message(parts[1].get("message")))


def _parse(source: Source, value: Any, line: int, position: int, requests: Mapping[str, dict[str, Any]]) -> Exchange:
    if not isinstance(value, dict):
        raise MalformedRecord(f"the record must be an object, got {json_type(value)}")
    name = line_id(source, line, position)
    if "custom_id" in value:
        return _parse_batch_record(source, value, line, requests)
    if _is_completion(value):
        request = {"messages": value.get("messages") or value.get("input") or []}
        exchange = _exchange(request, value, {}, line, find_id(value, ["id"]) or name)
        if not exchange.history:  # without its prompt, each answer is a conversation of its own
            exchange.session_id = exchange.session_id or exchange.name
        return exchange
    if (parts := split_exchange(value)) is None:
        raise MalformedRecord("it is neither a completion nor a request with its response")
    return _exchange(*parts, line, name)


def _parse_batch_record(
    source: Source, value: dict[str, Any], line: int, requests: Mapping[str, dict[str, Any]]
) -> Exchange:
    custom_id = find_id(value, ["custom_id"]) or str(line)
    url = value.get("url")
    if isinstance(url, str) and not url.endswith(_ENDPOINTS):
        raise MalformedRecord(f"a request to {url} is no conversation")
    response = to_object(value.get("response"))
    body = to_object(response.get("body"))
    request = to_object(value.get("body")) or requests.get(custom_id, {})
    rest = {"custom_id": custom_id, "url": url, "batch_request_id": find_id(value, ["id"])}
    error = _find_error(value, response, body)
    if error and not request:
        raise MalformedRecord(f"the request {custom_id!r}, which is in no file beside it, failed: {error}")
    exchange = _exchange(request, {} if error else body, drop_null(rest), line, custom_id)
    exchange.session_id, exchange.previous, exchange.id = f"{file_id(source)}-{custom_id}", None, None
    exchange.error = error or exchange.error
    return exchange


def _find_error(value: dict[str, Any], response: dict[str, Any], body: dict[str, Any]) -> str | None:
    error = value.get("error") or (None if is_response(body) else body.get("error"))
    if error:
        return describe_error(error)
    status = response.get("status_code")
    return f"status {status}" if type(status) is int and status >= FIRST_ERROR_STATUS else None


def _exchange(
    request: Mapping[str, Any], response: Mapping[str, Any], rest: Mapping[str, Any], line: int, name: str
) -> Exchange:
    if is_responses_request(request) or is_response(response):
        return make_exchange(request, response, rest, line, name)
    messages = request.get("messages") or []
    if isinstance(request.get("prompt"), str):
        messages = [{"role": "user", "content": request["prompt"]}]
    if not isinstance(messages, list):
        raise MalformedRecord(f"'messages' must be a list, got {json_type(messages)}")
    models = [body.get("model") for body in (response, request) if isinstance(body.get("model"), str)]
    model = models[0] if models else None
    history = parse_messages(messages, model)
    leading = next((i for i, item in enumerate(history) if item.message.role not in ("system", "developer")), 0)
    bodies = (rest, request, response, *(to_object(body.get("metadata")) for body in (rest, request, response)))
    error = response.get("error")
    exchange = Exchange(
        line=line,
        name=name,
        session_id=next((value for value in (find_id(body, SESSION_IDS) for body in bodies) if value), None),
        system=history[:leading],
        history=history[leading:],
        fields={k: v for body in (request, response, rest) for k, v in body.items() if k not in _MAPPED_FIELDS},
        model=model,
        error=describe_error(error) if error else None,
        has_local_times=has_local_times([*messages, rest]),
    )
    choices = response.get("choices")
    if choices is None and is_message(response.get("message")):  # Ollama's own API
        choices = [
            {
                "message": response["message"],
                "finish_reason": response.get("done_reason"),
                "usage": _ollama_usage(response),
            }
        ]
    answers = [
        _parse_choice(choice, response, rest, model, is_first=index == 0)
        for index, choice in enumerate(choices if isinstance(choices, list) else ())
    ]
    if not history and not answers:
        raise MalformedRecord("it has neither messages nor an answer")
    if exchange.error is None and not answers:
        exchange.error = find_failure(response, rest)
    exchange.answer, exchange.alternatives = answers[:1], answers[1:]
    exchange.created_at = answers[0].message.created_at if answers else (find_time(rest) or (None, None))[1]
    return exchange


def _ollama_usage(response: Mapping[str, Any]) -> dict[str, Any]:
    return {key: response[key] for key in ("prompt_eval_count", "eval_count") if key in response}


def _parse_choice(
    choice: Any, response: Mapping[str, Any], rest: Mapping[str, Any], model: str | None, *, is_first: bool
) -> SourceMessage:
    message = _said(choice) if isinstance(choice, dict) else None
    if message is None:
        raise MalformedRecord("a choice has no message")
    facts = {key: value for key, value in choice.items() if key not in ("message", "text", "index", "delta")}
    facts = drop_null(facts) | {key: response[key] for key in _COMPLETION_FIELDS if response.get(key) is not None}
    if not is_first:
        facts.pop("usage", None)  # it is that of all choices
    if is_first and (cost := rest.get("cost", rest.get("response_cost"))) is not None:
        facts["cost"] = cost
    if find_time(facts) is None and (time := find_time(rest)) is not None:
        facts[time[0]] = rest[time[0]]
    [item] = parse_message(facts | drop_null(message), 0, model)
    return item
