"""Show the formats that an import reads, and the files that programs keep on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb.text.formatting import format_count
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.ingest.format_table import FormatTable
    from kern_nb.ingest.local_sessions import LocalSessions

_WIDTH = 200
_UNITS = ("B", "kB", "MB", "GB")
_UNIT = 1000


def formats_text(formats: FormatTable) -> str:
    """Render the formats as plain text."""
    return str(_formats(formats))


def formats_html(formats: FormatTable) -> str:
    """Render the formats as a complete output."""
    return _formats(formats).html()


def local_text(sessions: LocalSessions) -> str:
    """Render the files of this machine as plain text."""
    return str(_local(sessions))


def local_html(sessions: LocalSessions) -> str:
    """Render the files of this machine as a complete output."""
    return _local(sessions).html()


def _formats(formats: FormatTable) -> Table:
    rows = [[info.name, info.reads, _places(info.locations)] for info in formats]
    columns = [Column("format"), Column("reads", width=_WIDTH), Column("where such files lie", width=_WIDTH)]
    note = "The format of a file is detected from its content. Environment variables that move a folder are in .df."
    return Table("Formats", columns, rows, note)


def _places(locations: Sequence[str]) -> str:
    """The places of files, without the variables that replace their folder."""
    return "; ".join(dict.fromkeys(location.partition(" (")[0] for location in locations))


def _local(sessions: LocalSessions) -> Table:
    if not sessions:
        return Table("No sessions of other programs on this machine", [], [], "See %kern formats for where they lie.")
    rows = [
        [
            f.format,
            display_path(f.folder),
            format_count(len(f.files)),
            format_size(f.size),
            *map(_day, (f.first, f.last)),
        ]
        for f in sessions
    ]
    titles = ("program", "folder", "files", "size", "first change", "last change")
    columns = [Column(title, number=title in ("files", "size"), width=_WIDTH) for title in titles]
    return Table("Sessions on this machine", columns, rows)


def display_path(path: Path) -> str:
    """Format a path with the user's folder as ``~``."""
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"


def format_size(size: float) -> str:
    """Format a number of bytes."""
    for unit in _UNITS[:-1]:
        if size < _UNIT:
            return f"{size:,.0f} {unit}"
        size /= _UNIT
    return f"{size:,.1f} {_UNITS[-1]}"
