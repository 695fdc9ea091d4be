"""Show a comparison of groups: the groups, their differences, changed keys, and sessions without a pair."""

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

MAX_ROWS = 20  # the most keys or sessions in a table; the frame it names has all
FEW_PAIRS = 10  # with fewer pairs a note warns that the interval is unreliable
_LABEL = 40
_MAX_GROUPS = 8
_MAX_K = 5
_VERDICTS = {"a": f"{formatting.BAD} worse", "b": f"{formatting.GOOD} better", "neither": "≈ no clear difference"}
_TITLES = {"tool_calls": "tool calls", "tool_errors": "tool errors"}


def groups_html(comparison: GroupComparison) -> str:
    """Render a comparison of groups as a complete output."""
    first, *names = map(isolate, _names(comparison))
    head = tag("p", first, " (baseline) vs. ", join(*names, by=", "), _pairing(comparison))
    tables = [table.markup(with_note=True) for table in _tables(comparison)]
    return container(head, *tables, *(tag("p", isolate(line)) for line in _remarks(comparison)))


def groups_text(comparison: GroupComparison) -> str:
    """Render a comparison of groups as plain text."""
    first, *names = _names(comparison)
    head = f"{first} (baseline) vs. {', '.join(names)}{_pairing(comparison)}"
    return "\n".join([head, *map(str, _tables(comparison)), *_remarks(comparison)])


def _names(comparison: GroupComparison) -> list[str]:
    """Return the names of the baseline and the contenders for sentences and headings."""
    return formatting.truncate_distinct([comparison.baseline, *comparison.contenders[:_MAX_GROUPS]], _LABEL)


def _pairing(comparison: GroupComparison) -> str:
    n_more = len(comparison.contenders) - _MAX_GROUPS
    more = f" and {n_more:,} more" if n_more > 0 else ""
    return f"{more}, by {_label(comparison.by)}, paired by {_label(comparison.key)}."


def _label(name: str) -> str:
    return formatting.truncate(name, _LABEL)


def _tables(comparison: GroupComparison) -> Iterator[Table]:
    yield _group_table(comparison)
    yield _metric_table(comparison)
    if comparison.score is not None:
        score = _label(comparison.score)
        yield from _changed_keys(f"{formatting.GOOD} Better {score}", comparison.better, ".better", comparison)
        yield from _changed_keys(f"{formatting.BAD} Worse {score}", comparison.worse, ".worse", comparison)
    if not comparison.unmatched.empty:
        yield _unmatched(comparison.unmatched, comparison.key)
    if not comparison.ambiguous.empty:
        yield _ambiguous(comparison.ambiguous)


def _group_table(comparison: GroupComparison) -> Table:
    rows = to_records(comparison.groups)
    columns = [(noun, [formatting.format_count(row[f"n_{noun}"]) for row in rows]) for noun in ("sessions", "keys")]
    if comparison.score is not None:
        if any(row["n_scored"] < row["n_sessions"] for row in rows):
            columns.append(("scored", [formatting.format_count(row["n_scored"]) for row in rows]))
        if any(row["score"] != row["success_rate"] for row in rows):
            columns.append((_label(comparison.score), [format_metric("score", row["score"]) for row in rows]))
        columns.append(("success", [format_share(row["success_rate"]) for row in rows]))
        some_k = _some_k(int(comparison.pass_k["k"].max()))
        columns += [(f"pass^{k}", _pass_cells(comparison, rows, k)) for k in some_k]
    for name in ("tokens", "cost", "time", "tool_calls", "tool_errors"):
        columns += [(_TITLES.get(name, name), [format_metric(name, row[name]) for row in rows])]
    heads = [Column("group", width=_LABEL), *(Column(title, number=True) for title, _ in columns)]
    cells = list(zip([row["group"] for row in rows], *(values for _, values in columns), strict=True))
    return Table("Groups (means per session)", heads, cells, " ".join(_unknown(rows)))


def _some_k(max_k: int) -> list[int]:
    """Return the k to show: all if there are few, else 1, 2, 4 and so on, and the last."""
    if max_k <= _MAX_K:
        return list(range(1, max_k + 1))
    powers = [2**n for n in range(max_k.bit_length()) if 2**n < max_k]
    return [*powers[: _MAX_K - 1], max_k]


def _pass_cells(comparison: GroupComparison, rows: Sequence[dict[str, Any]], k: int) -> list[str]:
    """Format pass^k of each group, with the number of keys if not all of them have k trials."""
    by_group = {r["group"]: r for r in to_records(comparison.pass_k[comparison.pass_k["k"] == k])}
    cells = []
    for row in rows:
        result = by_group[row["group"]]
        is_partial = 0 < result["n_keys"] < row["n_keys"]
        keys = f" ({result['n_keys']:,} of {row['n_keys']:,} keys)" if is_partial else ""
        cells.append(format_share(result["pass_k"]) + keys)
    return cells


