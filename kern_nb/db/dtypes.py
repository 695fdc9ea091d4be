"""Conversion of an engine's columns to the dtypes of `columns`: in Arrow, pandas and Polars."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kern_nb.control_characters import replace_surrogates
from kern_nb.db import codec
from kern_nb.db.columns import Column, Kind
from kern_nb.errors import KernError

if TYPE_CHECKING:
    import polars

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "json": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "flag": pa.bool_(),
}

# Text columns share Arrow's memory: no Python strings are created.
_PANDAS_DTYPES: dict[pa.DataType, Any] = {
    pa.string(): pd.StringDtype("pyarrow", na_value=pd.NA),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}

# \u0010 and four digits, unless the backslash is itself escaped.
_ESCAPED_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0010([0-9a-f]{4})")


def to_pandas(table: pa.Table, columns: Iterable[Column]) -> pd.DataFrame:
    """Convert an engine's columns to the documented dtypes: nullable, text in Arrow, times in UTC."""
    return arrow_to_pandas(pa.table({c.name: cast_column(table[c.name], c.kind) for c in columns}))


def arrow_to_pandas(table: pa.Table) -> pd.DataFrame:
    """Convert a table of `ARROW_TYPES` to a DataFrame."""
    df: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_DTYPES.get)
    return df


def arrow_to_polars(table: pa.Table) -> polars.DataFrame:
    """Convert a table of `ARROW_TYPES` to a Polars DataFrame.

    Raises:
        KernError: Polars is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise KernError("Polars is not installed.", "pip install kern-nb[polars]") from error
    df = polars.from_arrow(table)
    assert isinstance(df, polars.DataFrame)  # noqa: S101 - a table, not a single array
    return df


def cast_column(values: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    """Cast a column to the Arrow type of its kind and undo the escapes of `codec`."""
    if kind == "time":
        return values.cast(pa.int64()).cast(ARROW_TYPES[kind])
    values = values.cast(ARROW_TYPES[kind])
    if kind == "number" and not pc.all(pc.is_finite(values)).as_py():
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    escape = "\\u0010" if kind == "json" else codec.ESCAPE
    if kind not in ("text", "json") or not pc.any(pc.match_substring(values, escape)).as_py():
        return values
    decoded = [None if v is None else decode_cell(v, kind) for v in values.to_pylist()]
    return pa.chunked_array([pa.array(decoded, pa.string())])


def decode_cell(text: str, kind: Kind) -> str:
    """Undo the escapes of `codec`, as far as Arrow can store the text: U+FFFD replaces a lone surrogate."""
    return _ESCAPED_JSON.sub(r"\1\\u\2", text) if kind == "json" else replace_surrogates(codec.decode_text(text))
