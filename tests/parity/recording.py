"""What a script sees and shows, in terms that do not depend on the library: the requests to its models, and its results.

`agno_models` and `kern_models` give the scripts their `parity_model`, whose models answer from a list and note each
request.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

import pydantic

MEDIA = ("image", "audio", "video", "file")
ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Call:
    """A tool call in an answer."""

    tool_name: str
    args: dict[str, Any]


def call(tool_name: str, /, **args: Any) -> Call:
    """Create a tool call: ``call("add_item", item="milk")``."""
    return Call(tool_name, args)


Answer = str | Call | list[Call] | Exception


@dataclass
class Recorder:
    """The requests of a script by model, and the values that it shows, in order."""

    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shown: list[tuple[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, model: str, answers: list[Answer], messages: list[Any], tools: list[str]) -> list[str | Call]:
        """Note a request, and return the next answer of the model, whose list it shortens.

        Raises:
            AssertionError: there is none.
        """
        with self._lock:
            # The order of tools is the library's; what counts is which there are.
            request = {"messages": [message(item) for item in messages], "tools": sorted(tools)}
            self.requests.setdefault(model, []).append(request)
            assert answers, f"model {model!r} has no further answer"
            answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer) if isinstance(answer, list) else [answer]

    def show(self, label: str, value: Any) -> None:
        """Note a value that the script shows."""
        self.shown.append((label, plain(value)))

    def module(self, scripted: Callable[..., Any]) -> ModuleType:
        """The `parity_model` of a library."""
        module = ModuleType("parity_model")
        vars(module).update(scripted=scripted, call=call, show=self.show)
        return module


def message(item: Any) -> dict[str, Any]:
    """A message of either library: role, content, and those that it has of tool calls and media, by their number."""
    calls = [tool_call(each) for each in getattr(item, "tool_calls", None) or ()]
    content, media = item.content, {kind: len(getattr(item, f"{kind}s", None) or ()) for kind in MEDIA}
    if isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content):
        media = Counter(part["type"] for part in content if part["type"] in MEDIA)
        content = "".join(part["text"] for part in content if part["type"] == "text")
    values = {"calls": calls} | {kind: media[kind] for kind in MEDIA}
    return {"role": item.role, "content": plain(content) or ""} | {key: value for key, value in values.items() if value}


def tool_call(item: Any) -> list[Any]:
    """The name and the arguments of a tool call in a message."""
    if isinstance(item, Mapping):
        return [item["function"]["name"], json.loads(item["function"]["arguments"] or "{}")]
    return [item.tool_name, plain(item.args)]


def plain(value: Any) -> Any:
    """The value without the types of a library; ids, which are new in each run, are replaced."""
    if isinstance(value, Enum):
        return plain(value.value)
    if hasattr(value, "role") and hasattr(value, "content"):
        return message(value)
    if isinstance(value, pydantic.BaseModel):
        return {type(value).__name__: plain(value.model_dump())}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return ID.sub("<id>", value)
    assert isinstance(value, bool | int | float | None), f"{value!r} depends on the library: show a field of it"
    return value
