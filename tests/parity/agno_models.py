"""Agno's side of the comparison: models that answer from a list."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any
from uuid import uuid4

from agno.models.base import Model
from agno.models.response import ModelResponse
from recording import Answer, Call, Recorder


class Scripted(Model):
    """A model that notes its requests."""

    def __init__(self, recorder: Recorder, name: str, answers: list[Answer]) -> None:
        super().__init__(id=name, name="Scripted", provider="scripted")
        self.recorder, self.answers = recorder, answers

    def __deepcopy__(self, memo: Any) -> Scripted:
        return self  # a copy would have answers of its own

    def respond(self, messages: list[Any], tools: list[dict[str, Any]] | None = None, **_: Any) -> ModelResponse:
        """Answer a request."""
        names = [tool["function"]["name"] for tool in tools or ()]
        texts, calls = [], []
        for part in self.recorder.answer(self.id, self.answers, messages, names):
            if isinstance(part, Call):
                function = {"name": part.tool_name, "arguments": json.dumps(part.args)}
                calls.append({"id": f"call_{uuid4().hex[:8]}", "type": "function", "function": function})
            else:
                texts.append(part)
        return ModelResponse(role="assistant", content="".join(texts) or None, tool_calls=calls)

    def invoke(self, messages: list[Any], *args: Any, **options: Any) -> ModelResponse:
        return self.respond(messages, **options)

    async def ainvoke(self, messages: list[Any], *args: Any, **options: Any) -> ModelResponse:
        return self.respond(messages, **options)

    def invoke_stream(self, messages: list[Any], *args: Any, **options: Any) -> Iterator[ModelResponse]:
        yield self.respond(messages, **options)

    async def ainvoke_stream(self, messages: list[Any], *args: Any, **options: Any) -> AsyncIterator[ModelResponse]:
        yield self.respond(messages, **options)

    def _parse_provider_response(self, response: Any, **_: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response


def parity_model(recorder: Recorder) -> ModuleType:
    """The module that scripts import."""
    return recorder.module(lambda *answers, name="model": Scripted(recorder, name, list(answers)))
