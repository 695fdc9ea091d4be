"""The runs of a trace: which spans belong to which agent, and the messages that its model calls add.

The topmost span of an agent is a run. An agent below the span of a tool is a nested one, with a run of its own; so is
one that begins a conversation of its own while its parent has one. Any other agent below an agent continues its run: a
handoff, or the agent below the "workflow" that contains it. A model call below another one is the same call, recorded
twice. Model calls without an agent are the turns of their session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kern_nb.ingest.importers.otel import dialects
from kern_nb.ingest.importers.otel.dialects import AGENT, LLM, TOOL
from kern_nb.ingest.importers.otel.messages import Piece, Thread
from kern_nb.ingest.importers.otel.spans import Span
from kern_nb.ingest.importers.otel.trace import Trace
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall, Usage


@dataclass(slots=True)
class Unit:
    """The spans and messages of a run; of several runs if it has no agent.

    Attributes:
        span: The span of the agent, or of the tool that calls a model; None for model calls without an agent.
        thread: The conversation that its model calls extend.
        parent: The unit that started a nested agent.
        tool: The span of the tool that did.
        failures: How many messages there were at each failed model call, and its span.
        prompts: The texts of the prompt that the run begins with.
        usage: The usage that only the spans of its agents state.
    """

    span: Span | None
    thread: Thread
    parent: Unit | None = None
    tool: Span | None = None
    agents: list[Span] = field(default_factory=list)
    calls: list[Span] = field(default_factory=list)
    tools: list[Span] = field(default_factory=list)
    messages: list[SourceMessage] = field(default_factory=list)
    loose_calls: list[ToolCall] = field(default_factory=list)
    failures: list[tuple[int, Span]] = field(default_factory=list)
    prompts: list[Any] = field(default_factory=list)
    usage: Usage | None = None

    @property
    def spans(self) -> list[Span]:
        """All spans, the agent's first."""
        return [*([self.span] if self.span else []), *self.agents, *self.calls, *self.tools]

    @property
    def start_ns(self) -> int:
        """When it starts."""
        return min((span.start_ns for span in self.spans if span.start_ns), default=0)


def read_units(trace: Trace, top: Span | None, spans: list[Span], thread: Thread) -> list[Unit]:
    """Read the spans of a topmost agent, or those of a session without one: its unit and those of nested agents."""
    reader = _Reader(trace, top, thread)
    calls: dict[str, list[Span]] = {}
    for span in spans:
        if trace.kind(span) == LLM:
            calls.setdefault(trace.outer_call(span).span_id, []).append(span)
    for outer_id, records in calls.items():
        outer = next(span for span in records if span.span_id == outer_id)
        reader.read_call(outer, [span for span in records if span is not outer])
    for span in spans:
        if trace.kind(span) == AGENT:
            reader.read_agent(span)
        elif trace.kind(span) == TOOL and trace.owner(span)[1] is None:  # else it is a part of that tool's work
            reader.unit_of(*trace.owner(span)).tools.append(span)
    for unit in reader.units:
        _add_tools(unit)
    _add_usage(reader.units)
    return reader.units


def _add_usage(units: list[Unit]) -> None:
    """Set the usage of an agent whose model calls state none; it may include that of the agents below it."""
    counted: set[int] = set()
    for unit in reversed(units):  # nested agents come after their parents
        if id(unit) not in counted and not any(item.message.usage for item in unit.messages):
            stated = [dialects.usage(span)[0] for span in (unit.span, *unit.agents) if span is not None]
            inner = [usage for usage in stated[1:] if usage is not None]
            unit.usage = (stated[0] if stated else None) or (Usage.total(inner) if inner else None)
            if unit.usage is None:
                continue
        if unit.parent is not None:
            counted.add(id(unit.parent))


