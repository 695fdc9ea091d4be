"""Reading records: one session whole, a page of sessions, the history that a model is given."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import codec, damaged_rows, mapping, validation
from kern_nb.db.lineage import CUT_RUN, Lineage, Segment, load_lineage
from kern_nb.db.schema import UNKNOWN_TIME, Tables, newest_first
from kern_nb.db.views import json_text, latest_runs, lowered, told_again
from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound, did_you_mean
from kern_nb.records import Message, Requirement, Run, Session, ToolCall

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore

Row = Mapping[str, Any] | RowMapping

INSTRUCTION_ROLES = ("system", "developer")
STATUSES_WITHOUT_HISTORY = ("PENDING", "RUNNING", "PAUSED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")
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


def require_session(connection: Connection, tables: Tables, session_id: str, user_id: str | None = None) -> Row:
    """The row of a session; with a ``user_id``, of that user's.

    Raises:
        SessionNotFound: there is none; the hint names one that is spelt like it.
    """
    row = session_row(connection, tables, session_id, user_id)
    if row is None:
        s = tables.sessions
        newest = sa.select(s.c.session_id).order_by(newest_first(s.c.created_at).desc()).limit(500)
        if user_id is not None:  # another user's sessions are not named
            newest = newest.where(s.c.user_id == user_id)
        hint = did_you_mean(session_id, connection.execute(newest).scalars(), "List them with %kern sessions.")
        raise SessionNotFound(f"There is no session {session_id!r}.", hint)
    return row


def require_run_of(connection: Connection, tables: Tables, run_id: str, user_id: str | None) -> None:
    """See that a run is in a session of a user. Who owns it is what the session says, not the run.

    Raises:
        RunNotFound: it is not there, or in another user's session.
    """
    if user_id is None:
        return
    r, s = tables.runs, tables.sessions
    owner = sa.select(r.c.run_id).join(s, s.c.session_id == r.c.session_id)
    if connection.execute(owner.where(r.c.run_id == run_id, s.c.user_id == user_id)).first() is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")


def get_session(
    connection: Connection, tables: Tables, session_id: str, user_id: str | None, *, runs: bool
) -> Session | None:
    """A session with its runs, inherited ones first."""
    row = session_row(connection, tables, session_id, user_id)
    if row is None or not runs:
        return None if row is None else mapping.session_of(row)
    seen = load_lineage(connection, tables, row)
    r = tables.runs
    found = connection.execute(sa.select(r).where(seen.runs(r)).order_by(r.c.run_index)).mappings().all()
    loaded = load_runs(connection, tables, seen, found)
    _add_requirements(connection, tables, loaded)
    _pass_up(loaded)
    return mapping.session_of(row, loaded)


def session_runs(
    connection: Connection, tables: Tables, session_id: str, start: int, limit: int, user_id: str | None = None
) -> list[Run]:
    """See `SessionStore.session_runs`."""
    start, limit = (
        max(0, validation.require_count("start", start, least=-validation.MOST)),
        validation.require_count("limit", limit),
    )
    seen = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    query = sa.select(r).where(seen.runs(r), r.c.run_index >= start).order_by(r.c.run_index).limit(limit)
    loaded = load_runs(connection, tables, seen, connection.execute(query).mappings().all())
    _add_requirements(connection, tables, loaded)
    return loaded


def get_run(connection: Connection, tables: Tables, run_id: str, user_id: str | None = None) -> Run:
    """See `SessionStore.get_run`."""
    require_run_of(connection, tables, run_id, user_id)
    r = tables.runs
    row = connection.execute(sa.select(r).where(r.c.run_id == run_id)).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    runs = load_runs(connection, tables, Lineage([Segment(row["session_id"])]), [row])
    _add_requirements(connection, tables, runs)
    _add_members_requirements(connection, tables, runs)
    return runs[0]


def member_runs(connection: Connection, tables: Tables, run_id: str) -> list[Run]:
    """See `SessionStore.member_runs`."""
    r, parent = tables.runs, tables.runs.alias()
    # A run of another session that names this one as its parent is not made within it.
    session_id = sa.select(parent.c.session_id).where(parent.c.run_id == run_id).scalar_subquery()
    query = sa.select(r).where(r.c.parent_run_id == run_id, r.c.session_id == session_id).order_by(r.c.run_index)
    found = connection.execute(query).mappings().all()
    owners = [Segment(session_id) for session_id in dict.fromkeys(row["session_id"] for row in found)]
    return load_runs(connection, tables, Lineage(owners), found)


def _add_requirements(connection: Connection, tables: Tables, runs: list[Run]) -> None:
    """Give each run what it waits for, or waited for."""
    q = tables.requirements
    waiting: dict[str, list[Requirement]] = defaultdict(list)
    owners = {run.session_id for run in runs}
    query = sa.select(q).where(q.c.session_id.in_(owners)).order_by(q.c.created_at, q.c.requirement_id)
    if len(runs) == 1:
        query = query.where(q.c.run_id == runs[0].run_id)
    for row in connection.execute(query).mappings() if runs else ():
        waiting[row["run_id"]].append(mapping.requirement_from_row(row))
    for run in runs:
        run.requirements = waiting[run.run_id]


def _pass_up(runs: list[Run]) -> None:
    """A team's run that is paused waits for what its members' runs wait for; here all of them are at hand."""
    by_id = {run.run_id: run for run in runs}
    own = {run.run_id: run.requirements for run in runs if run.requirements}
    for run_id, waiting in own.items():
        above, met = by_id.get(by_id[run_id].parent_run_id or ""), {run_id}
        while above is not None and above.run_id not in met:
            if above.status == "PAUSED":
                above.requirements = above.requirements + waiting
            met.add(above.run_id)
            above = by_id.get(above.parent_run_id or "")


def _add_members_requirements(connection: Connection, tables: Tables, runs: list[Run]) -> None:
    """As `_pass_up`, for runs whose members' are not at hand."""
    q = tables.requirements
    for run in runs:
        members = run_tree_ids(connection, tables, run.run_id)[1:] if run.status == "PAUSED" else []
        if members:
            query = sa.select(q).where(q.c.run_id.in_(members)).order_by(q.c.created_at, q.c.requirement_id)
            run.requirements += [mapping.requirement_from_row(row) for row in connection.execute(query).mappings()]


