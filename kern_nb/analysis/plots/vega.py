"""Vega-Lite specifications, and their rendering by vl-convert, which needs no network.

JupyterLab 4 renders Vega 5, and shows the specifications of Altair 6 as text: it gets compiled Vega 5, and every other
host gets an image. The specifications are plain dicts, as a plot must have one without the extra ``plots``.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
import textwrap
import zlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from kern_nb.errors import BadUsage

MIME = "application/vnd.vega.v5+json"
INSTALL_HINT = 'To draw it: %pip install "kern-nb[plots]", then run the cell again.'

WIDTH = 600
"""The width of the plotting area in pixels: with axes it fits GitHub's text column."""

MAX_POINTS = 2_000
"""The most marks of a plot: a notebook stores every one of them."""

GRID, GREY, MUTED = "#e4e4e4", "#767676", "#5a5a5a"
TEXT = "#1f1f1f"
BLUE, ORANGE, GREEN, BROWN = "#0072b2", "#c44e00", "#008563", "#8a6a00"
# A contrast of 3:1 or more on white, distinct for any kind of colour vision; shapes differ as well.
PALETTE = (BLUE, ORANGE, GREEN, "#a3468a", BROWN, "#3f8fc7", "#333333", "#7a1f3d")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")

# Every colour is set, so that a dark theme does not invert half of them: a plot is a white panel everywhere.
_CONFIG: dict[str, Any] = {
    "background": "white",
    "padding": 10,
    "view": {"stroke": None, "continuousWidth": WIDTH},
    "title": {"anchor": "start", "frame": "bounds", "subtitleFontSize": 12, "subtitlePadding": 4},
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
    # The editor is an external page; the other two show .spec.
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}

# In full up to 999, then with a unit prefix: 0, 0.05, 12k. No single format of Vega does both.
SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
PERCENT = "(datum.value > 0 ? '+' : '') + format(datum.value, '~r')"

_JUPYTERLAB = "5.21"
_SCALE = 2
_SIGNATURE_LENGTH = 8
_PIXELS = b"IDAT"
_MAX_TICKS = 20
_LINE_WIDTH = 96
_PLACEHOLDER = {"kern": "the specification"}


def build_specification(title: str, notes: Iterable[str], drawing: dict[str, Any] | None) -> dict[str, Any]:
    """Build a complete Vega-Lite specification.

    Texts from a store are values of the data or of a scale, which Vega does not evaluate.
    """
    notes = list(notes)
    subtitle = [line for note in notes for line in textwrap.wrap(note, _LINE_WIDTH)]
    full_title = make_title(title) | {"fontSize": 15, "offset": 12} | ({"subtitle": subtitle} if subtitle else {})
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": full_title,
        "description": describe(title, notes),
        "config": _CONFIG,
        **(drawing or {"data": {"values": []}, "mark": "point", "height": 1, "width": WIDTH}),
    }


def make_title(text: str) -> dict[str, Any]:
    """Return a title with its own colours: a host's theme takes precedence over the configuration."""
    return {"text": text, "color": TEXT, "subtitleColor": MUTED, "fontSize": 12}


def row_axis(names: list[str], field: str, **axis: Any) -> dict[str, Any]:
    """Return a vertical axis with one row a name, in order."""
    axis = {"ticks": False, "domain": False, "labelPadding": 8, **axis}
    return {"field": field, "type": "nominal", "title": None, "scale": {"domain": names}, "axis": axis}


def describe(title: str, notes: Iterable[str]) -> str:
    """Return the alternative text."""
    return " ".join([f"{title}.", *notes])


def can_draw() -> bool:
    """Whether vl-convert is installed."""
    try:
        _vl_convert()
    except BadUsage:
        return False
    return True


def import_extra(name: str, subject: str) -> ModuleType:
    """Import a library of the extra ``plots``; raise BadUsage if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadUsage(f"{subject} is not installed.", INSTALL_HINT) from error


def _vl_convert() -> ModuleType:
    return import_extra("vl_convert", "vl-convert, which draws plots,")


def compile_spec(spec: dict[str, Any], version: str | None = _JUPYTERLAB) -> dict[str, Any]:
    """Compile Vega-Lite to Vega, for JupyterLab or the newest version (None)."""
    return dict(_vl_convert().vegalite_to_vega(spec, vl_version=version))


def render_png(spec: dict[str, Any]) -> bytes:
    """Render a Vega specification as a PNG, with two pixels for each, for high-resolution screens."""
    return _recompress(_vl_convert().vega_to_png(spec, scale=_SCALE, allowed_base_urls=[]))


def render_svg(spec: dict[str, Any]) -> str:
    """Render a Vega specification as SVG."""
    return str(_vl_convert().vega_to_svg(spec, allowed_base_urls=[]))


def render_html(spec: dict[str, Any]) -> str:
    """Render a Vega specification as an HTML page with its scripts.

    vl-convert escapes nothing. So the page is made for a placeholder, which is replaced by ASCII JSON: nothing in it
    parses as markup, and no text can end the script element.
    """
    page = str(_vl_convert().vega_to_html(_PLACEHOLDER, bundle=True))
    parts = page.split(json.dumps(_PLACEHOLDER, separators=(",", ":")))
    if len(parts) != 2:  # noqa: PLR2004 - before it and after it
        raise RuntimeError(f"The page template must contain the specification once, got {len(parts) - 1} times.")
    return json.dumps(spec).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").join(parts)


def _recompress(png: bytes) -> bytes:
    """Compress a PNG to a third: vl-convert compresses fast, and a notebook stores the result."""
    chunks = list(_chunks(png))
    first = next(n for n, (kind, _) in enumerate(chunks) if kind == _PIXELS)
    pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == _PIXELS))
    metadata = [chunk for chunk in chunks if chunk[0] != _PIXELS]
    chunks = [*metadata[:first], (_PIXELS, zlib.compress(pixels, 9)), *metadata[first:]]
    return png[:_SIGNATURE_LENGTH] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and data of each chunk; its length comes before it, and a checksum after it."""
    offset = _SIGNATURE_LENGTH
    while offset < len(png):
        length, kind = struct.unpack(">I4s", png[offset : offset + 8])
        yield kind, png[offset + 8 : offset + 8 + length]
        offset += length + 12


def png_size(png: bytes) -> tuple[int, int]:
    """Return the width and height at which a PNG is displayed, from its first chunk."""
    width, height = struct.unpack(">II", png[16:24])
    return width // _SCALE, height // _SCALE


def integer_ticks(first: float, last: float) -> dict[str, Any]:
    """Return axis options that place ticks at whole numbers only."""
    is_short = last - first < _MAX_TICKS
    ticks = {"values": list(range(math.ceil(first), math.floor(last) + 1))} if is_short else {"tickMinStep": 1}
    return {"format": ",d", "grid": False, **ticks}
