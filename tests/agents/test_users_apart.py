"""One user's sessions are nobody else's: another user's agent neither reads, goes on with, changes nor deletes them."""

from __future__ import annotations

import asyncio

import pytest
from memory_models import Listener, calls_once
from memory_rows import places_of

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.db import InMemoryDb
from kern_nb.errors import KernError, OwnerMismatch, SessionNotFound

SECRET = "alice's swordfish"


@pytest.fixture
def db():
    """A store in memory, where the engine does not matter."""
    with InMemoryDb() as store:
        yield store


def of_alice(store, **options):
    """Alice's session "chat", with a secret in whatever may hold one."""
    state = {"secret": SECRET}
    given = {"user_id": "alice", "session_id": "chat", "session_state": state} | options
    agent = Agent(Listener([SECRET]), db=store, **given)
    agent.run(SECRET)
    agent.set_session_name(SECRET)
    store.save_summary("chat", {"summary": SECRET})
    return agent


def bob(store, model=None, **options):
    """Bob's agent, pointed at Alice's session."""
    return Agent(model or Listener(), db=store, user_id="bob", session_id="chat", **options)


def everything(store):
    """All that the store holds of all sessions, to see that nothing changed."""
    session = store.get_session("chat")
    return session.model_dump(exclude={"updated_at"}), len(store.list_sessions()), len(store.runs_df())


def test_another_users_run_is_refused_before_anything_is_stored(store):
    """On every engine: the model is not asked, and no row is written, whichever way the run is begun."""
    of_alice(store)
    before = everything(store)
    model = Listener()
    agent = bob(store, model, add_history_to_context=True, session_state={"of": "bob's own word"})

    with pytest.raises(OwnerMismatch, match=r"chat.*bob"):
        agent.run("tell me")
    with pytest.raises(OwnerMismatch):
        asyncio.run(agent.arun("tell me"))
    with pytest.raises(OwnerMismatch):
        agent.print_response("tell me")
    with pytest.raises(OwnerMismatch):
        Agent(model, db=store).run("tell me", session_id="chat", user_id="bob")

    assert model.told == []
    assert everything(store) == before
    assert places_of(store, "bob's own word") == []


def test_a_refused_runs_files_are_not_kept(db):
    """Nothing of it is stored."""
    of_alice(db)
    with pytest.raises(OwnerMismatch):
        bob(db).run("look", images=[b"bob's own word"])

    assert places_of(db, "bob's own word") == []


def test_another_users_team_and_workflow_are_refused(db):
    """So are their runs."""
    of_alice(db)
    before = everything(db)
    model = Listener()
    options = {"db": db, "session_id": "chat", "user_id": "bob"}
    for owner in (Team([Agent(model, name="m")], model, **options), Workflow([Agent(model, name="m")], **options)):
        with pytest.raises(OwnerMismatch):
            owner.run("tell me")
        assert owner.get_session() is None
        assert owner.get_session_state() == {}

    assert (model.told, everything(db)) == ([], before)


def test_another_user_reads_nothing(store):
    """On every engine: not the messages, the state, the title, the summary, the numbers."""
    of_alice(store)
    agent = bob(store)

    assert agent.get_session() is None
    assert agent.get_session("chat", user_id="bob") is None
    assert agent.get_session_state() == {}
    for ask in (
        *(agent.get_chat_history, agent.get_session_name, agent.get_session_summary, agent.get_session_metrics),
        lambda: agent.set_session_name(autogenerate=True),
    ):
        with pytest.raises(SessionNotFound) as refused:
            ask()
        assert SECRET not in str(refused.value) + refused.value.hint


def test_another_user_changes_nothing(store):
    """On every engine: neither title nor state, and it is not deleted."""
    of_alice(store)
    before = everything(store)
    agent = bob(store)
    for change in (
        lambda: agent.set_session_name("mine"),
        lambda: agent.update_session_state({"secret": "mine"}),
        agent.delete_session,
        lambda: agent.delete_session("chat", detach_branches=True),
    ):
        with pytest.raises((OwnerMismatch, SessionNotFound)):
            change()

    assert everything(store) == before


def test_another_user_does_not_go_on_with_a_run(db):
    """A paused run of Alice's is gone on with by Alice."""
    model = calls_once("look")
    tools = [tool(lambda: SECRET, name="look", requires_confirmation=True)]
    alice = Agent(model, db=db, user_id="alice", session_id="chat", tools=tools)
    paused = alice.run("look")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    other = Listener()
    for attempt in (paused.run_id, "chat/0"):
        with pytest.raises(KernError):
            bob(db, other, tools=tools).continue_run(attempt)
        with pytest.raises(KernError):
            asyncio.run(bob(db, other, tools=tools).acontinue_run(attempt))

    assert other.told == []
    assert db.get_run(paused.run_id).status == "PAUSED"
    assert alice.continue_run(paused.run_id).output == "done"


def test_a_cached_session_is_not_anothers(db):
    """cache_session keeps for whoever asks, and gives to whose it is."""
    agent = of_alice(db, cache_session=True)
    assert agent.get_session().user_id == "alice"
    assert agent.get_session(user_id="bob") is None
    assert agent.get_session(user_id="alice").user_id == "alice"


def test_one_agent_serves_many_users_at_once(db):
    """Each hears their own history alone."""

    def answer(messages):
        return " and ".join(m.content for m in messages if m.role == "user")

    agent = Agent(Listener(answer), db=db, add_history_to_context=True, num_history_runs=10)

    async def all_at_once():
        for n in range(2):
            said = (agent.arun(f"{u}{n}", session_id=f"of {u}", user_id=u) for u in "abcdefghij")
            runs = await asyncio.gather(*said)
        return [run.output for run in runs]

    assert asyncio.run(all_at_once()) == [f"{u}0 and {u}1" for u in "abcdefghij"]
    assert [s.session_id for s in db.list_sessions(user_id="c")] == ["of c"]


def test_a_session_of_nobody_becomes_the_first_users(db):
    """Who names themselves later, in a session that was nobody's, owns it from then on."""
    Agent(Listener(), db=db, session_id="chat").run("x")
    Agent(Listener(), db=db, session_id="chat", user_id="alice").run("y")

    assert db.get_session("chat").user_id == "alice"
    with pytest.raises(OwnerMismatch):
        bob(db).run("z")


@pytest.mark.parametrize("user_id", ["alice ", "ALICE", "ali\x00ce", "\ud800", "al%"])
def test_users_are_told_apart_letter_by_letter(db, user_id):
    """Odd names are names like others; no name is a pattern."""
    Agent(Listener(), db=db, session_id="chat", user_id="alice").run(SECRET)
    agent = Agent(Listener(), db=db, session_id="chat", user_id=user_id)
    with pytest.raises(OwnerMismatch):
        agent.run("x")
    assert agent.get_session() is None
    agent.run("x", session_id="own")
    assert agent.get_session("own").runs[0].input == "x"
    assert db.get_session("own").user_id == user_id
