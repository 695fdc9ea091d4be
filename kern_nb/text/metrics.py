"""How a metric's values read, wherever they are shown; and the rows of a frame as what is shown of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.text import formatting

if TYPE_CHECKING:
    import pandas as pd

_MINUS = "\N{MINUS SIGN}"
"""As wide as a plus."""

_LARGE = 1_000
"""From here on, what is behind the point says nothing."""


_LEAST_MONEY = 0.00005
_LEAST_TIME = 0.005
"""Below these, as many digits as elsewhere would say nothing."""


def format_metric(metric: str, number: float | None) -> str:
    """A value of a metric: seconds, money, whole numbers, or three digits; the names are those of the results."""
    if number is None:
        return formatting.MISSING
    sign, size = (_MINUS if number < 0 else ""), abs(number)
    if metric == "time" or metric.endswith("_s"):
        return sign + formatting.format_seconds(size)
    if metric == "cost" and not 0 < size < _LEAST_MONEY:
        return sign + formatting.format_money(size)
    return f"{sign}{size:,.0f}" if size >= _LARGE or float(size).is_integer() else f"{sign}{size:.3g}"


def format_delta(metric: str, number: float | None) -> str:
    """A difference of two values, with its sign."""
    if number is None:
        return formatting.MISSING
    sign = "+" if number > 0 else _MINUS if number < 0 else "±"
    size = abs(number)
    if (metric == "time" or metric.endswith("_s")) and 0 < size < _LEAST_TIME:
        return f"{sign}{1_000 * size:.2g} ms"
    return sign + format_metric(metric, size)


def format_percent(number: float | None) -> str:
    """A difference in percent, with its sign."""
    if number is None:
        return formatting.MISSING
    text = f"{number:+,.1f}".removesuffix(".0").replace("-", _MINUS)
    return "0%" if text[1:] == "0" else f"{text}%"


def format_share(part: float | None) -> str:
    """A share of one, in percent."""
    return formatting.MISSING if part is None else f"{100 * part:.1f}%"


def to_records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, None where a value is missing."""
    cells = df.astype(object).where(df.notna(), None).itertuples(index=False, name=None)
    return [dict(zip(df.columns, row, strict=True)) for row in cells]
