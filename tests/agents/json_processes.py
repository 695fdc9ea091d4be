"""Processes of their own, in which tests let agents work: a script of this folder, told what to do in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import kern_nb

HERE = Path(__file__).parent
ROOT = Path(kern_nb.__file__).parents[1]
PATIENCE_S = 60


def environment() -> dict[str, str]:
    """The environment of a process that is to import kern_nb and the modules beside this file."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


def ended(script: str, *arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """A script of this folder, run to its end: its output and how it ended. One that hangs fails the test."""
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)


class JsonProcess:
    """A process that takes lines of JSON and says lines of JSON.

    Args:
        script: A script of this folder.
        said: Where what it says is put, with ``from`` naming this process; a queue of its own where None.
        **options: For `subprocess.Popen`.
    """

    def __init__(self, script: str, *arguments: str, said: Queue[dict[str, Any]] | None = None, **options: Any) -> None:
        self.said: Queue[dict[str, Any]] = Queue() if said is None else said
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            **options,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.put(json.loads(line) | {"from": self.process.pid})
        self.said.put({"ended": True, "from": self.process.pid})

    def tell(self, **order: Any) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next thing that is said; an error where the process ended instead."""
        return heard(self.said)

    def hear_until(self, *keys: str) -> list[dict[str, Any]]:
        """What is said, up to and with the first that has one of the keys."""
        found = [self.hear()]
        while not found[-1].keys() & set(keys):
            found.append(self.hear())
        return found

    def stop(self) -> None:
        """Let it end by itself; kill it if it does not."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def heard(said: Queue[dict[str, Any]]) -> dict[str, Any]:
    """The next thing in a queue."""
    try:
        found = said.get(timeout=PATIENCE_S)
    except Empty:
        raise TimeoutError(f"nothing was said for {PATIENCE_S} s") from None
    assert "ended" not in found, f"process {found['from']} ended"
    return found


def say(**said: Any) -> None:
    """In such a process: tell the test something, at once and as one write."""
    os.write(1, (json.dumps(said) + "\n").encode())
