"""Trajectories of SWE-agent and mini-swe-agent: history, times of actions, totals, reports, demonstrations."""

from __future__ import annotations

import json

import pytest
from draft_reader import expected, import_twice, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.swe_agent import SweAgent

    return SweAgent()


def said(role, content, **fields):
    return {"role": role, "content": content, "agent": "main", "message_type": "action"} | fields


def called(number, name, **args):
    call = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
    return said("assistant", f"I run {name}.", thought=f"I run {name}.", action=name, tool_calls=[call])


def result(number, text):
    return said("tool", [{"type": "text", "text": text}], tool_call_ids=[f"c{number}"], message_type="observation")


def step(action, seconds):
    return {
        "action": action,
        "observation": "ok",
        "response": f"I run {action}.",
        "execution_time": seconds,
        "state": {},
    }


TRAJECTORY = {
    "environment": "main",
    "trajectory": [step("ls\n", 0.5), step("edit", 1.5), step("submit", 0.25)],
    "history": [
        said("system", "Be kind.", message_type="system_prompt"),
        said("user", "A demo", is_demo=True),
        said("assistant", "A demo answer", is_demo=True, tool_calls=[{"id": "d", "function": {"name": "x"}}]),
        said("user", [{"type": "text", "text": "Sort the shelf"}], message_type="observation"),
        called(1, "ls", path="."),
        result(1, "a b"),
        called(2, "edit", text="x"),
        result(2, "done"),
    ],
    "info": {
        "exit_status": "submitted",
        "submission": "diff",
        "model_stats": {"instance_cost": 0.5, "tokens_sent": 100, "tokens_received": 10, "api_calls": 3},
    },
    "replay_config": json.dumps({"agent": {"model": {"name": "m1"}}}),
}


def test_a_trajectory(importer, tmp_path):
    path = write(tmp_path, "inst-1/inst-1.traj", TRAJECTORY)
    assert recognized_by(path) == "swe_agent"
    [draft], problems = read(importer, path, "inst-1/inst-1.traj")
    assert problems == []
    assert (draft.session_id, draft.session.metadata["task_id"]) == ("inst-1/inst-1", "inst-1")
    assert roles(draft) == [["system", "user", "assistant", "user", "assistant", "tool", "assistant", "tool"]]
    [run] = draft.runs
    assert (run.input, run.output, run.status, run.model) == ("Sort the shelf", "I run edit.", "COMPLETED", "m1")
    calls = [call for m in run.messages for call in m.tool_calls]
    assert [(c.tool_name, c.args, c.duration_s) for c in calls] == [
        ("ls", {"path": "."}, 0.5),
        ("edit", {"text": "x"}, 1.5),
    ]
    assert [call.status for call in calls] == ["completed", "completed"]
    assert (run.usage.input_tokens, run.usage.output_tokens, run.usage.cost) == (100, 10, 0.5)
    assert run.extra["steps"] == [TRAJECTORY["trajectory"][2]]
    assert draft.session.agent_data["swe_agent"]["submission"] == "diff"
    assert run.created_at is None
    import_twice(tmp_path, tmp_path / "inst-1")


def test_commands_in_text(importer, tmp_path):
    history = [said("system", "x"), said("user", "Task"), said("assistant", "ls", action="ls"), said("user", "a b")]
    [draft], _ = read(importer, write(tmp_path, "a.traj", TRAJECTORY | {"history": history}))
    assert (len(draft.runs), draft.runs[0].input) == (1, "Task")
    assert messages(draft)[2].extra["execution_time"] == 0.5


def test_a_trajectory_without_a_history(importer, tmp_path):
    [draft], _ = read(importer, write(tmp_path, "a.traj", {"trajectory": TRAJECTORY["trajectory"], "info": {}}))
    assert [m.content for m in messages(draft)][:2] == ["I run ls\n.", "ok"]
    assert len(draft.runs) == 1


