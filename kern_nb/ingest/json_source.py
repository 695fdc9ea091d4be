"""A file of JSON as values, each with the line it starts on: lines, a document, or what is left of a broken one."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.report import Problem

_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*")
BUNDLE = "kern_nb_bundle"
"""The first key of a bundle; see `bundle`."""

_OPENING = b'{"' + BUNDLE.encode() + b'"'
_CLOSING = b"]}"

# What the parser raises for text that is no JSON, numbers that are too long, and nesting that is too deep.
_UNREADABLE = (ValueError, RecursionError)


class Value(NamedTuple):
    """One JSON value and the line it starts on."""

    line: int
    value: Any


class Source:
    """One file. It is JSON lines where its first line is a value by itself, else one document.

    A bundle is a document that is read by its lines all the same: its first line opens the list that the others are in.

    The first value is kept, so that a document which was read to recognise it is not parsed again.

    Args:
        path: The file.
        name: What problems call it.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._lines_of: dict[str, list[int]] | None = None
        self._rest: tuple[int, int] | None = None
        self._head: list[Value | Problem] = []
        self._listed = False
        with open_binary(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._read_head(file, number, line)
                    break

    def _read_head(self, file: BinaryIO, number: int, line: bytes) -> None:
        with contextlib.suppress(*_UNREADABLE):
            self._head, self._rest = [Value(number, _parse(line))], (file.tell(), number + 1)
            return
        if line.startswith(_OPENING):
            self._listed, self._rest = True, (file.tell(), number + 1)
            try:
                self._head = [Value(number, _parse(line.rstrip() + _CLOSING))]
            except _UNREADABLE as error:
                self._head = [Problem(self.name, number, f"The header of the bundle is no JSON: {_reason(error)}.")]
            return
        start, whole = file.tell() - len(line), line + file.read()
        try:
            self._head = [Value(number, _parse(whole))]
        except _UNREADABLE as error:
            if _has_lines(whole):
                self._rest = (start, number)
            elif isinstance(error, UnicodeDecodeError):
                self._head = [Problem(self.name, None, _reason(error))]
            else:
                self._salvage(_text(whole), number, error)

    def _salvage(self, text: str, number: int, error: Exception) -> None:
        value, _, broken = _walk(text)
        kept = "; what comes before is taken in" if value else ""
        line = number + text.count("\n", 0, broken)
        self._head = [Problem(self.name, line, f"The file is no JSON from here on{kept}: {_reason(error)}.")]
        if value:
            self._head.insert(0, Value(number, value))

    def values(self) -> Iterator[Value | Problem]:
        """The values of the file, in order, and a problem for each stretch that is none. May be called again."""
        yield from self._head
        if self._rest is not None:
            offset, number = self._rest
            with open_binary(self.path) as file:
                file.seek(offset)
                yield from self._lines(enumerate(file, number))

    def _lines(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Value | Problem]:
        for number, given in lines:
            line = given.rstrip().removesuffix(b",") if self._listed else given
            if not line.strip() or (self._listed and line == _CLOSING):
                continue
            try:
                yield Value(number, _parse(line))
            except UnicodeDecodeError as error:
                yield Problem(self.name, number, _reason(error))
            except _UNREADABLE:
                yield from self._torn(number, _text(line))

    def _torn(self, number: int, line: str) -> Iterator[Value | Problem]:
        """Records that were written without a line break between them, and what is left over."""
        at = 0
        try:
            while (at := _skip(line, at)) < len(line):
                value, end = _decode(line, at)
                if not isinstance(value, (dict, list)):
                    raise ValueError("it is no record")  # noqa: TRY004 - the file is wrong, not our code
                yield Value(number, value)
                at = end
        except _UNREADABLE as error:
            yield Problem(self.name, number, f"The line is no JSON from column {at + 1} on: {_reason(error)}.")

    def line_of(self, key: str, index: int, line: int) -> int:
        """The line where an element of a document's list starts; ``line`` where the document has one line only."""
        if self._rest is not None:
            return line
        if self._lines_of is None:
            with open_binary(self.path) as file:
                document = _text(file.read())
            self._lines_of = {key: _line_numbers(document, starts) for key, starts in _walk(document)[1].items()}
        lines = self._lines_of.get(key, [])
        return lines[index] if index < len(lines) else line


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")


def _parse(data: bytes) -> Any:
    return json.loads(_text(data))


def _skip(text: str, at: int) -> int:
    return _space.match(text, at).end()  # type: ignore[union-attr]


def _has_lines(data: bytes) -> bool:
    """Whether a file whose first line is torn has records on lines of their own further down."""
    for line in io.BytesIO(data):
        if line[:1] in (b"{", b"["):
            try:
                if _parse(line):
                    return True
            except _UNREADABLE:
                continue
    return False


def _walk(text: str) -> tuple[Any, dict[str, list[int]], int]:
    """Go through a document's outer object by hand, as far as it is whole.

    Returns:
        The object with what was read of it, where the elements of its lists start, and where reading stopped.
    """
    found: dict[str, Any] = {}
    starts: dict[str, list[int]] = {}
    at = _skip(text, 0)
    with contextlib.suppress(*_UNREADABLE):
        at = _expect(text, at, "{")
        while text[at : at + 1] != "}":
            key, at = _decode(text, at)
            at = _expect(text, at, ":")
            if text[at : at + 1] == "[":
                items: list[Any] = []
                found[key], starts[key] = items, []
                at = _expect(text, at, "[")
                while text[at : at + 1] != "]":
                    item, end = _decode(text, at)
                    items.append(item)
                    starts[key].append(at)
                    at = _next(text, end, "]")
                at += 1
            else:
                found[key], at = _decode(text, at)
            at = _next(text, at, "}")
    return found, starts, at


def _line_numbers(text: str, starts: list[int]) -> list[int]:
    """The line of each of these places, which ascend; the text is gone through once."""
    lines, line, at = [], 1, 0
    for start in starts:
        line += text.count("\n", at, start)
        at = start
        lines.append(line)
    return lines


def _next(text: str, at: int, closing: str) -> int:
    """The place of the next member, or of the sign that closes."""
    at = _skip(text, at)
    return at if text[at : at + 1] == closing else _expect(text, at, ",")


def _expect(text: str, at: int, sign: str) -> int:
    """The place after a sign and the space around it."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} is missing")
    return _skip(text, at + 1)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"It is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}."
    return str(error.msg if isinstance(error, json.JSONDecodeError) else error)
