"""Several processes share one DuckDB file: real kernels write and read in turn and concurrently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from processes import ROOT, environment
from samples import a_run, a_session, a_small_run, load_session

from kern_nb.db import DuckDb, open_store
from kern_nb.db.lease import LONGEST_HOLD_S
from kern_nb.errors import StoreBusy
from kern_nb.records import Run

PREPARE = """
import time
from kern_nb.db import DuckDb
from kern_nb.records import Message, Run
store = DuckDb({path!r})
def append(text):
    messages = [Message(role="user", content=text), Message(role="assistant", content="answer to " + text)]
    return store.append_run("chat", Run(input=text, messages=messages)).run_index
"""
BUSY = """
indexes = []
for i in range(50):
    indexes.append(append(f"{i}"))
    assert len(store.messages_df("chat")) % 2 == 0
print(indexes)
"""


class Kernel:
    """A running ipykernel with the file attached."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        folders = {name: str(folder) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
        with (folder / "stderr").open("wb") as stderr:
            self.manager.start_kernel(env=environment() | folders, cwd=str(ROOT), stderr=stderr)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.path = path

    def ready(self) -> Kernel:
        """Wait until the kernel is ready, and attach the file."""
        self.client.wait_for_ready(timeout=60)
        self(PREPARE.format(path=str(self.path)))
        return self

    def submit(self, code: str) -> str:
        """Run code without waiting; return the id of the request."""
        return self.client.execute(code)

    def output(self, request: str) -> str:
        """Wait for a request; return what the code printed."""
        printed, status = [], ""
        while status != "idle":
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            assert message["msg_type"] != "error", f"{content.get('ename')}: {content.get('evalue')}"
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            status = content.get("execution_state", "")
        return "".join(printed)

    def __call__(self, code: str) -> str:
        """Run code; return what it printed."""
        return self.output(self.submit(code))

    def stop(self) -> None:
        """Shut the kernel and its client down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Kernel]]:
    """Two kernels, started once."""
    path = tmp_path_factory.mktemp("shared") / "shared.duckdb"
    started = [Kernel(tmp_path_factory.mktemp("kernel"), path) for _ in range(2)]
    yield [kernel.ready() for kernel in started]
    for kernel in started:
        kernel.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to share."""
    return tmp_path / "shared.duckdb"


def test_two_kernels_write_and_read_one_file(kernels):
    """In turn, each reads what the other has just written; then concurrently, and none of 100 runs is lost."""
    first, second = kernels
    for i in range(6):
        kernel, other = (first, second) if i % 2 == 0 else (second, first)
        assert kernel(f"print(append('turn {i}'))") == f"{i}\n"
        assert other("print(store.runs_df('chat').input.tolist()[-1])") == f"turn {i}\n"
        assert other("print(len(store.history('chat')))") == f"{2 * i + 2}\n"
        assert kernel("print(store.sql('SELECT n_runs FROM sessions').n_runs[0])") == f"{i + 1}\n"
    first("branch = store.branch('chat', after=2, new_session_id='what-if')")
    assert second("print(store.get_session('what-if').fork_run_index)") == "2\n"

    busy = f"time.sleep(max(0, {time.time() + 0.3} - time.time()))\n{BUSY}"
    requests = [kernel.submit(busy) for kernel in kernels]
    printed = [kernel.output(request) for kernel, request in zip(kernels, requests, strict=True)]
    indexes = [index for text in printed for index in json.loads(text)]

    assert sorted(indexes) == list(range(6, 106))
    with DuckDb(first.path) as store:
        assert [run.run_index for run in load_session(store, "chat").runs] == list(range(106))
        assert store.check()


def test_idle_kernel_does_not_hold_the_file(kernels):
    """Any other tool can open the file while a notebook is left open."""
    kernel = kernels[0]
    before = int(kernel("append('x')\nprint(len(store.runs_df()))"))
    wait_until_free(kernel.path)
    kernel("append('y')")
    wait_until_free(kernel.path)
    assert kernel("print(len(store.runs_df()))") == f"{before + 1}\n"


