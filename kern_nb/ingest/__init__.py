"""Foreign records to sessions: `ingest` finds the files, tells their format and stores what is new.

An importer is one file here and one line in `formats`. It turns a file into drafts (`drafts`); `load` stores them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb.errors import RecordsNotFound, UnknownFormat
from kern_nb.ingest import formats
from kern_nb.ingest.importer import Importer
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.progress import Progress
from kern_nb.ingest.report import IngestReport, Problem
from kern_nb.ingest.writer import Item, load

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

__all__ = ["IngestReport", "Problem", "ingest"]

_SUFFIXES = (".json", ".jsonl")
_GROUP_BYTES = 16_000_000


def ingest(
    store: SessionStore,
    path: str | Path,
    format: str | None = None,
    *,
    progress: bool = True,
) -> IngestReport:
    """Take in recorded sessions from a file or a folder. Again gives the same rows, and stopped, it leaves whole files.

    A bad record is reported and left out; the rest of its file is stored. Of a folder the files ``*.json`` and
    ``*.jsonl`` are read, in the order of their names, those of inner folders too; what no importer reads is reported.

    Args:
        store: Where to.
        path: A file or a folder.
        format: The importer's name; recognised by what is in each file where None.
        progress: Whether to show a progress bar where it takes longer than a moment.

    Raises:
        RecordsNotFound: there is nothing at the path.
        UnknownFormat: no importer reads the file, or none has that name.
        ReadOnlyStore: the store was opened to be read.
    """
    path = Path(path).expanduser()
    importer = None if format is None else formats.by_name(format)
    files = _files(path)
    report = IngestReport()
    with _collector_paused(), Progress(len(files), shown=progress) as bar:
        for group in _groups(files):
            sources: list[tuple[Importer, Source]] = []
            for file in group:
                name = file.name if file == path else file.relative_to(path).as_posix()
                try:
                    source = Source(file, name)
                    sources.append((importer or formats.recognise(source), source))
                except (UnknownFormat, OSError) as error:
                    if file == path:
                        raise
                    report.errors.append(Problem(name, None, str(error)))
            drafts: Iterable[Item] = _Drafts(sources, bar)
            if sum(file.stat().st_size for file in group) < _GROUP_BYTES:
                drafts = list(drafts)  # what is ready keeps others waiting for a shorter time
            if sources:
                report += load(store, drafts)
            bar.done(len(group))
    return report


class _Drafts:
    """The drafts of some files; read anew each time they are gone through."""

    def __init__(self, sources: list[tuple[Importer, Source]], bar: Progress) -> None:
        self._sources = sources
        self._bar = bar

    def __iter__(self) -> Iterator[Item]:
        for importer, source in self._sources:
            yield from self._bar.watch(importer.read(source))


def _groups(files: list[Path]) -> Iterator[list[Path]]:
    """Files that go into one transaction: small ones together, as each transaction takes its time."""
    group: list[Path] = []
    total = 0
    for file in files:
        size = file.stat().st_size
        if group and total + size >= _GROUP_BYTES:
            yield group
            group, total = [], 0
        group.append(file)
        total += size
    yield group


@contextmanager
def _collector_paused() -> Iterator[None]:
    """JSON is many objects and no cycles: the collector would walk them again and again, and find nothing."""
    was_on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_on:
            gc.enable()


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise RecordsNotFound(
            f"There is no file or folder {str(path)!r}.", "Check the path; it is relative to the kernel's folder."
        )
    if not path.is_dir():
        return [path]
    inside = (file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    files = sorted(file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise RecordsNotFound(
            f"The folder {str(path)!r} holds no .json or .jsonl file.", "Name a file to read it whatever its name."
        )
    return files
