"""A malformed record does not reject its file, nor a malformed file its folder: each problem is reported with its line."""

from __future__ import annotations

import json
import time

import pytest

from kern_nb.db import InMemoryDb
from kern_nb.records import Message, Run, ToolCall

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def simulation(name, **other):
    """A small tau2 simulation."""
    messages = [
        {"role": "assistant", "content": "Hi!", "timestamp": "2025-08-01T10:00:00"},
        {"role": "user", "content": "help", "timestamp": "2025-08-01T10:00:01"},
        {"role": "assistant", "content": "done", "usage": {"prompt_tokens": 9, "completion_tokens": 2}, "cost": 0.1},
    ]
    return {"id": name, "task_id": "7", "messages": messages, "reward_info": {"reward": 1.0}} | other


def results(*simulations):
    """A tau2 result file, as its lines."""
    return json.dumps({"info": {"agent_info": {"llm": "m"}}, "simulations": list(simulations)}, indent=1)


def ids(store):
    return sorted(store.sessions_df()["session_id"])


def test_truncated_lines_are_reported(store, tmp_path):
    """The other lines are stored, on every engine."""
    good = json.dumps(GOOD)
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join([good[:20], good, "", good[:30], good, "not json", good[:-5]]))
    report = store.ingest(path)

    assert [problem.line for problem in report.errors] == [1, 4, 6, 7]
    assert {problem.file for problem in report.errors} == {"torn.jsonl"}
    assert ids(store) == ["torn-2", "torn-5"]


def test_several_records_on_one_line_are_imported(db, tmp_path):
    """Two records without a line break between them are two; the remainder is reported."""
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(GOOD) + json.dumps(GOOD) + '{"mess\n' + json.dumps(GOOD))
    report = db.ingest(path)

    assert ids(db) == ["two-1", "two-1.2", "two-2"]
    assert [problem.line for problem in report.errors] == [1]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": None},
        {"messages": "hi"},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user"}, 5]},
        {"messages": [{"role": "assistant", "tool_calls": "c1"}]},
        {"messages": [{"role": "assistant", "tool_calls": [7]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": 7}]}]},
        {"messages": [{"role": "tool", "tool_call_id": {"a": 1}, "content": "x"}]},
        {"role": 7},
        5,
        None,
        "text",
        [[]],
    ],
)
def test_a_malformed_conversation_is_not_imported(db, tmp_path, record):
    """A malformed message rejects its whole conversation, and no other."""
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (GOOD, record, GOOD)))
    report = db.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert ids(db) == ["bad-1", "bad-3"]
    assert report.messages == len(db.messages_df()) == 4


@pytest.mark.parametrize(
    "bad",
    [
        {"task_id": "8"},
        {"id": "x"},
        {"id": [7], "messages": []},
        {"id": "x", "messages": {}},
        simulation("x", messages=[{"content": "no role"}]),
        simulation("x", messages=["text"]),
        simulation("x", messages=[{"role": "user", "timestamp": "yesterday"}]),
        simulation("x", messages=[{"role": "assistant", "usage": {"prompt_tokens": "many"}}]),
        simulation("x", messages=[{"role": "assistant", "usage": {"prompt_tokens": 10**30}}]),
        simulation("x", messages=[{"role": "assistant", "usage": 7}]),
        simulation("x", messages=[{"role": "user", "timestamp": "0001-01-01T00:00:00+14:00"}]),
        simulation("x", reward_info={"reward": 10**400}),
        simulation("x", messages=[{"role": "assistant", "tool_calls": [None]}]),
        simulation("x", start_time="never"),
        simulation("x", start_time=5),
        simulation("x", duration="long"),
        "text",
        None,
    ],
)
def test_a_malformed_simulation_is_not_imported(db, tmp_path, bad):
    """A missing field, or one of another type, is reported at the line where the simulation starts."""
    path = tmp_path / "runs.json"
    path.write_text("\n\n" + results(simulation("a"), bad, simulation("b")))
    line = path.read_text().split('"id": "b"')[0].rstrip("{ \n,")
    report = db.ingest(path)

    assert ids(db) == ["a", "b"]
    [problem] = report.errors
    starts = 1 + path.read_text()[: len(line)].rfind(json.dumps(bad, indent=1).replace("\n", "\n  "))
    assert problem.line == 1 + path.read_text().count("\n", 0, starts)
    assert problem.reason
    assert len(db.messages_df()) == 6


def test_an_unstorable_experiment_is_reported(db, tmp_path):
    """Excessively nested info rejects its file, not the import."""
    path = tmp_path / "deep.json"
    path.write_text('{"info": {"x": %s}, "simulations": []}' % ("[" * 950 + "]" * 950))
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD))
    report = db.ingest(tmp_path)

    assert report.sessions == 1
    assert {problem.file for problem in report.errors} <= {"deep.json"}


