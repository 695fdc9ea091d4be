"""The notebook that branches and runs again: it runs, also twice, and shows what its text says."""

from __future__ import annotations

import ast
import re

import pytest
from notebook_runs import differing, prose, require_clean, require_quiet, run_twice, text

NAME = "branch_and_rerun.ipynb"

ON_TIME = {"show", "branch", "rerun", "go-on", "message", "tree"}
"""The cells that show how long something took, or when it was."""


def test_the_committed_notebook_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, no cell that means to fail."""
    require_clean(NAME, failing=[])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Its cells after a first and a second run in one folder."""
    return run_twice(tmp_path_factory.mktemp("branch"), NAME)


def test_a_second_run_shows_the_same(runs):
    """Only times are others."""
    require_quiet(runs, failing=set())
    assert differing(runs) <= ON_TIME


def test_the_failing_run_is_identified(runs):
    """Four sessions have no reward, and one of them no failed call."""
    rows = [line.split()[1:] for line in text(runs[0], "find").splitlines()[1:]]

    assert [row[0] for row in rows if row[3] == "0"] == ["novice-refund-two-items-0"]
    assert len(rows) == 4
    assert prose(NAME, "find-after").startswith("Four of eight. In one of them no tool call failed")


def test_a_branch_restores_the_orders_and_keeps_the_original(runs):
    """Before the refund all is there; what is done in a branch is done there alone."""
    kept = {
        cell: ast.literal_eval(text(runs[0], cell))
        for cell in ("state", "branch-state", "go-on-state", "message-state", "original-state")
    }

    assert kept["branch-state"] == {"pillow": 25.0, "blanket": 45.0, "lamp shade": 18.0}
    assert kept["state"] == kept["original-state"] == {"lamp shade": 18.0}
    assert kept["go-on-state"] == kept["message-state"] == {"blanket": 45.0}
    assert text(runs[0], "original") == "True"


def test_another_agent_or_message_fixes_the_run(runs):
    """Both reruns end with a reward, are beside the original, and say what they are."""
    first = runs[0]

    assert [text(first, cell) for cell in ("rate", "message-rate")] == ["1.0", "1.0"]
    assert re.search(r"^reward +0\.0 +1\.0 +b$", text(first, "compare"), re.MULTILINE)
    assert "Rerun of novice-refund-two-items-0/1 as by-the-expert/1, by expert: COMPLETED" in text(first, "rerun")
    assert "other-words/0 to other-words/1 (2 runs), by novice, with a new message" in text(first, "message")
    assert [line.split() for line in text(first, "provenance").splitlines()[2:]] == [
        ["by-the-expert", "expert", "{}", "1"],
        ["other-words", "novice", '{"message":', "true}", "0"],
    ]


def test_the_tree_is_stored_for_lab_and_static_viewers(runs):
    """As a chart, as a picture and as text."""
    (output,) = runs[0]["tree"]

    assert set(output["data"]) == {"application/vnd.vega.v5+json", "image/png", "text/plain"}
