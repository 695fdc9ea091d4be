"""`%kern import --mine`, `%kern formats` and `%kern cost`, on the sessions of an imaginary user."""

from __future__ import annotations

import os
from unittest.mock import patch

import pytest
from notebook_runs import NOTEBOOKS

import kern_nb
from kern_nb.errors import BadUsage, NoStore, RecordsNotFound


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder, with sessions of Claude Code, Codex and pi; nothing of this machine's."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    from sample_sessions import make, move_in

    with patch.dict(os.environ):
        move_in(make(tmp_path / "home"))
        yield tmp_path / "home"


@pytest.fixture
def imported(notebook, home, memory):
    """A store with all of them, in use."""
    notebook.run("%kern import --mine")
    return memory


def test_list_imports_nothing(notebook, home):
    """It needs no store; `--from` and `--since` narrow it."""
    listed = notebook.run("%kern import --mine --list")

    assert list(listed.df["format"]) == ["claude_code", "codex", "pi"]
    assert list(listed.df["n_files"]) == [3, 2, 1]
    assert "~/.claude" in repr(listed)
    assert "~/.claude" in listed._repr_html_()
    assert str(home) not in listed._repr_html_()
    assert list(notebook.run("%kern import --from pi,claude-code --list").df["format"]) == ["pi", "claude_code"]
    assert list(notebook.run("%kern import --mine --list --since 2026-05-06").df["format"]) == ["codex"]


def test_mine_imports_what_is_new(notebook, home, memory):
    """Of some programs, then of all, then nothing."""
    codex = notebook.run("%kern import --from codex")
    everything = notebook.run("%kern import --mine")
    again = notebook.run("%kern import --mine")

    assert (codex.sessions, codex.branches) == (2, 1)
    assert (everything.sessions, everything.branches, everything.skipped) == (3, 1, 2)
    assert (again.sessions, again.runs, again.skipped) == (0, 0, 5)
    assert repr(again) == "Nothing new: skipped 5 sessions already stored."
    assert "Nothing new" in again._repr_html_()
    assert "1 of the sessions is a branch of another" in everything._repr_html_()
    assert len(memory.list_sessions()) == 5


def test_mine_accepts_a_store_and_a_time(notebook, home, memory):
    notebook.run("%kern attach :memory: --as other")
    report = notebook.run("%kern import --mine --since 2026-05-05T12:00 --store memory")

    assert report.sessions == 2
    assert len(memory.list_sessions()) == 2
    assert kern_nb.current_store().list_sessions() == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("", "PATH, or --mine"),
        ("--list", "PATH, or --mine"),
        ("--follow", "PATH, or --mine"),
        ("x.json --mine", "take no PATH"),
        ("x.json --from codex", "take no PATH"),
        ("--mine --format codex", "no --format"),
        ("--from ,", "names no program"),
        ("x.json --list", "--list needs --mine"),
        ("--mine --list --follow", "no --follow"),
        ("x.json --follow --format chat", "takes no --format"),
        ("--from tau2", "usual folder of 'tau2' is unknown"),
        ("--from codecs --list", "'codecs'"),
    ],
)
def test_options_that_do_not_fit_are_errors(notebook, home, memory, line, hint):
    """Two lines: what is wrong, and what to type."""
    error, lines = notebook.fails(f"%kern import {line}")

    assert type(error) is BadUsage
    assert hint in str(error)
    assert len(lines) == 2
    assert memory.list_sessions() == []


def test_what_is_missing_is_named(notebook, home):
    """A store, or sessions of a program."""
    assert type(notebook.fails("%kern import --mine")[0]) is NoStore
    notebook.run("%kern attach :memory:")
    error, lines = notebook.fails("%kern import --from opencode")

    assert type(error) is RecordsNotFound
    assert "no sessions of opencode" in lines[0]
    assert "%kern formats" in lines[1]


def test_formats_are_listed_with_their_places(notebook):
    """As text and as markup; the frame also has the variables that move a folder."""
    table = notebook.run("%kern formats")

    assert {"codex", "otel", "chat"} <= set(table.df["name"])
    assert "sessions of the Codex CLI" in repr(table)
    assert "~/.claude/projects/**/*.jsonl" in table._repr_html_()
    assert "CODEX_HOME" in table.df.set_index("name").loc["codex", "locations"]


def test_cost_by_model_and_day(notebook, imported):
    """As a table and as a plot; what pi states is not estimated."""
    costs = notebook.run("%kern cost --by model,day")
    plot = notebook.run("%kern cost --by model,day --plot")

    assert list(costs.df.columns[:2]) == ["model", "day"]
    assert costs.df["stated"].sum() == pytest.approx(0.01)
    assert (costs.df["cost"] > 0).all()
    assert "Input tokens include cache reads and writes." in repr(costs)
    assert list(plot.df["day"]) == list(costs.df["day"])
    assert "US dollars" in str(plot._repr_mimebundle_())


def test_cost_can_be_narrowed_and_saved(notebook, imported):
    """Sessions by a key of their metadata; saved estimates are in the frames."""
    costs = notebook.run("%kern cost --by cwd --where cwd=/home/kim/weather --save")

    assert list(costs.df["cwd"]) == ["/home/kim/weather"]
    sources = imported.sessions_df().groupby("agent_id")["cost_source"].unique().map(list).to_dict()
    assert sources == {"claude-code": ["unknown"], "codex": ["estimated"], "pi": ["stated"]}
    assert "No session matches" in str(notebook.fails("%kern cost --since 2027-01-01")[0])
