"""Logs of inspect_ai: archives and documents, usage from events, scores, epochs, compaction, nested agents, damage."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from mutations import mistyped, truncated

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")
CLOCK = "2026-02-03T10:00:{:02}+00:00"


@pytest.fixture
def store(tmp_path):
    """A SQLite store."""
    from kern_nb.db import SqliteDb

    store = SqliteDb(tmp_path / "s.db")
    yield store
    store.close()


def message(role, content, identity, **other):
    return {"id": identity, "role": role, "content": content} | other


def model_event(output, second, usage=None, **other):
    choices = [] if output is None else [{"message": output, "stop_reason": "stop"}]
    body = {"model": "fake/m1", "choices": choices} | ({"usage": usage} if usage else {})
    times = {"timestamp": CLOCK.format(second), "completed": CLOCK.format(second + 1)}
    return {"event": "model", "uuid": f"e{second}", "model": "fake/m1", "input": [], "output": body} | times | other


CALL = {"id": "c1", "function": "weigh", "arguments": {"item": "pear"}, "type": "function"}
ASK = message("user", "How heavy is the pear?", "m1", source="input")
LOOK = message("assistant", "I weigh it.", "m2", tool_calls=[CALL], model="fake/m1", source="generate")
RESULT = message(
    "tool", "", "m3", tool_call_id="c1", function="weigh", error={"type": "timeout", "message": "too slow"}
)
ANSWER = message("assistant", "attachment://aa", "m4", model="fake/m1", source="generate")


def sample(**other):
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 45, "input_tokens_cache_read": 30}
    events = [
        model_event(LOOK, 1, usage, input_refs=[[0, 1]], span_id="main"),
        {"event": "tool", "id": "c1", "function": "weigh", "timestamp": CLOCK.format(3), "completed": CLOCK.format(7)},
        model_event(ANSWER, 8, {"input_tokens": 50, "output_tokens": 6, "total_tokens": 56}, input_refs=[[0, 3]]),
        {"event": "score", "timestamp": CLOCK.format(20), "score": {"value": "P"}},
    ]
    return {
        "id": 7,
        "epoch": 2,
        "uuid": "sample-uuid",
        "input": "How heavy is the pear?",
        "messages": [ASK, LOOK, RESULT, ANSWER],
        "scores": {"exact": {"value": "P"}, "parts": {"value": {"size": 3, "ok": True}}, "text": {"value": "blue"}},
        "events": events,
        "events_data": {"messages": [ASK, LOOK, RESULT], "calls": []},
        "attachments": {"aa": "It weighs 180 grams."},
        "started_at": CLOCK.format(0),
        "completed_at": CLOCK.format(21),
        "total_time": 21.0,
        "metadata": {"level": "easy"},
    } | other


def header(**other):
    facts = {"eval_id": "ev", "run_id": "r", "task": "weights", "model": "fake/m1", "dataset": {"name": "fruit"}}
    return {"version": 2, "status": "success", "eval": facts} | other


def document(*samples, **other):
    return header(**other) | {"samples": list(samples)}


def write(path, value):
    path.write_text(json.dumps(value, indent=1))
    return path


def archive(path, members, method=93):
    """Write a zip archive, whose members are compressed as inspect_ai does; zipfile cannot write zstandard."""
    body, directory = b"", b""
    for name, value in members.items():
        raw = json.dumps(value).encode()
        data = pa.Codec("zstd").compress(raw, asbytes=True) if method == 93 else raw
        fields = struct.pack("<5H3L2H", 20, 0, method, 0, 33, zlib.crc32(raw), len(data), len(raw), len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<3H2L", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\x03\x04" + fields + name.encode() + data
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def names_of(report):
    return [str(problem) for problem in report.errors]


def test_a_sample_is_a_session(store, tmp_path):
    """Usage and times come from events, texts from attachments; cached input is part of the input."""
    report = store.ingest(write(tmp_path / "log.json", document(sample())), progress=False)
    assert not names_of(report)
    session = store.get_session("sample-uuid")
    [run] = session.runs
    ask, look, result, answer = run.messages

    assert (session.metadata["task"], session.metadata["task_id"], session.metadata["trial"]) == ("weights", "7", 2)
    assert (session.metadata["level"], session.metadata["dataset"]) == ("easy", "fruit")
    assert (session.duration_s, run.duration_s, run.status) == (21.0, 21.0, "COMPLETED")
    assert (run.model, run.model_provider, run.input) == ("fake/m1", "fake", ask.content)
    assert (look.usage.input_tokens, look.usage.cache_read_tokens, look.usage.output_tokens) == (40, 30, 5)
    assert look.extra["usage"]["input_tokens"] == 10
    assert answer.content == "It weighs 180 grams."
    assert answer.created_at.second == 9
    assert (result.content, result.is_error, result.tool_name) == ("too slow", True, "weigh")
    assert (run.tool_calls[0].duration_s, run.tool_calls[0].status) == (4.0, "failed")
    scores = store.scores_df()
    assert dict(zip(scores["name"], scores["value"], strict=True)) == {"exact": 0.5, "parts.size": 3.0, "parts.ok": 1.0}


def test_an_archive_has_the_rows_of_a_document(store, tmp_path):
    """Whether its members are compressed or not; a second import stores nothing."""
    from kern_nb.db import SqliteDb

    members = {"header.json": header(), "samples/7_epoch_2.json": sample(), "summaries.json": []}
    store.ingest(write(tmp_path / "log.json", document(sample())), progress=False)
    expected = {name: getattr(store, name)() for name in FRAMES}
    for method in (93, 0):
        other = SqliteDb(tmp_path / f"{method}.db")
        path = archive(tmp_path / f"{method}.eval", members, method)
        report = other.ingest(path, progress=False)
        assert not names_of(report)
        for name in FRAMES:
            pd.testing.assert_frame_equal(getattr(other, name)(), expected[name])
        assert other.ingest(path, progress=False).skipped == 1
        other.close()


def test_a_crashed_log_has_a_journal(store, tmp_path):
    """It has no header; a file that was cut off has no directory either."""
    members = {"_journal/start.json": header(status="started"), "samples/7_epoch_2.json": sample()}
    members["samples/8_epoch_1.json"] = sample(uuid="second", id="8", epoch=1)
    path = archive(tmp_path / "crashed.eval", members)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"samples/8_epoch_1.json") + 60])
    report = store.ingest(path, progress=False)

    assert not names_of(report)
    assert store.sessions_df()["session_id"].tolist() == ["sample-uuid"]
    assert store.get_session("sample-uuid").metadata["status"] == "started"
    path.write_bytes(whole)
    assert store.ingest(path, progress=False).sessions == 1


def test_epochs_of_a_sample_are_trials(store, tmp_path):
    """Even if their messages are equal and have no id of their own."""
    first, second = sample(uuid=None, epoch=1), sample(uuid=None, epoch=2)
    store.ingest(write(tmp_path / "log.json", document(first, second)), progress=False)

    assert sorted(store.sessions_df()["session_id"]) == ["ev/7/1", "ev/7/2"]
    assert store.sessions_df()["parent_session_id"].isna().all()


def test_usage_of_graders_is_not_the_agents(store, tmp_path):
    """It stays in the agent's data."""
    verdict = model_event(message("assistant", "GRADE: C", "g1"), 15, {"input_tokens": 900, "output_tokens": 9})
    spans = [{"event": "span_begin", "id": "s", "type": "scorers"}, verdict | {"span_id": "s"}]
    role = verdict | {"role": "grader", "uuid": "other"}
    value = sample(role_usage={"grader": {"input_tokens": 900}})
    value["events"] = [*value["events"], *spans, role]
    store.ingest(write(tmp_path / "log.json", document(value)), progress=False)

    assert store.sessions_df()["input_tokens"].tolist() == [90]
    assert store.get_session("sample-uuid").agent_data["inspect_ai"]["role_usage"] == {"grader": {"input_tokens": 900}}


