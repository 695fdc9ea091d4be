"""The branch tree of a session as data for a script: nested, in the order of the branch points."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kern_nb.db.session_items import Card, Family
from kern_nb.text import formatting
from kern_nb.widgets.base import key_of

_TITLE = 80


def tree(family: Family, session_id: str) -> dict[str, Any]:
    """The first session of all with its branches below it, and so on.

    Args:
        family: The sessions.
        session_id: The one that is shown.
    """
    there = {card.session_id for card in family.cards}
    children: dict[str | None, list[Card]] = defaultdict(list)
    for card in family.cards:
        parent = card.parent_session_id
        children[parent if parent in there else None].append(card)
    return {
        "roots": [_node(card, children, session_id) for card in children[None]],
        "count": len(family.cards),
        "complete": family.complete,
    }


def _node(card: Card, children: dict[str | None, list[Card]], session_id: str) -> dict[str, Any]:
    """A session with its branches. A loop would do for a chain of a thousand; a page would not show it."""
    below = sorted(children[card.session_id], key=_point)
    title = card.title if card.title and card.title != card.session_id else card.asked
    return {
        "key": key_of(card.session_id),
        "id": formatting.truncate(card.session_id, _TITLE),
        "title": formatting.truncate(title or "", _TITLE),
        "at": _at(card),
        "runs": formatting.pluralize(card.n_runs, "run"),
        "status": "" if card.status is None else formatting.format_status(card.status),
        "here": card.session_id == session_id,
        "children": [_node(child, children, session_id) for child in below],
    }


def _point(card: Card) -> tuple[float, float, str]:
    run, message = card.fork_run_index, card.fork_message_index
    return (
        float("-inf") if run is None else run,
        float("inf") if message is None else message,
        card.session_id,
    )


def _at(card: Card) -> str:
    """Where it was taken, in words."""
    if card.parent_session_id is None:
        return ""
    run, message = card.fork_run_index, card.fork_message_index
    if run is None or run < 0:
        return "before the first run"
    return f"after run {run}" if message is None else f"after message {run}.{message}"
