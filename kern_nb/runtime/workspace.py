"""`Workspace`: the files of a session. Bytes are blobs of the store; which file is which stands in the session's state.

So they are kept per run, inherited by branches as they were there, and apart from any other session's, as the state is.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path, PurePosixPath
from typing import Any

from kern_nb import files
from kern_nb.control_characters import escape_controls
from kern_nb.db import SessionStore
from kern_nb.db.file_descriptors import is_database
from kern_nb.errors import BadUsage, FileNotInWorkspace

KEY = "workspace"
"""The key of the session's state that lists the files."""


class Workspace:
    """The files of one session, by relative path.

    In a tool it is ``run_context.workspace``, and what is written becomes part of the session when the tool ends.

    Args:
        store: Where the bytes are.
        state: The session's state.
        read_only: Whether writing is refused: outside of a run nobody would store the list.
    """

    def __init__(self, store: SessionStore, state: dict[str, Any], *, read_only: bool = False) -> None:
        self._store = store
        self._state = state
        self._read_only = read_only

    def __repr__(self) -> str:
        """The paths."""
        return escape_controls(f"<Workspace {', '.join(self.paths()) or 'without files'}>")

    def paths(self) -> list[str]:
        """The files, sorted."""
        return sorted(self._files())

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file, or write it anew; text is kept as UTF-8.

        Raises:
            BadUsage: the path leads out of the workspace, or this is not within a run.
        """
        name = self._checked(path)
        self._require_run()
        found = content.encode() if isinstance(content, str) else bytes(content)
        sha256 = self._store.put_blob(found, mimetypes.guess_type(name)[0])
        self._state.setdefault(KEY, {})[name] = {"sha256": sha256, "size": len(found)}

    def read_bytes(self, path: str) -> bytes:
        """What is in a file.

        Raises:
            FileNotInWorkspace: there is none.
        """
        entry = self._files().get(self._checked(path))
        blob = self._store.get_blob(entry["sha256"]) if isinstance(entry, dict) and "sha256" in entry else None
        if blob is None:
            raise FileNotInWorkspace(f"There is no file {path!r} in the workspace.", f"There are: {self.paths()}.")
        return blob.content

    def read_text(self, path: str) -> str:
        """What is in a text file."""
        return self.read_bytes(path).decode()

    def delete(self, path: str) -> None:
        """Take a file out; earlier runs and branches keep it.

        Raises:
            FileNotInWorkspace: there is none.
        """
        name = self._checked(path)
        self._require_run()
        if self._files().pop(name, None) is None:
            raise FileNotInWorkspace(f"There is no file {path!r} in the workspace.", f"There are: {self.paths()}.")

    def export(self, folder: str | Path) -> list[Path]:
        """Write all files below a folder of the disk, which is made if need be; their paths.

        New files may be read by their owner alone; a file that is there is overwritten and keeps its mode.

        Raises:
            BadUsage: a file would be written over a database, which may be the store itself.
        """
        for name in self.paths():
            if is_database(Path(folder) / self._checked(name)):
                raise BadUsage(
                    f"{name!r} is a database in {str(folder)!r}; nothing was written.", "Name another folder."
                )
        written = []
        for name in self.paths():
            target = Path(folder) / self._checked(name)  # a store's text is hostile: it stays below the folder
            target.parent.mkdir(parents=True, exist_ok=True)
            content = self.read_bytes(name)
            with open(target, "wb", opener=files.private) as file:
                file.write(content)
            written.append(target)
        return written

    def _files(self) -> dict[str, Any]:
        found = self._state.get(KEY)
        return found if isinstance(found, dict) else {}

    def _require_run(self) -> None:
        if self._read_only:
            raise BadUsage("Files are written within a run.", "In a tool: run_context.workspace.write(path, content)")

    @staticmethod
    def _checked(path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\x00" in path or "\\" in path:
            raise BadUsage(f"{path!r} is no path within a workspace.", "Use a relative one, like 'reports/may.csv'.")
        return str(pure)
