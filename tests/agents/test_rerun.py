"""A part of a session is run again in a branch, otherwise than before; what was recorded stays as it is."""

from __future__ import annotations

import asyncio
import json

import pytest
from rerun_shops import TURNS, add, counts, recorded, rows, seller, shop, told

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.models.scripted import ScriptedModel
from kern_nb.operations.rerun import Rerun, arerun, rerun


@pytest.fixture
def db(tmp_path):
    """One engine, where it does not matter."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def basket(store, session_id):
    """What is in a session's basket."""
    return store.get_session(session_id).session_state.get("basket")


def test_rerun_with_other_model(store):
    """On every engine: in a branch before it, on its input, with the state as it was there; the original does not change by a byte."""
    agent, heard = recorded(store), []
    before, n = rows(store, "chat"), counts(store)
    done = rerun("chat/1", agent, model=seller("pear", name="model-b", heard=heard), name="what-if")

    assert (done.status, done.session_id, str(done.original)) == ("COMPLETED", "what-if", "chat/1")
    (run,) = done.runs
    assert (run.session_id, run.run_index, run.input, run.model) == ("what-if", 1, TURNS[1], "model-b")
    assert run.output == done.output == "You have {'apple': 1, 'pear': 1}"
    assert basket(store, "what-if") == {"apple": 1, "pear": 1}
    assert basket(store, "chat") == {"apple": 3}
    assert rows(store, "chat") == before
    # One session and one run with its five messages (instructions, input, call, result, answer), and not a row copied.
    added = {name: found - n[name] for name, found in counts(store).items() if found != n[name]}
    assert added == {"sessions": 1, "runs": 1, "messages": 5, "tool_calls": 1}
    assert [one[1] for one in told(heard) if one[0] == "user"] == list(TURNS[:2])
    assert done.session.fork_run_index == 0
    assert [r.session_id for r in done.session.runs] == ["chat", "what-if"]
    assert store.check().problems == []


def test_rerun_does_not_change_agent(db):
    """Its model, tools, session and store; it can be used while and after."""
    agent = recorded(db)
    given = dict(vars(agent))
    done = rerun("chat/1", agent, model=seller("pear"), instructions="Sell pears.", tools=[add], name="b")

    assert {name: value for name, value in vars(agent).items() if name != "_loop"} == {
        name: value for name, value in given.items() if name != "_loop"
    }
    assert done.agent is not agent
    assert agent.run("More").session_id == "chat"
    assert done.agent.run("More pears").session_id == "b"


def test_rerun_with_edited_message(store):
    """On every engine: the run's input and its first message are the new text."""
    agent = recorded(store)
    done = rerun("chat/2", agent, message="A bill, please")

    assert done.runs[0].input == "A bill, please"
    assert ("user", "A bill, please") in [(m.role, m.content) for m in done.runs[0].messages]
    assert [r.input for r in done.session.runs] == [*TURNS[:2], "A bill, please"]


def test_rerun_with_other_instructions_and_tools(db):
    """The system prompt is the agent's own, as changed; a tool that is not there is none of the model's."""
    agent, heard = recorded(db), []

    def add_twice(session_state: dict, item: str) -> dict:
        """Put two into the basket."""
        return add(session_state, item, 2)

    add_twice.__name__ = "add"
    rerun("chat/1", agent, model=seller("pear", heard=heard), instructions="Be generous.", tools=[add_twice], name="b")
    assert basket(db, "b") == {"apple": 1, "pear": 2}
    assert [m.content for m in heard[0] if m.role == "system"] == ["Be generous."]

    done = rerun("chat/1", agent, model=ScriptedModel("Nothing to sell."), tools=[], name="c")
    assert (done.output, basket(db, "c")) == ("Nothing to sell.", {"apple": 1})
    assert list(done.agent._model_loop()[1]) == []


