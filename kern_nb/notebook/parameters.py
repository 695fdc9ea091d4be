"""The values that ``$name`` takes in SQL: Python variables, as plain values that every engine can bind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from kern_nb.errors import BadUsage
from kern_nb.notebook.parsing import variable

_PLAIN = (str, int, float, bool, bytes, Decimal, datetime, date, time, timedelta, type(None))
_AS_TEXT = (UUID, PurePath)
_HINT = "Give one value, or a list of them, a variable of its own: model = df.model[0]"


def parameters(query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the ``$names`` that a query uses, and of no others.

    Raises:
        BadUsage: there is no such variable, or its value is none that SQL could take.
    """
    from kern_nb.db.query import numbered

    _, names = numbered(query)
    return {name: _plain(name, variable(name, variables)) for name in names}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_scalar(name, item) for item in value]
    return _scalar(name, value)


def _scalar(name: str, value: Any) -> Any:
    """A plain Python value; those of pandas and numpy know their own."""
    if _is_missing(value):
        return None
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    if hasattr(value, "to_pytimedelta"):
        return value.to_pytimedelta()
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, _AS_TEXT):
        return str(value)
    # A str of a subclass, an Enum's for example, is bound as the str it is.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value.value) if hasattr(value, "value") and isinstance(value.value, kind) else kind(value)
    if not isinstance(value, _PLAIN):
        raise BadUsage(f"${name} is of type {type(value).__name__}, which no parameter can be.", _HINT)
    return value


def _is_missing(value: Any) -> bool:
    """Whether it is pandas' NA or NaT."""
    return type(value).__name__ in ("NAType", "NaTType")
