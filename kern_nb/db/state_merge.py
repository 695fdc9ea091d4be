"""Session state under concurrent runs: a three-way merge, key by key.

A run starts from a state, changes some of it and hands back the whole. Meanwhile another run may have handed back its
own. What this run did not change keeps the other's value; what it did change, or removed, is this run's.
"""

from __future__ import annotations

from typing import Any

from kern_nb.db import codec

_MISSING = object()


def merge(base: dict[str, Any], current: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The current state with what changed from ``base`` to ``ours``.

    Dicts are merged at every depth; any other value, a list too, is taken whole.
    """
    merged = {key: value for key, value in current.items() if key in ours or key not in base}
    for key, value in ours.items():
        before, now = base.get(key, _MISSING), current.get(key, _MISSING)
        if isinstance(value, dict) and isinstance(now, dict):
            merged[key] = merge(before if isinstance(before, dict) else {}, now, value)
        elif before is _MISSING or codec.dumps(value) != codec.dumps(before):  # 1, 1.0 and True are not the same
            merged[key] = value
        elif now is _MISSING:  # unchanged here, removed by the other run
            merged.pop(key, None)
    return merged
