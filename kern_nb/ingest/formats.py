"""The formats, and the detection of the format of a file from its content rather than its name."""

from __future__ import annotations

from itertools import islice
from typing import Any

from kern_nb.errors import UnknownFormat, did_you_mean
from kern_nb.ingest import bundle, chat, tau2
from kern_nb.ingest.importer import Importer, json_type
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem

# The first importer that recognises a file reads it, so stricter ones come first.
IMPORTERS: dict[str, Importer] = {bundle.NAME: bundle, tau2.NAME: tau2, chat.NAME: chat}

# Several values are tried, so that a malformed record at the start of a file does not hide its format.
_PROBED_VALUES = 20
_SHOWN_KEYS = 6


def describe_formats() -> str:
    """List the formats, for a hint."""
    names = ", ".join(f"{name} ({importer.READS})" for name, importer in IMPORTERS.items())
    return f"The formats are {names}."


def get_importer(name: str) -> Importer:
    """Return the importer of a format; raise UnknownFormat if no format has that name."""
    if name not in IMPORTERS:
        raise UnknownFormat(f"Unknown format {name!r}.", did_you_mean(name, IMPORTERS, describe_formats()))
    return IMPORTERS[name]


def detect_importer(source: Source) -> Importer:
    """Return the importer that reads a file; raise UnknownFormat if none does."""
    head = list(islice(source.values(), _PROBED_VALUES))
    values = [item.value for item in head if not isinstance(item, Problem)]
    for importer in IMPORTERS.values():
        if any(importer.recognises(value) for value in values):
            return importer
    problems = [item for item in head if isinstance(item, Problem)]
    raise UnknownFormat(f"No importer reads {source.name}: {_describe(values, problems)}.", describe_formats())


def _describe(values: list[Any], problems: list[Problem]) -> str:
    if values and isinstance(values[0], dict):
        keys = [repr(key) for key in values[0]]
        key_list = ", ".join(keys[:_SHOWN_KEYS]) + (" and others" if len(keys) > _SHOWN_KEYS else "")
        kind = f" and the type {values[0]['type']!r}" if isinstance(values[0].get("type"), str) else ""
        return f"it starts with an object with the keys {key_list}{kind}" if keys else "it starts with an empty object"
    if values and isinstance(values[0], list):
        first = f"a list whose first item is {json_type(values[0][0])}" if values[0] else "an empty list"
        return f"it starts with {first}"
    if values:
        return f"it starts with {json_type(values[0])}"
    return str(problems[0].reason).rstrip(".") if problems else "it is empty"
