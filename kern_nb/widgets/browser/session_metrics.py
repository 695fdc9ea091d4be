"""What the session browser says of the sessions that are selected: their totals in words, and plots as pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from kern_nb.text import formatting
from kern_nb.text.formatting import BAD

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

Kind = Literal["runs", "tools"]

_TOTALS = ("session_id", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost")


def totals(store: SessionStore, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """What each session took, in a few words: all of it as ``said``, and each by the order that goes by it."""
    df = store.sessions_df(ids, columns=_TOTALS)
    rows = df.astype(object).where(df.notna(), None).to_dict("records")
    return {row["session_id"]: _words(cast("dict[str, Any]", row)) for row in rows}


def _words(row: dict[str, Any]) -> dict[str, str]:
    calls, failed = row["n_tool_calls"], row["n_tool_errors"]
    told = {
        "messages": formatting.pluralize(row["n_messages"], "message"),
        "calls": formatting.pluralize(calls, "tool call") + (f" ({BAD} {failed:,} failed)" if failed else "")
        if calls
        else "",
        "tokens": "" if row["total_tokens"] is None else formatting.pluralize(row["total_tokens"], "token"),
        "cost": "" if row["cost"] is None else f"cost {formatting.format_money(row['cost'])}",
    }
    return told | {"said": " · ".join(filter(None, told.values()))}


def plot(store: SessionStore, ids: Sequence[str], kind: Kind) -> dict[str, Any]:
    """A plot: ``source`` and ``alt`` of a picture, or ``rendered``, a table, where nothing draws."""
    from kern_nb.analysis import plots

    if kind == "runs":
        drawn = plots.over_runs(store.runs_df(ids[0], lineage=True) if len(ids) == 1 else store.runs_df(ids))
    else:
        drawn = plots.tool_use(store.tool_calls_df(ids[0], lineage=True) if len(ids) == 1 else store.tool_calls_df(ids))
    data, metadata = drawn._repr_mimebundle_()
    picture = data.get("image/png")
    if picture is None:
        return {"rendered": data["text/html"]}
    packed = picture if isinstance(picture, str) else base64.b64encode(picture).decode()
    alt = metadata.get("image/png", {}).get("alt") or formatting.truncate(drawn.title, 200)
    return {"source": f"data:image/png;base64,{packed}", "alt": alt}
