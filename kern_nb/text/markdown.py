"""Parse the Markdown of models into a small tree of allowed elements, and render that tree.

Only the tree leaves this module: `render_markdown` renders it as markup, and a widget's script builds DOM elements from
it. It contains nothing active: HTML in a text stays text; images are shown as alt text and address and never fetched; a
link leads to an allowed address or is no link. Nothing is dropped: what Markdown would treat as a definition, a comment
or a dead address stays visible.

A text without Markdown syntax, or one that is too long to parse, is shown unchanged, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from kern_nb.text import html
from kern_nb.text.formatting import escape_controls, format_count, truncate
from kern_nb.text.html import FOLD_LENGTH, MAX_LENGTH, PREVIEW_LENGTH, Markup, details, join, preserve_whitespace, tag
from kern_nb.text.tables import LEFT

if TYPE_CHECKING:
    from mistune import BlockParser, BlockState, InlineParser, InlineState, Markdown

MAX_PARSED_LENGTH = 100_000
"""A longer text is not parsed as Markdown."""

_BLOCKS = [
    "fenced_code", "atx_heading", "setex_heading", "thematic_break", "block_quote", "list", "table", "blank_line",
]  # fmt: skip
_INLINES = ["escape", "codespan", "literal", "emphasis", "link", "link_close", "softbreak", "strikethrough"]
# A backslash before any other character stays: "\(x\)" is a formula, "C:\(old)" a folder.
_ESCAPE = r"(?:\\[\\`*_#+\-.!|<>~])+"
# Names such as __init__ and powers such as 2**8 are more likely than bold words.
_LITERAL = r"(?<!\w)__\w+?__(?!\w)|(?<=\d)\*+(?=\d)"
# Only where a table may start; `_table` checks the rest. No two parts of a pattern may match the same blanks: with
# backtracking the time would grow with the square of the length.
_TABLE = r"^ {0,3}(?=[^\n|]*\|)[^\n]+\n {0,3}[-|:][-|: \t]*(?:\n|\Z)"
_RULE_CELL = re.compile(r":?-+:?")
_ALIGNMENTS = {(":", ":"): "center", ("-", ":"): "right", (":", "-"): "left"}
_BAR = re.compile(r"(?<!\\)\|")
_DEPTH = 12
_MAX_PADDING = 1_000
"""A table ends where more empty cells than this would be needed to complete short rows."""
_PIECE = 4_000
"""A longer paragraph is parsed in pieces: mistune's time for emphasis grows with the square of the length."""

_SIGNS = re.compile(r"[*_`#>|\[~=+-]|\d[.)]")
_ADDRESS = re.compile(r"(?:https?://|mailto:)[!-~]+", re.IGNORECASE)
_PLAIN = frozenset({"p", "br"})
_VOID = frozenset({"br", "hr"})
_NAMES = {
    "paragraph": "p", "block_quote": "blockquote", "list_item": "li", "table": "table", "table_body": "tbody",
    "table_row": "tr", "thematic_break": "hr", "softbreak": "br", "linebreak": "br", "strong": "strong",
    "emphasis": "em", "strikethrough": "del",
}  # fmt: skip
_MAX_INFO = 1_000
_UNSPLIT = {"li": 400, "tr": 2_000, "thead": 2_000, "a": 200, "br": 1}
"""Elements that are not split up to this many characters."""


class Element(NamedTuple):
    """An element of the tree; as JSON, a list of three.

    Attributes:
        name: a, blockquote, br, code, del, em, hr, li, ol, p, pre, strong, table, tbody, td, th, thead, tr or ul.
        children: Texts and elements.
        attributes: href and title of a, title of pre, start of ol, align of td and th; role and aria-level of a p that
            is a heading, so that it does not become a heading of the notebook.
    """

    name: str
    children: tuple[Node, ...]
    attributes: dict[str, str]


Node = str | Element


def parse(text: str) -> tuple[Node, ...] | None:
    """Parse a text into a tree; None if it has no Markdown, and is to be shown unchanged."""
    if len(text) > MAX_PARSED_LENGTH or not _SIGNS.search(text):
        return None
    return _parse(text)


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[Node, ...] | None:
    try:
        tokens = _parser()(escape_controls(text))
        nodes = tuple(_nodes(tokens if isinstance(tokens, list) else []))
    except Exception:  # noqa: BLE001 - a text that breaks the parser is shown unchanged
        return None
    return None if _is_plain(nodes) else nodes


