"""Several hundred statements of people's SQL, on each engine: what reads gives the right values, all else changes nothing.

After each statement the engine's settings are as before, and after each list the tables, the files around and the store.
"""

from __future__ import annotations

import re
import sqlite3

import pytest
from samples import WHEN, a_session, all_rows

from kern_nb.db.sql_functions import DUCKDB, DUCKDB_TABLE_FUNCTIONS, POSTGRES, SQLITE
from kern_nb.errors import KernError, QueryFailed, QueryRefused

# Queries that every engine runs, and the one row that each gives. The store has a session of two runs, each of four
# messages and one tool call.
READING = {
    "SELECT count(*) FROM sessions": [1],
    "SELECT count(*) FROM runs": [2],
    "SELECT count(*) FROM messages": [8],
    "SELECT count(*) FROM tool_calls": [2],
    "SELECT count(*) FROM scores": [1],
    "SELECT count(*) FROM requirements": [0],
    "SELECT n_runs, n_messages, n_tool_calls FROM sessions": [2, 8, 2],
    "SELECT count(*) FROM Runs AS R WHERE r.Run_Index = 0": [1],
    'SELECT count(*) FROM "runs" AS "r" WHERE "r"."run_index" = 0': [1],
    "SELECT count(DISTINCT role) FROM messages": [3],
    "SELECT min(run_index), max(run_index), sum(run_index) FROM runs": [0, 1, 1],
    "SELECT sum(input_tokens) FROM messages": [60],
    "SELECT avg(value) FROM scores": [0.5],
    "SELECT role FROM messages GROUP BY role HAVING count(*) > 2": ["assistant"],
    "SELECT run_index FROM runs ORDER BY run_index DESC LIMIT 1": [1],
    "SELECT run_index FROM runs ORDER BY run_index LIMIT 1 OFFSET 1": [1],
    "SELECT upper(tool_name), lower('ABC'), length('abcd') FROM tool_calls LIMIT 1": ["LOOK_UP", "abc", 4],
    "SELECT substr('abcdef', 2, 3), replace('aXa', 'X', 'b'), trim('  a ')": ["bcd", "aba", "a"],
    "SELECT coalesce(NULL, 1), nullif(1, 1) IS NULL AND 1 = 1": [1, True],
    "SELECT abs(-2), round(1.6), 7 % 4": [2, 2, 3],
    "SELECT CASE WHEN n_runs > 1 THEN 'many' ELSE 'one' END FROM sessions": ["many"],
    "SELECT 'a' || 'b' || 'c'": ["abc"],
    "SELECT CAST('12' AS INTEGER) + 1": [13],
    "SELECT count(*) FROM runs WHERE input LIKE 'chat %'": [2],
    "SELECT count(*) FROM runs WHERE input NOT LIKE '%0' AND output IS NOT NULL": [1],
    "SELECT count(*) FROM messages WHERE role IN ('user', 'tool')": [4],
    "SELECT count(*) FROM messages WHERE message_index BETWEEN 1 AND 2": [4],
    "SELECT count(*) FROM runs r JOIN messages m ON m.run_id = r.run_id": [8],
    "SELECT count(*) FROM runs LEFT JOIN scores USING (session_id)": [2],
    "SELECT count(*) FROM runs r, tool_calls t WHERE t.run_id = r.run_id": [2],
    "SELECT count(*) FROM runs CROSS JOIN sessions": [2],
    "SELECT count(*) FROM (SELECT * FROM messages WHERE role = 'user') AS asked": [2],
    "SELECT (SELECT max(run_index) FROM runs)": [1],
    "SELECT count(*) FROM sessions s WHERE EXISTS (SELECT 1 FROM runs r WHERE r.session_id = s.session_id)": [1],
    "SELECT count(*) FROM runs WHERE run_id IN (SELECT run_id FROM messages WHERE role = 'tool')": [2],
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x": [1],
    "WITH x AS (SELECT 1 AS a), y AS (SELECT a + 1 AS b FROM x) SELECT b FROM y": [2],
    "WITH runs AS (SELECT 7 AS n) SELECT n FROM runs": [7],
    "WITH sessions AS (SELECT * FROM runs) SELECT count(*) FROM sessions": [2],
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT sum(n) FROM c": [15],
    "SELECT count(*) FROM (SELECT 1 AS a UNION SELECT 1 UNION ALL SELECT 2) AS x": [2],
    "SELECT count(*) FROM (SELECT role FROM messages INTERSECT SELECT 'user') AS x": [1],
    "SELECT count(*) FROM (SELECT role FROM messages EXCEPT SELECT 'user') AS x": [2],
    "SELECT max(n) FROM (SELECT row_number() OVER (PARTITION BY run_id ORDER BY message_index) AS n FROM messages) x": [4],
    "SELECT sum(d) FROM (SELECT run_index - lag(run_index, 1, 0) OVER (ORDER BY run_index) AS d FROM runs) AS x": [1],
    "SELECT count(*) FILTER (WHERE role = 'user') FROM messages": [2],
    "SELECT count(*) FROM (VALUES (1), (2), (3)) AS v": [3],
    "SELECT DISTINCT session_id FROM messages": ["chat"],
    "SELECT 1 -- SELECT pg_read_file('x')": [1],
    "SELECT /* enable_logging() */ 1": [1],
    "SELECT 'pg_read_file(1); DROP TABLE x', 'it''s'": ["pg_read_file(1); DROP TABLE x", "it's"],
    'SELECT 1 AS "pg_read_file", 2 AS "a.b(c)"': [1, 2],
    "SELECT count ( * ) FROM\n runs\t;": [2],
}  # fmt: skip