def test_a_nested_agent_is_a_draft_of_its_own(store, tmp_path):
    """With the call that started it; it does not repeat what its parent said."""
    start = {"event": "span_begin", "id": "sub", "type": "agent", "name": "helper"}
    prompt = message("user", "Find the scale.", "n1")
    reply = message("assistant", "On the shelf.", "n2")
    inner = model_event(reply, 5, {"input_tokens": 7, "output_tokens": 2}, span_id="sub", input=[ASK, prompt])
    value = sample()
    value["events"][1] |= {"agent_span_id": "sub"}
    value["events"] = [*value["events"][:2], start, inner, *value["events"][2:]]
    path = write(tmp_path / "log.json", document(value))
    main, nested = read(path)

    assert main.session_id == "sample-uuid"
    assert (nested.membership.session_id, nested.membership.tool_call_id) == ("sample-uuid", "c1")
    assert [m.content for run in nested.runs for m in run.messages] == ["Find the scale.", "On the shelf."]
    assert nested.runs[0].messages[1].usage.input_tokens == 7
    store.ingest(path, progress=False)
    runs = store.runs_df(columns=["run_id", "parent_run_id"])
    assert len(store.sessions_df()) == 1
    assert runs["parent_run_id"].dropna().tolist() == [runs["run_id"][0]]


