"""Trajectories in ATIF: steps, copied context, nested agents, continuations, parts, and the reward of a Harbor trial."""

from __future__ import annotations

import gzip
import json

import pytest
from mutations import mistyped, truncated

CLOCK = "2026-04-05T08:00:{:02}Z"


@pytest.fixture
def store(tmp_path):
    """A SQLite store."""
    from kern_nb.db import SqliteDb

    store = SqliteDb(tmp_path / "s.db")
    yield store
    store.close()


def read(path):
    from kern_nb.ingest.registry import detect_importer
    from kern_nb.ingest.source import Source

    source = Source(path, path.name)
    return list(detect_importer(source).read(source))


def step(number, source, message, **other):
    return {"step_id": number, "timestamp": CLOCK.format(number), "source": source, "message": message} | other


def metrics(prompt, completion, cached=None, cost=None):
    values = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached, "cost_usd": cost}
    return {"metrics": {key: value for key, value in values.items() if value is not None}}


def results(*items):
    return {"observation": {"results": [dict(zip(("source_call_id", "content"), item, strict=True)) for item in items]}}


def steps():
    call = {"tool_call_id": "k1", "function_name": "list_files", "arguments": {"path": "."}}
    return [
        step(1, "system", "You tidy up."),
        step(2, "user", "Which files are here?"),
        step(
            3,
            "agent",
            "",
            reasoning_content="List them.",
            tool_calls=[call],
            **results(("k1", "a b")),
            **metrics(80, 7, 20, 0.5),
        ),
        step(4, "agent", "Two: a and b.", model_name="acme/large", **metrics(90, 5)),
        step(5, "user", "Thanks."),
        step(6, "agent", "Welcome.", llm_call_count=0),
    ]


def trajectory(**other):
    agent = {"name": "tidier", "version": "3.1", "model_name": "acme/small"}
    return {
        "schema_version": "ATIF-v1.6",
        "trajectory_id": "t",
        "session_id": "s",
        "agent": agent,
        "steps": steps(),
    } | other


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
    return path


def test_steps_are_messages(store, tmp_path):
    """Of a prompt a run; reasoning is a part, not text; cached tokens are part of the prompt's."""
    path = write(tmp_path / "trajectory.json", trajectory())
    report = store.ingest(path, progress=False)
    session = store.get_session("t")
    first, second = session.runs
    answer = first.messages[2]

    assert (report.sessions, report.runs, report.messages, report.errors) == (1, 2, 7, [])
    assert (session.agent_id, session.metadata["version"]) == ("tidier", "3.1")
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert (first.input, first.output, first.model) == ("Which files are here?", "Two: a and b.", "acme/large")
    assert (answer.model, answer.content) == ("acme/small", [{"type": "thinking", "thinking": "List them."}])
    assert (answer.usage.input_tokens, answer.usage.cache_read_tokens, answer.usage.cost) == (80, 20, 0.5)
    assert (first.tool_calls[0].result, first.tool_calls[0].tool_name) == ("a b", "list_files")
    assert first.messages[3].is_error is None
    assert (second.messages[1].model, second.messages[1].usage) == (None, None)
    assert store.sessions_df()["input_tokens"].tolist() == [170]
    assert store.ingest(path, progress=False).skipped == 1


def test_parts_are_kept(tmp_path):
    """Images by their path, which is not opened."""
    image = {"type": "image", "source": {"media_type": "image/png", "path": "images/x.png"}}
    parts = [{"type": "text", "text": "See:"}, image]
    value = trajectory(steps=[step(1, "user", parts), step(2, "agent", parts, reasoning_content="Hm.")])
    [draft] = read(write(tmp_path / "trajectory.json", value))
    user, agent = draft.runs[0].messages

    assert user.content == parts
    assert agent.content == [{"type": "thinking", "thinking": "Hm."}, *parts]


@pytest.mark.parametrize("follows", ["user", "agent"])
def test_copied_context_is_history(store, tmp_path, follows):
    """Its usage and calls are counted where they were written; it adds no runs."""
    copied = [record | {"is_copied_context": True} for record in steps()]
    value = trajectory(steps=[*copied, step(7, follows, "More."), step(8, "agent", "Done.", **metrics(10, 1))])
    store.ingest(write(tmp_path / "trajectory.json", value), progress=False)
    frame = store.messages_df()

    assert store.sessions_df()["input_tokens"].tolist() == [10]
    assert store.sessions_df()["n_tool_calls"].tolist() == [0]
    assert store.get_session("t").runs[0].messages[-1].content == "Done."
    assert len(store.runs_df()) == 1
    assert len(frame) == 9


