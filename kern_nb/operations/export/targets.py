"""What an export writes where: the format, and the file or folder, from the path and the name of a format."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.ingest.importer import hash_record

USAGE = "For example: %kern export chat other chats.json, or %kern export --all store.json"

_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".feather", ".arrow", ".xlsx"})
_MAX_NAME = 80


class Format(NamedTuple):
    """A format.

    Attributes:
        suffix: The suffix of its files.
        is_default: Whether the suffix selects it.
        is_per_session: Whether a file has one session; several are then files in a folder.
    """

    suffix: str
    is_default: bool = True
    is_per_session: bool = False


FORMATS = {
    "bundle": Format(".json"),
    "page": Format(".html"),
    "atif": Format(".json", is_default=False, is_per_session=True),
    "sts": Format(".jsonl", is_default=False, is_per_session=True),
    "parquet": Format(".parquet"),
    "agno": Format(".db", is_default=False),
}
_LIST = f"The formats are {', '.join(FORMATS)}."


class Target(NamedTuple):
    """A file, or a folder of files, in a format."""

    path: Path
    format: str
    is_folder: bool

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return FORMATS[self.format].suffix

    def file_name(self, session_id: str) -> str:
        """The name of a session's file in the folder: that of the session, if every file system has such names."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", session_id)[:_MAX_NAME].strip(".-")
        is_same = name == session_id and name == name.lower()  # some file systems ignore case
        return (name if is_same else f"{name or 'session'}-{hash_record(session_id)[:8]}") + self.suffix


def select_target(path: str | Path, format: str | None) -> Target:
    """Return what to write; raise BadUsage for an unknown format, or a path that does not suit it."""
    target = Path(path).expanduser()
    suffix = target.suffix.lower()
    if format is None:
        return Target(target, _default_format(target, suffix), is_folder=False)
    if format not in FORMATS:
        raise BadUsage(f"Unknown format {format!r}.", did_you_mean(format, FORMATS, _LIST))
    expected = FORMATS[format]
    if expected.is_per_session:
        separators = (os.sep, os.altsep or os.sep)
        if not suffix or str(path).endswith(separators) or target.is_dir():
            return Target(target, format, is_folder=True)
    if suffix == expected.suffix:
        return Target(target, format, is_folder=False)
    wanted = f"a path that ends in {expected.suffix}"
    if expected.is_per_session:
        wanted += " for one session, or a folder"
        hint = f"Name a file such as {target.stem}{expected.suffix}, or a folder such as {target.stem}/."
    else:
        hint = f"Name it {target.stem}{expected.suffix}."
    raise BadUsage(f"The format {format} needs {wanted}, got {str(path)!r}.", hint)


def require_single(target: Target, n_sessions: int) -> None:
    """Raise BadUsage if a file gets more sessions than its format permits."""
    if target.is_folder or n_sessions == 1 or not FORMATS[target.format].is_per_session:
        return
    raise BadUsage(
        f"A file in the format {target.format} has one session, got {n_sessions:,} for {str(target.path)!r}.",
        f"Name a folder: {target.path.stem}/ gets a file a session.",
    )


def _default_format(path: Path, suffix: str) -> str:
    """Return the format of a path's suffix."""
    for name, kind in FORMATS.items():
        if kind.is_default and kind.suffix == suffix:
            return name
    if suffix in _TABLE_SUFFIXES:
        hint = "For tables, use a frame: df = %kern load messages, then df.to_csv(...) or df.to_parquet(...)."
    elif suffix == ".jsonl":
        hint = f"Name it {path.stem}.json, which also has one session per line, or add --format sts."
    else:
        hint = USAGE
    message = "The path must end in .json (a bundle), .html (a page) or .parquet (rows), unless --format names another"
    raise BadUsage(f"{message} format, got {str(path)!r}.", hint)
