"""A folder is read once per file, in the order in which the recordings began; what is passed over is counted."""

from __future__ import annotations

import json
import sqlite3

import pytest

from kern_nb.db import InMemoryDb
from kern_nb.errors import RecordsNotFound
from kern_nb.ingest import registry, source
from kern_nb.ingest.importer import Draft, Importer
from kern_nb.ingest.importers import chat
from kern_nb.records import Session

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


class Diary(Importer):
    """A format of the tests, with companions and start times."""

    name = "diary"
    reads = "diaries"

    def recognizes(self, source):
        """An object with a diary, or a table of that name."""
        return any(isinstance(value, dict) and "diary" in value for value in source.head) or "diary" in source.tables

    def companions(self, source):
        """The files that the diary names."""
        return [source.path.parent / name for value in source.head for name in value.get("with", ())]

    def start_time(self, source):
        """The time that the diary states."""
        return source.head[0]["start"] if source.head else ""

    def read(self, source):
        """A session without runs."""
        session = Session(session_id=source.session_name)
        yield Draft(source.name, int, session, [], [], source.name, "diary")


@pytest.fixture
def order(monkeypatch):
    """The files that are read, in their order."""
    read: list[str] = []

    class Recorded(Diary):
        def read(self, source):
            read.append(source.name)
            yield from super().read(source)

    monkeypatch.setattr(registry, "load_importers", lambda: {"diary": Recorded(), "chat": chat.Chat()})
    return read


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def passed_over(report):
    return {kind: [problem.file for problem in problems] for kind, problems in report.passed_over.items()}


def test_files_are_read_in_the_order_of_their_start(db, tmp_path, order):
    """Then by name."""
    write(tmp_path / "a.json", {"diary": 1, "start": "2026-03"})
    write(tmp_path / "b.json", {"diary": 1, "start": "2026-01"})
    write(tmp_path / "c/d.json", {"diary": 1, "start": "2026-01"})
    write(tmp_path / "e.json", {"diary": 1, "start": 5})
    write(tmp_path / "f.json", {"diary": 1})
    db.ingest(tmp_path)

    assert order == ["e.json", "f.json", "b.json", "c/d.json", "a.json"]


def test_companions_are_not_read_again(db, tmp_path, order):
    """Whether or not an importer reads them."""
    write(tmp_path / "a.json", {"diary": 1, "start": "1", "with": ["b.json", "c.json"]})
    write(tmp_path / "b.json", {"diary": 1, "start": "0", "with": ["a.json"]})
    write(tmp_path / "c.json", {"notes": 1})
    report = db.ingest(tmp_path)

    assert order == ["a.json"]
    assert passed_over(report) == {}


@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson", "NDJSON", "JSON", "eval", "traj", "chat", "Jsonl"])
def test_suffixes_that_are_tried(db, tmp_path, suffix):
    write(tmp_path / f"talk.{suffix}", {"messages": TALK})

    assert db.ingest(tmp_path).sessions == 1


@pytest.mark.parametrize("suffix", ["db", "sqlite", "sqlite3", "vscdb"])
def test_databases_are_tried_by_content(db, tmp_path, order, suffix):
    for table in ("diary", "other"):
        with sqlite3.connect(tmp_path / f"{table}.{suffix}") as connection:
            connection.execute(f"CREATE TABLE {table} (x)")
        connection.close()
    (tmp_path / f"damaged.{suffix}").write_bytes((tmp_path / f"diary.{suffix}").read_bytes()[:60])
    report = db.ingest(tmp_path)

    assert order == [f"diary.{suffix}"]
    assert passed_over(report) == {"unknown layout": [f"damaged.{suffix}", f"other.{suffix}"]}
    assert "a SQLite database with the tables other" in report.passed_over["unknown layout"][1].reason


def test_hidden_folders(db, tmp_path):
    """They are skipped, and counted, below the imported path; a path inside one is read with its hidden folders."""
    write(tmp_path / "plain/talk.json", {"messages": TALK})
    write(tmp_path / ".cache/deep/talk.json", {"messages": TALK})
    write(tmp_path / ".cache/.inner/talk.json", {"messages": TALK})
    report = db.ingest(tmp_path)

    assert list(db.sessions_df()["session_id"]) == ["plain/talk-1"]
    assert passed_over(report) == {"hidden": [".cache"]}
    assert db.ingest(tmp_path / ".cache").sessions == 2


