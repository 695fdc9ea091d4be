"""One user's sessions are nobody else's: another user's agent neither reads, goes on with, changes nor deletes them."""

from __future__ import annotations

import asyncio

import pytest
from recording_models import RecordingModel, calls_once
from stored_values import columns_with

from kern_nb import Agent, Team, Workflow, rerun
from kern_nb.agent import tool
from kern_nb.errors import KernError, OwnerMismatch, RunNotFound, SessionNotFound
from kern_nb.models.scripted import ScriptedModel, call

SECRET = "alice's swordfish"


def of_alice(store, **options):
    """Alice's session "chat", with a secret in whatever may hold one."""
    state = {"secret": SECRET}
    given = {"user_id": "alice", "session_id": "chat", "session_state": state} | options
    agent = Agent(RecordingModel([SECRET]), db=store, **given)
    agent.run(SECRET)
    agent.set_session_name(SECRET)
    store.save_summary("chat", {"summary": SECRET})
    return agent


def bob(store, model=None, **options):
    """Bob's agent, pointed at Alice's session."""
    return Agent(model or RecordingModel(), db=store, user_id="bob", session_id="chat", **options)


def everything(store):
    """All that the store holds of all sessions, to see that nothing changed."""
    session = store.get_session("chat")
    return session.model_dump(exclude={"updated_at"}), len(store.list_sessions()), len(store.runs_df())


def test_run_in_other_users_session_is_rejected(store):
    """On every engine: the model is not asked, and no row is written, whichever way the run is begun."""
    of_alice(store)
    before = everything(store)
    model = RecordingModel()
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
    assert columns_with(store, "bob's own word") == []


def test_rejected_run_stores_no_files(db):
    """Nothing of it is stored."""
    of_alice(db)
    with pytest.raises(OwnerMismatch):
        bob(db).run("look", images=[b"bob's own word"])

    assert columns_with(db, "bob's own word") == []


def test_team_and_workflow_of_other_user_are_rejected(db):
    """So are their runs."""
    of_alice(db)
    before = everything(db)
    model = RecordingModel()
    options = {"db": db, "session_id": "chat", "user_id": "bob"}
    for owner in (Team([Agent(model, name="m")], model, **options), Workflow([Agent(model, name="m")], **options)):
        with pytest.raises(OwnerMismatch):
            owner.run("tell me")
        assert owner.get_session() is None
        assert owner.get_session_state() == {}

    assert (model.told, everything(db)) == ([], before)


def test_other_user_cannot_read(store):
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


def test_other_user_cannot_write(store):
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


def test_other_user_cannot_continue_run(db):
    """A paused run of Alice's is gone on with by Alice."""
    model = calls_once("look")
    tools = [tool(lambda: SECRET, name="look", requires_confirmation=True)]
    alice = Agent(model, db=db, user_id="alice", session_id="chat", tools=tools)
    paused = alice.run("look")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    other = RecordingModel()
    for attempt in (paused.run_id, "chat/0"):
        with pytest.raises(KernError):
            bob(db, other, tools=tools).continue_run(attempt)
        with pytest.raises(KernError):
            asyncio.run(bob(db, other, tools=tools).acontinue_run(attempt))

    assert other.told == []
    assert db.get_run(paused.run_id).status == "PAUSED"
    assert alice.continue_run(paused.run_id).output == "done"


def test_cache_respects_user(db):
    """cache_session keeps for whoever asks, and gives to whose it is."""
    agent = of_alice(db, cache_session=True)
    assert agent.get_session().user_id == "alice"
    assert agent.get_session(user_id="bob") is None
    assert agent.get_session(user_id="alice").user_id == "alice"


