"""One damaged cell: its session raises, all others are readable, and a repair loses nothing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa

from kern_nb.db import SqliteDb
from kern_nb.errors import DamagedRow
from kern_nb.records import Run, Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stress"))

import damaged_cells as cells


@pytest.fixture
def filled(store):
    """A store with two independent sessions, `bad` and `good`."""
    cells.fill(store)
    return store


JSON = ["{broken", '{"a": {"$type": "nope", "value": 1}}']


@pytest.mark.parametrize("value", JSON)
def test_a_damaged_session_raises_and_other_sessions_are_readable(filled, value):
    """The error names the table, the column and the session; lists and frames have the other sessions."""
    assert cells.damage(filled, "sessions", "session_data", value)

    with pytest.raises(DamagedRow, match=r"agno_sessions\.session_data of session 'bad'") as raised:
        filled.get_session("bad")
    assert "check(repair=True)" in raised.value.hint
    listed = {session.session_id: session for session in filled.list_sessions()}
    assert listed["bad"].damaged == ("session_data",)
    assert listed["good"].damaged == ()
    assert listed["good"].session_name == "title of good"
    frame = filled.sessions_df().set_index("session_id")
    assert frame.session_name["good"] == "title of good"
    assert frame.n_runs["bad"] == 2
    assert len(filled.get_session("good").runs) == 2
    assert filled.history("good-branch")


@pytest.mark.parametrize(
    ("table", "column", "name"),
    [
        ("runs", "extra", r"run 0\b"),
        ("messages", "content_json", r"message 1\b"),
        ("tool_calls", "args", "tool call 'c1'"),
    ],
)
def test_the_error_names_the_row(filled, table, column, name):
    """Run, message and tool call: what a person needs to find the row."""
    assert cells.damage(filled, table, column, "{broken")

    with pytest.raises(DamagedRow, match=rf"\.{column} of session 'bad', .*{name}.* is damaged: not JSON"):
        filled.get_session("bad")
    assert len(filled.messages_df("bad")) == 8


@pytest.mark.parametrize("value", ["text", b"\xff\xfe\x00"])
def test_append_after_a_damaged_run_index_names_it(tmp_path, value):
    """In SQLite, whose columns hold any type: the next index is computed from the damaged one. Nothing is written."""
    with SqliteDb(tmp_path / "s.db") as store:
        cells.fill(store)
        assert cells.damage(store, "runs", "run_index", value)
        runs = store.sql("SELECT count(*) AS n FROM runs").n[0]
        for append in (lambda: store.append_run("bad", Run(input="x")), lambda: store.start_run("bad", input="x")):
            with pytest.raises(DamagedRow, match=r"agno_sessions_runs\.run_index of session 'bad'") as raised:
                append()
            assert "check(repair=True)" in raised.value.hint
        assert store.sql("SELECT count(*) AS n FROM runs").n[0] == runs
        assert store.check(repair=True)
        assert store.append_run("bad", Run(input="x")).run_index > 0


@pytest.mark.parametrize("table", ["sessions", "runs", "messages", "tool_calls"])
def test_fractional_time_is_missing_in_frames(tmp_path, table):
    """In SQLite, whose columns hold any type: NA instead of an error of Arrow's."""
    with SqliteDb(tmp_path / "s.db") as store:
        cells.fill(store)
        assert cells.damage(store, table, "created_at", 1.5)
        frame = getattr(store, f"{table}_df")()
        assert frame[frame.session_id == "bad"].created_at.isna().any()
        assert not store.check()


def test_repair_moves_damaged_values_and_a_second_check_is_clean(filled):
    """The damaged value is readable there, and the rest of the row in its table."""
    cells.damage(filled, "sessions", "metadata", '{"tags": [broken')
    report = filled.check()

    assert [(p.kind, p.session_id, p.repaired) for p in report.problems] == [("damaged", "bad", False)]
    assert "agno_sessions.metadata of session 'bad': not JSON" in report.problems[0].detail
    assert filled.damaged_values() == []

    repaired = filled.check(repair=True)

    assert repaired
    [aside] = filled.damaged_values()
    assert (aside.table, aside.column, aside.session_id) == ("agno_sessions", "metadata", "bad")
    assert aside.value == '{"tags": [broken'
    assert f"agno_sessions_damaged now, damage_id {aside.damage_id}" in repaired.problems[0].detail
    assert filled.check().problems == []
    session = filled.get_session("bad")
    assert session.metadata is None
    assert session.session_name == "title of bad"

    filled.delete_session("bad", detach_branches=True)
    assert filled.damaged_values() == []


@pytest.mark.parametrize(
    ("table", "column", "value"), [("runs", "status", "no such"), ("sessions", "created_at", 10**15)]
)
def test_values_outside_a_columns_range_are_damage(filled, table, column, value):
    """An unknown status, a time in the year 300,000: an error for the session, NA in the frame."""
    assert cells.damage(filled, table, column, value)

    with pytest.raises(DamagedRow, match=rf"\.{column} of session 'bad'"):
        filled.get_session("bad")
    frames = filled.sessions_df(), filled.runs_df(), filled.sql(f"SELECT * FROM {table}")
    assert all(repr(frame) for frame in frames)
    if column == "created_at":
        frame = frames[0] if table == "sessions" else frames[1]
        assert frame[frame.session_id == "bad"].created_at.isna().sum() == 1
    assert filled.check(repair=True)
    assert filled.check().problems == []
    assert filled.get_session("bad")