def test_what_is_passed_over_is_named(db, tmp_path):
    """By kind, in a few lines, however many there are."""
    write(tmp_path / "talk.json", {"messages": TALK})
    for n in range(50):
        (tmp_path / f"{n}.png").write_bytes(b"\x89PNG")
        write(tmp_path / f"settings{n}.json", {"theme": "dark"})
    (tmp_path / "notes.md").write_text("# Notes")
    report = db.ingest(tmp_path)
    lines = repr(report).splitlines()

    assert {kind: len(files) for kind, files in report.passed_over.items()} == {
        "image": 50,
        "unknown layout": 50,
        "other": 1,
    }
    line = lines.pop(2)
    assert lines[1:] == [
        "Passed over:",
        "  50 images, 1 file of another type",
    ]
    assert "50 files in an unknown layout: settings0.json: it starts with an object with the keys 'theme'" in line
    assert report._repr_html_().count("Passed over") == 2


def test_a_session_is_named_after_its_relative_path(store_factory, tmp_path):
    """Tools keep a folder per session, and the same file name in each."""
    for n in (1, 2):
        write(tmp_path / f"run{n}/messages.json", {"messages": TALK})
    store = store_factory()
    report = store.ingest(tmp_path)

    assert sorted(store.sessions_df()["session_id"]) == ["run1/messages-1", "run2/messages-1"]
    assert report.errors == []
    assert store.ingest(tmp_path).skipped == 2


def test_a_folder_without_a_recording(db, tmp_path):
    (tmp_path / "notes.md").write_text("# Notes")
    with pytest.raises(RecordsNotFound, match=r"\.jsonl"):
        db.ingest(tmp_path)


def test_an_importer_that_fails_loses_no_other_file(db, tmp_path, monkeypatch, order):
    """Its error is reported with the file."""
    write(tmp_path / "a.json", {"diary": 1, "start": "1"})
    write(tmp_path / "b.json", {"messages": TALK})

    def fails(self, source):
        raise KeyError("x")
        yield

    monkeypatch.setattr(Diary, "read", fails)
    report = db.ingest(tmp_path)

    assert report.sessions == 1
    assert [problem.file for problem in report.errors] == ["a.json"]


LARGE = {
    "a list": json.dumps([{"messages": TALK, "n": n} for n in range(60)]),
    "a list over several lines": json.dumps([{"messages": TALK, "n": n} for n in range(60)], indent=1),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_document_gives_the_same_rows(db, tmp_path, monkeypatch, kind):
    """It is read item by item."""
    (tmp_path / "talk.json").write_text(LARGE[kind])
    db.ingest(tmp_path)
    monkeypatch.setattr(source, "_LARGE", 100)
    monkeypatch.setattr("kern_nb.ingest.json_stream._CHUNK", 50)
    monkeypatch.setattr("kern_nb.ingest.json_stream._WHOLE", 50)
    report = db.ingest(tmp_path)

    assert (report.sessions, report.skipped, report.errors) == (0, 60, [])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("first", ["info", "simulations"])
def test_a_large_experiment_gives_the_same_rows(db, tmp_path, monkeypatch, indent, first):
    """Whichever member comes first."""
    simulations = [{"id": f"s{n}", "task_id": str(n), "messages": TALK} for n in range(60)]
    members = {"info": {"agent_info": {"llm": "m"}}, "tasks": [{"id": str(n)} for n in range(60)]}
    order = {"simulations": simulations} | members if first == "simulations" else members | {"simulations": simulations}
    (tmp_path / "runs.json").write_text(json.dumps(order, indent=indent))
    db.ingest(tmp_path)
    before = db.get_session("s59").agent_data
    monkeypatch.setattr(source, "_LARGE", 100)
    monkeypatch.setattr("kern_nb.ingest.json_stream._CHUNK", 50)
    monkeypatch.setattr("kern_nb.ingest.json_stream._WHOLE", 50)
    report = db.ingest(tmp_path)
    with InMemoryDb() as other:
        other.ingest(tmp_path)
        assert other.get_session("s59").agent_data == before
        assert before["tau2"]["task"] == {"id": "59"}

    assert (report.sessions, report.skipped, report.errors) == (0, 60, [])
