"""Tab after `%kern` in JupyterLab, where completions pass through the kernel, the server and the pop-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import OpenNotebook, write_notebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_tab_completes_verbs(tmp_path: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """The pop-up lists the verbs, and choosing one inserts it."""
    notebook = open_notebook(write_notebook(tmp_path / "verbs.ipynb", "%load_ext kern_nb", ""))
    notebook.run_all()
    assert notebook.problems() == []
    editor = notebook.page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content")

    editor.click()
    notebook.page.keyboard.type("%kern ")
    notebook.page.keyboard.press("Tab")

    offered = notebook.page.locator(".jp-Completer .jp-Completer-item")
    for verb in ("attach", "sessions", "branch"):
        expect(offered.get_by_text(verb, exact=True)).to_be_visible()

    offered.get_by_text("sessions", exact=True).click()

    expect(editor).to_have_text("%kern sessions")