def test_rerun_onward(store):
    """On every engine: in turn, the message in place of the first alone; each run is told those before it."""
    agent, heard = recorded(store), []
    done = rerun("chat/1", agent, message="Two pears", model=seller("pear", heard=heard), onward=True, name="b")

    assert [(r.run_index, r.input, r.status) for r in done.runs] == [
        (1, "Two pears", "COMPLETED"),
        (2, TURNS[2], "COMPLETED"),
    ]
    assert basket(store, "b") == {"apple": 1, "pear": 2}
    assert [content for role, content in told(heard, -1) if role == "user"] == [TURNS[0], "Two pears", TURNS[2]]
    assert done.left == ()


def test_rerun_whole_session(store):
    """On every engine: every run, from an empty state; also that of a branch, with what it inherits."""
    agent = recorded(store)
    before = rows(store, "chat")
    done = rerun("chat", agent, model=seller("pear"), name="b")

    assert [(r.run_index, r.input) for r in done.runs] == list(enumerate(TURNS))
    assert [r.session_id for r in done.session.runs] == ["b"] * 3
    assert (basket(store, "b"), done.session.fork_run_index) == ({"pear": 3}, -1)
    assert rows(store, "chat") == before

    store.branch("chat", after=0, new_session_id="half")
    shop(store, session_id="half").run("A melon")
    again = rerun("half", agent, name="c")
    assert [r.input for r in again.runs] == [TURNS[0], "A melon"]


def test_rerun_repeatedly(store):
    """On every engine: each in a branch of its own, none of which sees another's."""
    agent = recorded(store)
    done = [rerun("chat/1", agent, model=seller(f"fruit {n}", name=f"model {n}")) for n in range(5)]

    assert len({one.session_id for one in done}) == 5
    assert [basket(store, one.session_id) for one in done] == [{"apple": 1, f"fruit {n}": 1} for n in range(5)]
    assert [one.runs[0].run_index for one in done] == [1] * 5
    assert len(store.list_sessions()) == 6


def test_rerun_of_rerun(store):
    """On every engine: a branch of a branch, also from a run that it inherits, and after its parent grew."""
    agent = recorded(store)
    rerun("chat/1", agent, message="A pear", model=seller("pear"), name="b")
    agent.run("later")
    own = rerun("b/1", agent, message="A plum", model=seller("plum"), name="c")
    inherited = rerun("b/0", agent, model=seller("fig"), name="d")

    assert [r.input for r in own.session.runs] == [TURNS[0], "A plum"]
    assert basket(store, "c") == {"apple": 1, "plum": 1}
    assert [r.input for r in inherited.session.runs] == [TURNS[0]]
    assert inherited.runs[0].extra["rerun_of"]["session_id"] == "chat"
    assert basket(store, "d") == {"fig": 1}


@pytest.mark.every_engine
def test_rerun_stores_origin(store_factory, engine_name):
    """On every engine, in the frames of a store that was opened again: in the session's metadata and in each run."""
    store = store_factory()
    agent = recorded(store)
    original = store.get_session("chat").runs[1]
    rerun("chat/1", agent, model=seller("pear", name="model-b"), message="A pear", onward=True, name="b")
    if engine_name != "memory":
        store.close()
        store = store_factory()

    row = store.sessions_df("b").iloc[0]
    assert json.loads(row["metadata"]) == {
        "rerun_of": {"session_id": "chat", "run_index": 1, "run_id": original.run_id},
        "agent": "shop",
        "model": "model-b",
        "changed": {"model": "model-b", "message": True},
    }
    assert (row["parent_session_id"], row["fork_run_index"], row["agent_id"]) == ("chat", 0, "shop")
    session = store.get_session("b")
    assert session.agent_data == {"name": "Shop", "model": "model-b", "instructions": "Sell."}
    assert [r.extra.get("rerun_of") for r in session.runs[1:]] == [
        {"session_id": "chat", "run_id": run.run_id, "run_index": run.run_index}
        for run in store.get_session("chat").runs[1:]
    ]


