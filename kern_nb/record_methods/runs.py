"""A run under Agno's names."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from kern_nb.record_methods.requirements import ToolExecution

if TYPE_CHECKING:
    from kern_nb.records import Requirement, Run, RunMetrics, ToolCall, Usage

_NAMES = {"output": "content", "usage": "metrics", "tool_calls": "tools"}
"""Fields of a run that have Agno's name in `to_dict`."""


class RunMethods:
    """A run under Agno's names."""

    if TYPE_CHECKING:
        status: Any
        output: Any
        usage: Usage | None
        duration_s: float | None
        time_to_first_token_s: float | None
        tool_calls: list[ToolCall]
        requirements: list[Requirement]

    @property
    def content(self) -> Any:
        """The ``output``."""
        return self.output

    @property
    def is_paused(self) -> bool:
        """Whether its status is PAUSED."""
        return bool(self.status == "PAUSED")

    @property
    def is_cancelled(self) -> bool:
        """Whether its status is CANCELLED."""
        return bool(self.status == "CANCELLED")

    @property
    def metrics(self) -> RunMetrics:
        """The tokens, the cost and the times of the run; unknown ones are None."""
        from kern_nb.records import RunMetrics

        values = {} if self.usage is None else dict(self.usage)
        counts = (values.get("input_tokens"), values.get("output_tokens"))
        if values.get("total_tokens") is None and None not in counts:
            values["total_tokens"] = sum(count or 0 for count in counts)
        return RunMetrics(**values, duration=self.duration_s, time_to_first_token=self.time_to_first_token_s)

    @property
    def tools(self) -> list[ToolExecution]:
        """The tool calls, each with the requirement that it waits for."""
        by_call = {requirement.tool_call_id: requirement for requirement in self.requirements}
        calls = [ToolExecution(call, by_call.pop(call.tool_call_id, None)) for call in self.tool_calls]
        return calls + [requirement.tool_execution for requirement in by_call.values()]  # of members

    @property
    def active_requirements(self) -> list[Requirement]:
        """The requirements that have no answer."""
        return [requirement for requirement in self.requirements if not requirement.is_resolved()]

    @property
    def tools_requiring_confirmation(self) -> list[ToolExecution]:
        """The calls that a person must approve."""
        return [tool for tool in self.tools if tool.requires_confirmation]

    @property
    def tools_requiring_user_input(self) -> list[ToolExecution]:
        """The calls whose arguments a person enters."""
        return [tool for tool in self.tools if tool.requires_user_input]

    @property
    def tools_awaiting_external_execution(self) -> list[ToolExecution]:
        """The calls whose results come from outside."""
        return [tool for tool in self.tools if tool.external_execution_required]

    def get_content_as_string(self, **options: Any) -> str:
        """Return the output as text: a text as it is, anything else as JSON, with options of `json.dumps`."""
        if isinstance(self.output, str):
            return self.output
        if hasattr(self.output, "model_dump_json"):  # of an agent with an output schema
            return str(self.output.model_dump_json(exclude_none=True, **options))
        return json.dumps(self.output, **{"ensure_ascii": False} | options)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set as JSON values; output, usage and tool_calls as content, metrics and tools."""
        values = to_json_value(cast("Run", self).model_dump(exclude_none=True))
        return {_NAMES.get(name, name): value for name, value in values.items()}


def to_json_value(value: Any) -> Any:
    """Convert times to ISO text, the only values of a record that are not JSON."""
    if isinstance(value, dict):
        return {key: to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_json_value(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
