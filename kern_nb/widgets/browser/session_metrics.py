"""Totals and plots of the selected sessions in the session browser."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from kern_nb.text import formatting
from kern_nb.text.formatting import BAD
from kern_nb.text.metrics import to_records

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

Kind = Literal["runs", "tools"]

_TOTALS = ("session_id", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost")


def totals(store: SessionStore, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Format the totals of each session: each one by the name of its sort order, and all of them as ``said``."""
    records = to_records(store.sessions_df(ids, columns=_TOTALS))
    return {record["session_id"]: _format(record) for record in records}


def _format(record: dict[str, Any]) -> dict[str, str]:
    n_calls, n_failed = record["n_tool_calls"], record["n_tool_errors"]
    calls = formatting.pluralize(n_calls, "tool call") + (f" ({BAD} {n_failed:,} failed)" if n_failed else "")
    tokens, cost = record["total_tokens"], record["cost"]
    texts = {
        "messages": formatting.pluralize(record["n_messages"], "message"),
        "calls": calls if n_calls else "",
        "tokens": "" if tokens is None else formatting.pluralize(tokens, "token"),
        "cost": "" if cost is None else f"cost {formatting.format_money(cost)}",
    }
    return texts | {"said": " · ".join(filter(None, texts.values()))}


def plot(store: SessionStore, ids: Sequence[str], kind: Kind) -> dict[str, Any]:
    """Draw a plot: ``source`` and ``alt`` of an image, or ``rendered``, a table, if plots cannot be drawn."""
    from kern_nb.analysis import plots

    if kind == "runs":
        figure = plots.over_runs(store.runs_df(ids[0], lineage=True) if len(ids) == 1 else store.runs_df(ids))
    else:
        calls = store.tool_calls_df(ids[0], lineage=True) if len(ids) == 1 else store.tool_calls_df(ids)
        figure = plots.tool_use(calls)
    data, metadata = figure._repr_mimebundle_()
    image = data.get("image/png")
    if image is None:
        return {"rendered": data["text/html"]}
    encoded = image if isinstance(image, str) else base64.b64encode(image).decode()
    alt = metadata.get("image/png", {}).get("alt") or formatting.truncate(figure.title, 200)
    return {"source": f"data:image/png;base64,{encoded}", "alt": alt}
