"""Another program's database is refused by its layout or read in place, and no byte, file or time stamp changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys

import duckdb
import pytest
import sqlalchemy as sa
from foreign_databases import ALL, LAYOUTS, UNKNOWN, make_duckdb, make_sqlite, run_and_exit, running, snapshot

from kern_nb import Agent, store_registry
from kern_nb.db import DuckDb, PostgresDb, SqliteDb, open_store
from kern_nb.errors import ForeignLayout, NotAStore, ReadOnlyStore, StoreBusy
from kern_nb.foreign import ForeignStore
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Run, Session

WRITES = {
    "append_run": lambda store: store.append_run("s", Run(input="hi")),
    "start_run": lambda store: store.start_run("s", input="hi"),
    "save_session": lambda store: store.save_session(Session(session_id="s")),
    "put_blob": lambda store: store.put_blob(b"x"),
    "repair": lambda store: store.check(repair=True),
    "agent": lambda store: Agent(model=ScriptedModel(["hello"]), db=store).run("hi"),
}
READS = {
    "check": lambda store: store.check(),
    "get_session": lambda store: store.get_session("s"),
    "list_sessions": lambda store: store.list_sessions(),
    "sessions_df": lambda store: store.sessions_df(),
    "messages_df": lambda store: store.messages_df(),
    "sql": lambda store: store.sql("SELECT * FROM runs"),
    "requirements": lambda store: store.requirements(),
    "reopen": lambda store: store.reopen(),
}


FEW = ("append_run", "check", "sessions_df")

IN_PLACE = {"Agno 2": "agno", "Agno 3": "agno", "OpenAI Agents": "openai_agents"}
"""The layouts of SQLite files that are read in place, and their importers."""


def read_in_place(path, folder, importer):
    """Check that a file is opened read-only, and that a store of our own refuses it; return the last error."""
    before = snapshot(folder)
    for options in ({}, {"read_only": True}):
        with open_store(path, **options) as store:
            assert isinstance(store, ForeignStore)
            assert store.format == importer
            for name in ("append_run", "save_session", "put_blob"):
                with pytest.raises(ReadOnlyStore):
                    WRITES[name](store)
        with SqliteDb(path, **options) as store:
            for name, call in {**READS, **({} if options else WRITES)}.items():
                with pytest.raises(ForeignLayout) as caught:
                    pytest.fail(f"{name}: {call(store)!r}")
    assert snapshot(folder) == before
    return caught.value


def refuse_everything(path, folder, kind=ForeignLayout, calls=(*WRITES, *READS)):
    """Check that opening and using the file fails in every way and changes nothing; return the last error."""
    before = snapshot(folder)
    store_class = DuckDb if "duckdb" in path.name else SqliteDb
    records = folder.parent / "records.jsonl"
    records.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    for options in ({}, {"read_only": True}):
        with pytest.raises(kind) as caught:
            open_store(path, **options)
        with pytest.raises(kind):
            store_registry.attach(path, **options)
        with store_class(path, **options) as store:
            for name, call in READS.items():
                with pytest.raises(kind):
                    pytest.fail(f"{name}: {call(store)!r}")
        if not options:
            with store_class(path) as store:
                for name in WRITES.keys() & calls:
                    with pytest.raises(kind):
                        pytest.fail(f"{name}: {WRITES[name](store)!r}")
                with pytest.raises(kind):
                    store.ingest(records, progress=False)
    with pytest.raises(kind):
        Agent(model=ScriptedModel(["hello"]), db=path).run("hi")
    assert store_registry.names() == []
    assert snapshot(folder) == before
    return caught.value


@pytest.fixture
def folder(tmp_path):
    """A folder with files of the other program only."""
    path = tmp_path / "theirs"
    path.mkdir()
    return path


# The program does not depend on the engine: DuckDB, which is slow to open, gets one layout of each kind.
FILES = [
    *(("sqlite", layout) for layout in ALL),
    *(("duckdb", layout) for layout in ("Agno 3", *list(ALL)[len(LAYOUTS) :])),
]


@pytest.mark.parametrize(("engine", "layout"), FILES)
def test_file_of_another_program_is_refused_and_unchanged(folder, engine, layout):
    """Whatever the names of its tables; the error names the program if known, else the tables."""
    path = folder / ("their.db" if engine == "sqlite" else "their.duckdb")
    (make_sqlite if engine == "sqlite" else make_duckdb)(path, ALL[layout])

    if engine == "sqlite" and layout in IN_PLACE:
        error = read_in_place(path, folder, IN_PLACE[layout])
    else:
        error = refuse_everything(path, folder, calls=FEW)

    assert "session_table" in error.hint
    if layout in LAYOUTS:
        assert layout in str(error)


@pytest.mark.parametrize("layout", ALL)
def test_postgres_schema_of_another_program_is_refused_and_unchanged(postgres_database_url, layout):
    """No table is created beside theirs, and no statement waits for their locks."""
    engine = sa.create_engine(postgres_database_url)
    with engine.begin() as connection:
        for command in ALL[layout]:
            connection.exec_driver_sql(command.replace("AGNO_SESSIONS", '"agno_sessions"'))
    names = sa.text(
        "SELECT n.nspname, relname, relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace ORDER BY 1, 2"
    )
    with engine.begin() as owner:
        before = owner.execute(names).all()
        for table in sa.inspect(owner).get_table_names():
            owner.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        store = PostgresDb(postgres_database_url)
        for name, call in (WRITES | READS).items():
            with pytest.raises(ForeignLayout) as caught:
                call(store)
            assert layout not in LAYOUTS or layout in str(caught.value), name
        store.close()
        assert owner.execute(names).all() == before
    with contextlib.ExitStack() as stack:
        if layout not in IN_PLACE:
            stack.enter_context(pytest.raises(ForeignLayout))
        with open_store(postgres_database_url) as opened:
            assert opened.format == IN_PLACE[layout]
    with engine.begin() as owner:
        assert owner.execute(names).all() == before
    engine.dispose()


def test_error_lists_the_tables_of_an_unknown_program(folder):
    """The first few, without control characters."""
    path = folder / "their.db"
    make_sqlite(path, ['CREATE TABLE "evil\x1b[2J" (id)', *(f"CREATE TABLE t{n} (id)" for n in range(20))])

    error = refuse_everything(path, folder)

    assert "unknown layout" in str(error)
    assert "t0" in str(error)
    assert "15 more" in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize("peer", ["agno", "agents"])
def test_database_created_by_the_program_itself_is_read_in_place_and_unchanged(folder, peer):
    """The real program, with its own journal mode, open and closed."""
    path = folder / "their.db"
    if peer == "agents":
        # A submodule: the folder of our own tests has the name of the package.
        memory = pytest.importorskip("agents.memory", reason="openai-agents is not installed: it is in the extra bench")
        session = memory.SQLiteSession("conversation", path)
        asyncio.run(session.add_items([{"role": "user", "content": "hi"}]))
        assert "OpenAI Agents" in str(read_in_place(path, folder, "openai_agents"))
        session.close()
        assert "OpenAI Agents" in str(read_in_place(path, folder, "openai_agents"))
    else:
        pytest.importorskip("agno.db.sqlite", reason="agno is not installed: it is in the extra bench")
        code = """
            from agno.db.sqlite import SqliteDb
            from agno.session import AgentSession
            db = SqliteDb(db_file=args[0])
            db.upsert_session(AgentSession(session_id="s", agent_id="a"))
        """
        with running(code, path):
            assert "Agno 3" in str(read_in_place(path, folder, "agno"))
        assert "Agno 3" in str(read_in_place(path, folder, "agno"))  # `running` ends it


WRITING = """
    import sqlite3
    connection = sqlite3.connect(args[0])
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE IF NOT EXISTS customers (id, name)")
    connection.execute("INSERT INTO customers VALUES (1, 'ann')")
    connection.commit()
