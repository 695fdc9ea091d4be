"""The sessions that programs keep on this machine: where each importer's `Location`s lie, and what is there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.ingest import registry
from kern_nb.ingest.folder import Candidate
from kern_nb.ingest.importer import Importer, Location

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""The name that selects every program."""


@dataclass(frozen=True)
class LocalFiles:
    """The files of one program in one folder.

    Attributes:
        format: The name of the importer.
        folder: The folder.
        files: The files, oldest first.
        size: Their size in bytes.
        first: When the oldest one was last changed.
        last: When the newest one was last changed.
    """

    format: str
    folder: Path
    files: tuple[Path, ...]
    size: int
    first: datetime
    last: datetime

    def candidates(self) -> list[Candidate]:
        """The files as an import takes them, named after their path in the folder."""
        return [Candidate(file, self._name(file), str(file)) for file in self.files]

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix() if file != self.folder else file.name


class LocalSessions(DisplayMixin, tuple[LocalFiles, ...]):
    """The files in which programs keep their sessions on this machine, as a table."""

    __slots__ = ()
    _view: ClassVar[str] = "kern_nb.views.formats:local"

    @property
    def df(self) -> pd.DataFrame:
        """One row a program and folder: format, folder, n_files, size (bytes), first, last (times of change)."""
        import pandas as pd

        rows = [(f.format, str(f.folder), len(f.files), f.size, f.first, f.last) for f in self]
        return pd.DataFrame(rows, columns=["format", "folder", "n_files", "size", "first", "last"])


def find_local_files(names: Iterable[str] = (), *, since: datetime | None = None) -> LocalSessions:
    """Find the files of these programs, or of all programs, which changed at or after a time.

    Raises:
        BadUsage: No importer that knows where its files lie has one of the names.
    """
    importers = {name: importer for name, importer in registry.load_importers().items() if importer.locations}
    selected = [name.replace("-", "_") for name in names if name != ALL]
    for name in selected:
        if name not in importers:
            hint = did_you_mean(name, importers, f"Programs with a usual folder are {', '.join(importers)}.")
            raise BadUsage(f"The usual folder of {name!r} is unknown.", hint)
    seen: set[Path] = set()
    result: list[LocalFiles] = []
    for name in selected or importers:
        result += _find_files(importers[name], seen, since)
    return LocalSessions(result)


def _find_files(importer: Importer, seen: set[Path], since: datetime | None) -> list[LocalFiles]:
    by_folder: dict[Path, dict[Path, os.stat_result]] = {}
    for location in importer.locations:
        folder = location_folder(location)
        if folder is None:
            continue
        for file in [folder] if folder.is_file() else _glob(folder, location.pattern):
            try:
                real, status = file.resolve(), file.stat()
            except OSError:  # a dangling link, or a file that its program deleted meanwhile
                continue
            if real not in seen and (since is None or status.st_mtime >= since.timestamp()):
                seen.add(real)
                by_folder.setdefault(folder, {})[file] = status
    result = []
    for folder, files in by_folder.items():
        ordered = sorted(files, key=lambda file: (files[file].st_mtime, file))
        times = [datetime.fromtimestamp(files[file].st_mtime, UTC) for file in ordered]
        size = sum(status.st_size for status in files.values())
        result.append(LocalFiles(importer.name, folder, tuple(ordered), size, times[0], times[-1]))
    return result


def location_folder(location: Location) -> Path | None:
    """The folder of a location on this machine; None for one that is relative to a project."""
    override = os.environ.get(location.variable) if location.variable else None
    folder = Path(os.path.expandvars(override or location.folder)).expanduser()
    return folder if folder.is_absolute() else None


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return [file for file in folder.glob(pattern) if file.is_file()]
    except OSError:  # a folder that this user may not read
        return []
