"""Conversations whose messages state the message before them: their keys, and the steps of their tree. No importer."""

from __future__ import annotations

import re
from collections.abc import Callable

from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.parsing.tree import Entry, Links, Step

_GLOBAL_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def record_key(session_id: str, record_id: str) -> str:
    """The key of a record, equal in every copy of it: an id that is no UUID may mean something else elsewhere."""
    return record_id if _GLOBAL_ID.fullmatch(record_id) else hash_record(session_id, record_id)


def build_steps(
    entries: list[Entry], links: Links, is_significant: Callable[[Entry], bool] | None = None
) -> dict[int, Step]:
    """The steps of a tree, by the position of the entry: that of its parent, if it is no message. -1 is the empty root.

    A step that is not significant makes no line of its own; without the function, all are.
    """
    steps = {-1: Step(-1, -1, None)}
    for position in links.order:
        parent = links.parents[position]
        above = steps[-1 if parent is None else parent]
        if entries[position].is_message:
            step = Step(
                position, position, above, is_significant=is_significant is None or is_significant(entries[position])
            )
            above.children.append(step)
            above = step
        above.end = max(above.end, position)
        steps[position] = above
    return steps
