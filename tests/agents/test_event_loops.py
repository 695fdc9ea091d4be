"""Agents are called from wherever Python code runs: a script, a thread, a running event loop as a notebook's, another tool."""

from __future__ import annotations

import asyncio
import atexit
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from IPython.core.interactiveshell import InteractiveShell
from recording_models import RecordingModel, calls_once, results
from traitlets.config import Config

from kern_nb import Agent
from kern_nb.agent import RunContext, tool
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import call
from kern_nb.runtime import event_loop

WAIT_S = 30


def test_run_inside_running_loop(store):
    """On every engine: what is not awaited simply runs, also several in turn, and the loop goes on afterwards."""
    agent = Agent(RecordingModel(), db=store, session_id="chat", add_history_to_context=True)

    async def cell():
        first, second = agent.run("x"), agent.run("y")
        third = await agent.arun("z")
        return [run.output for run in (first, second, third)]

    assert asyncio.run(cell()) == ["answer 0", "answer 1", "answer 2"]
    assert agent.run("outside").output == "answer 3"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell as a notebook's kernel has one, which leaves nothing in the user's folders."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell(config=config)
    yield made
    made.restore_sys_module_state()
    atexit.unregister(made.atexit_operations)


def test_cells_call_sync_and_async(db, shell):
    """A notebook's cell, with await and without; what a cell raises does not end the loop."""
    agent = Agent(RecordingModel(["one", "two", ValueError("boom"), "four"]), db=db, session_id="chat")
    shell.push({"agent": agent})

    async def notebook():
        cells = ["a = agent.run('x')", "b = await agent.arun('y')", "c = agent.run('z')", "d = agent.run('again')"]
        return [(await shell.run_cell_async(cell, transformed_cell=cell)).error_in_exec for cell in cells]

    errors = asyncio.run(notebook())
    assert [type(error) for error in errors] == [type(None), type(None), RunFailed, type(None)]
    assert [shell.user_ns[name].output for name in "abd"] == ["one", "two", "four"]


def test_agent_in_consecutive_loops(db):
    """As every asyncio.run makes its own; tools, async ones too, belong to none."""

    async def look() -> str:
        await asyncio.sleep(0)
        return "the sea"

    agent = Agent(calls_once("look"), db=db, session_id="chat", tools=[look])
    for _ in range(3):
        assert asyncio.run(agent.arun("x")).output == "done"
    assert agent.run("x").output == "done"


def test_sync_tool_does_not_block_loop(db):
    """Two runs on one loop: the plain tool of one waits for what the other does."""
    other_ran = threading.Event()

    def wait() -> bool:
        return other_ran.wait(WAIT_S)

    async def release() -> str:
        other_ran.set()
        return "released"

    async def both():
        waiting = Agent(calls_once("wait"), db=db, tools=[wait])
        releasing = Agent(calls_once("release"), db=db, tools=[release])
        runs = await asyncio.gather(waiting.arun("x"), releasing.arun("y"))
        return [run.tool_calls[0].result for run in runs]

    assert asyncio.run(both()) == [True, "released"]


def test_calls_of_one_answer_run_concurrently(db):
    """Each tool waits for the other."""
    here, there = threading.Event(), threading.Event()

    def one() -> bool:
        here.set()
        return there.wait(WAIT_S)

    async def two() -> bool:
        there.set()
        return await asyncio.to_thread(here.wait, WAIT_S)

    run = Agent(RecordingModel([[call("one"), call("two")], "done"]), db=db, tools=[one, two]).run("x")
    assert [c.result for c in run.tool_calls] == [True, True]


def test_threads_share_agent(db):
    """Each with a session of its own."""
    agent = Agent(RecordingModel(lambda messages: messages[-1].content.upper()), db=db)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda n: agent.run(f"hello {n}", session_id=f"s{n}"), range(16)))

    assert [run.output for run in runs] == [f"HELLO {n}" for n in range(16)]
    assert [db.get_session(f"s{n}").runs[0].output for n in range(16)] == [run.output for run in runs]


@pytest.mark.parametrize("how", ["a plain tool", "an async tool that awaits", "an async tool that does not"])
def test_tool_runs_another_agent(db, how):
    """Also from within a run, in whatever way it is called."""
    inner = Agent(RecordingModel(["from within"]), db=db, session_id="inner")

    def ask() -> str:
        return inner.run("q").output

    async def ask_async() -> str:
        return (await inner.arun("q")).output

    async def ask_blocking() -> str:
        return inner.run("q").output

    made = {"a plain tool": ask, "an async tool that awaits": ask_async, "an async tool that does not": ask_blocking}
    model = calls_once("ask")
    outer = Agent(model, db=db, session_id="outer", tools=[tool(made[how], name="ask")])

    assert outer.run("x").output == "done"
    assert results(model) == ["from within"]
    assert [db.get_session(name).runs[0].parent_run_id for name in ("outer", "inner")] == [None, None]


def test_tool_uses_store(db):
    """While its own run is being written."""

    def note(run_context: RunContext) -> list:
        run_context.store.add_score(run_context.session_id, "liked", 1.0, run_id=run_context.run_id)
        return [run.status for run in run_context.store.get_session(run_context.session_id).runs]

    model = calls_once("note")
    Agent(model, db=db, session_id="chat", tools=[note]).run("x")

    assert results(model) == [["RUNNING"]]
    assert list(db.scores_df()["value"]) == [1.0]


def test_printed_text_equals_output(db, capsys):
    """With await and without, inside a loop and outside; the run is stored as any other."""
    agent = Agent(RecordingModel(["one of\nmany words", "two", "three"]), db=db, session_id="chat")
    agent.print_response("x")
    assert capsys.readouterr().out == "one of\nmany words\n"

    async def cell():
        agent.print_response("y")
        await agent.aprint_response("z")

    asyncio.run(cell())
    assert capsys.readouterr().out == "two\nthree\n"
    assert [run.output for run in agent.get_session().runs] == ["one of\nmany words", "two", "three"]


def test_unknown_option_is_rejected(db):
    """By name, with those there are; and nothing is stored."""
    agent = Agent(RecordingModel(), db=db, session_id="chat")
    with pytest.raises((BadUsage, TypeError), match="strem"):
        agent.run("x", strem=True)

    assert db.get_session("chat") is None


def test_empty_input_is_rejected(db):
    """None, or a list of nothing, asks for nothing."""
    agent = Agent(RecordingModel(), db=db, session_id="chat")
    for nothing in (None, []):
        with pytest.raises(BadUsage):
            agent.run(nothing)

    assert db.get_session("chat") is None


def test_interrupt_repeats_swallowed_cancellation(monkeypatch):
    """It is cancelled once more: nobody has to restart the kernel because a library swallowed the first."""
    monkeypatch.setattr(event_loop, "_CANCEL_AGAIN_S", 0.05)
    begun, swallowed = threading.Event(), []

    def interrupt():
        begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    async def stubborn():
        begun.set()
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        event_loop.run(stubborn)

    assert len(swallowed) == 2


def test_interrupt_with_restarted_system_calls():
    """As they do once a library has asked for it: a thread that waits for a lock would not hear of it."""
    begun = threading.Event()

    def interrupt():
        begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    async def sleep():
        begun.set()
        await asyncio.sleep(30)

    started = time.monotonic()
    signal.siginterrupt(signal.SIGINT, False)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            event_loop.run(sleep)
    finally:
        signal.siginterrupt(signal.SIGINT, True)

    assert time.monotonic() - started < 25