READING_HERE = {
    "duckdb": {
        "FROM runs SELECT count(*)": [2],
        "SELECT * EXCLUDE (b) FROM (SELECT 1 AS a, 2 AS b)": [1],
        "SELECT [x + 1 FOR x IN [1, 2]][2]": [3],
        "SELECT list_sum(list_transform([1, 2], lambda x: x * 2))": [6],
        "SELECT {'a': 1}.a, struct_extract({'b': 2}, 'b')": [1, 2],
        "SELECT input.upper() FROM runs WHERE run_index = 0": ["CHAT 0"],
        "SELECT sum(a) FROM range(4) AS t(a)": [6],
        "SELECT count(*) FROM generate_series(1, 3)": [3],
        "SELECT count(*) FROM unnest([1, 2])": [2],
        "SELECT json_extract_string('{\"a\": \"b\"}', '$.a')": ["b"],
        "SELECT count(*) FROM json_each('[1, 2]')": [2],
        "SELECT first(role ORDER BY message_index) FROM messages": ["user"],
        "SELECT median(run_index), quantile_cont(run_index, 0.5) FROM runs": [0.5, 0.5],
        "SELECT run_index FROM runs QUALIFY row_number() OVER (ORDER BY run_index DESC) = 1": [1],
        "SELECT assistant FROM (PIVOT messages ON role IN ('assistant') USING count(*) GROUP BY session_id)": [4],
        "SELECT count(*) FROM (UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b)": [2],
        "SELECT count(*) FROM (DESCRIBE scores)": [4],
        "SELECT count(*) > 0 FROM (SUMMARIZE runs)": [True],
        "SELECT date_trunc('day', TIMESTAMPTZ '2026-03-01 12:00:00+00') = TIMESTAMPTZ '2026-03-01 00:00:00+00'": [True],
        "SELECT extract(year FROM DATE '2026-03-01'), strftime(DATE '2026-03-01', '%d')": [2026, "01"],
        "SELECT regexp_replace('abc', '[b]', 'x'), regexp_matches('abc', 'b')": ["axc", True],
        "SELECT string_agg(role, ',' ORDER BY role) FROM messages WHERE run_index = 0 AND role <> 'assistant'": ["tool,user"],
        "SELECT count(*) FROM agno_sessions_runs": [2],
        "SELECT count(COLUMNS('run_index')) FROM runs": [2],
        "SELECT arg_max(input, run_index) FROM runs": ["chat 1"],
        "WITH x AS MATERIALIZED (SELECT 1 AS a) FROM x": [1],
        "SELECT 3!, 2 ** 3, 7 // 2, NOT true": [6, 8, 3, False],
    },
    "sqlite": {
        "SELECT json_extract('{\"a\": 2}', '$.a'), '{\"a\": 3}' ->> 'a'": [2, 3],
        "SELECT count(*) FROM json_each('[1, 2]')": [2],
        "SELECT count(*) FROM json_tree('{\"a\": [1]}')": [3],
        "SELECT group_concat(role) FROM messages WHERE run_index = 0 AND role = 'user'": ["user"],
        "SELECT strftime('%Y', '2026-03-01'), date('2026-03-01', '+1 day')": ["2026", "2026-03-02"],
        "SELECT printf('%03d', 7), hex('a'), typeof(1), iif(1, 2, 3)": ["007", "61", "integer", 2],
        "SELECT count(*) FROM agno_sessions_runs": [2],
        "SELECT input GLOB 'chat*' FROM runs WHERE run_index = 0": [1],
        "SELECT instr('abc', 'c'), ifnull(NULL, 4), max(1, 2)": [3, 4, 2],
        "VALUES (5)": [5],
    },
    "postgres": {
        "SELECT count(*)::int FROM runs WHERE input ~ '^chat [0-9]$'": [2],
        "SELECT count(*) FROM generate_series(1, 3) AS g(n)": [3],
        "SELECT ('{\"a\": {\"b\": 1}}'::jsonb -> 'a' ->> 'b')::int": [1],
        "SELECT jsonb_array_length('[1, 2]'), jsonb_typeof('{}')": [2, "object"],
        "SELECT count(*) FROM jsonb_array_elements('[1, 2]') AS e(value)": [2],
        "SELECT x FROM jsonb_to_record('{\"x\": 5}') AS t(x int)": [5],
        "SELECT DISTINCT ON (role) role FROM messages WHERE role = 'user' ORDER BY role, message_index": ["user"],
        "SELECT string_agg(role, ',' ORDER BY role) FROM messages WHERE run_index = 0 AND role <> 'assistant'": ["tool,user"],
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY run_index) FROM runs": [0.5],
        "SELECT date_trunc('day', timestamptz '2026-03-01 12:00:00+00') = timestamptz '2026-03-01 00:00:00+00'": [True],
        "SELECT extract(year FROM date '2026-03-01')::int, to_char(date '2026-03-01', 'DD')": [2026, "01"],
        "SELECT count(*) FROM runs, LATERAL (SELECT 1 AS one) AS l(one)": [2],
        "SELECT (ARRAY[1, 2])[2], array_length(ARRAY[1, 2], 1), cardinality(ARRAY[1])": [2, 2, 1],
        "SELECT pg_catalog.upper('a'), pg_typeof(1)::text, $$it's (pg_read_file(1))$$": ["A", "integer", "it's (pg_read_file(1))"],
        "SELECT E'a\\'b', E'\\\\', $tag$ $$ $tag$": ["a'b", "\\", " $$ "],
        "SELECT 1 /* a /* nested */ pg_sleep(1) */ + 1": [2],
        "SELECT position('b' in 'abc'), substring('abc' from 2 for 1), trim(both 'x' from 'xax')": [2, "b", "a"],
        "SELECT count(*) FROM (SELECT role FROM messages GROUP BY ROLLUP (role)) AS r": [4],
        "SELECT bool_and(run_index >= 0), every(true), regexp_replace('abc', 'b', 'x') FROM runs": [True, True, "axc"],
        "SELECT width_bucket(5, 0, 10, 2), greatest(1, 2), least(1, 2)": [2, 2, 1],
        "SELECT to_tsvector('simple', 'a b') @@ to_tsquery('simple', 'a')": [True],
        "TABLE kern_x": None,  # no such table: an error of ours
        "SELECT count(*) FROM messages TABLESAMPLE system (100)": None,  # only of real tables
    },
}  # fmt: skip
READING_HERE["memory"] = READING_HERE["duckdb"]
del (
    READING_HERE["postgres"]["TABLE kern_x"],
    READING_HERE["postgres"]["SELECT count(*) FROM messages TABLESAMPLE system (100)"],
)

