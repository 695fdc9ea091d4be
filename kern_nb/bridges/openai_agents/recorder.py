"""`Recording`: writes one run of the SDK as it happens.

An answer of the model is stored with its calls before the tools start, a result when its tool ends. The SDK saves the
items of a turn into its session afterwards, changed here and there: they are matched with the messages that are stored
already, and only what is new becomes a message.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic_core import to_jsonable_python

from kern_nb.bridges.openai_agents import memory
from kern_nb.bridges.openai_agents.items import (
    Entry,
    Item,
    ItemKey,
    find_keys,
    group_items,
    is_output,
    is_prompt,
    is_reply,
    next_position,
)
from kern_nb.db import codec, message_writes
from kern_nb.db.integrity import abandon
from kern_nb.db.open_runs import find_run_key
from kern_nb.errors import UnstorableValue
from kern_nb.extra_keys import DURATION_S, ITEMS, RESPONSE_ID, UNORDERED
from kern_nb.records import Message, Run, RunStatus, Usage

if TYPE_CHECKING:
    from agents import ModelResponse
    from sqlalchemy.engine import Connection

    from kern_nb.db import SessionStore

_current: ContextVar[Recording | None] = ContextVar("kern_openai_recording", default=None)


def current_recording(store: SessionStore | None = None, session_id: str | None = None) -> Recording | None:
    """The run that the caller is part of; with arguments, only if it is recorded in that session."""
    recording = _current.get()
    if recording is None or recording.has_ended or store is None:
        return recording
    is_same = recording.store.database == store.database and recording.store.tables.name == store.tables.name
    return recording if is_same and recording.session_id == session_id else None


@contextmanager
def recording_context(recording: Recording) -> Iterator[None]:
    """Make a run the one that its tools, sessions and nested runs are part of."""
    token = _current.set(recording)
    try:
        yield
    finally:
        _current.reset(token)


@dataclass
class _Stored:
    """An item of a stored message."""

    keys: frozenset[ItemKey]
    message_index: int
    entry: Entry


@dataclass
class _Draft:
    """A message that is not stored yet, with its items."""

    message: Message
    items: list[Item] = field(default_factory=list)


class Recording:
    """The writer of one open run.

    Attributes:
        store: The store.
        session_id: The session.
        run_id: The run.
        agent_name: The agent that the run started with.
        has_ended: Whether the run has ended or is paused.
        before: A resumed run as it was before; None for a new one.
        is_untouched: Whether nothing has happened in it since.
        state: The state with which it was resumed, which the SDK updates; None for a new one.
        options: The arguments of ``Runner.run``.
    """

    def __init__(self, store: SessionStore, run: Run, *, has_memory: bool) -> None:
        """Continue a run of a store; with ``has_memory``, a session adds items to it."""
        self.store = store
        self.session_id = run.session_id or ""
        self.run_id = run.run_id
        self.agent_name = run.agent_id
        self.has_ended = False
        self.before: Run | None = None
        self.is_untouched = True
        self.state: Any = None
        self.options: dict[str, Any] = {}
        self._has_memory = has_memory
        self._lock = threading.RLock()
        self._drafts: list[_Draft] = []
        self._stored: list[_Stored] = []
        self._internals: dict[int, dict[str, Any]] = {}
        self._last_position = 0
        self._usages: list[Usage | None] = []
        self._instructions: str | None = None
        self._tool_starts: dict[str, float] = {}
        self._track(run.messages)
        for message in run.messages:
            self._usages.append(message.usage)
            if message.role == "system" and isinstance(message.content, str):
                self._instructions = message.content

    # Messages ---------------------------------------------------------------------------------------------------------

    @classmethod
    def start_messages(cls, agent: Any, value: Any, *, has_memory: bool) -> list[Message]:
        """The first messages of a run. Those before the latest answer are a copy of the history."""
        instructions = agent.instructions if isinstance(agent.instructions, str) else None  # else unknown before
        items = [{"role": "user", "content": value}] if isinstance(value, str) else copy.deepcopy(list(value))
        drafts = [_Draft(message, own) for message, own in group_items([_to_item(item) for item in items])]
        replies = [i for i, draft in enumerate(drafts) if any(map(is_reply, draft.items))]
        for draft in drafts[: replies[-1] + 1] if replies else ():
            draft.message.from_history = True
        if instructions:
            drafts.insert(0, _Draft(Message(role="system", content=instructions)))
        return _to_messages(drafts, in_memory=not has_memory)

    def _track(self, messages: Sequence[Message]) -> None:
        """Note the items of stored messages."""
        for message in messages:
            if message.message_index is None:
                continue
            self._internals[message.message_index] = message.internal
            for entry in message.internal.get(ITEMS, ()):
                self._last_position = max(self._last_position, entry[0] or 0)
                self._stored.append(_Stored(frozenset(find_keys(entry[1])), message.message_index, entry))

    def _append(self, connection: Connection, drafts: Sequence[_Draft], *, in_memory: bool) -> list[Message]:
        """Store messages, those that wait included."""
        if not drafts and not self._drafts:
            return []
        messages = _to_messages(self._drafts, in_memory=not self._has_memory)
        messages += _to_messages(drafts, in_memory=in_memory, last=self._last_position)
        return message_writes.append_messages(connection, self.store, self.run_id, messages)

    def record(self, drafts: Sequence[_Draft]) -> None:
        """Store messages that just happened."""
        self.is_untouched = False
        with self._lock:
            in_memory = not self._has_memory
            stored = self.store.write(lambda c: self._append(c, drafts, in_memory=in_memory), small=True)
            self._drafts.clear()
            self._track(stored)

    def remember(self, items: Sequence[Item]) -> None:
        """Add the items that the SDK saves into the session, in their order."""
        with self._lock:
            items = copy.deepcopy(list(items))
            entries: list[tuple[_Stored, int, Item]] = []
            drafts: list[tuple[int, Item]] = []
            taken: set[int] = set()
            position = self._last_position
            for item in items:
                position = next_position(position)
                match = self._find(item, taken)
                if match is None:
                    drafts.append((position, item))
                else:
                    taken.add(id(match))
                    entries.append((match, position, item))
            if self._drafts:
                self.record([])
                return self.remember(items)
            new = [_Draft(message, own) for message, own in group_items([item for _, item in drafts])]
            positions = iter([position for position, _ in drafts])
            messages = [_with_positions(draft, positions) for draft in new]
            changed: dict[int, dict[str, Any]] = {}
            for stored, position, item in entries:
                stored.entry[:] = [position, item]
                changed[stored.message_index] = self._internals[stored.message_index]
            changed |= self._mark_unordered(changed)

            def write(connection: Connection) -> list[Message]:
                memory.update_entries(connection, self.store, self.run_id, changed)
                if not messages:
                    return []
                return message_writes.append_messages(connection, self.store, self.run_id, messages)

            self._track(self.store.write(write, small=True))
            self._last_position = max(self._last_position, position)
            return None

    def _find(self, item: Item, taken: set[int]) -> _Stored | None:
        """The stored item that an item is, if it is not in the memory yet."""
        candidates = [s for s in self._stored if s.entry[0] is None and id(s) not in taken]
        for key in find_keys(item):
            for stored in candidates:
                if key in stored.keys:
                    return stored
        return None

    def _mark_unordered(self, changed: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Mark the messages that come before an item of an earlier message."""
        marked: dict[int, dict[str, Any]] = {}
        highest = 0
        first = min(changed, default=0)
        for index in sorted(index for index in self._internals if index >= first):
            internal = self._internals[index]
            positions = [entry[0] for entry in internal.get(ITEMS, ()) if entry[0] is not None]
            if positions and min(positions) < highest and UNORDERED not in internal:
                internal[UNORDERED] = True
                marked[index] = internal
            highest = max([highest, *positions])
        return marked

    def forget_last(self) -> Item | None:
        """Remove the newest item of this run from the memory, and return it; None if it has none there.

        The message stays: it happened.
        """
        with self._lock:
            remembered = [stored for stored in self._stored if stored.entry[0] is not None]
            if not remembered:
                return None
            last = max(remembered, key=lambda stored: stored.entry[0])
            position, last.entry[0] = last.entry[0], None
            changed = {last.message_index: self._internals[last.message_index]}
            try:
                self.store.write(
                    lambda connection: memory.update_entries(connection, self.store, self.run_id, changed), small=True
                )
            except BaseException:
                last.entry[0] = position
                raise
            item: Item = last.entry[1]
            return item

    # What happens -----------------------------------------------------------------------------------------------------

    def request(self, agent_name: str, instructions: str | None, items: Sequence[Any]) -> None:
        """The model is about to be called."""
        with self._lock:
            if missing := self._missing_outputs(items):
                self.record(missing)
            if instructions and instructions != self._instructions:
                self._instructions = instructions
                self._drafts.append(_Draft(Message(role="system", content=instructions, extra=self._agent(agent_name))))

    def _missing_outputs(self, items: Sequence[Any]) -> list[_Draft]:
        """Results of this run's calls, such as handoffs, that no hook reports."""
        keys = {key for stored in self._stored for key in stored.keys}
        calls = {key[2] for key in keys if key[0] == "call"}
        outputs = [_to_item(item) for item in items]
        outputs = [item for item in outputs if is_output(item) and item.get("call_id") in calls]
        missing = [item for item in outputs if keys.isdisjoint(find_keys(item))]
        return [_Draft(message, own) for message, own in group_items(missing)]

    def _agent(self, name: str) -> dict[str, Any]:
        """The name of an agent that took the run over."""
        return {} if name == self.agent_name else {"agent": name}

    def answer(self, agent_name: str, model: str | None, response: ModelResponse) -> None:
        """The model has answered."""
        usage = to_usage(response)
        groups = group_items([_to_item(item) for item in response.to_input_items()], model)
        drafts = [_Draft(message, own) for message, own in groups]
        answers = [draft.message for draft in drafts if draft.message.role == "assistant"]
        if not answers and (usage is not None or response.response_id):
            drafts.append(_Draft(Message(role="assistant", model=model)))
            answers = [drafts[-1].message]
        for message in answers:
            message.extra |= self._agent(agent_name)
        if answers:
            answers[-1].usage = usage
            ids = {RESPONSE_ID: response.response_id, "request_id": response.request_id}
            answers[-1].internal |= {name: value for name, value in ids.items() if value is not None}
        self._usages.append(usage)
        self.record(drafts)

    def tool_started(self, call_id: str) -> None:
        """A tool is about to run."""
        self.is_untouched = False
        self._tool_starts[call_id] = time.perf_counter()

    def tool_ended(self, item: Item, name: str, *, is_error: bool | None) -> None:
        """A tool has returned."""
        drafts = [_Draft(message, own) for message, own in group_items([item])]
        started = self._tool_starts.pop(str(item.get("call_id")), None)
        for draft in drafts:
            draft.message.tool_name = name
            draft.message.is_error = is_error or draft.message.is_error
            if started is not None:
                draft.message.internal |= {DURATION_S: time.perf_counter() - started}
        self.record(drafts)

    # The end ----------------------------------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage | None:
        """The tokens so far."""
        return Usage.total(self._usages)

    def complete(self, output: Any, items: Sequence[Any], *, status: RunStatus = "COMPLETED") -> None:
        """The run has ended with an output; ``items`` are all it has generated."""
        self._finish(status, items, output=to_storable(output))

    def fail(self, error: BaseException) -> None:
        """The run has ended with an exception."""
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
            self._finish("CANCELLED")
            return
        self._fail_tool(error)
        data = getattr(error, "run_data", None)
        self._finish("ERROR", getattr(data, "new_items", ()), error=describe(error))

    def _finish(self, status: RunStatus, items: Sequence[Any] = (), **values: Any) -> None:
        with self._lock:
            if self.has_ended:
                return
            self.flush(items)
            self.store.finish_run(self.run_id, status=status, usage=self.usage, **values)
            self.has_ended = True

    def flush(self, items: Sequence[Any] = ()) -> None:
        """Store what waits, and results among the generated items that no hook has reported."""
        drafts = self._missing_outputs([_raw_item(item) for item in items])
        if drafts or self._drafts:
            self.record(drafts)

    def _fail_tool(self, error: BaseException) -> None:
        """Mark the call whose tool raised the error that ended the run, if only one was running."""
        if len(self._tool_starts) != 1:
            return
        (call_id,) = self._tool_starts
        t = self.store.tables.tool_calls

        def write(connection: Connection) -> None:
            session_id, run_index = find_run_key(connection, self.store, self.run_id)
            is_call = (t.c.session_id == session_id) & (t.c.run_index == run_index) & (t.c.tool_call_id == call_id)
            values = {"status": "failed", "result": describe(error)}
            connection.execute(sa.update(t).where(is_call, t.c.status == "started").values(**values))

        self.store.write(write, small=True)

    def give_up(self) -> None:
        """Record that the run ended where its end could not be stored."""
        self.has_ended = True
        abandon(self.run_id)


