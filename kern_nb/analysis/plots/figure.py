"""`Plot`: the data, the specification, and the formats in which a notebook or a file shows it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb import files
from kern_nb.analysis.plots import vega
from kern_nb.errors import BadUsage
from kern_nb.text.formatting import pluralize
from kern_nb.text.tables import Table

if TYPE_CHECKING:
    import altair as alt

_TEXT_ROWS = 20
_TABLE_ROWS = 100


@dataclass(frozen=True, eq=False, repr=False)
class Plot:
    """A plot and its data.

    A notebook shows an interactive chart (JupyterLab), an image (nbconvert, GitHub), or text. Without the extra
    ``plots`` it shows a table.

    Attributes:
        df: The data, one row a mark.
        title: The title.
        notes: Sentences on what is left out, merged or unknown.
        table: The data as a table.
        drawing: The marks, as a part of a Vega-Lite specification; None where there is nothing to draw.
    """

    df: pd.DataFrame
    title: str
    table: Table
    notes: tuple[str, ...] = ()
    drawing: dict[str, Any] | None = field(default=None)

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification with its data."""
        return vega.build_specification(self.title, self.notes, self.drawing)

    @property
    def chart(self) -> alt.Chart:
        """The Altair chart, to change and to combine.

        Raises:
            BadUsage: Altair is not installed.
        """
        chart: alt.Chart = vega.import_extra("altair", "Altair").Chart.from_dict(self.spec)
        return chart

    def save(self, path: str | Path) -> Path:
        """Write the plot to a file that needs no network.

        Args:
            path: A path that ends in ``.png``, ``.svg``, ``.html`` (interactive, about 1 MB) or ``.json`` (the `spec`).

        Returns:
            The path.

        Raises:
            BadUsage: The path has another suffix, or the extra ``plots`` is not installed.
        """
        path = Path(path).expanduser()
        render = _FORMATS.get(path.suffix.lower())
        if render is None:
            hint = f"Use a name that ends in {', '.join(_FORMATS)}."
            raise BadUsage(f"{path.name!r} has no suffix of a plot format.", hint)
        content = render(self)
        with open(path, "wb", opener=files.private_opener) as file:
            file.write(content)
        return path

    def with_notes(self, *notes: str) -> Plot:
        """Return the plot with more notes in front."""
        return replace(self, notes=(*notes, *self.notes))

    def __repr__(self) -> str:
        return str(self._truncated_table(_TEXT_ROWS))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook stores (IPython's protocol).

        There is no HTML beside a drawing: JupyterLab, nbconvert and GitHub would each prefer it.
        """
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.drawing is None or not vega.can_draw():
            hint = [] if self.drawing is None else [vega.INSTALL_HINT]
            return bundle | {"text/html": self._truncated_table(_TABLE_ROWS, *hint).html()}, {}
        bundle |= {vega.MIME: self._vega, "image/png": base64.b64encode(self._png).decode()}
        width, height = vega.png_size(self._png)
        image = {"width": width, "height": height, "alt": vega.describe(self.title, self.notes)}
        return bundle, {vega.MIME: {"embed_options": vega.EMBED_OPTIONS}, "image/png": image}

    @cached_property
    def _vega(self) -> dict[str, Any]:
        return vega.compile_spec(self.spec)

    @cached_property
    def _png(self) -> bytes:
        return vega.render_png(self._vega)

    def _truncated_table(self, max_rows: int, *notes: str) -> Table:
        omitted = len(self.table.rows) - max_rows
        omission = [f"{pluralize(omitted, 'more row')} in .df."] if omitted > 0 else []
        return replace(self.table, rows=self.table.rows[:max_rows], note=" ".join([*omission, *self.notes, *notes]))


_FORMATS: dict[str, Callable[[Plot], bytes]] = {
    ".png": lambda plot: plot._png,  # noqa: SLF001 - these are the plot's own
    ".svg": lambda plot: vega.render_svg(plot._vega).encode(),  # noqa: SLF001
    ".html": lambda plot: vega.render_html(vega.compile_spec(plot.spec, version=None)).encode(),
    ".json": lambda plot: json.dumps(plot.spec, indent=1).encode(),
}
