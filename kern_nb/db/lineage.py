"""`Lineage`: the rows of a session, its own and those it inherits.

A branch is a session row with its parent and its branch point, the last run (and message) it inherits. Nothing is
copied. A lineage is a list of segments, root first: the rows of one session up to a branch point.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec
from kern_nb.db.column_types import StoredRow, UnreadableCell
from kern_nb.db.schema import USAGE_COLUMNS, Tables, starts_with
from kern_nb.db.sql_expressions import ByEngine, in_json_array
from kern_nb.errors import AmbiguousReference, BadUsage, MessageNotFound, RunNotFound
from kern_nb.extra_keys import STATE_AFTER, STATE_BEFORE
from kern_nb.records import OPEN_STATUSES

BranchPointLike = int | str | tuple[int | str, int] | None
"""How a caller names a branch point: a run by index, id or unique prefix of its id; or (run, message_index)."""

_FAR = 2**62  # an index after all others
_MAX_DISJUNCTION = 12  # the most segments for which a condition names each of them


def _or_far(index: int | None) -> int:
    return _FAR if index is None else index


@dataclass(frozen=True)
class BranchPoint:
    """The last run that a branch inherits, and the last message of that run; None for all of it."""

    run_index: int
    message_index: int | None = None

    def earlier(self, other: BranchPoint | None) -> BranchPoint:
        """The earlier of two branch points; None is the end."""
        return min(self, other or self, key=lambda point: (point.run_index, _or_far(point.message_index)))


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
        ends = [(codec.encode_text(s.session_id), s.until or BranchPoint(_FAR)) for s in self]
        spans = [{"s": owner, "r": end.run_index, "m": _or_far(end.message_index)} for owner, end in ends]
        owner = sa.type_coerce(rows.c.session_id, sa.Text())
        message = rows.c.message_index if part == "message" else sa.null()
        document = sa.literal(json.dumps(spans), sa.Text())
        # By ids first, which an index has.
        has_owner = in_json_array(owner, json.dumps([owner for owner, _ in ends]))
        return sa.and_(has_owner, in_segments(document, owner, rows.c.run_index, message, part))


class in_segments(ByEngine):  # noqa: N801 - used like a function
    """Whether a row is in one of the segments of a JSON array of ``{"s": session, "r": run, "m": message}``."""

    type = sa.Boolean()

    def __init__(self, spans: Any, owner: Any, run: Any, message: Any, part: str) -> None:
        self.part = part
        # The part is in the text of an argument, and so in the cache key.
        super().__init__(spans, owner, run, message, sa.literal_column(f"'{part}'"))


_SEGMENT_TESTS = {
    "run": "{run} <= span.r",
    "message": "({run} < span.r OR ({run} = span.r AND {message} <= span.m))",
    "cut": f"({{run}} = span.r AND span.m < {_FAR})",
}
_SPANS_WITH_OWNER = {
    "postgresql": """json_to_recordset(CAST({spans} AS JSON)) AS span(s TEXT, r BIGINT, m BIGINT)
        WHERE span.s COLLATE "C" = {owner}""",
    "duckdb": """(SELECT unnest(from_json({spans}, '[{{"s":"VARCHAR","r":"BIGINT","m":"BIGINT"}}]'), recursive := true))
        AS span WHERE span.s = {owner}""",
}


@compiles(in_segments)
def _in_segments_sql(element: in_segments, compiler: Any, **kw: Any) -> str:
    arguments = [compiler.process(clause, **kw) for clause in element.clauses]
    engine = compiler.dialect.name
    if engine == "sqlite":
        return f"{SQLITE_IN_SEGMENTS}({', '.join(arguments)})"
    spans, owner, run, message, _ = arguments
    rows = _SPANS_WITH_OWNER[engine].format(spans=spans, owner=owner)
    return f"EXISTS (SELECT 1 FROM {rows} AND {_SEGMENT_TESTS[element.part].format(run=run, message=message)})"  # noqa: S608


SQLITE_IN_SEGMENTS = "kern_in_segments"
"""A function of our own, as SQLite would read the whole list for each row."""


_parsed: tuple[str, dict[str, tuple[int, int]]] = ("[]", {})


def is_in_segments(spans: str, owner: object, run: object, message: object, part: str) -> bool:
    """The function `SQLITE_IN_SEGMENTS`."""
    global _parsed  # noqa: PLW0603 - the list of the row before, nearly always the same: faster to compare than to hash
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
    segments = [Segment(session["session_id"])]
    cap: BranchPoint | None = None
    child = session
    for parent in _ancestors(connection, tables, session):
        fork = fork_point(child)
        cap = fork.earlier(cap) if fork is not None else cap
        segments.append(Segment(parent["session_id"], cap))
        child = parent
    return Lineage(reversed(segments))


_MAX_DEPTH = 10_000  # a longer chain of parents is a cycle
NO_FORK = "NULL in a branch"
CYCLE = "its parents form a cycle"
_LINK_COLUMNS = ("session_id", "parent_session_id", "fork_run_index", "fork_message_index")
_MAX_SINGLE_QUERIES = 3


def _ancestors(connection: Connection, tables: Tables, session: StoredRow) -> list[StoredRow]:
    """The rows of the ancestors, parent first."""
    if session["parent_session_id"] is None:
        return []
    if connection.dialect.name == "duckdb":
        return _ancestors_by_scan(connection, tables, session)
    s, up = tables.sessions, tables.sessions.alias()
    start = sa.select(*(s.c[n] for n in _LINK_COLUMNS), sa.literal(0, sa.BigInteger).label("depth"))
    chain = start.where(s.c.session_id == session["parent_session_id"]).cte("ancestors", recursive=True)
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


def _ancestors_by_scan(connection: Connection, tables: Tables, session: StoredRow) -> list[StoredRow]:
    """As `_ancestors`, for an engine that scans: a few parents one by one, more in one scan."""
    s = tables.sessions
    query = sa.select(*(s.c[n] for n in _LINK_COLUMNS))
    rows: list[StoredRow] = []
    visited = {session["session_id"]}
    branches: dict[str, StoredRow] = {}
    parent_id = session["parent_session_id"]
    while parent_id is not None:
        if parent_id in visited:
            raise _cycle_error(session)
        visited.add(parent_id)
        if len(rows) == _MAX_SINGLE_QUERIES:
            scan = connection.execute(query.where(s.c.parent_session_id.is_not(None)))
            branches = {row["session_id"]: row for row in scan.mappings()}
        row = branches.get(parent_id)
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
    query = _select_runs(tables).where(lineage.runs(r))
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


def _select_runs(tables: Tables) -> sa.Select[Any]:
    names = ("session_id", "run_index", "run_id", "parent_run_id", "status", "session_state")
    return sa.select(*(tables.runs.c[name] for name in names))


def root_run(connection: Connection, tables: Tables, run: StoredRow) -> StoredRow:
    """The top-level run of a member's or a step's run; otherwise the run itself."""
    r, visited = tables.runs, {run["run_id"]}
    while run["parent_run_id"] is not None and run["parent_run_id"] not in visited:
        visited.add(run["parent_run_id"])
        query = _select_runs(tables).where(r.c.session_id == run["session_id"], r.c.run_id == run["parent_run_id"])
        parent = connection.execute(query).mappings().first()
        if parent is None:
            break
        run = parent
    return run


def member_indexes(connection: Connection, tables: Tables, session_id: str | None, run_id: str) -> dict[str, int]:
    """The members' runs of a run, at every depth: their indexes by run id."""
    r = tables.runs
    members: dict[str, int] = {}
    level = [run_id]
    while level:
        query = sa.select(r.c.run_id, r.c.run_index).where(r.c.session_id == session_id, r.c.parent_run_id.in_(level))
        children = {id_: index for id_, index in connection.execute(query) if id_ != run_id and id_ not in members}
        members |= children
        level = list(children)
    return members


