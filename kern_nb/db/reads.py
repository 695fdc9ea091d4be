"""Read records: a session with its runs, a page of sessions, the history for a model."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import codec, damaged_rows, mapping, validation
from kern_nb.db.column_types import StoredRow
from kern_nb.db.lineage import CUT_RUN, Lineage, Segment, load_lineage, member_indexes
from kern_nb.db.schema import UNKNOWN_TIME, Tables, sort_time
from kern_nb.db.session_search import SessionFields, exact_conditions
from kern_nb.db.sql_expressions import json_text, lower_text
from kern_nb.db.views import is_history_copy, latest_runs
from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound, did_you_mean
from kern_nb.records import RESULT_ROLES, Message, Requirement, Run, Session, ToolCall

if TYPE_CHECKING:
    from kern_nb.db.database import Database


INSTRUCTION_ROLES = ("system", "developer")
"""Roles of instructions, which are not part of the history: each agent has its own."""

STATUSES_WITHOUT_HISTORY = ("PENDING", "RUNNING", "PAUSED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")
"""Statuses of runs without an answer, which are not part of the history."""


class SessionPage(list[Session]):
    """Sessions, newest first, without their runs. ``cursor`` is for the next page; None on the last page."""

    def __init__(self, sessions: Iterable[Session], cursor: str | None) -> None:
        super().__init__(sessions)
        self.cursor = cursor


def session_row(
    connection: Connection,
    tables: Tables,
    session_id: str,
    user_id: str | None = None,
    *,
    include_unowned: bool = False,
) -> StoredRow | None:
    """The row of a session; None if it does not exist or is another user's."""
    s = tables.sessions
    query = sa.select(s).where(s.c.session_id == session_id)
    if user_id is not None:
        is_visible = s.c.user_id == user_id
        query = query.where(is_visible | s.c.user_id.is_(None) if include_unowned else is_visible)
    return connection.execute(query).mappings().first()


def require_session(connection: Connection, tables: Tables, session_id: str, user_id: str | None = None) -> StoredRow:
    """The row of a session; with a ``user_id``, of that user's.

    Raises:
        SessionNotFound: It does not exist; the hint names one with a similar id.
    """
    row = session_row(connection, tables, session_id, user_id)
    if row is None:
        s = tables.sessions
        query = sa.select(s.c.session_id).order_by(sort_time(s.c.created_at).desc()).limit(500)
        if user_id is not None:  # another user's sessions are not named
            query = query.where(s.c.user_id == user_id)
        hint = did_you_mean(session_id, connection.execute(query).scalars(), "List them with %kern sessions.")
        raise SessionNotFound(f"There is no session {session_id!r}.", hint)
    return row


def require_run_owner(connection: Connection, tables: Tables, run_id: str, user_id: str | None) -> None:
    """Check that a run is in a session of a user. Its owner is the session's user, not the run's.

    Raises:
        RunNotFound: It does not exist, or is in another user's session.
    """
    if user_id is None:
        return
    r, s = tables.runs, tables.sessions
    query = sa.select(r.c.run_id).join(s, s.c.session_id == r.c.session_id)
    if connection.execute(query.where(r.c.run_id == run_id, s.c.user_id == user_id)).first() is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")


def get_session(
    connection: Connection,
    tables: Tables,
    session_id: str,
    user_id: str | None,
    *,
    runs: bool,
    include_unowned: bool = False,
) -> Session | None:
    """See `SessionStore.get_session`."""
    row = session_row(connection, tables, session_id, user_id, include_unowned=include_unowned)
    if row is None or not runs:
        return None if row is None else mapping.session_from_row(row)
    lineage = load_lineage(connection, tables, row)
    r = tables.runs
    rows = connection.execute(sa.select(r).where(lineage.runs(r)).order_by(r.c.run_index)).mappings().all()
    loaded = load_runs(connection, tables, lineage, rows)
    add_requirements(connection, tables, loaded)
    _propagate_requirements(loaded)
    return mapping.session_from_row(row, loaded)


def session_runs(
    connection: Connection, tables: Tables, session_id: str, start: int, limit: int, user_id: str | None = None
) -> list[Run]:
    """See `SessionStore.session_runs`."""
    start = max(0, validation.require_count("start", start, least=-validation.MAX_COUNT))
    limit = validation.require_count("limit", limit)
    lineage = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    query = sa.select(r).where(lineage.runs(r), r.c.run_index >= start).order_by(r.c.run_index).limit(limit)
    loaded = load_runs(connection, tables, lineage, connection.execute(query).mappings().all())
    add_requirements(connection, tables, loaded)
    return loaded


