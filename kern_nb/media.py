"""Files for the input of a run: ``agent.run("What is this?", images=[Image(filepath="cat.png")])``.

Bytes, paths and URLs are accepted as they are; these constructors name what they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from pydantic_ai.messages import BinaryContent, FileUrl

__all__ = ["Audio", "File", "Image", "Video"]


def Image(**source: Any) -> BinaryContent | FileUrl:  # noqa: N802 - a class of Agno
    """Return an image, read now.

    Args:
        **source: One of ``url``, ``filepath`` and ``content`` (bytes); with ``content``, ``mime_type`` (``image/png``)
            or ``format`` (``png``), if it is not PNG.

    Raises:
        BadUsage: there is not exactly one source, an argument is unknown, or the file cannot be read.

    Example:
        >>> Image(url="https://example.org/cat.png").url
        'https://example.org/cat.png'
        >>> Image(content=b"...", format="webp").media_type
        'image/webp'
    """
    return _load("image", source)


def Audio(**source: Any) -> BinaryContent | FileUrl:  # noqa: N802 - as above
    """Return audio; arguments and errors as for `Image`.

    Example:
        >>> Audio(content=b"...", format="mp3").media_type
        'audio/mp3'
    """
    return _load("audio", source)


def Video(**source: Any) -> BinaryContent | FileUrl:  # noqa: N802 - as above
    """Return a video; arguments and errors as for `Image`.

    Example:
        >>> Video(url="https://example.org/cat.mp4").url
        'https://example.org/cat.mp4'
    """
    return _load("video", source)


def File(**source: Any) -> BinaryContent | FileUrl:  # noqa: N802 - as above
    """Return a document; arguments and errors as for `Image`. ``content`` may be text.

    Example:
        >>> File(content="a,b", mime_type="text/csv").data
        b'a,b'
    """
    return _load("document", source)


_SOURCES = ("url", "filepath", "content")
_OPTIONS = ("mime_type", "format")


def _load(kind: str, source: dict[str, Any]) -> BinaryContent | FileUrl:
    from pydantic_ai.messages import BinaryContent

    from kern_nb.interop.media import load_file

    names = [name for name in _SOURCES if source.get(name) is not None]
    unknown = [name for name in source if name not in (*_SOURCES, *_OPTIONS)]
    if unknown or len(names) != 1:
        problem = f"no argument {unknown[0]!r}" if unknown else f"exactly one source, got {', '.join(names) or 'none'}"
        raise BadUsage(f"{kind} takes {problem}.", f"Its sources are {', '.join(_SOURCES)}.")
    value = source[names[0]]
    if names[0] == "filepath":
        return load_file(kind, Path(value))
    if names[0] == "url":
        return load_file(kind, str(value))
    content = value.encode() if isinstance(value, str) else bytes(value)
    extension = source.get("format")
    media_type = source.get("mime_type") or (f"{kind}/{extension}" if extension and kind != "document" else None)
    return BinaryContent(content, media_type=media_type) if media_type else load_file(kind, content)
