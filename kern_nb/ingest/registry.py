"""The importers by name, and the detection of the format of a file from its content rather than its name."""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isabstract
from itertools import islice
from typing import Any

from kern_nb.errors import KernError, UnknownFormat, did_you_mean
from kern_nb.ingest import importers
from kern_nb.ingest.importer import READ_ERRORS, Importer, json_type
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.text.formatting import join_first

ENTRY_POINT_GROUP = "kern_nb.formats"
"""Each entry point is a subclass of `Importer`; see ``docs/importers.md``."""

EMPTY = "it is empty"

FORMATS_HINT = "%kern formats lists the formats that are read; kern_nb.formats() in Python."

_KINDS = {
    "binary": "it is not text",
    "duckdb": "it is a DuckDB database",
    "sqlite": "it is a SQLite database that is empty or damaged",
    "zip": "it is a zip archive",
}

_EMPTY_LIST = "it starts with an empty list"
_SHOWN_KEYS = 6


@cache
def load_importers() -> dict[str, Importer]:
    """The importers by name, in the order in which they are tried: kern_nb's and other packages'."""
    # A format is a module, or a package whose `__init__` has the importer.
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
    return is_kind and f"{value.__module__}.".startswith(f"{module}.")


def get_importer(name: str) -> Importer:
    """Return the importer of a format; raise UnknownFormat if no format has that name."""
    available = load_importers()
    if name not in available:
        raise UnknownFormat(f"Unknown format {name!r}.", did_you_mean(name, available, FORMATS_HINT))
    return available[name]


def detect_importer(source: Source) -> Importer:
    """Return the importer that reads a file; raise UnknownFormat if none does."""
    importer = find_importer(source)
    if importer is None:
        raise UnknownFormat(f"No importer reads {source.name}: {describe(source)}.", FORMATS_HINT)
    return importer


def find_importer(source: Source) -> Importer | None:
    """Return the importer that reads a file; raise UnknownFormat if it recognizes the file and not its version."""
    _ = source.head, source.tables  # an unreadable file is an error, not an unknown one
    return next((importer for importer in load_importers().values() if _recognizes(importer, source)), None)


def _recognizes(importer: Importer, source: Source) -> bool:
    try:
        return importer.recognizes(source)
    except KernError:
        raise
    except READ_ERRORS:
        return False


def describe(source: Source) -> str:
    """Say what a file in an unknown layout looks like."""
    if source.tables:
        return f"it is a SQLite database with the tables {join_first(sorted(source.tables))}"
    if source.kind in _KINDS:
        return _KINDS[source.kind]
    problems = [item for item in islice(source.values(), 1) if isinstance(item, Problem)] if not source.head else []
    return _describe(source.head, problems)


def _describe(values: Sequence[Any], problems: list[Problem]) -> str:
    if values and isinstance(values[0], dict):
        keys = [repr(key) for key in values[0]]
        key_list = ", ".join(keys[:_SHOWN_KEYS]) + (" and others" if len(keys) > _SHOWN_KEYS else "")
        kind = f" and the type {values[0]['type']!r}" if isinstance(values[0].get("type"), str) else ""
        return f"it starts with an object with the keys {key_list}{kind}" if keys else "it starts with an empty object"
    if values and isinstance(values[0], list):
        return f"it starts with a list whose first item is {_describe_item(values[0][0])}" if values[0] else _EMPTY_LIST
    if values:
        return f"it starts with {json_type(values[0])}"
    return problems[0].reason.rstrip(".") if problems else EMPTY


def _describe_item(value: Any) -> str:
    if not isinstance(value, dict):
        return json_type(value)
    return f"{json_type(value)} with the keys {join_first([repr(key) for key in value], _SHOWN_KEYS)}"
