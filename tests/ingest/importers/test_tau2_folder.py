"""tau2 results in a folder: the rows are those of the one-file layout, whatever is missing or damaged beside it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from mutations import mistyped, truncated

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")


@pytest.fixture
def new_store(tmp_path):
    """Create SQLite stores."""
    from kern_nb.db import SqliteDb

    stores = []

    def create():
        stores.append(SqliteDb(tmp_path / f"{len(stores)}.db"))
        return stores[-1]

    yield create
    for store in stores:
        store.close()


def message(role, content, second, **other):
    return {"role": role, "content": content, "timestamp": f"2026-03-01T09:00:{second:02}"} | other


def simulation(name, **other):
    call = {"id": "c1", "name": "open_gate", "arguments": {"gate": 4}, "requestor": "assistant"}
    messages = [
        message("assistant", "Port office, hello.", 0, cost=0.0),
        message("user", "Open gate four.", 1, usage={"prompt_tokens": 30, "completion_tokens": 4}, cost=0.001),
        message(
            "assistant", None, 2, tool_calls=[call], usage={"prompt_tokens": 70, "completion_tokens": 9}, cost=0.01
        ),
        message("tool", "Error: stuck", 3, id="c1", error=True, requestor="assistant"),
        message("assistant", "It is stuck.", 4, usage={"prompt_tokens": 90, "completion_tokens": 6}, cost=0.02),
    ]
    times = {"start_time": "2026-03-01T09:00:00", "end_time": "2026-03-01T09:00:05", "duration": 5.0}
    reward = {"reward": 0.5, "reward_breakdown": {"DB": 0.5}}
    fields = {"id": name, "task_id": "gates", "trial": 0, "termination_reason": "user_stop", "reward_info": reward}
    return fields | times | {"messages": messages} | other


def experiment():
    info = {
        "agent_info": {"implementation": "llm_agent", "llm": "agent-model"},
        "user_info": {"llm": "user-model"},
        "environment_info": {"domain_name": "harbour", "policy": "Be brief."},
    }
    return {"timestamp": "2026-03-01T09:00:00", "info": info, "tasks": [{"id": "gates"}]}


def write_folder(folder, simulations, **other):
    (folder / "simulations").mkdir(parents=True, exist_ok=True)
    index = [{"id": s["id"], "task_id": s["task_id"], "trial": 0} for s in simulations]
    (folder / "results.json").write_text(json.dumps(experiment() | {"simulation_index": index} | other, indent=1))
    for record in simulations:
        (folder / "simulations" / f"{record['id']}.json").write_text(json.dumps(record, indent=2))
    return folder


def frames_of(store):
    frames = {name: getattr(store, name)() for name in FRAMES}
    metadata = frames["sessions_df"]["metadata"].map(json.loads)
    frames["sessions_df"]["metadata"] = [{k: v for k, v in m.items() if k != "experiment"} for m in metadata]
    return frames


def assert_equal_frames(store, other):
    for name, frame in frames_of(store).items():
        pd.testing.assert_frame_equal(frame, frames_of(other)[name])


@pytest.fixture
def folder(tmp_path):
    """A folder with two simulations."""
    return write_folder(tmp_path / "nightly", [simulation("sim-a"), simulation("sim-b", trial=1)])


def test_a_folder_has_the_rows_of_a_file(new_store, folder, tmp_path):
    """Model, tokens, cost, times, scores and the failed call; the folder is the name of the experiment."""
    single, store = new_store(), new_store()
    path = tmp_path / "one.json"
    path.write_text(json.dumps(experiment() | {"simulations": [simulation("sim-a"), simulation("sim-b", trial=1)]}))
    single.ingest(path, progress=False)
    report = store.ingest(folder, progress=False)

    assert not report.errors
    assert (report.sessions, report.messages, report.tool_calls) == (2, 10, 2)
    assert_equal_frames(store, single)
    assert json.loads(store.sessions_df()["metadata"][0])["experiment"] == "nightly"
    assert store.sessions_df()["input_tokens"].tolist() == [160, 160]
    assert store.tool_calls_df()["status"].tolist() == ["failed", "failed"]


def test_the_file_of_the_experiment_reads_the_folder(new_store, folder):
    """Its name alone is enough, and so is the file of one simulation."""
    whole, by_file, by_simulation = new_store(), new_store(), new_store()
    whole.ingest(folder, progress=False)
    by_file.ingest(folder / "results.json", progress=False)
    for name in ("sim-a", "sim-b"):
        report = by_simulation.ingest(folder / "simulations" / f"{name}.json", progress=False)
        assert (report.sessions, report.errors) == (1, [])
    assert_equal_frames(by_file, whole)
    assert_equal_frames(by_simulation, whole)


def test_ids_times_and_the_order_of_messages(new_store, tmp_path):
    """Ids may be numbers or missing, times have a zone or be unix times, and messages state their position."""
    said = simulation("x")["messages"]
    shuffled = [said[index] | {"turn_idx": index} for index in (3, 0, 4, 2, 1)]
    zoned = [record | {"timestamp": f"{record['timestamp']}Z"} for record in said]
    times = {"start_time": "2026-03-01T09:00:00Z", "end_time": 1772355605.0}
    simulations = [
        simulation("sim-a", messages=shuffled),
        simulation(7, task_id=12),
        simulation("", task_id=12, trial=1),
        simulation("failed", messages=None),
        simulation("zoned", messages=zoned, **times),
    ]
    path, store = tmp_path / "one.json", new_store()
    path.write_text(json.dumps(experiment() | {"simulations": simulations}))
    report = store.ingest(path, progress=False)
    assert (report.sessions, report.errors) == (5, [])
    ids = ["sim-a", "7", "one/12/1", "failed", "zoned"]
    sessions = [store.get_session(name) for name in ids]
    assert [session.metadata["task_id"] for session in sessions] == ["gates", "12", "12", "gates", "gates"]
    assert [session.metadata.get("time_zone") for session in sessions] == ["unknown"] * 4 + [None]
    assert [m.content for run in sessions[0].runs for m in run.messages] == [record["content"] for record in said]
    assert (sessions[3].runs, sessions[4].updated_at - sessions[4].created_at) == ([], 5)
    assert len(store.scores_df()) == 10


def test_a_second_import_skips_every_session(new_store, folder):
    store = new_store()
    store.ingest(folder, progress=False)
    before = frames_of(store)
    again = store.ingest(folder, progress=False)

    assert (again.sessions, again.runs, again.skipped, again.errors) == (0, 0, 2, [])
    for name, frame in frames_of(store).items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_a_simulation_without_its_folder_is_imported(new_store, tmp_path):
    """The model of the agent is then unknown."""
    store, path = new_store(), tmp_path / "alone.json"
    path.write_text(json.dumps(simulation("sim-a"), indent=2))
    report = store.ingest(path, progress=False)

    assert (report.sessions, report.errors) == (1, [])
    assert store.runs_df()["model"].isna().all()
    assert store.scores_df()["value"].tolist() == [0.5, 0.5]


def test_missing_and_damaged_files_are_reported(new_store, folder):
    """Each by its name; the other simulations are stored."""
    index = [{"id": "sim-a"}, {"id": "sim-b"}, {"id": "sim-c"}, 5]
    write_folder(folder, [simulation("sim-a"), simulation("sim-b")], simulation_index=index)
    (folder / "simulations" / "sim-b.json").write_text('{"id": "sim-b", "messages": 5')
    (folder / "simulations" / "sim-d.json").write_text(json.dumps(simulation("sim-d")))
    report, store = None, new_store()
    report = store.ingest(folder, progress=False)

    assert sorted(store.sessions_df()["session_id"]) == ["sim-a", "sim-d"]
    problems = {(problem.file, problem.line is not None) for problem in report.errors}
    assert ("simulations/sim-b.json", True) in problems
    assert ("results.json", True) in problems
    assert any("'sim-c'" in problem.reason for problem in report.errors)


def test_a_checkpoint_without_an_index_is_read(new_store, folder):
    """The index is written at the end of an experiment."""
    write_folder(folder, [simulation("sim-a")], simulation_index=None)
    store = new_store()
    assert store.ingest(folder, progress=False).sessions == 2


def test_calls_with_empty_ids_are_joined_in_order(new_store, tmp_path):
    """Some gateways give every call the same empty id."""
    calls = [{"id": "", "name": name, "arguments": {}} for name in ("tide", "wind")]
    messages = [
        message("user", "Weather?", 0),
        message("assistant", None, 1, tool_calls=calls),
        message("tool", "low", 2, id="", error=False),
        message("tool", "north", 3, id="", error=True),
    ]
    store, path = new_store(), tmp_path / "empty.json"
    path.write_text(json.dumps(experiment() | {"simulations": [simulation("e", messages=messages)]}))
    store.ingest(path, progress=False)
    frame = store.tool_calls_df()

    assert list(zip(frame["tool_name"], frame["result"], frame["status"], strict=True)) == [
        ("tide", "low", "completed"),
        ("wind", "north", "failed"),
    ]
    assert "" not in frame["tool_call_id"].tolist()


def test_ticks_of_a_spoken_simulation_are_messages(new_store, tmp_path):
    """Chunks of one utterance are one message; calls and results stand where they happen; silence is no message."""

    def tick(second, **other):
        return {"tick_id": second, "timestamp": f"2026-03-01T09:00:{second:02}"} | other

    def chunk(text, *ids, **other):
        return {"content": text, "utterance_ids": list(ids)} | other

    call = {"id": "t1", "name": "tide", "arguments": {}}
    ticks = [
        tick(0, agent_chunk=chunk("Port ", "a1"), user_chunk=chunk(None)),
        tick(1, agent_chunk=chunk("office.", "a1"), user_chunk=chunk("Hi, ", "u1", cost=0.01)),
        tick(2, user_chunk=chunk("tide?", "u1", cost=0.02), agent_chunk=chunk("", "a1")),
        tick(3, agent_tool_calls=[call], agent_tool_results=[{"id": "t1", "content": "low", "error": False}]),
        tick(4, agent_chunk=chunk("Low.", "a2")),
    ]
    store, path = new_store(), tmp_path / "spoken.json"
    path.write_text(json.dumps(simulation("spoken", messages=None, ticks=ticks, mode="full_duplex")))
    report = store.ingest(path, progress=False)
    frame = store.messages_df()

    assert not report.errors
    assert frame["role"].tolist() == ["assistant", "user", "assistant", "tool", "assistant"]
    assert frame["content"].fillna("").tolist() == ["Port office.", "Hi, tide?", "", "low", "Low."]
    assert store.tool_calls_df()["result"].tolist() == ["low"]
    assert frame["cost"][1] == pytest.approx(0.03)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "x", "messages": [{"role": "user", "content": "hi"}]},
        {"task_id": "x", "messages": [{"role": "user", "content": "hi"}]},
        {"info": {"title": "x"}, "tasks": [], "paths": {}},
        {"simulation_index": []},
    ],
)
def test_neighbouring_layouts_are_not_taken(value, tmp_path):
    """Files with some of the same keys."""
    from kern_nb.ingest.registry import get_importer
    from kern_nb.ingest.source import Source

    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    assert not get_importer("tau2").recognizes(Source(path, "x.json"))


def test_damage_never_stops_an_import(folder):
    """Truncated files and values of wrong types: problems at most."""
    from kern_nb.db import InMemoryDb

    store, path = InMemoryDb(), folder / "simulations" / "sim-a.json"
    whole = path.read_bytes()
    ticks = [{"tick_id": 1, "agent_chunk": {"content": "a", "utterance_ids": ["x"]}, "agent_tool_calls": [{"id": "1"}]}]
    changed = [json.dumps(value).encode() for value in mistyped(simulation("sim-a"), 50)]
    changed += [json.dumps(v).encode() for v in mistyped(simulation("sim-a", messages=None, ticks=ticks), 50)]
    for data in [*truncated(whole, 50), *changed]:
        path.write_bytes(data)
        store.ingest(folder, progress=False)
    path.write_bytes(whole)
    assert set(store.sessions_df()["session_id"]) >= {"sim-b"}

    results = folder / "results.json"
    document = json.loads(results.read_text())
    for data in [*truncated(results.read_bytes(), 50), *(json.dumps(v).encode() for v in mistyped(document, 50))]:
        results.write_bytes(data)
        store.ingest(folder, progress=False)
