"""Models that record their requests, and helpers to inspect these."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from kern_nb.models.scripted import ScriptedModel, call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kern_nb.records import Message


class RecordingModel(ScriptedModel):
    """A model that records each of its requests in `told`.

    It answers with `answers` in order, and then with "answer 0", "answer 1" and so on; or with the result of a function of the messages.
    """

    def __init__(self, answers: Sequence[Any] | Callable[[list[Message]], Any] = ()) -> None:
        self.told: list[list[Message]] = []
        self._answers = answers
        self._lock_told = threading.Lock()
        super().__init__(self._hear, id="listener")

    def _hear(self, messages: list[Message]) -> Any:
        with self._lock_told:
            self.told.append(messages)
            index = len(self.told) - 1
        if callable(self._answers):
            return self._answers(messages)
        answer = self._answers[index] if index < len(self._answers) else f"answer {index}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def heard(self, at: int = -1) -> list[tuple[str, str]]:
        """Return role and content of the messages of a request; by default of the last."""
        return said(self.told[at])

    def instructions(self, at: int = -1) -> str:
        """Return the instructions of a request."""
        return "\n".join(str(m.content) for m in self.told[at] if m.role == "system")


def said(messages: Iterable[Message]) -> list[tuple[str, str]]:
    """Return role and content of messages; of a message with calls, their names."""
    return [
        (m.role, m.content or ", ".join(f"{tool_call.tool_name}()" for tool_call in m.tool_calls))
        for m in messages
        if m.role != "system"
    ]


def calls_once(tool_name: str, /, **args: Any) -> RecordingModel:
    """Create a model that calls a tool once in each run, and then answers "done"."""
    return calls(call(tool_name, **args))


def calls(*tool_calls: Any) -> RecordingModel:
    """Create a model that makes these calls together in each run, and then answers "done"."""

    def answer(messages: list[Message]) -> Any:
        own = messages[max(i for i, m in enumerate(messages) if m.role == "user") :]
        return "done" if any(m.role == "tool" for m in own) else list(tool_calls)

    return RecordingModel(answer)


def results(model: RecordingModel) -> list[Any]:
    """Return the tool results in the last request."""
    return [m.content for m in model.told[-1] if m.role == "tool"]


class PartsModel:
    """A pydantic-ai model for parts that a script cannot express: files, thinking, a provider's own tools.

    It always answers with the same parts; `seen` records the requests.
    """

    def __init__(self, parts: Sequence[ModelResponsePart] = (TextPart("seen"),)) -> None:
        self.seen: list[list[ModelMessage]] = []
        self.model = FunctionModel(self._respond)
        self._parts = list(parts)

    def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.seen.append(list(messages))
        return ModelResponse(parts=self._parts)

    def inputs(self, at: int = -1) -> list[Any]:
        """Return the contents of the user messages of a request."""
        parts = [part for message in self.seen[at] for part in message.parts]
        return [part.content for part in parts if isinstance(part, UserPromptPart)]
