"""A tool that needs confirmation waits for a person, who approves it, with other arguments, or refuses it."""

from __future__ import annotations

import pytest
from pausing_agents import calls, clerk, requirement_id, results, said, sender

from kern_nb.agent import tool
from kern_nb.db import SqliteDb
from kern_nb.errors import AlreadyClaimed, AlreadyResolved, BadUsage, RunClosed, StillWaiting
from kern_nb.models.scripted import call


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


LETTER = call("send", to="bob")


def waiting(store, *answers, sent=None, heard=None, **options):
    """A clerk who waits for leave to send a letter to bob."""
    tools = [sender([] if sent is None else sent, **options)]
    agent = clerk(store, LETTER, *(answers or ("done",)), tools=tools, heard=heard)
    return agent, agent.run("write to bob")


def test_run_pauses_for_confirmation(store):
    """The tool has not run, the model is not asked again, and what is waited for is stored with all one must know."""
    sent, heard = [], []
    tools = [sender(sent, requires_confirmation=True, prompt="Really?", assignee="carol")]
    agent = clerk(store, LETTER, "done", tools=tools, heard=heard, name="Clerk")
    run = agent.run("write to bob")

    assert (run.status, run.output, run.error, run.finished_at) == ("PAUSED", None, None, None)
    assert (sent, len(heard)) == ([], 1)
    assert calls(run) == [("send", "started", None)]
    (one,) = run.requirements
    assert (one.kind, one.tool_name, one.args, one.status) == ("confirmation", "send", {"to": "bob"}, "pending")
    assert (one.prompt, one.assignee, one.approved, one.answer) == ("Really?", "carol", None, None)
    assert (one.run_id, one.session_id, one.tool_call_id) == (run.run_id, "chat", run.tool_calls[0].tool_call_id)
    assert store.requirements() == [one]
    assert [(r.status, r.requirements) for r in agent.get_session().runs] == [("PAUSED", [one])]
    assert said(agent.get_chat_history()) == [("user", "write to bob"), ("assistant", ["send"])]
    assert store.history("chat") == []


@pytest.mark.every_engine
def test_approved_tool_runs_once(store):
    """With the model's arguments; the model is told the result, and it is one run from its question to its answer."""
    sent, heard = [], []
    agent, run = waiting(store, sent=sent, heard=heard)
    store.resolve(requirement_id(run), approve=True, by="carol")
    assert sent == []
    done = agent.continue_run(run.run_id)

    assert (done.status, done.output, done.run_id, done.run_index) == ("COMPLETED", "done", run.run_id, 0)
    assert sent == [("bob", 1)]
    exchange = [("user", "write to bob"), ("assistant", ["send"]), ("tool", "sent 1 to bob")]
    assert said(done) == [*exchange, ("assistant", "done")]
    assert said(heard[-1]) == exchange
    assert calls(done) == [("send", "completed", "sent 1 to bob")]
    assert [(one.approved, one.resolved_by) for one in done.requirements] == [(True, "carol")]
    assert said(agent.get_chat_history(tool_messages=True)) == said(done)


def test_edited_arguments_are_used(store):
    """Those that are named are replaced, the others stay; the record shows what was asked, what was answered and what ran."""
    sent = []
    agent, run = waiting(store, sent=sent)
    store.resolve(requirement_id(run), args={"copies": 3})
    done = agent.continue_run(run.run_id)

    assert sent == [("bob", 3)]
    assert results(done) == ["sent 3 to bob"]
    assert (done.requirements[0].args, done.requirements[0].answer) == ({"to": "bob"}, {"to": "bob", "copies": 3})
    assert done.tool_calls[0].args == {"to": "bob", "copies": 3}
    assert done.tool_calls[0].internal["asked_args"] == {"to": "bob"}


def test_edited_arguments_are_validated(store):
    """A number that came as text, from a form or the command line, is a number."""
    sent = []
    agent, run = waiting(store, sent=sent)
    store.resolve(requirement_id(run), args={"copies": "3"})
    agent.continue_run(run.run_id)

    assert sent == [("bob", 3)]


@pytest.mark.parametrize("edit", [{"copies": "many"}, {"to": None}, {"nobody": 1}, {"to": ["bob"]}])
def test_invalid_edits_are_reported_to_model(store, edit):
    """The tool does not run, its call failed, and the run goes on: it is for the model to ask again."""
    sent, heard = [], []
    agent, run = waiting(store, sent=sent, heard=heard)
    store.resolve(requirement_id(run), args=edit)
    done = agent.continue_run(run.run_id)

    assert (done.status, done.output, sent) == ("COMPLETED", "done", [])
    assert [status for _, status, _ in calls(done)] == ["failed"]
    assert next(iter(edit)) in str(results(heard[-1])[0])


