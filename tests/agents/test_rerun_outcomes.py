"""Reruns that wait, fail, are interrupted, or are refused before anything is written."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest
from pausing_agents import by_turn, failing_once, requirement_id, sender
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from recording_models import RecordingModel
from rerun_shops import TURNS, add, recorded, rows, seller, shop, told
from team_members import crew, member, task, writer

from kern_nb import store_registry
from kern_nb.agent import Agent, tool
from kern_nb.db import SqliteDb, open_store
from kern_nb.errors import (
    AmbiguousReference,
    BadUsage,
    KernError,
    MessageNotFound,
    NoStore,
    OwnerMismatch,
    ReadOnlyStore,
    RunNotFound,
    SessionExists,
    SessionNotFound,
    StillWaiting,
    UnstorableValue,
)
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.operations.rerun import arerun, rerun
from kern_nb.workflow import Workflow


@pytest.fixture
def db(tmp_path):
    """One engine, where it does not matter."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


# That wait ------------------------------------------------------------------------------------------------------------


def test_paused_rerun_is_continued(store):
    """On every engine: with the line that goes on; the inputs after it are given once it is completed."""
    sent, heard = [], []
    agent = recorded(store)
    model = by_turn(call("send", to="ann"), "Sent.", heard=heard)
    done = rerun("chat/1", agent, model=model, tools=[sender(sent)], onward=True, name="b")

    assert (done.status, sent, [str(one) for one in done.left]) == ("PAUSED", [], ["chat/2"])
    shown = repr(done)
    assert all(part in shown for part in ("PAUSED", "send(to=", "%kern approve", ".continue_run()", "chat/2"))
    assert "%kern continue" not in shown  # an agent of the notebook has other tools
    with pytest.raises(StillWaiting):
        done.continue_run()

    store.resolve(requirement_id(done.runs[0]), approve=True)
    again = done.continue_run()
    assert (again.status, sent, [str(one) for one in again.left]) == ("PAUSED", [("ann", 1)], [])
    assert [(r.run_index, r.status) for r in again.runs] == [(1, "COMPLETED"), (2, "PAUSED")]
    store.resolve(requirement_id(again.runs[1]), approve=True)
    ended = again.continue_run()
    assert (ended.status, [r.output for r in ended.runs]) == ("COMPLETED", ["Sent.", "Sent."])
    assert [content for role, content in told(heard, -1) if role == "user"] == list(TURNS)
    with pytest.raises(BadUsage):
        ended.continue_run()
    assert done.status == "PAUSED"  # what was given stays as it was


def test_paused_rerun_is_continued_by_agent(db):
    """Without changes the agent itself goes on with it, from a line; it is told the conversation as at the beginning."""
    sent, heard = [], []
    recorded(db)
    agent = shop(db, model=by_turn(call("send", to="ann"), "Sent.", heard=heard), tools=[sender(sent)])
    done = rerun("chat/1", agent, onward=True, name="b")
    assert "%kern continue b/1 --agent shop" in repr(done)

    db.resolve(requirement_id(done.runs[0]), approve=True)
    agent.continue_run("b/1")
    assert told(heard, -1)[: len(told(heard, 0))] == told(heard, 0)
    assert [content for role, content in told(heard, -1) if role == "user"] == list(TURNS[:2])

    later = done.continue_run()  # which is completed by now
    assert [(r.status, r.run_index) for r in later.runs] == [("COMPLETED", 1), ("PAUSED", 2)]


def test_paused_rerun_of_team(db):
    """What the member waits for is what the rerun waits for."""
    sent = []
    team = crew(db, [member("Ann", "fine")], task("ann"), "done")
    team.run("go")
    waiting = crew(db, [writer("Ann", sent, "bob")], task("ann"), "done")
    done = rerun("chat/0", waiting, name="b")

    assert done.status == "PAUSED"
    assert "send(to=" in repr(done)
    assert "send" in done._repr_html_()
    db.resolve(requirement_id(done.runs[0]), approve=True)
    assert (done.continue_run().output, sent) == ("done", [("bob", 1)])