def wait_until_free(path: Path, seconds: float = 3.0) -> None:
    """Open the file with plain DuckDB in another process, within a moment."""
    code = f"import duckdb; duckdb.connect({str(path)!r}).execute('SELECT 1')"
    end = time.time() + seconds
    while True:
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return
        assert time.time() < end, result.stderr


def test_file_held_by_another_process_is_busy(path, workers):
    """The error comes after the timeout and names file and process; the store works once the file is free."""
    worker = workers(1)[0]
    with DuckDb(path, timeout=0.4) as store:
        a_session(store, runs=1)
        store.close()
        worker.do("hold", target=str(path))
        pid = worker.process.pid
        for call in (
            lambda: store.append_run("chat", a_run()),
            lambda: store.get_session("chat"),
            store.messages_df,
            lambda: store.sql("SELECT 1"),
        ):
            start = time.monotonic()
            with pytest.raises(StoreBusy) as caught:
                call()
            duration = time.monotonic() - start

            assert 0.35 <= duration < 5
            assert str(pid) in str(caught.value)
            assert "shared.duckdb" in str(caught.value)
            assert "PID" not in caught.value.hint
            lines = caught.value._render_traceback_()
            assert len(lines) == 2
            assert lines[0].startswith("StoreBusy: ")
            assert lines[1].startswith("Hint: ")
            assert all("\n" not in line and "Traceback" not in line for line in lines)
            assert isinstance(caught.value, TimeoutError)
        worker.do("let_go", target=str(path))
        assert store.append_run("chat", a_run()).run_index == 1


def test_writer_waits_until_the_file_is_free(path, workers):
    """Without an error, and not much longer than needed."""
    worker = workers(1)[0]
    with DuckDb(path, timeout=30) as store:
        a_session(store, runs=1)
        store.close()
        worker.do("hold", target=str(path))
        release = threading.Timer(0.7, lambda: worker.do("let_go", target=str(path)))
        release.start()
        start = time.monotonic()
        assert store.append_run("chat", a_run()).run_index == 1
        duration = time.monotonic() - start
        release.join()

    assert 0.3 < duration < 5


def test_file_is_released_after_use(path, workers):
    """After a write, a read, SQL, an error and a refused write; closing releases it at once."""
    worker = workers(1)[0]
    store = DuckDb(path)
    uses = {
        "write": lambda: a_session(store, runs=2),
        "record": lambda: store.get_session("chat"),
        "frame": store.messages_df,
        "sql": lambda: store.sql("SELECT * FROM messages"),
        "error": lambda: pytest.raises(KeyError, store.branch, "no such"),
        "refused": lambda: pytest.raises(TypeError, store.append_run, "chat", a_run(input=object())),
        "bad sql": lambda: pytest.raises(ValueError, store.sql, "SELECT nothing"),
        "history": lambda: store.history("chat"),
    }
    for name, use in uses.items():
        use()
        end = time.time() + 3
        while error := worker.do("opens", target=str(path)):
            assert time.time() < end, f"{name}: {error}"
            time.sleep(0.02)
    store.append_run("chat", a_run())
    store.close()
    assert worker.do("opens", target=str(path)) == ""
    assert len(load_session(store, "chat").runs) == 3
    store.close()


def test_process_that_never_pauses_lets_others_write(path, workers):
    """Two single appends succeed while another process writes continuously, and it goes on after them."""
    busy, other = workers(2)
    stop = path.with_suffix(".stop")
    start = time.time() + 0.3
    busy.begin("write_until", target=str(path), session_id="chat", stop=str(stop), start=start)
    durations = [other.do("time_one", target=str(path), session_id="chat", start=start + delay) for delay in (0.5, 1.2)]
    stop.touch()
    written = busy.end()
    with DuckDb(path) as store:
        inputs = [run.input for run in load_session(store, "chat").runs]

    assert len(inputs) == written + 2
    assert inputs[-1].startswith("busy")
    assert max(durations) < 5 * LONGEST_HOLD_S  # not starved


