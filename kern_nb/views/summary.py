"""A model's summaries as a person reads them: the text, its topics, how far it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kern_nb.text import formatting
from kern_nb.text.html import Markup, abbreviate, container, details, isolate, join, render_text, tag

if TYPE_CHECKING:
    from kern_nb.operations.summarize import Summaries
    from kern_nb.records import SessionSummary

MOST_ROWS = 10
"""So many summaries are shown; the frame has all."""

_LABEL = 60
_TOLD = 600
_LINE = 160
_LONGEST = 4_000
"""Of a summary, so many characters."""


def summary_html(summary: SessionSummary) -> str:
    """A model's summary as a whole output."""
    return container(*_summary(summary))


def _summary(summary: SessionSummary) -> Iterator[Markup]:
    name = _place(summary)
    yield tag(
        "p", tag("strong", "Summary", *((" of ", isolate(formatting.truncate(name, 2 * _LABEL))) if name else ()))
    )
    yield tag("div", render_text(summary.summary, _LONGEST))
    if summary.topics:
        yield tag(
            "p", tag("strong", "topics"), ": ", join(*(abbreviate(topic, _LABEL) for topic in summary.topics), by=", ")
        )
    if state := _state(summary):
        yield tag("p", tag("em", state))


def summary_text(summary: SessionSummary) -> str:
    """The same as plain text, cut."""
    name = _place(summary)
    of = f" of {formatting.truncate(name, 2 * _LABEL)}" if name else ""
    lines = [f"Summary{of}: {formatting.truncate(summary.summary, _TOLD)}"]
    lines += (
        [f"topics: {', '.join(formatting.truncate(topic, _LABEL) for topic in summary.topics)}"]
        if summary.topics
        else []
    )
    return "\n".join([*lines, *filter(None, [_state(summary)])])


def _place(summary: SessionSummary) -> str:
    if summary.session_id is None:
        return ""
    return summary.session_id + ("" if summary.run_index is None else f"/{summary.run_index}")


def _state(summary: SessionSummary) -> str:
    """How far it goes, when and by whom it was made, and whether it is kept."""
    parts = []
    if summary.run_index is not None:
        parts.append("of this run alone, not stored")
    elif summary.last_run_index is not None:
        parts.append(f"up to run {summary.last_run_index}")
    if summary.runs_since is not None:
        since = formatting.pluralize(summary.runs_since, "run")
        parts.append(f"{since} since then" if summary.runs_since else "up to date")
    if summary.updated_at is not None:
        parts.append(f"written {formatting.format_time(summary.updated_at)} UTC")
    if summary.model is not None:
        parts.append(f"by {formatting.truncate(summary.model, _LABEL)}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def summaries_html(found: Summaries) -> str:
    """One text over all, and each of them folded away."""
    parts = [
        tag("p", tag("strong", f"Summary of {_together(found.summaries)}")),
        tag("div", render_text(found.summary, _LONGEST)),
    ]
    if found.topics:
        topics = join(*(abbreviate(topic, _LABEL) for topic in found.topics), by=", ")
        parts.append(tag("p", tag("strong", "topics"), ": ", topics))
    folded = [
        details(isolate(formatting.truncate(_place(one), 2 * _LABEL)), *_summary(one))
        for one in found.summaries[:MOST_ROWS]
    ]
    more = _more(len(found.summaries))
    notes = [tag("p", tag("em", note)) for note in (more, *_left(found)) if note]
    return container(*parts, *folded, *notes)


def summaries_text(found: Summaries) -> str:
    """The same as plain text, cut."""
    lines = [f"Summary of {_together(found.summaries)}: {formatting.truncate(found.summary, _TOLD)}"]
    lines += (
        [f"topics: {', '.join(formatting.truncate(topic, _LABEL) for topic in found.topics)}"] if found.topics else []
    )
    for one in found.summaries[:MOST_ROWS]:
        lines.append(f"  {formatting.truncate(_place(one), _LABEL)}: {formatting.truncate(one.summary, _LINE)}")
    return "\n".join([*lines, *filter(None, [_more(len(found.summaries)), *_left(found)])])


def _together(summaries: Sequence[SessionSummary]) -> str:
    n_runs = sum(one.run_index is not None for one in summaries)
    told = [(len(summaries) - n_runs, "session"), (n_runs, "run")]
    return " and ".join(formatting.pluralize(n, noun) for n, noun in told if n)


def _left(found: Summaries) -> Iterator[str]:
    yield "The text over all is not stored; each session's summary is."
    if found.without:
        names = ", ".join(formatting.truncate(name, _LABEL) for name in found.without[:MOST_ROWS])
        more = (
            f" and {formatting.format_count(len(found.without) - MOST_ROWS)} more"
            if len(found.without) > MOST_ROWS
            else ""
        )
        yield f"Nothing to summarize yet in {names}{more}."


def _more(n: int) -> str:
    return f"… {formatting.format_count(n - MOST_ROWS)} more; .df has all." if n > MOST_ROWS else ""
