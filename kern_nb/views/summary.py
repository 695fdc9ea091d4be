"""Show a model's summaries: the text, its topics, and what it covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from kern_nb.text import formatting
from kern_nb.text.html import Markup, abbreviate, container, details, isolate, join, render_text, tag

if TYPE_CHECKING:
    from kern_nb.records import SessionSummary

MAX_ROWS = 10  # the most summaries that are shown
_LABEL = 60
_TEXT = 600
_LINE = 160
_MAX_LENGTH = 4_000  # the most characters of one summary


class Summaries(Protocol):
    """What is shown of `kern_nb.operations.summarize.Summaries`."""

    summary: str
    topics: Sequence[str]
    summaries: Sequence[SessionSummary]
    without: Sequence[str]


def summary_html(summary: SessionSummary) -> str:
    """Render a summary as a complete output."""
    return container(*_parts(summary))


def _parts(summary: SessionSummary) -> Iterator[Markup]:
    name = _reference(summary)
    of = (" of ", isolate(formatting.truncate(name, 2 * _LABEL))) if name else ()
    yield tag("p", tag("strong", "Summary", *of))
    yield from _body(summary)
    if state := _state(summary):
        yield tag("p", tag("em", state))


def _body(summary: SessionSummary | Summaries) -> Iterator[Markup]:
    yield tag("div", render_text(summary.summary, _MAX_LENGTH))
    if summary.topics:
        topics = join(*(abbreviate(topic, _LABEL) for topic in summary.topics), by=", ")
        yield tag("p", tag("strong", "topics"), ": ", topics)


def summary_text(summary: SessionSummary) -> str:
    """Render a summary as plain text, truncated."""
    name = _reference(summary)
    of = f" of {formatting.truncate(name, 2 * _LABEL)}" if name else ""
    return "\n".join([*_text_lines(f"Summary{of}", summary), *filter(None, [_state(summary)])])


def _text_lines(title: str, summary: SessionSummary | Summaries) -> list[str]:
    topics = ", ".join(formatting.truncate(topic, _LABEL) for topic in summary.topics)
    return [f"{title}: {formatting.truncate(summary.summary, _TEXT)}", *([f"topics: {topics}"] if topics else [])]


def _reference(summary: SessionSummary) -> str:
    if summary.session_id is None:
        return ""
    return summary.session_id + ("" if summary.run_index is None else f"/{summary.run_index}")


def _state(summary: SessionSummary) -> str:
    """State what the summary covers, when and by which model it was written, and whether it is stored."""
    parts = []
    if summary.run_index is not None:
        parts.append("this run only, not stored")
    elif summary.last_run_index is not None:
        parts.append(f"up to run {summary.last_run_index}")
    if summary.runs_since is not None:
        parts.append(formatting.pluralize(summary.runs_since, "newer run") if summary.runs_since else "up to date")
    if summary.updated_at is not None:
        parts.append(f"written {formatting.format_time(summary.updated_at)} UTC")
    if summary.model is not None:
        parts.append(f"by {formatting.truncate(summary.model, _LABEL)}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def summaries_html(result: Summaries) -> str:
    """Render the combined summary, with each single summary folded."""
    folded = [
        details(isolate(formatting.truncate(_reference(summary), 2 * _LABEL)), *_parts(summary))
        for summary in result.summaries[:MAX_ROWS]
    ]
    title = tag("p", tag("strong", _title(result)))
    return container(title, *_body(result), *folded, *(tag("p", tag("em", note)) for note in _notes(result)))


def summaries_text(result: Summaries) -> str:
    """Render the same as plain text, truncated."""
    lines = _text_lines(_title(result), result)
    for summary in result.summaries[:MAX_ROWS]:
        name, text = formatting.truncate(_reference(summary), _LABEL), formatting.truncate(summary.summary, _LINE)
        lines.append(f"  {name}: {text}")
    return "\n".join([*lines, *_notes(result)])


def _title(result: Summaries) -> str:
    n_runs = sum(summary.run_index is not None for summary in result.summaries)
    return f"Summary of {count_items(len(result.summaries) - n_runs, n_runs)}"


def count_items(n_sessions: int, n_runs: int) -> str:
    """Format the numbers of sessions and runs, without a number of 0."""
    counts = ((n_sessions, "session"), (n_runs, "run"))
    return " and ".join(formatting.pluralize(n, noun) for n, noun in counts if n)


def _notes(result: Summaries) -> Iterator[str]:
    if note := formatting.more_note(len(result.summaries), MAX_ROWS, ".df"):
        yield note
    yield "The combined summary is not stored; the summaries of sessions are."
    if result.without:
        names = [formatting.truncate(name, _LABEL) for name in result.without]
        yield f"No runs to summarize in {formatting.join_first(names, MAX_ROWS)}."
