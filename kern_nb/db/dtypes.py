"""From what an engine hands over to the dtypes of `columns`: as Arrow, as pandas, as Polars."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kern_nb.db import codec
from kern_nb.db.columns import Column, Kind
from kern_nb.errors import KernError

if TYPE_CHECKING:
    import polars

ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "json": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "flag": pa.bool_(),
}

# Arrow text arrives as text that shares Arrow's memory: nothing is made into Python strings.
_NULLABLE: dict[pa.DataType, Any] = {
    pa.string(): pd.StringDtype("pyarrow", na_value=pd.NA),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}

_SURROGATE = re.compile("[\ud800-\udfff]")
# \u0010 and four digits, where the backslash is not itself escaped.
_ESCAPED_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0010([0-9a-f]{4})")


def to_pandas(table: pa.Table, columns: Iterable[Column]) -> pd.DataFrame:
    """Arrow columns as the documented dtypes: nullable, text kept in Arrow, times in UTC."""
    return pandas_of(pa.table({c.name: typed(table[c.name], c.kind) for c in columns}))


def pandas_of(table: pa.Table) -> pd.DataFrame:
    """A typed table as a DataFrame."""
    made: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    return made


def polars_of(table: pa.Table) -> polars.DataFrame:
    """A typed table as a Polars DataFrame.

    Raises:
        KernError: Polars is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise KernError("Polars is not installed.", "pip install kern-nb[polars]") from error
    made = polars.from_arrow(table)
    assert isinstance(made, polars.DataFrame)  # noqa: S101 - as a table gives
    return made


def typed(values: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    """A column of the Arrow type of its kind, its escapes undone."""
    if kind == "time":
        return values.cast(pa.int64()).cast(ARROW[kind])
    values = values.cast(ARROW[kind])
    if kind == "number" and not pc.all(pc.is_finite(values)).as_py():
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    if kind not in ("text", "json") or not _has_escapes(values, kind):
        return values
    return pa.chunked_array(
        [pa.array([None if v is None else decoded(v, kind) for v in values.to_pylist()], pa.string())]
    )


def _has_escapes(values: pa.ChunkedArray, kind: Kind) -> bool:
    mark = "\\u0010" if kind == "json" else codec.ESCAPE
    return bool(pc.any(pc.match_substring(values, mark)).as_py())


def decoded(text: str, kind: Kind) -> str:
    """The text that was stored."""
    return _ESCAPED_JSON.sub(r"\1\\u\2", text) if kind == "json" else shown(codec.decode_text(text))


def shown(text: str) -> str:
    """Text as Arrow can hold it: UTF-8 has no lone surrogates, U+FFFD stands for each. `get_session` has them."""
    return _SURROGATE.sub("\ufffd", text)
