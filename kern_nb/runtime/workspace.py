"""`Workspace`: the files of a session. Their bytes are blobs of the store; the session's state lists them.

So, like the state, they are stored per run, and a branch inherits them as they were at its branch point.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kern_nb import files
from kern_nb.control_characters import escape_controls
from kern_nb.db import SessionStore
from kern_nb.db.file_descriptors import is_database
from kern_nb.db.workspace_files import KEY, file_entry, normalize
from kern_nb.errors import BadUsage, FileNotInWorkspace

if TYPE_CHECKING:
    from kern_nb.runtime.workspace_folder import WorkspaceFolder


class Workspace:
    """The files of one session, by relative path.

    A tool has it as ``run_context.workspace``; changes are stored when the tool ends.

    Args:
        store: The store of the bytes.
        state: The session's state.
        read_only: Whether to refuse changes: outside of a run, the list would not be stored.
        folder: The folder of the run, for `path`.
    """

    def __init__(
        self,
        store: SessionStore,
        state: dict[str, Any],
        *,
        read_only: bool = False,
        folder: WorkspaceFolder | None = None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._state = state
        self._read_only = read_only

    def __repr__(self) -> str:
        return escape_controls(f"<Workspace {', '.join(self.paths()) or 'without files'}>")

    def path(self) -> Path:
        """Return a folder of the disk with the files as they are now, for programs that need paths.

        What a tool changes in it is stored when the tool ends. All tools of a run have the same folder, which is
        deleted when the run ends or pauses; later runs, and branches, have the files again.

        Raises:
            BadUsage: this is outside of a run; `export` writes the files anywhere.
        """
        if self._folder is None:
            raise BadUsage("The workspace has a folder only in a run.", "Write its files: workspace.export(folder)")
        return self._folder.fill(self, self._state)

    def paths(self) -> list[str]:
        """Return the sorted paths of the files."""
        return sorted(self._files())

    def write(self, path: str, content: str | bytes) -> None:
        """Write or overwrite a file; text is encoded as UTF-8.

        Raises:
            BadUsage: the path leads out of the workspace, or this is outside of a run.
        """
        name = normalize(path)
        self._require_run()
        data = content.encode() if isinstance(content, str) else bytes(content)
        sha256 = self._store.put_blob(data, mimetypes.guess_type(name)[0])
        self._state.setdefault(KEY, {})[name] = file_entry(sha256, len(data))

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotInWorkspace: there is no such file.
        """
        entry = self._files().get(normalize(path))
        blob = self._store.get_blob(entry["sha256"]) if isinstance(entry, dict) and "sha256" in entry else None
        if blob is None:
            raise FileNotInWorkspace(f"There is no file {path!r} in the workspace.", f"It has: {self.paths()}.")
        return blob.content

    def read_text(self, path: str) -> str:
        """Return the content of a text file."""
        return self.read_bytes(path).decode()

    def delete(self, path: str) -> None:
        """Delete a file; earlier runs and branches keep it.

        Raises:
            FileNotInWorkspace: there is no such file.
        """
        name = normalize(path)
        self._require_run()
        if self._files().pop(name, None) is None:
            raise FileNotInWorkspace(f"There is no file {path!r} in the workspace.", f"It has: {self.paths()}.")

    def export(self, folder: str | Path) -> list[Path]:
        """Write all files below a folder of the disk, which is created if missing, and return their paths.

        New files are readable by their owner only; an existing file is overwritten and keeps its mode.

        Raises:
            BadUsage: a file would overwrite a database, which may be the store itself.
        """
        # Never outside of the folder, whatever the store says.
        targets = {name: Path(folder) / normalize(name) for name in self.paths()}
        for name, target in targets.items():
            if is_database(target):
                raise BadUsage(
                    f"{name!r} is a database in {str(folder)!r}; nothing was written.", "Pass another folder."
                )
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            content = self.read_bytes(name)
            with open(target, "wb", opener=files.private_opener) as file:
                file.write(content)
        return list(targets.values())

    def _files(self) -> dict[str, Any]:
        entries = self._state.get(KEY)
        return entries if isinstance(entries, dict) else {}

    def _require_run(self) -> None:
        if self._read_only:
            raise BadUsage(
                "Files can only be changed in a run.", "In a tool: run_context.workspace.write(path, content)"
            )
