"""What importers hand over, and the keys by which a record is known again.

An importer is a module with `NAME`, `READS`, `recognises` and `read`. It turns a file into drafts, one a session, and
problems; it neither sees the store nor writes.
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

LONGEST_ID = 500
"""Characters. An index of PostgreSQL takes keys of up to 2,700 bytes."""


class Importer(Protocol):
    """A format: one module each."""

    NAME: str
    """What people call it."""
    READS: str
    """What it reads, in a few words."""

    def recognises(self, value: Any) -> bool:
        """Whether one of the first values of a file is of this format."""

    def read(self, source: Source) -> Iterator[Any]:
        """The sessions of a file, and what is wrong with it, in the file's order; see `load.Item`."""


@dataclass(slots=True)
class Draft:
    """One session as a source tells it, not stored yet.

    Attributes:
        file: The file it is from, as problems call it.
        line: Gives the line where its record starts; asked only where there is a problem.
        session: The session; its ``metadata`` is what people filter and compare by.
        runs: Its runs, in order, with deterministic ids.
        hashes: The hash of each run's record.
        session_hash: The hash of what the source says of the session itself.
        source: The importer's name, which is also the source of the scores.
        blobs: JSON that is long and that many sessions share, by the SHA-256 by which the session refers to it.
        scores: By name. They rate the session.
        scored_at: When, where the source says.
        place: Where the session's id means this session. None where the id is unique in the world.
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
    place: str | None = None

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.session.session_id

    @property
    def weight(self) -> int:
        """How much is held in memory with it, in messages."""
        return sum(len(run.messages) for run in self.runs)


class Malformed(ValueError):
    """A record that is not as its format says."""


AMISS = (ValueError, TypeError, AttributeError, OverflowError)
"""What reading such a record raises, `Malformed` among them."""


def need(record: Mapping[str, Any], key: str, kind: type, what: str) -> Any:
    """A field that a record must have.

    Raises:
        Malformed: it is missing or of another type.
    """
    if not isinstance(record, dict):
        raise Malformed(f"{what} is {kind_of(record)}, not an object")
    if key not in record:
        raise Malformed(f"{what} has no {key!r}")
    if not isinstance(record[key], kind):
        raise Malformed(f"{key!r} of {what} is {kind_of(record[key])}, not {kind_of(kind())}")
    return record[key]


def why(error: Exception) -> str:
    """The reason for a problem, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or error.title}: {first['msg']}"
    return str(error)


_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def kind_of(value: object) -> str:
    """The JSON type of a value, as people say it."""
    return _KINDS.get(type(value), "null")


def run_key(session_id: str, turn: int) -> str:
    """The id of an imported run: the same whenever the same record is read."""
    return str(UUID(bytes=_digest(f"{session_id}\n{turn}".encode("utf-8", "surrogatepass")), version=5))


def hash_of(*record: Any) -> str:
    """A hash of JSON values that changes where a value does.

    Version 2 of the marshal format holds values only, nothing of how they lie in memory, and is several times faster
    than writing JSON.
    """
    return _digest(marshal.dumps(record, 2)).hex()


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
