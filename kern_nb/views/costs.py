"""Show costs: one row a group, with a total."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.text.formatting import format_count, format_money, more_note, pluralize, truncate
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.analysis.costs import Costs

MAX_ROWS = 100
_TITLES = {
    "n_responses": "responses",
    "input_tokens": "input tokens",
    "cache_read_tokens": "cache reads",
    "cache_write_tokens": "cache writes",
    "output_tokens": "output tokens",
    "stated": "stated cost",
    "estimated": "estimated cost",
    "cost": "cost",
    "unknown_tokens": "tokens of unknown cost",
}
_MONEY = ("stated", "estimated", "cost")
_LABEL = 60


def costs_html(costs: Costs) -> str:
    """Render costs as a complete output."""
    return _table(costs).without_empty_columns().html()


def costs_text(costs: Costs) -> str:
    """Render costs as plain text."""
    return str(_table(costs).without_empty_columns())


def _table(costs: Costs) -> Table:
    df = costs.df
    columns = [*(Column(name) for name in costs.by), *(Column(title, number=True) for title in _TITLES.values())]
    rows = [_row(costs, row) for row in df.head(MAX_ROWS).to_dict("records")]
    if len(df) > 1:
        total = {name: df[name].sum(min_count=1) for name in _TITLES}
        rows.append(_row(costs, dict.fromkeys(costs.by, "") | {costs.by[0]: "total"} | total))
    notes = [more_note(len(df), MAX_ROWS, ".df")]
    if df[["cache_read_tokens", "cache_write_tokens"]].sum().sum() > 0:
        notes.append("Input tokens include cache reads and writes.")
    if df["estimated"].sum() > 0:
        notes.append("Estimates are in US dollars, from list prices at the time of the response.")
    if costs.n_saved:
        notes.append(f"{pluralize(costs.n_saved, 'estimate')} saved.")
    return Table(f"Cost by {', '.join(costs.by)}", columns, rows, " ".join(note for note in notes if note))


def _row(costs: Costs, row: dict[Any, Any]) -> list[str]:
    labels = ["unknown" if pd.isna(row[name]) else truncate(str(row[name]), _LABEL) for name in costs.by]
    return [*labels, *(_cell(name, row[name]) for name in _TITLES)]


def _cell(name: str, value: Any) -> str:
    if pd.isna(value) or (value == 0 and name not in ("n_responses", "cost")):
        return ""
    return format_money(value) if name in _MONEY else format_count(value)
