"""The branch tree of a session as nested data for a script, in the order of the branch points."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kern_nb.db.session_items import SessionItem, SessionTree
from kern_nb.text import formatting
from kern_nb.widgets.base import encode_key

_TITLE = 80


def build_tree(family: SessionTree, session_id: str) -> dict[str, Any]:
    """Nest the sessions of a tree below their parents, and mark the open session."""
    ids = {item.session_id for item in family.items}
    children: dict[str | None, list[SessionItem]] = defaultdict(list)
    for item in family.items:
        children[item.parent_session_id if item.parent_session_id in ids else None].append(item)
    return {
        "roots": [_node(item, children, session_id) for item in children[None]],
        "count": len(family.items),
        "complete": family.complete,
    }


def _node(item: SessionItem, children: dict[str | None, list[SessionItem]], session_id: str) -> dict[str, Any]:
    """Convert a session and its branches; recursive, as a page could not show a chain of a thousand anyway."""
    branches = sorted(children[item.session_id], key=_branch_point)
    title = item.title if item.title and item.title != item.session_id else item.first_input
    return {
        "key": encode_key(item.session_id),
        "id": formatting.truncate(item.session_id, _TITLE),
        "title": formatting.truncate(title or "", _TITLE),
        "at": _describe_branch_point(item),
        "runs": formatting.pluralize(item.n_runs, "run"),
        "status": "" if item.status is None else formatting.format_status(item.status),
        "here": item.session_id == session_id,
        "children": [_node(branch, children, session_id) for branch in branches],
    }


def _branch_point(item: SessionItem) -> tuple[float, float, str]:
    run, message = item.fork_run_index, item.fork_message_index
    return (float("-inf") if run is None else run, float("inf") if message is None else message, item.session_id)


def _describe_branch_point(item: SessionItem) -> str:
    if item.parent_session_id is None:
        return ""
    run, message = item.fork_run_index, item.fork_message_index
    if run is None or run < 0:
        return "before the first run"
    return f"after run {run}" if message is None else f"after message {run}.{message}"
