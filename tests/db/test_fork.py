"""A forked child goes on with the stores of its parent."""

from __future__ import annotations

import os
import threading
import time
import warnings

import pytest

from kern_nb.db import DuckDb, forking
from kern_nb.errors import StoreUnavailable
from kern_nb.records import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_child(work):
    """Run work in a forked child; whether it ended well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks go ill together is the point
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child must not fall back into pytest
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_appends_and_nothing_is_lost(store, engine_name):
    """Parent and child write in turn; every run is there."""
    if engine_name == "memory":
        pytest.skip("memory is not shared between processes")
    store.append_run("chat", Run(run_id="before"))

    assert in_child(lambda: store.append_run("chat", Run(run_id="child")))

    store.append_run("chat", Run(run_id="after"))
    assert store.runs_df()["run_id"].tolist() == ["before", "child", "after"]


def test_a_duckdb_file_in_use_at_the_fork_is_refused_to_the_child(tmp_path, monkeypatch):
    """A child that shared the parent's open file would damage it; it is told to be spawned instead."""
    monkeypatch.setattr(forking, "WAIT_S", 0.05)
    store = DuckDb(tmp_path / "s.duckdb")
    store.append_run("chat", Run())
    working = threading.Event()

    def work():
        with store.connect():
            working.set()
            time.sleep(0.5)

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()

    def refused():
        with pytest.raises(StoreUnavailable, match="forked"):
            store.append_run("chat", Run())

    assert in_child(refused)
    thread.join()
    assert store.append_run("chat", Run()).run_index == 1
