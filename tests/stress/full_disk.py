"""Write to a store whose disk fills up. Each line of output is one situation: acknowledged and lost writes.

    python tests/stress/full_disk.py FOLDER [NAME...]

FOLDER is an empty folder on a small disk of its own, for example ``mount -t tmpfs -o size=32m tmpfs FOLDER``. Without
names, all situations run. The exit code is 1 if one of them lost a write or raised an error other than StoreFull.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.db import SessionStore, open_store
from kern_nb.errors import KernError, RunFailed, StoreFull
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run

Operation = Callable[[SessionStore, int], str]
MAX_WRITES = 600


class Disk:
    """The disk under test, and a file that takes its space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill_up(self, room: int) -> None:
        """Take all space except ``room`` bytes."""
        free = self.free()
        size = max(0, free - room)
        with self._filler.open("ab") as file:
            while size > 0:  # a tmpfs counts its free space per processor: it may have a little less than it states
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), size)
                    break
                except OSError:
                    size -= 64 * 1024

    def free(self) -> int:
        """The number of free bytes."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def release(self) -> None:
        """Release all space."""
        self._filler.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all files."""
        for path in self.folder.iterdir():
            path.unlink()


class Neighbour(threading.Thread):
    """Another program on the same disk, which repeatedly fills the disk and frees a little."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(daemon=True)
        self.disk = disk
        self.path = disk.folder / "neighbour"
        self.ended = threading.Event()

    def run(self) -> None:
        """Write until the end."""
        rng = random.Random(1)
        with self.path.open("wb", buffering=0) as file:
            while not self.ended.wait(0.002):
                try:
                    file.write(b"x" * rng.choice([4096, 65536, 262_144]))
                except OSError:
                    size = file.tell()
                    file.truncate(max(0, size - rng.choice([0, 4096, 262_144])))
                    file.seek(0, os.SEEK_END)

    def stop(self) -> None:
        """End the thread, and remove its file."""
        self.ended.set()
        self.join()
        self.path.unlink()


def _messages(size: int) -> list[Message]:
    content = os.urandom(size // 2).hex()
    return [Message(role="user", content=content), Message(role="assistant", content="answer")]


def append(size: int) -> Operation:
    """Append a run of a size in characters."""

    def operation(store: SessionStore, i: int) -> str:
        return store.append_run("chat", Run(run_id=f"run {i}", messages=_messages(size))).run_id

    return operation


def write_live(size: int) -> Operation:
    """Write a run message by message."""

    def operation(store: SessionStore, i: int) -> str:
        run = store.start_run("live", input="x", run_id=f"live {i}")
        for message in _messages(size):
            store.append_messages(run.run_id, [message], session_state={"i": i})
        store.finish_run(run.run_id, output="done", session_state={"i": i})
        return run.run_id

    return operation


def run_agent(size: int) -> Operation:
    """Run an agent with a tool."""

    def operation(store: SessionStore, i: int) -> str:
        @tool
        def look_up(query: str) -> str:
            """Look something up."""
            return os.urandom(size // 2).hex() + query

        agent = Agent(model=ScriptedModel([call("look_up", query=f"{i}"), "done"]), db=store, tools=[look_up])
        run = agent.run("go", session_id="agent")
        if run.status != "COMPLETED":
            raise AssertionError(f"{run.status}: {run.error}")
        return run.run_id

    return operation


def ingest(size: int) -> Operation:
    """Import a bundle of a session."""
    from kern_nb.operations.export import export

    folder = Path(tempfile.mkdtemp())

    def operation(store: SessionStore, i: int) -> str:
        path = folder / "bundle.json"
        with open_store(":memory:") as source:
            source.append_run(f"imported {i}", Run(run_id=f"imported {i}", messages=_messages(size)))
            export(path=path, everything=True, store=source, overwrite=True, progress=False)
        report = store.ingest(path, progress=False)
        if report.errors or report.runs != 1:
            raise AssertionError(str(report.errors))
        return f"imported {i}"

    return operation


def branch(store: SessionStore, i: int) -> str:
    """Branch a session and continue it."""
    store.branch("base", after=3, new_session_id=f"branch {i}")
    return store.append_run(f"branch {i}", Run(run_id=f"branch {i}")).run_id


def put_blob(size: int) -> Operation:
    """Store bytes, and a run that names them."""

    def operation(store: SessionStore, i: int) -> str:
        name = store.put_blob(os.urandom(size))
        return store.append_run("blobs", Run(run_id=f"blob {i}", output=name)).run_id

    return operation


def delete(store: SessionStore, i: int) -> str:
    """Append sessions and delete every other one, with branches that take their own copy."""
    store.append_run(f"parent {i}", Run(run_id=f"parent {i}", messages=_messages(2000)))
    store.branch(f"parent {i}", new_session_id=f"child {i}")
    store.append_run(f"child {i}", Run(run_id=f"child {i}"))
    store.delete_session(f"parent {i}", detach_branches=True)
    return f"child {i}"


# engine, operation, bytes left before it starts, whether a neighbour fills the disk meanwhile
Situation = tuple[str, Operation, int, bool]
ROOM = 1_500_000


def situations() -> dict[str, Situation]:
    """All of them, by name."""
    operations: dict[str, Operation] = {f"append {size}": append(size) for size in (20, 100, 1000, 20_000, 200_000)}
    operations |= {f"live {size}": write_live(size) for size in (50, 5000)}
    operations |= {f"agent {size}": run_agent(size) for size in (50, 20_000)}
    operations |= {"ingest 500": ingest(500), "ingest 300000": ingest(300_000)}
    operations |= {"branch": branch, "blob 100000": put_blob(100_000), "delete": delete}
    result: dict[str, Situation] = {}
    for engine, suffix in (("duckdb", ".duckdb"), ("sqlite", ".db")):
        for name, operation in operations.items():
            result[f"{engine} {name}"] = (suffix, operation, ROOM, False)
        for name in ("append 20", "append 1000", "append 20000", "live 50", "agent 50", "delete"):
            result[f"{engine} {name} beside a neighbour"] = (suffix, operations[name], ROOM, True)
        result[f"{engine} append 100 without any space"] = (suffix, operations["append 100"], 0, False)
    return result


def fill(store: SessionStore, operation: Operation, acknowledged: list[str]) -> tuple[int, list[str]]:
    """Write until writes are refused; return the number of refusals, and unexpected errors."""
    refusals, raw = 0, []
    for i in range(MAX_WRITES):
        try:
            acknowledged.append(operation(store, i))
        except (StoreFull, RunFailed) as error:
            if "no space left" not in str(error):
                raw.append(str(error))
            refusals += 1
        except Exception as error:  # noqa: BLE001 - reported
            raw.append(f"{type(error).__name__}: {str(error)[:200]}")
        if refusals == 3 or len(raw) > 3:
            break
    return refusals, raw


def run_situation(disk: Disk, situation: Situation) -> dict[str, Any]:
    """Write until the disk is full, free it, write again; count acknowledged, lost and refused writes."""
    suffix, operation, room, neighbour = situation
    disk.clear()
    path = disk.folder / f"s{suffix}"
    store = open_store(path)
    acknowledged = [store.append_run("base", Run(run_id=f"base {i}", messages=_messages(200))).run_id for i in range(5)]
    operation(store, -1)
    if not neighbour:
        store.close()
    disk.fill_up(room)
    other = Neighbour(disk) if neighbour else None
    if other is not None:
        other.start()
    refusals, raw = fill(store, operation, acknowledged)
    try:  # reading stays possible
        stored = set(store.runs_df().run_id)
        store.close()
    except StoreFull:  # SQLite creates a file to read
        stored = set(acknowledged)
    except KernError as error:
        raw.append(f"reading: {type(error).__name__}: {str(error)[:200]}")
        stored = set(acknowledged)
    if other is not None:
        other.stop()
    disk.release()
    acknowledged.append(operation(store, MAX_WRITES))
    stored &= set(store.runs_df().run_id)
    lost = set(acknowledged[:-1]) - stored
    report = store.check(repair=True)  # a run that could not be ended is interrupted
    if not report:
        raw.append(str(report)[:300])
    store.close()
    return {"acknowledged": len(acknowledged), "lost": len(lost), "refusals": refusals, "raw": raw}


def main(folder: str, *names: str) -> int:
    """Run the situations."""
    disk, every, failed = Disk(Path(folder)), situations(), False
    for name in names or every:
        result = run_situation(disk, every[name])
        failed |= bool(result["lost"] or result["raw"] or not result["refusals"])
        sys.stdout.write(json.dumps({"situation": name, **result}) + "\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
