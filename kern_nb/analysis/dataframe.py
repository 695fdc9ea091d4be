"""Rows that were computed, as a frame like those of a store: the same dtypes, missing values `pd.NA`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kern_nb.db.columns import DTYPES, Kind

if TYPE_CHECKING:
    import pandas as pd


def build_frame(made: Sequence[tuple[Any, ...]], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Rows as a frame with the dtypes of the store's frames."""
    import pandas as pd

    columns = list(zip(*made, strict=True)) or [()] * len(kinds)
    arrays = ((name, list(values), DTYPES[kind]) for (name, kind), values in zip(kinds.items(), columns, strict=True))
    return pd.DataFrame({name: pd.array(values, dtype=dtype) for name, values, dtype in arrays})  # type: ignore[call-overload]
