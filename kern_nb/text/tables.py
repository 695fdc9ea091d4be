"""Tables as data, with one way into markup and one into text: both always say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kern_nb.text.formatting import MISSING, truncate, truncate_distinct
from kern_nb.text.html import Markup, container, tag, titled

LEFT = "text-align:left;vertical-align:top"
RIGHT = "text-align:right;vertical-align:top"
_WHOLE = ";white-space:nowrap"
_TEXT_WIDTH = 40


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        number: Whether it is aligned to the right.
        width: Longer values are cut to this, such that they still differ; their whole is kept as a title.
    """

    title: str
    number: bool = False
    width: int = 80


@dataclass(frozen=True)
class Table:
    """A table that a person reads.

    Attributes:
        caption: What it shows.
        columns: Its columns.
        rows: Its rows, of texts; an empty one is a value that nobody knows.
        note: What there is to add, below it.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """The table without the columns that say nothing in any row."""
        kept = [i for i in range(len(self.columns)) if any(row[i] not in ("", MISSING) for row in self.rows)]
        columns = [self.columns[i] for i in kept]
        return replace(self, columns=columns, rows=[[row[i] for i in kept] for row in self.rows])

    def html(self) -> str:
        """The table as a whole output."""
        return container(self.markup(), tag("p", self.note) if self.note else None)

    def markup(self) -> Markup:
        """The table itself."""
        if not self.rows:
            return tag("p", f"{self.caption}.")
        head = tag("tr", *(_cell("th", c, truncate(c.title, c.width), c.title, scope="col") for c in self.columns))
        lines = self._cut([c.width for c in self.columns])
        body = [
            tag(
                "tr", *(_cell("td", c, line, v or MISSING) for c, line, v in zip(self.columns, shown, row, strict=True))
            )
            for shown, row in zip(lines, self.rows, strict=True)
        ]
        caption = tag("caption", self.caption, align="left", style="text-align:left")
        return tag("table", caption, tag("thead", head), tag("tbody", *body), class_="kern-table")

    def __str__(self) -> str:
        """The table as aligned text."""
        if not self.rows:
            return "\n".join([f"{self.caption}.", *([self.note] if self.note else [])])
        shown = [[c.title for c in self.columns]]
        shown += self._cut([min(c.width, _TEXT_WIDTH) for c in self.columns])
        longest = [max(len(row[i]) for row in shown) for i in range(len(self.columns))]
        lines = []
        for row in shown:
            cells = zip(self.columns, row, longest, strict=True)
            lines.append("  ".join(v.rjust(n) if c.number else v.ljust(n) for c, v, n in cells).rstrip())
        return "\n".join([f"{self.caption}:", *lines, *([self.note] if self.note else [])])

    def _cut(self, widths: Sequence[int]) -> list[list[str]]:
        """The rows, their values cut."""
        columns = zip(zip(*self.rows, strict=True), widths, strict=True)
        shown = [truncate_distinct([value or MISSING for value in values], width) for values, width in columns]
        return [list(row) for row in zip(*shown, strict=True)]


def _cell(name: str, column: Column, line: str, value: str, scope: str | None = None) -> Markup:
    # The attribute is for GitHub, which drops styles; the style for JupyterLab, whose own would win over an attribute.
    align, style = ("right", RIGHT) if column.number else ("left", LEFT)
    style += _WHOLE if len(value) <= _TEXT_WIDTH else ""  # ids and times break at their hyphens otherwise
    return tag(name, titled(line, value), scope=scope, align=align, style=style)
