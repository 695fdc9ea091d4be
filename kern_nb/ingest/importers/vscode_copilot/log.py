"""The log of operations in which Visual Studio Code writes the document of a chat session.

Each line has a kind: 0 is a snapshot ``v``; 1 sets the value at the path ``k``; 2 appends the items ``v`` to the list
there, and with an index ``i`` they replace what is from there on; 3 deletes the value.
"""

from __future__ import annotations

import copy
from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.values import to_list

SNAPSHOT, SET, PUSH, DELETE = range(4)

_MAX_GAP = 10_000


def apply_operation(state: Any, operation: Any) -> Any:
    """Apply an operation to a document and return it; raise MalformedRecord if that is not possible."""
    if not isinstance(operation, dict) or operation.get("kind") not in (SNAPSHOT, SET, PUSH, DELETE):
        raise MalformedRecord("it has no known kind")
    kind, path = operation["kind"], operation.get("k")
    value = copy.deepcopy(operation.get("v"))  # the operations stay as they are in the file
    if kind == SNAPSHOT:
        if not isinstance(value, dict):
            raise MalformedRecord("its snapshot is no object")
        return value
    if not isinstance(path, list) or not path or not isinstance(state, dict):
        raise MalformedRecord("it has no path, or no snapshot is before it")
    owner: Any = state
    for key in path[:-1]:
        owner = _member(owner, key)
    if kind == PUSH:
        _extend(owner, path[-1], to_list(value), operation.get("i"))
    elif kind == DELETE:
        _delete(owner, path[-1])
    else:
        _set(owner, path[-1], value)
    return state


def _member(owner: Any, key: Any) -> Any:
    if isinstance(owner, dict) and isinstance(key, str) and key in owner:
        return owner[key]
    if isinstance(owner, list) and type(key) is int and 0 <= key < len(owner):
        return owner[key]
    raise MalformedRecord(f"there is no {key!r} on its path")


def _set(owner: Any, key: Any, value: Any) -> None:
    if isinstance(owner, dict) and isinstance(key, str):
        owner[key] = value
    elif isinstance(owner, list) and type(key) is int and 0 <= key <= len(owner) + _MAX_GAP:
        owner.extend([None] * (key + 1 - len(owner)))
        owner[key] = value
    else:
        raise MalformedRecord(f"there is no {key!r} on its path")


def _delete(owner: Any, key: Any) -> None:
    if isinstance(owner, dict) and isinstance(key, str):
        owner.pop(key, None)
    elif isinstance(owner, list) and type(key) is int and 0 <= key < len(owner):
        owner[key] = None


def _extend(owner: Any, key: Any, items: list[Any], start: Any) -> None:
    if isinstance(owner, dict) and isinstance(key, str) and owner.get(key) is None:
        owner[key] = []
    target = _member(owner, key)
    if not isinstance(target, list):
        raise MalformedRecord(f"{key!r} on its path is no list")
    if type(start) is int and 0 <= start < len(target):
        del target[start:]
    target += items
