"""`Plot`: what is drawn, as data, as a specification, and in the forms that a notebook can show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kern_nb import files
from kern_nb.analysis.plots import vega
from kern_nb.errors import BadUsage
from kern_nb.text.formatting import pluralize
from kern_nb.text.tables import Table
from kern_nb.text.vega_page import build_page

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

_ROWS_AS_TEXT = 20
_ROWS_AS_TABLE = 100


@dataclass(frozen=True, eq=False, repr=False)
class Plot:
    """A picture and the data in it.

    In a notebook it shows as an interactive chart (JupyterLab), as a picture (nbconvert, GitHub), or as text. Where the
    extra ``plots`` is not installed, it shows as a table.

    Attributes:
        df: What is drawn, one row a mark.
        title: What it shows.
        notes: What is left out, drawn together or not known, in sentences.
        table: The same for those who read rather than look.
        drawing: The marks, as a part of a Vega-Lite specification; None where there is nothing to draw.
    """

    df: pd.DataFrame
    title: str
    table: Table
    notes: tuple[str, ...] = ()
    drawing: dict[str, Any] | None = field(default=None)

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification, its data included."""
        return vega.specification(self.title, self.notes, self.drawing)

    @property
    def chart(self) -> alt.Chart:
        """The Altair chart, to change and to combine.

        Raises:
            BadUsage: Altair is not installed.
        """
        chart: alt.Chart = vega.altair().Chart.from_dict(self.spec)
        return chart

    def save(self, path: str | Path) -> Path:
        """Write it to a file that needs no network to be looked at.

        Args:
            path: It ends in ``.png``, ``.svg``, ``.html`` (interactive, about 1 MB) or ``.json`` (the `spec`).

        Returns:
            The path.

        Raises:
            BadUsage: it ends in something else, or what draws is not installed.
        """
        path = Path(path).expanduser()
        write = _FORMATS.get(path.suffix.lower())
        if write is None:
            raise BadUsage(
                f"No plot can be saved as {path.name!r}.", f"Name a file that ends in {', '.join(_FORMATS)}."
            )
        content = write(self)
        with open(path, "wb", opener=files.private) as file:
            file.write(content)
        return path

    def with_notes(self, *notes: str) -> Plot:
        """The same plot, with more to say, in front."""
        return replace(self, notes=(*notes, *self.notes))

    def __repr__(self) -> str:
        return str(self._told(_ROWS_AS_TEXT))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook stores (IPython's protocol).

        There is no HTML beside a drawing: JupyterLab, nbconvert and GitHub would each prefer it.
        """
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.drawing is None:
            return bundle | {"text/html": self._told(_ROWS_AS_TABLE).html()}, {}
        if not vega.can_draw():
            return bundle | {"text/html": self._told(_ROWS_AS_TABLE, vega.HOW_TO_DRAW).html()}, {}
        bundle |= {vega.MIME: self._vega, "image/png": vega.base64_of(self._png)}
        width, height = vega.size_of(self._png)
        alt_text = vega.description(self.title, self.notes)
        return bundle, {
            vega.MIME: {"embed_options": vega.EMBED_OPTIONS},
            "image/png": {"width": width, "height": height, "alt": alt_text},
        }

    @cached_property
    def _vega(self) -> dict[str, Any]:
        return vega.compiled(self.spec)

    @cached_property
    def _png(self) -> bytes:
        return vega.png(self._vega)

    def _told(self, most: int, *more: str) -> Table:
        """The table, cut to so many rows, with the notes below."""
        left = len(self.table.rows) - most
        cut = [f"{pluralize(left, 'more row')} in .df."] if left > 0 else []
        note = " ".join([*cut, *self.notes, *more])
        return replace(self.table, rows=self.table.rows[:most], note=note)


_FORMATS: dict[str, Callable[[Plot], bytes]] = {
    ".png": lambda plot: plot._png,  # noqa: SLF001 - these are the plot's own
    ".svg": lambda plot: vega.svg(plot._vega).encode(),  # noqa: SLF001
    ".html": lambda plot: build_page(vega.html, vega.compiled(plot.spec, vega.NEWEST)).encode(),
    ".json": lambda plot: json.dumps(plot.spec, indent=1).encode(),
}
