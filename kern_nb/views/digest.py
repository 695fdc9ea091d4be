"""A digest as a person reads it: the story first, then what it took, the tools, the longest steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kern_nb.text import formatting
from kern_nb.text.html import container, isolate, join, tag
from kern_nb.text.metrics import format_metric, to_records
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.analysis.digest import Digest

MOST_ROWS = 10
"""So many tools, items and outliers are shown; the frames have all."""

_LABEL = 60
_TOLD = 600
_LINE = 160
_ALWAYS = ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost", "duration_s")
"""Metrics that are shown where nobody knows them, too: a cost that is not stated is not free."""

_TOOK = ("runs", "tool calls", "tokens", "cost", "time")
_MOST_SCORES = 2
_NARROW = 40
"""So wide is a column of text; a place is cut in its session's id, as its end says more."""

_TIMED = {"stated": "stated", "gap": "between messages", "both": "partly between messages"}


def digest_html(digest: Digest) -> str:
    """A digest as a whole output."""
    story = [
        tag("p", tag("strong", name), ": ", isolate(formatting.truncate(text, _TOLD))) for name, text in _story(digest)
    ]
    head = tag("p", tag("strong", "Digest of ", isolate(_title(digest))), f": {_size(digest)}")
    parts = [join(table.markup(), tag("p", table.note) if table.note else None) for table in _tables(digest, _LABEL)]
    return container(head, *story, *parts, *(tag("p", note) for note in _notes(digest)))


def digest_text(digest: Digest) -> str:
    """A digest as plain text."""
    lines = [f"Digest of {_title(digest)}: {_size(digest)}"]
    lines += [f"{name}: {formatting.truncate(text, _LINE)}" for name, text in _story(digest)]
    return "\n".join([*lines, *map(str, _tables(digest, _NARROW)), *_notes(digest)])


def _title(digest: Digest) -> str:
    items = digest.items
    if len(items) == 1:
        return formatting.truncate(items["item"].iloc[0], 2 * _LABEL)
    n_runs = int(items["run_index"].notna().sum())
    told = [(len(items) - n_runs, "session"), (n_runs, "run")]
    what = " and ".join(formatting.pluralize(n, noun) for n, noun in told if n)
    return what + (f" ({formatting.truncate(digest.fitting, 2 * _LABEL)})" if digest.fitting else "")


def _size(digest: Digest) -> str:
    """How it ended, and how much there is of it."""
    counts = {row["metric"]: int(row["value"] or 0) for row in to_records(digest.metrics)[:2]}
    size = f"{formatting.pluralize(counts['n_runs'], 'run')}, {formatting.pluralize(counts['n_messages'], 'message')}"
    if len(digest.items) > 1:
        return size
    ended = formatting.truncate(formatting.format_status(digest.status), _LABEL) if digest.status else "no runs yet"
    inherited = digest.rows.inherited
    return f"{ended}, {size}" + (f" ({formatting.pluralize(inherited, 'run')} inherited)" if inherited else "")


def _story(digest: Digest) -> Iterator[tuple[str, str]]:
    """What was asked and said, of one item."""
    if len(digest.items) > 1:
        return
    if digest.asked is not None:
        further = int(digest.items["n_asked"].iloc[0]) - 1
        yield (
            "asked" + (f" first, then {formatting.pluralize(further, 'further input')}" if further > 0 else ""),
            digest.asked,
        )
    if digest.output is not None:
        yield "last output", digest.output
    if digest.error is not None:
        yield f"{formatting.BAD} error", digest.error


def _tables(digest: Digest, place: int) -> Iterator[Table]:
    several = len(digest.items) > 1
    if several:
        yield _by_status(digest)
    yield _metrics(digest)
    yield _tools(digest)
    yield _longest(digest, place)
    if several:
        if len(digest.outliers):
            yield _outliers(digest)
        yield _items(digest)


def _notes(digest: Digest) -> list[str]:
    """What else a reader of the figures must know."""
    notes = []
    if digest.n_user_calls:
        calls = formatting.pluralize(digest.n_user_calls, "tool call")
        notes.append(f"{calls} of a simulated user not counted.")
    within = int((~digest.rows.counted).sum())
    if within:
        notes.append(f"{formatting.pluralize(within, 'item')} within another: counted once.")
    if missing := digest.rows.missing:
        names = ", ".join(formatting.truncate(name, _LABEL) for name in missing[:MOST_ROWS])
        notes.append(f"{formatting.pluralize(len(missing), 'session')} could not be read: {names}.")
    return notes


