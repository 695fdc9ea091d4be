"""Files that only their owner may read: sessions hold prompts and the results of tools.

An existing file keeps its mode. Where the platform has no modes, its defaults apply.
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
_GROUP_AND_OTHERS = 0o077
_creating = threading.Lock()


def private_opener(name: str, flags: int) -> int:
    """The ``opener`` of `open` for a file that, if created, only its owner may access."""
    return os.open(name, flags, MODE)


def create_folders(path: Path) -> None:
    """Create the folders of a new file. An error is left to the engine that opens the file."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)


def create_private(path: Path) -> None:
    """Create an empty file unless it exists. An error is left to the engine that opens the file.

    Closing a descriptor drops the process's locks on the file. Creators in this process exclude each other, so that
    none has locked the file yet.
    """
    with _creating, contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, MODE))


def make_private(path: Path) -> None:
    """Restrict a new file to its owner."""
    with contextlib.suppress(OSError):
        path.chmod(MODE)


def create_beside(path: Path, suffix: str) -> None:
    """Create an empty file with a suffix beside a private one, with the same mode, unless it exists."""
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & _GROUP_AND_OTHERS:
            os.close(os.open(f"{path}{suffix}", os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))


def copy_mode(path: Path, target: Path) -> None:
    """Give ``target``, which is to replace ``path``, the mode of that file if it exists."""
    with contextlib.suppress(OSError):
        target.chmod(stat.S_IMODE(path.stat().st_mode))


def private_folder(base: str, *, create: bool = True) -> Path | None:
    """This user's folder for kern_nb below a temporary folder; None if it is not one that only this user can enter.

    Anyone may have created a folder or a link under its name.
    """
    folder = Path(base) / f"kern_nb-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with contextlib.suppress(OSError):
        if create:
            folder.mkdir(mode=0o700, exist_ok=True)
        if not hasattr(os, "getuid"):
            return folder if folder.is_dir() else None
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _GROUP_AND_OTHERS:
            return folder
    return None


def spill_folder() -> str:
    """A path, not yet created, for data that one DuckDB instance cannot hold in memory; only this user can enter it.

    Two instances that share such a folder, in two processes or in one, overwrite each other's data and crash.
    """
    # /tmp is in memory on many systems, and memory is what runs out.
    use_var_tmp = not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK)  # noqa: S108
    folder = private_folder("/var/tmp" if use_var_tmp else tempfile.gettempdir())  # noqa: S108
    return str((folder or Path(tempfile.mkdtemp(prefix="kern_nb-"))) / f"{os.getpid()}-{secrets.token_hex(4)}")
