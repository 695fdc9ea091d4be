"""One bad record never loses a file, and one bad file never loses a folder: each is reported where it is."""

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


@pytest.fixture
def memory():
    """A store in memory."""
    return InMemoryDb()


def ids(store):
    return sorted(store.sessions_df()["session_id"])


def test_torn_lines_are_reported_and_the_rest_is_stored(store, tmp_path):
    """A line that breaks off, the last one too, is a problem with its number; no engine loses its neighbours."""
    good = json.dumps(GOOD)
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join([good[:20], good, "", good[:30], good, "not json", good[:-5]]))
    report = store.ingest(path)

    assert [problem.line for problem in report.errors] == [1, 4, 6, 7]
    assert {problem.file for problem in report.errors} == {"torn.jsonl"}
    assert ids(store) == ["torn-2", "torn-5"]


def test_records_on_one_line_are_told_apart(memory, tmp_path):
    """Two records without a line break between them are two; what is left over is reported."""
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(GOOD) + json.dumps(GOOD) + '{"mess\n' + json.dumps(GOOD))
    report = memory.ingest(path)

    assert ids(memory) == ["two-1", "two-1.2", "two-2"]
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
def test_a_conversation_that_is_malformed_is_left_out_whole(memory, tmp_path, record):
    """Never half a session: a bad message leaves its conversation out, and the others in."""
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (GOOD, record, GOOD)))
    report = memory.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert ids(memory) == ["bad-1", "bad-3"]
    assert report.messages == len(memory.messages_df()) == 4


@pytest.mark.parametrize(
    "bad",
    [
        {"task_id": "8"},
        {"id": "x"},
        {"id": 7, "messages": []},
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
def test_a_simulation_that_is_malformed_is_left_out_whole(memory, tmp_path, bad):
    """What lacks a field, or has one of another type, is a problem at the line where it starts."""
    path = tmp_path / "runs.json"
    path.write_text("\n\n" + results(simulation("a"), bad, simulation("b")))
    line = path.read_text().split('"id": "b"')[0].rstrip("{ \n,")
    report = memory.ingest(path)

    assert ids(memory) == ["a", "b"]
    [problem] = report.errors
    starts = 1 + path.read_text()[: len(line)].rfind(json.dumps(bad, indent=1).replace("\n", "\n  "))
    assert problem.line == 1 + path.read_text().count("\n", 0, starts)
    assert problem.reason
    assert len(memory.messages_df()) == 6


def test_an_experiment_that_cannot_be_kept_is_reported(memory, tmp_path):
    """Info that is nested beyond reason costs its file, not the import."""
    path = tmp_path / "deep.json"
    path.write_text('{"info": {"x": %s}, "simulations": []}' % ("[" * 950 + "]" * 950))
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD))
    report = memory.ingest(tmp_path)

    assert report.sessions == 1
    assert {problem.file for problem in report.errors} <= {"deep.json"}


def test_fields_that_may_be_missing_are_unknown(memory, tmp_path):
    """An id and messages make a simulation; everything else may be missing or odd without harm."""
    path = tmp_path / "runs.json"
    odd = [
        {"id": "bare", "messages": []},
        simulation("null", reward_info=None, start_time=None, duration=None),
        simulation("odd", reward_info={"reward": None, "reward_breakdown": {"DB": "high"}}, task_id=["list"]),
    ]
    path.write_text(json.dumps({"simulations": odd, "tasks": [{"id": ["list"]}, 5], "info": None}))
    report = memory.ingest(path)

    assert not report.errors
    assert ids(memory) == ["bare", "null", "odd"]
    assert memory.scores_df().empty


def test_a_document_that_breaks_off_keeps_what_came_before(memory, tmp_path):
    """Of a truncated result file the whole simulations are stored, and the line is reported where it breaks."""
    whole = results(simulation("a"), simulation("b"), simulation("c"))
    path = tmp_path / "cut.json"
    path.write_text("\n" + whole[: whole.index('"id": "c"') + 100])
    report = memory.ingest(path)

    assert ids(memory) == ["a", "b"]
    [problem] = report.errors
    assert problem.line == 1 + whole.count("\n", 0, whole.index('"id": "c"'))


def test_the_same_id_twice_in_a_file_is_reported(memory, tmp_path):
    """The first keeps the id; the second is not mixed into it."""
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(json.dumps({"id": "one", **GOOD, "n": n}) for n in (1, 2)))
    report = memory.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert memory.get_session("one").metadata["n"] == 1


