"""Runs an agent of the OpenAI Agents SDK on a session of a store: ``python openai_runs_process.py URL NAME RUNS``."""

from __future__ import annotations

import asyncio
import sys

from agents import Agent, Runner, function_tool, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call

from kern_nb import attach_agent
from kern_nb.bridges.openai_agents import KernSession
from kern_nb.db import open_store


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def main(target: str, name: str, runs: str) -> None:
    """Run them one after the other."""
    set_tracing_disabled(True)
    agent = Agent(name="assistant", tools=[add])
    with open_store(target) as store:
        attach_agent(agent, store)
        for index in range(int(runs)):
            prompt = f"{name}{index}"
            answers = [[function_call("add", {"a": index, "b": 1}, call_id=prompt)]]
            agent.model = ScriptedModel([*answers, [assistant_message(f"{prompt} is done")]])
            await Runner.run(agent, prompt, session=KernSession("chat", store))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
