"""A store of an older schema version is upgraded in place without loss."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from old_stores import REQUIREMENT_KEY_VERSION, downgrade

from kern_nb.db import PostgresDb, schema_versions
from kern_nb.errors import ReadOnlyStore
from kern_nb.records import Message, Requirement, Run


@pytest.fixture(params=range(1, schema_versions.SCHEMA_VERSION))
def old_version(request):
    """Every older version."""
    return request.param


@pytest.fixture
def old_store(store_factory, old_version):
    """A store of an older version with a pending requirement."""
    store = store_factory("old")
    store.append_run("chat", Run(input="hi", output="hello", messages=[Message(role="user", content="hi")]))
    run = store.start_run("waits", input="hi")
    requirement = Requirement(requirement_id="ask", kind="confirmation", tool_name="send", args={"to": "bob"}, note="n")
    store.pause_run(run.run_id, [requirement])
    downgrade(store, old_version)
    return store


def reopened(store, store_factory, **options):
    """Return the same database in a new store."""
    if store.url.endswith(":memory:"):
        store._found = False
        store.read_only = options.get("read_only", False)
        return store
    store.close()
    return store_factory("old", **options)


def test_old_store_is_upgraded_on_open(old_store, old_version, store_factory):
    """Its sessions remain, its new columns exist, and its version is current."""
    store = reopened(old_store, store_factory)

    assert store.runs_df("chat")["output"].tolist() == ["hello"]
    with store.connect() as connection:
        assert schema_versions.read_version(connection, store.tables) == schema_versions.SCHEMA_VERSION
        for added in (columns for step, columns in schema_versions.MIGRATIONS.items() if step > old_version):
            for table, column in added:
                result = connection.execute(sa.select(getattr(store.tables, table).c[column])).scalars().all()
                assert set(result) <= {None}


def test_upgraded_store_accepts_runs(old_store, store_factory):
    """Runs are appended after the upgrade."""
    store = reopened(old_store, store_factory)

    assert store.append_run("chat", Run(input="more")).run_index == 1


def test_requirement_from_before_the_upgrade_is_resolved_after_it(old_store, store_factory):
    """It is listed, resolved once, and the run resumes."""
    store = reopened(old_store, store_factory)
    (ask,) = store.requirements()

    assert (ask.requirement_id, ask.status, ask.args, ask.note) == ("ask", "pending", {"to": "bob"}, "n")
    assert (ask.approved, ask.claimed_by, ask.expires_at, ask.extra) == (None, None, None, {})
    assert store.claim("ask", by="alice").claimed_by == "alice"
    assert store.resolve("ask", args={"to": "eve"}, by="alice").approved is True
    assert store.claim_run(ask.run_id).requirements[0].answer == {"to": "eve"}


def test_upgraded_store_has_one_requirement_id_in_several_runs(old_store, store_factory):
    """Versions 1 to 5 had each id once in a store; a session without a revision has 0."""
    store = reopened(old_store, store_factory)
    assert store.get_session("waits").revision == 0
    run = store.start_run("other", input="hi")
    store.pause_run(run.run_id, [Requirement(requirement_id="ask", kind="confirmation")])

    assert [r.session_id for r in store.requirements()] == ["waits", "other"]
    assert store.save_session(store.get_session("waits"), expected_revision=0).revision == 1


def test_failed_upgrade_changes_nothing(old_store, old_version, store_factory, monkeypatch):
    """All columns are added or none, and the keys are as before; the next open upgrades the store."""
    store = reopened(old_store, store_factory)
    name = "_renew_primary_key" if old_version < REQUIREMENT_KEY_VERSION else "_add_column"
    original = getattr(schema_versions, name)

    def failing(*args):
        original(*args)
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(schema_versions, name, failing)
        with pytest.raises(RuntimeError, match="disk"):
            store.runs_df()
    with store.connect() as connection:
        assert schema_versions.read_version(connection, store.tables) == old_version

    assert store.requirements()[0].requirement_id == "ask"
    with store.connect() as connection:
        assert schema_versions.read_version(connection, store.tables) == schema_versions.SCHEMA_VERSION


def test_concurrent_upgrades_run_once(postgres_database_url):
    """Two stores start the upgrade; neither fails, and it runs once."""
    with PostgresDb(postgres_database_url) as store:
        store.append_run("chat", Run(input="hi"))
        downgrade(store, 2)
    waits = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with PostgresDb(postgres_database_url) as first, PostgresDb(postgres_database_url) as second:
        errors = []

        def open_it(store):
            try:
                store.runs_df()
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=open_it, args=(store,)) for store in (first, second)]
        watcher = sa.create_engine(postgres_database_url, isolation_level="AUTOCOMMIT")
        with store.engine.begin() as reader, watcher.connect() as watching:
            reader.execute(
                sa.select(store.tables.requirements.c.requirement_id)
            )  # as long as it reads, no column is added
            for thread in threads:
                thread.start()
            while watching.execute(waits).scalar() < 2 and all(thread.is_alive() for thread in threads):
                pass
        for thread in threads:
            thread.join()
        watcher.dispose()

        assert errors == []
        assert first.requirements() == second.requirements() == []
        assert first.check().problems == []
    store.close()


def test_read_only_store_is_not_upgraded(old_store, old_version, store_factory):
    """It is unchanged, and the hint says how to upgrade it."""
    store = reopened(old_store, store_factory, read_only=True)

    with pytest.raises(ReadOnlyStore, match=f"schema version {old_version}") as caught:
        store.sessions_df()

    assert "without read_only" in caught.value.hint
