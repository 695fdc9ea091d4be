"""Files that kern_nb writes are readable by their owner only, from the first byte on."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest
from foreign_databases import run_and_exit

from kern_nb import Agent
from kern_nb.analysis import plots
from kern_nb.db import DuckDb, SqliteDb, open_store
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.operations.export import export
from kern_nb.records import Message, Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")


@pytest.fixture(autouse=True)
def default_umask():
    """Files are world-readable by default."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The modes of the files in a folder."""
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*") if path.is_file()}


WRITING = """
    from kern_nb.db import open_store
    from kern_nb.records import Run
    os.umask(0o022)
    store = open_store(args[0])
    for n in range(3):
        store.append_run("chat", Run(input="secret"))
"""


@pytest.mark.parametrize("name", ["s.db", "s.duckdb"])
def test_store_and_files_beside_it_are_private(tmp_path, name):
    """Including the log that a killed process leaves behind."""
    run_and_exit(WRITING, tmp_path / name)
    modes_by_name = modes(tmp_path)

    assert len(modes_by_name) > 1
    assert set(modes_by_name.values()) == {"0o600"}
    with open_store(tmp_path / name) as store:
        assert len(store.runs_df()) == 3


@pytest.mark.parametrize("name", ["s.db", "s.duckdb"])
def test_store_files_are_never_readable_by_others(tmp_path, name):
    """Checked continuously while the store is created and written to."""
    observed, done = {}, threading.Event()

    def watch() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                observed.update(dict.fromkeys(modes(tmp_path).items()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with open_store(tmp_path / name) as store:
            for n in range(20):
                store.append_run(f"chat {n}", Run(input="secret", messages=[Message(role="user", content="x" * 1000)]))
                store.close()
    finally:
        done.set()
        watcher.join()

    readable = {file for file, mode in observed if mode != "0o600"}
    # DuckDB creates its file itself. Until it is private it contains only a header.
    assert readable <= ({name} if name == "s.duckdb" else set())


@pytest.mark.parametrize("store_class", [SqliteDb, DuckDb])
def test_existing_file_keeps_its_mode(tmp_path, store_class):
    """A group may share a store. Its log gets the mode of the file."""
    path = tmp_path / "s"
    with store_class(path) as store:
        store.append_run("chat", Run(input="hi"))
    path.chmod(0o664)
    with store_class(path) as store:
        store.append_run("chat", Run(input="hi"))
        assert modes(tmp_path)["s"] == "0o664"
        beside = {mode for name, mode in modes(tmp_path).items() if name != "s"}
    assert "0o600" not in beside
    assert modes(tmp_path)["s"] == "0o664"


def test_exported_files_are_private(tmp_path):
    """A bundle, a page, a plot and the files of a workspace."""

    def write(run_context) -> str:
        run_context.workspace.write("notes/report.txt", "secret")
        return "done"

    with open_store(tmp_path / "s.duckdb") as store:
        agent = Agent(model=ScriptedModel([call("write"), "done"]), tools=[write], db=store, session_id="chat")
        agent.run("hi")
        export("chat", path=tmp_path / "bundle.json", store=store, progress=False)
        export("chat", path=tmp_path / "page.html", store=store, progress=False)
        export("chat", path=tmp_path / "rows.parquet", store=store, progress=False)
        export("chat", path=tmp_path / "one.json", format="atif", store=store, progress=False)
        export("chat", path=tmp_path / "traces", format="sts", store=store, progress=False)
        agent.get_workspace("chat").export(tmp_path / "files")
        plots.branch_tree(store.sessions_df(), store.runs_df()).save(tmp_path / "tree.json")

    assert set(modes(tmp_path).values()) == {"0o600"}
    (tmp_path / "bundle.json").chmod(0o644)
    with open_store(tmp_path / "s.duckdb") as store:
        export("chat", path=tmp_path / "bundle.json", store=store, overwrite=True, progress=False)
    assert modes(tmp_path)["bundle.json"] == "0o644"


SPILLING = """
    from pathlib import Path
    from kern_nb.db import DuckDb, lease
    os.umask(0o022)
    lease.CONFIG |= {"memory_limit": "50MB", "threads": "1"}
    stores = [DuckDb(Path(args[0], name)) for name in ("a.duckdb", "b.duckdb")]
    leases = [store._lease for store in stores]
    connections = [lease.acquire(5.0) for lease in leases]
    folders = [c.execute("SELECT current_setting('temp_directory')").fetchone()[0] for c in connections]
    assert len(set(folders)) == 2, folders
    for n, c in enumerate(connections):
        c.execute(f"CREATE TEMP TABLE t AS SELECT range n, hash(range + {n})::VARCHAR b FROM range(1500000)")
    for folder in map(Path, folders):
        assert folder.is_dir(), "nothing was spilled: the test proves nothing"
        assert not folder.parent.stat().st_mode & 0o077
        assert str(os.getpid()) in folder.name
    assert not Path(".tmp").exists()
    for n, c in enumerate(connections):
        count_wrong = f"SELECT count(*) FROM t WHERE b <> hash(n + {n})::VARCHAR"
        assert c.execute(count_wrong).fetchone() == (0,)
    for c, lease in zip(connections, leases):
        c.close()
        lease.release(__import__("threading").get_ident())
        lease.close()
    assert not any(map(os.path.exists, folders)), "spilled files are left behind"
"""


def test_spilled_files_are_private(tmp_path, monkeypatch):
    """Each DuckDB instance has its own folder below one that only its user can enter, outside the notebook's folder."""
    monkeypatch.chdir(tmp_path)
    run_and_exit(SPILLING, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.duckdb", "b.duckdb"]
