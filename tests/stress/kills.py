"""kill -9 at random instants: every acknowledged write is stored, every store opens, `check` reports open runs.

    python tests/stress/kills.py [--kills 200] [--engines duckdb sqlite postgres] [--seed 0]

A worker process writes continuously: finished runs, live runs of an agent with a tool that writes a file, branches,
imports, deletes; in every third round from two forked children as well. It prints a line before and after each write.
It is killed at a random instant, with its children; then this process opens the store and looks for each write that
was acknowledged. Not part of the test suite: 200 kills take a few minutes. Prints a table; exits with 1 after a loss.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kern_nb import Agent
from kern_nb.db import SessionStore, open_store
from kern_nb.errors import KernError
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run, ToolCall
from kern_nb.runtime.context import RunContext

ENGINES = ("duckdb", "sqlite", "postgres")


class Log:
    """The log file of one worker and its children; one system call writes each line."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, **values: Any) -> None:
        """Append a line."""
        os.write(self._descriptor, (json.dumps({"event": event, **values}) + "\n").encode())


def save_note(run_context: RunContext, text: str) -> str:
    """Write a file into the session's workspace."""
    run_context.workspace.write("note.txt", text)
    return "saved"


def append(store: SessionStore, log: Log, name: str, folder: Path) -> None:
    """A finished run."""
    messages = [
        Message(role="user", content=f"question {name}" * 20),
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", tool_name="look", args={"q": name})]),
        Message(role="tool", tool_call_id="c", content="result"),
        Message(role="assistant", content="answer"),
    ]
    run = store.append_run("appends", Run(input=name, output="answer", messages=messages))
    log.write("stored", run_id=run.run_id, messages=4, calls=1)


def live(store: SessionStore, log: Log, name: str, folder: Path) -> None:
    """A run of an agent, written as it happens."""
    agent = Agent(
        ScriptedModel([call("save_note", text=name), "done"]), db=store, session_id=f"live {name}", tools=[save_note]
    )
    run = agent.run(name)
    log.write("stored", run_id=run.run_id, messages=4, calls=1, status=str(run.status))
    log.write("file", session_id=f"live {name}", text=name)


def branch(store: SessionStore, log: Log, name: str, folder: Path) -> None:
    """A branch, and a run of its own."""
    if store.get_session("appends", runs=False) is None:
        return
    session = store.branch("appends", new_session_id=f"branch {name}")
    log.write("session", session_id=session.session_id)
    run = store.append_run(session.session_id, Run(input=name, messages=[Message(role="user", content=name)]))
    log.write("stored", run_id=run.run_id, messages=1, calls=0)


def ingest(store: SessionStore, log: Log, name: str, folder: Path) -> None:
    """An import of three conversations."""
    path = folder / f"{name.replace('/', '-')}.jsonl"
    sessions = [f"import {name} {i}" for i in range(3)]
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    path.write_text("".join(json.dumps({"id": session_id, "messages": messages}) + "\n" for session_id in sessions))
    report = store.ingest(path, progress=False)
    if not report.errors:
        log.write("imported", file=str(path), sessions=report.sessions)


def delete(store: SessionStore, log: Log, name: str, folder: Path) -> None:
    """A session that is written and deleted."""
    store.append_run(f"delete {name}", Run(input=name, messages=[Message(role="user", content=name)]))
    log.write("session", session_id=f"delete {name}")
    log.write("deleting", session_id=f"delete {name}")
    store.delete_session(f"delete {name}")
    log.write("deleted", session_id=f"delete {name}")


OPERATIONS = (append, append, append, live, live, branch, ingest, delete)


def write_forever(target: str, log_path: Path, name: str, folder: Path, *, fork: bool) -> None:
    """Run operations until the process is killed."""
    log = Log(log_path)
    store = open_store(target)
    append(store, log, f"{name}/first", folder)
    if fork:
        for child in range(2):
            if os.fork() == 0:
                name = f"{name}/child{child}"
                try:
                    store = open_store(target)
                    append(store, log, f"{name}/first", folder)
                except KernError as error:
                    log.write("refused", error=str(error))
                    os._exit(0)
                break
    rng = random.Random(name)
    for i in range(10**9):
        operation = rng.choice(OPERATIONS)
        if rng.random() < 0.05:
            store.close()
        try:
            operation(store, log, f"{name}/{i}", folder)
        except Exception as error:  # noqa: BLE001 - every failure is counted
            log.write("failed", operation=operation.__name__, error=f"{type(error).__name__}: {error}")
            time.sleep(0.05)


