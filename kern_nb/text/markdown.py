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
from kern_nb.text.html import FIRST_SHOWN, FOLDED_FROM, MAX_LENGTH, Markup, details, flowing, join, tag
from kern_nb.text.tables import LEFT

if TYPE_CHECKING:
    from mistune import BlockParser, BlockState, InlineParser, InlineState, Markdown

MOST = 100_000
"""A text longer than this is not read as Markdown."""

_BLOCKS = [
    "fenced_code", "atx_heading", "setex_heading", "thematic_break", "block_quote", "list", "table", "blank_line",
]  # fmt: skip
_INLINES = ["escape", "codespan", "literal", "emphasis", "link", "link_close", "softbreak", "strikethrough"]
# A backslash before any other sign stays: "\(x\)" is a formula, "C:\(old)" a folder.
_ESCAPE = r"(?:\\[\\`*_#+\-.!|<>~])+"
# Names such as __init__ and powers such as 2**8 are more often meant than words in bold.
_LITERAL = r"(?<!\w)__\w+?__(?!\w)|(?<=\d)\*+(?=\d)"
# Only where a table may start; `_table` looks closer. No two parts of a pattern here may match the same blanks, since a
# text that a pattern tries in many ways takes time that grows with the square of its length.
_TABLE = r"^ {0,3}(?=[^\n|]*\|)[^\n]+\n {0,3}[-|:][-|: \t]*(?:\n|\Z)"
_RULE_CELL = re.compile(r":?-+:?")
_BAR = re.compile(r"(?<!\\)\|")
_DEPTH = 12
_FILLED = 1_000
"""A table ends where more cells than this would be there only because its rows are too short."""
_PIECE = 4_000
"""A longer paragraph is read in pieces: what mistune does with emphasis grows with the square of its length."""

_SIGNS = re.compile(r"[*_`#>|\[~=+-]|\d[.)]")
_ADDRESS = re.compile(r"(?:https?://|mailto:)[!-~]+", re.IGNORECASE)
_PLAIN = frozenset({"p", "br"})
_VOID = frozenset({"br", "hr"})
_NAMES = {
    "paragraph": "p", "block_quote": "blockquote", "list_item": "li", "table": "table", "table_body": "tbody",
    "table_row": "tr", "thematic_break": "hr", "softbreak": "br", "linebreak": "br", "strong": "strong",
    "emphasis": "em", "strikethrough": "del",
}  # fmt: skip
_INFO = 1_000
_WHOLE = {"li": 400, "tr": 2_000, "thead": 2_000, "a": 200, "br": 1}
"""Elements that are not cut in two up to this many characters."""


class Element(NamedTuple):
    """An element of the tree; as JSON, a list of three.

    Attributes:
        name: a, blockquote, br, code, del, em, hr, li, ol, p, pre, strong, table, tbody, td, th, thead, tr or ul.
        children: What is in it.
        attributes: href and title of a, title of pre, start of ol, align of td and th; role and aria-level of a p that
            is a heading, since a heading of a text is none of the notebook's.
    """

    name: str
    children: tuple[Node, ...]
    attributes: dict[str, str]


Node = str | Element


def parse(text: str) -> tuple[Node, ...] | None:
    """A text as a tree; None where it is not Markdown, and is to be shown as it is."""
    if len(text) > MOST or not _SIGNS.search(text):
        return None
    return _parse(text)


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[Node, ...] | None:
    try:
        tokens = _reader()(escape_controls(text))
        nodes = tuple(_nodes(tokens if isinstance(tokens, list) else []))
    except Exception:  # noqa: BLE001 - whatever a text does to its reader, it can be read as it is
        return None
    return None if _is_plain(nodes) else nodes


@cache
def _reader() -> Markdown:
    """What Markdown there is: no HTML, no definitions, no code by indent alone, which plain texts are full of."""
    from mistune import BlockParser, InlineParser, Markdown
    from mistune.plugins.formatting import strikethrough

    class PiecewiseParser(InlineParser):
        """Reads long paragraphs in pieces."""

        def __call__(self, s: str, env: MutableMapping[str, Any]) -> list[dict[str, Any]]:
            return [token for piece in _pieces(s) for token in super(PiecewiseParser, self).__call__(piece, env)]

    render_markdown = BlockParser(block_quote_rules=_BLOCKS, list_rules=_BLOCKS, max_nested_level=_DEPTH)
    inline = PiecewiseParser(max_nested_level=_DEPTH)
    made = Markdown(renderer=None, block=render_markdown, inline=inline, plugins=[strikethrough])
    render_markdown.register("table", _TABLE, _table)
    render_markdown.register("atx_heading", None, _atx_heading)
    inline.register("literal", _LITERAL, _literal, before="emphasis", start_chars=list("_*"))
    render_markdown.rules, inline.rules = list(_BLOCKS), list(_INLINES)
    inline.specification |= {"escape": _ESCAPE, "softbreak": r" *\n"}  # the indent of the next line stays
    return made


