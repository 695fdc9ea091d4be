"""The comparison widget in JupyterLab: by mouse and keyboard, light and dark, and without its kernel."""

from __future__ import annotations

from harness import write_notebook
from playwright.sync_api import expect
from test_tour import FAINT, READABLE

CELL = """
%load_ext kern_nb
%kern attach sample.duckdb --read-only
from kern_nb.widgets.comparison import view
view("small-1-refund-mugs-1", "large-1-refund-mugs-1", "large-1-where-is-it-0")
"""


def test_comparison_navigation(open_notebook, tmp_path):
    """Jump to the first difference, unfold identical turns, choose a contender; colour only repeats the signs."""
    notebook = open_notebook(write_notebook(tmp_path / "compare.ipynb", CELL))
    notebook.run_all()
    assert notebook.problems() == []
    widget = notebook.page.get_by_role("region", name="Comparison", exact=True)
    turns = widget.locator("tr.kern-turn")

    expect(widget.locator(".kern-said")).to_contain_text("have 4 turns in common")
    expect(turns.first).to_contain_text("find_order")
    expect(turns.first.locator("abbr")).to_have_text("≠")
    expect(turns.first.locator("del")).to_have_text("#")
    widget.get_by_role("button", name="First difference").click()
    expect(turns.first).to_be_focused()

    fold = widget.get_by_role("button", name="4 identical turns")
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(widget.get_by_text("Two of my six mugs came broken").first).to_be_visible()
    fold.press("Enter")
    expect(widget.get_by_text("Two of my six mugs came broken").first).to_be_hidden()

    widget.locator("summary").click()
    expect(widget.get_by_role("cell", name="total_tokens")).to_be_visible()
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        assert notebook.page.evaluate(FAINT, READABLE) == [], theme

    widget.get_by_label("Compare with the baseline").select_option("large-1-where-is-it-0")
    expect(widget.locator(".kern-said")).to_contain_text("large-1-where-is-it-0")
    expect(widget.locator(".kern-sides thead th").last).to_have_text("large-1-where-is-it-0")
    assert notebook.foreign == []
