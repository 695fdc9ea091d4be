"""Training data: ShareGPT, the prompt and preference layouts of TRL and OpenAI's fine-tuning, Alpaca.

* ShareGPT: ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}``. ``function_call``
  has the JSON of a call, ``observation`` and ``tool`` its result; calls in ``<tool_call>`` tags are read, too,
* TRL: ``prompt`` and ``completion``, each a text or a list of messages,
* preferences: ``chosen`` and ``rejected`` with or without ``prompt``, or ``preferred_output`` and
  ``non_preferred_output``: the chosen answer is the main line of the session, the rejected one a further line; each has
  its ``score_chosen`` or ``score_rejected``,
* Alpaca: ``instruction``, ``input`` and ``output``, with the turns before in ``history``.

Other fields are metadata. A session's id is the record's ``id``, else the path of the file and the number of the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.chats.batches import iterate_records
from kern_nb.ingest.chats.drafts import SESSION_IDS, Conversation, line_id, make_draft
from kern_nb.ingest.chats.fields import find_id
from kern_nb.ingest.chats.messages import has_local_times, is_message, parse_messages, says_something
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, error_text, json_type
from kern_nb.ingest.parsing.values import decode_json, drop_null, to_object
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

NAME = "sharegpt"

_TURNS = ("conversations", "conversation")
_CALL_SPEAKERS = frozenset({"function_call", "tool_call"})
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "bing": "assistant", "assistant": "assistant", "model": "assistant", "system": "system", "observation": "tool",
    "tool": "tool", "tool_response": "tool", "function_response": "tool",
}  # fmt: skip
_PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
# Transcripts as one text, as in hh-rlhf.
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class ShareGPT(Importer):
    """Conversations and preferences for the training of models."""

    name = NAME
    reads = "training data: ShareGPT, TRL and OpenAI preferences, Alpaca"

    def recognizes(self, source: Source) -> bool:
        """Turns with ``from`` and ``value``, a prompt with answers, or an instruction with its output."""
        return any(_is_record(record) for head in source.head for record in iterate_records(head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per record; one more for a rejected answer."""
        line = position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            for value in iterate_records(item.value):
                position, line = (position + 1 if item.line == line else 1), item.line
                try:
                    yield from list(_drafts(source, value, line, position))
                except RECORD_ERRORS as error:
                    yield Problem(source.name, line, f"The record is not imported: {error_text(error)}.")


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    value = drop_null(value)
    if any(_are_turns(value.get(key)) for key in _TURNS):
        return True
    if any(_is_text(value.get(key)) for pair in _PREFERENCES for key in pair):
        return "prompt" in value or "input" in value or all(_is_text(value.get(key)) for key in _PREFERENCES[0])
    if _is_text(value.get("prompt")) and _is_text(value.get("completion")):
        return True
    is_alpaca = isinstance(value.get("instruction"), str) and isinstance(value.get("output"), str)
    return is_alpaca and isinstance(value.get("input", ""), str) and "messages" not in value


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(turn, dict) and isinstance(turn.get("from"), str) and turn.get("value") for turn in value
    )


def _is_text(value: Any) -> bool:
    """Whether a value is a text, a message or a list of messages."""
    if isinstance(value, dict):
        return _are_turns([value]) or says_something(value)
    return (isinstance(value, str) and bool(value)) or (isinstance(value, list) and any(map(says_something, value)))


def _drafts(source: Source, value: Any, line: int, position: int) -> Iterator[Draft]:
    if not isinstance(value, dict):
        raise MalformedRecord(f"the record must be an object, got {json_type(value)}")
    record = drop_null(value)
    lines, mapped = _parse(record)
    fields = {key: item for key, item in record.items() if key not in mapped}
    model = record["model"] if isinstance(record.get("model"), str) else None
    session_id = find_id(record, (*SESSION_IDS, "id")) or line_id(source, line, position)
    if lines.get("chosen") == lines.get("rejected"):
        lines.pop("rejected", None)
    for preference, messages in lines.items():
        if not any(map(says_something, messages)):
            raise MalformedRecord("its messages have neither text nor calls")
        metadata = fields | {"preference": preference} if preference else fields
        if preference and f"score_{preference}" in fields:
            metadata = {"score": fields[f"score_{preference}"]} | metadata
        parsed = parse_messages(messages, model)
        conversation = Conversation(session_id, line, parsed, metadata, model, has_local_times(messages))
        yield make_draft(source, NAME, conversation)


