"""A still of a widget: the HTML that a saved notebook shows in its place, and the style that shows one of the two."""

from __future__ import annotations

from kern_nb.text.html import Markup, join, tag

# JupyterLab puts each output of a cell in an .jp-OutputArea-child. The one after the still is the widget; it is live
# where its script says so. What else may stand there is "Loading widget..." or that its model was not found.
_STYLE = """
.jp-OutputArea-child:has(> * .kern-still) + .jp-OutputArea-child:not(:has(.kern-live)) { display: none; }
.jp-OutputArea-child:has(> * .kern-still):has(+ .jp-OutputArea-child .kern-live) { display: none; }
"""


def still_html(inside: str) -> str:
    """A still, ready to be put out.

    Args:
        inside: What was last seen, as a whole output of `kern_nb.text`.
    """
    note = tag("p", tag("em", "As it was last seen. Run the cell to go on."), class_="kern-still-note")
    style = Markup(f"<style>{_STYLE}</style>")
    return str(tag("div", style, note, join(Markup(inside)), class_="kern-still"))