def test_text_that_is_not_utf8_is_reported(memory, tmp_path):
    """A line in another encoding is a problem; its neighbours are stored."""
    path = tmp_path / "latin.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, good.replace(b"hello", b"h\xe9llo"), good]))
    report = memory.ingest(path)

    assert [problem.line for problem in report.errors] == [2]
    assert ids(memory) == ["latin-1", "latin-3"]


def test_a_record_nested_beyond_reason_is_left_out(store, tmp_path):
    """What cannot be stored and read again is a problem of that record alone, on every engine."""
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


def test_ids_too_long_for_an_index(store, tmp_path):
    """A call's id of any length is kept and joins its result; a session's that no engine could index is reported."""
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


def test_files_of_a_folder_that_nobody_reads_are_reported(memory, tmp_path):
    """A folder is read with its inner folders; other JSON is reported, other and hidden files are not looked at."""
    inner = tmp_path / "data" / "inner"
    inner.mkdir(parents=True)
    (inner / "chat.jsonl").write_text(json.dumps(GOOD))
    (inner.parent / "other.json").write_text('{"type": "config", "x": 1}')
    (inner.parent / "empty.jsonl").write_text("")
    (inner.parent / "notes.txt").write_text("notes")
    (inner.parent / ".hidden.json").write_text("{")
    report = memory.ingest(inner.parent)

    assert [(p.file, p.line) for p in report.errors] == [("empty.jsonl", None), ("other.json", None)]
    assert "'type', 'x'" in report.errors[1].reason
    assert memory.get_session("chat-1").metadata["file"] == "inner/chat.jsonl"


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", "5", '{"type": "user", "message": {"role": "user"}}', "\x00\x01"]
)
def test_a_file_that_nobody_reads_is_refused(memory, tmp_path, text):
    """The error says what the file looks like; its hint, which formats there are."""
    from kern_nb.errors import UnknownFormat

    path = tmp_path / "what.json"
    path.write_text(text)
    with pytest.raises(UnknownFormat, match=r"what\.json") as caught:
        memory.ingest(path)

    assert "tau2" in caught.value.hint
    assert "chat" in caught.value.hint
    assert not memory.exists(), "nothing was written"


def test_a_format_that_is_not_there_is_refused(memory, tmp_path):
    """A wrong name is answered with the nearest one."""
    from kern_nb.errors import UnknownFormat

    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(UnknownFormat) as caught:
        memory.ingest(path, format="tau")

    assert "'tau2'" in caught.value.hint


def test_a_path_that_is_not_there_is_refused(memory, tmp_path):
    """Records that do not exist are a FileNotFoundError; so is a folder without any."""
    from kern_nb.errors import RecordsNotFound

    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(RecordsNotFound) as caught:
            memory.ingest(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_read_only_store_is_not_written(store_factory, tmp_path):
    """Nothing is taken in where nothing may be written."""
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
def test_an_interrupt_leaves_whole_files_or_nothing(store, tmp_path, monkeypatch, together):
    """Stopped in the middle of a file, of that there is not a row; small files go in, or do not, together."""
    if not together:
        monkeypatch.setattr("kern_nb.ingest._GROUP_BYTES", 1)
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


def test_a_report_reads_well(memory, tmp_path):
    """The figures on one line, then the first problems, each where it is."""
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), *["{"] * 7]))
    lines = repr(memory.ingest(path)).splitlines()

    assert lines[0] == "Stored 1 session, 1 run, 2 messages, 0 tool calls; skipped 0 sessions already stored."
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
def test_a_hundred_thousand_bad_records_take_as_long_as_their_number(tmp_path, kind):
    """Each is counted, by its line; what is shown of them is a few."""
    path = tmp_path / "records.json"
    path.write_text(BAD[kind])
    with InMemoryDb() as store:
        before = time.process_time()
        report = store.ingest(path)
        shown, html = repr(report), report._repr_html_()
        assert time.process_time() - before < SECONDS

    assert len(report.errors) == MANY
    assert [report.errors[n].line for n in (0, 1, -1)] == [2, 3, MANY + 1]
    assert "100,000 problems" in shown
    assert len(shown) < 1_000
    assert "100,000 problems" in html
    assert len(html) < 100_000


def test_one_call_id_on_every_call_takes_as_long_as_their_number(store):
    """Some services give all calls one id: each call stays one of its own, with its own result."""
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