def _by_status(digest: Digest) -> Table:
    metrics = ("total_tokens", "cost", "duration_s", "n_tool_calls")
    columns = [Column("status"), Column("how many", number=True)]
    columns += [Column(f"median {name}", number=True) for name in metrics]
    rows = [
        [
            formatting.truncate(formatting.format_status(row["status"]), _LABEL),
            formatting.format_count(row["n_items"]),
            *(format_metric(name, row[name]) for name in metrics),
        ]
        for row in to_records(digest.by_status)
    ]
    return Table("How they ended", columns, rows)


def _metrics(digest: Digest) -> Table:
    several = len(digest.items) > 1
    first_score = digest.metrics["metric"].tolist().index("duration_s") + 1  # scores come after the totals
    counted = int(digest.rows.counted.sum())
    columns = [Column("metric"), Column("total" if several else "value", number=True)]
    columns += [Column("median", number=True), Column("known of", number=True)] if several else []
    rows = []
    for n, row in enumerate(to_records(digest.metrics)):
        name = row["metric"]
        if row["value"] is None and name not in _ALWAYS:
            continue
        title = f"{formatting.truncate(name, _LABEL)}{' (mean)' if several and n >= first_score else ''}"
        known = "all" if row["n_known"] == counted else f"{row['n_known']:,} of {counted:,}"
        rows.append(
            [
                title,
                format_metric(name, row["value"]),
                *([format_metric(name, row["median"]), known] if several else []),
            ]
        )
    return Table("What they took" if several else "What it took", columns, rows)


def _tools(digest: Digest) -> Table:
    found = to_records(digest.tools)
    if not found:
        return Table("No tools were called", [], [])
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
        for row in found[:MOST_ROWS]
    ]
    return Table("Tools", columns, rows, _more(len(found), ".tools")).without_empty_columns()


def _longest(digest: Digest, width: int) -> Table:
    found = to_records(digest.longest)
    if not found:
        return Table("Nobody knows what the steps took", [], [])
    columns = [Column("place", width=_LABEL), Column("step"), Column("name", width=_LABEL), Column("time", number=True)]
    columns += [Column("timed"), Column("ended", width=_LABEL)]
    rows = [
        [
            _cut_place(row["place"], width),
            row["kind"],
            row["name"] or "",
            formatting.format_seconds(row["duration_s"]),
            _TIMED.get(row["timed"], ""),
            formatting.format_status(row["status"]) if row["status"] not in (None, "completed", "COMPLETED") else "",
        ]
        for row in found
    ]
    return Table("The longest steps", columns, rows).without_empty_columns()


def _cut_place(place: str, width: int) -> str:
    session, slash, rest = place.rpartition("/")
    return formatting.truncate(session, width - len(rest) - 1) + slash + rest


def _outliers(digest: Digest) -> Table:
    found = to_records(digest.outliers)
    columns = [Column("item", width=_LABEL), Column("status"), Column("metric")]
    columns += [Column("value", number=True), Column("median of those alike", number=True)]
    rows = [
        [
            row["item"],
            formatting.truncate(formatting.format_status(row["status"]), _LABEL),
            row["metric"],
            format_metric(row["metric"], row["value"]),
            format_metric(row["metric"], row["median"]),
        ]
        for row in found[:MOST_ROWS]
    ]
    return Table("Far from those that ended alike", columns, rows, _more(len(found), ".outliers"))


def _items(digest: Digest) -> Table:
    found = to_records(digest.items.head(MOST_ROWS))
    columns = [Column("item", width=_LABEL), Column("status")]
    columns += [Column(title, width=_LABEL) for title in ("asked", "last output", "error")]
    columns += [Column(title, number=True) for title in _TOOK]
    scores = {(row["item"], row["name"]): row["value"] for row in to_records(digest.scores)}
    names = list(dict.fromkeys(name for _, name in scores))[:_MOST_SCORES]
    titles = [f"score.{name}" if name in _TOOK else name for name in names]
    columns += [Column(formatting.truncate(title, _NARROW), number=True) for title in titles]
    rows = []
    for row in found:
        failed = f", {formatting.BAD} {row['n_tool_errors']:,}" if row["n_tool_errors"] else ""
        told = [row["item"], formatting.truncate(formatting.format_status(row["status"]), _LABEL)]
        told += [row["asked"] or "", row["output"] or "", row["error"] or ""]
        told += [formatting.format_count(row["n_runs"]), formatting.format_count(row["n_tool_calls"]) + failed]
        told += [
            formatting.format_count(row["total_tokens"]),
            formatting.format_money(row["cost"]),
            formatting.format_seconds(row["duration_s"]),
        ]
        told += [
            format_metric(title, scores.get((row["item"], name))) for name, title in zip(names, titles, strict=True)
        ]
        rows.append(told)
    return Table("Each of them", columns, rows, _more(len(digest.items), ".items")).without_empty_columns()


def _more(n: int, where: str) -> str:
    return f"… {formatting.format_count(n - MOST_ROWS)} more; {where} has all." if n > MOST_ROWS else ""
