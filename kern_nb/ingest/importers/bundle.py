"""Bundles: the files that `kern_nb.export` writes, imported without loss.

A bundle is a JSON document with one record per line, so that any tool can read it and reading needs no more memory than
one session::

    {"kern_nb_bundle": 2, "exported_at": "2026-11-20T14:30:00+00:00", "exported_by": "kern_nb 0.1.0", "records": [
    {"blob": "<SHA-256>", "media_type": "image/png", "content": "<base64>"},
    {"session": {...}, "runs": [...], "scores": [...]},
    {"end": true, "sessions": 1, "blobs": 1}
    ]}

A blob precedes the first session that refers to it, a parent its branches. Values that JSON lacks are encoded by
`db.codec`. `bundle_schema` defines the record of a session, `bundle_merge` what is stored of it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from kern_nb.db import codec
from kern_nb.db.blobs import Blob
from kern_nb.db.key_upgrades import upgrade_row
from kern_nb.errors import UnknownFormat
from kern_nb.ingest.bundle_merge import BundledSession, InheritedRun
from kern_nb.ingest.bundle_schema import parse_record
from kern_nb.ingest.importer import Importer, MalformedRecord, json_type, require_field
from kern_nb.ingest.source import BUNDLE_KEY, Source
from kern_nb.ingest_report import Problem

NAME = "bundle"

VERSION = 2
"""2: kern_nb's own marks have fields of their own instead of keys in ``extra`` (`extra_keys`)."""

_UPGRADE = "Upgrade kern_nb: pip install -U kern-nb. Nothing was imported."


class Bundle(Importer):
    """Files written by ``%kern export``."""

    name = NAME
    reads = "files written by %kern export"

    def recognizes(self, source: Source) -> bool:
        """The header of a bundle, or a session of one without it; raises UnknownFormat if its version is newer."""
        return any(map(_is_bundle, source.head))

    def read(self, source: Source) -> Iterator[BundledSession | Blob | Problem]:
        """Yield the blobs and sessions in the order of the file."""
        return _read(source)


def _is_bundle(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if BUNDLE_KEY in value and (reason := _unsupported_version(value)):
        raise UnknownFormat(f"The file is {reason}.", _UPGRADE)
    return BUNDLE_KEY in value or (isinstance(value.get("session"), dict) and isinstance(value.get("runs"), list))


def _unsupported_version(header: dict[str, Any]) -> str:
    version = header[BUNDLE_KEY]
    if type(version) is int and 0 < version <= VERSION:
        return ""
    return f"a bundle of version {version!r}; this kern_nb reads versions up to {VERSION}"


def _read(source: Source) -> Iterator[BundledSession | Blob | Problem]:
    line = 0
    has_end = False
    version = VERSION
    for line, record, line_of_record in _records(source):
        if isinstance(record, Problem):
            yield record
        elif isinstance(record, dict) and BUNDLE_KEY in record:
            if reason := _unsupported_version(record):
                yield Problem(source.name, line, f"This is {reason}. {_UPGRADE}")
                return
            version = record[BUNDLE_KEY]
        elif isinstance(record, dict) and record.get("end") is True:
            has_end = True
        else:
            try:
                if _is_blob(record):
                    yield _parse_blob(record)
                else:
                    yield _parse_session(source, record, line_of_record, version)
            except MalformedRecord as error:
                reason = str(error).rstrip(".")
                yield Problem(source.name, line_of_record(), f"{_describe(record)} is not imported: {reason}.")
    if not has_end:
        yield Problem(source.name, line, "The bundle is truncated here; the records before are imported.")


def _records(source: Source) -> Iterator[tuple[int, Any, Callable[[], int]]]:
    """Yield each record or problem, the line of its document, and a function that returns the record's own line."""
    for item in source.values():
        if isinstance(item, Problem):
            yield item.line or 0, item, int
            continue
        line = item.line
        yield line, item.value, lambda line=line: line  # type: ignore[misc]
        records = item.value.get("records") if isinstance(item.value, dict) else None
        for index, record in enumerate(records if isinstance(records, list) else ()):
            yield line, record, lambda line=line, index=index: source.line_of("records", index, line)  # type: ignore[misc]


def _is_blob(record: Any) -> bool:
    return isinstance(record, dict) and "blob" in record


def _parse_blob(record: dict[str, Any]) -> Blob:
    name, media_type = require_field(record, "blob", str, "the record"), record.get("media_type")
    try:
        content = base64.b64decode(require_field(record, "content", str, "the record"), validate=True)
    except ValueError as error:
        raise MalformedRecord(str(error)) from error
    if sha256(content).hexdigest() != name:
        raise MalformedRecord("its content does not match its SHA-256")
    if media_type is not None and not isinstance(media_type, str):
        raise MalformedRecord(f"its media type must be a string, got {json_type(media_type)}")
    return Blob(name, media_type, content)


def _parse_session(source: Source, record: Any, line: Callable[[], int], version: int) -> BundledSession:
    if not isinstance(record, dict):
        raise MalformedRecord(f"the record must be an object, got {json_type(record)}")
    try:
        value = codec.restore(record)
    except ValueError as error:
        raise MalformedRecord(f"a value cannot be decoded: {error!r}") from error
    if version < VERSION and isinstance(value.get("runs"), list):
        value = value | {"runs": [_upgrade_run(run) for run in value["runs"]]}
    rows = parse_record(value)
    inherits = value.get("inherits")
    if inherits is not None:
        fields = {"session_id": str, "run_id": str, "run_index": int}
        inherits = InheritedRun(*(require_field(inherits, name, kind, "'inherits'") for name, kind in fields.items()))
    return BundledSession(source.name, line, rows, inherits)


def _upgrade_run(run: Any) -> Any:
    """Convert a run of an older bundle to this version; `parse_record` reports a malformed one."""
    if not isinstance(run, dict):
        return run
    new = upgrade_row("runs", run)
    if isinstance(run.get("messages"), list):
        new["messages"] = [upgrade_row("messages", m) if isinstance(m, dict) else m for m in run["messages"]]
    return new


def _describe(record: Any) -> str:
    if _is_blob(record):
        return f"The file {str(record['blob'])[:12]}…"
    session = record.get("session") if isinstance(record, dict) else None
    session_id = session.get("session_id") if isinstance(session, dict) else None
    return "The record" if session_id is None else f"Session {str(session_id)[:80]!r}"
