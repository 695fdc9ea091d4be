"""Connections are closed even if Ctrl-C interrupts their close."""

from __future__ import annotations

import psycopg
import pytest

from kern_nb.db import PostgresDb
from kern_nb.records import Run


def test_postgres_connection_is_closed_at_the_next_use_if_its_close_was_interrupted(postgres_database_url, monkeypatch):
    """Otherwise it holds its locks as long as the traceback of the interrupt exists, which IPython keeps."""
    store = PostgresDb(db_url=postgres_database_url, timeout=5)
    store.append_run("chat", Run(run_id="before"))
    close, interrupts = psycopg.Connection.close, iter([True])

    def interrupted_close(connection):
        if next(interrupts, False):
            raise KeyboardInterrupt
        close(connection)

    def interrupted_execute(*args):
        raise KeyboardInterrupt

    def work(connection):
        connection.execute(store.tables.sessions.update().values(user_id="x"))
        with monkeypatch.context() as patch:
            patch.setattr(connection.dialect, "do_execute", interrupted_execute)
            connection.execute(store.tables.runs.delete())

    monkeypatch.setattr(psycopg.Connection, "close", interrupted_close)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        store.write(work)

    store.append_run("chat", Run(run_id="after"))
    assert list(store.runs_df().run_id) == ["before", "after"]
    assert next(interrupts, None) is None
    assert interrupt.value is not None
    store.close()
