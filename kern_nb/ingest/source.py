"""A file of recorded sessions, as importers see it: JSON values with their lines, rows of Parquet, tables of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kern_nb.db.file_descriptors import database_engine, open_binary, read_header
from kern_nb.ingest import archives, parquet
from kern_nb.ingest.archives import Workspace
from kern_nb.ingest.json_stream import BUNDLE_KEY, JsonStream, Part, Value, collect
from kern_nb.ingest.sqlite_copy import open_copy
from kern_nb.ingest_report import Problem

__all__ = ["BUNDLE_KEY", "Document", "Item", "Source", "Value"]

_PROBED_VALUES = 20
# Where probing ends at the latest, and the size from which a document is read item by item.
_PROBED_BYTES = 4_000_000
_LARGE = 16_000_000


class Item(NamedTuple):
    """An item of a list in a document, or another value.

    Attributes:
        line: Returns the line it starts on.
        value: The value.
        document: The line that its document starts on.
    """

    line: Callable[[], int]
    value: Any
    document: int


class Document(NamedTuple):
    """An object with a list that may be long.

    Attributes:
        line: The line it starts on.
        fields: Its other members.
        items: The items of the list, and problems; to be read once, before the next document.
    """

    line: int
    fields: dict[str, Any]
    items: Iterator[Item | Problem]


class Source:
    """A file.

    Attributes:
        name: The file relative to the imported path, as problems show it: ``run1/log.jsonl``, ``export.zip/chat.json``.
        location: The absolute path of the file; that of a member of an archive is below the archive.
    """

    def __init__(self, path: Path, name: str, workspace: Workspace | None = None, location: str | None = None) -> None:
        self.name = name
        self.location = location or str(path.absolute())
        self._original = path
        self._workspace = workspace
        self._extracted: Path | None = None
        self._damage = ""
        self._values: list[Value | Problem] | None = None
        self.size = path.stat().st_size

    @property
    def session_name(self) -> str:
        """The id of a session without an id of its own: the relative path without suffix."""
        return str(PurePosixPath(archives.plain_name(self.name)).with_suffix(""))

    @property
    def original(self) -> Path:
        """The file as it is, compressed or not."""
        return self._original

    def sibling(self, path: Path) -> Source:
        """Another file of its folder."""
        return Source(path, str(PurePosixPath(self.name).with_name(path.name)), self._workspace)

    @cached_property
    def path(self) -> Path:
        """The file; that of a compressed or UTF-16 file is its content, in a temporary folder, as plain UTF-8."""
        if self._workspace is None or not archives.needs_extraction(self._original):
            return self._original
        self._extracted, self._damage = archives.extract_file(self._original, self._workspace)
        return self._extracted

    def release(self) -> None:
        """Drop what was read and extracted; it is read again when it is needed."""
        for name in ("path", "head", "tables", "kind", "_line_numbers", "_is_large"):  # the cached properties
            self.__dict__.pop(name, None)
        self._values = None
        if self._extracted is not None and self._workspace is not None:
            self._workspace.remove(self._extracted.parent)
            self._extracted = None

    @cached_property
    def kind(self) -> str | None:
        """What a file that is no text is: ``parquet``, ``zip``, ``sqlite``, ``duckdb`` or ``binary``."""
        header = read_header(self.path, 16)
        if parquet.is_parquet(header):
            return parquet.KIND
        if archives.is_zip_header(header):
            return "zip"
        return database_engine(header) or ("binary" if b"\0" in header else None)

    @cached_property
    def head(self) -> list[Any]:
        """The first values. Several, so that a malformed record at the start of a file does not hide its format.

        The lists of a large document have their first items only.
        """
        return [item.value for item in self._probe() if isinstance(item, Value)]

    def _probe(self) -> list[Value | Problem]:
        if self.kind == parquet.KIND:
            return list(islice(self.values(), _PROBED_VALUES))
        if self.kind is not None:
            return []
        if self._is_large:
            with self._stream() as stream:
                line = stream.line
                return [Value(line, collect(stream.parts(), limit=_PROBED_VALUES))]
        probed: list[Value | Problem] = []
        with self._stream() as stream:
            for item in stream.values():
                probed.append(item)
                if len(probed) >= _PROBED_VALUES or stream.consumed > max(_PROBED_BYTES, _LARGE):
                    break
            else:
                self._values = [*probed, *self._report_damage()]  # the whole file: it is not parsed again
        return probed

    @cached_property
    def _is_large(self) -> bool:
        """Whether the file starts with a document that is too large to be one value."""
        if self.size <= _LARGE and self._extracted is None:
            return False
        with self._stream() as stream:
            return stream.find_value() and not stream.is_bundle and not stream.is_within(_LARGE)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[JsonStream]:
        with open_binary(self.path) as file:
            stream = JsonStream(file, self.name)
            stream.find_value()
            yield stream

    @cached_property
    def tables(self) -> dict[str, frozenset[str]]:
        """The tables of a SQLite file and the columns of each; empty for another file, or a damaged one."""
        if self.kind != "sqlite":
            return {}
        try:
            with self.open_sqlite() as connection:
                names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                columns = "SELECT name FROM pragma_table_info(?)"
                return {name: frozenset(row[0] for row in connection.execute(columns, [name])) for name in names}
        except sqlite3.Error:
            return {}

    def open_sqlite(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A connection to a copy of a SQLite file: its program may write to the file meanwhile."""
        return open_copy(self.path)

    def values(self) -> Iterator[Value | Problem]:
        """Yield the values of the file, in order, and a problem for each invalid part. May be called again."""
        if self.kind == parquet.KIND:
            yield from parquet.read_rows(self.path, self.name)
        elif self._values is not None:
            yield from self._values
        elif self.kind is None:
            with self._stream() as stream:
                yield from stream.values()
            yield from self._report_damage()

    def items(self) -> Iterator[Item | Problem]:
        """Yield the values of the file, and of a value that is a list its items: a long list needs little memory."""
        for value, parts in self._documents():
            if isinstance(value, Problem):
                yield value
            elif isinstance(value.value, list):
                yield from self._items_of(None, value, parts)
            else:
                members = value.value if parts is None else collect(parts)
                yield Item(partial(int, value.line), members, value.line)

    def documents(self, key: str) -> Iterator[Document | Value | Problem]:
        """Yield the objects that have a list ``key``, whose items are read one at a time, and other values."""
        for value, parts in self._documents():
            if isinstance(value, Problem):
                yield value
            elif isinstance(value.value, dict) and isinstance(value.value.get(key), list):
                members = value.value if parts is None else self._large_members(key)
                fields = {name: member for name, member in members.items() if name != key}
                yield Document(value.line, fields, self._items_of(key, value, parts))
            else:
                yield value if parts is None else Value(value.line, collect(parts))

    def _documents(self) -> Iterator[tuple[Value | Problem, Iterator[Part | Problem] | None]]:
        """Yield each value; of a large document its `head`, and its parts."""
        if self.kind is not None or not self._is_large:
            for value in self.values():
                yield value, None
            return
        with self._stream() as stream:
            head = Value(stream.line, self.head[0])
            parts = stream.parts()
            yield head, parts
            for _ in parts:
                pass
            for value in chain(stream.values(), self._report_damage()):
                yield value, None

    def _report_damage(self) -> Iterator[Problem]:
        if self._damage:
            yield Problem(self.name, None, f"The file is damaged: {self._damage}. What comes before is imported.")

    def _items_of(
        self, key: str | None, value: Value, parts: Iterator[Part | Problem] | None
    ) -> Iterator[Item | Problem]:
        if parts is None:
            for index, item in enumerate(value.value if key is None else value.value[key]):
                yield Item(partial(self.line_of, key, index, value.line), item, value.line)
            return
        for part in parts:
            if isinstance(part, Problem):
                yield part
            elif part.is_item and part.key == key:
                yield Item(partial(int, part.line), part.value, value.line)

    def _large_members(self, key: str) -> dict[str, Any]:
        """The members of a large document except one."""
        with self._stream() as stream:
            members = collect(part for part in stream.parts() if isinstance(part, Problem) or part.key != key)
            return members or {}

    def line_of(self, key: str | None, index: int, line: int) -> int:
        """Return the line where an item starts, of the list ``key`` of the document on ``line``; else that line."""
        lines = self._line_numbers.get((line, key), ())
        return lines[index] if index < len(lines) else line

    @cached_property
    def _line_numbers(self) -> dict[tuple[int, str | None], list[int]]:
        """The lines of the items, by the line of the document and the key of the list."""
        lines: dict[tuple[int, str | None], list[int]] = {}
        if self.kind is not None:
            return lines
        with self._stream() as stream:
            while stream.find_value():
                first = stream.line
                if not stream.is_container:
                    stream.skip_line()
                    continue
                for part in stream.parts():
                    if isinstance(part, Part) and part.is_item:
                        lines.setdefault((first, part.key), []).append(part.line)
        return lines
