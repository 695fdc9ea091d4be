"""Where a run was started: the notebook, the cell and its number, in a real kernel; nothing where there is none."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys

import pytest
from jupyter_client.manager import KernelManager

from kern_nb.runtime.provenance import current_cell

SETUP = """
import asyncio, concurrent.futures, json, threading, time
from kern_nb.runtime.provenance import current_cell as here
def tell(found):
    print(json.dumps(found))
"""


class Kernel:
    """Cells, sent to a kernel as JupyterLab sends them."""

    def __init__(self, client) -> None:
        self._client = client

    def run(self, code: str, cell_id: str | None = None, **content: object) -> list[object]:
        """Run a cell; what it prints, each line read as JSON."""
        metadata = {} if cell_id is None else {"cellId": cell_id}
        wanted = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self._client.session.msg("execute_request", wanted | content, metadata=metadata)
        self._client.shell_channel.send(message)
        printed = ""
        while True:
            got = self._client.get_iopub_msg(timeout=60)
            if got["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if got["msg_type"] == "stream":
                printed += got["content"]["text"]
            assert got["msg_type"] != "error", got["content"]
            if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                break
        while True:  # the reply, which nobody needs
            try:
                self._client.get_shell_msg(timeout=0)
            except queue.Empty:
                return [json.loads(line) for line in printed.splitlines()]

    def count(self) -> int:
        """The number of the next cell."""
        (count,) = self.run("print(get_ipython().execution_count)", store_history=False)
        return count


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    homes = {name: str(folder / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder), env={**os.environ, **homes, "JPY_SESSION_NAME": str(folder / "trip.ipynb")})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client)
        kernel.run(SETUP)
        kernel.path = str(folder / "trip.ipynb")
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_provenance_records_the_cell_and_its_number(kernel):
    """Cell after cell, also where the same text is run twice."""
    for cell_id in ("first", "second", "first"):
        count = kernel.count()

        assert kernel.run("tell(here())", cell_id) == [
            {"notebook": kernel.path, "cell_id": cell_id, "execution_count": count}
        ]


def test_magics_and_multi_line_cells_are_recorded(kernel):
    """What IPython makes of the text does not matter."""
    count = kernel.count()

    kernel.run("%%capture\n\nfound = here()\n\n", "captured")
    assert kernel.run("tell(found)") == [{"notebook": kernel.path, "cell_id": "captured", "execution_count": count}]
    assert kernel.run("\n\nx = !echo 1\ntell(here())\n\n", "shell")[0]["execution_count"] == count + 2


def test_a_thread_of_the_cell_belongs_to_it(kernel):
    """Agents that run side by side in a pool say which cell that was."""
    count = kernel.count()
    code = "with concurrent.futures.ThreadPoolExecutor(2) as pool:\n    [tell(f) for f in pool.map(lambda _: here(), range(2))]"

    for result in kernel.run(code, "pool"):
        assert (result["cell_id"], result["execution_count"]) == ("pool", count)


def test_a_task_that_outlives_its_cell_still_belongs_to_it(kernel):
    """A task knows its cell; its number is given while nobody else's could be meant, and then left out."""
    begin = (
        "found, go = [], asyncio.Event()\nasync def work():\n    await go.wait()\n    found.append(here())\n"
        "task = asyncio.get_running_loop().create_task(work())\nawait asyncio.sleep(0)"
    )
    kernel.run(begin, "begins")
    kernel.run("go.set()\nawait task", "ends")

    assert kernel.run("tell(found)") == [
        [{"notebook": kernel.path, "cell_id": "begins", "execution_count": None}],
    ]


def test_fields_missing_from_the_frontend_are_none(kernel):
    """No cell id from a console; no number where the cell has none."""
    assert kernel.run("tell(here())")[0]["cell_id"] is None
    assert kernel.run("tell(here())", "quiet", store_history=False) == [
        {"notebook": kernel.path, "cell_id": "quiet", "execution_count": None}
    ]


def test_the_vs_code_notebook_takes_precedence(kernel):
    """It says so in a variable; what is no path is none."""
    kernel.run("__vsc_ipynb_file__ = '/home/a/other.ipynb'")
    assert kernel.run("tell(here())")[0]["notebook"] == "/home/a/other.ipynb"
    kernel.run("del __vsc_ipynb_file__")

    kernel.run("import os\nkept = os.environ.pop('JPY_SESSION_NAME')")
    assert kernel.run("tell(here())")[0]["notebook"] is None
    kernel.run("os.environ['JPY_SESSION_NAME'] = 'Console 1'")
    assert kernel.run("tell(here())")[0]["notebook"] is None
    kernel.run("os.environ['JPY_SESSION_NAME'] = kept")


def test_a_run_stores_its_cell(kernel):
    """An agent's run keeps it, though the run itself works in another thread."""
    kernel.run(
        "from kern_nb import InMemoryDb\nfrom kern_nb.agent import Agent\n"
        "from kern_nb.models.scripted import ScriptedModel\n"
        "agent = Agent(model=ScriptedModel(['a', 'b', 'c']), db=InMemoryDb(), session_id='chat')"
    )
    kernel.run("%load_ext kern_nb")
    counts = []
    for code, cell_id in (("agent.run('x')", "call"), ("%%kern run agent\nhello", "magic")):
        counts.append(kernel.count())
        kernel.run(f"{code};" if cell_id == "call" else code, cell_id)

    (result,) = kernel.run("tell([run.extra['notebook'] for run in agent.get_session().runs])")

    assert [(item["cell_id"], item["execution_count"]) for item in result] == list(
        zip(["call", "magic"], counts, strict=True)
    )
    assert {item["notebook"] for item in result} == {kernel.path}


def test_a_terminal_has_only_the_execution_count(plain_notebook):
    """IPython without a kernel counts its lines, and has no cells."""
    result = plain_notebook.run("from kern_nb.runtime.provenance import current_cell\ncurrent_cell()")

    assert result == {"execution_count": plain_notebook.shell.execution_count}


def test_outside_of_ipython_provenance_is_none_and_imports_nothing():
    """A script that starts a run does not get IPython for it."""
    code = "import sys; from kern_nb.runtime.provenance import current_cell as here; print(here(), 'IPython' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout

    assert out.split() == ["None", "False"]


@pytest.mark.parametrize("broken", [None, 3, {"header": 3}, {"header": {"msg_type": "execute_request"}}])
def test_an_unexpected_kernel_raises_nothing(plain_notebook, monkeypatch, broken):
    """Whatever a kernel of another make says."""
    monkeypatch.setattr(plain_notebook.shell, "kernel", object(), raising=False)
    monkeypatch.setattr(plain_notebook.shell, "get_parent", lambda: broken, raising=False)

    result = current_cell()

    assert result is None or result["cell_id"] is None
