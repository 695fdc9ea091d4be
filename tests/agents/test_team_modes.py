"""How a leader works with members: coordinate, route, broadcast; and what members are told beside their task."""

from __future__ import annotations

import pytest
from pausing_agents import sender
from recording_models import RecordingModel

from kern_nb import Agent, Team
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.team import TeamMode


def to_member(member_id: str, task: str):
    return call("delegate_task_to_member", member_id=member_id, task=task)


def to_all(task: str):
    return call("delegate_task_to_members", task=task)


def told(model: RecordingModel) -> str:
    """Return the last prompt of a member."""
    return model.heard()[-1][1]


@pytest.mark.parametrize("options", [{"mode": "route"}, {"mode": TeamMode.route}, {"respond_directly": True}], ids=str)
def test_in_route_mode_the_answer_of_the_member_is_that_of_the_team(db, options):
    """The leader is not asked again; its next run has the exchange in its history."""
    leader = RecordingModel([to_member("poet", "a poem"), "I answer myself"])
    poet = Agent(ScriptedModel(["Roses are red."]), name="Poet")
    team = Team([poet], leader, db=db, session_id="chat", add_history_to_context=True, **options)
    run = team.run("A poem, please")

    assert (run.status, run.output, len(leader.told)) == ("COMPLETED", "Roses are red.", 1)
    assert [(c.tool_name, c.status, c.result) for c in run.tool_calls] == [
        ("delegate_task_to_member", "completed", "Roses are red.")
    ]
    assert team.run("And you?").output == "I answer myself"
    assert [role for role, _ in leader.heard()] == ["user", "assistant", "tool", "user"]


def test_several_routed_answers_are_one_text(db):
    leader = ScriptedModel([[to_member("a", "x"), to_member("b", "x")]])
    team = Team(
        [Agent(ScriptedModel(["one"]), name="a"), Agent(ScriptedModel(["two"]), name="b")], leader, db=db, mode="route"
    )

    assert sorted(team.run("go").output.split("\n\n")) == ["one", "two"]


def test_failed_member_of_a_routing_team_is_reported_to_the_leader(db):
    team = Team(
        [Agent(ScriptedModel([ValueError("down")]), name="a")],
        ScriptedModel([to_member("a", "x"), "Sorry."]),
        db=db,
        mode="route",
    )

    assert team.run("go").output == "Sorry."


@pytest.mark.parametrize("options", [{"mode": "broadcast"}, {"delegate_to_all_members": True}], ids=str)
def test_in_broadcast_mode_all_members_get_the_task(db, options):
    """Each answer is under the member's id; a failure is one of the answers."""
    leader = RecordingModel([to_all("a poem"), "Both."])
    members = [Agent(ScriptedModel([f"{name} answers"]), name=name) for name in ("a", "b")]
    team = Team([*members, Agent(ScriptedModel([ValueError("down")]), name="c")], leader, db=db, **options)
    run = team.run("go")

    answers = leader.told[-1][-1].content
    assert (run.output, answers["a"], answers["b"]) == ("Both.", "a answers", "b answers")
    assert answers["c"].startswith("RunFailed: ")
    assert sorted(r.agent_id for r in db.member_runs(run.run_id)) == ["a", "b", "c"]


def test_broadcast_goes_on_when_all_paused_members_have_answered(db):
    """Each member runs once, also if another process continues."""
    sent: list[tuple[str, int]] = []

    def team() -> Team:
        writers = [
            Agent(ScriptedModel([call("send", to=name), f"{name} is done"]), name=name, tools=[sender(sent)])
            for name in ("a", "b")
        ]
        plain = RecordingModel(["c is done"])
        leader = ScriptedModel([to_all("write"), "All are done."])
        return Team([*writers, Agent(plain, name="c")], leader, db=db, session_id="chat", mode="broadcast")

    run = team().run("go")
    assert run.status == "PAUSED"
    first, second = db.requirements()
    db.resolve(first, approve=True)
    db.resolve(second, approve=True)
    done = team().continue_run(run.run_id)

    assert done.output == "All are done."
    assert done.tool_calls[0].result == {name: f"{name} is done" for name in ("a", "b", "c")}
    assert sorted(sent) == [("a", 1), ("b", 1)]
    assert len(db.member_runs(run.run_id)) == 3


def test_members_are_told_the_history_of_the_team(db):
    """Inputs and answers of the latest runs, before the task."""
    member = RecordingModel(["one", "two", "three", "four"])
    leader = ScriptedModel([answer for n in range(4) for answer in (to_member("m", f"task {n}"), f"answer {n}")])
    options = {"add_team_history_to_members": True, "num_team_history_runs": 2}
    team = Team([Agent(member, name="m")], leader, db=db, session_id="chat", **options)
    for n in range(4):
        team.run(f"question {n}")

    assert told(member) == (
        "<team_history_context>\n[run-1]\ninput: question 1\nresponse: answer 1\n\n"
        "[run-2]\ninput: question 2\nresponse: answer 2\n\n</team_history_context>\n\ntask 3"
    )
    assert member.heard(0)[-1][1] == "task 0"


def test_members_are_told_what_others_were_asked_and_answered(db):
    """In the same run, with the leader's tasks, not with what was told beside them."""
    second, third = RecordingModel(["two"]), RecordingModel(["three"])
    members = [Agent(ScriptedModel(["one"]), name="First"), Agent(second, name="Second"), Agent(third, name="Third")]
    leader = ScriptedModel([to_member("first", "x"), to_member("second", "y"), to_member("third", "z"), "done"])
    Team(members, leader, db=db, share_member_interactions=True).run("go")

    assert told(second).endswith("Member: First\nTask: x\nResponse: one\n\n</member_interaction_context>\n\ny")
    assert "Member: Second\nTask: y\nResponse: two\n" in told(third)


def test_members_get_the_input_of_the_run(db):
    member = RecordingModel(["one"])
    leader = ScriptedModel([to_member("m", "short"), "done"])
    Team([Agent(member, name="m")], leader, db=db, determine_input_for_members=False).run("The whole question")

    assert told(member) == "The whole question"


def test_unnamed_members_have_different_ids(db):
    leader = RecordingModel([to_member("agent-2", "x"), "done"])
    team = Team(
        [Agent(ScriptedModel(["one"])), Agent(ScriptedModel(["two"])), Team([], ScriptedModel("t"))], leader, db=db
    )

    assert list(team.members) == ["agent", "agent-2", "team"]
    assert team.run("go").tool_calls[0].result == "two"
    assert list(team.variant(mode="route").members) == ["agent", "agent-2", "team"]


def test_team_without_members_answers_alone(db):
    model = RecordingModel(["Hello."])

    assert Team([], model, db=db, instructions="Be kind.").run("Hi").output == "Hello."
    assert model.instructions() == "Be kind."


def test_run_has_the_runs_of_its_members(db):
    team = Team(
        [Agent(ScriptedModel(["one"]), name="m")],
        ScriptedModel([to_member("m", "x"), "done"]),
        db=db,
        session_id="chat",
        store_member_responses=True,
    )

    assert [run.output for run in team.run("go").member_responses] == ["one"]
    assert db.get_session("chat").runs[0].member_responses == []


@pytest.mark.parametrize("options", [{"mode": "tasks"}, {"mode": 5}, {"num_team_history_runs": "3"}], ids=str)
def test_parameter_that_is_not_valid_is_refused(options):
    with pytest.raises(BadUsage, match=next(iter(options))):
        Team([], ScriptedModel("x"), **options)
