"""The six views, each a SELECT over the tables whose columns are those of `columns`, in order.

The frames run them as they are, or with the columns that were asked for; `sql()` offers them by name. Totals are
computed here, from rows: nothing keeps a counter, and what is not asked for is not computed. Times stay unix
microseconds; `query` turns them into the engine's own for people's SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text
from kern_nb.db.columns import FRAMES
from kern_nb.db.schema import MAX_TOKENS, USAGE_COLUMNS, Tables
from kern_nb.records import YEARS

Expression = sa.ColumnElement[Any]
Condition = sa.ColumnElement[bool]
RowFilter = Callable[[sa.Table], Condition]
"""A condition on the rows of any table that has a ``session_id``."""

Masks = Mapping[str, tuple[Condition, Expression]]
"""For columns that are not to be seen in some rows: in which, and what stands there instead."""
NO_MASKS: Masks = {}

ColumnNames = Collection[str] | None
"""The columns that a view is to have; None means all."""

MICROS_PER_SECOND = 1_000_000

CALLS = ("n_tool_calls", "n_tool_errors")
COUNTS = ("n_messages", *CALLS)
# What these are computed from, beside themselves.
_MONEY_AND_SUMS = ("cost", "total_tokens")
_THEIR_PARTS = ("input_tokens", "output_tokens")


class json_text(sa.sql.expression.FunctionElement[str]):  # noqa: N801 - used like a function
    """The text at a key of a JSON column."""

    inherit_cache = True
    name = "json_text"
    type = Text()

    def __init__(self, column: Expression, key: str) -> None:
        super().__init__(sa.type_coerce(column, sa.Text), sa.literal(key, sa.Text))


# Text that is not JSON has no keys: it is an error to every engine, and would fail the statement for all rows.


@compiles(json_text, "duckdb")
def _json_text_duckdb(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(TRY_CAST({column} AS JSON) ->> {key})"


@compiles(json_text, "postgresql")
def _json_text_postgresql(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return postgresql_json(column, "JSON", f" ->> {key}", compiler.dialect)


@compiles(json_text, "sqlite")
def _json_text_sqlite(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(CASE WHEN typeof({column}) = 'text' AND json_valid({column}) THEN {column} ->> {key} END)"


_CHECKS_INPUT = (16,)
"""The version of PostgreSQL from which on it can say whether a text is JSON."""


def postgresql_json(text: str, kind: str, rest: str, dialect: sa.Dialect) -> str:
    """SQL that reads a text as JSON, NULL where it is not."""
    value = f"(CAST({text} AS {kind}){rest})"
    if (getattr(dialect, "server_version_info", None) or _CHECKS_INPUT) < _CHECKS_INPUT:
        return value
    # As JSONB: it also refuses the escapes that cannot become text.
    return f"(CASE WHEN pg_input_is_valid({text}, 'jsonb') THEN {value} END)"


class valid_or_null(sa.sql.expression.FunctionElement[Any]):  # noqa: N801 - used like a function
    """A column, NULL where it holds what its type does not allow. Only SQLite has such cells."""

    inherit_cache = True
    name = "sound"

    def __init__(self, column: Expression) -> None:
        kind = type(column.type)
        self.type = _PLAIN[kind]()
        self.kinds = _SQLITE_KINDS[kind]  # follows from the column, by which statements are told apart
        super().__init__(sa.type_coerce(column, self.type))


_PLAIN: dict[type, type[sa.types.TypeEngine[Any]]] = {
    Text: sa.Text,
    Json: sa.Text,
    Integer: sa.BigInteger,
    Real: sa.Double,
    Boolean: sa.Boolean,
}
_SQLITE_KINDS: dict[type, str] = {
    Text: "'text'",
    Json: "'text'",
    Integer: "'integer'",
    Real: "'real', 'integer'",
    Boolean: "'integer'",
}


@compiles(valid_or_null)
def _sound(element: valid_or_null, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(valid_or_null, "sqlite")
def _sound_sqlite(element: valid_or_null, compiler: Any, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    return f"(CASE WHEN typeof({column}) IN ({element.kinds}) THEN {column} END)"


class ValidColumns:
    """The columns of a table, each `valid_or_null`."""

    def __init__(self, table: sa.Table) -> None:
        self._columns = table.c

    def __getitem__(self, name: str) -> Expression:
        column = self._columns[name]
        if name not in USAGE_COLUMNS or name == "cost":
            return valid_or_null(column)
        # No sum of what is stored today is wider than 64 bits; older stores may have larger counts.
        most = sa.literal_column(str(MAX_TOKENS), sa.BigInteger)
        plain = sa.type_coerce(column, sa.BigInteger)
        return sa.case((plain.between(-most, most), valid_or_null(column)))

    def __getattr__(self, name: str) -> Expression:
        return self[name]


class lower_text(sa.sql.expression.FunctionElement[str]):  # noqa: N801 - used like a function
    """A text in lower case."""

    inherit_cache = True
    name = "lowered"
    type = sa.Text()


@compiles(lower_text)
def _lowered(element: lower_text, compiler: Any, **kw: Any) -> str:
    return f"lower({compiler.process(element.clauses, **kw)})"


@compiles(lower_text, "sqlite")
def _lowered_sqlite(element: lower_text, compiler: Any, **kw: Any) -> str:
    # The function is Python's, which takes text only if it is UTF-8.
    return f"lower(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


def as_micros(time: Expression, unit: int = 1) -> Expression:
    """A stored time as unix microseconds; NULL outside the years 1 to 9999, which the frames cannot hold."""
    bounds = YEARS[0] * MICROS_PER_SECOND, (YEARS[1] + 1) * MICROS_PER_SECOND - 1  # the last second to its end
    first, last = (sa.literal_column(str(bound // unit), sa.BigInteger) for bound in bounds)
    plain = sa.type_coerce(time, sa.BigInteger)
    return sa.case((plain.between(first, last), plain if unit == 1 else plain * unit))


def latest_runs(tables: Tables) -> sa.Select[Any]:
    """The status of each session's latest run; members' runs do not count."""
    r = tables.runs
    last = (
        sa.select(r.c.session_id, sa.func.max(r.c.run_index).label("run_index"))
        .where(r.c.parent_run_id.is_(None))
        .group_by(r.c.session_id)
        .subquery()
    )
    return sa.select(r.c.session_id, r.c.status).join(
        last, (last.c.session_id == r.c.session_id) & (last.c.run_index == r.c.run_index)
    )


def _money(row: Any) -> Expression:
    """A cost of 0 beside spent tokens is a price nobody knew."""
    spent = sa.func.coalesce(row.input_tokens, 0) + sa.func.coalesce(row.output_tokens, 0) > 0
    return sa.case(((row.cost == 0) & spent, sa.null()), else_=row.cost)


def _whole(total: Expression) -> Expression:
    """Sums of integers are wider than integers on some engines; NULL stays NULL."""
    return sa.cast(total, sa.BigInteger)


def _wanted(view: str, wanted: ColumnNames) -> set[str]:
    """The names of columns, and of what they are computed from."""
    names = {column.name for column in FRAMES[view]}
    names = names if wanted is None else names & set(wanted)
    return names | set(_THEIR_PARTS) if names & set(_MONEY_AND_SUMS) else names


def is_history_copy(messages: Any) -> Condition:
    """Of the columns of messages: this one is a copy that a run keeps, and is counted where it was said."""
    return sa.and_(messages.from_history.is_not(None), messages.from_history)


def _of_messages(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run, how many messages it has, and the usage on those of the agent."""
    m = tables.messages
    agents, cells = m.c.role != "user", ValidColumns(m)
    spent = {name: cells[name] for name in USAGE_COLUMNS} | {"cost": _money(cells)}
    totals = {"n_messages": sa.func.sum(sa.case((is_history_copy(m.c), 0), else_=1))}
    totals |= {name: sa.func.sum(sa.case((agents, column))) for name, column in spent.items()}
    query = sa.select(m.c.run_id, *_labelled(totals, names)).group_by(m.c.run_id)
    return (query if only is None else query.where(only(m))).subquery()