@pytest.mark.parametrize(
    ("exit_status", "status"),
    [("submitted (exit_cost)", "CANCELLED"), ("exit_environment_error", "ERROR"), (None, "COMPLETED")],
)
def test_how_it_ended(importer, tmp_path, exit_status, status):
    info = TRAJECTORY["info"] | {"exit_status": exit_status, "model_stats": {"instance_cost": 0}}
    [draft], _ = read(importer, write(tmp_path, "a.traj", TRAJECTORY | {"info": info}))
    assert (draft.runs[0].status, draft.runs[0].error, draft.runs[0].usage) == (status, exit_status, None)


def test_the_score_of_a_report(importer, tmp_path):
    for name in ("i1", "i2", "i3"):
        write(tmp_path, f"{name}/{name}.traj", TRAJECTORY)
    write(tmp_path, "results.json", {"resolved": ["i1"], "submitted": ["i1", "i2"]})
    assert len(import_twice(tmp_path, tmp_path).sessions_df()) == 3
    for name, score in (("i1", {"resolved": 1.0}), ("i2", {"resolved": 0.0}), ("i3", {})):
        [draft], _ = read(importer, tmp_path / name / f"{name}.traj")
        assert draft.scores == score


MINI = {
    "info": {
        "exit_status": "Submitted",
        "submission": "diff",
        "model_stats": {"instance_cost": 0.75, "api_calls": 2},
        "mini_version": "2.0",
        "config": {"model": {"model_name": "m2"}},
    },
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Sort"},
        {"role": "assistant", "content": "THOUGHT: ls", "extra": {"actions": [{"command": "ls"}], "timestamp": 1.7e9,
         "cost": 0.5, "response": {"model": "m2-x", "usage": {"prompt_tokens": 30, "completion_tokens": 3}}}},
        {"role": "user", "content": "a b"},
        {"object": "response", "output": [
            {"type": "function_call", "call_id": "f1", "name": "bash", "arguments": '{"command": "pwd"}'}],
         "usage": {"input_tokens": 40, "output_tokens": 4}, "extra": {"cost": 0.25}},
        {"role": "tool", "tool_call_id": "f1", "content": "/"},
        {"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}},
    ],
    "trajectory_format": "mini-swe-agent-1.1",
}  # fmt: skip


def test_mini_swe_agent(importer, tmp_path):
    path = write(tmp_path, "i1/i1.traj.json", MINI)
    assert recognized_by(path) == "swe_agent"
    [draft], problems = read(importer, path, "i1/i1.traj.json")
    assert problems == []
    assert (draft.session_id, draft.session.agent_id, len(draft.runs)) == ("i1/i1", "mini-swe-agent", 1)
    [run] = draft.runs
    assert (run.status, run.usage) == ("COMPLETED", None)
    assert [(m.usage.input_tokens, m.usage.cost) for m in run.messages if m.usage] == [(30, 0.5), (40, 0.25)]
    assert messages(draft)[2].created_at.year == 2023
    assert messages(draft)[4].tool_calls[0].status == "completed"
    old = MINI | {"messages": [{"role": m["role"], "content": "x"} for m in MINI["messages"] if "role" in m]}
    [draft], _ = read(importer, write(tmp_path, "a.traj.json", old))
    assert (draft.runs[0].usage.cost, draft.runs[0].model) == (0.75, "m2")
    import_twice(tmp_path, path)


def test_outputs_of_calls_as_the_responses_api_has_them(importer, tmp_path):
    """They have a type and no role; the id of a call may be in either field."""
    answer = {"object": "response", "output": [
        {"type": "function_call", "call_id": "f1", "name": "bash", "arguments": "{}"},
        {"type": "function_call", "id": "f2", "name": "bash", "arguments": "{}"},
    ]}  # fmt: skip
    outputs = [
        {
            "type": "function_call_output",
            "call_id": call_id,
            "output": "ok",
            "extra": {"returncode": 0, "timestamp": 1.7e9},
        }
        for call_id in ("f1", "f2")
    ]
    [draft], problems = read(
        importer, write(tmp_path, "a.json", MINI | {"messages": [MINI["messages"][1], answer, *outputs]})
    )
    assert problems == []
    assert roles(draft) == [["user", "assistant", "tool", "tool"]]
    assert [call.status for call in messages(draft)[1].tool_calls] == ["completed", "completed"]
    assert messages(draft)[2].extra == {"returncode": 0}
    assert messages(draft)[2].created_at.year == 2023


