"""A read-only store refuses every write and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from samples import a_run, a_session, all_rows
from test_schema_guard import READS, WRITES

from kern_nb.db import open_store
from kern_nb.errors import ReadOnlyStore, StoreNotFound


@pytest.fixture
def target(persistent_target):
    """A store with a session ``s``, closed."""
    with open_store(persistent_target) as store:
        a_session(store, "s")
        store.add_score("s", "reward", 1.0)
    return persistent_target


def test_every_write_is_refused(target, tmp_path):
    """By the store itself, with a hint, before the database is used; nothing is written."""
    with open_store(target) as writer:
        before = all_rows(writer)
    with open_store(target, read_only=True) as store:
        for name, write in WRITES.items():
            with pytest.raises(ReadOnlyStore) as caught:
                write(store)
            assert "read-only" in str(caught.value), name
            assert caught.value.hint
        with pytest.raises(ReadOnlyStore):
            store.write(lambda connection: None)
        (tmp_path / "runs.jsonl").write_text("{}\n")
    with open_store(target) as writer:
        assert all_rows(writer) == before


def test_everything_can_be_read(target):
    """Frames, records and SQL are the same as those of a writable store."""
    with open_store(target) as writer, open_store(target, read_only=True) as store:
        expected = {name: read(writer) for name, read in READS.items() if name != "check"}
        writer.close()
        for name, want in expected.items():
            found = READS[name](store)
            if isinstance(want, pd.DataFrame):
                pd.testing.assert_frame_equal(found, want)
            else:
                assert found == want, name
        assert len(store.history("s")) == 12
        assert "read-only" in repr(store)


def test_sql_of_a_read_only_store_cannot_write(target):
    """In none of the ways that SQL offers."""
    with open_store(target, read_only=True) as store, pytest.raises(PermissionError):
        store.sql("DELETE FROM agno_sessions")


def test_a_read_only_file_must_exist(tmp_path):
    """A missing file is not created."""
    for name in ("s.duckdb", "s.db"):
        with pytest.raises(StoreNotFound, match=name):
            open_store(tmp_path / name, read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_write_protected_file_can_be_read(tmp_path):
    """A shared, protected file is read like any other."""
    for name in ("s.duckdb", "s.db"):
        path = Path(tmp_path / name)
        with open_store(path) as store:
            a_session(store, "s", runs=1)
        path.chmod(0o444)
        with open_store(path, read_only=True) as store:
            assert len(store.messages_df()) == 4


def test_a_read_only_store_sees_new_rows(target):
    """In the same process and while both are open."""
    with open_store(target, read_only=True) as reader, open_store(target) as writer:
        assert len(reader.runs_df()) == 3
        writer.append_run("s", a_run())
        assert len(reader.runs_df()) == 4
        writer.append_run("s", a_run())
        assert len(reader.get_session("s").runs) == 5
