"""Compare two versions of a text word by word, and mark what only one of them has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

from kern_nb.text.formatting import common_prefix_length, escape_controls, format_count, truncate
from kern_nb.text.html import Markup, join, preserve_whitespace, tag

MAX_LENGTH = 2_000
"""Characters of each text that are compared, from shortly before the first difference."""

_CONTEXT = 160
_MIN_SIMILARITY = 0.25
"""Less similar texts are not versions of one another; nothing in them is marked."""

_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")

_INVISIBLE = ("Cf", "Mn", "Me")
_BARELY_VISIBLE = (*_INVISIBLE, "Zs", "Zl", "Zp")
# Unicode's pictures of a space, a tab, a line feed and a carriage return.
_PICTURES = {" ": "\u2423", "\t": "\u2409", "\n": "\u240a\n"}
_CRLF = "\u240d\n"

_NON_ASCII = re.compile(r"[^\x00-\x7f]")

Piece = tuple[bool, str]
"""Whether the piece is in this text only, and its text."""


def diff(a: str, b: str, context: int = _CONTEXT) -> tuple[list[Piece], list[Piece]]:
    """Split both texts into pieces, from shortly before their first difference, up to `MAX_LENGTH` characters.

    A difference that is invisible (spaces, line ends, composed or decomposed accents) is spelled out.
    """
    return _reveal(*diff_raw(a, b, context))


def diff_raw(a: str, b: str, context: int = _CONTEXT) -> tuple[list[Piece], list[Piece]]:
    """Split both texts as `diff` does, without spelling anything out; both lists pair up, with empty pieces as needed.

    ``context`` is the number of characters to keep before the first difference.
    """
    if escape_controls(a) == escape_controls(b):  # show what differs in line ends
        a, b = a.replace("\r\n", _CRLF), b.replace("\r\n", _CRLF)
    a, b = escape_controls(a), escape_controls(b)
    common = common_prefix_length(a, b)
    start = max(0, common - context) if common > 2 * context else 0
    x, y = (_WORD.findall(text[start : start + MAX_LENGTH]) for text in (a, b))
    # Spaces count only where nothing else differs.
    bare_x, bare_y = ([word.rstrip() for word in words] for words in (x, y))
    spans = list(_spans(*((x, y) if bare_x == bare_y else (bare_x, bare_y))))
    n_common = sum(i2 - i1 for differs, i1, i2, _, _ in spans if not differs)
    if 2 * n_common < _MIN_SIMILARITY * (len(x) + len(y)) and _appearance("".join(x)) != _appearance("".join(y)):
        spans = [(False, 0, len(x), 0, len(y))]
    of_a: list[Piece] = [(False, f"… {format_count(start)} identical characters … ")] if start else []
    of_b = of_a.copy()
    for differs, i1, i2, j1, j2 in spans:
        of_a.append((differs, "".join(x[i1:i2])))
        of_b.append((differs, "".join(y[j1:j2])))
    return of_a + _remainder(a, start), of_b + _remainder(b, start)


def _spans(x: list[str], y: list[str]) -> Iterator[tuple[bool, int, int, int, int]]:
    """Yield alternating spans of words: whether they differ, and their indices in both lists.

    The longest common subsequence is rapidfuzz's: difflib takes minutes for texts that repeat one character.
    """
    from rapidfuzz.distance import LCSseq

    at_x = at_y = 0
    for op in LCSseq.opcodes(x, y):
        if op.tag != "equal":
            continue
        if op.src_start > at_x or op.dest_start > at_y:
            yield True, at_x, op.src_start, at_y, op.dest_start
        yield False, op.src_start, op.src_end, op.dest_start, op.dest_end
        at_x, at_y = op.src_end, op.dest_end
    if at_x < len(x) or at_y < len(y):
        yield True, at_x, len(x), at_y, len(y)


def _appearance(text: str) -> str:
    """Return what a reader sees of a text."""
    visible = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in _INVISIBLE)
    return " ".join("".join(visible).split())


def _reveal(x: list[Piece], y: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Spell out pieces that differ but look the same, and drop empty ones."""
    result: tuple[list[Piece], list[Piece]] = ([], [])
    for (differs, a), (_, b) in zip_longest(x, y, fillvalue=(False, "")):
        texts = _spell_out(a, b) if differs and _appearance(a) == _appearance(b) else [a, b]
        for pieces, text in zip(result, texts, strict=True):
            pieces.extend([(differs, text)] if text else [])
    return result


