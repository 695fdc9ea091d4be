"""The turns of a Codex rollout, from its records in the order of the file.

A turn begins with the event ``task_started``; old files have no turns, there each prompt begins one. A rollback takes
the last turns off the main line; the line until then is kept as a branch. The items of one response of the model are
one message: the record of its usage, the result of a call or a prompt ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import MalformedRecord, hash_record
from kern_nb.ingest.importers.codex.items import (
    ITEM_TYPES,
    Item,
    Outcome,
    is_prompt,
    to_call,
    to_content,
    to_reasoning,
    to_result,
)
from kern_nb.ingest.importers.codex.usage import UsageCounter, to_usage
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import to_count, to_duration, to_id, to_number, to_object, to_text, without
from kern_nb.records import Message, RunStatus, Usage, text_of

_STARTS = ("task_started", "turn_started")
_TURN_EVENTS = (*_STARTS, "task_complete", "turn_complete", "turn_aborted", "error")
# Events that repeat what an item states, or are not part of the conversation.
_IGNORED_EVENTS = frozenset(
    {
        "user_message", "agent_message", "agent_reasoning", "agent_reasoning_raw_content", "context_compacted",
        "item_started", "agent_reasoning_section_break", "thread_settings_applied", "web_search_begin",
        "exec_command_begin", "patch_apply_begin", "mcp_tool_call_begin", "stream_error", "agent_message_delta",
        "thread_name_updated",
    }
)  # fmt: skip
# The instructions are those of the header or of messages.
_MAPPED_CONTEXT = ("turn_id", "root_turn_id", "model", "user_instructions", "developer_instructions")
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_MIN_UNIQUE_ID = 20  # characters; a shorter id of a turn is unique in its thread only


@dataclass(slots=True, eq=False)
class Turn:
    """A turn: its messages, and what its events state."""

    turn_id: str | None
    owner: str
    items: list[Item] = field(default_factory=list)
    model: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    started_at: float | None = None
    has_start: bool = False
    has_end: bool = False
    status: RunStatus | None = None
    error: str | None = None
    duration_s: float | None = None
    time_to_first_token_s: float | None = None
    records: list[Any] = field(default_factory=list)

    @property
    def n_prompts(self) -> int:
        """How many prompts it has: a person may write again while the model works."""
        return sum(item.starts_run is True for item in self.items)


class Thread:
    """The state while the records of a file are read."""

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}
        self.parents: list[str] = []
        self.path: list[Turn] = []
        self.rolled_back: list[tuple[list[Turn], list[Turn]]] = []  # a line, and what was taken off it
        self.outcomes: dict[str, Outcome] = {}
        self.durations: dict[str, float] = {}
        self.title: str | None = None
        self.model: str | None = None
        self.first_time: datetime | None = None
        self.last_time: datetime | None = None
        self._turns: dict[str, Turn] = {}
        self._time: datetime | None = None
        self._prefix = ""
        self._owner = ""
        self._n_unnumbered = 0
        self._line = ""
        self._open: Item | None = None
        self._uncounted: Item | None = None
        self._pending: list[tuple[Usage, Any]] = []
        self._counter = UsageCounter()

    @property
    def thread_id(self) -> str | None:
        """The id of the session."""
        return to_id(self.meta.get("id"))

    @property
    def is_nested(self) -> bool:
        """Whether another agent started this one."""
        return "subagent" in to_object(self.meta.get("source")) or self.meta.get("thread_source") == "subagent"

    def ends_before(self, meta: dict[str, Any]) -> bool:
        """Whether a header is that of another file: those of threads whose records a fork repeats precede the turns."""
        thread_id = to_id(meta.get("id"))
        has_items = any(turn.items for turn in self.path)
        is_known = None in (thread_id, self.thread_id) or thread_id in (self.thread_id, *self.parents)
        return has_items and not is_known

    def add(self, kind: str, payload: dict[str, Any], time: datetime | None, ordinal: Any) -> None:
        """Add a record."""
        if time is not None:
            self.first_time = self.first_time or time
            self.last_time = max(time, self.last_time or time)
        self._time = time
        if type(ordinal) is int and ordinal >= 0:
            self._prefix = f"{ordinal:012d}."
        if kind == "session_meta":
            self._add_meta(payload)
        elif kind == "response_item":
            self._add_item(payload)
        elif kind == "event_msg":
            self._add_event(payload)
        elif kind == "turn_context":
            self._add_context(payload)
        elif kind == "token_usage_record":
            self._add_usage(self._counter.count_record(payload))
        elif kind == "compacted":
            self._add_compaction(payload)
        else:
            self._turn().records.append({"type": kind, "payload": payload})

    def finish(self) -> None:
        """End the last turn."""
        self._end_response()

    def is_replayed(self, turn: Turn) -> bool | None:
        """Whether the parent of a fork wrote a turn, which its file repeats; None if the file does not tell."""
        if not self.parents:
            return False
        own, other = _uuid_time(self.thread_id), _uuid_time(turn.turn_id)
        if own is not None and other is not None:
            return other < own
        start = to_time(self.meta.get("timestamp"))
        if start is not None and turn.started_at is not None:
            return turn.started_at < int(start.timestamp())
        return None

    def _add_meta(self, payload: dict[str, Any]) -> None:
        thread_id = to_id(payload.get("id"))
        if not self.meta:
            self.meta = payload
        elif thread_id is not None and thread_id != self.thread_id:
            self.parents.append(thread_id)
        self._owner = thread_id or self._owner

    def _begin_turn(self, turn_id: str | None) -> Turn:
        self._end_response()
        if turn_id is None:
            owner = self._owner
        else:
            owner = turn_id if len(turn_id) >= _MIN_UNIQUE_ID else f"{self._owner}/{turn_id}"
        turn = Turn(turn_id, owner, model=self.model)
        self.path.append(turn)
        if turn_id is not None:
            self._turns[turn_id] = turn
        self._counter.begin_turn()
        return turn

    def _turn(self) -> Turn:
        return self.path[-1] if self.path else self._begin_turn(None)

    def _turn_of(self, payload: dict[str, Any]) -> Turn:
        return self._turns.get(to_text(payload.get("turn_id")) or "") or self._turn()

    def _add_context(self, payload: dict[str, Any]) -> None:
        turn_id = to_text(payload.get("turn_id"))
        turn = (
            self._begin_turn(turn_id) if turn_id is not None and turn_id not in self._turns else self._turn_of(payload)
        )
        self.model = to_text(payload.get("model")) or self.model
        turn.model = self.model
        turn.context = without(payload, _MAPPED_CONTEXT)

    # Items

    def _add_item(self, payload: dict[str, Any]) -> None:
        kind = payload.get("type")
        if not isinstance(kind, str) or kind not in ITEM_TYPES:
            self._turn().records.append(payload)
        elif kind == "agent_message":
            self._add_message(payload, "user", is_prompt=self.is_nested and not self._has_prompt())
        elif kind == "message" and payload.get("role") != "assistant":
            role = to_text(payload.get("role")) or "user"
            self._add_message(payload, role, is_prompt=role == "user" and is_prompt(payload))
        elif kind.endswith("_output"):
            self._add_result(payload)
        else:
            self._add_to_response(payload)

    def _has_prompt(self) -> bool:
        return any(turn.n_prompts for turn in self.path)

    def _add_message(self, payload: dict[str, Any], role: str, *, is_prompt: bool) -> None:
        if is_prompt:
            self._end_response()
            turn = self._turn()
            if turn.turn_id is None and turn.n_prompts:
                # The environment precedes the prompt that it was written for.
                kept = len(turn.items)
                while (
                    kept
                    and turn.items[kept - 1].message.role in ("user", "developer")
                    and (turn.items[kept - 1].starts_run is False and not _is_notice(turn.items[kept - 1].message))
                ):
                    kept -= 1
                moved, turn.items[kept:] = turn.items[kept:], []
                self._begin_turn(None).items += moved
        self._open = None
        extra = without(payload, ("type", "role", "content", "id", "internal_chat_message_metadata_passthrough"))
        content = to_content(payload.get("content"))
        message = Message(
            role=role, content=content, message_id=to_id(payload.get("id")), created_at=self._time, extra=extra
        )
        self._append(Item(message, [payload], starts_run=is_prompt))

    def _add_result(self, payload: dict[str, Any]) -> None:
        self._open = None
        message, duration = to_result(payload)
        message.created_at = self._time
        if duration is not None and message.tool_call_id is not None:
            self.durations[message.tool_call_id] = duration
        self._append(Item(message, [payload]))

    def _add_to_response(self, payload: dict[str, Any]) -> None:
        kind = payload["type"]
        call = None if kind in ("message", "reasoning") else to_call(payload)
        item = self._open
        if item is None:
            message = Message(role="assistant", model=self.model, created_at=self._time)
            item = Item(message, [])
            self._append(item)
            self._open = item
            if self._pending:
                self._set_usage(item)
            else:
                self._uncounted = item
        message = item.message
        item.record.append(payload)
        if kind == "message":
            content = payload.get("content")
            item.parts += content if isinstance(content, list) else [] if content is None else [content]
            message.message_id = to_id(payload.get("id")) or message.message_id
            extra = ("type", "role", "content", "id", "status", "internal_chat_message_metadata_passthrough")
            message.extra |= without(payload, extra)
        elif call is None:
            item.parts += to_reasoning(payload)
        else:
            call.created_at = self._time
            message.tool_calls.append(call)
        message.content = to_content(item.parts)

    def _append(self, item: Item) -> None:
        turn = self._turn()
        if turn.turn_id is None:
            # Forks repeat such a file without any sign of where their own part begins.
            if item.starts_run:
                self._line = hash_record(self._line, item.message.content)[:8]
            item.key = f"{self._prefix}{turn.owner}:{self._n_unnumbered:06d}:{self._line}"
            self._n_unnumbered += 1
        else:
            item.key = f"{self._prefix}{turn.owner}:{len(turn.items):05d}"
        turn.items.append(item)

    # Usage

    def _add_usage(self, logged: dict[str, Any] | None) -> None:
        """Give the counts of a response to its message, or keep them: some versions write them before it."""
        usage = to_usage(logged) if logged else None
        if usage is None or logged is None:
            return
        self._pending.append((usage, logged))
        self._open = None
        if self._uncounted is not None:
            self._set_usage(self._uncounted)

    def _set_usage(self, item: Item) -> None:
        item.message.usage = Usage.total(usage for usage, _ in self._pending)
        logged = [counts for _, counts in self._pending]
        item.message.extra = item.message.extra | {"usage": logged[0] if len(logged) == 1 else logged}
        item.record.append(logged)
        self._pending, self._uncounted = [], None

    def _end_response(self) -> None:
        """Give usage without an answer, before a new prompt or turn, to the last message of the turn without usage."""
        if self._pending:
            turn = self._turn()
            items = [i for i in turn.items if i.message.role == "assistant" and i.message.usage is None]
            if not items:
                message = Message(role="assistant", model=self.model, created_at=self.last_time)
                items = [Item(message, ["usage"])]
                self._append(items[0])
            self._set_usage(items[-1])
        self._open = self._uncounted = None

    # Compaction, rollback and other events

    def _add_compaction(self, payload: dict[str, Any]) -> None:
        """Mark the summary, which some versions also write as an answer of the model."""
        summary, turn = to_text(payload.get("message")), self._turn()
        answers = [item for item in turn.items if item.message.role == "assistant"]
        text = (text_of(answers[-1].message.content) or "").strip() if answers else ""
        details = without(payload, ("message", "replacement_history"))
        is_own_turn = turn.turn_id is not None and turn.n_prompts == 0
        if answers and (is_own_turn or (text and text in (summary or ""))):
            answers[-1].message.extra = answers[-1].message.extra | {"compaction": True, "compacted": details}
            answers[-1].record.append("compaction")
            return
        self._open = None
        message = Message(role="assistant", content=summary, model=self.model, created_at=self._time)
        message.extra = {"compaction": True, "compacted": details}
        item = Item(message, [payload])
        self._append(item)
        if self._pending:
            self._set_usage(item)

    def _add_event(self, payload: dict[str, Any]) -> None:
        kind = payload.get("type")
        if not isinstance(kind, str):
            raise MalformedRecord("the event has no type")
        if kind in _TURN_EVENTS:
            self._add_turn_event(kind, payload)
        elif kind == "token_count":
            self._add_usage(self._counter.count_event(payload))
        elif kind == "thread_rolled_back":
            self._roll_back(payload)
        elif kind == "thread_name_updated":
            self.title = to_text(payload.get("thread_name")) or self.title
        elif kind == "item_completed":
            item = to_object(payload.get("item"))
            self._add_outcome(to_id(item.get("id")), item)
        elif "call_id" in payload and kind.endswith("_end"):
            self._add_outcome(to_id(payload["call_id"]), payload)
        elif kind not in _IGNORED_EVENTS:
            self._turn().records.append(payload)

    def _add_turn_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind in _STARTS:
            turn_id = to_text(payload.get("turn_id"))
            turn = self._turns.get(turn_id or "") or self._begin_turn(turn_id)
            turn.has_start, turn.started_at = True, to_number(payload.get("started_at"))
            return
        turn = self._turn_of(payload)
        turn.has_end = turn.has_end or kind != "error"
        if kind == "turn_aborted":
            turn.status, turn.error = "CANCELLED", to_text(payload.get("reason"))
        elif kind == "error":
            turn.status, turn.error = "ERROR", to_text(payload.get("message")) or "The turn failed."
        elif error := payload.get("error"):
            turn.status, turn.error = "ERROR", to_text(to_object(error).get("message")) or str(error)
        duration, first = (to_duration(payload.get(name), 1000) for name in ("duration_ms", "time_to_first_token_ms"))
        turn.duration_s = turn.duration_s if duration is None else duration
        turn.time_to_first_token_s = turn.time_to_first_token_s if first is None else first

    def _add_outcome(self, call_id: str | None, fields: dict[str, Any]) -> None:
        if call_id is not None:
            self.outcomes.setdefault(call_id, Outcome()).update(fields)

    def _roll_back(self, payload: dict[str, Any]) -> None:
        """Take the turns of the last prompts off the main line."""
        self._end_response()
        number = to_count(payload.get("num_turns")) or 0
        line = list(self.path)
        while number > 0 and self.path:
            number -= self.path.pop().n_prompts
        if len(self.path) < len(line):
            self.rolled_back.append((line, line[len(self.path) :]))
        if line and not self.path:  # what precedes the first prompt stays
            first = line[0]
            prompts = [index for index, item in enumerate(first.items) if item.starts_run is True]
            lead = prompts[0] if prompts else len(first.items)
            self.path = [Turn(first.turn_id, first.owner, first.items[:lead], first.model)] if lead else []
        elif self.path:  # it may still grow, but not in the line that is kept
            last = self.path[-1]
            self.path[-1] = replace(last, items=list(last.items), records=list(last.records))
        self._turns = {turn.turn_id: turn for turn in self.path if turn.turn_id is not None}


def group_by_run(path: list[Turn]) -> Iterator[tuple[list[Item], list[Turn]]]:
    """The messages of each run, and the turns that they are from.

    A prompt begins a run, with what its turn has before it. A turn without one, such as a compaction, belongs to the
    run before.
    """
    items: list[Item] = []
    turns: list[Turn] = []
    has_content = False
    for turn in path:
        lead = [item.starts_run is True for item in turn.items].index(True) if turn.n_prompts else len(turn.items)
        if turn.n_prompts and has_content:
            yield items, turns
            items, turns, has_content = [], [], False
        turns.append(turn)
        for index, item in enumerate(turn.items):
            if item.starts_run and index > lead:
                yield items, turns
                items, turns = [], [turn]
            items.append(item)
            has_content = has_content or bool(item.starts_run) or item.message.role in ("assistant", "tool")
    if items:
        yield items, turns


def _is_notice(message: Message) -> bool:
    """Whether a text of the client reports on the turn before it, not on the next one."""
    text = text_of(message.content) or ""
    return text.lstrip().startswith(("<turn_aborted>", "<subagent_notification>", "<user_shell_command>"))


def _uuid_time(value: str | None) -> int | None:
    """The milliseconds since 1970 in a UUID of version 7."""
    match = _UUID7.fullmatch(value or "")
    return int(match[1] + match[2], 16) if match else None
