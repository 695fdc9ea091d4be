"""The six views: SELECTs over the tables with the columns of `columns`, in order.

The frames execute them with all columns or the requested ones; `sql()` offers them by name. This is the only definition
of totals: they are computed from rows, never from counters, and only if requested. Times stay unix microseconds;
`user_sql` converts them to the engine's type.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from kern_nb.db.column_types import ValidatedType
from kern_nb.db.columns import FRAMES
from kern_nb.db.schema import MAX_TOKENS, USAGE_COLUMNS, Tables
from kern_nb.db.sql_expressions import Expression, json_text, valid_or_null
from kern_nb.records import YEARS

VIEWS = tuple(FRAMES)
"""The names of the views."""

Condition = sa.ColumnElement[bool]
Query = sa.Select[Any]
RowFilter = Callable[[sa.Table], Condition]
"""A condition on the rows of any table that has a ``session_id``."""

Masks = Mapping[str, tuple[Condition, Expression]]
"""By name of a column that is hidden in some rows: the condition of these rows, and the value to return instead."""
NO_MASKS: Masks = {}

_Computed = tuple[dict[str, Expression], sa.FromClause]
"""The computed columns of a view by name, and its table joined with their totals."""

ColumnNames = Collection[str] | None
"""The requested columns of a view; None means all."""

MICROS_PER_SECOND = 1_000_000

CALLS = ("n_tool_calls", "n_tool_errors")
COUNTS = ("n_messages", *CALLS)
_IN_OUT = ("input_tokens", "output_tokens")
_FROM_IN_OUT = ("cost", "total_tokens")  # computed from input and output tokens, too
_COST_SOURCE, ESTIMATED = "cost_source", "estimated"


def _valid_usage(table: sa.Table) -> dict[str, Expression]:
    # Older stores may have larger counts, whose sum would not fit in 64 bits.
    limit = sa.literal_column(str(MAX_TOKENS), sa.BigInteger)
    counts = {name: sa.type_coerce(table.c[name], sa.BigInteger) for name in USAGE_COLUMNS if name != "cost"}
    usage: dict[str, Expression] = {
        name: sa.case((count.between(-limit, limit), valid_or_null(table.c[name]))) for name, count in counts.items()
    }
    return usage | {"cost": valid_or_null(table.c.cost)}


def as_micros(time: sa.Column[Any], unit: int = 1) -> Expression:
    """Convert a stored time to unix microseconds; NULL outside the years 1 to 9999, the limits of the frames."""
    bounds = YEARS[0] * MICROS_PER_SECOND, (YEARS[1] + 1) * MICROS_PER_SECOND - 1  # the last second to its end
    first, last = (sa.literal_column(str(bound // unit), sa.BigInteger) for bound in bounds)
    value = valid_or_null(time)
    return sa.case((value.between(first, last), value if unit == 1 else value * unit))


def latest_runs(tables: Tables) -> Query:
    """Select the status of each session's latest run, without members' runs."""
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


def _cost(row: Any) -> Expression:
    """The cost; 0 with tokens is unknown, hence NULL."""
    return sa.case(((row["cost"] == 0) & (_in_and_out(row) > 0), sa.null()), else_=row["cost"])


def _cost_source(row: Any, cost: Expression, is_estimated: Expression) -> Expression:
    """How a cost is known: stated, estimated, or unknown though tokens were used."""
    has_tokens = row["input_tokens"].is_not(None) | row["output_tokens"].is_not(None)
    source = sa.case((is_estimated, sa.literal_column(f"'{ESTIMATED}'")), else_=sa.literal_column("'stated'"))
    return sa.case((cost.is_not(None), source), (has_tokens, sa.literal_column("'unknown'")))


def _in_and_out(row: Any) -> Expression:
    return sa.func.coalesce(row["input_tokens"], 0) + sa.func.coalesce(row["output_tokens"], 0)


def _total_tokens(row: Any) -> Expression:
    stated = row["input_tokens"].is_not(None) | row["output_tokens"].is_not(None)
    return sa.func.coalesce(row["total_tokens"], sa.case((stated, _in_and_out(row))))


def _to_bigint(total: Expression) -> Expression:
    """Cast a sum, which some engines return in a wider type; NULL stays NULL."""
    return sa.cast(total, sa.BigInteger)


def _required_columns(view: str, requested: ColumnNames) -> set[str]:
    """The names of the requested columns and of those they are computed from."""
    names = {column.name for column in FRAMES[view]}
    names &= names if requested is None else set(requested)
    if _COST_SOURCE in names:
        names.add("cost")
    return names | set(_IN_OUT) if names & set(_FROM_IN_OUT) else names


def is_history_copy(messages: Any) -> Condition:
    """Whether a message is a copy of one from an earlier run, where it is counted."""
    return sa.and_(messages.from_history.is_not(None), messages.from_history)


def _message_totals(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run: the number of messages, and the usage of the agent's messages."""
    m = tables.messages
    by_agent, usage = m.c.role != "user", _valid_usage(m)
    usage["cost"] = _cost(usage)
    totals: dict[str, Expression] = {"n_messages": sa.func.sum(sa.case((is_history_copy(m.c), 0), else_=1))}
    totals |= {name: sa.func.sum(sa.case((by_agent, column))) for name, column in usage.items()}
    is_estimated = by_agent & usage["cost"].is_not(None) & (m.c.cost_source == ESTIMATED)
    totals[_COST_SOURCE] = sa.func.max(sa.case((is_estimated, 1), else_=0))
    return _filter(sa.select(m.c.run_id, *_label(totals, names)).group_by(m.c.run_id), m, only).subquery()


