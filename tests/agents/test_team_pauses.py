"""A member's run pauses, and so does the leader's: what it waits for is the member's, and it goes on from there."""

from __future__ import annotations

import pytest
from pausing_agents import by_turn, calls, pending_tools, requirement_id, results, sender
from team_members import crew, member, task, writer

from kern_nb.agent import Agent, handoff, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import KernError, RunClosed, RunFailed, StillWaiting
from kern_nb.models.scripted import call
from kern_nb.team import Team


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def answer_all(store, **answer):
    """Answer everything that is waited for."""
    for one in store.requirements():
        store.resolve(one.requirement_id, **(answer or {"approve": True}))


def test_leader_pauses_with_member(store):
    """Its run shows the requirement, in the session too; other members' answers are stored; all are asked in vain to go on."""
    sent = []
    members = [writer("Ann", sent, "x"), member("Bob", "b")]
    team = crew(store, members, [task("ann"), task("bob")], "done")
    run = team.run("go")
    leader, *members_runs = team.get_session().runs  # members run at once: either may be the first
    ann, bob = sorted(members_runs, key=lambda r: r.agent_id)

    assert [r.status for r in (leader, ann, bob)] == ["PAUSED", "PAUSED", "COMPLETED"]
    (one,) = run.requirements
    assert (one.tool_name, one.args, one.run_id) == ("send", {"to": "x"}, ann.run_id)
    assert store.requirements(run_id=run.run_id) == leader.requirements == ann.requirements == [one]
    assert calls(run) == [("delegate_task_to_member", "started", None), ("delegate_task_to_member", "completed", "b")]
    for runner, reference in ((team, "chat/0"), (team.members["ann"], run.run_id)):
        with pytest.raises(KernError):
            runner.continue_run(reference)
    with pytest.raises(StillWaiting, match="send"):
        team.continue_run(run.run_id)
    assert sent == []


def test_leader_resumes_with_member_answer(store):
    """The member's run goes on first, with its own tools and model; then the leader is told what it said, once."""
    sent, heard = [], []
    members = [writer("Ann", sent, "x"), member("Bob", "b")]
    team = crew(store, members, [task("ann"), task("bob")], "done", heard=heard)
    team.run("go")
    store.resolve("chat/0", args={"to": "y"}, by="carol")
    done = team.continue_run("chat/0")

    assert (done.status, done.output, sent) == ("COMPLETED", "done", [("y", 1)])
    assert sorted(results(heard[-1])) == ["Ann is done", "b"]
    assert len(heard) == 2
    assert [status for _, status, _ in calls(done)] == ["completed", "completed"]
    runs = team.get_session().runs
    assert [(r.run_index, r.status) for r in runs] == [(0, "COMPLETED"), (1, "COMPLETED"), (2, "COMPLETED")]
    assert [r.resolved_by for run in runs[1:] for r in run.requirements] == ["carol"]  # members start at once
    with pytest.raises(RunClosed):
        team.continue_run("chat/0")


def test_member_pauses_repeatedly(store):
    """And the leader with it; a refusal is told to the member, not to the leader."""
    sent = []
    team = crew(store, [writer("Ann", sent, "x", "y", "z")], task("ann"), "done")
    run = team.run("go")
    for letters, answer in enumerate([{"approve": True}, {"approve": False, "note": "not y"}, {"approve": True}], 1):
        assert (run.status, pending_tools(run), len(run.requirements)) == ("PAUSED", ["send"], letters)
        store.resolve("chat/0", **answer)
        run = team.continue_run("chat/0")

    assert (run.status, sent, results(run)) == ("COMPLETED", [("x", 1), ("z", 1)], ["Ann is done"])
    assert results(team.get_session().runs[1]) == ["sent 1 to x", "not y", "sent 1 to z"]


def test_members_and_leader_pause_together(store):
    """Partial answers are kept; each tool runs once, also where one of the members has to wait again."""
    sent = []
    members = [writer("Ann", sent, "a1"), writer("Bob", sent, "b1", "b2")]
    asked = [task("bob"), task("ann"), call("send", to="leader")]
    team = crew(store, members, asked, "done", tools=[sender(sent)])
    run = team.run("go")
    assert sorted(one.args["to"] for one in run.requirements) == ["a1", "b1", "leader"]
    for left in (2, 1):
        store.resolve(requirement_id(run, left), approve=True)
        with pytest.raises(StillWaiting, match=f"has {left} pending"):
            team.continue_run("chat/0")
    store.resolve(requirement_id(run, 0), approve=True)
    run = team.continue_run("chat/0")
    assert (run.status, [one.args for one in run.requirements if one.status == "pending"]) == ("PAUSED", [{"to": "b2"}])
    answer_all(store)
    run = team.continue_run("chat/0")

    assert (run.status, run.output) == ("COMPLETED", "done")
    assert sorted(to for to, _ in sent) == ["a1", "b1", "b2", "leader"]
    assert sorted(results(run)) == ["Ann is done", "Bob is done", "sent 1 to leader"]


def test_nested_member_pauses(store):
    """All runs above it wait, and go on."""
    sent = []

    def nested():
        inner = Team([writer("Cat", sent, "x")], by_turn(task("cat"), "the zoo is done"), name="Zoo")
        return crew(store, [inner], task("zoo"), "done")

    run = nested().run("go")
    assert [r.status for r in store.get_session("chat").runs] == ["PAUSED"] * 3
    assert pending_tools(run) == ["send"]
    store.resolve("chat/0", approve=True)
    done = nested().continue_run("chat/0")

    assert (done.status, results(done), sent) == ("COMPLETED", ["the zoo is done"], [("x", 1)])
    assert [r.status for r in store.get_session("chat").runs] == ["COMPLETED"] * 3


