"""Asynchronous stores, stores at an engine of SQLAlchemy, and the folders of new files."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import sqlalchemy as sa

from kern_nb import Agent
from kern_nb.db import AsyncPostgresDb, AsyncSqliteDb, DuckDb, PostgresDb, SessionStore, SqliteDb
from kern_nb.db.async_stores import AsyncStore
from kern_nb.errors import BadUsage, NotAStore, SessionNotFound
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Run

# Of the connection, or of a thread.
WITHOUT_COROUTINE = {
    "write", "read_connection", "connect", "insert", "insert_rows", "arrow", "run_sql", "is_conflict", "is_there", "locked",
    "lock_imports", "transaction", "require_committed", "nth_largest", "has_tables", "require_harmless", "locate_tables",
    "translate_error", "after_fork", "reopen",
}  # fmt: skip


def test_every_method_has_a_coroutine():
    """With the parameters of the store's."""
    names = {name for name, _ in inspect.getmembers(SessionStore, callable) if not name.startswith("_")}
    coroutines = {name for name, value in inspect.getmembers(AsyncStore, inspect.iscoroutinefunction)}
    assert names - WITHOUT_COROUTINE <= coroutines
    assert not WITHOUT_COROUTINE & coroutines
    assert inspect.signature(AsyncStore.get_run) == inspect.signature(SessionStore.get_run)


def test_async_store_reads_and_writes(tmp_path, postgres_database_url):
    """Calls at once do not wait for each other; an agent takes it as its store."""

    async def use(db):
        async with db:
            agent = Agent(ScriptedModel(lambda _: "Hi"), db=db, session_id="chat")
            assert agent.store is db.store
            run = await agent.arun("Hello")
            await asyncio.gather(*(db.append_run(f"s{i}", Run(input=i)) for i in range(5)))
            assert (await db.get_run(run.run_id)).content == "Hi"
            assert len(await db.list_sessions()) == 6
            assert list((await db.runs_df("chat"))["output"]) == ["Hi"]
            with pytest.raises(SessionNotFound):
                await db.rename_session("unknown", "x")

    asyncio.run(use(AsyncSqliteDb(db_file=tmp_path / "agent.db")))
    asyncio.run(use(AsyncPostgresDb(postgres_database_url)))


def test_store_uses_file_of_engine(tmp_path):
    """Or of a URL; memory and other databases are refused."""
    path = tmp_path / "agent.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    for store in (
        SqliteDb(db_engine=engine),
        SqliteDb(db_url=f"sqlite:///{path}"),
        AsyncSqliteDb(db_engine=engine).store,
    ):
        with store:
            store.append_run("chat", Run(input="Hello"))
            assert store.db_file == path
    with SqliteDb(path) as store:
        assert len(store.get_session("chat").runs) == 3
    for options in (
        {"db_engine": sa.create_engine("sqlite://")},
        {"db_url": "sqlite:///:memory:"},
        {"db_engine": "sqlite:///x.db"},
        {"db_url": "postgresql://host/database"},
        {"db_url": f"sqlite:///{path}?mode=ro"},
    ):
        with pytest.raises((BadUsage, NotAStore)):
            SqliteDb(**options)
    engine.dispose()


def roll_back(store):
    """Write, then raise."""
    store.append_run("chat", Run(input="rolled back"))
    store.rename_session("unknown", "x")


def test_store_connects_by_engine(postgres_database_url):
    """With its arguments and listeners; whatever its isolation level."""
    options = {"isolation_level": "AUTOCOMMIT", "connect_args": {"application_name": "of the engine"}}
    engine = sa.create_engine(postgres_database_url, **options)
    connected = []
    sa.event.listen(engine, "connect", lambda raw, _: connected.append(raw))
    with PostgresDb(db_engine=engine) as store:
        store.append_run("chat", Run(input="Hello"))
        with pytest.raises(SessionNotFound), store.transaction():
            roll_back(store)
        assert [run.input for run in store.get_session("chat").runs] == ["Hello"]
        with store.connect() as connection:
            assert connection.execute(sa.text("SHOW application_name")).scalar() == "of the engine"
        assert connected
        assert "of the engine" not in store.url
    engine.dispose()
    with pytest.raises(BadUsage, match="needs a database"):
        PostgresDb()
    with pytest.raises(BadUsage, match="for postgresql, got sqlite"):
        PostgresDb(db_engine=sa.create_engine("sqlite://"))


@pytest.mark.parametrize("store_class", [DuckDb, SqliteDb])
def test_folders_of_new_file_are_created(tmp_path, store_class):
    """By the first write, not before."""
    path = tmp_path / "new" / "folder" / "store"
    with store_class(path) as store:
        assert not store.exists()
        assert not path.parent.exists()
        store.append_run("chat", Run(input="Hello"))
    assert path.is_file()
