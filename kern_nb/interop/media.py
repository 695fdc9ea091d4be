"""Pictures, audio, video and documents: what a user sends beside text, and how it is kept.

In a message, a file is a part ``{"type": "image", "media_type": "image/png", "size": 67, "sha256": "..."}`` whose bytes
are a blob of the store, or ``{"type": "image", "url": "..."}``. Without ``store_media`` the part has no hash.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_ai.messages import AudioUrl, BinaryContent, DocumentUrl, FileUrl, ImageUrl, VideoUrl
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kern_nb.control_characters import replace_surrogates
from kern_nb.db import SessionStore
from kern_nb.db.file_descriptors import open_binary
from kern_nb.errors import BadUsage

Keep = Callable[[bytes, str | None], str | None]
"""Keeps bytes and gives their hash; or keeps nothing, and gives None."""

_URLS: dict[str, type[FileUrl]] = {"image": ImageUrl, "audio": AudioUrl, "video": VideoUrl, "document": DocumentUrl}
_DEFAULTS = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/octet-stream"}


def forget(_content: bytes, _media_type: str | None) -> None:
    """Keep nothing."""


def name_only(content: bytes, _media_type: str | None) -> str:
    """The hash by which bytes will be kept."""
    return hashlib.sha256(content).hexdigest()


def prompt(given: Any, files: Mapping[str, Any]) -> Any:
    """What pydantic-ai is given: the input as text or parts, with the files.

    Args:
        given: A text; a list of texts and files (bytes, paths, parts of pydantic-ai's); or a value or pydantic model,
            which is written as JSON.
        files: By kind (image, audio, video, document): bytes, paths or URLs, one or several.

    Raises:
        BadUsage: there is no input, or a file cannot be read.
    """
    several = list(given) if isinstance(given, (list, tuple)) and _is_prompt(given) else [given]
    parts = [_file_of(one) if isinstance(one, (bytes, Path)) else one for one in several if one is not None]
    parts = [part if isinstance(part, (str, BinaryContent, FileUrl)) else as_text(part) for part in parts]
    for kind, found in files.items():
        parts += [_file(kind, one) for one in _listed(found)]
    if not parts:
        raise BadUsage("There is no input.", "Give a text, or a list of texts and files.")
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def _is_prompt(given: Sequence[Any]) -> bool:
    """Whether a list is one of texts and files, and not a value of its own."""
    return all(isinstance(one, (str, bytes, Path, BinaryContent, FileUrl)) for one in given)


def _listed(found: Any) -> list[Any]:
    if found is None:
        return []
    several = isinstance(found, Iterable) and not isinstance(found, (str, bytes, Path, BinaryContent, FileUrl))
    return list(found) if several else [found]


def tellable(value: Any) -> Any:
    """A value that a provider can be sent: halves of characters, which no encoding has, are U+FFFD."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {tellable(key): tellable(one) for key, one in value.items()}
    return [tellable(one) for one in value] if isinstance(value, list) else value


def as_text(value: Any) -> str:
    """Any value as text: JSON, where it is none."""
    return value if isinstance(value, str) else json.dumps(plain_value(value), ensure_ascii=False)


_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"%PDF": "application/pdf"}


def _file_of(given: bytes | Path) -> BinaryContent | FileUrl:
    """A file whose kind is seen from its name, or its first bytes."""
    if isinstance(given, Path):
        kind = (mimetypes.guess_type(given.name)[0] or "").partition("/")[0]
        return _file(kind if kind in _URLS else "document", given)
    found = next((kind for start, kind in _SIGNATURES.items() if given.startswith(start)), _DEFAULTS["document"])
    return BinaryContent(given, media_type=found)


def _file(kind: str, given: Any) -> BinaryContent | FileUrl:
    if isinstance(given, (BinaryContent, FileUrl)):
        return given
    if isinstance(given, bytes):
        return BinaryContent(given, media_type=_DEFAULTS[kind])
    if isinstance(given, str) and given.startswith("data:"):
        return BinaryContent.from_data_uri(given)
    if isinstance(given, str) and "://" in given:
        return _URLS[kind](given)
    if not isinstance(given, (str, Path)):
        raise BadUsage(f"{given!r} is no {kind}.", "Give bytes, a path or a URL.")
    path = Path(given)
    try:
        with open_binary(path) as file:
            content = file.read()
    except OSError as error:
        reason = f"The {kind} {str(path)!r} cannot be read: {error.strerror}."
        raise BadUsage(reason, "Give bytes, a path or a URL.") from error
    return BinaryContent(content, media_type=mimetypes.guess_type(path.name)[0] or _DEFAULTS[kind])


def of_content(content: str | Sequence[Any], keep: Keep) -> Any:
    """A user's content as a message holds it."""
    if isinstance(content, str):
        return content
    return [_part(part, keep) for part in content]


def _part(part: Any, keep: Keep) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, FileUrl):
        return {"type": next(kind for kind, url in _URLS.items() if isinstance(part, url)), "url": part.url}
    if isinstance(part, BinaryContent):
        return _reference(part.data, part.media_type, keep)
    return {"type": "text", "text": str(getattr(part, "content", part))}


