"""Reading records: one session whole, a page of sessions, the history that a model is given."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec, rows
from kern_nb.db.lineage import CUT_RUN, Segments, segments
from kern_nb.db.schema import UNKNOWN_TIME, Tables, newest_first
from kern_nb.db.views import json_text, latest_runs
from kern_nb.errors import BadUsage, SessionNotFound, did_you_mean
from kern_nb.records import Message, Run, Session, ToolCall

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

Row = Mapping[str, Any] | RowMapping

NOT_TOLD = ("system", "developer")
NOT_IN_HISTORY = ("PENDING", "RUNNING", "PAUSED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")
"""Runs that led to no answer: a model is not shown them."""


class SessionPage(list[Session]):
    """Sessions, newest first, without their runs. ``cursor`` gives the next page; None where this is the last."""

    def __init__(self, sessions: Iterable[Session], cursor: str | None) -> None:
        super().__init__(sessions)
        self.cursor = cursor


def session_row(connection: Connection, tables: Tables, session_id: str, user_id: str | None = None) -> Row | None:
    """The row of a session, None where there is none or it is another user's."""
    s = tables.sessions
    query = sa.select(s).where(s.c.session_id == session_id)
    if user_id is not None:
        query = query.where(s.c.user_id == user_id)
    return connection.execute(query).mappings().first()


def require_session(connection: Connection, tables: Tables, session_id: str) -> Row:
    """The row of a session.

    Raises:
        SessionNotFound: there is none; the hint names one that is spelt like it.
    """
    row = session_row(connection, tables, session_id)
    if row is None:
        s = tables.sessions
        newest = sa.select(s.c.session_id).order_by(newest_first(s.c.created_at).desc()).limit(500)
        hint = did_you_mean(session_id, connection.execute(newest).scalars(), "List them with %kern sessions.")
        raise SessionNotFound(f"There is no session {session_id!r}.", hint)
    return row


def get_session(connection: Connection, tables: Tables, session_id: str, user_id: str | None) -> Session | None:
    """A session with its runs, inherited ones first."""
    row = session_row(connection, tables, session_id, user_id)
    if row is None:
        return None
    seen = segments(connection, tables, row)
    r = tables.runs
    found = connection.execute(sa.select(r).where(seen.runs(r)).order_by(r.c.run_index)).mappings().all()
    return rows.session_of(row, load_runs(connection, tables, seen, found))


def load_runs(connection: Connection, tables: Tables, seen: Segments, found: Iterable[Row]) -> list[Run]:
    """Runs from their rows, with the messages and tool calls that the session sees of them."""
    found = list(found)
    m, t = tables.messages, tables.tool_calls
    # One range per segment reads less than a list of run ids, unless only some runs are asked for.
    messages: dict[str, list[Message]] = defaultdict(list)
    calls: dict[str, list[ToolCall]] = defaultdict(list)
    if found:
        low, high = min(r["run_index"] for r in found), max(r["run_index"] for r in found)
        query = sa.select(m).where(seen.inside(m), m.c.run_index.between(low, high)).order_by(m.c.message_index)
        for row in connection.execute(query).mappings():
            messages[row["run_id"]].append(rows.message_of(row))
        query = sa.select(t).where(seen.inside(t), t.c.run_index.between(low, high)).order_by(t.c.call_index)
        for row in connection.execute(query).mappings():
            calls[row["run_id"]].append(rows.tool_call_of(row))
    runs = []
    for run in found:
        own_messages, own_calls = messages[run["run_id"]], calls[run["run_id"]]
        is_cut = seen.cut(run) is not None
        if is_cut:
            _forget_unseen_results(own_messages, own_calls)
        runs.append(rows.run_of({**run, **CUT_RUN} if is_cut else run, own_messages, own_calls))
    return runs


def _forget_unseen_results(messages: list[Message], calls: list[ToolCall]) -> None:
    """Where a branch point lies between a call and its result, the branch does not know the result."""
    answered = {m.tool_call_id for m in messages if m.role in rows.ANSWERS}
    for call in calls:
        if call.tool_call_id not in answered:
            call.result, call.status, call.duration_s = None, "unknown", None


