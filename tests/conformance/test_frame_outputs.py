"""A frame in pandas, Arrow and Polars: equal columns, rows and values, times in UTC."""

from __future__ import annotations

import inspect
import sys

import pandas as pd
import polars
import polars.testing
import pyarrow as pa
import pytest
from samples import a_run, a_session

from kern_nb.db import SessionStore
from kern_nb.db.columns import FRAMES, INHERITED
from kern_nb.errors import BadUsage, KernError
from kern_nb.records import Session

NAMES = ("sessions", "runs", "messages", "tool_calls", "scores")
OF_LINEAGE = ("runs", "messages", "tool_calls")
ARROW = {
    "text": pa.string(),
    "json": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "flag": pa.bool_(),
}
POLARS = {
    "text": polars.String,
    "json": polars.String,
    "count": polars.Int64,
    "number": polars.Float64,
    "time": polars.Datetime("us", "UTC"),
    "flag": polars.Boolean,
}


@pytest.fixture
def filled(store):
    """Two sessions, a branch, scores; hostile texts."""
    for name in ("a", "b"):
        a_session(store, name, agent_id=name, user_id="u")
        metadata = {"task_id": f"task {name}", "odd": "nul \x00, surrogate \ud800"}
        store.save_session(Session(session_id=name, metadata=metadata))
        store.add_score(name, "reward", 0.5)
        store.add_score(name, "reward", 1, run_id=store.runs_df(name).run_id[0])
    store.branch("a", after=1, new_session_id="branch")
    store.append_run("branch", a_run("own \x00\ud800"))
    return store


def as_frame(values: pd.DataFrame) -> list[dict[str, object]]:
    """Return rows of plain values, with None for missing ones."""
    plain = values.astype(object).where(values.notna(), None)
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.to_numpy()]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_equal(filled, name):
    """In full, and with each selection and filter."""
    choices = [
        {},
        {"limit": 2},
        {"session_id": ["a"]},
        {"user_id": "u", "agent_id": "a"},
        {"since": "2020-01-01", "until": "2100-01-01", "limit": 1},
        {"columns": ["session_id"], "expand": ["metadata.task_id", "metadata.odd", "state.x"]},
    ]
    if name in OF_LINEAGE:
        choices.append({"session_id": "branch", "lineage": True})
    for requested in choices:
        frame = getattr(filled, f"{name}_df")(**requested)
        table, polar = filled.table(name, **requested), filled.polars(name, **requested)
        assert table.column_names == polar.columns == list(frame)
        assert table.to_pylist() == polar.to_dicts() == as_frame(frame)
        assert len(frame) > 0 or "since" in requested  # where no time was stated


@pytest.mark.parametrize("name", NAMES)
def test_types_match_columns(filled, name):
    """On every engine, full and empty; an expanded value is text."""
    lineage = name in OF_LINEAGE
    columns = [*FRAMES[name], INHERITED] if lineage else FRAMES[name]
    for session_id in ("branch", "a") if lineage else ("branch", "no such"):
        requested = {"session_id": session_id, "expand": ["metadata.task_id"]} | ({"lineage": True} if lineage else {})
        table, polar = filled.table(name, **requested), filled.polars(name, **requested)
        expanded = ("metadata.task_id", "text")
        expected = [*((column.name, column.kind) for column in columns), expanded]
        assert [(field.name, field.type) for field in table.schema] == [(n, ARROW[kind]) for n, kind in expected]
        assert list(polar.schema.items()) == [(n, POLARS[kind]) for n, kind in expected]


def test_outputs_of_a_store_without_tables(store):
    """Empty frames with their columns; reading creates nothing."""
    for name in NAMES:
        assert store.table(name).num_rows == store.polars(name).height == 0
        assert store.table(name).column_names == [column.name for column in FRAMES[name]]


def test_the_second_argument_is_the_session(filled):
    """As it is the first of the DataFrame methods."""
    assert set(filled.polars("runs", "b")["session_id"]) == {"b"}
    assert filled.table("runs", "b").num_rows == 3


def test_a_table_outlives_its_store(filled):
    """It stays usable and writable after the store is closed."""
    expected, table = filled.messages_df(), filled.table("messages")
    filled.close()

    assert table.to_pylist() == as_frame(expected)


def test_unknown_frames_are_refused(store):
    """The hint suggests a frame; lineage is refused for frames without inheritance."""
    for call in (store.table, store.polars):
        for name, hint in (
            ("mesages", "messages"),
            ("requirements", "sessions"),
            ("", "sessions"),
            ("runs_df", "runs"),
        ):
            with pytest.raises(BadUsage) as error:
                call(name)
            assert repr(name) in str(error.value)
            assert hint in error.value.hint
        for name in ("sessions", "scores"):
            with pytest.raises(BadUsage, match=name):
                call(name, "s", lineage=True)
        with pytest.raises(BadUsage, match="total"):
            call("runs", columns=["total"])


def test_missing_polars_error_names_install_command(store, monkeypatch):
    """The other outputs work without Polars."""
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(KernError) as error:
        store.polars("runs")

    assert "pip install kern-nb[polars]" in error.value.hint
    assert store.table("runs").num_rows == len(store.runs_df()) == 0


def test_signatures_have_every_parameter():
    """The tooltip in a notebook shows the same parameters in the same order for all methods."""
    everything = list(inspect.signature(SessionStore.messages_df).parameters.values())
    assert "**" not in str(everything)
    for name in NAMES:
        result = list(inspect.signature(getattr(SessionStore, f"{name}_df")).parameters.values())
        assert result == [item for item in everything if name in OF_LINEAGE or item.name != "lineage"]
    for method in (SessionStore.table, SessionStore.polars):
        result = list(inspect.signature(method).parameters.values())
        assert [result[0], *result[2:]] == everything
        assert result[1].name == "name"
