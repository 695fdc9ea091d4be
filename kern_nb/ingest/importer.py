"""The interface of an importer: drafts of sessions, errors in records, and the hashes that identify a record.

An importer is a module with `NAME`, `READS`, `recognises` and `read`. It turns a file into drafts, one per session, and
problems; it neither reads nor writes the store.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

from pydantic import ValidationError

from kern_nb.ingest.json_source import Source
from kern_nb.records import Run, Session

MAX_ID_LENGTH = 500
"""Characters. An index of PostgreSQL takes keys of up to 2,700 bytes."""


class Importer(Protocol):
    """A format: one module each."""

    NAME: str
    """The name of the format."""
    READS: str
    """What it reads, in a few words."""

    def recognises(self, value: Any) -> bool:
        """Whether one of the first values of a file is in this format."""

    def read(self, source: Source) -> Iterator[Any]:
        """Yield the sessions and problems of a file, in the order of the file; see `writer.ImportItem`."""


@dataclass(slots=True)
class Draft:
    """A session of a source that is not stored yet.

    Attributes:
        file: The file name, as problems show it.
        line: Returns the line where its record starts; called only to report a problem.
        session: The session; its ``metadata`` is what users filter and compare by.
        runs: Its runs, in order, with deterministic ids.
        hashes: The hash of the record of each run.
        session_hash: The hash of the session's own fields in the source.
        source: The name of the importer, which is also the source of the scores.
        blobs: Long JSON that many sessions share, by the SHA-256 by which the session refers to it.
        scores: Scores of the session by name.
        scored_at: When the session was scored, if the source states it.
        scope: The scope in which the session's id is unique; None if it is globally unique.
    """

    file: str
    line: Callable[[], int]
    session: Session
    runs: list[Run]
    hashes: list[str]
    session_hash: str
    source: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    scored_at: int | None = None
    scope: str | None = None

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.session.session_id

    @property
    def weight(self) -> int:
        """Its size in memory, in messages."""
        return sum(len(run.messages) for run in self.runs)


class MalformedRecord(ValueError):
    """A record that does not conform to its format."""


RECORD_ERRORS = (ValueError, TypeError, AttributeError, OverflowError)
"""The errors that reading a malformed record raises, `MalformedRecord` among them."""


def require_field(record: Mapping[str, Any], key: str, kind: type, owner: str) -> Any:
    """Return a field of a record, which errors call ``owner``; raise MalformedRecord without a value of that type."""
    if not isinstance(record, dict):
        raise MalformedRecord(f"{owner} must be an object, got {json_type(record)}")
    if key not in record:
        raise MalformedRecord(f"{owner} has no {key!r}")
    if not isinstance(record[key], kind):
        raise MalformedRecord(f"{key!r} of {owner} must be {json_type(kind())}, got {json_type(record[key])}")
    return record[key]


def error_text(error: Exception) -> str:
    """The reason for a problem, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or error.title}: {first['msg']}"
    return str(error)


_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
_JSON_TYPES |= dict.fromkeys((int, float), "a number")


def json_type(value: object) -> str:
    """The JSON type of a value, with its article."""
    return _JSON_TYPES.get(type(value), "null")


def run_id_for(session_id: str, position: int) -> str:
    """The id of an imported run: the same whenever the same record is read."""
    return str(UUID(bytes=_digest(f"{session_id}\n{position}".encode("utf-8", "surrogatepass")), version=5))


def hash_record(*record: Any) -> str:
    """Hash JSON values.

    Version 2 of the marshal format depends on values only, not on how they lie in memory, and is several times faster
    than writing JSON.
    """
    return _digest(marshal.dumps(record, 2)).hex()


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