def list_sessions(
    connection: Connection,
    store: SessionStore,
    *,
    filters: Mapping[str, str | None],
    name: str | None,
    status: str | None,
    limit: int,
    cursor: str | None,
) -> SessionPage:
    """A page of sessions; reads no runs, and messages never."""
    if limit < 1:
        raise BadUsage(f"limit={limit} asks for no sessions.", "Give a limit of 1 or more.")
    s = store.tables.sessions
    order = newest_first(s.c.created_at)
    chosen = sa.select(s)
    for column, value in filters.items():
        if value is not None:
            chosen = chosen.where(s.c[column] == value)
    if name is not None:
        title = sa.type_coerce(sa.func.lower(json_text(s.c.session_data, "session_name")), sa.Text())
        chosen = chosen.where(title.contains(codec.encode_text(name.lower()), autoescape=True))
    if status is not None:
        latest = latest_runs(store.tables).subquery()
        chosen = chosen.join(latest, latest.c.session_id == s.c.session_id).where(latest.c.status == status)
    if cursor is not None:
        created_at, session_id = _read_cursor(cursor)
        chosen = chosen.where((order < created_at) | ((order == created_at) & (s.c.session_id < session_id)))
    bound = store.nth_largest(order, limit + 1)
    if bound is not None:
        chosen = chosen.where(order >= chosen.with_only_columns(bound, maintain_column_froms=True).scalar_subquery())
    query = chosen.order_by(order.desc(), s.c.session_id.desc()).limit(limit + 1)
    found = connection.execute(query).mappings().all()
    page = [rows.session_of(row) for row in found[:limit]]
    more = len(found) > limit
    return SessionPage(page, _write_cursor(page[-1]) if more else None)


def _write_cursor(last: Session) -> str:
    place = [UNKNOWN_TIME if last.created_at is None else last.created_at, last.session_id]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    with contextlib.suppress(ValueError):
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case [int(created_at), str(session_id)]:
                return created_at, session_id
    raise BadUsage(f"{cursor!r} is no cursor of list_sessions.", "Pass the cursor of the page before.")


def history(
    connection: Connection, tables: Tables, session_id: str, last_runs: int | None, last_messages: int | None
) -> list[Message]:
    """What a model would be given of a session; see `SessionStore.history`."""
    seen = segments(connection, tables, require_session(connection, tables, session_id))
    r = tables.runs
    ended = r.c.status.not_in(NOT_IN_HISTORY)
    cuts = [
        (r.c.session_id == s.session_id) & (r.c.run_index == s.until.run_index)
        for s in seen
        if s.until is not None and s.until.message_index is not None
    ]
    query = sa.select(r).where(seen.runs(r), r.c.parent_run_id.is_(None), sa.or_(ended, *cuts))
    query = query.order_by(r.c.run_index.desc())
    if last_runs is not None:
        query = query.limit(max(0, last_runs))
    if last_messages is not None:
        query = query.where(r.c.run_index >= _run_of_message(connection, tables, seen, max(1, last_messages)))
    found = list(reversed(connection.execute(query).mappings().all()))
    told = [(run.run_id, m) for run in load_runs(connection, tables, seen, found) for m in run.messages]
    told = [(run_id, m) for run_id, m in told if m.role not in NOT_TOLD]
    if last_messages is not None:
        told = told[max(0, len(told) - max(0, last_messages)) :]
    return _paired(told)


def _run_of_message(connection: Connection, tables: Tables, seen: Segments, n: int) -> int:
    """The index of the run that holds the n-th message from the end: no earlier run need be read."""
    m = tables.messages
    query = sa.select(m.c.run_index).where(seen.inside(m), m.c.role.not_in(NOT_TOLD))
    query = query.order_by(m.c.run_index.desc(), m.c.message_index.desc()).offset(n - 1).limit(1)
    return int(connection.execute(query).scalar() or 0)


def _paired(told: list[tuple[str, Message]]) -> list[Message]:
    """The messages without results whose call is missing and without calls whose result is: models refuse both.

    Ids are compared within a run: providers use them again in the next. An id that was used again within the run, and
    is stored as id~2, is given as it was.
    """
    ids = {(run_id, call.tool_call_id) for run_id, m in told for call in m.tool_calls}
    waiting: dict[tuple[str, str | None], list[ToolCall]] = defaultdict(list)
    answered: set[int] = set()
    results: set[int] = set()
    for run_id, message in told:
        if message.role in rows.ANSWERS and waiting[run_id, message.tool_call_id]:
            answered.add(id(waiting[run_id, message.tool_call_id].pop(0)))
            results.add(id(message))
        for call in message.tool_calls:
            first = (call.tool_call_id or "").rpartition("~")[0]
            if (run_id, first) in ids:
                call.tool_call_id = first
            waiting[run_id, call.tool_call_id].append(call)
    kept = []
    for _, message in told:
        if message.role in rows.ANSWERS and id(message) not in results:
            continue
        calls = [call for call in message.tool_calls if id(call) in answered]
        if len(calls) == len(message.tool_calls):
            kept.append(message)
        elif calls or message.content not in (None, "", []):
            kept.append(message.model_copy(update={"tool_calls": calls}))
    return kept
