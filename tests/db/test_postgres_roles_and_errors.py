"""PostgreSQL with restricted roles, limits and server errors: SQL stays read-only, and every error is a KernError."""

from __future__ import annotations

import secrets
import threading

import psycopg
import pytest
from sqlalchemy import make_url

from kern_nb.db import PostgresDb
from kern_nb.db.columns import FRAMES
from kern_nb.errors import (
    KernError,
    NotAStore,
    QueryFailed,
    QueryRefused,
    ReadOnlyStore,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    UnstorableValue,
)
from kern_nb.records import Message, Run

PASSWORD = "a-pass-word"


@pytest.fixture
def owner(postgres_database_url):
    """A store with a session, opened by the owner of its tables."""
    with PostgresDb(postgres_database_url) as store:
        store.append_run("chat", Run(input="hello", messages=[Message(role="user", content="hello")]))
        yield store


@pytest.fixture
def admin(postgres_database_url, owner):
    """A superuser's connection to the database of the store."""
    with psycopg.connect(postgres_database_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(admin, postgres_database_url):
    """A function that creates a role and returns a store URL for it; ``$role`` in the statements is its name."""
    names: list[str] = []

    def create(attributes: str = "", *statements: str) -> str:
        name = f"kern_{secrets.token_hex(4)}"
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}")
        names.append(name)
        for statement in statements:
            admin.execute(statement.replace("$role", name))
        return (
            make_url(postgres_database_url).set(username=name, password=PASSWORD).render_as_string(hide_password=False)
        )

    yield create
    for name in reversed(names):
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'")
        admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


READER = (
    "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO $role",
    "ALTER ROLE $role SET default_transaction_read_only = on",
)


@pytest.fixture
def reader(role, postgres_database_url):
    """The URL of a role with read-only access, as on a replica."""
    return role("", *(s.replace("{database}", make_url(postgres_database_url).database) for s in READER))


# SQL -----------------------------------------------------------------------------------------------------------------


def test_read_only_role_can_run_sql(reader):
    """All views and a query's own WITH work without temporary views, in a read-only database."""
    with PostgresDb(reader, read_only=True) as store:
        for view, columns in FRAMES.items():
            assert store.sql(f"SELECT * FROM {view}").columns.tolist() == [column.name for column in columns]
        query = "WITH sessions AS (SELECT * FROM runs) SELECT s.input FROM sessions AS s JOIN messages USING (run_id)"
        assert store.sql(query).input.tolist() == ["hello"]
        assert store.sql("SELECT count(*) AS n FROM runs WHERE input = $text", {"text": "hello"}).n.tolist() == [1]
        assert len(store.messages_df()) == 1
        assert store.get_session("chat") is not None


REACHES = (
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT * FROM pg_authid",
    "SELECT rolpassword FROM pg_catalog.pg_authid",
    "SELECT set_config('role', 'postgres', true)",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SELECT pg_terminate_backend({pid})",
    "SELECT pg_cancel_backend({pid})",
    "SELECT count(*) FROM pg_stat_activity WHERE pg_terminate_backend(pid)",
    "SELECT public.by_the_owner()",
    "SELECT by_the_owner()",
    "SELECT 1 OPERATOR(public.=) 1",
)


@pytest.mark.parametrize(
    "attributes",
    [
        "SUPERUSER",
        "IN ROLE postgres",
        "NOINHERIT IN ROLE postgres",
        "IN ROLE pg_read_server_files, pg_read_all_data",
        "",
    ],
)
def test_no_role_reads_beyond_the_views(role, admin, attributes):
    """A superuser, a member of one, a reader of server files, and a plain role."""
    admin.execute("CREATE FUNCTION public.by_the_owner() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    url = role(attributes, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO $role")
    with PostgresDb(url) as store, psycopg.connect(url.replace("+psycopg", "", 1)) as other:
        assert store.sql("SELECT input FROM runs").input.tolist() == ["hello"]
        for query in REACHES:
            with pytest.raises((QueryRefused, QueryFailed)):
                store.sql(query.format(pid=other.info.backend_pid))
        assert other.execute("SELECT 1").fetchone() == (1,)
        assert store.sql("SELECT input FROM runs").input.tolist() == ["hello"]


