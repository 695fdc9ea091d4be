"""The notebook about the sessions of other programs: it runs, also twice, and shows what its text says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from notebook_runs import NOTEBOOKS, differing, prose, require_clean, require_quiet, run_twice, text

NAME = "your_own_sessions.ipynb"


def test_the_committed_notebook_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, no cell that means to fail."""
    require_clean(NAME, failing=[])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Its cells after a first and a second run in one folder."""
    return run_twice(tmp_path_factory.mktemp("own"), NAME)


def test_a_second_run_shows_the_same(runs):
    """Also in another temporary folder."""
    require_quiet(runs, failing=set())
    assert differing(runs) == set()


def test_the_programs_of_the_sample_are_listed(runs):
    """Nothing of the machine that runs it."""
    rows = [line.split()[:3] for line in text(runs[0], "list").splitlines()[2:]]

    assert rows == [["claude_code", "~/.claude", "3"], ["codex", "~/.codex", "2"], ["pi", "~/.pi/agent", "1"]]


def test_branches_are_recognized_and_a_second_import_adds_nothing(runs):
    first = runs[0]

    assert text(first, "import").startswith("Stored 5 sessions, 9 runs, 50 messages, 16 tool calls.")
    assert "2 of the sessions are branches of others" in text(first, "import")
    assert prose(NAME, "import-after").startswith("Two of the five sessions are *branches*.")
    assert text(first, "again") == "Nothing new: skipped 5 sessions already stored."
    assert text(first, "python") == "(0, 0)"


def test_what_is_not_imported_is_reported(runs):
    report = text(runs[0], "exports")

    assert "chats.jsonl:2: Invalid JSON" in report
    assert "settings.json" in report


def test_the_nested_agent_is_shown_with_its_run(runs):
    lines = text(runs[0], "show").splitlines()

    assert [line.split(":")[0] for line in lines if line.startswith("Run")] == ["Run 2", "Run 3"]
    assert "member of run 2" in text(runs[0], "show")


def test_only_pi_states_a_cost(runs):
    """The rows of one day have both kinds; each row has a cost."""
    rows = [line.split() for line in text(runs[0], "cost").splitlines()[2:-1]]

    assert [row[-3] for row in rows] == ["—", "—", "0.0100", "—", "—", "0.0100"]
    assert all(float(row[-1]) > 0 for row in rows)
    assert "application/vnd.vega.v5+json" in runs[0]["cost-plot"][0]["data"]


@pytest.mark.parametrize("variable", ["CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_DATA_HOME"])
def test_the_folders_of_this_machine_are_hidden(variable, tmp_path, monkeypatch):
    """Variables of programs do not lead out of the folder."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    from sample_sessions import make, move_in

    import kern_nb

    monkeypatch.setattr(os, "environ", os.environ | {variable: str(tmp_path / "real")})
    move_in(make(tmp_path / "home"))

    assert variable not in os.environ
    assert all(tmp_path / "home" in Path(folder).parents for folder in kern_nb.local_sessions().df["folder"])
