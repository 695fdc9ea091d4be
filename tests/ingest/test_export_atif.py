"""`kern_nb.export(format="atif")`: Harbor's own models accept it, and importing it gives the same sessions."""

from __future__ import annotations

import base64
import copy
import json
import random
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bundles import fill_store

import kern_nb
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage
from kern_nb.records import Message, Run, Session, ToolCall, Usage

HARBOR = Path(sys.prefix) / "harbor"
TIME = datetime(2026, 4, 5, 6, 7, 8, 250_000, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n-a-picture"
TOTALS = ["n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "input_tokens", "output_tokens", "cost", "status"]
TOTALS += ["session_name", "agent_id", "created_at", "updated_at", "duration_s", "parent_session_id"]


@pytest.fixture(scope="session")
def validate():
    """A function that returns what Harbor finds wrong in a file; it is installed by `make .venv/harbor/.ready`."""
    if not HARBOR.is_dir():
        pytest.skip("no Harbor: run 'make .venv/harbor/.ready', which installs its wheel without dependencies")
    sys.path.append(str(HARBOR))
    try:
        from harbor.utils.trajectory_validator import TrajectoryValidator
    finally:
        sys.path.remove(str(HARBOR))

    def errors(path):
        validator = TrajectoryValidator()
        validator.validate(path)
        return validator.get_errors()

    return errors


@pytest.fixture
def store(tmp_path):
    """A SQLite store, and its folder as the current one."""
    with SqliteDb(tmp_path / "s.db") as store:
        yield store


def answer(text, n=0, **fields):
    return Message(role="assistant", content=text, model="acme/small", created_at=TIME + timedelta(seconds=n), **fields)


def a_run(name="one", **fields):
    """A run with reasoning, a call that fails, and usage."""
    call = ToolCall(tool_call_id="k1", tool_name="list_files", args={"path": "."}, duration_s=0.25)
    reasoning = [{"type": "thinking", "thinking": "List them."}, {"type": "text", "text": "Wait."}]
    usage = Usage(input_tokens=80, output_tokens=7, cache_read_tokens=20, cache_write_tokens=3, cost=0.5)
    messages = [
        Message(role="developer", content="Be brief."),
        Message(role="user", content=f"Which files, {name}?", created_at=TIME),
        answer(reasoning, 1, tool_calls=[call], usage=usage, extra={"stop": "tool"}, message_id="m1"),
        Message(role="tool", tool_call_id="k1", tool_name="list_files", content="no such folder", is_error=True),
        Message(role="user", content="<context/>", extra={"meta": True}),
        answer("None.", 3, usage=Usage(input_tokens=90, output_tokens=5, reasoning_tokens=2)),
    ]
    return Run(
        **{"input": f"Which files, {name}?", "output": "None.", "messages": messages, "agent_id": "tidier"} | fields
    )


def export(store, path, *references, **options):
    return kern_nb.export(
        *references, path=path, format="atif", store=store, everything=not references, progress=False, **options
    )


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def totals(store):
    return store.sessions_df().set_index("session_id").sort_index()[TOTALS]


def rows(store, columns, frame="messages_df"):
    table = getattr(store, frame)().sort_values(["session_id", "run_index", columns[0]])
    return table[columns].astype(str).to_numpy().tolist()


def test_an_exported_session_is_valid_and_comes_back(store, tmp_path, validate):
    """Sessions, runs, messages by role, calls, results, tokens, cost, times and reasoning."""
    store.save_session(Session(session_id="a", agent_id="tidier", metadata={"task": "x"}, created_at=5, updated_at=9))
    store.append_run("a", a_run())
    store.append_run("a", a_run("two", status="ERROR", error="too late", output=None, duration_s=2.5))
    store.rename_session("a", "Files")
    store.add_score("a", "reward", 0.5)
    report = export(store, tmp_path / "a.json", "a")
    other = InMemoryDb()
    imported = other.ingest(tmp_path / "a.json", progress=False)
    document = load(tmp_path / "a.json")

    assert validate(tmp_path / "a.json") == []
    assert (report.format, report.sessions, report.runs, report.messages, report.tool_calls) == ("atif", 1, 2, 12, 2)
    assert report.words == ("export", "a", str(tmp_path / "a.json"), "--format", "atif")
    assert document["schema_version"] == "ATIF-v1.8"
    assert document["agent"] == {"name": "tidier", "version": "unknown", "model_name": "acme/small"}
    assert document["final_metrics"] == {
        "total_prompt_tokens": 340,
        "total_completion_tokens": 24,
        "total_cached_tokens": 40,
        "total_cost_usd": 1.0,
        "total_steps": 10,
    }
    assert imported.errors == []
    assert totals(other).equals(totals(store))
    columns = ["tool_call_id", "tool_name", "args", "result", "status", "duration_s"]
    assert rows(other, columns, "tool_calls_df") == rows(store, columns, "tool_calls_df")
    columns = ["run_index", "status", "error", "duration_s", "input", "output", "agent_id"]
    assert rows(other, columns, "runs_df") == rows(store, columns, "runs_df")
    assert other.scores_df()[["name", "value"]].to_numpy().tolist() == [["reward", 0.5]]
    for old, new in zip(store.get_session("a").runs, other.get_session("a").runs, strict=True):
        for before, after in zip(old.messages, new.messages, strict=True):
            is_result = before.role == "tool"
            assert after.model_copy(update={"tool_calls": []}) == before.model_copy(
                update={"tool_calls": [], "tool_name": after.tool_name if is_result else None}
            )
    assert other.ingest(tmp_path / "a.json", progress=False).skipped == 1


def test_the_fields_of_a_step(store, tmp_path):
    """What is known is in ATIF's own fields, the rest in `extra`; what is unknown is absent."""
    store.append_run("a", a_run())
    export(store, tmp_path / "a.json", "a")
    system, user, agent, context, last = load(tmp_path / "a.json")["steps"]

    assert (system["source"], system["extra"]["kern_nb"]["role"]) == ("system", "developer")
    assert "timestamp" not in system
    assert user["timestamp"] == "2026-04-05T06:07:08.250000+00:00"
    assert (agent["source"], agent["message"], agent["reasoning_content"]) == ("agent", "Wait.", "List them.")
    assert agent["model_name"] == "acme/small"
    call = {"tool_call_id": "k1", "function_name": "list_files", "arguments": {"path": "."}}
    assert agent["tool_calls"] == [call | {"extra": {"kern_nb": {"duration_s": 0.25}}}]
    [result] = agent["observation"]["results"]
    assert (result["source_call_id"], result["content"], result["extra"]) == (
        "k1",
        "no such folder",
        {"is_error": True},
    )
    assert agent["metrics"] == {
        "prompt_tokens": 80,
        "completion_tokens": 7,
        "cached_tokens": 20,
        "cost_usd": 0.5,
        "extra": {"cache_write_tokens": 3},
    }
    assert (context["source"], context["extra"]["meta"]) == ("user", True)
    assert last["metrics"] == {"prompt_tokens": 90, "completion_tokens": 5, "extra": {"reasoning_tokens": 2}}


def test_what_a_branch_inherits_is_copied_context(store, tmp_path, validate):
    """It is not counted again: neither in the file's totals nor when the file is imported."""
    store.append_run("a", a_run())
    store.branch("a", new_session_id="b")
    store.append_run("b", a_run("three"))
    store.branch("a", after=(0, 2), new_session_id="cut")
    store.append_run("cut", Run(messages=[Message(role="tool", tool_call_id="k1", content="late"), answer("So.")]))
    export(store, tmp_path / "t")
    documents = {name: load(tmp_path / "t" / f"{name}.json") for name in ("a", "b", "cut")}
    other, alone = InMemoryDb(), InMemoryDb()
    report = other.ingest(tmp_path / "t", progress=False)
    again = other.ingest(tmp_path / "t", progress=False)
    for name in ("cut", "b"):
        alone.ingest(tmp_path / "t" / f"{name}.json", progress=False)

    assert [validate(path) for path in sorted((tmp_path / "t").iterdir())] == [[], [], []]
    assert [step.get("is_copied_context") for step in documents["b"]["steps"]] == [True] * 5 + [None] * 5
    assert documents["b"]["final_metrics"]["total_prompt_tokens"] == 170
    assert "total_prompt_tokens" not in documents["cut"]["final_metrics"]
    assert documents["cut"]["steps"][3]["observation"]["results"][0]["content"] == "late"
    assert (report.errors, report.branches, again.errors, again.sessions) == ([], 2, [], 0)
    assert totals(other)[TOTALS[:7]].equals(totals(store)[TOTALS[:7]])
    assert totals(alone)[TOTALS[:7]].equals(totals(store)[TOTALS[:7]].loc[["b", "cut"]])
    fork = ["parent_session_id", "fork_run_index", "fork_message_index"]
    for name in ("a", "b", "cut"):
        old, new = store.get_session(name), other.get_session(name)
        assert [getattr(new, field) for field in fork] == [getattr(old, field) for field in fork]
        assert [m.content for run in new.runs for m in run.messages] == [
            m.content for run in old.runs for m in run.messages
        ]
        assert [run.session_id for run in new.runs] == [run.session_id for run in old.runs]
    contents = [m.content for run in alone.get_session("b").runs for m in run.messages]
    assert contents == [m.content for run in store.get_session("b").runs for m in run.messages]


def test_member_runs_are_nested_trajectories(store, tmp_path, validate):
    """The result of the call that started one refers to it; those without a call stand at the last step."""
    top = store.append_run("team", a_run(run_type="team", team_id="desk"))
    member = a_run("member", parent_run_id=top.run_id, agent_id="helper", internal={"tool_call_id": "k1"})
    member = store.append_run("team", member)
    store.append_run("team", a_run("deep", parent_run_id=member.run_id, agent_id="aide"))
    store.append_run("team", a_run("loose", parent_run_id=top.run_id, agent_id="other"))
    export(store, tmp_path / "team.json", "team")
    document = load(tmp_path / "team.json")
    first, second = document["subagent_trajectories"]
    references = {
        reference["trajectory_id"]: result.get("source_call_id")
        for step in document["steps"]
        for result in step.get("observation", {}).get("results", [])
        for reference in result.get("subagent_trajectory_ref", [])
    }
    other = InMemoryDb()
    report = other.ingest(tmp_path / "team.json", progress=False)

    assert validate(tmp_path / "team.json") == []
    assert references == {first["trajectory_id"]: "k1", second["trajectory_id"]: None}
    assert [first["agent"]["name"], second["agent"]["name"]] == ["helper", "other"]
    assert [nested["agent"]["name"] for nested in first["subagent_trajectories"]] == ["aide"]
    assert document["final_metrics"]["total_cost_usd"] == 2.0  # of all agents; tokens are the steps' own
    assert document["final_metrics"]["total_prompt_tokens"] == 170
    assert report.errors == []
    columns = ["n_runs", "n_messages", "n_tool_calls", "input_tokens", "cost"]
    assert totals(other)[columns].equals(totals(store)[columns])
    agents = other.runs_df().set_index("run_id")["agent_id"]
    parents = other.runs_df().set_index("agent_id")["parent_run_id"].map(agents, na_action="ignore")
    assert parents.dropna().to_dict() == {"helper": "tidier", "aide": "helper", "other": "tidier"}
    again = export(other, tmp_path / "again.json", "team")
    assert (again.runs, validate(tmp_path / "again.json")) == (4, [])
    assert load(tmp_path / "again.json")["steps"][2]["observation"] == document["steps"][2]["observation"]


def test_pictures_are_files_beside_the_trajectory(store, tmp_path, validate):
    """Of blobs, data URLs and base64; other URLs stay, and what is no picture of a known type is in `extra`."""
    sha256 = store.put_blob(PNG, "image/png")
    data = base64.b64encode(PNG).decode()
    parts = [
        {"type": "text", "text": "See:"},
        {"type": "image", "media_type": "image/png", "size": len(PNG), "sha256": sha256},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "input_image", "image_url": "https://example.org/x.jpg?size=2"},
        {"type": "document", "media_type": "application/pdf", "size": 3},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "UklGRg=="}},
    ]
    result = Message(role="tool", tool_call_id="k", content=[{"type": "text", "text": "shot"}, parts[1]])
    call = ToolCall(tool_call_id="k", tool_name="screenshot", args={})
    store.append_run("a", Run(messages=[Message(role="user", content=parts), answer("", tool_calls=[call]), result]))
    (tmp_path / "out").mkdir()
    report = export(store, tmp_path / "out" / "a.json", "a")
    steps = load(tmp_path / "out" / "a.json")["steps"]
    images = [part["source"] for part in steps[0]["message"][1:]]

    assert validate(tmp_path / "out" / "a.json") == []
    assert report.blobs == 2
    assert len({image["path"] for image in images[:3]}) == 1
    assert (tmp_path / "out" / images[0]["path"]).read_bytes() == PNG
    assert images[3] == {"media_type": "image/jpeg", "path": "https://example.org/x.jpg?size=2"}
    assert images[4]["path"].startswith("audio/")
    assert steps[0]["extra"]["kern_nb"]["parts"] == [parts[5]]
    assert steps[1]["observation"]["results"][0]["content"][1]["source"] == images[0]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    export(store, tmp_path / "out" / "a.json", "a", overwrite=True)
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == sorted(files)


