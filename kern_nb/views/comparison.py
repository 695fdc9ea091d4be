"""A comparison as a person reads it: what each side took, where they part, their tool calls, their turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from kern_nb.text import formatting, worddiff
from kern_nb.text.html import Markup, abbreviate, container, details, isolate, join, preformatted, render_text, tag
from kern_nb.text.metrics import format_delta, format_metric, format_percent, to_records
from kern_nb.text.tables import LEFT, Column, Table

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison
    from kern_nb.analysis.compare.pairs import Divergence, Pair

MOST_TURNS = 60
"""The most turns that differ are rendered; .turns has all."""

MOST_CONTENDERS = 8
"""So many are shown beside the baseline; the frames have all."""

_MOST_CALLS = 40
_MOST_LINES = 24
_LONGEST = 1_000
_LABEL = 40
_LINE = 150
_NOTHING = "(says nothing)"
SIGNS = {"matched": "=", "changed": "≠", "only in a": "-", "only in b": "+"}
_VERDICTS = {"a": f"{formatting.BAD} worse", "b": f"{formatting.GOOD} better", "neither": "= as good"}


def comparison_html(comparison: Comparison) -> str:
    """A comparison as a whole output."""
    shown = comparison.pairs[:MOST_CONTENDERS]
    heads = [tag("p", isolate(sentence(pair))) for pair in shown]
    bodies = [[_calls(pair), *_turns(pair)] for pair in shown]
    if len(bodies) == 1:
        parts = bodies[0]
    else:
        names = [isolate(label(pair.b.label)) for pair in shown]
        parts = [details(join("Calls and turns of ", n), *body) for n, body in zip(names, bodies, strict=True)]
    more = [tag("p", line) for line in _unshown(comparison)]
    return container(*heads, _metrics(comparison).markup(), *parts, *more)


def _unshown(comparison: Comparison) -> list[str]:
    more = len(comparison.pairs) - MOST_CONTENDERS
    return (
        [f"… {formatting.format_count(more)} more beside the baseline; .metrics and .turns have all."]
        if more > 0
        else []
    )


def metrics_html(comparison: Comparison) -> str:
    """What each side took, by itself."""
    return _metrics(comparison).html()


def divergence_text(parted: Divergence) -> str:
    """The place where two conversations part, and what each says there."""
    ends = {"a": "the baseline has ended", "b": f"{label(parted.contender)} has ended"}
    texts = worddiff.diff_lines(parted.a_text, parted.b_text, _LINE)
    calls = worddiff.diff_lines(parted.a_calls or "", parted.b_calls or "", _LINE)
    lines = [f"Turn {parted.turn}:"]
    for side, place, text, called in zip("ab", (parted.a, parted.b), texts, calls, strict=True):
        said = " | ".join(filter(None, (text, called))) or _NOTHING
        lines.append(f"  {side}: {ends[side] if place is None else f'{formatting.truncate(place, _LABEL)} {said}'}")
    return "\n".join(lines)


def divergence_html(divergence: Divergence) -> str:
    """The same as a whole output."""
    return container(preformatted(divergence_text(divergence)))


def comparison_text(comparison: Comparison) -> str:
    """A comparison as plain text, cut to what a screen or two hold."""
    shown = comparison.pairs[:MOST_CONTENDERS]
    text = [formatting.escape_controls(sentence(pair)) for pair in shown]
    text.append(str(_metrics(comparison)))
    for pair in shown:
        lines = list(map(_turn_line, islice(_differing(pair), _MOST_LINES)))
        more = sum(1 for _ in _differing(pair)) - _MOST_LINES
        text += [f"Turns of {label(pair.b.label)} that differ:"] if lines else []
        text += lines
        text += [f"… {formatting.pluralize(more, 'turn')} more; .turns has all."] if more > 0 else []
    return "\n".join([*text, *_unshown(comparison)])


def label(name: str) -> str:
    """A side's name, cut to what a heading holds."""
    return formatting.truncate(name, _LABEL)


