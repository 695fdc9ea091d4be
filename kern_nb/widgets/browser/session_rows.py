"""Sessions as rows and header of the session browser, and the list as a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kern_nb.db.session_items import SessionItem
from kern_nb.db.session_search import TAGS, SessionFilter
from kern_nb.records import Session
from kern_nb.text import formatting
from kern_nb.text.formatting import BRANCH
from kern_nb.views.transcript import fork, owner_facts
from kern_nb.widgets.base import encode_key

_TITLE = 160
_ID = 60
_SHORT_ID = 20
_TAG = 40
_MAX_TAGS = 20


def list_row(item: SessionItem) -> dict[str, Any]:
    """Convert a session to a row of the list."""
    title = item.title if item.title and item.title != item.session_id else None
    return {
        "key": encode_key(item.session_id),
        "id": formatting.truncate(item.session_id, _SHORT_ID),
        "whole": formatting.truncate(item.session_id, _TITLE),
        "title": None if title is None else formatting.truncate(title, _TITLE),
        "asked": None if not item.first_input else formatting.truncate(item.first_input, _TITLE),
        "owner": formatting.truncate(item.owner or "", _ID),
        "user": formatting.truncate(item.user_id or "", _ID),
        "tags": _truncate_tags(item.tags),
        "status": "" if item.status is None else formatting.format_status(item.status),
        "runs": formatting.pluralize(item.n_runs, "run"),
        "created": formatting.format_time(item.created_at),
        "branch": "" if item.parent_session_id is None else f"{BRANCH} {_branch_point(item)}",
    }


def _branch_point(item: SessionItem) -> str:
    run, message = item.fork_run_index, item.fork_message_index
    index = "" if run is None or run < 0 else f"/{run}" + ("" if message is None else f".{message}")
    return formatting.truncate(item.parent_session_id or "", _SHORT_ID) + index


def fallback_row(item: SessionItem) -> list[str]:
    """Convert a session to a row of the fallback: id, title or input, owner, user, runs, status, time."""
    title = item.title if item.title and item.title != item.session_id else item.first_input
    return [
        item.session_id,
        title or "",
        item.owner or "",
        item.user_id or "",
        formatting.format_count(item.n_runs),
        formatting.format_status(item.status),
        formatting.format_time(item.created_at),
    ]


def session_header(session: Session) -> dict[str, Any]:
    """Return what stands above a transcript."""
    tags = (session.metadata or {}).get(TAGS)
    tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    title = session.session_name if session.session_name != session.session_id else None
    created = "" if session.created_at is None else f"created {formatting.format_time(session.created_at)} UTC"
    facts = [*owner_facts(session), created, fork(session)]
    return {
        "id": formatting.truncate(session.session_id, _TITLE),
        "title": formatting.truncate(title or "", _TITLE),
        "tags": _truncate_tags(tags),
        "facts": [formatting.truncate(fact, _TITLE) for fact in facts if fact],
    }


def _truncate_tags(tags: Iterable[str]) -> list[str]:
    return [formatting.truncate(tag, _TAG) for tag in tags][:_MAX_TAGS]


def filter_fields(narrowing: SessionFilter) -> dict[str, str]:
    """Return the texts of the filter's fields."""
    text = narrowing.text if narrowing.tag is None else f"#{narrowing.tag}"
    fields = {"text": text, "agent": narrowing.owner, "user": narrowing.user, "status": narrowing.status}
    return {name: formatting.escape_controls(value or "") for name, value in fields.items()}


_SORT_COLUMNS = {
    "created": "created_at",
    "updated": "updated_at",
    "title": "lower(coalesce(session_name, ''))",
    "session": "session_id",
    "owner": "coalesce(agent_id, team_id, workflow_id, '')",
    "user": "coalesce(user_id, '')",
    "messages": "n_messages",
    "tokens": "total_tokens",
    "cost": "cost",
}
_NULLABLE_ORDERS = ("created", "updated", "tokens", "cost")
_CONTAINS = "lower({column}) LIKE ${name} ESCAPE '!'"


def build_query(
    narrowing: SessionFilter, ids: Sequence[str] | None, order: str, *, descending: bool
) -> tuple[str, dict[str, Any]]:
    """Build the list as SQL over the view ``sessions``, with its parameters; texts are never part of the SQL.

    Args:
        narrowing: The filter, except its tag, which SQL cannot express alike on every engine.
        ids: The sessions, in place of the filter; None applies the filter.
        order: The sort order.
        descending: Whether to sort in descending order.
    """
    params: dict[str, Any] = {}
    conditions = []
    if ids is not None:
        params = {f"id_{n}": session_id for n, session_id in enumerate(ids)}
        conditions.append(f"session_id IN ({', '.join(f'${name}' for name in params)})" if ids else "1 = 0")
    else:
        columns = {"text": ("session_id", "session_name"), "user": ("user_id",), "owner": (_SORT_COLUMNS["owner"],)}
        for name, searched in columns.items():
            part = getattr(narrowing, name)
            if part is not None:
                params[name] = f"%{_escape_like(part.lower())}%"
                alternatives = (_CONTAINS.format(column=column, name=name) for column in searched)
                conditions.append(f"({' OR '.join(alternatives)})")
        if narrowing.status is not None:
            params["status"] = narrowing.status
            conditions.append("status = $status")
    where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
    keys = [_SORT_COLUMNS[order], *(["session_id"] if order != "session" else [])]
    if order in _NULLABLE_ORDERS:  # engines sort NULL differently: unknown counts as the least
        keys.insert(0, f"{keys[0]} IS NOT NULL")
    order_by = ", ".join(key + (" DESC" if descending else "") for key in keys)
    return f"SELECT *\nFROM sessions{where}\nORDER BY {order_by}", params


def _escape_like(part: str) -> str:
    return "".join(f"!{letter}" if letter in "!%_" else letter for letter in part)
