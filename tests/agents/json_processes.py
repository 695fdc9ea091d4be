"""Subprocesses that run a script of this folder, controlled by lines of JSON."""

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
    """Return an environment in which kern_nb and the modules of this folder can be imported."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


def run_script(script: str, *arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder to its end; one that hangs fails the test."""
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)


class JsonProcess:
    """A process that reads and writes lines of JSON.

    Args:
        script: A script of this folder.
        said: The queue of its output, with ``from`` naming the process; its own queue where None.
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
        """Send an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the next line; an error if the process ended."""
        return heard(self.said)

    def hear_until(self, *keys: str) -> list[dict[str, Any]]:
        """Return the lines up to the first with one of the keys."""
        lines = [self.hear()]
        while not lines[-1].keys() & set(keys):
            lines.append(self.hear())
        return lines

    def stop(self) -> None:
        """Wait for its end; kill it after a timeout."""
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
    """Return the next line in a queue."""
    try:
        line = said.get(timeout=PATIENCE_S)
    except Empty:
        raise TimeoutError(f"no output for {PATIENCE_S} s") from None
    assert "ended" not in line, f"process {line['from']} ended"
    return line


def say(**said: Any) -> None:
    """In a subprocess: send a line to the test, as one unbuffered write."""
    os.write(1, (json.dumps(said) + "\n").encode())
