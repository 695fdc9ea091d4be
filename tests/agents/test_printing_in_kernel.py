"""`print_response` in a real kernel: one output that grows, and nothing lost of what others print meanwhile."""

from __future__ import annotations

import os

import pytest

SETUP = """
import threading
from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.models.scripted import ScriptedModel, call

def chatter():
    begun.wait()
    for i in range(50):
        print(f"line {i}")
    printed.set()

def work() -> str:
    "Work."
    print("from the tool")
    begun.set()
    printed.wait()
    return "worked"

def script(messages):
    if messages[-1].role != "tool":
        return ["I will see.", call("work")]
    if "fail" in messages[0].content:
        raise ValueError("no <answer>")
    return "The answer & more. " * 20

agent = Agent(ScriptedModel(script), db=InMemoryDb(), tools=[work])
"""
CELLS = {
    "run": "agent.print_response('x', session_id='run')",
    "awaited": "await agent.aprint_response('x', session_id='awaited')",
    "fails": "agent.print_response('fail', session_id='fails')",
    "after": "print(agent.store.runs_df('fails').status.tolist())",
}
AROUND = """
begun, printed = threading.Event(), threading.Event()
thread = threading.Thread(target=chatter)
thread.start()
{}
thread.join()
print('after')
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of the cells, after the notebook was run from top to bottom."""
    import nbformat  # takes a second, in each process that collects the tests
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebook")
    homes = {name: str(folder / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    cells = [SETUP, *(AROUND.format(cell) if "print_response" in cell else cell for cell in CELLS.values())]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=60)
    client.execute(cwd=str(folder), env={**os.environ, **homes})
    assert notebook.cells[0].outputs == []
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells[1:]), strict=True))


def shown(cell) -> list:
    return [output for output in cell if output.output_type == "display_data"]


def written(cell) -> list[str]:
    return "".join(output.text for output in cell if output.output_type == "stream").splitlines()


@pytest.mark.parametrize("name", ["run", "awaited"])
def test_printed_response_is_one_output(outputs, name):
    """Written over while it grows; at the end it holds all that was said and called, in order."""
    (output,) = shown(outputs[name])
    text = output.data["text/plain"]

    assert text.index("I will see.") < text.index("work") < text.index("The answer & more.")
    assert text.count("The answer & more.") == 20
    assert output.data["text/html"].count("The answer &amp; more.") == 20


@pytest.mark.parametrize("name", ["run", "awaited"])
def test_other_output_during_printing(outputs, name):
    """Neither a thread's lines, nor the tool's own, nor what follows in the cell."""
    assert sorted(written(outputs[name])) == sorted([*(f"line {i}" for i in range(50)), "from the tool", "after"])


def test_failed_run_prints_text_and_short_error(outputs):
    """The text and the call that came before it stay, the error follows as two lines, and the run is stored."""
    (output,) = shown(outputs["fails"])
    (error,) = (output for output in outputs["fails"] if output.output_type == "error")

    assert output.data["text/plain"].index("I will see.") < output.data["text/plain"].index("work")
    assert (error.ename, len(error.traceback)) == ("RunFailed", 2)
    assert "ValueError: no <answer>" in error.traceback[0]
    assert written(outputs["after"]) == ["['ERROR']"]
