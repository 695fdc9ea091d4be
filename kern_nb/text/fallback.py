"""Fallback HTML of a widget: shown where the widget is not live, as in a saved notebook."""

from __future__ import annotations

from kern_nb.text.html import Markup, join, tag

# JupyterLab puts each output of a cell in an .jp-OutputArea-child. The one after the fallback is the widget, which its
# script marks as live. Otherwise "Loading widget..." or a message about a missing model may stand there.
_STYLE = """
.jp-OutputArea-child:has(> * .kern-still) + .jp-OutputArea-child:not(:has(.kern-live)) { display: none; }
.jp-OutputArea-child:has(> * .kern-still):has(+ .jp-OutputArea-child .kern-live) { display: none; }
"""


def fallback_html(content: str) -> str:
    """Wrap the last view of a widget with a note, and with the style that hides it while the widget is live."""
    note = tag("p", tag("em", "Saved output. Run the cell to update it."), class_="kern-still-note")
    style = Markup(f"<style>{_STYLE}</style>")
    return str(tag("div", style, note, join(Markup(content)), class_="kern-still"))
