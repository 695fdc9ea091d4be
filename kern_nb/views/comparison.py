"""Show a comparison: the metrics, the divergence, the tool calls and the turns of the sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from kern_nb.text import formatting, worddiff
from kern_nb.text.html import Markup, abbreviate, container, details, isolate, join, preformatted, render_text, tag
from kern_nb.text.metrics import format_delta, format_metric, format_percent, to_records
from kern_nb.text.tables import Column, Table, text_cell, text_row

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison
    from kern_nb.analysis.compare.pairs import Divergence, Pair

MAX_TURNS = 60  # the most differing turns that are rendered; .turns has all
MAX_CONTENDERS = 8  # the most contenders that are rendered; the frames have all
_MAX_CALLS = 40
_MAX_LINES = 24
_MAX_LENGTH = 1_000
_LABEL = 40
_LINE = 150
_NO_TEXT = "(no text)"
SIGNS = {"matched": "=", "changed": "≠", "only in a": "-", "only in b": "+"}
_VERDICTS = {"a": f"{formatting.BAD} worse", "b": f"{formatting.GOOD} better", "neither": "= equal"}


def comparison_html(comparison: Comparison) -> str:
    """Render a comparison as a complete output."""
    pairs = comparison.pairs[:MAX_CONTENDERS]
    heads = [tag("p", isolate(headline(pair))) for pair in pairs]
    parts = [[_calls(pair), *_turns(pair)] for pair in pairs]
    if len(pairs) > 1:
        titles = [join("Calls and turns of ", isolate(label(pair.b.label))) for pair in pairs]
        parts = [[details(title, *part)] for title, part in zip(titles, parts, strict=True)]
    note = tag("p", line) if (line := _more_contenders(comparison)) else None
    return container(*heads, _metrics(comparison).markup(), *chain(*parts), note)


def _more_contenders(comparison: Comparison) -> str:
    return formatting.more_note(len(comparison.pairs), MAX_CONTENDERS, ".metrics and .turns", "contender")


def metrics_html(comparison: Comparison) -> str:
    """Render the metrics as a complete output."""
    return _metrics(comparison).html()


def divergence_text(divergence: Divergence) -> str:
    """Render where two conversations diverge, with the message of each."""
    ends = {"a": "end of the baseline", "b": f"end of {label(divergence.contender)}"}
    texts = worddiff.diff_lines(divergence.a_text, divergence.b_text, _LINE)
    calls = worddiff.diff_lines(divergence.a_calls or "", divergence.b_calls or "", _LINE)
    lines = [f"Turn {divergence.turn}:"]
    for side, ref, text, call in zip("ab", (divergence.a, divergence.b), texts, calls, strict=True):
        content = " | ".join(filter(None, (text, call))) or _NO_TEXT
        lines.append(f"  {side}: {ends[side] if ref is None else f'{formatting.truncate(ref, _LABEL)} {content}'}")
    return "\n".join(lines)


def divergence_html(divergence: Divergence) -> str:
    """Render the same as a complete output."""
    return container(preformatted(divergence_text(divergence)))


def comparison_text(comparison: Comparison) -> str:
    """Render a comparison as plain text, truncated to a screen or two."""
    pairs = comparison.pairs[:MAX_CONTENDERS]
    text = [*(formatting.escape_controls(headline(pair)) for pair in pairs), str(_metrics(comparison))]
    for pair in pairs:
        turns = _differing(pair)
        text += [f"Differing turns of {label(pair.b.label)}:"] if turns else []
        text += map(_turn_line, turns[:_MAX_LINES])
        text.append(formatting.more_note(len(turns), _MAX_LINES, ".turns", "turn"))
    return "\n".join(filter(None, [*text, _more_contenders(comparison)]))


def label(name: str) -> str:
    """Truncate the name of a side for a heading."""
    return formatting.truncate(name, _LABEL)


def headline(pair: Pair) -> str:
    """State how many turns two conversations have in common, and where they diverge."""
    a, b = label(pair.a.label), label(pair.b.label)
    common = formatting.pluralize(pair.alike, "turn")
    if pair.shared:
        common += " (inherited)" if pair.shared == pair.alike else f" ({pair.shared:,} inherited)"
    if pair.divergence is None:
        return f"{a} and {b} are identical: {common}."
    refs = ((pair.divergence.a, a), (pair.divergence.b, b))
    at = " and ".join(formatting.truncate(ref, 2 * _LABEL) if ref else f"the end of {side}" for ref, side in refs)
    if not pair.alike:
        return f"{a} and {b} have no turns in common; they diverge at {at}."
    return f"{a} and {b} have {common} in common and diverge at {at}."


def _metrics(comparison: Comparison) -> Table:
    """Build the table of metrics, the baseline first; each contender has its own columns."""
    baseline, *contenders = comparison.sides[: MAX_CONTENDERS + 1]
    columns = [Column("metric"), Column(f"{label(baseline.label)} (baseline)", number=True)]
    cells: dict[str, list[str]] = {}
    for n, pair in enumerate(comparison.pairs[:MAX_CONTENDERS]):
        titles = (label(contenders[n].label), "Δ", "Δ %")
        columns += [*(Column(title, number=True) for title in titles), Column("verdict")]
        for row in to_records(pair.metrics):
            name, start = row["metric"], 2 + 4 * n
            cell = cells.setdefault(name, [formatting.truncate(name, _LABEL), "", *[""] * 4 * len(contenders)])
            cell[1] = format_metric(name, row["a"])
            values = format_metric(name, row["b"]), format_delta(name, row["delta"]), format_percent(row["delta_pct"])
            cell[start : start + 4] = [*values, _VERDICTS.get(row["better"], "")]
    is_uneven = any(pair.has_unequal_runs for pair in comparison.pairs[:MAX_CONTENDERS])
    title = "Totals (no verdict between branches with different numbers of runs: see .runs)" if is_uneven else "Totals"
    return Table(title, columns, list(cells.values()))


def _calls(pair: Pair) -> Markup:
    """Render differing tool calls side by side, and count the identical ones."""
    calls = to_records(pair.tool_calls)
    if not calls:
        return tag("p", "No tool calls.")
    rows = [_call_row(call) for call in calls if call["status"] != "matched"]
    n_same = len(calls) - len(rows)
    if not rows:
        return tag("p", f"All tool calls are identical: {formatting.pluralize(n_same, 'call')}.")
    columns = [Column(""), Column("tool"), *(Column(label(side.label), width=160) for side in (pair.a, pair.b))]
    note = formatting.more_note(len(rows), _MAX_CALLS, ".tool_calls")
    caption = f"Differing tool calls ({formatting.format_count(n_same)} identical)"
    return Table(caption, columns, rows[:_MAX_CALLS], note).markup(with_note=True)


def _call_row(call: dict[str, Any]) -> list[str]:
    sides = []
    for side in ("a", "b"):
        if call[side] is None:
            sides.append("")
            continue
        sign = f"{formatting.BAD} " if call[f"{side}_status"] == "failed" else ""
        sides.append(f"{sign}{formatting.truncate(call[f'{side}_args'] or '()', 160)}")
    return [SIGNS[call["status"]], formatting.truncate(call["tool_name"] or "tool", 60), *sides]


def _turns(pair: Pair) -> Iterator[Markup]:
    """Render the turns side by side; identical ones are folded, and only the first differing ones are shown."""
    head = text_row("", "role", label(pair.a.label), label(pair.b.label), is_head=True)
    rows: list[Markup] = []
    n_differing = 0
    for is_same, group in groupby(pair.rows, key=lambda row: row["status"] == "matched"):
        turns = list(group)
        if is_same:
            rows.append(_identical_turns(turns))
            continue
        rows += [_turn(turn) for turn in turns[: max(0, MAX_TURNS - n_differing)]]
        n_differing += len(turns)
        if n_differing >= MAX_TURNS:
            break
    caption = tag("caption", "Turns side by side", align="left", style="text-align:left")
    yield tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="kern-table kern-turns")
    if note := formatting.more_note(len(_differing(pair)), MAX_TURNS, ".turns", "differing turn"):
        yield tag("p", note)


def _identical_turns(turns: Sequence[dict[str, Any]]) -> Markup:
    first, last = turns[0]["a"], turns[-1]["a"]
    n_inherited = sum(bool(turn["shared"]) for turn in turns)
    summary = formatting.pluralize(len(turns), "identical turn")
    summary += f", {n_inherited:,} inherited" if n_inherited else ""
    lines = []
    for turn in turns[:MAX_TURNS]:
        line = f"{turn['role']}: {formatting.truncate(turn['a_text'] or turn['a_calls'] or '', _LINE)}"
        lines.append(tag("p", isolate(line)))
    ellipsis = tag("p", "…") if len(turns) > MAX_TURNS else None
    refs = f"{first} to {last}" if len(turns) > 1 else first
    folded = details(join(summary, ": ", isolate(formatting.truncate(refs, 2 * _LABEL))), *lines, ellipsis)
    return tag("tr", text_cell(SIGNS["matched"]), text_cell(folded, colspan=3))


def _turn(turn: dict[str, Any]) -> Markup:
    texts, calls = _render_sides(turn, "text"), _render_sides(turn, "calls")
    cells = [_cell(turn[side], text, call) for side, text, call in zip("ab", texts, calls, strict=True)]
    sign = tag("abbr", SIGNS[turn["status"]], title=turn["status"])
    return text_row(sign, tag("strong", isolate(formatting.truncate(turn["role"] or "", 20))), *cells)


def _render_sides(turn: dict[str, Any], part: str) -> tuple[Markup, Markup]:
    a, b = turn[f"a_{part}"] or "", turn[f"b_{part}"] or ""
    if turn["status"] == "changed":
        return worddiff.diff_markup(a, b)
    return render_text(a, _MAX_LENGTH), render_text(b, _MAX_LENGTH)


def _cell(ref: str | None, text: Markup, calls: Markup) -> Markup:
    if ref is None:
        return join(formatting.MISSING)
    body = [tag("div", part) for part in (text, tag("code", calls) if calls else "") if part]
    return join(tag("em", abbreviate(ref, _LABEL)), *body)


def _differing(pair: Pair) -> list[dict[str, Any]]:
    return [row for row in pair.rows if row["status"] != "matched"]


def _turn_line(turn: dict[str, Any]) -> str:
    sides = [[turn[f"{side}_{part}"] or "" for side in "ab"] for part in ("text", "calls")]
    ref = formatting.truncate(turn["a"] or turn["b"], _LABEL)
    if turn["status"] == "changed":
        parts = [worddiff.inline_diff(a, b, _LINE) for a, b in sides if a != b]
    else:
        parts = [formatting.truncate(a or b, _LINE) for a, b in sides]
    content = " | ".join(filter(None, parts)) or _NO_TEXT
    return f"  {SIGNS[turn['status']]} {ref} {formatting.truncate(turn['role'] or '', 20)}: {content}"