def test_a_nested_trajectory_is_a_member(store, tmp_path):
    """In the file or beside it, with the call whose result refers to it."""
    inner = trajectory(
        trajectory_id="inner", steps=[step(1, "user", "Look."), step(2, "agent", "Seen.", **metrics(3, 1))]
    )
    beside = trajectory(trajectory_id="beside", steps=inner["steps"])
    value = trajectory(subagent_trajectories=[inner, {"steps": 5}])
    result = value["steps"][2]["observation"]["results"][0]
    result["subagent_trajectory_ref"] = [{"trajectory_id": "inner"}, {"trajectory_path": "aside.json"}]
    write(tmp_path / "x" / "aside.json", beside)
    path = write(tmp_path / "x" / "trajectory.json", value)
    main, first, problem, second = read(path)

    assert (main.session_id, main.membership) == ("t", None)
    assert [(d.session_id, d.membership.session_id, d.membership.tool_call_id) for d in (first, second)] == [
        ("inner", "t", "k1"),
        ("beside", "t", "k1"),
    ]
    assert "nested trajectory 1" in problem.reason

    report = store.ingest(tmp_path / "x", progress=False)
    assert len(report.errors) == 1
    parents = store.runs_df(columns=["parent_run_id"])["parent_run_id"]
    assert (len(store.sessions_df()), parents.notna().sum()) == (1, 2)


def test_paths_outside_of_the_folder_are_not_opened(tmp_path):
    """Nor is the file itself read again."""
    write(tmp_path / "secret.json", trajectory(trajectory_id="secret"))
    for name in ("../secret.json", str(tmp_path / "secret.json"), "trajectory.json", "missing.json", "a\0.json", 5):
        path = write(tmp_path / "x" / "trajectory.json", trajectory(continued_trajectory_ref=name))
        assert [draft.session_id for draft in read(path)] == ["t"]


def test_a_continuation_is_a_fork(store, tmp_path):
    """It does not repeat what it continues, whichever file sorts first."""
    copied = [record | {"is_copied_context": True} for record in steps()]
    later = trajectory(trajectory_id="t2", steps=[*copied, step(7, "user", "More."), step(8, "agent", "Done.")])
    write(tmp_path / "x" / "trajectory.cont-1.json", later)
    path = write(tmp_path / "x" / "trajectory.json", trajectory(continued_trajectory_ref="trajectory.cont-1.json"))
    first, second = read(path)

    assert (second.fork.session_id, second.fork.before_key) == ("t", None)
    assert [m.content for run in second.runs for m in run.messages] == ["More.", "Done."]
    report = store.ingest(tmp_path / "x", progress=False)
    assert (report.sessions, report.messages, report.errors) == (2, 9, [])
    assert store.get_session("t2").parent_session_id == "t"
    assert first.fork is None


def test_sessions_without_a_trajectory_id_are_named_by_their_file(tmp_path):
    """The id of a session may repeat."""
    value = trajectory(trajectory_id=None)
    assert read(write(tmp_path / "trajectory.json", value))[0].session_id == "s/trajectory"
    value["session_id"] = None
    assert read(write(tmp_path / "other.json", value))[0].session_id == "other"


def test_a_compressed_file_has_the_same_session(store, tmp_path):
    path = write(tmp_path / "x.json", trajectory(trajectory_id=None))
    store.ingest(path, progress=False)
    compressed = tmp_path / "x.json.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert store.ingest(compressed, progress=False).skipped == 1


def test_totals_are_the_usage_of_a_run_without_metrics(tmp_path):
    """They are not added to those of steps."""
    totals = {"total_prompt_tokens": 50, "total_completion_tokens": 4, "total_cost_usd": 0.25, "total_steps": 2}
    plain = [step(1, "user", "Hi."), step(2, "agent", "Hello.")]
    [draft] = read(write(tmp_path / "trajectory.json", trajectory(steps=plain, final_metrics=totals)))
    assert (draft.runs[0].usage.input_tokens, draft.runs[0].usage.cost) == (50, 0.25)
    [draft] = read(write(tmp_path / "trajectory.json", trajectory(final_metrics=totals)))
    assert [run.usage for run in draft.runs] == [None, None]


