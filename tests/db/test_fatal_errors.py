"""After an internal error DuckDB refuses all work on a connection; the store reopens the file."""

from __future__ import annotations

import threading

import pytest

from kern_nb.db import DuckDb, lease
from kern_nb.errors import StoreUnavailable
from kern_nb.records import Run


@pytest.fixture(autouse=True)
def failing_checkpoints(monkeypatch):
    """Make DuckDB fail in the middle of each checkpoint; settings are locked once a file is open."""
    monkeypatch.setitem(lease.CONFIG, "debug_checkpoint_abort", "before_header")


def checkpoint_change(store):
    """Checkpoint a change."""
    store.append_run("other", Run(run_id="change"))
    with store.connect() as connection:
        connection.exec_driver_sql("FORCE CHECKPOINT")


def test_store_works_again_after_a_fatal_error(tmp_path):
    """The failing call raises StoreUnavailable; acknowledged writes are stored, and new writes succeed."""
    with DuckDb(tmp_path / "s.duckdb") as store:
        store.append_run("chat", Run(run_id="before"))
        with pytest.raises(StoreUnavailable, match="internal error") as caught:
            checkpoint_change(store)
        assert "reopened" in caught.value.hint
        store.append_run("chat", Run(run_id="after"))
        assert set(store.runs_df().run_id) == {"before", "change", "after"}
        assert store.check()


def test_other_threads_get_store_unavailable(tmp_path):
    """A thread that uses the connection at that time gets the error too; the store works afterwards."""
    with DuckDb(tmp_path / "s.duckdb", timeout=20) as store:
        store.append_run("chat", Run(run_id="before"))
        reading, broken = threading.Event(), threading.Event()
        errors = []

        def read() -> None:
            try:
                with store.connect() as connection:
                    connection.exec_driver_sql("SELECT 1")
                    reading.set()
                    broken.wait(60)
                    connection.exec_driver_sql("SELECT count(*) FROM agno_sessions")
            except Exception as error:  # noqa: BLE001 - checked below
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        reading.wait(60)
        with pytest.raises(StoreUnavailable):
            checkpoint_change(store)
        broken.set()
        thread.join(60)

        assert all(isinstance(error, StoreUnavailable) for error in errors)
        assert store.runs_df().run_id.tolist() == ["before", "change"]
