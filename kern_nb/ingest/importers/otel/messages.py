"""The messages of a model's input or output as a stream of pieces: texts, calls, results.

Instrumentations cut the same conversation into messages differently: an answer with two parallel calls is one output
message and two messages of the next input, and the result of a tool may be a part of a user's message. Texts, call ids
and result ids are the same in all of them, so inputs are compared by these; reasoning, which a next input may lack,
is not compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.parsing.values import to_args, to_list, to_object, without
from kern_nb.records import Message, ToolCall

_REASONING_TYPES = frozenset({"reasoning", "thinking", "redacted_thinking"})
_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "refusal"})
_CALL_TYPES = frozenset({"tool_call", "tool_use", "function_call", "server_tool_call", "server_tool_use"})
_RESULT_TYPES = frozenset(
    {"tool_call_response", "tool_result", "function_call_output", "server_tool_call_response", "web_search_tool_result"}
)
_MEDIA_TYPES = frozenset({"image", "audio", "video", "document", "file", "image_url", "audio_url", "video_url"})
_RESULT_PART_TYPES = _TEXT_TYPES | _MEDIA_TYPES | {"blob", "uri"}
_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "function": "tool", "developer": "system"}
_ROLE = re.compile(r'"role"\s*:\s*"(\w+)"')


@dataclass(slots=True)
class Piece:
    """A part of a message, a call or a result.

    Attributes:
        role: system, user, assistant or tool.
        kind: text, part, reasoning, call or result.
        value: The text, the part, the `ToolCall` or the tool's `Message`; None for a text that was not recorded.
        record: The JSON that it was parsed from.
        key: What it is compared by; None for what is not compared.
        message: The position of its message.
        extra: The other fields of its message.
    """

    role: str
    kind: str
    value: Any
    record: Any
    key: Any
    message: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


Cache: TypeAlias = "dict[int, tuple[Any, list[Piece]]]"
"""The messages of the input before by position, and their pieces: most inputs begin with the same messages."""


def parse_messages(messages: Iterable[Any], default_role: str = "user", cache: Cache | None = None) -> list[Piece]:
    """The pieces of messages in any of the layouts: GenAI conventions, chat, Anthropic's blocks, Responses items."""
    pieces: list[Piece] = []
    for index, message in enumerate(messages):
        if cache is not None and index in cache and cache[index][0] == message:
            pieces += cache[index][1]
            continue
        parsed = list(_parse_message(message, default_role))
        for piece in parsed:
            piece.message = index
        pieces += parsed
        if cache is not None:
            cache[index] = message, parsed
    return pieces


