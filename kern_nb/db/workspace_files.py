"""The files of a session as its state lists them: by relative path, with the hash of the blob that has the bytes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from kern_nb.errors import BadUsage

KEY = "workspace"
"""The key of the session's state with the list of files."""


def file_entry(sha256: str, size: int) -> dict[str, Any]:
    """Return the entry of a file in that list."""
    return {"sha256": sha256, "size": size}


def normalize(path: str) -> str:
    """Return a path as the list has it.

    Raises:
        BadUsage: it leads out of the workspace.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\x00" in path or "\\" in path:
        raise BadUsage(f"{path!r} is not a path inside a workspace.", "Use a relative path, like 'reports/may.csv'.")
    return str(pure)
