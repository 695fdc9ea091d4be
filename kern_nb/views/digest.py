"""Show a digest: inputs and outputs first, then totals, tools and the longest steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kern_nb.text import formatting
from kern_nb.text.html import container, isolate, tag
from kern_nb.text.metrics import format_metric, to_records
from kern_nb.text.tables import Column, Table
from kern_nb.views.summary import count_items

if TYPE_CHECKING:
    from kern_nb.analysis.digest import Digest

MAX_ROWS = 10  # the most tools, items and outliers that are shown; the frames have all
_LABEL = 60
_TEXT = 600
_LINE = 160
# Metrics that are shown even if unknown: a missing cost must not look like a free run.
_ALWAYS_SHOWN = ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost", "duration_s")
_TOTALS = ("runs", "tool calls", "tokens", "cost", "time")
_MAX_SCORES = 2
_NARROW = 40  # the width of a column of text; a reference is truncated in its session id, as its end says more
_TIMED = {"stated": "stated", "gap": "between messages", "both": "partly between messages"}


def digest_html(digest: Digest) -> str:
    """Render a digest as a complete output."""
    story = [(tag("strong", name), ": ", isolate(formatting.truncate(text, _TEXT))) for name, text in _story(digest)]
    return container(
        tag("p", tag("strong", "Digest of ", isolate(_title(digest))), f": {_size(digest)}"),
        *(tag("p", *parts) for parts in story),
        *(table.markup(with_note=True) for table in _tables(digest, _LABEL)),
        *(tag("p", note) for note in _notes(digest)),
    )


def digest_text(digest: Digest) -> str:
    """Render a digest as plain text."""
    lines = [f"Digest of {_title(digest)}: {_size(digest)}"]
    lines += [f"{name}: {formatting.truncate(text, _LINE)}" for name, text in _story(digest)]
    return "\n".join([*lines, *map(str, _tables(digest, _NARROW)), *_notes(digest)])


def _status(name: str | None) -> str:
    return formatting.truncate(formatting.format_status(name), _LABEL)


def _title(digest: Digest) -> str:
    items = digest.items
    if len(items) == 1:
        return formatting.truncate(items["item"].iloc[0], 2 * _LABEL)
    n_runs = int(items["run_index"].notna().sum())
    title = count_items(len(items) - n_runs, n_runs)
    return title + (f" ({formatting.truncate(digest.filters, 2 * _LABEL)})" if digest.filters else "")


def _size(digest: Digest) -> str:
    counts = {row["metric"]: int(row["value"] or 0) for row in to_records(digest.metrics)[:2]}
    size = f"{formatting.pluralize(counts['n_runs'], 'run')}, {formatting.pluralize(counts['n_messages'], 'message')}"
    if len(digest.items) > 1:
        return size
    status = f"{_status(digest.status)}, " if digest.status else ""
    inherited = digest.rows.inherited
    return status + size + (f" ({formatting.pluralize(inherited, 'run')} inherited)" if inherited else "")


def _story(digest: Digest) -> Iterator[tuple[str, str]]:
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
    yield from (_metrics(digest), _tools(digest), _longest_steps(digest, ref_width))
    if is_group and len(digest.outliers):
        yield _outliers(digest)
    if is_group:
        yield _items(digest)


def _notes(digest: Digest) -> Iterator[str]:
    if digest.n_user_calls:
        yield f"{formatting.pluralize(digest.n_user_calls, 'tool call')} of a simulated user not counted."
    if n_nested := int((~digest.rows.counted).sum()):
        yield f"{formatting.pluralize(n_nested, 'item')} contained in another: counted once."
    if missing := digest.rows.missing:
        names = ", ".join(formatting.truncate(name, _LABEL) for name in missing[:MAX_ROWS])
        yield f"{formatting.pluralize(len(missing), 'session')} could not be read: {names}."


def _by_status(digest: Digest) -> Table:
    metrics = ("total_tokens", "cost", "duration_s", "n_tool_calls")
    columns = [Column("status"), Column("items", number=True)]
    columns += [Column(f"median {name}", number=True) for name in metrics]
    rows = []
    for row in to_records(digest.by_status):
        medians = [format_metric(name, row[name]) for name in metrics]
        rows.append([_status(row["status"]), formatting.format_count(row["n_items"]), *medians])
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
    rows = []
    for row in steps:
        session_id, slash, run = row["place"].rpartition("/")
        reference = formatting.truncate(session_id, ref_width - len(run) - 1) + slash + run
        status = "" if row["status"] in (None, "completed", "COMPLETED") else formatting.format_status(row["status"])
        duration, timed = formatting.format_seconds(row["duration_s"]), _TIMED.get(row["timed"], "")
        rows.append([reference, row["kind"], row["name"] or "", duration, timed, status])
    return Table("Longest steps", columns, rows).without_empty_columns()


def _outliers(digest: Digest) -> Table:
    columns = [Column("item", width=_LABEL), Column("status"), Column("metric")]
    columns += [Column("value", number=True), Column("median of the status", number=True)]
    rows = []
    for row in to_records(digest.outliers.head(MAX_ROWS)):
        values = [format_metric(row["metric"], row[name]) for name in ("value", "median")]
        rows.append([row["item"], _status(row["status"]), row["metric"], *values])
    return Table("Outliers", columns, rows, formatting.more_note(len(digest.outliers), MAX_ROWS, ".outliers"))


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
        texts = [row[column] or "" for column in ("asked", "output", "error")]
        failed = f", {formatting.BAD} {row['n_tool_errors']:,}" if row["n_tool_errors"] else ""
        totals = [
            formatting.format_count(row["n_runs"]),
            formatting.format_count(row["n_tool_calls"]) + failed,
            formatting.format_count(row["total_tokens"]),
            formatting.format_money(row["cost"]),
            formatting.format_seconds(row["duration_s"]),
        ]
        values = [format_metric(title, scores.get((row["item"], n))) for n, title in zip(names, titles, strict=True)]
        rows.append([row["item"], _status(row["status"]), *texts, *totals, *values])
    note = formatting.more_note(len(digest.items), MAX_ROWS, ".items")
    return Table("Items", columns, rows, note).without_empty_columns()
