"""The six views, each a SELECT over the tables whose columns are those of `columns`, in order.

The frames run them as they are; `sql()` offers them by name. Totals are computed here, from rows: nothing keeps a
counter. Times stay unix microseconds; `query` turns them into the engine's own for people's SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from kern_nb.db.columns import FRAMES
from kern_nb.db.schema import USAGE, Tables, Text

Expression = sa.ColumnElement[Any]
Condition = sa.ColumnElement[bool]
Only = Callable[[sa.Table], Condition]
"""A condition on the rows of any table that has a ``session_id``."""

Masks = Mapping[str, tuple[Condition, Expression]]
"""For columns that are not to be seen in some rows: in which, and what stands there instead."""
NO_MASKS: Masks = {}

SECONDS = 1_000_000

FROM_HISTORY = "from_history"
"""Set in a message's ``extra`` where a run keeps a copy of what it was told of earlier runs."""


class json_text(sa.sql.expression.FunctionElement[str]):  # noqa: N801 - used like a function
    """The text at a key of a JSON column."""

    inherit_cache = True
    name = "json_text"
    type = Text()

    def __init__(self, column: Expression, key: str) -> None:
        super().__init__(sa.type_coerce(column, sa.Text), sa.literal(key, sa.Text))


@compiles(json_text)
def _json_text(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(CAST({column} AS JSON) ->> {key})"


@compiles(json_text, "sqlite")
def _json_text_sqlite(element: json_text, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} ->> {key})"


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


def _run_totals(tables: Tables, only: Only | None) -> sa.Subquery:
    """Per run, what its rows add up to: messages, the agent's tool calls, and the usage on the agent's messages."""
    m, t = tables.messages, tables.tool_calls
    agents = m.c.role != "user"
    spent = {name: m.c[name] for name in USAGE} | {"cost": _money(m.c)}
    sums = [sa.func.sum(sa.case((agents, column))).label(name) for name, column in spent.items()]
    copied = sa.type_coerce(m.c.extra, sa.Text()).contains(f'"{FROM_HISTORY}"')  # told again, counted where it was said
    count = sa.func.sum(sa.case((m.c.extra.is_not(None) & copied, 0), else_=1)).label("n_messages")
    of_messages = sa.select(m.c.run_id, count, *sums).group_by(m.c.run_id)
    agent_calls = t.c.caller != "user"
    of_calls = sa.select(
        t.c.run_id,
        sa.func.sum(sa.case((agent_calls, 1), else_=0)).label("n_tool_calls"),
        sa.func.sum(sa.case((agent_calls & (t.c.status == "failed"), 1), else_=0)).label("n_tool_errors"),
    ).group_by(t.c.run_id)
    if only is not None:
        of_messages, of_calls = of_messages.where(only(m)), of_calls.where(only(t))
    messages, calls = of_messages.subquery(), of_calls.subquery()
    r = tables.runs
    # What is stated for the run goes before what its messages add up to.
    usage = {name: sa.func.coalesce(r.c[name], messages.c[name]) for name in USAGE}
    stated = r.c.input_tokens.is_not(None) | r.c.output_tokens.is_not(None)
    usage["total_tokens"] = sa.func.coalesce(
        r.c.total_tokens, sa.case((stated, sa.null()), else_=messages.c.total_tokens)
    )
    query = (
        sa.select(
            r.c.run_id,
            _whole(sa.func.coalesce(messages.c.n_messages, 0)).label("n_messages"),
            sa.func.coalesce(calls.c.n_tool_calls, 0).label("n_tool_calls"),
            sa.func.coalesce(calls.c.n_tool_errors, 0).label("n_tool_errors"),
            *(column.label(name) for name, column in usage.items()),
        )
        .select_from(r)
        .outerjoin(messages, messages.c.run_id == r.c.run_id)
        .outerjoin(calls, calls.c.run_id == r.c.run_id)
    )
    return (query if only is None else query.where(only(r))).subquery()


def _total_tokens(row: Any) -> Expression:
    both = sa.func.coalesce(row.input_tokens, 0) + sa.func.coalesce(row.output_tokens, 0)
    known = row.input_tokens.is_not(None) | row.output_tokens.is_not(None)
    return sa.func.coalesce(row.total_tokens, sa.case((known, both)))


