"""A comparison of groups as a person reads it: the groups, what differs, which keys moved, what is in no pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kern_nb.text import formatting
from kern_nb.text.html import container, isolate, join, tag
from kern_nb.text.metrics import format_delta, format_metric, format_share, to_records
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.analysis.groups import GroupComparison

MOST_ROWS = 20
"""The most keys or sessions that a list shows; the frame it names has all."""

FEW_PAIRS = 10
"""With fewer pairs a reader is told how little an interval says."""

_LABEL = 40
_MOST_GROUPS = 8
_MOST_K = 5
_VERDICTS = {"a": f"{formatting.BAD} worse", "b": f"{formatting.GOOD} better", "neither": "≈ no clear difference"}
_NO_DIFFERENCE = "= the same"
_SHOWN = {"tool_calls": "tool calls", "tool_errors": "tool errors"}
_TOOK = ("tokens", "cost", "time", "tool_calls", "tool_errors")


def groups_html(comparison: GroupComparison) -> str:
    """A comparison of groups as a whole output."""
    names = [isolate(name) for name in _names(comparison)]
    more = _unnamed(comparison)
    head = tag("p", names[0], " (baseline) beside ", join(*names[1:], by=", "), more, _paired(comparison))
    tables = [join(table.markup(), tag("p", table.note) if table.note else None) for table in _tables(comparison)]
    return container(head, *tables, *(tag("p", isolate(line)) for line in _remarks(comparison)))


def groups_text(comparison: GroupComparison) -> str:
    """A comparison of groups as plain text."""
    first, *names = _names(comparison)
    head = f"{first} (baseline) beside {', '.join(names)}{_unnamed(comparison)}{_paired(comparison)}"
    return "\n".join([head, *map(str, _tables(comparison)), *_remarks(comparison)])


def _names(comparison: GroupComparison) -> list[str]:
    """The baseline and the contenders, as they are called in sentences and headings."""
    return formatting.truncate_distinct([comparison.baseline, *comparison.contenders[:_MOST_GROUPS]], _LABEL)


def _unnamed(comparison: GroupComparison) -> str:
    more = len(comparison.contenders) - _MOST_GROUPS
    return f" and {more:,} more" if more > 0 else ""


def _paired(comparison: GroupComparison) -> str:
    by, key = (formatting.truncate(name, _LABEL) for name in (comparison.by, comparison.key))
    return f", by {by}, paired by {key}."


def _label(name: str) -> str:
    return formatting.truncate(name, _LABEL)


def _tables(comparison: GroupComparison) -> Iterator[Table]:
    yield _group_table(comparison)
    yield _metric_table(comparison)
    if comparison.score is not None:
        score = formatting.truncate(comparison.score, _LABEL)
        yield from _keys(f"{formatting.GOOD} Better {score}", comparison.better, ".better", comparison)
        yield from _keys(f"{formatting.BAD} Worse {score}", comparison.worse, ".worse", comparison)
    yield from _unmatched(comparison)
    yield from _ambiguous(comparison)


def _group_table(comparison: GroupComparison) -> Table:
    """One row a group: how many, how well, and what a session took on average."""
    rows = to_records(comparison.groups)
    columns = [Column("group", width=_LABEL), Column("sessions", number=True), Column("keys", number=True)]
    cells = [[r["group"], formatting.format_count(r["n_sessions"]), formatting.format_count(r["n_keys"])] for r in rows]
    scored = comparison.score is not None
    if scored and any(r["n_scored"] < r["n_sessions"] for r in rows):
        _add(columns, cells, "scored", [formatting.format_count(r["n_scored"]) for r in rows])
    if scored and any(r["score"] != r["success_rate"] for r in rows):
        _add(columns, cells, _label(str(comparison.score)), [format_metric("score", r["score"]) for r in rows])
    if scored:
        _add(columns, cells, "success", [format_share(r["success_rate"]) for r in rows])
        for k in _some_k(int(comparison.pass_k["k"].max())):
            _add(columns, cells, f"pass^{k}", _pass_cells(comparison, rows, k))
    for name in _TOOK:
        _add(columns, cells, _SHOWN.get(name, name), [format_metric(name, r[name]) for r in rows])
    return Table("Groups, with means per session", columns, cells, " ".join(_unknown(rows)))


def _add(columns: list[Column], cells: list[list[str]], title: str, values: Sequence[str]) -> None:
    columns.append(Column(title, number=True))
    for row, value in zip(cells, values, strict=True):
        row.append(value)


def _some_k(most: int) -> list[int]:
    """The k that are shown: all of a few, else 1, 2, 4 and so on to the last."""
    if most <= _MOST_K:
        return list(range(1, most + 1))
    doubled = [2**n for n in range(most.bit_length()) if 2**n < most]
    return [*doubled[: _MOST_K - 1], most]


def _pass_cells(comparison: GroupComparison, rows: Sequence[dict[str, Any]], k: int) -> list[str]:
    """pass^k of each group; where not all of its keys have k trials, of how many it is."""
    found = {r["group"]: r for r in to_records(comparison.pass_k[comparison.pass_k["k"] == k])}
    cells = []
    for row in rows:
        one = found[row["group"]]
        part = f" ({one['n_keys']:,} of {row['n_keys']:,} keys)" if 0 < one["n_keys"] < row["n_keys"] else ""
        cells.append(format_share(one["pass_k"]) + part)
    return cells


def _unknown(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Of how many sessions a mean is, where it is not of all."""
    for name in ("tokens", "cost", "time"):
        if not any(row[f"{name}_known"] for row in rows):
            yield f"{name.capitalize()}: not known of any session."
            continue
        for row, group in zip(rows, formatting.truncate_distinct([row["group"] for row in rows], _LABEL), strict=True):
            if row[f"{name}_known"] < row["n_sessions"]:
                known = f"known of {row[f'{name}_known']:,} of {formatting.pluralize(row['n_sessions'], 'session')}"
                yield f"{name.capitalize()} of {group}: {known}."


