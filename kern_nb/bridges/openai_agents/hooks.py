"""`RecordingHooks`: what the SDK reports of a run, passed on to the recording and to the caller's own hooks."""

from __future__ import annotations

from typing import Any

from agents import ItemHelpers, RunHooks
from agents.tool_context import ToolContext
from agents.tracing import get_current_span

from kern_nb.bridges.openai_agents.models import describe_model
from kern_nb.bridges.openai_agents.recorder import Recording
from kern_nb.runtime.event_loop import in_thread

_FAILURE = "An error occurred while running the tool. Please try again."
"""How the text begins that the SDK passes to the model in place of a failed tool's result."""


class RecordingHooks(RunHooks[Any]):
    """Hooks of one run. An error of the store ends the run: nothing goes on that is not recorded."""

    def __init__(self, recording: Recording, hooks: RunHooks[Any] | None, run_config: Any) -> None:
        self._recording, self._hooks, self._run_config = recording, hooks or RunHooks[Any](), run_config

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: str | None, input_items: list[Any]) -> None:
        """Record new instructions, and results that no other hook reports."""
        items = list(input_items)
        await in_thread(lambda: self._recording.request(agent.name, system_prompt, items))
        await self._hooks.on_llm_start(context, agent, system_prompt, input_items)

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        """Record the answer with its calls, before their tools run."""
        model, _ = describe_model(agent, self._run_config)
        await in_thread(lambda: self._recording.answer(agent.name, model, response))
        await self._hooks.on_llm_end(context, agent, response)

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        """Pass it on."""
        await self._hooks.on_agent_start(context, agent)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        """Pass it on."""
        await self._hooks.on_agent_end(context, agent, output)

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        """Pass it on: the result of the handoff is recorded with the next request."""
        await self._hooks.on_handoff(context, from_agent, to_agent)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        """Note the time."""
        if isinstance(context, ToolContext):
            self._recording.tool_started(context.tool_call_id)
        await self._hooks.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        """Record the result of a function; those of other tools are recorded with the next request."""
        if isinstance(context, ToolContext) and context.tool_call is not None:
            item: Any = dict(ItemHelpers.tool_call_output_item(context.tool_call, result))
            if item.get("type") == "function_call_output":
                is_error = _has_failed(result)
                await in_thread(lambda: self._recording.tool_ended(item, context.tool_name, is_error=is_error))
        await self._hooks.on_tool_end(context, agent, tool, result)


def _has_failed(result: Any) -> bool | None:
    """Whether a tool has failed: the span of its call says so, else the text of the SDK; None if that is unknown."""
    span = get_current_span()
    if span is not None and span.error is not None:
        return True
    return True if isinstance(result, str) and result.startswith(_FAILURE) else None
