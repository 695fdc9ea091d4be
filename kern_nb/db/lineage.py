"""What a session sees: its own rows, and those it inherits.

A branch is a session row that points at its parent and at the last run (and message) it inherits. Nothing is copied.
The
*segments* of a session are the stretches of rows it sees, oldest first, each of one session and up to a `Point`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db.rows import ANSWERS
from kern_nb.db.schema import Tables, starts_with
from kern_nb.errors import AmbiguousReference, BadUsage, KernError, MessageNotFound, RunNotFound
from kern_nb.records import OPEN_STATUSES

Row = Mapping[str, Any] | RowMapping
_DEEPEST = 10_000
"""A chain of parents this long is taken for a cycle."""


@dataclass(frozen=True)
class Point:
    """A place in a session: a run, and a message of it or (None) all of it."""

    run_index: int
    message_index: int | None = None

    def earlier(self, other: Point | None) -> Point:
        """The earlier of two points; None is the end."""
        if other is None or self.order() <= other.order():
            return self
        return other

    def order(self) -> tuple[int, float]:
        """What points are compared by."""
        return self.run_index, float("inf") if self.message_index is None else self.message_index


@dataclass(frozen=True)
class Segment:
    """The rows of one session that are seen, up to and including a point; None is the end."""

    session_id: str
    until: Point | None = None

    def runs(self, runs: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on runs."""
        own = runs.c.session_id == self.session_id
        return own if self.until is None else own & (runs.c.run_index <= self.until.run_index)

    def inside(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on messages or tool calls."""
        own = rows.c.session_id == self.session_id
        if self.until is None:
            return own
        last, message = rows.c.run_index == self.until.run_index, self.until.message_index
        cut = last if message is None else last & (rows.c.message_index <= message)
        return own & ((rows.c.run_index < self.until.run_index) | cut)


class Segments(tuple[Segment, ...]):
    """The segments of one session, oldest first; the last is its own."""

    __slots__ = ()

    @property
    def own(self) -> Segment:
        """The rows that are the session's own."""
        return self[-1]

    def runs(self, runs: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on runs."""
        return sa.or_(*(segment.runs(runs) for segment in self))

    def inside(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on messages or tool calls."""
        return sa.or_(*(segment.inside(rows) for segment in self))

    def is_cut(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on rows of runs that are seen in part."""
        cuts = [(s.session_id, s.until.run_index) for s in self if s.until and s.until.message_index is not None]
        return sa.or_(
            sa.false(), *((rows.c.session_id == owner) & (rows.c.run_index == index) for owner, index in cuts)
        )

    def cut(self, run: Row) -> int | None:
        """The last message that is seen of a run, None where all of it is."""
        for segment in self:
            at = segment.until
            if at and segment.session_id == run["session_id"] and at.run_index == run["run_index"]:
                return at.message_index
        return None


def fork_of(session: Row) -> Point | None:
    """The last place that a session inherits, None where it is no branch."""
    if session["parent_session_id"] is None or session["fork_run_index"] is None:
        return None
    return Point(session["fork_run_index"], session["fork_message_index"])


def segments(connection: Connection, tables: Tables, session: Row) -> Segments:
    """The segments of a session, from its row; one query where it is a branch, none where it is not."""
    own = Segment(session["session_id"])
    seen: list[Segment] = [own]
    cap: Point | None = None
    link = session
    for parent in _ancestors(connection, tables, session):
        fork = fork_of(link)
        cap = fork.earlier(cap) if fork else cap
        seen.append(Segment(parent["session_id"], cap))
        link = parent
    return Segments(reversed(seen))


def _ancestors(connection: Connection, tables: Tables, session: Row) -> list[Row]:
    """The rows of parent, grandparent and so on."""
    if session["parent_session_id"] is None:
        return []
    s = tables.sessions
    names = ("session_id", "parent_session_id", "fork_run_index", "fork_message_index")
    start = sa.select(*(s.c[n] for n in names), sa.literal(0, sa.BigInteger).label("depth"))
    chain = start.where(s.c.session_id == session["parent_session_id"]).cte("ancestors", recursive=True)
    up = s.alias()
    chain = chain.union_all(
        sa.select(*(up.c[n] for n in names), chain.c.depth + 1)
        .join(chain, up.c.session_id == chain.c.parent_session_id)
        .where(chain.c.depth < _DEEPEST)
    )
    rows: list[Row] = list(connection.execute(sa.select(chain).order_by(chain.c.depth)).mappings())
    if len(rows) > _DEEPEST:
        raise KernError(f"The parents of session {session['session_id']!r} form a circle.", "Look at %kern check.")
    return rows


def find_run(connection: Connection, tables: Tables, seen: Segments, run: int | str) -> Row:
    """A run that a session sees, by its index, its id or a unique prefix of its id.

    Raises:
        RunNotFound: it sees none such.
        AmbiguousReference: the prefix fits several.
        BadUsage: it is neither a number nor text.
    """
    run = run if isinstance(run, str) else _index(run, "run")
    r, session_id = tables.runs, seen.own.session_id
    query = sa.select(r.c.session_id, r.c.run_index, r.c.run_id, r.c.status, r.c.session_state).where(seen.runs(r))
    if isinstance(run, int):
        query = query.where(r.c.run_index == run)
    else:
        query = query.where(starts_with(r.c.run_id, run)).order_by(r.c.run_index).limit(6)
    rows = connection.execute(query).mappings().all()
    exact = [row for row in rows if row["run_id"] == run]
    if len(rows) == 1 or exact:
        return (exact or rows)[0]
    if rows:
        candidates = ", ".join(f"{row['run_id']} (run {row['run_index']})" for row in rows)
        raise AmbiguousReference(
            f"{run!r} fits several runs of session {session_id!r}: {candidates}.", "Write more of the run id."
        )
    last = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(seen.runs(r))).scalar()
    there = "it has no runs" if last is None else f"its runs are 0 to {last}"
    raise RunNotFound(f"Session {session_id!r} has no run {run!r}; {there}.", f"See %kern show {session_id}.")


def find_point(
    connection: Connection,
    tables: Tables,
    seen: Segments,
    *,
    after: int | str | tuple[int | str, int] | None,
    before: int | str | tuple[int | str, int] | None,
) -> Point:
    """The last place that a branch would inherit.

    Raises:
        RunNotFound, MessageNotFound, AmbiguousReference: there is no such place, or no single one.
    """
    where = after if before is None else before
    if where is None:
        return _end(connection, tables, seen)
    run_key, message_index = where if isinstance(where, tuple) else (where, None)
    run = find_run(connection, tables, seen, run_key)
    index = int(run["run_index"])
    if message_index is not None:
        message_index = _index(message_index, "message")
        _require_message(connection, tables, seen, run, message_index)
    if before is None:
        return _after(connection, tables, seen, run) if message_index is None else Point(index, message_index)
    return Point(index, message_index - 1) if message_index else _whole(seen, index - 1)


def _index(value: object, what: str) -> int:
    """A whole number of any kind: a frame's are numpy's, which drivers do not take."""
    if not isinstance(value, SupportsIndex):
        raise BadUsage(f"{value!r} is no {what}.", f"Name a {what} by its index, a whole number.")
    return value.__index__()


def _whole(seen: Segments, run_index: int) -> Point:
    """All that the session sees of a run: up to the cut, where it is cut for the session."""
    return Point(run_index, _last_cut(seen, run_index))


def _after(connection: Connection, tables: Tables, seen: Segments, run: Row) -> Point:
    """After a run. An open one counts up to its latest message, so that the branch does not move on with it."""
    m, index = tables.messages, int(run["run_index"])
    if run["status"] not in OPEN_STATUSES:
        return _whole(seen, index)
    last = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], seen.inside(m))
    written = connection.execute(last).scalar()
    return _whole(seen, index - 1) if written is None else Point(index, written)


def _last_cut(seen: Segments, run_index: int) -> int | None:
    """Where the run of this index is cut for the session, if it is."""
    forks = [s.until for s in seen if s.until is not None and s.until.run_index == run_index]
    return forks[-1].message_index if forks else None


def _end(connection: Connection, tables: Tables, seen: Segments) -> Point:
    r = tables.runs
    query = sa.select(r.c.session_id, r.c.run_index, r.c.run_id, r.c.status).where(seen.runs(r))
    run = connection.execute(query.order_by(r.c.run_index.desc()).limit(1)).mappings().first()
    return Point(-1) if run is None else _after(connection, tables, seen, run)


def _require_message(connection: Connection, tables: Tables, seen: Segments, run: Row, message_index: int) -> None:
    m = tables.messages
    own = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], seen.inside(m))
    last = connection.execute(own).scalar()
    if last is None or not 0 <= message_index <= last:
        there = "has no messages" if last is None else f"has messages 0 to {last}"
        name = f"{seen.own.session_id}/{run['run_index']}"
        raise MessageNotFound(f"Run {name} {there}, no message {message_index}.", f"See %kern show {name}.")


def state_at(connection: Connection, tables: Tables, seen: Segments, point: Point) -> dict[str, Any] | None:
    """The session state as it was there: after the last run that lies wholly before the point."""
    r = tables.runs
    upto = r.c.run_index <= point.run_index if point.message_index is None else r.c.run_index < point.run_index
    query = sa.select(r.c.session_state).where(seen.runs(r), upto, r.c.session_state.is_not(None))
    state = connection.execute(query.order_by(r.c.run_index.desc()).limit(1)).scalar()
    return state if isinstance(state, dict) else None


def inherits_from(child: Row, parent: Row) -> bool:
    """Whether a branch sees rows that are its parent's own, not only those the parent inherits itself."""
    fork, floor = fork_of(child), fork_of(parent)
    return fork is not None and fork.run_index > (floor.run_index if floor else -1)


def copy_rows(
    connection: Connection, tables: Tables, seen: Iterable[Segment], session_id: str, *, after: int = -1
) -> dict[str, list[dict[str, Any]]]:
    """The rows that these segments show of runs behind ``after``, as rows of ``session_id``.

    The runs have new ids, and each has the id it copies.
    """
    renamed: dict[str, str] = {}
    cut_runs: set[str] = set()
    copies: dict[str, list[dict[str, Any]]] = {"runs": [], "messages": [], "tool_calls": []}
    shown = Segments(seen)
    r = tables.runs
    query = sa.select(r).where(shown.runs(r), r.c.run_index > after).order_by(r.c.run_index)
    for row in connection.execute(query).mappings():
        renamed[row["run_id"]] = new_id = str(uuid4())
        cut = {} if shown.cut(row) is None else CUT_RUN
        cut_runs |= {new_id} if cut else set()
        # The hash names an imported record: the copy is not that record.
        own = {"session_id": session_id, "run_id": new_id, "copied_from": row["run_id"], "source_hash": None}
        # Nobody writes the copy of an open run, and what that waits for is not asked twice.
        ended = {"status": "INTERRUPTED", "process": None} if row["status"] in OPEN_STATUSES else {}
        copies["runs"].append({**row, **own, **cut, **ended})
    for copy in copies["runs"]:
        copy["parent_run_id"] = renamed.get(copy["parent_run_id"], copy["parent_run_id"])
    for name in ("messages", "tool_calls"):
        table: sa.Table = getattr(tables, name)
        query = sa.select(table).where(shown.inside(table), table.c.run_index > after)
        for row in connection.execute(query).mappings():
            if row["run_id"] in renamed:
                copies[name].append({**row, "session_id": session_id, "run_id": renamed[row["run_id"]]})
    answers = {(m["run_id"], m["tool_call_id"]) for m in copies["messages"] if m["role"] in ANSWERS}
    for call in copies["tool_calls"]:
        if call["run_id"] in cut_runs and (call["run_id"], call["tool_call_id"]) not in answers:
            call.update(UNSEEN_RESULT)
    return copies


CUT_RUN: dict[str, None] = dict.fromkeys(
    (
        "output", "output_json", "error", "finished_at", "duration_s", "time_to_first_token_s", "session_state",
        "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens",
        "cost",
    )
)  # fmt: skip
"""What a run says of its whole, and so not of a part that a branch inherits."""

UNSEEN_RESULT = {"result": None, "result_json": None, "status": "unknown", "duration_s": None}
"""What a branch knows of a call whose result lies behind its branch point."""