def test_calls_and_results_that_have_no_place(store, tmp_path, validate):
    """Calls outside of messages, results without a call or without a message, invalid arguments, a user's calls."""
    calls = [
        ToolCall(tool_call_id="x", tool_name="a", args="{broken"),
        ToolCall(tool_call_id="y", tool_name="b", args={}, result={"n": [1]}, status="completed"),
    ]
    messages = [
        Message(role="user", content="go", tool_calls=[ToolCall(tool_call_id="u", tool_name="dial", caller="user")]),
        Message(role="tool", tool_call_id="u", content="rings"),
        answer(None, tool_calls=calls),
        Message(role="tool", tool_call_id="nobody", content={"odd": True}),
        Message(role="note", content="x"),
        Message(role="user", content=[{"type": "thinking", "thinking": "hm"}, "text"], usage=Usage(input_tokens=3)),
    ]
    loose = [ToolCall(tool_call_id="z", tool_name="c", args=[1], result="done", status="failed")]
    store.append_run("a", Run(messages=messages, tool_calls=loose))
    store.append_run("a", Run(input={"only": "ends"}, output="yes"))
    store.append_run("a", Run(status="ERROR", error="no message"))
    store.append_run(
        "a", Run(messages=[Message(role="tool", tool_call_id="x", content="late"), answer("a", partial=True)])
    )
    export(store, tmp_path / "a.json", "a")
    other = InMemoryDb()
    other.ingest(tmp_path / "a.json", progress=False)

    assert validate(tmp_path / "a.json") == []
    columns = ["tool_call_id", "tool_name", "args", "result", "status", "caller"]
    old, new = (sorted(rows(s, columns, "tool_calls_df")) for s in (store, other))
    old = [
        [*row[:3], "late", "completed", *row[5:]] if row[0] == "x" else row for row in old
    ]  # the result is with its call
    assert new == old
    runs = other.get_session("a").runs
    assert [(run.status, run.error) for run in runs] == [
        ("COMPLETED", None),
        ("COMPLETED", None),
        ("ERROR", "no message"),
        ("COMPLETED", None),
    ]
    assert (runs[1].input, runs[1].output) == ({"only": "ends"}, "yes")
    roles = ["user", "tool", "assistant", "tool", "tool", "note", "user"]
    assert sorted(m.role for m in runs[0].messages) == sorted(roles)
    assert runs[3].messages[-1].is_partial