def _reference(content: bytes, media_type: str, keep: Keep) -> dict[str, Any]:
    kind = media_type.partition("/")[0]
    found: dict[str, Any] = {"type": kind if kind in _URLS else "document", "media_type": media_type}
    sha256 = keep(content, media_type)
    return found | {"size": len(content)} | ({} if sha256 is None else {"sha256": sha256})


def to_content(content: Any, store: SessionStore) -> Any:
    """What pydantic-ai is given for a stored content."""
    if not isinstance(content, list):
        return tellable(content if isinstance(content, str) else as_text(content))
    return [_loaded_part(part, store) for part in content]


def _loaded_part(part: Any, store: SessionStore) -> Any:
    if not isinstance(part, dict):
        return tellable(as_text(part))
    kind = part.get("type")
    if kind in ("image_url", "input_image"):  # OpenAI's, of an imported session
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if isinstance(url, str):
            return BinaryContent.from_data_uri(url) if url.startswith("data:") else ImageUrl(url)
    if kind in _URLS and isinstance(part.get("url"), str):
        return _URLS[kind](part["url"])
    blob = store.get_blob(part["sha256"]) if isinstance(part.get("sha256"), str) else None
    if blob is not None:
        kind = part.get("media_type") or blob.media_type
        return BinaryContent(blob.content, media_type=kind if isinstance(kind, str) else _DEFAULTS["document"])
    if "text" in part:
        return tellable(as_text(part["text"]))
    return f"[{kind or 'a file'} of {part.get('size', 'unknown')} bytes, which was not kept]"


def _told_bytes(part: dict[str, Any]) -> Any:
    """Bytes of no known kind are told as before: by their number."""
    return f"[{part.get('size')} bytes]" if part.get("media_type") == _DEFAULTS["document"] else part


class Result(NamedTuple):
    """What a tool gave.

    Attributes:
        told: What the model is told.
        stored: What is stored: files by their hash.
        has_files: Whether there are files among it; data of a tool's own may look like one.
    """

    told: Any
    stored: Any
    has_files: bool = False


def result(value: Any, keep: Keep) -> Result:
    """What a tool gave, ready to be told and stored."""
    if isinstance(value, (BinaryContent, FileUrl)):
        return Result(value, _part(value, keep), has_files=True)
    if isinstance(value, (bytes, bytearray)):
        stored_as = _reference(bytes(value), _DEFAULTS["document"], keep)
        return Result(f"[{len(value)} bytes]", stored_as, has_files=True)
    if isinstance(value, (list, tuple)) and any(isinstance(one, (BinaryContent, FileUrl)) for one in value):
        each = [result(one, keep) for one in value]
        return Result([one.told for one in each], [one.stored for one in each], has_files=True)
    try:
        plain = plain_value(value)
    except RecursionError:  # it holds itself, or is nested without end
        plain = f"<{type(value).__name__} that cannot be written as JSON>"
    return Result(tellable(plain), plain)


def to_result(content: Any, store: SessionStore) -> Any:
    """What the model is told of a stored result that has files."""
    parts = content if isinstance(content, list) else [content]
    parts = [_told_bytes(part) if isinstance(part, dict) else part for part in parts]
    loaded_parts = [_loaded_part(part, store) if isinstance(part, dict) else part for part in parts]
    return loaded_parts if isinstance(content, list) else loaded_parts[0]


def plain_value(value: Any) -> Any:
    """Any value as JSON.

    Models and dataclasses are objects, frames lists of rows, numpy's and pandas' scalars the numbers they are; what has
    no such form is text.
    """
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, BaseModel):
        return plain_value(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(one) for one in value]
    if isinstance(value, bytes):
        return f"[{len(value)} bytes]"
    return _foreign_value(value)


def _foreign_value(value: Any) -> Any:
    module = type(value).__module__.partition(".")[0]
    if module == "pandas" and hasattr(value, "columns"):
        return plain_value(value.to_dict("records"))
    if module in ("numpy", "pandas") and hasattr(value, "tolist"):
        return plain_value(value.tolist())
    try:
        if value != value:  # noqa: PLR0124 - NaT, and NA, which refuses to say
            return None
        return to_jsonable_python(value)
    except (TypeError, ValueError, PydanticSerializationError):
        return None if type(value).__name__ == "NAType" else _described(value)


def _described(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value of a tool's may raise what it likes
        return f"<{type(value).__name__}>"


def stored(value: Any, keep: Keep) -> Any:
    """A dump of pydantic-ai's with its bytes kept as blobs."""
    if isinstance(value, bytes):
        return {"$blob": keep(value, None), "size": len(value)}
    if isinstance(value, dict):
        return {key: stored(one, keep) for key, one in value.items()}
    return [stored(one, keep) for one in value] if isinstance(value, list) else value


def loaded(value: Any, store: SessionStore) -> Any:
    """The reverse of `stored`; bytes that were not kept are empty."""
    if isinstance(value, dict) and "$blob" in value:
        blob = store.get_blob(value["$blob"]) if value["$blob"] else None
        return blob.content if blob else b""
    if isinstance(value, dict):
        return {key: loaded(one, store) for key, one in value.items()}
    return [loaded(one, store) for one in value] if isinstance(value, list) else value
