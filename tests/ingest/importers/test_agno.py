"""Databases of Agno in its four layouts, made without Agno: runs, members, steps, pauses, forks, copies."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
from draft_reader import recognized_by
from mutations import mistyped, truncated

from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.importers.agno import Agno
from kern_nb.ingest.importers.agno.metrics import to_usage
from kern_nb.ingest.source import Source

SESSIONS = """CREATE TABLE "{name}" (session_id VARCHAR NOT NULL PRIMARY KEY, session_type VARCHAR NOT NULL,
  agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, session_data JSON, agent_data JSON,
  team_data JSON, workflow_data JSON, metadata JSON, {runs} summary JSON, created_at BIGINT NOT NULL, updated_at BIGINT)"""
RUNS = """CREATE TABLE "{name}" (run_id VARCHAR NOT NULL PRIMARY KEY, session_id VARCHAR NOT NULL,
  run_type VARCHAR NOT NULL, agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR,
  parent_run_id VARCHAR, status VARCHAR, run_index BIGINT, run_data JSON NOT NULL, created_at BIGINT NOT NULL,
  updated_at BIGINT)"""
START = 1_790_000_000
TOKENS = {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19, "cache_read_tokens": 3}


class Database:
    """A database with tables of sessions and runs; ``levels`` is how often JSON is encoded."""

    def __init__(self, path, *, layout="v3", levels=1, sessions="agno_sessions", runs="agno_runs"):
        self.path, self.levels, self.names = path, levels, (sessions, runs)
        self.has_column, self.has_table = layout in ("v2", "both"), layout in ("v3", "both")
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute(SESSIONS.format(name=sessions, runs="runs JSON," if self.has_column else ""))
        if self.has_table:
            self.connection.execute(RUNS.format(name=runs))

    def encode(self, value):
        for _ in range(self.levels):
            value = json.dumps(value)
        return value

    def insert(self, table, **values):
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(values.values()))

    def session(self, session_id, *runs, kind="agent", created_at=START, **values):
        """Add a session; the values that are objects are encoded."""
        row = {f"{kind}_id": f"my-{kind}", "session_data": {}} | values
        row = {key: self.encode(value) if isinstance(value, dict) else value for key, value in row.items()}
        if self.has_column:
            row["runs"] = self.encode(list(runs))
        self.insert(self.names[0], session_id=session_id, session_type=kind, created_at=created_at, **row)
        if self.has_table and not self.has_column:
            for index, run in enumerate(runs):
                self.run(session_id, run, index)

    def run(self, session_id, run, index):
        """Add a row of a run."""
        kind = "agent" if "agent_id" in run else "team" if "team_id" in run else "workflow"
        row = {"run_type": kind, "status": run.get("status"), "parent_run_id": run.get("parent_run_id")}
        row |= {"run_id": run["run_id"], "session_id": session_id, "run_index": index, "created_at": run["created_at"]}
        self.insert(self.names[1], **row, run_data=json.dumps(run))

    def read(self):
        """The drafts and the reasons of the problems."""
        source = Source(self.path, self.path.name)
        assert recognized_by(self.path) == "agno"
        items = list(Agno().read(source))
        drafts = [item for item in items if isinstance(item, Draft)]
        return drafts, [item.reason for item in items if not isinstance(item, Draft)]


def message(name, role, content, **values):
    return {"id": name, "role": role, "content": content, "from_history": False, "stop_after_tool_call": False,
            "created_at": START} | values  # fmt: skip


def run(name, *messages, second=0, **values):
    data = {"run_id": name, "agent_id": "my-agent", "agent_name": "Mine", "session_id": "s", "content_type": "str"}
    data |= {"messages": list(messages), "status": "COMPLETED", "created_at": START + second}
    return {key: value for key, value in (data | values).items() if value is not ...}


def turn(name, question, answer, *earlier, **values):
    """A run with a question and an answer, after copies of earlier messages."""
    asked = message(f"{name}-q", "user", question)
    answered = message(f"{name}-a", "assistant", answer, metrics=TOKENS)
    values = {"input": {"input_content": question}, "content": answer, "metrics": TOKENS} | values
    return run(name, *earlier, asked, answered, **values)


def execution(name, tool, args, **values):
    return {"tool_call_id": name, "tool_name": tool, "tool_args": args, "result": None, "metrics": None,
            "tool_call_error": None, "child_run_id": None, "stop_after_tool_call": False} | values  # fmt: skip


def weather(name="r1", **values):
    """A run with a call of a tool."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    times = {"start_time": START + 0.5, "end_time": START + 0.75, "duration": 0.25}
    tool = execution("c1", "weather", {"city": "Oslo"}, result="rain", tool_call_error=False, metrics=times)
    messages = (
        message(f"{name}-q", "user", "Weather in Oslo?"),
        message(f"{name}-c", "assistant", "", tool_calls=[call], reasoning_content="hm", metrics=TOKENS),
        message(f"{name}-t", "tool", "rain", tool_call_id="c1", tool_name="weather", tool_call_error=False),
        message(f"{name}-a", "assistant", "It rains.", metrics=TOKENS),
    )
    metrics = {"input_tokens": 24, "output_tokens": 14, "total_tokens": 38, "cache_read_tokens": 6, "duration": 1.5}
    defaults = {
        "input": {"input_content": "Weather in Oslo?"}, "content": "It rains.", "tools": [tool], "model": "m-1",
        "model_provider": "Canned", "metrics": metrics | {"time_to_first_token": 0.25}, "session_state": {"n": 1},
    }  # fmt: skip
    return run(name, *messages, **defaults | values)


