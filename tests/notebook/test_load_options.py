"""`%kern load --columns --expand`: what is chosen of a frame, from the line, and what Tab offers for it."""

from __future__ import annotations

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter

from kern_nb.errors import BadUsage
from kern_nb.magics import completion_sources
from kern_nb.records import Session


@pytest.fixture
def tasks(chats):
    """Sessions with metadata and a state."""
    chats.save_session(
        Session(
            session_id="alpha",
            metadata={"task_id": "t1", "a.b": 1, "": 2},
            session_data={"session_state": {"step": 3}},
        )
    )
    chats.save_session(Session(session_id="alps", metadata={"task_id": None, "model": "m"}))
    return chats


def test_load_returns_the_selected_columns(notebook, tasks):
    """In the order of the line, of every frame; the same as in Python."""
    result = notebook.run("%kern load runs --columns total_tokens,run_id")

    pd.testing.assert_frame_equal(result, tasks.runs_df(columns=["total_tokens", "run_id"]))
    for frame in ("sessions", "runs", "messages", "tool_calls", "scores"):
        assert list(notebook.run(f"%kern load {frame} --columns session_id")) == ["session_id"]


def test_load_expands_values(notebook, tasks):
    """Beside all columns or the chosen ones, with filters."""
    result = notebook.run("%kern load sessions --columns session_id --expand metadata.task_id,state.step --user alice")

    assert result.to_dict("list") == {"session_id": ["alpha"], "metadata.task_id": ["t1"], "state.step": ["3"]}
    result = notebook.run("%kern load tool_calls --expand args.order_id,metadata.task_id --limit 1")
    assert list(result)[-2:] == ["args.order_id", "metadata.task_id"]
    assert result.iloc[0, -2:].tolist() == ["W1", "t1"]


def test_a_list_may_have_spaces_within_quotes(notebook, tasks):
    """As one writes lists."""
    assert list(notebook.run('%kern load runs --columns "run_id, status"')) == ["run_id", "status"]


def test_unknown_columns_and_paths_are_refused_with_a_hint(notebook, tasks):
    """By our own error, with what was probably meant."""
    for line, hint in (
        ("runs --columns run_id,stats", "'status'"),
        ("runs --columns run_id,", "Its columns are"),
        ("runs --columns ''", "Its columns are"),
        ("runs --expand metdata.task_id", "'metadata'"),
        ("runs --expand metadata", "metadata.task_id"),
    ):
        with pytest.raises(BadUsage) as error:
            notebook.run(f"%kern load {line}")
        assert hint in error.value.hint


def test_columns_and_json_paths_complete(notebook, tasks, monkeypatch):
    """Names that are on the list are not offered again; keys that a line cannot have are left out."""
    monkeypatch.setattr(completion_sources, "BUDGET_S", 20)
    monkeypatch.setattr(completion_sources, "_cache", completion_sources.Cache())

    def tab(text: str) -> list[str]:
        with provisionalcompleter():
            return [text[: item.start] + item.text for item in notebook.shell.Completer.completions(text, len(text))]

    start = "df = %kern load runs --columns "
    assert tab(start + "total") == [start + "total_tokens"]
    assert tab(start + "status,total") == [start + "status,total_tokens"]
    assert start + "status,status" not in tab(start + "status,s")
    start = "%kern load runs --expand "
    assert tab(start) == [
        start + name for name in ("metadata.model", "metadata.task_id", "state.step", "args.")
    ] or tab(start) == [start + name for name in ("metadata.task_id", "metadata.model", "state.step", "args.")]
    assert tab(start + "state.step,me") == [start + f"state.step,metadata.{key}" for key in ("task_id", "model")]
