"""An agent with `output_schema` answers with objects: of a pydantic model, another type, or a JSON schema."""

from __future__ import annotations

import dataclasses
import json

import pytest
from pydantic import BaseModel
from recording_models import RecordingModel

from kern_nb import Agent, Team, Workflow
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import ScriptedModel, call


class Verdict(BaseModel):
    """An answer."""

    ok: bool
    why: str


@dataclasses.dataclass
class Point:
    """Another one."""

    x: int
    y: int


PAID = '{"ok": true, "why": "paid"}'
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


@pytest.mark.parametrize(
    ("schema", "answer", "value", "stored"),
    [
        (Verdict, PAID, Verdict(ok=True, why="paid"), {"ok": True, "why": "paid"}),
        (Point, '{"x": 1, "y": 2}', Point(1, 2), {"x": 1, "y": 2}),
        (SCHEMA, '{"ok": false}', {"ok": False}, {"ok": False}),
        (list[int], '{"response": [1, 2]}', [1, 2], [1, 2]),
    ],
    ids=["model", "dataclass", "json_schema", "list"],
)
def test_output_is_an_object_and_its_json_is_stored(db, schema, answer, value, stored):
    run = Agent(ScriptedModel([answer]), db=db, session_id="chat", output_schema=schema).run("Is it paid?")

    assert run.output == value
    assert db.get_session("chat").runs[0].output == stored
    assert run.messages[-1].content == answer


def test_invalid_answer_is_returned_to_the_model(db):
    """Which then answers again; with every answer stored."""
    model = RecordingModel(["It is paid.", '{"ok": 1}', PAID])
    run = Agent(model, db=db, output_schema=Verdict).run("Is it paid?")

    assert run.output == Verdict(ok=True, why="paid")
    assert [m.role for m in run.messages] == ["user", "assistant"] * 3
    assert "why" in str(model.told[-1][-1].content)


def test_run_ends_after_too_many_invalid_answers(db):
    agent = Agent(ScriptedModel(["No."] * 9), db=db, session_id="chat", output_schema=Verdict, retries=1)
    with pytest.raises(RunFailed, match="Exceeded maximum output retries") as error:
        agent.run("Is it paid?")

    assert "retries=" in (error.value.hint or "")
    run = db.get_session("chat").runs[0]
    assert (run.status, run.output, [m.content for m in run.messages if m.role == "assistant"]) == (
        "ERROR",
        None,
        ["No."] * 2,
    )


def test_tools_run_before_the_object(db):
    def look(order: str) -> str:
        return f"{order} is paid"

    run = Agent(ScriptedModel([call("look", order="W1"), PAID]), db=db, tools=[look], output_schema=Verdict).run("W1?")

    assert run.output == Verdict(ok=True, why="paid")
    assert [c.tool_name for c in run.tool_calls] == ["look"]


def test_variant_changes_the_schema(db):
    agent = Agent(ScriptedModel([PAID, "Yes.", PAID]), db=db, output_schema=Verdict)

    assert agent.run("a").output == Verdict(ok=True, why="paid")
    assert agent.variant(output_schema=None).run("b").output == "Yes."
    agent.output_schema = SCHEMA
    assert agent.run("c").output == {"ok": True, "why": "paid"}


def test_objects_of_members_and_steps_reach_the_next_model_as_json(db):
    member = Agent(ScriptedModel([PAID]), name="Clerk", output_schema=Verdict)
    leader = RecordingModel([call("delegate_task_to_member", member_id="clerk", task="W1?"), "Paid."])
    assert Team([member], leader, db=db).run("W1?").output == "Paid."
    assert leader.told[-1][-1].content == {"ok": True, "why": "paid"}

    reader = RecordingModel(["Paid."])
    assert (
        Workflow([Agent(ScriptedModel([PAID]), output_schema=Verdict), Agent(reader)], db=db).run("W1?").output
        == "Paid."
    )
    role, text = reader.heard()[-1]
    assert (role, json.loads(text)) == ("user", json.loads(PAID))


@pytest.mark.parametrize(
    "schema", [str, "Verdict", 5, {"type": "string"}, object()], ids=["str", "name", "int", "no_object", "instance"]
)
def test_schema_that_is_not_valid_stores_nothing(db, schema):
    with pytest.raises(BadUsage, match="output_schema"):
        Agent(ScriptedModel([PAID]), db=db, output_schema=schema).run("x")

    assert len(db.runs_df()) == 0
