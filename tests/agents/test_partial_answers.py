"""An answer that breaks off, because somebody stops it or its model dies: what was seen of it is kept, and marked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import threading

import pytest
import sqlalchemy as sa
from breaking_models import HELD, Breaking, half_a_call
from failing_agents import left_running, require_the_next_works
from openai_server import Answer
from recording_models import RecordingModel

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import ScriptedModel
from kern_nb.runtime import background

HALF = ["Once ", "upon ", "a "]
DIED = ConnectionError("the line is dead")
PARTIAL = ("assistant", "Once upon a ", True)


def said(run) -> list[tuple]:
    """Who said what, and whether it is partial."""
    assert [message.message_index for message in run.messages] == list(range(len(run.messages)))
    return [(m.role, m.content, m.is_partial) for m in run.messages]


def agent_of(model: Breaking, store, **options) -> Agent:
    return Agent(model.model, db=store, session_id="chat", **options)


def interrupted(model: Breaking, work) -> None:
    """Do it, and interrupt this thread, as a notebook's stop button does, once an answer stands still."""

    def interrupt() -> None:
        model.held.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    thread.join()


def cancelled(model: Breaking, make) -> None:
    """Await it in a task that is cancelled once an answer stands still."""

    async def work() -> None:
        task = asyncio.ensure_future(make())
        await asyncio.to_thread(model.held.wait)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(work())


def stopped(model: Breaking, work) -> list:
    """Run it as a chat does, and stop it once an answer stands still; what was told meanwhile."""
    told, over = [], threading.Event()
    running = background.BackgroundRun(work, told.append, lambda *_: over.set())
    assert model.held.wait(20)
    running.stop()
    assert over.wait(20)
    return told


def test_interrupted_answer_is_stored(store):
    """A cell that is stopped: what it showed is stored as an assistant's message, marked, of which no tokens are known."""
    model = Breaking([*HALF, HELD])
    interrupted(model, lambda: agent_of(model, store).print_response("Tell me"))

    (run,) = store.get_session("chat").runs
    assert (run.status, run.output) == ("CANCELLED", None)
    assert said(run) == [("user", "Tell me", False), PARTIAL]
    assert run.messages[1].usage is None
    assert store.messages_df().content.tolist() == ["Tell me", "Once upon a "]
    require_the_next_works(store)


def test_cancelled_answer_is_stored(store):
    """The task of an `aprint_response`."""
    model = Breaking([*HALF, HELD])
    cancelled(model, lambda: agent_of(model, store).aprint_response("Tell me"))

    (run,) = store.get_session("chat").runs
    assert (run.status, said(run)[-1]) == ("CANCELLED", PARTIAL)
    require_the_next_works(store)


def test_stopped_answer_is_stored(store):
    """A chat's Stop: what is stored is what it was told."""
    model = Breaking([*HALF, HELD])
    told = stopped(model, background.prepare_run(agent_of(model, store), "Tell me", session_id="chat"))

    (run,) = store.get_session("chat").runs
    assert (run.status, said(run)[-1]) == ("CANCELLED", PARTIAL)
    assert "".join(event.content for event in told if event.event == "RunContent") == "Once upon a "


def test_answer_of_failing_model_is_stored(store):
    """The run is an ERROR, with what was said before it."""
    model = Breaking([*HALF, DIED])
    with pytest.raises(RunFailed, match="the line is dead"):
        agent_of(model, store).print_response("Tell me")

    (run,) = store.get_session("chat").runs
    assert (run.status, run.error, said(run)[-1]) == ("ERROR", f"ConnectionError: {DIED}", PARTIAL)
    require_the_next_works(store)


def test_timed_out_answer_is_stored(store):
    """A time limit ends it in the middle."""
    model = Breaking([*HALF, HELD])
    with pytest.raises(RunFailed, match=r"no answer within 0\.5 s"):
        agent_of(model, store, timeout_s=0.5).print_response("Tell me")
    assert said(store.get_session("chat").runs[0])[-1] == PARTIAL


@pytest.mark.parametrize(("api", "events"), [("openai-responses", 8), ("openai-chat", 4)])
def test_connection_lost_during_answer(openai_server, api, events):
    """A real client and a real connection, which is cut: what had come is kept, and the run can be gone on with."""
    answers = iter([Answer("The way is long and dark.", after=events, drop=True), Answer("Short.")])
    openai_server.answer = lambda _: next(answers)
    with InMemoryDb() as store:
        agent = Agent(f"{api}:gpt-5.2", db=store, session_id="chat")
        with pytest.raises(RunFailed):
            agent.print_response("How is the way?")
        role, text, is_partial = said(store.get_session("chat").runs[0])[-1]
        assert (role, is_partial) == ("assistant", True)
        assert text
        assert text != "The way is long and dark."
        assert "The way is long and dark.".startswith(text)

        assert agent.continue_run("chat/0").output == "Short."
        assert openai_server.requests[-1].conversation == openai_server.requests[0].conversation


def test_partial_call_is_not_a_call(store):
    """What was said beside it is kept; nothing says that a tool was asked for."""

    def remove(path: str) -> str:
        """Remove a file."""
        raise AssertionError(path)

    model = Breaking([*HALF, half_a_call("remove"), HELD])
    interrupted(model, lambda: agent_of(model, store, tools=[remove]).print_response("Tell me"))

    (run,) = store.get_session("chat").runs
    assert said(run) == [("user", "Tell me", False), PARTIAL]
    assert run.tool_calls == []
    assert store.tool_calls_df().empty
    assert store.check()


