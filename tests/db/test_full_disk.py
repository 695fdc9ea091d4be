"""A disk that fills up: writes raise StoreFull, acknowledged writes are kept, and the process survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

import kern_nb
from kern_nb.db import DuckDb, PostgresDb
from kern_nb.db.disk_space import LogReservation, is_disk_full, unavailable_error
from kern_nb.errors import StoreFull, StoreUnavailable
from kern_nb.records import Run

SCRIPT = Path(__file__).parents[1] / "stress" / "full_disk.py"
ROOT = Path(kern_nb.__file__).parents[1]
QUICK = {
    "duckdb": (
        "duckdb append 20",  # without a reservation DuckDB 1.5 ends the process here
        "duckdb append 20000",
        "duckdb agent 50",
        "duckdb ingest 300000",
        "duckdb append 1000 beside a neighbour",
        "duckdb append 100 without any space",
    ),
    "sqlite": ("sqlite append 20", "sqlite agent 50", "sqlite append 100 without any space"),
}


def mount(folder: Path, size: str) -> None:
    """Mount a small disk at a folder; skip the test without permission."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a disk for this test: {error}")
    if process.returncode != 0:
        pytest.skip(f"cannot mount a disk for this test: {process.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "32m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("engine", QUICK)
def test_full_disk_refuses_writes_and_loses_nothing(small_disk, engine):
    """Small and large writes, a live run and an import; also while another program takes the space."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(small_disk), *QUICK[engine]]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    results = [json.loads(line) for line in process.stdout.splitlines()]
    assert [result["situation"] for result in results] == list(QUICK[engine]), process.stderr[-2000:]
    assert [(r["lost"], r["raw"]) for r in results] == [(0, [])] * len(results)
    assert all(result["refusals"] for result in results)
    assert process.returncode == 0


@pytest.fixture
def small_tablespace(new_postgres_database, mount_folder):
    """A PostgreSQL database whose tables are on a disk of 16 MB; its URL, and the disk."""
    url = new_postgres_database()
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as admin:
        data = admin.execute("SHOW data_directory").fetchone()[0]
        space = mount_folder / "space"
        space.mkdir()
        os.chown(space, Path(data).stat().st_uid, -1)
        admin.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        admin.execute(f"ALTER DATABASE {make_url(url).database} SET default_tablespace = small")
        yield url, mount_folder
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("DROP TABLESPACE small")


@pytest.fixture
def mount_folder():
    """A disk of 16 MB that other users may enter."""
    folder = Path(tempfile.mkdtemp())
    mount(folder, "16m")
    folder.chmod(0o755)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def test_full_tablespace_refuses_writes_and_loses_nothing(small_tablespace):
    """PostgreSQL: at once, without retries; writes succeed again once there is space."""
    url, disk = small_tablespace
    acknowledged = []

    def append(name: str, size: int = 0) -> None:
        acknowledged.append(store.append_run("chat", Run(run_id=name, input=os.urandom(size).hex())).run_id)

    def append_many() -> None:
        for i in range(100):
            append(f"{i}", 500_000)

    with PostgresDb(url) as store:
        append("first")
        with pytest.raises(StoreFull, match="no space left"):
            append_many()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        append("last")
        assert store.runs_df().run_id.tolist() == acknowledged
        assert store.check()


LIMITED = """
import resource, sys
from kern_nb.db import open_store
from kern_nb.errors import StoreUnavailable
from kern_nb.records import Run
store = open_store(sys.argv[1])
store.append_run("chat", Run(run_id="first"))
store.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for _ in range(2):
    try:
        store.append_run("chat", Run(input="x" * 5_000_000))
    except StoreUnavailable as error:
        print(type(error).__name__)
store.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.append_run("chat", Run(run_id="last"))
assert store.runs_df().run_id.tolist() == ["first", "last"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit on the size of files")
@pytest.mark.parametrize("suffix", [".duckdb", ".db"])
def test_file_size_limit_is_a_full_disk(tmp_path, suffix):
    """The disk has space, but this process may not use it."""
    path = tmp_path / f"s{suffix}"
    command = [sys.executable, "-c", LIMITED, str(path), str(4_000_000)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)

    assert process.returncode == 0, process.stderr
    # SQLite reports only "disk I/O error".
    assert process.stdout.split() == ["StoreFull" if suffix == ".duckdb" else "StoreUnavailable"] * 2


def test_log_reservation_leaves_no_file_behind(tmp_path):
    """Neither after a write nor after a refused one."""
    path = tmp_path / "s.duckdb"
    store = DuckDb(path)
    store.append_run("chat", Run(run_id="r"))
    store.append_run("chat", Run())
    with pytest.raises(ValueError, match="exists"):
        store.append_run("chat", Run(run_id="r"))
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]


def test_space_is_reserved_before_a_commit(tmp_path):
    """An impossible size is refused; the error names the file and the space needed."""
    path = tmp_path / "s.duckdb"
    path.touch()
    with pytest.raises(StoreFull) as caught:
        LogReservation(str(path)).require(1 << 60)
    assert str(path) in str(caught.value)
    assert "free" in str(caught.value)
    assert "Free space" in caught.value.hint
    assert not path.with_name("s.duckdb.wal").exists() or path.with_name("s.duckdb.wal").stat().st_size == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('could not extend file "base/5/16394": No space left on device\nHINT: Check free disk space.', True),
        ("database or disk is full", True),
        ('TransactionContext Error: Failed to commit: Could not write file "s.duckdb.wal": Disk quota exceeded', True),
        ("TransactionContext Error: Failed to commit: write-write conflict", False),
        ("connection refused", False),
    ],
)
def test_full_disk_errors_of_each_engine_are_recognized(text, expected):
    """They become StoreFull; other errors do not."""
    assert is_disk_full(text) is expected
    assert type(unavailable_error("a store", text)) is (StoreFull if expected else StoreUnavailable)
