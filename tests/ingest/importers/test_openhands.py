"""Conversations of OpenHands: events of the SDK in a folder or a file, their usage, trees, and the events of 0.x."""

from __future__ import annotations

import json

import pytest
from draft_reader import expected, import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated

ID = "0d1e2f30-0000-4000-8000-00000000000{}"


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.openhands import OpenHands

    return OpenHands()


def event(number, kind, source="environment", **fields):
    base = {"id": ID.format(number), "timestamp": f"2026-01-02T03:04:{number:02}.5", "source": source}
    return base | fields | {"kind": kind}


def said(number, source, text, role=None, **fields):
    message = {"role": role or source, "content": [{"cache_prompt": False, "type": "text", "text": text}]}
    return event(number, "MessageEvent", source, llm_message=message, activated_skills=[], **fields)


def action(number, call_id, command, response, thought="", **fields):
    call = {"id": call_id, "name": "terminal", "arguments": json.dumps({"command": command, "security_risk": "LOW"})}
    thoughts = [{"type": "text", "text": thought}] if thought else []
    fields = {"thought": thoughts, "reasoning_content": None, "thinking_blocks": [], "security_risk": "LOW"} | fields
    fields |= {"action": {"command": command, "kind": "TerminalAction"}, "tool_name": "terminal"}
    return event(
        number, "ActionEvent", "agent", tool_call_id=call_id, tool_call=call, llm_response_id=response, **fields
    )


def observation(number, call_id, text, is_error=False):
    content = {"content": [{"type": "text", "text": text}], "is_error": is_error, "exit_code": 0, "kind": "T"}
    return event(number, "ObservationEvent", tool_name="terminal", tool_call_id=call_id, observation=content)


def stats(number, prompt, output, cached=0, cost=0.0):
    counts = {"prompt_tokens": prompt, "completion_tokens": output, "cache_read_tokens": cached, "reasoning_tokens": 0}
    metrics = {"default": {"model_name": "m1", "accumulated_cost": cost, "accumulated_token_usage": counts}}
    return event(number, "ConversationStateUpdateEvent", key="stats", value={"usage_to_metrics": metrics})


FINISH = {
    "tool_name": "finish",
    "tool_call": {"id": "c3", "name": "finish", "arguments": '{"message": "All done."}'},
    "tool_call_id": "c3",
}
TALK = (
    event(0, "SystemPromptEvent", "agent", system_prompt={"type": "text", "text": "Be kind."}, tools=[{"name": "t"}]),
    said(1, "user", "Sort the shelf"),
    stats(2, 100, 10, 40, 0.5),
    action(3, "c1", "ls", "r1", "I look.", reasoning_content="Hm."),
    action(4, "c2", "pwd", "r1"),
    observation(5, "c1", "a b"),
    observation(6, "c2", "no", is_error=True),
    stats(7, 300, 25, 140, 0.75),
    action(8, "c3", "", "r2") | FINISH,
    said(9, "user", "More"),
)
STATE = {
    "id": "conv-1",
    "agent": {"llm": {"model": "m1", "api_key": "hidden"}, "tools": [{"name": "terminal"}]},
    "workspace": {"working_dir": "/w"},
    "execution_status": "finished",
    "stats": {"usage_to_metrics": {}},
}


def write_folder(folder, state, events):
    write(folder, "conv/base_state.json", state)
    for number, record in enumerate(events):
        write(folder, f"conv/events/event-{number:05}-{record['id']}.json", record)
    return folder / "conv" / "base_state.json"


def test_the_events_of_a_folder(importer, tmp_path):
    path = write_folder(tmp_path, STATE, TALK)
    assert recognized_by(path) == "openhands"
    [draft], problems = read(importer, path)
    assert problems == []
    assert (draft.session_id, draft.session.metadata["cwd"], draft.session.metadata["model"]) == ("conv-1", "/w", "m1")
    assert "hidden" not in json.dumps(draft.session.agent_data)
    assert roles(draft) == [["system", "user", "assistant", "tool", "tool", "assistant"], ["user"]]
    assert (inputs(draft), draft.runs[0].output) == (["Sort the shelf", "More"], "All done.")
    answer = messages(draft)[2]
    assert answer.content == [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "I look."}]
    assert [(c.tool_call_id, c.args["command"], c.status) for c in answer.tool_calls] == [
        ("c1", "ls", "completed"),
        ("c2", "pwd", "failed"),
    ]
    used = [m.usage for m in messages(draft) if m.usage]
    assert [(u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cost) for u in used] == [
        (100, 10, 40, 0.5),
        (200, 15, 100, 0.25),
    ]
    assert answer.created_at.isoformat() == "2026-01-02T03:04:03.500000+00:00"
    assert draft.session.metadata["time_zone"] == "unknown"