def resolve_branch_point(
    connection: Connection, tables: Tables, lineage: Lineage, *, after: BranchPointLike, before: BranchPointLike
) -> BranchPoint:
    """The branch point of a new branch: after or before a run or message, at the end if neither is named.

    A run is inherited as a whole only with its members' and steps' runs, so after or before one of these is after or
    before their top-level run. A run that is cut at a message has none of them.

    Raises:
        RunNotFound: There is no such run.
        MessageNotFound: There is no such message.
        AmbiguousReference: Several runs match.
    """
    target = after if before is None else before
    if target is None:
        latest = _select_runs(tables).where(lineage.runs(tables.runs)).order_by(tables.runs.c.run_index.desc()).limit(1)
        last_run = connection.execute(latest).mappings().first()
        if last_run is None:
            return BranchPoint(-1)
        return _after(connection, tables, lineage, root_run(connection, tables, last_run))
    run_key, message_index = target if isinstance(target, tuple) else (target, None)
    run = find_run(connection, tables, lineage, run_key)
    if message_index is None:
        run = root_run(connection, tables, run)
        if before is None:
            return _after(connection, tables, lineage, run)
        return _before(connection, tables, lineage, int(run["run_index"]))
    index, message_index = int(run["run_index"]), _require_index(message_index, "message")
    last = _last_message(connection, tables, lineage, run)
    if last is None or not 0 <= message_index <= last:
        available = "has no messages" if last is None else f"has messages 0 to {last}"
        name = f"{lineage.own.session_id}/{index}"
        raise MessageNotFound(f"Run {name} {available}, no message {message_index}.", f"See %kern show {name}.")
    if before is None:
        return BranchPoint(index, message_index)
    return BranchPoint(index, message_index - 1) if message_index else _before(connection, tables, lineage, index)