def _of_calls(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run, how many tool calls its agent made, and how many of them failed."""
    t = tables.tool_calls
    agents = t.c.caller != "user"
    totals = {
        "n_tool_calls": sa.func.sum(sa.case((agents, 1), else_=0)),
        "n_tool_errors": sa.func.sum(sa.case((agents & (t.c.status == "failed"), 1), else_=0)),
    }
    query = sa.select(t.c.run_id, *_labelled(totals, names)).group_by(t.c.run_id)
    return (query if only is None else query.where(only(t))).subquery()


def _labelled(totals: Mapping[str, Expression], names: set[str]) -> list[sa.Label[Any]]:
    return [total.label(name) for name, total in totals.items() if name in names]


def _run_totals(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run, what its rows add up to: messages, the agent's tool calls, and the usage on the agent's messages.

    Tables that nothing of this is wanted from are not read.
    """
    r = tables.runs
    query, totals = sa.select(r.c.run_id).select_from(r), {}
    if names & {"n_messages", *USAGE_COLUMNS}:
        messages = _of_messages(tables, only, names)
        query = query.outerjoin(messages, messages.c.run_id == r.c.run_id)
        if "n_messages" in names:
            totals["n_messages"] = _whole(sa.func.coalesce(messages.c.n_messages, 0))
        # What is stated for the run goes before what its messages add up to.
        cells = ValidColumns(r)
        totals |= {name: sa.func.coalesce(cells[name], messages.c[name]) for name in USAGE_COLUMNS if name in names}
        if "total_tokens" in names:
            stated = r.c.input_tokens.is_not(None) | r.c.output_tokens.is_not(None)
            summed = sa.case((stated, sa.null()), else_=messages.c.total_tokens)
            totals["total_tokens"] = sa.func.coalesce(cells["total_tokens"], summed)
    if names & set(CALLS):
        calls = _of_calls(tables, only, names)
        query = query.outerjoin(calls, calls.c.run_id == r.c.run_id)
        totals |= {name: sa.func.coalesce(calls.c[name], 0) for name in CALLS if name in names}
    query = query.add_columns(*_labelled(totals, names))
    return (query if only is None else query.where(only(r))).subquery()


def _total_tokens(row: Any) -> Expression:
    both = sa.func.coalesce(row.input_tokens, 0) + sa.func.coalesce(row.output_tokens, 0)
    known = row.input_tokens.is_not(None) | row.output_tokens.is_not(None)
    return sa.func.coalesce(row.total_tokens, sa.case((known, both)))


def sessions(
    tables: Tables, only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a session."""
    s, names = tables.sessions, _wanted("sessions", wanted)
    computed = {
        "session_name": json_text(s.c.session_data, "session_name"),
        "created_at": as_micros(s.c.created_at, MICROS_PER_SECOND),
        "updated_at": as_micros(s.c.updated_at, MICROS_PER_SECOND),
    }
    sums = latest = None
    if names & {"n_runs", "duration_s", *COUNTS, *USAGE_COLUMNS}:
        sums = _session_sums(tables, only, names)
        computed |= {n: sa.func.coalesce(sums.c[n], 0) for n in ("n_runs", *COUNTS) if n in names}
        computed |= {n: sums.c[n] for n in ("input_tokens", "output_tokens", "total_tokens") if n in names}
        if "cost" in names:
            computed["cost"] = _money(sums.c)
        if "duration_s" in names:
            computed["duration_s"] = sa.func.coalesce(valid_or_null(s.c.duration_s), sums.c.duration_s)
    if "status" in names:
        statuses = latest_runs(tables)
        latest = (statuses if only is None else statuses.where(only(tables.runs))).subquery()
        computed["status"] = latest.c.status
    query = _select("sessions", s, computed, masks, wanted)
    for part in (sums, latest):
        if part is not None:
            query = query.outerjoin(part, part.c.session_id == s.c.session_id)
    return query


def session_total(tables: Tables, name: str, only: RowFilter | None = None) -> tuple[sa.Subquery, Expression]:
    """One total per session: a table by ``session_id``, and what it is, as in `sessions`."""
    sums = _session_sums(tables, only, _wanted("sessions", (name,)))
    return sums, _money(sums.c) if name == "cost" else sums.c[name]


def _session_sums(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per session, what its runs add up to."""
    r = tables.runs
    # What a branch copied before its parent went was spent by the parent.
    own = r.c.copied_from.is_(None)

    def total(column: Expression) -> Expression:
        return sa.func.sum(sa.case((own, column)))

    totals: dict[str, Expression] = {"n_runs": sa.func.count()}
    # A member's run is within the time of the run that it serves.
    totals["duration_s"] = total(sa.case((r.c.parent_run_id.is_(None), valid_or_null(r.c.duration_s))))
    query = sa.select(r.c.session_id).select_from(r)
    if names & {*COUNTS, *USAGE_COLUMNS}:
        run = _run_totals(tables, only, names)
        query = query.join(run, run.c.run_id == r.c.run_id)
        totals |= {n: _whole(sa.func.sum(run.c[n])) for n in COUNTS if n in names}
        totals |= {n: _whole(total(run.c[n])) for n in _THEIR_PARTS if n in names}
        if "total_tokens" in names:
            totals["total_tokens"] = _whole(total(_total_tokens(run.c)))
        if "cost" in names:
            totals["cost"] = total(_money(run.c))
    query = query.add_columns(*_labelled(totals, names)).group_by(r.c.session_id)
    return (query if only is None else query.where(only(r))).subquery()


def runs(
    tables: Tables, only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a run."""
    r, names = tables.runs, _wanted("runs", wanted)
    totals = names & {*COUNTS, *USAGE_COLUMNS}
    if not totals:
        return _select("runs", r, {}, masks, wanted)
    run = _run_totals(tables, only, names)
    computed: dict[str, Expression] = {name: _whole(run.c[name]) for name in totals - set(_MONEY_AND_SUMS)}
    if "total_tokens" in names:
        computed["total_tokens"] = _whole(_total_tokens(run.c))
    if "cost" in names:
        computed["cost"] = _money(run.c)
    return _select("runs", r, computed, masks, wanted).join(run, run.c.run_id == r.c.run_id)


def messages(
    tables: Tables, _only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a message."""
    return _select("messages", tables.messages, {"cost": _money(ValidColumns(tables.messages))}, masks, wanted)


def tool_calls(
    tables: Tables, _only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a tool call."""
    t = tables.tool_calls
    failed = sa.case((t.c.status == "failed", sa.true()), (t.c.status == "completed", sa.false()))
    return _select("tool_calls", t, {"is_error": failed}, masks, wanted)


def scores(
    tables: Tables, _only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a score."""
    return _select("scores", tables.scores, {}, masks, wanted)


def requirements(
    tables: Tables, _only: RowFilter | None = None, masks: Masks = NO_MASKS, wanted: ColumnNames = None
) -> sa.Select[Any]:
    """One row a requirement."""
    return _select("requirements", tables.requirements, {}, masks, wanted)


VIEWS: dict[str, Callable[..., sa.Select[Any]]] = {
    "sessions": sessions,
    "runs": runs,
    "messages": messages,
    "tool_calls": tool_calls,
    "scores": scores,
    "requirements": requirements,
}


def _select(
    view: str, table: sa.Table, computed: dict[str, Expression], masks: Masks, wanted: ColumnNames
) -> sa.Select[Any]:
    columns = [column for column in FRAMES[view] if wanted is None or column.name in wanted]
    chosen = []
    for column in columns:
        value = computed.get(column.name)
        if value is None:
            own = table.c[column.name]
            value = as_micros(own) if column.kind == "time" else valid_or_null(own)
        value = _stored(value)
        if column.name in masks:
            hidden, instead = masks[column.name]
            value = sa.case((hidden, instead), else_=value)
        chosen.append(value.label(column.name))
    return sa.select(*chosen).select_from(table)


def _stored(expression: Expression) -> Expression:
    """The expression as it is stored: frames decode whole columns, not values."""
    plain = _PLAIN.get(type(expression.type))
    return expression if plain is None else sa.type_coerce(expression, plain())
