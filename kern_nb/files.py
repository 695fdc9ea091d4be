"""Files that only their owner may read: sessions hold what people wrote and what tools answered.

A file that exists keeps the mode that it has. Where the platform has no modes, files are as the platform makes them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
import threading
from pathlib import Path

MODE = 0o600
_OTHERS = 0o077
_creating = threading.Lock()


def private_opener(name: str, flags: int) -> int:
    """The ``opener`` of `open` with which a file that is made is its owner's alone."""
    return os.open(name, flags, MODE)


def create_private(path: Path) -> None:
    """Make an empty file, unless there is one or none can be made: the engine that opens it then says why.

    Closing a descriptor drops the locks that a process has on the file. All who make a file in this process wait here
    for each other, so that none has locked it yet.
    """
    with _creating, contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, MODE))


def make_private(path: Path) -> None:
    """Take the access of others to a file that has just been made."""
    with contextlib.suppress(OSError):
        path.chmod(MODE)


def create_beside(path: Path, ending: str) -> None:
    """Make an empty file beside another, named after it and as private as it, unless there is one."""
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & _OTHERS:
            os.close(os.open(f"{path}{ending}", os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))


def copy_mode(path: Path, target: Path) -> None:
    """Give a file that is to take another's place the mode of that one, if there is one."""
    with contextlib.suppress(OSError):
        target.chmod(stat.S_IMODE(path.stat().st_mode))


def spill_folder() -> str:
    """A path, not made yet, for what one DuckDB instance cannot hold in memory; only this user may look below it.

    Two instances that share such a folder, in two processes or in one, overwrite each other's data and crash.
    """
    named = os.environ.get("TMPDIR")
    # /tmp is in memory on many systems, which is what there is too little of.
    base = "/var/tmp" if not named and os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()  # noqa: S108
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(base) / f"kern_nb-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_mine(folder):
        folder = Path(tempfile.mkdtemp(prefix="kern_nb-"))
    return str(folder / f"{os.getpid()}-{secrets.token_hex(4)}")


def _is_mine(folder: Path) -> bool:
    """Whether a folder is one that only this user can enter; anyone may have made it, or a link, under its name."""
    if not hasattr(os, "getuid"):
        return folder.is_dir()
    with contextlib.suppress(OSError):
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _OTHERS
    return False
