"""The parameters of the user's SQL: ``$name`` in the text, and the Python values that are bound to them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from kern_nb.db import codec, mapping
from kern_nb.errors import BadUsage, UnstorableValue
from kern_nb.records import to_utc

# `_TOKEN` matches `$name`, and text in which it is no parameter. An unclosed quote or comment extends to the end, so
# that the time is linear.
QUOTED = r"""'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"""
COMMENT = r"--[^\n]* | /\*.*?(?:\*/|\Z)"
_TOKEN = re.compile(rf"(?:{QUOTED} | {COMMENT}) | \$(?P<name>[A-Za-z_]\w*)", re.VERBOSE | re.DOTALL)

# How far a list is from its IN, and the closing bracket from the list, in characters.
_NEAR = 100

MAX_LIST = 30_000
"""Values of a list: fewer than the parameters that every engine accepts in a statement."""


def number_parameters(text: str) -> tuple[str, list[str]]:
    """Replace the first ``$name`` with ``$1`` and so on; return the SQL and the names."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        return match[0] if name is None else f"${names.setdefault(name, len(names) + 1)}"

    return _TOKEN.sub(number, text), list(names)


def bind_parameters(text: str, values: Mapping[str, Any], dialect: str) -> tuple[str, dict[str, Any]]:
    """Convert the values of parameters, and expand each list after IN to a parameter per value.

    ``IN $name`` and ``IN ($name)`` take a list, tuple, set, Series, Index or array; IN an empty one is false.
    """
    lists = {name: items for name, value in values.items() if (items := _list_items(value)) is not None}
    bound = {name: _convert_parameter(name, value) for name, value in values.items() if name not in lists}
    names: dict[str, list[str]] = {}
    for name, items in lists.items():
        if len(items) > MAX_LIST:
            reason = f"${name} has {len(items):,} values; a list may have up to {MAX_LIST:,}."
            raise BadUsage(reason, "Select more rows, and filter the DataFrame.")
        free = (f"{name}_{n}" for n in itertools.count() if f"{name}_{n}" not in values and f"{name}_{n}" not in bound)
        names[name] = list(itertools.islice(free, len(items)))
        bound |= {key: _convert_parameter(name, item) for key, item in zip(names[name], items, strict=True)}
    kinds = {name: type(values[name]).__name__ for name in lists}
    return (_expand(text, names, kinds, dialect) if lists else text), bound


def _expand(text: str, names: Mapping[str, list[str]], kinds: Mapping[str, str], dialect: str) -> str:
    """Replace each list in a query, and the operator before it; ``kinds`` are the types that errors name."""
    pieces: list[str] = []
    end = 0
    for token in _TOKEN.finditer(text):
        if (name := token["name"]) not in names:
            continue
        before = text[max(end, token.start() - _NEAR) : token.start()].rstrip()
        after = text[token.end() : token.end() + _NEAR]
        in_brackets = before.endswith("(") and after.lstrip().startswith(")")
        rest, is_in = _without_word(before.removesuffix("(").rstrip() if in_brackets else before, "in")
        if not is_in:
            reason = f"${name} must be a text, number or time, got {kinds[name]}."
            raise BadUsage(reason, f"A list follows IN: WHERE session_id IN ${name}")
        rest, is_not = _without_word(rest, "not")
        pieces += [
            text[end : max(end, token.start() - _NEAR)],
            rest,
            " ",
            _in_list(names[name], dialect, is_not=is_not),
        ]
        end = token.end() + (after.index(")") + 1 if in_brackets else 0)
    return "".join([*pieces, text[end:]])


def _without_word(text: str, word: str) -> tuple[str, bool]:
    """Remove a word from the end of a text; return the text and whether it ended with the word."""
    rest, end = text[: -len(word)], text[-len(word) :]
    if end.lower() != word or (rest and (rest[-1].isalnum() or rest[-1] in "_$")):
        return text, False
    return rest.rstrip(), True


def _in_list(names: list[str], dialect: str, *, is_not: bool) -> str:
    operator = "NOT IN" if is_not else "IN"
    if names:
        return f"{operator} ({', '.join(f'${name}' for name in names)})"
    if dialect == "postgresql":  # which needs the type of the values, except of an array
        return "<> ALL ('{}')" if is_not else "= ANY ('{}')"
    return f"{operator} (SELECT NULL WHERE 1 = 0)"


def _list_items(value: Any) -> list[Any] | None:
    """The items of a list, missing ones as None; None for a value that is no list."""
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
    elif isinstance(value, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray, np.ndarray)) and value.ndim == 1:
        items = pd.Series(value).tolist()
    else:
        return None
    return [None if item is pd.NA or item is pd.NaT else item for item in items]


def _convert_parameter(name: str, value: Any) -> Any:
    """Convert a parameter to a plain Python value, text encoded like the stored text that it is compared with."""
    try:
        decoded = codec.loads(codec.dumps(value))
        decoded = mapping.normalize_number(decoded) if type(decoded) is int else decoded
    except UnstorableValue:
        decoded = {}
    hint = "Pass a text, number or time, or a list of them after IN."
    if isinstance(decoded, (dict, list, set, frozenset, complex)):
        raise BadUsage(f"${name} must be a text, number or time, got {type(value).__name__}.", hint)
    if isinstance(decoded, Decimal) and decoded.is_snan():
        raise BadUsage(f"${name} must be a text, number or time, got a signaling NaN.", hint)
    if isinstance(decoded, datetime):
        to_utc(decoded, f"${name}")
    return codec.encode_text(decoded) if isinstance(decoded, str) else decoded
