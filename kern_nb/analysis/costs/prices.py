"""Estimates of what model responses cost, from the prices of genai-prices: by model, time and kind of token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import pandas as pd

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def estimate_costs(responses: pd.DataFrame) -> pd.Series[float]:
    """Estimate the cost of model responses in US dollars.

    Args:
        responses: One row a response: model, model_provider, created_at, and the token columns.

    Returns:
        A cost for each row; NaN where the model, its price or the tokens are unknown.
    """
    is_complete = responses["model"].notna() & responses["input_tokens"].notna() & responses["output_tokens"].notna()
    rows = responses[is_complete]
    labels = [rows["model"], rows["model_provider"], rows["created_at"].dt.floor("D")]
    costs: dict[Any, float] = {}
    groups: Any = rows.groupby(labels, dropna=False, sort=False)
    for (model, provider, day), group in groups:
        name, time = None if pd.isna(provider) else provider, None if pd.isna(day) else day.to_pydatetime()
        costs |= dict(zip(group.index, _price_rows(model, name, time, group), strict=True))
    return pd.Series(costs, dtype=float).reindex(responses.index)


def _price_rows(model: str, provider: str | None, time: datetime | None, rows: pd.DataFrame) -> Iterator[float]:
    cache: dict[tuple[int, ...], float] = {}
    for counts in rows[list(TOKENS)].fillna(0).astype("int64").itertuples(index=False, name=None):
        if counts not in cache:
            cache[counts] = _price(model, provider, time, counts)
        yield cache[counts]


def _price(model: str, provider: str | None, time: datetime | None, counts: tuple[int, ...]) -> float:
    from genai_prices import Usage, calc_price

    listed = _find_listed_model(model, provider)
    if listed is None or min(counts) < 0:
        return math.nan
    usage = Usage(**{name: count for name, count in zip(TOKENS, counts, strict=True) if count})
    try:
        price = calc_price(usage, listed[0], provider_id=listed[1], genai_request_timestamp=time)
    except (LookupError, ValueError):  # more cached tokens than input tokens, or no price at that time
        return math.nan
    return float(price.total_price)


@lru_cache(maxsize=1_000)
def _find_listed_model(model: str, provider: str | None) -> tuple[str, str | None] | None:
    """The model and provider as genai-prices lists them; None without a price: that of tokens is unknown, never 0."""
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    owner, _, name = model.rpartition("/")  # as routers name a model: anthropic/claude-sonnet-4.5
    candidates = [(model, provider), (model, None), (name, provider), (name, owner or None), (name, None)]
    for candidate in dict.fromkeys(candidates):
        try:
            if calc_price(usage, candidate[0], provider_id=candidate[1]).total_price > 0:
                return candidate
        except (LookupError, ValueError):
            continue
    return None
