"""Reading a JSON file as values with their line numbers: JSON lines, a document, or the intact part of a broken one."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kern_nb.db.file_descriptors import database_engine, open_binary, read_header
from kern_nb.ingest.report import Problem

_decode = json.JSONDecoder().raw_decode
_whitespace = re.compile(r"[ \t\n\r]*")
BUNDLE_KEY = "kern_nb_bundle"
"""The first key of a bundle; see `bundle`."""

_OPENING = b'{"' + BUNDLE_KEY.encode() + b'"'
_CLOSING = b"]}"

_PROBED_VALUES = 20

# The errors of the parser: invalid JSON, numbers that are too long, and nesting that is too deep.
_PARSE_ERRORS = (ValueError, RecursionError)


class Value(NamedTuple):
    """One JSON value and the line it starts on."""

    line: int
    value: Any


class Source:
    """A file: JSON lines if its first line is a complete value, else one document.

    A bundle is a document that is read line by line too: its first line opens the list that contains the others.

    The first value is cached, so that a document is not parsed again after the detection of its format. Problems show
    the file by its ``name``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._tail: tuple[int, int] | None = None
        self._head: list[Value | Problem] = []
        self._is_bundle = False
        self._engine = database_engine(read_header(path, 16))
        if self._engine:
            return
        with open_binary(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._read_head(file, number, line)
                    break

    def _read_head(self, file: BinaryIO, number: int, line: bytes) -> None:
        with contextlib.suppress(*_PARSE_ERRORS):
            self._head, self._tail = [Value(number, _parse(line))], (file.tell(), number + 1)
            return
        if line.startswith(_OPENING):
            self._is_bundle, self._tail = True, (file.tell(), number + 1)
            try:
                self._head = [Value(number, _parse(line.rstrip() + _CLOSING))]
            except _PARSE_ERRORS as error:
                self._head = [Problem(self.name, number, f"The bundle's header is not valid JSON: {_reason(error)}.")]
            return
        start, document = file.tell() - len(line), line + file.read()
        try:
            self._head = [Value(number, _parse(document))]
        except _PARSE_ERRORS as error:
            if _has_json_lines(document):
                self._tail = (start, number)
            elif isinstance(error, UnicodeDecodeError):
                self._head = [Problem(self.name, None, _reason(error))]
            else:
                text = _text(document)
                value, _, end = _parse_intact_part(text)
                suffix = "; the part before is imported" if value else ""
                end_number = number + text.count("\n", 0, end)
                problem = Problem(self.name, end_number, f"Invalid JSON from here on{suffix}: {_reason(error)}.")
                self._head = [Value(number, value), problem] if value else [problem]

    @cached_property
    def head(self) -> list[Any]:
        """The first values. Several, so that a malformed record at the start of a file does not hide its format."""
        if self.tables:
            return []
        values = islice(self.values(), _PROBED_VALUES)
        return [item.value for item in values if isinstance(item, Value)]

    @cached_property
    def tables(self) -> dict[str, frozenset[str]]:
        """The tables of a SQLite file and the columns of each; empty for another file."""
        if self._engine != "sqlite":
            return {}
        with self.open_sqlite() as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            columns = "SELECT name FROM pragma_table_info(?)"
            return {name: frozenset(row[0] for row in connection.execute(columns, [name])) for name in names}

    @contextlib.contextmanager
    def open_sqlite(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection to a copy of a SQLite file: its program may write to the file meanwhile."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            for suffix in ("", "-wal"):
                file = self.path.with_name(self.path.name + suffix)
                with (
                    contextlib.suppress(FileNotFoundError),
                    open_binary(file) as original,
                    copy.with_name(copy.name + suffix).open("wb") as target,
                ):
                    shutil.copyfileobj(original, target)
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = lambda value: value.decode(errors="replace")
                yield connection

    def values(self) -> Iterator[Value | Problem]:
        """Yield the values of the file, in order, and a problem for each invalid part. May be called again."""
        yield from self._head
        if self._tail is None:
            return
        offset, first_number = self._tail
        with open_binary(self.path) as file:
            file.seek(offset)
            for number, raw in enumerate(file, first_number):
                line = raw.rstrip().removesuffix(b",") if self._is_bundle else raw
                if not line.strip() or (self._is_bundle and line == _CLOSING):
                    continue
                try:
                    yield Value(number, _parse(line))
                except UnicodeDecodeError as error:
                    yield Problem(self.name, number, _reason(error))
                except _PARSE_ERRORS:
                    yield from self._split_line(number, _text(line))

    def _split_line(self, number: int, line: str) -> Iterator[Value | Problem]:
        """Yield records without a line break between them, and a problem for the remainder."""
        at = 0
        try:
            while (at := _skip(line, at)) < len(line):
                value, end = _decode(line, at)
                if not isinstance(value, (dict, list)):
                    raise ValueError("not a record")  # noqa: TRY004 - the file is wrong, not our code
                yield Value(number, value)
                at = end
        except _PARSE_ERRORS as error:
            yield Problem(self.name, number, f"Invalid JSON from column {at + 1} on: {_reason(error)}.")

    def line_of(self, key: str, index: int, line: int) -> int:
        """Return the line where an item of the document's list ``key`` starts; else ``line``, that of the document."""
        lines = [] if self._tail is not None else self._line_numbers.get(key, [])
        return lines[index] if index < len(lines) else line

    @cached_property
    def _line_numbers(self) -> dict[str, list[int]]:
        with open_binary(self.path) as file:
            document = _text(file.read())
        starts = _parse_intact_part(document)[1]
        return {name: _to_line_numbers(document, offsets) for name, offsets in starts.items()}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")


def _parse(data: bytes) -> Any:
    return json.loads(_text(data))


def _skip(text: str, at: int) -> int:
    return _whitespace.match(text, at).end()  # type: ignore[union-attr]


def _has_json_lines(data: bytes) -> bool:
    """Whether a file with a truncated first line has complete records on later lines."""
    for line in io.BytesIO(data):
        with contextlib.suppress(*_PARSE_ERRORS):
            if line[:1] in (b"{", b"[") and _parse(line):
                return True
    return False


def _parse_intact_part(text: str) -> tuple[Any, dict[str, list[int]], int]:
    """Parse the outer object of a document up to the first error.

    Returns:
        The object as far as it was parsed, the offsets of the items of its lists, and the offset where parsing ended.
    """
    document: dict[str, Any] = {}
    starts: dict[str, list[int]] = {}
    at = _skip(text, 0)
    with contextlib.suppress(*_PARSE_ERRORS):
        at = _expect(text, at, "{")
        while text[at : at + 1] != "}":
            key, at = _decode(text, at)
            at = _expect(text, at, ":")
            if text[at : at + 1] == "[":
                items: list[Any] = []
                document[key], starts[key] = items, []
                at = _expect(text, at, "[")
                while text[at : at + 1] != "]":
                    item, end = _decode(text, at)
                    items.append(item)
                    starts[key].append(at)
                    at = _next(text, end, "]")
                at += 1
            else:
                document[key], at = _decode(text, at)
            at = _next(text, at, "}")
    return document, starts, at


def _to_line_numbers(text: str, starts: list[int]) -> list[int]:
    """Convert ascending offsets to line numbers, in one pass over the text."""
    breaks = (text.count("\n", before, start) for before, start in pairwise([0, *starts]))
    return [1 + number for number in accumulate(breaks)]


def _next(text: str, at: int, closing: str) -> int:
    """Return the offset of the next member, or of the closing bracket."""
    at = _skip(text, at)
    return at if text[at : at + 1] == closing else _expect(text, at, ",")


def _expect(text: str, at: int, character: str) -> int:
    """Return the offset after a character and the whitespace around it."""
    at = _skip(text, at)
    if text[at : at + 1] != character:
        raise ValueError(f"expected {character!r}")
    return _skip(text, at + 1)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"The text is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}."
    return str(error.msg if isinstance(error, json.JSONDecodeError) else error)
