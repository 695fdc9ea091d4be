"""Which process writes a run, and whether it still lives.

An open run names its process as ``host:pid:start``. ``start`` is, on Linux, ``ticks/boot/namespaces/machine``: when the
process started, in clock ticks since the boot, which a step of the clock does not move; the id of that boot; the PID
and time namespaces in which the PID and the ticks are counted, as two containers on one kernel have the same PIDs; and
a hash of the machine's id. Elsewhere, and in stores of earlier versions, it is the time of the start in unix seconds.

A process is ``gone`` only when that is certain:

* The boot and the namespaces are ours: the PID does not exist, is a zombie, or belongs to a process that started at
  another tick. The host name does not matter, as that of a container or a laptop changes.
* The boot is an earlier one of this machine, which is known by its name and its id, and neither process is in a
  container: images share ids, and their names are chosen.
* The start is in seconds and the host is ours: the PID does not exist, or belongs to a process that is not Python's.
  Such a time moves with the clock, so another start of a Python process proves nothing.

Everything else is ``elsewhere``: the process may live where it cannot be seen, as one in another container does. A
person who knows better says so: ``store.check(repair=True, hosts_gone=[...])``.
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

_FIRST_PID_NAMESPACE = "4026531836-"  # the number is fixed in the kernel; a container has another
_CLOCK_STEP_S = 2  # rounding, and the small steps by which clocks are kept right
_START = 19  # in /proc/<pid>/stat, counted from the state on
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
    return str(_this(os.getpid()))


def process_state(process: str | None) -> tuple[ProcessState, str]:
    """Whether a process is alive, gone or out of sight, by the rules above; and that in words."""
    other = _parsed(process)
    if other is None:
        return "gone", "the process that wrote it is unknown"
    own = _this(os.getpid())
    state: ProcessState = "elsewhere"
    if not other.boot and other.host == own.host:
        state = _state_by_time(other)
    elif other.boot and (other.boot, other.namespaces) == (own.boot, own.namespaces):
        state = _state_by_ticks(other)
    elif other.boot and other.boot != own.boot and _same_machine(own, other):
        state = "gone"
    words = {
        "alive": f"process {other.pid} writes it",
        "gone": f"process {other.pid}, which wrote it, is gone",
        "elsewhere": f"process {other.pid} on {other.host} may still write it",
    }
    return state, words[state]


def process_host(process: str | None) -> str | None:
    """The host that a process ran on, where its identity says so."""
    other = _parsed(process)
    return other.host if other else None


@cache
def _this(pid: int) -> _Process:
    host = socket.gethostname()
    ticks, boot = _ticks(pid), _text(Path("/proc/sys/kernel/random/boot_id"))
    if sys.platform != "linux" or ticks is None or not boot:
        return _Process(host, pid, f"{psutil.Process(pid).create_time():.0f}")
    namespaces = "-".join(_namespace(kind) for kind in ("pid", "time"))
    machine = _text(Path("/etc/machine-id"))
    hashed = hashlib.sha256(f"kern_nb {machine}".encode()).hexdigest()[:12] if machine else ""
    return _Process(host, pid, str(ticks), boot, namespaces, hashed)


if hasattr(os, "register_at_fork"):  # a child may have its parent's PID, in a namespace of its own
    os.register_at_fork(after_in_child=_this.cache_clear)


def _parsed(process: str | None) -> _Process | None:
    host_and_pid, _, start = (process or "").rpartition(":")
    host, _, pid = host_and_pid.rpartition(":")
    if not host or not (pid.isascii() and pid.isdecimal()) or int(pid[:20]) > _LARGEST_PID:
        return None
    parts = start.split("/")
    return (
        _Process(host, int(pid), *parts) if len(parts) == len(_Process._fields) - 2 else _Process(host, int(pid), start)
    )


def _same_machine(own: _Process, other: _Process) -> bool:
    """Whether two processes of different boots ran on one machine, neither of them in a container."""
    contained = any(not p.namespaces.startswith(_FIRST_PID_NAMESPACE) for p in (own, other))
    return bool(own.machine) and not contained and (own.machine, own.host) == (other.machine, other.host)


def _state_by_ticks(other: _Process) -> ProcessState:
    ticks = _ticks(other.pid)
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
    """Whether it has ended, and its parent has not asked how."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None for one that has ended or cannot be seen."""
    # The command may hold blanks and brackets of its own; the fields after it do not.
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[_START]) if len(fields) > _START and fields[0] not in "ZXx" else None


def _namespace(kind: str) -> str:
    """The number in a link such as ``pid:[4026531836]``."""
    try:
        return "".join(filter(str.isdigit, str(Path(f"/proc/self/ns/{kind}").readlink())))
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
