"""Missing values of DataFrames as plain Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    Values = TypeVar("Values", pd.DataFrame, pd.Series)


def na_to_none(values: Values) -> Values:
    """Return a DataFrame or Series of plain Python objects, with None for each missing value."""
    return values.astype(object).where(values.notna(), None)
