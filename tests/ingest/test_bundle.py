"""Bundles transfer sessions between stores of any engines without loss."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pandas as pd
import pytest
from bundles import chat, exported, fill_store, frames_of, history_of, rows_of

import kern_nb
from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SqliteDb
from kern_nb.records import Message, Requirement, Run


@pytest.fixture
def targets(tmp_path, new_postgres_database):
    """An empty store of each engine."""
    stores = [
        DuckDb(tmp_path / "t.duckdb"),
        SqliteDb(tmp_path / "t.db"),
        PostgresDb(new_postgres_database()),
        InMemoryDb(),
    ]
    with contextlib.ExitStack() as stack:
        for store in stores:
            stack.callback(store.close)
        yield stores


def assert_same_frames(store, other):
    expected_frames, actual_frames = frames_of(store), frames_of(other)
    for name, frame in expected_frames.items():
        pd.testing.assert_frame_equal(actual_frames[name], frame, obj=name)


@pytest.mark.every_engine
def test_a_bundle_transfers_everything_between_any_two_engines(store, targets, tmp_path):
    """Frames, sessions with all fields, history and files are equal in the other store."""
    path = exported(fill_store(store), tmp_path / "all.json")

    for target in targets:
        report = target.ingest(path)

        assert report.errors == []
        assert (report.sessions, report.skipped) == (7, 0)
        assert_same_frames(store, target)
        for session_id in store.sessions_df()["session_id"]:
            session = store.get_session(session_id)
            assert repr(target.get_session(session_id).model_dump()) == repr(session.model_dump())
            assert history_of(target, session_id) == history_of(store, session_id)
        assert rows_of(target)["agno_sessions_blobs"] == rows_of(store)["agno_sessions_blobs"]
        assert target.check().problems == []


def test_a_repeated_import_changes_no_row(store, tmp_path):
    """No row changes, in the importing store or in the exporting one."""
    path = exported(fill_store(store), tmp_path / "all.json")
    before = rows_of(store)
    report = store.ingest(path)

    assert (report.sessions, report.runs, report.skipped, report.errors) == (0, 0, 7, [])
    assert rows_of(store) == before
    other = InMemoryDb()
    other.ingest(path)
    before = rows_of(other)
    assert other.ingest(path).skipped == 7
    assert rows_of(other) == before


def test_an_exported_import_equals_the_bundle(db, tmp_path):
    """Export after import gives the same file, except for the time in the header."""
    first = exported(fill_store(db), tmp_path / "first.json")
    other = InMemoryDb()
    other.ingest(first)
    second = exported(other, tmp_path / "second.json")

    assert second.read_text().splitlines()[1:] == first.read_text().splitlines()[1:]


def test_a_bundle_is_one_json_document(db, tmp_path):
    """One document with a session per line, readable names and no NULLs; another layout can be imported, too."""
    path = exported(fill_store(db), tmp_path / "all.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    by_id = {record["session"]["session_id"]: record for record in document["records"] if "session" in record}

    assert document["kern_nb_bundle"] == 2
    assert document["exported_by"] == f"kern_nb {kern_nb.__version__}"
    assert by_id["team"]["runs"][1]["messages"][0]["content"] == "member"
    assert len(path.read_text(encoding="utf-8").split("\n")) == len(document["records"]) + 3
    laid_out = tmp_path / "laid-out.json"
    laid_out.write_text(json.dumps(document, indent=2))
    other = InMemoryDb()
    assert other.ingest(laid_out).errors == []
    assert_same_frames(db, other)


def test_only_named_sessions_are_exported(db, tmp_path):
    """Sessions by id or prefix, each once, with only their files."""
    fill_store(db)
    report = kern_nb.export("team", "emp", "team", path=tmp_path / "two.json", store=db, progress=False)
    other = InMemoryDb()
    other.ingest(tmp_path / "two.json")

    assert sorted(other.sessions_df()["session_id"]) == ["empty", "team"]
    assert (report.sessions, report.runs, report.messages, report.tool_calls, report.blobs) == (2, 2, 8, 2, 1)
    assert report.size == (tmp_path / "two.json").stat().st_size
    assert len(rows_of(other)["agno_sessions_blobs"]) == 1


def test_import_ends_open_runs(store, db, tmp_path):
    """A running run is interrupted and its calls are unknown; a paused run stays paused; the session state is stored."""
    store.update_session_state("chat", {"n": 1})
    running = store.start_run("chat", input="go")
    store.append_messages(
        running.run_id, [Message(role="assistant", tool_calls=[{"tool_call_id": "c", "tool_name": "t"}])]
    )
    requirement = Requirement(kind="confirmation", tool_call_id="x")
    store.append_run("chat", Run(input="ask", status="PAUSED", requirements=[requirement]))
    db.ingest(exported(store, tmp_path / "open.json"))
    runs = db.get_session("chat").runs

    assert [run.status for run in runs] == ["INTERRUPTED", "PAUSED"]
    assert db.get_session("chat").session_state == {"n": 1}
    assert runs[0].session_state == {"n": 1}
    assert runs[0].tool_calls[0].status == "unknown"
    assert [r.status for r in runs[1].requirements] == ["pending"]
    assert db.check().problems == []
    assert [run.status for run in store.get_session("chat").runs] == ["RUNNING", "PAUSED"]


def test_a_later_bundle_adds_new_runs(store, db, tmp_path):
    """New runs, the end of open runs, new scores and state are added; local changes stay."""
    path = tmp_path / "chat.json"
    store.append_run("chat", chat("one", session_state={"n": 1}))
    running = store.start_run("chat", input="two")
    db.ingest(exported(store, path))
    db.rename_session("chat", "Mine")
    db.add_score("chat", "taste", 0.5)
    store.append_messages(running.run_id, [Message(role="assistant", content="done")])
    store.finish_run(running.run_id, output="done")
    store.append_run("chat", chat("three", session_state={"n": 3}))
    store.add_score("chat", "reward", 1.0)
    report = db.ingest(exported(store, path))
    session = db.get_session("chat")

    assert report.errors == []
    assert (report.sessions, report.runs, report.messages) == (0, 2, 5)
    assert [run.output for run in session.runs] == ["answer to one", "done", "answer to three"]
    assert [run.status for run in session.runs] == ["COMPLETED"] * 3
    assert session.session_name == "Mine"
    assert session.session_state == {"n": 3}
    assert set(db.scores_df()["name"]) == {"taste", "reward"}
    assert db.ingest(path).skipped == 1


def test_an_earlier_bundle_reverts_nothing(store, tmp_path):
    """Changes since its export stay."""
    store.append_run("chat", chat("one", session_state={"n": 1}))
    path = exported(store, tmp_path / "chat.json")
    store.append_run("chat", chat("two", session_state={"n": 2}))
    before = rows_of(store)

    assert store.ingest(path).skipped == 1
    assert rows_of(store) == before


def test_a_different_session_of_the_same_id_is_refused(store, db, tmp_path):
    """Other runs, a diverged run or another branch point: reported, and nothing is written."""
    for session_id in ("chat", "mine", "base"):
        db.append_run(session_id, chat("one"))
    db.branch("base", after=0, new_session_id="fork")
    path = exported(db, tmp_path / "all.json")
    store.append_run("chat", chat("something else"))
    store.ingest(exported(db, tmp_path / "mine.json", "mine"))
    store.append_run("mine", chat("here"))
    db.append_run("mine", chat("there"))
    store.append_run("fork", chat("no branch"))
    before = rows_of(store)
    report = store.ingest(exported(db, path))

    assert [(p.line, p.reason.split(" is not imported: ")[1]) for p in report.errors] == sorted(
        [
            (_line_of(path, "chat"), "the store has a session with this id whose run 0 differs."),
            (_line_of(path, "fork"), "the store has a session with this id that branches elsewhere."),
            (_line_of(path, "mine"), "the store has a session with this id whose run 1 differs."),
        ]
    )
    after = rows_of(store)
    own_rows = [row for row in after["agno_sessions_runs"] if row[0] != "base"]
    assert own_rows == before["agno_sessions_runs"]


def _line_of(path, session_id):
    start = f'{{"session": {{"session_id": "{session_id}"'
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(start))


def test_a_session_with_runs_of_another_session_is_refused(store, tmp_path):
    """Its run ids belong to a stored session: it is reported and not imported."""
    store.append_run("chat", chat("one"))
    path = exported(store, tmp_path / "chat.json")
    path.write_text(path.read_text().replace('"session_id": "chat"', '"session_id": "copy"'))
    report = store.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert "as chat/0" in report.errors[0].reason
    assert list(store.sessions_df()["session_id"]) == ["chat"]


def test_a_folder_may_mix_bundles_and_other_formats(store, tmp_path):
    """The format of each file is detected from its content."""
    db = InMemoryDb()
    db.append_run("bundled", chat("one"))
    (tmp_path / "in").mkdir()
    exported(db, tmp_path / "in" / "b.json")
    (tmp_path / "in" / "a.jsonl").write_text(json.dumps({"id": "a", "messages": [{"role": "user", "content": "x"}]}))
    (tmp_path / "in" / "c.jsonl").write_text(json.dumps({"id": "c", "messages": [{"role": "user", "content": "x"}]}))
    report = store.ingest(tmp_path / "in")

    assert report.errors == []
    assert sorted(store.sessions_df()["session_id"]) == ["a", "bundled", "c"]


def test_export_and_import_use_bounded_memory(tmp_path):
    """40 MB in sessions of 400 kB need the memory of a few sessions."""
    store = SqliteDb(tmp_path / "large.db")
    text = "x" * 100_000
    for n in range(100):
        store.append_run(f"s{n:03}", Run(messages=[Message(role="user", content=f"{i} {text}") for i in range(4)]))
    tracemalloc.start()
    try:
        path = exported(store, tmp_path / "large.json")
        to_export = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        other = SqliteDb(tmp_path / "other.db")
        assert other.ingest(path).sessions == 100
        to_import = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert path.stat().st_size > 40_000_000
    assert to_export < 20_000_000
    assert to_import < 35_000_000
    store.close()
    other.close()
