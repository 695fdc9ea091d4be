"""What may go wrong between a pause and its end: another state, a model that is down, a tool that is gone, a kill."""

from __future__ import annotations

import threading

import pytest
from pausing_agents import by_turn, calls, clerk, requirement_id, results, said, sender
from run_state_keys import without_run_keys

from kern_nb.agent import Agent, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import AlreadyClaimed, KernError, RunFailed
from kern_nb.models.scripted import call


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


LETTER = call("send", to="bob")


def counter(seen):
    """A tool that counts in the session's state."""

    def count(session_state: dict) -> int:
        """Count."""
        seen.append(without_run_keys(session_state))
        session_state["count"] = session_state.get("count", 0) + 1
        return session_state["count"]

    return count


def test_state_survives_pause(store):
    """What was set before it is stored at the pause, and there when the run goes on, in another agent's hands too."""
    seen = []
    make = [call("count"), LETTER], call("count"), "done"
    agent = clerk(store, *make, tools=[counter(seen), sender([])], session_state={"start": True})
    run = agent.run("go")
    assert run.session_state == agent.get_session_state() == {"start": True, "count": 1}
    store.resolve("chat/0", approve=True)
    done = clerk(store, *make, tools=[counter(seen), sender([])]).continue_run("chat/0")

    assert done.session_state == agent.get_session_state() == {"start": True, "count": 2}
    assert seen == [{"start": True}, {"start": True, "count": 1}]


def test_state_changes_during_pause_are_merged(store):
    """The run that goes on sees it, changes its own keys, and no others."""
    seen = []
    agent = clerk(store, LETTER, call("count"), "done", tools=[counter(seen), sender([])], session_state={"rate": 1})
    agent.run("go")
    agent.update_session_state({"other": 2, "rate": 5})
    store.resolve("chat/0", approve=True)
    agent.continue_run("chat/0")

    assert seen == [{"rate": 5, "other": 2}]
    assert agent.get_session_state() == {"rate": 5, "other": 2, "count": 1}


def test_unstored_results_stay_unstored_across_pause(store):
    """With store_tool_messages=False a tool that ran before the pause is not run again, and the model is told so."""
    sent, seen, heard = [], [], []

    def look(city: str) -> str:
        """Look."""
        seen.append(city)
        return f"SECRET of {city}"

    answers = [call("look", city="P"), LETTER], call("look", city="Q"), "done"
    agent = clerk(store, *answers, tools=[look, sender(sent)], heard=heard, store_tool_messages=False)
    run = agent.run("go")
    store.resolve(requirement_id(run), approve=True)
    done = agent.continue_run("chat/0")

    assert (seen, sent) == (["P", "Q"], [("bob", 1)])
    assert [(name, result) for name, status, result in calls(done) if status == "completed"] == [
        ("look", None),
        ("send", None),
        ("look", None),
    ]
    assert "not stored" in results(heard[-1])[0]
    assert results(heard[-1])[1:] == ["sent 1 to bob", "SECRET of Q"]
    rows = [store.sql(f"SELECT * FROM {view}").to_csv() for view in ("messages", "tool_calls", "runs", "requirements")]
    assert not any("SECRET" in text or "sent 1" in text for text in rows)


def test_external_answer_is_deleted_when_results_are_not_stored(store):
    """It is kept until the run goes on, which another process may do, and not after."""
    heard = []
    tools = [sender([], external_execution=True)]
    agent = clerk(store, LETTER, "done", tools=tools, heard=heard, store_tool_messages=False)
    agent.run("go")
    store.resolve("chat/0", value="SECRET", note="no secret", by="carol")
    done = agent.continue_run("chat/0")

    assert results(heard[-1]) == ["SECRET"]
    (answered,) = store.requirements(status=None)
    assert (answered.status, answered.approved, answered.answer, answered.resolved_by) == (
        "resolved",
        True,
        None,
        "carol",
    )
    assert "SECRET" not in str([done.model_dump(), store.sql("SELECT * FROM requirements").to_csv()])


def test_model_failure_after_pause_can_be_retried(store):
    """The run ends with its error and can be gone on with; the tool that ran does not run again."""
    sent = []
    agent = clerk(store, LETTER, ConnectionError("the model is down"), tools=[sender(sent)])
    run = agent.run("go")
    store.resolve(requirement_id(run), approve=True)
    with pytest.raises(RunFailed, match="the model is down"):
        agent.continue_run(run.run_id)
    failed = store.get_run(run.run_id)
    assert (failed.status, results(failed)) == ("ERROR", ["sent 1 to bob"])
    done = clerk(store, LETTER, "done", tools=[sender(sent)]).continue_run(run.run_id)

    assert (done.status, done.output, done.error, sent) == ("COMPLETED", "done", None, [("bob", 1)])


