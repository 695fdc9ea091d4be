"""The STS-Format: messages, reasoning, calls, several sessions in a file, damage."""

from __future__ import annotations

import json

from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest import registry
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

HEADER = {"type": "session", "harness": "bot", "id": "s1", "name": "Parcels", "team": "x", "tags": ["a"]}


def message(role, content, **fields):
    return {"type": "message", "message": {"role": role, "content": content, **fields}}


def call(call_id, arguments):
    return {"id": call_id, "function": {"name": "find", "arguments": arguments}}


RECORDS = [
    HEADER,
    message("system", "Be brief."),
    message("user", "Where are they?", timestamp=1_780_000_000_000),
    message("assistant", "", reasoningContent="Hm.", toolCalls=[call("c1", '{"n": 1}'), call("c2", "{n")], model="m"),
    message("tool", "here", toolCallId="c1"),
    message("assistant", "There.", reasoningContent="So.", model="m", timestamp=1_780_000_002_000),
    message("user", "Thanks"),
]


def to_text(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(tmp_path, records):
    path = tmp_path / "s.jsonl"
    path.write_text(to_text(records))
    source = Source(path, path.name)
    importer = registry.detect_importer(source)
    assert importer.name == "hf_sts"
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if isinstance(i, Problem)]


def test_a_session(tmp_path):
    (draft,), problems = read(tmp_path, RECORDS)

    assert not problems
    first, second = draft.runs
    answer, last = first.messages[2], first.messages[4]
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert answer.content == [{"type": "thinking", "thinking": "Hm."}]
    assert [(c.args, c.extra) for c in answer.tool_calls] == [({"n": 1}, {}), ("{n", {"args_invalid": True})]
    assert last.content[1] == {"type": "text", "text": "There."}
    assert (first.model, first.duration_s, second.input) == ("m", 2, "Thanks")
    assert (draft.session_id, draft.session.agent_id, draft.session.session_name) == ("s1", "bot", "Parcels")
    assert draft.session.metadata == {"file": "s.jsonl", "harness": "bot", "team": "x"}
    assert draft.session.agent_data == {"tags": ["a"]}
    assert (draft.session.created_at, draft.session.updated_at) == (1_780_000_000, 1_780_000_002)


def test_times_as_text_and_stated_errors(tmp_path):
    """The metadata states that the zone of a time is unknown; what is no time stays in extra."""
    records = [
        HEADER,
        message("user", "Where?", timestamp="2026-09-01T10:00:00"),
        message("assistant", "", toolCalls=[call("c1", "{}")], timestamp="soon"),
        message("tool", "no", toolCallId="c1", isError=True),
    ]
    (draft,), _ = read(tmp_path, records)
    [run] = draft.runs

    assert run.messages[0].created_at.isoformat() == "2026-09-01T10:00:00+00:00"
    assert (draft.session.metadata["time_zone"], run.messages[1].extra) == ("unknown", {"timestamp": "soon"})
    assert run.messages[1].tool_calls[0].status == "failed"


def test_several_sessions_in_a_file(tmp_path):
    drafts, problems = read(tmp_path, [*RECORDS, HEADER | {"id": "s2"}, message("user", "Hi"), *RECORDS])

    assert not problems
    assert [(draft.session_id, len(draft.runs)) for draft in drafts] == [("s1", 2), ("s2", 1), ("s1-10", 2)]


def test_sessions_of_pi_are_not_recognized(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(to_text([{"type": "session", "version": 3, "id": "1", "cwd": "/"}, message("user", "Hi")]))
    source = Source(path, path.name)

    assert not registry.get_importer("hf_sts").recognizes(source)
    assert registry.detect_importer(source).name == "pi"


def test_sample(shared_data, tmp_path):
    figures = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())["hf_sts/session.jsonl"]
    store = SqliteDb(tmp_path / "s.db")
    assert not store.ingest(shared_data / "hf_sts" / "session.jsonl", progress=False).errors
    assert store.ingest(shared_data / "hf_sts" / "session.jsonl", progress=False).skipped == 1
    messages, calls = store.messages_df(), store.tool_calls_df()

    assert set(messages["session_id"]) == set(figures["session_ids"])
    assert messages["role"].value_counts().to_dict() == figures["messages_by_role"]
    assert len(store.runs_df()) == figures["runs"]
    assert calls["tool_name"].value_counts().to_dict() == figures["tool_calls_by_name"]
    assert messages["model"].dropna().value_counts().to_dict() == figures["models"]
    assert messages["created_at"].notna().sum() == figures["messages_with_time"]
    assert messages["input_tokens"].isna().all()


def damaged_files():
    data = to_text(RECORDS).encode()
    yield from truncated(data, 50)
    yield from torn(data, 50)
    for records in mistyped(RECORDS, 200):
        yield to_text(records).encode()


def test_damaged_files(tmp_path):
    importer = registry.get_importer("hf_sts")
    path = tmp_path / "s.jsonl"
    drafts = 0
    for data in damaged_files():
        path.write_bytes(data)
        source = Source(path, path.name)
        importer.recognizes(source)
        drafts += any(isinstance(item, Draft) for item in importer.read(source))
    assert drafts > 280


def test_damaged_files_are_stored(tmp_path):
    store = SqliteDb(tmp_path / "s.db")
    for number, data in enumerate(list(damaged_files())[::10]):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data.replace(b'"s1"', f'"{number}"'.encode()))
        store.ingest(path, format="hf_sts", progress=False)
        again = store.ingest(path, format="hf_sts", progress=False)
        assert (again.sessions, again.runs) == (0, 0)