def run_tree_ids(connection: Connection, tables: Tables, run_id: str | None) -> list[str]:
    """A run and the runs of its members, at every depth; a run that is its own ancestor is met once."""
    r = tables.runs
    family = [] if run_id is None else [run_id]
    last = list(family)
    session_id = connection.execute(sa.select(r.c.session_id).where(r.c.run_id == run_id)).scalar()
    while last:
        within = sa.select(r.c.run_id).where(r.c.session_id == session_id, r.c.parent_run_id.in_(last))
        children = connection.execute(within).scalars()
        last = [child for child in children if child not in family]
        family += last
    return family


def load_runs(connection: Connection, tables: Tables, seen: Lineage, found: Iterable[Row]) -> list[Run]:
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
            messages[row["run_id"]].append(mapping.message_of(row))
        query = sa.select(t).where(seen.inside(t), t.c.run_index.between(low, high)).order_by(t.c.call_index)
        for row in connection.execute(query).mappings():
            calls[row["run_id"]].append(mapping.tool_call_of(row))
    runs = []
    for run in found:
        own_messages, own_calls = messages[run["run_id"]], calls[run["run_id"]]
        is_cut = seen.cut(run) is not None
        if is_cut:
            _forget_unseen_results(own_messages, own_calls)
        runs.append(mapping.run_of({**run, **CUT_RUN} if is_cut else run, own_messages, own_calls))
    return runs


def _forget_unseen_results(messages: list[Message], calls: list[ToolCall]) -> None:
    """Where a branch point lies between a call and its result, the branch does not know the result."""
    answered = {m.tool_call_id for m in messages if m.role in mapping.ANSWERS}
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
    limit = validation.require_count("limit", limit, least=1)
    s = store.tables.sessions
    order = newest_first(s.c.created_at)
    # Read as they are: one damaged row is listed with what can be read of it, beside the others.
    chosen = sa.select(*map(damaged_rows.raw, s.columns))
    for column, value in filters.items():
        if value is not None:
            chosen = chosen.where(s.c[column] == value)
    if name is not None:
        name = validation.text("name", name)
        title = sa.type_coerce(lowered(json_text(s.c.session_data, "session_name")), sa.Text())
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
    page = [mapping.listed_session_of(*damaged_rows.readable(store.tables, "sessions", row)) for row in found[:limit]]
    more = len(found) > limit
    return SessionPage(page, _write_cursor(page[-1]) if more else None)


