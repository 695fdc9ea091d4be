"""sql() reads only the store: everything else is refused, and nothing changes in or around the database."""

from __future__ import annotations

import pytest
from samples import a_run, a_session, all_rows, load_session

from kern_nb.db import PostgresDb
from kern_nb.errors import KernError, QueryFailed, QueryRefused

# On every engine: statements that are no query, and more than one statement.
STATEMENTS = (
    "DELETE FROM agno_sessions",
    "DELETE FROM agno_sessions_runs RETURNING *",
    "UPDATE agno_sessions SET user_id = 'me'",
    "INSERT INTO agno_sessions (session_id, session_type) VALUES ('x', 'agent')",
    "WITH x AS (SELECT 1) DELETE FROM agno_sessions",
    "WITH x AS (SELECT 'x' AS a) INSERT INTO agno_sessions (session_id, session_type) SELECT a, a FROM x",
    "/* SELECT */ DELETE FROM agno_sessions",
    "-- SELECT\nDELETE FROM agno_sessions",
    "(DELETE FROM agno_sessions)",
    ";DELETE FROM agno_sessions",
    "EXPLAIN DELETE FROM agno_sessions",
    "EXPLAIN ANALYZE DELETE FROM agno_sessions",
    "DROP TABLE agno_sessions",
    "DROP VIEW sessions",
    "ALTER TABLE agno_sessions ADD COLUMN x INTEGER",
    "TRUNCATE TABLE agno_sessions",
    "CREATE TABLE x (a INTEGER)",
    "CREATE TEMP TABLE x (a INTEGER)",
    "CREATE TABLE x AS SELECT * FROM sessions",
    "CREATE VIEW x AS SELECT 1",
    "CREATE TEMP VIEW sessions AS SELECT 1",
    "CREATE INDEX i ON agno_sessions (user_id)",
    "BEGIN",
    "BEGIN; DELETE FROM agno_sessions; COMMIT",
    "COMMIT",
    "COMMIT; DELETE FROM agno_sessions",
    "ROLLBACK; DELETE FROM agno_sessions",
    "SELECT 1; DELETE FROM agno_sessions",
    "SELECT 1; COMMIT; DELETE FROM agno_sessions; SELECT 2",
    "SELECT 1; SELECT 2",
    "SELECT ';'; DELETE FROM agno_sessions",
    "SELECT 1 --\n; DELETE FROM agno_sessions",
    "SELECT 1) AS a; DELETE FROM agno_sessions; --",
    "SELECT 1) AS a; COMMIT; DELETE FROM agno_sessions; SELECT * FROM (SELECT 1",
    "SAVEPOINT x",
    "VACUUM",
    "ANALYZE",
    "SET x = 1",
    "PRAGMA user_version = 5",
    "ATTACH '/tmp/x.db' AS x",
    "DETACH main",
    "COPY agno_sessions TO '/tmp/x'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "COPY agno_sessions FROM '/etc/passwd'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'",
    "DO $$ BEGIN DELETE FROM agno_sessions; END $$",
    "CALL checkpoint()",
    "PREPARE x AS DELETE FROM agno_sessions",
    "EXECUTE x",
    "GRANT ALL ON agno_sessions TO PUBLIC",
    "LOCK TABLE agno_sessions",
    "",
    "   ",
    ";",
    "-- nothing",
    "/* nothing */",
)

