"""Messages to runs, for sources that know only messages.

A run is a user's turn and what answers it, up to the next user's turn. What comes before the first user belongs to
the first run; a conversation without a user is one run. A simulated user may call tools: those calls, their results and
what the user says then are one turn.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from kern_nb.db import mapping
from kern_nb.db.mapping import result_status
from kern_nb.ingest.importer import LONGEST_ID, hash_of, run_key
from kern_nb.records import Message, Run, ToolCall


class Said(NamedTuple):
    """A message and the record it was made from."""

    message: Message
    record: Any


def runs_of(session_id: str, said: Sequence[Said], model: str | None = None) -> tuple[list[Run], list[str]]:
    """The runs of a conversation, in order, and the hash of each one's records.

    Calls and results are joined by id within a run. A result whose call is not in its run goes to the latest call of
    that id that still waits in an earlier one.
    """
    for one in said:
        _shorten_ids(one.message)
    turns = _split(said) if said else []
    late = _join(turns)
    runs, hashes = [], []
    for index, turn in enumerate(turns):
        runs.append(_run(session_id, index, turn, model))
        hashes.append(hash_of(model, [one.record for one in turn], late[index]))
    return runs, hashes


def _shorten_ids(message: Message) -> None:
    """Some clients put whole signatures into a call's id: it is kept in ``extra``, and a short one stands for it."""
    records: list[Message | ToolCall] = [message, *message.tool_calls]
    for record in records:
        full = record.tool_call_id
        if full is not None and len(full) > LONGEST_ID:
            record.extra = record.extra | {"tool_call_id": full}
            record.tool_call_id = f"{full[:40]}~{hash_of(full)}"


def _split(said: Sequence[Said]) -> list[list[Said]]:
    turns: list[list[Said]] = [[]]
    users_turn = user_seen = False
    users_calls: set[str | None] = set()
    for one in said:
        message = one.message
        if message.role == "user":
            if user_seen and not users_turn:
                turns.append([])
                users_calls.clear()
            users_turn = user_seen = True
            users_calls.update(call.tool_call_id for call in message.tool_calls)
        elif message.role not in ("tool", "function") or message.tool_call_id not in users_calls:
            users_turn = False
        turns[-1].append(one)
    return turns


def _join(turns: Sequence[Sequence[Said]]) -> list[list[Any]]:
    """Give each call its status, and its result where that came in a later run; per run, the late results' records."""
    late: list[list[Any]] = [[] for _ in turns]
    unanswered: dict[str | None, list[tuple[int, ToolCall]]] = defaultdict(list)
    for index, turn in enumerate(turns):
        waiting: dict[str | None, deque[ToolCall]] = defaultdict(deque)
        orphans: list[Said] = []
        for place, one in enumerate(turn):
            message = one.message
            for call in message.tool_calls:
                call.message_index = place
                waiting[call.tool_call_id].append(call)
            if message.role in ("tool", "function"):
                if waiting[message.tool_call_id]:
                    _answer(waiting[message.tool_call_id].popleft(), message)
                else:
                    orphans.append(one)
        for one in orphans:
            if unanswered[one.message.tool_call_id]:
                owner, call = unanswered[one.message.tool_call_id].pop()
                _answer(call, one.message)
                call.result = one.message.content
                late[owner].append(one.record)
        for key, calls in waiting.items():
            unanswered[key] += [(index, call) for call in calls]
    return late


def _answer(call: ToolCall, result: Message) -> None:
    call.status = result_status(result)
    if result.tool_name is None:
        result.tool_name = call.tool_name


def _run(session_id: str, index: int, turn: Sequence[Said], model: str | None) -> Run:
    messages = [one.message for one in turn]
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    asked = [messages[i].content for i in users if messages[i].content]
    answers = [m for m in messages[users[-1] + 1 if users else 0 :] if m.role == "assistant"]
    answered = [m.content for m in answers if m.content]
    models = [m.model for m in answers if m.model]
    times = [m.created_at for m in messages if m.created_at is not None]
    start, end = (min(times), max(times)) if times else (None, None)
    return Run(
        run_id=run_key(session_id, index),
        status="COMPLETED",
        model=models[-1] if models else model,
        input=asked[0] if len(asked) == 1 else "\n".join(mapping.split_content(a)[0] or "" for a in asked) or None,
        output=answered[-1] if answered else None,
        messages=messages,
        created_at=start,
        finished_at=end,
        duration_s=(end - start).total_seconds() if start and end and len(times) > 1 else None,
    )
