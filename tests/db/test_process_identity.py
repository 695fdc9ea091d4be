"""A process counts as gone only when that is certain, whatever happens to clocks, host names and containers."""

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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tests the Linux identity")

SCRIPT = "from kern_nb.db.process_identity import current_process; print(current_process(), flush=True); input()"


@pytest.fixture(autouse=True)
def _fresh_identity():
    process_identity._identify.cache_clear()
    yield
    process_identity._identify.cache_clear()


@contextlib.contextmanager
def running(*prefix):
    """Run another process and yield its identity; it has ended after the block."""
    command = [*prefix, sys.executable, "-c", SCRIPT]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        yield other.stdout.readline().strip()
        other.stdin.close()


def state(identity):
    return process_state(identity)[0]


def replace(identity, **parts):
    """Replace parts of an identity."""
    return str(process_identity._parse(identity)._replace(**parts))


def old_identity(pid, host=None, step=0):
    """An identity as earlier versions wrote it; ``step`` is how far the clock was changed since then."""
    return f"{host or socket.gethostname()}:{pid}:{psutil.Process(pid).create_time() - step:.0f}"


def test_current_process_is_alive():
    assert state(current_process()) == "alive"


def test_another_process_is_alive_until_it_ends():
    with running() as other:
        assert state(other) == "alive"
    assert state(other) == "gone"


def test_zombie_is_gone():
    other = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        identity = other.stdout.readline().strip()
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert state(identity) == "gone"


def test_reused_pid_is_another_process():
    assert state(replace(current_process(), start="1")) == "gone"


def test_clock_change_does_not_change_the_identity(monkeypatch):
    before = current_process()
    boot_time = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time - 3600)
    process_identity._identify.cache_clear()

    assert current_process() == before
    assert state(before) == "alive"


@pytest.mark.parametrize("step", [0, -3600, 3600])
def test_old_identity_survives_a_clock_change(step):
    assert state(old_identity(os.getpid(), step=step)) != "gone"


def test_old_identity_is_parsed():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        identity = old_identity(other.pid)
        assert state(identity) == "alive"
        assert state(old_identity(other.pid, host="another-host")) == "elsewhere"
        other.stdin.close()
    assert state(identity) == "gone"


def test_old_identity_with_a_pid_of_another_program_is_gone():
    with subprocess.Popen(["sleep", "60"]) as other:
        assert state(old_identity(other.pid, step=3600)) == "gone"
        other.kill()


def test_new_host_name_hides_no_process(monkeypatch):
    """As of a laptop in another network, or a container recreated in the same namespaces."""
    with running() as other:
        monkeypatch.setattr(socket, "gethostname", lambda: "a-new-name")
        process_identity._identify.cache_clear()
        assert state(other) == "alive"
    assert state(other) == "gone"


@pytest.mark.skipif(not shutil.which("unshare"), reason="util-linux is not installed")
def test_process_of_another_container_is_elsewhere():
    """Its PID exists here too, which proves nothing."""
    prefix = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system creates no namespaces")
    with running(*prefix) as other:
        assert other.split(":")[1] == "1"
        assert state(other) == "elsewhere"


def test_processes_of_an_earlier_boot_are_gone():
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
def test_invalid_identity_is_gone(identity):
    assert state(identity) == "gone"


@pytest.mark.parametrize("start", ["", "x", "/", "/" * 4, "1/2/3", "9" * 400, "1/boot/ns/"])
def test_identity_with_any_start_is_parsed(start):
    assert state(f"{socket.gethostname()}:{os.getpid()}:{start}") in ("alive", "gone", "elsewhere")


def test_forked_child_has_its_own_identity():
    parent = current_process()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, f"{current_process()} {state(parent)}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    identity, parent_state = os.read(reader, 1000).decode().split()
    os.close(reader)
    os.close(writer)

    assert identity != parent
    assert parent_state == "alive"
    assert state(identity) == "gone"