def read(path):
    from kern_nb.ingest.registry import detect_importer
    from kern_nb.ingest.source import Source

    source = Source(path, path.name)
    return list(detect_importer(source).read(source))


def test_a_compacted_history_is_complete(store, tmp_path):
    """What the messages lack is taken from the events; the summary's model call counts and is no run."""
    summary = message("user", "Summary: a pear.", "m5", metadata={"summary": True})
    written = message("assistant", "Summary: a pear.", "x1")
    value = sample(messages=[ASK, summary, ANSWER])
    summarize = message("user", "Summarize.", "x0")
    calls = [
        value["events"][0],
        value["events"][1],
        model_event(written, 5, {"input_tokens": 20, "output_tokens": 3}, input=[ASK, LOOK, RESULT, summarize]),
        {"event": "compaction", "tokens_before": 99, "tokens_after": 9},
        model_event(ANSWER, 8, {"input_tokens": 50, "output_tokens": 6}, input=[ASK, summary]),
    ]
    calls[2]["span_id"] = calls[4]["span_id"] = calls[0]["span_id"]
    value["events"] = calls
    store.ingest(write(tmp_path / "log.json", document(value)), progress=False)
    [run] = store.get_session("sample-uuid").runs

    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [m.extra.get("compaction") for m in run.messages[3:]] == [True, True, None]
    assert store.sessions_df()["input_tokens"].tolist() == [110]


def test_errors_and_limits_end_a_run(tmp_path):
    """An error is one, a limit cancels."""
    failed = sample(uuid="f", error={"message": "Boom", "traceback": "..."})
    limited = sample(uuid="l", limit={"type": "token", "limit": 5})
    first, second = read(write(tmp_path / "log.json", document(failed, limited)))

    assert (first.runs[-1].status, first.runs[-1].error) == ("ERROR", "Boom")
    assert second.runs[-1].status == "CANCELLED"
    assert "token limit of 5" in second.runs[-1].error


def test_older_logs_nest_events_and_have_no_ids(tmp_path):
    """Messages are then matched by what they say, and the events of a tool are inside of its event."""
    value = sample(attachments={})
    value["messages"] = [{k: v for k, v in m.items() if k != "id"} for m in (ASK, LOOK, RESULT)]
    inner = model_event({"role": "assistant", "content": "inside"}, 4, {"input_tokens": 3, "output_tokens": 1})
    value["events"] = [
        model_event(value["messages"][1], 1, {"input_tokens": 11, "output_tokens": 2}, input=[value["messages"][0]]),
        value["events"][1] | {"events": [inner]},
    ]
    main, nested = read(write(tmp_path / "log.json", document(value)))

    assert main.runs[0].messages[1].usage.input_tokens == 11
    assert nested.membership.tool_call_id == "c1"


def test_an_agent_in_a_nested_agent(store, tmp_path):
    """It is a member of the run of the agent that called it, also if the ids of their calls are equal."""

    def span(identity, parent=None):
        return {"event": "span_begin", "id": identity, "parent_id": parent, "type": "agent", "name": identity}

    for second_id in ("c2", "c1"):
        inner_call = CALL | {"id": second_id, "function": "ask"}
        deeper = message("assistant", "I ask.", "n2", tool_calls=[inner_call])
        value = sample(uuid=second_id)
        ask, tool, *rest = value["events"]
        value["events"] = [
            ask,
            span("sub"),
            model_event(deeper, 4, {"input_tokens": 7}, span_id="sub", input=[message("user", "Find it.", "n1")]),
            span("sub2", "sub"),
            model_event(message("assistant", "Deep.", "q2"), 5, {"input_tokens": 3}, span_id="sub2"),
            {"event": "tool", "id": second_id, "function": "ask", "agent_span_id": "sub2"},
            tool | {"agent_span_id": "sub"},
            *rest,
        ]
        report = store.ingest(write(tmp_path / f"{second_id}.json", document(value)), progress=False)
        main, nested, inner = store.get_session(second_id).runs
        assert not names_of(report)
        assert (nested.parent_run_id, inner.parent_run_id) == (main.run_id, nested.run_id)
        assert {run.model_provider for run in (main, nested, inner)} == {"fake"}


