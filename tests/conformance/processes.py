"""Worker processes that use a store, for tests of concurrency and of killed processes."""

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
PATIENCE_S = 120


def environment() -> dict[str, str]:
    """The environment of a process that imports kern_nb and the helpers beside this file."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


class Worker:
    """A process running store_worker.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "store_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._lines: Queue[dict[str, Any]] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.busy = False
        self._ready = False

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put({"ended": True})

    def begin(self, call: str, **arguments: Any) -> Worker:
        """Start a call without waiting for its end."""
        if not self._ready:
            assert self.hear() == {"ready": True}
            self._ready = True
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"call": call, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        self.busy = True
        return self

    def hear(self) -> dict[str, Any]:
        """The next event of the worker."""
        try:
            return self._lines.get(timeout=PATIENCE_S)
        except Empty:
            raise TimeoutError(f"process {self.process.pid} sent no event for {PATIENCE_S} s") from None

    def end(self) -> Any:
        """Wait for the call; return its result."""
        while True:
            event = self.hear()
            self.busy = not event.keys() & {"done", "failed", "ended"}
            if "done" in event:
                return event["done"]
            if "failed" in event or "ended" in event:
                raise AssertionError(event.get("failed", "the process ended"))

    def do(self, call: str, **arguments: Any) -> Any:
        """Run a call; return its result."""
        return self.begin(call, **arguments).end()

    def ready(self) -> Worker:
        """Wait until the process has started."""
        self.do("process_id")
        return self

    def kill(self) -> list[dict[str, Any]]:
        """Kill the process with SIGKILL; return its remaining events."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        events = []
        while not self._lines.empty():
            events.append(self._lines.get())
        self._close()
        return events

    def stop(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