def test_awkward_values(tmp_path, validate):
    """Lone surrogates, NUL, infinite numbers, times, bytes and huge integers: the file is JSON that Harbor accepts."""
    store = fill_store(InMemoryDb())
    report = export(store, tmp_path / "t")
    paths = sorted((tmp_path / "t").glob("*.json"))
    other = InMemoryDb()

    assert report.without_messages == 1
    assert repr(report).endswith("Left out 1 session without messages.")
    assert len(paths) == report.sessions == 6
    assert [validate(path) for path in paths] == [[]] * 6
    assert other.ingest(tmp_path / "t", progress=False).errors == []
    with pytest.raises(BadUsage, match="no messages"):
        export(store, tmp_path / "empty.json", "empty")
    assert not (tmp_path / "empty.json").exists()


def test_estimated_and_unknown_costs_are_no_costs(store, tmp_path):
    """An estimate is in `extra`; a cost of 0 with tokens is unknown."""
    usage = Usage(input_tokens=1000, output_tokens=10)
    free = usage.model_copy(update={"cost": 0.0})
    store.append_run("a", Run(messages=[Message(role="user", content="x"), answer("y", usage=free)]))
    known = Message(role="assistant", content="y", model="gpt-4.1", usage=usage)
    store.append_run("b", Run(messages=[Message(role="user", content="x"), known]))
    kern_nb.cost(store=store, save=True)
    export(store, tmp_path / "t")
    first, second = (load(tmp_path / "t" / f"{name}.json") for name in "ab")

    assert "cost_usd" not in first["steps"][1]["metrics"]
    assert second["steps"][1]["metrics"].get("extra", {}).get("estimated_cost_usd", 0) > 0
    assert "cost_usd" not in second["steps"][1]["metrics"]
    assert not {"total_cost_usd"} & (first["final_metrics"].keys() | second["final_metrics"].keys())