def test_optional_fields_may_be_missing(db, tmp_path):
    """A simulation needs an id and messages; other fields may be missing or malformed."""
    path = tmp_path / "runs.json"
    odd = [
        {"id": "bare", "messages": []},
        simulation("null", reward_info=None, start_time=None, duration=None),
        simulation("odd", reward_info={"reward": None, "reward_breakdown": {"DB": "high"}}, task_id=["list"]),
    ]
    path.write_text(json.dumps({"simulations": odd, "tasks": [{"id": ["list"]}, 5], "info": None}))
    report = db.ingest(path)

    assert not report.errors
    assert ids(db) == ["bare", "null", "odd"]
    assert db.scores_df().empty


def test_the_intact_part_of_a_truncated_document_is_imported(db, tmp_path):
    """The complete simulations are stored, and the line of the error is reported."""
    document = results(simulation("a"), simulation("b"), simulation("c"))
    path = tmp_path / "cut.json"
    path.write_text("\n" + document[: document.index('"id": "c"') + 100])
    report = db.ingest(path)

    assert ids(db) == ["a", "b"]
    [problem] = report.errors
    assert problem.line == 1 + document.count("\n", 0, document.index('"id": "c"'))


def test_a_repeated_id_in_a_file_is_reported(db, tmp_path):
    """The first session keeps the id; the second is not merged into it."""
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(json.dumps({"id": "one", **GOOD, "n": n}) for n in (1, 2)))
    report = db.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert db.get_session("one").metadata["n"] == 1


def test_invalid_utf8_is_reported(db, tmp_path):
    """The other lines are stored."""
    path = tmp_path / "latin.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, good.replace(b"hello", b"h\xe9llo"), good]))
    report = db.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert ids(db) == ["latin-1", "latin-3"]


def test_an_excessively_nested_record_is_not_imported(store, tmp_path):
    """A record that cannot be stored and read again is reported, on every engine."""
    deep = "[" * 5000 + "]" * 5000
    nearly = "[" * 900 + "]" * 900
    path = tmp_path / "deep.jsonl"
    lines = [json.dumps({**GOOD, "deep": "HERE"}).replace('"HERE"', text) for text in (deep, nearly)]
    path.write_text("\n".join([json.dumps(GOOD), *lines, json.dumps(GOOD)]))
    report = store.ingest(path)

    assert {"deep-1", "deep-4"} <= set(ids(store))
    assert 2 in [problem.line for problem in report.errors]
    for session_id in ids(store):
        assert store.get_session(session_id).runs[0].output == "hello"


def test_overlong_ids(store, tmp_path):
    """A call id of any length is stored and matched with its result; an overlong session id is reported."""
    long = "".join(chr(0x4E00 + n % 20_000) for n in range(12_000))
    call = {"id": long, "function": {"name": "look", "arguments": "{}"}}
    answer = {"role": "tool", "tool_call_id": long, "content": "seen"}
    path = tmp_path / "long.jsonl"
    lines = [[{"role": "assistant", "tool_calls": [call]}, answer], {"id": long, **GOOD}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    report = store.ingest(path)
    [run] = store.get_session("long-1").runs

    assert [problem.line for problem in report.errors] == [2]
    assert run.tool_calls[0].result == "seen"
    assert run.tool_calls[0].extra["tool_call_id"] == run.messages[1].extra["tool_call_id"] == long


def test_files_of_unknown_formats_in_a_folder_are_reported(db, tmp_path):
    """Subfolders are included; other files, empty ones and hidden ones are passed over and counted."""
    inner = tmp_path / "data" / "inner"
    inner.mkdir(parents=True)
    (inner / "chat.jsonl").write_text(json.dumps(GOOD))
    (inner.parent / "other.json").write_text('{"type": "config", "x": 1}')
    (inner.parent / "empty.jsonl").write_text("")
    (inner.parent / "notes.txt").write_text("notes")
    (inner.parent / ".hidden.json").write_text("{")
    report = db.ingest(inner.parent)

    assert report.errors == []
    files = {kind: [problem.file for problem in problems] for kind, problems in report.passed_over.items()}
    assert files == {
        "unknown layout": ["other.json"],
        "empty": ["empty.jsonl"],
        "other": ["notes.txt"],
        "hidden": [".hidden.json"],
    }
    assert "'type', 'x'" in report.passed_over["unknown layout"][0].reason
    assert "1 file in an unknown layout: other.json: it starts with an object" in repr(report)
    assert "1 file in an unknown layout: other.json: it starts with an object" in report._repr_html_()
    assert db.get_session("inner/chat-1").metadata["file"] == "inner/chat.jsonl"


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", "5", '{"type": "user", "message": {"role": "user"}}', "\x00\x01"]
)
def test_a_file_of_an_unknown_format_is_refused(db, tmp_path, text):
    """The error describes the file; its hint says where the formats are listed."""
    from kern_nb.errors import UnknownFormat

    path = tmp_path / "what.json"
    path.write_text(text)
    with pytest.raises(UnknownFormat, match=r"what\.json") as caught:
        db.ingest(path)

    assert "%kern formats" in caught.value.hint
    assert not db.exists(), "nothing was written"


