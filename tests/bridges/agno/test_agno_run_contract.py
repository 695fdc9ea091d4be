"""The contract of Agno's databases for runs, told by us: on Agno's own SqliteDb, and on ours on every engine."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.base import SessionType
from agno.run.base import RunStatus
from agno.run.team import TeamRunOutput
from agno.run.workflow import WorkflowRunOutput
from agno.session import TeamSession, WorkflowSession
from contract_values import SESSIONS, fill, run, run_ids, session

pytestmark = pytest.mark.filterwarnings("ignore::kern_nb.bridges.agno.SaveFailed")  # Agno logs what is not saved

RUNS = {
    "agent": run("r1", content="Hi", metadata={"a": 1}),
    "team": TeamRunOutput(run_id="r1", team_id="t1", content="Hi", status=RunStatus.completed, metadata={"a": 1}),
    "workflow": WorkflowRunOutput(
        run_id="r1", workflow_id="w1", content="Hi", status=RunStatus.completed, metadata={"a": 1}
    ),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("is_dict", [False, True], ids=["object", "dict"])
def test_a_run_of_each_type_comes_back(database, kind, is_dict):
    saved = RUNS[kind]
    database.upsert_session(deepcopy(SESSIONS[SessionType(kind)]))
    database.upsert_run(saved.to_dict() if is_dict else saved, "s1", run_index=0)
    loaded = database.get_run("r1")
    assert type(loaded) is type(saved)
    assert (loaded.content, loaded.status, loaded.metadata) == ("Hi", RunStatus.completed, {"a": 1})
    row = database.get_run("r1", deserialize=False)
    expected = {"run_id": "r1", "session_id": "s1", "run_type": kind, "status": "COMPLETED", "run_index": 0}
    assert {name: row[name] for name in expected} == expected
    assert row["run_data"]["content"] == "Hi"
    assert type(database.get_session("s1").runs[0]) is type(saved)


def test_a_run_that_does_not_exist(database):
    assert database.get_run("r1") is None
    assert database.get_runs() == []
    assert database.get_runs(deserialize=False) == ([], 0)
    assert database.delete_run("r1") is False
    fill(database)
    assert database.get_run("nothing like it") is None
    assert database.delete_run("nothing like it") is False
    database.delete_runs(["nothing like it"])
    assert database.get_runs(session_id="s2") == []


def test_a_run_without_an_id_is_refused(database):
    database.upsert_session(session())
    with pytest.raises(ValueError, match="run_id"):
        database.upsert_run(run(None), "s1", run_index=0)
    assert database.get_runs() == []


def test_a_second_upsert_replaces_the_run_and_keeps_its_position(database):
    fill(database)
    database.upsert_run(run("r1", content="changed", status=RunStatus.error), "s1")
    loaded = database.get_session("s1")
    assert run_ids(loaded.runs) == ["r0", "r1", "r2"]
    assert (loaded.runs[1].content, loaded.runs[1].status) == ("changed", RunStatus.error)
    assert database.get_run("r1", deserialize=False)["run_index"] == 1
    assert database.get_runs(status=RunStatus.error)[0].run_id == "r1"


def test_a_run_without_an_index_is_the_last(database):
    fill(database)
    database.upsert_run(run("r3"), "s1")
    assert run_ids(database.get_session("s1").runs) == ["r0", "r1", "r2", "r3"]
    assert database.get_run("r3", deserialize=False)["run_index"] == 3


def test_the_last_runs_of_the_context(database):
    fill(database)
    database.upsert_run(run("r3", parent_run_id="r2"), "s1", run_index=3)
    for index, status in enumerate((RunStatus.cancelled, RunStatus.error, RunStatus.paused), 4):
        database.upsert_run(run(f"r{index}", status=status), "s1", run_index=index)
    for deserialize in (True, False):
        for limit, expected in ((1, ["r2"]), (2, ["r1", "r2"]), (9, ["r0", "r1", "r2"])):
            loaded = database.get_session("s1", deserialize=deserialize, runs_limit=limit)
            assert run_ids(loaded.runs if deserialize else loaded["runs"]) == expected
    assert len(database.get_session("s1").runs) == 7


def test_messages_and_tools_come_back(database):
    from agno.models.message import Message
    from agno.models.response import ToolExecution

    messages = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello", tool_calls=None)]
    tools = [ToolExecution(tool_call_id="c1", tool_name="add", tool_args={"a": 1}, result="2")]
    database.upsert_session(session())
    database.upsert_run(run("r1", messages=messages, tools=tools), "s1", run_index=0)
    (loaded,) = database.get_session("s1").runs
    assert [(m.role, m.content, m.id) for m in loaded.messages] == [(m.role, m.content, m.id) for m in messages]
    assert (loaded.tools[0].tool_name, loaded.tools[0].tool_args, loaded.tools[0].result) == ("add", {"a": 1}, "2")


@pytest.mark.parametrize("deserialize", [True, False])
def test_filters_of_runs(database, deserialize):
    fill(database)
    database.upsert_session(TeamSession(session_id="t", team_id="t1"))
    database.upsert_run(
        TeamRunOutput(run_id="tr", team_id="t1", status=RunStatus.paused), "t", user_id="ann", run_index=0
    )
    database.upsert_session(WorkflowSession(session_id="w", workflow_id="w1"))
    database.upsert_run(WorkflowRunOutput(run_id="wr", workflow_id="w1", status=RunStatus.running), "w", run_index=0)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["r0", "r1", "r2", "tr", "wr"]),
        ({"session_id": "s1"}, ["r0", "r1", "r2"]),
        ({"agent_id": "a1"}, ["r0", "r1", "r2"]),
        ({"team_id": "t1"}, ["tr"]),
        ({"workflow_id": "w1"}, ["wr"]),
        ({"user_id": "ann"}, ["tr"]),
        ({"status": RunStatus.running}, ["wr"]),
        ({"status": "PAUSED"}, ["tr"]),
        ({"session_id": "s1", "status": RunStatus.running}, []),
    ]
    for filters, expected in cases:
        result = database.get_runs(**filters, deserialize=deserialize)
        runs, total = (result, len(expected)) if deserialize else result
        assert (sorted(run_ids(runs)), total) == (expected, len(expected)), filters


def test_pages_and_order_of_runs(database):
    fill(database, count=5)
    assert run_ids(database.get_runs(session_id="s1")) == ["r0", "r1", "r2", "r3", "r4"]
    rows, total = database.get_runs(session_id="s1", limit=2, page=2, deserialize=False)
    assert (run_ids(rows), total) == (["r2", "r3"], 5)
    assert run_ids(database.get_runs(session_id="s1", limit=2)) == ["r0", "r1"]
    for session_id in ("s1", None):
        options: dict[str, Any] = {"session_id": session_id, "sort_by": "run_index"}
        assert run_ids(database.get_runs(**options, sort_order="asc")) == ["r0", "r1", "r2", "r3", "r4"]
        assert run_ids(database.get_runs(**options, sort_order="desc", limit=1)) == ["r4"]
        assert run_ids(database.get_runs(**options, limit=2, page=2)) == ["r2", "r1"]


def test_deleting_runs(database):
    fill(database, count=5)
    assert database.delete_run("r1") is True
    assert database.delete_run("r1") is False
    assert run_ids(database.get_session("s1").runs) == ["r0", "r2", "r3", "r4"]
    database.delete_runs(["r0", "r4", "nothing like it"])
    assert run_ids(database.get_session("s1").runs) == ["r2", "r3"]
    database.upsert_run(run("r5"), "s1")
    assert run_ids(database.get_session("s1").runs) == ["r2", "r3", "r5"]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_cancelling_a_run_that_waits(database, status):
    fill(database, count=1)
    database.upsert_run(
        run("r1", status=RunStatus(status), content=None, metadata={"a": 1}), "s1", user_id="ann", run_index=1
    )
    options = {"reason": "lost", "expected_status": status}
    other = "RUNNING" if status == "PENDING" else "PENDING"
    assert database.cancel_pending_run("r1", session_id="s1", user_id="ann", reason="x", expected_status=other) is False
    assert database.cancel_pending_run("r1", session_id="s2", user_id="ann", **options) is False
    assert database.cancel_pending_run("r1", session_id="s1", user_id="bob", **options) is False
    assert database.cancel_pending_run("nothing like it", session_id="s1", **options) is False
    assert database.get_run("r1").status == RunStatus(status)
    assert database.cancel_pending_run("r1", session_id="s1", user_id="ann", **options) is True
    assert database.cancel_pending_run("r1", session_id="s1", user_id="ann", **options) is False
    loaded = database.get_run("r1")
    assert (loaded.status, loaded.content, loaded.metadata) == (RunStatus.cancelled, "lost", {"a": 1})
    assert database.get_run("r1", deserialize=False)["status"] == "CANCELLED"
    assert run_ids(database.get_session("s1").runs) == ["r0", "r1"]


def test_a_cancelled_run_keeps_its_content(database):
    database.upsert_session(session())
    database.upsert_run(run("r0", status=RunStatus.pending, content="so far"), "s1", run_index=0)
    assert database.cancel_pending_run("r0", session_id="s1", reason="lost") is True
    assert database.get_run("r0").content == "so far"
    with pytest.raises(ValueError, match="Pending or Running"):
        database.cancel_pending_run("r0", session_id="s1", reason="x", expected_status="PAUSED")
