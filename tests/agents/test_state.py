"""Session state: what the run is given goes before what is stored, which goes before the agent's own; tools read and write it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from recording_models import RecordingModel, calls, calls_once, results
from run_state_keys import without_run_keys

from kern_nb import Agent
from kern_nb.agent import RunContext, tool
from kern_nb.errors import RunFailed, UnstorableValue
from kern_nb.models.scripted import ScriptedModel, call


def look(session_state: dict) -> dict:
    """The stored keys of the state, as a tool sees it."""
    return without_run_keys(session_state)


def seen(db, *, default=None, given=None, session_id="chat", **options):
    """The state that a tool of a run sees."""
    model = calls_once("look")
    agent = Agent(model, db=db, session_id=session_id, session_state=default, tools=[look], **options)
    agent.run("look", session_state=given)
    return results(model)[0]


def changing(db, change, **options):
    """An agent in the session "chat" with one tool, which does this to the state."""
    return Agent(calls_once("change"), db=db, session_id="chat", tools=[tool(change, name="change")], **options)


def test_new_session_has_default_state(db):
    """And keeps it."""
    assert seen(db, default={"cart": [], "n": 1}) == {"cart": [], "n": 1}
    assert db.get_session("chat").session_state == {"cart": [], "n": 1}


def test_stored_state_takes_precedence_over_default(db):
    """The agent's own state fills in what a stored one lacks, at every depth."""
    db.update_session_state("chat", {"n": 5, "user": {"name": "Ann"}})

    own = {"n": 1, "user": {"name": "?", "age": None}, "cart": []}
    assert seen(db, default=own) == {"n": 5, "user": {"name": "Ann", "age": None}, "cart": []}


def test_run_state_takes_precedence_over_stored(db):
    """At every depth; what it does not name stays."""
    db.update_session_state("chat", {"n": 5, "user": {"name": "Ann", "age": 3}, "list": [1, 2]})

    found = seen(db, default={"n": 1, "m": 2}, given={"n": 9, "user": {"age": 4}, "list": [3]})
    assert found == {"n": 9, "m": 2, "user": {"name": "Ann", "age": 4}, "list": [3]}
    assert db.get_session("chat").session_state == found


@pytest.mark.every_engine
def test_state_precedence_on_every_engine(store):
    """Default 1, stored 2, given 3, each in its turn."""
    assert seen(store, default={"a": 1, "b": 1, "c": 1}, given={"c": 3}) == {"a": 1, "b": 1, "c": 3}
    store.update_session_state("chat", {"b": 2, "c": 2})
    assert seen(store, default={"a": 0, "b": 0, "c": 0}, given={"c": 3}) == {"a": 1, "b": 2, "c": 3}


def test_overwrite_db_session_state(db):
    """overwrite_db_session_state: what the run is given, or else the agent's own, replaces what is stored."""
    db.update_session_state("chat", {"n": 5, "old": True})

    overwriting = {"overwrite_db_session_state": True}
    assert seen(db, default={"n": 1}, given={"m": 2}, **overwriting) == {"m": 2}
    assert db.get_session("chat").session_state == {"m": 2}
    assert seen(db, default={"n": 1}, **overwriting) == {"n": 1}
    assert seen(db, given={"k": 3}, **overwriting) == {"k": 3}


def test_overwrite_without_state_keeps_stored(db):
    """overwrite_db_session_state lets what is given replace the stored state; nothing replaces nothing."""
    db.update_session_state("chat", {"n": 5})

    assert seen(db, overwrite_db_session_state=True) == {"n": 5}
    assert db.get_session("chat").session_state == {"n": 5}


def test_tools_write_state_by_either_parameter(db):
    """`session_state` and `run_context.session_state` are one dict, also in async tools; the model sees neither."""

    def first(session_state, run_context: RunContext, item: str) -> str:
        session_state.setdefault("cart", []).append(item)
        return "same" if run_context.session_state is session_state else "two dicts"

    async def second(run_context: RunContext) -> int:
        run_context.session_state["total"] = len(run_context.session_state["cart"])
        return run_context.session_state["total"]

    model = RecordingModel([call("first", item="pen"), call("second"), "done"])
    agent = Agent(model, db=db, session_id="chat", tools=[first, second])
    agent.run("a pen")

    assert results(model) == ["same", 1]
    assert agent.get_session_state() == {"cart": ["pen"], "total": 1}


