"""The file: begun beside where it will stand, filled piece by piece, and moved to its place when it is whole."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import kern_nb
from kern_nb import files
from kern_nb.db import codec
from kern_nb.db.references import Reference
from kern_nb.errors import KernError
from kern_nb.ingest.bundle import VERSION
from kern_nb.ingest.bundle_schema import pack_session
from kern_nb.ingest.json_source import BUNDLE_KEY
from kern_nb.operations.export.read import Found, Gathering
from kern_nb.text.progress import Progress

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

Counts = dict[str, int]


def safely(path: Path, write: Callable[[TextIO], Counts], *, overwrite: bool) -> Counts:
    """Let a file be written; it stands in its place when it is whole, and whatever happens, nothing half is left.

    Raises:
        BadUsage: another file has taken the place meanwhile.
        KernError: the disk is full, or the folder may not be written to.
    """
    from kern_nb.operations.export import exists

    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "x", encoding="utf-8", newline="\n", opener=files.private) as file:
            counts = write(file)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            files.copy_mode(path, part)
            part.replace(path)
        else:
            _place(part, path)
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        if isinstance(error, KernError):  # the store's own trouble
            raise
        reason = error.strerror or str(error)
        raise KernError(
            f"{str(path)!r} could not be written: {reason}.", "Nothing was left; try another folder."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return counts


def _place(part: Path, path: Path) -> None:
    """Give a file its name, unless another has it.

    Raises:
        FileExistsError: another has.
    """
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        part.replace(path)


class _Progress(Progress):
    """How many sessions are written."""

    def line(self, bar: str) -> str:
        return f"{bar} {self._done:,} of {self._total:,} written"

    def summary(self, took: float) -> str:
        return f"Wrote {self._done:,} of {self._total:,} in {took:.1f} s."


def _made() -> dict[str, str]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"exported_at": now, "exported_by": f"kern_nb {kern_nb.__version__}"}


def bundle(file: TextIO, store: SessionStore, places: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a bundle; see `kern_nb.ingest.bundle` for what it looks like."""
    counts = dict.fromkeys(("sessions", "runs", "messages", "tool_calls", "blobs"), 0)
    header = codec.dumps({BUNDLE_KEY: VERSION, **_made(), "records": []})
    file.write(header.removesuffix("]}") + "\n")
    written: set[str] = set()
    with _Progress(len(places), shown=progress) as bar:
        for found in Gathering(store, places):
            line = _line(found)
            for blob in _blobs(store, line, written):
                file.write(codec.dumps(blob) + ",\n")
                counts["blobs"] += 1
            file.write(line + ",\n")
            for name in ("sessions", "runs", "messages", "tool_calls"):
                counts[name] += len(found.rows[name])
            bar.done(1)
    end = {"end": True, "sessions": counts["sessions"], "blobs": counts["blobs"]}
    file.write(codec.dumps(end) + "\n]}\n")
    return counts


def _line(found: Found) -> str:
    record = pack_session(found.rows)
    if found.inherits is not None:
        record["inherits"] = found.inherits._asdict()
    return codec.dumps(record)


def _blobs(store: SessionStore, line: str, written: set[str]) -> Iterator[dict[str, Any]]:
    """The blobs that a session's line names and that are not in the bundle yet."""
    for name in dict.fromkeys(_HASH.findall(line)):
        if name in written or (blob := store.get_blob(name)) is None:
            continue
        written.add(name)
        yield {"blob": name, "media_type": blob.media_type, "content": base64.b64encode(blob.content).decode()}


def page(file: TextIO, store: SessionStore, places: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a page with the transcripts, one after the other."""
    from kern_nb.views import page as markup
    from kern_nb.views.transcript import Conversation, conversation_parts

    counts = dict.fromkeys(("sessions", "runs", "messages", "tool_calls", "blobs"), 0)
    titles = _titles(store, places)
    alone = len(places) == 1
    file.write(markup.beginning(titles[0] if alone else f"{len(places):,} sessions", () if alone else titles))
    with _Progress(len(places), shown=progress) as bar:
        for number, (place, title) in enumerate(zip(places, titles, strict=True), 1):
            session = store.get_session(place.session_id)
            bar.done(1)
            if session is None:  # deleted in between
                continue
            runs = [run for run in session.runs or [] if place.run_index in (None, run.run_index)]
            file.write(
                markup.section(number, title, list(conversation_parts(Conversation(session, runs))), alone=alone)
            )
            counts["sessions"] += 1
            counts["runs"] += len(runs)
            counts["messages"] += sum(len(run.messages) for run in runs)
            counts["tool_calls"] += sum(len(run.tool_calls) for run in runs)
    made = _made()
    file.write(markup.ending(f"Exported {made['exported_at']} by {made['exported_by']}"))
    return counts


_TITLED_AT_ONCE = 500


def _titles(store: SessionStore, places: Sequence[Reference]) -> list[str]:
    """What each is called: its title, or its name."""
    ids = list(dict.fromkeys(place.session_id for place in places))
    named: dict[str, str] = {}
    for start in range(0, len(ids), _TITLED_AT_ONCE):
        cards = store.session_cards(ids[start : start + _TITLED_AT_ONCE])
        named |= {card.session_id: card.title or card.session_id for card in cards}
    return [
        named.get(place.session_id, place.session_id) + ("" if place.run_index is None else f", run {place.run_index}")
        for place in places
    ]
