"""Another program's database is refused by its layout, and no byte, file or time stamp of it changes."""

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
from foreign_databases import ALL, LAYOUTS, UNKNOWN, killed, make_duckdb, make_sqlite, running, traces

from kern_nb import Agent, store_registry
from kern_nb.db import DuckDb, PostgresDb, SqliteDb, open_store
from kern_nb.errors import ForeignLayout, NotAStore, StoreBusy
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


def refuse_everything(path, folder, kind=ForeignLayout, calls=(*WRITES, *READS)):
    """Every way to open the file and to use it is refused, and leaves the folder as it is; the last error."""
    before = traces(folder)
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
    assert traces(folder) == before
    return caught.value


@pytest.fixture
def folder(tmp_path):
    """A folder that only the other program has written to."""
    made = tmp_path / "theirs"
    made.mkdir()
    return made


# Which program it is does not depend on the engine: DuckDB, which is slow to open, has one of each kind.
FILES = [
    *(("sqlite", layout) for layout in ALL),
    *(("duckdb", layout) for layout in ("Agno 3", *list(ALL)[len(LAYOUTS) :])),
]


@pytest.mark.parametrize(("engine", "layout"), FILES)
def test_a_file_of_another_program_is_refused_and_untouched(folder, engine, layout):
    """Whatever its tables are called; the error names the program where it is known, else the tables."""
    path = folder / ("their.db" if engine == "sqlite" else "their.duckdb")
    (make_sqlite if engine == "sqlite" else make_duckdb)(path, ALL[layout])

    error = refuse_everything(path, folder, calls=FEW)

    assert "session_table" in error.hint
    if layout in LAYOUTS:
        assert layout in str(error)


@pytest.mark.parametrize("layout", ALL)
def test_a_postgres_schema_of_another_program_is_refused_and_untouched(postgres_database_url, layout):
    """No table is made beside theirs, and no statement takes a lock that would wait for them."""
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
        with pytest.raises(ForeignLayout):
            open_store(postgres_database_url)
        store.close()
        assert owner.execute(names).all() == before
    engine.dispose()


def test_the_error_lists_the_tables_of_an_unknown_program(folder):
    """Few, and as text that no terminal acts on."""
    path = folder / "their.db"
    make_sqlite(path, ['CREATE TABLE "evil\x1b[2J" (id)', *(f"CREATE TABLE t{n} (id)" for n in range(20))])

    error = refuse_everything(path, folder)

    assert "unknown layout" in str(error)
    assert "t0" in str(error)
    assert "15 more" in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize("peer", ["agno", "agents"])
def test_a_database_that_the_program_itself_made_is_refused_and_untouched(folder, peer):
    """The real program, with its own journal mode, open and closed."""
    path = folder / "their.db"
    if peer == "agents":
        # A module of it: the folder of our own tests has the name of the package.
        memory = pytest.importorskip("agents.memory", reason="openai-agents is not installed: it is in the extra bench")
        session = memory.SQLiteSession("conversation", path)
        asyncio.run(session.add_items([{"role": "user", "content": "hi"}]))
        assert "OpenAI Agents" in str(refuse_everything(path, folder))
        session.close()
        assert "OpenAI Agents" in str(refuse_everything(path, folder, calls=FEW))
    else:
        pytest.importorskip("agno.db.sqlite", reason="agno is not installed: it is in the extra bench")
        code = """
            from agno.db.sqlite import SqliteDb
            from agno.session import AgentSession
            db = SqliteDb(db_file=args[0])
            db.upsert_session(AgentSession(session_id="s", agent_id="a"))
        """
        with running(code, path):
            assert "Agno 3" in str(refuse_everything(path, folder))
        assert "Agno 3" in str(refuse_everything(path, folder, calls=FEW))  # `running` kills it


WRITING = """
    import sqlite3
    connection = sqlite3.connect(args[0])
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE IF NOT EXISTS customers (id, name)")
    connection.execute("INSERT INTO customers VALUES (1, 'ann')")
    connection.commit()
"""