def _write_cursor(last: Session) -> str:
    place = [UNKNOWN_TIME if last.created_at is None else last.created_at, last.session_id]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    with contextlib.suppress(ValueError, TypeError):
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case [int(created_at), str(session_id)]:
                return created_at, session_id
    raise BadUsage(f"{cursor!r} is no cursor of list_sessions.", "Pass the cursor of the page before.")


def history(
    connection: Connection,
    tables: Tables,
    session_id: str,
    *,
    last_runs: int | None = None,
    last_messages: int | None = None,
    after_run: int | None = None,
    also: Sequence[int] = (),
    before_run: int | None = None,
    user_id: str | None = None,
) -> dict[int, list[Message]]:
    """What a model would be given of a session, by run index; see `SessionStore.history`."""
    last_runs = None if last_runs is None else validation.require_count("last_runs", last_runs)
    last_messages = None if last_messages is None else validation.require_count("last_messages", last_messages)
    seen = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    ended = r.c.status.not_in(STATUSES_WITHOUT_HISTORY)
    is_told_of = r.c.parent_run_id.is_(None) & (ended | seen.is_cut(r))
    query = sa.select(r).where(seen.runs(r), is_told_of).order_by(r.c.run_index.desc())
    if after_run is not None:
        query = query.where((r.c.run_index > after_run) | r.c.run_index.in_(also))
    if before_run is not None:
        query = query.where(r.c.run_index < before_run)
    if last_runs is not None:
        query = query.limit(last_runs)
    if last_messages is not None:
        first = _run_of_message(connection, tables, seen, is_told_of, max(1, last_messages), before_run)
        query = query.where(r.c.run_index >= first)
    found = list(reversed(connection.execute(query).mappings().all()))
    told = [
        (row["run_index"], m)
        for row, run in zip(found, load_runs(connection, tables, seen, found), strict=True)
        for m in run.messages
    ]
    told = [(run, m) for run, m in told if is_in_history(m)]
    if last_messages is not None:
        told = told[max(0, len(told) - last_messages) :]
    by_run: dict[int, list[Message]] = {}
    for run_index, message in _paired(told):
        by_run.setdefault(run_index, []).append(message)
    return by_run


class Details(NamedTuple):
    """What the frames of a session do not tell, inherited rows included.

    Attributes:
        contents: The contents of messages that are not text, or text that a frame cannot hold (a lone surrogate), by
            run id and message index; likewise ``failed`` (whether a tool's message says that its call failed),
            ``partial`` and ``copies`` (of messages of earlier runs).
        results: The results of tool calls that are not text, by run id and tool call id.
        ends: The inputs and outputs of runs, where they are not text, by run id.
    """

    contents: dict[tuple[str, int], Any]
    failed: dict[tuple[str, int], bool]
    partial: set[tuple[str, int]]
    copies: set[tuple[str, int]]
    results: dict[tuple[str, str], Any]
    ends: dict[str, tuple[Any, Any]]


def details(connection: Connection, tables: Tables, session_id: str, user_id: str | None = None) -> Details:
    """See `SessionStore.details`."""
    m, t, r = tables.messages, tables.tool_calls, tables.runs
    seen = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))

    def exact(table: sa.Table, name: str) -> sa.Label[Any]:
        return sa.case((_is_escaped(table.c[name]), table.c[name])).label(f"{name}_exact")

    marks = (m.c.is_error, m.c.partial, m.c.from_history)
    names = (m.c.run_id, m.c.message_index, m.c.content_json, exact(m, "content"), *marks)
    some = sa.or_(_is_escaped(m.c.content), *(column.is_not(None) for column in (m.c.content_json, *marks)))
    found = Details({}, {}, set(), set(), {}, {})
    for run_id, index, value, text, failed, partial, copied in connection.execute(
        sa.select(*names).where(seen.inside(m), some)
    ):
        key = (run_id, index)
        if value is not None or text is not None:
            found.contents[key] = text if value is None else value
        if failed is not None:
            found.failed[key] = failed
        found.partial.update([key] if partial else [])
        found.copies.update([key] if copied else [])
    query = sa.select(t.c.run_id, t.c.tool_call_id, t.c.result_json, exact(t, "result")).where(seen.inside(t))
    for run_id, call_id, value, text in connection.execute(
        query.where(t.c.result_json.is_not(None) | _is_escaped(t.c.result))
    ):
        found.results[run_id, call_id] = text if value is None else value
    query = sa.select(r.c.run_id, r.c.input_json, exact(r, "input"), r.c.output_json, exact(r, "output"))
    for row in connection.execute(query.where(seen.runs(r))).mappings():
        run_id = row["run_id"]
        asked: Any = row["input_exact"] if row["input_json"] is None else row["input_json"]
        said: Any = row["output_exact"] if row["output_json"] is None else row["output_json"]
        if asked is not None or said is not None:
            found.ends[run_id] = (asked, said)
    return found


