"""An export is a snapshot of the store, whatever is written during the export."""

from __future__ import annotations

import pytest
from samples import a_run, a_session

from kern_nb.db.references import Reference
from kern_nb.operations.export import read


@pytest.mark.parametrize("engine_name", ["sqlite", "postgres"])
def test_an_export_is_one_snapshot(store, store_factory, monkeypatch):
    """Runs are appended and sessions deleted between two parts of it."""
    monkeypatch.setattr(read, "_MAX_SESSIONS", 1)
    for name in ("a", "b", "c"):
        a_session(store, name, runs=2)
    other = store_factory()
    exported = {}
    for part in read.ExportReader(store, [Reference("a"), Reference("b"), Reference("c"), Reference("c", 1)]):
        if not exported:
            other.append_run("b", a_run())
            other.delete_session("c")
        exported.setdefault(part.rows["sessions"][0]["session_id"], []).append(len(part.rows["runs"]))

    assert [exported["a"], exported["b"]] == [[2], [2]]
    assert sorted(count for name, counts in exported.items() if name.startswith("c") for count in counts) == [1, 2]
    assert len(store.runs_df("b")) == 3
    assert store.get_session("c") is None


def test_an_abandoned_export_releases_the_store(store):
    """Its transaction ends on every engine."""
    a_session(store, "a", runs=1)
    parts = iter(read.ExportReader(store, [Reference("a")]))
    next(parts)
    parts.close()
    store.append_run("a", a_run())
    assert len(store.runs_df("a")) == 2