def test_totals_state_what_no_step_does(store, tmp_path):
    """Many agents know the cost of the whole only; with nested agents, it may include what these state."""
    one = [step(1, "user", "Hi."), step(2, "agent", "Hello.", **metrics(50, 4, 10))]
    totals = {"total_prompt_tokens": 50, "total_completion_tokens": 4, "total_cost_usd": 0.25, "total_steps": 2}
    path = write(tmp_path / "trajectory.json", trajectory(steps=one, final_metrics=totals))
    store.ingest(path, progress=False)
    row = store.sessions_df().iloc[0]
    assert (row["input_tokens"], row["output_tokens"], row["cost"]) == (50, 4, 0.25)
    inner = trajectory(trajectory_id="inner", steps=one)
    one[1] |= results(("k", "x"))
    one[1]["observation"]["results"][0]["subagent_trajectory_ref"] = [{"trajectory_id": "inner"}]
    main, _ = read(write(path, trajectory(steps=one, final_metrics=totals, subagent_trajectories=[inner])))
    assert main.runs[0].usage is None


def test_ids_that_are_numbers(tmp_path):
    inner = trajectory(trajectory_id=18, steps=steps()[1:3])
    value = trajectory(trajectory_id=17, session_id=5, subagent_trajectories=[inner])
    value["steps"][2]["tool_calls"][0]["tool_call_id"] = 3
    value["steps"][2]["observation"]["results"][0] |= {"source_call_id": 3}
    value["steps"][2]["observation"]["results"][0]["subagent_trajectory_ref"] = [{"trajectory_id": 18}]
    main, nested = read(write(tmp_path / "trajectory.json", value))
    assert (main.session_id, main.session.metadata["session_id"]) == ("17", "5")
    assert (nested.session_id, nested.membership.session_id, nested.membership.tool_call_id) == ("18", "17", "3")


def test_a_chain_of_files_is_read_once(store, tmp_path):
    """Each file names the next: none is read on its own."""
    for number, (name, following) in enumerate((("a", "b.json"), ("b", "c.json"), ("c", None))):
        own = [step(number * 2 + 1, "user", f"Prompt {name}."), step(number * 2 + 2, "agent", f"Answer {name}.")]
        value = trajectory(trajectory_id=None, session_id=None, steps=own, continued_trajectory_ref=following)
        write(tmp_path / "x" / f"{name}.json", value)
    report = store.ingest(tmp_path / "x", progress=False)
    assert (report.sessions, report.messages, report.branches, report.errors) == (3, 6, 2, [])


def test_a_list_of_trajectories(store, tmp_path):
    one, other = (trajectory(trajectory_id=None, session_id=session) for session in ("s", None))
    path = tmp_path / "set.json"
    path.write_text(json.dumps([one, 5, other]))
    problem, *drafts = sorted(read(path), key=lambda item: hasattr(item, "runs"))
    assert (problem.line, [draft.session_id for draft in drafts]) == (1, ["s/set-1", "set-3"])
    assert store.ingest(path, progress=False).sessions == 2


def test_times_without_a_zone_are_noted(tmp_path):
    value = trajectory(steps=[step(1, "user", "Hi.", timestamp="2026-04-05T08:00:01"), step(2, "agent", "Hello.")])
    [draft] = read(write(tmp_path / "trajectory.json", value))
    assert draft.session.metadata["time_zone"] == "unknown"
    [draft] = read(write(tmp_path / "trajectory.json", trajectory()))
    assert "time_zone" not in draft.session.metadata


def test_a_bad_call_or_result_leaves_its_step(tmp_path):
    value = trajectory()
    value["steps"][2]["tool_calls"].append("x")
    value["steps"][2]["observation"]["results"].insert(0, 5)
    *problems, draft = read(write(tmp_path / "trajectory.json", value))
    assert [problem.reason.split(" is ")[0] for problem in problems] == ["Call 2 of the step", "Result 1 of the step"]
    assert sum(len(run.messages) for run in draft.runs) == 7
    assert [call.status for m in draft.runs[0].messages for call in m.tool_calls] == ["completed"]