def parse_value(value: Any, role: str) -> list[Piece]:
    """The pieces of an undocumented input or output: a request, a response, messages, or a text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return parse_messages([{"role": role, "content": value}])
    if isinstance(value, dict):
        for key in ("messages", "choices", "input", "output"):
            items = value.get(key)
            if key == "input" and isinstance(items, str) and items and "model" in value:  # of the Responses API
                items = [{"role": role, "content": items}]
            if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
                system = value.get("system", value.get("instructions"))
                start = [{"role": "system", "content": system}] if system and role == "user" else []
                return parse_messages([*start, *(to_object(item.get("message")) or item for item in items)], role)
        if isinstance(value.get("role"), str) or value.get("type") in ("function_call", "function_call_output"):
            return parse_messages([value], role)
    elif isinstance(value, list) and any(
        isinstance(item, dict) and ("role" in item or "type" in item) for item in value
    ):
        return parse_messages(value, role)
    if value in (None, "", {}, []):
        return []
    return parse_messages([{"role": role, "content": value}])


def parse_json_messages(text: Any, default_role: str, cache: Cache | None = None) -> tuple[list[Piece], str | None]:
    """The pieces of an attribute with messages as JSON, and the rest of one that was truncated."""
    if not isinstance(text, str):
        return parse_messages(text if isinstance(text, list) else [text], default_role, cache) if text else [], None
    try:
        value = json.loads(text)
        return parse_messages(value if isinstance(value, list) else [value], default_role, cache), None
    except (ValueError, RecursionError):
        pass
    decode = json.JSONDecoder().raw_decode
    items: list[Any] = []
    at = len(text) - len(text.lstrip("[ \n\r\t"))
    try:
        while at < len(text):
            item, at = decode(text, at)
            items.append(item)
            at += len(text[at:]) - len(text[at:].lstrip(", \n\r\t"))
    except (ValueError, RecursionError):
        pass
    rest = text[at:].strip("] \n\r\t")
    if not items and rest:
        if text[:1] not in ("[", "{"):  # no JSON at all
            return parse_messages([text], default_role), None
        match = _ROLE.search(rest)
        items, rest = [{"role": match[1] if match else default_role, "text": text, "truncated": True}], ""
    return parse_messages(items, default_role), rest or None


def _parse_message(message: Any, default_role: str) -> Iterator[Piece]:
    if message is None:
        return
    if not isinstance(message, dict):
        yield _text(default_role, message if isinstance(message, str) else json.dumps(message), message)
        return
    role = message.get("role")
    role = role.lower() if isinstance(role, str) and role else default_role
    role = _ROLES.get(role, role)
    if role not in ("system", "user", "assistant", "tool"):
        role = default_role
    kind = message.get("type")
    if isinstance(kind, str) and "role" not in message and kind in _CALL_TYPES | _RESULT_TYPES | _REASONING_TYPES:
        yield from _parse_part(message, "assistant")  # an item of the Responses API
        return
    extra = {key: message[key] for key in ("finish_reason", "name", "truncated") if message.get(key) not in (None, "")}
    if role == "tool" and "parts" not in message:
        content = message.get("content", message.get("contents"))
        yield _result(message.get("tool_call_id", message.get("id")), message.get("name"), content, message)
        return
    pieces = list(_parse_body(message, role))
    for piece in pieces:
        if piece.role == role:
            piece.extra = extra
    yield from pieces


def _parse_body(message: dict[str, Any], role: str) -> Iterator[Piece]:
    """The pieces of a message: some instrumentations write the same text as parts and as a string."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            yield Piece(role, "reasoning", {"type": "reasoning", "reasoning": message[name]}, message[name], None)
    if message.get("truncated") is True and isinstance(message.get("text"), str):
        yield _text(role, message["text"], message["text"])
        return
    for name in ("parts", "contents", "content"):
        pieces = list(_parse_content(message.get(name), role))
        yield from pieces
        if any(piece.kind == "text" for piece in pieces):
            break
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        yield _text(role, message["refusal"], {"refusal": message["refusal"]})
    for call in to_list(message.get("tool_calls")) or [message.get("function_call")]:
        if isinstance(call, dict) and call:
            yield _call(call)


def _parse_content(content: Any, role: str) -> Iterator[Piece]:
    if isinstance(content, str) and content[:2] == "[{":
        content = _decode_parts(content)
    if isinstance(content, list):
        for part in content:
            yield from _parse_part(part, role)
    elif content not in (None, ""):
        yield _text(role, content if isinstance(content, str) else json.dumps(content), content)