class _Reader:
    def __init__(self, trace: Trace, top: Span | None, thread: Thread) -> None:
        self.trace = trace
        self.top = Unit(top, thread)
        self.units = [self.top]
        self.by_agent: dict[str, Unit] = {top.span_id: self.top} if top else {}

    def unit_of(self, agent: Span | None, tool: Span | None, pieces: list[Piece] | None = None) -> Unit:
        """The unit of an agent, or of a tool that calls a model itself; ``pieces`` are the input of its first call."""
        if agent is None:
            return self.top
        key = tool or agent
        if key.span_id in self.by_agent:
            return self.by_agent[key.span_id]
        outer, outer_tool = (agent, None) if tool else self.trace.owner(agent)
        parent = self.unit_of(outer, None)
        if tool is None and outer_tool is None and self._continues(parent, agent, pieces):
            self.by_agent[agent.span_id] = parent
            parent.agents.append(agent)
            return parent
        unit = Unit(key, Thread(), parent, tool or outer_tool)
        self.by_agent[key.span_id] = unit
        self.units.append(unit)
        return unit

    def _continues(self, parent: Unit, agent: Span, pieces: list[Piece] | None) -> bool:
        """Whether an agent goes on with the conversation of the one around it."""
        if not parent.calls or pieces is None:
            return True
        if pieces:
            return parent.thread.has_any(pieces)
        around = self.trace.owner(agent)[0]
        return all(self.trace.owner(call)[0] is not around for call in parent.calls)

    def read_call(self, span: Span, inner: list[Span]) -> None:
        """Add the messages of a model call; ``inner`` are other records of the same call."""
        cache = self.top.thread.cache
        sent, rest = next((v for s in (span, *inner) if (v := dialects.input_pieces(s, cache))[0]), ([], None))
        received, output_rest = next((v for s in (span, *inner) if (v := dialects.output_pieces(s))[0]), ([], None))
        unit = self.unit_of(*self.trace.owner(span), sent)
        is_first = not unit.calls and unit.span is not None
        unit.calls.append(span)
        new = unit.thread.extend(sent, is_first=is_first)
        if is_first:
            unit.prompts = _prompts(new)
        history = max((i + 1 for i, piece in enumerate(new) if piece.role == "assistant"), default=0)
        unit.messages += _to_messages(new[:history], None) + _to_messages(new[history:], span.start)
        usage, raw = next((u for s in (span, *inner) if (u := dialects.usage(s))[0]), (None, {}))
        if received or (usage is not None if span.failed else span.end):
            unit.thread.append(received)
            truncated = {"truncated_input": rest, "truncated_output": output_rest}
            unit.messages += _to_answers(span, received, usage, raw, truncated)
        if span.failed:
            unit.failures.append((len(unit.messages), span))

    def read_agent(self, span: Span) -> None:
        """Add what only the span of an agent has: the messages of a failed call, or all if no content was recorded."""
        unit = self.top if span is self.top.span else self.unit_of(span, None)
        if pieces := dialects.conversation_pieces(span, self.top.thread.cache):
            new = unit.thread.extend(pieces, is_record=True)
            start = span.start if not unit.messages and all(piece.role in ("user", "system") for piece in new) else None
            unit.prompts = unit.prompts or _prompts(new)
            unit.messages += _to_messages(new, start)
            return
        messages = [item.message for item in unit.messages]
        if any(m.role == "user" or m.content is not None or m.tool_calls for m in messages):
            return
        sent, received = dialects.input_pieces(span)[0], dialects.output_pieces(span)[0]
        new = unit.thread.extend(sent, is_first=True)
        unit.prompts = unit.prompts or _prompts(new)
        unit.messages[:0] = _to_messages(new, span.start)
        unit.thread.append(received)
        answers = [message for message in messages if message.role == "assistant"]
        for item in _to_messages(received, span.end, is_output=True):
            if answers and item.message.role == "assistant" and not item.message.tool_calls:
                answers[-1].content = item.message.content
            else:
                unit.messages.append(item)


def _to_answers(
    span: Span, received: list[Piece], usage: Usage | None, raw: dict[str, Any], truncated: dict[str, str | None]
) -> list[SourceMessage]:
    """The messages of a model call's output; the first one has the usage, and what else the span states."""
    answers = _to_messages(received, span.end, is_output=True) or [SourceMessage(Message(role="assistant"), None)]
    first = answers[0].message
    first.usage, first.created_at = usage, span.end
    first.message_id = span.text("gen_ai.response.id")
    facts = {
        "usage": raw,
        "finish_reasons": span.attributes.get("gen_ai.response.finish_reasons"),
        **truncated,
        "span_id": span.span_id,
        "error": span.error if span.failed else None,
        "attributes": dialects.further_attributes(span),
    }
    first.extra |= {key: value for key, value in facts.items() if value}
    for answer in answers:
        if answer.message.role == "assistant":
            answer.message.model = dialects.model(span)
    record = [answers[0].record, first.extra, _times(span), first.model]
    return [answers[0]._replace(record=record), *answers[1:]]


def _prompts(pieces: list[Piece]) -> list[Any]:
    """The texts of the user after the last answer."""
    last = max((i for i, piece in enumerate(pieces) if piece.role in ("assistant", "tool")), default=-1)
    return [piece.value for piece in pieces[last + 1 :] if piece.role == "user" and piece.value is not None]


def _times(span: Span) -> list[str | None]:
    return [time.isoformat() if time else None for time in (span.start, span.end)]