# What must not be run, on any engine: by its form.
_WRITES = (
    "DELETE FROM agno_sessions", "UPDATE agno_sessions SET user_id = 'x'", "DROP TABLE agno_sessions_runs",
    "CREATE TABLE x AS SELECT 1 AS a", "INSERT INTO agno_sessions (session_id, session_type) VALUES ('x', 'agent')",
    "CREATE TEMP VIEW sessions AS SELECT 1 AS a", "SET x = 1", "ATTACH '{file}' AS x", "PREPARE x AS SELECT 1",
)  # fmt: skip
_FORMS = (
    "{write}", "({write})", "EXPLAIN {write}", "EXPLAIN ANALYZE {write}", "EXPLAIN (ANALYZE) {write}", "/* */ {write}",
    "SELECT 1; {write}", "{write}; SELECT 1", "WITH x AS (SELECT 1 AS a) {write}", "WITH x AS ({write}) SELECT 1",
    "SELECT * FROM ({write}) AS x", "SELECT 1) AS a; {write}; --",
)  # fmt: skip
HOSTILE = [form.format(write=write) for write in _WRITES for form in _FORMS] + [
    "SELECT * FROM kern_schema_x", "SELECT * FROM main.kern_x", "SELECT no_such_function(1)", "SELECT * FROM no_such(1)",
    "SELECT * FROM information_schema.tables", "SELECT * FROM pg_catalog.pg_class", "SELECT * FROM sqlite_master",
    "SELECT * FROM pg_settings", "SELECT current_setting('x')", "SELECT \x00 1", "SELECT '\ud800'",
]  # fmt: skip

