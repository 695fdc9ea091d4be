"""Importing recorded sessions: `ingest` finds the files, detects their formats and stores what is new.

`ingest_database` does the same with tables on a server.

A format is one module in `importers`. It turns a file into drafts (`importer`); `writer` stores them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from kern_nb.db.store import SessionStore
from kern_nb.db.urls import mask, postgres_url
from kern_nb.errors import KernError, RecordsNotFound, UnknownFormat
from kern_nb.ingest import registry
from kern_nb.ingest.archives import DAMAGE, TooLarge, Workspace
from kern_nb.ingest.folder import SUFFIXES, Candidate, find_files
from kern_nb.ingest.importer import READ_ERRORS, Draft, Importer, ImportItem, error_text, hash_record
from kern_nb.ingest.source import Source
from kern_nb.ingest.writer import write_drafts
from kern_nb.ingest_report import IngestReport, Problem
from kern_nb.text.progress import Progress

# What the detection keeps of small files, so that they are not parsed twice.
_KEPT_BYTES = 16_000_000


class _Entry(NamedTuple):
    """A file, what reads it, and when its recording began."""

    importer: Importer
    source: Source
    start_time: str


def ingest(
    store: SessionStore,
    path: str | Path,
    format: str | None = None,
    *,
    since: datetime | None = None,
    progress: bool = True,
) -> IngestReport:
    """See `SessionStore.ingest`.

    A malformed record is reported and skipped; the rest of its file is stored. In a folder or a zip archive, the files
    whose suffix may be that of a format are tried, including those in subfolders, and read in the order in which their
    recording began. What is passed over is counted in the report. Memory is bounded by the largest record and a batch
    of sessions, which is one transaction: an interrupted import leaves whole sessions.

    Raises:
        RecordsNotFound: the path does not exist, or the folder has no matching file.
        UnknownFormat: no importer reads the file or the database, or no format has that name.
        ReadOnlyStore: the store is read-only.
    """
    if (url := postgres_url(str(path))) is not None:
        return ingest_database(store, url, format, since=since)
    path = Path(path).expanduser()
    importer = None if format is None else registry.get_importer(format)
    if not path.exists():
        hint = "Check the path; it is relative to the kernel's folder."
        raise RecordsNotFound(f"There is no file or folder {mask(str(path))!r}.", hint)
    report = IngestReport()
    with Workspace() as workspace:
        files = find_files(path, workspace, report)
        if not files:
            kind = "folder" if path.is_dir() else "archive"
            reason = f"The {kind} {str(path)!r} has no file that may be a recording: {', '.join(sorted(SUFFIXES))}."
            raise RecordsNotFound(reason, "Name a file to import it whatever its suffix.")
        is_single = files[0].path == path
        return _ingest(store, files, report, workspace, importer, since, is_single=is_single, progress=progress)


def ingest_database(
    store: SessionStore, url: str, format: str | None = None, *, since: datetime | None = None
) -> IngestReport:
    """Import the sessions in a PostgreSQL database of other programs, which is only read.

    Raises:
        UnknownFormat: The database has no tables of the format, or of any.
    """
    from kern_nb.db.postgres import PostgresDb  # psycopg, which an import of files does not need
    from kern_nb.ingest.postgres import find_tables, read_sessions, read_snapshot

    database = PostgresDb(url, read_only=True)
    with read_snapshot(database) as connection, _pause_garbage_collector():
        sources = find_tables(connection, format)
        if not sources:
            reason = f"{database.url} has no tables of {format or 'a known format'} that its role may read."
            raise UnknownFormat(
                reason, "Grant the role USAGE on the schema and SELECT on its tables, or check the URL."
            )
        return write_drafts(store, _select_recent(read_sessions(connection, sources, database.url), since))


def ingest_files(
    store: SessionStore, files: Sequence[Candidate], *, since: datetime | None = None, progress: bool = True
) -> IngestReport:
    """Import some files, as `ingest` does those of a folder."""
    with Workspace() as workspace:
        return _ingest(store, files, IngestReport(), workspace, None, since, is_single=False, progress=progress)


def _ingest(
    store: SessionStore,
    files: Sequence[Candidate],
    report: IngestReport,
    workspace: Workspace,
    importer: Importer | None,
    since: datetime | None,
    *,
    is_single: bool,
    progress: bool,
) -> IngestReport:
    with _pause_garbage_collector(), Progress(len(files), shown=progress) as bar:
        entries = _detect(files, importer, workspace, report, is_single=is_single)
        bar.done(len(files) - len(entries))
        items = _read(entries, bar)
        return report + write_drafts(store, _select_recent(items, since))


def _select_recent(items: Iterable[ImportItem], since: datetime | None) -> Iterator[ImportItem]:
    return (item for item in items if since is None or not isinstance(item, Draft) or _is_recent(item, since))


def _is_recent(draft: Draft, since: datetime) -> bool:
    """Whether something of a session is not older than a time, or its times are unknown."""
    times = [time for run in draft.runs for time in (run.created_at, run.finished_at) if time is not None]
    seconds = [time for time in (draft.session.created_at, draft.session.updated_at) if time is not None]
    return not (times or seconds) or max([*map(datetime.timestamp, times), *seconds]) >= since.timestamp()


def _detect(
    files: Sequence[Candidate],
    importer: Importer | None,
    workspace: Workspace,
    report: IngestReport,
    *,
    is_single: bool,
) -> list[_Entry]:
    """Detect the format of each file; return those to read, in order."""
    entries: dict[Path, _Entry] = {}
    unknown: dict[Path, Problem] = {}
    kept = 0
    for file in files:
        source = Source(file.path, file.name, workspace, file.location)
        try:
            reader = importer or (registry.detect_importer(source) if is_single else registry.find_importer(source))
            if reader is None:
                unknown[file.path.absolute()] = Problem(file.name, None, registry.describe(source))
            else:
                entries[file.path.absolute()] = _Entry(reader, source, _start_time(reader, source))
                kept += source.size
        except (TooLarge, KernError, *DAMAGE) as error:
            if is_single:
                raise _refusal(file.name, error) from error
            _report_refusal(report, file.name, error)
        if kept > _KEPT_BYTES or file.path.absolute() not in entries:
            source.release()
    companions: set[Path] = set()
    for path, entry in entries.items():
        if path not in companions:
            companions |= _companions(entry)
    for path, problem in unknown.items():
        if path not in companions:
            is_empty = problem.reason == registry.EMPTY
            report.pass_over("empty" if is_empty else "unknown layout", problem.file, problem.reason)
    remaining = [entry for path, entry in entries.items() if path not in companions]
    return sorted(remaining, key=lambda entry: (entry.start_time, entry.source.name))


def _report_refusal(report: IngestReport, name: str, error: BaseException) -> None:
    if isinstance(error, UnknownFormat):  # a newer version of a known format
        report.errors.append(Problem(name, None, str(error)))
    else:
        report.pass_over("too large" if isinstance(error, TooLarge) else "unreadable", name, str(error))


def _refusal(name: str, error: BaseException) -> BaseException:
    """The error to raise for a file that was named, instead of that of a library."""
    if isinstance(error, (KernError, OSError)):
        return error
    return UnknownFormat(f"{name} cannot be read: {str(error).rstrip('.')}.", registry.FORMATS_HINT)


def _start_time(importer: Importer, source: Source) -> str:
    try:
        time = importer.start_time(source)
        return time if isinstance(time, str) else ""
    except READ_ERRORS:
        return ""


def _companions(entry: _Entry) -> set[Path]:
    try:
        return {path.absolute() for path in entry.importer.companions(entry.source)}
    except READ_ERRORS:
        return set()


def _read(entries: list[_Entry], bar: Progress) -> Iterator[ImportItem]:
    while entries:
        importer, source, _ = entries.pop(0)
        path_hash = hash_record(source.location)
        try:
            for item in bar.watch(importer.read(source)):
                if isinstance(item, Draft):
                    item.path_hash = path_hash
                yield item
        except READ_ERRORS as error:
            yield Problem(source.name, None, f"The file is not imported from some record on: {error_text(error)}.")
        source.release()
        bar.done(1)


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