"""


def test_file_in_use_by_its_owner_is_unchanged(folder):
    """Its log contains all data, and a transaction is open; the owner is not disturbed."""
    path = folder / "their.db"
    with running(WRITING + "    connection.execute('BEGIN IMMEDIATE')\n", path):
        assert (folder / "their.db-wal").stat().st_size > 0
        assert "customers" in str(refuse_everything(path, folder))


def test_sqlite_log_of_a_killed_program_is_unchanged(folder):
    """It is neither checkpointed nor deleted, and a missing -shm file is not recreated."""
    path = folder / "their.db"
    run_and_exit(WRITING, path)
    assert "customers" in str(refuse_everything(path, folder))
    (folder / "their.db-shm").unlink()
    assert "customers" in str(refuse_everything(path, folder))

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM customers").fetchall() == [("ann",)]


def test_journal_of_a_killed_program_is_not_rolled_back(folder):
    """Only the program itself may do that."""
    path = folder / "their.db"
    make_sqlite(path, ["CREATE TABLE customers (id, name)", "INSERT INTO customers VALUES (1, 'ann')"])
    run_and_exit(
        """
        import sqlite3
        connection = sqlite3.connect(args[0], isolation_level=None)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO customers VALUES (?, ?)", [(n, "x" * 2000) for n in range(200)])
        """,
        path,
    )
    assert (folder / "their.db-journal").stat().st_size > 0
    assert "customers" in str(refuse_everything(path, folder))

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (1,)


WRITING_DUCKDB = """
    import duckdb
    connection = duckdb.connect(args[0])
    connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.execute("CHECKPOINT")
    connection.execute("INSERT INTO customers VALUES (1)")
