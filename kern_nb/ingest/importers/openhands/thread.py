"""The messages of an OpenHands conversation, collected from its events.

Several events may come from one response of the model: they are one message, with their calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.importers.openhands.usage import Spent
from kern_nb.ingest.parsing.run_outcomes import Outcomes
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.records import Message, Run, RunStatus, ToolCall

Record = dict[str, Any]


@dataclass(slots=True)
class Thread:
    """The messages of one line of a conversation, and how its runs ended."""

    messages: list[SourceMessage] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=Outcomes)
    answers: dict[str, SourceMessage] = field(default_factory=dict)

    def add(self, message: Message, event: Record, key: str, *, starts_run: bool = False) -> None:
        """Add a message that is no answer of the model."""
        if starts_run:
            self.answers.clear()
        self.messages.append(SourceMessage(message, event, key, starts_run))

    def add_answer(
        self, response_id: str | None, message: Message, event: Record, key: str, spent: Spent | None
    ) -> None:
        """Add an answer, or to the answer of the same response what is new in it."""
        earlier = None if response_id is None else self.answers.get(response_id)
        if spent is not None:
            message.usage, message.model = spent.usage, spent.model or message.model
        if earlier is None:
            item = SourceMessage(message, [event], key, starts_run=False)
            self.messages.append(item)
            if response_id is not None:
                self.answers[response_id] = item
            return
        first = earlier.message
        first.tool_calls += message.tool_calls
        first.content = first.content or message.content
        first.usage, first.model = first.usage or message.usage, first.model or message.model
        earlier.record.append(event)

    def end_run(self, status: RunStatus, error: str | None = None) -> None:
        """Note how the run ended; if it goes on after that, it did not end so."""
        self.outcomes.note(len(self.messages), status, error)

    def build_runs(self, session_id: str, model: str | None) -> tuple[list[Run], list[str], list[list[str]]]:
        """The runs, the hashes and the keys."""
        runs, hashes, keys = split_runs(session_id, self.messages, model)
        self.outcomes.apply(runs, hashes)
        for run in runs:
            run.output = _final_answer(run) or run.output
        return runs, hashes, keys


def _final_answer(run: Run) -> str | None:
    """What the agent says with the call by which it finishes."""
    answers = [message for message in run.messages if message.role == "assistant"]
    for call in answers[-1].tool_calls if answers else []:
        args = call.args if isinstance(call.args, dict) else {}
        text = args.get("message") or args.get("final_thought")
        if call.tool_name == "finish" and isinstance(text, str) and text:
            return text
    return None


def to_content(thinking: list[Any], parts: list[Any]) -> Any:
    """A content from reasoning and other parts; plain text if there is nothing but one text."""
    texts = [part for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if not thinking and len(parts) == len(texts) == 1:
        return texts[0]["text"]
    return [*thinking, *parts] or None


def to_call(call_id: str | None, name: str | None, args: Any, event_time: Any, extra: Record) -> ToolCall:
    """A call, with what else is known of it."""
    extra = {key: value for key, value in extra.items() if value not in (None, "", [], {})}
    return ToolCall(tool_call_id=call_id, tool_name=name, args=args, created_at=event_time, extra=extra)
