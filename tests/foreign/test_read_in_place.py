"""Databases of other programs, attached: their sessions are read, and not a byte of them changes."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kern_nb
from kern_nb.db import InMemoryDb, open_store
from kern_nb.errors import ForeignLayout, ReadOnlyStore, StoreUnavailable
from kern_nb.foreign import ForeignStore
from kern_nb.records import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "ingest"))

from small_files import BINARY_FILES

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")

RESPONSES = """CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT,
    options_json TEXT, response TEXT, response_json TEXT, conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT,
    input_tokens INTEGER, output_tokens INTEGER)"""


def write_log(path: Path, *, n: int = 1, first: int = 0) -> None:
    """Add conversations to a log of the command-line tool llm."""
    with sqlite3.connect(path) as connection:
        connection.execute(RESPONSES.replace("TABLE", "TABLE IF NOT EXISTS"))
        connection.execute("CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT)")
        for i in range(first, first + n):
            connection.execute("INSERT INTO conversations VALUES (?, ?, 'gpt-5.2')", (f"c{i}", f"Title {i}"))
            row = (
                f"r{i}",
                "gpt-5.2",
                f"Question {i}?",
                f"Answer {i}.",
                f"c{i}",
                1200,
                "2026-01-31T12:00:00",
                10 + i,
                5,
            )
            names = (
                "id, model, prompt, response, conversation_id, duration_ms, datetime_utc, input_tokens, output_tokens"
            )
            connection.execute(f"INSERT INTO responses ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """The hash and the time of each file of a folder."""
    return {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in folder.iterdir()
    }


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "theirs" / "logs.db"
    path.parent.mkdir()
    write_log(path, n=3)
    return path


def test_its_frames_equal_those_of_an_import(log):
    with open_store(log) as attached, InMemoryDb() as imported:
        imported.ingest(log)
        assert isinstance(attached, ForeignStore)
        assert (attached.format, attached.read_only, attached.report.sessions) == ("llm", True, 3)
        for name in FRAMES:
            assert getattr(attached, name)().equals(getattr(imported, name)())


def test_reading_comparing_and_refusing_writes_change_no_file(log):
    before = snapshot(log.parent)
    store = kern_nb.attach(log, name="theirs")
    assert list(store.sql("SELECT input FROM runs ORDER BY input")["input"]) == [f"Question {i}?" for i in range(3)]
    assert "Answer 1." in repr(kern_nb.show("c1"))
    assert not kern_nb.compare("c0", "c1").turns.empty
    assert store.get_session("c2").session_data["session_name"] == "Title 2"
    store.refresh()
    kern_nb.detach("theirs")
    assert snapshot(log.parent) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.rename_session("c0", "New"),
        lambda store: store.branch("c0"),
        lambda store: store.add_score("c0", "rating", 1.0),
        lambda store: store.append_run("c0", Run(input="More")),
        lambda store: store.delete_session("c0"),
        lambda store: store.put_blob(b"x"),
        lambda store: store.transaction().__enter__(),
    ],
    ids=["rename", "branch", "score", "run", "delete", "blob", "transaction"],
)
def test_writes_are_refused_and_name_the_way_out(log, write):
    with open_store(log) as store:
        before = {name: getattr(store, name)() for name in FRAMES}
        with pytest.raises(ReadOnlyStore, match="belongs to another program") as error:
            write(store)
        assert "%kern import" in error.value.hint
        for name, frame in before.items():
            assert getattr(store, name)().equals(frame)


def test_refresh_shows_what_the_program_has_written_since(log):
    with open_store(log) as store:
        first = store.report
        store.refresh()
        assert store.report is first  # nothing was written, and nothing is read again
        write_log(log, n=2, first=3)
        store.refresh()
        assert store.report.sessions == 5
        assert len(store.sessions_df()) == 5
        with sqlite3.connect(log) as connection:
            connection.execute("DELETE FROM responses WHERE id = 'r0'")
            connection.execute("UPDATE responses SET response = 'Corrected.' WHERE id = 'r1'")
        connection.close()
        store.refresh()
        assert sorted(store.sessions_df()["session_id"]) == ["c1", "c2", "c3", "c4"]
        assert "Corrected." in list(store.messages_df()["content"])
        assert "Answer 1." not in list(store.messages_df()["content"])


def test_a_file_that_was_removed_is_an_error_and_its_sessions_can_still_be_read(log):
    with open_store(log) as store:
        log.unlink()
        with pytest.raises(StoreUnavailable, match="was removed"):
            store.refresh()
        assert len(store.sessions_df()) == 3


def test_what_a_running_program_has_not_checkpointed_is_read(tmp_path):
    path = tmp_path / "live.db"
    write_log(path)
    program = textwrap.dedent(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1])
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO conversations VALUES ('c9', 'Live', 'gpt-5.2')")
        row = ("r9", "gpt-5.2", "Live?", "Yes.", "c9", "2026-01-31T13:00:00")
        names = "id, model, prompt, response, conversation_id, datetime_utc"
        connection.execute(f"INSERT INTO responses ({names}) VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.commit()
        print("ready", flush=True)
        sys.stdin.readline()
        """
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            before = snapshot(tmp_path)
            assert path.with_name("live.db-wal").stat().st_size > 0
            with open_store(path) as store:
                assert sorted(store.sessions_df()["session_id"]) == ["c0", "c9"]
            assert snapshot(tmp_path) == before
        finally:
            process.communicate("\n")


def test_a_database_that_no_importer_reads_is_refused_by_name(tmp_path):
    path = tmp_path / "site.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE django_migrations (id INTEGER, app TEXT, name TEXT, applied TEXT)")
    connection.close()
    before = snapshot(tmp_path)
    with pytest.raises(ForeignLayout, match="Django"):
        open_store(path)
    assert snapshot(tmp_path) == before


def test_records_that_cannot_be_read_are_a_warning_and_in_the_report(tmp_path):
    path, database = tmp_path / "checkpoints.sqlite", BINARY_FILES["langgraph"][1]
    database(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE checkpoints SET type = 'pickle'")
        connection.execute("UPDATE writes SET type = 'pickle'")
    connection.close()
    with pytest.warns(UserWarning, match="cannot be read"), open_store(path) as store:
        assert "pickle" in str(store.report)


def test_a_table_name_of_the_users_own_creates_a_store_beside_the_tables(tmp_path):
    path = tmp_path / "logs.db"
    write_log(path)
    with open_store(path, read_only=True) as store:
        assert isinstance(store, ForeignStore)
    with open_store(path, session_table="kern_sessions") as beside:
        assert not isinstance(beside, ForeignStore)
        beside.append_run("mine", Run(input="Hello"))
        assert list(beside.sessions_df()["session_id"]) == ["mine"]


def test_refresh_in_the_browser_shows_new_sessions(log):
    with open_store(log) as store:
        browser = kern_nb.browse(store)
        assert browser.start()["total"] == 3
        write_log(log, first=3)
        assert browser.refresh()["total"] == 4