def write_small(path):
    """A database with a session that was copied."""
    database = Database(path)
    database.session("s", weather(), turn("r2", "Tomorrow?", "Sun.", second=60))
    database.session("copy", weather("r3", messages=weather()["messages"]), created_at=START + 100,
                     session_data={"forked_from_session_id": "s"})  # fmt: skip
    database.connection.close()


LAYOUTS = {
    "v2": {"layout": "v2", "levels": 2},
    "v2, encoded once": {"layout": "v2"},
    "v3": {},
    "v3.0": {"levels": 2},
    "unusual names": {"sessions": "my chats", "runs": "my chats_runs"},
    "a runs_table": {"sessions": "chats", "runs": "turns"},
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_a_session_in_each_layout(tmp_path, options):
    database = Database(tmp_path / "a.db", **options)
    data = {"session_name": "Oslo", "session_state": {"n": 1}, "session_metrics": TOKENS}
    summary = {"summary": "Rain.", "topics": ["weather"], "updated_at": "2026-12-01T00:00:00"}
    fields = {"session_data": data, "agent_data": {"name": "Mine"}, "metadata": {"env": "test"}, "summary": summary}
    database.session("s", weather(), turn("r2", "And now?", "Sun.", second=60), user_id="ann", updated_at=START + 61,
                     **fields)  # fmt: skip
    [draft], problems = database.read()
    first, second = draft.runs

    assert not problems
    session = draft.session
    assert (session.session_type, session.agent_id, session.user_id, session.session_name) == (
        "agent", "my-agent", "ann", "Oslo"
    )  # fmt: skip
    assert {name: getattr(session, name) for name in fields} == fields
    assert (session.created_at, session.updated_at, session.session_state) == (START, START + 61, {"n": 1})
    assert [run.run_id for run in draft.runs] == ["r1", "r2"]
    assert (first.input, first.output, first.status, first.run_type) == (
        "Weather in Oslo?", "It rains.", "COMPLETED", "agent"
    )  # fmt: skip
    assert (first.model, first.model_provider, first.duration_s, first.time_to_first_token_s) == (
        "m-1", "Canned", 1.5, 0.25
    )  # fmt: skip
    assert (first.created_at.timestamp(), first.finished_at.timestamp()) == (START, START + 1.5)
    assert (first.usage.input_tokens, first.usage.total_tokens, first.usage.cache_read_tokens) == (24, 38, 6)
    assert (first.usage.reasoning_tokens, first.usage.cost) == (None, None)
    assert (first.session_state, second.session_state) == ({"n": 1}, None)
    assert [m.role for m in first.messages] == ["user", "assistant", "tool", "assistant"]
    assert [m.message_id for m in first.messages] == ["r1-q", "r1-c", "r1-t", "r1-a"]
    assert first.messages[1].content == [{"type": "reasoning", "reasoning": "hm"}]
    [call] = first.messages[1].tool_calls
    assert (call.args, call.status, call.duration_s, call.tool_name) == ({"city": "Oslo"}, "completed", 0.25, "weather")
    assert (first.messages[2].is_error, first.messages[1].usage.input_tokens) == (False, 12)
    assert second.created_at.timestamp() == START + 60


def test_a_row_takes_the_place_of_the_copy_in_the_column(tmp_path):
    """Version 3 leaves the column of version 2 as it was."""
    database = Database(tmp_path / "a.db", layout="both", levels=2)
    database.session("s", turn("r1", "a", "old", status="PAUSED"), turn("r2", "b", "2"))
    database.run("s", turn("r4", "d", "4"), 3)
    database.run("s", turn("r1", "a", "new"), 0)
    database.run("s", turn("r3", "c", "3"), 2)
    [draft], problems = database.read()

    assert [(run.run_id, run.output, run.status) for run in draft.runs] == [
        ("r1", "new", "COMPLETED"), ("r2", "2", "COMPLETED"), ("r3", "3", "COMPLETED"), ("r4", "4", "COMPLETED"),
    ]  # fmt: skip
    assert not problems


def test_runs_without_an_index_come_last_and_those_with_one_index_in_order_of_time(tmp_path):
    database = Database(tmp_path / "a.db")
    database.session("s")
    for name, index, second in (("r4", None, 0), ("r3", 1, 9), ("r2", 1, 5), ("r1", 0, 7)):
        database.run("s", turn(name, "q", "a", second=second), index)
    assert [run.run_id for run in database.read()[0][0].runs] == ["r1", "r2", "r3", "r4"]


def test_history_is_marked_and_counted_once(tmp_path):
    first = weather()
    copies = [item | {"from_history": True} for item in first["messages"]]
    database = Database(tmp_path / "a.db")
    database.session("s", first, turn("r2", "Tomorrow?", "Sun.", *copies))
    [draft], _ = database.read()
    messages = draft.runs[1].messages

    assert [message.from_history for message in messages] == [True] * 4 + [None] * 2
    assert [message.usage is None for message in messages] == [True] * 5 + [False]
    assert not any(message.tool_calls for message in messages)
    assert messages[1].extra["tool_calls"] == [{"tool_name": "weather", "args": {"city": "Oslo"}}]
    with InMemoryDb() as store:
        store.ingest(database.path, progress=False)
        assert list(store.runs_df().n_messages) == [4, 2]
        assert list(store.runs_df().n_tool_calls) == [1, 0]


def test_calls_without_messages(tmp_path):
    """``store_tool_messages=False`` keeps the calls in ``tools``."""
    record = weather()
    record["messages"] = [record["messages"][0], record["messages"][3]]
    record["tools"].append(execution("c2", "broken", {}, result="no such city", tool_call_error=True))
    database = Database(tmp_path / "a.db")
    database.session("s", record)
    [first, second] = database.read()[0][0].runs[0].tool_calls
    assert (first.result, first.status, first.duration_s) == ("rain", "completed", 0.25)
    assert (second.result, second.status, second.extra) == ("no such city", "failed", {})


def test_arguments_that_a_person_changed(tmp_path):
    record = weather()
    record["tools"][0]["tool_args"] = {"city": "Rome"}
    database = Database(tmp_path / "a.db")
    database.session("s", record)
    [call] = database.read()[0][0].runs[0].messages[1].tool_calls
    assert (call.args, call.internal) == ({"city": "Rome"}, {"asked_args": {"city": "Oslo"}})


def test_media_are_parts(tmp_path):
    image = {"id": "i1", "format": "png", "content": "YWJj"}
    link = {"id": "i2", "url": "https://example.com/x.png"}
    file = {"id": "f", "filepath": "/tmp/x.txt", "mime_type": "text/plain", "filename": "x.txt"}
    asked = message("q", "user", "What?", images=[image, link], files=[file])
    record = run("r1", asked, input={"input_content": "What?", "images": [image]}, images=[link], content="A cat")
    database = Database(tmp_path / "a.db")
    database.session("s", record)
    [draft], _ = database.read()

    assert draft.runs[0].messages[0].content == [
        {"type": "text", "text": "What?"},
        {"type": "image", "mime_type": "image/png", "data": "YWJj", "id": "i1"},
        {"type": "image", "id": "i2", "url": "https://example.com/x.png"},
        {"type": "file", "mime_type": "text/plain", "path": "/tmp/x.txt", "id": "f", "filename": "x.txt"},
    ]
    assert draft.runs[0].input == "What?"
    assert draft.runs[0].extra["images"] == [link]


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [("OpenAI", "gpt-5.2", (100, 20, 120)), ("Anthropic", "claude", (145, 20, 165)), ("AwsBedrock", "x", (145, 20, 165)),
     ("Google", "gemini", (100, 25, 125))],
)  # fmt: skip
def test_counts_of_providers(provider, model, expected):
    counts = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "cache_read_tokens": 40}
    counts |= {"cache_write_tokens": 5, "reasoning_tokens": 5}
    for metrics in (counts, counts | {"details": {"model": [counts | {"provider": provider, "id": model}]}}):
        usage = to_usage(metrics, provider, model)
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == expected
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (40, 5)


