"""A strict parser of rendered markup; anything that is not allowed is a problem."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# All of these survive the sanitizers of JupyterLab (untrusted notebooks) and GitHub.
ELEMENTS = frozenset(
    "a abbr bdi blockquote br caption code del details div em hr ins li ol p pre strong summary table tbody td th thead tr ul wbr".split()  # noqa: SIM905
)
ATTRIBUTES = frozenset({"class", "title", "scope", "align", "style", "open", "colspan", "start"})
LINK = frozenset({"href", "rel", "target", "title"})
HEADING = frozenset({"role", "aria-level"})  # these are dropped; its words are strong, too
ADDRESS = re.compile(r"(https?://|mailto:)[!-~]+")
VOID = frozenset({"br", "hr", "wbr"})
STYLE = re.compile(r"(text-align:(left|right|center)|vertical-align:top|white-space:nowrap)(;|\Z)")


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
        if tag == "a":
            self._check_link(dict(attrs))
        allowed = {"a": LINK, "p": HEADING | ATTRIBUTES}.get(tag, ATTRIBUTES)
        for name, value in attrs:
            if name not in allowed:
                self.problems.append(f"attribute {name} of <{tag}>")
            if name == "style" and STYLE.sub("", value or ""):
                self.problems.append(f"style {value}")
        if tag not in VOID:
            self._open.append(tag)

    def _check_link(self, attributes):
        if not ADDRESS.fullmatch(attributes.get("href", "")):
            self.problems.append(f"a link to {attributes.get('href')!r}")
        if (attributes.get("rel"), attributes.get("target")) != ("noopener noreferrer", "_blank"):
            self.problems.append("a link that tells where it is followed from")

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