def test_a_result_of_several_calls(importer, tmp_path):
    calls = [call for number in (1, 2) for call in called(number, "ls")["tool_calls"]]
    both = result(1, "a b") | {"tool_call_ids": ["c1", "c2"]}
    history = [said("user", "Task"), called(1, "ls") | {"tool_calls": calls}, both]
    path = write(tmp_path, "a.traj", TRAJECTORY | {"history": history})
    frame = import_twice(tmp_path, path).tool_calls_df()
    assert frame[["tool_call_id", "status", "result"]].to_numpy().tolist() == [
        ["c1", "completed", "a b"],
        ["c2", "completed", "a b"],
    ]


def test_cached_tokens_of_other_providers(importer, tmp_path):
    usage = {"prompt_tokens": 30, "completion_tokens": 3, "cache_read_input_tokens": 20}
    answer = {"role": "assistant", "content": "x", "extra": {"response": {"usage": usage}}}
    [draft], _ = read(importer, write(tmp_path, "a.json", MINI | {"messages": [MINI["messages"][1], answer]}))
    assert (messages(draft)[1].usage.input_tokens, messages(draft)[1].usage.cache_read_tokens) == (30, 20)


def test_a_demonstration_is_no_task(importer, tmp_path):
    history = [said("user", "A demo", message_type="demonstration"), said("user", "Task"), called(1, "ls")]
    [draft], _ = read(importer, write(tmp_path, "a.traj", TRAJECTORY | {"history": history}))
    assert draft.runs[0].input == "Task"


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = ({"messages": MINI["messages"][:2]}, {"trajectory": [{"x": 1}]}, {"history": [{"role": "user"}]})
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.json", value)) != "swe_agent"


@pytest.mark.parametrize("document", [TRAJECTORY, MINI])
def test_damaged_files_raise_nothing(importer, tmp_path, document):
    data = json.dumps(document, indent=1).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.traj", damaged))
    for changed in mistyped(document, 300):
        read(importer, write(tmp_path, "x.traj", changed))
    broken = TRAJECTORY | {"history": [*TRAJECTORY["history"][:4], 5, *TRAJECTORY["history"][4:]]}
    [draft], problems = read(importer, write(tmp_path, "x.traj", broken))
    assert (len(messages(draft)), len(problems)) == (8, 1)


def test_the_sample_has_the_expected_figures(importer, shared_data, tmp_path):
    name = "6e44b9__sweagenttestrepo-1c2844"
    figures = expected(shared_data, f"swe_agent/{name}.traj")
    store = import_twice(tmp_path, shared_data / "swe_agent" / f"{name}.traj")
    assert store.sessions_df()["session_id"].tolist() == figures["session_ids"]
    runs, stored, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()
    assert len(runs) == figures["runs"]
    assert stored["role"].value_counts().to_dict() == figures["messages_by_role"]
    assert calls["tool_name"].value_counts().to_dict() == figures["tool_calls_by_name"]
    assert (calls["status"] == "completed").sum() == figures["tool_results"]
    assert (runs["input_tokens"].sum(), runs["output_tokens"].sum()) == (
        figures["input_tokens"],
        figures["output_tokens"],
    )
    assert runs["cost"].sum() == figures["cost"]
    left = read(importer, shared_data / "swe_agent" / f"{name}.traj")[0][0].runs[0].extra["steps"]
    seconds = calls["duration_s"].sum() + sum(item["execution_time"] for item in left)
    assert seconds == pytest.approx(figures["tool_seconds"], abs=1e-6)