def sentence(pair: Pair) -> str:
    """How far two conversations are one, and where they part."""
    a, b = label(pair.a.label), label(pair.b.label)
    parted = pair.divergence
    alike = formatting.pluralize(pair.alike, "turn")
    inherited = (
        "" if not pair.shared else " (inherited)" if pair.shared == pair.alike else f" ({pair.shared:,} inherited)"
    )
    if parted is None:
        return f"{a} and {b} say the same: {alike}{inherited}."
    begin = f"{a} and {b} begin with {alike} alike{inherited}" if pair.alike else f"{a} and {b} part at once"
    at = [
        formatting.truncate(place, 2 * _LABEL) if place else f"the end of {of}"
        for place, of in ((parted.a, a), (parted.b, b))
    ]
    return f"{begin}, and part at {at[0]} and {at[1]}." if pair.alike else f"{begin}: {at[0]} and {at[1]}."


def _metrics(comparison: Comparison) -> Table:
    """One row a metric, the baseline first; of several contenders each has its columns."""
    baseline, *others = comparison.sides[: MOST_CONTENDERS + 1]
    columns = [Column("metric"), Column(f"{label(baseline.label)} (baseline)", number=True)]
    cells: dict[str, list[str]] = {}
    for n, pair in enumerate(comparison.pairs[:MOST_CONTENDERS]):
        columns += [Column(label(others[n].label), number=True), Column("Δ", number=True), Column("Δ %", number=True)]
        columns += [Column("verdict")]
        for row in to_records(pair.metrics):
            name, start = row["metric"], 2 + 4 * n
            cell = cells.setdefault(
                name, [formatting.truncate(name, _LABEL), format_metric(name, row["a"]), *[""] * 4 * len(others)]
            )
            cell[1] = format_metric(name, row["a"])
            told = format_metric(name, row["b"]), format_delta(name, row["delta"]), format_percent(row["delta_pct"])
            cell[start : start + 4] = [*told, _VERDICTS.get(row["better"], "")]
    return Table("What each took", columns, list(cells.values()))


def _calls(pair: Pair) -> Markup:
    """The tool calls side by side, where they differ; the others are counted."""
    found = to_records(pair.tool_calls)
    if not found:
        return tag("p", "Neither calls a tool.")
    rows = [_call_row(row) for row in found if row["status"] != "matched"]
    same = len(found) - len(rows)
    caption = f"Tool calls that differ; {formatting.pluralize(same, 'call is', 'calls are')} the same"
    if not rows:
        return tag("p", f"Both call the same tools with the same arguments: {formatting.pluralize(same, 'call')}.")
    more = len(rows) - _MOST_CALLS
    columns = [Column(""), Column("tool"), *(Column(label(side.label), width=160) for side in (pair.a, pair.b))]
    note = tag("p", f"… {formatting.format_count(more)} more; .tool_calls has all.") if more > 0 else None
    return join(Table(caption, columns, rows[:_MOST_CALLS]).markup(), note)


def _call_row(row: dict[str, Any]) -> list[str]:
    sides = []
    for side in ("a", "b"):
        if row[side] is None:
            sides.append("")
            continue
        failed = f"{formatting.BAD} " if row[f"{side}_status"] == "failed" else ""
        sides.append(f"{failed}{formatting.truncate(row[f'{side}_args'] or '()', 160)}")
    return [SIGNS[row["status"]], formatting.truncate(row["tool_name"] or "tool", 60), *sides]


