"""PostgreSQL tables of Agno, the OpenAI Agents SDK and LangGraph are read by a role that may only read, as files are."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from checkpoint_layouts import LAYOUTS, TABLES, BothRecorder, message, record_threads

import kern_nb
from kern_nb.db import InMemoryDb, open_store
from kern_nb.errors import ReadOnlyStore, UnknownFormat
from kern_nb.foreign import ForeignStore
from kern_nb.magics.magics import KernMagics
from kern_nb.records import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "ingest" / "importers"))

import test_agno as agno_files
import test_openai_agents as openai_agents_files

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")


@contextlib.contextmanager
def reading_role(engine, schema):
    """The URL of a role that may read the tables of a schema, and nothing else."""
    role = f"reader_{uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(sa.text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
        connection.execute(sa.text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"))
    yield engine.url.set(username=role, password=None).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP OWNED BY {role}"))
        connection.execute(sa.text(f"DROP ROLE {role}"))


def dump(engine):
    """All rows of all tables, and the names of all relations."""
    listing = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT LIKE 'pg_%' AND table_schema <> 'information_schema'"
    with engine.connect() as connection:
        names = sorted(map(tuple, connection.execute(sa.text(listing))))
        rows = {
            name: connection.execute(sa.text('SELECT x::text FROM "{}"."{}" x'.format(*name))).all() for name in names
        }
    return {name: sorted(map(tuple, values)) for name, values in rows.items()}


def values(store, *, has_order=True):
    """The rows of all frames; without the ids that depend on the order of the keys in JSON, which JSONB does not keep."""
    rows = {name: getattr(store, name)().to_json(orient="records", date_format="iso") for name in FRAMES}
    if not has_order:
        rows = {name: re.sub(r'~[0-9a-f]{8}(?=")|"(parent_)?run_id":"[^"]+",', "", text) for name, text in rows.items()}
    return {name: json.loads(text) for name, text in rows.items()}


def copy_tables(path, engine, schema, kinds):
    """Copy a SQLite file to a schema; ``kinds`` are the types of some columns."""
    with sqlite3.connect(path) as file, engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        file.row_factory = sqlite3.Row
        for (table,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"):
            rows = [dict(row) for row in file.execute(f'SELECT * FROM "{table}"')]
            columns = [(row["name"], row["type"]) for row in file.execute(f'PRAGMA table_info("{table}")')]
            types = {name: kinds.get(kind, kind) for name, kind in columns}
            names = ", ".join(f"{name} {kind}" for name, kind in types.items())
            connection.execute(sa.text(f"CREATE TABLE {schema}.{table} ({names})"))
            marks = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in types.items())
            for row in rows:
                connection.execute(sa.text(f"INSERT INTO {schema}.{table} VALUES ({marks})"), row)
    file.close()


def check_reading(engine, schema, path, format, *, has_order=True):
    """Attaching, importing and the magic give what an import of the file gives, and the database does not change."""
    before = dump(engine)
    with InMemoryDb() as expected, reading_role(engine, schema) as url:
        expected.ingest(path, progress=False)
        assert not expected.sessions_df().empty
        with open_store(url) as store:
            assert (type(store), store.format, store.report.errors) == (ForeignStore, format, [])
            assert values(store, has_order=has_order) == values(expected, has_order=has_order)
            for session in expected.list_sessions() if has_order else ():
                shown = [repr(kern_nb.show(session.session_id, store=side)) for side in (store, expected)]
                assert shown[0] == shown[1]
            with pytest.raises(ReadOnlyStore):
                store.append_run("mine", Run(input="Hello"))
        with InMemoryDb() as imported:
            kern_nb.attach(imported, name="imported")
            first, again = KernMagics().kern(f"import {url}"), imported.ingest(url, format)
            assert (first.errors, first.sessions > 0, again.errors, again.sessions) == ([], True, [], 0)
            assert values(imported, has_order=has_order) == values(expected, has_order=has_order)
            kern_nb.detach("imported")
    assert dump(engine) == before


@pytest.fixture
def engine(postgres_database_url):
    engine = sa.create_engine(postgres_database_url)
    yield engine
    engine.dispose()


def test_agno(tmp_path, engine):
    agno_files.write_small(tmp_path / "a.db")
    copy_tables(tmp_path / "a.db", engine, "ai", {"JSON": "JSONB"})
    check_reading(engine, "ai", tmp_path / "a.db", "agno")


def test_openai_agents(tmp_path, engine):
    openai_agents_files.write_small(tmp_path / "a.db")
    copy_tables(tmp_path / "a.db", engine, "public", {})
    check_reading(engine, "public", tmp_path / "a.db", "openai_agents")


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "shallow"])
def test_langgraph(tmp_path, engine, layout):
    with engine.begin() as connection:
        recorder = BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS[layout])
        record_threads(recorder)
    check_reading(engine, "public", tmp_path / "c.sqlite", "langgraph", has_order=LAYOUTS[layout].inline != "all")


def test_langgraph_keeps_the_latest_state_only(tmp_path, engine):
    with engine.begin() as connection:
        recorder = BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["shallow"])
        record_threads(recorder)
    with InMemoryDb() as expected, reading_role(engine, "public") as url, open_store(url) as store:
        expected.ingest(tmp_path / "c.sqlite", progress=False)
        assert store.report.errors == []
        sessions = [s.session_id for s in expected.list_sessions() if s.parent_session_id is None]
        assert {s.session_id for s in store.list_sessions()} == set(sessions)
        for name in sessions:
            runs = [
                [[m.content for m in run.messages] for run in side.get_session(name).runs] for side in (store, expected)
            ]
            assert runs[0] == runs[1]


def test_refresh_shows_what_the_program_has_written_since(tmp_path, engine):
    with engine.begin() as connection:
        recorder = BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["3.2, short values in the checkpoint"])
        record_threads(recorder)
    with reading_role(engine, "public") as url, open_store(url) as store:
        before = len(store.messages_df())
        with engine.begin() as recorder.postgres:
            recorder.add("loop", 0, [message("human", "Hello?"), message("ai", "Yes")], thread="new")
        store.refresh()
        assert len(store.messages_df()) == before + 1


def test_tables_of_two_programs_are_read_together(tmp_path, engine):
    openai_agents_files.write_small(tmp_path / "a.db")
    copy_tables(tmp_path / "a.db", engine, "agents", {})
    with engine.begin() as connection:
        record_threads(BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["2.0.10, with task paths"]))
    url = engine.url.render_as_string(hide_password=False)
    with open_store(url) as store, InMemoryDb() as one, InMemoryDb() as both:
        assert store.format == "openai_agents, langgraph"
        both.ingest(tmp_path / "a.db", progress=False)
        both.ingest(tmp_path / "c.sqlite", progress=False)
        assert set(store.sessions_df()["session_id"]) == set(both.sessions_df()["session_id"])
        one.ingest(url, format="langgraph")
        assert set(one.runs_df()["session_id"]) < set(store.runs_df()["session_id"])


def test_what_the_role_may_not_read_is_reported(tmp_path, engine):
    with engine.begin() as connection:
        record_threads(BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["2.0.10, with task paths"]))
    with reading_role(engine, "public") as url, InMemoryDb() as store:
        role = sa.make_url(url).username
        with engine.begin() as connection:
            connection.execute(sa.text(f"REVOKE SELECT ON checkpoint_writes FROM {role}"))
        reasons = [problem.reason for problem in store.ingest(url).errors]
        assert any("checkpoint_writes is missing or may not be read" in reason for reason in reasons)
        assert not store.messages_df().empty
        with engine.begin() as connection:
            connection.execute(sa.text(f"REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM {role}"))
        with pytest.raises(UnknownFormat, match="no tables of a known format"):
            store.ingest(url)
        with pytest.raises(UnknownFormat, match="'llm' is not read from PostgreSQL"):
            store.ingest(url, format="llm")


def test_values_that_are_not_read_lose_only_themselves(tmp_path, engine):
    """A pickle or an encrypted value in one row of the blobs: the messages, or another channel."""
    with engine.begin() as connection:
        record_threads(BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["2.0.10, with task paths"]))
    url = engine.url.render_as_string(hide_password=False)
    change = (
        "UPDATE checkpoint_blobs SET type = :kind WHERE channel = :channel AND checkpoint_ns = '' AND thread_id = 't'"
    )
    cases = (("topic", "pickle", "Channel 'topic'", True), ("messages", "msgpack+aes", "is encrypted", False))
    for channel, kind, reason, is_imported in cases:
        with engine.begin() as connection:
            connection.execute(sa.text(change), {"kind": kind, "channel": channel})
        with InMemoryDb() as store:
            assert reason in str(store.ingest(url).errors)
            sessions = set(store.sessions_df()["session_id"])
            assert ("failed" in sessions, "t" in sessions) == (True, is_imported)


def test_a_store_beside_the_tables(tmp_path, engine):
    with engine.begin() as connection:
        record_threads(BothRecorder(tmp_path / "c.sqlite", connection, LAYOUTS["2.0.10, with task paths"]))
    url = engine.url.render_as_string(hide_password=False)
    before = {name: rows for name, rows in dump(engine).items() if name[1] in TABLES}
    with open_store(url, session_table="kern_sessions") as beside, InMemoryDb() as expected:
        assert not isinstance(beside, ForeignStore)
        beside.ingest(url)
        expected.ingest(tmp_path / "c.sqlite", progress=False)
        assert set(beside.messages_df()["content"]) == set(expected.messages_df()["content"])
    assert {name: rows for name, rows in dump(engine).items() if name[1] in TABLES} == before
