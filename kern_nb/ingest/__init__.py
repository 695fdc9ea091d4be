"""Importing recorded sessions: `ingest` finds the files, detects their formats and stores what is new.

A format is one module in `importers`. It turns a file into drafts (`importer`); `writer` stores them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kern_nb.batches import group_by_size
from kern_nb.db.store import SessionStore
from kern_nb.errors import RecordsNotFound, UnknownFormat
from kern_nb.ingest import registry
from kern_nb.ingest.importer import Draft, Importer, ImportItem, hash_record
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import IngestReport, Problem
from kern_nb.ingest.writer import write_drafts
from kern_nb.text.progress import Progress

_SUFFIXES = (".json", ".jsonl")
_GROUP_BYTES = 16_000_000


def ingest(store: SessionStore, path: str | Path, format: str | None = None, *, progress: bool = True) -> IngestReport:
    """See `SessionStore.ingest`.

    A malformed record is reported and skipped; the rest of its file is stored. In a folder, the files ``*.json`` and
    ``*.jsonl`` are read in order of their names, including those in subfolders; a file in an unknown format is
    reported. An interrupted import leaves whole files.

    Raises:
        RecordsNotFound: the path does not exist, or the folder has no matching file.
        UnknownFormat: no importer reads the file, or no format has that name.
        ReadOnlyStore: the store is read-only.
    """
    path = Path(path).expanduser()
    importer = None if format is None else registry.get_importer(format)
    files = _find_files(path)
    report = IngestReport()
    companions: set[Path] = set()
    with _pause_garbage_collector(), Progress(len(files), shown=progress) as bar:
        # Small files share a transaction, because each transaction has a fixed cost.
        for group in group_by_size(files, lambda file: file.stat().st_size, _GROUP_BYTES):
            sources: list[tuple[Importer, Source]] = []
            problems: dict[Path, Problem] = {}
            for file in group:
                if file in companions:
                    continue
                name = file.name if file == path else file.relative_to(path).as_posix()
                try:
                    source = Source(file, name)
                    sources.append((importer or registry.detect_importer(source), source))
                    companions.update(sources[-1][0].companions(source))
                except (UnknownFormat, OSError) as error:
                    if file == path:
                        raise
                    problems[file] = Problem(name, None, str(error))
            # A companion may come before the file that names it.
            sources = [(owner, source) for owner, source in sources if source.path not in companions]
            report.errors += [problem for file, problem in problems.items() if file not in companions]
            if sources:
                report += write_drafts(store, _read(sources, bar))
            bar.done(len(group))
    return report


def _read(sources: list[tuple[Importer, Source]], bar: Progress) -> Iterator[ImportItem]:
    for importer, source in sources:
        path_hash = hash_record(str(source.path.absolute()))
        for item in bar.watch(importer.read(source)):
            if isinstance(item, Draft):
                item.path_hash = path_hash
            yield item


@contextmanager
def _pause_garbage_collector() -> Iterator[None]:
    """Parsed JSON is many objects without cycles, which the collector would traverse repeatedly for nothing."""
    was_enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_enabled:
            gc.enable()


def _find_files(path: Path) -> list[Path]:
    if not path.exists():
        hint = "Check the path; it is relative to the kernel's folder."
        raise RecordsNotFound(f"There is no file or folder {str(path)!r}.", hint)
    if not path.is_dir():
        return [path]
    candidates = (file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    files = sorted(f for f in candidates if not any(part.startswith(".") for part in f.relative_to(path).parts))
    if not files:
        hint = "Name a file to import it whatever its suffix."
        raise RecordsNotFound(f"The folder {str(path)!r} has no .json or .jsonl file.", hint)
    return files
