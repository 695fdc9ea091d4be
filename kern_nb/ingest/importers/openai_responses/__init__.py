"""OpenAI's Responses API: items, as the Agents SDK stores them, and responses, alone or with their requests.

* items, one a line: the file is a session, or those of one ``session_id`` are,
* lists of items, and objects with one in ``items`` or ``input``: a session each,
* responses, ``{"object": "response", "output": [...], "previous_response_id": ...}``, which form trees: two responses
  that continue the same one are two lines of a session. Those of a ``conversation`` follow each other,
* logs, ``{"request": {"input": ...}, "response": {...}}``; a request without ``previous_response_id`` repeats the
  history (`chats.exchanges`).

`items` says what the items map to. ``instructions`` is the system message. A response states its usage
once; ``input_tokens`` include cached ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kern_nb.ingest.chats.batches import iterate_records
from kern_nb.ingest.chats.drafts import SESSION_IDS, TRAJECTORY_IDS, describe_error, file_id, line_id
from kern_nb.ingest.chats.exchanges import ConversationTrees, Exchange, find_failure, in_order, split_exchange
from kern_nb.ingest.chats.fields import find_id, find_time
from kern_nb.ingest.chats.messages import has_local_times, is_message
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, json_type
from kern_nb.ingest.importers.openai_responses.items import are_items, is_item, last_answer, parse_items
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import drop_null, to_object
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message

NAME = "openai_responses"

_ITEMS = ("items", "input_items", "input", "messages")
# The fields of a response that its messages have; the others are the metadata of its session.
_RESPONSE_FIELDS = frozenset({"object", "output", "usage", "instructions", "input", "error", "conversation"})
_ANSWER_FIELDS = ("status", "incomplete_details", "service_tier")


class OpenAIResponses(Importer):
    """Items and responses of OpenAI's Responses API."""

    name = NAME
    reads = "items and responses of OpenAI's Responses API"

    def recognizes(self, source: Source) -> bool:
        """A response, an item with a type of this API, or a list of items."""
        records = [record for head in source.head for record in iterate_records(head)]
        return any(map(_is_record, records)) and not any(map(_is_rollout_header, records))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of each conversation; a tree is several."""
        single: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        exchanges: list[Exchange] = []
        line = position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in iterate_records(item.value):
                position, line = (position + 1 if item.line == line else 1), item.line
                try:
                    if is_item(value) or is_message(value):
                        parse_items([value])  # so that a malformed one does not reject the others
                        single.setdefault(find_id(value, SESSION_IDS) or file_id(source), []).append((line, value))
                    else:
                        exchanges.append(parse_record(value, line, line_id(source, line, position)))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")
        for session_id, items in single.items():
            records = [{key: v for key, v in record.items() if key not in SESSION_IDS} for _, record in items]
            exchange = Exchange(items[0][0], session_id, session_id, history=parse_items(records))
            exchange.has_local_times = has_local_times(records)
            exchanges.append(exchange)
        trees = ConversationTrees()
        for exchange in in_order(exchanges):
            trees.add(exchange)
        yield from trees.drafts(source, NAME)


def is_response(value: Any) -> bool:
    """Whether a value is a response."""
    if not isinstance(value, dict) or not isinstance(value.get("output"), list):
        return False
    return value.get("object") == "response" or are_items(value["output"])


def is_responses_request(value: Any) -> bool:
    """Whether a value is a request to this API."""
    if not isinstance(value, dict) or "messages" in value or "model" not in value:
        return False
    items = value.get("input")
    is_list = isinstance(items, list) and all(is_item(item) or is_message(item) for item in items)
    return (isinstance(items, str) and bool(items)) or (is_list and bool(items))


def _is_record(value: Any) -> bool:
    if is_item(value) or is_response(value) or are_items(value):
        return True
    if not isinstance(value, dict):
        return False
    if (parts := split_exchange(value)) is not None:
        return is_response(parts[1]) or (parts[1].get("object") == "response" and is_responses_request(parts[0]))
    return any(are_items(value.get(key)) for key in _ITEMS) and "choices" not in value


def _is_rollout_header(value: Any) -> bool:
    """Whether it is the first line of an early file of Codex, which has bare items, too."""
    return isinstance(value, dict) and "type" not in value and {"id", "timestamp", "instructions"} <= value.keys()


def parse_record(value: Any, line: int, name: str) -> Exchange:
    """The exchange of a response, a logged request with its response, or a list of items."""
    if isinstance(value, list):
        return Exchange(line, name, name, history=parse_items(value))
    if not isinstance(value, dict):
        raise MalformedRecord(f"the record must be an object, got {json_type(value)}")
    if is_response(value) or value.get("object") == "response":
        return make_exchange({}, value, {}, line, name)
    if (parts := split_exchange(value)) is not None:
        return make_exchange(*parts, line, name)
    key = next((key for key in _ITEMS if isinstance(value.get(key), list)), None)
    if key is None:
        raise MalformedRecord("it is neither an item nor a response, and has no list of items")
    fields = {field: item for field, item in value.items() if field != key}
    session_id = find_id(value, SESSION_IDS) or find_id(value, TRAJECTORY_IDS) or name
    history = parse_items(value[key], value.get("model") if isinstance(value.get("model"), str) else None)
    return Exchange(line, name, session_id, history=history, fields=fields)


def make_exchange(
    request: Mapping[str, Any], response: Mapping[str, Any], rest: Mapping[str, Any], line: int, name: str
) -> Exchange:
    """The exchange of a request, which may be unknown, and its response."""
    response = drop_null(response)
    models = [body.get("model") for body in (response, request) if isinstance(body.get("model"), str)]
    model = models[0] if models else None
    output = response.get("output", [])
    if not isinstance(output, list):
        raise MalformedRecord(f"'output' of the response must be a list, got {json_type(output)}")
    history = _parse_input(request.get("input", response.get("input")), model)
    answer = parse_items(output, model)
    _set_response(history, answer, response, rest)
    if not history and not answer:
        raise MalformedRecord("it has neither input nor output")
    bodies = [rest, request, response]
    conversation = next((body["conversation"] for body in bodies if body.get("conversation")), None)
    conversation = {"id": conversation} if isinstance(conversation, str) else to_object(conversation)
    stated = (find_id(body, SESSION_IDS) or find_id(to_object(body.get("metadata")), SESSION_IDS) for body in bodies)
    session_id = find_id(conversation, ["id"]) or next((value for value in stated if value), None)
    response_id = find_id(response, ["id"])
    instructions = request.get("instructions") or response.get("instructions")
    exchange = Exchange(
        line=line,
        name=response_id or name,
        session_id=session_id,
        system=_parse_input(instructions, None, role="system") if instructions else [],
        history=history,
        answer=answer,
        fields={k: v for body in (request, response, rest) for k, v in body.items() if k not in _RESPONSE_FIELDS},
        model=model,
        id=response_id,
        previous=find_id(response, ["previous_response_id"]) or find_id(request, ["previous_response_id"]),
        conversation=find_id(conversation, ["id"]),
        created_at=parse_time(response.get("created_at")),
    )
    if response.get("error") or response.get("status") in ("failed", "cancelled"):
        exchange.error = describe_error(response.get("error") or response["status"])
        exchange.error_status = "CANCELLED" if response.get("status") == "cancelled" else "ERROR"
    elif response.get("status") in ("queued", "in_progress"):
        exchange.error_status = "INTERRUPTED"
    elif not answer:
        exchange.error = find_failure(response, rest)
    return exchange


def _parse_input(value: Any, model: str | None, role: str = "user") -> list[SourceMessage]:
    if isinstance(value, str):
        return [SourceMessage(Message(role=role, content=value), value)]
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedRecord(f"the input must be a text or a list, got {json_type(value)}")
    return parse_items(value, model)


def _set_response(
    history: list[SourceMessage], answer: list[SourceMessage], response: Mapping[str, Any], rest: Mapping[str, Any]
) -> None:
    """Set what a response states once on the last message of its output, and its times."""
    message = last_answer(answer)
    if message is None:
        return
    message.usage = parse_usage(response.get("usage"), rest)
    started, logged = parse_time(response.get("created_at")), find_time(rest)
    ended = parse_time(response.get("completed_at"))
    for item in answer:
        item.message.created_at = item.message.created_at or ended or started or (logged[1] if logged else None)
    if started and ended and history and history[-1].message.created_at is None:
        history[-1].message.created_at = started
    facts = {key: response[key] for key in (*_ANSWER_FIELDS, "id", "usage") if key in response}
    facts["response_id"] = facts.pop("id", None)
    message.extra = message.extra | drop_null(facts)
    index = max(i for i, item in enumerate(answer) if item.message is message)
    answer[index] = answer[index]._replace(record=[answer[index].record, facts])