def test_a_run_is_a_trajectory_of_its_own(store, tmp_path, validate):
    """Under the id that a bundle gives it."""
    store.append_run("a", a_run())
    store.append_run("a", a_run("two"))
    export(store, tmp_path / "run.json", "a/1")
    document = load(tmp_path / "run.json")

    assert validate(tmp_path / "run.json") == []
    assert (document["trajectory_id"], document["steps"][1]["message"]) == ("a-run-1", "Which files, two?")


def test_atif_that_was_imported_is_exported_alike(store, tmp_path, validate, shared_data):
    """Its fields without a column in kern_nb return to their places."""
    source = load(shared_data / "atif" / "trajectory.json")
    source["agent"] |= {"tool_definitions": [{"type": "function"}], "extra": {"mode": "fast"}}
    source["steps"][2] |= {"reasoning_effort": "high", "extra": {"note": 1}}
    source["steps"][2]["metrics"] |= {"extra": {"tier": "x"}, "logprobs": [-0.5], "prompt_token_ids": [1, 2]}
    (tmp_path / "in.json").write_text(json.dumps(source))
    assert validate(tmp_path / "in.json") == []
    store.ingest(tmp_path / "in.json", progress=False)
    export(store, tmp_path / "out.json", "t-1")
    document = load(tmp_path / "out.json")

    assert validate(tmp_path / "out.json") == []
    assert document["agent"] == source["agent"]
    assert document["final_metrics"] == source["final_metrics"]
    for old, new in zip(source["steps"], document["steps"], strict=True):
        extra = {key: value for key, value in new.pop("extra", {}).items() if key != "kern_nb"}
        stated = {"timestamp": new["timestamp"]} | ({"model_name": "mock-model"} if old["source"] == "agent" else {})
        assert new | ({"extra": extra} if extra else {}) == old | stated