def test_a_blob_with_another_hash_is_refused(filled):
    """Bytes stored under another hash are damage; a repair moves them out."""
    sha256 = filled.put_blob(cells.BLOB)
    cells.damage(filled, "blobs", "content", b"other bytes")

    with pytest.raises(DamagedRow, match=rf"agno_sessions_blobs\.content of file '{sha256}'"):
        filled.get_blob(sha256)
    assert "do not match their hash" in filled.check().problems[0].detail
    assert filled.check(repair=True)
    assert filled.get_blob(sha256) is None
    assert filled.damaged_values()[0].value["content"] == b"other bytes"
    assert filled.check().problems == []


def test_a_cycle_of_parents_raises(store):
    """Three branches in a cycle: reading raises; a repair makes one of them a session without a parent."""
    for name, parent in (("a", "c"), ("b", "a"), ("c", "b"), ("d", "c")):
        store.save_session(Session(session_id=name, created_at=ord(name), parent_session_id=parent, fork_run_index=-1))

    for read in (store.get_session, store.history, store.session_family, store.branch, store.locate):
        with pytest.raises(DamagedRow, match="form a cycle"):
            read("d") if read != store.locate else read("d/0")
    assert [(p.kind, p.session_id) for p in store.check().problems] == [("cycle", "a")]
    assert store.check(repair=True)
    assert store.get_session("d").runs == []
    assert store.check().problems == []


def test_a_branch_without_a_branch_point_inherits_nothing(filled):
    """Without a branch point, the inherited runs are unknown."""
    s = filled.tables.sessions
    filled.write(lambda c: c.execute(s.update().where(s.c.session_id == "bad-branch").values(fork_run_index=None)))

    with pytest.raises(DamagedRow, match=r"fork_run_index of session 'bad-branch'"):
        filled.get_session("bad-branch")
    assert [problem.kind for problem in filled.check().problems] == ["damaged"]
    assert filled.check(repair=True)
    assert filled.get_session("bad-branch").runs == []
    assert {value.column: value.value for value in filled.damaged_values()}["parent_session_id"] == "bad"


def test_a_damaged_requirement_is_skipped_with_a_warning(filled):
    """Requirements of other sessions are listed; listing the session's own raises."""
    cells.damage(filled, "requirements", "args", "{broken")

    with pytest.warns(UserWarning, match=r"requirements\.args of session 'bad-waits'.*left out"):
        assert [r.requirement_id for r in filled.requirements()] == ["good"]
    with pytest.raises(DamagedRow):
        filled.requirements(session_id="bad-waits")


def test_invalid_utf8_is_damage(tmp_path):
    """SQLite stores any bytes as text: NA in a frame, skipped by a search, and the error names the session."""
    store = SqliteDb(db_file=tmp_path / "s.db")
    cells.fill(store)
    assert cells.damage(store, "sessions", "user_id", sa.text("CAST(X'ff41' AS TEXT)"))

    with pytest.raises(
        DamagedRow, match=r"agno_sessions\.user_id of session 'bad' is damaged: expected text, got invalid UTF-8"
    ):
        store.get_session("bad")
    assert store.sessions_df("bad").user_id.isna().all()
    assert len(store.sql("SELECT user_id FROM sessions")) == 6
    assert len(store.list_sessions(name="title")) == 2
    assert store.check(repair=True)
    assert store.damaged_values()[0].value == b"\xffA"
    store.close()


def test_bytes_in_any_sqlite_column_are_damage(tmp_path):
    """One cell of each column at a time: no driver error, no other session affected, no problems after a repair."""
    base = SqliteDb(db_file=tmp_path / "base")
    cells.fill(base)
    base.close()
    result = cells.Result()
    seen = set()
    for table, column, value in cells.damages(base):
        if (table, column) in seen or value != b"\xff\xfe\x00":
            continue
        seen.add((table, column))
        path = tmp_path / f"{table}.{column}"
        path.write_bytes((tmp_path / "base").read_bytes())
        store = SqliteDb(db_file=path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if cells.damage(store, table, column, value):
                cells.probe(store, f"{table}.{column}", table, tmp_path, result, cells.QUICK)
        store.close()

    assert result.problems == []
    assert result.counts["stores"] > 80


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("engine", "every"), [("sqlite", 370), ("duckdb", 410), ("postgres", 410)])
def test_sampled_damage_raises_no_driver_error(engine, every, tmp_path, request):
    """Calls everything public; `tests/stress/damaged_cells.py` does so for all cells."""
    url = request.getfixturevalue("postgres_database_url") if engine == "postgres" else None

    result = cells.run(engine, tmp_path, every=every, first=5, url=url)

    assert result.problems == []
    assert result.counts["reads"] > 50
