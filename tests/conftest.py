"""Shared fixtures: a store of every engine, a real PostgreSQL server, sample data.

`kern_nb` is imported inside fixtures only, because some tests need a fresh import.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import process_guard
import psycopg
import pytest
from hypothesis import settings
from postgres_server import postgres
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kern_nb.db import SessionStore

ENGINES = ("duckdb", "sqlite", "postgres", "memory")
ENGINE_FOLDERS = ("conformance", "db")
# DuckDB in memory is DuckDB without a file: what has to do with connections, transactions, tables and copies of values is
# tested on both, the rest on files.
IN_MEMORY = frozenset(
    f"test_{name}.py"
    for name in (
        "append_cost", "blobs", "changed_tables", "concurrent_answers", "deletes", "export_snapshot", "fork", "history",
        "interrupted_transactions", "interrupts", "latest", "live_runs", "many_writers", "put_run", "requirements",
        "round_trip", "run_deletes", "schema_guard", "session_rewinds", "session_state", "statement_cache", "transactions",
        "user_isolation", "workloads",
    )
)  # fmt: skip
# The engine above the store, where all engines behave alike: the fastest for small stores.
FAST_ENGINE = "sqlite"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# The duration of an example that writes to a store depends on the disk.
settings.register_profile("stores", deadline=None)
settings.load_profile("stores")


process_guard.start()
# A shell's background job ignores Ctrl-C, and so would tests of interrupts and the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude the modules and the collected tests from garbage collection: it takes a tenth of the processor time."""
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server of a test run. The run fails without it: PostgreSQL is never skipped."""
    with postgres() as url:
        yield url


@contextlib.contextmanager
def postgres_databases(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Create new databases, each with its own URL; all are dropped at the end."""
    url = make_url(postgres_url)
    names: list[str] = []
    with psycopg.connect(postgres_url.replace("+psycopg", "", 1), autocommit=True) as admin:
        # Without the log of the copied pages, which takes a third of the processor time of creating and dropping.
        strategy = "STRATEGY file_copy" if admin.info.server_version >= 150_000 else ""

        def create() -> str:
            name = f"kern_{secrets.token_hex(6)}"
            # template0 is never connected to, so copying it never waits.
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {strategy}")
            names.append(name)
            return url.set(database=name).render_as_string(hide_password=False)

        yield create
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # a test may leave connections behind


@pytest.fixture
def new_postgres_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Create new databases, each with its own URL; all are dropped after the test."""
    with postgres_databases(postgres_url) as create:
        yield create


@pytest.fixture(scope="module")
def shared_postgres_database_url(postgres_url: str) -> Iterator[str]:
    """A new database for the tests of a module."""
    with postgres_databases(postgres_url) as create:
        yield create()


@pytest.fixture
def postgres_database_url(new_postgres_database: Callable[[], str]) -> str:
    """A new database for this test."""
    return new_postgres_database()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of the engines once per engine, other tests on the fastest engine.

    Above the store, the tests with the mark `every_engine` are the smoke tests of their folder.
    """
    is_parametrized = any("engine_name" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "engine_name" in metafunc.fixturenames and not is_parametrized:
        folder = metafunc.definition.path.parent.name
        every_engine = folder in ENGINE_FOLDERS or metafunc.definition.get_closest_marker("every_engine")
        if "bridges" in metafunc.definition.path.parts and "KERN_PEERS" not in os.environ:
            every_engine = False  # `make peers` runs them on every engine
        engines = ENGINES if every_engine else (FAST_ENGINE,)
        if metafunc.definition.path.name not in IN_MEMORY:
            engines = tuple(engine for engine in engines if engine != "memory")
        metafunc.parametrize("engine_name", engines, indirect=True, scope="function")


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine under test: duckdb, sqlite, postgres or memory."""
    return request.param


@pytest.fixture
def store_factory(
    engine_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., SessionStore]]:
    """Create stores of the engine under test: `store_factory(name="s", **options)`.

    The same name opens the same file or database again; in memory each store is new. The options go to the
    constructor. All stores are closed after the test.
    """
    from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SqliteDb

    databases: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def create(name: str = "s", **options: object) -> SessionStore:
            if engine_name == "duckdb":
                store = DuckDb(db_file=tmp_path / f"{name}.duckdb", **options)
            elif engine_name == "sqlite":
                store = SqliteDb(db_file=tmp_path / f"{name}.db", **options)
            elif engine_name == "postgres":
                if name not in databases:
                    databases[name] = request.getfixturevalue("new_postgres_database")()
                store = PostgresDb(db_url=databases[name], **options)
            else:
                store = InMemoryDb(**options)
            stack.callback(store.close)
            return store

        yield create


@pytest.fixture
def store(store_factory: Callable[..., SessionStore]) -> SessionStore:
    """An empty store of the engine under test."""
    return store_factory()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SessionStore]:
    """An empty store, for what does not depend on the engine."""
    from kern_nb.db import SqliteDb

    with SqliteDb(tmp_path.with_name(f"{tmp_path.name}.db")) as store:  # tests list and import the folder
        yield store


@pytest.fixture(params=[name for name in ENGINES if name != "memory"])
def persistent_target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The target of an empty store that several processes can share."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_database_url")
    return str(tmp_path / {"duckdb": "s.duckdb", "sqlite": "s.db"}[request.param])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Samples of foreign records, which are not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("no sample data: ../shared/data, beside the repository, does not exist")
    return DATA
