"""The tour: clean as it is committed, and running from top to bottom in a kernel of its own, also twice."""

from __future__ import annotations

import pytest
from notebook_runs import differing, require_clean, require_quiet, run_twice


def test_the_committed_tour_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, one cell that means to fail."""
    require_clean("tour.ipynb", failing=["error"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The tour's cells after a first and a second run in one folder."""
    return run_twice(tmp_path_factory.mktemp("tour"), "tour.ipynb")


def test_only_the_intended_cell_fails(runs):
    """Nothing on stderr either."""
    require_quiet(runs, failing={"error"})


def test_an_error_is_two_lines_in_a_real_kernel(runs):
    """What is saved in the notebook is the type, the message and the hint."""
    (error,) = runs[0]["error"]

    assert error["ename"] == "BadUsage"
    assert len(error["traceback"]) == 2
    assert "Did you mean 'sessions'?" in error["traceback"][1]


def test_silent_verbs_leave_no_output(runs):
    """Loading, attaching, detaching and assigning show nothing."""
    assert [runs[0][name] for name in ("attach", "count-before", "detach")] == [[], [], []]


def test_results_are_stored_as_text_and_html(runs):
    """So that a notebook can be read where nothing runs."""
    for name in ("import", "sessions", "show", "branch", "show-branch", "check"):
        (output,) = runs[0][name]
        assert set(output["data"]) == {"text/plain", "text/html"}
        assert "object at 0x" not in "".join(output["data"]["text/plain"])


def test_a_second_run_shows_the_same(runs):
    """Whatever the first one left behind; only times, and the id of what waits, are others."""
    assert differing(runs) <= {"branch", "inbox", "go-on"}