def _metric_table(comparison: GroupComparison) -> Table:
    """One row a metric and contender: the means over the pairs, their difference, and what it says."""
    several, titles = _sides(comparison)
    rows = [row for row in to_records(comparison.metrics) if row["n_pairs"] or row["metric"] == comparison.score]
    columns = [Column("group", width=_LABEL)] if several else []
    columns += [
        Column("metric", width=_LABEL),
        *titles,
        Column("Δ", number=True),
        Column(f"{100 * comparison.confidence:g}% interval", number=True),
    ]
    columns += [Column("verdict"), Column("pairs", number=True)]
    cells = []
    for row in rows:
        name = row["metric"]
        kind = "score" if name == comparison.score else name
        interval = "" if row["low"] is None else f"{format_delta(kind, row['low'])} … {format_delta(kind, row['high'])}"
        values = [
            _SHOWN.get(name, name),
            format_metric(kind, row["a"]),
            format_metric(kind, row["b"]),
            format_delta(kind, row["delta"]),
        ]
        verdict = _NO_DIFFERENCE if row["low"] == row["high"] == 0 else _VERDICTS.get(row["better"], "")
        cells.append(
            [*([row["group"]] if several else []), *values, interval, verdict, formatting.format_count(row["n_pairs"])]
        )
    most = int(comparison.metrics["n_pairs"].max())
    note = "Means over the keys of both; intervals of the mean difference, by bootstrap over keys."
    if 1 < most < FEW_PAIRS:
        note += f" {most} keys are few: such intervals come out too narrow."
    if most == 1:
        note = "Means over the keys of both; one pair has no interval."
    return Table("What differs", columns, cells, note if most else "No key is in both.")


def _sides(comparison: GroupComparison) -> tuple[bool, list[Column]]:
    """Whether there are several contenders, and the headings of the baseline and a contender."""
    several = len(comparison.contenders) > 1
    names = ("baseline", "group") if several else _names(comparison)
    return several, [Column(name, number=True, width=_LABEL) for name in names]


def _keys(title: str, keys: pd.DataFrame, frame: str, comparison: GroupComparison) -> Iterator[Table]:
    """The keys whose score moved."""
    if keys.empty:
        return
    several, titles = _sides(comparison)
    columns = [Column("group", width=_LABEL)] if several else []
    columns += [Column(_label(comparison.key)), *titles, Column("Δ", number=True)]
    rows = [
        [
            *([r["group"]] if several else []),
            r["key"],
            *(format_metric("score", r[n]) for n in "ab"),
            format_delta("score", r["delta"]),
        ]
        for r in to_records(keys.head(MOST_ROWS))
    ]
    yield Table(f"{title}: {formatting.pluralize(len(keys), 'key')}", columns, rows, _more(len(keys), frame))


def _unmatched(comparison: GroupComparison) -> Iterator[Table]:
    """The keys that a group lacks."""
    lacking = comparison.unmatched
    if lacking.empty:
        return
    rows = [[r["key"], r["group"]] for r in to_records(lacking.head(MOST_ROWS))]
    columns = [Column(_label(comparison.key)), Column("no session in", width=_LABEL)]
    count = formatting.pluralize(lacking["key"].nunique(), "key")
    yield Table(f"Unmatched: {count} in some groups only", columns, rows, _more(len(lacking), ".unmatched"))


def _ambiguous(comparison: GroupComparison) -> Iterator[Table]:
    """The sessions that are left out, or not scored."""
    found = comparison.ambiguous
    if found.empty:
        return
    rows = [[r["session_id"], r["reason"], r["group"] or "", r["key"] or ""] for r in to_records(found.head(MOST_ROWS))]
    columns = [Column("session"), Column("reason", width=200), Column("group", width=_LABEL), Column("key")]
    out = int((found["group"].isna() | found["key"].isna()).sum())
    counts = [formatting.pluralize(out, "session") + " left out"] if out else []
    counts += [formatting.pluralize(len(found) - out, "session") + " without a score"] if len(found) > out else []
    yield Table(", ".join(counts), columns, rows, _more(len(found), ".ambiguous"))


def _remarks(comparison: GroupComparison) -> Iterator[str]:
    """What there is to say in a sentence."""
    if comparison.unmatched.empty and comparison.ambiguous.empty:
        yield "Every key is in every group, and no session is left out."
    if comparison.others:
        total = formatting.pluralize(sum(comparison.others.values()), "session")
        names = formatting.truncate_distinct(list(comparison.others)[:_MOST_GROUPS], _LABEL)
        more = len(comparison.others) - len(names)
        also = f" and {more:,} more" if more else ""
        yield f"Not asked for: {total} of {', '.join(names)}{also}."


def _more(rows: int, frame: str) -> str:
    return f"… {formatting.format_count(rows - MOST_ROWS)} more; {frame} has all." if rows > MOST_ROWS else ""
