"""Importing the sessions that programs keep on this machine, once or as they are written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.control_characters import escape_controls
from kern_nb.db.frame_queries import parse_time
from kern_nb.db.mapping import from_micros
from kern_nb.errors import RecordsNotFound
from kern_nb.ingest import ingest_files
from kern_nb.ingest.archives import Workspace
from kern_nb.ingest.folder import Candidate, find_files
from kern_nb.ingest.local_sessions import LocalSessions, find_local_files
from kern_nb.ingest_report import IngestReport
from kern_nb.text.formatting import pluralize

if TYPE_CHECKING:
    from datetime import datetime

    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import TimeLike

INTERVAL_S = 2.0
"""Seconds between two looks at the files that are followed."""

_COMPANION_LEVELS = 3
_Signature = tuple[int, int, int]


def local_sessions(*programs: str, since: TimeLike | None = None) -> LocalSessions:
    """Find the sessions of coding agents and other programs on this machine: where they lie, how many, how large.

    The folders are those that `formats` lists, with their environment variables.

    Args:
        programs: Names of formats, for example ``codex``; all of them where none is named.
        since: Only files that changed at or after this time.

    Returns:
        A table of the folders, which displays itself; its data is in ``df``.

    Raises:
        BadUsage: No format has one of the names, or ``since`` is not a time.

    Example:
        >>> from kern_nb import local_sessions
        >>> list(local_sessions("codex").df.columns)
        ['format', 'folder', 'n_files', 'size', 'first', 'last']
    """
    return find_local_files(programs, since=_time(since))


def import_local(
    *programs: str, since: TimeLike | None = None, store: str | SessionStore | None = None, progress: bool = True
) -> IngestReport:
    """Import the sessions of programs on this machine. Again, it adds only what is new. Nothing leaves this machine.

    Args:
        programs: Names of formats, for example ``codex``; all of them where none is named.
        since: Only sessions with something at or after this time.
        store: A store or its name; by default the one in use.
        progress: Whether to show a progress bar.

    Raises:
        RecordsNotFound: There are no such files.
        BadUsage: No format has one of the names, or ``since`` is not a time.
        NoStore: No store has that name, or none is in use.

    Example:
        >>> from kern_nb import InMemoryDb, import_local
        >>> from kern_nb.errors import RecordsNotFound
        >>> try:
        ...     report = import_local("codex", since="9000-01-01", store=InMemoryDb())
        ... except RecordsNotFound as error:
        ...     print(error)
        There are no sessions of codex on this machine.
    """
    start = _time(since)
    files = find_local_files(programs, since=start)
    if not files:
        kinds = f" of {', '.join(programs)}" if programs else " of other programs"
        raise RecordsNotFound(f"There are no sessions{kinds} on this machine.", "See %kern formats for where they lie.")
    candidates = [candidate for folder in files for candidate in folder.candidates()]
    return ingest_files(store_registry.find(store), candidates, since=start, progress=progress)


def follow(
    *paths: str | Path,
    programs: Sequence[str] | None = None,
    since: TimeLike | None = None,
    store: str | SessionStore | None = None,
) -> IngestReport:
    """Keep a store up to date with folders until it is interrupted (Ctrl-C, or the Stop button).

    The files are imported once, and again when they change. A line is printed for each change.

    Args:
        paths: Files or folders.
        programs: Names of formats whose folders on this machine are followed; none of them means all.
        since: Only sessions with something at or after this time.
        store: A store or its name; by default the one in use.

    Returns:
        What was imported altogether.

    Raises:
        RecordsNotFound: A path does not exist.
        BadUsage: No format has one of the names, or ``since`` is not a time.
        NoStore: No store has that name, or none is in use.

    Example:
        >>> from kern_nb import InMemoryDb, follow
        >>> from kern_nb.errors import RecordsNotFound
        >>> try:
        ...     report = follow("no-such-folder", store=InMemoryDb())
        ... except RecordsNotFound as error:
        ...     print(error)
        There is no file or folder 'no-such-folder'.
    """
    opened, start = store_registry.find(store), _time(since)
    total, seen = IngestReport(), dict[Path, _Signature | None]()
    try:
        while True:
            files = _find(paths, programs, start)
            changed = {file.path for file in files if seen.get(file.path) != _signature(file.path)}
            selected = [file for file in files if file.path in changed or _may_have_companion(file.path, changed)]
            signatures = {file.path: _signature(file.path) for file in selected}  # before it is read
            if selected:
                report = ingest_files(opened, selected, since=start, progress=not seen)
                _print_change(report, sorted(file.name for file in selected if file.path in changed), is_first=not seen)
                total += report
            seen |= signatures
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return total


def _time(since: TimeLike | None) -> datetime | None:
    return None if since is None else from_micros(parse_time(since))


def _find(paths: Sequence[str | Path], programs: Sequence[str] | None, since: datetime | None) -> list[Candidate]:
    files: list[Candidate] = []
    with Workspace() as workspace:
        for text in paths:
            path = Path(text).expanduser()
            if not path.exists():
                raise RecordsNotFound(f"There is no file or folder {str(path)!r}.", f"It is relative to {Path.cwd()}.")
            files += find_files(path, workspace, IngestReport())
    if programs is not None:
        files += [file for folder in find_local_files(programs, since=since) for file in folder.candidates()]
    return files


def _signature(path: Path) -> _Signature | None:
    """What changes when a file is written; a database may write to its log first."""
    try:
        status = path.stat()
    except OSError:  # deleted meanwhile
        return None
    log = path.with_name(path.name + "-wal")
    return status.st_mtime_ns, status.st_size, log.stat().st_mtime_ns if log.exists() else 0


def _may_have_companion(path: Path, changed: Iterable[Path]) -> bool:
    """Whether a changed file may be read with this one: it lies in the folder of this one or somewhat below."""
    return any(path.parent in list(file.parents)[:_COMPANION_LEVELS] for file in changed)


def _print_change(report: IngestReport, names: list[str], *, is_first: bool) -> None:
    if is_first:
        sys.stdout.write(f"{report}\n")
        return
    counts = [pluralize(n, noun) for n, noun in ((report.sessions, "session"), (report.runs, "run")) if n]
    if counts or report.errors:
        what = ", ".join([*counts, pluralize(report.messages, "message"), *map(str, report.errors[:1])])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        sys.stdout.write(escape_controls(f"{time.strftime('%H:%M:%S')}  {names[0]}{more}: {what}") + "\n")
