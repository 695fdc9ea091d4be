"""A worker process that uses a store: one JSON line in a call, JSON lines as events. Started by `processes`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from samples import a_run

from kern_nb.db import SessionStore, open_store
from kern_nb.errors import KernError
from kern_nb.records import Message, ToolCall

stores: dict[str, SessionStore] = {}


def store_at(target: str) -> SessionStore:
    """The store at a target, opened once in this process."""
    if target not in stores:
        stores[target] = open_store(target)
    return stores[target]


def send(**event: Any) -> None:
    """Send an event to the test, unbuffered."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def wait_until(start: float) -> None:
    """Start at the same instant as the other processes."""
    time.sleep(max(0.0, start - time.time()))


def process_id() -> int:
    """The PID of this process."""
    return os.getpid()


def append(target: str, session_id: str, name: str, runs: int, start: float = 0.0, *, aloud: bool = False) -> list[int]:
    """Append runs; return their indexes."""
    store = store_at(target)
    wait_until(start)
    indexes = []
    for i in range(runs):
        index = store.append_run(session_id, a_run(f"{name} {i}")).run_index
        assert index is not None
        indexes.append(index)
        if aloud:
            send(appended=f"{name} {i}")
    return indexes


def make(target: str, name: str, start: float) -> str:
    """Write to a store that has no tables yet."""
    store = store_at(target)
    wait_until(start)
    return store.append_run(name, a_run(name)).run_id


def set_keys(target: str, session_id: str, name: str, runs: int, start: float) -> None:
    """Finish several runs, each of which sets its own key in the state."""
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
    """Write messages into a run endlessly; send an event for each stored one."""
    store = store_at(target)
    i = 0
    while True:
        store.append_messages(run_id, [Message(role="user", content=f"message {i}")])
        send(written=i)
        i += 1


def write_until(target: str, session_id: str, stop: str, start: float) -> int:
    """Append continuously until a file exists, and once more."""
    store = store_at(target)
    wait_until(start)
    n, stopped = 0, False
    while not stopped:
        stopped = Path(stop).exists()
        store.append_run(session_id, a_run(f"busy {n}"))
        n += 1
    return n


def time_one(target: str, session_id: str, start: float) -> float:
    """The duration of one append."""
    store = store_at(target)
    wait_until(start)
    start_s = time.time()
    store.append_run(session_id, a_run("one"))
    return time.time() - start_s


def hold(target: str) -> str:
    """Hold a DuckDB file with plain DuckDB, as another tool would, until `let_go`."""
    import duckdb

    connections[target] = duckdb.connect(target)
    return str(connections[target].execute("SELECT 1").fetchone())


def let_go(target: str) -> None:
    """Close the connection that `hold` opened."""
    connections.pop(target).close()


def opens(target: str) -> str:
    """Open the file with plain DuckDB; return its error, or an empty text."""
    import duckdb

    try:
        duckdb.connect(target).close()
    except duckdb.Error as error:
        return str(error)
    return ""


def begin_many(target: str, session_id: str, runs: int) -> list[str]:
    """Open runs, each with a started tool call, and leave them open."""
    return [begin(target, session_id, 0) for _ in range(runs)]


def compete(target: str, what: str, names: list[str], by: str, start: float, apart: float) -> list[str]:
    """Make the same calls as other processes at the same instants; return "won" or the error of each call."""
    store = store_at(target)
    calls = {
        "resolve": lambda name: store.resolve(name, value=by, by=by),
        "claim": lambda name: store.claim(name, by=by),
        "handoff": lambda name: store.handoff(name, to=by),
        "claim_run": store.claim_run,
    }
    outcomes = []
    for i, name in enumerate(names):
        wait_until(start + i * apart)
        try:
            calls[what](name)
            outcomes.append("won")
        except KernError as error:
            outcomes.append(type(error).__name__)
    return outcomes


def answer(target: str, names: list[str]) -> None:
    """Resolve requirements; send an event for each stored answer."""
    store = store_at(target)
    for name in names:
        store.resolve(name, value={"answer": name}, by="worker")
        send(answered=name)


def keep(target: str, count: int, start: float) -> list[str]:
    """Store pictures; return their digests."""
    store = store_at(target)
    wait_until(start)
    return [store.put_blob(b"picture %d" % i, "image/png") for i in range(count)]


def tell_state(target: str, session_id: str) -> None:
    """Change the state with every message of a run, endlessly; send an event for each stored one."""
    store = store_at(target)
    run = store.start_run(session_id, input="x")
    state = run.session_state or {}
    i = 0
    while True:
        state |= {"n": i, f"k{i % 5}": i}
        store.append_messages(run.run_id, [Message(role="user", content=f"message {i}")], session_state=state)
        send(told=i, run_id=run.run_id)
        i += 1


def run_agent(target: str, session_id: str, *, quiet: bool) -> list[Any]:
    """Run an agent whose tool is called endlessly, or waits; return the status of its run, and its last message."""
    from kern_nb.agent import Agent, RunContext
    from kern_nb.db import heartbeats
    from kern_nb.models.scripted import ScriptedModel, call

    heartbeats.INTERVAL_S = 0.2 if quiet else 600.0
    heartbeats._heartbeats = heartbeats._Heartbeats()  # the thread of an earlier run waits longer

    async def step(run_context: RunContext) -> str:
        send(run_id=run_context.run_id)
        await asyncio.sleep(3600 if quiet else 0.1)
        return "done"

    model = ScriptedModel(lambda _: call("step"))
    agent = Agent(model, db=store_at(target), tools=[step], session_id=session_id, max_requests=None)
    run = agent.run("Go")
    return [run.run_id, run.status, run.messages[-1].role]


connections: dict[str, Any] = {}
CALLS = (
    *(process_id, append, make, set_keys, begin, write_messages, write_until, time_one, hold, let_go, opens),
    *(begin_many, compete, answer, keep, tell_state, run_agent),
)

if __name__ == "__main__":
    calls = {call.__name__: call for call in CALLS}
    send(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            send(done=calls[request["call"]](**request["arguments"]))
        except Exception as error:  # noqa: BLE001 - reported to the test
            send(failed=f"{type(error).__name__}: {error}")
