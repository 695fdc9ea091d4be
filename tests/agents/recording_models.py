"""Models that keep what they were told, and short ways to say what a test expects of that."""

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
    """A model that keeps in `told` what it was told each time it was asked.

    It answers in turn what `answers` holds, then, and from the start without any, "answer 0", "answer 1" and so on; or what a function of the
    messages gives.
    """

    def __init__(self, answers: Sequence[Any] | Callable[[list[Message]], Any] = ()) -> None:
        self.told: list[list[Message]] = []
        self._answers = answers
        self._one = threading.Lock()
        super().__init__(self._hear, id="listener")

    def _hear(self, messages: list[Message]) -> Any:
        with self._one:
            self.told.append(messages)
            at = len(self.told) - 1
        if callable(self._answers):
            return self._answers(messages)
        answer = self._answers[at] if at < len(self._answers) else f"answer {at}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def heard(self, at: int = -1) -> list[tuple[str, str]]:
        """Who said what, as the model was told; by default the last time."""
        return said(self.told[at])

    def instructions(self, at: int = -1) -> str:
        """What its instructions were."""
        return "\n".join(str(m.content) for m in self.told[at] if m.role == "system")


def said(messages: Iterable[Message]) -> list[tuple[str, str]]:
    """Who said what; a message that calls tools says which."""
    return [
        (m.role, m.content or ", ".join(f"{one.tool_name}()" for one in m.tool_calls))
        for m in messages
        if m.role != "system"
    ]


def calls_once(tool_name: str, /, **args: Any) -> RecordingModel:
    """A model that calls a tool once in each run, and then says "done"."""
    return calls(call(tool_name, **args))


def calls(*asked: Any) -> RecordingModel:
    """A model that in each run asks for these calls together, and then says "done"."""

    def answer(messages: list[Message]) -> Any:
        own = messages[max(i for i, m in enumerate(messages) if m.role == "user") :]
        return "done" if any(m.role == "tool" for m in own) else list(asked)

    return RecordingModel(answer)


def results(model: RecordingModel) -> list[Any]:
    """What the model was told that tools gave, the last time it was asked."""
    return [m.content for m in model.told[-1] if m.role == "tool"]


class PartsModel:
    """A model of pydantic-ai's own, which sees and says what no script can: files, thoughts, a provider's own tools.

    It answers with these parts every time; `seen` is what it was sent each time.
    """

    def __init__(self, parts: Sequence[ModelResponsePart] = (TextPart("seen"),)) -> None:
        self.seen: list[list[ModelMessage]] = []
        self.model = FunctionModel(self._respond)
        self._parts = list(parts)

    def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.seen.append(list(messages))
        return ModelResponse(parts=self._parts)

    def inputs(self, at: int = -1) -> list[Any]:
        """What users' messages held, the n-th time it was asked."""
        parts = [part for message in self.seen[at] for part in message.parts]
        return [part.content for part in parts if isinstance(part, UserPromptPart)]
