"""Which process writes a run, and whether it is alive.

An open run names its process as ``host:pid:start``. On Linux ``start`` is ``ticks/boot/namespaces/machine``: the start
time in clock ticks since boot, which clock adjustments do not change; the boot id; the PID and time namespaces that the
PID and the ticks refer to, because two containers on one kernel have the same PIDs; and a hash of the machine id.
On other systems, and in stores of earlier versions, it is the start time in unix seconds.

A process is ``gone`` only when that is certain:

* Same boot and namespaces: the PID does not exist, is a zombie, or belongs to a process with another start tick. The
  host name is ignored: that of a container or a laptop changes.
* An earlier boot of this machine, identified by its name and id, and neither process is in a container: images share
  ids, and their names are arbitrary.
* Start in seconds, same host: the PID does not exist, or belongs to a process other than Python. Such a time changes
  with the clock, so a different start of a Python process proves nothing.

Everything else is ``elsewhere``: the process may be alive where this one cannot see it, as in another container. Its
run is interrupted when it has been silent for minutes (`heartbeats`).
``store.check(repair=True, hosts_gone=[...])`` overrides this.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import psutil

ProcessState: TypeAlias = Literal["alive", "gone", "elsewhere"]

_FIRST_PID_NAMESPACE = "4026531836-"  # fixed in the kernel; a container has another
_CLOCK_STEP_S = 2  # rounding, and small clock adjustments
_START_FIELD = 19  # of /proc/<pid>/stat, counted from the state
_LARGEST_PID = 2**31 - 1


class _Process(NamedTuple):
    host: str
    pid: int
    start: str
    boot: str = ""
    namespaces: str = ""
    machine: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{'/'.join(self[2:]) if self.boot else self.start}"


def current_process() -> str:
    """The identity of the running process, as an open run stores it."""
    return str(_identify(os.getpid()))


def process_state(process: str | None) -> tuple[ProcessState, str]:
    """Whether a process is alive, gone or elsewhere, by the rules above, with a description."""
    other = _parse(process)
    if other is None:
        return "gone", "the process that wrote it is unknown"
    own = _identify(os.getpid())
    state: ProcessState = "elsewhere"
    if not other.boot and other.host == own.host:
        state = _state_by_time(other)
    elif other.boot and (other.boot, other.namespaces) == (own.boot, own.namespaces):
        state = _state_by_ticks(other)
    elif other.boot and other.boot != own.boot and _same_machine(own, other):
        state = "gone"
    descriptions = {
        "alive": f"process {other.pid} writes it",
        "gone": f"process {other.pid}, which wrote it, is gone",
        "elsewhere": f"process {other.pid} on {other.host} may still write it",
    }
    return state, descriptions[state]


def process_host(process: str | None) -> str | None:
    """The host of a process; None if its identity does not parse."""
    other = _parse(process)
    return other.host if other else None


@cache
def _identify(pid: int) -> _Process:
    host = socket.gethostname()
    ticks, boot = _start_ticks(pid), _read_text(Path("/proc/sys/kernel/random/boot_id"))
    if sys.platform != "linux" or ticks is None or not boot:
        return _Process(host, pid, f"{psutil.Process(pid).create_time():.0f}")
    namespaces = "-".join(_namespace(kind) for kind in ("pid", "time"))
    machine = _read_text(Path("/etc/machine-id"))
    hashed = hashlib.sha256(f"kern_nb {machine}".encode()).hexdigest()[:12] if machine else ""
    return _Process(host, pid, str(ticks), boot, namespaces, hashed)


if hasattr(os, "register_at_fork"):  # a child may have its parent's PID, in a namespace of its own
    os.register_at_fork(after_in_child=_identify.cache_clear)


def _parse(process: str | None) -> _Process | None:
    host_and_pid, _, start = (process or "").rpartition(":")
    host, _, pid = host_and_pid.rpartition(":")
    if not host or not (pid.isascii() and pid.isdecimal()) or int(pid[:20]) > _LARGEST_PID:
        return None
    parts = start.split("/")
    return _Process(host, int(pid), *(parts if len(parts) == len(_Process._fields) - 2 else [start]))


def _same_machine(own: _Process, other: _Process) -> bool:
    """Whether processes of two boots ran on one machine, neither of them in a container."""
    in_container = any(not p.namespaces.startswith(_FIRST_PID_NAMESPACE) for p in (own, other))
    return bool(own.machine) and not in_container and (own.machine, own.host) == (other.machine, other.host)


def _state_by_ticks(other: _Process) -> ProcessState:
    ticks = _start_ticks(other.pid)
    if ticks is not None:
        return "alive" if str(ticks) == other.start else "gone"
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:  # it exists; /proc may be hidden from us
        return "elsewhere"
    return "gone" if _is_zombie(other.pid) else "elsewhere"


def _state_by_time(other: _Process) -> ProcessState:
    try:
        process = psutil.Process(other.pid)
        if _is_zombie(other.pid):
            return "gone"
        if other.start.isdecimal() and abs(process.create_time() - int(other.start[:20])) <= _CLOCK_STEP_S:
            return "alive"
        program = Path(process.exe()).name
        return "gone" if program and "python" not in program.lower() else "elsewhere"
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "gone"
    except psutil.Error:
        return "elsewhere"


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended, but its parent has not waited for it."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _start_ticks(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot; None for one that has ended or is hidden."""
    # The command may contain spaces and parentheses; the fields after it do not.
    fields = _read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[_START_FIELD]) if len(fields) > _START_FIELD and fields[0] not in "ZXx" else None


def _namespace(kind: str) -> str:
    """The number in a link such as ``pid:[4026531836]``."""
    try:
        return "".join(filter(str.isdigit, str(Path(f"/proc/self/ns/{kind}").readlink())))
    except OSError:
        return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