# Queries by their form, which reach for files, settings, other connections or code.
REACHES = {
    "duckdb": (
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_csv_auto('{file}')",
        "SELECT * FROM read_json('{file}')",
        "SELECT * FROM read_blob('{file}')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM sniff_csv('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM '{file}'",
        "FROM '{file}'",
        "SELECT * FROM '{folder}/*.csv'",
        "SELECT * FROM query_table('{file}')",
        "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
        "SELECT * FROM query('DELETE FROM agno_sessions')",
        "SELECT (SELECT content FROM read_text('{file}'))",
        "WITH x AS (SELECT * FROM read_text('{file}')) SELECT * FROM x",
        "SELECT * FROM sqlite_scan('{file}', 'x')",
        "SELECT * FROM postgres_query('host=127.0.0.1', 'SELECT 1')",
        "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE '{folder}/dump'",
        "IMPORT DATABASE '{folder}'",
        "ATTACH '{folder}/other.duckdb' AS other",
        "USE temp",
        "EXPLAIN ANALYZE UPDATE agno_sessions SET user_id = 'me'",
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
        "SELECT * FROM kern_new_rows",
        "SELECT * FROM pandas_frame",
    ),
    "sqlite": (
        "SELECT load_extension('{file}')",
        "SELECT readfile('{file}')",
        "SELECT writefile('{folder}/out', 'x')",
        "SELECT * FROM pragma_user_version(5)",
        "SELECT * FROM pragma_database_list",
        "SELECT edit('x')",
        "SELECT * FROM fsdir('{folder}')",
        "EXPLAIN QUERY PLAN DELETE FROM agno_sessions",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "VACUUM INTO '{folder}/out.db'",
        "ATTACH '{folder}/other.db' AS other",
        "REPLACE INTO agno_sessions (session_id, session_type) VALUES ('x', 'y')",
        "REINDEX",
    ),
    "postgres": (
        "SELECT pg_read_file('{file}')",
        "SELECT pg_read_binary_file('{file}')",
        "SELECT * FROM pg_ls_dir('{folder}')",
        "SELECT pg_stat_file('{file}')",
        "SELECT lo_import('{file}')",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_export(1, '{folder}/out')",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_file_write('{folder}/out', 'x', false)",
        "SELECT query_to_xml('DELETE FROM agno_sessions', true, true, '')",
        "SELECT query_to_xml('SELECT pg_read_file(''{file}'')', true, true, '')",
        "SELECT set_config('role', 'none', true), query_to_xml('SELECT pg_read_file(''{file}'')', true, true, '')",
        (
            "SELECT query_to_xml('SELECT set_' || 'config(''role'', ''none'', true)', true, true, ''), "
            "query_to_xml('SELECT pg_read_file(''{file}'')', true, true, '')"
        ),
        (
            "SELECT query_to_xml('SELECT set_' || 'config(''session_authorization'', ''postgres'', true)', true, true, ''), "
            "query_to_xml('SELECT pg_read_file(''{file}'')', true, true, '')"
        ),
        "SELECT U&\"s\\0065t_config\"('role', 'none', true), query_to_xml('SELECT pg_read_file(''{file}'')', true, true, '')",
        (
            "SELECT b.word FROM ts_stat('SELECT to_tsvector(set_' || 'config(''role'', ''none'', true))') AS a, "
            "LATERAL ts_stat('SELECT to_tsvector(pg_read_file(''{file}'')) WHERE ''' || a.word || ''' <> ''''') AS b"
        ),
        "SELECT set_config('transaction_read_only', 'off', true), query_to_xml('DELETE FROM agno_sessions', true, true, '')",
        "SELECT * FROM dblink('dbname=postgres', 'DELETE FROM agno_sessions') AS x(a text)",
        "SELECT * INTO x FROM sessions",
        "SELECT 1) AS a, (SELECT pg_read_file('{file}')",
        "WITH x AS (DELETE FROM agno_sessions RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO agno_sessions (session_id, session_type) VALUES ('x', 'y') RETURNING *) SELECT * FROM x",
        "SELECT * FROM agno_sessions FOR UPDATE",
        "SELECT nextval('x')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE false OR pg_read_file('{file}') IS NOT NULL",
        "DECLARE x CURSOR FOR SELECT 1",
        "LISTEN x",
        "NOTIFY x",
        "RESET ROLE",
        "SET ROLE postgres",
        "SET TRANSACTION READ WRITE",
        "DISCARD ALL",
    ),
}
REACHES["memory"] = REACHES["duckdb"]


@pytest.fixture
def guarded(store, engine_name, tmp_path):
    """A store with a session, a file that its engine could read, and a way to list the folder of that file."""
    a_session(store, "chat", runs=2)
    if engine_name == "postgres":  # whose server sees its own folder, and not ours

        def query(text: str) -> list[str]:
            with store.engine.connect() as connection:
                return [str(row[0]) for row in connection.exec_driver_sql(text)]

        assert query("SELECT pg_read_file('PG_VERSION')")
        return store, ".", "PG_VERSION", lambda: set(query("SELECT pg_ls_dir('.')")) - {"postmaster.pid"}
    file = tmp_path / "around" / "secret.csv"
    file.parent.mkdir()
    file.write_text("top,secret\n1,2\n")
    return store, file.parent, file, lambda: {path.name for path in file.parent.iterdir()}