def test_functions_of_other_schemas_do_not_shadow_builtins(role, admin):
    """A function or operator with a better match of argument types is not called."""
    admin.execute(
        "CREATE FUNCTION public.upper(character varying) RETURNS text LANGUAGE sql AS $$ SELECT 'other' $$;"
        "CREATE FUNCTION public.never(text, character varying) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR public.~ (FUNCTION = public.never, LEFTARG = text, RIGHTARG = character varying)"
    )
    with PostgresDb(role("SUPERUSER")) as store:
        result = store.sql("SELECT upper('a'::varchar) AS u, count(*) AS n FROM runs WHERE input ~ 'hello'::varchar")
        assert result.iloc[0].tolist() == ["A", 1]


def test_view_in_place_of_a_table_is_refused(owner, admin, postgres_database_url):
    """The functions of its owner would run with the rights of the reader."""
    admin.execute("ALTER TABLE agno_sessions_scores RENAME TO hidden")
    admin.execute("CREATE VIEW agno_sessions_scores AS SELECT * FROM hidden")
    with PostgresDb(postgres_database_url) as store:
        for use in (
            store.sessions_df,
            lambda: store.append_run("chat", Run()),
            lambda: store.sql("SELECT * FROM scores"),
        ):
            with pytest.raises(NotAStore, match="agno_sessions_scores"):
                use()


# Errors --------------------------------------------------------------------------------------------------------------


def failure(call) -> KernError:
    """Return the KernError of a call after checking that it names the store, has a hint and contains no password."""
    with pytest.raises(KernError) as caught:
        call()
    error = caught.value
    assert error.hint
    assert len(error._render_traceback_()) == 2
    assert PASSWORD not in f"{error} {error.hint}"
    return error


def test_missing_privilege_is_named(role, admin):
    """Reading, writing and creating tables."""
    with PostgresDb(role()) as store:
        error = failure(store.list_sessions)
        assert type(error) is StoreUnavailable
        assert "permission denied" in str(error)
        assert "GRANT SELECT" in error.hint
    with PostgresDb(role("", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO $role")) as store:
        for write in (lambda: store.append_run("chat", Run()), lambda: store.delete_session("chat")):
            error = failure(write)
            assert type(error) is ReadOnlyStore
            assert "GRANT INSERT" in error.hint
        assert len(store.list_sessions()) == 1
    with PostgresDb(role("", "GRANT SELECT ON kern_schema TO $role"), session_table="other") as store:
        error = failure(lambda: store.append_run("chat", Run()))
        assert type(error) is ReadOnlyStore
        assert "db_schema" in error.hint


def test_write_to_read_only_server_raises_read_only_store(role):
    """SQLSTATE 25006, as on a replica."""
    url = role("", "GRANT ALL ON ALL TABLES IN SCHEMA public TO $role", READER[-1])
    with PostgresDb(url) as store:
        error = failure(lambda: store.append_run("chat", Run()))
        assert type(error) is ReadOnlyStore
        assert "read-only" in str(error)


def test_table_changed_by_others_raises_store_unavailable(owner, admin):
    """A table is dropped, or loses a column."""
    admin.execute("ALTER TABLE agno_sessions_messages DROP COLUMN content")
    assert type(failure(lambda: owner.get_session("chat"))) is StoreUnavailable
    assert type(failure(owner.messages_df)) is StoreUnavailable
    assert (
        type(failure(lambda: owner.append_run("chat", Run(messages=[Message(role="user", content="x")]))))
        is StoreUnavailable
    )
    admin.execute("DROP TABLE agno_sessions_runs")
    for use in (lambda: owner.get_session("chat"), owner.runs_df, lambda: owner.append_run("chat", Run())):
        error = failure(use)
        assert type(error) is StoreUnavailable
        assert "Attach it again" in error.hint


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("53100", StoreFull), ("53200", StoreUnavailable), ("53300", StoreBusy), ("57014", StoreBusy), ("57P01", StoreUnavailable),
        ("57P03", StoreUnavailable), ("25006", ReadOnlyStore), ("25P03", StoreUnavailable), ("58030", StoreUnavailable),
        ("XX001", StoreUnavailable), ("XX000", StoreUnavailable), ("22021", UnstorableValue), ("54000", UnstorableValue),
        ("42501", ReadOnlyStore), ("42883", StoreUnavailable), ("23514", StoreBusy), ("23503", StoreBusy), ("0A000", StoreUnavailable),
        ("2F003", StoreUnavailable), ("P0001", StoreUnavailable), ("08006", StoreUnavailable), ("55000", StoreUnavailable),
    ],
)  # fmt: skip
def test_every_class_of_server_errors_is_translated(owner, admin, code, kind):
    """The server raises it during a write: nothing is stored, and the store works again afterwards."""
    admin.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'as it was' USING ERRCODE = '{code}'; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON agno_sessions_runs FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    error = failure(lambda: owner.append_run("other", Run()))
    assert type(error) is kind
    assert "as it was" in str(error)
    assert owner.url in str(error)
    admin.execute("DROP TRIGGER fail ON agno_sessions_runs")
    assert owner.get_session("other") is None
    owner.append_run("other", Run())


