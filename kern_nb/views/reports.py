"""Render the reports of an import and of a check as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb.text.formatting import BAD, GOOD, format_count, more_note, pluralize
from kern_nb.text.html import container, tag
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.db.integrity import CheckReport
    from kern_nb.ingest_report import IngestReport

MAX_ROWS = 100


def check_html(report: CheckReport) -> str:
    """Render the problems of a check, one a row."""
    problems = report.problems
    if not problems:
        return container(tag("p", f"{GOOD} No problems found."))
    rows = [
        [f"{GOOD} repaired" if p.repaired else BAD, p.kind, p.session_id, p.run_id or "", p.detail]
        for p in problems[:MAX_ROWS]
    ]
    columns = [Column("state"), Column("problem"), Column("session"), Column("run"), Column("detail", width=200)]
    n_repaired = sum(p.repaired for p in problems)
    caption = f"{pluralize(len(problems), 'problem')} found, {format_count(n_repaired)} repaired"
    hint = "" if n_repaired else "%kern check --repair repairs what it can."
    note = more_note(len(problems), MAX_ROWS, ".df") or hint
    return Table(caption, columns, rows, note).without_empty_columns().html()


def ingest_html(report: IngestReport) -> str:
    """Render what an import stored, and its problems by file and line."""
    titles = ("sessions", "runs", "messages", "tool calls", "already stored")
    numbers = (report.sessions, report.runs, report.messages, report.tool_calls, report.skipped)
    columns = [Column(title, number=True) for title in titles]
    note = " ".join(report.describe_repetitions())
    caption = "Nothing new" if report.skipped and not report.runs else "Stored"
    stored = Table(caption, columns, [[format_count(number) for number in numbers]], note).markup(with_note=True)
    passed_over = [tag("p", f"Passed over: {line}") for line in report.describe_passed_over()]
    if not report.errors:
        return container(stored, *passed_over)
    rows = [[p.file, "" if p.line is None else format_count(p.line), p.reason] for p in report.errors[:MAX_ROWS]]
    columns = [Column("file"), Column("line", number=True), Column("reason", width=300)]
    caption = f"{BAD} {pluralize(len(report.errors), 'problem')}: not imported"
    table = Table(caption, columns, rows, more_note(len(report.errors), MAX_ROWS, ".errors")).without_empty_columns()
    return container(stored, table.markup(with_note=True), *passed_over)