def _call_totals(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run: the number of the agent's tool calls, and of those that failed."""
    t = tables.tool_calls
    by_agent = t.c.caller != "user"
    totals = {
        "n_tool_calls": sa.func.sum(sa.case((by_agent, 1), else_=0)),
        "n_tool_errors": sa.func.sum(sa.case((by_agent & (t.c.status == "failed"), 1), else_=0)),
    }
    return _filter(sa.select(t.c.run_id, *_label(totals, names)).group_by(t.c.run_id), t, only).subquery()


def _filter(query: Query, table: sa.Table, only: RowFilter | None) -> Query:
    return query if only is None else query.where(only(table))


def _label(totals: Mapping[str, Expression], names: set[str]) -> list[sa.Label[Any]]:
    return [total.label(name) for name, total in totals.items() if name in names]


def _run_totals(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    """Per run: the totals of its messages and tool calls. A table is read only if one of its totals is requested."""
    r = tables.runs
    query, totals = sa.select(r.c.run_id).select_from(r), {}
    if names & {"n_messages", *USAGE_COLUMNS}:
        messages = _message_totals(tables, only, names)
        query = query.outerjoin(messages, messages.c.run_id == r.c.run_id)
        if "n_messages" in names:
            totals["n_messages"] = _to_bigint(sa.func.coalesce(messages.c.n_messages, 0))
        # The usage that the source states for the run takes precedence over the sum of its messages.
        usage = _valid_usage(r)
        totals |= {name: sa.func.coalesce(usage[name], messages.c[name]) for name in USAGE_COLUMNS if name in names}
        if "total_tokens" in names:
            stated = r.c.input_tokens.is_not(None) | r.c.output_tokens.is_not(None)
            summed = sa.case((stated, sa.null()), else_=messages.c.total_tokens)
            totals["total_tokens"] = sa.func.coalesce(usage["total_tokens"], summed)
        if _COST_SOURCE in names:
            own = sa.case((r.c.cost_source == ESTIMATED, 1), else_=0)
            totals[_COST_SOURCE] = sa.case((usage["cost"].is_not(None), own), else_=messages.c[_COST_SOURCE])
    if names & set(CALLS):
        calls = _call_totals(tables, only, names)
        query = query.outerjoin(calls, calls.c.run_id == r.c.run_id)
        totals |= {name: sa.func.coalesce(calls.c[name], 0) for name in CALLS if name in names}
    return _filter(query.add_columns(*_label(totals, names)), r, only).subquery()


def _sessions(tables: Tables, only: RowFilter | None, names: set[str]) -> _Computed:
    s = tables.sessions
    columns: dict[str, Expression] = {
        "session_name": json_text(s.c.session_data, "session_name"),
        "created_at": as_micros(s.c.created_at, MICROS_PER_SECOND),
        "updated_at": as_micros(s.c.updated_at, MICROS_PER_SECOND),
    }
    source: sa.FromClause = s
    if names & {"n_runs", "duration_s", *COUNTS, *USAGE_COLUMNS}:
        sums = _session_sums(tables, only, names)
        source = source.outerjoin(sums, sums.c.session_id == s.c.session_id)
        columns |= {n: sa.func.coalesce(sums.c[n], 0) for n in ("n_runs", *COUNTS) if n in names}
        columns |= {n: sums.c[n] for n in ("input_tokens", "output_tokens", "total_tokens") if n in names}
        if "cost" in names:
            columns["cost"] = _cost(sums.c)
        if _COST_SOURCE in names:
            columns[_COST_SOURCE] = _cost_source(sums.c, columns["cost"], sums.c[_COST_SOURCE] == 1)
        if "duration_s" in names:
            columns["duration_s"] = sa.func.coalesce(valid_or_null(s.c.duration_s), sums.c.duration_s)
    if "status" in names:
        latest = _filter(latest_runs(tables), tables.runs, only).subquery()
        source = source.outerjoin(latest, latest.c.session_id == s.c.session_id)
        columns["status"] = latest.c.status
    return columns, source


def session_total(tables: Tables, name: str, only: RowFilter | None = None) -> tuple[sa.Subquery, Expression]:
    """One total of the sessions view: a subquery by ``session_id`` and the expression of the total."""
    sums = _session_sums(tables, only, _required_columns("sessions", (name,)))
    return sums, _cost(sums.c) if name == "cost" else sums.c[name]


def _session_sums(tables: Tables, only: RowFilter | None, names: set[str]) -> sa.Subquery:
    r = tables.runs
    own = r.c.copied_from.is_(None)  # the usage of a copied run belongs to the original

    def total(column: Expression) -> Expression:
        return sa.func.sum(sa.case((own, column)))

    totals: dict[str, Expression] = {"n_runs": sa.func.count()}
    # The time of a member's run is part of its parent run's.
    totals["duration_s"] = total(sa.case((r.c.parent_run_id.is_(None), valid_or_null(r.c.duration_s))))
    query = sa.select(r.c.session_id).select_from(r)
    if names & {*COUNTS, *USAGE_COLUMNS}:
        run = _run_totals(tables, only, names)
        query = query.join(run, run.c.run_id == r.c.run_id)
        totals |= {n: _to_bigint(sa.func.sum(run.c[n])) for n in COUNTS if n in names}
        totals |= {n: _to_bigint(total(run.c[n])) for n in _IN_OUT if n in names}
        if "total_tokens" in names:
            totals["total_tokens"] = _to_bigint(total(_total_tokens(run.c)))
        if "cost" in names:
            totals["cost"] = total(_cost(run.c))
        if _COST_SOURCE in names:
            totals[_COST_SOURCE] = sa.func.max(sa.case((own, run.c[_COST_SOURCE])))
    return _filter(query.add_columns(*_label(totals, names)).group_by(r.c.session_id), r, only).subquery()


def _runs(tables: Tables, only: RowFilter | None, names: set[str]) -> _Computed:
    r, totals = tables.runs, names & {*COUNTS, *USAGE_COLUMNS}
    if not totals:
        return {}, r
    run = _run_totals(tables, only, names)
    columns: dict[str, Expression] = {name: _to_bigint(run.c[name]) for name in totals - set(_FROM_IN_OUT)}
    if "total_tokens" in names:
        columns["total_tokens"] = _to_bigint(_total_tokens(run.c))
    if "cost" in names:
        columns["cost"] = _cost(run.c)
    if _COST_SOURCE in names:
        columns[_COST_SOURCE] = _cost_source(run.c, columns["cost"], run.c[_COST_SOURCE] == 1)
    return columns, r.join(run, run.c.run_id == r.c.run_id)


def view_query(
    view: str, tables: Tables, only: RowFilter | None = None, masks: Masks = NO_MASKS, requested: ColumnNames = None
) -> Query:
    """The SELECT of a view. ``only`` restricts the rows that totals are computed from; None means all."""
    if only is None and not masks:
        return _unfiltered_query(view, tables, None if requested is None else tuple(requested))
    return _build_query(view, tables, only, masks, requested)


@lru_cache(maxsize=64)  # building one takes as long as executing it on a small store
def _unfiltered_query(view: str, tables: Tables, requested: tuple[str, ...] | None) -> Query:
    return _build_query(view, tables, None, NO_MASKS, requested)


def _build_query(view: str, tables: Tables, only: RowFilter | None, masks: Masks, requested: ColumnNames) -> Query:
    table: sa.Table = getattr(tables, view)
    names = _required_columns(view, requested)
    computed: dict[str, Expression] = {}
    source: sa.FromClause = table
    if view == "sessions":
        computed, source = _sessions(tables, only, names)
    elif view == "runs":
        computed, source = _runs(tables, only, names)
    elif view == "messages":
        usage = _valid_usage(table)
        computed["cost"] = _cost(usage)
        computed[_COST_SOURCE] = _cost_source(usage, computed["cost"], table.c.cost_source == ESTIMATED)
    elif view == "tool_calls":
        status = table.c.status
        computed["is_error"] = sa.case((status == "failed", sa.true()), (status == "completed", sa.false()))
    selected = []
    for column in FRAMES[view]:
        if requested is not None and column.name not in requested:
            continue
        value = computed.get(column.name)
        if value is None:
            own = table.c[column.name]
            value = as_micros(own) if column.kind == "time" else valid_or_null(own)
        if isinstance(value.type, ValidatedType):  # frames decode whole columns, not values
            value = sa.type_coerce(value, value.type.impl_instance)
        if column.name in masks:
            hidden, replacement = masks[column.name]
            value = sa.case((hidden, replacement), else_=value)
        selected.append(value.label(column.name))
    return sa.select(*selected).select_from(source)
