"""A member of a team without a model uses that of its team, at every depth."""

from __future__ import annotations

from recording_models import RecordingModel
from team_members import task

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.models.scripted import ScriptedModel, call


def test_member_uses_the_model_of_its_team(db, monkeypatch):
    """A member of a member too; one with a model uses its own; the members themselves are not changed."""
    monkeypatch.setenv("KERN_MODEL", "openai:unused")
    model = RecordingModel([task("inner", "a"), task("deep", "b"), "deep", "inner", task("own", "c"), "leader"])
    own = RecordingModel(["own"])
    deep = Agent(name="deep")
    inner = Team([deep], name="inner")
    team = Team([inner, Agent(own, name="own")], model, db=db, session_id="chat")
    run = team.run("go")

    assert run.output == "leader"
    assert [m[-1].content for m in model.told] == ["go", "a", "b", "deep", "inner", "own"]
    assert [m[-1].content for m in own.told] == ["c"]
    assert (deep.model, inner.model) == (None, None)
    runs = db.get_session("chat").runs
    assert [(r.agent_id or r.team_id, r.model) for r in runs] == [
        *[("team", "listener"), ("inner", "listener"), ("deep", "listener"), ("own", "listener")],
    ]


def test_resumed_member_uses_the_model_of_its_team(db):
    """Also in another process; and a team within a workflow passes on its own model."""

    def look() -> str:
        return "seen"

    def flow(model: ScriptedModel) -> Workflow:
        member = Agent(name="helper", tools=[tool(look, requires_confirmation=True)])
        return Workflow([Team([member], model, name="crew")], db=db, session_id="flow")

    run = flow(ScriptedModel([task("helper"), call("look")])).run("go")
    assert run.status == "PAUSED"
    db.resolve(run.requirements[0].requirement_id, approve=True)
    model = RecordingModel(["member", "leader"])
    assert flow(model).continue_run(run.run_id).output == "leader"
    assert [m[-1].content for m in model.told] == ["seen", "member"]