def test_rerun_keeps_metadata_except_model(db):
    """The branch has its parent's metadata, so that its task is known; whose model it was is not true any more."""
    recorded(db)
    session = db.get_session("chat", runs=False)
    session.metadata = {"task_id": "7", "model": "gpt-old"}
    session.agent_data = {"tau2": {"task": 7}}
    db.save_session(session)
    done = rerun("chat/1", shop(db, model=seller(name="gpt-new"), name="Other"), name="b")

    assert done.session.metadata | {"rerun_of": None} == {
        "task_id": "7",
        "model": "gpt-new",
        "agent": "other",
        "changed": {},
        "rerun_of": None,
    }
    assert done.session.agent_id == "other"
    assert done.session.agent_data["tau2"] == {"task": 7}


def test_rerun_branch_keeps_user(db):
    """The owner of the session is the owner of the branch, whoever the agent is otherwise for."""
    recorded(db, "ann's", user_id="ann")
    recorded(db, "nobody's")

    for agent in (shop(db), shop(db, user_id="ann")):
        assert {rerun("ann's/1", agent).session.user_id, *(r.user_id for r in rerun("ann's", agent).runs)} == {"ann"}
    assert rerun("nobody's/1", shop(db, user_id="ann")).session.user_id is None


def test_rerun_comparison(db):
    """Of a run with the run; of a session, or onward, of the sessions. It is made when it is asked for."""
    agent = recorded(db)
    one = rerun("chat/1", agent, model=seller("pear"), name="b")
    assert [side.label for side in one.comparison.sides] == ["chat/1", "b/1"]
    assert one.comparison.divergence.a == "chat/1.2"
    assert one.comparison is one.comparison

    assert [s.label for s in rerun("chat/1", agent, onward=True, name="c").comparison.sides] == ["chat", "c"]
    assert [s.label for s in rerun("chat", agent, name="d").comparison.sides] == ["chat", "d"]


def test_rerun_inside_running_loop(db):
    """As a notebook's cell: blocking, and awaited; several at once."""
    agent = recorded(db)

    async def cell():
        blocking = rerun("chat/1", agent, model=seller("fig"))
        awaited = await asyncio.gather(*(arerun("chat/1", agent, model=seller(f"f{n}")) for n in range(4)))
        return [blocking, *awaited]

    done = asyncio.run(cell())
    assert all(isinstance(one, Rerun) for one in done)
    found = [basket(db, one.session_id) for one in done]
    assert found == [{"apple": 1, item: 1} for item in ("fig", "f0", "f1", "f2", "f3")]


def test_rerun_uses_store_of_session(db):
    """The store that is named, or the one in use; its own memory is left alone."""
    from kern_nb import store_registry

    recorded(db)
    agent = Agent(seller("pear"), tools=[add])
    assert rerun("chat/1", agent, store=db, name="b").store is db

    store_registry.attach(db, name="shop")
    try:
        assert rerun("chat/1", agent, name="c").store is db
        assert rerun("chat/1", agent, store="shop", name="d").store is db
    finally:
        store_registry.detach("shop")
    assert [s.session_id for s in sorted(db.list_sessions(), key=lambda s: s.session_id)] == ["b", "c", "chat", "d"]
    assert agent.store.list_sessions() == []


def test_rerun_accepts_run_or_session_object(db):
    """As an agent or a store gave it."""
    agent = recorded(db)
    run = db.get_session("chat").runs[1]

    assert str(rerun(run, agent).original) == "chat/1"
    assert str(rerun(db.get_session("chat"), agent).original) == "chat"


def test_rerun_without_agent_uses_recorded_instructions(db):
    """And its id; with the model that is named, and tools where some were called."""
    heard = []
    recorded(db)
    done = rerun("chat/1", model=seller("pear", heard=heard), tools=[add], store=db, name="b")

    assert (done.agent.id, done.agent.name, basket(db, "b")) == ("shop", "Shop", {"apple": 1, "pear": 1})
    assert [m.content for m in heard[0] if m.role == "system"] == ["Sell."]
