"""Our side of the comparison: models that answer from a list."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any
from uuid import uuid4

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.profiles import ModelProfile
from recording import Answer, Call, Recorder

from kern_nb.interop.messages import to_messages


def scripted(recorder: Recorder, name: str, answers: list[Answer]) -> FunctionModel:
    """Create a model that notes its requests."""

    def respond(messages: list[ModelMessage], info: AgentInfo) -> list[str | Call]:
        tools = [tool.name for tool in info.function_tools]
        return recorder.answer(name, answers, to_messages(messages, info.instructions), tools)

    def new_id() -> str:
        return f"call_{uuid4().hex[:8]}"

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        parts: list[Any] = [
            ToolCallPart(part.tool_name, part.args, new_id()) if isinstance(part, Call) else TextPart(part)
            for part in respond(messages, info)
        ]
        return ModelResponse(parts=parts)

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        for index, part in enumerate(respond(messages, info)):
            if isinstance(part, Call):
                yield {index: DeltaToolCall(part.tool_name, json.dumps(part.args), tool_call_id=new_id())}
            else:
                yield part

    # As Agno's scripted models, without support of JSON schemas: an output schema is part of the prompt.
    profile: ModelProfile = {"supports_json_schema_output": False}
    return FunctionModel(answer, stream_function=stream, model_name=name, profile=profile)


def parity_model(recorder: Recorder) -> ModuleType:
    """The module that scripts import."""
    return recorder.module(lambda *answers, name="model": scripted(recorder, name, list(answers)))
