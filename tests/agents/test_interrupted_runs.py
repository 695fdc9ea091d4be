"""A cell that is interrupted: the run is cancelled and stored as that, and the next one works. Also in a real kernel."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from failing_agents import an_agent, calls_in_turn, left_running, require_the_next_works, statuses
from jupyter_client.manager import KernelManager

from kern_nb.agent import Agent
from kern_nb.db import open_store
from kern_nb.models.scripted import ScriptedModel


@pytest.fixture
def never():
    """An event that does not come while the test runs; whoever waits for it is let go afterwards."""
    event = threading.Event()
    yield event
    event.set()


def interrupt_when(begun: threading.Event) -> threading.Thread:
    """Interrupt the main thread, as a notebook's stop button does, once something has begun."""

    def interrupt() -> None:
        begun.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["run", "print_response"])
@pytest.mark.every_engine
def test_interrupt_during_model_request(store, never, how):
    """The caller gets KeyboardInterrupt at once, and by then the run is stored as cancelled."""
    begun = threading.Event()

    def think(messages):
        begun.set()
        never.wait()
        return "too late"

    thread = interrupt_when(begun)
    with pytest.raises(KeyboardInterrupt):
        getattr(an_agent(store, script=think), how)("x")
    thread.join()

    assert left_running(store) == []
    assert store.runs_df()[["status", "error"]].values.tolist() == [["CANCELLED", "cancelled"]]
    require_the_next_works(store)


def test_interrupt_during_tool(store, never):
    """Nobody knows what becomes of it; what its thread still does is not waited for."""
    begun = threading.Event()

    def first() -> str:
        """The first."""
        return "done"

    def second() -> str:
        """Takes for ever."""
        begun.set()
        never.wait()
        return "too late"

    thread = interrupt_when(begun)
    agent = an_agent(store, first, second)
    with pytest.raises(KeyboardInterrupt):
        agent.run("x")
    thread.join()

    assert left_running(store) == []
    assert statuses(store) == {"first": "completed", "second": "unknown"}
    assert store.runs_df().status.tolist() == ["CANCELLED"]
    require_the_next_works(store)
    again = Agent(ScriptedModel(calls_in_turn("first", "second")), db=store, tools=[first, second])
    found = again.continue_run(store.runs_df().run_id[0])
    assert (found.status, "not known" in found.output) == ("COMPLETED", True)


SETUP = """
import threading
from kern_nb.agent import Agent
from kern_nb.db import open_store
from kern_nb.models.scripted import ScriptedModel
store = open_store({target!r})
def think(messages):
    print("thinking", flush=True)
    threading.Event().wait()
slow = Agent(ScriptedModel(think), db=store)
quick = Agent(ScriptedModel(lambda messages: "fine"), db=store, session_id="quick")
"""


class Kernel:
    """Cells in a real kernel."""

    def __init__(self, manager: KernelManager, client) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, *, interrupt_at: str = "") -> tuple[str, str]:
        """Run a cell, and interrupt it when it prints something; what it prints, and its error's name."""
        sent = self.client.execute(code)
        printed, error = "", ""
        while True:
            got = self.client.get_iopub_msg(timeout=60)
            if got["parent_header"].get("msg_id") != sent:
                continue
            if got["msg_type"] == "stream":
                printed += got["content"]["text"]
            if got["msg_type"] == "error":
                error = got["content"]["ename"]
            if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                return printed, error
            if interrupt_at and interrupt_at in printed:
                interrupt_at = ""
                self.manager.interrupt_kernel()
                self.client.kernel_info()  # a kernel whose cell awaits something notices when it next wakes up


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    homes = {name: str(folder / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder), env={**os.environ, **homes})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.parametrize("cell", ["slow.run", "await slow.arun", "slow.print_response", "await slow.aprint_response"])
def test_interrupt_cell(kernel, tmp_path, cell):
    """However it calls the agent, KeyboardInterrupt or a cancellation ends the cell, and the next cell's run works."""
    target = str(tmp_path / "s.db")
    kernel.run(SETUP.format(target=target))
    _, error = kernel.run(f"{cell}('x', session_id='slow')", interrupt_at="thinking")
    assert error in ("KeyboardInterrupt", "CancelledError")

    printed, error = kernel.run("print(quick.run('x').output, (await quick.arun('x')).output)")
    assert (printed, error) == ("fine fine\n", "")
    with open_store(target) as store:
        runs = store.runs_df().sort_values(["session_id", "run_index"])
        assert runs.status.tolist() == ["COMPLETED", "COMPLETED", "CANCELLED"]
        assert store.check().problems == []