def _require_index(value: object, noun: str) -> int:
    """An integer of any type: a frame's are numpy's, which drivers do not take."""
    if not isinstance(value, SupportsIndex):
        raise BadUsage(f"A {noun} index must be an int, got {value!r}.", "See the indexes with %kern show.")
    return value.__index__()


def _end_of_run(lineage: Lineage, run_index: int) -> BranchPoint:
    """The end of a run in a lineage: its cut, if it is cut."""
    cuts = [s.until for s in lineage if s.until is not None and s.until.run_index == run_index]
    return BranchPoint(run_index, cuts[-1].message_index if cuts else None)


def _before(connection: Connection, tables: Tables, lineage: Lineage, index: int) -> BranchPoint:
    """The end of the run before an index; runs between may have been deleted, and their indexes be used again."""
    r = tables.runs
    earlier = sa.select(r.c.run_index).where(lineage.runs(r), r.c.run_index < index)
    last = connection.execute(earlier.order_by(r.c.run_index.desc()).limit(1)).scalar()
    return BranchPoint(-1) if last is None else _end_of_run(lineage, int(last))


def _after(connection: Connection, tables: Tables, lineage: Lineage, run: StoredRow) -> BranchPoint:
    """After a run. An open one counts up to its latest message, so that the branch does not get later ones."""
    index = int(run["run_index"])
    if run["status"] in OPEN_STATUSES:
        last = _last_message(connection, tables, lineage, run)
        return _before(connection, tables, lineage, index) if last is None else BranchPoint(index, last)
    members = member_indexes(connection, tables, run["session_id"], run["run_id"])
    # The segment of the run's session may end between the runs of its members.
    bounds = [s.until.run_index for s in lineage if s.until is not None and s.session_id == run["session_id"]]
    return _end_of_run(lineage, min([max([index, *members.values()]), *bounds]))


def _last_message(connection: Connection, tables: Tables, lineage: Lineage, run: StoredRow) -> int | None:
    m = tables.messages
    query = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], lineage.inside(m))
    return connection.execute(query).scalar()


def session_state_at(
    connection: Connection, tables: Tables, lineage: Lineage, point: BranchPoint
) -> dict[str, Any] | None:
    """The session state after the last run that ends at or before a branch point.

    Members' and steps' runs share the state of their top-level run, which ends after them. Before the first run it is
    the state that run started from.
    """
    r = tables.runs
    upto = r.c.run_index <= point.run_index if point.message_index is None else r.c.run_index < point.run_index
    query = sa.select(r.c.session_state, r.c.internal).where(lineage.runs(r), upto, r.c.session_state.is_not(None))
    query = query.where(r.c.parent_run_id.is_(None)).order_by(r.c.run_index.desc()).limit(1)
    run = connection.execute(query).first()
    state = None if run is None else (run.internal or {}).get(STATE_AFTER, run.session_state)
    if state is None:
        query = sa.select(r.c.run_index, r.c.internal).where(lineage.runs(r)).order_by(r.c.run_index).limit(1)
        first = connection.execute(query).first()
        if first is not None and point.earlier(BranchPoint(first.run_index)) != BranchPoint(first.run_index):
            state = (first.internal or {}).get(STATE_BEFORE)
    return state if isinstance(state, dict) else None


CUT_RUN: dict[str, None] = dict.fromkeys(
    (
        *("output", "output_json", "error", "finished_at", "duration_s", "time_to_first_token_s", "session_state"),
        *(*USAGE_COLUMNS, "cost_source"),
    )
)
"""Values that describe a run as a whole, removed from a run that a branch point cuts."""

UNSEEN_RESULT = {"result": None, "result_json": None, "status": "unknown", "duration_s": None}
"""The values of a tool call whose result is after the branch point."""