"""


def test_duckdb_log_of_a_killed_program_is_unchanged(folder):
    """It is not merged into the file."""
    path = folder / "their.duckdb"
    run_and_exit(WRITING_DUCKDB, path)
    assert (folder / "their.duckdb.wal").stat().st_size > 0
    assert "customers" in str(refuse_everything(path, folder, calls=FEW))

    with duckdb.connect(path) as connection:
        assert connection.execute("SELECT id FROM customers").fetchall() == [(1,)]


def test_duckdb_file_in_use_by_its_owner_is_busy_and_unchanged(folder):
    """DuckDB allows no other reader then; the error names the holder."""
    path = folder / "their.duckdb"
    with running(WRITING_DUCKDB, path):
        before = snapshot(folder)
        with DuckDb(path, timeout=0.2) as store:
            for call in (READS["sessions_df"], WRITES["append_run"]):
                with pytest.raises(StoreBusy):
                    call(store)
        assert snapshot(folder) == before


def test_tables_in_any_schema_of_a_duckdb_file_belong_to_another_program(folder):
    """Even if the schema for our tables is empty."""
    path = folder / "their.duckdb"
    make_duckdb(path, ["CREATE SCHEMA raw", "CREATE TABLE raw.events (id INTEGER)"])

    assert "raw.events" in str(refuse_everything(path, folder))


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "a%20b.db", "a b.db", "ä.db", "mode=ro&x.db", "'a?%20#b.duckdb"])
def test_special_characters_in_a_file_name_are_not_parsed(folder, name):
    """A name is never part of a URL, and creates no other file."""
    path, engine = folder / name, "sqlite" if name.endswith(".db") else "duckdb"
    (make_sqlite if engine == "sqlite" else make_duckdb)(path, UNKNOWN["tables"])

    assert "customers" in str(refuse_everything(path, folder, calls=FEW))


def test_link_to_a_file_is_treated_as_the_file(folder):
    """The log is beside the target of the link."""
    (folder / "data").mkdir()
    path = folder / "data" / "their.db"
    run_and_exit(WRITING, path)
    (folder / "link.db").symlink_to(path)

    assert "customers" in str(refuse_everything(folder / "link.db", folder))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_file_in_a_read_only_folder_is_refused_by_layout(folder):
    """Inspecting it creates no file beside it."""
    path = folder / "their.db"
    make_sqlite(path, UNKNOWN["tables"], journal="wal")
    folder.chmod(0o500)

    assert "customers" in str(refuse_everything(path, folder))


@pytest.mark.parametrize("content", [os.urandom(8192), b"SQLite format 3\x00" + os.urandom(8176)])
def test_unreadable_file_is_unchanged(folder, content):
    """An encrypted file has an unknown header, a damaged one no tables."""
    path = folder / "their.db"
    path.write_bytes(content)
    before = snapshot(folder)
    for options in ({}, {"read_only": True}):
        with pytest.raises(NotAStore):
            open_store(path, **options)

    assert snapshot(folder) == before


def test_inspecting_a_file_drops_no_lock_of_this_process(folder):
    """The user's own connection keeps the lock of its transaction."""
    path = folder / "their.db"
    make_sqlite(path, UNKNOWN["tables"])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with SqliteDb(path) as store, pytest.raises(ForeignLayout):
            store.sessions_df()
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False
        )

    assert "database is locked" in other.stderr


