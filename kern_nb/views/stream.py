"""A run while it is being made: its tool calls, its answer so far, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kern_nb.records import UNANSWERED, Run, ToolCall
from kern_nb.text import formatting, markdown
from kern_nb.text.html import MAX_LENGTH, Markup, container, isolate, preformatted, render_text, tag
from kern_nb.views.transcript import call_line


@dataclass
class RunStream:
    """What was said so far, in order: texts, and tool calls."""

    parts: list[str | ToolCall] = field(default_factory=list)
    run: Run | None = None
    value: Any = None

    def add_text(self, delta: str) -> None:
        """The model said more."""
        if self.parts and isinstance(self.parts[-1], str):
            self.parts[-1] += delta
        else:
            self.parts.append(delta)

    def add_call(self, tool_call_id: str, tool_name: str, args: Any) -> None:
        """A tool is called."""
        self.parts.append(ToolCall(tool_call_id=tool_call_id, tool_name=tool_name, args=args, status="started"))

    def end_call(self, tool_call_id: str, result: Any, *, failed: bool) -> None:
        """A tool gave its result."""
        for part in self.parts:
            if isinstance(part, ToolCall) and part.tool_call_id == tool_call_id:
                part.status, part.result = "failed" if failed else "completed", result

    def end(self, run: Run) -> None:
        """The run ended; where nothing was streamed, its output is what was said."""
        self.run = run
        if any(isinstance(part, str) for part in self.parts):
            return
        if isinstance(run.output, str):
            self.parts.append(run.output)
        else:
            self.value = run.output

    def unstreamed(self) -> str:
        """What a run gave that told nothing while it was made, as a workflow's does."""
        texts = [part for part in self.parts if isinstance(part, str)]
        return "\n".join(texts) if self.value is None else formatting.format_value(self.value)

    def call_line(self, tool_call_id: str) -> str:
        """A call on one line."""
        calls = (part for part in self.parts if isinstance(part, ToolCall) and part.tool_call_id == tool_call_id)
        return next((call_line(call) for call in calls), "")

    def closing(self, run: Run) -> list[str]:
        """What is left to say at the end, beyond the answer."""
        if run.status != "PAUSED":
            return []
        return [waiting_line(run)]


def waiting_line(run: Run) -> str:
    """What a paused run waits for, on one line."""
    left = [r for r in run.requirements if r.status in UNANSWERED]
    names = ", ".join(f"{r.kind} of {r.tool_name}" if r.tool_name else r.kind for r in left)
    return formatting.escape_controls(f"Paused: waits for {names or 'an answer'}. See %kern inbox")


def stream_html(said: RunStream) -> str:
    """What was said so far, as a whole output."""
    value = None if said.value is None else preformatted(formatting.format_value(said.value))
    return container(*(_part(part, whole=said.run is not None) for part in said.parts), value, *_closing(said))


def _part(part: str | ToolCall, *, whole: bool) -> Markup:
    """A text or a call. What is half written is no Markdown yet."""
    if not isinstance(part, str):
        return tag("p", tag("code", isolate(call_line(part))))
    nodes = markdown.parse(part[:MAX_LENGTH]) if whole else None
    return tag("p", render_text(part)) if nodes is None else tag("div", markdown.render_markdown(part))


def _closing(said: RunStream) -> list[Markup]:
    return [] if said.run is None else [tag("p", tag("em", isolate(line))) for line in said.closing(said.run)]


def stream_text(said: RunStream) -> str:
    """What was said so far, as text."""
    lines = [formatting.escape_controls(part) if isinstance(part, str) else call_line(part) for part in said.parts]
    lines += [] if said.value is None else [formatting.escape_controls(formatting.format_value(said.value))]
    return "\n".join([*lines, *(said.closing(said.run) if said.run else [])])