def _to_item(item: Any) -> Any:
    """An item as JSON: the SDK accepts models, too."""
    return item.model_dump(mode="json", exclude_unset=True) if hasattr(item, "model_dump") else item


def _raw_item(item: Any) -> Any:
    """The item of the Responses API of a generated item."""
    return _to_item(getattr(item, "raw_item", item))


def _to_messages(drafts: Sequence[_Draft], *, in_memory: bool, last: int = 0) -> list[Message]:
    messages = []
    for draft in drafts:
        message = memory.with_items(draft.message, draft.items, in_memory=in_memory, last=last)
        last = max([last, *(entry[0] or 0 for entry in message.internal[ITEMS])])
        messages.append(message)
    return messages


def _with_positions(draft: _Draft, positions: Iterator[int]) -> Message:
    entries = [[next(positions), item] for item in draft.items]
    internal = draft.message.internal | {ITEMS: entries}
    return draft.message.model_copy(update={"internal": internal, "created_at": datetime.now(UTC)})


def to_usage(response: ModelResponse) -> Usage | None:
    """The tokens of a response; None if it states none. The SDK replaces missing details with 0."""
    usage = response.usage
    if not (usage.requests or usage.total_tokens or usage.input_tokens or usage.output_tokens):
        return None
    read = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else None
    write = getattr(usage.input_tokens_details, "cache_write_tokens", None)
    reasoning = usage.output_tokens_details.reasoning_tokens if usage.output_tokens_details else None
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read or None,
        cache_write_tokens=write or None,
        reasoning_tokens=reasoning or None,
        total_tokens=usage.total_tokens,
    )


def describe(error: BaseException) -> str:
    """An error as the ``error`` of a run."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def to_storable(value: Any) -> Any:
    """An output as JSON: that of a structured agent is a model or a dataclass."""
    if value is None or isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value) or hasattr(value, "model_dump"):
        return to_jsonable_python(value, fallback=str)
    try:
        codec.dumps(value)
    except UnstorableValue:
        return to_jsonable_python(value, fallback=str)
    return value


def run_input(value: Any) -> Any:
    """The input of a run: what the user says in it."""
    if isinstance(value, str):
        return value
    items = [_to_item(item) for item in value]
    prompts = [item["content"] for item in items if is_prompt(item) and "content" in item]
    return prompts[-1] if prompts else items
