"""Computed frames with the dtypes of the store's frames; missing values are `pd.NA`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from kern_nb.db.columns import DTYPES, Kind
from kern_nb.text.missing_values import na_to_none

TEXT: Any = DTYPES["text"]
COUNT: Any = DTYPES["count"]
NUMBER: Any = DTYPES["number"]
FLAG: Any = DTYPES["flag"]


def build_frame(rows: Sequence[tuple[Any, ...]], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Build a frame from rows, with a column for each kind."""
    columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
    arrays = ((name, list(values), DTYPES[kind]) for (name, kind), values in zip(kinds.items(), columns, strict=True))
    return pd.DataFrame({name: pd.array(values, dtype=dtype) for name, values, dtype in arrays})  # type: ignore[call-overload]


def stack_frames(frames: Sequence[pd.DataFrame], column: str, labels: Iterable[str]) -> pd.DataFrame:
    """Stack frames, with a first column that labels the rows of each; a single frame is returned as it is."""
    if len(frames) == 1:
        return frames[0]
    parts = []
    for frame, label in zip(frames, labels, strict=True):
        first = pd.Series(label, index=frame.index, name=column, dtype=TEXT)
        parts.append(pd.concat([first, frame], axis=1))
    stacked: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return stacked


def iter_rows(df: pd.DataFrame, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Iterate over the rows of some columns as Python values, None where one is missing."""
    columns = [na_to_none(df[name]).tolist() for name in names]
    return zip(*columns, strict=True)
