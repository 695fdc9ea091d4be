"""Bad input shows exactly two lines in a notebook, keeps its type, and changes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import kern_nb
from kern_nb import errors
from kern_nb.db import DuckDb, SqliteDb
from kern_nb.records import Run


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but the empty ones that SQLite puts beside a file it reads."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith("-shm"))
    result = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: content for name, content in result.items() if content or not name.endswith("-wal")}


def two_lines(error: BaseException, lines: list[str], kind: type[BaseException]) -> None:
    assert type(error) is kind
    assert len(lines) == 2
    assert lines[0].startswith(f"{kind.__name__}: ")
    assert lines[1].startswith("Hint: ")


@pytest.fixture
def store(tmp_path):
    """One engine is enough here: what a line means does not depend on it."""
    with SqliteDb(tmp_path / "store.db") as store:
        yield store


@pytest.fixture
def work(tmp_path):
    """Files that are not stores, named after what they are."""
    folder = tmp_path / "work"
    (folder / "notes.txt").write_text("just text\n", encoding="utf-8")
    (folder / "notes.duckdb").write_text("just text\n", encoding="utf-8")
    (folder / "folder").mkdir()
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("CREATE TABLE agno_sessions (id INTEGER, name TEXT)")
    connection.close()
    for name, engine in (("cut.db", SqliteDb), ("cut.duckdb", DuckDb)):
        with engine(folder / name) as store:
            store.append_run("chat", Run(input="x"))
    for path in folder.glob("cut.db-*"):
        path.unlink()
    (folder / "cut.db").write_bytes((folder / "cut.db").read_bytes()[:100] + b"\xff" * 5000)
    (folder / "cut.duckdb").write_bytes((folder / "cut.duckdb").read_bytes()[:4096] + b"\xff" * 20_000)
    return folder


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("notes.txt", errors.NotAStore),
        ("notes.duckdb", errors.NotAStore),
        ("folder", errors.NotAStore),
        ("new.xyz", errors.NotAStore),
        ("mysql://user:sesame@host/db", errors.NotAStore),
        ("nowhere/sessions.duckdb", errors.StoreNotFound),
        ("new.duckdb --read-only", errors.StoreNotFound),
        ("other.db", errors.ForeignLayout),
        ("cut.db", errors.NotAStore),
        ("cut.duckdb", errors.NotAStore),
        ("postgresql://user:sesame@127.0.0.1:1/shop", errors.StoreUnavailable),
    ],
)
def test_an_invalid_target_is_refused_without_changes(notebook, work, target, kind):
    """Two lines, no store attached, no file changed or created, no password shown."""
    before = everything(work)

    error, lines = notebook.fails(f"%kern attach {target}")

    two_lines(error, lines, kind)
    assert everything(work) == before
    assert len(kern_nb.stores()) == 0
    assert "sesame" not in "".join(lines)


@pytest.mark.parametrize(
    ("line", "kind", "hint"),
    [
        ("%kern sesions", errors.BadUsage, "Did you mean 'sessions'?"),
        ("%kern frobnicate", errors.BadUsage, "%kern help"),
        ("%kern help sesions", errors.BadUsage, "Did you mean 'sessions'?"),
        ("%kern sessions --usr x", errors.BadUsage, "Did you mean '--user'?"),
        ("%kern sessions extra", errors.BadUsage, "Usage: %kern sessions"),
        ("%kern sessions --last many", errors.BadUsage, "Usage: %kern sessions"),
        ("%kern sessions --last", errors.BadUsage, "Usage: %kern sessions"),
        ("%kern sessions --last 0", errors.BadUsage, ""),
        ("%kern sessions --status DONE", errors.BadUsage, "COMPLETED"),
        ("%kern show", errors.BadUsage, "Usage: %kern show REF"),
        ("%kern show 'alpha", errors.BadUsage, "quote"),
        ("%kern load", errors.BadUsage, "Usage: %kern load"),
        ("%kern load run", errors.BadUsage, "Did you mean 'runs'?"),
        ("%kern load runs --limit -1", errors.BadUsage, ""),
        ("%kern load runs --since yesterweek", errors.BadUsage, "2026-11-20"),
        ("%kern load runs --lineage", errors.BadUsage, "--session"),
        ("%kern load scores --lineage --session alpha", errors.BadUsage, "messages"),
        ("%kern load runs --session alpha/0", errors.BadUsage, "%kern show"),
        ("%kern load runs --session nobody", errors.SessionNotFound, "%kern sessions"),
        ("%kern show alfa", errors.SessionNotFound, "Did you mean 'alpha'?"),
        ("%kern show al", errors.AmbiguousReference, "Use more"),
        ("%kern show alpha/7", errors.RunNotFound, "%kern show alpha"),
        ("%kern show alpha/0.99", errors.MessageNotFound, ""),
        ("%kern branch alpha/7 --as x", errors.RunNotFound, ""),
        ("%kern branch alpha --before", errors.BadUsage, "%kern branch alpha/0 --before"),
        ("%kern branch alpha --as alps", errors.SessionExists, ""),
        ("%kern branch al --as x", errors.AmbiguousReference, ""),
        ("%kern use nobody", errors.NoStore, "chats"),
        ("%kern detach chat", errors.NoStore, "Did you mean 'chats'?"),
        ("%kern sessions --store chat", errors.NoStore, "Did you mean 'chats'?"),
        ("%kern import nowhere.json", errors.RecordsNotFound, ""),
        ("%kern import *.nothing", errors.RecordsNotFound, ""),
    ],
)
def test_an_invalid_line_shows_two_lines(notebook, chats, line, kind, hint):
    """A wrong verb, option, value or reference: two lines with a hint, and the rows of the store do not change."""
    before = [chats.sessions_df(), chats.messages_df()]

    error, lines = notebook.fails(line)

    two_lines(error, lines, kind)
    assert hint in lines[1]
    for frame, now in zip(before, [chats.sessions_df(), chats.messages_df()], strict=True):
        assert frame.equals(now)


@pytest.mark.parametrize(
    "sql", ["DELETE FROM agno_sessions", "DROP VIEW runs", "COPY runs TO 'x.csv'", "ATTACH 'x.db'"]
)
@pytest.mark.parametrize("name", ["s.duckdb", "s.db"])
def test_sql_that_writes_is_refused(notebook, tmp_path, name, sql):
    """Two lines, and no byte of any file changes."""
    notebook.run(f"%kern attach {name}")
    kern_nb.current_store().append_run("alpha", Run(input="x"))
    kern_nb.current_store().close()
    before = everything(tmp_path / "work")

    error, lines = notebook.fails(f"%%kern_sql\n{sql}")
    kern_nb.current_store().close()

    two_lines(error, lines, errors.QueryRefused)
    assert everything(tmp_path / "work") == before


def test_a_read_only_store_refuses_to_branch(notebook):
    """Two lines, with the way to write."""
    notebook.run("%kern attach s.db")
    kern_nb.current_store().append_run("alpha", Run(input="x"))
    notebook.run("%kern attach s.db --as reader --read-only")

    error, lines = notebook.fails("%kern branch alpha")

    two_lines(error, lines, errors.ReadOnlyStore)
    assert "--read-only" in lines[1]


def test_without_a_store_every_verb_names_the_attach_line(notebook):
    """The first line of a new user."""
    for line in (
        "%kern sessions",
        "%kern load runs",
        "%kern show x",
        "%kern branch x",
        "%kern rewind x/0",
        "%kern check",
        "%kern inbox",
        "%kern approve x",
        "%kern answer x 1",
        "%kern handoff x --to ann",
        "%kern_sql SELECT 1",
    ):
        error, lines = notebook.fails(line)
        two_lines(error, lines, errors.NoStore)
        assert "%kern attach sessions.duckdb" in lines[1]


def test_an_error_subclasses_a_builtin_error(notebook, chats):
    """`except KeyError` around a magic works, so a notebook can go on."""
    notebook.run(
        "try:\n    get_ipython().run_line_magic('kern', 'show nobody')\nexcept KeyError as error:\n    caught = error"
    )

    assert type(notebook.shell.user_ns["caught"]) is errors.SessionNotFound


def test_an_error_without_a_hint_gets_the_usage(notebook, chats, monkeypatch):
    """Every error of ours has its second line."""

    def fail(**_: object) -> None:
        raise errors.KernError("Something is wrong.")

    monkeypatch.setattr(chats, "check", fail)

    error, lines = notebook.fails("%kern check")

    two_lines(error, lines, errors.KernError)
    assert lines[1] == "Hint: Usage: %kern check [--repair] [--hosts-gone HOST] [--store NAME]"


def test_an_unexpected_error_keeps_its_traceback(notebook, chats, monkeypatch):
    """Only our own errors are shortened."""

    def fail(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(chats, "check", fail)

    error, lines = notebook.fails("%kern check")

    assert type(error) is ZeroDivisionError
    assert len(lines) > 5