def _parse(record: dict[str, Any]) -> tuple[dict[str, list[Any]], set[str]]:
    """The messages of each line of a record, by its preference, and the fields that they come from."""
    mapped = {"system", *_TURNS} if any(isinstance(record.get(key), list) for key in _TURNS) else {"system"}
    system = record.get("system")
    start = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    start += next((_to_messages(record[key]) for key in _TURNS if isinstance(record.get(key), list)), [])
    for names in _PREFERENCES:
        pair = {name: record[name] for name in names if name in record}
        if pair:
            start += _find_prompt(record, pair)
            labels = dict(zip(names, ("chosen", "rejected"), strict=True))
            # With a prompt beside, each answer may still be the whole conversation.
            lines = {
                labels[name]: _to_messages(answer, "assistant") if _is_whole(answer) else [*start, *_to_answer(answer)]
                for name, answer in pair.items()
            }
            return lines, mapped | {"prompt", "input", "messages", *names}
    if "completion" in record:
        return {"": [*start, *_to_messages(record.get("prompt")), *_to_answer(record["completion"])]}, mapped | {
            "prompt", "completion",
        }  # fmt: skip
    if "instruction" in record and not any(key in record for key in _TURNS):
        return {"": [*start, *_parse_alpaca(record)]}, mapped | {"instruction", "input", "output", "history"}
    if not start:
        raise MalformedRecord("it has neither turns, nor a prompt with an answer, nor an instruction")
    return {"": start}, mapped


def _find_prompt(record: dict[str, Any], pair: dict[str, Any]) -> list[Any]:
    if all(map(_is_whole, pair.values())):
        return []
    prompt = record.get("prompt", record.get("input"))
    return _to_messages(to_object(prompt).get("messages", prompt))


def _is_whole(answer: Any) -> bool:
    """Whether an answer repeats the conversation before it."""
    if isinstance(answer, str):
        return _SPEAKER.match(answer) is not None
    return isinstance(answer, list) and any(_role(turn) == "user" for turn in answer)


def _role(turn: Any) -> Any:
    turn = to_object(turn)
    speaker = turn.get("from")
    return _ROLES.get(speaker.lower(), speaker) if isinstance(speaker, str) else turn.get("role")


def _to_answer(value: Any) -> list[Any]:
    return _to_messages(value, "assistant")


def _to_messages(value: Any, role: str = "user") -> list[Any]:
    """The messages of a text, of one turn or of a list of them."""
    if isinstance(value, str):
        parts = _SPEAKER.split(value)
        if len(parts) > 1:
            speakers = ({"Human": "user"}.get(name, "assistant") for name in parts[1::2])
            return [{"role": r, "content": text} for r, text in zip(speakers, parts[2::2], strict=True)]
        return [{"role": role, "content": value}]
    if isinstance(value, dict):
        value = [value]
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedRecord(f"messages must be a list, got {json_type(value)}")
    return [turn if is_message(turn) else _parse_turn(turn, index) for index, turn in enumerate(value)]


def _parse_turn(turn: Any, index: int) -> dict[str, Any]:
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        raise MalformedRecord(f"turn {index} must be an object with a speaker")
    content = next((turn[key] for key in ("value", "content", "text") if turn.get(key) is not None), None)
    message = {key: item for key, item in turn.items() if key not in ("from", "value", "content", "text")}
    speaker: str = turn["from"].lower().replace("-", "_")
    if speaker in _CALL_SPEAKERS:
        calls = _parse_calls(content)
        return message | {"role": "assistant"} | ({"tool_calls": calls} if calls else {"content": content})
    message |= {"role": _ROLES.get(speaker, speaker), "content": content}
    if message["role"] == "assistant" and isinstance(content, str):
        texts = [part.partition("</tool_call>")[0].strip() for part in content.split("<tool_call>")[1:]]
        calls = [call for text in texts for call in _parse_calls(text)]
        message |= {"tool_calls": calls} if calls else {}
    return message


def _parse_calls(value: Any) -> list[dict[str, Any]]:
    """The calls in the JSON of a turn; none if it is no such JSON, whose text then is the content."""
    value = decode_json(value) if isinstance(value, str) else value
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"function": {"name": c["name"], "arguments": c.get("arguments", c.get("parameters"))}} for c in calls]


def _parse_alpaca(record: dict[str, Any]) -> list[Any]:
    history = record.get("history")
    messages = []
    for turn in history if isinstance(history, list) else ():
        if not isinstance(turn, list) or len(turn) != 2:  # noqa: PLR2004 - a pair
            raise MalformedRecord("a turn of 'history' must be a prompt and an answer")
        messages += [{"role": r, "content": text} for r, text in zip(("user", "assistant"), turn, strict=True)]
    texts = [record.get(key) for key in ("instruction", "input")]
    prompt = "\n".join(text for text in texts if isinstance(text, str) and text)
    return [*messages, {"role": "user", "content": prompt}, {"role": "assistant", "content": record.get("output")}]
