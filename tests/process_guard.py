"""End all processes that a test run started and remove their folders, even when the run itself is killed.

`start` marks this process's environment, which every process that it starts inherits, and starts a guard: a process in
its own session, which no signal to the run's process group reaches. When the run ends, in whatever way, the guard kills
the processes with the mark and those registered by id, and removes the registered folders.

Run as a script, this file is the guard.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "KERN_TEST_PROCESS"
POLL_S = 0.2
SHUTDOWN_S = 5
ATTEMPTS = 20

_pipe: int | None = None


def start() -> None:
    """Start the guard of this process. Idempotent."""
    global _pipe
    if _pipe is not None:
        return
    os.environ[MARK] = secrets.token_hex(16)
    reader, _pipe = os.pipe()
    subprocess.Popen(
        [sys.executable, __file__, str(os.getpid())], stdin=reader, stdout=subprocess.DEVNULL, start_new_session=True
    ).returncode = 0  # it outlives this process, which does not wait for it
    os.close(reader)
    # A forked child shows the environment that this process was started with, so it is registered instead.
    os.register_at_fork(after_in_child=lambda: _send("process", os.getpid()))


def add_folder(path: Path) -> None:
    """Register a folder to remove at the end, after the PostgreSQL server in it is shut down."""
    _send("folder", path)


def forget_folder(path: Path) -> None:
    """Unregister a folder that was removed."""
    _send("forget", path)


def _send(command: str, value: object) -> None:
    if _pipe is not None:
        with contextlib.suppress(OSError):
            os.write(_pipe, f"{command} {value}\n".encode())


def _guard(parent: int) -> None:
    """Read registrations until the parent has ended; then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark, folders, processes = os.environ[MARK], set(), {}
    text, is_open = b"", True
    # A forked child may hold the pipe open, so its end alone does not tell.
    while os.getppid() == parent:
        if is_open and select.select([0], [], [], POLL_S)[0]:
            data = os.read(0, 65536)
            is_open = bool(data)
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                _register(line.decode(), folders, processes)
        elif not is_open:
            time.sleep(POLL_S)
    for folder in folders:
        _shut_down(Path(folder))
    for _ in range(ATTEMPTS):  # a process may start another one meanwhile
        if not _kill_remaining(mark, processes):
            break
        time.sleep(POLL_S)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _register(line: str, folders: set[str], processes: dict[int, float]) -> None:
    import psutil

    command, _, value = line.partition(" ")
    if command == "folder":
        folders.add(value)
    elif command == "forget":
        folders.discard(value)
    elif command == "process":
        with contextlib.suppress(psutil.Error):
            processes[int(value)] = psutil.Process(int(value)).create_time()


def _shut_down(folder: Path) -> None:
    """Shut a PostgreSQL server down at once; a kill would leave shared memory behind."""
    import psutil

    for file in folder.glob("*/postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            server = psutil.Process(int(file.read_text().split("\n", 1)[0]))
            if "postgres" in server.name():
                server.send_signal(signal.SIGQUIT)
                server.wait(SHUTDOWN_S)


def _kill_remaining(mark: str, processes: dict[int, float]) -> bool:
    """Kill the processes that have the mark or are registered; return whether there were any."""
    import psutil

    killed = False
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError, SystemError):
            is_registered = processes.get(process.pid) == process.create_time()
            if process.status() != psutil.STATUS_ZOMBIE and (is_registered or process.environ().get(MARK) == mark):
                process.kill()
                killed = True
    return killed


if __name__ == "__main__":
    _guard(int(sys.argv[1]))