def test_a_trial_has_a_reward(store, tmp_path):
    """In its result or in a file of the verifier; neither file is read on its own."""
    folder = tmp_path / "x" / "task__1"
    result = {
        "task_name": "acme/tidy",
        "trial_name": "task__1",
        "agent_info": {"name": "tidier", "model_info": {"name": "small", "provider": "acme"}},
        "agent_execution": {"started_at": CLOCK.format(1), "finished_at": CLOCK.format(31)},
        "verifier_result": {"rewards": {"reward": 1.0, "style": 0.5}},
        "verifier": {"finished_at": CLOCK.format(40)},
        "exception_info": {"exception_type": "AgentTimeoutError", "exception_message": "too late"},
    }
    write(folder / "result.json", result)
    write(folder / "agent" / "trajectory.json", trajectory())
    write(tmp_path / "x" / "task__2" / "agent" / "trajectory.json", trajectory(trajectory_id="u"))
    (tmp_path / "x" / "task__2" / "verifier").mkdir()
    (tmp_path / "x" / "task__2" / "verifier" / "reward.txt").write_text("0.25\n")
    report = store.ingest(tmp_path / "x", progress=False)
    session = store.get_session("t")
    scores = store.scores_df()

    assert not report.errors
    assert (session.metadata["task_id"], session.duration_s) == ("acme/tidy", 30.0)
    assert (session.runs[-1].status, session.runs[-1].error) == ("ERROR", "AgentTimeoutError: too late")
    assert sorted(zip(scores["session_id"], scores["name"], scores["value"], strict=True)) == [
        ("t", "reward", 1.0),
        ("t", "style", 0.5),
        ("u", "reward", 0.25),
    ]


@pytest.mark.parametrize(
    "value", [{"steps": steps()}, {"schema_version": "1.0", "steps": steps()}, {"schema_version": "ATIF-v1.6"}]
)
def test_neighbouring_layouts_are_not_taken(value, tmp_path):
    from kern_nb.ingest.registry import get_importer
    from kern_nb.ingest.source import Source

    path = write(tmp_path / "x.json", value)
    assert not get_importer("atif").recognizes(Source(path, path.name))


def test_a_bad_step_leaves_the_others(tmp_path):
    """It is reported with its line."""
    records = steps()
    records[3] = {"source": "robot", "message": "x"}
    problem, draft = read(write(tmp_path / "trajectory.json", trajectory(steps=records)))
    assert problem.line is not None
    assert "'robot'" in problem.reason
    assert sum(len(run.messages) for run in draft.runs) == 6


def test_damage_never_stops_an_import(tmp_path):
    """Truncated files and values of wrong types, in the trajectory and in what lies beside it."""
    from kern_nb.db import InMemoryDb

    store, path = InMemoryDb(), tmp_path / "x" / "agent" / "trajectory.json"
    write(tmp_path / "x" / "good.json", trajectory(trajectory_id="good"))
    inner = trajectory(trajectory_id="inner")
    value = trajectory(subagent_trajectories=[inner], continued_trajectory_ref="next.json")
    value["steps"][2]["observation"]["results"][0]["subagent_trajectory_ref"] = [{"trajectory_id": "inner"}]
    result = {"task_name": "x", "verifier_result": {"rewards": {"reward": 1}}, "agent_execution": {"started_at": CLOCK}}
    write(tmp_path / "x" / "result.json", result)
    for changed in mistyped(value, 100):
        store.ingest(write(path, changed).parent.parent, progress=False)
    write(path, value)
    for changed in mistyped(result, 50):
        write(tmp_path / "x" / "result.json", changed)
        store.ingest(tmp_path / "x", progress=False)
    whole = path.read_bytes()
    for data in truncated(whole, 50):
        path.write_bytes(data)
        store.ingest(tmp_path / "x", progress=False)
    assert store.get_session("good").runs


def test_the_sample_matches_the_expected_figures(store, shared_data):
    """Counts, tokens, cost, models and times."""
    figures = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())["atif/trajectory.json"]
    report = store.ingest(shared_data / "atif" / "trajectory.json", progress=False)
    sessions, messages = store.sessions_df(), store.messages_df()

    assert not report.errors
    assert sessions["session_id"].tolist() == figures["session_ids"]
    assert (report.runs, report.tool_calls) == (figures["runs"], figures["tool_calls"])
    assert (messages["role"] == "tool").sum() == figures["tool_results"]
    assert messages["model"].value_counts().to_dict() == figures["models"]
    usages = [m.usage for run in store.get_session("t-1").runs for m in run.messages if m.usage]
    assert sum(usage.cache_read_tokens or 0 for usage in usages) == figures["cache_read_tokens"]
    for name in ("input_tokens", "output_tokens", "cost"):
        assert sessions[name][0] == pytest.approx(figures[name])
    assert messages["created_at"].min().isoformat().startswith(figures["first_ts"][:19])
    assert messages["created_at"].max().isoformat().startswith(figures["last_ts"][:19])