def test_an_error_is_no_answer(tmp_path):
    database = Database(tmp_path / "a.db")
    database.session("s", run("r1", message("q", "user", "Hi"), content="model down", status="ERROR"),
                     run("r2", message("q2", "user", "Hi"), content="half", status="cancelled"))  # fmt: skip
    database.session("t", turn("r3", "q", "a", status="RUNNING"), turn("r4", "q", "a", status="QUEUED"))
    failed, cancelled = database.read()[0][0].runs
    assert (failed.status, failed.error, failed.output) == ("ERROR", "model down", None)
    assert (cancelled.status, cancelled.error, cancelled.output) == ("CANCELLED", None, "half")
    assert [(run.status, run.extra["status"]) for run in database.read()[0][1].runs] == [
        ("INTERRUPTED", "RUNNING"), ("COMPLETED", "QUEUED"),
    ]  # fmt: skip


# Pauses ---------------------------------------------------------------------------------------------------------------


def paused(name, tool, **requirement):
    call = {"id": tool["tool_call_id"], "type": "function", "function": {"name": tool["tool_name"], "arguments": "{}"}}
    requirement = {"id": f"{name}-1", "created_at": "2026-12-01T00:00:00+00:00", "tool_execution": tool} | requirement
    asked = (message(f"{name}-q", "user", "Do it"), message(f"{name}-c", "assistant", None, tool_calls=[call]))
    return run(name, *asked, status="PAUSED", content="I need input.", tools=[tool], requirements=[requirement])


