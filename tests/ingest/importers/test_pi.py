"""pi: both generations, the entry tree, forks, labels, titles, outcomes, damage."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest import registry
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

SESSION = "01900000-0000-7000-8000-000000000001"
COST = {"input": 0.001, "output": 0.002, "cacheRead": 0, "cacheWrite": 0, "total": 0.003}


class Recording:
    """Writes entries, each below the one before unless a parent is stated; without ids in the first generation."""

    def __init__(self, session_id=SESSION, version=3, **header):
        stated = {"type": "session", "version": version, "id": session_id, "cwd": "/w"}
        self.records = [stated | {"timestamp": "2026-05-01T09:59:00.000Z"} | header]
        self.last = None
        self.version = version
        if version == 1:
            del self.records[0]["version"]

    def entry(self, kind, key=None, parent=..., **fields):
        number = len(self.records)
        record = {"type": kind, "timestamp": f"2026-05-01T10:{number // 60:02}:{number % 60:02}.000Z"}
        if self.version > 1:
            key = key or f"{number:08x}"
            record |= {"id": key, "parentId": self.last if parent is ... else parent}
            self.last = key
        self.records.append(record | fields)
        return self

    def message(self, role, content, key=None, parent=..., **fields):
        message = {"role": role, "content": content, "timestamp": 1_777_000_000_000 + len(self.records), **fields}
        return self.entry("message", key, parent, message={k: v for k, v in message.items() if v is not None})

    def user(self, text, key=None, parent=...):
        return self.message("user", [{"type": "text", "text": text}], key, parent)

    def answer(self, *parts, key=None, parent=..., stop="stop", cost=COST, **fields):
        usage = {"input": 3, "output": 5, "cacheRead": 100, "cacheWrite": 20, "totalTokens": 128, "cost": cost}
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
        fields = {"api": "a", "provider": "mock", "model": "m-1", "usage": usage, "stopReason": stop} | fields
        return self.message("assistant", parts, key, parent, **fields)

    def result(self, call, text="ok", is_error=False, key=None, parent=...):
        content = [{"type": "text", "text": text}]
        return self.message("toolResult", content, key, parent, toolCallId=call, toolName="bash", isError=is_error)

    def text(self):
        return "".join(json.dumps(record) + "\n" for record in self.records)


def call(call_id, **args):
    return {"type": "toolCall", "id": call_id, "name": "bash", "arguments": args}


def simple(version=3, **header):
    recording = Recording(version=version, **header).entry("model_change", provider="mock", modelId="m-1")
    recording.user("Run it.").answer({"type": "thinking", "thinking": "Hm."}, "I run it.", call("c1", command="ls"))
    return recording.result("c1", "no", True).answer("Done.")


def read(tmp_path, recording, name="s.jsonl"):
    path = tmp_path / name
    path.write_text(recording if isinstance(recording, str) else recording.text(), encoding="utf-8")
    source = Source(path, path.name)
    importer = registry.detect_importer(source)
    assert importer.name == "pi"
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if isinstance(i, Problem)]


def read_single(tmp_path, recording):
    drafts, problems = read(tmp_path, recording)
    assert (len(drafts), problems) == (1, [])
    return drafts[0]


def outputs(draft):
    return [run.output for run in draft.runs]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_messages_usage_and_calls(tmp_path, version):
    draft = read_single(tmp_path, simple(version))

    (run,) = draft.runs
    question, answer, result, last = run.messages
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert (question.content, result.content, last.content) == ("Run it.", "no", "Done.")
    assert [part["type"] for part in answer.content] == ["thinking", "text"]
    assert [(c.tool_call_id, c.tool_name, c.args) for c in answer.tool_calls] == [("c1", "bash", {"command": "ls"})]
    assert (result.tool_call_id, result.tool_name, result.is_error) == ("c1", "bash", True)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cost) == (123, 5, 0.003)
    assert (answer.usage.cache_read_tokens, answer.usage.cache_write_tokens) == (100, 20)
    assert answer.extra["usage"]["input"] == 3
    assert (run.model, run.model_provider, run.status) == ("m-1", "mock", "COMPLETED")
    assert (draft.session_id, draft.session.agent_id, draft.has_record_ids) == (SESSION, "pi", True)
    assert draft.session.metadata["cwd"] == "/w"


def test_the_outcome_of_a_run(tmp_path):
    recording = Recording().user("One").answer("Half", call("c1"), stop="aborted", errorMessage="Request was aborted")
    recording.user("Two").answer(stop="error", errorMessage="overloaded").user("Three").answer("Yes.")
    draft = read_single(tmp_path, recording)

    assert [(run.status, run.error) for run in draft.runs] == [
        ("CANCELLED", "Request was aborted"),
        ("ERROR", "overloaded"),
        ("COMPLETED", None),
    ]
    assert draft.runs[0].messages[1].tool_calls[0].status is None


def test_a_cost_of_0_beside_tokens_is_unknown(tmp_path):
    free = COST | {"total": 0}
    nothing = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "cost": free}
    draft = read_single(tmp_path, Recording().user("One").answer("A.", cost=free).answer("B.", usage=nothing))

    assert [m.usage.cost for m in draft.runs[0].messages[1:]] == [None, 0]


def test_texts_of_the_harness_begin_no_run(tmp_path):
    recording = simple()
    shell = {"command": "ls", "output": "a\nb", "exitCode": 0, "cancelled": False}
    recording.message("bashExecution", None, **shell)
    recording.entry("custom_message", customType="x", content="A note", display=True)
    recording.message("hookMessage", "A hook", customType="y")
    recording.entry("custom", customType="state", data={"n": 1})
    recording.entry("compaction", summary="So far: …", firstKeptEntryId="00000002", tokensBefore=9)
    recording.user("Next").answer("Ok.")
    draft = read_single(tmp_path, recording)

    assert [len(run.messages) for run in draft.runs] == [8, 2]
    shell, note, hook, summary = draft.runs[0].messages[4:]
    assert (shell.role, shell.content, shell.extra["exitCode"]) == ("user", "$ ls\na\nb", 0)
    assert (note.content, hook.content, hook.extra["role"]) == ("A note", "A hook", "hookMessage")
    assert (summary.content, summary.extra["compaction"], summary.extra["tokensBefore"]) == ("So far: …", True, 9)
    assert [e["type"] for e in draft.session.agent_data["events"]] == ["model_change", "custom"]


def test_the_usage_of_a_compaction_is_counted(tmp_path):
    usage = {"input": 1000, "output": 50, "cacheRead": 0, "cacheWrite": 0, "cost": COST}
    path = tmp_path / "s.jsonl"
    path.write_text(simple().entry("compaction", summary="S", firstKeptEntryId="x", usage=usage).text())
    store = SqliteDb(tmp_path / "s.db")
    store.ingest(path, progress=False)

    assert store.runs_df()["output_tokens"].tolist() == [60]


def test_images_and_unknown_parts(tmp_path):
    image = {"type": "image", "data": "AA==", "mimeType": "image/png"}
    parts = [{"type": "text", "text": "See"}, image, {"type": "novelty"}]
    (run,) = read_single(tmp_path, Recording().message("user", parts).answer("A picture.")).runs

    assert run.messages[0].content == parts[:2]
    assert run.messages[0].extra["parts"] == parts[2:]


def test_leaves_are_drafts_with_the_line_of_the_last_entry_first(tmp_path):
    recording = Recording().user("One", "u1").answer("A1", key="a1").user("Two", "u2").answer("A2", key="a2")
    recording.entry("branch_summary", "b1", "a1", fromId="a2", summary="Asked two.").user("Three", "u3").answer("A3")
    recording.user("Four", "u4", "b1").answer("A4", key="a4").entry("label", targetId="a2", label="good")
    drafts, problems = read(tmp_path, recording)

    assert not problems
    assert [outputs(draft) for draft in drafts] == [["A1", "A4"], ["A1", "A3"], ["A1", "A2"]]
    assert {draft.session_id for draft in drafts} == {SESSION}
    assert drafts[0].runs[0].messages[-1].content == "Asked two."
    assert drafts[2].runs[1].messages[-1].extra["label"] == "good"
    assert drafts[0].session.agent_data["labels"] == {"a2": "good"}
    assert drafts[0].keys[0] == drafts[1].keys[0]


def test_entries_that_are_no_messages_make_no_branch(tmp_path):
    recording = Recording().user("One", "u1").answer("A1", key="a1").user("Two", "u2").answer("A2", key="a2")
    recording.entry("thinking_level_change", "t1", "a1", thinkingLevel="high").entry("custom", "t2", "u1")

    assert outputs(read_single(tmp_path, recording)) == ["A1", "A2"]


def test_a_person_who_has_returned_with_a_summary_is_there(tmp_path):
    recording = Recording().user("One", "u1").answer("A1", key="a1").user("Two", "u2").answer("A2", key="a2")
    recording.entry("branch_summary", "b1", "a1", fromId="a2", summary="Asked two.")
    drafts, _ = read(tmp_path, recording)

    assert [outputs(draft) for draft in drafts] == [["A1"], ["A1", "A2"]]


def test_titles_and_removed_labels(tmp_path):
    recording = simple().entry("session_info", name="First").entry("session_info", name="Last")
    recording.entry("label", targetId="00000005", label="x").entry("label", targetId="00000005")
    draft = read_single(tmp_path, recording)

    assert draft.session.session_name == "Last"
    assert "labels" not in draft.session.agent_data


def test_a_fork_has_the_keys_of_its_parent(tmp_path):
    parent = simple()
    fork = Recording(
        "01900000-0000-7000-8000-000000000002", parentSession="/p/x.jsonl", timestamp="2026-05-02T00:00:00Z"
    )
    fork.records += parent.records[1:]
    fork.last = parent.last
    fork.user("Else").answer("Yes.")
    original, copy = read_single(tmp_path, parent), read_single(tmp_path, fork)

    assert copy.keys[0] == original.keys[0]
    assert copy.hashes[0] == original.hashes[0]
    assert copy.session.metadata["parent_session"] == "/p/x.jsonl"


def test_a_fork_of_the_first_generation_has_later_times_and_the_same_keys(tmp_path):
    parent = simple(1)
    fork = Recording("01900000-0000-7000-8000-000000000002", version=1, branchedFrom="/p/x.jsonl")
    fork.records += [record | {"timestamp": "2026-06-01T00:00:00.000Z"} for record in parent.records[1:]]
    original, copy = read_single(tmp_path, parent), read_single(tmp_path, fork)

    assert copy.keys == original.keys
    assert copy.hashes == original.hashes
    assert copy.runs[0].created_at.month == 4


def test_a_missing_parent_is_reported(tmp_path):
    drafts, problems = read(tmp_path, simple().user("Lost", parent="nowhere").answer("Yes."))

    assert [outputs(draft) for draft in drafts] == [["Done."], ["Yes."]]
    assert [problem.line for problem in problems] == [7]


def test_a_torn_line_does_not_part_the_conversation(tmp_path):
    lines = simple().user("Next").answer("Ok.").text().splitlines()
    lines[4] = lines[4][:30]
    drafts, problems = read(tmp_path, "\n".join(lines))

    assert [outputs(draft) for draft in drafts] == [["Done.", "Ok."]]
    assert [problem.line for problem in problems] == [5]


def test_files_of_other_layouts_are_not_recognized(tmp_path):
    importer = registry.get_importer("pi")
    said = {"type": "message", "message": {"role": "user", "content": "Hi"}}
    others = [
        [{"type": "session", "harness": "x", "id": "1", "version": 1}, said],
        [{"type": "session", "id": "1"}, said],
        [{"type": "session_start", "id": "1", "cwd": "/w"}, said | {"id": "2", "timestamp": "2026-05-01T10:00:00Z"}],
        [{"type": "session", "id": "1", "cwd": "/w"}, {"type": "message", "message": {"role": "user"}}],
        [{"role": "user", "content": "Hi"}],
    ]
    for records in others:
        path = tmp_path / "s.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        assert not importer.recognizes(Source(path, path.name)), records


def test_sample_of_the_first_generation(shared_data, tmp_path):
    figures = json.loads((shared_data / "EXPECTED.json").read_text())["pi/large-session.jsonl"]
    store = SqliteDb(tmp_path / "s.db")
    assert not store.ingest(shared_data / "pi" / "large-session.jsonl", progress=False).errors
    again = store.ingest(shared_data / "pi" / "large-session.jsonl", progress=False)
    assert (again.runs, again.skipped) == (0, 1)

    runs, messages, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()
    roles = {"user": "user", "assistant": "assistant", "toolResult": "tool"}
    assert Counter(messages["role"]) == {roles[role]: number for role, number in figures["roles"].items()}
    assert len(runs) == figures["roles"]["user"]
    assert len(calls) == figures["tool_calls"]
    assert calls["is_error"].sum() == figures["tool_errors"]
    assert (calls["status"] == "unknown").sum() == figures["tool_calls"] - figures["roles"]["toolResult"]
    assert runs["input_tokens"].sum() == figures["input"] + figures["cache_read"] + figures["cache_write"]
    assert runs["output_tokens"].sum() == figures["output"]
    assert runs["cache_read_tokens"].sum() == figures["cache_read"]
    assert runs["cache_write_tokens"].sum() == figures["cache_write"]
    assert runs["cost"].sum() == pytest.approx(figures["cost_total"])
    assert messages["model"].dropna().value_counts().to_dict() == figures["models"]
    assert (runs["status"] == "ERROR").sum() == figures["stop"]["error"]


def test_samples_of_version_3(shared_data):
    figures = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    drafts = {}
    for name, values in figures.items():
        if name.startswith("pi_v3/"):
            source = Source(shared_data / name, name)
            (drafts[name],) = registry.detect_importer(source).read(source)
            draft = drafts[name]
            messages = [message for run in draft.runs for message in run.messages]
            own = messages[values.get("inherited_messages", 0) :]
            usages = [message.usage for message in own if message.usage]
            assert draft.session_id == values["session_ids"][0]
            assert len(draft.runs) == values["runs_on_main_line"]
            assert len(own) == values["messages"]
            assert sum(len(m.tool_calls) for m in own) == values["tool_calls"]
            assert sum(u.output_tokens for u in usages) == values["output_tokens"]
            assert sum(u.input_tokens - u.cache_read_tokens for u in usages) == values["input_tokens"]
            assert sum(u.cost for u in usages) == pytest.approx(values["cost"])
    parent, fork = drafts.values()
    assert fork.keys[: len(parent.keys)] == parent.keys
    assert fork.hashes[: len(parent.hashes)] == parent.hashes


def damaged_files():
    recording = (
        simple().user("Two", "u2", "00000005").answer("Other", key="a9").entry("label", targetId="a9", label="x")
    )
    recording.message("bashExecution", None, command="ls", output="a").entry("compaction", summary="S")
    recording.entry("session_info", name="T")
    for damaged in (recording, simple(1)):
        data = damaged.text().encode()
        yield from truncated(data, 50)
        yield from torn(data, 50)
        for records in mistyped(damaged.records, 200):
            yield "".join(json.dumps(record) + "\n" for record in records).encode()


def test_damaged_files_are_read_as_far_as_they_go(tmp_path):
    importer = registry.get_importer("pi")
    path = tmp_path / "s.jsonl"
    sessions = 0
    for data in damaged_files():
        path.write_bytes(data)
        source = Source(path, path.name)
        importer.recognizes(source)
        importer.start_time(source)
        sessions += any(isinstance(item, Draft) for item in importer.read(source))
    assert sessions > 550


def test_damaged_files_are_stored(tmp_path):
    store = SqliteDb(tmp_path / "s.db")
    for number, data in enumerate(list(damaged_files())[::20]):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data.replace(SESSION.encode(), f"{number}".encode()))
        store.ingest(path, format="pi", progress=False)
        again = store.ingest(path, format="pi", progress=False)
        assert (again.sessions, again.runs) == (0, 0)


def test_ids_that_are_numbers_link_entries(tmp_path):
    recording = Recording().user("one", key=1).answer("A.", key=2).user("left", key=3).answer("B.", key=4, parent=2)
    drafts, problems = read(tmp_path, recording.user("two", key=5))
    assert problems == []
    assert [[run.input for run in draft.runs] for draft in drafts] == [["one", "two"], ["one", "left"]]


@pytest.mark.parametrize("version", [1, 3])
def test_sessions_joined_to_one_file(tmp_path, version):
    texts = [
        Recording(name, version).user(name, key="1").answer(f"Of {name}.", key="2").text() for name in ("s1", "s2")
    ]
    drafts, problems = read(tmp_path, "".join(texts))
    assert problems == []
    assert [(d.session_id, outputs(d), d.fork) for d in drafts] == [("s1", ["Of s1."], None), ("s2", ["Of s2."], None)]


def test_short_ids_without_times_are_not_those_of_copies(tmp_path):
    (tmp_path / "p").mkdir()
    for name in ("s1", "s2"):
        recording = Recording(name).user("same", key="1").answer(f"Of {name}.", key="2")
        for record in recording.records[1:]:
            del record["timestamp"]
        (tmp_path / "p" / f"{name}.jsonl").write_text(recording.text())
    with SqliteDb(tmp_path / "s.db") as store:
        store.ingest(tmp_path / "p", progress=False)
        assert sorted(store.messages_df().query("role == 'assistant'")["content"]) == ["Of s1.", "Of s2."]
