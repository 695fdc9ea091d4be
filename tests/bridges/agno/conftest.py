"""Databases of Agno's: its own SqliteDb, and ours on every engine; see `test_agno_contract`."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest

ENGINES = ("sqlite", "duckdb", "postgres") if "KERN_PEERS" in os.environ else ("sqlite",)


@pytest.fixture(params=["theirs", *ENGINES])
def database(request, tmp_path, record_property):
    agno = pytest.importorskip("agno.db.sqlite", reason="needs agno")
    from kern_nb.bridges.agno import AgnoDb
    from kern_nb.db import DuckDb, PostgresDb, SqliteDb

    record_property("suite", f"agno {version('agno')}: contract of sessions and runs (ours)")
    record_property("store", request.param)
    if request.param == "theirs":
        theirs = agno.SqliteDb(db_file=str(tmp_path / "agno.db"))
        yield theirs
        theirs.close()
        return
    if request.param == "postgres":
        store = PostgresDb(db_url=request.getfixturevalue("postgres_database_url"))
    else:
        engine = DuckDb if request.param == "duckdb" else SqliteDb
        store = engine(tmp_path / "kern.db")
    with store:
        yield AgnoDb(store)
        assert store.check().problems == []