@pytest.mark.parametrize("pieces", [[], ["", "  \n"], [half_a_call("remove")]])
def test_no_partial_answer_without_text(pieces):
    """An answer that broke off before a word leaves no message."""
    with InMemoryDb() as store:
        model = Breaking([*pieces, HELD])
        cancelled(model, lambda: agent_of(model, store).aprint_response("Tell me"))
        assert said(store.get_session("chat").runs[0]) == [("user", "Tell me", False)]


def test_resumed_run_does_not_receive_partial_answer(store):
    """However often: the model is told what is whole, messages are numbered on, and later runs are told the end alone."""

    def look() -> str:
        """Look."""
        return "a house"

    whole = {0: half_a_call("look")[5].__class__("look", "{}", tool_call_id="call_1")}
    model = Breaking(["I look. ", whole], [*HALF, HELD], ["It ", DIED], ["There ", "is ", "a house."])
    agent = agent_of(model, store, tools=[look])
    interrupted(model, lambda: agent.print_response("Tell me"))
    model.held.clear()
    with pytest.raises(RunFailed):
        asyncio.run(_streamed(agent))
    asyncio.run(_streamed(agent))

    (run,) = store.get_session("chat").runs
    assert (run.status, run.output) == ("COMPLETED", "There is a house.")
    beginning = [("user", "Tell me", False), ("assistant", "I look. ", False), ("tool", "a house", False)]
    assert said(run) == [*beginning, PARTIAL, ("assistant", "It ", True), ("assistant", "There is a house.", False)]
    assert len(run.tool_calls) == 1
    told = [[(m.role, m.content) for m in told] for told in model.told]
    assert told[1] == told[2] == told[3] == [(role, content) for role, content, _ in beginning]

    later = RecordingModel()
    for options in ({}, {"num_history_messages": 4}):
        Agent(later, db=store, session_id="chat", add_history_to_context=True, **options).run("And now?")
        assert ("assistant", "There is a house.") in later.heard()
        assert "Once upon" not in str(later.heard())
        assert "It " not in [content for _, content in later.heard()]
    assert [m.content for m in store.history("chat", last_runs=None)][:4] == [
        "Tell me",
        "I look. ",
        "a house",
        "There is a house.",
    ]


async def _streamed(agent: Agent) -> None:
    """Go on with the run, and listen."""
    await background.prepare_resume(agent, "0", session_id="chat")(lambda _: None)


def test_partial_answer_does_not_complete_run(store):
    """The run's last message is what broke off: whoever goes on asks the model again."""
    model = Breaking([*HALF, HELD], ["Whole."])
    agent = agent_of(model, store)
    cancelled(model, lambda: agent.aprint_response("Tell me"))
    asyncio.run(_streamed(agent))

    (run,) = store.get_session("chat").runs
    assert (run.status, run.output) == ("COMPLETED", "Whole.")
    assert [[m.content for m in told] for told in model.told] == [["Tell me"], ["Tell me"]]


def test_branch_after_partial_answer(store):
    """It is shown there, and its model is told only what was whole."""
    model = Breaking([*HALF, HELD])
    cancelled(model, lambda: agent_of(model, store).aprint_response("Tell me"))
    store.branch("chat", after=(0, 1), new_session_id="other")

    assert said(store.get_session("other").runs[0])[-1] == PARTIAL
    listener = RecordingModel()
    Agent(listener, db=store, session_id="other", add_history_to_context=True).run("Go on")
    assert listener.heard() == [("user", "Tell me"), ("user", "Go on")]


def test_partial_answer_is_marked(store):
    """In the run's text and markup."""
    model = Breaking([*HALF, HELD])
    cancelled(model, lambda: agent_of(model, store).aprint_response("Tell me"))

    (run,) = store.get_session("chat").runs
    assert "Once upon a" in run._repr_html_()
    assert "[partial: the answer ended here]" in run._repr_html_()
    assert run._repr_html_().count("[partial") == 1


@pytest.mark.parametrize("times", [1, 2])
def test_complete_answer_is_stored_once(times):
    """Cancelled at any statement, and again while that is dealt with: half of an answer never stands beside all of it."""
    found = set()
    with InMemoryDb() as store:
        agent = Agent(ScriptedModel("Once upon a time."), db=store)

        async def cancelled_at(place: int) -> bool:
            loop, counted = asyncio.get_running_loop(), itertools.count(1)

            def listen(*_: object) -> None:
                if place <= next(counted) < place + times:
                    loop.call_soon_threadsafe(task.cancel)

            sa.event.listen(store.engine, "before_cursor_execute", listen)
            work = background.prepare_run(agent, "x", session_id=f"chat {place}")
            task = asyncio.ensure_future(work(lambda _: None))
            try:
                await task
            except asyncio.CancelledError:
                return True
            finally:
                sa.event.remove(store.engine, "before_cursor_execute", listen)
            return False

        for place in itertools.count(1):
            was_cancelled = asyncio.run(cancelled_at(place))
            session = store.get_session(f"chat {place}")
            if session is not None and session.runs:
                answers = [m.is_partial for m in session.runs[0].messages if m.role == "assistant"]
                assert len(answers) <= 1, place
                found.update(answers)
            if not was_cancelled:
                break
        assert place > 5
        assert False in found
        assert left_running(store) == []