@cache
def _parser() -> Markdown:
    """Return a parser without HTML, definitions, and code by indent, which is frequent in plain texts."""
    from mistune import BlockParser, InlineParser, Markdown
    from mistune.plugins.formatting import strikethrough

    class PiecewiseParser(InlineParser):
        """Parse long paragraphs in pieces."""

        def __call__(self, s: str, env: MutableMapping[str, Any]) -> list[dict[str, Any]]:
            return [token for piece in _pieces(s) for token in super(PiecewiseParser, self).__call__(piece, env)]

    blocks = BlockParser(block_quote_rules=_BLOCKS, list_rules=_BLOCKS, max_nested_level=_DEPTH)
    inline = PiecewiseParser(max_nested_level=_DEPTH)
    parser = Markdown(renderer=None, block=blocks, inline=inline, plugins=[strikethrough])
    blocks.register("table", _TABLE, _table)
    blocks.register("atx_heading", None, _atx_heading)
    inline.register("literal", _LITERAL, _literal, before="emphasis", start_chars=list("_*"))
    blocks.rules, inline.rules = list(_BLOCKS), list(_INLINES)
    inline.specification |= {"escape": _ESCAPE, "softbreak": r" *\n"}  # the indent of the next line stays
    return parser


def _literal(inline: InlineParser, match: re.Match[str], state: InlineState) -> int:
    inline.process_text(match[0], state, parse_emphasis=False)
    return match.end()


