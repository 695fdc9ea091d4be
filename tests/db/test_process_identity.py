"""A run's process is called gone only when that is certain, whatever happens to clocks, host names and containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import uuid

import psutil
import pytest

from kern_nb.db import process_identity
from kern_nb.db.process_identity import current_process, process_state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the identity of Linux")

SCRIPT = "from kern_nb.db.process_identity import this_process; print(this_process(), flush=True); input()"


@pytest.fixture(autouse=True)
def _fresh_identity():
    process_identity._identify.cache_clear()
    yield
    process_identity._identify.cache_clear()


@contextlib.contextmanager
def running(*prefix):
    """Another process; its identity as it says itself. It has ended after the block."""
    command = [*prefix, sys.executable, "-c", SCRIPT]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        yield other.stdout.readline().strip()
        other.stdin.close()


def state(identity):
    return process_state(identity)[0]


def replaced(identity, **parts):
    """An identity with other parts."""
    return str(process_identity._parse(identity)._replace(**parts))


def seconds(pid, host=None, step=0):
    """An identity as earlier versions wrote it; ``step`` is how far the clock was put since then."""
    return f"{host or socket.gethostname()}:{pid}:{psutil.Process(pid).create_time() - step:.0f}"


def test_this_process_is_alive():
    assert state(current_process()) == "alive"


def test_another_process_is_alive_until_it_ends():
    with running() as other:
        assert state(other) == "alive"
    assert state(other) == "gone"


def test_a_killed_process_is_gone_before_its_parent_asks_how_it_ended():
    other = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        identity = other.stdout.readline().strip()
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert state(identity) == "gone"


def test_a_reused_pid_is_another_process():
    assert state(replaced(current_process(), start="1")) == "gone"


def test_a_step_of_the_clock_does_not_move_the_identity(monkeypatch):
    before = current_process()
    boot_time = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time - 3600)
    process_identity._identify.cache_clear()

    assert current_process() == before
    assert state(before) == "alive"


@pytest.mark.parametrize("step", [0, -3600, 3600])
def test_an_identity_of_an_earlier_version_outlives_a_step_of_the_clock(step):
    assert state(seconds(os.getpid(), step=step)) != "gone"


def test_an_identity_of_an_earlier_version_is_understood():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        identity = seconds(other.pid)
        assert state(identity) == "alive"
        assert state(seconds(other.pid, host="another-host")) == "elsewhere"
        other.stdin.close()
    assert state(identity) == "gone"


def test_a_pid_that_another_program_has_now_is_no_writer_of_an_earlier_version():
    with subprocess.Popen(["sleep", "60"]) as other:
        assert state(seconds(other.pid, step=3600)) == "gone"
        other.kill()


def test_a_new_host_name_hides_no_process(monkeypatch):
    """A laptop in another network, a container that was made again in the same namespaces."""
    with running() as other:
        monkeypatch.setattr(socket, "gethostname", lambda: "a-new-name")
        process_identity._identify.cache_clear()
        assert state(other) == "alive"
    assert state(other) == "gone"


@pytest.mark.skipif(not shutil.which("unshare"), reason="util-linux is not installed")
def test_a_process_of_another_container_is_out_of_sight():
    """The PID is one of ours, and says nothing about the process."""
    prefix = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system makes no namespaces")
    with running(*prefix) as other:
        assert other.split(":")[1] == "1"
        assert state(other) == "elsewhere"


def test_an_earlier_boot_of_this_machine_has_no_processes_left():
    own = process_identity._parse(current_process())
    machine = own._replace(namespaces="4026531836-1", machine="0" * 12)
    earlier = machine._replace(boot=str(uuid.uuid4()))

    assert process_identity._same_machine(machine, earlier)
    assert not process_identity._same_machine(machine, earlier._replace(host="another-host"))
    assert not process_identity._same_machine(machine, earlier._replace(machine="1" * 12))
    assert not process_identity._same_machine(machine._replace(machine=""), earlier._replace(machine=""))
    assert not process_identity._same_machine(machine, earlier._replace(namespaces="4026532179-1"))
    assert state(str(earlier._replace(host="another-host"))) == "elsewhere"


@pytest.mark.parametrize(
    "identity", [None, "", "x", "host:1", "host:x:1", "host:-1:1", f"host:{10**30}:1", "::", "host:²:1"]
)
def test_an_identity_that_names_no_process_is_of_none(identity):
    assert state(identity) == "gone"


@pytest.mark.parametrize("start", ["", "x", "/", "/" * 4, "1/2/3", "9" * 400, "1/boot/ns/"])
def test_an_identity_with_any_start_is_read(start):
    assert state(f"{socket.gethostname()}:{os.getpid()}:{start}") in ("alive", "gone", "elsewhere")


def test_a_forked_child_has_an_identity_of_its_own():
    parent = current_process()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, f"{current_process()} {state(parent)}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    identity, seen = os.read(reader, 1000).decode().split()
    os.close(reader)
    os.close(writer)

    assert identity != parent
    assert seen == "alive"
    assert state(identity) == "gone"