def test_a_folder_is_one_session(importer, tmp_path):
    from kern_nb.ingest.source import Source

    path = write_folder(tmp_path, STATE, TALK)
    assert importer.start_time(Source(path, path.name)) == "2026-01-02T03:04:00.5"
    store = import_twice(tmp_path, tmp_path / "conv")
    assert len(store.sessions_df()) == 1
    assert store.runs_df()["input_tokens"].sum() == 300
    (tmp_path / "conv" / "base_state.json").unlink()
    [draft], _ = read(importer, tmp_path / "conv" / "events" / f"event-00004-{ID.format(4)}.json")
    assert (draft.session_id, len(draft.runs)) == ("conv", 2)


def test_an_error_of_a_benchmark_ends_the_last_run(importer, tmp_path):
    records = [
        {"instance_id": f"i{number}", "error": error, "history": list(TALK)}
        for number, error in enumerate(("No.", None))
    ]
    drafts, _ = read(importer, write(tmp_path, "output.jsonl", tuple(records)))
    ends = [[(run.status, run.error) for run in draft.runs] for draft in drafts]
    assert ends == [[("COMPLETED", None), ("ERROR", "No.")], [("COMPLETED", None)] * 2]


def test_a_repeated_event_is_one(importer, tmp_path):
    [draft], problems = read(importer, write(tmp_path, "a.jsonl", (*TALK[:6], *TALK[3:9], *TALK[:2], TALK[9])))
    assert problems == []
    assert roles(draft) == [["system", "user", "assistant", "tool", "tool", "assistant"], ["user"]]
    assert [call.tool_call_id for call in messages(draft)[2].tool_calls] == ["c1", "c2"]


def test_the_times_of_events_in_another_order(importer, tmp_path):
    events = [TALK[1] | {"timestamp": f"2026-01-02T03:04:{second}Z"} for second in ("30", "10", "20")]
    events = [event | {"id": str(number)} for number, event in enumerate(events)]
    [draft], _ = read(importer, write(tmp_path, "a.json", events))
    assert (draft.session.updated_at - draft.session.created_at, draft.session.created_at % 60) == (20, 10)
    assert "time_zone" not in draft.session.metadata


def test_usage_by_response(importer, tmp_path):
    usages = [{"response_id": "r1", "prompt_tokens": 7, "completion_tokens": 1, "cache_read_tokens": 2}]
    usages += [{"response_id": "lost", "prompt_tokens": 5, "completion_tokens": 1}]
    metrics = {"model_name": "m2", "costs": [{"cost": 0.1}, {"cost": 0.2}], "token_usages": usages}
    path = write_folder(tmp_path, STATE | {"stats": {"usage_to_metrics": {"agent": metrics}}}, TALK)
    [draft], _ = read(importer, path)
    used = [(m.usage.input_tokens, m.usage.cost, m.model) for m in messages(draft) if m.usage]
    assert used == [(7, 0.1, "m2"), (5, 0.2, "m2")]


def test_exports_in_one_file(importer, tmp_path):
    for name, content in (("a.jsonl", TALK), ("b.json", list(TALK)), ("c.json", {"items": list(TALK)})):
        path = write(tmp_path, name, content)
        assert recognized_by(path) == "openhands"
        [draft], problems = read(importer, path)
        assert (problems, draft.session_id, len(draft.runs)) == ([], path.stem, 2)
    results = tuple({"instance_id": name, "history": list(TALK), "test_result": {"x": 1}} for name in ("i1", "i2"))
    drafts, _ = read(importer, write(tmp_path, "output.jsonl", results))
    assert [draft.session_id for draft in drafts] == ["output/i1", "output/i2"]