def test_each_kind_of_requirement(tmp_path):
    fields = [{"name": "to", "field_type": "str", "description": None, "value": None}]
    questions = [{"question": "Which?", "options": [{"label": "A"}], "selected_options": None}]
    database = Database(tmp_path / "a.db")
    database.session(
        "s",
        paused("r1", execution("a", "delete", {"path": "x"}, requires_confirmation=True)),
        paused("r2", execution("b", "send", {}, requires_user_input=True, user_input_schema=fields)),
        paused("r3", execution("c", "shell", {"cmd": "ls"}, external_execution_required=True)),
        paused("r4", execution("d", "ask", {}, user_feedback_schema=questions), user_feedback_schema=questions),
    )
    [draft], problems = database.read()
    asked = [run.requirements[0] for run in draft.runs]

    assert not problems
    assert [(r.status, r.tool_call_id, r.tool_name) for r in asked] == [
        ("pending", "a", "delete"), ("pending", "b", "send"), ("pending", "c", "shell"), ("pending", "d", "ask"),
    ]  # fmt: skip
    assert [r.extra.get("kind", r.kind) for r in asked] == [
        "confirmation", "user_input", "external_execution", "user_feedback"
    ]  # fmt: skip
    assert (asked[0].requirement_id, asked[0].args, asked[1].extra["fields"]) == ("r1-1", {"path": "x"}, fields)
    assert (asked[0].created_at.year, asked[3].extra["questions"]) == (2026, questions)
    with InMemoryDb() as store:
        store.ingest(database.path, progress=False)
        assert [r.requirement_id for r in store.get_session("s").runs[0].requirements] == ["r1-1"]
        store.ingest(database.path, progress=False)
        assert len(store.sql("SELECT * FROM requirements")) == 4


def test_answers(tmp_path):
    filled = [{"name": "to", "field_type": "str", "value": "ann"}]
    confirmed = execution("a", "delete", {}, requires_confirmation=False, confirmed=True, result="ok")
    rejected = execution("b", "delete", {}, requires_confirmation=False, confirmed=False, confirmation_note="keep it")
    ran = execution("c", "shell", {}, external_execution_required=True, result="x.txt")
    sent = execution("d", "send", {}, requires_user_input=False, answered=True, user_input_schema=filled)
    database = Database(tmp_path / "a.db")
    database.session(
        "s",
        paused("r1", confirmed, confirmation=True) | {"status": "COMPLETED"},
        paused("r2", rejected) | {"status": "COMPLETED"},
        paused("r3", ran, external_execution_result="x.txt") | {"status": "COMPLETED"},
        paused("r4", sent) | {"status": "COMPLETED"},
        paused("r5", execution("e", "delete", {}, requires_confirmation=True)) | {"status": "CANCELLED"},
    )
    asked = [run.requirements[0] for run in database.read()[0][0].runs]
    assert [(r.kind, r.status, r.approved, r.answer, r.note) for r in asked] == [
        ("confirmation", "resolved", True, None, None),
        ("confirmation", "resolved", False, None, "keep it"),
        ("external_execution", "resolved", None, "x.txt", None),
        ("user_input", "resolved", None, {"to": "ann"}, None),
        ("confirmation", "expired", None, None, None),
    ]


