"""Show a run in progress: its output so far, its tool calls, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kern_nb.records import UNRESOLVED_STATUSES, Run, ToolCall
from kern_nb.text import formatting, markdown
from kern_nb.text.html import MAX_LENGTH, Markup, container, isolate, preformatted, render_text, tag
from kern_nb.views.transcript import call_line


@dataclass
class RunStream:
    """The output of a run so far, in order: texts and tool calls."""

    parts: list[str | ToolCall] = field(default_factory=list)
    run: Run | None = None
    value: Any = None

    def add_text(self, delta: str) -> None:
        """Append text of the model."""
        if self.parts and isinstance(self.parts[-1], str):
            self.parts[-1] += delta
        else:
            self.parts.append(delta)

    def add_call(self, tool_call_id: str, tool_name: str, args: Any) -> None:
        """Append a tool call that has started."""
        self.parts.append(ToolCall(tool_call_id=tool_call_id, tool_name=tool_name, args=args, status="started"))

    def end_call(self, tool_call_id: str, result: Any, *, failed: bool) -> None:
        """Set the result of a tool call."""
        for call in self._calls(tool_call_id):
            call.status, call.result = "failed" if failed else "completed", result

    def end(self, run: Run) -> None:
        """Set the finished run; if no text was streamed, its output becomes the text."""
        self.run = run
        if any(isinstance(part, str) for part in self.parts):
            return
        if isinstance(run.output, str):
            self.parts.append(run.output)
        else:
            self.value = run.output

    def unstreamed(self) -> str:
        """Return the output of a run that streamed nothing, such as a workflow's."""
        texts = [part for part in self.parts if isinstance(part, str)]
        return "\n".join(texts) if self.value is None else formatting.format_value(self.value)

    def call_line(self, tool_call_id: str) -> str:
        """Format a tool call on one line."""
        return next((call_line(call) for call in self._calls(tool_call_id)), "")

    def closing(self, run: Run) -> list[str]:
        """Return the lines that follow the output."""
        if run.status != "PAUSED":
            return []
        pending = [r for r in run.requirements if r.status in UNRESOLVED_STATUSES]
        names = ", ".join(f"{r.kind} of {r.tool_name}" if r.tool_name else r.kind for r in pending)
        return [formatting.escape_controls(f"Paused: waiting for {names or 'an answer'}. See %kern inbox")]

    def _calls(self, tool_call_id: str) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall) and part.tool_call_id == tool_call_id]


def stream_html(stream: RunStream) -> str:
    """Render the output so far as a complete output."""
    value = None if stream.value is None else preformatted(formatting.format_value(stream.value))
    parts = (_part(part, is_complete=stream.run is not None) for part in stream.parts)
    closing = [] if stream.run is None else stream.closing(stream.run)
    return container(*parts, value, *(tag("p", tag("em", isolate(line))) for line in closing))


def _part(part: str | ToolCall, *, is_complete: bool) -> Markup:
    """Render a text or a call; an incomplete text is not parsed as Markdown."""
    if not isinstance(part, str):
        return tag("p", tag("code", isolate(call_line(part))))
    nodes = markdown.parse(part[:MAX_LENGTH]) if is_complete else None
    return tag("p", render_text(part)) if nodes is None else tag("div", markdown.render_markdown(part))


def stream_text(stream: RunStream) -> str:
    """Render the output so far as text."""
    lines = [formatting.escape_controls(part) if isinstance(part, str) else call_line(part) for part in stream.parts]
    lines += [] if stream.value is None else [formatting.escape_controls(formatting.format_value(stream.value))]
    return "\n".join([*lines, *(stream.closing(stream.run) if stream.run else [])])