def _to_messages(pieces: list[Piece], time: datetime | None, *, is_output: bool = False) -> list[SourceMessage]:
    """Join pieces to messages: an answer with its reasoning and its calls is one, a tool's result is one."""
    reasons = {piece.message for piece in pieces if piece.extra.get("finish_reason")}
    is_choices = is_output and len(reasons) > 1 and reasons == {piece.message for piece in pieces}
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and _belongs(piece, groups[-1], is_choices=is_choices):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    messages = []
    for position, group in enumerate(groups):
        message = group[0].value.model_copy(deep=True) if group[0].kind == "result" else _join(group)
        message.created_at = time
        message.extra |= {"choice": position} if is_choices else {}
        messages.append(SourceMessage(message, [[piece.role, piece.record] for piece in group]))
    return messages


def _belongs(piece: Piece, group: list[Piece], *, is_choices: bool) -> bool:
    if piece.role != group[0].role or piece.kind == "result":
        return False
    if piece.message == group[-1].message:
        return True
    is_second_text = piece.kind == "text" and any(other.kind == "text" for other in group)
    return piece.role == "assistant" and not is_choices and not is_second_text


def _join(pieces: list[Piece]) -> Message:
    parts = [piece for piece in pieces if piece.kind != "call"]
    content: Any = None
    if len(parts) == 1 and parts[0].kind == "text":
        content = parts[0].value
    elif any(piece.value is not None for piece in parts):
        values = (p.value if p.kind != "text" else {"type": "text", "text": p.value} for p in parts)
        content = [value for value in values if value != {"type": "text", "text": None} and len(value) > 1] or None
    extra: dict[str, Any] = {}
    for piece in pieces:
        extra |= piece.extra
    calls = [piece.value.model_copy(deep=True) for piece in pieces if piece.kind == "call"]
    return Message(role=pieces[0].role, content=content, tool_calls=calls, extra=extra)


def _add_tools(unit: Unit) -> None:
    """Add to the calls and results what the spans of tools state: times, and whether the tool failed."""
    calls = [call for item in unit.messages for call in item.message.tool_calls]
    results = [item for item in unit.messages if item.message.role == "tool"]
    for span in unit.tools:
        name = dialects.tool_name(span)
        if dialects.is_handoff(span):  # the span of the call of a tool that the model knows by another name
            name = next((c.tool_name for c in calls if (c.tool_name or "").startswith("transfer_to_")), None)
        call = _take(calls, dialects.tool_call_id(span), name, dialects.tool_args(span))
        if call is None and dialects.is_handoff(span):
            continue
        call = call or _new_call(unit, span)
        call.created_at, call.duration_s = span.start, span.duration_s
        call.status = "failed" if span.failed else "completed"
        details = {"error": span.error if span.failed else None, "attributes": dialects.further_attributes(span)}
        call.extra = call.extra | {key: value for key, value in details.items() if value}
        result = next((item for item in results if item.message.tool_call_id == call.tool_call_id), None)
        if result is None and call.tool_call_id is None:
            result = next((item for item in results if item.message.tool_name == call.tool_name), None)
        facts = [_times(span), span.status, span.error, details]
        if result is not None:
            results.remove(result)
            message = result.message
            message.is_error, message.created_at, message.tool_name = span.failed, span.end, call.tool_name
            if message.content is None:
                message.content = dialects.tool_result(span)
            position = next(i for i, item in enumerate(unit.messages) if item is result)
            unit.messages[position] = result._replace(record=[result.record, facts])
        else:
            call.result = dialects.tool_result(span)
            call.extra = call.extra | {"span_id": span.span_id}


def _take(calls: list[ToolCall], call_id: str | None, name: str | None, args: Any) -> ToolCall | None:
    """Remove and return the call of a tool's span: by id, else by name and arguments, else by name."""
    if call_id:
        matches = [i for i, call in enumerate(calls) if call.tool_call_id == call_id]
    else:
        matches = [i for i, call in enumerate(calls) if call.tool_name == name]
        matches = [i for i in matches if calls[i].args == args] or matches
    return calls.pop(matches[0]) if matches else None


def _new_call(unit: Unit, span: Span) -> ToolCall:
    """A call that no message has: the content was not recorded, or the client called the tool."""
    call = ToolCall(tool_call_id=dialects.tool_call_id(span), tool_name=dialects.tool_name(span))
    call.args = dialects.tool_args(span)
    before = [
        position
        for position, item in enumerate(unit.messages)
        if item.message.role == "assistant" and _is_before(item.message.created_at, span.start)
    ]
    if before:
        item = unit.messages[before[-1]]
        item.message.tool_calls.append(call)
        facts = [call.tool_call_id, call.tool_name, call.args, dialects.tool_result(span), _times(span)]
        unit.messages[before[-1]] = item._replace(record=[item.record, facts])
    else:
        unit.loose_calls.append(call)
    return call


def _is_before(first: datetime | None, second: datetime | None) -> bool:
    return first is not None and second is not None and first <= second
