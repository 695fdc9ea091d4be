"""Claude Code: answers over several lines, results, harness messages, branches, forks, sub-agents, damage."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest import registry
from kern_nb.ingest.importer import Draft, Fork, Membership
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

SESSION = "5e55104e-0000-4000-8000-000000000001"


class Transcript:
    """Writes records, each below the one before unless a parent is stated."""

    def __init__(self, session_id=SESSION, **fields):
        self.records = []
        self.fields = {"sessionId": session_id, "isSidechain": False, "cwd": "/w", "version": "2.1.0"} | fields
        self.last = None
        self.seconds = 0

    def add(self, kind, uuid, *, parent=..., **fields):
        self.seconds += 1
        record = {"type": kind, "uuid": uuid, "parentUuid": self.last if parent is ... else parent, **self.fields}
        self.records.append(record | {"timestamp": f"2026-05-01T10:00:{self.seconds % 60:02}.000Z"} | fields)
        self.last = uuid
        return self

    def user(self, uuid, content, **fields):
        return self.add("user", uuid, message={"role": "user", "content": content}, **fields)

    def result(self, uuid, call, content="ok", is_error=None, **fields):
        part = {"type": "tool_result", "tool_use_id": call, "content": content}
        return self.user(uuid, [part if is_error is None else part | {"is_error": is_error}], **fields)

    def answer(self, uuid, message_id, *parts, output=5, model="m-1", **fields):
        usage = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100}
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
        message = {"id": message_id, "role": "assistant", "model": model, "content": parts}
        message["usage"] = usage | {"output_tokens": output}
        return self.add("assistant", uuid, message=message, **{"requestId": f"req-{message_id}"} | fields)

    def event(self, **fields):
        self.records.append(fields)
        return self

    def text(self):
        return "".join(json.dumps(record) + "\n" for record in self.records)


def call(call_id, name="Read", **args):
    return {"type": "tool_use", "id": call_id, "name": name, "input": args}


def simple():
    return (
        Transcript()
        .user("u1", "Read two files.")
        .answer("a1", "m1", {"type": "thinking", "thinking": "Hm.", "signature": "s"}, output=1)
        .answer("a2", "m1", "I read.", output=2)
        .answer("a3", "m1", call("c1", file="a"), output=9)
        .add("progress", "p1", data={"type": "hook_progress"})
        .result("r1", "c1", "A", False, parent="a3", toolUseResult={"type": "text", "durationMs": 1500})
        .answer("a4", "m1", call("c2", file="b"), output=9, parent="r1")
        .result("r2", "c2", "no such file", True)
        .answer("a5", "m2", "Done.")
        .add("system", "d1", subtype="turn_duration", durationMs=7000)
    )


def read(path, text, name=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    source = Source(path, name or path.name)
    importer = registry.detect_importer(source)
    assert importer.name == "claude_code"
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if isinstance(i, Problem)]


def read_single(tmp_path, transcript):
    drafts, problems = read(tmp_path / f"{SESSION}.jsonl", transcript.text())
    assert (len(drafts), problems) == (1, [])
    return drafts[0]


def roles(run):
    return [message.role for message in run.messages]


def inputs(draft):
    return [run.input for run in draft.runs]


def test_the_lines_of_an_answer_are_one_message_counted_once(tmp_path):
    draft = read_single(tmp_path, simple())

    (run,) = draft.runs
    first = run.messages[1]
    assert roles(run) == ["user", "assistant", "tool", "tool", "assistant"]
    assert [part["type"] for part in first.content] == ["thinking", "text"]
    assert [(c.tool_call_id, c.args) for c in first.tool_calls] == [("c1", {"file": "a"}), ("c2", {"file": "b"})]
    assert (first.usage.input_tokens, first.usage.output_tokens) == (123, 9)
    assert (first.usage.cache_read_tokens, first.usage.cache_write_tokens) == (100, 20)
    assert first.extra["usage"]["input_tokens"] == 3
    assert [m.is_error for m in run.messages if m.role == "tool"] == [False, True]
    assert [c.duration_s for c in first.tool_calls] == [1.5, None]
    assert (run.duration_s, run.output, run.model) == (7.0, "Done.", "m-1")
    assert [len(set(keys)) for keys in draft.keys] == [5]
    assert draft.has_record_ids
    assert (draft.session_id, draft.session.agent_id) == (SESSION, "claude-code")
    assert draft.session.metadata["cwd"] == "/w"


def test_one_message_id_for_all_answers_does_not_merge_them(tmp_path):
    transcript = Transcript().user("u1", "Go.").answer("a1", "m", call("c1"), requestId=None)
    transcript.result("r1", "c1").answer("a2", "m", "Done.", requestId=None)
    transcript.records[-1]["message"]["usage"]["input_tokens"] = 77

    assert roles(read_single(tmp_path, transcript).runs[0]) == ["user", "assistant", "tool", "assistant"]


def test_texts_of_the_harness_begin_no_run(tmp_path):
    transcript = (
        Transcript()
        .user("h1", "<local-command-caveat>Caveat</local-command-caveat>", isMeta=True)
        .user("h2", "<command-name>/model</command-name>")
        .user("h3", "<local-command-stdout>Set.</local-command-stdout>")
        .user("u1", "Hello")
        .answer("a1", "m1", "Hi.")
        .user("h4", "<bash-input>ls</bash-input>")
        .user("h5", "<bash-stdout>x</bash-stdout><bash-stderr></bash-stderr>")
        .user("h6", "<system-reminder>todo</system-reminder>")
        .user("h7", "A note of the client", isMeta=True)
        .add("system", "h8", subtype="local_command", content="<local-command-stdout>y</local-command-stdout>")
        .user("h9", "<task-notification>done</task-notification>")
        .user("h10", "<ide_selection>x</ide_selection>")
        .user("h11", "This session is being continued from a previous conversation that ran out of context. …")
        .user(
            "u2", [{"type": "text", "text": "<ide_opened_file>f</ide_opened_file>"}, {"type": "text", "text": "Why?"}]
        )
        .answer("a2", "m2", "So.")
        .user("u3", "<ide_selection>x</ide_selection>\nAnd this?")
    )
    draft = read_single(tmp_path, transcript)

    assert [len(run.messages) for run in draft.runs] == [13, 2, 1]
    assert draft.runs[0].input == "Hello"
    assert draft.runs[0].duration_s == 1


def test_a_slash_command_that_the_model_answers_is_a_prompt(tmp_path):
    transcript = (
        Transcript()
        .user("u1", "Hello")
        .answer("a1", "m1", "Hi.")
        .user("u2", "<command-message>review</command-message>\n<command-name>/review</command-name>")
        .user("u3", "Review the code.", isMeta=True)
        .answer("a2", "m2", "Fine.")
        .user("u4", "<command-name>/exit</command-name>")
        .user("u5", "<local-command-stdout>Bye</local-command-stdout>")
    )
    assert [run.output for run in read_single(tmp_path, transcript).runs] == ["Hi.", "Fine."]


def test_a_queued_prompt_is_a_prompt(tmp_path):
    transcript = simple()
    attachment = {"type": "queued_command", "prompt": "And c?", "commandMode": "prompt"}
    transcript.add("attachment", "q1", attachment=attachment).answer("a9", "m9", "C.")

    assert inputs(read_single(tmp_path, transcript)) == ["Read two files.", "And c?"]


def test_a_compaction_continues_the_conversation_and_is_no_run(tmp_path):
    transcript = simple()
    transcript.add("system", "b1", parent=None, logicalParentUuid="a5", subtype="compact_boundary", content="Compacted")
    transcript.user("s1", "This session continues …", isCompactSummary=True).user("u2", "Next").answer(
        "a6", "m6", "Ok."
    )
    draft = read_single(tmp_path, transcript)

    assert inputs(draft) == ["Read two files.", "Next"]
    assert draft.runs[0].messages[-1].extra["compaction"] is True


def test_errors_and_interruptions_are_the_status_of_the_run(tmp_path):
    transcript = (
        Transcript()
        .user("u1", "One")
        .answer("a1", "x1", "API Error: 529", model="<synthetic>", isApiErrorMessage=True)
        .user("u2", "Two")
        .answer("a2", "m2", call("c1"))
        .result("r2", "c1", "rejected", True)
        .user("i2", [{"type": "text", "text": "[Request interrupted by user for tool use]"}])
        .user("u3", "Three")
        .answer("a3", "m3", "Yes.")
    )
    draft = read_single(tmp_path, transcript)

    assert [run.status for run in draft.runs] == ["ERROR", "CANCELLED", "COMPLETED"]
    assert draft.runs[0].error == "API Error: 529"
    assert draft.runs[0].messages[1].usage is None
    assert draft.runs[0].model is None


def test_images_are_parts_and_unknown_parts_do_not_hide_the_text(tmp_path):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    transcript = Transcript().user("u1", [{"type": "text", "text": "See"}, image, {"type": "novelty", "x": 1}])
    transcript.answer("a1", "m1", {"type": "novelty"}, "A picture.")
    (run,) = read_single(tmp_path, transcript).runs

    assert run.messages[0].content == [{"type": "text", "text": "See"}, image]
    assert run.messages[0].extra["parts"] == [{"type": "novelty", "x": 1}]
    assert run.output == "A picture."


def test_reasoning_is_no_output(tmp_path):
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    transcript = Transcript().user("u1", "Go.").answer("a1", "m1", "I begin.", call("c1")).result("r1", "c1")
    draft = read_single(tmp_path, transcript.answer("a2", "m2", thought))

    assert draft.runs[0].output == "I begin."


def test_searches_of_the_provider_are_calls_with_a_result(tmp_path):
    use = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
    outcome = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result"}]}
    draft = read_single(tmp_path, Transcript().user("u1", "Search").answer("a1", "m1", use, outcome, "Nothing."))
    (search,) = draft.runs[0].messages[1].tool_calls

    assert (search.tool_name, search.status, search.result) == (
        "web_search",
        "completed",
        [{"type": "web_search_result"}],
    )
    assert draft.runs[0].output == "Nothing."


def test_retries_and_edits_are_drafts_of_one_session_with_the_current_line_first(tmp_path):
    transcript = simple().user("u2", "Second").answer("a6", "m6", "First answer.")
    transcript.answer("a7", "m7", "Second answer.", parent="u2")
    transcript.user("u3", "Third", parent="a7").answer("a8", "m8", "Third answer.")
    transcript.user("u4", "Third, edited", parent="a7").answer("a9", "m9", "Now.")
    transcript.user("u5", "Another first prompt", parent=None).answer("a10", "m10", "New.")
    drafts, problems = read(tmp_path / "x.jsonl", transcript.text())

    assert not problems
    assert [draft.session_id.removeprefix(SESSION) for draft in drafts] == ["", "", "", "~u5"]
    assert drafts[3].fork == Fork(SESSION, "")
    assert [[run.output for run in draft.runs] for draft in drafts] == [
        ["Done.", "Second answer.", "Now."],
        ["Done.", "Second answer.", "Third answer."],
        ["Done.", "First answer."],
        ["New."],
    ]
    assert drafts[0].hashes[:2] == drafts[1].hashes[:2]
    assert drafts[0].keys[:2] == drafts[1].keys[:2]
    store = SqliteDb(tmp_path / "s.db")
    assert not store.ingest(tmp_path / "x.jsonl", progress=False).errors
    assert store.ingest(tmp_path / "x.jsonl", progress=False).runs == 0
    sessions = store.sessions_df().set_index("session_id")
    assert sessions["n_runs"].sum() == len(store.runs_df()) == 6
    assert len(store.messages_df()) == 14
    assert sessions.loc[f"{SESSION}~u5", ["parent_session_id", "fork_run_index"]].tolist() == [SESSION, -1]


def test_dead_ends_of_the_harness_are_no_branches(tmp_path):
    transcript = simple().user("h1", "<local-command-stdout>x</local-command-stdout>", parent="a5")
    transcript.answer("n1", "x1", "No response requested.", model="<synthetic>")
    transcript.user("u2", "Next", parent="a5").answer("a6", "m6", "Ok.")
    draft = read_single(tmp_path, transcript)

    assert [len(run.messages) for run in draft.runs] == [7, 2]


def test_a_missing_parent_begins_a_line_and_is_reported(tmp_path):
    transcript = simple().user("u2", "Elsewhere", parent="nowhere").answer("a6", "m6", "Ok.")
    drafts, problems = read(tmp_path / "x.jsonl", transcript.text())

    assert [inputs(draft) for draft in drafts] == [["Read two files."], ["Elsewhere"]]
    assert [problem.line for problem in problems] == [11]


def test_a_torn_line_does_not_part_the_conversation(tmp_path):
    lines = simple().user("u2", "Second").answer("a6", "m6", "Ok.").text().splitlines()
    lines[1] = lines[1][:40]
    lines[8] += lines.pop(9)  # two records on one line
    drafts, problems = read(tmp_path / "x.jsonl", "\n".join(lines))

    assert [inputs(draft) for draft in drafts] == [["Read two files.", "Second"]]
    assert [problem.line for problem in problems] == [2]


def test_records_out_of_order_and_twice(tmp_path):
    transcript = simple()
    expected = read_single(tmp_path, transcript)
    transcript.records.append(transcript.records[0])
    transcript.records.insert(0, transcript.records.pop(8))
    draft = read_single(tmp_path, transcript)

    assert (draft.keys, draft.hashes) == (expected.keys, expected.hashes)


def test_a_cycle_of_parents_is_read(tmp_path):
    transcript = simple()
    transcript.records[0]["parentUuid"] = "a5"
    drafts, _ = read(tmp_path / "x.jsonl", transcript.text())

    assert sum(len(run.messages) for run in drafts[0].runs) == 5


def test_titles(tmp_path):
    transcript = simple().event(type="summary", summary="Of another session", leafUuid="z")
    assert read_single(tmp_path, transcript).session.session_name is None
    transcript.event(type="summary", summary="Files", leafUuid="a5")
    assert read_single(tmp_path, transcript).session.session_name == "Files"
    transcript.event(type="custom-title", customTitle="My files", sessionId=SESSION)
    transcript.event(type="ai-title", aiTitle="Two files", sessionId=SESSION)
    draft = read_single(tmp_path, transcript)
    assert draft.session.session_name == "My files"
    assert draft.session.metadata["summary"] == "Of another session"


def test_a_fork_has_the_keys_of_the_original_records(tmp_path):
    original = simple()
    copy = Transcript("f0f0f0f0-0000-4000-8000-000000000002")
    for record in original.records:
        stated = {"forkedFrom": {"sessionId": SESSION, "messageUuid": record["uuid"]}}
        copy.records.append(
            record | {"uuid": f"{record['uuid']}-copy", **stated} | {"sessionId": copy.fields["sessionId"]}
        )
        if record["parentUuid"]:
            copy.records[-1]["parentUuid"] += "-copy"
    copy.last = "d1-copy"
    copy.user("u9", "Else").answer("a9", "m9", "Yes.")
    ((parent,), _), ((fork,), _) = read(tmp_path / "a.jsonl", original.text()), read(tmp_path / "b.jsonl", copy.text())

    assert fork.session_id == copy.fields["sessionId"]
    assert fork.keys[:1] == parent.keys
    sources = [Source(tmp_path / name, name) for name in ("a.jsonl", "b.jsonl")]
    start, fork_start = (registry.get_importer("claude_code").start_time(source) for source in sources)
    assert start < fork_start


def test_a_background_fork_repeats_the_records(tmp_path):
    fork = Transcript("f0f0f0f0-0000-4000-8000-000000000003", sessionKind="bg")
    fork.records = [record | fork.fields for record in simple().records]
    fork.last = "d1"
    fork.user("u9", "Else").answer("a9", "m9", "Yes.")
    ((parent,), _), ((copy,), _) = read(tmp_path / "a.jsonl", simple().text()), read(tmp_path / "b.jsonl", fork.text())

    assert copy.session_id == fork.fields["sessionId"]
    assert (copy.keys[0], copy.hashes[0]) == (parent.keys[0], parent.hashes[0])


def test_a_fork_began_with_its_first_message(tmp_path):
    """Whatever the time of the records that it copies, also after it has changed."""
    fork = fork_of(simple()).user("u9", "Else", timestamp="2026-05-08T12:00:00.000Z")
    (tmp_path / "a.jsonl").write_text(simple().text())
    (tmp_path / "b.jsonl").write_text(fork.text())
    store = SqliteDb(tmp_path / "s.db")
    store.ingest(tmp_path, progress=False)
    fork.event(type="custom-title", customTitle="Renamed", sessionId=fork.fields["sessionId"])
    (tmp_path / "b.jsonl").write_text(fork.answer("a9", "m9", "Yes.").text())
    store.ingest(tmp_path, progress=False)
    times = store.sessions_df(columns=["session_name", "created_at"]).set_index("session_name")["created_at"]

    assert times.loc["Renamed"].isoformat() == "2026-05-08T12:00:00+00:00"
    assert times.min().isoformat() == "2026-05-01T10:00:01+00:00"


def local_command(transcript, number):
    transcript.user(f"l{number}", "<command-name>/exit</command-name>")
    return transcript.user(f"l{number + 1}", "<local-command-stdout>Bye</local-command-stdout>")


def fork_of(transcript, session_id="f0f0f0f0-0000-4000-8000-000000000004"):
    fork = Transcript(session_id, sessionKind="bg")
    fork.records = [record | fork.fields for record in transcript.records]
    fork.last = transcript.last
    return fork


def stored_outputs(store):
    session_ids = store.sessions_df()["session_id"]
    return {name[:8]: [run.output for run in store.get_session(name).runs] for name in session_ids}


def test_a_line_that_leaves_out_a_local_command(tmp_path):
    before, after = [("u2", "a6", "Two."), ("u3", "a7", "Three.")], [("u3", "a7", "Three."), ("u2", "a6", "Two.")]
    for number, turns in enumerate((before, after)):  # the current line has the local command, or lacks it
        transcript = local_command(simple(), 1)
        for prompt, answer, text in turns:
            transcript.user(prompt, text, parent="a5" if prompt == "u3" else "l2").answer(answer, answer, text)
        path = tmp_path / f"{number}.jsonl"
        path.write_text(transcript.text())
        store = SqliteDb(tmp_path / f"{number}.db")
        for expected in ((2, 3), (0, 0)):
            report = store.ingest(path, progress=False)
            assert (report.sessions, report.runs, report.errors) == (*expected, [])
        branch = next(s for s in store.sessions_df().to_dict("records") if s["parent_session_id"] == SESSION)
        assert (branch["fork_run_index"], branch["fork_message_index"]) == (0, 4)
        assert len(store.messages_df()) == 11
        run = store.get_session(branch["session_id"]).runs[-1]
        assert (run.input, run.output) == (turns[0][2], turns[0][2])


def test_a_fork_of_a_session_that_ended_with_a_local_command(tmp_path):
    fork = (
        fork_of(simple()).user("u9", "Else").answer("a9", "m9", "Yes.").user("u10", "More").answer("a10", "m10", "No.")
    )
    (tmp_path / "a.jsonl").write_text(local_command(simple(), 1).text())
    (tmp_path / "b.jsonl").write_text(fork.text())
    store = SqliteDb(tmp_path / "s.db")
    for expected in ((2, 3), (0, 0)):
        report = store.ingest(tmp_path, progress=False)
        assert (report.sessions, report.runs, report.errors) == (*expected, [])
    fork.user("u11", "And?").answer("a11", "m11", "So.")
    (tmp_path / "b.jsonl").write_text(fork.text())
    assert store.ingest(tmp_path, progress=False).runs == 1
    assert stored_outputs(store)["f0f0f0f0"][1:] == ["Yes.", "No.", "So."]
    assert store.runs_df()["output_tokens"].sum() == 14 + 3 * 5


def test_a_session_that_grows_by_a_local_command_after_it_was_forked(tmp_path):
    fork = fork_of(simple()).user("u9", "Else").answer("a9", "m9", "Yes.")
    (tmp_path / "a.jsonl").write_text(simple().text())
    (tmp_path / "b.jsonl").write_text(fork.text())
    store = SqliteDb(tmp_path / "s.db")
    store.ingest(tmp_path, progress=False)
    (tmp_path / "a.jsonl").write_text(local_command(simple(), 1).text())
    (tmp_path / "b.jsonl").write_text(fork.user("u10", "More").answer("a10", "m10", "No.").text())
    report = store.ingest(tmp_path, progress=False)

    assert (report.sessions, report.runs, report.errors) == (0, 2, [])
    assert stored_outputs(store) == {"5e55104e": ["Done."], "f0f0f0f0": ["Done.", "Yes.", "No."]}


def subagent(agent="ab12", **fields):
    transcript = Transcript(isSidechain=True, agentId=agent, **fields)
    return transcript.user(f"{agent}-u", "Look.").answer(f"{agent}-a", f"m-{agent}", "Seen.")


def with_agents():
    transcript = Transcript().user("u1", "Look around.").answer("a1", "m1", call("t1", "Task", prompt="Look."))
    transcript.result("r1", "t1", "Seen.", toolUseResult={"agentId": "ab12", "totalDurationMs": 2000})
    transcript.answer("a2", "m2", call("t2", "Task", prompt="Look twice."))
    transcript.result("r2", "t2", "Seen.", toolUseResult={"agentId": "cd34"})
    return transcript.answer("a3", "m3", "All seen.")


def test_subagents_are_members_of_the_run_that_called_them(tmp_path):
    path = tmp_path / f"{SESSION}.jsonl"
    folder = tmp_path / SESSION / "subagents"
    folder.mkdir(parents=True)
    nested = subagent("ab12").answer("n1", "mn", call("t9", "Task"))
    nested.result("n2", "t9", toolUseResult={"agentId": "aa56"})
    (folder / "agent-ab12.jsonl").write_text(nested.text())
    (folder / "agent-ab12.meta.json").write_text(json.dumps({"agentType": "Explore", "description": "Look"}))
    (folder / "agent-aa56.jsonl").write_text(subagent("aa56").text())
    (folder / "journal.jsonl").write_text('{"type": "started", "agentId": "ab12"}\n')
    (tmp_path / "agent-cd34.jsonl").write_text(subagent("cd34").text())
    drafts, problems = read(path, with_agents().text())

    assert not problems
    assert [(d.session_id.removeprefix(SESSION), d.membership) for d in drafts] == [
        ("", None),
        (".agent-ab12", Membership(SESSION, "t1")),
        (".agent-aa56", Membership(f"{SESSION}.agent-ab12", "t9")),
        (".agent-cd34", Membership(SESSION, "t2")),
    ]
    assert [len(d.runs) for d in drafts] == [1, 1, 1, 1]
    assert (drafts[1].session.agent_id, drafts[1].session.session_name) == ("Explore", "Look")
    assert drafts[3].file == "agent-cd34.jsonl"
    importer = registry.get_importer("claude_code")
    names = {file.name for file in importer.companions(Source(path, path.name))}
    assert names == {*(file.name for file in folder.iterdir()), "agent-cd34.jsonl"}


def test_subagents_are_not_counted_as_sessions(tmp_path):
    (tmp_path / SESSION / "subagents").mkdir(parents=True)
    (tmp_path / SESSION / "subagents" / "agent-ab12.jsonl").write_text(subagent("ab12").text())
    (tmp_path / f"{SESSION}.jsonl").write_text(with_agents().text())
    store = SqliteDb(tmp_path / "s.db")
    first, again = (store.ingest(tmp_path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.skipped) == (1, 2, 0)
    assert (again.sessions, again.runs, again.skipped) == (0, 0, 1)
    assert repr(again).startswith("Nothing new: skipped 1 session already stored.")


def test_a_retry_in_a_subagent_is_another_member_run(tmp_path):
    transcript = subagent().answer("z1", "mz", "Seen again.", parent="ab12-u")
    drafts, _ = read(tmp_path / "agent-ab12.jsonl", transcript.text())

    assert [[message.role for run in d.runs for message in run.messages] for d in drafts] == [
        ["user", "assistant"],
        ["assistant"],
    ]
    assert [d.runs[0].output for d in drafts] == ["Seen again.", "Seen."]
    assert drafts[1].session_id == f"{drafts[0].session_id}~ab12-a"


def test_the_file_of_a_subagent_alone(tmp_path):
    drafts, _ = read(tmp_path / "p" / SESSION / "subagents" / "agent-ab12.jsonl", subagent().text())
    beside, _ = read(tmp_path / "agent-ab12.jsonl", subagent().text())

    assert [d.session_id for d in drafts + beside] == [f"{SESSION}.agent-ab12"] * 2
    assert [d.membership for d in drafts + beside] == [Membership(SESSION)] * 2


def test_sidechains_in_the_transcript(tmp_path):
    transcript = with_agents()
    side = Transcript(isSidechain=True)
    side.user("s1", "Look.").answer("s2", "ms", "Seen.")
    transcript.records[2:2] = side.records
    drafts, problems = read(tmp_path / "x.jsonl", transcript.text())

    assert not problems
    assert [d.membership for d in drafts] == [None, Membership(SESSION, "t1")]
    assert [len(run.messages) for d in drafts for run in d.runs] == [6, 2]


def test_files_of_other_layouts_are_not_recognized(tmp_path):
    importer = registry.get_importer("claude_code")
    ids = {"uuid": "u", "parentUuid": None, "sessionId": "s"}
    others = [
        {"type": "user", "message": {"role": "user", "parts": [{"text": "Hi"}]}, **ids},
        {"type": "user", "message": {"role": "user", "content": [{"type": "novelty"}]}, **ids},
        {"type": "assistant", "message": {"role": "assistant", "content": "Hi"}, "session_id": "s"},
        {"type": "user", "content": "Hi", **ids},
        {"type": "message", "message": {"role": "user", "content": "Hi"}, "id": "1"},
        {"role": "user", "content": "Hi"},
    ]
    for number, record in enumerate(others):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(record) + "\n")
        assert not importer.recognizes(Source(path, path.name)), record


def test_a_file_that_begins_with_many_events(tmp_path):
    transcript = Transcript()
    for number in range(30):
        transcript.event(type="file-history-snapshot", messageId=str(number), snapshot={})
    transcript.user("u1", "Hello").answer("a1", "m1", "Hi.")
    assert inputs(read_single(tmp_path, transcript)) == ["Hello"]


@pytest.fixture
def expected(shared_data):
    figures = json.loads((shared_data / "EXPECTED.json").read_text())
    return {name: value for name, value in figures.items() if name.startswith("claude_code/")}


def test_samples(shared_data, expected, tmp_path):
    store = SqliteDb(tmp_path / "s.db")
    for name in expected:
        assert not store.ingest(shared_data / name, progress=False).errors
    for name in expected:
        again = store.ingest(shared_data / name, progress=False)
        assert (again.sessions, again.runs, again.skipped) == (0, 0, 1)
    runs, messages, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()
    for figures in expected.values():
        (session_id,) = figures["session_ids"]
        own, said = runs[runs["session_id"] == session_id], messages[messages["session_id"] == session_id]
        called = calls[calls["session_id"] == session_id]
        cached = figures["cache_read_tokens"], figures["cache_creation_tokens"]
        assert (said["role"] == "assistant").sum() == figures["api_calls"]
        assert (said["role"] == "tool").sum() == figures["tool_result"]
        assert len(called) == figures["tool_use"]
        assert called["is_error"].sum() == figures["tool_errors"]
        assert own["input_tokens"].sum() == figures["input_tokens"] + sum(cached)
        assert own["output_tokens"].sum() == figures["output_tokens"]
        assert (own["cache_read_tokens"].sum(), own["cache_write_tokens"].sum()) == cached
        assert set(own["model"]) == set(figures["models"])
    assert runs["duration_s"].isin([57.122, 63.385, 111.123]).sum() == 3


def damaged_files():
    transcript = with_agents()
    transcript.user("u2", "Edit", parent="a1").answer("a9", "m9", "x").add("system", "d9", subtype="turn_duration")
    transcript.event(type="summary", summary="S", leafUuid="a9")
    side = Transcript(isSidechain=True).user("s1", "Look twice.").answer("s2", "ms", "Seen.")
    transcript.records += side.records
    data = transcript.text().encode()
    yield from truncated(data, 50)
    yield from torn(data, 50)
    for records in mistyped(transcript.records, 300):
        yield "".join(json.dumps(record) + "\n" for record in records).encode()


def test_damaged_files_are_read_as_far_as_they_go(tmp_path):
    importer = registry.get_importer("claude_code")
    path = tmp_path / "x.jsonl"
    sessions = 0
    for data in damaged_files():
        path.write_bytes(data)
        source = Source(path, path.name)
        importer.recognizes(source)
        items = list(importer.read(source))
        importer.start_time(source)
        sessions += any(isinstance(item, Draft) for item in items)
        assert items or len(data) < 400
    assert sessions > 380


def test_damaged_files_are_stored(tmp_path):
    store = SqliteDb(tmp_path / "s.db")
    for number, data in enumerate(list(damaged_files())[::20]):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data.replace(SESSION.encode(), f"{number}".encode()))
        store.ingest(path, format="claude_code", progress=False)
        again = store.ingest(path, format="claude_code", progress=False)
        assert (again.sessions, again.runs) == (0, 0)


def test_short_ids_of_two_sessions_are_not_those_of_copies(tmp_path):
    for name in ("s1", "s2"):
        path = tmp_path / "p" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(Transcript(name).user("u1", "same").answer("a1", "m1", f"Of {name}.").text())
    with SqliteDb(tmp_path / "s.db") as store:
        store.ingest(tmp_path / "p", progress=False)
        # The prompts say the same at the same time, and may be copies; the answers are not.
        assert sorted(store.messages_df().query("role == 'assistant'")["content"]) == ["Of s1.", "Of s2."]


def test_transcripts_joined_to_one_file_are_sessions(tmp_path):
    first = (
        Transcript("s1").user("u1", "one").answer("a1", "m1", "A.").event(type="summary", summary="T", leafUuid="a1")
    )
    second = Transcript("s2").user("u2", "two").answer("a2", "m2", "B.").event(type="mode", sessionId="s2")
    drafts, problems = read(tmp_path / "all.jsonl", first.text() + second.text())
    assert problems == []
    assert [(d.session_id, inputs(d), d.fork) for d in drafts] == [("s1", ["one"], None), ("s2", ["two"], None)]
    assert [d.session.session_name for d in drafts] == ["T", None]
    assert [bool(d.session.agent_data) for d in drafts] == [True, True]


def test_an_answer_that_a_queued_prompt_parts_is_counted_once(tmp_path):
    transcript = Transcript().user("u1", "one").answer("a1", "m1", "I look.", output=2)
    transcript.add("attachment", "q1", attachment={"type": "queued_command", "prompt": "also", "commandMode": "prompt"})
    draft = read_single(tmp_path, transcript.answer("a2", "m1", call("c1"), output=9).result("r1", "c1"))
    usage = [m.usage and m.usage.output_tokens for run in draft.runs for m in run.messages if m.role == "assistant"]
    assert usage == [9, None]


def test_a_sidechain_may_be_called_by_a_sidechain(tmp_path):
    transcript = Transcript().user("u1", "one").answer("a1", "m1", call("c1", "Task", prompt="go"))
    transcript.user("s1", "go", parent=None, isSidechain=True)
    transcript.answer("s2", "m2", call("c2", "Task", prompt="deeper"), isSidechain=True)
    transcript.user("x1", "deeper", parent=None, isSidechain=True).answer("x2", "m3", "End.", isSidechain=True)
    drafts, _ = read(tmp_path / f"{SESSION}.jsonl", transcript.text())
    assert [d.membership for d in drafts[1:]] == [
        Membership(SESSION, "c1"),
        Membership(drafts[1].session_id, "c2"),
    ]


def test_the_duration_of_two_results_in_a_record_is_that_of_neither(tmp_path):
    parts = [{"type": "tool_result", "tool_use_id": name, "content": "ok"} for name in ("c1", "c2")]
    transcript = Transcript().user("u1", "one").answer("a1", "m1", call("c1"), call("c2"))
    draft = read_single(tmp_path, transcript.user("r1", parts, toolUseResult={"durationMs": 5}))
    assert [c.duration_s for c in draft.runs[0].messages[1].tool_calls] == [None, None]


def test_a_resumed_subagent_is_that_of_the_first_call(tmp_path):
    transcript = Transcript().user("u1", "one")
    for number in (1, 2):
        transcript.answer(f"a{number}", f"m{number}", call(f"c{number}", "Task", prompt="go"))
        transcript.result(f"r{number}", f"c{number}", toolUseResult={"agentId": "x"})
    agent = Transcript(isSidechain=True, agentId="x").user("b1", "go").answer("b2", "m9", "Done.")
    folder = tmp_path / SESSION / "subagents"
    folder.mkdir(parents=True)
    (folder / "agent-x.jsonl").write_text(agent.text())
    drafts, _ = read(tmp_path / f"{SESSION}.jsonl", transcript.text())
    assert drafts[1].membership == Membership(SESSION, "c1")