def test_many_stores_of_one_process_share_the_file(path, workers):
    """Several store objects and threads in one process, with a writer in another."""
    worker = workers(1)[0]
    worker.begin("append", target=str(path), session_id="theirs", name="w", runs=20, start=time.time() + 0.1)
    stores = [DuckDb(path), DuckDb(str(path)), DuckDb(path.parent / "." / path.name)]
    errors: list[BaseException] = []

    def write(store: DuckDb, name: str) -> None:
        try:
            for i in range(8):
                store.append_run(name, a_small_run(f"{i}"))
                store.sql("SELECT count(*) FROM runs")
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(store, f"s{i}")) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.end()

    assert errors == []
    with DuckDb(path) as store:
        assert store.sessions_df().set_index("session_id").n_runs.to_dict() == {"theirs": 20, "s0": 8, "s1": 8, "s2": 8}


def test_readers_in_several_processes_read_concurrently(path, workers):
    """read_only stores do not exclude each other, and a writer gets its turn between them."""
    with DuckDb(path) as store:
        a_session(store, runs=2)
    code = (
        "import sys, time\nfrom kern_nb.db import DuckDb\n"
        f"store = DuckDb({str(path)!r}, read_only=True, timeout=10)\n"
        "for _ in range(10): assert len(store.messages_df()) >= 8; time.sleep(0.02)\n"
    )
    readers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    workers(1)[0].do("append", target=str(path), session_id="chat", name="w", runs=3)
    for reader in readers:
        _, stderr = reader.communicate(timeout=60)
        assert reader.returncode == 0, stderr


FORKING = """
import os, sys, time
from kern_nb.db import open_store
from samples import a_small_run
store = open_store(sys.argv[1])
store.append_run("chat", a_small_run("parent"))
children = []
for i in range(3):
    if i == 1:
        time.sleep(0.3)
    child = os.fork()
    if child == 0:
        store.append_run("chat", a_small_run(f"child {i}"))
        assert len(store.messages_df("chat")) >= 4
        os._exit(0)
    children.append(child)
    store.append_run("chat", a_small_run(f"parent after fork {i}"))
codes = [os.waitpid(child, 0)[1] for child in children]
store.append_run("chat", a_small_run("parent at last"))
assert codes == [0, 0, 0], codes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_children_can_use_the_store(persistent_target):
    """Parent and children write on, whichever ends first, and no run is lost."""
    command = [sys.executable, "-W", "ignore", "-c", FORKING, persistent_target]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr
    with open_store(persistent_target) as store:
        expected = [
            "parent",
            "parent at last",
            *(f"child {i}" for i in range(3)),
            *(f"parent after fork {i}" for i in range(3)),
        ]
        assert sorted(run.input for run in load_session(store, "chat").runs) == sorted(expected)
        assert store.check()


def test_writer_opens_a_file_for_one_thread(tmp_path):
    """The first write, which creates the file, does so too."""
    with DuckDb(tmp_path / "s.duckdb") as store:
        for text in ("creates the file", "opens it"):
            store.append_run("chat", Run(input=text))
            with store.connect() as connection:
                assert connection.exec_driver_sql("SELECT current_setting('threads')").scalar() == 1
            store.close()


def test_error_names_another_thread_as_the_holder(tmp_path):
    """If a long call of this process holds the file."""
    with DuckDb(tmp_path / "s.duckdb") as store, DuckDb(tmp_path / "s.duckdb", timeout=0.3) as impatient:
        a_session(store)
        working, done = threading.Event(), threading.Event()

        def work() -> None:
            with store.read_connection() as connection:
                connection.exec_driver_sql("SELECT 1")
                working.set()
                done.wait(60)

        thread = threading.Thread(target=work)
        thread.start()
        working.wait(60)
        time.sleep(LONGEST_HOLD_S + 0.1)
        try:
            with pytest.raises(StoreBusy, match="held by another thread of this process"):
                impatient.append_run("chat", a_run())
        finally:
            done.set()
            thread.join()
        assert impatient.append_run("chat", a_run()).run_index == 3
