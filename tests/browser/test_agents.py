"""An agent in JupyterLab: its output appears while it runs, and a cell can be interrupted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness import OpenNotebook, write_notebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AGENT = """
import time
from pathlib import Path
from kern_nb import Agent, SqliteDb
from kern_nb.models.scripted import ScriptedModel, call

gate = Path({gate!r})

def wait_for_gate() -> str:
    while not gate.exists():
        time.sleep(0.02)
    return "open"

script = [call("wait_for_gate"), "The gate is open.", call("wait_for_gate"), "Never said.", "Here I am again."]
store = SqliteDb({db!r})
agent = Agent(ScriptedModel(script), db=store, session_id="gate", tools=[wait_for_gate])
"""
STATUS = "store.runs_df()[['status', 'error']].to_dict('list')"
RUN_CELL = "index => { const c = window.jupyterapp.shell.currentWidget.content; c.activeCellIndex = index; window.jupyterapp.commands.execute('notebook:run-cell'); }"
INTERRUPT = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"


def test_cell_shows_a_run_and_can_be_interrupted(tmp_path: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """A running tool is shown before it ends; an interrupted run is stored as such, and the next one works."""
    gate = tmp_path / "gate"
    notebook = open_notebook(
        write_notebook(
            tmp_path / "agent.ipynb",
            AGENT.format(gate=str(gate), db=str(tmp_path / "gate.db")),
            "agent.print_response('Is it open?')",
            "agent.print_response('And now?')",
            "run = await agent.arun('Are you there?'); run.output",
            STATUS,
            "run.extra['notebook']",
        )
    )
    cells = notebook.page.locator(".jp-Notebook .jp-CodeCell")

    def output(index: int):
        return cells.nth(index).locator(".jp-OutputArea")

    notebook.page.evaluate(RUN_CELL, 0)
    notebook.page.evaluate(RUN_CELL, 1)
    expect(output(1)).to_contain_text("… started: wait_for_gate")

    gate.touch()

    expect(output(1)).to_contain_text("The gate is open.")
    expect(output(1)).to_contain_text("✓ wait_for_gate")
    expect(output(1).locator(".jp-OutputArea-child")).to_have_count(1)

    gate.unlink()
    notebook.page.evaluate(RUN_CELL, 2)
    expect(output(2)).to_contain_text("started: wait_for_gate")
    notebook.page.evaluate(INTERRUPT)

    expect(output(2)).to_contain_text("KeyboardInterrupt")
    gate.touch()
    for index in (3, 4, 5):  # one after the other: the kernel drops what was queued behind an error
        expect(cells.nth(index - 1).locator(".jp-InputPrompt")).to_have_text(f"[{index}]:")
        notebook.page.evaluate(RUN_CELL, index)
    expect(output(3)).to_contain_text(re.compile("Here I am again|Never said"))
    expect(output(4)).to_contain_text("['COMPLETED', 'CANCELLED', 'COMPLETED']")
    expect(output(5)).to_contain_text("'cell_id': 'c3'")
    expect(output(5)).to_contain_text("agent.ipynb")
    assert notebook.foreign == []
