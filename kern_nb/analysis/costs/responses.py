"""What the agents' models used: a row for each model response, or for each run whose source states its usage only."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from kern_nb.batches import batched
from kern_nb.db.columns import Column
from kern_nb.db.dtypes import to_pandas
from kern_nb.db.views import ESTIMATED, as_micros, is_history_copy

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

COLUMNS = (
    Column("session_id", "text", "The session."),
    Column("run_id", "text", "The run."),
    Column("message_index", "count", "The message; missing if the usage is that of the whole run."),
    Column("model", "text", "The model."),
    Column("model_provider", "text", "The provider of the model."),
    Column("created_at", "time", "The time of the response."),
    Column("input_tokens", "count", "Input tokens, with cached ones."),
    Column("output_tokens", "count", "Output tokens."),
    Column("cache_read_tokens", "count", "Input tokens read from the cache."),
    Column("cache_write_tokens", "count", "Input tokens written to the cache."),
    Column("cost", "number", "The cost; missing if it is unknown."),
    Column("cost_source", "text", "estimated, or missing."),
)
_USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost", "cost_source")
_ROWS_PER_UPDATE = 1_000


def read_responses(store: SessionStore) -> pd.DataFrame:
    """Read the usage of all sessions, each once: without inherited and copied messages, and without simulated users."""
    m, r = store.tables.messages, store.tables.runs
    is_stated_for_run = sa.or_(*(r.c[name].is_not(None) for name in ("input_tokens", "output_tokens", "cost")))
    is_original = r.c.copied_from.is_(None)
    time = sa.func.coalesce(as_micros(m.c.created_at), as_micros(r.c.created_at))
    by_message = (
        sa.select(
            r.c.session_id, r.c.run_id, m.c.message_index, sa.func.coalesce(m.c.model, r.c.model).label("model"),
            r.c.model_provider, time.label("created_at"),
            *(m.c[name] for name in _USAGE),
        )
        .join(r, r.c.run_id == m.c.run_id)
        .where(is_original, ~is_stated_for_run, m.c.role != "user")
        .where(sa.not_(sa.func.coalesce(is_history_copy(m.c), sa.false())))
        .where(sa.or_(*(m.c[name].is_not(None) for name in ("input_tokens", "output_tokens", "cost"))))
    )  # fmt: skip
    by_run = sa.select(
        r.c.session_id, r.c.run_id, sa.cast(sa.null(), sa.BigInteger).label("message_index"), r.c.model,
        r.c.model_provider, as_micros(r.c.created_at).label("created_at"), *(r.c[name] for name in _USAGE),
    ).where(is_original, is_stated_for_run)  # fmt: skip
    source = store._source()  # noqa: SLF001 - the frames read it, too
    frames = [to_pandas(pa.table(source.arrow(query)), COLUMNS) for query in (by_message, by_run)]
    responses = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    tokens = responses["input_tokens"].fillna(0) + responses["output_tokens"].fillna(0)
    responses.loc[(responses["cost"] == 0) & (tokens > 0), "cost"] = pd.NA
    return responses


def save_estimates(store: SessionStore, responses: pd.DataFrame, costs: pd.Series[Any]) -> int:
    """Store estimated costs beside the tokens they are estimated from; return how many rows have a new one."""
    is_new = costs.notna() & responses["cost"].isna()
    rows = responses[is_new].assign(cost=costs[is_new])
    for is_run, part in rows.groupby(rows["message_index"].isna()):
        for batch in batched(part.itertuples(index=False), _ROWS_PER_UPDATE):
            store.write(partial(_update, store=store, rows=batch, is_run=bool(is_run)))
    return len(rows)


def _update(connection: sa.Connection, *, store: SessionStore, rows: Iterable[Any], is_run: bool) -> None:
    """Set the cost of messages or runs that have none: another process may have stated one meanwhile."""
    table = store.tables.runs if is_run else store.tables.messages
    keys = ("run_id",) if is_run else ("run_id", "message_index")
    columns = [*(sa.column(f"new_{name}", table.c[name].type) for name in keys), sa.column("new_cost", sa.Float)]
    values = [(*(getattr(row, name) for name in keys), float(row.cost)) for row in rows]
    new = sa.values(*columns, name="new").data(values).cte("new_costs")
    is_same = sa.and_(*(table.c[name] == new.c[f"new_{name}"] for name in keys))
    is_unknown = sa.or_(table.c.cost.is_(None), table.c.cost == 0)
    update = table.update().where(is_same, is_unknown).values(cost=new.c.new_cost, cost_source=ESTIMATED)
    connection.execute(update)