def test_usage_of_a_log_without_events(tmp_path):
    """It is that of the models without the graders."""
    graded = {"input_tokens": 900, "output_tokens": 9, "total_tokens": 909}
    used = {"input_tokens": 60, "output_tokens": 11, "total_tokens": 101, "input_tokens_cache_read": 30}
    value = sample(events=[], model_usage={"fake/m1": used, "fake/m2": graded}, role_usage={"grader": graded})
    [draft] = read(write(tmp_path / "log.json", document(value)))
    usage = draft.runs[0].usage

    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (90, 11, 30)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_cache_read": 30, "total_tokens": 45}, (40, 5)),
        ({"input_tokens": 40, "output_tokens": 5, "input_tokens_cache_read": 30, "total_tokens": 45}, (40, 5)),
        ({"input_tokens": 40, "output_tokens": 5, "reasoning_tokens": 4, "total_tokens": 45}, (40, 5)),
        (
            {"input_tokens": 40, "output_tokens": 5, "reasoning_tokens": 20, "input_tokens_cache_read": 30}
            | {"total_tokens": 65},
            (40, 25),
        ),
    ],
)
def test_the_total_tells_what_counts_include(usage, counted):
    """Providers count cached tokens and reasoning beside the other ones, or in them."""
    from kern_nb.ingest.importers.inspect_ai.messages import parse_usage

    result = parse_usage(usage)
    assert (result.input_tokens, result.output_tokens) == counted


def test_an_answer_from_the_cache_used_no_tokens(tmp_path):
    """What the first call used stays beside the message."""
    value = sample()
    value["events"][0]["cache"] = "read"
    [draft] = read(write(tmp_path / "log.json", document(value)))

    assert [m.usage and m.usage.input_tokens for m in draft.runs[0].messages] == [None, None, None, 50]
    assert draft.runs[0].messages[1].extra["usage"]["input_tokens"] == 10


def test_a_sample_that_failed_before_its_messages_were_saved(tmp_path):
    """Its messages are those of its events."""
    for messages in ([], None):
        value = sample(messages=messages, error={"message": "Boom"})
        [draft] = read(write(tmp_path / "log.json", document(value)))
        assert [m.role for m in draft.runs[0].messages] == ["user", "assistant", "tool", "assistant"]
        assert (draft.runs[0].status, draft.runs[0].error) == ("ERROR", "Boom")


def test_version_1(tmp_path):
    """Its events and attachments are in a transcript, a tool's error and reasoning are texts."""
    value = sample(uuid=None, epoch=None)
    value["transcript"] = {"events": value.pop("events"), "content": value.pop("attachments")}
    value["messages"][1:3] = [LOOK | {"reasoning": "Hm."}, RESULT | {"error": None, "tool_error": "too slow"}]
    [draft] = read(write(tmp_path / "log.json", document(value)))
    _, look, result, answer = draft.runs[0].messages

    assert draft.session_id == "ev/7/1"
    assert look.content == [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "I weigh it."}]
    assert (look.usage.input_tokens, answer.content) == (40, "It weighs 180 grams.")
    assert (result.content, result.is_error) == ("too slow", True)
    assert "transcript" not in draft.session.agent_data["inspect_ai"]


def test_ids_may_be_numbers_and_fields_attachments(tmp_path):
    """Settings of the evaluation are kept."""
    value = sample(input="attachment://aa", messages=[ASK | {"id": 1}, LOOK | {"tool_calls": [CALL | {"id": 9}]}])
    value["messages"].append(RESULT | {"id": 2, "tool_call_id": 9})
    value["events"][1]["id"] = 9
    log = document(value)
    log["eval"]["task_args"] = {"level": "hard"}
    [draft, _] = read(write(tmp_path / "log.json", log))

    assert [m.message_id for m in draft.runs[0].messages] == ["1", "m2", "2"]
    assert draft.runs[0].messages[1].tool_calls[0].tool_call_id == "9"
    assert draft.runs[0].messages[1].tool_calls[0].duration_s == 4.0
    assert draft.session.metadata["input"] == "It weighs 180 grams."
    assert draft.session.agent_data["inspect_ai"]["eval"] == {"task_args": {"level": "hard"}}


