"""What a session sees: its own rows, and those it inherits.

A branch is a session row that points at its parent and at the last run (and message) it inherits. Nothing is copied.
The
*segments* of a session are the stretches of rows it sees, oldest first, each of one session and up to a `Point`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.ext.compiler import compiles

from kern_nb.db import codec
from kern_nb.db.mapping import ANSWERS
from kern_nb.db.schema import Tables, UnreadableCell, starts_with
from kern_nb.errors import AmbiguousReference, BadUsage, MessageNotFound, RunNotFound
from kern_nb.extra_keys import STATE_BEFORE
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


class Lineage(tuple[Segment, ...]):  # noqa: SLOT001 - a property is kept
    """The segments of one session, oldest first; the last is its own.

    The conditions on rows are a disjunction of a few segments. Of many they are one test against a list that is handed
    over as one parameter: engines limit the depth of an expression, and compare each row with each of its parts.
    """

    @property
    def own(self) -> Segment:
        """The rows that are the session's own."""
        return self[-1]

    def runs(self, runs: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on runs."""
        if len(self) > _FEW:
            return self._among(runs, "run")
        return sa.or_(*(segment.runs(runs) for segment in self))

    def inside(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on messages or tool calls."""
        if len(self) > _FEW:
            return self._among(rows, "message")
        return sa.or_(*(segment.inside(rows) for segment in self))

    def is_cut(self, rows: sa.Table) -> sa.ColumnElement[bool]:
        """The condition on rows of runs that are seen in part."""
        if len(self._cuts) > _FEW:
            return self._among(rows, "cut")
        runs = ((rows.c.session_id == owner) & (rows.c.run_index == index) for owner, index in self._cuts)
        return sa.or_(sa.false(), *runs)

    def cut(self, run: Row) -> int | None:
        """The last message that is seen of a run, None where all of it is."""
        return self._cuts.get((run["session_id"], run["run_index"]))

    @cached_property
    def _cuts(self) -> dict[tuple[str, int], int]:
        ends = ((s.session_id, s.until) for s in self if s.until is not None)
        return {(owner, end.run_index): end.message_index for owner, end in ends if end.message_index is not None}

    def _among(self, rows: sa.Table, part: str) -> sa.ColumnElement[bool]:
        """Whether a row lies in one of many segments.

        An end that is unknown to be anywhere is far behind all rows: NULL would need a case of its own everywhere.
        """
        ends = [(s.session_id, s.until or Point(_FAR)) for s in self]
        listed = [
            {
                "s": codec.encode_text(owner),
                "r": end.run_index,
                "m": _FAR if end.message_index is None else end.message_index,
            }
            for owner, end in ends
        ]
        message = rows.c.message_index if part == "message" else sa.null()
        spans = sa.literal(json.dumps(listed), sa.Text())
        ids = json_texts(sa.literal(json.dumps([span["s"] for span in listed]), sa.Text()))
        owner = sa.type_coerce(rows.c.session_id, sa.Text())
        # By ids first: that is what an index is for.
        within = among(spans, owner, rows.c.run_index, message, sa.literal(part, sa.Text(), literal_execute=True))
        return sa.and_(owner.op("IN", is_comparison=True)(ids), within)


_FEW = 12
"""Segments up to which a condition names each of them."""

_FAR = 2**62
"""An index behind all others."""


class json_texts(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """The texts of a JSON array, as rows: one parameter, however many they are."""

    inherit_cache = True
    name = "texts_of"


@compiles(json_texts, "postgresql")
def _texts_of_postgresql(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS JSON)))"


@compiles(json_texts, "duckdb")
def _texts_of_duckdb(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT unnest(from_json({compiler.process(element.clauses, **kw)}, '[\"VARCHAR\"]')))"


@compiles(json_texts, "sqlite")
def _texts_of_sqlite(element: json_texts, compiler: Any, **kw: Any) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - a bound parameter


class among(sa.sql.expression.FunctionElement[bool]):  # noqa: N801 - used like a function
    """Whether a row lies in one of the segments of a JSON array of ``{"s": session, "r": run, "m": message}``."""

    inherit_cache = True
    name = "among"
    type = sa.Boolean()


_AMONG = {
    "run": "{run} <= span.r",
    "message": "({run} < span.r OR ({run} = span.r AND {message} <= span.m))",
    "cut": f"({{run}} = span.r AND span.m < {_FAR})",
}


def _among_sql(element: among, compiler: Any, spans: str, collate: str, **kw: Any) -> str:
    document, owner, run, message, part = element.clauses
    test = _AMONG[part.value].format(run=compiler.process(run, **kw), message=compiler.process(message, **kw))
    spans = spans.format(compiler.process(document, **kw))
    return f"EXISTS (SELECT 1 FROM {spans} WHERE span.s{collate} = {compiler.process(owner, **kw)} AND {test})"  # noqa: S608


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: Any, **kw: Any) -> str:
    spans = "json_to_recordset(CAST({} AS JSON)) AS span(s TEXT, r BIGINT, m BIGINT)"
    return _among_sql(element, compiler, spans, ' COLLATE "C"', **kw)


