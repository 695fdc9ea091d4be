"""The sample of the tour is reproducible and can be imported."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture
def make(monkeypatch):
    """The function that makes it."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    from make_sample import make

    return make


def test_the_sample_is_reproducible(make, tmp_path):
    """Two builds give equal bytes, and the store has the content of the files."""
    from kern_nb.db import open_store

    folders = [tmp_path / name for name in ("one", "two")]
    stores = [make(folder) for folder in folders]
    files = sorted(file.name for file in (folders[0] / "sample").iterdir())

    assert files == ["chats.jsonl", "shop_large-1.json", "shop_small-1.json"]
    for name in files:
        assert (folders[0] / "sample" / name).read_bytes() == (folders[1] / "sample" / name).read_bytes()
    with open_store(stores[0]) as store:
        sessions = store.sessions_df()
        assert len(sessions) == 2 * 8 * 2 + 5
        assert store.ingest(folders[0] / "sample").skipped == len(sessions)


def test_the_models_of_the_sample_differ(make, tmp_path):
    """The larger one succeeds more often, costs more and takes longer."""
    from kern_nb.db import open_store

    with open_store(make(tmp_path)) as store:
        frame = store.sql(
            """SELECT metadata->>'model' AS model, avg(value) AS reward, avg(cost) AS cost, avg(duration_s) AS took
            FROM sessions JOIN scores USING (session_id) WHERE name = 'reward' GROUP BY ALL ORDER BY model"""
        )
    large, small = frame.itertuples()

    assert (large.model, small.model) == ("large-1", "small-1")
    assert large.reward > small.reward
    assert large.cost > small.cost
    assert large.took > small.took