SAMPLES = ["claude_code", "codex", "gemini_cli", "inspect_ai", "opencode", "otel", "pi", "pi_v3", "hf_sts"]


@pytest.mark.parametrize("name", SAMPLES)
def test_sessions_of_other_programs(store, tmp_path, validate, shared_data, name):
    """Each is valid, and comes back with its totals, messages by role, calls and results; a branch is one again."""
    store.ingest(shared_data / name, progress=False)
    export(store, tmp_path / "t")
    other = InMemoryDb()
    report = other.ingest(tmp_path / "t", progress=False)

    assert {path.name: validate(path) for path in (tmp_path / "t").glob("*.json")} == {
        path.name: [] for path in (tmp_path / "t").glob("*.json")
    }
    assert report.errors == []
    old, new = (totals(s).round({"cost": 9, "duration_s": 6}).astype(str) for s in (store, other))
    assert new.equals(old)
    columns = ["tool_call_id", "tool_name", "args", "result", "status"]
    assert rows(other, columns, "tool_calls_df") == rows(store, columns, "tool_calls_df")

    def roles(source):
        runs = [run for card in source.sessions_df()["session_id"] for run in source.get_session(card).runs]
        own = {run.run_id: run for run in runs if run.session_id is not None}.values()
        return sorted((m.role, str(m.model)) for run in own for m in run.messages if not m.from_history)

    assert roles(other) == roles(store)


