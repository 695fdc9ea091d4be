"""Take the pictures in docs/images: the tour in JupyterLab, run from top to bottom, and each widget; light and dark.

`tour-light.png` and `tour-dark.png` show all of it. A cell tagged `picture-NAME` also gets one of its own. What the
pictures of the widgets show is in widget_pictures.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from harness import (
    NOTEBOOKS,
    REPO,
    OpenNotebook,
    close,
    find_chromium,
    new_page_context,
    open_in,
    running_chromium,
    running_lab,
    write_notebook,
)
from widget_pictures import PICTURES, Picture, make_store

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator

IMAGES = REPO / "docs" / "images"
TAG = "picture-"
WIDTH = 1100  # what GitHub's column of text shows without making it much smaller
WIDE = 1400  # for what has two columns
SETTLING = 800  # milliseconds, in which a theme has been applied and nothing moves any more
# A reader selects no cell and presses no button.
STYLE = """
.jp-cell-toolbar, .jp-Collapser { display: none !important }
.jp-Notebook .jp-Cell { border-color: transparent !important }
.kern-w { padding: 12px }
"""


def box_around(cells: list[Locator]) -> FloatRect:
    """Return the rectangle of some cells that follow one another."""
    boxes = [box for cell in cells if (box := cell.bounding_box())]
    top, bottom = boxes[0]["y"], boxes[-1]["y"] + boxes[-1]["height"]
    return {"x": boxes[0]["x"], "y": top, "width": boxes[0]["width"], "height": bottom - top}


def picture_widget(notebook: OpenNotebook, name: str, picture: Picture) -> None:
    """Take a widget's pictures: its output alone, as wide as it is."""
    page = notebook.page
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.add_style_tag(content=STYLE)
    notebook.run_all()
    if problems := notebook.problems():
        sys.exit("\n".join(problems))
    widget = page.locator(".kern-w.kern-live").last
    widget.wait_for()
    picture.arrange(widget)
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        widget.scroll_into_view_if_needed()
        page.wait_for_timeout(SETTLING)
        file = IMAGES / f"{name}-{theme}.png"
        widget.screenshot(path=file, animations="disabled")
        print(file.relative_to(REPO))


def picture_tour(notebook: OpenNotebook) -> None:
    """Take the pictures of the tour, run from top to bottom."""
    page = notebook.page
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.add_style_tag(content=STYLE)
    notebook.run_all()
    if problems := notebook.problems():
        sys.exit("\n".join(problems))
    cells = page.locator(".jp-Notebook .jp-Cell").all()
    pictures = {"tour": cells}
    for cell, content in zip(cells, notebook.cells(), strict=True):
        for tag in content["metadata"].get("tags", ()):
            if tag.startswith(TAG):
                pictures[tag.removeprefix(TAG)] = [cell]
    # Only what is in the window gets painted: make it as tall as the tour.
    height = box_around(cells)["height"]
    page.set_viewport_size({"width": WIDTH, "height": ceil(height) + 200})
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        cells[0].scroll_into_view_if_needed()
        for name, shown in pictures.items():
            file = IMAGES / f"{name}-{theme}.png"
            page.screenshot(path=file, clip=box_around(shown), animations="disabled")
            print(file.relative_to(REPO))


def main() -> None:
    """Take every picture, or those of the widgets that are named, in both themes."""
    chromium = os.environ.get("KERN_CHROMIUM") or find_chromium() or sys.exit("no Chromium to take pictures with")
    IMAGES.mkdir(parents=True, exist_ok=True)
    named = sys.argv[1:] or ["tour", *PICTURES]
    with (
        tempfile.TemporaryDirectory() as root,
        running_lab(Path(root) / "lab") as lab,
        running_chromium(chromium) as browser,
    ):
        for name in named:
            size = {"width": WIDTH, "height": 1600} if name == "tour" else {"width": WIDE, "height": 1000}
            context = new_page_context(browser, viewport=size, device_scale_factor=1.5)
            if name == "tour":
                picture_tour(open_in(lab, context, NOTEBOOKS / "tour.ipynb"))
            else:
                source = write_notebook(Path(root) / f"{name}.ipynb", *PICTURES[name].cells)
                notebook = open_in(lab, context, source)
                make_store(next(lab.folder.glob(f"*/{name}.ipynb")).parent)
                picture_widget(notebook, name, PICTURES[name])
            close(context)


if __name__ == "__main__":
    main()
