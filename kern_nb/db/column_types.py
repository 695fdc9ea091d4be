"""Column types that validate what they write and what they read.

SQLite stores a value of any type in any column, and JSON is text that anybody may edit: a value that does not fit its
column is an error, never a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from kern_nb.db import codec
from kern_nb.errors import BadUsage, UnstorableValue

StoredRow = Mapping[str, Any] | RowMapping

_INT64_LIMIT = 2**63
_TOO_LARGE_HINT = "Store it in extra, where numbers may have any size."
_UNKNOWN_HINT = "Leave it out if it is unknown."


class UnreadableCell(Exception):
    """A stored value that does not fit its column; `Connected.connect` turns it into `DamagedRow`.

    Attributes:
        column: The column, or its table as an attribute of `Tables` and its name.
        value: The value as the driver returns it.
        reason: What is wrong with it.
        row: The row, if the reader has it.
    """

    def __init__(
        self, column: sa.Column[Any] | tuple[str, str] | None, value: object, reason: str, row: StoredRow | None = None
    ) -> None:
        super().__init__(reason)
        self.column, self.value, self.reason, self.row = column, value, reason, row


class InvalidText(bytes):
    """Text of a SQLite cell that is not valid UTF-8."""


_TYPE_NAMES = {InvalidText: "invalid UTF-8", bytes: "bytes", str: "text", float: "a float", int: "an integer"}


def _type_error(expected: str, value: object) -> ValueError:
    return ValueError(f"expected {expected}, got {_TYPE_NAMES.get(type(value), type(value).__name__)}")


class ValidatedType(sa.types.TypeDecorator[Any]):
    """A column type that reads only what it could have written."""

    column: sa.Column[Any] | None = None
    """The column that has this type; `Tables` sets it."""

    def decode(self, value: Any) -> Any:
        """Decode a cell that is not NULL, as the driver returns it.

        Raises:
            ValueError: the cell is damaged.
        """
        raise NotImplementedError

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        """Decode; NULL is None."""
        if value is None:
            return None
        try:
            return self.decode(value)
        except ValueError as error:
            raise UnreadableCell(self.column, value, str(error)) from error


class Text(ValidatedType):
    """Any string, NUL and lone surrogates included. Sorts by code point on every engine."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[str]:
        """Set the collation: PostgreSQL would sort by the database's language."""
        return dialect.type_descriptor(sa.Text(collation="C" if dialect.name == "postgresql" else None))

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Escape what an engine cannot store."""
        if value is None:
            return None
        if not isinstance(value, str):
            raise text_type_error(value)
        # Some drivers know str only, not its subclasses such as an enum's members.
        return codec.encode_text(value if type(value) is str else str.__str__(value))

    def decode(self, value: Any) -> str:
        """Undo the escapes."""
        if type(value) is not str:
            raise _type_error("text", value)
        return codec.decode_text(value)


def text_type_error(value: object) -> BadUsage:
    """Return the error for an id or other text that is not a str."""
    return BadUsage(f"Ids and names must be str, got {codec.short_repr(value)}.", "Convert the value with str().")


class Json(ValidatedType):
    """Any value that `codec` can encode, with ``any_value``; otherwise an object. None is NULL."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, *, any_value: bool = False) -> None:
        super().__init__()
        self.any_value = any_value

    def process_bind_param(self, value: object, dialect: sa.Dialect) -> str | None:
        """Encode."""
        return None if value is None else codec.dumps(value)

    def decode(self, value: Any) -> Any:
        """Parse the JSON text."""
        if type(value) is not str:
            raise _type_error("JSON text", value)
        parsed = codec.loads(value)
        if not (self.any_value or isinstance(parsed, dict)):
            raise ValueError(f"expected a JSON object, got {type(parsed).__name__}")
        return parsed


class _ScalarType(ValidatedType):
    """A number or a boolean; only SQLite does not enforce the type of such a column."""

    stored_types: tuple[type, ...]
    expected: str

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        """Validate values of SQLite only."""
        if dialect.name == "sqlite":
            return lambda value: self.process_result_value(value, dialect)
        return self.load_dialect_impl(dialect).result_processor(dialect, coltype)

    def decode(self, value: Any) -> Any:
        """Check the type of a value that SQLite returns."""
        if type(value) not in self.stored_types:
            raise _type_error(self.expected, value)
        return value


class Integer(_ScalarType):
    """A 64-bit integer."""

    impl = sa.BigInteger
    cache_ok = True
    stored_types, expected = (int,), "an integer"

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> int | None:
        """Validate here: each driver raises an error of its own."""
        return None if value is None else to_integer(value)


class Real(_ScalarType):
    """A finite number."""

    impl = sa.Double
    cache_ok = True
    stored_types, expected = (float, int), "a number"

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> float | None:
        """Refuse NaN and infinity too: no sum survives them."""
        return None if value is None else to_float(value)

    def decode(self, value: Any) -> float:
        """Return the number as a float."""
        return float(super().decode(value))


class Boolean(_ScalarType):
    """True or False."""

    impl = sa.Boolean
    cache_ok = True
    stored_types, expected = (bool, int), "true or false"

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bool | None:
        """Accept True, False and what equals them."""
        if value is None or value in (True, False):
            return None if value is None else bool(value)
        raise UnstorableValue(f"The value must be True or False, got {codec.short_repr(value)}.", _UNKNOWN_HINT)

    def decode(self, value: Any) -> bool:
        """Return the boolean of 0 or 1."""
        if super().decode(value) not in (0, 1):
            raise ValueError(f"expected {self.expected}, got {value}")
        return bool(value)


def to_integer(value: Any) -> int:
    """Convert an integer of any type, numpy's included, to a 64-bit int.

    Raises:
        UnstorableValue: the value is not an integer or does not fit in 64 bits.
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            message = f"The value must be an integer, got {codec.short_repr(value)}."
            raise UnstorableValue(message, "Round it, or leave it out.")
        value = value.__index__()
    if not -_INT64_LIMIT <= value < _INT64_LIMIT:
        raise UnstorableValue(f"The number {codec.short_repr(value)} is too large for a column.", _TOO_LARGE_HINT)
    return int(value)


def to_float(value: Any) -> float:
    """Convert a number of any type to a finite float.

    Raises:
        UnstorableValue: the value is not a number or not finite.
    """
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, (SupportsFloat, SupportsIndex)):
            raise UnstorableValue(f"The value must be a number, got {codec.short_repr(value)}.", _UNKNOWN_HINT)
        try:
            value = float(value)
        except (OverflowError, TypeError, ValueError) as error:
            message = f"The number {codec.short_repr(value)} is too large for a column."
            raise UnstorableValue(message, _TOO_LARGE_HINT) from error
    if not math.isfinite(value):
        raise UnstorableValue(f"The value must be a finite number, got {value}.", _UNKNOWN_HINT)
    return float(value)
