"""Characters that act instead of being shown: what a store or a model said must not reach a terminal like that."""

from __future__ import annotations

import re

# Controls but tab and line feed; what turns the direction of text; halves of surrogate pairs; the byte order mark.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def escape_controls(text: str) -> str:
    """Text whose control characters are seen instead of acting: ``␀`` for NUL, ``⟨U+202E⟩`` for an override."""
    return _UNSEEN.sub(_sign, text.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:  # noqa: PLR2004 - Unicode has pictures of the controls of ASCII, in order
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"  # noqa: PLR2004 - DEL
