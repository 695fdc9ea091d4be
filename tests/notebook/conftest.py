"""A real IPython for the tests of the magics: no history, no stores of another test, an empty folder to work in."""

from __future__ import annotations

import atexit
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell


@dataclass
class Notebook:
    """Cells, run as a kernel runs them."""

    shell: InteractiveShell
    capsys: pytest.CaptureFixture[str]

    def run(self, cell: str) -> Any:
        """Run a cell; its value, or its error raised."""
        result = self.shell.run_cell(cell, store_history=False)
        result.raise_error()
        return result.result

    def fails(self, cell: str) -> tuple[BaseException, list[str]]:
        """Run a cell that must fail; its error, and the lines that a reader sees of it."""
        self.capsys.readouterr()
        result = self.shell.run_cell(cell, store_history=False)
        assert result.error_in_exec is not None, f"no error in {cell!r}"
        seen = self.capsys.readouterr()
        assert seen.err == ""
        return result.error_in_exec, seen.out.splitlines()

    def printed(self, cell: str) -> str:
        """Run a cell; what it prints."""
        self.capsys.readouterr()
        self.run(cell)
        return self.capsys.readouterr().out


@pytest.fixture
def attached_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store is attached before the test, and none after it."""
    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    yield
    for name in store_registry.names():
        store_registry.detach(name)


@pytest.fixture
def plain_notebook(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    attached_stores: None,
) -> Iterator[Notebook]:
    """A notebook in an empty folder, without the extension."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield Notebook(shell, capsys)
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
    # Each shell would collect garbage once more when Python ends: seconds, for hundreds of shells minutes.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def notebook(plain_notebook: Notebook) -> Notebook:
    """A notebook with the extension loaded."""
    plain_notebook.run("%load_ext kern_nb")
    return plain_notebook


@pytest.fixture
def chats(notebook: Notebook, store: Any) -> Any:
    """The store under test, attached as ``chats``, with two sessions: ``alpha`` of three runs and ``alps`` of one."""
    from kern_nb import store_registry
    from kern_nb.records import Message, Run, ToolCall, Usage

    def run(question: str, answer: str, **fields: Any) -> Run:
        call = ToolCall(tool_call_id="c", tool_name="get_order", args={"order_id": "W1"})
        messages = [
            Message(role="user", content=question),
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id="c", content="shipped"),
            Message(role="assistant", content=answer),
        ]
        return Run(input=question, output=answer, model="m-1", messages=messages, agent_id="clerk", **fields)

    for i in range(3):
        usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cost=0.25)
        store.append_run("alpha", run(f"question {i}", f"answer {i}", usage=usage), user_id="alice")
    store.append_run("alps", run("hello", "bye"), user_id="bob")
    store_registry.attach(store, name="chats")
    return store


@pytest.fixture
def main(notebook: Notebook, store: Any) -> Any:
    """The store under test, attached as ``main``."""
    from kern_nb import store_registry

    store_registry.attach(store, name="main")
    return store


@pytest.fixture
def paused(main: Any) -> Any:
    """A run `chat/0` that waits for an approval, for two fields and for a value."""
    from paused_notebook import BOOK, DELETE, RATE, confirmation, pause, user_input

    return pause(
        main,
        a=confirmation(requirement_id=DELETE, prompt="Delete it?", assignee="ann"),
        b=user_input(requirement_id=BOOK),
        c={"kind": "external_execution", "tool_name": "rate", "args": {"n": 2}, "requirement_id": RATE},
    )


@pytest.fixture
def memory(notebook: Notebook) -> Any:
    """A store in memory, in use."""
    from kern_nb import store_registry

    return store_registry.attach(":memory:")


@pytest.fixture
def shredder() -> Any:
    """A tool that must not run unasked."""
    from scripted_agents import Shredder

    return Shredder()


@pytest.fixture
def clerk(notebook: Notebook, memory: Any, shredder: Any) -> Any:
    """An agent in the variable ``boss``, with the id ``clerk-1`` and the name ``The Clerk``."""
    from scripted_agents import shredding

    agent = shredding(shredder, "x.txt", "y.txt", id="clerk-1", name="The Clerk", session_id="chat")
    notebook.shell.user_ns["boss"] = agent
    return agent
