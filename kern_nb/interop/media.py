"""Media: images, audio, video and documents beside the text of a message, and how messages refer to them.

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
"""Stores bytes and returns their hash, or returns None and stores nothing."""

_URLS: dict[str, type[FileUrl]] = {"image": ImageUrl, "audio": AudioUrl, "video": VideoUrl, "document": DocumentUrl}
_DEFAULTS = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/octet-stream"}
_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"%PDF": "application/pdf"}
_SOURCES = "Pass bytes, a path or a URL."
_PROMPT_TYPES = (str, bytes, Path, BinaryContent, FileUrl)
"""The types of the items of a prompt; a list of others is one JSON value."""


def discard(_content: bytes, _media_type: str | None) -> None:
    """Store nothing."""


def hash_only(content: bytes, _media_type: str | None) -> str:
    """Return the hash under which bytes will be stored."""
    return hashlib.sha256(content).hexdigest()


def build_prompt(value: Any, files: Mapping[str, Any]) -> Any:
    """Build the prompt for pydantic-ai: the input as text or parts, followed by the files.

    Args:
        value: A text; a list of texts and files (bytes, paths, pydantic-ai parts); or any value, which becomes JSON.
        files: Bytes, paths or URLs, one or several, by kind (image, audio, video, document).

    Raises:
        BadUsage: the input is empty, or a file cannot be read.
    """
    is_list = isinstance(value, (list, tuple)) and all(isinstance(item, _PROMPT_TYPES) for item in value)
    items = value if is_list else [value]
    parts = [_detect_file(item) if isinstance(item, (bytes, Path)) else item for item in items if item is not None]
    parts = [part if isinstance(part, (str, BinaryContent, FileUrl)) else as_text(part) for part in parts]
    for kind, sources in files.items():
        if sources is not None:
            is_single = isinstance(sources, _PROMPT_TYPES) or not isinstance(sources, Iterable)
            parts += [load_file(kind, source) for source in ([sources] if is_single else sources)]
    if not parts:
        raise BadUsage("The input is empty.", "Pass a text, or a list of texts and files.")
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def printable(value: Any) -> Any:
    """Replace lone surrogates, which no encoding has, by U+FFFD, so that a value can be sent to a provider."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def as_text(value: Any) -> str:
    """Return a string as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(plain_value(value), ensure_ascii=False)


def _detect_file(source: bytes | Path) -> BinaryContent | FileUrl:
    """Load a file; its kind follows from its name or its first bytes."""
    if isinstance(source, Path):
        kind = (mimetypes.guess_type(source.name)[0] or "").partition("/")[0]
        return load_file(kind if kind in _URLS else "document", source)
    media_type = next((kind for start, kind in _SIGNATURES.items() if source.startswith(start)), _DEFAULTS["document"])
    return BinaryContent(source, media_type=media_type)


def load_file(kind: str, source: Any) -> BinaryContent | FileUrl:
    """Load bytes, a path, a URL or a data URI as a file of a kind (image, audio, video, document)."""
    if isinstance(source, (BinaryContent, FileUrl)):
        return source
    if isinstance(source, bytes):
        return BinaryContent(source, media_type=_DEFAULTS[kind])
    if isinstance(source, str) and source.startswith("data:"):
        return BinaryContent.from_data_uri(source)
    if isinstance(source, str) and "://" in source:
        return _URLS[kind](source)
    if not isinstance(source, (str, Path)):
        raise BadUsage(f"{kind} must be bytes, a path or a URL, got {source!r}.", _SOURCES)
    path = Path(source)
    try:
        with open_binary(path) as file:
            content = file.read()
    except OSError as error:
        raise BadUsage(f"The {kind} {str(path)!r} cannot be read: {error.strerror}.", _SOURCES) from error
    return BinaryContent(content, media_type=mimetypes.guess_type(path.name)[0] or _DEFAULTS[kind])


def store_content(content: str | Sequence[Any], keep: Keep) -> Any:
    """Return a user's content in the form of a message, with its bytes stored."""
    if isinstance(content, str):
        return content
    return [_store_part(part, keep) for part in content]


