"""The files of an import: a file, a folder or an archive; which of them are tried, and what is passed over and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kern_nb.ingest import archives
from kern_nb.ingest.archives import COMPRESSED, DAMAGE, TooLarge, Workspace
from kern_nb.ingest_report import IngestReport

SUFFIXES = frozenset(
    {
        ".json", ".jsonl", ".ndjson", ".parquet", ".eval", ".traj", ".chat", ".db", ".sqlite", ".sqlite3", ".vscdb",
        ".zip", *COMPRESSED,
    }
)  # fmt: skip
"""The suffixes, in any case, of the files of a folder that are tried. A file that is named is tried whatever it is."""

_KINDS = {
    "image": (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".bmp", ".heic", ".tiff", ".ico"),
    "recording": (".mp3", ".wav", ".ogg", ".m4a", ".flac", ".mp4", ".webm", ".mov"),
}
_KIND_OF = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes}

# Where text files are transcripts: Cursor writes them. Elsewhere they are notes.
_TEXT, _TRANSCRIPTS = ".txt", "agent-transcripts"

# Folders that programs add to a folder or an archive.
_NEVER = ("__MACOSX", ".git")

# An archive in an archive in an archive is not opened.
_MAX_DEPTH = 2


class Candidate(NamedTuple):
    """A file that is tried.

    Attributes:
        path: The file, which may be extracted from an archive.
        name: Its path relative to the import, with the archive as a folder.
        location: Its absolute path, with the archive as a folder.
    """

    path: Path
    name: str
    location: str


def find_files(path: Path, workspace: Workspace, report: IngestReport) -> list[Candidate]:
    """Return the files to try, in the order of their names; files passed over are added to the report."""
    location = str(path.absolute())
    if path.is_dir():
        files = _walk(path, "", location, workspace, report, 0)
    elif archives.is_zip(path):
        files = _walk_zip(path, path.name, location, workspace, report, 0)
    else:
        return [Candidate(path, path.name, location)]
    return sorted(files, key=lambda file: file.name)


def _walk(
    folder: Path, prefix: str, location: str, workspace: Workspace, report: IngestReport, depth: int
) -> Iterator[Candidate]:
    # Programs keep sessions in hidden folders: in one of those, hidden subfolders are no exception.
    with_hidden = any(part.startswith(".") for part in PurePosixPath(location).parts)

    def unreadable(error: OSError) -> None:
        report.pass_over("unreadable", str(Path(error.filename).relative_to(folder)), error.strerror or str(error))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        relative = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        has_transcripts = _TRANSCRIPTS in PurePosixPath(location, relative).parts
        for name in [name for name in folders if name in _NEVER or (name.startswith(".") and not with_hidden)]:
            folders.remove(name)
            report.pass_over("hidden", prefix + str(relative / name))
        for name in files:
            path, shown = Path(parent, name), str(relative / name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                report.pass_over("hidden", prefix + shown)
            elif suffix not in SUFFIXES and not (has_transcripts and suffix == _TEXT):
                report.pass_over(_KIND_OF.get(suffix, "other"), prefix + shown)
            elif not path.is_file():
                report.pass_over("unreadable", prefix + shown, "it is not a regular file")
            elif suffix == ".zip":
                yield from _walk_zip(path, prefix + shown, f"{location}/{shown}", workspace, report, depth)
            else:
                yield Candidate(path, prefix + shown, f"{location}/{shown}")


def _walk_zip(
    path: Path, name: str, location: str, workspace: Workspace, report: IngestReport, depth: int
) -> Iterator[Candidate]:
    if depth >= _MAX_DEPTH:
        report.pass_over("other", name, "it is an archive in an archive in an archive")
        return
    try:
        if not archives.is_zip(path):
            report.pass_over("unreadable", name, "it is not a zip archive")
            return
        folder, missing = archives.extract_zip(path, workspace, omit=_KIND_OF)
    except TooLarge as error:
        report.pass_over("too large", name, str(error))
        return
    except DAMAGE as error:
        report.pass_over("unreadable", name, str(error))
        return
    for member, reason in missing.items():
        kind = "unreadable" if reason else _KIND_OF[PurePosixPath(member).suffix.lower()]
        report.pass_over(kind, f"{name}/{member}", reason)
    yield from _walk(folder, f"{name}/", location, workspace, report, depth + 1)
