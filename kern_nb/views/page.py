"""Render transcripts as one standalone HTML page, without scripts or external resources.

This is the only markup with a style sheet of its own; notebooks bring theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from kern_nb.text.formatting import truncate
from kern_nb.text.html import Markup, escape, isolate, join, tag

_TITLE = 120

# The policy is a second barrier: if unescaped text ever got through, a browser would still run and fetch nothing.
_HEAD = Markup(
    """\
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 3rem; }
h1, h2, p, li, td, th, summary { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
.kern-messages { table-layout: fixed; }
.kern-messages th:nth-child(1) { width: 3.5rem; }
.kern-messages th:nth-child(2) { width: 6.5rem; }
td, th { border-top: 1px solid rgb(128 128 128 / 40%); padding: .35rem .6rem .35rem 0; vertical-align: top; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .5rem; margin: .3rem 0; }
pre { background: rgb(128 128 128 / 12%); }
summary { cursor: pointer; }
footer { margin-top: 3rem; opacity: .7; font-size: .9rem; }
@media print { body { max-width: none; } }
</style>
"""
)


def page_start(title: str, contents: Sequence[str] = ()) -> str:
    """Render the page up to its first section, with a table of contents if titles are given."""
    title = truncate(title, _TITLE)
    head = join(Markup('<!DOCTYPE html>\n<html lang="en">\n<head>\n'), _HEAD, tag("title", title))
    links = (tag("li", tag("a", isolate(truncate(name, _TITLE)), href=f"#s{n}")) for n, name in enumerate(contents, 1))
    navigation = tag("nav", tag("ol", *links)) if contents else None
    return str(join(head, Markup("\n</head>\n<body>\n"), tag("h1", isolate(title)), navigation, Markup("\n")))


def page_section(number: int, title: str, parts: Sequence[Markup], *, alone: bool) -> str:
    """Render one conversation; if it is ``alone``, the heading of the page suffices. Links have its number."""
    heading = None if alone else tag("h2", isolate(truncate(title, _TITLE)))
    return str(join(tag("section", heading, *parts, id=f"s{number}"), Markup("\n")))


def page_end(footer: str) -> str:
    """Render the end of the page, with a footer."""
    return str(join(tag("footer", escape(footer)), Markup("\n</body>\n</html>\n")))