def _turns(pair: Pair) -> Iterator[Markup]:
    """The turns side by side; what matches is folded, and of very many that differ the first are shown."""
    labels = [label(side.label) for side in (pair.a, pair.b)]
    titles = ("", "role", *labels)
    head = tag("tr", *(tag("th", title, scope="col", align="left", style=LEFT) for title in titles))
    rows: list[Markup] = []
    differing = 0
    for same, group in groupby(pair.rows, key=lambda row: row["status"] == "matched"):
        part = list(group)
        if same:
            rows.append(_same(part))
            continue
        rows += [_turn(row) for row in part[: max(0, MOST_TURNS - differing)]]
        differing += len(part)
        if differing >= MOST_TURNS:
            break
    caption = tag("caption", "Turns side by side", align="left", style="text-align:left")
    yield tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="kern-table kern-turns")
    unseen = sum(row["status"] != "matched" for row in pair.rows) - MOST_TURNS
    if unseen > 0:
        yield tag("p", f"… {formatting.pluralize(unseen, 'turn')} more that differ; .turns has all.")


def _same(part: Sequence[dict[str, Any]]) -> Markup:
    """A stretch that is the same on both sides, in one row."""
    first, last = part[0]["a"], part[-1]["a"]
    inherited = sum(bool(row["shared"]) for row in part)
    what = f"{formatting.pluralize(len(part), 'turn')} the same" + (f", {inherited:,} inherited" if inherited else "")
    lines = [
        f"{row['role']}: {formatting.truncate(row['a_text'] or row['a_calls'] or '', _LINE)}"
        for row in part[:MOST_TURNS]
    ]
    shown = [tag("p", isolate(line)) for line in lines]
    more = tag("p", "…") if len(part) > MOST_TURNS else None
    where = f"{first} to {last}" if len(part) > 1 else first
    folded = details(join(what, ": ", isolate(formatting.truncate(where, 2 * _LABEL))), *shown, more)
    cell = tag("td", folded, colspan=3, align="left", style=LEFT)
    return tag("tr", tag("td", SIGNS["matched"], align="left", style=LEFT), cell)


def _turn(row: dict[str, Any]) -> Markup:
    if row["status"] == "changed":
        texts: tuple[Markup, ...] = worddiff.diff_markup(row["a_text"] or "", row["b_text"] or "")
        calls: tuple[Markup, ...] = worddiff.diff_markup(row["a_calls"] or "", row["b_calls"] or "")
    else:
        texts = tuple(render_text(row[f"{side}_text"] or "", _LONGEST) for side in "ab")
        calls = tuple(render_text(row[f"{side}_calls"] or "", _LONGEST) for side in "ab")
    cells = [_cell(row, side, text, call) for side, text, call in zip("ab", texts, calls, strict=True)]
    sign = tag("td", tag("abbr", SIGNS[row["status"]], title=row["status"]), align="left", style=LEFT)
    role = tag("td", tag("strong", isolate(formatting.truncate(row["role"] or "", 20))), align="left", style=LEFT)
    return tag("tr", sign, role, *(tag("td", cell, align="left", style=LEFT) for cell in cells))


def _cell(row: dict[str, Any], side: str, text: Markup, calls: Markup) -> Markup:
    """What one side says in a turn, with where it stands."""
    if row[side] is None:
        return join(formatting.MISSING)
    place = tag("em", abbreviate(row[side], _LABEL))
    body = [tag("div", part) for part in (text, tag("code", calls) if calls else "") if part]
    return join(place, *body)


def _differing(pair: Pair) -> Iterator[dict[str, Any]]:
    return (row for row in pair.rows if row["status"] != "matched")


def _turn_line(row: dict[str, Any]) -> str:
    said = [[row[f"{side}_{what}"] or "" for side in "ab"] for what in ("text", "calls")]
    place = formatting.truncate(row["a"] or row["b"], _LABEL)
    if row["status"] == "changed":
        parts = [worddiff.inline_diff(a, b, _LINE) for a, b in said if a != b]
    else:
        parts = [formatting.truncate(a or b, _LINE) for a, b in said]
    told = " | ".join(filter(None, parts)) or _NOTHING
    return f"  {SIGNS[row['status']]} {place} {formatting.truncate(row['role'] or '', 20)}: {told}"
