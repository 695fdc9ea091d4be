"""Tables as data, rendered to markup and to text with the same content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kern_nb.text.formatting import MISSING, truncate, truncate_distinct
from kern_nb.text.html import Markup, container, join, tag, with_title

LEFT = "text-align:left;vertical-align:top"
RIGHT = "text-align:right;vertical-align:top"
_NO_WRAP = ";white-space:nowrap"
_TEXT_WIDTH = 40


@dataclass(frozen=True)
class Column:
    """A column of a table; one of numbers is aligned to the right.

    Values longer than its width are truncated so that they still differ; the full value becomes a title.
    """

    title: str
    number: bool = False
    width: int = 80


@dataclass(frozen=True)
class Table:
    """A table to read, with a note below it; an empty text in a row is an unknown value."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """Return the table without columns that have no value in any row."""
        filled = [i for i in range(len(self.columns)) if any(row[i] not in ("", MISSING) for row in self.rows)]
        columns = [self.columns[i] for i in filled]
        return replace(self, columns=columns, rows=[[row[i] for i in filled] for row in self.rows])

    def html(self) -> str:
        """Render the table and its note as a complete output."""
        return container(self.markup(with_note=True))

    def markup(self, *, with_note: bool = False) -> Markup:
        """Render the table."""
        note = tag("p", self.note) if self.note and with_note else None
        if not self.rows:
            return join(tag("p", f"{self.caption}."), note)
        head = tag("tr", *(_cell("th", c, truncate(c.title, c.width), c.title, scope="col") for c in self.columns))
        body = []
        for lines, row in zip(self._truncate([c.width for c in self.columns]), self.rows, strict=True):
            cells = zip(self.columns, lines, row, strict=True)
            body.append(tag("tr", *(_cell("td", column, line, value or MISSING) for column, line, value in cells)))
        caption = tag("caption", self.caption, align="left", style="text-align:left")
        return join(tag("table", caption, tag("thead", head), tag("tbody", *body), class_="kern-table"), note)

    def __str__(self) -> str:
        note = [self.note] if self.note else []
        if not self.rows:
            return "\n".join([f"{self.caption}.", *note])
        rows = [[c.title for c in self.columns], *self._truncate([min(c.width, _TEXT_WIDTH) for c in self.columns])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        lines = []
        for row in rows:
            cells = zip(self.columns, row, widths, strict=True)
            lines.append("  ".join(v.rjust(n) if c.number else v.ljust(n) for c, v, n in cells).rstrip())
        return "\n".join([f"{self.caption}:", *lines, *note])

    def _truncate(self, widths: Sequence[int]) -> list[list[str]]:
        columns = zip(zip(*self.rows, strict=True), widths, strict=True)
        truncated = [truncate_distinct([value or MISSING for value in values], width) for values, width in columns]
        return [list(row) for row in zip(*truncated, strict=True)]


def _cell(name: str, column: Column, line: str, value: str, scope: str | None = None) -> Markup:
    # The attribute is for GitHub, which drops styles; the style for JupyterLab, whose own overrides the attribute.
    align, style = ("right", RIGHT) if column.number else ("left", LEFT)
    style += _NO_WRAP if len(value) <= _TEXT_WIDTH else ""  # else ids and times break at their hyphens
    return tag(name, with_title(line, value), scope=scope, align=align, style=style)


def text_cell(content: object, *, is_head: bool = False, colspan: int | None = None) -> Markup:
    """Build a cell that is aligned to the left."""
    name, scope = ("th", "col") if is_head else ("td", None)
    return tag(name, content, colspan=colspan, scope=scope, align="left", style=LEFT)


def text_row(*cells: object, is_head: bool = False) -> Markup:
    """Build a row of cells that are aligned to the left."""
    return tag("tr", *(text_cell(cell, is_head=is_head) for cell in cells))
