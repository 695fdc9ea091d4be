"""Two versions of a text, word by word: what the one has and the other lacks is marked in each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from kern_nb.render.html import Markup, flowing, join, tag
from kern_nb.render.plain import count, visible

LONGEST = 2_000
"""So many characters of each are compared, from shortly before the first difference on."""

_BEFORE = 160
_UNLIKE = 0.25
"""Texts less alike than this are two texts, not two versions of one: nothing of them is marked."""

_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")

Piece = tuple[bool, str]
"""Whether it is of this text alone, and the text."""


def versions(a: str, b: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, from shortly before their first difference on, and no longer than is well read."""
    a, b = visible(a), visible(b)
    alike = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    start = max(0, alike - _BEFORE) if alike > 2 * _BEFORE else 0
    x, y = (_WORD.findall(text[start : start + LONGEST]) for text in (a, b))
    # Spaces count only where nothing else differs.
    bare_x, bare_y = ([word.rstrip() for word in words] for words in (x, y))
    found = SequenceMatcher(None, *((x, y) if bare_x == bare_y else (bare_x, bare_y)), autojunk=False)
    unlike = found.quick_ratio() < _UNLIKE or found.ratio() < _UNLIKE
    of_a: list[Piece] = [(False, f"… {count(start)} characters alike … ")] if start else []
    of_b = of_a.copy()
    for op, i1, i2, j1, j2 in found.get_opcodes() if not unlike else [("equal", 0, len(x), 0, len(y))]:
        of_a += [(op != "equal", "".join(x[i1:i2]))] if i2 > i1 else []
        of_b += [(op != "equal", "".join(y[j1:j2]))] if j2 > j1 else []
    return of_a + _rest(a, start), of_b + _rest(b, start)


def beginning(text: str) -> list[Piece]:
    """A text by itself, no longer than is well read."""
    left = len(text) - LONGEST
    more = [(False, f" … {count(left)} more characters")] if left > 0 else []
    return [(False, visible(text[:LONGEST])), *more] if text else []


def _rest(text: str, start: int) -> list[Piece]:
    left = len(text) - start - LONGEST
    return [(False, f" … {count(left)} more characters")] if left > 0 else []


def marked(a: str, b: str) -> tuple[Markup, Markup]:
    """Both texts as markup: what ``b`` lacks is deleted in ``a``, what ``a`` lacks inserted in ``b``."""
    x, y = versions(a, b)
    return _marked("del", x), _marked("ins", y)


def _marked(name: str, pieces: list[Piece]) -> Markup:
    return join(*(tag(name, flowing(text)) if alone else flowing(text) for alone, text in pieces))


def in_line(a: str, b: str) -> str:
    """Both texts as one, as `wdiff` writes them: ``The price is [-20-] {+25+} euros``."""
    x, y = versions(a, b)
    return "".join(_in_line(x, y)).strip()


def _in_line(x: list[Piece], y: list[Piece]) -> Iterator[str]:
    rest = iter(y)
    for alone, text in x:
        if alone:
            yield f"[-{text.rstrip()}-] "
            continue
        for added, new in rest:
            if not added:
                break
            yield f"{{+{new.rstrip()}+}} "
        yield text
    yield from (f"{{+{new.rstrip()}+}} " for added, new in rest if added)
