"""What an import or a check found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb.text.formatting import BAD, GOOD, format_count, pluralize
from kern_nb.text.html import container, tag
from kern_nb.text.tables import Column, Table

if TYPE_CHECKING:
    from kern_nb.db.integrity import CheckReport
    from kern_nb.ingest.report import IngestReport

MOST_ROWS = 100


def check_html(report: CheckReport) -> str:
    """The findings, one a row."""
    found = report.problems
    if not found:
        return container(tag("p", f"{GOOD} No problems found."))
    rows = [[f"{GOOD} repaired" if p.repaired else BAD, p.kind, p.session_id, p.run_id or "", p.detail] for p in found]
    columns = [Column("state"), Column("problem"), Column("session"), Column("run"), Column("detail", width=200)]
    left = sum(not p.repaired for p in found)
    caption = f"{pluralize(len(found), 'problem')} found, {format_count(len(found) - left)} repaired"
    note = _unseen(len(found)) or ("%kern check --repair mends what can be mended." if left == len(found) else "")
    return Table(caption, columns, rows[:MOST_ROWS], note).without_empty_columns().html()


def _unseen(rows: int) -> str:
    return f"… {format_count(rows - MOST_ROWS)} more are not shown; .df has them all." if rows > MOST_ROWS else ""


def ingest_html(report: IngestReport) -> str:
    """What was stored, and what was wrong, by file and line."""
    titles = ("sessions", "runs", "messages", "tool calls", "already there")
    numbers = (report.sessions, report.runs, report.messages, report.tool_calls, report.skipped)
    stored = Table("Stored", [Column(t, number=True) for t in titles], [[format_count(n) for n in numbers]]).markup()
    if not report.errors:
        return container(stored)
    rows = [[p.file, "" if p.line is None else format_count(p.line), p.reason] for p in report.errors[:MOST_ROWS]]
    columns = [Column("file"), Column("line", number=True), Column("reason", width=300)]
    caption = f"{BAD} {pluralize(len(report.errors), 'problem')}: these were not taken in"
    left = len(report.errors) - MOST_ROWS
    note = tag("p", f"… {format_count(left)} more are in .errors.") if left > 0 else None
    return container(stored, Table(caption, columns, rows).without_empty_columns().markup(), note)
