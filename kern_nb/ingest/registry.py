"""The importers by name, and the detection of the format of a file from its content rather than its name."""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isabstract
from typing import Any

from kern_nb.errors import UnknownFormat, did_you_mean
from kern_nb.ingest import importers
from kern_nb.ingest.importer import Importer, json_type
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem

ENTRY_POINT_GROUP = "kern_nb.formats"
"""Each entry point is a subclass of `Importer`; see ``docs/importers.md``."""

_SHOWN_KEYS = 6


@cache
def load_importers() -> dict[str, Importer]:
    """The importers by name, in the order in which they are tried: kern_nb's, a module each, and other packages'."""
    modules = [import_module(f"{importers.__name__}.{m.name}") for m in pkgutil.iter_modules(importers.__path__)]
    kinds = [kind for module in modules for kind in vars(module).values() if _is_importer(kind, module.__name__)]
    by_name = {kind.name: kind() for kind in kinds}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            importer = entry.load()()
            by_name.setdefault(importer.name, importer)
        except Exception as error:  # noqa: BLE001 - of another package, which must not prevent every import
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"The importer {entry.value!r} cannot be loaded: {reason}", stacklevel=2)
    return dict(sorted(by_name.items(), key=lambda item: (item[1].is_generic, item[0])))


def _is_importer(value: object, module: str) -> bool:
    is_kind = isinstance(value, type) and issubclass(value, Importer) and not isabstract(value)
    return is_kind and value.__module__ == module


def describe_formats() -> str:
    """List the formats, for a hint."""
    names = ", ".join(f"{name} ({importer.reads})" for name, importer in load_importers().items())
    return f"The formats are {names}."


def get_importer(name: str) -> Importer:
    """Return the importer of a format; raise UnknownFormat if no format has that name."""
    available = load_importers()
    if name not in available:
        raise UnknownFormat(f"Unknown format {name!r}.", did_you_mean(name, available, describe_formats()))
    return available[name]


def detect_importer(source: Source) -> Importer:
    """Return the importer that reads a file; raise UnknownFormat if none does."""
    for importer in load_importers().values():
        if importer.recognizes(source):
            return importer
    problems = [item for item in source.values() if isinstance(item, Problem)] if not source.head else []
    raise UnknownFormat(f"No importer reads {source.name}: {_describe(source.head, problems)}.", describe_formats())


def _describe(values: Sequence[Any], problems: list[Problem]) -> str:
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
