"""From marks to a Vega-Lite specification, and from that to what hosts can show: the only place that draws.

JupyterLab 4 has Vega 5, and shows the specifications of Altair 6 as text: so the browser is given compiled Vega 5, and
every other host a picture. Both come from vl-convert, which has all it needs in itself: nothing is loaded.
"""

from __future__ import annotations

import base64
import math
import struct
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from kern_nb.errors import BadUsage

MIME = "application/vnd.vega.v5+json"
HOW_TO_DRAW = 'To see it drawn: %pip install "kern-nb[plots]", then run the cell again.'

WIDTH = 600
"""Of the plotting area, in pixels: with its axes it fits GitHub's column of text."""

MOST_POINTS = 2_000
"""More marks than this are not drawn: a notebook keeps every one of them."""

GRID, GREY, MUTED = "#e4e4e4", "#767676", "#5a5a5a"
TEXT = "#1f1f1f"
BLUE, ORANGE, GREEN, BROWN = "#0072b2", "#c44e00", "#008563", "#8a6a00"
# Three to one or more on white, told apart with any kind of colour vision; shapes tell them apart as well.
PALETTE = (BLUE, ORANGE, GREEN, "#a3468a", BROWN, "#3f8fc7", "#333333", "#7a1f3d")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")

# Every colour is stated, so that no host's theme turns half of them around: a plot is a white panel everywhere.
_CONFIG: dict[str, Any] = {
    "background": "white",
    "padding": 10,
    "view": {"stroke": None, "continuousWidth": WIDTH},
    "title": {
        "anchor": "start",
        "frame": "bounds",
        "subtitleFontSize": 12,
        "subtitlePadding": 4,
    },
    "axis": {
        "labelColor": TEXT,
        "titleColor": TEXT,
        "labelFontSize": 11,
        "labelFlush": False,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 240,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
    },
    "legend": {
        "labelColor": TEXT,
        "titleColor": TEXT,
        "labelFontSize": 11,
        "labelLimit": 280,
        "titleFontWeight": "normal",
    },
    "text": {"color": TEXT, "fontSize": 11},
}

EMBED_OPTIONS: dict[str, Any] = {
    "renderer": "svg",
    # The editor is a page elsewhere; the other two show what .spec has.
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}

# Written out up to 999, then with a unit prefix: 0, 0.05, 12k. Vega's own formats know one of the two.
SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
PERCENT = "(datum.value > 0 ? '+' : '') + format(datum.value, '~r')"

_IN_JUPYTERLAB = "5.21"
NEWEST = None
_SCALE = 2
_SIGNATURE = 8
_PIXELS = b"IDAT"
_FEW = 20
_LINE = 96


def specification(title: str, notes: Iterable[str], drawing: dict[str, Any] | None) -> dict[str, Any]:
    """A whole Vega-Lite specification.

    Titles are texts of ours, and texts from a store are values of the data or of a scale: Vega evaluates neither.
    """
    notes = list(notes)
    subtitle = [line for note in notes for line in textwrap.wrap(note, _LINE)]
    title_of_all = heading(title) | {"fontSize": 15, "offset": 12} | ({"subtitle": subtitle} if subtitle else {})
    nothing = {"data": {"values": []}, "mark": "point", "height": 1, "width": WIDTH}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": title_of_all,
        "description": description(title, notes),
        "config": _CONFIG,
        **(nothing if drawing is None else drawing),
    }


def heading(text: str) -> dict[str, Any]:
    """A title, with colours of its own: a host's theme goes before those in the configuration."""
    return {"text": text, "color": TEXT, "subtitleColor": MUTED, "fontSize": 12}


def description(title: str, notes: Iterable[str]) -> str:
    """What stands for the picture where it is not seen."""
    return " ".join([f"{title}.", *notes])


def can_draw() -> bool:
    """Whether what draws is installed."""
    try:
        import vl_convert  # noqa: F401 - it is there, or it is not
    except ImportError:
        return False
    return True


def altair() -> ModuleType:
    """Altair.

    Raises:
        BadUsage: it is not installed.
    """
    try:
        import altair as module
    except ImportError as error:
        raise BadUsage("Altair is not installed.", HOW_TO_DRAW) from error
    return module


def _vl_convert() -> ModuleType:
    try:
        import vl_convert
    except ImportError as error:
        raise BadUsage("vl-convert, which draws plots, is not installed.", HOW_TO_DRAW) from error
    return vl_convert


def compiled(spec: dict[str, Any], version: str | None = _IN_JUPYTERLAB) -> dict[str, Any]:
    """The Vega specification of a Vega-Lite one: for JupyterLab, or the `NEWEST`."""
    made: dict[str, Any] = _vl_convert().vegalite_to_vega(spec, vl_version=version)
    return made


def png(spec: dict[str, Any]) -> bytes:
    """A picture of a Vega specification, with two pixels for each, for screens that have them."""
    return _packed(_vl_convert().vega_to_png(spec, scale=_SCALE, allowed_base_urls=[]))


def _packed(picture: bytes) -> bytes:
    """The same PNG in a third of the bytes: vl-convert is quick about packing it, and a notebook keeps it for ever."""
    chunks = list(_chunks(picture))
    first = next(place for place, (kind, _) in enumerate(chunks) if kind == _PIXELS)
    pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == _PIXELS))
    others = [chunk for chunk in chunks if chunk[0] != _PIXELS]
    packed = [*others[:first], (_PIXELS, zlib.compress(pixels, 9)), *others[first:]]
    return picture[:_SIGNATURE] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in packed
    )


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The parts of a PNG: each has its length before it and a checksum behind it."""
    at = _SIGNATURE
    while at < len(picture):
        length, kind = struct.unpack(">I4s", picture[at : at + 8])
        yield kind, picture[at + 8 : at + 8 + length]
        at += length + 12


def size_of(picture: bytes) -> tuple[int, int]:
    """The width and height at which a picture is meant to be seen: a PNG's first chunk has them."""
    width, height = struct.unpack(">II", picture[16:24])
    return width // _SCALE, height // _SCALE


def whole_ticks(first: float, last: float) -> dict[str, Any]:
    """What an axis of whole numbers needs to have ticks at these only."""
    few = {"values": list(range(math.ceil(first), math.floor(last) + 1))} if last - first < _FEW else {"tickMinStep": 1}
    return {"format": ",d", "grid": False, **few}


def base64_of(picture: bytes) -> str:
    """A picture, as notebooks keep it."""
    return base64.b64encode(picture).decode()


def svg(spec: dict[str, Any]) -> str:
    """A Vega specification as SVG."""
    made: str = _vl_convert().vega_to_svg(spec, allowed_base_urls=[])
    return made


def html(spec: dict[str, Any]) -> str:
    """A page that shows a Vega specification, with all its scripts in it."""
    made: str = _vl_convert().vega_to_html(spec, bundle=True)
    return made