def sessions(tables: Tables, only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a session."""
    s, r = tables.sessions, tables.runs
    run = _run_totals(tables, only)
    # What a branch copied before its parent went was spent by the parent.
    own = r.c.copied_from.is_(None)

    def total(column: Expression) -> Expression:
        return sa.func.sum(sa.case((own, column)))

    names = ("n_messages", "n_tool_calls", "n_tool_errors")
    sums = (
        sa.select(
            r.c.session_id,
            sa.func.count().label("n_runs"),
            *(_whole(sa.func.sum(run.c[name])).label(name) for name in names),
            *(_whole(total(run.c[name])).label(name) for name in ("input_tokens", "output_tokens")),
            _whole(total(_total_tokens(run.c))).label("total_tokens"),
            total(_money(run.c)).label("cost"),
            total(r.c.duration_s).label("duration_s"),
        )
        .select_from(r)
        .join(run, run.c.run_id == r.c.run_id)
        .group_by(r.c.session_id)
    )
    latest = latest_runs(tables)
    if only is not None:
        sums, latest = sums.where(only(r)), latest.where(only(r))
    t, last = sums.subquery(), latest.subquery()
    computed = {
        "session_name": json_text(s.c.session_data, "session_name"),
        **{name: sa.func.coalesce(t.c[name], 0) for name in ("n_runs", *names)},
        **{name: t.c[name] for name in ("input_tokens", "output_tokens", "total_tokens")},
        "cost": _money(t.c),
        "duration_s": sa.func.coalesce(s.c.duration_s, t.c.duration_s),
        "status": last.c.status,
        "created_at": s.c.created_at * SECONDS,
        "updated_at": s.c.updated_at * SECONDS,
    }
    return (
        _select("sessions", s, computed, masks)
        .outerjoin(t, t.c.session_id == s.c.session_id)
        .outerjoin(last, last.c.session_id == s.c.session_id)
    )


def runs(tables: Tables, only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a run."""
    r, run = tables.runs, _run_totals(tables, only)
    counts = ("n_messages", "n_tool_calls", "n_tool_errors", *USAGE[:-2])
    computed: dict[str, Expression] = {name: _whole(run.c[name]) for name in counts}
    computed |= {"total_tokens": _whole(_total_tokens(run.c)), "cost": _money(run.c)}
    return _select("runs", r, computed, masks).join(run, run.c.run_id == r.c.run_id)


def messages(tables: Tables, _only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a message."""
    return _select("messages", tables.messages, {"cost": _money(tables.messages.c)}, masks)


def tool_calls(tables: Tables, _only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a tool call."""
    t = tables.tool_calls
    failed = sa.case((t.c.status == "failed", sa.true()), (t.c.status == "completed", sa.false()))
    return _select("tool_calls", t, {"is_error": failed}, masks)


def scores(tables: Tables, _only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a score."""
    return _select("scores", tables.scores, {}, masks)


def requirements(tables: Tables, _only: Only | None = None, masks: Masks = NO_MASKS) -> sa.Select[Any]:
    """One row a requirement."""
    return _select("requirements", tables.requirements, {}, masks)


VIEWS: dict[str, Callable[..., sa.Select[Any]]] = {
    "sessions": sessions,
    "runs": runs,
    "messages": messages,
    "tool_calls": tool_calls,
    "scores": scores,
    "requirements": requirements,
}


def _select(view: str, table: sa.Table, computed: dict[str, Expression], masks: Masks) -> sa.Select[Any]:
    known = {c.name: c for c in table.columns} | computed
    known |= {name: sa.case((hidden, value), else_=_stored(known[name])) for name, (hidden, value) in masks.items()}
    chosen = [(column.name, _stored(known[column.name])) for column in FRAMES[view]]
    return sa.select(*(expression.label(name) for name, expression in chosen)).select_from(table)


def _stored(expression: Expression) -> Expression:
    """The expression as it is stored: frames decode whole columns, not values."""
    return sa.type_coerce(expression, sa.Text()) if isinstance(expression.type, sa.types.TypeDecorator) else expression
