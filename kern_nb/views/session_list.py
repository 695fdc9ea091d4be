"""What the session browser leaves in a saved notebook, and its table of metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

from kern_nb.records import Run, Session
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, join, tag
from kern_nb.text.tables import Column, Table
from kern_nb.views.transcript import Conversation, conversation_html

if TYPE_CHECKING:
    import pandas as pd

STILL_ROWS = 15
"""So many rows of the list are left."""

_RUNS = 20
_TITLES = ("session", "title or question", "agent", "user")


def still(
    rows: Sequence[list[str]],
    place: tuple[int, int],
    session: Session | None,
    runs: list[Run],
    result: Any,
    chosen: Collection[str],
) -> str:
    """What was last seen of the session browser.

    Args:
        rows: The rows of the list that were on screen, as `widgets.listed.cells` has them.
        place: How many are above them, and how many there are in all.
        session: The session that was shown.
        runs: Its first runs.
        result: What the last action gave, where that has a form of its own.
        chosen: The ids that were ticked.
    """
    first, total = place
    columns = [*map(Column, _TITLES)]
    columns += [Column("runs", number=True), Column("status"), Column("created (UTC)")]
    if chosen:
        columns = [Column("selected"), *columns]
        rows = [[GOOD if row[0] in chosen else " ", *row] for row in rows]
    many = "No session fits" if not rows else f"Sessions {first + 1:,} to {first + len(rows):,} of {total:,}"
    parts = [Table(many, columns, rows).without_empty_columns().markup()]
    if session is not None:
        parts.append(Markup(conversation_html(Conversation(session, runs))))
        if len(runs) >= _RUNS:
            parts.append(tag("p", tag("em", f"… %kern show {session.session_id} has all runs.")))
    shown = getattr(result, "_repr_html_", None)
    if shown is not None and not isinstance(result, (Run, Session)):
        parts.append(Markup(shown()))
    return container(join(*parts))


def metrics_html(df: pd.DataFrame) -> str:
    """What each session took, and all of them together.

    Args:
        df: Rows of ``store.sessions_df()``.
    """
    records = cast("list[dict[str, Any]]", df.astype(object).where(df.notna(), None).to_dict("records"))
    columns = [Column("session", width=40), *(Column(title, number=True) for title in _METRICS), Column("status")]
    rows = [_metrics(row["session_id"], row, row["status"]) for row in records]
    if len(records) > 1:
        rows.append(_metrics(f"all {len(records):,}", {name: _sum(records, name) for name in _SUMMED}, None))
    caption = f"Metrics of {formatting.pluralize(len(records), 'session')}"
    note = "Tokens and cost are the agent's own; — is what nobody knows."
    return Table(caption, columns, rows, note).without_empty_columns().html()


_METRICS = ("runs", "messages", "tool calls", "failed", "tokens in", "tokens out", "tokens", "cost", "time")
_SUMMED = (
    "n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "input_tokens", "output_tokens", "total_tokens", "cost",
    "duration_s",
)  # fmt: skip


def _sum(records: Sequence[dict[str, Any]], name: str) -> Any:
    """The sum of what is known."""
    known = [row[name] for row in records if row[name] is not None]
    return sum(known) if known else None


def _metrics(name: str, row: dict[str, Any], status: str | None) -> list[str]:
    failed = row["n_tool_errors"]
    counts = [formatting.format_count(row[column]) for column in ("n_runs", "n_messages", "n_tool_calls")]
    counts.append(f"{BAD} {failed:,}" if failed else formatting.format_count(failed))
    tokens = [formatting.format_count(row[column]) for column in ("input_tokens", "output_tokens", "total_tokens")]
    ends = [
        formatting.format_money(row["cost"]),
        formatting.format_seconds(row["duration_s"]),
        formatting.format_status(status),
    ]
    return [name, *counts, *tokens, *ends]
