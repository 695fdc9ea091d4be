"""The notebook about agents and databases of other programs: it runs, also twice, and shows what its text says."""

from __future__ import annotations

import pytest
from notebook_runs import differing, require_clean, require_quiet, run_twice, text

NAME = "bring_your_agents.ipynb"


def test_the_committed_notebook_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, no cell that means to fail."""
    require_clean(NAME, failing=[])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Its cells after a first and a second run in one folder."""
    return run_twice(tmp_path_factory.mktemp("agents"), NAME)


def test_a_second_run_shows_the_same(runs):
    require_quiet(runs, failing=set())
    assert differing(runs) <= {"run", "approve", "resume", "all"}  # with times and ids


def test_the_database_is_read_in_place(runs):
    first = runs[0]
    assert "parcel-with-tool" in text(first, "stores")
    assert "in Porto, out for delivery" in text(first, "show")
    assert "Are you sure?" in text(first, "refresh")
    assert text(first, "import").startswith("Stored 2 sessions, 3 runs")


def test_the_paused_run_of_an_attached_agent_is_in_the_inbox_and_completes(runs):
    first = runs[0]
    assert "refund" in text(first, "run")
    assert "1 bank transfer, 2 voucher" in str(first["run"])
    assert "1 more pending" in text(first, "approve")
    assert "%kern continue parcel-lost/0 --agent clerk" in text(first, "answer")
    assert "COMPLETED" in text(first, "resume")
    assert "I have refunded 12.50" in text(first, "resume")
    assert "voucher" in str(first["resume"])
    assert "parcel-lost" in text(first, "all")
