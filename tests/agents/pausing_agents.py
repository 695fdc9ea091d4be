"""Agents whose tools wait for a person, and ways to look at what became of their runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from kern_nb.agent import Agent, Tool, tool
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Run


def by_turn(*answers: Any, heard: list[list[Message]] | None = None) -> ScriptedModel:
    """A model whose n-th answer in a run is the n-th of these, in whichever process; the last one is said again.

    What it was told each time is added to ``heard``.
    """

    def script(messages: list[Message]) -> Any:
        if heard is not None:
            heard.append(messages)
        latest = max(i for i, m in enumerate(messages) if m.role == "user")
        turn = sum(m.role == "assistant" for m in messages[latest:])
        answer = answers[min(turn, len(answers) - 1)]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ScriptedModel(script)


def sender(sent: list[Any], **options: Any) -> Tool:
    """A tool that needs confirmation before it sends mail; what it sent is added to ``sent``."""

    def send(to: str, copies: int = 1) -> str:
        """Send a letter."""
        sent.append((to, copies))
        return f"sent {copies} to {to}"

    return tool(send, **(options or {"requires_confirmation": True}))


def clerk(db: Any, *answers: Any, tools: Any = (), heard: Any = None, **options: Any) -> Agent:
    """An agent in the session ``chat`` that gives these answers in turn."""
    return Agent(by_turn(*answers, heard=heard), db=db, tools=list(tools), **{"session_id": "chat"} | options)


def said(messages: Any) -> list[tuple[str, Any]]:
    """Who said what; of an assistant that calls tools, their names."""
    found = messages.messages if isinstance(messages, Run) else messages
    return [(m.role, [c.tool_name for c in m.tool_calls] if m.tool_calls else m.content) for m in found]


def results(messages: Any) -> list[Any]:
    """What the tools gave."""
    return [content for role, content in said(messages) if role == "tool"]


def calls(run: Run) -> list[tuple[str | None, str | None, Any]]:
    """The tool calls of a run: name, status, result."""
    return [(call.tool_name, call.status, call.result) for call in run.tool_calls]


def requirement_id(run: Run, place: int = 0) -> str:
    """The id of what a run waits for."""
    return run.requirements[place].requirement_id


def pending_tools(run: Run) -> list[str | None]:
    """Which tools a run waits for."""
    return [one.tool_name for one in run.requirements if one.status == "pending"]


def with_ids(*answers: Any) -> FunctionModel:
    """A model whose calls have the ids it is told: each answer a text, or a list of (tool, arguments, id)."""
    turns = iter(answers)

    def turn() -> list[Any]:
        answer = next(turns)
        return [answer] if isinstance(answer, str) else answer

    async def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        parts = [TextPart(part) if isinstance(part, str) else ToolCallPart(*part) for part in turn()]
        return ModelResponse(parts=parts)

    async def stream(_m: list[ModelMessage], _i: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        for index, part in enumerate(turn()):
            if isinstance(part, str):
                yield part
            else:
                yield {index: DeltaToolCall(part[0], json.dumps(part[1]), tool_call_id=part[2])}

    return FunctionModel(respond, stream_function=stream)


def failing_once(error: Exception, then: Callable[..., Any] | str = "fine") -> Callable[..., Any]:
    """A function that raises the first time, and then gives something."""
    turns: Iterator[Any] = iter([error])

    def function(*_given: Any, **_named: Any) -> Any:
        for one in turns:
            raise one
        return then

    return function
