"""The frames have the documented columns in order, with the same dtypes on every engine, full or empty."""

from __future__ import annotations

import pandas as pd
import pytest
from samples import a_run, a_session, all_rows

from kern_nb.db.columns import DTYPES, FRAMES, INHERITED
from kern_nb.records import Run, Session

DOCUMENTED = {
    "sessions": "session_id session_name session_type agent_id team_id workflow_id user_id parent_session_id fork_run_index "
    "fork_message_index n_runs n_messages n_tool_calls n_tool_errors input_tokens output_tokens total_tokens cost "
    "cost_source duration_s status metadata created_at updated_at",
    "runs": "session_id run_index run_id parent_run_id run_type agent_id team_id workflow_id user_id status model "
    "model_provider input output n_messages n_tool_calls n_tool_errors input_tokens output_tokens cache_read_tokens "
    "cache_write_tokens reasoning_tokens total_tokens cost cost_source duration_s time_to_first_token_s error created_at "
    "finished_at",
    "messages": "session_id run_id run_index message_index message_id role content tool_call_id tool_name model input_tokens "
    "output_tokens cost cost_source created_at",
    "tool_calls": "session_id run_id run_index message_index tool_call_id tool_name caller args result status is_error "
    "duration_s created_at",
    "scores": "session_id run_id name value",
}
OF_LINEAGE = ("runs", "messages", "tool_calls")


def frame(store, name, *args, **filters):
    """Return a frame by name."""
    return getattr(store, f"{name}_df")(*args, **filters)


def check_shape(result: pd.DataFrame, name: str, *, inherited: bool = False) -> None:
    """Check columns, order, dtypes and index."""
    columns = [*FRAMES[name], INHERITED] if inherited else FRAMES[name]
    assert list(result.columns) == [column.name for column in columns]
    assert {c: str(result[c].dtype) for c in result} == {column.name: DTYPES[column.kind] for column in columns}
    for column in columns:
        if DTYPES[column.kind] == "string":
            assert result[column.name].dtype.na_value is pd.NA
    assert result.index.equals(pd.RangeIndex(len(result)))


@pytest.mark.parametrize("name", list(DOCUMENTED))
def test_columns_are_the_documented_ones(name):
    """Names and order are a promise to users."""
    assert [column.name for column in FRAMES[name]] == DOCUMENTED[name].split()


def test_frames_of_a_store_without_tables_have_their_columns(store):
    """Before the first write the frames are empty, and reading creates nothing."""
    for name in DOCUMENTED:
        result = frame(store, name)

        assert len(result) == 0
        check_shape(result, name)
        check_shape(frame(store, name, "no such", user_id="u", agent_id="a", since="2026-01-01", limit=1), name)
    assert not store.is_there() or all_rows(store) == {}


def test_frames_of_empty_tables_have_their_columns(store):
    """Empty tables have the same dtypes as full ones."""
    store.append_run("chat", a_run())
    store.delete_session("chat")
    for name in DOCUMENTED:
        result = frame(store, name)

        assert len(result) == 0
        check_shape(result, name)


def test_full_frames_have_their_columns(store):
    """With values in every column, and with lineage."""
    a_session(store, agent_id="a", user_id="u")
    store.add_score("chat", "reward", 1)
    store.branch("chat", after=1, new_session_id="branch")
    store.append_run("branch", a_run())
    for name in DOCUMENTED:
        result = frame(store, name)

        assert len(result) > 0
        check_shape(result, name)
    for name in OF_LINEAGE:
        result = frame(store, name, "branch", lineage=True)

        check_shape(result, name, inherited=True)
        assert result.inherited.any()
        assert not result.inherited.all()


def test_columns_without_a_value_have_their_dtype_and_are_missing(store):
    """Unknown values are pd.NA in a column of its own dtype: never 0, never an object column of None."""
    store.save_session(Session(session_id="s"))
    store.append_run("s", Run())
    sessions, runs = store.sessions_df(), store.runs_df()
    check_shape(sessions, "sessions")
    check_shape(runs, "runs")
    existing = {
        "session_id",
        "session_type",
        "n_runs",
        "n_messages",
        "n_tool_calls",
        "n_tool_errors",
        "status",
        "created_at",
    }
    existing |= {"run_index", "run_id", "run_type", "updated_at"}
    for result in (sessions, runs):
        row = result.iloc[0]
        for column in result:
            assert (column in existing) is not pd.isna(row[column]), column
            if column not in existing:
                assert result[column].array[0] is pd.NA or result[column].array[0] is pd.NaT, column


def test_keys_join_the_frames(store):
    """session_id and run_id are in every row, so that merges lose no rows."""
    for name in ("a", "b"):
        a_session(store, name)
    runs, messages, calls = store.runs_df(), store.messages_df(), store.tool_calls_df()

    assert len(messages.merge(runs, on=["session_id", "run_id", "run_index"])) == len(messages) == 24
    assert len(calls.merge(messages, on=["run_id", "message_index"])) == len(calls) == 6
    assert len(runs.merge(store.sessions_df(), on="session_id")) == len(runs) == 6
