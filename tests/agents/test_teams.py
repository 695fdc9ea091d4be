"""A team: a leader that gives its members tasks, in one session."""

from __future__ import annotations

import asyncio

import pytest
from pausing_agents import by_turn, calls, results, said
from run_state_keys import without_run_keys
from team_members import crew, member, task

from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import call
from kern_nb.records import Message, Run, Session
from kern_nb.team import Team
from kern_nb.workflow import Workflow


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def test_leader_delegates(store):
    """It is told who its members are and what they answered; its tools are its own, and so are a member's."""
    heard, tasks = [], []
    members = [member("Ann", "it is sunny", heard=tasks, role="Knows the weather"), member("Bob", "no")]
    team = crew(store, members, task("ann", "the weather in P?"), "Sunny.", heard=heard, instructions="Be brief.")
    run = team.run("How is the weather?")

    assert (run.status, run.output, run.run_type, run.team_id, run.agent_id) == (
        "COMPLETED",
        "Sunny.",
        "team",
        "crew",
        None,
    )
    assert calls(run) == [("delegate_task_to_member", "completed", "it is sunny")]
    (instructions,) = {m.content for m in heard[0] if m.role == "system"}
    assert all(text in instructions for text in ("Be brief.", "- ann: Knows the weather", "- bob: Bob"))
    assert said(tasks[0])[1:] == [("user", "the weather in P?")]
    assert results(heard[1]) == ["it is sunny"]


def test_member_runs_are_in_team_session(store):
    """Each with its parent, its own id, input, output and usage; the session is the team's, and says so on all three ways."""
    team = crew(store, [member("Ann", "a"), member("Bob", "b")], task("ann", "1"), task("bob", "2"), "done")
    run = team.run("go")
    session = team.get_session()

    assert isinstance(session, Session)
    assert (session.session_type, session.team_id, session.agent_id) == ("team", "crew", None)
    rows = [(r.run_index, r.run_type, r.agent_id, r.parent_run_id, r.input, r.output) for r in session.runs[1:]]
    assert rows == [(1, "agent", "ann", run.run_id, "1", "a"), (2, "agent", "bob", run.run_id, "2", "b")]
    assert (session.runs[0].parent_run_id, session.runs[0].output) == (None, "done")
    assert session == store.get_session("chat")
    frame = store.runs_df("chat")
    assert frame["parent_run_id"].fillna("").tolist() == ["", run.run_id, run.run_id]
    assert frame["total_tokens"].notna().all()
    assert team.get_session_metrics().total_tokens == frame["total_tokens"].sum()


def test_history_has_leader_answers_only(store):
    """And was told; not what its members did among themselves. A member is told its own runs, if it is to have history."""
    heard, tasks = [], []
    ann = member("Ann", "ann's answer", heard=tasks, add_history_to_context=True)
    team = crew(store, [ann], task("ann"), "done", heard=heard, add_history_to_context=True)
    team.run("first")
    team.run("second")

    first = [
        ("user", "first"),
        ("assistant", ["delegate_task_to_member"]),
        ("tool", "ann's answer"),
        ("assistant", "done"),
    ]
    assert [m for m in said(heard[2]) if m[0] != "system"] == [*first, ("user", "second")]
    assert said(tasks[1]) == [("user", "do it"), ("assistant", "ann's answer"), ("user", "do it")]
    assert all(isinstance(one, Message) for one in team.get_chat_history())
    assert [m for m in said(team.get_chat_history(last_runs=1)) if m[0] == "user"] == [("user", "second")]


def test_leader_and_members_share_state(store):
    """Whoever sets a key, the next one sees it; it is stored with the session and each run."""

    def note(session_state: dict, key: str) -> list:
        """Note a key; those that are there."""
        session_state[key] = len(without_run_keys(session_state))
        return sorted(without_run_keys(session_state))

    tools = {"tools": [note]}
    members = [member("Ann", call("note", key="a"), "a", **tools), member("Bob", call("note", key="b"), "b", **tools)]
    leader = [[task("ann")], [call("note", key="l")], [task("bob")], "done"]
    team = crew(store, members, *leader, session_state={"start": 0}, **tools)
    run = team.run("go")

    state = {"start": 0, "a": 1, "l": 2, "b": 3}
    assert run.session_state == team.get_session_state() == state
    runs = team.get_session().runs
    assert {r.agent_id: r.session_state for r in runs[1:]} == {"ann": {"start": 0, "a": 1}, "bob": state}
    assert results(runs[2])[0] == ["a", "b", "l", "start"]