def test_an_unknown_format_name_is_refused(db, tmp_path):
    """The hint suggests the closest name."""
    from kern_nb.errors import UnknownFormat

    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(UnknownFormat) as caught:
        db.ingest(path, format="tau")

    assert "'tau2'" in caught.value.hint


def test_a_missing_path_is_refused(db, tmp_path):
    """A missing path is a FileNotFoundError; so is a folder without records."""
    from kern_nb.errors import RecordsNotFound

    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(RecordsNotFound) as caught:
            db.ingest(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_read_only_store_refuses_an_import(store_factory, tmp_path):
    """Nothing is imported."""
    from kern_nb.db import InMemoryDb
    from kern_nb.errors import ReadOnlyStore

    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(GOOD))
    store = store_factory()
    store.ingest(path)
    store.close()
    closed = store if isinstance(store, InMemoryDb) else store_factory(read_only=True)
    closed.read_only = True
    with pytest.raises(ReadOnlyStore):
        closed.ingest(path)


@pytest.mark.parametrize("together", [True, False])
def test_an_interrupt_leaves_whole_sessions(store, tmp_path, monkeypatch, together):
    """No row of an incomplete session is stored; small sessions are stored together."""
    if not together:
        monkeypatch.setattr("kern_nb.ingest.writer._BATCH_SESSIONS", 1)
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(GOOD) for _ in range(3)))
    insert = type(store).insert_rows

    def stopped(self, connection, table, rows):
        if table is self.tables.messages and any(row["session_id"].startswith("b") for row in rows):
            raise KeyboardInterrupt
        insert(self, connection, table, rows)

    monkeypatch.setattr(type(store), "insert_rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.ingest(tmp_path)

    assert ids(store) == ([] if together else ["a-1", "a-2", "a-3"])
    assert len(store.runs_df()) == len(ids(store))
    monkeypatch.undo()
    store.ingest(tmp_path)
    assert len(store.runs_df()) == 6


def test_the_text_of_a_report(db, tmp_path):
    """Counts on one line, then the first problems with their lines."""
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), *["{"] * 7]))
    lines = repr(db.ingest(path)).splitlines()

    assert lines[0] == "Stored 1 session, 1 run, 2 messages, 0 tool calls."
    assert lines[1] == "7 problems:"
    assert lines[2].startswith("  torn.jsonl:2: ")
    assert lines[-1] == "  and 2 more in .errors"


MANY = 100_000
SECONDS = 8
"""Of the processor: ten times what it takes; a hundred thousand counts of a file's lines take twice as much."""

GOOD_LINE = '{"messages": [{"role": "user", "content": "x"}]}\n'
BUNDLE = (
    '{"kern_nb_bundle": 1, "exported_at": "2026-11-20T14:30:00+00:00", "exported_by": "kern_nb 0.1.0", "records": [\n'
)

BAD = {
    "tau2, one a line": '{"info": {}, "simulations": [\n' + ",\n".join(['{"id": 1}'] * MANY) + "\n]}",
    "chat, one a line": GOOD_LINE + '{"messages": [5]}\n' * MANY,
    "chat, lines that are no JSON": GOOD_LINE + "{{{\n" * MANY,
    "a bundle": BUNDLE + '{"session": 5, "runs": []},\n' * MANY + '{"end": true, "sessions": 0, "blobs": 0}\n]}',
}


@pytest.mark.parametrize("kind", BAD)
def test_many_malformed_records_take_linear_time(tmp_path, kind):
    """Each is counted with its line; a few are shown."""
    path = tmp_path / "records.json"
    path.write_text(BAD[kind])
    with InMemoryDb() as store:
        before = time.process_time()
        report = store.ingest(path)
        text_of_report, html = repr(report), report._repr_html_()
        assert time.process_time() - before < SECONDS

    assert len(report.errors) == MANY
    assert [report.errors[n].line for n in (0, 1, -1)] == [2, 3, MANY + 1]
    assert "100,000 problems" in text_of_report
    assert len(text_of_report) < 1_000
    assert "100,000 problems" in html
    assert len(html) < 100_000


def test_many_calls_with_one_id_take_linear_time(store):
    """Some services use one id for all calls: each call stays separate, with its own result."""
    calls = [
        message
        for n in range(6_000)
        for message in (
            Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", tool_name="f", args={"n": n})]),
            Message(role="tool", tool_call_id="c", content=str(n)),
        )
    ]
    before = time.process_time()
    store.append_run("chat", Run(messages=[Message(role="user", content="go"), *calls]))
    assert time.process_time() - before < SECONDS

    frame = store.tool_calls_df("chat")
    assert frame["tool_call_id"].tolist()[:3] == ["c", "c~2", "c~3"]
    assert frame["result"].tolist() == [str(n) for n in range(6_000)]
