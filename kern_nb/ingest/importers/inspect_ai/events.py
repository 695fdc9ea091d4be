"""The events of an inspect_ai sample: its model calls, tool calls and spans, with the texts that they refer to.

An event of a model call lists its input as ranges of a pool, and long texts as the hashes of attachments. Older logs
nest the events of tools and subtasks in one event, newer ones state the span of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.parsing.values import to_id, to_list, to_object

_ATTACHMENT = "attachment://"
_MAX_DEPTH = 200
_SCORING = frozenset({"scorers", "scorer"})
GRADERS = frozenset({"grader", "judge", "scorer"})


class ModelCall(NamedTuple):
    """One call of a model.

    Attributes:
        event: The event.
        input: The messages that the model received.
        output: Its answer, if there is one.
        usage: The usage as logged.
        thread: The span of the agent, or what else the call belongs to.
        outer: The spans of the agents around that one, the nearest first.
        tool_call_id: The tool call that it happened in.
        is_grading: Whether it scores the sample rather than works on it.
    """

    event: dict[str, Any]
    input: list[dict[str, Any]]
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    thread: str
    outer: list[str]
    tool_call_id: str | None
    is_grading: bool


class SampleEvents:
    """The events of a sample.

    Attributes:
        calls: The model calls, in order.
        tools: The event of each tool call, by its id, in order.
        is_compacted: Whether the history was compacted: the sample's messages are then not all of it.
        scored_at: When it was scored, as text.
    """

    def __init__(self, sample: dict[str, Any]) -> None:
        transcript = to_object(sample.get("transcript"))  # of version 1
        self.attachments = to_object(sample.get("attachments") or transcript.get("content"))
        self.pool = to_list(to_object(sample.get("events_data")).get("messages"))
        self.calls: list[ModelCall] = []
        self.tools: dict[str, list[dict[str, Any]]] = {}
        self.is_compacted = False
        self.scored_at: Any = None
        self._spans: dict[str, dict[str, Any]] = {}
        self._agent_calls: dict[str, str] = {}  # the tool call that started the agent of a span
        self._read(list(_flatten(to_list(sample.get("events") or transcript.get("events")), None, is_grading=False)))

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """A value with the attachments that it refers to."""
        if isinstance(value, str) and value.startswith(_ATTACHMENT):
            return self.attachments.get(value.removeprefix(_ATTACHMENT), value)
        if depth < _MAX_DEPTH and isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if depth < _MAX_DEPTH and isinstance(value, dict):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        return value

    def _read(self, events: list[tuple[dict[str, Any], str | None, bool]]) -> None:
        for event, _, _ in events:
            kind, identity = event.get("event"), event.get("id")
            if kind == "span_begin" and isinstance(identity, str):
                self._spans[identity] = event
            elif kind == "tool" and (call_id := to_id(identity)):
                self.tools.setdefault(call_id, []).append(event)
                if isinstance(event.get("agent_span_id"), str):
                    self._agent_calls[event["agent_span_id"]] = call_id
            elif kind == "compaction":
                self.is_compacted = True
            elif kind == "score" and not event.get("intermediate"):
                self.scored_at = event.get("timestamp")
        seen: set[str] = set()
        for event, owner, is_grading in events:
            identity = event.get("uuid")
            if event.get("event") != "model" or event.get("pending") or identity in seen:
                continue
            if isinstance(identity, str):
                seen.add(identity)
            self.calls.append(self._model_call(event, owner, is_grading=is_grading))

    def _model_call(self, event: dict[str, Any], owner: str | None, *, is_grading: bool) -> ModelCall:
        output = to_object(event.get("output"))
        choices = to_list(output.get("choices"))
        message = to_object(choices[0]).get("message") if choices else None
        usage = output.get("usage")
        spans = list(self._ancestors(event.get("span_id")))
        agents = [span for span in spans if span.get("type") == "agent"]
        nearest = agents or [span for span in spans if span.get("type") == "tool"] or spans
        thread = owner or (str(nearest[0]["id"]) if nearest else "")
        is_grading = is_grading or event.get("role") in GRADERS or any(s.get("type") in _SCORING for s in spans)
        starters = [self._agent_calls[span["id"]] for span in agents if span["id"] in self._agent_calls]
        return ModelCall(
            event=event,
            input=[self.resolve(item) for item in self._input(event) if isinstance(item, dict)],
            output=self.resolve(message) if isinstance(message, dict) else None,
            usage=usage if isinstance(usage, dict) else None,
            thread=thread,
            outer=[str(span["id"]) for span in agents[1:]],
            tool_call_id=owner or (starters[0] if starters else None),
            is_grading=is_grading,
        )

    def _input(self, event: dict[str, Any]) -> list[Any]:
        messages = to_list(event.get("input"))
        for item in to_list(event.get("input_refs")):
            if isinstance(item, list) and len(item) == 2 and all(type(bound) is int for bound in item):  # noqa: PLR2004
                messages = messages + self.pool[max(item[0], 0) : max(item[1], 0)]
        return messages

    def _ancestors(self, span_id: Any) -> Iterator[dict[str, Any]]:
        """Yield the span of an id and the spans around it, from the inside out."""
        seen: set[str] = set()
        while isinstance(span_id, str) and span_id in self._spans and span_id not in seen:
            seen.add(span_id)
            span = self._spans[span_id]
            yield span
            span_id = span.get("parent_id")


def message_key(message: dict[str, Any]) -> str:
    """What identifies a message inside a sample: its id, or what it says."""
    if identity := to_id(message.get("id")):
        return identity
    try:
        return hash_record(message.get("role"), message.get("content"), message.get("tool_calls"))
    except ValueError:  # nested too deeply
        return ""


def merge_inputs(calls: list[ModelCall], messages: list[dict[str, Any]]) -> list[tuple[dict[str, Any], bool]]:
    """The messages of a thread from its model calls, and whether each is a compaction's answer.

    A call whose answer no later call received, and which is not among the ``messages`` at the end, wrote the summary:
    its answer is kept, its prompt is not.
    """
    kept = {message_key(message) for message in messages}
    received = {message_key(message) for call in calls for message in call.input}
    merged: dict[str, tuple[dict[str, Any], bool]] = {}
    for index, call in enumerate(calls):
        is_last = index == len(calls) - 1 and not messages
        is_summary = call.output is not None and not is_last and message_key(call.output) not in kept | received
        received_now = call.input
        if is_summary and received_now and message_key(received_now[-1]) not in kept | merged.keys():
            received_now = received_now[:-1]  # the prompt for a summary
        for message in received_now:
            merged.setdefault(message_key(message), (message, False))
        if call.output is not None:
            merged.setdefault(message_key(call.output), (call.output, is_summary))
    for message in messages:
        merged.setdefault(message_key(message), (message, False))
    return list(merged.values())


def _flatten(
    events: list[Any], owner: str | None, *, is_grading: bool, depth: int = 0
) -> Iterator[tuple[dict[str, Any], str | None, bool]]:
    """Yield the events with the id of the tool call that they happened in, and whether they score the sample."""
    scoring = 0
    for event in events:
        if not isinstance(event, dict):
            continue
        if event.get("event") == "step" and event.get("type") in _SCORING:
            scoring += 1 if event.get("action") == "begin" else -1
        is_inside = is_grading or scoring > 0
        yield event, owner, is_inside
        if depth < _MAX_DEPTH and event.get("event") in ("tool", "subtask"):
            inner = (to_id(event.get("id")) if event.get("event") == "tool" else None) or owner
            yield from _flatten(to_list(event.get("events")), inner, is_grading=is_inside, depth=depth + 1)