# That fail ------------------------------------------------------------------------------------------------------------


def test_failed_rerun_is_returned(store):
    """On every engine: it is stored, shown and compared; later inputs are not given, and it can be tried again."""
    agent = recorded(store)
    turns = failing_once(ConnectionError("the line is down"))
    done = rerun("chat/1", agent, model=ScriptedModel(turns), onward=True, name="b")

    assert (done.status, done.error) == ("ERROR", "ConnectionError: the line is down")
    assert [(r.run_index, r.status) for r in done.session.runs] == [(0, "COMPLETED"), (1, "ERROR")]
    assert store.runs_df("b")["status"].tolist() == ["ERROR"]
    assert repr(done).startswith("✗ Rerun of chat/1 as b/1")
    assert "the line is down" in repr(done)
    assert "Inputs not run: chat/2" in repr(done)
    assert [side.label for side in done.comparison.sides] == ["chat", "b"]

    again = done.continue_run()
    assert [(r.run_index, r.status, r.output) for r in again.runs] == [
        (1, "COMPLETED", "fine"),
        (2, "COMPLETED", "fine"),
    ]


def test_several_failed_reruns(db):
    """Whatever the members' runs after it."""

    def lead(messages):
        if messages[-1].role == "tool":
            raise ConnectionError("down")
        return task("ann")

    team = crew(db, [member("Ann", "fine")], task("ann"), "done")
    team.run("go")
    done = rerun("chat/0", team, model=ScriptedModel(lead), name="b")

    assert (done.status, done.runs[0].run_type, done.runs[0].run_index) == ("ERROR", "team", 0)


def test_failed_rerun_of_workflow(db):
    """A step's error is the run's; it goes on at that step."""
    step = failing_once(ConnectionError("down"))
    flow = Workflow([lambda given: f"{given.input}!"], db=db, session_id="chat", name="Flow")
    flow.run("hi")
    done = rerun("chat/0", flow.variant(steps=[lambda given: given.input, step]), name="b")

    assert (done.status, done.left) == ("ERROR", ())
    assert done.continue_run().output == "fine"


def test_unstored_rerun_names_branch(db):
    """It remains, and the error says so."""
    agent = recorded(db)

    class Failing(SqliteDb):
        def start_run(self, *args, **options):
            raise UnstorableValue("It cannot be stored.", "Try another.")

    with Failing(db_file=db.url.removeprefix("sqlite:///")) as broken, pytest.raises(KernError) as raised:
        rerun("chat/1", agent.variant(db=broken), name="b")

    assert raised.value.hint == "Try another. The branch 'b' remains."
    assert db.get_session("b").fork_run_index == 0


def test_interrupt_is_propagated(db):
    """The run is stored as cancelled, the branch remains."""
    agent = recorded(db)
    begun = threading.Event()

    def interrupt():
        begun.wait(20)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    async def respond(_messages, _info):
        begun.set()
        await asyncio.sleep(30)
        return ModelResponse(parts=[TextPart("late")])

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        rerun("chat/1", agent, model=FunctionModel(respond), onward=True, name="b")

    assert [(r.run_index, r.status) for r in db.get_session("b").runs] == [(0, "COMPLETED"), (1, "CANCELLED")]


def test_cancelled_task_ends_run(db):
    """As awaited from another loop."""
    agent = recorded(db)

    async def main():
        begun = asyncio.Event()

        async def respond(_messages, _info):
            begun.set()
            await asyncio.sleep(30)
            return ModelResponse(parts=[TextPart("late")])

        running = asyncio.ensure_future(arerun("chat/1", agent, model=FunctionModel(respond), name="b"))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert db.get_session("b").runs[-1].status == "CANCELLED"


