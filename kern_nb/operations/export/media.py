"""Pictures and sounds of messages as files beside an exported one, or by their URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kern_nb import files

_EXTENSIONS = {
    "image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/webp": "webp",
    "audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/aac": "aac", "audio/ogg": "ogg",
    "audio/flac": "flac", "audio/webm": "weba", "audio/aiff": "aiff",
}  # fmt: skip
"""The media types of ATIF."""

_SAME = {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-wav": "audio/wav", "audio/wave": "audio/wav"}
_FOLDERS = {"image": "images", "audio": "audio"}
_URL_KEYS = ("image_url", "audio_url", "url", "file_url")


class Medium(NamedTuple):
    """A picture or sound: its media type, and its bytes or its URL."""

    media_type: str
    content: bytes | None = None
    url: str | None = None

    @property
    def kind(self) -> str:
        """``image`` or ``audio``."""
        return self.media_type.partition("/")[0]


class MediaFolder:
    """Writes media below a folder. Names are hashes of the content, so that the same content is one file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: set[str] = set()

    def write(self, medium: Medium) -> str:
        """Write a medium, unless it is there; return its path below the folder, or its URL."""
        if medium.content is None:
            return str(medium.url)
        digest = hashlib.sha256(medium.content).hexdigest()
        name = f"{_FOLDERS[medium.kind]}/{digest[:32]}.{_EXTENSIONS[medium.media_type]}"
        if name not in self.names:
            path = self._folder / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(path, "xb", opener=files.private_opener) as file:
                file.write(medium.content)
            self.names.add(name)
        return name


def read_medium(part: Any, load: Callable[[str], bytes | None]) -> Medium | None:
    """The medium of a part, in the forms of the store and of providers; None for another part, or an unknown type.

    Args:
        part: The part of a message.
        load: Returns the bytes of a blob by its hash. Paths are not opened.
    """
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        return None
    kind = next((kind for kind in _FOLDERS if kind in part["type"]), None)
    source, nested = _object(part, "source"), _object(part, "input_audio")
    types = (part.get("media_type"), source.get("media_type"))
    stated = next((value for value in types if isinstance(value, str)), None)
    if isinstance(nested.get("format"), str):
        stated = f"audio/{nested['format']}"
    medium = _from_hash(part, stated, load) or _from_data(source, nested, stated) or _from_url(part, source, stated)
    if medium is None or kind is None:
        return None
    media_type = _SAME.get(medium.media_type.lower(), medium.media_type.lower())
    return medium._replace(media_type=media_type) if media_type in _EXTENSIONS and media_type.startswith(kind) else None


def _object(part: dict[str, Any], key: str) -> dict[str, Any]:
    value = part.get(key)
    return value if isinstance(value, dict) else {}


def _from_hash(part: dict[str, Any], stated: str | None, load: Callable[[str], bytes | None]) -> Medium | None:
    if stated is None or not isinstance(part.get("sha256"), str):
        return None
    content = load(part["sha256"])
    return None if content is None else Medium(stated, content)


def _from_data(source: dict[str, Any], nested: dict[str, Any], stated: str | None) -> Medium | None:
    data = source.get("data", nested.get("data"))
    return _decode(stated, data) if stated is not None and isinstance(data, str) else None


def _from_url(part: dict[str, Any], source: dict[str, Any], stated: str | None) -> Medium | None:
    for value in (*(part.get(key) for key in _URL_KEYS), source.get("url"), source.get("path")):
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str) or not url:
            continue
        if url.startswith("data:"):
            head, _, data = url.removeprefix("data:").partition(",")
            return _decode(head.partition(";")[0], data) if head.endswith(";base64") else None
        guessed = stated or mimetypes.guess_type(url.partition("?")[0])[0]
        return None if guessed is None else Medium(guessed, url=url)
    return None


def _decode(media_type: str, data: str) -> Medium | None:
    try:
        return Medium(media_type, base64.b64decode(data))
    except (binascii.Error, ValueError):
        return None
