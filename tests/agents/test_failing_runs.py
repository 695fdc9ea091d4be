"""Whatever goes wrong in a run, it is stored with its status and its error, nothing is left running, the next run works."""

from __future__ import annotations

import asyncio
import threading

import pytest
from failing_agents import an_agent, left_running, require_the_next_works, statuses

from kern_nb.agent import Agent, tool
from kern_nb.errors import RunFailed, UnstorableValue
from kern_nb.models.scripted import ScriptedModel, call


@pytest.fixture
def never():
    """An event that does not come while the test runs; whoever waits for it is let go afterwards."""
    event = threading.Event()
    yield event
    event.set()


def look_up() -> str:
    """Look something up."""
    return "found"


def test_model_fails_after_tool(store):
    """What the tool gave is kept; the run has the error; later runs are not told of it; it can be gone on with."""
    script = [call("look_up"), ConnectionError("the model is down"), "after all"]
    agent = Agent(ScriptedModel(script), db=store, tools=[look_up], session_id="chat")
    with pytest.raises(RunFailed, match="chat/0 failed: ConnectionError: the model is down") as caught:
        agent.run("x")
    assert isinstance(caught.value.__cause__, ConnectionError)

    (run,) = store.get_session("chat").runs
    assert (run.status, run.error, run.output) == ("ERROR", "ConnectionError: the model is down", None)
    assert [(c.status, c.result) for c in run.tool_calls] == [("completed", "found")]
    assert run.finished_at is not None
    require_the_next_works(store)
    assert [m.content for m in store.history("chat")] == ["And now?", "fine"]
    assert agent.continue_run(run.run_id).output == "after all"
    assert store.get_run(run.run_id).error is None


def test_error_without_text(db):
    """Is stored by its name."""
    with pytest.raises(RunFailed, match="TimeoutError"):
        an_agent(db, script=[TimeoutError()]).run("x")

    assert db.runs_df().error.tolist() == ["TimeoutError: no reason given"]
    require_the_next_works(db)


def test_model_exceeds_timeout(db, never):
    """``timeout_s`` ends the run with an error that says so."""

    def slow(messages):
        never.wait()
        return "too late"

    with pytest.raises(RunFailed, match=r"no answer within 0\.2 s"):
        an_agent(db, script=slow, timeout_s=0.2).run("x")

    assert db.runs_df().status.tolist() == ["ERROR"]
    require_the_next_works(db)


def test_tool_exceeds_run_timeout(db, never):
    """It had started, and nobody knows what became of it."""

    def wait() -> str:
        """Wait."""
        never.wait()
        return "too late"

    an_agent(db, look_up, session_id="first").run("x")  # what takes time once is done
    with pytest.raises(RunFailed, match=r"no answer within 2 s"):
        an_agent(db, look_up, wait, timeout_s=2).run("x")

    assert statuses(db) == {"look_up": "completed", "wait": "unknown"}
    require_the_next_works(db)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_tool_exceeds_own_timeout(db, never, kind):
    """The model is told that it took too long, and the run goes on."""

    def plain() -> str:
        """Wait."""
        never.wait()
        return "too late"

    async def waits() -> str:
        """Wait."""
        await asyncio.Event().wait()
        return "too late"

    made = tool(plain if kind == "plain" else waits, name="wait", timeout_s=0.1)
    run = an_agent(db, made, look_up).run("x")

    assert (run.status, run.output) == ("COMPLETED", "got found")
    assert statuses(db) == {"wait": "failed", "look_up": "completed"}
    assert "0.1" in str(run.tool_calls[0].result)
    require_the_next_works(db)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("bye"), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", ["plain", "async", "model"])
def test_any_exception_of_tool_or_model(db, error, kind):
    """Even what would end a thread or a loop: an error of a tool is told to the model, that of a model ends the run."""

    def plain() -> str:
        """Raise."""
        raise error

    async def waits() -> str:
        """Raise."""
        raise error

    def model(messages):
        raise error

    agent = {
        "plain": an_agent(db, tool(plain, name="raises"), look_up),
        "async": an_agent(db, tool(waits, name="raises"), look_up),
        "model": an_agent(db, script=model),
    }[kind]
    try:
        assert agent.run("x").output == "got found"
    except (RunFailed, asyncio.CancelledError):
        assert db.runs_df().status.tolist() in (["ERROR"], ["CANCELLED"])
        assert db.runs_df().error.notna().all()

    assert left_running(db) == []
    if isinstance(error, ValueError) and kind != "model":
        assert statuses(db) == {"raises": "failed", "look_up": "completed"}
        assert db.get_session("chat").runs[0].tool_calls[0].result == "ValueError: no"
    require_the_next_works(db)


def test_tool_sets_unstorable_state(store):
    """The tool ran, and that is known; the run ends with an error, and the state is the last one that could be stored."""

    def spoil(session_state: dict) -> str:
        """Spoil the state."""
        session_state["spoiled"] = object()
        return "spoiled"

    def note(session_state: dict) -> str:
        """Note something."""
        session_state["noted"] = True
        return "noted"

    with pytest.raises(RunFailed, match="UnstorableValue"):
        an_agent(store, note, spoil).run("x")

    (run,) = store.get_session("chat").runs
    assert (run.status, run.session_state) == ("ERROR", {"noted": True})
    assert statuses(store) == {"note": "completed", "spoil": "completed"}
    assert require_the_next_works(store).session_state == {"noted": True}


def test_unstorable_session_state_is_rejected(db):
    """Before anything is stored."""
    for state in ({"x": object()}, {"x": threading.Lock()}):
        with pytest.raises(UnstorableValue):
            an_agent(db, look_up).run("x", session_state=state)

    assert len(db.runs_df()) == 0
    require_the_next_works(db)


def test_non_json_results_do_not_fail_run(db):
    """The tool has run: the model gets words for what it gave, and the call is completed."""
    circle: list = []
    circle.append(circle)
    deep: list = []
    for _ in range(3000):
        deep = [deep]
    values = [b"\xff\xfe", {"\ud800": "\udfff"}, circle, deep, object(), threading.Lock(), lambda: 1, {(1, 2): {3}}]

    for number, value in enumerate(values):
        run = an_agent(db, tool(lambda value=value: value, name="give"), session_id=f"chat {number}").run("x")
        assert (run.status, [c.status for c in run.tool_calls]) == ("COMPLETED", ["completed"]), repr(value)[:80]
    require_the_next_works(db)


def test_repeated_failure_before_first_write(store):
    """It is given back as it was, with its own error; the one who went on is told so, and not that it is stored."""
    agent = an_agent(store, script=[ValueError("first"), ValueError("second"), "fine"])
    with pytest.raises(RunFailed, match="first") as failed:
        agent.run("x")
    assert "%kern show chat/0" in failed.value.hint
    with pytest.raises(RunFailed, match="second") as again:
        agent.continue_run("chat/0")

    assert "The run is unchanged" in again.value.hint
    assert store.get_session("chat").runs[0].error == "ValueError: first"
    assert agent.continue_run("chat/0").output == "fine"
