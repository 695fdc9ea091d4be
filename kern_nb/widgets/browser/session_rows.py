"""A session as the list and the head of the session browser say it, and the list as a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kern_nb.db.session_items import Card
from kern_nb.db.session_search import TAGS, Narrowing
from kern_nb.records import Session
from kern_nb.text import formatting
from kern_nb.text.formatting import BRANCH
from kern_nb.views.transcript import fork
from kern_nb.widgets.base import key_of

_TITLE = 160
_ID = 60
_SHORT_ID = 20
_TAG = 40
_MOST_TAGS = 20


def row(card: Card) -> dict[str, Any]:
    """A row of the list, in words that are safe to be sent and shown."""
    title = card.title if card.title and card.title != card.session_id else None
    return {
        "key": key_of(card.session_id),
        "id": formatting.truncate(card.session_id, _SHORT_ID),
        "whole": formatting.truncate(card.session_id, _TITLE),
        "title": None if title is None else formatting.truncate(title, _TITLE),
        "asked": None if not card.asked else formatting.truncate(card.asked, _TITLE),
        "owner": formatting.truncate(card.owner or "", _ID),
        "user": formatting.truncate(card.user_id or "", _ID),
        "tags": _short(card.tags),
        "status": "" if card.status is None else formatting.format_status(card.status),
        "runs": formatting.pluralize(card.n_runs, "run"),
        "created": formatting.format_time(card.created_at),
        "branch": "" if card.parent_session_id is None else f"{BRANCH} {place(card)}",
    }


def place(card: Card) -> str:
    """Where a branch was taken."""
    run, message = card.fork_run_index, card.fork_message_index
    at = "" if run is None or run < 0 else f"/{run}" + ("" if message is None else f".{message}")
    return formatting.truncate(card.parent_session_id or "", _SHORT_ID) + at


def cells(card: Card) -> list[str]:
    """A row of the still: id, title or question, owner, user, runs, status, time."""
    title = card.title if card.title and card.title != card.session_id else card.asked
    said = [card.session_id, title or "", card.owner or "", card.user_id or ""]
    return [
        *said,
        formatting.format_count(card.n_runs),
        formatting.format_status(card.status),
        formatting.format_time(card.created_at),
    ]


def head(session: Session) -> dict[str, Any]:
    """What stands above a transcript."""
    tags = (session.metadata or {}).get(TAGS)
    tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    title = session.session_name if session.session_name != session.session_id else None
    facts = [
        session.agent_id and f"agent {session.agent_id}",
        session.team_id and f"team {session.team_id}",
        session.workflow_id and f"workflow {session.workflow_id}",
        session.user_id and f"user {session.user_id}",
        f"created {formatting.format_time(session.created_at)} UTC" if session.created_at is not None else None,
        fork(session) or None,
    ]
    return {
        "id": formatting.truncate(session.session_id, _TITLE),
        "title": formatting.truncate(title or "", _TITLE),
        "tags": _short(tags),
        "facts": [formatting.truncate(fact, _TITLE) for fact in facts if fact],
    }


def _short(tags: Iterable[str]) -> list[str]:
    return [formatting.truncate(tag, _TAG) for tag in tags][:_MOST_TAGS]


def fields(narrowing: Narrowing) -> dict[str, str]:
    """What the fields of the filter hold."""
    text = narrowing.text if narrowing.tag is None else f"#{narrowing.tag}"
    found = {"text": text, "agent": narrowing.owner, "user": narrowing.user, "status": narrowing.status}
    return {name: formatting.escape_controls(value or "") for name, value in found.items()}


_ORDERED_BY = {
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
_HAS = "lower({column}) LIKE ${name} ESCAPE '!'"


def query(
    narrowing: Narrowing, ids: Sequence[str] | None, order: str, *, descending: bool
) -> tuple[str, dict[str, Any]]:
    """The list as SQL over the view ``sessions``, and its parameters: no text of a store's or a person's is in the SQL.

    Args:
        narrowing: Which sessions; not by tag, which no SQL says alike on every engine.
        ids: These instead, where they are named.
        order: What they are ordered by.
        descending: Whether the last comes first.
    """
    params: dict[str, Any] = {}
    where = []
    if ids is not None:
        params = {f"id_{n}": one for n, one in enumerate(ids)}
        where.append(f"session_id IN ({', '.join(f'${name}' for name in params)})" if ids else "1 = 0")
    else:
        columns = {"text": ("session_id", "session_name"), "user": ("user_id",)}
        columns["owner"] = (_ORDERED_BY["owner"],)
        for name, of in columns.items():
            part = getattr(narrowing, name)
            if part is not None:
                params[name] = f"%{_literal(part.lower())}%"
                where.append("(" + " OR ".join(_HAS.format(column=column, name=name) for column in of) + ")")
        if narrowing.status is not None:
            params["status"] = narrowing.status
            where.append("status = $status")
    conditions = f"\nWHERE {' AND '.join(where)}" if where else ""
    keys = [_ORDERED_BY[order], *(["session_id"] if order != "session" else [])]
    if order in (
        "created",
        "updated",
        "tokens",
        "cost",
    ):  # engines differ on where NULL sorts: what is unknown comes with the least
        keys.insert(0, f"{keys[0]} IS NOT NULL")
    ordered = ", ".join(key + (" DESC" if descending else "") for key in keys)
    return f"SELECT *\nFROM sessions{conditions}\nORDER BY {ordered}", params


def _literal(part: str) -> str:
    """A text for LIKE, whose signs are letters."""
    return "".join(f"!{letter}" if letter in "!%_" else letter for letter in part)