WRONG = (None, 5, -1e300, "x", [], {}, [{"type": 5}], {"version": 1, "run": 5}, 10**400)


def damaged_additions(document):
    """Yield the document with each value that kern_nb added replaced by values of other types."""
    rng = random.Random(5)
    paths = []

    def walk(value, path, *, inside):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            if inside or key == "kern_nb":
                paths.append((*path, key))
            walk(item, (*path, key), inside=inside or key == "kern_nb")

    walk(document, (), inside=False)
    for path in paths:
        for wrong in rng.sample(WRONG, 3):
            changed = copy.deepcopy(document)
            target = changed
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = wrong
            yield changed


def test_a_damaged_addition_loses_no_message(store, tmp_path):
    """What kern_nb adds to a step may have any type."""
    store.append_run("a", a_run())
    export(store, tmp_path / "a.json", "a")
    for number, document in enumerate(damaged_additions(load(tmp_path / "a.json"))):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        other = InMemoryDb()
        other.ingest(path, progress=False)
        assert len(other.messages_df()) == 6


def test_a_damaged_branch_stops_no_import(store, tmp_path):
    """Nor does a damaged list of branches."""
    store.append_run("a", a_run())
    store.branch("a", after=(0, 2), new_session_id="b")
    store.append_run("b", a_run("two"))
    export(store, tmp_path / "t")
    for name in ("a", "b"):
        path = tmp_path / "t" / f"{name}.json"
        whole = load(path)
        for document in list(damaged_additions(whole))[::5]:
            path.write_text(json.dumps(document))
            other = InMemoryDb()
            other.ingest(tmp_path / "t", progress=False)
            assert other.get_session("a" if name == "b" else "b") is not None
        path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x.json", "one session, got 2"),
        ("x.jsonl", "needs a path that ends in .json"),
        ("x.html", "needs a path that ends in .json"),
        ("no/folder/x.json", "does not exist"),
        ("taken", "is a file"),
    ],
)
def test_invalid_targets_are_refused(store, tmp_path, monkeypatch, path, message):
    """Nothing is written."""
    monkeypatch.chdir(tmp_path)
    store.append_run("a", a_run())
    store.append_run("b", a_run())
    Path("taken").write_text("mine")
    before = sorted(Path().iterdir())
    with pytest.raises(BadUsage, match=message):
        export(store, path, "a", "b")
    assert sorted(Path().iterdir()) == before


def test_files_in_a_folder_are_kept(store, tmp_path):
    """Without `overwrite` the export is refused as a whole; with it, only files of the same names are replaced."""
    store.append_run("a", a_run())
    store.append_run("B c", a_run())
    folder = tmp_path / "t"
    export(store, folder)
    names = sorted(path.name for path in folder.iterdir())
    (folder / "notes.txt").write_text("mine")
    (folder / "a.json").write_text("old")
    (folder / names[0]).unlink()
    with pytest.raises(BadUsage, match=r"a\.json' exists"):
        export(store, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "notes.txt"]
    export(store, folder, overwrite=True)

    assert names[0].startswith("B-c-")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "notes.txt"])
    assert load(folder / "a.json")["session_id"] == "a"
    assert (folder / "notes.txt").read_text() == "mine"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("target", ["x.json", "t/"])
def test_an_interrupted_export_leaves_nothing(store, tmp_path, monkeypatch, target):
    """Neither a part nor a folder."""
    monkeypatch.chdir(tmp_path)
    store.append_run("a", a_run())
    before = sorted(Path().iterdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kern_nb.operations.export.documents._write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(store, target, "a")
    assert sorted(Path().iterdir()) == before