def test_early_versions_flag_calls_only(tmp_path):
    record = paused("r1", execution("a", "delete", {"path": "x"}, requires_confirmation=True))
    del record["requirements"]
    database = Database(tmp_path / "a.db", layout="v2", levels=2)
    database.session("s", record)
    [asked] = database.read()[0][0].runs[0].requirements
    assert (asked.requirement_id, asked.kind, asked.status) == ("r1:a", "confirmation", "pending")


def test_a_paused_member_asks_once(tmp_path):
    """The run of the team repeats what its member requires; a person continues the team's run."""
    tool = execution("a", "delete", {}, requires_confirmation=True)
    member = paused("m1", tool) | {"parent_run_id": "t1"}
    team = paused("t1", tool, id="m1-1", member_run_id="m1") | {"team_id": "my-team", "agent_id": None}
    database = Database(tmp_path / "a.db")
    database.session("s", member, team, kind="team")
    drafts, _ = database.read()
    assert [[r.requirement_id for r in draft.runs[0].requirements] for draft in drafts] == [["m1-1"], []]


def test_a_paused_step(tmp_path):
    step = {"step_id": "x", "step_name": "Publish", "requires_confirmation": True, "confirmation_message": "Publish?"}
    inner = {"step_id": "y", "requires_executor_input": True, "executor_requirements": [{}]}
    record = run("w1", agent_id=..., workflow_id="w", messages=..., status="PAUSED", step_requirements=[step, inner])
    database = Database(tmp_path / "a.db")
    database.session("s", record, kind="workflow")
    [asked] = database.read()[0][0].runs[0].requirements
    assert (asked.requirement_id, asked.kind, asked.prompt, asked.status) == (
        "w1:x", "confirmation", "Publish?", "pending"
    )  # fmt: skip


# Teams and workflows --------------------------------------------------------------------------------------------------


def team_run(name, member_id, task, **values):
    tool = execution(f"{name}-d", "delegate_task_to_member", {"member_id": member_id, "task": task}, result="done")
    values = {"team_id": "my-team", "team_name": "Ours", "agent_id": ..., "agent_name": ..., "tools": [tool]} | values
    return turn(name, "Go", "Done", **values)


def test_members_of_teams(tmp_path):
    """The runs of members come first, at any depth; a copy inside the team's run is not a second run."""
    inner = turn("m2", "deeper", "3", parent_run_id="m1")
    member = team_run("m1", "my-agent", "deeper", team_id="inner", parent_run_id="t1", input={"input_content": "task"})
    team = team_run("t1", "inner", "task", member_responses=[member, turn("m3", "only inside", "4")])
    database = Database(tmp_path / "a.db")
    database.session("s", inner, member, team, team_run("t2", "x", "y", second=50), kind="team")
    drafts, problems = database.read()

    assert not problems
    assert [[run.run_id for run in draft.runs] for draft in drafts] == [["t1", "t2"], ["m1"], ["m2"], ["m3"]]
    assert [draft.membership and draft.membership.tool_call_id for draft in drafts] == [None, "t1-d", "m1-d", None]
    with InMemoryDb() as store:
        report = store.ingest(database.path, progress=False)
        runs = store.runs_df().set_index("run_id")
        assert (report.sessions, len(runs)) == (1, 5)
        assert dict(runs.parent_run_id.dropna()) == {"m1": "t1", "m2": "m1", "m3": "t1"}
        assert dict(runs.run_type) == {"t1": "team", "t2": "team", "m1": "team", "m2": "agent", "m3": "agent"}
        assert runs.input_tokens.sum() == store.sessions_df().input_tokens[0] == 5 * 12
        assert store.ingest(database.path, progress=False).runs == 0
        assert not store.check().problems


