"""Session state under concurrent runs: a three-way merge, key by key.

A run starts from a state and ends with a changed one. Meanwhile another run may have stored its own. Keys that this run
did not change keep the other's value; keys that it changed or removed get this run's.
"""

from __future__ import annotations

from typing import Any

from kern_nb.db import codec

_MISSING = object()


def merge(base: dict[str, Any], current: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The current state with the changes from ``base`` to ``new``.

    Dicts are merged at every depth; any other value, a list included, is replaced.
    """
    merged = {key: value for key, value in current.items() if key in new or key not in base}
    for key, value in new.items():
        before, now = base.get(key, _MISSING), current.get(key, _MISSING)
        if isinstance(value, dict) and isinstance(now, dict):
            merged[key] = merge(before if isinstance(before, dict) else {}, now, value)
        elif before is _MISSING or codec.dumps(value) != codec.dumps(before):  # 1, 1.0 and True differ
            merged[key] = value
        elif now is _MISSING:  # unchanged here, removed by the other run
            merged.pop(key, None)
    return merged