def _literal(inline: InlineParser, found: re.Match[str], state: InlineState) -> int:
    inline.process_text(found[0], state, parse_emphasis=False)
    return found.end()


def _pieces(text: str) -> Iterator[str]:
    """A paragraph in pieces, cut after a line or a word where there is one."""
    while len(text) > _PIECE:
        ends = (text.rfind(sign, _PIECE // 2, _PIECE) + 1 for sign in ("\n", " "))
        end = next(filter(None, ends), _PIECE)
        yield text[:end]
        text = text[end:]
    yield text


def _atx_heading(_: BlockParser, match: re.Match[str], state: BlockState) -> int:
    """A heading by signs in front, without the signs that close it."""
    text = match["atx_2"].strip(" \t\v\f")
    without = text.rstrip("#")
    if without != without.rstrip() or not without:
        text = without.rstrip()
    state.append_token({"type": "heading", "text": text, "attrs": {"level": len(match["atx_1"])}, "style": "atx"})
    return match.end() + 1


def _table(_: BlockParser, found: re.Match[str], state: BlockState) -> int | None:
    """A table, also one in which a row has a cell too few or too many: models write such."""
    head, rule, *_rest = found[0].splitlines()
    heads, rules = _cells(head), _cells(rule)
    if len(heads) != len(rules) or not all(_RULE_CELL.fullmatch(cell) for cell in rules):
        return None
    aligns = [_aligned(cell) for cell in rules]
    end, rows, filled = found.end(), [], 0
    while end < state.cursor_max and "|" in (line := state.get_line(end)):
        cells = _cells(line)
        cells[len(heads) - 1 :] = [" | ".join(cells[len(heads) - 1 :])]
        filled += len(heads) - len(cells)
        if filled > _FILLED:
            break
        rows.append(cells + [""] * (len(heads) - len(cells)))
        end += len(line)

    def row(cells: list[str], *, head: bool = False) -> list[dict[str, Any]]:
        told = zip(cells, aligns, strict=True)
        return [{"type": "table_cell", "text": text, "attrs": {"align": align, "head": head}} for text, align in told]

    body = [{"type": "table_row", "children": row(cells)} for cells in rows]
    children = [{"type": "table_head", "children": row(heads, head=True)}, {"type": "table_body", "children": body}]
    state.append_token({"type": "table", "children": children})
    return end


def _cells(line: str) -> list[str]:
    inside = line.strip().removeprefix("|")
    if inside.endswith("|") and not inside.endswith("\\|"):
        inside = inside[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(inside)]


def _aligned(rule: str) -> str | None:
    return {(True, True): "center", (False, True): "right", (True, False): "left"}.get(
        (rule[0] == ":", rule[-1] == ":")
    )


def _is_plain(nodes: Sequence[Node]) -> bool:
    return all(isinstance(one, str) or (one.name in _PLAIN and _is_plain(one.children)) for one in nodes)


def _nodes(tokens: Sequence[dict[str, Any]]) -> Iterator[Node]:
    """What a reader found; of what it should not find, the words."""
    for token in tokens:
        kind, inside = token["type"], tuple(_nodes(token.get("children", ())))
        if kind in _NAMES:
            yield _element(_NAMES[kind], inside)
        elif kind in _MADE:
            yield from _MADE[kind](token, inside)
        elif inside:
            yield from inside
        elif "raw" in token:
            yield _text(token["raw"])


def _element(name: str, inside: tuple[Node, ...], **attributes: Any) -> Element:
    """An element, with those attributes that say something."""
    return Element(name, inside, {key.replace("_", "-"): str(value) for key, value in attributes.items() if value})


def _text(raw: str) -> str:
    from mistune.util import unescape

    # A character that was named by its number is as invisible as one that stands there.
    return escape_controls(unescape(raw))


def _heading(token: dict[str, Any], inside: tuple[Node, ...]) -> Iterator[Node]:
    level = token["attrs"]["level"]
    yield _element("p", (_element("strong", inside or ("#" * level,)),), role="heading", aria_level=level)


def _list(token: dict[str, Any], inside: tuple[Node, ...]) -> Iterator[Node]:
    given = token["attrs"]
    yield Element("ol", inside, {"start": str(given.get("start", 1))}) if given["ordered"] else _element("ul", inside)


def _cell(token: dict[str, Any], inside: tuple[Node, ...]) -> Iterator[Node]:
    yield _element("th" if token["attrs"]["head"] else "td", inside, align=token["attrs"]["align"])


def _code(token: dict[str, Any], _: tuple[Node, ...]) -> Iterator[Node]:
    info = truncate(str(token.get("attrs", {}).get("info", "")), _INFO)
    yield _element("pre", (token["raw"].removesuffix("\n"),), title=info)


def _link(token: dict[str, Any], inside: tuple[Node, ...]) -> Iterator[Node]:
    """A link that a browser may follow; else its words, and where it leads."""
    address, title = str(token["attrs"]["url"]), escape_controls(str(token["attrs"].get("title") or ""))
    if token["type"] == "link" and _ADDRESS.fullmatch(address):
        yield _element("a", inside or (address,), href=address, title=title)
        return
    if token["type"] == "image":
        yield _element("em", ("picture: ", *inside) if inside else ("picture",))
    else:
        yield from inside
    yield f" ({escape_controls(address)}{f' “{title}”' if title else ''})"


_MADE: dict[str, Callable[[dict[str, Any], tuple[Node, ...]], Iterator[Node]]] = {
    "heading": _heading,
    "list": _list,
    "table_head": lambda _, inside: iter([_element("thead", (_element("tr", inside),))]),
    "table_cell": _cell,
    "block_code": _code,
    "codespan": lambda token, _: iter([_element("code", (token["raw"],))]),
    "link": _link,
    "image": _link,
}


def size(nodes: Sequence[Node]) -> int:
    """How many characters can be read of a tree."""
    return sum(len(one) if isinstance(one, str) else size(one.children) + (one.name in _VOID) for one in nodes)


def split(nodes: Sequence[Node], room: int) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The first ``room`` characters of a tree, and the rest; what is read as one, such as a row, is not cut in two."""
    shown: list[Node] = []
    for place, node in enumerate(nodes):
        length = size([node])
        if length <= room:
            shown.append(node)
            room -= length
            continue
        first, second = (node[:room], node[room:]) if isinstance(node, str) else _halves(node, length, room)
        return (*shown, *((first,) if first else ())), (second, *nodes[place + 1 :])
    return tuple(shown), ()


def _halves(node: Element, length: int, room: int) -> tuple[Node | None, Node]:
    if length <= _WHOLE.get(node.name, 0):
        return None, node
    first, second = split(node.children, room)
    if not first:
        return None, node
    attributes = node.attributes
    if node.name == "ol":  # numbered on; an item that was cut in two keeps its number
        cut_in_two = len(first) + len(second) - len(node.children)
        attributes = {"start": str(int(attributes["start"]) + len(first) - cut_in_two)}
    return node._replace(children=first), node._replace(children=second, attributes=attributes)


def render_markdown(text: str, limit: int = MAX_LENGTH) -> Markup:
    """What a model said, of any length: as `html.block`, and where it is Markdown, as that."""
    nodes = parse(text[:limit])
    if nodes is None:
        return html.render_text(text, limit)
    shown, rest = split(nodes, FIRST_SHOWN) if size(nodes) > FOLDED_FROM else (nodes, ())
    unseen = html.unseen(text, limit)
    if not rest:
        return join(markup(shown), unseen)
    more = size(rest) + max(0, len(text) - limit)
    return join(markup(shown), details(f"… {format_count(more)} more characters", markup(rest), unseen))


def markup(nodes: Sequence[Node]) -> Markup:
    """A tree as markup."""
    return join(*(flowing(one) if isinstance(one, str) else _written(one) for one in nodes))


def _written(one: Element) -> Markup:
    if one.name in _VOID:
        return Markup(f"<{one.name}>")
    if one.name == "pre":
        return tag("pre", *one.children, **one.attributes)
    attributes = {key: value for key, value in one.attributes.items() if (key, value) != ("start", "1")}
    if one.name == "a":
        attributes |= {"rel": "noopener noreferrer", "target": "_blank"}
    elif one.name in ("td", "th"):  # both, as in `tables`
        align = attributes.setdefault("align", "left")
        attributes["style"] = LEFT.replace("left", align)
    return tag(one.name, markup(one.children), **attributes)