def internal_text(connection: Connection, tables: Tables, run_id: str, key: str) -> str | None:
    """The text at a key of a run's ``internal``; None without it."""
    r = tables.runs
    query = sa.select(json_text(r.c.internal, key, constant=True)).where(r.c.run_id == run_id)
    return connection.execute(query).scalar()


def get_run(connection: Connection, tables: Tables, run_id: str, user_id: str | None = None) -> Run:
    """See `SessionStore.get_run`."""
    require_run_owner(connection, tables, run_id, user_id)
    r = tables.runs
    row = connection.execute(sa.select(r).where(r.c.run_id == run_id)).mappings().first()
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", "See %kern load runs.")
    runs = load_runs(connection, tables, Lineage([Segment(row["session_id"])]), [row])
    add_requirements(connection, tables, runs)
    if runs[0].status == "PAUSED":
        add_member_requirements(connection, tables, runs[0])
    return runs[0]


def member_runs(connection: Connection, tables: Tables, run_id: str) -> list[Run]:
    """See `SessionStore.member_runs`."""
    r, parent = tables.runs, tables.runs.alias()
    # A run of another session may name this one as its parent; it is not a member's.
    session_id = sa.select(parent.c.session_id).where(parent.c.run_id == run_id).scalar_subquery()
    query = sa.select(r).where(r.c.parent_run_id == run_id, r.c.session_id == session_id).order_by(r.c.run_index)
    rows = connection.execute(query).mappings().all()
    owners = [Segment(session_id) for session_id in dict.fromkeys(row["session_id"] for row in rows)]
    return load_runs(connection, tables, Lineage(owners), rows)


def _load_requirements(connection: Connection, tables: Tables, *where: sa.ColumnElement[bool]) -> list[Requirement]:
    q = tables.requirements
    query = sa.select(q).where(*where).order_by(q.c.created_at, q.c.requirement_id)
    return [mapping.requirement_from_row(row) for row in connection.execute(query).mappings()]


def add_requirements(connection: Connection, tables: Tables, runs: list[Run], *, only_listed: bool = False) -> None:
    """Set the requirements of runs: from all of their sessions, or from those of these runs, if they are few."""
    q = tables.requirements
    where: list[sa.ColumnElement[bool]] = [q.c.session_id.in_({run.session_id for run in runs})]
    where += [q.c.run_id.in_([run.run_id for run in runs])] if len(runs) == 1 or only_listed else []
    by_run: dict[str | None, list[Requirement]] = defaultdict(list)
    for requirement in _load_requirements(connection, tables, *where) if runs else ():
        by_run[requirement.run_id].append(requirement)
    for run in runs:
        run.requirements = by_run[run.run_id]


def add_member_requirements(connection: Connection, tables: Tables, run: Run) -> None:
    """Add the requirements of its members' runs to a run."""
    if members := run_tree_ids(connection, tables, run.run_id)[1:]:
        run.requirements += _load_requirements(connection, tables, tables.requirements.c.run_id.in_(members))


def _propagate_requirements(runs: list[Run]) -> None:
    """Add the requirements of members' runs to a team's paused run; ``runs`` has all of them."""
    by_id = {run.run_id: run for run in runs}
    own = {run.run_id: run.requirements for run in runs if run.requirements}
    for run_id, requirements in own.items():
        parent, visited = by_id.get(by_id[run_id].parent_run_id or ""), {run_id}
        while parent is not None and parent.run_id not in visited:
            if parent.status == "PAUSED":
                parent.requirements = parent.requirements + requirements
            visited.add(parent.run_id)
            parent = by_id.get(parent.parent_run_id or "")


def run_tree_ids(connection: Connection, tables: Tables, run_id: str | None) -> list[str]:
    """A run and its members' runs, at every depth; a run that is its own ancestor is listed once."""
    if run_id is None:
        return []
    r = tables.runs
    session_id = connection.execute(sa.select(r.c.session_id).where(r.c.run_id == run_id)).scalar()
    return [run_id, *member_indexes(connection, tables, session_id, run_id)]