def _decode_parts(text: str) -> Any:
    """Message parts that an instrumentation has written as JSON; else the text."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parts if all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts) else text


def _parse_part(part: Any, role: str) -> Iterator[Piece]:
    if not isinstance(part, dict):
        if part not in (None, ""):
            yield _text(role, part if isinstance(part, str) else json.dumps(part), part)
        return
    kind = part.get("type") or part.get("kind")
    kind = kind if isinstance(kind, str) else "text" if "text" in part or "content" in part else ""
    text = part.get("content", part.get("text", part.get("refusal")))
    if kind in _TEXT_TYPES:
        yield _text(role, text if isinstance(text, str) or text is None else json.dumps(text), part)
    elif kind in _REASONING_TYPES:
        summary = [str(s["text"]) for s in to_list(part.get("summary")) if isinstance(s, dict) and s.get("text")]
        text = text if text is not None else part.get("thinking", "\n".join(summary) or None)
        rest = without(part, ("type", "content", "text", "summary"))
        body = {} if text is None else {"thinking" if kind == "thinking" else "reasoning": text}
        yield Piece("assistant", "reasoning", {"type": kind, **body, **rest}, part, None)
    elif kind in _CALL_TYPES:
        yield _call(part)
    elif kind in _RESULT_TYPES:
        values = (part.get(name) for name in ("result", "response", "output", "content", "server_tool_call_response"))
        ids = (part.get(name) for name in ("tool_call_id", "tool_use_id", "call_id", "id"))
        content = next((value for value in values if value is not None), None)
        yield _result(next((value for value in ids if value), None), part.get("name"), content, part)
    else:
        yield _media(role, kind, part)


def _text(role: str, text: str | None, record: Any) -> Piece:
    return Piece(role, "text", text, record, (role, None if text is None else text.strip()))


def _media(role: str, kind: str, part: dict[str, Any]) -> Piece:
    """A part that is no text, under a type that the store knows; its own type stays beside."""
    modality = part.get("modality") or str(part.get("mime_type", part.get("media_type", ""))).partition("/")[0]
    modality = modality if isinstance(modality, str) else ""
    media_type = next((name for name in (kind, kind.replace("-", "_"), modality) if name in _MEDIA_TYPES), "media")
    value = part if media_type == kind else {**part, "type": media_type, "source_type": kind}
    return Piece(role, "part", value, part, (role, "part", _canonical(part)))


def _call(record: dict[str, Any]) -> Piece:
    body = next((b for n in ("function", "custom", "server_tool_call") if (b := to_object(record.get(n)))), record)
    name = body.get("name", record.get("name"))
    args = next((body[n] for n in ("arguments", "input", "args") if body.get(n) is not None), None)
    args, notes = to_args(args)
    call = ToolCall(tool_call_id=_id(record.get("call_id"), record.get("id")), tool_name=_name(name), args=args)
    call.extra = notes
    key = ("call", call.tool_call_id) if call.tool_call_id else ("call", call.tool_name, _canonical(args))
    return Piece("assistant", "call", call, record, key)


def _result(call_id: Any, name: Any, content: Any, record: Any) -> Piece:
    message = Message(role="tool", content=_result_content(content), tool_call_id=_id(call_id), tool_name=_name(name))
    if isinstance(record, dict) and isinstance(record.get("is_error"), bool):
        message.is_error = record["is_error"]
    key = ("result", message.tool_call_id) if message.tool_call_id else ("result", _name(name), _canonical(content))
    return Piece("tool", "result", message, record, key)


def _result_content(content: Any) -> Any:
    """The content of a result; the conventions have the text of a part as its ``content``."""
    parts = to_list(content)
    kinds = {part.get("type") if isinstance(part, dict) else None for part in parts}
    if "text" not in kinds or not all(isinstance(kind, str) and kind in _RESULT_PART_TYPES for kind in kinds):
        return content
    values = [piece.value for part in parts for piece in _parse_part(part, "tool")]
    texts = [{"type": "text", "text": value} if isinstance(value, str) else value for value in values]
    return values[0] if len(values) == 1 else [value for value in texts if value is not None]


def _id(*values: Any) -> str | None:
    """The first id; numbers become text."""
    return next((str(value) for value in values if type(value) in (str, int) and value != ""), None)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _canonical(value: Any) -> str:
    """A hash of a JSON value that does not depend on the order of keys."""
    try:
        return hash_record(json.dumps(value, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        return hash_record(repr(value))


class Thread:
    """The conversation of an agent as far as it is read: which pieces of a next input are new.

    A conversation may be left for another one, such as the call that writes a title, and come back: each one is a
    context of its own, and an input extends the context that it shares most with.
    """

    _MAX_CONTEXTS = 20

    def __init__(self) -> None:
        self.cache: Cache = {}
        self._contexts: list[list[Any]] = [[]]
        self._systems: set[Any] = set()
        self._keys: set[Any] = set()

    def copy(self) -> Thread:
        """Return a copy: what is read with it leaves this one as it is."""
        thread = Thread()
        thread._contexts = list(self._contexts)  # each context is replaced, never changed
        thread._systems, thread._keys = set(self._systems), set(self._keys)
        return thread

    def remember(self, pieces: list[Piece]) -> None:
        """Add what was said before."""
        self._systems.update(piece.key for piece in pieces if piece.role == "system")
        self.append([piece for piece in pieces if piece.role != "system"])

    def has_any(self, pieces: Iterable[Piece]) -> bool:
        """Whether one of the texts of a user is in the conversation."""
        return any(piece.key in self._keys for piece in pieces if piece.role == "user")

    def extend(self, pieces: list[Piece], *, is_first: bool = False, is_record: bool = False) -> list[Piece]:
        """Return the new pieces of an input; with ``is_record``, of a whole conversation that nothing else follows.

        ``is_first`` says that the input is the first one of a run: at least its prompt is new.
        """
        systems = [p for p in pieces if p.role == "system" and p.key not in self._systems]
        self._systems.update(p.key for p in systems)
        compared = [p for p in pieces if p.key is not None and p.role != "system"]
        keys = [p.key for p in compared]
        context, start, (first, end) = self._choose(keys)
        new = compared[start:]
        if end or (is_record and start < len(context)):  # what is before the known part may be a summary of the rest
            new = [p for p in compared[start:first] if p.key not in self._keys] + (compared[end:] if end else [])
        if is_first and not new:
            last = max((i for i, p in enumerate(compared) if p.role != "user"), default=-1)
            new = compared[last + 1 :]
        if start == len(context) or not keys:
            self._contexts.remove(context)
        if keys or not self._contexts:
            self._contexts.append(keys or context)
        del self._contexts[: -self._MAX_CONTEXTS]
        self._keys.update(keys)
        results = next((i for i, p in enumerate(new) if p.kind != "result"), len(new))  # they follow their calls
        return new[:results] + systems + _with_reasoning(pieces, new[results:])

    def _choose(self, keys: list[Any]) -> tuple[list[Any], int, tuple[int, int]]:
        """The context that shares most with an input, how much of its start, and where the input repeats its end."""
        starts = [(_common_prefix(context, keys), context) for context in reversed(self._contexts)]
        start, context = max(starts, key=lambda pair: pair[0])
        if start == len(keys) or (start and start == len(context)):
            return context, start, (len(keys), 0)
        ends = [(n, context, _find_end(context, keys, n)) for n, context in starts]
        start, context, bounds = max(ends, key=lambda item: item[0] + max(0, item[2][1] - item[2][0]))
        return context, start, bounds

    def append(self, pieces: list[Piece]) -> None:
        """Add a response to the conversation that the last input extends."""
        keys = [p.key for p in pieces if p.key is not None]
        self._contexts[-1] = self._contexts[-1] + keys
        self._keys.update(keys)


def _common_prefix(first: list[Any], second: list[Any]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _find_end(context: list[Any], keys: list[Any], start: int) -> tuple[int, int]:
    """Where an input repeats the end of a context: the start and the end of the longest such part; else (n, 0)."""
    best, bounds = 0, (len(keys), 0)
    for end in range(len(keys), start, -1):
        length = 0
        while length < min(end - start, len(context)) and keys[end - 1 - length] == context[-1 - length]:
            length += 1
        if length > best:
            best, bounds = length, (end - length, end)
    return bounds


def _with_reasoning(pieces: list[Piece], new: list[Piece]) -> list[Piece]:
    """Add the reasoning before or after the new pieces of the same answer, which is not compared."""
    chosen = {id(piece) for piece in new}
    result: list[Piece] = []
    pending: list[Piece] = []
    for piece in pieces:
        if piece.key is None:
            pending.append(piece)
        elif piece.role != "system":
            if id(piece) in chosen:
                result += [*(pending if piece.role == "assistant" else []), piece]
            pending = []
    return result