def test_a_file_whose_owner_is_at_work_is_untouched(folder):
    """Its log holds all there is, and a transaction is open; the owner goes on as if nobody had looked."""
    path = folder / "their.db"
    with running(WRITING + "    connection.execute('BEGIN IMMEDIATE')\n", path):
        assert (folder / "their.db-wal").stat().st_size > 0
        assert "customers" in str(refuse_everything(path, folder))


def test_a_log_that_a_killed_program_left_is_untouched(folder):
    """It is neither copied into the file nor deleted; nor is a lost -shm file made anew."""
    path = folder / "their.db"
    killed(WRITING, path)
    assert "customers" in str(refuse_everything(path, folder))
    (folder / "their.db-shm").unlink()
    assert "customers" in str(refuse_everything(path, folder))

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM customers").fetchall() == [("ann",)]


def test_a_journal_that_a_killed_program_left_is_not_rolled_back(folder):
    """That is for the program itself to do."""
    path = folder / "their.db"
    make_sqlite(path, ["CREATE TABLE customers (id, name)", "INSERT INTO customers VALUES (1, 'ann')"])
    killed(
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


DUCK = """
    import duckdb
    connection = duckdb.connect(args[0])
    connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.execute("CHECKPOINT")
    connection.execute("INSERT INTO customers VALUES (1)")
"""


def test_a_duckdb_log_that_a_killed_program_left_is_untouched(folder):
    """It is not put into the file."""
    path = folder / "their.duckdb"
    killed(DUCK, path)
    assert (folder / "their.duckdb.wal").stat().st_size > 0
    assert "customers" in str(refuse_everything(path, folder, calls=FEW))

    with duckdb.connect(path) as connection:
        assert connection.execute("SELECT id FROM customers").fetchall() == [(1,)]


def test_a_duckdb_file_whose_owner_is_at_work_is_busy_and_untouched(folder):
    """DuckDB lets nobody look into it then; who holds it is said."""
    path = folder / "their.duckdb"
    with running(DUCK, path):
        before = traces(folder)
        with DuckDb(path, timeout=0.2) as store:
            for call in (READS["sessions_df"], WRITES["append_run"]):
                with pytest.raises(StoreBusy):
                    call(store)
        assert traces(folder) == before


def test_tables_in_any_schema_of_a_duckdb_file_are_another_programs(folder):
    """Also where the schema that we would use is empty."""
    path = folder / "their.duckdb"
    make_duckdb(path, ["CREATE SCHEMA raw", "CREATE TABLE raw.events (id INTEGER)"])

    assert "raw.events" in str(refuse_everything(path, folder))


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "a%20b.db", "a b.db", "ä.db", "mode=ro&x.db", "'a?%20#b.duckdb"])
def test_a_file_of_an_odd_name_is_looked_into_itself(folder, name):
    """A name is never read as a part of a URL; no other file is made by it."""
    path, engine = folder / name, "sqlite" if name.endswith(".db") else "duckdb"
    (make_sqlite if engine == "sqlite" else make_duckdb)(path, UNKNOWN["tables"])

    assert "customers" in str(refuse_everything(path, folder, calls=FEW))


def test_a_link_to_a_file_is_as_the_file(folder):
    """Its log stands beside the file itself."""
    (folder / "data").mkdir()
    path = folder / "data" / "their.db"
    killed(WRITING, path)
    (folder / "link.db").symlink_to(path)

    assert "customers" in str(refuse_everything(folder / "link.db", folder))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_in_a_folder_that_is_read_only_is_refused_by_name(folder):
    """Nothing has to be made beside it to look into it."""
    path = folder / "their.db"
    make_sqlite(path, UNKNOWN["tables"], journal="wal")
    folder.chmod(0o500)

    assert "customers" in str(refuse_everything(path, folder))