def load_runs(connection: Connection, tables: Tables, lineage: Lineage, run_rows: Iterable[StoredRow]) -> list[Run]:
    """Runs from their rows, with those of their messages and tool calls that are in the lineage."""
    run_rows = list(run_rows)
    m, t = tables.messages, tables.tool_calls
    # One range per segment reads less than a list of run ids, unless only some runs are loaded.
    messages: dict[str, list[Message]] = defaultdict(list)
    calls: dict[str, list[ToolCall]] = defaultdict(list)
    if run_rows:
        low, high = min(r["run_index"] for r in run_rows), max(r["run_index"] for r in run_rows)
        query = sa.select(m).where(lineage.inside(m), m.c.run_index.between(low, high)).order_by(m.c.message_index)
        for row in connection.execute(query).mappings():
            messages[row["run_id"]].append(mapping.message_from_row(row))
        query = sa.select(t).where(lineage.inside(t), t.c.run_index.between(low, high)).order_by(t.c.call_index)
        for row in connection.execute(query).mappings():
            calls[row["run_id"]].append(mapping.tool_call_from_row(row))
    runs = []
    for run in run_rows:
        own_messages, own_calls = messages[run["run_id"]], calls[run["run_id"]]
        is_cut = lineage.cut(run) is not None
        if is_cut:  # without the results after the branch point
            answered = {message.tool_call_id for message in own_messages if message.role in RESULT_ROLES}
            for call in own_calls:
                if call.tool_call_id not in answered:
                    call.result, call.status, call.duration_s = None, "unknown", None
        runs.append(mapping.run_from_row({**run, **CUT_RUN} if is_cut else run, own_messages, own_calls))
    return runs


def list_sessions(
    connection: Connection,
    store: Database,
    *,
    fields: SessionFields,
    name: str | None,
    status: str | None,
    limit: int,
    cursor: str | None,
) -> SessionPage:
    """See `SessionStore.list_sessions`. Reads no messages, and runs only to filter by status."""
    limit = validation.require_count("limit", limit, least=1)
    s = store.tables.sessions
    order = sort_time(s.c.created_at)
    # Selected raw: of a damaged row, the readable columns are listed.
    query = sa.select(*map(damaged_rows.raw, s.columns)).where(*exact_conditions(store.tables, fields))
    if name is not None:
        name = validation.require_text("name", name)
        title = sa.type_coerce(lower_text(json_text(s.c.session_data, "session_name")), sa.Text())
        query = query.where(title.contains(codec.encode_text(name.lower()), autoescape=True))
    if status is not None:
        latest = latest_runs(store.tables).subquery()
        query = query.join(latest, latest.c.session_id == s.c.session_id).where(latest.c.status == status)
    if cursor is not None:
        created_at, session_id = _decode_cursor(cursor)
        query = query.where((order < created_at) | ((order == created_at) & (s.c.session_id < session_id)))
    bound = store.nth_largest(order, limit + 1)
    if bound is not None:
        query = query.where(order >= query.with_only_columns(bound, maintain_column_froms=True).scalar_subquery())
    query = query.order_by(order.desc(), s.c.session_id.desc()).limit(limit + 1)
    rows = connection.execute(query).mappings().all()
    decoded_rows = (damaged_rows.decode_row(store.tables, "sessions", row) for row in rows[:limit])
    page = [mapping.listed_session(*row) for row in decoded_rows]
    if len(rows) <= limit:
        return SessionPage(page, None)
    last = (UNKNOWN_TIME if page[-1].created_at is None else page[-1].created_at, page[-1].session_id)
    return SessionPage(page, base64.urlsafe_b64encode(json.dumps(last).encode()).decode())


