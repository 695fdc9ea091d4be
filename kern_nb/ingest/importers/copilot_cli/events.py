"""Events of the GitHub Copilot CLI, collected to threads: the main one, nested agents, rewound lines."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import MalformedRecord, hash_record
from kern_nb.ingest.parsing.run_outcomes import Outcomes
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.tree import copy_key
from kern_nb.ingest.parsing.values import (
    keep_scalars,
    to_args,
    to_count,
    to_id,
    to_list,
    to_number,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.records import Message, Run, ToolCall, Usage

Record = dict[str, Any]

_COUNTS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_tokens",
    "cacheWriteTokens": "cache_write_tokens",
    "reasoningTokens": "reasoning_tokens",
}
_PEOPLE = (None, "", "user")
_MAPPED_USER = ("content",)
_MAPPED_ANSWER = (
    "content", "reasoningText", "reasoningOpaque", "encryptedContent", "toolRequests", "outputTokens", "messageId",
    "model", "parentToolCallId",
)  # fmt: skip
_MAPPED_REQUEST = ("toolCallId", "name", "arguments", "type")
_MAPPED_RESULT = ("toolCallId", "success", "result", "error", "model", "parentToolCallId", "toolName")
_IGNORED = ("hook.", "permission.", "assistant.turn_", "assistant.streaming", "pending_messages.", "session.idle")
_TOTALS = {"totalNanoAiu": "total_nano_aiu", "totalPremiumRequests": "premium_requests", "totalApiDurationMs": "api_ms"}


def to_usage(counts: Record) -> Usage | None:
    """Usage from the names of the CLI; the input includes cached tokens, unless it is smaller than they are."""
    values = {name: to_count(counts.get(logged)) for logged, name in _COUNTS.items()}
    cached = (values["cache_read_tokens"] or 0) + (values["cache_write_tokens"] or 0)
    if values["input_tokens"] is not None and values["input_tokens"] < cached:
        values["input_tokens"] += cached
    usage = Usage(**values)
    return None if usage == Usage() else usage


@dataclass(slots=True)
class Thread:
    """The messages of an agent."""

    messages: list[SourceMessage] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=Outcomes)
    ids: list[str] = field(default_factory=list)
    totals: list[tuple[int, Usage]] = field(default_factory=list)
    _answers: dict[str, Message] = field(default_factory=dict)
    _calls: dict[str, ToolCall] = field(default_factory=dict)
    _starts: dict[str, datetime] = field(default_factory=dict)
    _reasoning: str | None = None

    def add(self, message: Message, event: Record, *, starts_run: bool = False, suffix: str = "") -> None:
        """Add a message."""
        event_id = to_id(event.get("id"))
        key = None if event_id is None else copy_key(event_id, event.get("timestamp"), event.get("data")) + suffix
        message.created_at = to_time(event.get("timestamp"))
        self.messages.append(SourceMessage(message, [event.get("type"), event.get("data")], key, starts_run))
        self.ids.append(event_id or "")

    def has_call(self, call_id: str) -> bool:
        """Whether it made a call."""
        return call_id in self._calls

    def add_prompt(self, event: Record, data: Record) -> None:
        """A message to the agent, of a person or of the program."""
        is_person = data.get("source") in _PEOPLE and data.get("isAutopilotContinuation") is not True
        extra = {key: value for key, value in without(data, _MAPPED_USER).items() if value not in ([], "", {})}
        message = Message(role="user", content=data.get("content"), message_id=to_id(event.get("id")), extra=extra)
        self.add(message, event, starts_run=is_person)

    def add_answer(self, event: Record, data: Record, model: str | None) -> None:
        """An answer, or the next part of one."""
        reasoning = to_text(data.get("reasoningText")) or self._reasoning
        self._reasoning = None
        text = to_text(data.get("content"))
        parts: list[Any] = [{"type": "thinking", "thinking": reasoning}] if reasoning else []
        content: Any = [*parts, *([{"type": "text", "text": text}] if text else [])] if parts else text
        message_id = to_id(data.get("messageId"))
        calls = [self._to_call(item, event) for item in to_list(data.get("toolRequests")) if isinstance(item, dict)]
        earlier = None if message_id is None else self._answers.get(message_id)
        usage = to_usage({"outputTokens": data.get("outputTokens")})
        if earlier is not None:
            earlier.content = _join(earlier.content, content)
            earlier.tool_calls += calls
            earlier.usage = earlier.usage or usage
            return
        message = Message(
            role="assistant",
            content=content,
            tool_calls=calls,
            message_id=message_id or to_id(event.get("id")),
            model=to_text(data.get("model")) or model,
            usage=usage,
            extra={key: value for key, value in without(data, _MAPPED_ANSWER).items() if value not in ([], "", {})},
        )
        if message_id is not None:
            self._answers[message_id] = message
        self.add(message, event)

    def add_reasoning(self, data: Record) -> None:
        """Reasoning, which the answer after it may repeat."""
        self._reasoning = to_text(data.get("content"))

    def add_start(self, event: Record, data: Record, *, by_user: bool = False) -> None:
        """The start of a call, which an answer may have requested."""
        call_id = to_id(data.get("toolCallId"))
        time = to_time(event.get("timestamp"))
        if call_id is not None and time is not None:
            self._starts[call_id] = time
        if call_id is None or call_id in self._calls:
            return
        call = self._to_call(data | {"name": data.get("toolName")}, event)
        call.caller = "user" if by_user else "assistant"
        self.add(Message(role="user" if by_user else "assistant", tool_calls=[call]), event)

    def _to_call(self, data: Record, event: Record) -> ToolCall:
        args, notes = to_args(data.get("arguments"))
        names = ("intentionSummary", "mcpServerName", "mcpToolName", "toolTitle")
        extra = keep_scalars({key: data.get(key) for key in names}) | notes
        call = ToolCall(
            tool_call_id=to_id(data.get("toolCallId")),
            tool_name=to_text(data.get("name")),
            args=args,
            created_at=to_time(event.get("timestamp")),
            extra=extra,
        )
        if call.tool_call_id is not None:
            self._calls[call.tool_call_id] = call
        return call

    def add_result(self, event: Record, data: Record) -> None:
        """The result of a call, and how long the call took."""
        call_id, result = to_id(data.get("toolCallId")), data.get("result")
        error = data.get("error")
        content = result.get("content") if isinstance(result, dict) else result
        if content is None:
            content = error.get("message") if isinstance(error, dict) else error
        extra = without(data, _MAPPED_RESULT)
        if isinstance(result, dict):
            extra |= without(result, ("content",))
        success = data.get("success")
        message = Message(
            role="tool",
            content=content,
            tool_call_id=call_id,
            tool_name=to_text(data.get("toolName")),
            is_error=not success if isinstance(success, bool) else None,
            message_id=to_id(event.get("id")),
            extra=extra,
        )
        self.add(message, event)
        start, call = self._starts.get(call_id or ""), self._calls.get(call_id or "")
        if start is not None and call is not None and message.created_at is not None and message.created_at >= start:
            call.duration_s = (message.created_at - start).total_seconds()

    def add_compaction(self, event: Record, data: Record) -> None:
        """A compaction, which may have failed."""
        used = to_object(data.get("compactionTokensUsed"))
        message = Message(
            role="system",
            content=to_text(data.get("summaryContent")),
            model=to_text(used.get("model")),
            usage=to_usage(used),
            extra={"compaction": True} | without(data, ("summaryContent",)),
        )
        self.add(message, event)

    def end_run(self, status: Any, error: str | None = None) -> None:
        """Note how the run ended."""
        self.outcomes.note(len(self.messages), status, error)

    def note_total(self, usage: Usage, stated: Usage | None) -> None:
        """Note what was spent since the last totals, of which the messages since then state a part."""
        rest = {}
        for name in Usage.model_fields:
            total, counted = getattr(usage, name), getattr(stated, name) if stated else None
            if total is not None and total > (counted or 0):
                rest[name] = total - (counted or 0)
        if rest:
            self.totals.append((len(self.messages), Usage(**rest)))

    def build_runs(self, session_id: str) -> tuple[list[Run], list[str], list[list[str]]]:
        """The runs, the hashes and the keys."""
        runs, hashes, keys = split_runs(session_id, self.messages)
        self.outcomes.apply(runs, hashes)
        ends: list[int] = []
        for run in runs:
            ends.append((ends[-1] if ends else 0) + len(run.messages))
        for position, usage in self.totals:
            index = next((i for i, end in enumerate(ends) if end >= position), len(runs) - 1)
            if runs:
                own = runs[index].usage or Usage.total(m.usage for m in runs[index].messages if m.role != "user")
                runs[index].usage = Usage.total([own, usage])
                hashes[index] = hash_record(hashes[index], usage.model_dump())
        return runs, hashes, keys

    def cut(self, event_id: str) -> Thread:
        """Remove an event and what follows; return the thread with all."""
        if event_id not in self.ids:
            raise MalformedRecord(f"the event {event_id[:80]!r} that it goes back to is not in the file")
        whole = copy.copy(self)
        at = self.ids.index(event_id)
        self.messages, self.ids = self.messages[:at], self.ids[:at]
        self.outcomes = Outcomes([outcome for outcome in self.outcomes.noted if outcome.n_messages <= at])
        self.totals = [(n, usage) for n, usage in self.totals if n <= at]
        return whole


def _join(first: Any, second: Any) -> Any:
    """The content of two parts of an answer."""
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    parts = [[{"type": "text", "text": item}] if isinstance(item, str) else item for item in (first, second)]
    return [*parts[0], *parts[1]]


@dataclass(slots=True)
class Log:
    """What the events of a file say."""

    start: Record = field(default_factory=dict)
    title: str | None = None
    main: Thread = field(default_factory=Thread)
    removed: list[Thread] = field(default_factory=list)
    nested: dict[str, Thread] = field(default_factory=dict)
    agents: dict[str, Record] = field(default_factory=dict)
    others: list[Record] = field(default_factory=list)
    model_metrics: Record = field(default_factory=dict)
    totals: Record = field(default_factory=dict)
    first_time: str | None = None
    last_time: str | None = None
    _model: str | None = None
    _call_of_agent: dict[str, str] = field(default_factory=dict)
    _spent: Usage | None = None
    _n_counted: dict[int, int] = field(default_factory=dict)
    _added: set[str] = field(default_factory=set)

    def threads(self) -> Iterator[Thread]:
        """The main thread and the nested ones."""
        yield self.main
        yield from self.nested.values()

    def nested_calls(self) -> Iterator[tuple[str, str | None]]:
        """The call of each nested agent, and that of the nested agent which made it; callers first."""
        callers = {
            call_id: next((other for other, t in self.nested.items() if other != call_id and t.has_call(call_id)), None)
            for call_id in self.nested
        }
        done: dict[str | None, None] = {None: None}
        while waiting := [call_id for call_id in callers if call_id not in done]:
            ready = [call_id for call_id in waiting if callers[call_id] in done] or waiting[:1]
            for call_id in ready:
                done[call_id] = None
                yield call_id, callers[call_id]

    def add(self, event: Record) -> None:
        """Add an event."""
        kind, data = event.get("type"), event.get("data")
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise MalformedRecord("it has no type or no data")
        if event.get("id"):
            digest = hash_record(event)
            if digest in self._added:  # the same line twice
                return
            self._added.add(digest)
        if time := to_text(event.get("timestamp")):
            self.first_time, self.last_time = self.first_time or time, time
        if not (self._add_message(kind, event, data) or self._add_fact(kind, event, data)) and not kind.startswith(
            _IGNORED
        ):
            self.others.append(event)

    def _thread(self, event: Record, data: Record) -> Thread:
        call_id = to_id(data.get("parentToolCallId"))
        agent_id = to_id(event.get("agentId"))
        if call_id is None and agent_id is not None:
            call_id = self._call_of_agent.get(agent_id, agent_id)
        return self.main if call_id is None else self.nested.setdefault(call_id, Thread())

    def _add_message(self, kind: str, event: Record, data: Record) -> bool:
        thread = self._thread(event, data)
        self._model = (to_text(data.get("model")) if thread is self.main else None) or self._model
        if kind == "user.message":
            thread.add_prompt(event, data)
        elif kind == "assistant.message":
            thread.add_answer(event, data, self._model if thread is self.main else None)
        elif kind == "assistant.reasoning":
            thread.add_reasoning(data)
        elif kind in ("tool.execution_start", "tool.user_requested"):
            thread.add_start(event, data, by_user=kind == "tool.user_requested")
        elif kind == "tool.execution_complete":
            thread.add_result(event, data)
        elif kind in ("system.message", "system.notification"):
            text = data.get("content")
            thread.add(Message(role="system", content=text, extra=without(data, ("content", "role"))), event)
        elif kind == "session.compaction_complete":
            thread.add_compaction(event, data)
        else:
            return False
        return True

    def _add_fact(self, kind: str, event: Record, data: Record) -> bool:
        if kind in ("session.start", "session.resume"):
            self.start = (data | self.start) if kind == "session.resume" and self.start else self.start or data
            self._model = to_text(data.get("selectedModel")) or self._model
        elif kind == "session.model_change":
            self._model = to_text(data.get("newModel")) or self._model
        elif kind == "session.title_changed":
            self.title = to_text(data.get("title"))
        elif kind == "session.snapshot_rewind":
            self.removed.append(self.main.cut(str(data.get("upToEventId"))))
            counted = self._n_counted.get(id(self.main), 0)
            self._n_counted[id(self.main)] = min(counted, len(self.main.messages))
        elif kind == "session.error":
            self._thread(event, data).end_run("ERROR", to_text(data.get("message")) or "The session failed.")
        elif kind == "abort":
            self._thread(event, data).end_run("CANCELLED")
        elif kind == "session.shutdown":
            self._add_totals(data)
        elif kind.startswith("subagent."):
            self._add_agent(event, data)
        else:
            return False
        return True

    def _add_agent(self, event: Record, data: Record) -> None:
        call_id, agent_id = to_id(data.get("toolCallId")), to_id(event.get("agentId"))
        if call_id is not None:
            self.agents[call_id] = self.agents.get(call_id, {}) | data
            if agent_id is not None:
                self._call_of_agent[agent_id] = call_id

    def _add_totals(self, data: Record) -> None:
        """The totals of all models; they are those of the session, so that only the last ones hold."""
        self.model_metrics = to_object(data.get("modelMetrics"))
        self.totals = {name: n for key, name in _TOTALS.items() if (n := to_number(data.get(key))) is not None}
        models = [to_usage(to_object(to_object(item).get("usage"))) for item in self.model_metrics.values()]
        total = Usage.total(models)
        if total is None:
            return
        spent = self._spent or Usage()
        added = {name: _difference(getattr(total, name), getattr(spent, name)) for name in Usage.model_fields}
        is_growing = all(value is None or value >= 0 for value in added.values())
        self._spent = total
        new: list[Usage | None] = []
        for thread in self.threads():
            n_counted = self._n_counted.get(id(thread), 0)
            new += [item.message.usage for item in thread.messages[n_counted:]]
            self._n_counted[id(thread)] = len(thread.messages)
        self.main.note_total(Usage(**added) if is_growing else total, Usage.total(new))


def _difference(total: Any, before: Any) -> Any:
    return None if total is None else total - (before or 0)
