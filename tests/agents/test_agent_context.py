"""What parameters of an agent add to the model's context and tools: description, state, tool calls; and metadata."""

from __future__ import annotations

import json

from recording_models import RecordingModel

from kern_nb import Agent
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, ToolCall
from kern_nb.runtime.history import limit_tool_calls


def look(city: str) -> str:
    """Look."""
    return f"{city} is sunny"


def test_system_message_has_description_instructions_and_state(db):
    """In this order; with the state as it is at the start of the run."""
    model = RecordingModel()
    options = {"description": "You are a clerk.", "instructions": "Be brief.", "markdown": True}
    agent = Agent(model, db=db, session_state={"items": []}, add_session_state_to_context=True, **options)
    agent.run("a")
    agent.update_session_state({"items": ["milk"]})
    run = agent.run("b")

    first, second = model.instructions(0), model.instructions(1)
    assert first.startswith("You are a clerk.\nBe brief.\n\n")
    assert "Markdown" in first
    ids = f"'current_session_id': '{agent.session_id}', 'current_run_id': '{run.run_id}'"
    assert "<session_state>\n{'items': [], " in first
    assert second.endswith(f"<session_state>\n{{'items': ['milk'], {ids}}}\n</session_state>")
    assert run.messages[0].content == second


def test_agent_sets_keys_of_the_state(db):
    model = RecordingModel([call("update_session_state", session_state_updates={"items": ["milk"]}), "done"])
    agent = Agent(model, db=db, session_id="chat", session_state={"a": 1}, enable_agentic_state=True)
    agent.run("Milk, please")

    assert agent.get_session_state() == {"a": 1, "items": ["milk"]}
    assert "milk" in model.told[-1][-1].content


def test_agent_reads_its_tool_calls(db):
    """The latest first, of earlier runs, with what they returned."""
    answers = [call("look", city=city) if city else "ok" for n in range(12) for city in (f"C{n}", "")]
    history = [call("get_tool_call_history"), call("get_tool_call_history", num_calls=None), "done"]
    model = RecordingModel([*answers, *history])
    agent = Agent(model, db=db, session_id="chat", tools=[look], read_tool_call_history=True)
    for n in range(12):
        agent.run(str(n))
    agent.run("What did you look up?")

    three, every = (json.loads(m.content) for m in model.told[-1] if m.role == "tool")
    assert three[0] == {"tool_name": "look", "args": {"city": "C11"}, "status": "completed", "result": "C11 is sunny"}
    assert [line["args"]["city"] for line in three] == ["C11", "C10", "C9"]
    assert [line["args"]["city"] for line in every] == [f"C{n}" for n in range(11, -1, -1)]


def test_history_has_the_latest_tool_calls(db):
    """The text of answers stays, and each remaining call has its result."""
    both = [call("look", city="A"), call("look", city="B")]
    model = RecordingModel([both, "ok", ["Third", call("look", city="C")], "ok", "done"])
    agent = Agent(model, db=db, session_id="chat", tools=[look], max_tool_calls_from_history=2)
    agent = agent.variant(add_history_to_context=True)
    for text in ("one", "two", "three"):
        agent.run(text)

    told = model.told[-1]
    assert [c.args["city"] for m in told for c in m.tool_calls] == ["B", "C"]
    assert [m.content for m in told if m.role == "tool"] == ["B is sunny", "C is sunny"]
    agent.variant(max_tool_calls_from_history=0).run("four")
    assert [(m.role, m.content) for m in model.told[-1] if m.role == "assistant"] == [
        ("assistant", text) for text in ("ok", "Third", "ok", "done")
    ]
    assert len(db.tool_calls_df("chat")) == 3, "what is stored does not change"


def test_messages_of_a_dropped_call_are_dropped():
    calls = Message(role="assistant", tool_calls=[ToolCall(tool_call_id="a"), ToolCall(tool_call_id="b")])
    picture = Message(role="user", content="a picture", internal={"by_tool": True})
    results = [Message(role="tool", tool_call_id=i, content=i) for i in ("a", "b")]

    limited = limit_tool_calls([calls, results[0], picture, results[1]], 1)

    assert [(m.role, m.content) for m in limited] == [("assistant", None), ("tool", "b")]
    assert [c.tool_call_id for c in limited[0].tool_calls] == ["b"]


def test_metadata_is_stored_with_session_and_run(db):
    """The session's own keys take precedence; what a member states is its run's alone."""
    Agent(ScriptedModel(["a"]), db=db, session_id="chat", metadata={"env": "test", "team": "x"}).run("a")
    revision = db.get_session("chat").revision
    run = Agent(ScriptedModel(["b"]), db=db, session_id="chat", metadata={"env": "live", "n": 1}).run("b")
    assert db.get_session("chat").revision > revision, "a saver that has read the session before does not undo it"
    Agent(ScriptedModel(["c"]), db=db, session_id="chat").run("c")

    assert db.get_session("chat").metadata == {"env": "test", "team": "x", "n": 1}
    assert run.extra["metadata"] == {"env": "live", "n": 1}
