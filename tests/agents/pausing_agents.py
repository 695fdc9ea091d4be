"""Agents whose tools pause the run, and helpers to inspect their runs."""

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
    """Create a model whose n-th answer in a run is the n-th of these, in any process; the last one is repeated.

    Its requests are appended to ``heard``.
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
    """Create a tool with confirmation; its calls are appended to ``sent``."""

    def send(to: str, copies: int = 1) -> str:
        """Send a letter."""
        sent.append((to, copies))
        return f"sent {copies} to {to}"

    return tool(send, **(options or {"requires_confirmation": True}))


def clerk(db: Any, *answers: Any, tools: Any = (), heard: Any = None, **options: Any) -> Agent:
    """Create an agent in the session ``chat`` with these answers."""
    return Agent(by_turn(*answers, heard=heard), db=db, tools=list(tools), **{"session_id": "chat"} | options)


def said(messages: Any) -> list[tuple[str, Any]]:
    """Return role and content of messages; of a message with calls, their names."""
    items = messages.messages if isinstance(messages, Run) else messages
    return [(m.role, [c.tool_name for c in m.tool_calls] if m.tool_calls else m.content) for m in items]


def results(messages: Any) -> list[Any]:
    """Return the tool results."""
    return [content for role, content in said(messages) if role == "tool"]


def calls(run: Run) -> list[tuple[str | None, str | None, Any]]:
    """Return name, status and result of the tool calls of a run."""
    return [(call.tool_name, call.status, call.result) for call in run.tool_calls]


def requirement_id(run: Run, index: int = 0) -> str:
    """Return the id of a requirement of a run."""
    return run.requirements[index].requirement_id


def pending_tools(run: Run) -> list[str | None]:
    """Return the tools with pending requirements."""
    return [requirement.tool_name for requirement in run.requirements if requirement.status == "pending"]


def with_ids(*answers: Any) -> FunctionModel:
    """Create a model whose calls have given ids: each answer a text, or a list of (tool, arguments, id)."""
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
    """Create a function that raises on its first call, and then returns a value."""
    turns: Iterator[Any] = iter([error])

    def function(*_given: Any, **_named: Any) -> Any:
        for one in turns:
            raise one
        return then

    return function
