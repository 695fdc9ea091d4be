"""A page of its own: transcripts as one HTML file to read and to pass on. No script, nothing from elsewhere.

This is the only markup of ours with a style sheet: in a notebook the notebook's own is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from kern_nb.text.formatting import truncate
from kern_nb.text.html import Markup, escape, isolate, join, tag

_TITLE = 120

# The policy is a second wall: were a text to get through unescaped, a browser would still run and fetch nothing.
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
    """The page up to its first section; where there are several, with what they are called."""
    named = truncate(title, _TITLE)
    head = join(Markup('<!DOCTYPE html>\n<html lang="en">\n<head>\n'), _HEAD, tag("title", named))
    links = (tag("li", tag("a", isolate(truncate(name, _TITLE)), href=f"#s{n}")) for n, name in enumerate(contents, 1))
    listed = tag("nav", tag("ol", *links)) if contents else None
    return str(join(head, Markup("\n</head>\n<body>\n"), tag("h1", isolate(named)), listed, Markup("\n")))


def page_section(number: int, title: str, parts: Sequence[Markup], *, alone: bool) -> str:
    """One conversation; ``alone`` where the page has no other, and its heading says it all."""
    heading = None if alone else tag("h2", isolate(truncate(title, _TITLE)))
    return str(join(tag("section", heading, *parts, id=f"s{number}"), Markup("\n")))


def page_end(made: str) -> str:
    """The page from its last section on, with a word on how it was made."""
    return str(join(tag("footer", escape(made)), Markup("\n</body>\n</html>\n")))
