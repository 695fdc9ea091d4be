"""Parquet files as JSON values: one value a row, read in batches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.json_stream import Value
from kern_nb.ingest_report import Problem

KIND = "parquet"

_MAGIC = b"PAR1"
_BATCH_ROWS = 100


def is_parquet(header: bytes) -> bool:
    """Whether a file is Parquet, from its first bytes."""
    return header.startswith(_MAGIC)


def read_rows(path: Path, name: str) -> Iterator[Value | Problem]:
    """Yield each row as an object, with its number as its line, and a problem where the file is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with open_binary(path) as file, ParquetFile(file, pre_buffer=False) as table:
            for batch in table.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Value(number, _plain(row))
    except (pa.ArrowException, OSError) as error:
        yield Problem(name, number + 1, f"The Parquet file is damaged from this row on: {str(error).splitlines()[0]}")


def _plain(value: Any) -> Any:
    """Convert a value to JSON.

    Fields without a value are left out: a column has one type, so each of its objects has the fields of all others.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        if value and all(type(item) is tuple for item in value):  # a map
            return {str(key): _plain(item) for key, item in value if item is not None}
        return [_plain(item) for item in value]
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