@pytest.mark.parametrize(
    ("model", "tools"),
    [("nosuch:model", True), ("openai:gpt-5.2", True), (by_turn(LETTER, "done"), False)],
    ids=["no model", "no key", "no tool"],
)
def test_failed_resume_keeps_approval(store, monkeypatch, model, tools):
    """Nothing ran, so the answer stands, and whoever can goes on with it: the tool runs, once."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    sent = []
    run = clerk(store, LETTER, "done", tools=[sender(sent)]).run("go")
    store.resolve(requirement_id(run), approve=True)
    other = Agent(model, db=store, session_id="chat", tools=[sender(sent)] if tools else [])
    with pytest.raises(KernError):
        other.continue_run(run.run_id)
    assert (sent, calls(store.get_run(run.run_id))) == ([], [("send", "started", None)])
    done = clerk(store, LETTER, "done", tools=[sender(sent)]).continue_run(run.run_id)

    assert (done.status, sent, calls(done)) == ("COMPLETED", [("bob", 1)], [("send", "completed", "sent 1 to bob")])


def test_concurrent_resumes(store, tmp_path):
    """One of them does; the other is told so while the tool is still at work; it runs once."""
    sent, inside, leave = [], threading.Event(), threading.Event()

    def send(to: str) -> str:
        """Send."""
        sent.append(to)
        inside.set()
        assert leave.wait(20)
        return "sent"

    def tools():
        return [tool(send, requires_confirmation=True)]

    run = clerk(store, LETTER, "done", tools=tools()).run("go")
    store.resolve(requirement_id(run), approve=True)
    ended = []
    first = threading.Thread(
        target=lambda: ended.append(clerk(store, LETTER, "done", tools=tools()).continue_run("chat/0"))
    )
    first.start()
    assert inside.wait(20)
    with SqliteDb(db_file=tmp_path / "s.db") as elsewhere:
        for _ in range(2):
            with pytest.raises(AlreadyClaimed):
                clerk(elsewhere, LETTER, "done", tools=tools()).continue_run("chat/0")
    leave.set()
    first.join()

    assert ([one.status for one in ended], sent) == (["COMPLETED"], ["bob"])


def test_timed_out_tool_is_not_repeated(store):
    """The run ends with an error; whether the tool took effect is not known, which the model is told."""
    sent, leave = [], threading.Event()

    def send(to: str) -> str:
        """Send."""
        sent.append(to)
        leave.wait(0.5)
        return "sent"

    tools = [tool(send, requires_confirmation=True)]
    run = clerk(store, LETTER, "done", tools=tools).run("go")
    store.resolve(requirement_id(run), approve=True)
    with pytest.raises(RunFailed, match="within"):
        clerk(store, LETTER, "done", tools=tools, timeout_s=0.2).continue_run("chat/0")
    assert [status for _, status, _ in calls(store.get_run(run.run_id))] == ["unknown"]
    heard = []
    done = clerk(store, LETTER, "done", tools=tools, heard=heard).continue_run("chat/0")

    assert (done.status, sent) == ("COMPLETED", ["bob"])
    assert "not known" in str(results(heard[-1]))


def test_paused_run_between_other_runs(store):
    """Later runs of its session are made meanwhile, and do not know of it; it goes on at its place."""
    heard = []
    agent = clerk(store, LETTER, "done", tools=[sender([])], add_history_to_context=True)
    agent.run("first")
    between = clerk(store, "meanwhile", add_history_to_context=True, heard=heard)
    between.run("second")
    assert said(heard[-1]) == [("user", "second")]
    store.resolve("chat/0", approve=True)
    agent.continue_run("chat/0")
    between.run("third")

    assert [r.run_index for r in store.get_session("chat").runs] == [0, 1, 2]
    assert [text for role, text in said(heard[-1]) if role == "user"] == ["first", "second", "third"]


def test_duration_excludes_pause(store):
    """Neither the run's nor its call's: what is stored is shorter than the pause was."""
    agent = clerk(store, LETTER, "done", tools=[sender([])])
    agent.run("go")
    before = store.sql("SELECT created_at FROM tool_calls").iloc[0, 0]
    tables = store.tables
    hour = 3_600_000_000
    for table in (tables.runs, tables.tool_calls, tables.messages):
        earlier = table.update().values(created_at=table.c.created_at - hour)
        store.write(lambda connection, earlier=earlier: connection.execute(earlier))
    assert before > store.sql("SELECT created_at FROM tool_calls").iloc[0, 0]
    store.resolve("chat/0", approve=True)
    done = agent.continue_run("chat/0")

    assert done.duration_s < 1800
    assert done.tool_calls[0].duration_s < 1800


@pytest.mark.parametrize("pauses", [False, True])
def test_tool_returns_paused_run(store, pauses):
    """It stands for its answer, as it does in a workflow; one that waits has none, which is told as a failure."""
    turns = (LETTER, "the helper's answer") if pauses else ("the helper's answer",)
    helper = Agent(by_turn(*turns), db=store, tools=[sender([])])

    def ask_helper(question: str):
        """Ask the helper."""
        return helper.run(question, session_id="side")

    run = clerk(store, call("ask_helper", question="?"), "done", tools=[ask_helper]).run("go")

    ((_, status, result),) = calls(run)
    assert (status, result == "the helper's answer") == (("failed", False) if pauses else ("completed", True))
    assert not pauses or "PAUSED" in result