def _unknown(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """State for how many sessions a mean is known, where not for all."""
    for name in ("tokens", "cost", "time"):
        if not any(row[f"{name}_known"] for row in rows):
            yield f"{name.capitalize()}: unknown for all sessions."
            continue
        for row, group in zip(rows, formatting.truncate_distinct([row["group"] for row in rows], _LABEL), strict=True):
            if row[f"{name}_known"] < row["n_sessions"]:
                sessions = formatting.pluralize(row["n_sessions"], "session")
                yield f"{name.capitalize()} of {group}: known for {row[f'{name}_known']:,} of {sessions}."


def _metric_table(comparison: GroupComparison) -> Table:
    """Build the table of metrics, one row a metric and contender: means over the pairs, difference and verdict."""
    titles = ("Δ", f"{100 * comparison.confidence:g}% interval")
    columns = [Column("metric", width=_LABEL), *_sides(comparison), *(Column(title, number=True) for title in titles)]
    columns += [Column("verdict"), Column("pairs", number=True)]
    rows = []
    for row in to_records(comparison.metrics):
        name = row["metric"]
        if not row["n_pairs"] and name != comparison.score:
            continue
        kind = "score" if name == comparison.score else name
        interval = "" if row["low"] is None else f"{format_delta(kind, row['low'])} … {format_delta(kind, row['high'])}"
        verdict = "= equal" if row["low"] == row["high"] == 0 else _VERDICTS.get(row["better"], "")
        values = [format_metric(kind, row["a"]), format_metric(kind, row["b"]), format_delta(kind, row["delta"])]
        n_pairs = formatting.format_count(row["n_pairs"])
        rows.append([row.get("group", ""), _TITLES.get(name, name), *values, interval, verdict, n_pairs])
    most_pairs = int(comparison.metrics["n_pairs"].max())
    note = "Means over shared keys; the interval of the mean difference is a bootstrap over keys."
    if 1 < most_pairs < FEW_PAIRS:
        note += f" With only {most_pairs} keys, intervals are too narrow."
    if most_pairs == 1:
        note = "Means over shared keys; a single pair has no interval."
    return _contender_table(comparison, "Differences", columns, rows, note if most_pairs else "No shared keys.")


def _sides(comparison: GroupComparison) -> list[Column]:
    """Return the columns of the baseline and a contender, by name if there is only one contender."""
    names = ("baseline", "group") if len(comparison.contenders) > 1 else _names(comparison)
    return [Column(name, number=True, width=_LABEL) for name in names]


def _contender_table(
    comparison: GroupComparison, caption: str, columns: list[Column], rows: list[list[str]], note: str
) -> Table:
    """Build a table whose rows start with the contender, a column that only several contenders need."""
    if len(comparison.contenders) > 1:
        return Table(caption, [Column("group", width=_LABEL), *columns], rows, note)
    return Table(caption, columns, [row[1:] for row in rows], note)


def _changed_keys(title: str, keys: pd.DataFrame, frame: str, comparison: GroupComparison) -> Iterator[Table]:
    if keys.empty:
        return
    columns = [Column(_label(comparison.key)), *_sides(comparison), Column("Δ", number=True)]
    rows = []
    for row in to_records(keys.head(MAX_ROWS)):
        a, b = format_metric("score", row["a"]), format_metric("score", row["b"])
        rows.append([row.get("group", ""), row["key"], a, b, format_delta("score", row["delta"])])
    caption = f"{title}: {formatting.pluralize(len(keys), 'key')}"
    yield _contender_table(comparison, caption, columns, rows, formatting.more_note(len(keys), MAX_ROWS, frame))


def _unmatched(unmatched: pd.DataFrame, key: str) -> Table:
    """Build the table of keys that a group lacks."""
    rows = [[row["key"], row["group"]] for row in to_records(unmatched.head(MAX_ROWS))]
    columns = [Column(_label(key)), Column("missing in", width=_LABEL)]
    caption = f"Unmatched: {formatting.pluralize(unmatched['key'].nunique(), 'key')} in some groups only"
    return Table(caption, columns, rows, formatting.more_note(len(unmatched), MAX_ROWS, ".unmatched"))


def _ambiguous(ambiguous: pd.DataFrame) -> Table:
    columns = [Column("session"), Column("reason", width=200), Column("group", width=_LABEL), Column("key")]
    names = ("session_id", "reason", "group", "key")
    rows = [[row[name] or "" for name in names] for row in to_records(ambiguous.head(MAX_ROWS))]
    n_excluded = int((ambiguous["group"].isna() | ambiguous["key"].isna()).sum())
    counts = ((n_excluded, "excluded"), (len(ambiguous) - n_excluded, "without a score"))
    caption = ", ".join(f"{formatting.pluralize(n, 'session')} {state}" for n, state in counts if n)
    return Table(caption, columns, rows, formatting.more_note(len(ambiguous), MAX_ROWS, ".ambiguous"))


def _remarks(comparison: GroupComparison) -> Iterator[str]:
    if comparison.unmatched.empty and comparison.ambiguous.empty:
        yield "All keys are in all groups; no session is excluded."
    if comparison.others:
        total = formatting.pluralize(sum(comparison.others.values()), "session")
        names = formatting.truncate_distinct(list(comparison.others)[:_MAX_GROUPS], _LABEL)
        n_more = len(comparison.others) - len(names)
        names += [f"and {n_more:,} more"] if n_more else []
        yield f"Not selected: {total} of {', '.join(names)}."
