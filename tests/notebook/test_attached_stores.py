"""Attaching: named stores, one of them in use, nothing written, nothing secret shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import kern_nb
from kern_nb.db import PostgresDb
from kern_nb.errors import BadUsage, NoStore, StoreUnavailable
from kern_nb.records import Run
from kern_nb.store_registry import find

pytestmark = pytest.mark.usefixtures("attached_stores")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("target", ["s.duckdb", "s.db", "sqlite:///s.sqlite", "duckdb:///s.duckdb"])
def test_attaching_writes_nothing_until_the_first_run(target, tmp_path):
    """A new path is attached and read as an empty store; the file comes with the first write."""
    store = kern_nb.attach(target)

    assert len(kern_nb.sessions()) == 0
    assert list(tmp_path.iterdir()) == []

    store.append_run("chat", Run(input="x"))

    assert len(kern_nb.sessions()) == 1
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"s"}


def test_the_default_name_is_the_file_stem_or_database():
    """The name is the file's stem, the database's name, or memory; and any name one gives."""
    kern_nb.attach("data.duckdb")
    kern_nb.attach("sqlite:///agent.db")
    kern_nb.attach(":memory:")
    kern_nb.attach(PostgresDb("postgresql+psycopg://u:secret@nowhere:5432/shop?sslmode=disable"))
    kern_nb.attach("other.duckdb", name="my own")

    assert [store.name for store in kern_nb.stores()] == ["data", "agent", "memory", "shop", "my own"]


def test_the_store_attached_last_is_in_use_until_use():
    """`attach` uses what it attaches; `use` changes that, and gives the store."""
    first, second = kern_nb.attach("a.duckdb"), kern_nb.attach("b.duckdb")
    assert kern_nb.current_store() is second

    assert kern_nb.use("a") is first

    assert kern_nb.current_store() is first
    assert [(store.name, store.in_use) for store in kern_nb.stores()] == [("a", True), ("b", False)]


def test_attaching_the_same_target_again_is_harmless():
    """A cell that attaches can be run twice; in memory, the sessions stay."""
    for target in ("a.duckdb", "./a.duckdb", Path("a.duckdb").absolute()):
        kern_nb.attach(target)
    memory = kern_nb.attach(":memory:")
    memory.append_run("chat", Run(input="x"))

    again = kern_nb.attach(":memory:")

    assert [store.name for store in kern_nb.stores()] == ["a", "memory"]
    assert len(again.list_sessions()) == 1


@pytest.mark.parametrize("name", ["a.db", "a.duckdb"])
def test_a_file_that_was_removed_can_be_attached_again(tmp_path, name):
    """Deleting the file and running the notebook from the top again starts with an empty store."""
    kern_nb.attach(name).append_run("chat", Run(input="x"))
    for path in tmp_path.iterdir():
        path.unlink()

    store = kern_nb.attach(name)

    assert len(store.list_sessions()) == 0
    store.append_run("new", Run(input="x"))
    assert [session.session_id for session in store.list_sessions()] == ["new"]


def test_a_name_belongs_to_one_store():
    """Another store, or the same one opened in another way, is refused under a name that is taken; nothing changes."""
    first = kern_nb.attach("a.duckdb")
    first.append_run("chat", Run(input="x"))
    Path("x").mkdir()

    for attempt in (
        {"target": "x/a.duckdb"},
        {"target": "a.duckdb", "read_only": True},
        {"target": ":memory:", "name": "a"},
    ):
        with pytest.raises(BadUsage, match="The name 'a' is already used") as caught:
            kern_nb.attach(**attempt)
        assert "--as" in caught.value.hint

    assert kern_nb.current_store() is first


def test_a_path_stays_the_same_when_the_folder_changes(tmp_path):
    """A notebook may change its folder; the store is where it was."""
    kern_nb.attach("a.db").append_run("chat", Run(input="x"))
    (tmp_path / "elsewhere").mkdir()

    os.chdir(tmp_path / "elsewhere")

    assert len(kern_nb.sessions()) == 1


def test_detaching_closes_and_brings_no_other_store_in_use():
    """What was in use is not silently another one."""
    kern_nb.attach("a.duckdb")
    kern_nb.attach("b.duckdb")

    kern_nb.detach("b")

    with pytest.raises(NoStore, match=r"No store is in use\. Attached stores: a") as caught:
        kern_nb.current_store()
    assert caught.value.hint == "Choose one: %kern use a"


def test_an_unknown_store_name_is_an_error_with_a_hint():
    """No store, or none of that name: the hint is the next thing to write."""
    with pytest.raises(NoStore) as caught:
        kern_nb.current_store()
    assert "%kern attach sessions.duckdb" in caught.value.hint

    kern_nb.attach("prod.duckdb")
    for call in (kern_nb.use, kern_nb.detach, find):
        with pytest.raises(NoStore, match="'prd'") as caught:
            call("prd")
        assert caught.value.hint == "Did you mean 'prod'?"


def test_a_store_can_be_attached_read_only(tmp_path):
    """Two names for one file, once to be read only."""
    kern_nb.attach("a.db").append_run("chat", Run(input="x"))

    reader = kern_nb.attach("a.db", name="reader", read_only=True)

    assert reader.read_only
    assert [(store.name, store.read_only) for store in kern_nb.stores()] == [("a", False), ("reader", True)]


def test_passwords_are_never_shown():
    """Not in the table, not in its frame, not in the refusal of a server that does not answer."""
    kern_nb.attach(PostgresDb("postgresql+psycopg://user:sesame@nowhere/shop"))
    table = kern_nb.stores()
    shown = repr(table) + table._repr_html_() + table.df.to_csv()

    assert "sesame" not in shown
    assert "user:***@nowhere" in shown

    with pytest.raises(StoreUnavailable) as caught:
        kern_nb.attach("postgresql://user:sesame@127.0.0.1:1/shop")
    assert "sesame" not in f"{caught.value} {caught.value.hint}"


def test_the_store_table_agrees_in_text_html_and_frame():
    """Name, engine, access and place, and which is in use; without any, how to attach one."""
    assert "No store is attached" in repr(kern_nb.stores())
    assert "%kern attach" in kern_nb.stores()._repr_html_()

    kern_nb.attach("a.duckdb")
    kern_nb.attach("b.db", read_only=False)
    table = kern_nb.stores()

    assert list(table.df.columns) == ["name", "url", "engine", "session_table", "read_only", "in_use"]
    for shown in (repr(table), table._repr_html_()):
        for word in ("a", "b", "duckdb", "sqlite", "read, write", "→"):
            assert word in shown
