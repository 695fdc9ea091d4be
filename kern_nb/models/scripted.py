"""`ScriptedModel`: a deterministic offline model for tests and tours; it estimates token counts from words."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kern_nb.errors import BadUsage, ScriptEnded
from kern_nb.records import Message

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.models.function import AgentInfo, DeltaToolCall


@dataclass(frozen=True)
class Call:
    """A tool call in a script; see `call`."""

    tool_name: str
    args: dict[str, Any] = field(default_factory=dict)


def call(tool_name: str, /, **args: Any) -> Call:
    """Create a tool call, as an answer of a script: ``call("get_weather", city="Paris")``."""
    return Call(tool_name, args)


Answer = str | Call | Sequence[Call | str]
Script = Sequence[Answer | Exception] | Callable[[list[Message]], Answer | Awaitable[Answer]]


class ScriptedModel:
    """A model that follows a script.

    A list is consumed in order, across runs. When another process continues a run, the list starts after the answers
    that the run already has, if it is longer than that.

    Example:
        >>> from kern_nb import Agent, InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel, call
        >>> def add(a: int, b: int) -> int:
        ...     return a + b
        >>> model = ScriptedModel([call("add", a=1, b=2), "The sum is 3."])
        >>> Agent(model, db=InMemoryDb(), tools=[add]).run("What is 1 + 2?").output
        'The sum is 3.'

    Args:
        script: Answers, each a string, a `call`, or a list of calls and strings; an exception among them is raised. Or
            a function from the messages so far to one answer. Or one string, which is every answer.
        id: The model's name, as it is stored.

    Raises:
        BadUsage: the script is neither a list nor a function.
        ScriptEnded: the list has no further answer (raised by the run that needs one).
    """

    def __init__(self, script: Script | str, *, id: str = "scripted") -> None:
        if not (isinstance(script, Sequence) or callable(script)):
            hint = 'ScriptedModel(["Hello.", call("look", city="Oslo"), "It rains."])'
            raise BadUsage(f"script must be a list or a function, got {script!r}.", hint)
        self.id = id
        constant = script if isinstance(script, str) else ""
        self._script: Script = (lambda _: constant) if isinstance(script, str) else script
        self._next = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ScriptedModel(id={self.id!r})"

    def build(self) -> Model:
        """Build the pydantic-ai model."""
        from pydantic_ai.models.function import FunctionModel

        return FunctionModel(self._respond, stream_function=self._stream, model_name=self.id)

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> list[Call | str]:
        try:
            if callable(self._script):
                from anyio import to_thread

                from kern_nb.interop.messages import to_messages

                # In a thread: a script may block, and other runs share the loop.
                work = partial(self._script, to_messages(messages, info.instructions))
                result = await to_thread.run_sync(work, abandon_on_cancel=True)
                answer: Any = await result if inspect.isawaitable(result) else result
            else:
                answer = self._take(self._script, _count_answers(messages))
            if isinstance(answer, BaseException):
                raise answer
        except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end its loop
            raise RuntimeError(f"The script of {self.id!r} raised {type(error).__name__}.") from error
        parts = [answer] if isinstance(answer, (str, Call)) else answer
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, (str, Call)) for part in parts):
            raise BadUsage(
                f"The script of {self.id!r} must return answers, got {answer!r}.",
                'An answer is a string, call("tool_name", ...), or a list of these.',
            )
        return list(parts)

    def _take(self, script: Sequence[Answer | Exception], n_answers: int) -> Any:
        """Take the next answer; a run that already has answers starts after them."""
        with self._lock:
            index = n_answers if self._next == 0 and n_answers < len(script) else self._next
            if index >= len(script):
                raise ScriptEnded(
                    f"The script of {self.id!r} has only {len(script)} answers.",
                    "Pass ScriptedModel more answers, or a function.",
                )
            self._next = index + 1
            return script[index]

    async def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

        from kern_nb.interop.media import printable  # no service could send a lone surrogate

        parts = [
            TextPart(part) if isinstance(part, str) else ToolCallPart(part.tool_name, printable(part.args), _new_id())
            for part in await self._answer(messages, info)
        ]
        return ModelResponse(parts=parts)

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        from pydantic_ai.models.function import DeltaToolCall

        from kern_nb.interop.media import printable

        for index, part in enumerate(await self._answer(messages, info)):
            if isinstance(part, str):
                for line in part.splitlines(keepends=True) or [""]:
                    *words, last = line.split(" ")
                    for piece in [*(word + " " for word in words), last]:
                        yield piece
            else:
                args = json.dumps(printable(part.args))
                yield {index: DeltaToolCall(part.tool_name, args, tool_call_id=_new_id())}


def _new_id() -> str:
    return f"call_{uuid4().hex[:12]}"


def _count_answers(messages: list[ModelMessage]) -> int:
    """Count the answers of the current run: those since the latest prompt."""
    n = 0
    for message in reversed(messages):
        if message.kind == "response":
            n += 1
        elif any(part.part_kind == "user-prompt" for part in message.parts):
            break
    return n
