"""Agents of the OpenAI Agents SDK with its own scripted model; nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kern_nb.db import SessionStore

pytest.importorskip("agents.memory", reason="needs openai-agents")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Traces are made, and not exported."""
    from agents.tracing import set_trace_processors, set_tracing_disabled

    set_trace_processors([])
    set_tracing_disabled(False)
    yield
    set_trace_processors([])


@pytest.fixture
def make_agent(store: SessionStore) -> Iterator[Callable[..., Any]]:
    """Make an agent whose model gives these answers, attached to the store."""
    from agents import Agent
    from agents.testing import ScriptedModel
    from agents.usage import Usage

    from kern_nb import attach_agent
    from kern_nb.bridges import detach_agent

    agents = []

    def make(*answers: Any, name: str = "assistant", is_attached: bool = True, **options: Any) -> Any:
        model = ScriptedModel(list(answers))
        model.set_default_usage(Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15))
        agent = Agent(name=name, model=model, **options)
        if is_attached:
            attach_agent(agent, store)
            agents.append(agent)
        return agent

    yield make
    for agent in agents:
        detach_agent(agent)
