"""Sessions of the GitHub Copilot CLI: events, totals, nested agents, rewinds, compactions."""

from __future__ import annotations

import json

import pytest
from draft_reader import import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.copilot_cli import CopilotCli

    return CopilotCli()


def event(number, kind, agent=None, **data):
    base = {"type": kind, "id": f"e{number}", "parentId": f"e{number - 1}", "data": data}
    return base | {"timestamp": f"2026-01-02T03:04:{number:02}.000Z"} | ({"agentId": agent} if agent else {})


def shutdown(number, tokens, output, cached):
    usage = {"inputTokens": tokens, "outputTokens": output, "cacheReadTokens": cached, "cacheWriteTokens": 0}
    metrics = {"m1": {"requests": {"count": 1}, "usage": usage}}
    return event(number, "session.shutdown", shutdownType="routine", modelMetrics=metrics, totalNanoAiu=5)


TALK = (
    event(0, "session.start", sessionId="s1", version=1, producer="p", copilotVersion="1.0", selectedModel="m1",
          startTime="2026-01-02T03:04:00Z", context={"cwd": "/w", "branch": "main"}),
    event(1, "system.message", role="system", content="Be kind."),
    event(2, "user.message", content="Sort the shelf", attachments=[]),
    event(3, "assistant.message", messageId="a1", content="I look.", reasoningText="Hm.", outputTokens=7,
          toolRequests=[{"toolCallId": "c1", "name": "bash", "arguments": {"command": "ls"}},
                        {"toolCallId": "c2", "name": "view", "arguments": "{bad"}]),
    event(4, "tool.execution_start", toolCallId="c1", toolName="bash", arguments={"command": "ls"}),
    event(6, "tool.execution_complete", toolCallId="c1", success=True, result={"content": "a b"}),
    event(7, "tool.execution_complete", toolCallId="c2", success=False, error={"message": "no such file"}),
    event(8, "user.message", content="<skill>", source="skill-x"),
    event(9, "assistant.message", messageId="a2", content="Done.", outputTokens=3),
    shutdown(10, 100, 12, 40),
    event(11, "user.message", content="More", source="user"),
    event(12, "assistant.message", messageId="a3", content="Yes.", outputTokens=5),
    shutdown(13, 180, 17, 90),
)  # fmt: skip


def test_a_session(importer, tmp_path):
    path = write(tmp_path, "s1/events.jsonl", TALK)
    write(tmp_path, "s1/workspace.yaml", b'id: s1\nname: "Shelf"\nbranch: other\n')
    assert recognized_by(path) == "copilot_cli"
    [draft], problems = read(importer, path)
    assert problems == []
    assert (draft.session_id, draft.session.session_name) == ("s1", "Shelf")
    assert (draft.session.metadata["cwd"], draft.session.metadata["branch"]) == ("/w", "main")
    assert inputs(draft) == ["Sort the shelf", "More"]
    assert roles(draft)[0] == ["system", "user", "assistant", "tool", "tool", "user", "assistant"]
    answer = messages(draft)[2]
    assert [part["type"] for part in answer.content] == ["thinking", "text"]
    assert [(c.args, c.status, c.duration_s) for c in answer.tool_calls] == [
        ({"command": "ls"}, "completed", 2.0),
        ("{bad", "failed", None),
    ]
    assert (answer.model, draft.runs[0].output) == ("m1", "Done.")
    used = [run.usage for run in draft.runs]
    assert [(u.input_tokens, u.output_tokens, u.cache_read_tokens) for u in used] == [(100, 12, 40), (80, 5, 50)]
    assert draft.session.created_at == 1767323040
    assert import_twice(tmp_path, tmp_path / "s1").runs_df()["output_tokens"].sum() == 17


def test_nested_agents_are_drafts_of_their_own(importer, tmp_path):
    records = (
        *TALK[:3],
        event(3, "assistant.message", messageId="a", content="", toolRequests=[{"toolCallId": "t", "name": "task"}]),
        event(4, "subagent.started", agent="x", toolCallId="t", agentName="explore", agentDisplayName="Explore"),
        event(5, "assistant.message", messageId="n1", content="I look.", parentToolCallId="t", toolRequests=[]),
        event(6, "assistant.message", agent="x", messageId="n2", content="There."),
        event(7, "tool.execution_complete", toolCallId="t", success=True, result={"content": "There."}),
    )
    [draft, nested], problems = read(importer, write(tmp_path, "events.jsonl", records))
    assert problems == []
    assert roles(draft) == [["system", "user", "assistant", "tool"]]
    assert (nested.session_id, nested.session.agent_id) == ("s1/t", "explore")
    assert (nested.membership.session_id, nested.membership.tool_call_id) == ("s1", "t")
    assert [m.content for m in messages(nested)] == ["I look.", "There."]
    import_twice(tmp_path, tmp_path / "events.jsonl")


def test_a_rewind_keeps_what_it_removes(importer, tmp_path):
    records = (*TALK, event(14, "session.snapshot_rewind", upToEventId="e11", eventsRemoved=3))
    records += (event(15, "user.message", content="Other"),)
    path = write(tmp_path, "events.jsonl", records)
    drafts, problems = read(importer, path)
    assert problems == []
    assert [inputs(draft) for draft in drafts] == [["Sort the shelf", "Other"], ["Sort the shelf", "More"]]
    assert len(import_twice(tmp_path, path).sessions_df()) == 2
    _, [problem] = read(
        importer, write(tmp_path, "x.jsonl", (*TALK, event(14, "session.snapshot_rewind", upToEventId="x")))
    )
    assert problem.line == len(TALK) + 1