def _store_part(part: Any, keep: Keep) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, FileUrl):
        return {"type": next(kind for kind, url in _URLS.items() if isinstance(part, url)), "url": part.url}
    if isinstance(part, BinaryContent):
        return _store_bytes(part.data, part.media_type, keep)
    return {"type": "text", "text": str(getattr(part, "content", part))}


def _store_bytes(content: bytes, media_type: str, keep: Keep) -> dict[str, Any]:
    kind = media_type.partition("/")[0]
    part: dict[str, Any] = {"type": kind if kind in _URLS else "document", "media_type": media_type}
    sha256 = keep(content, media_type)
    return part | {"size": len(content)} | ({} if sha256 is None else {"sha256": sha256})


def load_content(content: Any, store: SessionStore) -> Any:
    """Return a stored content in the form that pydantic-ai takes, with its bytes loaded."""
    if not isinstance(content, list):
        return printable(content if isinstance(content, str) else as_text(content))
    return [_load_part(part, store) for part in content]


def _load_part(part: Any, store: SessionStore) -> Any:
    if not isinstance(part, dict):
        return printable(as_text(part))
    kind = part.get("type")
    if kind in ("image_url", "input_image"):  # OpenAI's form, in an imported session
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
        return printable(as_text(part["text"]))
    return f"[{kind or 'file'} of {part.get('size', 'unknown')} bytes, not stored]"


class ToolOutput(NamedTuple):
    """What a tool returned: the content for the model, and the one to store, where references replace files.

    ``has_files`` tells these from a tool's own data that looks like a reference.
    """

    content: Any
    stored: Any
    has_files: bool = False


def store_result(value: Any, keep: Keep) -> ToolOutput:
    """Convert what a tool returned, and store its bytes."""
    if isinstance(value, (BinaryContent, FileUrl)):
        return ToolOutput(value, _store_part(value, keep), has_files=True)
    if isinstance(value, (bytes, bytearray)):
        reference = _store_bytes(bytes(value), _DEFAULTS["document"], keep)
        return ToolOutput(f"[{len(value)} bytes]", reference, has_files=True)
    if isinstance(value, (list, tuple)) and any(isinstance(item, (BinaryContent, FileUrl)) for item in value):
        outputs = [store_result(item, keep) for item in value]
        contents = [output.content for output in outputs]
        return ToolOutput(contents, [output.stored for output in outputs], has_files=True)
    try:
        plain = plain_value(value)
    except RecursionError:  # it contains itself, or is nested too deeply
        plain = f"<{type(value).__name__} that cannot be written as JSON>"
    return ToolOutput(printable(plain), plain)


def load_result(content: Any, store: SessionStore) -> Any:
    """Return a stored tool result that has files in the form for the model."""
    parts = [_load_result_part(part, store) for part in (content if isinstance(content, list) else [content])]
    return parts if isinstance(content, list) else parts[0]


def _load_result_part(part: Any, store: SessionStore) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("media_type") == _DEFAULTS["document"]:  # as in `store_result`
        return f"[{part.get('size')} bytes]"
    return _load_part(part, store)


def plain_value(value: Any) -> Any:
    """Convert any value to plain JSON types.

    Models and dataclasses become objects, DataFrames lists of rows, numpy and pandas scalars numbers; any other value
    becomes its text.
    """
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, BaseModel):
        return plain_value(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item) for item in value]
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
        return None if type(value).__name__ == "NAType" else _safe_str(value)


def _safe_str(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a tool's own value may raise anything
        return f"<{type(value).__name__}>"


def store_parts(value: Any, keep: Keep) -> Any:
    """Store the bytes in a pydantic-ai dump as blobs, and replace them by references."""
    if isinstance(value, bytes):
        return {"$blob": keep(value, None), "size": len(value)}
    if isinstance(value, dict):
        return {key: store_parts(item, keep) for key, item in value.items()}
    return [store_parts(item, keep) for item in value] if isinstance(value, list) else value


def load_parts(value: Any, store: SessionStore) -> Any:
    """Reverse `store_parts`; bytes that were not stored are empty."""
    if isinstance(value, dict) and "$blob" in value:
        blob = store.get_blob(value["$blob"]) if value["$blob"] else None
        return blob.content if blob else b""
    if isinstance(value, dict):
        return {key: load_parts(item, store) for key, item in value.items()}
    return [load_parts(item, store) for item in value] if isinstance(value, list) else value
