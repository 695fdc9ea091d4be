"""`messages_df()` of 400,000 messages in DuckDB: over DuckDB's own `.df()`, and beside Agno's sessions in one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks import peers
from benchmarks.measure import Result, median, ms, side_by_side
from benchmarks.samples import fill, sample_runs
from benchmarks.stores import folder
from kern_nb.db import DuckDb
from kern_nb.db.columns import MESSAGES

if TYPE_CHECKING:
    from agno.db.sqlite import SqliteDb

BAR_RAW = 1.5
BAR_PEER = 10


def run(*, quick: bool) -> Iterator[Result]:
    """Ten runs per session, four messages per run. Agno's store is smaller; the time is compared per message."""
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
            lambda: _agno_frame_of_dicts(agno),
        )
        kern, plain, ordered, of_records, of_dicts = map(median, side_by_side(repeats, *works))
        n_kern, n_agno = len(store.messages_df()), len(_agno_frame(agno))
        store.close()
    name = f"messages_df() of {n_kern:,} messages over SELECT … .df(), DuckDB"
    yield Result(name, kern / plain, "x", BAR_RAW, note=f"{ms(kern)} over {ms(plain)}")
    note = f"{ms(kern)} over {ms(ordered)}"
    yield Result("the same over SELECT … ORDER BY … .df(), sorted as messages_df() is", kern / ordered, "x", note=note)
    per_message = kern / n_kern
    for mode, duration, bar in (("", of_records, BAR_PEER), (" (deserialize=False)", of_dicts, None)):
        note = f"{per_message * 1e6:.3g} µs against {duration / n_agno * 1e6:.3g} µs, of {n_agno:,} messages"
        name = f"a message to a DataFrame: {peers.AGNO} get_sessions{mode} over ours"
        yield Result(name, duration / n_agno / per_message, "x", bar, at_least=True, note=note)


def _agno(path: Any, sessions: int) -> SqliteDb:
    """Agno's store with sessions of ten runs, written as its agent does."""
    store = peers.agno_store(path / "agno.db")
    samples = sample_runs()
    for n in range(sessions):
        for sample in islice(samples, 10):
            peers.agno_append(store, peers.agno_run(sample, f"session {n}"))
    return store


def _agno_frame(store: SqliteDb) -> pd.DataFrame:
    """Build one row per message, with the same columns, from Agno's sessions."""
    from agno.db.base import SessionType

    rows = [
        {
            "session_id": session.session_id,
            "run_id": run.run_id,
            "run_index": run_index,
            "message_index": message_index,
            "message_id": message.id,
            "role": message.role,
            "content": message.content,
            "tool_call_id": message.tool_call_id,
            "tool_name": message.tool_name,
            "model": run.model,
            "input_tokens": message.metrics.input_tokens,
            "output_tokens": message.metrics.output_tokens,
            "cost": message.metrics.cost,
            "created_at": message.created_at,
        }
        for session in store.get_sessions(session_type=SessionType.AGENT)
        for run_index, run in enumerate(session.runs)
        for message_index, message in enumerate(run.messages)
    ]
    return pd.DataFrame(rows)


def _agno_frame_of_dicts(store: SqliteDb) -> pd.DataFrame:
    """Build the same from plain dicts, so that Agno does not construct its records."""
    from agno.db.base import SessionType

    sessions, _ = store.get_sessions(session_type=SessionType.AGENT, deserialize=False)
    same = ("role", "content", "tool_call_id", "tool_name", "created_at")
    usage = ("input_tokens", "output_tokens", "cost")
    rows = [
        {
            "session_id": session["session_id"],
            "run_id": run["run_id"],
            "run_index": run_index,
            "message_index": message_index,
            "message_id": message["id"],
            "model": run.get("model"),
            **{name: message.get(name) for name in same},
            **{name: message.get("metrics", {}).get(name) for name in usage},
        }
        for session in sessions
        for run_index, run in enumerate(session["runs"])
        for message_index, message in enumerate(run["messages"])
    ]
    return pd.DataFrame(rows)
