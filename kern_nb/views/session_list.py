"""Render the session browser for a saved notebook, and its table of metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from kern_nb.records import Run, Session
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, tag
from kern_nb.text.metrics import to_records
from kern_nb.text.tables import Column, Table
from kern_nb.views.transcript import Conversation, conversation_html

if TYPE_CHECKING:
    import pandas as pd

FALLBACK_ROWS = 15  # rows of the list in the fallback
_RUNS = 20


def fallback_html(
    rows: Sequence[list[str]],
    position: tuple[int, int],
    session: Session | None,
    runs: list[Run],
    result: Any,
    selected: Collection[str],
) -> str:
    """Render the last view of the session browser: the list, the open session with its first runs, the last result.

    ``rows`` are from `widgets.browser.session_rows.fallback_row`; ``position`` is the number of rows above them and
    that of all rows. The result is rendered if it has HTML.
    """
    first, total = position
    columns = [*map(Column, ("session", "title or input", "agent", "user")), Column("runs", number=True)]
    columns += [Column("status"), Column("created (UTC)")]
    if selected:
        columns = [Column("selected"), *columns]
        rows = [[GOOD if row[0] in selected else " ", *row] for row in rows]
    caption = f"Sessions {first + 1:,} to {first + len(rows):,} of {total:,}" if rows else "No matching sessions"
    parts = [Table(caption, columns, rows).without_empty_columns().markup()]
    if session is not None:
        parts.append(Markup(conversation_html(Conversation(session, runs))))
        if len(runs) >= _RUNS:
            parts.append(tag("p", tag("em", f"… more runs; see %kern show {session.session_id}.")))
    to_html = getattr(result, "_repr_html_", None)
    if to_html is not None and not isinstance(result, (Run, Session)):
        parts.append(Markup(to_html()))
    return container(*parts)


_METRICS = ("runs", "messages", "tool calls", "failed", "tokens in", "tokens out", "tokens", "cost", "time")
_SUMMED = (
    "n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "input_tokens", "output_tokens", "total_tokens", "cost",
    "duration_s",
)  # fmt: skip


def metrics_html(df: pd.DataFrame) -> str:
    """Render the metrics of each session, rows of ``store.sessions_df()``, and their totals."""
    records = to_records(df)
    columns = [Column("session", width=40), *(Column(title, number=True) for title in _METRICS), Column("status")]
    rows = [_metrics(row["session_id"], row, row["status"]) for row in records]
    if len(records) > 1:
        values = {name: [row[name] for row in records if row[name] is not None] for name in _SUMMED}
        sums = {name: sum(column) if column else None for name, column in values.items()}
        rows.append(_metrics(f"all {len(records):,}", sums, None))
    caption = f"Metrics of {formatting.pluralize(len(records), 'session')}"
    note = "Tokens and cost are those of the agent; — means unknown."
    return Table(caption, columns, rows, note).without_empty_columns().html()


def _metrics(name: str, row: dict[str, Any], status: str | None) -> list[str]:
    failed = row["n_tool_errors"]
    return [
        name,
        *(formatting.format_count(row[column]) for column in ("n_runs", "n_messages", "n_tool_calls")),
        f"{BAD} {failed:,}" if failed else formatting.format_count(failed),
        *(formatting.format_count(row[column]) for column in ("input_tokens", "output_tokens", "total_tokens")),
        formatting.format_money(row["cost"]),
        formatting.format_seconds(row["duration_s"]),
        formatting.format_status(status),
    ]