def _decode_cursor(cursor: str) -> tuple[int, str]:
    with contextlib.suppress(ValueError, TypeError):
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case [int(created_at), str(session_id)]:
                return created_at, session_id
    raise BadUsage(f"{cursor!r} is not a cursor of list_sessions.", "Pass the cursor of the previous page.")


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
    member_id: str | None = None,
    user_id: str | None = None,
) -> dict[int, list[Message]]:
    """See `SessionStore.history_by_run`."""
    last_runs = None if last_runs is None else validation.require_count("last_runs", last_runs)
    last_messages = None if last_messages is None else validation.require_count("last_messages", last_messages)
    session = require_session(connection, tables, session_id, user_id)
    lineage = load_lineage(connection, tables, session)
    r = tables.runs
    completed = r.c.status.not_in(STATUSES_WITHOUT_HISTORY)
    is_included = completed | lineage.is_cut(r)
    if member_id is None:
        is_included &= r.c.parent_run_id.is_(None)
    else:
        is_included &= r.c.parent_run_id.is_not(None) & ((r.c.agent_id == member_id) | (r.c.team_id == member_id))
    query = sa.select(r).where(lineage.runs(r), is_included).order_by(r.c.run_index.desc())
    if after_run is not None:
        query = query.where((r.c.run_index > after_run) | r.c.run_index.in_(also))
    if before_run is not None:
        query = query.where(r.c.run_index < before_run)
    if last_runs is not None:
        query = query.limit(last_runs)
    if last_messages is not None and session["session_type"] == "workflow":
        limits = (n for n in (last_runs, last_messages) if n is not None)
        query = query.limit(min(limits))  # its runs have no rows of messages, and at least an input
    elif last_messages is not None:
        first = _run_of_message(connection, tables, lineage, is_included, max(1, last_messages), before_run)
        query = query.where(r.c.run_index >= first)
    rows = list(reversed(connection.execute(query).mappings().all()))
    messages = [
        (row["run_index"], message)
        for row, run in zip(rows, load_runs(connection, tables, lineage, rows), strict=True)
        for message in _told_messages(run)
        if is_in_history(message)
    ]
    if last_messages is not None:
        messages = messages[max(0, len(messages) - last_messages) :]
    by_run: dict[int, list[Message]] = {}
    for run_index, message in _paired(messages):
        by_run.setdefault(run_index, []).append(message)
    return by_run


def chat_history(
    connection: Connection,
    tables: Tables,
    session_id: str,
    *,
    last_runs: int | None = None,
    tool_messages: bool = False,
    user_id: str | None = None,
) -> list[Message]:
    """See `SessionStore.chat_history`."""
    lineage = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    query = sa.select(r).where(lineage.runs(r), r.c.parent_run_id.is_(None)).order_by(r.c.run_index.desc())
    if last_runs is not None:
        query = query.limit(validation.require_count("last_runs", last_runs))
    rows = list(reversed(connection.execute(query).mappings().all()))
    messages = (message for run in load_runs(connection, tables, lineage, rows) for message in _told_messages(run))
    return [m for m in messages if is_in_history(m) and (tool_messages or m.role not in RESULT_ROLES)]


def _told_messages(run: Run) -> list[Message]:
    """The messages of a run; of a workflow's, its input and output."""
    return input_and_output(run) if run.run_type == "workflow" and not run.messages else run.messages


def input_and_output(run: Run) -> list[Message]:
    """The input and output of a run, as messages."""
    contents = (("user", run.input, run.created_at), ("assistant", run.output, run.finished_at))
    return [Message(role=role, content=c, created_at=time) for role, c, time in contents if c is not None]


class Details(NamedTuple):
    """What the frames of a session, inherited rows included, show as text only.

    Attributes:
        contents: By run id and message index, the contents of messages that are not text, or text that a frame cannot
            hold (with a lone surrogate).
        failed: By run id and message index, whether a tool's message reports that its call failed.
        partial: The run id and message index of partial messages.
        copies: The run id and message index of copies of earlier runs' messages.
        results: By run id and tool call id, the results of tool calls that are not text.
        ends: By run id, the input and output of runs, None where it is text.
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
    lineage = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))

    def exact(table: sa.Table, name: str) -> sa.Label[Any]:
        return sa.case((_is_escaped(table.c[name]), table.c[name])).label(f"{name}_exact")

    marks = (m.c.is_error, m.c.partial, m.c.from_history)
    columns = (m.c.run_id, m.c.message_index, m.c.content_json, exact(m, "content"), *marks)
    has_details = sa.or_(_is_escaped(m.c.content), *(column.is_not(None) for column in (m.c.content_json, *marks)))
    result = Details({}, {}, set(), set(), {}, {})
    for run_id, index, value, text, failed, partial, copied in connection.execute(
        sa.select(*columns).where(lineage.inside(m), has_details)
    ):
        key = (run_id, index)
        if value is not None or text is not None:
            result.contents[key] = text if value is None else value
        if failed is not None:
            result.failed[key] = failed
        result.partial.update([key] if partial else [])
        result.copies.update([key] if copied else [])
    query = sa.select(t.c.run_id, t.c.tool_call_id, t.c.result_json, exact(t, "result")).where(lineage.inside(t))
    for run_id, call_id, value, text in connection.execute(
        query.where(t.c.result_json.is_not(None) | _is_escaped(t.c.result))
    ):
        result.results[run_id, call_id] = text if value is None else value
    query = sa.select(r.c.run_id, r.c.input_json, exact(r, "input"), r.c.output_json, exact(r, "output"))
    for row in connection.execute(query.where(lineage.runs(r))).mappings():
        input_: Any = row["input_exact"] if row["input_json"] is None else row["input_json"]
        output: Any = row["output_exact"] if row["output_json"] is None else row["output_json"]
        if input_ is not None or output is not None:
            result.ends[row["run_id"]] = (input_, output)
    return result


def _is_escaped(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether a text has characters that are stored as escapes, such as lone surrogates."""
    return sa.and_(column.is_not(None), sa.type_coerce(column, sa.Text()).contains(codec.ESCAPE))


