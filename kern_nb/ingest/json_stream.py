"""Parsing JSON text value by value, in a window that holds one value and a chunk of the file.

A file is JSON lines, a document, or values that follow each other in any way: over several lines, with commas between
them, without a line break. A damaged value is reported, and the next one is read: the one on the next line, or, if the
value is written over several lines, on the next line that is indented as little. What is intact of a damaged document
is a value, too.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from kern_nb.ingest_report import Problem

BUNDLE_KEY = "kern_nb_bundle"
"""The first key of a bundle; see `importers.bundle`."""

_OPENING, _CLOSING = f'{{"{BUNDLE_KEY}"', "]}"

PARSE_ERRORS = (ValueError, RecursionError)
"""The errors of the parser: invalid JSON, numbers that are too long, and nesting that is too deep."""

_CHUNK = 2_000_000
# Files up to this size are read at once if a value does not fit into a chunk.
_WHOLE = 16_000_000
# The end of a window may cut an escape, a number or a word: the error is then this close to the end.
_LONGEST_TOKEN = 16
_SHORT_LINE = 4_000
# How many objects are tried as the next item of a damaged list that is written on one line.
_MAX_CANDIDATES = 1_000

_END = "Invalid JSON from here on"
_END_OF_INTACT_PART = f"{_END}; the part before is imported"

_decode_text = json.JSONDecoder().raw_decode
_blank = re.compile(r"[ \t\n\r]*")
# RFC 7464 separates values by \x1e; concatenated files may start with a byte order mark each.
_separators = re.compile("[ \t\n\r,\x1e\ufeff]*")
_line_start = re.compile(r"\n[ \t\r]*(?=[^ \t\r\n])")
_first_key = re.compile(r'\{\s*("(?:[^"\\]|\\.){0,200}")\s*:')
_invalid = re.compile("[\udc80-\udcff]")


class Value(NamedTuple):
    """One JSON value and the line it starts on."""

    line: int
    value: Any


class Part(NamedTuple):
    """A part of a document: a member, an item of a list, or a list that begins.

    Attributes:
        line: The line it starts on.
        key: The key of the member; None in a document that is a list.
        value: The value; an empty list before its items.
        is_item: Whether it is an item of the list ``key``.
    """

    line: int
    key: str | None
    value: Any
    is_item: bool


class _Damaged(ValueError):
    """A damaged part of a document, after which no other was recognized."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class TooLong(Exception):
    """The value does not end within the window."""