def test_steps_of_workflows(tmp_path):
    member = turn("m", "q", "a")
    step = team_run("st", "my-agent", "q", parent_run_id="w1", workflow_step_id="x", member_responses=[member])
    results = [{"step_name": "one", "step_run_id": "st", "content": "Done", "success": True}]
    record = run("w1", agent_id=..., agent_name=..., messages=..., workflow_id="w", workflow_name="W", input="Begin",
                 content="Done", step_results=results, step_executor_runs=[step, turn("s2", "b", "c")],
                 metrics={"steps": {}, "duration": 2.0})  # fmt: skip
    database = Database(tmp_path / "a.db")
    database.session("s", record, kind="workflow", workflow_data={"steps": [{"name": "one"}]})
    with InMemoryDb() as store:
        store.ingest(database.path, progress=False)
        runs = store.runs_df().set_index("run_id")
        assert dict(runs.parent_run_id.dropna()) == {"st": "w1", "m": "st", "s2": "w1"}
        assert list(runs.run_type) == ["workflow", "team", "agent", "agent"]
        assert (runs.input["w1"], runs.output["w1"], runs.duration_s["w1"]) == ("Begin", "Done", 2.0)
        assert store.sessions_df().total_tokens[0] == 3 * 19
        stored_runs = store.get_session("s").runs
        assert stored_runs[0].extra["step_results"] == results
        assert [run.extra.get("step") for run in stored_runs] == [None, "one", None, None]


def test_a_run_whose_team_is_missing_is_kept(tmp_path):
    database = Database(tmp_path / "a.db")
    database.session("s", turn("m1", "q", "a", parent_run_id="gone"), turn("r1", "q", "a", parent_run_id="r1"))
    [draft], _ = database.read()
    assert [run.run_id for run in draft.runs] == ["m1", "r1"]
    assert draft.runs[0].extra["parent_run_id"] == "gone"


def test_runs_that_are_members_of_each_other(tmp_path):
    database = Database(tmp_path / "a.db")
    database.session("s", turn("a", "q", "1", parent_run_id="b"), turn("b", "q", "2", parent_run_id="a"))
    drafts, _ = database.read()
    assert sorted(run.run_id for draft in drafts for run in draft.runs) == ["a", "b"]


# Forks ----------------------------------------------------------------------------------------------------------------


def fork(name, source, cut, *own, **values):
    """A fork of a run: it repeats its first messages."""
    values = {"forked_from_run_id": source["run_id"], "forked_from_message_index": cut, "metrics": TOKENS} | values
    return run(name, *source["messages"][:cut], *own, **values)


def stored(database):
    store = InMemoryDb()
    report = store.ingest(database.path, progress=False)
    assert not report.errors
    assert not store.check().problems
    assert store.ingest(database.path, progress=False).runs == 0
    return store


def ids_of(store, session_id):
    return [[m.message_id for m in run.messages] for run in store.get_session(session_id).runs]


def test_a_fork_of_a_run_is_a_branch(tmp_path):
    first, second = turn("r1", "one", "1"), turn("r2", "two", "2")
    again = fork("r3", second, 1, message("r3-a", "assistant", "2b", metrics=TOKENS), content="2b")
    more = fork("r4", second, 2, message("r4-q", "user", "more"), message("r4-a", "assistant", "3", metrics=TOKENS))
    deeper = fork("r5", again, 2, message("r5-q", "user", "why"), message("r5-a", "assistant", "4", metrics=TOKENS))
    database = Database(tmp_path / "a.db")
    database.session("s", first, second, again, more, deeper, turn("r6", "three", "3"))
    with stored(database) as store:
        assert ids_of(store, "s") == [["r1-q", "r1-a"], ["r2-q", "r2-a"], ["r6-q", "r6-a"]]
        assert ids_of(store, "s~r3") == [["r1-q", "r1-a"], ["r2-q"], ["r3-a"]]
        assert ids_of(store, "s~r4") == [["r1-q", "r1-a"], ["r2-q", "r2-a"], ["r4-q", "r4-a"]]
        assert ids_of(store, "s~r5") == [["r1-q", "r1-a"], ["r2-q"], ["r3-a"], ["r5-q", "r5-a"]]
        sessions = store.sessions_df().set_index("session_id")
        assert dict(sessions.parent_session_id.dropna()) == {"s~r3": "s", "s~r4": "s", "s~r5": "s~r3"}
        assert (sessions.n_messages.sum(), sessions.input_tokens.sum()) == (6 + 1 + 2 + 2, 6 * 12)
        assert {"r3", "r4", "r5"} < set(store.runs_df().run_id)


def test_a_branch_of_a_session_whose_first_run_says_nothing(tmp_path):
    silent, second = turn("r1", "one", "1", messages=[], status="CANCELLED"), turn("r2", "two", "2")
    again = fork("r3", second, 1, message("r3-a", "assistant", "2b"))
    database = Database(tmp_path / "a.db")
    database.session("s", silent, second, again)
    with stored(database) as store:
        assert ids_of(store, "s~r3") == [[], ["r2-q"], ["r3-a"]]
        assert len(store.runs_df()) == 3


