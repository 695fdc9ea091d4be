"""Every renderer on hostile input, against the markup that was looked at and found good.

After a change that is meant to show: ``KERN_GOLDEN=renew python -m pytest tests/render/test_golden_html.py``, then look
at the difference in `tests/render/golden/`, and at the files in a browser.
"""

from __future__ import annotations

import os
from pathlib import Path

import hostile_comparisons
import hostile_digests
import hostile_groups
import hostile_reruns
import pandas as pd
import pytest
from hostile import HOSTILE, MEGABYTE, hostile_answers, hostile_paused_run, hostile_requirements, hostile_session
from markup import Markup

from kern_nb.db.columns import DTYPES, SESSIONS
from kern_nb.db.integrity import CheckReport, Finding
from kern_nb.ingest_report import IngestReport, Problem
from kern_nb.operations.inbox import Inbox
from kern_nb.operations.resolve import Resolution
from kern_nb.operations.show import SessionTable
from kern_nb.records import Session
from kern_nb.store_registry import AttachedStore, StoreTable
from kern_nb.text.tables import Column, Table
from kern_nb.views.requirements import InboxRow

GOLDEN = Path(__file__).parent / "golden"


def sessions(*rows: dict[str, object]) -> pd.DataFrame:
    """A frame of sessions, as a store gives it."""
    frame = pd.DataFrame(
        [{c.name: row.get(c.name) for c in SESSIONS} for row in rows], columns=[c.name for c in SESSIONS]
    )
    return frame.astype({c.name: DTYPES[c.kind] for c in SESSIONS})


def session_table() -> str:
    totals = {
        "n_runs": 3,
        "n_messages": 1200,
        "n_tool_calls": 4,
        "n_tool_errors": 2,
        "total_tokens": 12345,
        "cost": 0.01,
    }
    bad = HOSTILE["script"]
    own = {"session_id": bad, "session_name": HOSTILE["quotes"], "agent_id": bad, "user_id": HOSTILE["override"]}
    branch = {"session_id": "b" * 100, "parent_session_id": bad, "fork_run_index": 2, "fork_message_index": 5}
    none = {"n_runs": 0, "n_messages": 0, "n_tool_calls": 0, "n_tool_errors": 0, "status": None}
    made = pd.Timestamp("2026-11-20 19:00", tz="UTC")
    table = SessionTable(
        sessions({**own, **totals, "status": "ERROR", "created_at": made}, {**branch, **none}), more=True
    )
    return table._repr_html_()


def hostile_table() -> str:
    columns = [Column("name"), Column("value", width=60), Column("n", number=True)]
    rows = [[name, text, str(len(text))] for name, text in {**HOSTILE, "megabyte": MEGABYTE}.items()]
    return Table("Hostile <b>values</b>", columns, [*rows, ["", "", ""]], "A note & more").html()


def branch_card() -> str:
    session = hostile_session()
    return session.model_copy(update={"runs": None, "fork_message_index": 3})._repr_html_()


def check_report() -> str:
    bad = HOSTILE["script"]
    found = [Finding("interrupted", bad, "r1", bad, repaired=True), Finding("gap", "s", None, HOSTILE["override"])]
    return CheckReport(found)._repr_html_()


def ingest_report() -> str:
    problems = [Problem(HOSTILE["script"], 1200, HOSTILE["quotes"]), Problem("b.json", None, HOSTILE["nul"])]
    return IngestReport(3, 12, 4800, 70, 1, errors=problems)._repr_html_()


def inbox() -> str:
    rows = [
        InboxRow(one, one.requirement_id[:8], f"{one.session_id}/2", HOSTILE["script"])
        for one in hostile_requirements()
    ]
    return Inbox(rows, store=HOSTILE["quotes"])._repr_html_()


def answered() -> str:
    requirement = hostile_requirements()[0]
    said = (f"✓ Approved {HOSTILE['script']}", f"Go on: %kern continue {HOSTILE['override']} {HOSTILE['quotes']}")
    return Resolution(requirement, [], said)._repr_html_()


CASES = {
    "answered": answered,
    "branch-card": branch_card,
    "check-report": check_report,
    "check-report-empty": lambda: CheckReport([])._repr_html_(),
    "inbox": inbox,
    "inbox-empty": lambda: Inbox([])._repr_html_(),
    "ingest-report": ingest_report,
    "run-paused": lambda: hostile_paused_run()._repr_html_(),
    "session-listed": lambda: Session(session_id="chat", created_at=0, agent_id="a")._repr_html_(),
    "session-table": session_table,
    "session-table-empty": lambda: SessionTable(sessions())._repr_html_(),
    "store-table": lambda: StoreTable(
        [AttachedStore(HOSTILE["script"], "postgresql://u:***@h/db", "postgresql", HOSTILE["quotes"], True, True)]
    )._repr_html_(),
    "table": hostile_table,
    "answers": lambda: hostile_answers()._repr_html_(),
    "transcript": lambda: hostile_session()._repr_html_(),
}
for more in (hostile_comparisons, hostile_digests, hostile_groups, hostile_reruns):
    CASES |= more.CASES


@pytest.mark.parametrize("name", CASES)
def test_markup_equals_its_golden_file(name):
    """Accidental changes of the markup fail."""
    file = GOLDEN / f"{name}.html"
    html = CASES[name]() + "\n"
    if os.environ.get("KERN_GOLDEN") == "renew":
        file.write_text(html, encoding="utf-8")

    assert html == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_markup_uses_only_allowed_elements(name):
    """Elements are balanced and pass JupyterLab's sanitizer; no script, handler, style sheet, colour or control."""
    found = Markup(CASES[name]())

    assert found.problems == []
    assert all(c in "\n\t" or c.isprintable() or c == "\u00a0" for c in found.text)


def test_golden_files_are_small_and_all_used():
    """They stay readable for a reviewer."""
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)
    assert max(file.stat().st_size for file in GOLDEN.iterdir()) < 40_000
