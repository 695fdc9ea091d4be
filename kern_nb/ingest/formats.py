"""The formats there are, and which of them a file is in: told by what is in it, not by its name."""

from __future__ import annotations

from itertools import islice
from typing import Any

from kern_nb.errors import UnknownFormat, did_you_mean
from kern_nb.ingest import bundle, chat, tau2
from kern_nb.ingest.importer import Importer, kind_of
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem

# The first one that recognises a file reads it: those with the stricter marks come first.
IMPORTERS: dict[str, Importer] = {
    bundle.NAME: bundle,
    tau2.NAME: tau2,
    chat.NAME: chat,
}

# A broken record at the start of a file does not hide what the file is.
_LOOKED_AT = 20
_SHOWN = 6


def known() -> str:
    """The formats, as a hint."""
    return "The formats are " + ", ".join(f"{name} ({one.READS})" for name, one in IMPORTERS.items()) + "."


def by_name(name: str) -> Importer:
    """The importer of that name.

    Raises:
        UnknownFormat: there is none.
    """
    if name not in IMPORTERS:
        raise UnknownFormat(f"There is no format {name!r}.", did_you_mean(name, IMPORTERS, known()))
    return IMPORTERS[name]


def recognise(source: Source) -> Importer:
    """The importer that reads a file.

    Raises:
        UnknownFormat: none does.
    """
    first = list(islice(source.values(), _LOOKED_AT))
    values = [found.value for found in first if not isinstance(found, Problem)]
    for importer in IMPORTERS.values():
        if any(importer.recognises(value) for value in values):
            return importer
    problems = [found for found in first if isinstance(found, Problem)]
    raise UnknownFormat(f"No importer reads {source.name}: {_looks(values, problems)}.", known())


def _looks(values: list[Any], problems: list[Problem]) -> str:
    """What a file looks like."""
    if values and isinstance(values[0], dict):
        keys = [repr(key) for key in values[0]]
        shown = ", ".join(keys[:_SHOWN]) + (" and others" if len(keys) > _SHOWN else "")
        kind = f" and the type {values[0]['type']!r}" if isinstance(values[0].get("type"), str) else ""
        return f"it starts with an object that has the keys {shown}{kind}" if keys else "it starts with an empty object"
    if values and isinstance(values[0], list):
        return f"it starts with a list of {kind_of(values[0][0])}s" if values[0] else "it starts with an empty list"
    if values:
        return f"it starts with {kind_of(values[0])}"
    return str(problems[0].reason).rstrip(".") if problems else "it is empty"