def test_a_run_that_was_generated_again_takes_the_place_of_the_other(tmp_path):
    first = turn("r1", "one", "1", status="REGENERATED")
    again = fork("r2", first, 1, message("r2-a", "assistant", "1b"), regenerated_from="r1", status="REGENERATED")
    third = fork("r3", again, 1, message("r3-a", "assistant", "1c"), regenerated_from="r2")
    database = Database(tmp_path / "a.db")
    database.session("s", first, again, third, turn("r4", "two", "2"))
    with stored(database) as store:
        assert ids_of(store, "s") == [["r1-q", "r3-a"], ["r4-q", "r4-a"]]
        assert [ids_of(store, f"s~{name}")[-1] for name in ("r1", "r2")] == [["r1-a"], ["r2-a"]]
        assert [run.status for run in store.get_session("s").runs] == ["COMPLETED", "COMPLETED"]
        assert [store.get_session(f"s~{name}").runs[-1].status for name in ("r1", "r2")] == ["REGENERATED"] * 2


def test_a_copy_of_a_session_is_a_branch_however_the_rows_are_ordered(tmp_path):
    runs = [turn("r1", "one", "1"), turn("r2", "two", "2")]
    copies = [record | {"run_id": f"{record['run_id']}-b", "forked_from_session_id": "s"} for record in runs]
    lineage = {"session_data": {"forked_from_session_id": "s", "session_name": "Copy"}}
    database = Database(tmp_path / "a.db")
    database.session("copy", *copies, turn("r4", "else", "4"), **lineage)
    database.session("empty", *(record | {"run_id": f"{record['run_id']}-c"} for record in copies), **lineage)
    database.session("s", *runs, turn("r3", "three", "3"))
    with stored(database) as store:
        assert ids_of(store, "copy") == [["r1-q", "r1-a"], ["r2-q", "r2-a"], ["r4-q", "r4-a"]]
        assert [run.run_id for run in store.get_session("copy").runs] == ["r1", "r2", "r4"]
        assert len(store.get_session("empty").runs) == 2
        assert store.sessions_df().input_tokens.sum() == 4 * 12


def test_members_of_a_copied_session_are_counted_once(tmp_path):
    """The copy of a member's run refers to the source's team."""
    member, team = turn("m1", "task", "3", parent_run_id="t1"), team_run("t1", "my-agent", "task")
    copies = [r | {"run_id": f"{r['run_id']}-b", "forked_from_session_id": "s"} for r in (member, team)]
    database = Database(tmp_path / "a.db")
    database.session("s", member, team, kind="team")
    database.session("copy", *copies, kind="team", session_data={"forked_from_session_id": "s"})
    with stored(database) as store:
        assert sorted(store.runs_df().run_id) == ["m1", "t1"]
    database.connection.execute("DELETE FROM agno_sessions WHERE session_id = 's'")
    with stored(database) as store:  # without the source, the copy has its own
        assert dict(store.runs_df().set_index("run_id").parent_run_id.dropna()) == {"m1-b": "t1-b"}


def test_the_members_of_a_forked_run_belong_to_the_branch(tmp_path):
    team = team_run("t1", "my-agent", "task")
    again = fork("t2", team, 1, message("t2-a", "assistant", "else"), team_id="my-team", agent_id=...)
    database = Database(tmp_path / "a.db")
    database.session("s", team, turn("m2", "other", "3", parent_run_id="t2"), again, kind="team")
    with stored(database) as store:
        runs = store.runs_df().set_index("run_id")
        assert (runs.session_id["m2"], runs.parent_run_id["m2"], runs.session_id["t2"]) == ("s~t2", "t2", "s~t2")


def test_requirements_of_forks_are_their_own(tmp_path):
    source = paused("r1", execution("a", "delete", {}, requires_confirmation=True))
    again = fork("r2", source, 2, status="PAUSED", requirements=source["requirements"], tools=source["tools"])
    database = Database(tmp_path / "a.db")
    database.session("s", source, again)
    with stored(database) as store:
        frame = store.sql("SELECT run_id, requirement_id FROM requirements ORDER BY run_id")
        assert "r1-1" in list(frame.requirement_id)


# Files ----------------------------------------------------------------------------------------------------------------


def test_two_tables_of_sessions(tmp_path):
    path = tmp_path / "a.db"
    Database(path).session("s", turn("r1", "q", "a"))
    Database(path, sessions="other", runs="other_runs").session("s", turn("r2", "x", "b"))
    items = [item for item in Agno().read(Source(path, "a.db")) if isinstance(item, Draft)]
    assert [(draft.session_id, draft.runs[0].run_id) for draft in items] == [("s", "r1"), ("s~other", "r2")]