@pytest.mark.parametrize(("note", "told"), [("bob has left", "bob has left"), (None, "It was refused.")])
def test_rejection_is_reported_to_model(store, note, told):
    """With its reason; the tool has not run, and the run goes on to its answer."""
    sent, heard = [], []
    agent, run = waiting(store, "then I will not", sent=sent, heard=heard)
    store.resolve(requirement_id(run), approve=False, note=note, by="carol")
    done = agent.continue_run(run.run_id)

    assert (done.status, done.output, sent) == ("COMPLETED", "then I will not", [])
    assert calls(done) == [("send", "failed", told)]
    assert results(heard[-1]) == [told]


@pytest.mark.parametrize(
    "answer",
    [{}, {"value": "yes"}, {"approve": False, "args": {"to": "eve"}}, {"note": "hm"}, {"approve": True, "value": 1}],
)
def test_invalid_answer_leaves_requirement_pending(store, answer):
    """It is refused with what would do, and a right answer is taken afterwards."""
    sent = []
    agent, run = waiting(store, sent=sent)
    with pytest.raises(BadUsage):
        store.resolve(requirement_id(run), **answer)
    with pytest.raises(StillWaiting, match="send"):
        agent.continue_run(run.run_id)
    store.resolve(requirement_id(run), approve=True)

    assert agent.continue_run(run.run_id).status == "COMPLETED"
    assert sent == [("bob", 1)]


def test_second_answer_is_rejected(store):
    """The second one gets a clear error, and what runs is what the first one said."""
    sent = []
    agent, run = waiting(store, sent=sent)
    store.resolve(requirement_id(run), args={"to": "eve"}, by="carol")
    for late in ({"approve": False}, {"args": {"to": "mallory"}}, {"approve": True}):
        with pytest.raises(AlreadyResolved, match="carol"):
            store.resolve(requirement_id(run), **late)
    agent.continue_run(run.run_id)

    assert sent == [("eve", 1)]


def test_run_is_resumed_once(store):
    """Whoever comes later gets a clear error, and the tool has run once."""
    sent = []
    agent, run = waiting(store, sent=sent)
    store.resolve(requirement_id(run), approve=True)
    agent.continue_run(run.run_id)
    for late in (run.run_id, "chat/0"):
        with pytest.raises(RunClosed, match="COMPLETED"):
            agent.continue_run(late)

    assert sent == [("bob", 1)]


def test_claimed_requirement_needs_claimant(store):
    """Others are told who is at it."""
    sent = []
    agent, run = waiting(store, sent=sent)
    store.claim(requirement_id(run), by="carol")
    with pytest.raises(AlreadyClaimed, match="carol"):
        store.resolve(requirement_id(run), approve=True, by="dan")
    with pytest.raises(StillWaiting):
        agent.continue_run(run.run_id)
    store.resolve(requirement_id(run), approve=True, by="carol")

    assert agent.continue_run(run.run_id).status == "COMPLETED"


def test_expired_requirement_is_rejected(store):
    """An answer after that is refused; the run goes on and the model is told so."""
    sent, heard = [], []
    agent, run = waiting(store, sent=sent, heard=heard, requires_confirmation=True, expires_after_s=0.0)
    with pytest.raises(AlreadyResolved, match="expired"):
        store.resolve(requirement_id(run), approve=True)
    done = agent.continue_run(run.run_id)

    assert (done.status, sent, done.requirements[0].status) == ("COMPLETED", [], "expired")
    assert results(heard[-1]) == ["Nobody answered in time."]


def test_unexpired_requirement_stays_pending(store):
    """Until somebody answers."""
    sent = []
    agent, run = waiting(store, sent=sent, requires_confirmation=True, expires_after_s=3600)
    with pytest.raises(StillWaiting):
        agent.continue_run(run.run_id)
    store.resolve(requirement_id(run), approve=True)
    agent.continue_run(run.run_id)

    assert sent == [("bob", 1)]


def test_error_of_approved_tool_is_reported_to_model(store):
    """As any tool that raises, and the run goes on."""

    @tool(requires_confirmation=True)
    async def pay(amount: float) -> str:
        """Pay."""
        raise ConnectionError(f"no bank for {amount}")

    agent = clerk(store, call("pay", amount=2.5), "sorry", tools=[pay])
    run = agent.run("pay")
    store.resolve(requirement_id(run), approve=True)
    done = agent.continue_run(run.run_id)

    assert (done.status, done.output) == ("COMPLETED", "sorry")
    assert calls(done) == [("pay", "failed", "ConnectionError: no bank for 2.5")]


def test_invalid_arguments_create_no_requirement(store):
    """The model is told what is wrong with its call, before anybody is asked."""
    sent = []
    agent = clerk(store, call("send", copies="many"), LETTER, "done", tools=[sender(sent)])
    run = agent.run("write")

    assert [one.args for one in run.requirements] == [{"to": "bob"}]
    assert [status for _, status, _ in calls(run)] == ["failed", "started"]


def test_tool_has_one_requirement_kind():
    """What cannot be is refused where the tool is made."""

    def send(to: str) -> str:
        """Send."""
        return to

    with pytest.raises(BadUsage, match="confirmation and external_execution"):
        tool(send, requires_confirmation=True, external_execution=True)
    with pytest.raises(BadUsage, match="no parameter 'subject'"):
        tool(send, user_input_fields=["subject"])
