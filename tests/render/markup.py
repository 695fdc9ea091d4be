"""A strict reader of the markup we write: what is not allowed is a problem."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# All of these survive the sanitizers of JupyterLab (untrusted notebooks) and GitHub.
ELEMENTS = frozenset(
    "abbr bdi br caption code del details div em ins p pre strong summary table tbody td th thead tr wbr".split()  # noqa: SIM905
)
ATTRIBUTES = frozenset({"class", "title", "scope", "align", "style", "open", "colspan"})
VOID = frozenset({"br", "wbr"})
STYLE = re.compile(r"(text-align:(left|right)|vertical-align:top|white-space:nowrap)(;|\Z)")


class Markup(HTMLParser):
    """Read a piece of markup.

    Attributes:
        problems: What is not allowed in it.
        text: The text that a reader sees; a line break is one.
        elements: The names of its elements, in order.
    """

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.text = ""
        self.elements: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        self.problems += [f"<{name}> is not closed" for name in self._open]

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        if tag == "br":
            self.text += "\n"
        if tag not in ELEMENTS:
            self.problems.append(f"element <{tag}>")
        for name, value in attrs:
            if name not in ATTRIBUTES:
                self.problems.append(f"attribute {name} of <{tag}>")
            if name == "style" and STYLE.sub("", value or ""):
                self.problems.append(f"style {value}")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.problems.append(f"comment {data!r}")

    def handle_decl(self, decl):
        self.problems.append(f"declaration {decl!r}")

    def handle_pi(self, data):
        self.problems.append(f"instruction {data!r}")