def test_terminated_connection_raises_store_error_and_next_call_works(owner, admin):
    """During a read and during a query."""
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"

    def read() -> None:
        with owner.read_connection() as connection:
            admin.execute(ours)
            connection.exec_driver_sql("SELECT 1")

    assert type(failure(read)) is StoreUnavailable
    assert len(owner.runs_df()) == 1
    owner.sql("SELECT 1")
    owner.append_run("chat", Run())


def test_unreachable_server_is_reported_without_password(postgres_database_url):
    """For SQL as well."""
    url = make_url(postgres_database_url).set(port=1, password=PASSWORD).render_as_string(hide_password=False)
    with PostgresDb(url) as store:
        for use in (store.list_sessions, lambda: store.sql("SELECT 1"), lambda: store.append_run("chat", Run())):
            assert type(failure(use)) is StoreUnavailable


def test_wrong_password_or_database_is_reported(postgres_database_url):
    """The error contains the server's message."""
    url = make_url(postgres_database_url).set(database="no_such_database").render_as_string(hide_password=False)
    with PostgresDb(url) as store:
        error = failure(store.list_sessions)
        assert type(error) is StoreUnavailable
        assert "no_such_database" in str(error)


def test_connection_limit_of_role_is_reported(role):
    """SQLSTATE 53300 on connect."""
    url = role("CONNECTION LIMIT 1", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO $role")
    with psycopg.connect(url.replace("+psycopg", "", 1)), PostgresDb(url) as store:
        error = failure(store.list_sessions)
        assert isinstance(error, (StoreBusy, StoreUnavailable))
        assert "too many connections" in str(error)


def test_lock_timeout_names_the_holder(postgres_database_url, admin):
    """An open transaction locks the session: StoreBusy names it after the timeout; then writes succeed."""
    with PostgresDb(postgres_database_url, timeout=0.3) as store:
        with psycopg.connect(postgres_database_url.replace("+psycopg", "", 1), application_name="report") as other:
            other.execute("UPDATE agno_sessions SET user_id = 'me'")
            other.execute("LOCK TABLE agno_sessions_runs IN EXCLUSIVE MODE")
            error = failure(lambda: store.append_run("chat", Run()))
            assert type(error) is StoreBusy
            assert f"session {other.info.backend_pid} of user postgres" in str(error)
            assert "report" in str(error)
            other.rollback()
        store.append_run("chat", Run())
        assert len(store.runs_df()) == 2


def test_exhausted_pool_raises_store_busy(postgres_database_url, owner):
    """The timeout of the pool."""
    with PostgresDb(postgres_database_url, timeout=0.3) as store:
        release = threading.Event()
        ready = threading.Barrier(16)

        def hold() -> None:
            with store.read_connection():
                ready.wait(60)
                release.wait(60)

        threads = [threading.Thread(target=hold) for _ in range(15)]
        for thread in threads:
            thread.start()
        try:
            ready.wait(60)
            assert type(failure(store.list_sessions)) is StoreBusy
        finally:
            release.set()
            for thread in threads:
                thread.join()
        assert len(store.list_sessions()) == 1


# Snapshots -----------------------------------------------------------------------------------------------------------


def test_read_of_several_statements_sees_one_snapshot(owner, postgres_database_url):
    """Concurrent commits are not visible in part, and reading writes nothing."""
    with PostgresDb(postgres_database_url) as other, owner.read_connection() as connection:
        count = "SELECT (SELECT count(*) FROM agno_sessions_runs), (SELECT count(*) FROM agno_sessions_messages)"
        before = connection.exec_driver_sql(count).one()
        other.append_run("chat", Run(messages=[Message(role="user", content="more")]))
        assert connection.exec_driver_sql(count).one() == before
    with owner.read_connection() as connection:
        assert connection.exec_driver_sql(count).one() == (2, 2)
    error = None
    try:
        with owner.read_connection() as connection:
            connection.exec_driver_sql("DELETE FROM agno_sessions")
    except KernError as caught:
        error = caught
    assert type(error) is ReadOnlyStore