def is_in_history(message: Message) -> bool:
    """Whether a message is part of the history: not an instruction, a copy of an earlier message, or partial."""
    return message.role not in INSTRUCTION_ROLES and not message.is_partial and not message.from_history


def unfinished_runs(
    connection: Connection, tables: Tables, session_id: str, upto: int, user_id: str | None = None
) -> list[int]:
    """See `SessionStore.unfinished_runs`."""
    lineage = load_lineage(connection, tables, require_session(connection, tables, session_id, user_id))
    r = tables.runs
    query = sa.select(r.c.run_index).where(lineage.runs(r), r.c.run_index <= upto, r.c.parent_run_id.is_(None))
    unfinished = query.where(r.c.status.in_(STATUSES_WITHOUT_HISTORY)).order_by(r.c.run_index)
    return list(connection.execute(unfinished).scalars())


def _run_of_message(
    connection: Connection,
    tables: Tables,
    lineage: Lineage,
    is_included: sa.ColumnElement[bool],
    n: int,
    before_run: int | None,
) -> int:
    """The index of the run with the n-th message from the end: earlier runs need not be read."""
    m, r = tables.messages, tables.runs
    is_partial = m.c.partial.is_not(None) & m.c.partial
    in_history = m.c.role.not_in(INSTRUCTION_ROLES) & sa.not_(is_history_copy(m.c)) & sa.not_(is_partial)
    of_run = (r.c.session_id == m.c.session_id) & (r.c.run_index == m.c.run_index)
    query = sa.select(m.c.run_index).join(r, of_run).where(lineage.inside(m), in_history, is_included)
    if before_run is not None:
        query = query.where(m.c.run_index < before_run)
    query = query.order_by(m.c.run_index.desc(), m.c.message_index.desc()).offset(n - 1).limit(1)
    return int(connection.execute(query).scalar() or 0)


def _paired(messages: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """Remove results without their call and calls without their result: models refuse both.

    Ids are compared within a run, as providers reuse them in the next. An id that was reused within the run, and is
    stored as id~2, is restored, unless its result is stored with that suffix, too.
    """
    call_ids = {(run, call.tool_call_id) for run, m in messages for call in m.tool_calls}
    result_ids = {(run, m.tool_call_id) for run, m in messages if m.role in RESULT_ROLES}
    unanswered: dict[tuple[int, str | None], list[ToolCall]] = defaultdict(list)
    matched: set[int] = set()  # the identities of calls and results that have each other
    for run, message in messages:
        if message.role in RESULT_ROLES and unanswered[run, message.tool_call_id]:
            matched |= {id(unanswered[run, message.tool_call_id].pop(0)), id(message)}
        for call in message.tool_calls:
            original_id = (call.tool_call_id or "").rpartition("~")[0]
            if (run, original_id) in call_ids and (run, call.tool_call_id) not in result_ids:
                call.tool_call_id = original_id
            unanswered[run, call.tool_call_id].append(call)
    paired = []
    for run, message in messages:
        if message.role in RESULT_ROLES and id(message) not in matched:
            continue
        calls = [call for call in message.tool_calls if id(call) in matched]
        if len(calls) == len(message.tool_calls):
            paired.append((run, message))
        elif calls or message.content not in (None, "", []):
            paired.append((run, message.model_copy(update={"tool_calls": calls})))
    return paired
