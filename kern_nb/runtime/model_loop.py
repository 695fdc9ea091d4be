"""pydantic-ai's agent, made once from a name and tools; the model, the instructions and the past come with each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import DeferredToolRequests

from kern_nb.runtime.context import RunContext
from kern_nb.runtime.tools import Tool, normalized, toolset


def make(name: str, given: Sequence[Any]) -> tuple[PydanticAgent[RunContext, Any], dict[str, Tool]]:
    """The agent, and its tools by name.

    Raises:
        BadUsage: something is no tool, or two have one name.
    """
    tools, others = normalized(given)
    agent: PydanticAgent[RunContext, Any] = PydanticAgent(
        deps_type=RunContext,
        output_type=[str, DeferredToolRequests],
        toolsets=[toolset(tools, others)],
        name=name,
    )
    return agent, tools
