"""A killed test run leaves nothing behind, and a run that ignores Ctrl-C can still test interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
WAIT_S = 60

HANGS = """
import json, os, subprocess, sys, time
from pathlib import Path

import psycopg


def test_hangs(postgres_url):
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        folder = connection.execute("SHOW data_directory").fetchone()[0]
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes = [os.getpid(), subprocess.Popen(command, start_new_session=True).pid]
    forked = os.fork()
    if not forked:
        os.setsid()
        time.sleep(600)
    processes += [forked, int(Path(folder, "postmaster.pid").read_text().split()[0])]
    Path("started.new").write_text(json.dumps({"folder": folder, "processes": processes}))
    Path("started.new").rename("started.json")
    time.sleep(600)
"""

INTERRUPTED = """
import os, signal, subprocess, sys

import pytest


def test_an_interrupt_of_the_test_arrives():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_of_a_process_that_a_test_starts_arrives():
    ended = subprocess.run([sys.executable, "-c", "import signal; signal.raise_signal(signal.SIGINT)"], stderr=-3)
    assert ended.returncode in (-signal.SIGINT, 130)
"""

ENDLESS = """
import time


def test_waits_endlessly():
    while True:
        time.sleep(1)


def test_ends():
    pass
"""


def start_run(folder: Path, content: str, *options: str, **settings) -> subprocess.Popen:
    """Start a test run with these fixtures, in its own folder and process group."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_nested.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", *options]
    return subprocess.Popen(
        [*command, "test_nested.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **settings,
    )


def wait_for(condition) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def is_running(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("killed", ["group", "main", "worker"])
def test_killed_test_run_leaves_no_server_process_or_folder(tmp_path, killed):
    """kill -9 of the process group, of the main process of a run with workers, or of one worker."""
    options = () if killed == "group" else ("-n", "1", "--max-worker-restart", "0")
    run = start_run(tmp_path, HANGS, *options)
    try:
        wait_for((tmp_path / "started.json").exists)
        started = json.loads((tmp_path / "started.json").read_text())
        processes = [psutil.Process(pid) for pid in started["processes"]]
        folder = Path(started["folder"])
        assert folder.exists()
        assert all(is_running(process) for process in processes)

        if killed == "group":
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(run.pid if killed == "main" else processes[0].pid, signal.SIGKILL)

        wait_for(lambda: not any(is_running(process) for process in processes))
        wait_for(lambda: not folder.parent.exists())
    finally:
        run.kill()
        run.communicate()


def test_interrupts_arrive_in_a_run_started_with_sigint_ignored(tmp_path):
    """As `nohup make test &` or a script starts it."""
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    run = start_run(tmp_path, INTERRUPTED, preexec_fn=ignore)
    output, _ = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, output


def test_hanging_test_fails_and_the_others_run(tmp_path):
    """With a short time limit."""
    run = start_run(tmp_path, ENDLESS, "--timeout", "1", "--timeout-method", "signal")
    output, _ = run.communicate(timeout=WAIT_S)
    assert run.returncode == 1
    assert "1 failed, 1 passed" in output


def test_every_test_has_a_time_limit(pytestconfig):
    """A signal within Python; later the end of the process, for hangs outside of Python."""
    assert 0 < float(pytestconfig.getini("timeout")) < float(pytestconfig.getini("faulthandler_timeout"))
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