# Files that are stores, or become one -------------------------------------------------------------------------------------------


def test_empty_file_becomes_a_store_at_the_first_write(folder):
    """Without any bytes, or with a header only; reading changes nothing."""
    (folder / "empty.db").touch()
    make_sqlite(folder / "header.db", ["PRAGMA user_version=7"])
    make_duckdb(folder / "header.duckdb", [])
    before = snapshot(folder)
    for path in list(folder.iterdir()):
        with open_store(path) as store:
            assert store.list_sessions() == []
    assert snapshot(folder) == before
    for path in list(folder.iterdir()):
        with open_store(path) as store:
            store.append_run("chat", Run(input="hi"))
        with open_store(path) as store:
            assert len(store.runs_df()) == 1


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgres"])
def test_session_table_permits_tables_beside_those_of_another_program(folder, request, engine):
    """Attaching and reading change nothing; a write creates our tables and keeps theirs."""
    if engine == "postgres":
        target = request.getfixturevalue("postgres_database_url")
        owner = sa.create_engine(target)
        with owner.begin() as connection:
            for command in LAYOUTS["OpenAI Agents"]:
                connection.exec_driver_sql(command)
        owner.dispose()
    else:
        target = folder / ("their.db" if engine == "sqlite" else "their.duckdb")
        (make_sqlite if engine == "sqlite" else make_duckdb)(target, LAYOUTS["OpenAI Agents"])
    before = snapshot(folder)
    with open_store(target, session_table="kern_sessions") as store:
        assert store.sessions_df().empty
        assert store.check().problems == []
        store.close()
        assert snapshot(folder) == before
        store.append_run("chat", Run(input="hi"))
    with open_store(target, session_table="kern_sessions") as store:
        assert store.runs_df().input.tolist() == ["hi"]
        with store.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM agent_messages").scalar() == 0
    with open_store(target) as another:  # now it contains our tables: another workload may be added
        assert another.sessions_df().empty


def test_foreign_file_is_not_an_empty_store_for_readers(folder):
    """A read-only store could never create tables, whatever the session table."""
    make_sqlite(folder / "their.db", UNKNOWN["tables"])

    with pytest.raises(ForeignLayout):
        open_store(folder / "their.db", session_table="kern_sessions", read_only=True)


def test_store_with_tables_only_in_its_log_is_recognized(folder):
    """The process that created it was killed before a checkpoint."""
    code = """
        from kern_nb.db import open_store
        from kern_nb.records import Run
        for path, table in zip(args[::2], args[1::2]):
            open_store(path, session_table=table).append_run("chat", Run(input="hi"))
    """
    make_sqlite(folder / "beside.db", UNKNOWN["tables"], journal="wal")
    tables = {"new.db": "agno_sessions", "new.duckdb": "agno_sessions", "beside.db": "kern_sessions"}
    run_and_exit(code, *(text for name, table in tables.items() for text in (folder / name, table)))
    for name, table in tables.items():
        with open_store(folder / name, session_table=table) as store:
            assert store.runs_df().input.tolist() == ["hi"], name


def test_file_that_replaces_a_store_is_inspected_again(folder, tmp_path):
    """This process has the former store still attached."""
    path = folder / "s.duckdb"
    run_and_exit(WRITING_DUCKDB, tmp_path / "their.duckdb")
    with DuckDb(path) as store:
        store.append_run("chat", Run(input="hi"))
        store.close()
        path.unlink()
        for suffix in ("", ".wal"):
            (tmp_path / f"their.duckdb{suffix}").rename(folder / f"s.duckdb{suffix}")
        before = snapshot(folder)
        with pytest.raises(ForeignLayout):
            store.reopen()
        with pytest.raises(ForeignLayout):
            open_store(path)
        assert snapshot(folder) == before