def test_tool_removes_and_replaces_state_keys(db):
    """Keys that go are gone, at every depth."""
    db.update_session_state("chat", {"a": 1, "b": {"c": 1, "d": 2}, "e": [1]})

    def change(session_state):
        del session_state["a"], session_state["b"]["c"]
        session_state["e"] = {"now": "a dict"}

    changing(db, change).run("x")
    assert db.get_session("chat").session_state == {"b": {"d": 2}, "e": {"now": "a dict"}}


@pytest.mark.parametrize(
    "instructions",
    [
        lambda session_state: f"Speak {session_state['language']}.",
        lambda run, *, agent: f"Speak {run.session_state['language']}, {agent.id}.",
        lambda run, /, style="well": f"Speak {run.session_state['language']} {style}.",
    ],
)
def test_instructions_function_parameters_by_name(db, instructions):
    """As a tool does: for the state, the agent; any other parameter is the run."""
    model = RecordingModel()
    Agent(model, db=db, id="clerk", instructions=instructions, session_state={"language": "Basque"}).run("x")
    assert model.instructions().startswith("Speak Basque")


def test_instructions_read_state(db):
    """A function that gives instructions may read it, and is given the run's own."""
    model = RecordingModel()
    agent = Agent(model, db=db, instructions=lambda run_context: f"Speak {run_context.session_state['language']}.")
    agent.run("x", session_id="a", session_state={"language": "French"})
    agent.run("x", session_id="b", session_state={"language": "Greek"})

    assert [model.instructions(0), model.instructions(1)] == ["Speak French.", "Speak Greek."]


def test_default_and_passed_state_are_not_mutated(db):
    """A run works on its own copy: one definition serves many sessions."""
    default, given = {"cart": []}, {"user": {"seen": 0}}

    def change(session_state):
        session_state["cart"].append("pen")
        session_state["user"]["seen"] += 1

    agent = changing(db, change, session_state=default)
    for session_id in ("a", "b", "a"):
        agent.run("x", session_id=session_id, session_state=given)

    assert (default, given) == ({"cart": []}, {"user": {"seen": 0}})
    assert agent.get_session_state("a") == {"cart": ["pen", "pen"], "user": {"seen": 1}}
    assert agent.get_session_state("b") == {"cart": ["pen"], "user": {"seen": 1}}


def test_state_after_each_run_is_stored(db):
    """With the run; and a tool's change is stored when the tool ends, not only when the run does."""
    stored = []

    def change(session_state, run_context: RunContext) -> None:
        stored.append(run_context.store.get_session("chat").session_state.get("n"))
        session_state["n"] = session_state.get("n", 0) + 1

    agent = Agent(
        RecordingModel([call("change"), call("change"), "a", call("change"), "b"]),
        db=db,
        session_id="chat",
        tools=[change],
    )
    agent.run("x")
    agent.run("y")

    assert stored == [None, 1, 2]
    assert [run.session_state for run in db.get_session("chat").runs] == [{"n": 2}, {"n": 3}]


def test_state_values_round_trip(db):
    """Any JSON, and what JSON lacks."""
    value = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("1.10"),
        "odd\x00\ud800": ["\x00", None, 1.5, True],
    }

    def change(session_state):
        session_state.update(value, long="x" * 1_000_000)

    agent = changing(db, change)
    agent.run("x")
    assert agent.get_session_state() == value | {"long": "x" * 1_000_000}
    agent.run("y")
    assert db.get_session("chat").runs[1].session_state == value | {"long": "x" * 1_000_000}


def test_state_of_unknown_session(db):
    """Empty, not an error; and a state can be set before the first run."""
    agent = Agent(RecordingModel(), db=db, session_id="chat")
    assert agent.get_session_state() == {}
    assert agent.update_session_state({"n": 1}) == {"n": 1}
    agent.run("x")
    assert agent.get_session_state() == {"n": 1}