def _pieces(text: str) -> Iterator[str]:
    """Split a paragraph, after a line or a word if possible."""
    while len(text) > _PIECE:
        ends = (text.rfind(sign, _PIECE // 2, _PIECE) + 1 for sign in ("\n", " "))
        end = next(filter(None, ends), _PIECE)
        yield text[:end]
        text = text[end:]
    yield text


def _atx_heading(_: BlockParser, match: re.Match[str], state: BlockState) -> int:
    """Parse a heading with leading signs; closing signs are removed."""
    text = match["atx_2"].strip(" \t\v\f")
    without = text.rstrip("#")
    if without != without.rstrip() or not without:
        text = without.rstrip()
    state.append_token({"type": "heading", "text": text, "attrs": {"level": len(match["atx_1"])}, "style": "atx"})
    return match.end() + 1


def _table(_: BlockParser, match: re.Match[str], state: BlockState) -> int | None:
    """Parse a table, including rows with too few or too many cells, as models write them."""
    head, rule = match[0].splitlines()[:2]
    heads, rules = _cells(head), _cells(rule)
    if len(heads) != len(rules) or not all(_RULE_CELL.fullmatch(cell) for cell in rules):
        return None
    aligns = [_ALIGNMENTS.get((cell[0], cell[-1])) for cell in rules]
    end, rows, n_padding = match.end(), [], 0
    while end < state.cursor_max and "|" in (line := state.get_line(end)):
        cells = _cells(line)
        cells[len(heads) - 1 :] = [" | ".join(cells[len(heads) - 1 :])]
        n_padding += len(heads) - len(cells)
        if n_padding > _MAX_PADDING:
            break
        rows.append(cells + [""] * (len(heads) - len(cells)))
        end += len(line)

    def row(cells: list[str], *, head: bool = False) -> list[dict[str, Any]]:
        aligned = zip(cells, aligns, strict=True)
        return [
            {"type": "table_cell", "text": text, "attrs": {"align": align, "head": head}} for text, align in aligned
        ]

    body = [{"type": "table_row", "children": row(cells)} for cells in rows]
    children = [{"type": "table_head", "children": row(heads, head=True)}, {"type": "table_body", "children": body}]
    state.append_token({"type": "table", "children": children})
    return end


def _cells(line: str) -> list[str]:
    line = line.strip().removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(line)]


def _is_plain(nodes: Sequence[Node]) -> bool:
    return all(isinstance(node, str) or (node.name in _PLAIN and _is_plain(node.children)) for node in nodes)


def _nodes(tokens: Sequence[dict[str, Any]]) -> Iterator[Node]:
    """Convert tokens to nodes; of unexpected tokens only the text is kept."""
    for token in tokens:
        kind, children = token["type"], tuple(_nodes(token.get("children", ())))
        if kind in _NAMES:
            yield _element(_NAMES[kind], children)
        elif kind in _CONVERTERS:
            yield _CONVERTERS[kind](token, children)
        elif kind in ("link", "image"):
            yield from _link(token, children)
        elif children:
            yield from children
        elif "raw" in token:
            yield _text(token["raw"])


def _element(name: str, children: tuple[Node, ...], **attributes: Any) -> Element:
    """Build an element; empty attributes are omitted."""
    return Element(name, children, {key.replace("_", "-"): str(value) for key, value in attributes.items() if value})


def _text(raw: str) -> str:
    from mistune.util import unescape

    # A character reference may stand for a control character.
    return escape_controls(unescape(raw))


def _heading(token: dict[str, Any], children: tuple[Node, ...]) -> Element:
    level = token["attrs"]["level"]
    return _element("p", (_element("strong", children or ("#" * level,)),), role="heading", aria_level=level)


def _list(token: dict[str, Any], children: tuple[Node, ...]) -> Element:
    attrs = token["attrs"]
    return _element("ol", children, start=str(attrs.get("start", 1))) if attrs["ordered"] else _element("ul", children)


def _cell(token: dict[str, Any], children: tuple[Node, ...]) -> Element:
    return _element("th" if token["attrs"]["head"] else "td", children, align=token["attrs"]["align"])


def _code(token: dict[str, Any], _: tuple[Node, ...]) -> Element:
    info = truncate(str(token.get("attrs", {}).get("info", "")), _MAX_INFO)
    return _element("pre", (token["raw"].removesuffix("\n"),), title=info)


def _link(token: dict[str, Any], children: tuple[Node, ...]) -> Iterator[Node]:
    """Convert a link with an allowed address; of any other, and of an image, keep the text and the address."""
    address, title = str(token["attrs"]["url"]), escape_controls(str(token["attrs"].get("title") or ""))
    if token["type"] == "link" and _ADDRESS.fullmatch(address):
        yield _element("a", children or (address,), href=address, title=title)
        return
    if token["type"] == "image":
        yield _element("em", ("image: ", *children) if children else ("image",))
    else:
        yield from children
    yield f" ({escape_controls(address)}{f' “{title}”' if title else ''})"


_CONVERTERS: dict[str, Callable[[dict[str, Any], tuple[Node, ...]], Element]] = {
    "heading": _heading,
    "list": _list,
    "table_head": lambda _, children: _element("thead", (_element("tr", children),)),
    "table_cell": _cell,
    "block_code": _code,
    "codespan": lambda token, _: _element("code", (token["raw"],)),
}


def text_length(nodes: Sequence[Node]) -> int:
    """Count the characters of a tree that are read."""
    return sum(
        len(node) if isinstance(node, str) else text_length(node.children) + (node.name in _VOID) for node in nodes
    )


def split(nodes: Sequence[Node], length: int) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Split a tree after ``length`` characters; units such as a table row stay in one piece."""
    head: list[Node] = []
    for index, node in enumerate(nodes):
        node_length = text_length([node])
        if node_length <= length:
            head.append(node)
            length -= node_length
            continue
        first, second = (node[:length], node[length:]) if isinstance(node, str) else _split_element(node, length)
        return (*head, *((first,) if first else ())), (second, *nodes[index + 1 :])
    return tuple(head), ()


def _split_element(node: Element, length: int) -> tuple[Node | None, Node]:
    if text_length([node]) <= _UNSPLIT.get(node.name, 0):
        return None, node
    first, second = split(node.children, length)
    if not first:
        return None, node
    attributes = node.attributes
    if node.name == "ol":  # the numbering continues; a split item keeps its number
        n_split = len(first) + len(second) - len(node.children)
        attributes = {"start": str(int(attributes["start"]) + len(first) - n_split)}
    return node._replace(children=first), node._replace(children=second, attributes=attributes)


def render_markdown(text: str, limit: int = MAX_LENGTH) -> Markup:
    """Render a text of a model, of any length, as Markdown if it has any, else like `html.render_text`."""
    nodes = parse(text[:limit])
    if nodes is None:
        return html.render_text(text, limit)
    head, tail = split(nodes, PREVIEW_LENGTH) if text_length(nodes) > FOLD_LENGTH else (nodes, ())
    note = html.truncation_note(text, limit)
    if not tail:
        return join(markup(head), note)
    n_more = text_length(tail) + max(0, len(text) - limit)
    return join(markup(head), details(f"… {format_count(n_more)} more characters", markup(tail), note))


def markup(nodes: Sequence[Node]) -> Markup:
    """Render a tree."""
    return join(*(preserve_whitespace(node) if isinstance(node, str) else _render(node) for node in nodes))


def _render(element: Element) -> Markup:
    if element.name in _VOID:
        return Markup(f"<{element.name}>")
    if element.name == "pre":
        return tag("pre", *element.children, **element.attributes)
    attributes = {key: value for key, value in element.attributes.items() if (key, value) != ("start", "1")}
    if element.name == "a":
        attributes |= {"rel": "noopener noreferrer", "target": "_blank"}
    elif element.name in ("td", "th"):  # both, as in `tables`
        align = attributes.setdefault("align", "left")
        attributes["style"] = LEFT.replace("left", align)
    return tag(element.name, markup(element.children), **attributes)