def _is_escaped(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether a text holds characters that are stored as escapes, lone surrogates among them."""
    return sa.and_(column.is_not(None), sa.type_coerce(column, sa.Text()).contains(codec.ESCAPE))


def is_in_history(message: Message) -> bool:
    """Whether a model is told a message again: no instructions, no copy of an earlier one, no answer that broke off."""
    return message.role not in INSTRUCTION_ROLES and not message.is_partial and not message.from_history


def unfinished_runs(
    connection: Connection, tables: Tables, session_id: str, upto: int, user_id: str | None = None
) -> list[int]:
    """See `SessionStore.unfinished_runs`."""
    seen = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    query = sa.select(r.c.run_index).where(seen.runs(r), r.c.run_index <= upto, r.c.parent_run_id.is_(None))
    return list(
        connection.execute(query.where(r.c.status.in_(STATUSES_WITHOUT_HISTORY)).order_by(r.c.run_index)).scalars()
    )


def _run_of_message(
    connection: Connection,
    tables: Tables,
    seen: Lineage,
    is_told_of: sa.ColumnElement[bool],
    n: int,
    before_run: int | None,
) -> int:
    """The index of the run that holds the n-th message from the end: no earlier run need be read."""
    m, r = tables.messages, tables.runs
    broke_off = m.c.partial.is_not(None) & m.c.partial
    told = m.c.role.not_in(INSTRUCTION_ROLES) & sa.not_(told_again(m.c)) & sa.not_(broke_off)
    of_run = (r.c.session_id == m.c.session_id) & (r.c.run_index == m.c.run_index)
    query = sa.select(m.c.run_index).join(r, of_run).where(seen.inside(m), told, is_told_of)
    if before_run is not None:
        query = query.where(m.c.run_index < before_run)
    query = query.order_by(m.c.run_index.desc(), m.c.message_index.desc()).offset(n - 1).limit(1)
    return int(connection.execute(query).scalar() or 0)


def _paired(told: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """The messages without results whose call is missing and without calls whose result is: models refuse both.

    Ids are compared within a run: providers use them again in the next. An id that was used again within the run, and
    is stored as id~2, is given as it was, unless its result is stored so too.
    """
    ids = {(run, call.tool_call_id) for run, m in told for call in m.tool_calls}
    given = {(run, m.tool_call_id) for run, m in told if m.role in mapping.ANSWERS}
    waiting: dict[tuple[int, str | None], list[ToolCall]] = defaultdict(list)
    answered: set[int] = set()
    results: set[int] = set()
    for run, message in told:
        if message.role in mapping.ANSWERS and waiting[run, message.tool_call_id]:
            answered.add(id(waiting[run, message.tool_call_id].pop(0)))
            results.add(id(message))
        for call in message.tool_calls:
            first = (call.tool_call_id or "").rpartition("~")[0]
            if (run, first) in ids and (run, call.tool_call_id) not in given:
                call.tool_call_id = first
            waiting[run, call.tool_call_id].append(call)
    kept = []
    for run, message in told:
        if message.role in mapping.ANSWERS and id(message) not in results:
            continue
        calls = [call for call in message.tool_calls if id(call) in answered]
        if len(calls) == len(message.tool_calls):
            kept.append((run, message))
        elif calls or message.content not in (None, "", []):
            kept.append((run, message.model_copy(update={"tool_calls": calls})))
    return kept
