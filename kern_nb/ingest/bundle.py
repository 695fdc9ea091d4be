"""Bundles: what `kern_nb.export` wrote, to be taken in again without a loss.

A bundle is a JSON document with one record on each line, so that any tool reads it and ours needs no more memory than a
session takes::

    {"kern_nb_bundle": 2, "exported_at": "2026-11-20T14:30:00+00:00", "exported_by": "kern_nb 0.1.0", "records": [
    {"blob": "<SHA-256>", "media_type": "image/png", "content": "<base64>"},
    {"session": {...}, "runs": [...], "scores": [...]},
    {"end": true, "sessions": 1, "blobs": 1}
    ]}

A blob stands before the first session that names it, a parent before its branches. Values that JSON lacks are written
as `db.codec` writes them. What a session's record holds is in `packing`, what is stored of it in `restoring`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from kern_nb.db.blobs import Blob
from kern_nb.db.schema import Tables
from kern_nb.errors import UnknownFormat
from kern_nb.extra_keys import upgrade_row
from kern_nb.ingest.bundle_merge import Bundled, Inherited
from kern_nb.ingest.bundle_schema import Unpacking, restored
from kern_nb.ingest.importer import Malformed, kind_of, need
from kern_nb.ingest.json_source import BUNDLE as MARK
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem

NAME = "bundle"
READS = "what %kern export wrote"

VERSION = 2
"""2: kern_nb's own marks stand in fields of their own, not in ``extra`` (`extra_keys`)."""

_UPGRADE = "Upgrade kern_nb: pip install -U kern-nb. Nothing was taken in."

# The columns are the same whatever the tables are called.
_unpacking = Unpacking(Tables("agno_sessions"))


def recognises(value: Any) -> bool:
    """The header of a bundle, or one of its sessions where the header is lost.

    Raises:
        UnknownFormat: it is a bundle of a newer version.
    """
    if not isinstance(value, dict):
        return False
    if MARK in value and (reason := _too_new(value)):
        raise UnknownFormat(f"The file is {reason}.", _UPGRADE)
    return MARK in value or _is_session(value)


def _too_new(header: dict[str, Any]) -> str:
    version = header[MARK]
    if type(version) is int and 0 < version <= VERSION:
        return ""
    return f"a bundle of version {version!r}; this kern_nb reads up to version {VERSION}"


def _is_session(value: dict[str, Any]) -> bool:
    return isinstance(value.get("session"), dict) and isinstance(value.get("runs"), list)


def read(source: Source) -> Iterator[Bundled | Blob | Problem]:
    """Blobs and sessions, in the file's order."""
    line = ended = 0
    version = VERSION
    for number, record, place in _records(source):
        line = number
        if isinstance(record, Problem):
            yield record
        elif isinstance(record, dict) and MARK in record:
            if reason := _too_new(record):
                yield Problem(source.name, number, f"It is {reason}. {_UPGRADE}")
                return
            version = record[MARK]
        elif isinstance(record, dict) and record.get("end") is True:
            ended += 1
        else:
            try:
                yield _blob(record) if _is_blob(record) else _session(source, record, place, version)
            except Malformed as error:
                yield Problem(source.name, place(), f"{_name(record)} is left out: {str(error).rstrip('.')}.")
    if not ended:
        yield Problem(source.name, line, "The bundle breaks off here; what comes before is taken in.")


def _records(source: Source) -> Iterator[tuple[int, Any, Callable[[], int]]]:
    """Each record or problem, the line it is told by, and how to ask for the line where it starts."""
    for found in source.values():
        if isinstance(found, Problem):
            yield found.line or 0, found, int
            continue
        line = found.line
        yield line, found.value, lambda line=line: line  # type: ignore[misc]
        inner = found.value.get("records") if isinstance(found.value, dict) else None
        for index, record in enumerate(inner if isinstance(inner, list) else ()):
            yield line, record, lambda line=line, index=index: source.line_of("records", index, line)  # type: ignore[misc]


def _is_blob(record: Any) -> bool:
    return isinstance(record, dict) and "blob" in record


def _blob(record: dict[str, Any]) -> Blob:
    name, media_type = need(record, "blob", str, "it"), record.get("media_type")
    try:
        content = base64.b64decode(need(record, "content", str, "it"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(str(error)) from error
    if sha256(content).hexdigest() != name:
        raise Malformed("its bytes are others than its SHA-256 says")
    if media_type is not None and not isinstance(media_type, str):
        raise Malformed(f"its media type is {kind_of(media_type)}, not text")
    return Blob(name, media_type, content)


def _session(source: Source, record: Any, line: Callable[[], int], version: int) -> Bundled:
    if not isinstance(record, dict):
        raise Malformed(f"it is {kind_of(record)}, not an object")
    value = restored(record)
    if version < VERSION and isinstance(value.get("runs"), list):
        value = value | {"runs": [_upgraded(run) for run in value["runs"]]}
    made = _unpacking.rows(value)
    inherits = value.get("inherits")
    if inherits is not None:
        names = {"session_id": str, "run_id": str, "run_index": int}
        inherits = Inherited(*(need(inherits, name, kind, "what it inherits") for name, kind in names.items()))
    return Bundled(source.name, line, made, inherits)


def _upgraded(run: Any) -> Any:
    """A run of an older bundle, as this version writes it; what is not as it should be is reported by `Unpacking`."""
    if not isinstance(run, dict):
        return run
    new = upgrade_row("runs", run)
    if isinstance(run.get("messages"), list):
        new["messages"] = [upgrade_row("messages", one) if isinstance(one, dict) else one for one in run["messages"]]
    return new


def _name(record: Any) -> str:
    """What a record is called in a problem."""
    if _is_blob(record):
        return f"The file {str(record['blob'])[:12]}…"
    session = record.get("session") if isinstance(record, dict) else None
    session_id = session.get("session_id") if isinstance(session, dict) else None
    return "The record" if session_id is None else f"Session {str(session_id)[:80]!r}"
