"""The tour notebook in JupyterLab, from top to bottom, in both themes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness import NOTEBOOKS, OpenNotebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLES = ".jp-OutputArea-output :is(table:has(caption), .kern-table)"

# The contrast of every piece of text in our output with what is painted behind it, by WCAG's formula. A canvas does the
# colours: it understands every notation, and lays what is half transparent over what is below.
FAINT = """least => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const paint = colour => { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); };
  const luminance = () => {
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = element => {
    const backgrounds = [];
    for (let e = element; e; e = e.parentElement) backgrounds.unshift(getComputedStyle(e).backgroundColor);
    ["white", ...backgrounds].forEach(paint);
    const behind = luminance();
    paint(getComputedStyle(element).color);
    const [dark, light] = [behind, luminance()].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const hasText = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  return [...document.querySelectorAll(".jp-OutputArea-output :is(table *, [class*=kern-], [class*=kern-] *)")]
    .filter(e => hasText(e) && e.checkVisibility() && e.tagName !== "STYLE")
    .map(e => [e.innerText.slice(0, 40), contrast(e)])
    .filter(([, ratio]) => ratio < least)
    .map(([text, ratio]) => `${text} (${ratio.toFixed(1)})`);
}"""
READABLE = 4.5  # WCAG's level AA


@pytest.fixture
def tour() -> Path:
    """The notebook under test."""
    return NOTEBOOKS / "tour.ipynb"


def test_tour_in_both_themes(tour: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """Every cell runs without errors, nothing leaves the machine, and every table is readable."""
    notebook = open_notebook(tour)

    notebook.run_all()

    assert notebook.problems() == []
    expect(notebook.page.locator(TABLES).first).to_be_visible()
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        assert notebook.page.evaluate(FAINT, READABLE) == [], theme
    assert notebook.foreign == []