def tried(store, query: str) -> str | None:
    """Return what is wrong with the result of a query that must be refused, None if it is refused."""
    try:
        result = store.sql(query)
    except (QueryRefused, QueryFailed):
        return None
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        return f"raised {error!r}"[:300]
    return f"gave {result.to_dict('list')!r}"[:300]


def test_non_query_statements_are_refused(guarded):
    """Writes, transactions, settings, several statements, empty text."""
    store, _, _, listing = guarded
    before, files = all_rows(store), listing()
    wrong = {}
    for query in STATEMENTS:
        if finding := tried(store, query):
            wrong[query] = finding
        now = all_rows(store)
        if now != before:
            wrong[query] = f"changed {[name for name in now if now[name] != before.get(name)]}"
            before = now

    assert wrong == {}
    assert listing() == files
    assert len(load_session(store, "chat").runs) == 2


def test_queries_beyond_the_store_are_refused(guarded, engine_name):
    """Files, folders, extensions, other databases and server settings, in any form."""
    store, folder, file, listing = guarded
    before, files = all_rows(store), listing()
    wrong = {}
    for template in REACHES[engine_name]:
        query = template.format(file=file, folder=folder)
        finding = tried(store, query)
        if finding:
            wrong[template] = finding
        now = all_rows(store)
        if now != before:
            wrong[template] = "changed the database"
            before = now

    assert "\n".join(f"{query}: {finding}" for query, finding in wrong.items()) == ""
    assert listing() == files


@pytest.mark.parametrize(
    "query", ["DELETE FROM agno_sessions", "SELECT 1; DELETE FROM agno_sessions", "COMMIT", "DROP TABLE x"]
)
def test_refusal_names_statement_and_hint(store, query):
    """The error quotes the statement, not the engine; also before the first write."""
    for _ in range(2):
        with pytest.raises(QueryRefused) as caught:
            store.sql(query)
        assert query.split()[0] in str(caught.value)
        assert caught.value.hint
        store.append_run("chat", a_run())


def test_store_stays_usable_after_refusals(guarded):
    """No transaction stays open, no setting or role changes: reading, writing and SQL work."""
    store, _, _, _ = guarded
    for query in (*STATEMENTS, "SELECT no_such FROM sessions", "SELECT 1 / 0", "SELECT * FROM sessions WHERE"):
        try:
            store.sql(query)
        except KernError:
            continue
    store.append_run("chat", a_run())
    store.branch("chat", new_session_id="b")
    run = store.start_run("chat", input="x")
    store.finish_run(run.run_id)

    assert store.sql("SELECT n_runs FROM sessions WHERE session_id = 'chat'").n_runs.tolist() == [4]
    assert len(store.messages_df("chat")) == 12
    store.delete_session("b")


def test_python_variable_is_not_a_table(store_factory, engine_name):
    """DuckDB would otherwise read any DataFrame in scope."""
    import pandas as pd

    lying_around = pd.DataFrame({"secret": [1]})
    store = store_factory()
    a_session(store, "chat", runs=1)
    with pytest.raises(QueryFailed):
        store.sql("SELECT * FROM lying_around")
    assert len(lying_around) == 1


def test_locks_end_with_query(new_postgres_database):
    """An advisory lock of PostgreSQL belongs to the connection, which is pooled."""
    url = new_postgres_database()
    with PostgresDb(url) as store, PostgresDb(url) as other:
        a_session(store, "chat", runs=1)
        try:
            store.sql("SELECT pg_advisory_lock(42) IS NULL AS x")
        except KernError:
            return
        assert other.sql("SELECT pg_try_advisory_xact_lock(42) AS free").free.tolist() == [True]


def test_settings_do_not_leak_between_queries(store_factory, engine_name):
    """A setting that a query changes is reset."""
    store = store_factory()
    a_session(store, "chat", runs=1)
    attempts = {
        "postgres": "SELECT set_config('search_path', 'pg_catalog', false)",
        "duckdb": "SELECT * FROM enable_logging()",
        "memory": "SELECT * FROM enable_profiling()",
        "sqlite": "SELECT * FROM pragma_case_sensitive_like(1)",
    }
    for _ in range(3):
        try:
            store.sql(attempts[engine_name])
        except KernError:
            continue
    assert store.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [1]
    assert len(store.runs_df()) == 1
    store.append_run("chat", a_run())