_SETTINGS = ("default_order = 'DESC'", "default_collation = 'nocase'", "lock_configuration = false", "memory_limit = '1GB'",
             "threads = 1", "enable_external_access = true", "TimeZone = 'Asia/Tokyo'", "search_path = 'temp'")  # fmt: skip
HOSTILE_HERE = {
    "duckdb": [
        *(form.format(setting) for setting in _SETTINGS for form in ("SET {}", "SET GLOBAL {}", "EXPLAIN ANALYZE SET {}")),
        "EXPLAIN ANALYZE RESET threads", "EXPLAIN ANALYZE SET VARIABLE x = 1", "EXPLAIN ANALYZE PRAGMA enable_profiling",
        "SELECT * FROM enable_logging('QueryLog', storage = 'stdout')", "CALL enable_logging('QueryLog')",
        "EXPLAIN ANALYZE CALL enable_logging()", "SELECT (SELECT count(*) FROM enable_logging())",
        "WITH x AS (FROM enable_logging()) SELECT 1", "SELECT 1 WHERE EXISTS (FROM force_checkpoint())",
        "SELECT 1 ORDER BY (SELECT count(*) FROM duckdb_secrets())", "SELECT 1 LIMIT (SELECT count(*) FROM glob('*'))",
        "SELECT * FROM (VALUES ((SELECT content FROM read_text('{file}'))))", "PIVOT '{file}' ON a IN (1) USING count(*)",
        "SELECT list_transform([1], lambda x: write_log('a'))", "SELECT system.main.write_log('a')",
        "SELECT 'a'.write_log()", "SELECT write_log('a') OVER ()", "SELECT count(*) FILTER (WHERE write_log('a') IS NULL)",
        "SELECT getvariable('x')", "SELECT nextval('x')", "SELECT sleep_ms(1)", "SELECT current_setting('threads')",
        "SELECT getenv('HOME')", "SELECT json_serialize_sql('SELECT 1')", "FROM json_execute_serialized_sql('{{}}')",
        "DESCRIBE '{file}'", "SUMMARIZE '{file}'", "SHOW DATABASES", "SHOW ALL TABLES", "FROM duckdb_settings()",
        "FROM duckdb_databases", "FROM sqlite_master", "FROM system.main.duckdb_views()", "FROM temp.main.sessions",
        "FROM kern_store.main.agno_sessions", "FROM memory.main.agno_sessions", "FROM query('SELECT 1')",
        "FROM query_table('sessions')", "FROM seq_scan('x')", "FROM arrow_scan(1, 2, 3)", "FROM pandas_scan(1)",
        "FROM histogram('sessions', 'n_runs')", "FROM '{file}'", "FROM read_csv('{file}')", "FROM sniff_csv('{file}')",
        "PIVOT messages ON role USING count(*)", "WITH a AS (FROM evil), evil AS (SELECT 1) FROM a",
    ],
    "sqlite": [
        "PRAGMA journal_mode", "PRAGMA trusted_schema = ON", "PRAGMA writable_schema = ON", "EXPLAIN PRAGMA user_version = 1",
        "SELECT * FROM pragma_table_info('agno_sessions')", "SELECT * FROM pragma_user_version(7)", "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage", "SELECT * FROM sqlite_stmt", "SELECT * FROM temp.sqlite_master",
        "SELECT sqlite_log(1, 'x')", "SELECT load_extension('{file}')", "SELECT fts3_tokenizer('x', x'00')",
        "SELECT last_insert_rowid()", "SELECT changes()", "SELECT sqlite_compileoption_get(1)", "SELECT readfile('{file}')",
        "SELECT writefile('{file}', 'x')", "SELECT edit('x')", "SELECT * FROM fts5vocab", "SELECT rtreecheck('x')",
        "SELECT 1 WHERE load_extension('x') IS NULL", "SELECT count(*) FROM runs GROUP BY sqlite_log(1, 'x')",
        "VACUUM INTO '{file}.copy'", "DETACH main", "REINDEX", "ANALYZE", "SAVEPOINT x", "END",
        "SELECT * FROM json_each(load_extension('x'))", "SELECT max(sqlite_log(1, 'x')) OVER () FROM runs",
    ],
    "postgres": [
        "SET ROLE postgres", "SHOW ALL", "SELECT * FROM pg_authid", "SELECT * FROM pg_catalog.pg_authid", "TABLE pg_shadow",
        'SELECT * FROM "pg_authid"', "SELECT * FROM pg_stat_activity", "SELECT * FROM pg_hba_file_rules",
        "SELECT (SELECT rolpassword FROM pg_authid LIMIT 1)", "SELECT * FROM public.agno_sessions",
        "SELECT * FROM agno_sessions", "SELECT * FROM postgres.public.agno_sessions", "SELECT * FROM information_schema.columns",
        "SELECT pg_read_file('PG_VERSION')", "SELECT pg_catalog.pg_read_file('PG_VERSION')",
        'SELECT "pg_read_file"(\'PG_VERSION\')', 'SELECT pg_catalog."pg_read_file"(\'PG_VERSION\')',
        "SELECT PG_READ_FILE /* */ ('PG_VERSION')", "SELECT pg_read_file -- x\n ('PG_VERSION')",
        "SELECT DISTINCT ON (role) pg_read_file('PG_VERSION') FROM messages", "SELECT 1 LIMIT length(pg_read_file('PG_VERSION'))",
        "SELECT * FROM (VALUES (pg_read_file('PG_VERSION')), ('')) AS v", "SELECT * FROM ROWS FROM (pg_ls_dir('.')) AS d",
        "SELECT 1 FROM pg_ls_dir('.') d", "SELECT count(*) FILTER (WHERE pg_read_file('PG_VERSION') <> '') FROM runs",
        "SELECT sum(1) OVER (ORDER BY pg_read_file('PG_VERSION')) FROM runs", "SELECT 1 ORDER BY pg_sleep(0)",
        "SELECT E'\\'' || pg_read_file('PG_VERSION') || E'\\''", "SELECT $$'$$ || pg_read_file('PG_VERSION') || $$'$$",
        "SELECT $a$ $$ $a$ || pg_read_file('PG_VERSION')", "SELECT 'x' || /* ' */ pg_read_file('PG_VERSION') /* ' */",
        "SELECT /* /* */ ' */ pg_read_file('PG_VERSION') --'", "SELECT E'a'\n'\\'' || pg_read_file('PG_VERSION') || '",
        "SELECT U&\"pg\\005fread_file\"('PG_VERSION')", "SELECT u&'a'", "SELECT 'a'::regclass, pg_terminate_backend(1)",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity", "SELECT set_config('role', 'postgres', false)",
        "SELECT set_config('lock_timeout', '0', false)", "SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_lock(1)",
        "SELECT query_to_xml('SELECT 1', true, true, '')", "SELECT table_to_xml('pg_authid', true, true, '')",
        "SELECT database_to_xml(true, true, '')", "SELECT * FROM ts_stat('SELECT 1')", "SELECT ts_rewrite('a'::tsquery, 'SELECT 1')",
        "SELECT lo_import('/etc/passwd')", "SELECT lo_export(1, '/tmp/x')", "SELECT nextval('x')", "SELECT pg_notify('a', 'b')",
        "SELECT txid_current()", "SELECT pg_export_snapshot()", "SELECT pg_logical_emit_message(true, 'a', 'b')",
        "SELECT pg_create_physical_replication_slot('x')", "SELECT pg_switch_wal()", "SELECT pg_reload_conf()",
        "SELECT pg_stat_reset()", "SELECT pg_backup_start('x')", "SELECT pg_promote()", "SELECT pg_log_backend_memory_contexts(1)",
        "SELECT public.evil()", "SELECT 1 OPERATOR(public.+) 2", "SELECT NULL::public.evil", "SELECT CAST(1 AS public.evil)",
        "SELECT public.evil '1'", "SELECT * FROM pg_temp.x", "SELECT * FROM dblink('', 'SELECT 1') AS t(a int)",
        "SELECT 1 INTO x", "SELECT * FROM public.agno_sessions FOR UPDATE", "SELECT 1) AS a, (SELECT 2",
        "SELECT 1) AS a FOR SHARE; --", "WITH x AS (DELETE FROM public.agno_sessions RETURNING *) SELECT * FROM x",
        "MERGE INTO agno_sessions USING runs ON true WHEN MATCHED THEN DELETE", "VALUES (pg_backend_pid())",
        "SELECT has_table_privilege('pg_authid', 'SELECT')", "SELECT inet_server_addr()", "SELECT pg_sleep(100)",
    ],
}  # fmt: skip
HOSTILE_HERE["memory"] = HOSTILE_HERE["duckdb"]


