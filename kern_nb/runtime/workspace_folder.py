"""`WorkspaceFolder`: a session's files in a folder of the disk, for tools that need paths, during one run.

The state lists the files, as always. The folder is filled when a tool asks for it; when the tool ends, what changed
in the folder is stored before the state is. Each side is compared with what both had last, so that neither
overwrites a change of the other.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.control_characters import escape_controls
from kern_nb.db.workspace_files import KEY, normalize
from kern_nb.errors import UnstorableValue

if TYPE_CHECKING:
    from kern_nb.runtime.workspace import Workspace

_RACY_NS = 2_000_000_000
"""A file that was changed so recently may have changed again without another time stamp."""


class _Synced(NamedTuple):
    """A file as folder and state had it last."""

    sha256: str
    size: int
    changed_ns: int


class WorkspaceFolder:
    """The folder of one run; tools of the run that are called together share it."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._synced: dict[str, _Synced] = {}
        self._synced_ns = 0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a tool asked for the folder."""
        return self._root is not None

    def fill(self, workspace: Workspace, state: dict[str, Any]) -> Path:
        """Return the folder with the files of the state; changes in it that are not stored yet stay."""
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="kern_nb-"))
                atexit.register(self._remove)
            self._store_changes(workspace, state)
            entries = _entries(state)
            for name in [name for name in self._synced if name not in entries]:
                (self._root / name).unlink(missing_ok=True)
                del self._synced[name]
            stale = [name for name, entry in entries.items() if _hash_of(entry) != self._hash(name)]
            for name in stale:
                target = self._root / normalize(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(workspace.read_bytes(name))
                self._note(name, _hash_of(entries[name]) or "")
            self._synced_ns = time.time_ns()
            return self._root

    def store_changes(self, workspace: Workspace, state: dict[str, Any]) -> None:
        """Store what changed in the folder since it was filled: new, changed and deleted files.

        Raises:
            UnstorableValue: there is a link or another special file.
        """
        with self._lock:
            if self._root is not None:
                self._store_changes(workspace, state)

    def close(self) -> None:
        """Delete the folder."""
        with self._lock:
            if self._root is not None:
                self._remove()
                atexit.unregister(self._remove)
            self._root, self._synced = None, {}

    def _remove(self) -> None:
        shutil.rmtree(self._require_root(), ignore_errors=True)

    def _store_changes(self, workspace: Workspace, state: dict[str, Any]) -> None:
        present = self._list_files()
        for name in present:
            if self._may_differ(name):
                data = (self._require_root() / name).read_bytes()
                sha256 = hashlib.sha256(data).hexdigest()
                if sha256 != self._hash(name):
                    workspace.write(name, data)
                self._note(name, sha256)
        entries = _entries(state)
        for name in [name for name in self._synced if name not in present]:
            if name in entries and _hash_of(entries[name]) == self._hash(name):
                workspace.delete(name)
            del self._synced[name]
        self._synced_ns = time.time_ns()

    def _list_files(self) -> list[str]:
        root = self._require_root()
        names = []
        for path in sorted(root.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                names.append(path.relative_to(root).as_posix())
            elif not stat.S_ISDIR(mode):
                name = escape_controls(str(path.relative_to(root)))
                message = f"{name!r} in the folder of the workspace is a link or a special file, which is not stored."
                raise UnstorableValue(message, "Write regular files only; nothing else in the folder was lost.")
        return names

    def _may_differ(self, name: str) -> bool:
        synced, status = self._synced.get(name), (self._require_root() / name).stat()
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        is_same = synced is not None and (synced.size, synced.changed_ns) == (status.st_size, changed_ns)
        return not is_same or changed_ns > self._synced_ns - _RACY_NS

    def _note(self, name: str, sha256: str) -> None:
        status = (self._require_root() / name).stat()
        self._synced[name] = _Synced(sha256, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))

    def _hash(self, name: str) -> str | None:
        synced = self._synced.get(name)
        return synced.sha256 if synced else None

    def _require_root(self) -> Path:
        if self._root is None:
            raise RuntimeError("The folder is closed.")
        return self._root


def _entries(state: dict[str, Any]) -> dict[str, Any]:
    entries = state.get(KEY)
    return entries if isinstance(entries, dict) else {}


def _hash_of(entry: Any) -> str | None:
    return entry.get("sha256") if isinstance(entry, dict) else None
