"""Checks of the parameters of `kern_nb.agent.Agent`, as far as they are possible without pydantic-ai."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kern_nb.errors import BadUsage
from kern_nb.runtime.parameters import require_count
from kern_nb.runtime.prompt_text import INSTRUCTIONS_HINT
from kern_nb.runtime.toolkits import Toolkit

Instructions = str | Sequence[str] | Callable[..., str | Awaitable[str]] | None

_COUNTS = (
    "num_history_runs", "num_history_messages", "history_token_budget", "timeout_s", "max_requests", "retries",
    "num_past_sessions_to_search", "num_past_session_runs_in_search", "max_tool_calls_from_history",
    "delay_between_retries",
)  # fmt: skip


def require_counts(arguments: Mapping[str, Any]) -> None:
    """Raise BadUsage for a count, a limit or a time that is not a number of at least 0."""
    for count in _COUNTS:
        require_count(count, arguments[count])


def require_instructions(instructions: Any) -> None:
    """Raise BadUsage for instructions that are neither text, a list, a function nor None."""
    if not (instructions is None or isinstance(instructions, (str, Sequence)) or callable(instructions)):
        raise BadUsage(f"instructions must be a text, got {instructions!r}.", INSTRUCTIONS_HINT)


def require_tools(tools: Any) -> list[Any]:
    """Return tools as a list.

    Raises:
        BadUsage: one is neither a function nor a toolset, or two have one name.
    """
    if callable(tools):
        tools = [tools]
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise BadUsage(f"tools must be a list of functions, got {tools!r}.", "For example: tools=[search, refund].")
    names: set[str] = set()
    items = [item for part in tools for item in (part if isinstance(part, Toolkit) else [part])]
    for item in items:
        if not callable(item) and not hasattr(item, "get_tools"):
            hint = "Pass a function, tool(function, ...) or a pydantic-ai toolset."
            raise BadUsage(f"A tool must be a function or a toolset, got {item!r}.", hint)
        name = getattr(item, "name", None) or getattr(item, "__name__", None)
        if callable(item) and isinstance(name, str):
            if name in names:
                raise BadUsage(f"Two tools are named {name!r}.", "Rename one: tool(fn, name=...).")
            names.add(name)
    return items