def test_samples_of_a_large_document_are_read_one_at_a_time(tmp_path, monkeypatch):
    """The evaluation may come after them."""
    from kern_nb.ingest import source

    log = document(*(sample(uuid=f"u{i}", id=i) for i in range(30)))
    log = {"samples": log.pop("samples")} | log
    path = write(tmp_path / "log.json", log)
    expected = read(path)
    monkeypatch.setattr(source, "_LARGE", 1000)
    drafts = read(path)

    assert [d.session for d in drafts] == [d.session for d in expected]
    assert [(d.hashes, d.line()) for d in drafts] == [(d.hashes, d.line()) for d in expected]


def test_other_archives_and_documents_are_not_taken(tmp_path):
    """Archives without an evaluation, documents with some of the same keys."""
    from kern_nb.ingest.registry import get_importer
    from kern_nb.ingest.source import Source

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("header.json", "{}")
    values = [{"eval": {"task": "x"}}, {"samples": [sample()]}, {"status": "success", "eval": "x"}]
    paths = [tmp_path / "a.zip", *(write(tmp_path / f"{i}.json", value) for i, value in enumerate(values))]
    assert not any(get_importer("inspect_ai").recognizes(Source(path, path.name)) for path in paths)


def test_damage_never_stops_an_import(tmp_path):
    """Truncated archives and documents, values of wrong types: the other sample is stored."""
    from kern_nb.db import InMemoryDb

    store, path = InMemoryDb(), tmp_path / "log.json"
    good = sample(uuid="good", id="9")
    compacted = sample(uuid="c")
    compacted["events"] = [*compacted["events"], {"event": "compaction"}]
    for value in [*mistyped(sample(), 100), *mistyped(compacted, 100)]:
        store.ingest(write(path, document(value, good)), progress=False)
    assert store.get_session("good").runs
    for value in mistyped(header(), 30):
        store.ingest(write(path, value | {"samples": [good]}), "inspect_ai", progress=False)
    whole = path.read_bytes()
    for data in truncated(whole, 50):
        path.write_bytes(data)
        store.ingest(path, "inspect_ai", progress=False)
    members = {"_journal/start.json": header(), "samples/9_epoch_1.json": good, "samples/7_epoch_2.json": sample()}
    eval_path = archive(tmp_path / "log.eval", members)
    whole = eval_path.read_bytes()
    for data in truncated(whole, 50):
        eval_path.write_bytes(data)
        store.ingest(eval_path, "inspect_ai", progress=False)


def test_samples_match_the_expected_figures(store, shared_data):
    """Sessions, messages, calls, tokens, models, times and scores of both logs."""
    figures = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    for name, figure in figures.items():
        if figure["kind"] != "inspect_ai":
            continue
        path: Path = shared_data / name
        report = store.ingest(path, progress=False)
        assert not names_of(report)
        frames = {frame: getattr(store, frame)() for frame in FRAMES}
        own = {k: f[f["session_id"].isin(figure["session_ids"])] for k, f in frames.items()}
        sessions, messages, calls, scores = (
            own[f] for f in ("sessions_df", "messages_df", "tool_calls_df", "scores_df")
        )
        metadata = sessions["metadata"].map(json.loads)
        assert report.sessions == len(sessions) == figure["sessions"]
        assert len(own["runs_df"]) == figure["runs"]
        assert len(messages) == figure["messages"]
        assert messages["role"].value_counts().to_dict() == figure["messages_by_role"]
        assert calls["tool_name"].value_counts().to_dict() == figure["tool_calls_by_name"]
        assert int(calls["is_error"].sum()) == figure["failed_calls"]
        assert calls["duration_s"].notna().all()
        assert int(sessions["input_tokens"].sum()) == figure["input_tokens"]
        assert int(sessions["output_tokens"].sum()) == figure["output_tokens"]
        assert int(sessions["total_tokens"].sum()) == figure["total_tokens"]
        assert sessions["cost"].isna().all()
        assert messages["model"].value_counts().to_dict() == figure["models"]
        assert len(scores) == figure["scores"]["includes"]["n"]
        assert scores["value"].sum() == figure["scores"]["includes"]["sum"]
        assert set(metadata.map(lambda m: m["task_id"])) == set(figure["sample_ids"])
        assert metadata.map(lambda m: m["trial"]).max() == figure["epochs"]
        assert store.ingest(path, progress=False).skipped == figure["sessions"]