def refused(store, statement: str) -> str | None:
    """Return what is wrong with the result of a statement that must be refused, None if it is refused."""
    try:
        result = store.sql(statement)
    except (QueryRefused, QueryFailed):
        return None
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        return f"{statement!r} raised {error!r}"[:300]
    return f"{statement!r} gave {result.to_dict('list')!r}"[:300]


def settings_of(store, engine_name: str) -> list:
    """Return the settings of the store's connections."""
    queries = {
        "postgres": "SELECT name, setting FROM pg_settings WHERE name NOT IN ('transaction_isolation', 'transaction_read_only')",
        "sqlite": "SELECT trusted_schema, user_version, journal_mode FROM pragma_trusted_schema, pragma_user_version, "
        "pragma_journal_mode",
    }
    # An idle file is closed; opened again by a reader, it has all processors, and one if a writer opens it.
    of_opener = "('threads', 'worker_threads', 'write_buffer_row_group_memory_limit')"
    query = queries.get(engine_name, f"SELECT name, value FROM duckdb_settings() WHERE name NOT IN {of_opener}")
    with store.connect() as connection:
        rows = connection.exec_driver_sql(query).all()
    # DuckDB closes an idle file and opens it again with a new spill folder: only the folder's random suffix may differ.
    return sorted(
        tuple(re.sub(r"(/kern_nb-\d+/\d+-)[0-9a-f]{8}\b", r"\1*", str(value)) for value in row) for row in rows
    )