def test_ends_condensations_and_messages_of_the_harness(importer, tmp_path):
    records = (
        said(1, "user", "One"),
        event(2, "Condensation", summary="We did A.", forgotten_event_ids=[], llm_response_id="r9"),
        said(3, "environment", "Keep going.", "user"),
        event(4, "AgentErrorEvent", "agent", tool_name="terminal", tool_call_id="c1", error="bad"),
        event(5, "PauseEvent", "user"),
        said(6, "user", "Two"),
        event(7, "ConversationErrorEvent", code="Broken", detail="It broke."),
        event(8, "LaterEvent", data=1),
    )
    [draft], problems = read(importer, write(tmp_path, "a.jsonl", records))
    assert problems == []
    assert inputs(draft) == ["One", "Two"]
    assert [(run.status, run.error) for run in draft.runs] == [("CANCELLED", None), ("ERROR", "Broken: It broke.")]
    assert messages(draft)[1].extra["compaction"] is True
    assert messages(draft)[3].is_error is True
    assert draft.session.agent_data["openhands"]["events"] == [records[-1]]


def test_a_tree_has_a_draft_for_each_leaf(importer, tmp_path):
    talk = [said(1, "user", "One"), said(2, "agent", "Yes", "assistant", parent_id=ID.format(1))]
    talk += [said(3, "user", "Two", parent_id=ID.format(2)), said(4, "user", "Three", parent_id=ID.format(2))]
    path = write(tmp_path, "a.jsonl", tuple(talk))
    drafts, problems = read(importer, path)
    assert problems == []
    assert [inputs(draft) for draft in drafts] == [["One", "Three"], ["One", "Two"]]
    assert len(import_twice(tmp_path, path).messages_df()) == 4


OLD = (
    {"id": 0, "timestamp": "2025-01-02T03:04:05", "source": "agent", "action": "system", "message": "Be kind.",
     "args": {"content": "Be kind.", "tools": []}},
    {"id": 1, "timestamp": "2025-01-02T03:04:06", "source": "user", "action": "message", "message": "Sort",
     "args": {"content": "Sort", "image_urls": None, "wait_for_response": False}},
    {"id": 2, "timestamp": "2025-01-02T03:04:06", "source": "user", "action": "recall", "args": {"query": "Sort"}},
    {"id": 3, "timestamp": "2025-01-02T03:04:07", "source": "agent", "action": "run", "message": "Running: ls",
     "args": {"command": "ls", "thought": "I look."},
     "tool_call_metadata": {"function_name": "execute_bash", "tool_call_id": "t1", "total_calls_in_response": 1,
      "model_response": {"id": "r1", "model": "m0", "usage": {"prompt_tokens": 50, "completion_tokens": 5,
       "prompt_tokens_details": {"cached_tokens": 20}},
       "choices": [{"message": {"tool_calls": [{"id": "t1", "function": {"arguments": '{"command": "ls"}'}}]}}]}},
     "llm_metrics": {"accumulated_cost": 0.25}},
    {"id": 4, "timestamp": "2025-01-02T03:04:08", "source": "agent", "observation": "run", "content": "a b", "cause": 3,
     "extras": {"metadata": {"exit_code": 1}}, "success": False, "tool_call_metadata": {"tool_call_id": "t1"}},
    {"id": 5, "timestamp": "2025-01-02T03:04:09", "source": "agent", "action": "think", "args": {"thought": "Hm"}},
    {"id": 6, "timestamp": "2025-01-02T03:04:09", "source": "agent", "observation": "think", "content": "ok", "cause": 5,
     "extras": {}},
    {"id": 7, "timestamp": "2025-01-02T03:04:10", "source": "agent", "action": "finish",
     "args": {"final_thought": "Sorted.", "outputs": {}}, "message": "Done", "llm_metrics": {"accumulated_cost": 0.75}},
    {"id": 8, "timestamp": "2025-01-02T03:04:11", "source": "environment", "observation": "agent_state_changed",
     "content": "", "extras": {"agent_state": "finished"}},
)  # fmt: skip


