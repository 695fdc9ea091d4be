"""Two versions of a text, word by word: what the one has and the other lacks is marked in each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

from kern_nb.text.formatting import escape_controls, format_count, truncate
from kern_nb.text.html import Markup, flowing, join, tag

MAX_LENGTH = 2_000
"""So many characters of each are compared, from shortly before the first difference on."""

_BEFORE = 160
_UNLIKE = 0.25
"""Texts less alike than this are two texts, not two versions of one: nothing of them is marked."""

_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")

_NO_INK = ("Cf", "Mn", "Me")
_HARDLY_SEEN = (*_NO_INK, "Zs", "Zl", "Zp")
_INK = {" ": "\u2423", "\t": "\u2409", "\n": "\u240a\n"}
"""Unicode's pictures of a space, a tab and a line feed."""

_UNPLAIN = re.compile(r"[^\x00-\x7f]")

Piece = tuple[bool, str]
"""Whether it is of this text alone, and the text."""


def versions(a: str, b: str, before: int = _BEFORE) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, from shortly before their first difference on, and no longer than is well read.

    Where they differ in what nobody sees (spaces, line ends, accents that are composed or not), it is spelled.
    """
    return _seen(*parted(a, b, before))


def parted(a: str, b: str, before: int = _BEFORE) -> tuple[list[Piece], list[Piece]]:
    """The same, with nothing spelled. As many pieces differ in a row in the one as in the other, empty ones included.

    Args:
        a: The one.
        b: The other.
        before: So many characters are shown that are alike, before the first difference.
    """
    a, b = (
        (escape_controls(a), escape_controls(b))
        if escape_controls(a) != escape_controls(b)
        else (_line_ends(a), _line_ends(b))
    )
    alike = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    start = max(0, alike - before) if alike > 2 * before else 0
    x, y = (_WORD.findall(text[start : start + MAX_LENGTH]) for text in (a, b))
    # Spaces count only where nothing else differs.
    bare_x, bare_y = ([word.rstrip() for word in words] for words in (x, y))
    stretches = list(_stretches(*((x, y) if bare_x == bare_y else (bare_x, bare_y))))
    alike = sum(i2 - i1 for alone, i1, i2, _, _ in stretches if not alone)
    if 2 * alike < _UNLIKE * (len(x) + len(y)) and _look("".join(x)) != _look("".join(y)):
        stretches = [(False, 0, len(x), 0, len(y))]
    of_a: list[Piece] = [(False, f"… {format_count(start)} characters alike … ")] if start else []
    of_b = of_a.copy()
    for alone, i1, i2, j1, j2 in stretches:
        of_a.append((alone, "".join(x[i1:i2])))
        of_b.append((alone, "".join(y[j1:j2])))
    return of_a + _rest(a, start), of_b + _rest(b, start)


def _stretches(x: list[str], y: list[str]) -> Iterator[tuple[bool, int, int, int, int]]:
    """Where both have the same words and where not, in turn: whether they differ, and the places in each.

    The longest common subsequence is rapidfuzz's: texts of one sign over and over take difflib minutes.
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


def _line_ends(text: str) -> str:
    return escape_controls(text.replace("\r\n", "\u240d\n"))


def _look(text: str) -> str:
    """What a reader sees of a text."""
    shown = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in _NO_INK)
    return " ".join("".join(shown).split())


def _seen(x: list[Piece], y: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Pieces whose difference is seen, without those that are empty."""
    made: tuple[list[Piece], list[Piece]] = ([], [])
    for (alone, one), (_, other) in zip_longest(x, y, fillvalue=(False, "")):
        texts = [one, other]
        if alone and _look(one) == _look(other):
            texts = _told_apart(one, other)
        for pieces, text in zip(made, texts, strict=True):
            pieces.extend([(alone, text)] if text else [])
    return made


def _told_apart(one: str, other: str) -> list[str]:
    """Two texts that look the same, with what differs spelled; the space that both end with stays as it is."""
    ends = [text[len(text.rstrip()) :] for text in (one, other)]
    end = len(ends[0]) if ends[0] == ends[1] else 0
    bare = [text[: len(text) - end] for text in (one, other)]
    told = [_spelled(text) for text in bare]
    if _look(told[0]) == _look(told[1]):
        told = [_UNPLAIN.sub(_code, text) for text in bare]
    return [text + ends[0][:end] for text in told]


def _spelled(text: str) -> str:
    """A text whose spaces, line ends and marks are seen."""
    return "".join(_INK.get(c) or (_code(c) if unicodedata.category(c) in _HARDLY_SEEN else c) for c in text)


def _code(found: str | re.Match[str]) -> str:
    return f"⟨U+{ord(found[0]):04X}⟩"


def beginning(text: str) -> list[Piece]:
    """A text by itself, no longer than is well read."""
    left = len(text) - MAX_LENGTH
    more = [(False, f" … {format_count(left)} more characters")] if left > 0 else []
    return [(False, escape_controls(text[:MAX_LENGTH])), *more] if text else []


def _rest(text: str, start: int) -> list[Piece]:
    left = len(text) - start - MAX_LENGTH
    return [(False, f" … {format_count(left)} more characters")] if left > 0 else []


def diff_markup(a: str, b: str) -> tuple[Markup, Markup]:
    """Both texts as markup: what ``b`` lacks is deleted in ``a``, what ``a`` lacks inserted in ``b``."""
    x, y = versions(a, b)
    return _marked("del", x), _marked("ins", y)


def _marked(name: str, pieces: list[Piece]) -> Markup:
    return join(*(tag(name, flowing(text)) if alone else flowing(text) for alone, text in pieces))


def inline_diff(a: str, b: str, width: int = MAX_LENGTH) -> str:
    """Both texts as one, as `wdiff` writes them: ``The price is [-20-] {+25+} euros``.

    Args:
        a: The one.
        b: The other.
        width: Of a longer text what follows the first difference is cut.
    """
    x, y = versions(a, b, min(_BEFORE, width // 4))
    if a != b and not any(alone for alone, _ in (*x, *y)):
        old, new = _line(x, width // 2), _line(y, width // 2)
        return " ".join(filter(None, (f"[-{old}-]" if old else "", f"{{+{new}+}}" if new else "")))
    return truncate("".join(_in_line(x, y)), width)


def diff_lines(a: str, b: str, width: int) -> tuple[str, str]:
    """Both texts on a line each, from shortly before their first difference on."""
    x, y = versions(a, b, width // 4)
    return _line(x, width), _line(y, width)


def _line(pieces: list[Piece], width: int) -> str:
    return truncate("".join(text for _, text in pieces), width)


def _in_line(x: list[Piece], y: list[Piece]) -> Iterator[str]:
    rest = iter(y)
    for alone, text in x:
        if alone:
            yield _framed("[-", text, "-]")
            continue
        for added, new in rest:
            if not added:
                break
            yield _framed("{+", new, "+}")
        yield text
    yield from (_framed("{+", new, "+}") for added, new in rest if added)


def _framed(opening: str, text: str, closing: str) -> str:
    """A text between signs, with the space that follows it behind them."""
    bare = text.rstrip()
    return f"{opening}{bare}{closing}{text[len(bare) :]}"
