"""The building blocks of markup.

A `Markup` is safe; anything else is text, and is escaped where it is put in. So a value nobody thought of is shown, not
obeyed. There are no scripts, no style sheets and no colours: an untrusted notebook drops them, a dark theme fights
them. Meaning is in elements and signs; the few inline styles only undo JupyterLab's right-aligned cells.
"""

from __future__ import annotations

import html
import re

from kern_nb.text.formatting import escape_controls, format_count, truncate

MAX_LENGTH = 20_000
"""The most characters that are rendered of one text."""

FOLDED_FROM = 1_500
FIRST_SHOWN = 1_000

# Both are needed: JupyterLab's MathJax and older ones would set "$5 or $6" as a formula.
_CONTAINER = "kern-output tex2jax_ignore mathjax_ignore"

_UNBROKEN = re.compile(r"\S{60}")
_INDENT = re.compile(r"^ +|(?<= ) +", re.MULTILINE)


class Markup(str):
    """Markup that is safe to show. What is made of it by string methods is text again."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Any value as markup: escaped for elements and attributes, its control characters made visible."""
    return value if isinstance(value, Markup) else Markup(html.escape(escape_controls(str(value)), quote=True))


def join(*parts: object, by: str = "") -> Markup:
    """Parts side by side; those that are None are left out."""
    return Markup(escape(by).join(escape(part) for part in parts if part is not None))


def tag(name: str, *children: object, **attributes: str | bool | int | None) -> Markup:
    """An element. ``class_`` is written for class, True is an attribute without a value, None and False are none."""
    opening = name
    for attribute, value in attributes.items():
        if value is True:
            opening += f" {attribute}"
        elif value is not None and value is not False:
            opening += f' {attribute.rstrip("_")}="{escape(value)}"'
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def isolate(text: str) -> Markup:
    """A short text from a store within a line of ours: its direction does not turn ours around."""
    return tag("bdi", text)


def abbreviate(text: str, width: int) -> Markup:
    """A text on one line; where it is cut, the whole is its title."""
    return titled(truncate(text, width), text)


def titled(line: str, text: str) -> Markup:
    """A line that a text was cut to; where that is not all of it, the whole is its title."""
    whole = truncate(text, FIRST_SHOWN)
    return escape(line) if line == whole else tag("abbr", line, title=whole)


def flowing(text: str) -> Markup:
    """A text that keeps its line breaks and indents with every style stripped, and wraps where it has no spaces."""
    escaped = [escape(piece) for piece in _pieces(escape_controls(text))]
    return Markup("<wbr>".join(escaped).replace("\n", "<br>"))


def _pieces(text: str) -> list[str]:
    spaced = _INDENT.sub(lambda found: "\u00a0" * len(found[0]), text)
    return _UNBROKEN.sub(lambda found: found[0] + "\x00", spaced).split("\x00")


def render_text(text: str, limit: int = MAX_LENGTH) -> Markup:
    """A text of any length: its beginning, the rest folded away, and of a huge one only ``limit`` characters."""
    if len(text) <= FOLDED_FROM:
        return flowing(text)
    summary = f"… {format_count(len(text) - FIRST_SHOWN)} more characters"
    folded = details(summary, flowing(text[FIRST_SHOWN:limit]), unseen(text, limit))
    return join(flowing(text[:FIRST_SHOWN]), folded)


def preformatted(text: str, limit: int = MAX_LENGTH) -> Markup:
    """Code or data as it is, cut at ``limit`` characters with a word about it."""
    return join(tag("pre", text[:limit]), unseen(text, limit))


def unseen(text: str, limit: int) -> Markup | None:
    """What is not shown of a text, in words."""
    left = len(text) - limit
    return tag("p", tag("em", f"… {format_count(left)} more characters are not shown.")) if left > 0 else None


def details(summary: object, *body: object, open_: bool = False, class_: str | None = None) -> Markup:
    """What is folded away under a summary."""
    return tag("details", tag("summary", summary), *body, open=open_, class_=class_)


def container(*children: object) -> str:
    """A whole output, ready for ``_repr_html_``."""
    return str(tag("div", *children, class_=_CONTAINER))
