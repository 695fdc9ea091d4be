"""Agents, teams and workflows of Agno with a model that answers from a script, offline."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from agno.agent import Agent
from agno.media import Image
from agno.metrics import MessageMetrics
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.team import Team
from agno.tools import tool
from agno.workflow import Step, Workflow


def call(name: str, call_id: str | None = None, **args: Any) -> dict[str, Any]:
    """A tool call in an answer."""
    return {
        "id": call_id or f"call_{name}_{json.dumps(args)}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(args)},
    }


@dataclass
class Scripted(Model):
    """Answers from a list, then with the number of the answer: a text, or a list of calls."""

    id: str = "scripted-1"
    name: str = "Scripted"
    provider: str = "ScriptedProvider"
    answers: list[Any] = field(default_factory=list)
    calls: int = 0
    cached: int = 0

    def _next(self) -> ModelResponse:
        answer = self.answers[self.calls] if self.calls < len(self.answers) else f"answer {self.calls}"
        self.calls += 1
        usage = MessageMetrics(input_tokens=12, output_tokens=7, total_tokens=19, cache_read_tokens=self.cached)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return ModelResponse(role="assistant", content="", tool_calls=answer, response_usage=usage)
        return ModelResponse(role="assistant", content=answer, response_usage=usage)

    def invoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self._next()

    async def ainvoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self._next()

    def invoke_stream(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponse]:
        yield self._next()

    async def ainvoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponse]:
        yield self._next()

    def _parse_provider_response(self, response: Any, **kwargs: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


def failing() -> str:
    """Fails."""
    raise ValueError("no connection")


@tool(requires_confirmation=True)
def delete_file(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool(requires_user_input=True, user_input_fields=["to"])
def send(to: str, text: str) -> str:
    """Send a message."""
    return f"sent to {to}"


@tool(external_execution=True)
def run_shell(command: str) -> str:
    """Run a command elsewhere."""
    return ""


def agent(db: Any = None, answers: list[Any] | None = None, **options: Any) -> Agent:
    options = {"id": "weather-agent", "name": "Weather Agent", "session_id": "s1", "telemetry": False} | options
    options.setdefault("tools", [get_weather, failing, delete_file, send, run_shell])
    return Agent(model=Scripted(answers=answers or []), db=db, **options)


def team(db: Any = None, **options: Any) -> Team:
    member = Agent(
        id="member",
        name="Member",
        model=Scripted(answers=["the member's answer"]),
        tools=[get_weather],
        telemetry=False,
    )
    leader = Scripted(
        answers=[[call("delegate_task_to_member", member_id="member", task="weather?")], "the team's answer"]
    )
    options = {"id": "team", "name": "Team", "session_id": "t1", "telemetry": False} | options
    return Team(members=[member], model=leader, db=db, **options)


def workflow(db: Any = None, **options: Any) -> Workflow:
    first = Agent(
        id="first",
        name="First",
        model=Scripted(answers=[[call("get_weather", city="Rome")], "sunny"]),
        tools=[get_weather],
        telemetry=False,
    )
    second = Agent(id="second", name="Second", model=Scripted(answers=["done"]), telemetry=False)
    steps = [Step(name="one", agent=first), Step(name="two", agent=second)]
    options = {"id": "flow", "name": "Flow", "session_id": "w1", "telemetry": False} | options
    return Workflow(steps=steps, db=db, **options)


def image() -> Image:
    """A picture of a few bytes."""
    return Image(content=b"not really a picture", format="png", id="picture")