def test_how_runs_end_and_what_is_no_prompt(importer, tmp_path):
    records = (
        TALK[2],
        event(3, "session.compaction_complete", success=True, summaryContent="We did A.",
              compactionTokensUsed={"inputTokens": 50, "outputTokens": 5, "cacheReadTokens": 10}),
        event(4, "abort", reason="user_initiated"),
        event(5, "user.message", content="Two"),
        event(6, "tool.user_requested", toolCallId="c", toolName="bash", arguments={"command": "ls"}),
        event(7, "tool.execution_complete", toolCallId="c", success=True, result="a"),
        event(8, "session.error", errorType="x", message="No quota."),
        event(9, "later.kind", x=1),
    )  # fmt: skip
    path = write(tmp_path, "abc.jsonl", records)
    [draft], problems = read(importer, path)
    assert (problems, draft.session_id) == ([], "abc")
    assert [(run.status, run.error) for run in draft.runs] == [("CANCELLED", None), ("ERROR", "No quota.")]
    assert messages(draft)[1].extra["compaction"] is True
    assert messages(draft)[1].usage.input_tokens == 50
    assert draft.runs[1].messages[1].tool_calls[0].caller == "user"
    assert draft.session.agent_data["copilot_cli"]["events"] == [records[-1]]


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        {"type": "session.created", "session": {}},
        {"type": "user.message", "data": {"x": 1}, "timestamp": "x"},
        {"type": "session.start", "data": "x"},
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.jsonl", (value,))) != "copilot_cli"


def test_damaged_files_raise_nothing(importer, tmp_path):
    records = [*TALK, event(14, "session.snapshot_rewind", upToEventId="e11"), event(15, "user.message", content="x")]
    records += [event(16, "subagent.started", agent="x", toolCallId="t"), event(17, "session.compaction_complete")]
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.jsonl", damaged))
    for changed in mistyped(records, 300):
        drafts, _ = read(importer, write(tmp_path, "x.jsonl", tuple(changed)))
        assert drafts
    [draft], problems = read(importer, write(tmp_path, "x.jsonl", (TALK[0], 5, {"type": "x"}, TALK[2])))
    assert (inputs(draft), [problem.line for problem in problems]) == (["Sort the shelf"], [2, 3])


def test_a_nested_agent_that_a_nested_agent_calls(importer, tmp_path):
    def request(call_id):
        return [{"toolCallId": call_id, "name": "task", "arguments": {}}]

    records = (
        *TALK[:3],
        event(3, "assistant.message", messageId="a", content="", toolRequests=request("t1")),
        event(4, "assistant.message", messageId="n1", content="", parentToolCallId="t1", toolRequests=request("t2")),
        event(5, "assistant.message", messageId="n2", content="Deep.", parentToolCallId="t2"),
        event(6, "assistant.message", messageId="n3", content="There.", parentToolCallId="t1"),
    )
    path = write(tmp_path, "events.jsonl", records)
    drafts, _ = read(importer, path)
    assert [d.membership and d.membership.session_id for d in drafts] == [None, "s1", "s1/t1"]
    runs = import_twice(tmp_path, path).runs_df()
    assert list(runs["parent_run_id"].isna()) == [True, False, False]
    assert runs["parent_run_id"][2] == runs["run_id"][1]


def test_sessions_joined_to_one_file(importer, tmp_path):
    other = event(14, "session.start", sessionId="s2"), event(15, "user.message", content="Two"), shutdown(16, 5, 1, 0)
    drafts, problems = read(importer, write(tmp_path, "all.jsonl", (*TALK, *other)))
    assert problems == []
    assert [(d.session_id, inputs(d)) for d in drafts] == [("s1", ["Sort the shelf", "More"]), ("s2", ["Two"])]
    assert drafts[1].runs[0].usage.input_tokens == 5


def test_short_ids_of_two_sessions_are_not_those_of_copies(importer, tmp_path):
    from kern_nb.db import SqliteDb

    for name in ("s1", "s2"):
        start = event(0, "session.start", sessionId=name)
        talk = event(1, "user.message", content="same"), event(2, "assistant.message", content=f"Of {name}.")
        write(tmp_path, f"p/{name}.jsonl", (start, *talk))
    with SqliteDb(tmp_path / "s.db") as store:
        store.ingest(tmp_path / "p", progress=False)
        assert sorted(store.messages_df().query("role == 'assistant'")["content"]) == ["Of s1.", "Of s2."]


def test_a_repeated_event_counts_once(importer, tmp_path):
    [once], _ = read(importer, write(tmp_path, "once.jsonl", TALK))
    [twice], problems = read(importer, write(tmp_path, "twice.jsonl", tuple(e for e in TALK for _ in range(2))))
    assert problems == []
    assert (twice.keys, [m.content for m in messages(twice)]) == (once.keys, [m.content for m in messages(once)])
    assert [run.usage for run in twice.runs] == [run.usage for run in once.runs]