def test_our_own_stores_and_other_tables_are_not_recognized(tmp_path):
    with SqliteDb(tmp_path / "ours.db") as store:
        store.append_run("s", _run())
    assert not Agno().recognizes(Source(tmp_path / "ours.db", "ours.db"))
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE sessions (session_id, session_type, session_data)")
    connection.close()
    assert recognized_by(tmp_path / "x.db") is None


def _run():
    from kern_nb.records import Message, Run

    return Run(messages=[Message(role="user", content="Hi")])


def test_a_live_file_is_read_with_its_log_and_not_changed(tmp_path):
    database = Database(tmp_path / "a.db")
    database.connection.execute("PRAGMA journal_mode=WAL")
    database.session("s", weather())
    files = [tmp_path / name for name in ("a.db", "a.db-wal")]
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    drafts, _ = database.read()
    assert (len(drafts), len(drafts[0].runs)) == (1, 1)
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == before


def test_malformed_values_lose_only_themselves(tmp_path):
    database = Database(tmp_path / "a.db")
    database.session("s", weather(), session_data="{not json", summary="null")
    database.run("s", turn("r2", "q", "a", tools=["x"], requirements=["y"]) | {"metrics": []}, 1)
    for name, data in (("r3", "[1]"), ("r4", "{"), ("r5", json.dumps(turn("r5", "q", "a") | {"messages": ["z", {}]}))):
        values = {"run_id": name, "session_id": "s", "run_type": "agent", "created_at": START, "run_data": data}
        database.insert("agno_runs", **values, run_index=9)
    [draft], problems = database.read()
    assert [run.run_id for run in draft.runs] == ["r1", "r2", "r5"]
    assert [problem.split(":")[0] for problem in problems] == ["Session 's'"] * 7
    assert any("session_data is not valid JSON" in problem for problem in problems)


@pytest.mark.every_engine
def test_a_grown_and_a_changed_run_replace_the_stored_ones(tmp_path, store):
    database = Database(tmp_path / "a.db")
    database.session("s", paused("r1", execution("a", "delete", {}, requires_confirmation=True)))
    store.ingest(database.path, progress=False)
    assert [r.status for r in store.get_session("s").runs[0].requirements] == ["pending"]
    done = paused("r1", execution("a", "delete", {}, confirmed=True, result="ok"), confirmation=True)
    done["messages"].append(message("r1-t", "tool", "ok", tool_call_id="a"))
    data = json.dumps(done | {"status": "COMPLETED"})
    database.connection.execute("UPDATE agno_runs SET run_data = ?, status = 'COMPLETED'", [data])
    database.run("s", turn("r2", "q", "a"), 1)
    report = store.ingest(database.path, progress=False)
    first, second = store.get_session("s").runs
    assert not report.errors
    assert (first.status, len(first.messages), second.run_id) == ("COMPLETED", 3, "r2")
    assert [(r.status, r.approved) for r in first.requirements] == [("resolved", True)]


RECORDS = [
    weather(requirements=[{"id": "x", "tool_execution": execution("c1", "weather", {}, requires_confirmation=True)}]),
    turn("m1", "task", "3", parent_run_id="t1"),
    team_run("t1", "my-agent", "task", member_responses=[turn("m2", "inside", "4")]),
    fork("r3", weather(), 2, message("r3-a", "assistant", "else")),
]


@pytest.mark.parametrize("version", range(60))
def test_values_of_wrong_types(tmp_path, version):
    """No value of a run stops the import, or changes what a second import stores."""
    records = list(mistyped(RECORDS, 60, seed=12))[version]
    database = Database(tmp_path / "a.db")
    data = json.dumps({"forked_from_session_id": "s", "session_state": {}})
    database.session("s", kind="team", session_data=data)
    for index, record in enumerate(records if isinstance(records, list) else [records]):
        row = {"run_id": f"r{index}", "session_id": "s", "run_type": "agent", "created_at": START, "run_index": index}
        database.insert("agno_runs", **row, run_data=json.dumps(record))
    with InMemoryDb() as store:
        store.ingest(database.path, progress=False)
        assert store.ingest(database.path, progress=False).runs == 0


def test_truncated_files(tmp_path):
    write_small(tmp_path / "a.db")
    for index, data in enumerate(truncated((tmp_path / "a.db").read_bytes(), 40, seed=3)):
        path = tmp_path / f"{index}.db"
        path.write_bytes(data)
        source = Source(path, path.name)
        if Agno().recognizes(source):
            list(Agno().read(source))
