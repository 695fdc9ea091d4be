"""Sessions as rows, totals, header and branch tree of the session browser, and the list as a query."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from kern_nb.db.references import Reference
from kern_nb.db.session_items import SessionItem, SessionTree
from kern_nb.db.session_search import TAGS, SessionFilter
from kern_nb.errors import BadUsage
from kern_nb.records import RunStatus, Session
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, BRANCH
from kern_nb.text.metrics import to_records
from kern_nb.views.transcript import fork, owner_facts
from kern_nb.widgets.base import encode_key

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

STATUSES = get_args(RunStatus)

_TITLE = 160
_ID = 60
_SHORT_ID = 20
_NODE = 80
_TOTALS = ("session_id", "n_messages", "n_tool_calls", "n_tool_errors", "total_tokens", "cost")


def list_row(item: SessionItem) -> dict[str, Any]:
    """Convert a session to a row of the list."""
    title = _title(item)
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
        "branch": _branch_point(item),
    }


def _title(item: SessionItem) -> str | None:
    """Return the title if there is one that differs from the id."""
    return item.title if item.title and item.title != item.session_id else None


def _branch_point(item: SessionItem) -> str:
    """Return where a session branches as a reference; empty if it is not a branch."""
    if item.parent_session_id is None:
        return ""
    parent = formatting.truncate(item.parent_session_id, _SHORT_ID)
    if item.fork_run_index is None or item.fork_run_index < 0:
        return f"{BRANCH} {parent}"
    return f"{BRANCH} {Reference(parent, item.fork_run_index, item.fork_message_index)}"


def fallback_row(item: SessionItem) -> list[str]:
    """Convert a session to a row of the fallback: id, title or input, owner, user, runs, status, time."""
    return [
        item.session_id,
        _title(item) or item.first_input or "",
        item.owner or "",
        item.user_id or "",
        formatting.format_count(item.n_runs),
        formatting.format_status(item.status),
        formatting.format_time(item.created_at),
    ]


def totals(store: SessionStore, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Format the totals of each session: each one by the name of its sort order, and all of them as ``said``."""
    records = to_records(store.sessions_df(ids, columns=_TOTALS))
    return {record["session_id"]: _format_totals(record) for record in records}


def _format_totals(record: dict[str, Any]) -> dict[str, str]:
    n_calls, n_failed = record["n_tool_calls"], record["n_tool_errors"]
    calls = formatting.pluralize(n_calls, "tool call") + (f" ({BAD} {n_failed:,} failed)" if n_failed else "")
    tokens, cost = record["total_tokens"], record["cost"]
    texts = {
        "messages": formatting.pluralize(record["n_messages"], "message"),
        "calls": calls if n_calls else "",
        "tokens": "" if tokens is None else formatting.pluralize(tokens, "token"),
        "cost": "" if cost is None else f"cost {formatting.format_money(cost)}",
    }
    return texts | {"said": " · ".join(filter(None, texts.values()))}


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
    return [formatting.truncate(tag, 40) for tag in tags][:20]


def build_tree(family: SessionTree, session_id: str) -> dict[str, Any]:
    """Nest the sessions of a tree below their parents, and mark the open session."""
    ids = {item.session_id for item in family.items}
    children: dict[str | None, list[SessionItem]] = defaultdict(list)
    for item in family.items:
        children[item.parent_session_id if item.parent_session_id in ids else None].append(item)
    roots = [_node(item, children, session_id) for item in children[None]]
    return {"roots": roots, "count": len(family.items), "complete": family.complete}


def _node(item: SessionItem, children: dict[str | None, list[SessionItem]], session_id: str) -> dict[str, Any]:
    """Convert a session and its branches; recursive, as a page could not show a chain of a thousand anyway."""
    branches = sorted(children[item.session_id], key=_branch_order)
    return {
        "key": encode_key(item.session_id),
        "id": formatting.truncate(item.session_id, _NODE),
        "title": formatting.truncate(_title(item) or item.first_input or "", _NODE),
        "at": _describe_branch_point(item),
        "runs": formatting.pluralize(item.n_runs, "run"),
        "status": "" if item.status is None else formatting.format_status(item.status),
        "here": item.session_id == session_id,
        "children": [_node(branch, children, session_id) for branch in branches],
    }


def _branch_order(item: SessionItem) -> tuple[float, float, str]:
    run, message = item.fork_run_index, item.fork_message_index
    return (float("-inf") if run is None else run, float("inf") if message is None else message, item.session_id)


def _describe_branch_point(item: SessionItem) -> str:
    if item.parent_session_id is None:
        return ""
    run, message = item.fork_run_index, item.fork_message_index
    if run is None or run < 0:
        return "before the first run"
    return f"after run {run}" if message is None else f"after message {run}.{message}"


def parse_filter(text: str | None, agent: str | None, user: str | None, status: str | None) -> SessionFilter:
    """Build a filter from the fields of `browse`, which may be empty; raise BadUsage if the status is unknown."""
    if status and status not in STATUSES:
        raise BadUsage(f"Unknown status {status!r}.", f"Statuses: {', '.join(STATUSES)}.")
    text = (text or "").strip()
    tag = text[1:].strip() if text.startswith("#") else ""
    return SessionFilter(
        text=None if tag or text == "#" else text or None,
        tag=tag or None,
        owner=(agent or "").strip() or None,
        user=(user or "").strip() or None,
        status=status or None,
    )


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


def build_query(
    narrowing: SessionFilter, ids: Sequence[str] | None, order: str, *, descending: bool
) -> tuple[str, dict[str, Any]]:
    """Build the list as SQL over the view ``sessions``, with its parameters; texts are never part of the SQL.

    The filter applies unless there are ``ids``, but for its tag, which SQL cannot express alike on every engine.
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
                escaped = re.sub("([!%_])", r"!\1", part.lower())
                params[name] = f"%{escaped}%"
                alternatives = (f"lower({column}) LIKE ${name} ESCAPE '!'" for column in searched)
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
