"""Format values of metrics and their differences, and convert data frames to records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.text import formatting
from kern_nb.text.missing_values import na_to_none

if TYPE_CHECKING:
    import pandas as pd

_MINUS = "\N{MINUS SIGN}"
"""As wide as a plus."""

_NO_DECIMALS_FROM = 1_000

# Smaller amounts would be rounded to 0.
_MIN_MONEY = 0.00005
_MIN_SECONDS = 0.005


def _is_duration(metric: str) -> bool:
    return metric == "time" or metric.endswith("_s")


def format_metric(metric: str, number: float | None) -> str:
    """Format the value of a metric by its name: durations, money, whole numbers, else three digits."""
    if number is None:
        return formatting.MISSING
    sign, size = (_MINUS if number < 0 else ""), abs(number)
    if _is_duration(metric):
        return sign + formatting.format_seconds(size)
    if metric == "cost" and not 0 < size < _MIN_MONEY:
        return sign + formatting.format_money(size)
    return f"{sign}{size:,.0f}" if size >= _NO_DECIMALS_FROM or float(size).is_integer() else f"{sign}{size:.3g}"


def format_delta(metric: str, number: float | None) -> str:
    """Format a difference of two values with its sign."""
    if number is None:
        return formatting.MISSING
    sign = "+" if number > 0 else _MINUS if number < 0 else "±"
    size = abs(number)
    if _is_duration(metric) and 0 < size < _MIN_SECONDS:
        return f"{sign}{1_000 * size:.2g} ms"
    return sign + format_metric(metric, size)


def format_percent(number: float | None) -> str:
    """Format a difference in percent with its sign."""
    if number is None:
        return formatting.MISSING
    text = f"{number:+,.1f}".removesuffix(".0").replace("-", _MINUS)
    return "0%" if text[1:] == "0" else f"{text}%"


def format_share(fraction: float | None) -> str:
    """Format a fraction of 1 in percent."""
    return formatting.MISSING if fraction is None else f"{100 * fraction:.1f}%"


def to_records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert a data frame to one dict a row; missing values are None."""
    cells = na_to_none(df).itertuples(index=False, name=None)
    return [dict(zip(df.columns, row, strict=True)) for row in cells]
