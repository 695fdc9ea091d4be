"""Make control characters visible: text from a store or a model must not control a terminal."""

from __future__ import annotations

import re

# Controls except tab and line feed; text direction marks; surrogates; the byte order mark.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: a str may contain it, and UTF-8 cannot encode it."""


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate with U+FFFD."""
    return LONE_SURROGATE.sub("\ufffd", text)


def escape_controls(text: str) -> str:
    """Replace control characters by visible symbols: ``␀`` for NUL, ``⟨U+202E⟩`` for an override."""
    return _INVISIBLE.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:  # noqa: PLR2004 - Unicode has pictures of the ASCII controls, in the same order
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"  # noqa: PLR2004 - DEL