def _spell_out(a: str, b: str) -> list[str]:
    """Spell out what differs in two texts that look the same; a common space at their end stays."""
    ends = [text[len(text.rstrip()) :] for text in (a, b)]
    end = len(ends[0]) if ends[0] == ends[1] else 0
    bare = [text[: len(text) - end] for text in (a, b)]
    result = [_show_spaces(text) for text in bare]
    if _appearance(result[0]) == _appearance(result[1]):
        result = [_NON_ASCII.sub(_code_point, text) for text in bare]
    return [text + ends[0][:end] for text in result]


def _show_spaces(text: str) -> str:
    """Make spaces, line ends and combining marks visible."""
    return "".join(
        _PICTURES.get(c) or (_code_point(c) if unicodedata.category(c) in _BARELY_VISIBLE else c) for c in text
    )


def _code_point(match: str | re.Match[str]) -> str:
    return f"⟨U+{ord(match[0]):04X}⟩"


def preview(text: str) -> list[Piece]:
    """Return the beginning of a single text, up to `MAX_LENGTH` characters."""
    return [(False, escape_controls(text[:MAX_LENGTH])), *_remainder(text, 0)] if text else []


def _remainder(text: str, start: int) -> list[Piece]:
    n_hidden = len(text) - start - MAX_LENGTH
    return [(False, f" … {format_count(n_hidden)} more characters")] if n_hidden > 0 else []


def diff_markup(a: str, b: str) -> tuple[Markup, Markup]:
    """Render both texts as markup: what ``b`` lacks is deleted in ``a``, what ``a`` lacks inserted in ``b``."""
    x, y = diff(a, b)
    return _mark("del", x), _mark("ins", y)


def _mark(name: str, pieces: list[Piece]) -> Markup:
    texts = ((differs, preserve_whitespace(text)) for differs, text in pieces)
    return join(*(tag(name, text) if differs else text for differs, text in texts))


def inline_diff(a: str, b: str, width: int = MAX_LENGTH) -> str:
    """Merge both texts into one line of this width, like `wdiff`: ``The price is [-20-] {+25+} euros``."""
    x, y = diff(a, b, min(_CONTEXT, width // 4))
    if a != b and not any(differs for differs, _ in (*x, *y)):
        old, new = _line(x, width // 2), _line(y, width // 2)
        return " ".join(filter(None, (f"[-{old}-]" if old else "", f"{{+{new}+}}" if new else "")))
    return truncate("".join(_merge(x, y)), width)


def diff_lines(a: str, b: str, width: int) -> tuple[str, str]:
    """Put each text on a line, from shortly before their first difference."""
    x, y = diff(a, b, width // 4)
    return _line(x, width), _line(y, width)


def _line(pieces: list[Piece], width: int) -> str:
    return truncate("".join(text for _, text in pieces), width)


def _merge(x: list[Piece], y: list[Piece]) -> Iterator[str]:
    remaining = iter(y)
    for differs, text in x:
        if differs:
            yield _bracket("[-", text, "-]")
            continue
        for added, new in remaining:
            if not added:
                break
            yield _bracket("{+", new, "+}")
        yield text
    yield from (_bracket("{+", new, "+}") for added, new in remaining if added)


def _bracket(opening: str, text: str, closing: str) -> str:
    """Bracket a text; a space at its end goes behind the bracket."""
    bare = text.rstrip()
    return f"{opening}{bare}{closing}{text[len(bare) :]}"
