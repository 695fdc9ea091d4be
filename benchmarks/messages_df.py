"""`messages_df()` of 400,000 messages in DuckDB: over DuckDB's own `.df()`, and beside Agno's sessions in a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks import peers
from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.places import folder
from benchmarks.samples import fill, turns
from kern_nb.db import DuckDb
from kern_nb.db.columns import MESSAGES

if TYPE_CHECKING:
    from agno.db.sqlite import SqliteDb

BAR_RAW = 1.5
BAR_PEER = 10


def run(*, quick: bool) -> Iterator[Result]:
    """Ten runs a session, four messages a run. Agno's store is smaller; the time is compared per message."""
    sessions, agno_sessions, repeats = (500, 20, 3) if quick else (10_000, 200, 5)
    columns = ", ".join(column.name for column in MESSAGES)
    with folder() as path:
        store = DuckDb(path / "ours.duckdb")
        fill(store, sessions, runs=10, messages=4)
        agno = _agno(path, agno_sessions)

        def raw(order: str = "") -> pd.DataFrame:
            with store.connect() as connection:
                driver: Any = connection.connection.driver_connection
                table = store.tables.messages.name
                frame: pd.DataFrame = driver.execute(f"SELECT {columns} FROM {table} {order}").df()
                return frame

        works = (
            store.messages_df,
            raw,
            lambda: raw("ORDER BY session_id, run_index, message_index"),
            lambda: _agno_frame(agno),
        )
        ours, plain, ordered, agnos = map(median, side_by_side(repeats, *works))
        n_ours, n_agno = len(store.messages_df()), len(_agno_frame(agno))
        store.close()
    name = f"messages_df() of {n_ours:,} messages over SELECT … .df(), DuckDB"
    yield Result(name, ours / plain, "x", BAR_RAW, note=f"{ms(ours)} over {ms(plain)}")
    note = f"{ms(ours)} over {ms(ordered)}"
    yield Result("the same over SELECT … ORDER BY … .df(), in the order that messages_df() has", ours / ordered, "x", note=note)
    per_ours, per_agno = ours / n_ours, agnos / n_agno
    note = f"{per_ours * 1e6:.3g} µs a message against {per_agno * 1e6:.3g} µs ({n_agno:,} messages)"
    name = f"messages to a DataFrame: {peers.AGNO} get_sessions over ours, per message"
    yield Result(name, per_agno / per_ours, "x", BAR_PEER, True, note)


def _agno(path: Any, sessions: int) -> SqliteDb:
    """Agno's store with sessions of ten runs, written as its agent does."""
    store = peers.agno_store(path / "agno.db")
    story = turns()
    for n in range(sessions):
        for turn in islice(story, 10):
            peers.agno_append(store, peers.agno_run(turn, f"session {n}"))
    return store


def _agno_frame(store: SqliteDb) -> pd.DataFrame:
    """One row a message, of the columns that Agno's records have; its dicts, which spare it the making of objects."""
    from agno.db.base import SessionType

    sessions, _ = store.get_sessions(session_type=SessionType.AGENT, deserialize=False)
    rows = [
        {
            "session_id": session["session_id"],
            "run_id": run["run_id"],
            "run_index": i,
            "message_index": j,
            "message_id": message.get("id"),
            "role": message["role"],
            "content": message.get("content"),
            "tool_call_id": message.get("tool_call_id"),
            "tool_name": message.get("tool_name"),
            "model": run.get("model"),
            "input_tokens": message.get("metrics", {}).get("input_tokens"),
            "output_tokens": message.get("metrics", {}).get("output_tokens"),
            "cost": message.get("metrics", {}).get("cost"),
            "created_at": message["created_at"],
        }
        for session in sessions
        for i, run in enumerate(session["runs"])
        for j, message in enumerate(run["messages"])
    ]
    return pd.DataFrame(rows)