def test_concurrent_users(db):
    """Each hears their own history alone."""

    def answer(messages):
        return " and ".join(m.content for m in messages if m.role == "user")

    agent = Agent(RecordingModel(answer), db=db, add_history_to_context=True, num_history_runs=10)

    async def all_at_once():
        for n in range(2):
            said = (agent.arun(f"{u}{n}", session_id=f"of {u}", user_id=u) for u in "abcdefghij")
            runs = await asyncio.gather(*said)
        return [run.output for run in runs]

    assert asyncio.run(all_at_once()) == [f"{u}0 and {u}1" for u in "abcdefghij"]
    assert [s.session_id for s in db.list_sessions(user_id="c")] == ["of c"]


def test_session_without_owner_is_adopted(db):
    """Who names themselves later, in a session that was nobody's, owns it from then on."""
    Agent(RecordingModel(), db=db, session_id="chat").run("x")
    Agent(RecordingModel(), db=db, session_id="chat", user_id="alice").run("y")

    assert db.get_session("chat").user_id == "alice"
    with pytest.raises(OwnerMismatch):
        bob(db).run("z")


@pytest.mark.parametrize("user_id", ["alice ", "ALICE", "ali\x00ce", "\ud800", "al%"])
def test_user_ids_are_compared_exactly(db, user_id):
    """Odd names are names like others; no name is a pattern."""
    Agent(RecordingModel(), db=db, session_id="chat", user_id="alice").run(SECRET)
    agent = Agent(RecordingModel(), db=db, session_id="chat", user_id=user_id)
    with pytest.raises(OwnerMismatch):
        agent.run("x")
    assert agent.get_session() is None
    agent.run("x", session_id="own")
    assert agent.get_session("own").runs[0].input == "x"
    assert db.get_session("own").user_id == user_id


def paused_run_of_nobody_in_alices_session(db, tools):
    """A session of Alice's with a paused run that names no user: her agent named none, the session is hers."""
    Agent(RecordingModel([SECRET]), db=db, user_id="alice", session_id="chat").run(SECRET)
    paused = Agent(calls_once("look"), db=db, session_id="chat", tools=tools).run("look")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    assert (paused.user_id, db.get_session("chat").user_id) == (None, "alice")
    return paused


def test_session_owner_decides_who_continues(store):
    """On every engine: the run names nobody, its session is Alice's; Bob's agent is told nothing of it."""
    tools = [tool(lambda: SECRET, name="look", requires_confirmation=True)]
    paused = paused_run_of_nobody_in_alices_session(store, tools)
    model = RecordingModel()
    theirs = bob(store, model, tools=tools, add_history_to_context=True)
    unnamed = Agent(model, db=store, tools=tools, add_history_to_context=True)
    for attempt in (
        lambda: theirs.continue_run(paused.run_id),
        lambda: theirs.continue_run("chat/1"),
        lambda: theirs.continue_run(1, session_id="chat"),
        lambda: asyncio.run(theirs.acontinue_run(paused)),
        lambda: unnamed.continue_run(paused.run_id, user_id="bob"),
        lambda: asyncio.run(unnamed.acontinue_run("chat/1", user_id="bob")),
        lambda: unnamed.continue_run(paused.run_id, user_id=""),
    ):
        with pytest.raises((RunNotFound, SessionNotFound)) as refused:
            attempt()
        assert SECRET not in f"{refused.value} {refused.value.hint}"

    assert model.told == []
    assert store.get_run(paused.run_id).status == "PAUSED"
    hers = Agent(calls_once("look"), db=store, session_id="chat", tools=tools)
    assert hers.continue_run(paused.run_id, user_id="alice").output == "done"


