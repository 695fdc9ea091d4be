"""`ScriptedModel`: a model without a model. It says what it was told to, offline and the same each time.

For tests, tours, and the tests of those who use kern_nb. Its token counts are estimates from the words.
"""

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
    """A tool call that a script makes; see `call`."""

    tool_name: str
    args: dict[str, Any] = field(default_factory=dict)


def call(tool_name: str, /, **args: Any) -> Call:
    """A call of a tool, as an answer of a script: ``call("get_weather", city="Paris")``."""
    return Call(tool_name, args)


Answer = str | Call | Sequence[Call | str]
Script = Sequence[Answer | Exception] | Callable[[list[Message]], Answer | Awaitable[Answer]]


class ScriptedModel:
    """A model that follows a script.

    A list is used in turn, across runs. A run that another process goes on with takes it up where the run stood: as
    many answers are passed over as the run already has, if the list has more than that.

    Args:
        script: Answers, each a string, a `call`, or a list of calls (and strings, said beside them); an exception
            among them is raised. Or a function from the messages so far to one of these. Or one string, said each time.
        id: The model's name, as it is stored.

    Raises:
        BadUsage: it is neither a list nor a function.
        ScriptEnded: the list has no further answer (from the run that needs one).
    """

    def __init__(self, script: Script | str, *, id: str = "scripted") -> None:
        if not (isinstance(script, Sequence) or callable(script)):
            hint = 'ScriptedModel(["Hello.", call("look", city="Oslo"), "It rains."])'
            raise BadUsage(f"{script!r} is no script.", hint)
        self.id = id
        said = script if isinstance(script, str) else ""
        self._script: Script = (lambda _: said) if isinstance(script, str) else script
        self._next = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """The model's name."""
        return f"ScriptedModel(id={self.id!r})"

    def build(self) -> Model:
        """The model that pydantic-ai runs."""
        from pydantic_ai.models.function import FunctionModel

        return FunctionModel(self._respond, stream_function=self._stream, model_name=self.id)

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> list[Call | str]:
        try:
            return await self._said(messages, info)
        except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end its loop
            raise RuntimeError(f"The script of {self.id!r} raised {type(error).__name__}.") from error

    async def _said(self, messages: list[ModelMessage], info: AgentInfo) -> list[Call | str]:
        if callable(self._script):
            from anyio import to_thread

            from kern_nb.interop.messages import told

            # In a thread: a script may take its time, and other runs share the loop.
            work = partial(self._script, told(messages, info.instructions))
            found = await to_thread.run_sync(work, abandon_on_cancel=True)
            answer: Any = await found if inspect.isawaitable(found) else found
        else:
            answer = self._in_turn(self._script, _given(messages))
        if isinstance(answer, BaseException):
            raise answer
        said = [answer] if isinstance(answer, (str, Call)) else answer
        if not isinstance(said, (list, tuple)) or not all(isinstance(part, (str, Call)) for part in said):
            raise BadUsage(
                f"The script of {self.id!r} gave {answer!r}, which is no answer.",
                'An answer is a string, call("tool_name", ...), or a list of these.',
            )
        return list(said)

    def _in_turn(self, script: Sequence[Answer | Exception], given: int) -> Any:
        with self._lock:
            at = given if self._next == 0 and given < len(script) else self._next
            if at >= len(script):
                raise ScriptEnded(
                    f"The script of {self.id!r} has {len(script)} answers, and a further one was asked for.",
                    "Give ScriptedModel more answers, or a function.",
                )
            self._next = at + 1
            return script[at]

    async def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

        from kern_nb.interop.media import tellable  # as no service could send half a letter

        parts = [
            TextPart(part) if isinstance(part, str) else ToolCallPart(part.tool_name, tellable(part.args), _new_id())
            for part in await self._answer(messages, info)
        ]
        return ModelResponse(parts=parts)

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        from pydantic_ai.models.function import DeltaToolCall

        from kern_nb.interop.media import tellable

        for index, part in enumerate(await self._answer(messages, info)):
            if isinstance(part, str):
                for word in part.splitlines(keepends=True) or [""]:
                    for piece in _words(word):
                        yield piece
            else:
                args = json.dumps(tellable(part.args))
                yield {index: DeltaToolCall(part.tool_name, args, tool_call_id=_new_id())}


def _new_id() -> str:
    return f"call_{uuid4().hex[:12]}"


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def _given(messages: list[ModelMessage]) -> int:
    """How many answers the run at hand already has: those since the latest prompt."""
    n = 0
    for message in reversed(messages):
        if message.kind == "response":
            n += 1
        elif any(part.part_kind == "user-prompt" for part in message.parts):
            break
    return n