def kill_worker(
    target: str, log_path: Path, name: str, folder: Path, seconds: float, *, fork: bool
) -> list[dict[str, Any]]:
    """Start a worker, kill it and its children after some time; return their log lines."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        with Path(os.devnull).open("w") as devnull:
            os.dup2(devnull.fileno(), 1)
        try:
            write_forever(target, log_path, name, folder, fork=fork)
        finally:
            os._exit(3)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    deadline = time.monotonic() + 60
    while not log_path.exists() or log_path.stat().st_size == 0:
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    time.sleep(seconds)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.05)
    lines = log_path.read_text().splitlines() if log_path.exists() else []
    return [json.loads(line) for line in lines]


def find_losses(store: SessionStore, events: list[dict[str, Any]]) -> list[str]:
    """Describe the acknowledged writes that are not stored."""
    runs = store.runs_df().set_index("run_id")
    sessions = set(store.sessions_df().session_id)
    deleting = {event["session_id"] for event in events if event["event"] == "deleting"}
    result = []
    for event in events:
        session_id = event.get("session_id")
        match event["event"]:
            case "stored":
                result += _lost_run(runs, event)
            case "session" if session_id not in sessions | deleting:
                result.append(f"session {session_id} is not stored")
            case "deleted" if session_id in sessions:
                result.append(f"session {session_id} is stored, and was deleted")
            case "file" if not _has_file(store, event):
                result.append(f"the file of {session_id} is not stored")
            case "imported":
                result += _lost_import(sessions, event)
    return result


def _lost_run(runs: pd.DataFrame, event: dict[str, Any]) -> list[str]:
    run_id = event["run_id"]
    if run_id not in runs.index:
        return [f"run {run_id} is not stored"]
    row = runs.loc[run_id]
    stored = (row.n_messages, row.n_tool_calls, row.status)
    reported = (event["messages"], event["calls"], event.get("status", row.status))
    return [] if stored == reported else [f"run {run_id} is stored with {stored}, reported {reported}"]


def _has_file(store: SessionStore, event: dict[str, Any]) -> bool:
    session = store.get_session(event["session_id"], runs=False)
    state = (session.session_data or {}).get("session_state", {}) if session else {}
    blob = store.get_blob(state.get("workspace", {}).get("note.txt", {}).get("sha256", ""))
    return blob is not None and blob.content == event["text"].encode()


def _lost_import(sessions: set[str], event: dict[str, Any]) -> list[str]:
    name = Path(event["file"]).stem
    imported = [s for s in sessions if s.startswith("import ") and s.split(" ")[1].replace("/", "-") == name]
    if len(imported) == event["sessions"]:
        return []
    return [f"{len(imported)} of {event['sessions']} sessions of {event['file']} are stored"]


@contextlib.contextmanager
def new_target(engine: str, folder: Path) -> Iterator[str]:
    """A new store of an engine."""
    if engine == "postgres":
        from postgres_server import postgres

        with postgres() as url:
            yield url
    else:
        yield str(folder / ("s.duckdb" if engine == "duckdb" else "s.db"))


def stress(engine: str, kills: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill workers of one engine, on a new store every ten kills."""
    counts: Counter[str] = Counter()
    lost: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kern-kills-")))
        target = ""
        events: list[dict[str, Any]] = []
        for n in range(kills):
            if n % 10 == 0 and (engine != "postgres" or not target):
                (folder / str(n)).mkdir()
                target, events = stack.enter_context(new_target(engine, folder / str(n))), []
            new = kill_worker(target, folder / f"{n}.log", f"{n}", folder, rng.expovariate(1 / 0.4), fork=n % 3 == 2)
            counts["kills"] += 1
            counts.update(event["event"] for event in new)
            lost += [f"{engine} {n}: {e['operation']}: {e['error']}" for e in new if e["event"] == "failed"]
            events += new
            with open_store(target) as store:
                lost += [f"{engine} {n}: {loss}" for loss in find_losses(store, events)]
                report = store.check(repair=True)
                counts.update(f"check: {finding.kind}" for finding in report.problems)
                if not report or not store.check():
                    lost.append(f"{engine} {n}: not repaired: {report!r}")
    return counts, lost


def main() -> int:
    """Run the engines in turn and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    problems: list[str] = []
    for i, engine in enumerate(options.engines):
        kills = options.kills // len(options.engines) + (i < options.kills % len(options.engines))
        counts, lost = stress(engine, kills, random.Random(f"{options.seed} {engine}"))
        print(engine, dict(counts), flush=True)
        problems += lost
    print(f"{len(problems)} losses or failures")
    print("\n".join(problems[:50]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
