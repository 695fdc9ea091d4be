"""`Lineage`: the rows of a session, its own and those it inherits.

A branch is a session row with its parent and its branch point, the last run (and message) it inherits. Nothing is
copied. A lineage is a list of segments, root first: the rows of one session up to a branch point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec
from kern_nb.db.column_types import StoredRow, UnreadableCell
from kern_nb.db.schema import Tables, starts_with
from kern_nb.errors import AmbiguousReference, BadUsage, MessageNotFound, RunNotFound
from kern_nb.extra_keys import STATE_BEFORE
from kern_nb.records import OPEN_STATUSES

_MAX_DEPTH = 10_000
"""A longer chain of parents is a cycle."""


BranchPointLike = int | str | tuple[int | str, int] | None
"""How a caller names a branch point: a run by index, id or unique prefix of its id; or (run, message_index)."""


@dataclass(frozen=True)
class BranchPoint:
    """The last run that a branch inherits, and the last message of that run; None for all of it."""

    run_index: int
    message_index: int | None = None

    def earlier(self, other: BranchPoint | None) -> BranchPoint:
        """The earlier of two branch points; None is the end."""
        if other is None or self.order() <= other.order():
            return self
        return other

    def order(self) -> tuple[int, float]:
        """The key to compare branch points by."""
        return self.run_index, float("inf") if self.message_index is None else self.message_index


@dataclass(frozen=True)
class Segment:
    """The rows of one session up to and including a branch point; None is the end."""

    session_id: str
    until: BranchPoint | None = None

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


class Lineage(tuple[Segment, ...]):  # noqa: SLOT001 - a property is kept
    """The segments of one session, root first; the last is its own.

    With a few segments, the conditions on rows are a disjunction. With many, they are a test against a list that is
    passed as one parameter: engines limit the depth of an expression, and compare each row with each of its parts.
    """

    @property
    def own(self) -> Segment:
        """The segment of the session's own rows."""
        return self[-1]

    def runs(self, runs: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on runs."""
        if len(self) > _MAX_DISJUNCTION:
            return self._in_segments(runs, "run")
        return sa.or_(*(segment.runs(runs) for segment in self))

    def inside(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on messages or tool calls."""
        if len(self) > _MAX_DISJUNCTION:
            return self._in_segments(rows, "message")
        return sa.or_(*(segment.inside(rows) for segment in self))

    def is_cut(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on rows of runs that a branch point cuts."""
        if len(self._cuts) > _MAX_DISJUNCTION:
            return self._in_segments(rows, "cut")
        runs = ((rows.c.session_id == owner) & (rows.c.run_index == index) for owner, index in self._cuts)
        return sa.or_(sa.false(), *runs)

    def cut(self, run: StoredRow) -> int | None:
        """The last inherited message of a run that a branch point cuts; None if it is not cut."""
        return self._cuts.get((run["session_id"], run["run_index"]))

    @cached_property
    def _cuts(self) -> dict[tuple[str, int], int]:
        ends = ((s.session_id, s.until) for s in self if s.until is not None)
        return {(owner, end.run_index): end.message_index for owner, end in ends if end.message_index is not None}

    def _in_segments(self, rows: sa.Table, part: str) -> sa.ColumnElement[bool]:
        """Whether a row is in one of many segments.

        A segment without an end gets one after all rows: NULL would need a case of its own everywhere.
        """
        ends = [(s.session_id, s.until or BranchPoint(_FAR)) for s in self]
        spans = [
            {
                "s": codec.encode_text(owner),
                "r": end.run_index,
                "m": _FAR if end.message_index is None else end.message_index,
            }
            for owner, end in ends
        ]
        message = rows.c.message_index if part == "message" else sa.null()
        document = sa.literal(json.dumps(spans), sa.Text())
        ids = json_texts(sa.literal(json.dumps([span["s"] for span in spans]), sa.Text()))
        owner = sa.type_coerce(rows.c.session_id, sa.Text())
        # By ids first, which an index has.
        within = in_segments(
            document, owner, rows.c.run_index, message, sa.literal(part, sa.Text(), literal_execute=True)
        )
        return sa.and_(owner.op("IN", is_comparison=True)(ids), within)


_MAX_DISJUNCTION = 12
"""The most segments for which a condition names each of them."""

_FAR = 2**62
"""An index after all others."""


class json_texts(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """The strings of a JSON array as rows: one parameter, however many there are."""

    inherit_cache = True
    name = "texts_of"


@compiles(json_texts, "postgresql")
def _json_texts_postgresql(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS JSON)))"


@compiles(json_texts, "duckdb")
def _json_texts_duckdb(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT unnest(from_json({compiler.process(element.clauses, **kw)}, '[\"VARCHAR\"]')))"


@compiles(json_texts, "sqlite")
def _json_texts_sqlite(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - a bound parameter


class in_segments(sa.sql.expression.FunctionElement[bool]):  # noqa: N801 - used like a function
    """Whether a row is in one of the segments of a JSON array of ``{"s": session, "r": run, "m": message}``."""

    inherit_cache = True
    name = "in_segments"
    type = sa.Boolean()


_IN_SEGMENTS = {
    "run": "{run} <= span.r",
    "message": "({run} < span.r OR ({run} = span.r AND {message} <= span.m))",
    "cut": f"({{run}} = span.r AND span.m < {_FAR})",
}


def _in_segments_sql(element: in_segments, compiler: Any, spans: str, collate: str, **kw: Any) -> str:
    document, owner, run, message, part = element.clauses
    test = _IN_SEGMENTS[part.value].format(run=compiler.process(run, **kw), message=compiler.process(message, **kw))
    spans = spans.format(compiler.process(document, **kw))
    return f"EXISTS (SELECT 1 FROM {spans} WHERE span.s{collate} = {compiler.process(owner, **kw)} AND {test})"  # noqa: S608


@compiles(in_segments, "postgresql")
def _in_segments_postgresql(element: in_segments, compiler: Any, **kw: Any) -> str:
    spans = "json_to_recordset(CAST({} AS JSON)) AS span(s TEXT, r BIGINT, m BIGINT)"
    return _in_segments_sql(element, compiler, spans, ' COLLATE "C"', **kw)


@compiles(in_segments, "duckdb")
def _in_segments_duckdb(element: in_segments, compiler: Any, **kw: Any) -> str:
    kind = '[{{"s":"VARCHAR","r":"BIGINT","m":"BIGINT"}}]'
    spans = f"(SELECT unnest(from_json({{}}, '{kind}'), recursive := true)) AS span"
    return _in_segments_sql(element, compiler, spans, "", **kw)


@compiles(in_segments, "sqlite")
def _in_segments_sqlite(element: in_segments, compiler: Any, **kw: Any) -> str:
    return f"{SQLITE_IN_SEGMENTS}({', '.join(compiler.process(clause, **kw) for clause in element.clauses)})"


SQLITE_IN_SEGMENTS = "kern_in_segments"
"""A function of our own, as SQLite would read the whole list for each row."""

_parsed: tuple[str, dict[str, tuple[int, int]]] = ("[]", {})


def is_in_segments(spans: str, owner: object, run: object, message: object, part: str) -> bool:
    """The function `SQLITE_IN_SEGMENTS`."""
    global _parsed  # noqa: PLW0603 - the list of the row before, which is nearly always the same
    text, ends = _parsed
    if text != spans:
        ends = {span["s"]: (span["r"], span["m"]) for span in json.loads(spans)}
        _parsed = (spans, ends)
    end = ends.get(owner) if isinstance(owner, str) else None
    if end is None or not isinstance(run, int):
        return False
    if part == "run":
        return run <= end[0]
    if part == "cut":
        return run == end[0] and end[1] < _FAR
    return isinstance(message, int) and (run, message) <= end


def fork_point(session: StoredRow) -> BranchPoint | None:
    """The branch point of a session; None if it is not a branch.

    Raises:
        UnreadableCell: It is a branch without one.
    """
    if session["parent_session_id"] is None:
        return None
    if session["fork_run_index"] is None:
        raise UnreadableCell(("sessions", "fork_run_index"), None, NO_FORK, session)
    return BranchPoint(session["fork_run_index"], session["fork_message_index"])


def load_lineage(connection: Connection, tables: Tables, session: StoredRow) -> Lineage:
    """The lineage of a session, from its row; runs a query only if it is a branch.

    Raises:
        UnreadableCell: Its parents form a cycle.
    """
    reversed_lineage = [Segment(session["session_id"])]
    cap: BranchPoint | None = None
    child = session
    for parent in _ancestors(connection, tables, session):
        fork = fork_point(child)
        cap = fork.earlier(cap) if fork is not None else cap
        reversed_lineage.append(Segment(parent["session_id"], cap))
        child = parent
    return Lineage(reversed(reversed_lineage))


def _ancestors(connection: Connection, tables: Tables, session: StoredRow) -> list[StoredRow]:
    """The rows of the ancestors, parent first."""
    if session["parent_session_id"] is None:
        return []
    if connection.dialect.name == "duckdb":
        return _ancestors_by_scan(connection, tables, session)
    s = tables.sessions
    start = sa.select(*(s.c[n] for n in _LINK_COLUMNS), sa.literal(0, sa.BigInteger).label("depth"))
    chain = start.where(s.c.session_id == session["parent_session_id"]).cte("ancestors", recursive=True)
    up = s.alias()
    chain = chain.union_all(
        sa.select(*(up.c[n] for n in _LINK_COLUMNS), chain.c.depth + 1)
        .join(chain, up.c.session_id == chain.c.parent_session_id)
        .where(chain.c.depth < _MAX_DEPTH)
    )
    rows: list[StoredRow] = list(connection.execute(sa.select(chain).order_by(chain.c.depth)).mappings())
    if len({row["session_id"] for row in rows} | {session["session_id"]}) <= len(rows):
        raise _cycle_error(session)
    return rows


def _cycle_error(session: StoredRow) -> UnreadableCell:
    return UnreadableCell(("sessions", "parent_session_id"), session["parent_session_id"], CYCLE, session)


NO_FORK = "NULL in a branch"
CYCLE = "its parents form a cycle"

_LINK_COLUMNS = ("session_id", "parent_session_id", "fork_run_index", "fork_message_index")
_MAX_SINGLE_QUERIES = 3


def _ancestors_by_scan(connection: Connection, tables: Tables, session: StoredRow) -> list[StoredRow]:
    """As `_ancestors`, for an engine that scans: a few parents one by one, more in one scan."""
    s = tables.sessions
    query = sa.select(*(s.c[n] for n in _LINK_COLUMNS))
    rows: list[StoredRow] = []
    visited = {session["session_id"]}
    parents: Mapping[str, StoredRow] | None = None
    parent_id = session["parent_session_id"]
    while parent_id is not None:
        if parent_id in visited:
            raise _cycle_error(session)
        visited.add(parent_id)
        if len(rows) == _MAX_SINGLE_QUERIES:
            branches = connection.execute(query.where(s.c.parent_session_id.is_not(None))).mappings()
            parents = {row["session_id"]: row for row in branches}
        row = None if parents is None else parents.get(parent_id)
        if row is None:  # one of the first, or the root, which is not a branch
            row = connection.execute(query.where(s.c.session_id == parent_id)).mappings().first()
        if row is None:
            break
        rows.append(row)
        parent_id = row["parent_session_id"]
    return rows


def find_run(connection: Connection, tables: Tables, lineage: Lineage, run: int | str) -> StoredRow:
    """A run of a lineage, by its index, its id or a unique prefix of its id.

    Raises:
        RunNotFound: There is no such run.
        AmbiguousReference: Several match the prefix.
        BadUsage: It is neither an int nor a str.
    """
    run = run if isinstance(run, str) else _require_index(run, "run")
    r, session_id = tables.runs, lineage.own.session_id
    query = sa.select(*(r.c[name] for name in _RUN_COLUMNS)).where(lineage.runs(r))
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
        message = f"{run!r} matches several runs of session {session_id!r}: {candidates}."
        raise AmbiguousReference(message, "Use more of the run id.")
    last = connection.execute(sa.select(sa.func.max(r.c.run_index)).where(lineage.runs(r))).scalar()
    available = "it has no runs" if last is None else f"its runs are 0 to {last}"
    raise RunNotFound(f"Session {session_id!r} has no run {run!r}; {available}.", f"See %kern show {session_id}.")


_RUN_COLUMNS = ("session_id", "run_index", "run_id", "parent_run_id", "status", "session_state")


def _root_run(connection: Connection, tables: Tables, run: StoredRow) -> StoredRow:
    """The top-level run of a member's or a step's run; otherwise the run itself."""
    r, visited = tables.runs, {run["run_id"]}
    while run["parent_run_id"] is not None and run["parent_run_id"] not in visited:
        visited.add(run["parent_run_id"])
        query = sa.select(*(r.c[name] for name in _RUN_COLUMNS))
        query = query.where(r.c.session_id == run["session_id"], r.c.run_id == run["parent_run_id"])
        parent = connection.execute(query).mappings().first()
        if parent is None:
            break
        run = parent
    return run


def _last_member_index(connection: Connection, tables: Tables, run: StoredRow) -> int:
    """The index of the last run among a run and its members' runs, at every depth."""
    r, last = tables.runs, int(run["run_index"])
    level, visited = [run["run_id"]], {run["run_id"]}
    while level:
        query = sa.select(r.c.run_id, r.c.run_index)
        query = query.where(r.c.session_id == run["session_id"], r.c.parent_run_id.in_(level))
        rows = connection.execute(query).all()
        level = [run_id for run_id, _ in rows if run_id not in visited]
        visited.update(level)
        last = max([last, *(index for _, index in rows)])
    return last


def resolve_branch_point(
    connection: Connection, tables: Tables, lineage: Lineage, *, after: BranchPointLike, before: BranchPointLike
) -> BranchPoint:
    """The branch point of a new branch.

    A run is inherited as a whole only with its members' and steps' runs, so after or before one of these is after or
    before their top-level run. A run that is cut at a message has none of them.

    Args:
        connection: The connection.
        tables: The tables of the store.
        lineage: The lineage of the session to branch.
        after: The last run (or message) to inherit.
        before: The first run (or message) not to inherit; ``after`` is None then. Neither means the end.

    Returns:
        The branch point.

    Raises:
        RunNotFound: There is no such run.
        MessageNotFound: There is no such message.
        AmbiguousReference: Several runs match.
    """
    target = after if before is None else before
    if target is None:
        return _end(connection, tables, lineage)
    run_key, message_index = target if isinstance(target, tuple) else (target, None)
    run = find_run(connection, tables, lineage, run_key)
    index = int(run["run_index"])
    if message_index is not None:
        message_index = _require_index(message_index, "message")
        _require_message(connection, tables, lineage, run, message_index)
    if message_index is None:
        run = _root_run(connection, tables, run)
        if before is None:
            return _after(connection, tables, lineage, run)
        return _end_of_run(lineage, int(run["run_index"]) - 1)
    if before is None:
        return BranchPoint(index, message_index)
    return BranchPoint(index, message_index - 1) if message_index else _end_of_run(lineage, index - 1)


def _require_index(value: object, noun: str) -> int:
    """An integer of any type: a frame's are numpy's, which drivers do not take."""
    if not isinstance(value, SupportsIndex):
        raise BadUsage(f"A {noun} index must be an int, got {value!r}.", "See the indexes with %kern show.")
    return value.__index__()


def _end_of_run(lineage: Lineage, run_index: int) -> BranchPoint:
    """The end of a run in a lineage: its cut, if it is cut."""
    cuts = [s.until for s in lineage if s.until is not None and s.until.run_index == run_index]
    return BranchPoint(run_index, cuts[-1].message_index if cuts else None)


def _after(connection: Connection, tables: Tables, lineage: Lineage, run: StoredRow) -> BranchPoint:
    """After a run. An open one counts up to its latest message, so that the branch does not get later ones."""
    m, index = tables.messages, int(run["run_index"])
    if run["status"] not in OPEN_STATUSES:
        # The segment of the run's session may end between the runs of its members.
        bounds = [s.until.run_index for s in lineage if s.until is not None and s.session_id == run["session_id"]]
        return _end_of_run(lineage, min([_last_member_index(connection, tables, run), *bounds]))
    query = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], lineage.inside(m))
    last_message = connection.execute(query).scalar()
    return _end_of_run(lineage, index - 1) if last_message is None else BranchPoint(index, last_message)


