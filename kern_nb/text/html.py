"""Build HTML that is safe by construction.

A `Markup` is safe; everything else is text and is escaped when it is inserted. There are no scripts, style sheets or
colours: untrusted notebooks drop them and dark themes clash with them. Elements and signs carry the meaning; the few
inline styles only undo JupyterLab's right-aligned cells.
"""

from __future__ import annotations

import html
import re

from kern_nb.text.formatting import escape_controls, format_count, truncate

MAX_LENGTH = 20_000
"""The most characters of one text that are rendered."""

FOLD_LENGTH = 1_500
"""A longer text is folded after `PREVIEW_LENGTH` characters."""

PREVIEW_LENGTH = 1_000

# Both classes are needed: current and older MathJax in JupyterLab would typeset "$5 or $6" as a formula.
_CONTAINER = "kern-output tex2jax_ignore mathjax_ignore"

_UNBROKEN = re.compile(r"\S{60}")
_INDENT = re.compile(r"^ +|(?<= ) +", re.MULTILINE)


class Markup(str):
    """Markup that is safe to show. String methods return plain text again."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Escape any value for elements and attributes, control characters included."""
    return value if isinstance(value, Markup) else Markup(html.escape(escape_controls(str(value)), quote=True))


def join(*parts: object, by: str = "") -> Markup:
    """Concatenate parts; None is skipped."""
    return Markup(escape(by).join(escape(part) for part in parts if part is not None))


def tag(name: str, *children: object, **attributes: str | bool | int | None) -> Markup:
    """Build an element of texts and markup; None is skipped.

    ``class_`` stands for class; True writes an attribute without a value, None and False omit it.
    """
    opening = name
    for attribute, value in attributes.items():
        if value is True:
            opening += f" {attribute}"
        elif value is not None and value is not False:
            opening += f' {attribute.rstrip("_")}="{escape(value)}"'
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def isolate(text: str) -> Markup:
    """Isolate the direction of a short text from a store, so that it does not reverse the surrounding line."""
    return tag("bdi", text)


def abbreviate(text: str, width: int) -> Markup:
    """Truncate a text to one line; the full text becomes its title."""
    return with_title(truncate(text, width), text)


def with_title(line: str, text: str) -> Markup:
    """Give a truncated line the full text as its title, if they differ."""
    full = truncate(text, PREVIEW_LENGTH)
    return escape(line) if line == full else tag("abbr", line, title=full)


def preserve_whitespace(text: str) -> Markup:
    """Keep line breaks and indents without styles, and allow breaks in long words."""
    indented = _INDENT.sub(lambda match: "\u00a0" * len(match[0]), escape_controls(text))
    pieces = _UNBROKEN.sub(lambda match: match[0] + "\x00", indented).split("\x00")
    return Markup("<wbr>".join(map(escape, pieces)).replace("\n", "<br>"))


def render_text(text: str, limit: int = MAX_LENGTH) -> Markup:
    """Render a text of any length: its beginning, the remainder folded, and at most ``limit`` characters."""
    if len(text) <= FOLD_LENGTH:
        return preserve_whitespace(text)
    summary = f"… {format_count(len(text) - PREVIEW_LENGTH)} more characters"
    folded = details(summary, preserve_whitespace(text[PREVIEW_LENGTH:limit]), truncation_note(text, limit))
    return join(preserve_whitespace(text[:PREVIEW_LENGTH]), folded)


def preformatted(text: str, limit: int = MAX_LENGTH) -> Markup:
    """Render code or data unchanged, at most ``limit`` characters."""
    return join(tag("pre", text[:limit]), truncation_note(text, limit))


def truncation_note(text: str, limit: int) -> Markup | None:
    """State how many characters of a text are not shown; None if all are."""
    remaining = len(text) - limit
    return tag("p", tag("em", f"… {format_count(remaining)} more characters not shown.")) if remaining > 0 else None


def details(summary: object, *body: object, open_: bool = False, class_: str | None = None) -> Markup:
    """Fold a body under a summary."""
    return tag("details", tag("summary", summary), *body, open=open_, class_=class_)


def container(*children: object) -> str:
    """Wrap parts as a complete output for ``_repr_html_``."""
    return str(tag("div", *children, class_=_CONTAINER))