def test_the_events_of_old_versions(importer, tmp_path):
    path = write(tmp_path, "a.json", list(OLD))
    assert recognized_by(path) == "openhands"
    [draft], problems = read(importer, path)
    assert problems == []
    assert roles(draft) == [["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]]
    [run] = draft.runs
    assert (run.input, run.output, run.model) == ("Sort", "Sorted.", "m0")
    calls = [call for m in run.messages for call in m.tool_calls]
    assert [(c.tool_call_id, c.tool_name, c.args, c.status) for c in calls] == [
        ("t1", "execute_bash", {"command": "ls"}, "failed"),
        ("5", "think", {}, "completed"),
        ("7", "finish", {"final_thought": "Sorted.", "outputs": {}}, None),
    ]
    used = [m.usage for m in run.messages if m.usage]
    assert [(u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cost) for u in used] == [
        (50, 5, 20, 0.25),
        (None, None, None, 0.5),
    ]


def test_a_folder_of_old_versions(importer, tmp_path):
    for record in OLD:
        write(tmp_path, f"sessions/s1/events/{record['id']}.json", record)
    write(tmp_path, "sessions/s1/event_cache/0-25.json", list(OLD))
    write(
        tmp_path, "sessions/s1/metadata.json", {"conversation_id": "s1", "title": "Shelf", "selected_repository": "r"}
    )
    store = import_twice(tmp_path, tmp_path / "sessions")
    assert store.sessions_df()[["session_id", "session_name"]].to_numpy().tolist() == [["s1", "Shelf"]]
    assert len(store.messages_df()) == 7


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        [{"id": 1, "source": "user", "text": "x"}],
        {"agent": {"name": "x"}, "id": "1", "messages": []},
        {"kind": "MessageEvent", "source": "user"},
        {"kind": 0, "v": {}},
        {"action": "move", "args": {"x": 1}, "id": 1},
        [{"source": "agent", "kind": "Other", "timestamp": "x"}],
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.json", value)) != "openhands"


@pytest.mark.parametrize("talk", [TALK, OLD])
def test_damaged_files_raise_nothing(importer, tmp_path, talk):
    data = "".join(json.dumps(record) + "\n" for record in talk).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.jsonl", damaged))
    for changed in mistyped(list(talk), 300):
        if isinstance(changed, list):
            drafts, _ = read(importer, write(tmp_path, "x.jsonl", tuple(changed)))
            assert drafts
    [draft], problems = read(importer, write(tmp_path, "x.jsonl", (talk[0], 7, {"x": 1}, talk[1])))
    assert len(messages(draft)) == 2
    assert [problem.line for problem in problems] == [2, 3]


def test_a_damaged_folder_raises_nothing(importer, tmp_path):
    for changed in mistyped([STATE, *TALK], 60):
        if isinstance(changed[0], dict) and all(isinstance(record, dict) for record in changed):
            events = [{"id": "x"} | record for record in changed[1:]]
            write(tmp_path, "conv/base_state.json", changed[0])
            for number, record in enumerate(events):
                write(tmp_path, f"conv/events/event-{number:05}-x.json", record)
            read(importer, tmp_path / "conv" / "base_state.json")


def test_the_samples_have_the_expected_figures(importer, shared_data, tmp_path):
    figures = expected(shared_data, "openhands/events.jsonl")
    store = import_twice(tmp_path, shared_data / "openhands")
    assert len(store.sessions_df()) == 2
    runs, stored, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()
    assert len(runs) == figures["runs"]
    assert (stored["role"] == "assistant").sum() == figures["assistant_messages"]
    assert (stored["role"] == "tool").sum() == figures["tool_results"]
    assert calls["tool_name"].value_counts().to_dict() == figures["tool_calls_by_name"]
    [draft], _ = read(importer, shared_data / "openhands" / "events.jsonl")
    assert sum(m.is_error is True for m in messages(draft)) == figures["failed_calls_is_error_or_AgentError"]
    for name in ("input_tokens", "output_tokens", "cache_read_tokens"):
        assert runs[name].sum() == figures[name], name
    assert runs["cost"].isna().all()
    assert set(stored["model"].dropna()) == set(figures["models"])
    first, last = stored["created_at"].min(), stored["created_at"].max()
    assert last.isoformat().startswith(figures["last_ts"])
    assert first.isoformat() > figures["first_ts"]
    empty = expected(shared_data, "openhands/v1_11_5_cli_default/base_state.json")
    assert empty["session_ids"][0] in set(store.sessions_df()["session_id"])