@compiles(among, "duckdb")
def _among_duckdb(element: among, compiler: Any, **kw: Any) -> str:
    kind = '[{{"s":"VARCHAR","r":"BIGINT","m":"BIGINT"}}]'
    spans = f"(SELECT unnest(from_json({{}}, '{kind}'), recursive := true)) AS span"
    return _among_sql(element, compiler, spans, "", **kw)


@compiles(among, "sqlite")
def _among_sqlite(element: among, compiler: Any, **kw: Any) -> str:
    return f"{SQLITE_IN_SEGMENTS}({', '.join(compiler.process(clause, **kw) for clause in element.clauses)})"


SQLITE_IN_SEGMENTS = "kern_among"
"""SQLite would go through the whole list for each row."""

_parsed: tuple[str, dict[str, tuple[int, int]]] = ("[]", {})


def is_in_segments(spans: str, owner: object, run: object, message: object, part: str) -> bool:
    """What SQLite's function does."""
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


def fork_point(session: Row) -> Point | None:
    """The last place that a session inherits, None where it is no branch.

    Raises:
        UnreadableCell: it is a branch, and what it inherits is not known.
    """
    if session["parent_session_id"] is None:
        return None
    if session["fork_run_index"] is None:
        raise UnreadableCell(("sessions", "fork_run_index"), None, NO_FORK, session)
    return Point(session["fork_run_index"], session["fork_message_index"])


def load_lineage(connection: Connection, tables: Tables, session: Row) -> Lineage:
    """The segments of a session, from its row; one query where it is a branch, none where it is not.

    Raises:
        UnreadableCell: its parents form a cycle.
    """
    own = Segment(session["session_id"])
    seen: list[Segment] = [own]
    cap: Point | None = None
    link = session
    for parent in _ancestors(connection, tables, session):
        fork = fork_point(link)
        cap = fork.earlier(cap) if fork is not None else cap
        seen.append(Segment(parent["session_id"], cap))
        link = parent
    return Lineage(reversed(seen))


def _ancestors(connection: Connection, tables: Tables, session: Row) -> list[Row]:
    """The rows of parent, grandparent and so on."""
    if session["parent_session_id"] is None:
        return []
    if connection.dialect.name == "duckdb":
        return _ancestors_by_map(connection, tables, session)
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
    if len({row["session_id"] for row in rows} | {session["session_id"]}) <= len(rows):
        raise _cycle(session)
    return rows


def _cycle(session: Row) -> UnreadableCell:
    return UnreadableCell(("sessions", "parent_session_id"), session["parent_session_id"], CYCLE, session)


NO_FORK = "NULL where a branch says what it inherits"
CYCLE = "its parents form a cycle"
_STEPS = 3


def _ancestors_by_map(connection: Connection, tables: Tables, session: Row) -> list[Row]:
    """As `_ancestors`, for an engine that scans: a few parents one by one, more of them from one scan."""
    s = tables.sessions
    query = sa.select(s.c.session_id, s.c.parent_session_id, s.c.fork_run_index, s.c.fork_message_index)
    rows: list[Row] = []
    met = {session["session_id"]}
    parents: Mapping[str, Row] | None = None
    parent_id = session["parent_session_id"]
    while parent_id is not None:
        if parent_id in met:
            raise _cycle(session)
        met.add(parent_id)
        if len(rows) == _STEPS:
            branches = connection.execute(query.where(s.c.parent_session_id.is_not(None))).mappings()
            parents = {row["session_id"]: row for row in branches}
        row = None if parents is None else parents.get(parent_id)
        if row is None:  # one of the first, or the one that is no branch
            row = connection.execute(query.where(s.c.session_id == parent_id)).mappings().first()
        if row is None:
            break
        rows.append(row)
        parent_id = row["parent_session_id"]
    return rows


def find_run(connection: Connection, tables: Tables, seen: Lineage, run: int | str) -> Row:
    """A run that a session sees, by its index, its id or a unique prefix of its id.

    Raises:
        RunNotFound: it sees none such.
        AmbiguousReference: the prefix fits several.
        BadUsage: it is neither a number nor text.
    """
    run = run if isinstance(run, str) else _index(run, "run")
    r, session_id = tables.runs, seen.own.session_id
    query = sa.select(*(r.c[name] for name in _OF_RUN)).where(seen.runs(r))
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


_OF_RUN = ("session_id", "run_index", "run_id", "parent_run_id", "status", "session_state")


def _leader(connection: Connection, tables: Tables, run: Row) -> Row:
    """The run within which a member's or a step's run was made, at the top; the run itself where it is no such."""
    r, met = tables.runs, {run["run_id"]}
    while run["parent_run_id"] is not None and run["parent_run_id"] not in met:
        met.add(run["parent_run_id"])
        query = sa.select(*(r.c[name] for name in _OF_RUN))
        query = query.where(r.c.session_id == run["session_id"], r.c.run_id == run["parent_run_id"])
        above = connection.execute(query).mappings().first()
        if above is None:
            break
        run = above
    return run