@pytest.mark.parametrize("content", [os.urandom(8192), b"SQLite format 3\x00" + os.urandom(8176)])
def test_a_file_that_cannot_be_read_is_untouched(folder, content):
    """An encrypted one has no header that is known; a damaged one has no tables."""
    path = folder / "their.db"
    path.write_bytes(content)
    before = traces(folder)
    for options in ({}, {"read_only": True}):
        with pytest.raises(NotAStore):
            open_store(path, **options)

    assert traces(folder) == before


def test_a_look_drops_no_lock_of_this_process(folder):
    """A user's own connection, in the middle of a transaction, keeps its lock while another store looks at the file."""
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


# What is ours, or is to be -------------------------------------------------------------------------------------------


def test_an_empty_file_becomes_a_store_at_the_first_write(folder):
    """Of no bytes, or with a header and no table; reading makes nothing in it."""
    (folder / "empty.db").touch()
    make_sqlite(folder / "header.db", ["PRAGMA user_version=7"])
    make_duckdb(folder / "header.duckdb", [])
    before = traces(folder)
    for path in list(folder.iterdir()):
        with open_store(path) as store:
            assert store.list_sessions() == []
    assert traces(folder) == before
    for path in list(folder.iterdir()):
        with open_store(path) as store:
            store.append_run("chat", Run(input="hi"))
        with open_store(path) as store:
            assert len(store.runs_df()) == 1


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgres"])
def test_a_named_session_table_agrees_to_tables_beside_theirs(folder, request, engine):
    """Attaching and reading still change nothing; a write makes our tables, and theirs stay as they are."""
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
    before = traces(folder)
    with open_store(target, session_table="kern_sessions") as store:
        assert store.sessions_df().empty
        assert store.check().problems == []
        store.close()
        assert traces(folder) == before
        store.append_run("chat", Run(input="hi"))
    with open_store(target, session_table="kern_sessions") as store:
        assert store.runs_df().input.tolist() == ["hi"]
        with store.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM agent_messages").scalar() == 0
    with open_store(target) as another:  # a database of ours by now: another workload may be made in it
        assert another.sessions_df().empty


def test_a_reader_never_gets_an_empty_store_of_another_programs_file(folder):
    """Nothing of ours can ever come into it, whatever the table is called."""
    make_sqlite(folder / "their.db", UNKNOWN["tables"])

    with pytest.raises(ForeignLayout):
        open_store(folder / "their.db", session_table="kern_sessions", read_only=True)


def test_a_store_whose_tables_are_only_in_its_log_is_ours(folder):
    """The process that made it was killed before a checkpoint."""
    code = """
        from kern_nb.db import open_store
        from kern_nb.records import Run
        for path, table in zip(args[::2], args[1::2]):
            open_store(path, session_table=table).append_run("chat", Run(input="hi"))
    """
    make_sqlite(folder / "beside.db", UNKNOWN["tables"], journal="wal")
    tables = {"new.db": "agno_sessions", "new.duckdb": "agno_sessions", "beside.db": "kern_sessions"}
    killed(code, *(text for name, table in tables.items() for text in (folder / name, table)))
    for name, table in tables.items():
        with open_store(folder / name, session_table=table) as store:
            assert store.runs_df().input.tolist() == ["hi"], name


def test_a_file_that_takes_the_name_of_a_store_is_looked_into_anew(folder, tmp_path):
    """A store of ours was there a moment ago, and this process still has it attached."""
    path = folder / "s.duckdb"
    killed(DUCK, tmp_path / "their.duckdb")
    with DuckDb(path) as store:
        store.append_run("chat", Run(input="hi"))
        store.close()
        path.unlink()
        for ending in ("", ".wal"):
            (tmp_path / f"their.duckdb{ending}").rename(folder / f"s.duckdb{ending}")
        before = traces(folder)
        with pytest.raises(ForeignLayout):
            store.reopen()
        with pytest.raises(ForeignLayout):
            open_store(path)
        assert traces(folder) == before