def _end(connection: Connection, tables: Tables, lineage: Lineage) -> BranchPoint:
    r = tables.runs
    query = sa.select(*(r.c[name] for name in _RUN_COLUMNS)).where(lineage.runs(r))
    run = connection.execute(query.order_by(r.c.run_index.desc()).limit(1)).mappings().first()
    if run is None:
        return BranchPoint(-1)
    return _after(connection, tables, lineage, _root_run(connection, tables, run))


def _require_message(
    connection: Connection, tables: Tables, lineage: Lineage, run: StoredRow, message_index: int
) -> None:
    m = tables.messages
    query = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], lineage.inside(m))
    last = connection.execute(query).scalar()
    if last is None or not 0 <= message_index <= last:
        available = "has no messages" if last is None else f"has messages 0 to {last}"
        name = f"{lineage.own.session_id}/{run['run_index']}"
        raise MessageNotFound(f"Run {name} {available}, no message {message_index}.", f"See %kern show {name}.")


def session_state_at(
    connection: Connection, tables: Tables, lineage: Lineage, point: BranchPoint
) -> dict[str, Any] | None:
    """The session state after the last run that ends at or before a branch point.

    Members' and steps' runs share the state of their top-level run, which ends after them. Before the first run it is
    the state that run started from.
    """
    r = tables.runs
    upto = r.c.run_index <= point.run_index if point.message_index is None else r.c.run_index < point.run_index
    query = sa.select(r.c.session_state).where(lineage.runs(r), upto, r.c.session_state.is_not(None))
    query = query.where(r.c.parent_run_id.is_(None)).order_by(r.c.run_index.desc()).limit(1)
    state = connection.execute(query).scalar()
    if state is None and (point.run_index < 0 or (point.run_index == 0 and point.message_index is not None)):
        first = sa.select(r.c.internal).where(lineage.runs(r), r.c.run_index == 0)
        state = (connection.execute(first).scalar() or {}).get(STATE_BEFORE)
    return state if isinstance(state, dict) else None


CUT_RUN: dict[str, None] = dict.fromkeys(
    (
        "output", "output_json", "error", "finished_at", "duration_s", "time_to_first_token_s", "session_state",
        "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens",
        "cost",
    )
)  # fmt: skip
"""Values that describe a run as a whole, removed from a run that a branch point cuts."""

UNSEEN_RESULT = {"result": None, "result_json": None, "status": "unknown", "duration_s": None}
"""The values of a tool call whose result is after the branch point."""
