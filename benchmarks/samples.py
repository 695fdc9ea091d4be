"""Sample data: runs of four messages with one tool call, and rows in bulk.

A `SampleRun` has plain values, to be converted to our records and to those of other libraries (`peers`).
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from kern_nb.db import SessionStore
from kern_nb.records import Message, Run, ToolCall, Usage

MODEL = "gpt-5.2"
START = 1_767_225_600
"""The first second of 2026, the start of the times of rows in bulk."""

_SENTENCES = (
    "I have looked up your reservation, and the refund of the ticket goes to the card you paid with.",
    "Please tell me whether the passengers keep their seats, or whether another flight on that day would suit you.",
    "The order was shipped on Tuesday; the warehouse scanned it at 14:05 and the carrier expects it in three days.",
    "Customers of the gold tier may change the date once without a fee, as long as the fare class stays the same.",
    "That did not work: the tool says the line is suspended, so I shall check the bill before I try again.",
)


@cache
def _book() -> str:
    """Half a million characters, from which texts are cut."""
    words = " ".join(_SENTENCES).split()
    return " ".join(random.Random(0).choices(words, k=90_000))


def text(chance: random.Random, shortest: int = 200, longest: int = 400) -> str:
    """Return a random text of a length within the limits."""
    start = chance.randrange(len(_book()) - longest)
    return _book()[start : start + chance.randint(shortest, longest)]


@dataclass(frozen=True)
class SampleRun:
    """A run: a question, a tool call, its result, an answer."""

    question: str
    tool: str
    args: dict[str, Any]
    result: str
    answer: str
    tokens_in: int
    tokens_out: int


def sample_runs(seed: int = 1) -> Iterator[SampleRun]:
    """Yield sample runs endlessly, the same for the same seed."""
    chance = random.Random(seed)
    for n in itertools.count():
        args = {"reservation_id": f"R{n:06}", "include_history": True}
        tokens = chance.randint(500, 4_000), chance.randint(20, 300)
        yield SampleRun(text(chance), "get_reservation", args, text(chance), text(chance), *tokens)


def to_run(sample: SampleRun) -> Run:
    """Convert a sample run to our records."""
    usage = Usage(input_tokens=sample.tokens_in, output_tokens=sample.tokens_out)
    call = ToolCall(tool_call_id="call_1", tool_name=sample.tool, args=sample.args)
    messages = [
        Message(role="user", content=sample.question),
        Message(role="assistant", content="", tool_calls=[call], model=MODEL, usage=usage),
        Message(role="tool", content=sample.result, tool_call_id="call_1", tool_name=sample.tool),
        Message(role="assistant", content=sample.answer, model=MODEL, usage=usage),
    ]
    return Run(input=sample.question, output=sample.answer, model=MODEL, agent_id="support", messages=messages)


def fill(store: SessionStore, sessions: int, *, runs: int = 0, messages: int = 0) -> None:
    """Write rows in bulk: sessions with ``runs`` runs each, of ``messages`` messages each."""
    chance = random.Random(7)
    tables = store.tables
    step = max(1, 20_000 // max(1, runs * messages))
    for first in range(0, sessions, step):
        some_sessions = [_session(n, chance) for n in range(first, min(first + step, sessions))]
        some_runs = [_run(session, i, chance) for session in some_sessions for i in range(runs)]
        some_messages = [_message(run, i, chance) for run in some_runs for i in range(messages)]
        rows = {tables.sessions: some_sessions, tables.runs: some_runs, tables.messages: some_messages}
        store.write(lambda connection, rows=rows: _insert(store, connection, rows))


def _insert(store: SessionStore, connection: sa.Connection, rows: dict[sa.Table, list[dict[str, Any]]]) -> None:
    for table, table_rows in rows.items():
        store.insert_rows(connection, table, table_rows)


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def _session(n: int, chance: random.Random) -> dict[str, Any]:
    return {
        "session_id": _id(chance),
        "session_type": "agent",
        "agent_id": f"agent-{n % 7}",
        "user_id": f"user-{n % 1000}@example.com",
        "session_data": {"session_name": text(chance, 20, 40), "session_state": {"visits": n, "step": "asked"}},
        "metadata": {"task_id": n % 50, "trial": n % 4},
        "created_at": START + 60 * n,
        "updated_at": START + 60 * n + 45,
    }


def _run(session: dict[str, Any], index: int, chance: random.Random) -> dict[str, Any]:
    started = session["created_at"] * 1_000_000 + index * 9_000_000
    return {
        "session_id": session["session_id"],
        "run_index": index,
        "run_id": _id(chance),
        "run_type": "agent",
        "agent_id": session["agent_id"],
        "user_id": session["user_id"],
        "status": "COMPLETED",
        "model": MODEL,
        "input": text(chance),
        "output": text(chance),
        "created_at": started,
        "finished_at": started + 8_000_000,
    }


def _message(run: dict[str, Any], index: int, chance: random.Random) -> dict[str, Any]:
    role = ("user", "assistant", "tool", "assistant")[index % 4]
    from_model = role == "assistant"
    return {
        "run_id": run["run_id"],
        "message_index": index,
        "session_id": run["session_id"],
        "run_index": run["run_index"],
        "message_id": _id(chance),
        "role": role,
        "content": text(chance),
        "tool_call_id": "call_1" if role == "tool" else None,
        "tool_name": "get_reservation" if role == "tool" else None,
        "model": MODEL if from_model else None,
        "input_tokens": chance.randint(500, 4_000) if from_model else None,
        "output_tokens": chance.randint(20, 300) if from_model else None,
        "created_at": run["created_at"] + index * 2_000_000,
    }
