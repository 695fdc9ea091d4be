"""Pictures in a transcript: found in what was said, and given to a script as data, where they are pictures at all."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

LARGEST = 8_000_000
"""Bytes of a picture that are sent to the page."""

MOST = 20
"""Pictures of one message that are looked for."""

_SIGNS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
"""How files of pixels begin. What a source says they are is not relied on, and an SVG is a document, with scripts."""


def found_in(content: Any) -> list[str]:
    """What each file in a content or a tool's result is, in words."""
    return [_described(part) for part in _files(content)]


def picture(content: Any, number: int, store: SessionStore) -> dict[str, str]:
    """One of the files of a content: ``source``, a data URL, and ``alt``.

    Raises:
        BadUsage: it is no picture of pixels, was not kept, or is elsewhere: nothing is fetched from the network.
    """
    files = _files(content)
    if not 0 <= number < len(files):
        raise BadUsage(f"There is no file {number} in this message.", "Open the session again.")
    part = files[number]
    name = _described(part)
    raw = _bytes(part, store)
    if raw is None:
        raise BadUsage(f"{name} is not in the store.", "Pictures elsewhere are not fetched.")
    kind = next((kind for sign, kind in _SIGNS.items() if raw.startswith(sign)), None)
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        kind = "webp"
    if kind is None:
        raise BadUsage(f"{name} is no PNG, JPEG, GIF or WebP.", "Only these are shown.")
    if len(raw) > LARGEST:
        raise BadUsage(f"{name} is too large to be shown: {len(raw):,} bytes.", "store.get_blob gives its bytes.")
    return {"source": f"data:image/{kind};base64,{base64.b64encode(raw).decode()}", "alt": name}


def _files(content: Any) -> list[dict[str, Any]]:
    parts = content if isinstance(content, list) else [content]
    return [part for part in parts if isinstance(part, dict) and _is_file(part)][:MOST]


def _is_file(part: dict[str, Any]) -> bool:
    return isinstance(part.get("sha256"), str) or _url(part) is not None


def _url(part: dict[str, Any]) -> str | None:
    """Where a picture is, in the shapes of the chat and responses formats and our own."""
    url = part.get("image_url", part.get("url") if part.get("type") == "image" else None)
    url = url.get("url") if isinstance(url, dict) else url
    return url if isinstance(url, str) else None


def _described(part: dict[str, Any]) -> str:
    url, kind, size = _url(part), part.get("media_type"), part.get("size")
    if url is not None and not url.startswith("data:"):
        return f"picture at {formatting.truncate(url, 80)}"
    if url is not None:
        kind = url[5:].partition(";")[0].partition(",")[0]
    facts = [formatting.truncate(kind, 60) if isinstance(kind, str) and kind else "file"]
    if isinstance(size, int):
        facts.append(f"{size:,} bytes")
    return ", ".join(facts)


def _bytes(part: dict[str, Any], store: SessionStore) -> bytes | None:
    url, sha256 = _url(part), part.get("sha256")
    if isinstance(sha256, str):
        blob = store.get_blob(sha256)
        return None if blob is None else blob.content
    if url is None or not url.startswith("data:") or ";base64," not in url:
        return None
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except binascii.Error:
        return None