# That are refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"reference": "chatt"}, SessionNotFound),
        ({"reference": "chat/7"}, RunNotFound),
        ({"reference": "chat/1.70"}, MessageNotFound),
        ({"reference": "ch"}, AmbiguousReference),
        ({"reference": 7}, BadUsage),
        ({"agent": "shop"}, BadUsage),
        ({"agent": None}, BadUsage),
        ({"agent": None, "model": RecordingModel()}, BadUsage),
        ({"name": "choir"}, SessionExists),
        ({"name": ""}, BadUsage),
        ({"name": 7}, BadUsage),
        ({"model": 7}, BadUsage),
        ({"model": "no-such-provider:x"}, BadUsage),
        ({"tools": [7]}, BadUsage),
        ({"tools": [add, add]}, BadUsage),
        ({"instructions": 7}, BadUsage),
        ({"message": []}, BadUsage),
        ({"store": "nowhere"}, NoStore),
    ],
)
def test_invalid_rerun_writes_nothing(db, wrong, error):
    """With our error, whose hint says what to do."""
    agent = recorded(db)
    recorded(db, "choir", turns=TURNS[:1])
    before = rows(db)
    given = {"reference": "chat/1", "agent": agent, "store": db, "name": "b"} | wrong
    with pytest.raises(error) as refused:
        rerun(given.pop("reference"), given.pop("agent"), **given)

    assert isinstance(refused.value, KernError)
    assert rows(db) == before


def test_rerun_rejects_invalid_tool(db):
    """Before the branch is there."""
    agent = recorded(db)

    def strange(when: threading.Lock) -> str:
        """What has no schema."""
        return str(when)

    before = rows(db)
    with pytest.raises(BadUsage, match="strange"):
        rerun("chat/1", agent, tools=[strange])
    assert rows(db) == before


def test_rerun_rejects_read_only_store(persistent_target):
    """On every engine that two stores can share."""
    with open_store(persistent_target) as store:
        recorded(store)
        before = rows(store)
    with open_store(persistent_target, read_only=True) as reader, pytest.raises(ReadOnlyStore):
        rerun("chat/1", shop(None), store=reader)
    with open_store(persistent_target) as store:
        assert rows(store) == before


def test_rerun_rejects_agent_of_other_store(db, tmp_path):
    """Where the session is in another one, named or in use, both are said; the way out works."""
    recorded(db)
    with SqliteDb(db_file=tmp_path / "other.db") as other:
        agent = shop(other)
        for options in ({"store": db}, {}):
            store_registry.attach(db, name="shop")
            try:
                with pytest.raises(BadUsage, match=r"s\.db.*other\.db"):
                    rerun("chat/1", agent, **options)
            finally:
                store_registry.detach("shop")
        with pytest.raises(SessionNotFound):
            rerun("chat/1", agent)
        assert other.list_sessions() == []
        assert rerun("chat/1", agent.variant(db=db), name="b").store is db


def test_stores_of_same_file_are_equal(db, tmp_path):
    """An agent with a path is at home in the store that was attached from it."""
    recorded(db)
    path = tmp_path / "s.db"
    with open_store(path) as same:
        assert rerun("chat/1", shop(path), store=same, name="b").status == "COMPLETED"
    assert db.get_session("b") is not None


def test_rerun_rejects_agent_of_other_user(db):
    """Before anything is written; nobody's agent may."""
    recorded(db, user_id="ann")
    before = rows(db)
    with pytest.raises(OwnerMismatch, match="bob"):
        rerun("chat/1", shop(db, user_id="bob"))
    assert rows(db) == before


def test_rerun_without_store():
    """Nothing is attached, and nobody is named."""
    with pytest.raises(NoStore):
        rerun("chat/1", model=RecordingModel())


def test_rerun_rejects_model_without_key(db, monkeypatch):
    """Before the branch is there."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    agent = recorded(db)
    before = rows(db)
    with pytest.raises(BadUsage):
        rerun("chat/1", agent, model="openai:gpt-5.2")
    assert rows(db) == before


def test_rerun_inside_tool(db):
    """A model may run again what another one did."""
    agent = recorded(db)

    def again(reference: str) -> str:
        """Run it again."""
        return str(rerun(reference, agent, model=seller("fig"), name="b").output)

    asked = Agent(by_turn(call("again", reference="chat/1"), "done"), db=db, tools=[tool(again)])
    assert asked.run("go").tool_calls[0].result == "You have {'apple': 1, 'fig': 1}"
