"""PostgreSQL: a store's tables are located along the search path, all in one schema."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from kern_nb.db import PostgresDb
from kern_nb.errors import ForeignLayout, StoreNotFound
from kern_nb.records import Run

TABLES = {"agno_sessions", "agno_sessions_runs", "agno_sessions_messages", "agno_sessions_tool_calls", "kern_schema"}


@pytest.fixture
def database(postgres_database_url):
    """A database with the schemas a and b, and a search path."""
    with psycopg.connect(postgres_database_url.replace("+psycopg", "", 1), autocommit=True) as admin:
        admin.execute("CREATE SCHEMA a")
        admin.execute("CREATE SCHEMA b")
        yield Database(postgres_database_url, admin)


class Database:
    def __init__(self, url: str, admin: psycopg.Connection) -> None:
        self.url, self.admin = sa.make_url(url), admin

    def store(self, path: str, **options: object) -> PostgresDb:
        return PostgresDb(self.url.update_query_dict({"options": f"-csearch_path={path}"}), **options)

    def tables(self, schema: str) -> set[str]:
        rows = self.admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
        return {name for (name,) in rows}


def use(store: PostgresDb, inputs: list[str]) -> None:
    """Check that every access path uses the tables of the same schema."""
    assert store.runs_df().input.tolist() == inputs
    assert store.sql("SELECT input FROM runs ORDER BY run_index").input.tolist() == inputs
    assert [run.input for run in store.get_session("chat").runs] == inputs
    assert store.check().problems == []


def test_tables_are_created_in_first_existing_schema(database):
    """As in PostgreSQL, `$user` and unknown schemas are skipped."""
    with database.store('"$user",nowhere,a,b') as store:
        store.append_run("chat", Run(input="hi"))
        use(store, ["hi"])

    assert database.tables("a") >= TABLES
    assert database.tables("b") == database.tables("public") == set()


def test_tables_in_later_schema_are_used(database):
    """`current_schema()` is another schema and stays empty."""
    with database.store("b") as store:
        store.append_run("chat", Run(input="hi"))
    with database.store('"$user",a,b') as store:
        use(store, ["hi"])
        store.append_run("chat", Run(input="again"))
        use(store, ["hi", "again"])

    assert database.tables("a") == set()


def test_tables_in_later_schema_are_used_despite_foreign_tables(database):
    """A foreign table of the same name in an earlier schema is ignored and unchanged."""
    database.admin.execute("CREATE TABLE a.agno_sessions (session_id text, session_type text, session_data text)")
    with database.store("b") as store:
        store.append_run("chat", Run(input="hi"))
    with database.store("a,b") as store:
        store.append_run("chat", Run(input="again"))
        use(store, ["hi", "again"])
    with database.store("a,public") as store, pytest.raises(ForeignLayout, match="Agno 3"):
        store.runs_df()

    assert database.admin.execute("SELECT count(*) FROM a.agno_sessions").fetchone() == (0,)


def test_new_first_schema_does_not_move_tables(database):
    """An open store and a new one continue to use the existing tables."""
    with database.store('"$user",b') as store:
        store.append_run("chat", Run(input="hi"))
        database.admin.execute("CREATE SCHEMA postgres")  # the user's name
        store.close()
        store.append_run("chat", Run(input="again"))
        use(store, ["hi", "again"])
    with database.store('"$user",b') as store:
        use(store, ["hi", "again"])

    assert database.tables("postgres") == set()


def test_second_workload_uses_schema_of_first(database):
    """All workloads of a database share one kern_schema."""
    with database.store("b") as store:
        store.append_run("chat", Run(input="hi"))
    with database.store("a,b", session_table="others") as store:
        assert store.sessions_df().empty
        store.append_run("chat", Run(input="other"))
        use(store, ["other"])

    assert "others_runs" in database.tables("b")
    assert database.tables("a") == set()


def test_two_schemas_have_one_workload_each(database):
    """The schema with this session_table is used, at any position of the path."""
    with database.store("a", session_table="first") as store:
        store.append_run("chat", Run(input="first"))
    with database.store("b", session_table="second") as store:
        store.append_run("chat", Run(input="second"))
    for name in ("first", "second"):
        with database.store("a,b", session_table=name) as store:
            use(store, [name])


def test_db_schema_takes_precedence_over_search_path(database):
    """Reading, writing and SQL use this schema only."""
    with database.store("a") as store:
        store.append_run("chat", Run(input="in a"))
    with database.store("a", db_schema="b") as store:
        assert store.runs_df().empty
        store.append_run("chat", Run(input="in b"))
        use(store, ["in b"])
    with database.store("nowhere", db_schema="b") as store:
        use(store, ["in b"])


@pytest.mark.parametrize("options", [{"path": "nowhere"}, {"path": "a", "db_schema": "nowhere"}])
def test_missing_schema_is_reported(database, options):
    """The error has a hint; no schema is created."""
    with database.store(**options) as store:
        for call in (store.runs_df, lambda: store.append_run("chat", Run(input="hi"))):
            with pytest.raises(StoreNotFound) as caught:
                call()
            assert "schema" in str(caught.value)
            assert "db_schema" in caught.value.hint


def test_unreadable_schemas_are_skipped(database):
    """The search path of a role contains schemas of other users."""
    with database.store("a") as store:
        store.append_run("chat", Run(input="hers"))
    database.admin.execute("CREATE ROLE reader LOGIN")
    try:
        database.admin.execute("GRANT USAGE ON SCHEMA a, b TO reader")
        database.admin.execute("GRANT CREATE ON SCHEMA b TO reader")
        database.url = database.url.set(username="reader")
        with database.store("a,b") as store:
            assert store.runs_df().empty
            store.append_run("chat", Run(input="his"))
            use(store, ["his"])
        with database.store("b") as store:
            use(store, ["his"])
    finally:
        database.admin.execute("DROP OWNED BY reader")
        database.admin.execute("DROP ROLE reader")


def test_view_of_an_extension_is_not_a_foreign_table(database):
    """For example those of pg_stat_statements and PostGIS in `public`."""
    database.admin.execute("CREATE VIEW public.pg_statistics AS SELECT 1 AS n")
    with database.store("public") as store, pytest.raises(ForeignLayout):
        store.runs_df()
    database.admin.execute("ALTER EXTENSION plpgsql ADD VIEW public.pg_statistics")
    with database.store("public") as store:
        store.append_run("chat", Run(input="hi"))
        use(store, ["hi"])
