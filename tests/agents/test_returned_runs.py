"""The run that an agent returns is the run as it is stored, though it is not read back; and no message is stored late."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
from pydantic_ai.messages import BinaryContent
from run_cost import counted

from kern_nb import Agent, Team
from kern_nb.agent import tool
from kern_nb.models.scripted import ScriptedModel, call

VALUES = {
    "text": "plain \x00 \ud800 text",
    "empty": "",
    "none": None,
    "number": 3,
    "fraction": 0.1,
    "decimal": Decimal("1.10"),
    "time": datetime(2026, 1, 2, tzinfo=UTC),
    "list": ["a", {"b": [1, None]}],
    "dict": {"a": (1, 2), "type": "x"},
    "array": np.array([1, 2]),
    "tagged": {"$type": "decimal", "value": 1},
    "file": BinaryContent(b"\x89PNG", media_type="image/png"),
}


def require_as_stored(store, run) -> None:
    """That reading the run gives the same record, field by field."""
    stored = store.get_run(run.run_id)
    assert run.model_dump() == stored.model_dump()
    assert repr(run.model_dump()) == repr(stored.model_dump())  # 1, 1.0 and True are equal
    assert [m.tool_calls for m in run.messages] == [m.tool_calls for m in stored.messages]


def test_returned_run_equals_stored_run_for_any_value(store):
    """That a tool gives and puts into the state."""

    def give(session_state: dict, name: str) -> object:
        """Give the value."""
        if not isinstance(VALUES[name], BinaryContent):
            session_state["value"] = VALUES[name]
        return VALUES[name]

    script = [answer for name in VALUES for answer in (call("give", name=name), "done")]
    agent = Agent(ScriptedModel(script), db=store, tools=[tool(give)], session_id="chat")
    for name in VALUES:
        run = agent.run(name)
        require_as_stored(store, run)
        assert [c.status for c in run.tool_calls] == ["completed"]


def test_returned_run_with_instructions_history_and_value_input(store):
    """What a run may begin with."""
    agent = Agent(ScriptedModel("done"), db=store, session_id="chat", instructions=["Be brief.", "Be kind."])
    past = agent.variant(add_history_to_context=True, store_history_messages=True, session_state={"n": 1})
    for one in (agent, past, agent.variant(instructions=lambda: "Made anew."), agent.variant(instructions="")):
        for content in ("text", {"a": [1]}, ["see", BinaryContent(b"\x89PNG", media_type="image/png")]):
            require_as_stored(store, one.run(content))


def test_returned_run_with_failing_and_parallel_tools(store):
    """With ids that the model used before, and wrong arguments."""

    def fail() -> str:
        """Fail."""
        raise ValueError("no")

    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    script = [[call("fail"), call("double", number=2), "I try."], call("double", number="two"), call("nothing"), "end"]
    agent = Agent(ScriptedModel(script), db=store, tools=[fail, double], session_id="chat")
    run = agent.run("x")
    require_as_stored(store, run)
    assert [c.status for c in run.tool_calls].count("failed") >= 2


def test_returned_run_of_team(store):
    """Each its own."""
    member = Agent(ScriptedModel("member's"), name="Member")
    script = [call("delegate_task_to_member", member_id="member", task="do"), "leader's"]
    run = Team([member], ScriptedModel(script), db=store, session_id="chat").run("x")
    require_as_stored(store, run)
    assert [r.output for r in store.member_runs(run.run_id)] == ["member's"]


def test_messages_are_stored_before_next_request(store):
    """Looked at from within the model: the question, the call, the result; and an answer that was not accepted."""
    seen: list[list[str]] = []

    def look(messages):
        stored = store.session_runs("chat")[-1].messages
        seen.append([m.role for m in stored])
        assert [m.role for m in messages] == seen[-1]
        return [call("add", n=1), "", "done"][len(seen) - 1]

    def add(n: int) -> int:
        """Add."""
        run = store.session_runs("chat")[-1]
        assert [c.status for c in run.tool_calls] == ["started"]
        return n + 1

    agent = Agent(ScriptedModel(look), db=store, tools=[add], session_id="chat", instructions="Be brief.")
    run = agent.run("x")
    require_as_stored(store, run)
    assert seen[0] == ["system", "user"]
    assert seen[1] == ["system", "user", "assistant", "tool"]
    assert [m.content for m in run.messages][-1] == "done"


def test_statements_of_run_with_call(store):
    """All that `Agent.run` says to the database, the run that it returns included."""

    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    agent = Agent(ScriptedModel([call("double", number=2), "4"] * 2), db=store, tools=[double], session_id="chat")
    first = agent.run("x")
    with counted(store) as appended:
        store.append_run("chat", first.model_copy(update={"run_id": "another"}))
    with counted(store) as live:
        agent.run("x")
    assert live["statements"] <= 3 * appended["statements"]