def test_update_session_state_merges_keys(db):
    """At every depth; and what comes back is the whole state."""
    agent = Agent(RecordingModel(), db=db, session_id="chat", session_state={"user": {"name": "Ann", "age": 3}, "n": 1})
    agent.run("x")

    assert agent.update_session_state({"user": {"age": 4}}) == {"user": {"name": "Ann", "age": 4}, "n": 1}
    assert seen(db) == {"user": {"name": "Ann", "age": 4}, "n": 1}


def test_state_survives_model_error(db):
    """The run fails, the state its tools left is stored, and the next run goes on from it."""

    def change(session_state):
        session_state["n"] = 1

    agent = Agent(RecordingModel([call("change"), ValueError("boom")]), db=db, session_id="chat", tools=[change])
    with pytest.raises(RunFailed):
        agent.run("x")

    assert db.get_session("chat").runs[0].status == "ERROR"
    assert seen(db) == {"n": 1}


def test_state_survives_tool_error(db):
    """It did set it."""

    def change(session_state):
        session_state["n"] = 1
        raise ValueError("boom")

    changing(db, change).run("x")
    assert seen(db) == {"n": 1}


def test_state_survives_cancellation(db):
    """Also the next run works."""

    async def cancelled():
        asked = asyncio.Event()

        async def change(session_state):
            session_state["n"] = 1

        async def wait():
            asked.set()
            await asyncio.Event().wait()

        model = RecordingModel([call("change"), call("wait")])
        running = asyncio.ensure_future(Agent(model, db=db, tools=[change, wait]).arun("x", session_id="chat"))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert db.get_session("chat").runs[0].status == "CANCELLED"
    assert seen(db) == {"n": 1}


def test_unstorable_state_fails_run(db):
    """The run ends with the error, what was stored before stays, and the next run works."""
    db.update_session_state("chat", {"n": 1})

    def change(session_state):
        session_state["lock"] = object()

    with pytest.raises(RunFailed, match="cannot be stored"):
        changing(db, change).run("x")

    run = db.get_session("chat").runs[0]
    assert (run.status, "object" in (run.error or "")) == ("ERROR", True)
    assert seen(db) == {"n": 1}


@pytest.mark.parametrize("how", ["as a default", "with the run"])
def test_unstorable_passed_state_is_rejected(db, how):
    """Before anything is stored."""
    bad = {"lock": object()}
    agent = Agent(RecordingModel(), db=db, session_id="chat", session_state=bad if how == "as a default" else None)
    with pytest.raises(UnstorableValue):
        agent.run("x", session_state=bad if how == "with the run" else None)

    assert db.get_session("chat") is None


def test_state_survives_pause(db):
    """What was set before is there after, and what others set meanwhile is not lost."""

    def before(session_state):
        session_state["before"] = 1

    def after(session_state):
        session_state["after"] = session_state["before"] + 1

    tools = [before, tool(after, requires_confirmation=True)]
    agent = Agent(calls(call("before"), call("after")), db=db, session_id="chat", tools=tools)
    paused = agent.run("x")
    agent.update_session_state({"meanwhile": True})
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent.continue_run(paused.run_id)

    assert agent.get_session_state() == {"before": 1, "after": 2, "meanwhile": True}


def test_assigned_state_replaces_all_keys(store):
    """Not only what is set in the dict counts: another dict is the state from then on, for all that comes after."""

    def replace(run_context: RunContext) -> str:
        run_context.session_state = {"new": run_context.session_state["old"]}
        return "replaced"

    def add(session_state) -> str:
        session_state["more"] = 2
        return "added"

    script = iter([call("replace"), call("add"), "done"])
    agent = Agent(ScriptedModel(lambda _: next(script)), db=store, session_id="chat", tools=[replace, add])
    run = agent.run("x", session_state={"old": 1})

    assert run.session_state == {"new": 1, "more": 2}
    assert agent.get_session_state() == {"new": 1, "more": 2}
