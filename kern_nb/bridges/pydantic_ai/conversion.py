"""`PartConverter`: the messages of a pydantic-ai run as messages of ours, each part once.

A request of pydantic-ai has several parts (the prompt, results of tools), each of which is a message of ours; a
response is one. A capability may replace messages by copies and add parts to a request that is stored already, so a
part is recognized by what it is, not by its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import messages as pai

from kern_nb.extra_keys import BY_TOOL, MODEL_MESSAGE
from kern_nb.interop import media, messages
from kern_nb.records import Message

_REQUEST_PART: TypeAdapter[Any] = TypeAdapter(pai.ModelRequestPart)
INSTRUCTIONS = "instructions"
"""The key of the part in ``internal``, in a system message: the request's instructions, which are no part of it."""


class PartConverter:
    """Converts the messages of one run, and knows which parts are converted already.

    Args:
        keep: Stores the bytes of files.
        start: The position of the first message, in a run that is resumed.
        ended_calls: The calls that have a result.
    """

    def __init__(self, keep: media.Keep, start: int = 0, ended_calls: Sequence[str | None] = ()) -> None:
        self._keep = keep
        self._next = start
        self._known: dict[Any, int] = {}  # the position of each part, by the object and by what it is
        self._results = dict.fromkeys(ended_calls, start - 1)  # the position of each call's result
        self._instructions: str | None = None
        self._held: list[Any] = []  # an object that is known by its id() must not be freed

    def convert(self, new: Sequence[pai.ModelMessage], prompt: Any = None) -> list[Message]:
        """Convert the parts that are not converted yet; a part with the content ``prompt`` is the run's input."""
        converted: list[Message] = []
        for message in new:
            converted += self._response(message) if isinstance(message, pai.ModelResponse) else []
            converted += self._request(message, prompt) if isinstance(message, pai.ModelRequest) else []
        return converted

    def convert_result(self, tool_call_id: str, tool_name: str, value: Any, *, is_error: bool = False) -> Message:
        """Convert what a tool returned, before the request that has it exists: that one comes next."""
        self._results[tool_call_id] = self._next
        output = media.store_result(value, self._keep)
        message = messages.result_message(tool_call_id, tool_name, output, is_error=is_error)
        message.internal[MODEL_MESSAGE] = self._next
        return message

    def _response(self, response: pai.ModelResponse) -> Iterator[Message]:
        key = ("response", response.timestamp, response.provider_response_id)
        if key in self._known:
            return
        self._known[key] = self._next
        for call in response.tool_calls:  # some providers use an id again
            self._results.pop(call.tool_call_id, None)
        message = messages.response_to_message(response, self._keep)
        message.internal[MODEL_MESSAGE] = self._next
        message.partial = True if response.state == "interrupted" else None
        self._next += 1
        yield message

    def _request(self, request: pai.ModelRequest, prompt: Any) -> Iterator[Message]:
        positions = [self._position(part) for part in request.parts]
        stored = [position for position in positions if position is not None]
        position = max(stored) if stored else self._next
        self._next = max(self._next, position + 1)
        if request.instructions and request.instructions != self._instructions:
            self._instructions = request.instructions
            internal = {INSTRUCTIONS: True, MODEL_MESSAGE: position}
            yield Message(role="system", content=request.instructions, internal=internal)
        for part, known in zip(request.parts, positions, strict=True):
            for key in _keys(part):
                self._known[key] = position
            self._held.append(part)
            if known is None:
                message = self._part(part, prompt)
                message.internal[MODEL_MESSAGE] = position
                message.created_at = getattr(part, "timestamp", None)
                yield message

    def _position(self, part: Any) -> int | None:
        """The position of the message that has a part, if it is converted."""
        known = next((self._known[key] for key in _keys(part) if key in self._known), None)
        if known is None and _is_result(part):
            return self._results.get(part.tool_call_id)
        return known

    def _part(self, part: Any, prompt: Any) -> Message:
        if isinstance(part, pai.SystemPromptPart):
            return Message(role="system", content=part.content)
        message = messages.part_to_message(part, self._keep)
        if message is None:  # what the framework states to itself: tools that are available now, changed settings
            dump = _REQUEST_PART.dump_python(part, mode="json")
            return Message(role="system", content=media.store_parts(dump, self._keep))
        if isinstance(part, pai.UserPromptPart) and (prompt is None or part.content == prompt):
            message.internal.pop(BY_TOOL, None)
        return message


def _is_result(part: Any) -> bool:
    return isinstance(part, pai.ToolReturnPart) or getattr(part, "tool_name", None) is not None


def _keys(part: Any) -> list[Any]:
    """What a part is known by: the object; and its time and text, as a capability may replace it by a copy."""
    time, content = getattr(part, "timestamp", None), getattr(part, "content", None)
    own = ("object", id(part))
    if time is None or not isinstance(content, str):
        return [own]
    return [own, (part.part_kind, getattr(part, "tool_call_id", None), time, content)]


def history_messages(history: Sequence[pai.ModelMessage], keep: media.Keep) -> list[Message]:
    """Convert messages that a run received as its history, with no part left out."""
    converted = PartConverter(keep).convert(history)
    for message in converted:
        message.internal = {k: v for k, v in message.internal.items() if k != MODEL_MESSAGE}
    return converted