def family_end(connection: Connection, tables: Tables, run: Row) -> int:
    """The index of the last run of a run and of those made within it, at every depth: only with these is it whole."""
    r, end = tables.runs, int(run["run_index"])
    level, met = [run["run_id"]], {run["run_id"]}
    while level:
        query = sa.select(r.c.run_id, r.c.run_index)
        query = query.where(r.c.session_id == run["session_id"], r.c.parent_run_id.in_(level))
        rows = connection.execute(query).all()
        level = [run_id for run_id, _ in rows if run_id not in met]
        met.update(level)
        end = max([end, *(index for _, index in rows)])
    return end


def find_point(
    connection: Connection,
    tables: Tables,
    seen: Lineage,
    *,
    after: int | str | tuple[int | str, int] | None,
    before: int | str | tuple[int | str, int] | None,
) -> Point:
    """The last place that a branch would inherit.

    A run is inherited whole only with its members' and steps' runs, so after or before one of these is after or before
    their leader's. A run that is cut at a message has none of them.

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
    if message_index is None:
        run = _leader(connection, tables, run)
        if before is None:
            return _after(connection, tables, seen, run)
        return _whole(seen, int(run["run_index"]) - 1)
    if before is None:
        return Point(index, message_index)
    return Point(index, message_index - 1) if message_index else _whole(seen, index - 1)


def _index(value: object, what: str) -> int:
    """A whole number of any kind: a frame's are numpy's, which drivers do not take."""
    if not isinstance(value, SupportsIndex):
        raise BadUsage(f"{value!r} is no {what}.", f"Name a {what} by its index, a whole number.")
    return value.__index__()


def _whole(seen: Lineage, run_index: int) -> Point:
    """All that the session sees of a run: up to the cut, where it is cut for the session."""
    return Point(run_index, _last_cut(seen, run_index))


def _after(connection: Connection, tables: Tables, seen: Lineage, run: Row) -> Point:
    """After a run. An open one counts up to its latest message, so that the branch does not move on with it."""
    m, index = tables.messages, int(run["run_index"])
    if run["status"] not in OPEN_STATUSES:
        # What is seen of the leader's session may end between its runs.
        bounds = [s.until.run_index for s in seen if s.until is not None and s.session_id == run["session_id"]]
        return _whole(seen, min([family_end(connection, tables, run), *bounds]))
    last = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], seen.inside(m))
    written = connection.execute(last).scalar()
    return _whole(seen, index - 1) if written is None else Point(index, written)


def _last_cut(seen: Lineage, run_index: int) -> int | None:
    """Where the run of this index is cut for the session, if it is."""
    forks = [s.until for s in seen if s.until is not None and s.until.run_index == run_index]
    return forks[-1].message_index if forks else None


def _end(connection: Connection, tables: Tables, seen: Lineage) -> Point:
    r = tables.runs
    query = sa.select(*(r.c[name] for name in _OF_RUN)).where(seen.runs(r))
    run = connection.execute(query.order_by(r.c.run_index.desc()).limit(1)).mappings().first()
    if run is None:
        return Point(-1)
    return _after(connection, tables, seen, _leader(connection, tables, run))


def _require_message(connection: Connection, tables: Tables, seen: Lineage, run: Row, message_index: int) -> None:
    m = tables.messages
    own = sa.select(sa.func.max(m.c.message_index)).where(m.c.run_id == run["run_id"], seen.inside(m))
    last = connection.execute(own).scalar()
    if last is None or not 0 <= message_index <= last:
        there = "has no messages" if last is None else f"has messages 0 to {last}"
        name = f"{seen.own.session_id}/{run['run_index']}"
        raise MessageNotFound(f"Run {name} {there}, no message {message_index}.", f"See %kern show {name}.")


def state_at(connection: Connection, tables: Tables, seen: Lineage, point: Point) -> dict[str, Any] | None:
    """The session state as it was there: after the last run that lies wholly before the point.

    Members' and steps' runs share their leader's state, which ends after them. Before the first run it is what that
    run started from.
    """
    r = tables.runs
    upto = r.c.run_index <= point.run_index if point.message_index is None else r.c.run_index < point.run_index
    query = sa.select(r.c.session_state).where(seen.runs(r), upto, r.c.session_state.is_not(None))
    query = query.where(r.c.parent_run_id.is_(None)).order_by(r.c.run_index.desc()).limit(1)
    state = connection.execute(query).scalar()
    if state is None and (point.run_index < 0 or (point.run_index == 0 and point.message_index is not None)):
        first = sa.select(r.c.internal).where(seen.runs(r), r.c.run_index == 0)
        state = (connection.execute(first).scalar() or {}).get(STATE_BEFORE)
    return state if isinstance(state, dict) else None


def inherits_from(child: Row, parent: Row) -> bool:
    """Whether a branch sees rows that are its parent's own, not only those the parent inherits itself."""
    fork, floor = fork_point(child), fork_point(parent)
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
    shown = Lineage(seen)
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
