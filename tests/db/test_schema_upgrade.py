"""An older store is upgraded in place; nothing in it is lost."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from kern_nb.db import schema
from kern_nb.errors import ReadOnlyStore
from kern_nb.records import Message, Run


@pytest.fixture
def old_store(store_factory):
    """A store as version 1 left it: without the columns that came later."""
    store = store_factory("old")
    store.append_run("chat", Run(input="hi", output="hello", messages=[Message(role="user", content="hi")]))

    def back_to_version_1(connection):
        for added in schema.MIGRATIONS.values():
            for table, column in added:
                name = getattr(store.tables, table).name
                connection.exec_driver_sql(f"ALTER TABLE {name} DROP COLUMN {column}")
        connection.execute(store.tables.schema.update().values(version=1))

    store.write(back_to_version_1)
    return store


def reopened(store, store_factory, **options):
    """The same database, by a store that has not looked into it yet."""
    if store.url.endswith(":memory:"):
        store._found = False
        store.read_only = options.get("read_only", False)
        return store
    store.close()
    return store_factory("old", **options)


def test_an_older_store_is_upgraded_when_it_is_opened(old_store, store_factory):
    """Its sessions are there afterwards, its new columns too, and its version is ours."""
    store = reopened(old_store, store_factory)

    assert store.runs_df()["output"].tolist() == ["hello"]
    with store.connect() as connection:
        assert schema.version(connection, store.tables) == schema.SCHEMA_VERSION
        for table, column in schema.MIGRATIONS[2]:
            found = connection.execute(sa.select(getattr(store.tables, table).c[column])).scalars().all()
            assert set(found) <= {None}


def test_an_upgraded_store_goes_on(old_store, store_factory):
    """After the upgrade runs are appended as ever."""
    store = reopened(old_store, store_factory)

    assert store.append_run("chat", Run(input="more")).run_index == 1


def test_an_older_store_is_not_upgraded_by_a_reader(old_store, store_factory):
    """Opened to be read, it is left as it is, and the error says how to upgrade it."""
    store = reopened(old_store, store_factory, read_only=True)

    with pytest.raises(ReadOnlyStore, match="schema version 1") as caught:
        store.sessions_df()

    assert "without read_only" in caught.value.hint