def test_members_run_concurrently(store):
    """Two tasks in one answer: each member is at work before the other ends; one member may have two tasks."""
    met = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        """Wait for the others."""
        async with asyncio.timeout(20):
            await met.wait()
        return name

    def worker(name):
        return member(name, call("meet", name=name), f"{name} met them", tools=[meet])

    team = crew(store, [worker("Ann"), worker("Bob")], [task("ann", "1"), task("bob", "2"), task("ann", "3")], "done")
    run = asyncio.run(team.arun("go"))

    assert [result for _, _, result in calls(run)] == ["Ann met them", "Bob met them", "Ann met them"]
    by_task = {r.input: r.agent_id for r in team.get_session().runs[1:]}
    assert by_task == {"1": "ann", "2": "bob", "3": "ann"}


def test_unknown_member_is_reported_to_leader(store):
    """With those that are, so that it may try again; nothing of a run is made."""
    heard = []
    team = crew(store, [member("Ann", "a")], task("anne"), task("ann"), "done", heard=heard)
    run = team.run("go")

    assert [status for _, status, _ in calls(run)] == ["failed", "completed"]
    assert "'anne'" in results(heard[1])[0]
    assert "'ann'" in results(heard[1])[0]
    assert [r.agent_id for r in team.get_session().runs[1:]] == ["ann"]


def test_member_failure_is_reported_to_leader(store):
    """Its run is stored with its error; the leader goes on, and other members were not disturbed."""
    heard = []
    members = [member("Ann", ConnectionError("ann is down")), member("Bob", "b")]
    team = crew(store, members, [task("ann"), task("bob")], "done", heard=heard)
    run = team.run("go")

    assert (run.status, [status for _, status, _ in calls(run)]) == ("COMPLETED", ["failed", "completed"])
    assert any("ann is down" in str(text) for text in results(heard[1]))
    runs = {r.agent_id: (r.status, r.error) for r in team.get_session().runs[1:]}
    assert runs == {"ann": ("ERROR", "ConnectionError: ann is down"), "bob": ("COMPLETED", None)}


def test_leader_failure_keeps_member_runs(store):
    """As they ended; and the next run works."""
    team = crew(store, [member("Ann", "a")], task("ann"), ConnectionError("down"))
    with pytest.raises(RunFailed, match="down"):
        team.run("go")
    assert [(r.status, r.output) for r in team.get_session().runs] == [("ERROR", None), ("COMPLETED", "a")]

    again = crew(store, [member("Ann", "a")], task("ann"), "done")
    assert again.continue_run("chat/0").output == "done"
    assert len(again.get_session().runs) == 2
    assert again.run("next").output == "done"


def test_nested_teams(store):
    """Each run has the run above it as its parent."""
    inner = Team([member("Cat", "meow")], by_turn(task("cat"), "the cat said meow"), name="Zoo", role="Animals")
    team = crew(store, [inner, member("Bob", "b")], task("zoo"), "done")
    team.run("go")
    outer, zoo, cat = team.get_session().runs

    assert [(r.run_type, r.team_id or r.agent_id) for r in (outer, zoo, cat)] == [
        ("team", "crew"),
        ("team", "zoo"),
        ("agent", "cat"),
    ]
    assert (outer.parent_run_id, zoo.parent_run_id, cat.parent_run_id) == (None, outer.run_id, zoo.run_id)
    assert results(outer) == ["the cat said meow"]


def test_members_run_outside_team(store):
    """Their own session and store are left alone by the team's, and the other way round."""
    ann = member("Ann", "a", db=store, session_id="ann's own")
    ann.run("alone")
    crew(store, [ann], task("ann"), "done").run("go")

    assert ann.session_id == "ann's own"
    assert [len(store.get_session(name).runs) for name in ("ann's own", "chat")] == [1, 2]


def test_invalid_team_is_rejected():
    """Two members of one id (the same agent twice, say), or members of another kind."""
    ann = member("Ann", "a")
    for members in ([ann, ann], [member("Ann", "a"), member("Ann", "b")], [Workflow([print])], [print], [None]):
        with pytest.raises(BadUsage):
            Team(members, "openai:gpt-5.2")


def test_cancel_team(store):
    """Nothing is left RUNNING; it can be gone on with, and then the member's run is the same one."""

    async def main():
        begun, leave = asyncio.Event(), asyncio.Event()

        async def wait() -> str:
            """Wait."""
            begun.set()
            await leave.wait()
            return "waited"

        team = crew(store, [member("Ann", call("wait"), "a", tools=[wait])], task("ann"), "done")
        running = asyncio.ensure_future(team.arun("go"))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [r.status for r in team.get_session().runs] == ["CANCELLED", "CANCELLED"]
        leave.set()
        return await team.acontinue_run("chat/0")

    done = asyncio.run(main())
    assert isinstance(done, Run)
    assert (done.status, calls(done)) == ("COMPLETED", [("delegate_task_to_member", "completed", "a")])
    leader, ann = store.get_session("chat").runs
    assert [status for _, status, _ in calls(ann)] == ["unknown"]
    assert (leader.status, ann.status) == ("COMPLETED", "COMPLETED")
