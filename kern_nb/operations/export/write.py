"""Write the exported file: under a temporary name beside its path, and moved there when it is complete."""

from __future__ import annotations

import base64
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from kern_nb import files
from kern_nb._version import __version__
from kern_nb.batches import batched
from kern_nb.db import SessionStore, codec
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage, KernError
from kern_nb.ingest.bundle_schema import pack_session
from kern_nb.ingest.importers.bundle import VERSION
from kern_nb.ingest.source import BUNDLE_KEY
from kern_nb.operations.export.read import ExportReader
from kern_nb.text.progress import Progress

_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_TITLE_BATCH = 500
COUNTED = ("sessions", "runs", "messages", "tool_calls")

Counts = dict[str, int]


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Raise BadUsage if no file may be created at the path."""
    try:
        is_folder, has_folder, exists = path.is_dir(), path.parent.is_dir(), path.exists()
    except OSError as error:
        raise BadUsage(f"Invalid path {str(path)!r}: {error.strerror}.", "Choose another name.") from error
    if is_folder:
        raise BadUsage(f"{str(path)!r} is a folder.", "Name a file in it.")
    if not has_folder:
        hint = f"Create it first; relative paths start at {Path.cwd()}."
        raise BadUsage(f"The folder {str(path.parent)!r} does not exist.", hint)
    if exists and not overwrite:
        raise file_exists(path)


def write_atomically(path: Path, write: Callable[[Any], Counts], *, overwrite: bool, is_binary: bool = False) -> Counts:
    """Write a file that appears when it is complete; after an error, nothing remains of it.

    ``write`` gets a text file, or a binary one. Raises BadUsage if the name was taken meanwhile, KernError if the disk
    is full or the folder is not writable.
    """
    part = part_path(path)
    try:
        with open(part, "xb", opener=files.private_opener) as binary:
            file = binary if is_binary else io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
            counts = write(file)
            file.flush()
            os.fsync(binary.fileno())
            file.close()
        if overwrite:
            files.copy_mode(path, part)
            part.replace(path)
        else:
            move_new(part, path)
    except FileExistsError as error:
        raise file_exists(path) from error
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        part.unlink(missing_ok=True)
    return counts


def part_path(path: Path) -> Path:
    """Return the temporary name beside a path."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")


def write_error(path: Path, error: OSError) -> OSError | KernError:
    """Return the error to raise: that of the store, or the reason why the file could not be written."""
    if isinstance(error, KernError):
        return error
    reason = error.strerror or str(error)
    return KernError(f"Could not write {str(path)!r}: {reason}.", "No file remains; try another folder.")


def file_exists(path: Path) -> BadUsage:
    """Return the error for a file that is there."""
    return BadUsage(
        f"{str(path)!r} exists; nothing was written.",
        "Choose another name, or overwrite it: --force, in Python overwrite=True.",
    )


def move_new(part: Path, path: Path) -> None:
    """Give a file its name; raise FileExistsError if another file has it."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        part.replace(path)


class ExportProgress(Progress):
    """Counts the sessions that are written."""

    def line(self, bar: str) -> str:
        """Format the line while the work is in progress."""
        return f"{bar} {self._done:,} of {self._total:,} written"

    def summary(self, took: float) -> str:
        """Format the line after the work has ended."""
        return f"Wrote {self._done:,} of {self._total:,} in {took:.1f} s."


def _provenance() -> dict[str, str]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"exported_at": now, "exported_by": f"kern_nb {__version__}"}


def write_bundle(file: TextIO, store: SessionStore, references: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a bundle; see `kern_nb.ingest.importers.bundle` for its format."""
    counts = dict.fromkeys((*COUNTED, "blobs"), 0)
    header = codec.dumps({BUNDLE_KEY: VERSION, **_provenance(), "records": []})
    file.write(header.removesuffix("]}") + "\n")
    written: set[str] = set()
    with ExportProgress(len(references), shown=progress) as bar:
        for session in ExportReader(store, references):
            record = pack_session(session.rows)
            if session.inherits is not None:
                record["inherits"] = session.inherits._asdict()
            line = codec.dumps(record)
            for blob in _blobs(store, line, written):
                file.write(codec.dumps(blob) + ",\n")
                counts["blobs"] += 1
            file.write(line + ",\n")
            for name in COUNTED:
                counts[name] += len(session.rows[name])
            bar.done(1)
    end = {"end": True, "sessions": counts["sessions"], "blobs": counts["blobs"]}
    file.write(codec.dumps(end) + "\n]}\n")
    return counts


def _blobs(store: SessionStore, line: str, written: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the blobs that a session's line names, except those already written."""
    for name in dict.fromkeys(_HASH.findall(line)):
        if name in written or (blob := store.get_blob(name)) is None:
            continue
        written.add(name)
        yield {"blob": name, "media_type": blob.media_type, "content": base64.b64encode(blob.content).decode()}


def write_page(file: TextIO, store: SessionStore, references: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a page with the transcripts, one after the other."""
    from kern_nb.views import page
    from kern_nb.views.transcript import Conversation, conversation_parts

    counts = dict.fromkeys((*COUNTED, "blobs"), 0)
    titles = _titles(store, references)
    alone = len(references) == 1
    file.write(page.page_start(titles[0] if alone else f"{len(references):,} sessions", () if alone else titles))
    with ExportProgress(len(references), shown=progress) as bar:
        for number, (reference, title) in enumerate(zip(references, titles, strict=True), 1):
            session = store.get_session(reference.session_id)
            bar.done(1)
            if session is None:  # deleted in between
                continue
            runs = [run for run in session.runs or [] if reference.run_index in (None, run.run_index)]
            parts = list(conversation_parts(Conversation(session, runs)))
            file.write(page.page_section(number, title, parts, alone=alone))
            counts["sessions"] += 1
            counts["runs"] += len(runs)
            counts["messages"] += sum(len(run.messages) for run in runs)
            counts["tool_calls"] += sum(len(run.tool_calls) for run in runs)
    provenance = _provenance()
    file.write(page.page_end(f"Exported {provenance['exported_at']} by {provenance['exported_by']}"))
    return counts


def _titles(store: SessionStore, references: Sequence[Reference]) -> list[str]:
    """Return the title, or else the id, of each session or run."""
    ids = dict.fromkeys(reference.session_id for reference in references)
    titles: dict[str, str] = {}
    for batch in batched(ids, _TITLE_BATCH):
        titles |= {card.session_id: card.title or card.session_id for card in store.session_cards(batch)}
    return [
        titles.get(session_id, session_id) + ("" if run_index is None else f", run {run_index}")
        for session_id, run_index, _ in references
    ]