def test_other_user_cannot_continue_team_and_workflow(db):
    """Runs of members and steps go on with their leader's only."""
    tools = [tool(lambda: SECRET, name="look", requires_confirmation=True)]

    def made(kind, **options):
        member = Agent(calls_once("look"), name="m", tools=tools)
        if kind is Workflow:
            return Workflow([member], db=db, **options)
        return Team([member], calls_once("delegate_task_to_member", member_id="m", task="look"), db=db, **options)

    for kind in (Workflow, Team):
        session_id = kind.__name__
        Agent(RecordingModel(), db=db, session_id=session_id, user_id="alice").run(SECRET)
        paused = made(kind, session_id=session_id).run("look")
        assert paused.status == "PAUSED"
        [asked] = db.requirements(session_id=session_id)
        db.resolve(asked.requirement_id, approve=True)
        theirs = made(kind, session_id=session_id, user_id="bob")
        with pytest.raises(RunNotFound):
            theirs.continue_run(paused.run_id)
        with pytest.raises((RunNotFound, SessionNotFound)):
            Agent(RecordingModel(), id="m", db=db, user_id="bob", tools=tools).continue_run(asked.run_id)
        assert db.get_run(paused.run_id).status == "PAUSED"
        assert made(kind, session_id=session_id, user_id="alice").continue_run(paused.run_id).status == "COMPLETED"


def test_resumed_run_searches_sessions_of_owner(db):
    """Not those of the user that the run's own row names."""
    Agent(RecordingModel(), db=db, session_id="of bob", user_id="bob").run("bob's needle")
    Agent(RecordingModel(), db=db, session_id="of alice", user_id="alice").run("alice's needle")
    tools = [tool(lambda: "seen", name="look", requires_confirmation=True)]
    script = [call("look"), call("search_past_sessions", query="needle"), "done"]
    model = ScriptedModel(script)
    agent = Agent(model, db=db, session_id="chat", tools=tools, search_past_sessions=True, user_id="alice")
    paused = agent.run("look")

    def as_an_import_has_it(connection):
        r = db.tables.runs
        connection.execute(r.update().where(r.c.run_id == paused.run_id).values(user_id="bob"))

    db.write(as_an_import_has_it)
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    done = agent.continue_run(paused.run_id)
    [found] = [c.result for c in done.tool_calls if c.tool_name == "search_past_sessions"]

    assert "alice's needle" in found
    assert "bob" not in found


def test_continue_run_adopts_session_without_owner(db):
    """As any run of theirs would; from then on it is nobody else's."""
    tools = [tool(lambda: "seen", name="look", requires_confirmation=True)]
    paused = Agent(calls_once("look"), db=db, session_id="chat", tools=tools).run("look")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent = Agent(calls_once("look"), db=db, tools=tools)

    assert agent.continue_run(paused.run_id, user_id="alice").output == "done"
    assert db.get_session("chat").user_id == "alice"
    assert bob(db).get_session() is None


def test_session_methods_accept_user_id(store):
    """On every engine: one agent without a user of its own serves several, each call naming whose it is."""
    of_alice(store)
    before = everything(store)
    agent = Agent(RecordingModel(), db=store, session_id="chat")
    for other in ("bob", ""):
        assert agent.get_session(user_id=other) is None
        assert agent.get_session_state(user_id=other) == {}
        assert agent.get_workspace(user_id=other).paths() == []
        for ask in (
            agent.get_chat_history,
            agent.get_session_name,
            agent.get_session_summary,
            agent.get_session_metrics,
            agent.delete_session,
            lambda **user: agent.set_session_name("mine", **user),
            lambda **user: agent.set_session_name(autogenerate=True, **user),
            lambda **user: agent.update_session_state({"secret": "mine"}, **user),
        ):
            with pytest.raises((OwnerMismatch, SessionNotFound)) as refused:
                ask(user_id=other)
            assert SECRET not in f"{refused.value} {refused.value.hint}"

    assert everything(store) == before
    assert agent.get_session(user_id="alice").user_id == "alice"
    assert [m.content for m in agent.get_chat_history(user_id="alice")] == [SECRET, SECRET]
    assert agent.get_session_name(user_id="alice") == SECRET
    agent.delete_session(user_id="alice")
    assert store.get_session("chat") is None


def test_rerun_error_hides_owner(db):
    """No branch is taken."""
    of_alice(db)
    with pytest.raises(OwnerMismatch) as refused:
        rerun("chat/0", agent=bob(db), store=db)

    assert "alice" not in f"{refused.value} {refused.value.hint}"
    assert len(db.list_sessions()) == 1
