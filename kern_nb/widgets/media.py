"""Images in a transcript: listed for a script, and sent as data if they are raster images."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

MAX_BYTES = 8_000_000  # the largest image that is sent to the page
MAX_FILES = 20  # the most files of one message
# How raster images begin. The declared type is not trusted, and an SVG is a document that may contain scripts.
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}


def describe_files(content: Any) -> list[str]:
    """Describe each file in a message's content or a tool's result."""
    return [_describe(part) for part in _files(content)]


def load_picture(content: Any, number: int, store: SessionStore) -> dict[str, str]:
    """Load a file of a message's content or a tool's result as ``source``, a data URL, and ``alt``.

    Raises:
        BadUsage: it is not a raster image, not stored, too large, or at another address (nothing is fetched).
    """
    files = _files(content)
    if not 0 <= number < len(files):
        raise BadUsage(f"This message has no file {number}.", "Open the session again.")
    part = files[number]
    name = _describe(part)
    data = _load_bytes(part, store)
    if data is None:
        raise BadUsage(f"{name} is not in the store.", "Images at other addresses are not fetched.")
    kind = next((kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    if kind is None:
        raise BadUsage(f"{name} is not a PNG, JPEG, GIF or WebP image.", "Other files are not shown.")
    if len(data) > MAX_BYTES:
        raise BadUsage(f"{name} is too large to show: {len(data):,} bytes.", "Get its bytes with store.get_blob.")
    return {"source": f"data:image/{kind};base64,{base64.b64encode(data).decode()}", "alt": name}


def _files(content: Any) -> list[dict[str, Any]]:
    parts = (part for part in (content if isinstance(content, list) else [content]) if isinstance(part, dict))
    return [part for part in parts if isinstance(part.get("sha256"), str) or _url(part) is not None][:MAX_FILES]


def _url(part: dict[str, Any]) -> str | None:
    """Return the address of an image, in the shapes of the chat and responses formats and of the store."""
    url = part.get("image_url", part.get("url") if part.get("type") == "image" else None)
    url = url.get("url") if isinstance(url, dict) else url
    return url if isinstance(url, str) else None


def _describe(part: dict[str, Any]) -> str:
    url, kind, size = _url(part), part.get("media_type"), part.get("size")
    if url is not None and not url.startswith("data:"):
        return f"image at {formatting.truncate(url, 80)}"
    if url is not None:
        kind = url[5:].partition(";")[0].partition(",")[0]
    facts = [formatting.truncate(kind, 60) if isinstance(kind, str) and kind else "file"]
    if isinstance(size, int):
        facts.append(f"{size:,} bytes")
    return ", ".join(facts)


def _load_bytes(part: dict[str, Any], store: SessionStore) -> bytes | None:
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
