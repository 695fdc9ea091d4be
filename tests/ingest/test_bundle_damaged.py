"""A damaged, edited or newer bundle: intact records are imported, others are reported with their lines."""

from __future__ import annotations

import json

import pytest
from bundles import chat, exported, fill_store, rows_of

from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import UnknownFormat
from kern_nb.records import Requirement

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bytes of a bundle of three sessions, on its lines 2 to 4."""
    folder = tmp_path_factory.mktemp("bundle")
    with SqliteDb(folder / "s.db") as store:
        for name in NAMES:
            run = chat(name, requirements=[Requirement(kind="handoff", status="resolved", answer=1)])
            store.append_run(name, run)
            store.add_score(name, "reward", 1.0)
        return exported(store, folder / "b.json", *NAMES).read_bytes()


@pytest.fixture
def path(tmp_path, bundle):
    """A file of the bundle."""
    path = tmp_path / "b.json"
    path.write_bytes(bundle)
    return path


def edited(path, change, line=3):
    """Write a bundle again, the record on a line changed."""
    lines = path.read_text().split("\n")
    record = json.loads(lines[line - 1].removesuffix(","))
    change(record)
    lines[line - 1] = json.dumps(record) + ","
    path.write_text("\n".join(lines))
    return path


def ids(store):
    return sorted(store.sessions_df()["session_id"])


@pytest.mark.parametrize("damage", [lambda s: s[: len(s) // 2], lambda s: "\x00" + s, lambda s: s[:40] + s[42:]])
def test_a_damaged_line_rejects_its_session(store, path, damage):
    """And no other; the problem has the number of the line."""
    lines = path.read_text().split("\n")
    lines[2] = damage(lines[2])
    path.write_text("\n".join(lines))
    report = store.ingest(path)

    assert ids(store) == ["a", "c"]
    assert [problem.line for problem in report.errors] == [3]


def test_invalid_bytes_reject_their_line(db, path):
    """They are reported like any other damage."""
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:60] + b"\xff\xfe" + lines[2][62:]
    path.write_bytes(b"\n".join(lines))

    assert [problem.line for problem in db.ingest(path).errors] == [3]
    assert ids(db) == ["a", "c"]


@pytest.mark.parametrize("n_lines", [4, 3, 1])
def test_a_truncated_bundle_is_reported(db, path, n_lines):
    """Also if it is truncated between two lines."""
    path.write_text("".join(f"{line}\n" for line in path.read_text().split("\n")[:n_lines]))
    report = db.ingest(path)

    assert ids(db) == list(NAMES[: n_lines - 1])
    assert [(p.line, "truncated" in p.reason) for p in report.errors] == [(n_lines, True)]


def test_a_damaged_header_rejects_no_session(db, path):
    """Records are recognised by their content."""
    lines = path.read_text().split("\n")
    lines[0] = lines[0].replace('"records"', '"rec')
    path.write_text("\n".join(lines))
    report = db.ingest(path)

    assert ids(db) == list(NAMES)
    assert [problem.line for problem in report.errors] == [1]


@pytest.mark.parametrize("version", [3, "1", None, 0, -1, True])
def test_an_unsupported_version_is_refused(db, path, version):
    """The error says what to do; nothing is imported, even if the format is named."""
    path.write_text(path.read_text().replace('"kern_nb_bundle": 2', f'"kern_nb_bundle": {json.dumps(version)}'))
    with pytest.raises(UnknownFormat, match=r"reads versions up to 2") as caught:
        db.ingest(path)
    report = db.ingest(path, format="bundle")

    assert "pip install -U" in caught.value.hint
    assert [problem.line for problem in report.errors] == [1]
    assert ids(db) == []


def test_a_newer_bundle_in_a_folder_rejects_no_other_file(db, path):
    """The other files are imported."""
    newer = path.with_name("a.json")
    newer.write_text(path.read_text().replace('"kern_nb_bundle": 2', '"kern_nb_bundle": 3'))
    report = db.ingest(path.parent)

    assert ids(db) == list(NAMES)
    assert [problem.file for problem in report.errors] == ["a.json"]


def put(value, *keys):
    """A change that sets what is found at these keys."""

    def change(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


def drop(*keys):
    """A change that takes away what is found at these keys."""

    def change(record):
        for key in keys[:-1]:
            record = record[key]
        del record[keys[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        put(5, "session"),
        put("x", "runs"),
        put([7], "runs"),
        put(None, "session", "session_id"),
        put("", "session", "session_type"),
        put("robot", "session", "session_type"),
        put([1], "session", "session_data"),
        put(10**18, "session", "created_at"),
        put("today", "session", "created_at"),
        put("x", "session", "no_such_column"),
        put("p", "session", "parent_session_id"),
        put("x" * 1001, "session", "session_id"),
        drop("runs", 0, "run_id"),
        put("BUSY", "runs", 0, "status"),
        put(-2, "runs", 0, "run_index"),
        put(2**62, "runs", 0, "run_index"),
        put(2**62, "runs", 0, "created_at"),
        put(True, "runs", 0, "input_tokens"),
        put(2**63, "runs", 0, "input_tokens"),
        put("much", "runs", 0, "cost"),
        put(float("nan"), "runs", 0, "cost"),
        put("x", "runs", 0, "messages"),
        put([5], "runs", 0, "messages"),
        put(None, "runs", 0, "messages", 0, "role"),
        put(1, "runs", 0, "messages", 0, "message_index"),
        put(1, "runs", 0, "messages", 0, "is_error"),
        put("gone", "runs", 0, "tool_calls", 0, "status"),
        put("bribe", "runs", 0, "requirements", 0, "kind"),
        put({"$type": "decimal", "value": "ten"}, "runs", 0, "output"),
        put({"$type": "datetime"}, "runs", 0, "output"),
        put("nobody", "scores", 0, "run_id"),
        put("best", "scores", 0, "value"),
        put({"session_id": "a"}, "inherits"),
        lambda record: record["runs"].append(record["runs"][0]),
    ],
)
def test_an_invalid_edit_rejects_its_session(db, path, change):
    """With its line and a reason; the others are stored, and every frame can be read."""
    report = db.ingest(edited(path, change))

    assert [problem.line for problem in report.errors] == [3]
    assert "is not imported: " in report.errors[0].reason
    assert ids(db) == ["a", "c"]
    for frame in ("runs_df", "messages_df", "tool_calls_df", "scores_df"):
        assert set(getattr(db, frame)()["session_id"]) == {"a", "c"}


def test_a_valid_edit_is_imported(db, path):
    """Bundles can be edited."""
    report = db.ingest(edited(path, put("better", "runs", 0, "output")))

    assert report.errors == []
    assert db.get_session("b").runs[0].output == "better"


def test_an_excessively_nested_value_rejects_its_session(store, path):
    """On every engine."""
    value = 1
    for _ in range(600):
        value = [value]
    report = store.ingest(edited(path, put(value, "runs", 0, "output")))

    assert ids(store) == ["a", "c"]
    assert [problem.line for problem in report.errors] == [3]


def test_cycles_of_branches_are_refused(store, path):
    """A session is never a branch of itself, directly or indirectly, so that stored sessions can be read."""
    for line, parent in ((2, "b"), (3, "a"), (4, "c")):
        edited(path, lambda r, parent=parent: r["session"].update(parent_session_id=parent, fork_run_index=0), line)
    report = store.ingest(path)

    assert [problem.line for problem in report.errors] == [2, 3, 4]
    assert "without its inherited runs" in report.errors[0].reason
    assert [problem.reason.endswith("it is a branch of itself.") for problem in report.errors[1:]] == [True, True]
    assert [run.input for run in store.get_session("a").runs] == ["a"]


@pytest.mark.parametrize(
    "change",
    [put("AAAA", "content"), put("not base64!", "content"), put(5, "media_type"), drop("content"), put(5, "blob")],
)
def test_a_blob_with_a_wrong_hash_is_not_imported(db, tmp_path, change):
    """The sessions that refer to it are stored without it."""
    path = exported(fill_store(InMemoryDb()), tmp_path / "all.json")
    report = db.ingest(edited(path, change, line=2))

    assert [problem.line for problem in report.errors] == [2]
    assert report.sessions == 7
    assert len(rows_of(db)["agno_sessions_blobs"]) == 1
