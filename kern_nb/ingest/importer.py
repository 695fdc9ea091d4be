"""The interface of an importer: drafts of sessions, errors in records, and the hashes that identify a record.

An importer is a subclass of `Importer`. It turns a file into drafts, one per conversation, and problems, which `writer`
stores.
"""

from __future__ import annotations

import marshal
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from pydantic import ValidationError

from kern_nb.db.blobs import Blob
from kern_nb.ingest.archives import DAMAGE
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

if TYPE_CHECKING:
    from kern_nb.ingest.bundle_merge import BundledSession


MAX_ID_LENGTH = 500
"""Characters. An index of PostgreSQL takes keys of up to 2,700 bytes."""


_MESSAGE_LENGTH = 500
"""Characters of a typical message."""

COMPACTION = "compaction"
"""True in the ``extra`` of a message that summarizes those before it, which is no answer."""


class Location(NamedTuple):
    """A folder where a program keeps its sessions, and the files in it.

    Attributes:
        folder: The default folder; ``~`` and environment variables are expanded.
        pattern: The files in it, as `pathlib.Path.glob` takes it.
        variable: The environment variable that replaces the folder.
    """

    folder: str
    pattern: str
    variable: str | None = None


class Importer(ABC):
    """A format of recorded sessions: one subclass, without state. It reads files, never the store.

    Attributes:
        name: The name of the format, for ``--format``.
        reads: What it reads, in a few words: "result files of the tau2 benchmark".
        locations: Where such files lie on a user's machine.
        is_generic: Whether the layout is so general that every other importer is tried first.
    """

    name: ClassVar[str]
    reads: ClassVar[str]
    locations: ClassVar[tuple[Location, ...]] = ()
    is_generic: ClassVar[bool] = False

    @abstractmethod
    def recognizes(self, source: Source) -> bool:
        """Whether a file is in this format, from its content: `Source.head` or `Source.tables`.

        Only a file whose messages, calls and times it understands: another importer, or a refusal that names the
        file, is better than one that loses what was said.
        """

    @abstractmethod
    def read(self, source: Source) -> Iterator[ImportItem]:
        """Yield the sessions and problems of a file, in the order of the file.

        Several drafts of one ``session_id`` are the lines of a conversation tree, the current one first: the writer
        stores what they share once.
        """

    def companions(self, source: Source) -> Iterable[Path]:
        """The other files that `read` reads with this one: an import of the folder does not read them again."""
        return ()

    def start_time(self, source: Source) -> str:
        """When the recording of a file began, as ISO text: a folder is read in this order, sessions before forks."""
        return ""


@dataclass(frozen=True, slots=True)
class Fork:
    """A branch whose source states where it branches from, and does not repeat what it inherits.

    Attributes:
        session_id: The parent.
        before_key: It inherits the parent's messages whose key sorts before this one; None for all of them.
    """

    session_id: str
    before_key: str | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """The run of another agent that started a nested agent.

    Attributes:
        session_id: The session of that run.
        tool_call_id: The tool call that started the nested agent, if the source states it.
        run_id: The run, if the source states it; runs of the draft of that session keep their ids.
    """

    session_id: str
    tool_call_id: str | None = None
    run_id: str | None = None


@dataclass
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
        path_hash: A hash of the path of the file, set when it is read: a later version of a file may correct runs.
        keys: The key of each message of each run; see `run_splitter.SourceMessage`.
        has_record_ids: Whether the keys are ids that the source gives its records, equal in every copy of a record: a
            session that begins with records of another one is then stored as a branch of it.
        has_run_ids: Whether its runs have ids of their source, and files of one session may have different ones of its
            runs, like the traces of a collector: runs that the store lacks are appended.
        keeps_run_ids: Whether its runs keep their ids in a branch, too: these are ids of their source.
        fork: Where it branches from, if the source states that.
        membership: The run that its runs belong to, if they are those of a nested agent.
        lacks_records: Whether records of it could not be read: a stored session that has all others is not changed.
        record_ids: The ids of the records that each run was read from, if the source has such.
        earlier: The ids of the stored runs that are earlier states of runs of this session, whatever they have; None if
            the source does not grow while it is read.
        withdrawn: The ids of stored runs that this session, or another of the same batch, has otherwise now.
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
    path_hash: str | None = None
    keys: list[list[str]] = field(default_factory=list)
    has_record_ids: bool = False
    has_run_ids: bool = False
    keeps_run_ids: bool = False
    fork: Fork | None = None
    membership: Membership | None = None
    lacks_records: bool = False
    record_ids: list[list[str]] = field(default_factory=list)
    earlier: frozenset[str] | None = None
    withdrawn: frozenset[str] = frozenset()

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.session.session_id

    @cached_property
    def weight(self) -> int:
        """Its size in memory, in messages of typical length."""
        return sum(1 + _length(message.content) // _MESSAGE_LENGTH for run in self.runs for message in run.messages)


ImportItem: TypeAlias = "Draft | BundledSession | Blob | Problem"
"""What an importer yields: a session of a foreign source or of a bundle, a file that sessions refer to, a problem."""


class MalformedRecord(ValueError):
    """A record that does not conform to its format."""


RECORD_ERRORS = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""The errors that reading a malformed or too deeply nested record raises, `MalformedRecord` among them."""

READ_ERRORS = (*RECORD_ERRORS, LookupError, sqlite3.Error, *DAMAGE)
"""The errors that reading a malformed file raises, if its importer does not catch them per record."""


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


def _length(content: Any) -> int:
    """About the length of a content."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, dict):
        content = content.values()
    return sum(map(_length, content)) if isinstance(content, (list, type({}.values()))) else 0


def run_id_for(session_id: str, position: int | str) -> str:
    """The id of an imported run: the same whenever the same record is read."""
    number = int.from_bytes(_digest(f"{session_id}\n{position}".encode("utf-8", "surrogatepass")))
    number = number & ~(0xF000 << 64) & ~(0xC000 << 48) | 5 << 76 | 0x8000 << 48  # a UUID of version 5
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def hash_record(*record: Any) -> str:
    """Hash JSON values.

    Version 2 of the marshal format depends on values only, not on how they lie in memory, and is several times faster
    than writing JSON.
    """
    return _digest(marshal.dumps(record, 2)).hex()


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