class JsonStream:
    """The values of an open file, as text in UTF-8; ``name`` is the file's in problems."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.line = 1
        self._file = file
        self._size = file.seek(0, 2)
        self._ends_a_document = _ends_with_brackets(file, self._size)
        file.seek(0)
        self._has_surrogates = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(_ERRORS)
        self._text = ""
        self._at = 0
        # The column of the window's first character, and whether only blanks are before it on its line.
        self._column, self._is_after_blanks = 0, True
        self._is_bundle = False
        self._is_first = True
        self.ended = False
        self._extend()

    @property
    def consumed(self) -> int:
        """About how many bytes of the file have been read."""
        return self._file.tell()

    def values(self) -> Iterator[Value | Problem]:
        """Yield the remaining values, and a problem for each damaged one."""
        if self._is_first:
            yield from self._bundle_header()
        while self.find_value():
            try:
                value, end = self._decode_value()
            except PARSE_ERRORS as error:
                yield from self._recover(error)
            else:
                line, reason = self.line, self._refuse(value, end)
                if reason:
                    yield Problem(self.name, line, reason)
                else:
                    yield Value(line, value)
                if not reason or isinstance(value, (dict, list)):
                    self._move(end)
                else:
                    self.skip_line()
            self._is_first = False

    def find_value(self) -> bool:
        """Move to the next value; return False at the end of the file."""
        while True:
            self._skip(_separators)
            if self._is_bundle and self._text.startswith(_CLOSING, self._at):
                self._move(self._at + len(_CLOSING))
            else:
                return self._at < len(self._text)

    @property
    def is_bundle(self) -> bool:
        """Whether a bundle starts here, whose records are values of their own."""
        return self._text.startswith(_OPENING, self._at)

    @property
    def is_container(self) -> bool:
        """Whether the value here is an object or a list."""
        return self._text[self._at] in "{["

    def skip_line(self) -> None:
        """Move to the next line."""
        while (end := self._text.find("\n", self._at)) < 0:
            self._move(len(self._text))
            if not self._extend():
                return
        self._move(end + 1)

    def is_within(self, limit: int) -> bool:
        """Whether the value here ends, or is damaged, within a number of characters."""
        try:
            self._decode_value(limit)
        except TooLong:
            return False
        except PARSE_ERRORS:
            return True
        return True

    def parts(self) -> Iterator[Part | Problem]:
        """Yield the parts of the document here, one at a time, and a problem for each damaged one."""
        column = self._column_of(self._at)
        try:
            if self._text[self._at] == "[":
                yield Part(self.line, None, [], is_item=False)
                yield from self._items(None)
            else:
                yield from self._members(column)
        except PARSE_ERRORS as error:
            line = getattr(error, "line", self.line)
            yield Problem(self.name, line, f"{_END}: {_reason(error)}.")
            self._skip_to_record(column)
        self._is_first = False

    def _bundle_header(self) -> Iterator[Value | Problem]:
        if not self.is_bundle:
            return
        while (end := self._text.find("\n", self._at)) < 0 and self._extend():
            pass
        header = self._text[self._at : end if end >= 0 else None].rstrip()
        try:
            json.loads(header)
        except PARSE_ERRORS:
            self._is_bundle = True
        else:
            return
        try:
            yield Value(self.line, json.loads(header + _CLOSING))
        except PARSE_ERRORS as error:
            reason = f"The bundle's header is not valid JSON: {_reason(error)}."
            yield Problem(self.name, self.line, reason)
        self.skip_line()

    def _refuse(self, value: Any, end: int) -> str:
        """The reason for which a value is not a record; empty if it is one."""
        if self._has_surrogates and (match := _invalid.search(self._text, self._at, end)):
            byte = ord(match[0]) - 0xDC00
            return f"The text is not UTF-8: the byte at column {self._column_of(match.start()) + 1} is {byte:#04x}."
        if isinstance(value, (dict, list)):
            return ""
        rest = _separators.match(self._text, end).end()  # type: ignore[union-attr]
        if rest < len(self._text) and "\n" not in self._text[end:rest]:
            return f"Invalid JSON from column {self._column_of(self._at) + 1} on: not a record."
        return ""

    # The window: it moves forward only, so that offsets after `_at` stay valid until `_extend`.

    def _extend(self) -> bool:
        """Read as much again as the window holds, and drop what lies before; return False at the end of the file."""
        if self.ended:
            return False
        remaining = self._text[self._at :]
        length = max(_CHUNK, len(remaining))
        data = self._file.read(_WHOLE if self._text and self._size <= _WHOLE else length)
        new = self._decoder.decode(data, final=not data)
        try:
            new.encode()
        except UnicodeEncodeError:
            self._has_surrogates = True
        self.ended = not data
        self._column, self._is_after_blanks = self._column_of(self._at), self._starts_line(self._at)
        self._text, self._at = remaining + new, 0
        return bool(data or new)

    def _move(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _skip(self, pattern: re.Pattern[str] = _blank) -> None:
        while True:
            self._move(pattern.match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._extend():
                return

    def _column_of(self, offset: int) -> int:
        start = self._text.rfind("\n", 0, offset)
        return offset - start - 1 if start >= 0 else self._column + offset

    def _starts_line(self, offset: int) -> bool:
        start = self._text.rfind("\n", 0, offset)
        return not self._text[start + 1 : offset].strip() and (start >= 0 or self._is_after_blanks)

    def _decode_value(self, limit: int | None = None) -> tuple[Any, int]:
        """Parse the value here; return it and the offset where it ends."""
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._text) - _LONGEST_TOKEN or error.msg.startswith("Unterminated string")
                is_cut = is_cut or not self._text[error.pos :].strip()
                if self.ended or not is_cut:
                    raise
            else:
                if end < len(self._text) or isinstance(value, (dict, list)):
                    return value, end
            if limit is not None and len(self._text) - self._at > limit:
                raise TooLong
            if not self._extend():
                return _decode(self._text, self._at)

    # Documents, part by part.

    def _expect(self, character: str) -> None:
        self._skip()
        if not self._text.startswith(character, self._at):
            raise ValueError(f"expected {character!r}")
        self._move(self._at + 1)
        self._skip()

    def _peek(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _members(self, column: int) -> Iterator[Part | Problem]:
        self._expect("{")
        while self._peek() != "}":
            line, start = self.line, self._column_of(self._at)
            try:
                key, end = self._decode_value()
                self._move(end)
                self._expect(":")
                if self._peek() == "[":
                    yield Part(line, str(key), [], is_item=False)
                    yield from self._items(str(key))
                else:
                    value, end = self._decode_value()
                    yield self._part(line, str(key), value, end, is_item=False)
                    self._move(end)
                if self._peek() != "}":
                    self._expect(",")
            except PARSE_ERRORS as error:
                line, reason = getattr(error, "line", line), _reason(error)
                if not self._skip_to_member(start, above=column):
                    raise _Damaged(line, reason) from error
                yield Problem(self.name, line, f"Invalid JSON: {reason}; what follows is imported.")
        self._move(self._at + 1)

    def _items(self, key: str | None) -> Iterator[Part | Problem]:
        self._expect("[")
        previous: Any = None
        damaged = 0
        while self._peek() != "]":
            line, column = self.line, self._column_of(self._at)
            try:
                value, end = self._decode_value()
            except PARSE_ERRORS as error:
                reason = _reason(error)
                damaged += 1
                if damaged > _MAX_CANDIDATES or not self._skip_to_item(previous):
                    raise _Damaged(line, reason) from error
                yield Problem(self.name, line, f"Invalid JSON: {reason}; the items after it are imported.")
                continue
            yield self._part(line, key, value, end, is_item=True)
            self._move(end)
            previous = value
            if self._peek() == ",":
                self._expect(",")
            elif self._peek() not in ("]", "") and self._starts_line(self._at) and self._column_of(self._at) < column:
                line = self.line
                self._step_back()
                raise _Damaged(line, "expected ',' or ']'")
        self._move(self._at + 1)

    def _part(self, line: int, key: str | None, value: Any, end: int, *, is_item: bool) -> Part | Problem:
        if reason := self._refuse({}, end):
            return Problem(self.name, line, reason)
        return Part(line, key, value, is_item)

    # Damage.

    def _recover(self, error: Exception) -> Iterator[Value | Problem]:
        """Report a damaged value, yield what is intact of it, and move to the next one."""
        line, column = self.line, self._column_of(self._at)
        if not self._is_document(getattr(error, "pos", self._at), column):
            yield Problem(self.name, line, f"Invalid JSON from column {column + 1} on: {_reason(error)}.")
            self.skip_line()
            return
        problems: list[Problem] = []
        value = collect(self.parts(), problems)
        if value:
            yield Value(line, value)
        end = _END_OF_INTACT_PART if value else _END
        yield from (problem._replace(reason=problem.reason.replace(_END, end, 1)) for problem in problems)

    def _is_document(self, position: int, column: int) -> bool:
        """Whether a damaged value is written over several lines, or is the whole file; else its line is damaged."""
        text, at = self._text, self._at
        if text[at] not in "{[":
            return False
        following = _line_start.search(text, at)
        while following is None and not self.ended:
            self._extend()
            position -= at - self._at
            text, at = self._text, self._at
            following = _line_start.search(text, at)
        if following is None:
            return self._is_first
        if following.end() - following.start() - 1 > column or text[following.end()] in '"]}':
            return True
        lines = text.count("\n", at, position)
        if lines and self._ends_a_document:
            return True
        is_at_line_start = not text[text.rfind("\n", 0, position) + 1 : position].strip()
        # A truncated line, followed by a complete one, looks like an object that contains that one.
        return lines - is_at_line_start > 1

    def _next_line(self) -> int | None:
        """Move to the first character of the next line that is not blank; return its column, None at the end."""
        while (match := _line_start.search(self._text, self._at)) is None:
            newline = self._text.rfind("\n", self._at)
            self._move(newline if newline >= 0 else len(self._text))
            if not self._extend():
                self._move(len(self._text))
                return None
        self._move(match.end())
        return len(match[0]) - 1

    def _step_back(self) -> None:
        """Move from the first character of a line to the end of the line before."""
        self._at = self._text.rfind("\n", 0, self._at)
        self.line -= 1

    def _skip_to_record(self, column: int) -> None:
        while (indentation := self._next_line()) is not None:
            if indentation <= column and self._text[self._at] in "{[":
                return

    def _skip_to_member(self, column: int, above: int) -> bool:
        """Move to the next line with this indentation, which starts with a key; False if the object ends before."""
        while (indentation := self._next_line()) is not None:
            if indentation == column and self._text[self._at] == '"':
                return True
            if indentation <= above:
                self._step_back()
                return False
        return False

    def _skip_to_item(self, previous: Any) -> bool:
        """Move from a damaged item of a list to the next one, or to the end of the list; False if there is none."""
        column = self._column_of(self._at)
        first = self._text[self._at : self._at + 1]
        if not self._starts_line(self._at):
            return bool(first) and self._skip_to_similar(previous)
        if isinstance(previous, dict):
            first = "{"
        while (indentation := self._next_line()) is not None:
            character = self._text[self._at]
            if indentation == column and character == first:
                return True
            if indentation <= column and character == "]":
                return True
            if indentation < column:
                self._step_back()
                return False
        return False

    def _skip_to_similar(self, previous: Any) -> bool:
        """Move to the next object on the line that starts like the one before, or this one, and has the same keys."""
        if isinstance(previous, dict) and previous:
            keys, opening = previous.keys(), re.escape(json.dumps(next(iter(previous)), ensure_ascii=False))
        elif match := _first_key.match(self._text, self._at):
            keys, opening = None, re.escape(match[1])
        else:
            return False
        while self._extend():
            pass
        candidates = re.compile(rf"\{{\s*{opening}\s*:").finditer(self._text, self._at + 1)
        for candidate in islice(candidates, _MAX_CANDIDATES):
            try:
                value, end = _decode(self._text, candidate.start())
            except PARSE_ERRORS:
                continue
            is_item = self._text[_blank.match(self._text, end).end() :][:1] in ("]", ",")  # type: ignore[union-attr]
            if is_item and (keys is None or len(value.keys() & keys) * 2 > len(keys)):
                self._move(candidate.start())
                return True
        return False


def collect(parts: Iterable[Part | Problem], problems: list[Problem] | None = None, limit: int | None = None) -> Any:
    """Build a document from its parts, lists with up to ``limit`` items; None if no part is intact."""
    document: Any = None
    lists: dict[str | None, list[Any]] = {}
    for part in parts:
        if isinstance(part, Problem):
            if problems is not None:
                problems.append(part)
        elif part.is_item:
            if limit is None or len(lists[part.key]) < limit:
                lists[part.key].append(part.value)
            elif part.key is None:
                break
        else:
            if isinstance(part.value, list):
                lists[part.key] = part.value
            if part.key is None:
                document = part.value
            else:
                document = {} if document is None else document
                document[part.key] = part.value
    return document


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """Decode encoded surrogates as they are; other bytes that are no UTF-8 become those that `_invalid` matches."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    try:
        return error.object[error.start : error.start + 3].decode("utf-8", "surrogatepass"), error.start + 3
    except UnicodeDecodeError:
        return chr(0xDC00 + error.object[error.start]), error.start + 1


_ERRORS = "kern_nb.keep_bytes"
codecs.register_error(_ERRORS, _keep_bytes)


def _ends_with_brackets(file: BinaryIO, size: int) -> bool:
    """Whether the last line of a file closes what other lines opened."""
    file.seek(max(0, size - 100))
    last = file.read().rstrip().rpartition(b"\n")[2].strip()
    return bool(last) and not last.strip(b"]} \t")


def _decode(text: str, at: int) -> tuple[Any, int]:
    """Parse the value at an offset; return it and the offset where it ends.

    A value in a short line is parsed from that line: an error counts the lines of the whole text before it, which takes
    longer than everything else where many lines are damaged.
    """
    end = text.find("\n", at, at + _SHORT_LINE)
    if end < 0:
        return _decode_text(text, at)
    line = text[at:end]
    try:
        value, length = _decode_text(line)
    except json.JSONDecodeError as error:
        # No token has a line break; a value that needs more than its line fails at the end of the line.
        if error.pos >= len(line.rstrip()) or error.msg.startswith("Unterminated string"):
            return _decode_text(text, at)
        error.pos += at
        raise
    return value, at + length


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return error.msg.removesuffix(" at").removesuffix(" starting")  # the position is stated already
    return str(error)
