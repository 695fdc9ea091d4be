"""Show a digest: inputs and outputs first, then totals, tools and the longest steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kern_nb.text import formatting
from kern_nb.text.html import container, isolate, tag
from kern_nb.text.metrics import format_metric, to_records
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.analysis.digest import Digest

MAX_ROWS = 10
"""The most tools, items and outliers that are shown; the frames have all."""

_LABEL = 60
_TEXT = 600
_LINE = 160
_ALWAYS_SHOWN = ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost", "duration_s")
"""Metrics that are shown even if unknown: a missing cost must not look like a free run."""

_TOTALS = ("runs", "tool calls", "tokens", "cost", "time")
_MAX_SCORES = 2
_NARROW = 40
"""The width of a column of text; a reference is truncated in its session id, as its end says more."""

_TIMED = {"stated": "stated", "gap": "between messages", "both": "partly between messages"}


def digest_html(digest: Digest) -> str:
    """Render a digest as a complete output."""
    head = tag("p", tag("strong", "Digest of ", isolate(_title(digest))), f": {_size(digest)}")
    story = [(tag("strong", name), ": ", isolate(formatting.truncate(text, _TEXT))) for name, text in _story(digest)]
    return container(
        head,
        *(tag("p", *parts) for parts in story),
        *(table.markup(with_note=True) for table in _tables(digest, _LABEL)),
        *(tag("p", note) for note in _notes(digest)),
    )


def digest_text(digest: Digest) -> str:
    """Render a digest as plain text."""
    lines = [f"Digest of {_title(digest)}: {_size(digest)}"]
    lines += [f"{name}: {formatting.truncate(text, _LINE)}" for name, text in _story(digest)]
    return "\n".join([*lines, *map(str, _tables(digest, _NARROW)), *_notes(digest)])


def _title(digest: Digest) -> str:
    items = digest.items
    if len(items) == 1:
        return formatting.truncate(items["item"].iloc[0], 2 * _LABEL)
    n_runs = int(items["run_index"].notna().sum())
    counts = [(len(items) - n_runs, "session"), (n_runs, "run")]
    title = " and ".join(formatting.pluralize(n, noun) for n, noun in counts if n)
    return title + (f" ({formatting.truncate(digest.filters, 2 * _LABEL)})" if digest.filters else "")


def _size(digest: Digest) -> str:
    """State the final status and the number of runs and messages."""
    counts = {row["metric"]: int(row["value"] or 0) for row in to_records(digest.metrics)[:2]}
    size = f"{formatting.pluralize(counts['n_runs'], 'run')}, {formatting.pluralize(counts['n_messages'], 'message')}"
    if len(digest.items) > 1:
        return size
    status = f"{formatting.truncate(formatting.format_status(digest.status), _LABEL)}, " if digest.status else ""
    inherited = digest.rows.inherited
    return status + size + (f" ({formatting.pluralize(inherited, 'run')} inherited)" if inherited else "")


def _story(digest: Digest) -> Iterator[tuple[str, str]]:
    """Yield the input, output and error of a single item."""
    if len(digest.items) > 1:
        return
    if digest.asked is not None:
        n_inputs = int(digest.items["n_asked"].iloc[0])
        yield "input" if n_inputs <= 1 else f"first of {n_inputs:,} inputs", digest.asked
    if digest.output is not None:
        yield "last output", digest.output
    if digest.error is not None:
        yield f"{formatting.BAD} error", digest.error


def _tables(digest: Digest, ref_width: int) -> Iterator[Table]:
    is_group = len(digest.items) > 1
    if is_group:
        yield _by_status(digest)
    yield _metrics(digest)
    yield _tools(digest)
    yield _longest_steps(digest, ref_width)
    if is_group:
        if len(digest.outliers):
            yield _outliers(digest)
        yield _items(digest)


def _notes(digest: Digest) -> list[str]:
    """Explain what the figures leave out."""
    notes = []
    if digest.n_user_calls:
        calls = formatting.pluralize(digest.n_user_calls, "tool call")
        notes.append(f"{calls} of a simulated user not counted.")
    n_nested = int((~digest.rows.counted).sum())
    if n_nested:
        notes.append(f"{formatting.pluralize(n_nested, 'item')} contained in another: counted once.")
    if missing := digest.rows.missing:
        names = ", ".join(formatting.truncate(name, _LABEL) for name in missing[:MAX_ROWS])
        notes.append(f"{formatting.pluralize(len(missing), 'session')} could not be read: {names}.")
    return notes


def _by_status(digest: Digest) -> Table:
    metrics = ("total_tokens", "cost", "duration_s", "n_tool_calls")
    columns = [Column("status"), Column("items", number=True)]
    columns += [Column(f"median {name}", number=True) for name in metrics]
    rows = [
        [
            formatting.truncate(formatting.format_status(row["status"]), _LABEL),
            formatting.format_count(row["n_items"]),
            *(format_metric(name, row[name]) for name in metrics),
        ]
        for row in to_records(digest.by_status)
    ]
    return Table("Status", columns, rows)


def _metrics(digest: Digest) -> Table:
    is_group = len(digest.items) > 1
    first_score = digest.metrics["metric"].tolist().index("duration_s") + 1  # scores come after the totals
    n_counted = int(digest.rows.counted.sum())
    columns = [Column("metric"), Column("total" if is_group else "value", number=True)]
    columns += [Column("median", number=True), Column("known for", number=True)] if is_group else []
    rows = []
    for n, row in enumerate(to_records(digest.metrics)):
        name = row["metric"]
        if row["value"] is None and name not in _ALWAYS_SHOWN:
            continue
        title = f"{formatting.truncate(name, _LABEL)}{' (mean)' if is_group and n >= first_score else ''}"
        cells = [title, format_metric(name, row["value"])]
        if is_group:
            scope = "all" if row["n_known"] == n_counted else f"{row['n_known']:,} of {n_counted:,}"
            cells += [format_metric(name, row["median"]), scope]
        rows.append(cells)
    return Table("Totals", columns, rows)


def _tools(digest: Digest) -> Table:
    tools = to_records(digest.tools)
    if not tools:
        return Table("No tool calls", [], [])
    titles = ("calls", "failed", "unknown", "median time", "total time")
    columns = [Column("tool", width=_LABEL), *(Column(title, number=True) for title in titles), Column("timed")]
    rows = [
        [
            row["tool_name"] or "(no name)",
            formatting.format_count(row["calls"]),
            f"{formatting.BAD} {formatting.format_count(row['failed'])}" if row["failed"] else "0",
            f"? {formatting.format_count(row['unknown'])}" if row["unknown"] else "",
            formatting.format_seconds(row["median_duration_s"]),
            formatting.format_seconds(row["total_duration_s"]),
            _TIMED.get(row["timed"], ""),
        ]
        for row in tools[:MAX_ROWS]
    ]
    return Table("Tools", columns, rows, formatting.more_note(len(tools), MAX_ROWS, ".tools")).without_empty_columns()


def _longest_steps(digest: Digest, ref_width: int) -> Table:
    steps = to_records(digest.longest)
    if not steps:
        return Table("No step durations known", [], [])
    columns = [Column("place", width=_LABEL), Column("step"), Column("name", width=_LABEL), Column("time", number=True)]
    columns += [Column("timed"), Column("status", width=_LABEL)]
    rows = [
        [
            _truncate_reference(row["place"], ref_width),
            row["kind"],
            row["name"] or "",
            formatting.format_seconds(row["duration_s"]),
            _TIMED.get(row["timed"], ""),
            formatting.format_status(row["status"]) if row["status"] not in (None, "completed", "COMPLETED") else "",
        ]
        for row in steps
    ]
    return Table("Longest steps", columns, rows).without_empty_columns()


def _truncate_reference(ref: str, width: int) -> str:
    session_id, slash, run = ref.rpartition("/")
    return formatting.truncate(session_id, width - len(run) - 1) + slash + run


def _outliers(digest: Digest) -> Table:
    outliers = to_records(digest.outliers)
    columns = [Column("item", width=_LABEL), Column("status"), Column("metric")]
    columns += [Column("value", number=True), Column("median of the status", number=True)]
    rows = [
        [
            row["item"],
            formatting.truncate(formatting.format_status(row["status"]), _LABEL),
            row["metric"],
            format_metric(row["metric"], row["value"]),
            format_metric(row["metric"], row["median"]),
        ]
        for row in outliers[:MAX_ROWS]
    ]
    return Table("Outliers", columns, rows, formatting.more_note(len(outliers), MAX_ROWS, ".outliers"))


def _items(digest: Digest) -> Table:
    columns = [Column("item", width=_LABEL), Column("status")]
    columns += [Column(title, width=_LABEL) for title in ("input", "last output", "error")]
    columns += [Column(title, number=True) for title in _TOTALS]
    scores = {(row["item"], row["name"]): row["value"] for row in to_records(digest.scores)}
    names = list(dict.fromkeys(name for _, name in scores))[:_MAX_SCORES]
    titles = [f"score.{name}" if name in _TOTALS else name for name in names]
    columns += [Column(formatting.truncate(title, _NARROW), number=True) for title in titles]
    rows = []
    for row in to_records(digest.items.head(MAX_ROWS)):
        n_errors = f", {formatting.BAD} {row['n_tool_errors']:,}" if row["n_tool_errors"] else ""
        rows.append(
            [
                row["item"],
                formatting.truncate(formatting.format_status(row["status"]), _LABEL),
                *(row[column] or "" for column in ("asked", "output", "error")),
                formatting.format_count(row["n_runs"]),
                formatting.format_count(row["n_tool_calls"]) + n_errors,
                formatting.format_count(row["total_tokens"]),
                formatting.format_money(row["cost"]),
                formatting.format_seconds(row["duration_s"]),
                *(format_metric(title, scores.get((row["item"], n))) for n, title in zip(names, titles, strict=True)),
            ]
        )
    return Table(
        "Items", columns, rows, formatting.more_note(len(digest.items), MAX_ROWS, ".items")
    ).without_empty_columns()
