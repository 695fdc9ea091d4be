"""Plots in JupyterLab, in both themes and offline, and as standalone pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import OpenNotebook, new_page_context, write_notebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser

SET_UP = """
from kern_nb.analysis import plots
from kern_nb.db import InMemoryDb
from kern_nb.records import Message, Run, ToolCall, Usage
import pandas as pd

BAD = "</script><img src=x onerror='window.hacked = 1'>"
store = InMemoryDb()

def run(n, status="COMPLETED"):
    calls = [ToolCall(tool_call_id="1", tool_name=BAD, status="failed" if n == 2 else "completed")]
    messages = [
        Message(role="user", content="Where?"),
        Message(role="assistant", content=None, tool_calls=calls),
        Message(role="tool", tool_call_id="1", content="Here."),
    ]
    return Run(status=status, messages=messages, usage=Usage(input_tokens=100 + n), duration_s=n + 1)

for n in range(4):
    store.append_run(BAD, run(n, "ERROR" if n == 3 else "COMPLETED"))
store.branch(BAD, after=1, name=BAD * 3, new_session_id="what-if")
store.append_run("what-if", run(2, "PAUSED"))
row = {"metric": BAD, "a": 4.0, "b": 3.0, "delta": -1.0, "delta_pct": -25.0, "better": "b"}
"""
CELLS = (
    "plots.plot(store=store)",
    "plots.plot(kind='tools', store=store)",
    "plots.plot(kind='tree', store=store)",
    "plots.comparison(pd.DataFrame([row]))",
    "plots.groups(pd.DataFrame([row | {'n_pairs': 9, 'low': -2.0, 'high': -0.5, 'group': BAD}]))",
    "print(plots.plot(kind='tree', store=store).save('tree.html').resolve())",
)
DRAWN = ".jp-OutputArea-output.jp-RenderedVega5 svg.marks"
POINT = "path[aria-roledescription=point]"

# The contrast of each text in a drawing with the panel it stands on, which has a colour of its own in every theme.
FAINT = """least => {
  const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return [...document.querySelectorAll(".jp-RenderedVega5 svg.marks")].flatMap(svg => {
    const panel = luminance(getComputedStyle(svg).backgroundColor);
    return [...svg.querySelectorAll("text")].filter(e => e.textContent.trim())
      .map(e => [e.textContent, (Math.max(panel, luminance(getComputedStyle(e).fill)) + 0.05)
        / (Math.min(panel, luminance(getComputedStyle(e).fill)) + 0.05)])
      .filter(([, ratio]) => ratio < least);
  });
}"""


def test_plots_in_both_themes_run_no_script(
    tmp_path: Path, open_notebook: Callable[[Path], OpenNotebook], chromium: Browser
) -> None:
    """JupyterLab draws each kind, loads nothing, and shows names as text."""
    notebook = open_notebook(write_notebook(tmp_path / "plots.ipynb", SET_UP, *CELLS))
    page = notebook.page
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if "vega" in message.text.lower() else None)

    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        notebook.run_all()  # drawn anew: JupyterLab hands its theme to what it draws then
        expect(page.locator(DRAWN)).to_have_count(5)
        assert notebook.problems() == []
        for drawn in page.locator(DRAWN).all():
            expect(drawn.locator("text", has_text="</script><img src=x").first).to_be_visible()
        assert page.evaluate(FAINT, 4.5) == [], theme

    page.locator(DRAWN).nth(2).locator(f"{POINT}[aria-label*=PAUSED]").hover()
    expect(page.locator("#vg-tooltip-element")).to_contain_text("what-if")
    page.locator(DRAWN).nth(0).locator(POINT).first.hover()
    expect(page.locator("#vg-tooltip-element")).to_contain_text("</script><img src=x")
    assert page.evaluate("window.hacked") is None
    assert notebook.foreign == []
    assert complaints == []

    saved = notebook.cells()[-1]["outputs"][0]["text"]
    context = new_page_context(chromium)
    alone = context.new_page()
    requests: list[str] = []
    alone.on("request", lambda request: requests.append(request.url))
    alone.goto(f"file://{''.join(saved).strip()}")
    expect(alone.locator("svg text", has_text="Sessions and their branches").first).to_be_visible()
    assert alone.evaluate("window.hacked") is None
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()
