"""Ctrl-C at random moments while a process works on a store; another process then opens the file.

    python tests/stress/interrupts.py TARGET [--interrupts N] [--seed N]

The process sends itself SIGINT from a second thread, with Python's default handler. Every completed operation is
recorded; at the end all of them must be stored, and no lock may be held. The last line of output is a JSON object; the
exit code is 1 if something was lost, leaked or damaged.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

from kern_nb.db import SessionStore, open_store
from kern_nb.db.lease import release_abandoned
from kern_nb.records import Message, Run, ToolCall

HEAVY = "SELECT count(*) FROM range(100000) a, range(100000) b WHERE (a.range * b.range) % 7 = 3"
HEAVY_SQLITE = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n"
)
OPEN = """
import sys, time
from kern_nb.db import open_store
store = open_store(sys.argv[1])
start = time.monotonic()
store.timeout = 5
store.append_run("other", __import__("kern_nb.records").records.Run())
print(time.monotonic() - start)
"""


class Interrupter(threading.Thread):
    """Sends SIGINT to this process a random time after it is armed."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.rng = random.Random(seed)
        self.armed = threading.Semaphore(0)
        self.sent = self.repeated = 0
        self.longest = 0.05
        self.caught = threading.Event()

    def run(self) -> None:
        """Send one signal each time."""
        while True:
            self.armed.acquire()
            time.sleep(self.rng.random() * self.longest)
            self.sent += 1
            self.caught.clear()
            os.kill(os.getpid(), signal.SIGINT)
            # Python drops an exception within a finalizer. A user would press Ctrl-C again.
            while not self.caught.wait(3):
                self.repeated += 1
                os.kill(os.getpid(), signal.SIGINT)


def operation(store: SessionStore, kind: str, i: int) -> list[str]:
    """Run one operation; return the ids of the runs that it stored."""
    messages = [
        Message(role="user", content="x" * 200),
        Message(role="assistant", tool_calls=[ToolCall(tool_call_id="call", tool_name="look_up", args={"i": i})]),
        Message(role="tool", tool_call_id="call", content="y"),
    ]
    if kind == "append":
        return [store.append_run("chat", Run(run_id=f"{kind} {i}", messages=messages)).run_id]
    if kind == "live":
        run = store.start_run("live", input="x", run_id=f"{kind} {i}")
        store.append_messages(run.run_id, messages)
        store.finish_run(run.run_id, output="done")
        return [run.run_id]
    if kind == "branch":
        store.branch("chat", after=0, new_session_id=f"{kind} {i}")
        return []
    if kind == "read":
        store.history("chat")
        store.messages_df("chat")
        store.list_sessions()
        return []
    if kind == "close":
        store.close()
        return [store.append_run("chat", Run(run_id=f"{kind} {i}")).run_id]
    store.sql(HEAVY if store.url.startswith("duckdb") else HEAVY_SQLITE)
    return []


KINDS = ("append", "append", "live", "branch", "read", "close", "heavy")


def main(target: str, interrupts: int, seed: int) -> int:
    """Run operations with interrupts, then check the store."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    faulthandler.dump_traceback_later(120 + interrupts, exit=True)
    store = open_store(target)
    stored = [store.append_run("chat", Run(run_id="first", messages=[Message(role="user", content="hello")])).run_id]
    interrupter = Interrupter(seed)
    interrupter.start()
    rng = random.Random(seed + 1)
    i, raw, slowest, last_error = 0, [], 0.0, None
    while interrupter.sent < interrupts:
        kind = rng.choice(KINDS)
        interrupter.longest = rng.choice([0.001, 0.01, 0.05, 0.2, 0.6])
        start = time.monotonic()
        try:
            interrupter.armed.release()
            while True:
                i += 1
                stored += operation(store, kind, i)
        except KeyboardInterrupt as error:
            interrupter.caught.set()
            last_error = error  # as IPython keeps the traceback of the last error
        except Exception as error:  # noqa: BLE001 - reported
            raw.append(f"{kind}: {type(error).__name__}: {str(error)[:300]}")
            try:  # wait for the pending signal
                time.sleep(5)
            except KeyboardInterrupt:
                interrupter.caught.set()
        slowest = max(slowest, time.monotonic() - start)
    release_abandoned()  # as IPython does after each cell
    time.sleep(0.5)
    opening = subprocess.run(
        [sys.executable, "-c", OPEN, target], capture_output=True, text=True, check=False, timeout=100
    )
    free = float(opening.stdout) if opening.returncode == 0 else None
    runs = set(store.runs_df().run_id)
    report = store.check()
    lost = [run_id for run_id in stored if run_id not in runs]
    threading.Thread(target=store.append_run, args=("thread", Run(run_id="thread")), daemon=True).start()
    end = time.monotonic() + 10
    while "thread" not in set(store.runs_df().run_id) and time.monotonic() < end:
        time.sleep(0.05)
    hung = "thread" not in set(store.runs_df().run_id)
    problems = [str(problem) for problem in getattr(report, "problems", [])]
    broken = (
        [problem for problem in problems if "interrupted" not in problem and "running" not in problem]
        if problems
        else []
        if report
        else [str(report)]
    )
    result = {"interrupts": interrupter.sent, "operations": i, "stored": len(stored), "lost": len(lost)}
    result |= {
        "sent_again": interrupter.repeated,
        "opened_elsewhere_s": free,
        "hung": hung,
        "slowest_s": round(slowest, 2),
        "raw": raw,
        "check": broken,
    }
    sys.stdout.write(json.dumps(result) + "\n" + (opening.stderr[-500:] if free is None else ""))
    del last_error
    return int(bool(lost or raw or hung or broken or free is None))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(main(options.target, options.interrupts, options.seed))