@pytest.fixture
def chat(store):
    """A store with a session of two runs and a score."""
    a_session(store, "chat", runs=2, created_at=WHEN)
    store.add_score("chat", "reward", 0.5)
    return store


def test_select_statements_return_expected_values(chat, engine_name):
    """Every form of SELECT: joins, windows, WITH, subqueries, VALUES, text that looks like code."""
    wrong = []
    for statement, expected in (READING | READING_HERE[engine_name]).items():
        try:
            row = chat.sql(statement).iloc[0].tolist()
        except Exception as error:  # noqa: BLE001 - reported with its statement
            row = [repr(error)[:200]]
        if row != expected:
            wrong.append(f"{statement}: {row}")

    assert "\n".join(wrong) == ""


def test_hostile_statements_change_nothing(chat, engine_name, tmp_path):
    """Writes in all forms, settings, files, other relations, code hidden in quotes and comments."""
    file = tmp_path / "around" / "secret.csv"
    file.parent.mkdir()
    file.write_text("a,b\n1,2\n")
    before, settings = all_rows(chat), settings_of(chat, engine_name)
    wrong = []
    for template in HOSTILE + HOSTILE_HERE[engine_name]:
        statement = template.replace("{file}", str(file))
        wrong += filter(None, [refused(chat, statement)])
        if (now := settings_of(chat, engine_name)) != settings:
            wrong.append(f"{statement!r} changed {set(now) ^ set(settings)}"[:300])
            settings = now

    assert "\n".join(wrong) == ""
    assert all_rows(chat) == before
    assert [path.name for path in file.parent.iterdir()] == ["secret.csv"]
    assert chat.sql("SELECT n_runs FROM sessions").n_runs.tolist() == [2]


