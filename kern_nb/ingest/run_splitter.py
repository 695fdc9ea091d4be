"""Splitting a conversation into runs, for sources that record messages only.

A run starts with the messages of a user and includes everything up to the user's next message. Messages before the
first user message belong to the first run; a conversation without a user is one run. A simulated user may call tools:
those calls, their results and the user's next messages belong to the same run.

A result is joined to its call by id. Many sources have no ids (Ollama, chat templates, Gemini behind an OpenAI front):
their results come in the order of the calls and may name the tool.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from kern_nb.db import mapping
from kern_nb.ingest.importer import COMPACTION, MAX_ID_LENGTH, hash_record, run_id_for
from kern_nb.records import RESULT_ROLES, Message, Run, ToolCall, is_parts

_REASONING_TYPES = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_text"})


class SourceMessage(NamedTuple):
    """A message, and what it was parsed from.

    Attributes:
        message: The message.
        record: The JSON that the message was parsed from: a change of it is a change of the message.
        key: The id of the record in its source, equal in every copy of the record; None if the source has no ids: the
            message is then identified by what it says.
        starts_run: Whether it is a person's prompt; None if that follows from its role. A user message of the client
            program, such as its environment or the output of a local command, is none.
    """

    message: Message
    record: Any
    key: str | None = None
    starts_run: bool | None = None

    @property
    def is_prompt(self) -> bool:
        """Whether a person, or the simulation of one, wrote it."""
        return self.message.role == "user" if self.starts_run is None else self.starts_run


def split_runs(
    session_id: str, source: Sequence[SourceMessage], model: str | None = None
) -> tuple[list[Run], list[str], list[list[str]]]:
    """Split a conversation into runs by its prompts; see `build_runs`."""
    return build_runs(session_id, _group_by_run(source) if source else [], model)


def build_runs(
    session_id: str, groups: Sequence[Sequence[SourceMessage]], model: str | None = None
) -> tuple[list[Run], list[str], list[list[str]]]:
    """Build the run of each group of messages; returns these, the hash of each one's records, and its messages' keys.

    Calls and results are matched within a run: by id, and where one of them has none by tool name and order. A result
    without a call in its run goes to the latest pending call of that id in an earlier run. ``model`` is that of runs
    whose messages name none.
    """
    for group in groups:
        for item in group:
            _normalize_ids(item.message)
    late_results = _match_results(groups)
    runs, hashes, keys = [], [], []
    for index, group in enumerate(groups):
        runs.append(_to_run(run_id_for(session_id, index), group, model))
        ids = [item.key for item in group]
        record = [model, [item.record for item in group], late_results[index]]
        hashes.append(hash_record(*record, *([ids] if any(ids) else ())))  # two forks may go on with equal texts
        keys.append([item.key or hash_content(item.message) for item in group])
    return runs, hashes, keys


def hash_content(message: Message) -> str:
    """The key of a message that has no id: a hash of what it says, whatever else its source states about it."""
    calls = [(call.tool_name, call.args) for call in message.tool_calls]
    return hash_record(message.role, message.content, calls)[:12]


def _normalize_ids(message: Message) -> None:
    """An empty id is none. Overlong ones stay in ``extra``: some clients put whole signatures into them."""
    records: list[Message | ToolCall] = [message, *message.tool_calls]
    for record in records:
        full = record.tool_call_id
        if full == "":
            record.tool_call_id = None
        elif full is not None and len(full) > MAX_ID_LENGTH:
            record.extra = record.extra | {"tool_call_id": full}
            record.tool_call_id = f"{full[:40]}~{hash_record(full)}"


def _group_by_run(source: Sequence[SourceMessage]) -> list[list[SourceMessage]]:
    groups: list[list[SourceMessage]] = [[]]
    is_user_active = has_user = False
    user_calls: set[str | None] = set()
    for item in source:
        message = item.message
        if item.is_prompt:
            if has_user and (not is_user_active or item.starts_run):
                groups.append([])
                user_calls.clear()
            is_user_active = has_user = True
            user_calls.update(call.tool_call_id for call in message.tool_calls)
        elif message.role != "user" and (message.role not in RESULT_ROLES or message.tool_call_id not in user_calls):
            is_user_active = False
        groups[-1].append(item)
    return groups


class _PendingCalls:
    """The calls of a run that have no result yet."""

    def __init__(self, ids: Iterable[str | None]) -> None:
        self._by_id: dict[str, deque[ToolCall]] = defaultdict(deque)
        # By whether the source states an id, and by tool name; None: any name. A call is in several of these queues.
        self._in_order: dict[tuple[bool, str | None], deque[ToolCall]] = defaultdict(deque)
        self._answered: set[int] = set()
        self._ids = set(ids)
        self._n_calls = 0

    def add(self, call: ToolCall) -> None:
        """Add a call; one without an id gets one, so that it can be referred to."""
        self._n_calls += 1
        has_id = call.tool_call_id is not None
        if call.tool_call_id is None:
            call.tool_call_id = self._new_id()
        self._by_id[call.tool_call_id].append(call)
        if call.result is None:
            for name in {call.tool_name, None}:
                self._in_order[has_id, name].append(call)

    def take(self, result: Message) -> ToolCall | None:
        """Remove and return the call that a tool's message answers.

        One that has an id answers the call of that id, or a call that has none; a call of another id is never taken.
        """
        queues = [self._in_order[False, result.tool_name]]
        if result.tool_call_id is not None:
            queues.insert(0, self._by_id[result.tool_call_id])
        else:
            queues.append(self._in_order[True, result.tool_name])
        for queue in queues:
            while queue:
                call = queue.popleft()
                if id(call) not in self._answered:
                    self._answered.add(id(call))
                    if result.tool_call_id is not None:
                        call.tool_call_id = result.tool_call_id
                    return call
        return None

    def rest(self) -> Iterator[ToolCall]:
        """The calls without a result."""
        calls = chain.from_iterable(self._by_id.values())
        return (call for call in calls if call.result is None and id(call) not in self._answered)

    def _new_id(self) -> str:
        number = self._n_calls
        while (new := f"call_{number}") in self._ids:
            number += 1
        self._ids.add(new)
        return new


def _match_results(groups: Sequence[Sequence[SourceMessage]]) -> list[list[Any]]:
    """Set the status and any late result of each call; return the records of the late results, by run."""
    late: list[list[Any]] = [[] for _ in groups]
    unanswered: dict[str | None, list[tuple[int, ToolCall]]] = defaultdict(list)
    for run_index, group in enumerate(groups):
        pending = _PendingCalls(call.tool_call_id for item in group for call in item.message.tool_calls)
        unmatched: list[SourceMessage] = []
        for message_index, item in enumerate(group):
            message = item.message
            for call in message.tool_calls:
                call.message_index = message_index
                pending.add(call)
            if message.role in RESULT_ROLES:
                answered = pending.take(message)
                if answered is not None:
                    _complete(answered, message)
                else:
                    unmatched.append(item)
        for item in unmatched:
            if unanswered[item.message.tool_call_id]:
                owner, call = unanswered[item.message.tool_call_id].pop()
                _complete(call, item.message)
                call.result = item.message.content
                late[owner].append(item.record)
        for call in pending.rest():
            unanswered[call.tool_call_id].append((run_index, call))
    return late


def _complete(call: ToolCall, result: Message) -> None:
    if call.result is None or result.is_error is not None:
        call.status = mapping.result_status(result)
    if result.tool_call_id is None:
        result.tool_call_id = call.tool_call_id
    if result.tool_name is None:
        result.tool_name = call.tool_name


def _is_reasoning(content: Any) -> bool:
    """Whether a content has parts of reasoning only, which are no answer."""
    return is_parts(content) and all(isinstance(p, dict) and p["type"] in _REASONING_TYPES for p in content)


def _to_run(run_id: str, group: Sequence[SourceMessage], model: str | None) -> Run:
    messages = [item.message for item in group]
    user_indexes = [i for i, item in enumerate(group) if item.is_prompt]
    inputs = [messages[i].content for i in user_indexes if messages[i].content]
    texts = (mapping.split_content(content)[0] or "" for content in inputs)
    answers = [m for m in messages[user_indexes[-1] + 1 if user_indexes else 0 :] if m.role == "assistant"]
    said = [m for m in answers if m.extra.get(COMPACTION) is not True]
    outputs = [m.content for m in said if m.content and not _is_reasoning(m.content)]
    models = [m.model for m in answers if m.model]
    times = [m.created_at for m in messages if m.created_at is not None]
    start, end = (min(times), max(times)) if times else (None, None)
    return Run(
        run_id=run_id,
        status="COMPLETED",
        model=models[-1] if models else model,
        input=inputs[0] if len(inputs) == 1 else "\n".join(texts) or None,
        output=outputs[-1] if outputs else None,
        messages=messages,
        created_at=start,
        finished_at=end,
        duration_s=(end - start).total_seconds() if start and end and len(times) > 1 else None,
    )
