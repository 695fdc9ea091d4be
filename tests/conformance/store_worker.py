"""A process that works on a store as it is told: one JSON line in, lines out. Started, and killed, by `processes`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from samples import a_run

from kern_nb.db import SessionStore, open_store
from kern_nb.errors import KernError
from kern_nb.records import Message, ToolCall

stores: dict[str, SessionStore] = {}


def store_at(target: str) -> SessionStore:
    """The store of this process at a target, opened once."""
    if target not in stores:
        stores[target] = open_store(target)
    return stores[target]


def say(**said: Any) -> None:
    """Tell the test something, at once."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def wait_until(start: float) -> None:
    """Begin with the other processes at one instant."""
    time.sleep(max(0.0, start - time.time()))


def process_id() -> int:
    """Who this is."""
    return os.getpid()


def append(target: str, session_id: str, name: str, runs: int, start: float = 0.0, *, aloud: bool = False) -> list[int]:
    """Append runs, and give their indexes."""
    store = store_at(target)
    wait_until(start)
    found = []
    for i in range(runs):
        index = store.append_run(session_id, a_run(f"{name} {i}")).run_index
        assert index is not None
        found.append(index)
        if aloud:
            say(appended=f"{name} {i}")
    return found


def make(target: str, name: str, start: float) -> str:
    """Write into a store that has no tables yet."""
    store = store_at(target)
    wait_until(start)
    return store.append_run(name, a_run(name)).run_id


def set_keys(target: str, session_id: str, name: str, runs: int, start: float) -> None:
    """Run after run, each setting a key of its own in the state it was given."""
    store = store_at(target)
    wait_until(start)
    for i in range(runs):
        run = store.start_run(session_id, input=name)
        store.finish_run(run.run_id, session_state=(run.session_state or {}) | {f"{name} {i}": i})


def begin(target: str, session_id: str, messages: int) -> str:
    """Open a run, write messages and a tool call, and leave it open."""
    store = store_at(target)
    run = store.start_run(session_id, input="unfinished")
    for i in range(messages):
        store.append_messages(run.run_id, [Message(role="user", content=f"message {i}")])
    call = ToolCall(tool_call_id="call", tool_name="delete_everything", args={"sure": True})
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
    return run.run_id


def write_messages(target: str, run_id: str) -> None:
    """Write messages into a run for ever, telling of each once it is stored."""
    store = store_at(target)
    i = 0
    while True:
        store.append_messages(run_id, [Message(role="user", content=f"message {i}")])
        say(written=i)
        i += 1


def work_for(target: str, session_id: str, seconds: float, start: float) -> int:
    """Append without a pause for a while."""
    store = store_at(target)
    wait_until(start)
    end, n = time.time() + seconds, 0
    while time.time() < end:
        store.append_run(session_id, a_run(f"busy {n}"))
        n += 1
    return n


def time_one(target: str, session_id: str, start: float) -> float:
    """How long one append takes."""
    store = store_at(target)
    wait_until(start)
    began = time.time()
    store.append_run(session_id, a_run("one"))
    return time.time() - began


def hold(target: str) -> str:
    """Hold a DuckDB file with DuckDB itself, as another tool would, until `let_go`."""
    import duckdb

    held[target] = duckdb.connect(target)
    return str(held[target].execute("SELECT 1").fetchone())


def let_go(target: str) -> None:
    """Close what `hold` opened."""
    held.pop(target).close()


def opens(target: str) -> str:
    """Whether DuckDB itself can open the file at this instant; else what it says."""
    import duckdb

    try:
        duckdb.connect(target).close()
    except duckdb.Error as error:
        return str(error)
    return ""


def begin_many(target: str, session_id: str, runs: int) -> list[str]:
    """Open runs, each with a tool call that has started, and leave them open."""
    return [begin(target, session_id, 0) for _ in range(runs)]


def compete(target: str, what: str, names: list[str], by: str, start: float, apart: float) -> list[str]:
    """Round after round, do what other processes do at the same instant; who "won", and what the others were told."""
    store = store_at(target)
    calls = {
        "resolve": lambda name: store.resolve(name, value=by, by=by),
        "claim": lambda name: store.claim(name, by=by),
        "handoff": lambda name: store.handoff(name, to=by),
        "claim_run": store.claim_run,
    }
    told = []
    for i, name in enumerate(names):
        wait_until(start + i * apart)
        try:
            calls[what](name)
            told.append("won")
        except KernError as error:
            told.append(type(error).__name__)
    return told


def answer(target: str, names: list[str]) -> None:
    """Answer one after the other, telling of each once it is stored."""
    store = store_at(target)
    for name in names:
        store.resolve(name, value={"answer": name}, by="worker")
        say(answered=name)


def keep(target: str, count: int, start: float) -> list[str]:
    """Keep pictures; their names."""
    store = store_at(target)
    wait_until(start)
    return [store.put_blob(b"picture %d" % i, "image/png") for i in range(count)]


def tell_state(target: str, session_id: str) -> None:
    """A run that changes the state with every message, for ever, telling of each once it is stored."""
    store = store_at(target)
    run = store.start_run(session_id, input="x")
    state = run.session_state or {}
    i = 0
    while True:
        state |= {"n": i, f"k{i % 5}": i}
        store.append_messages(run.run_id, [Message(role="user", content=f"message {i}")], session_state=state)
        say(told=i, run_id=run.run_id)
        i += 1


held: dict[str, Any] = {}
CALLS = (
    *(process_id, append, make, set_keys, begin, write_messages, work_for, time_one, hold, let_go, opens),
    *(begin_many, compete, answer, keep, tell_state),
)

if __name__ == "__main__":
    known = {call.__name__: call for call in CALLS}
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            say(done=known[order["call"]](**order["arguments"]))
        except Exception as error:  # noqa: BLE001 - the test is to know of any
            say(failed=f"{type(error).__name__}: {error}")