@pytest.mark.parametrize("engine_name", ["duckdb"])
def test_unlisted_functions_of_duckdb_are_refused(chat):
    """All functions of the installed version that are not listed."""
    with chat.connect() as connection:
        functions = connection.exec_driver_sql(
            "SELECT DISTINCT function_name, function_type FROM duckdb_functions()"
        ).all()
    tables = {name for name, kind in functions if kind in ("table", "table_macro")}
    pragmas = {name for name, kind in functions if kind == "pragma"}
    scalars = {name for name, _ in functions if name[0].isalpha()} - tables - pragmas
    statements = [f"FROM {name}('sessions')" for name in sorted((tables | pragmas) - DUCKDB_TABLE_FUNCTIONS)]
    statements += [f'SELECT "{name}"(1)' for name in sorted(scalars) if name.lower() not in DUCKDB]
    statements += [f"PRAGMA {name}" for name in sorted(pragmas)]

    assert [finding for statement in statements if (finding := refused(chat, statement))] == []
    assert len(statements) > 200


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_unlisted_functions_of_sqlite_are_refused(chat):
    """Functions, modules and pragmas of the installed version."""
    with sqlite3.connect(":memory:") as connection:
        functions = {name for (name,) in connection.execute("SELECT name FROM pragma_function_list")} - SQLITE
        modules = {name for (name,) in connection.execute("SELECT name FROM pragma_module_list")}
        pragmas = {name for (name,) in connection.execute("SELECT name FROM pragma_pragma_list")}
    connection.close()
    statements = [f"SELECT {name}(1)" for name in functions]
    statements += [f"SELECT * FROM {name}" for name in modules - {"json_each", "json_tree"}]
    statements += [f"SELECT * FROM pragma_{name}" for name in pragmas] + [f"PRAGMA {name}" for name in pragmas]

    assert [finding for statement in statements if (finding := refused(chat, statement))] == []
    assert len(statements) > 100


@pytest.mark.parametrize("engine_name", ["postgres"])
def test_unlisted_functions_of_postgres_are_refused(chat):
    """Functions of the server's catalog that are volatile or the server's own, and all its tables and views."""
    with chat.connect() as connection:
        names = connection.exec_driver_sql(
            "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace "
            r"AND (provolatile = 'v' OR proname LIKE 'pg\_%%')"
        ).scalars()
        functions = [name for name in names if name not in POSTGRES]
        relations = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')"
        ).scalars()
        statements = [f"SELECT {name}(1)" for name in functions] + [f"SELECT * FROM {name}" for name in relations]

    assert [finding for statement in statements if (finding := refused(chat, statement))] == []
    assert len(statements) > 500


def test_result_larger_than_memory_is_refused(chat, engine_name, monkeypatch):
    """Once the limit is exceeded: the process and the store survive."""
    monkeypatch.setattr("kern_nb.db.user_sql._MIN_RESULT_BYTES", 1_000_000)
    monkeypatch.setattr("kern_nb.db.user_sql.psutil.virtual_memory", lambda: type("Memory", (), {"available": 0}))
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, 'some text' AS t FROM c"
    if engine_name in ("duckdb", "memory"):
        endless = "SELECT range, 'some text' FROM range(1000000000000)"

    with pytest.raises(QueryFailed, match="larger than 1 MB"):
        chat.sql(endless)
    assert len(chat.sql("SELECT * FROM messages")) == 8


def test_sql_errors_contain_no_password(postgres_database_url):
    """The server's message is passed on without the password."""
    from kern_nb.db import PostgresDb

    url = postgres_database_url.replace("postgres@", "postgres:s3cret-word@", 1)
    with PostgresDb(url) as store:
        a_session(store, "chat", runs=1)
        with pytest.raises(KernError) as caught:
            store.sql("SELECT 's3cret-word'::int")
        assert "s3cret-word" not in str(caught.value)