@pytest.mark.parametrize("kind", ["handoff", "external_execution", "user_input"])
def test_member_pauses_for_user_input(store, kind):
    """From a person it hands over to, from elsewhere, or for an argument; it is given to the member."""

    @tool(requires_user_input=True)
    def ask_user(city: str) -> str:
        """Ask."""
        return f"I asked in {city}"

    wanted = {
        "handoff": (handoff(to="carol"), call("hand_to_human", reason="?"), "42", "42"),
        "external_execution": (sender([], external_execution=True), call("send", to="x"), {"id": 1}, {"id": 1}),
        "user_input": (ask_user, call("ask_user", city="P"), {"city": "Q"}, "I asked in Q"),
    }
    made, asked, value, result = wanted[kind]
    team = crew(store, [member("Ann", asked, "a", tools=[made])], task("ann"), "done")
    run = team.run("go")
    assert [one.kind for one in run.requirements] == [kind]
    store.resolve("chat/0", value=value)
    done = team.continue_run("chat/0")

    assert (done.status, results(done)) == ("COMPLETED", ["a"])
    assert results(team.get_session().runs[1]) == [result]


def test_shared_state_survives_member_pause(store):
    """What the member sets after it, the leader sees; what was set before it is still there."""

    def note(session_state: dict, key: str) -> list:
        """Note a key; those that are there."""
        session_state[key] = True
        return sorted(session_state)

    turns = [call("note", key="before"), call("send", to="x")], call("note", key="after"), "a"
    ann = member("Ann", *turns, tools=[note, sender([])])
    team = crew(store, [ann], task("ann"), call("note", key="end"), "done", tools=[note], session_state={"start": 1})
    team.run("go")
    assert team.get_session_state() == {"start": 1, "before": True}
    team.update_session_state({"other": 5})
    answer_all(store)
    done = team.continue_run("chat/0")

    state = {"start": 1, "before": True, "after": True, "end": True}
    assert {"after", "before", "end", "start"} <= set(results(done)[-1])
    assert team.get_session_state() == state | {"other": 5}


def test_member_failure_after_pause(store):
    """As one that fails without a pause; what else was approved runs."""
    sent, heard = [], []
    ann = member("Ann", call("send", to="x"), ConnectionError("ann is down"), tools=[sender(sent)])
    asked = [task("ann"), call("send", to="leader")]
    team = crew(store, [ann], asked, "done", tools=[sender(sent)], heard=heard)
    team.run("go")
    answer_all(store)
    done = team.continue_run("chat/0")

    assert (done.status, done.output) == ("COMPLETED", "done")
    assert sorted(sent) == [("leader", 1), ("x", 1)]
    assert "ann is down" in str(results(heard[-1]))
    assert [status for _, status, _ in calls(done)] == ["failed", "completed"]
    assert [r.status for r in team.get_session().runs] == ["COMPLETED", "ERROR"]


BROKEN = {
    "a member is gone": lambda: [member("Zoe", "z")],
    "its model cannot be used": lambda: [Agent("nosuch:model", name="Ann", tools=[sender([])])],
    "its tool is gone": lambda: [Agent(by_turn(call("send", to="x"), "a"), name="Ann")],
}


@pytest.mark.parametrize("why", BROKEN)
def test_failed_team_resume_loses_nothing(store, why):
    """The answers stand: the team as it was goes on, and the tools run once."""
    sent = []
    leader = [task("ann"), call("send", to="leader")], "done"
    make = {"tools": [sender(sent)]}
    crew(store, [writer("Ann", sent, "x")], *leader, **make).run("go")
    answer_all(store)
    with pytest.raises(RunFailed):
        crew(store, BROKEN[why](), *leader, **make).continue_run("chat/0")
    assert sent == []
    done = crew(store, [writer("Ann", sent, "x")], *leader, **make).continue_run("chat/0")

    assert (done.status, sorted(sent)) == ("COMPLETED", [("leader", 1), ("x", 1)])
    assert [status for _, status, _ in calls(done)] == ["completed", "completed"]


def test_member_run_is_continued_directly(store):
    """The leader then takes its answer as it is."""
    sent = []
    ann = Agent(writer("Ann", sent, "x").model, name="Ann", tools=[sender(sent)], db=store)
    team = crew(store, [ann], task("ann"), "done")
    team.run("go")
    answer_all(store)
    assert ann.continue_run("chat/1").output == "Ann is done"
    done = team.continue_run("chat/0")

    assert (done.status, results(done), sent) == ("COMPLETED", ["Ann is done"], [("x", 1)])


def test_session_handoff_of_paused_team(store):
    """What its member waits for is theirs to answer."""
    team = crew(store, [writer("Ann", [], "x")], task("ann"), "done")
    team.run("go")
    handed = store.handoff("chat/0", to="carol")

    assert [one.requirement_id for one in store.requirements(assignee="carol")] == [handed.requirement_id]
    store.resolve("chat/0", approve=True, by="carol")
    assert team.continue_run("chat/0").status == "COMPLETED"
