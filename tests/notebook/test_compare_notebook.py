"""The notebook that compares two models: it runs, also twice, and shows what its text says."""

from __future__ import annotations

import re

import pytest
from notebook_runs import differing, prose, require_clean, require_quiet, run_twice, text

NAME = "compare_models.ipynb"

ON_TIME = {"which", "which-plot", "sessions", "transcript", "worse", "digest", "digest-group"}
"""The cells that show how long something took, or when it was."""


def test_the_committed_notebook_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, no cell that means to fail."""
    require_clean(NAME, failing=[])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Its cells after a first and a second run in one folder."""
    return run_twice(tmp_path_factory.mktemp("compare"), NAME)


def test_a_second_run_shows_the_same(runs):
    """The sample is the same each time; only times are others."""
    require_quiet(runs, failing=set())
    assert differing(runs) <= ON_TIME


def test_the_expert_is_better_and_the_text_has_its_numbers(runs):
    """Success rates and pass^3 of both models, as the table has them, rounded in the text; the verdict; no cost."""
    table = text(runs[0], "which")
    rates = {
        row[0]: row
        for row in re.findall(r"^(\S+) .*?([\d.]+)% .*?([\d.]+)% .*?[\d.]+% +([\d.]+)%", table, re.MULTILINE)
    }

    assert rates == {"novice-1": ("novice-1", "54.2", "54.2", "25.0"), "expert-1": ("expert-1", "91.7", "91.7", "75.0")}
    assert re.search(r"^reward +0\.542 +0\.917 .*✓ better", table, re.MULTILINE)
    assert re.search(r"^tokens .*≈ no clear difference", table, re.MULTILINE)
    assert re.search(r"^tool errors .*≈ no clear difference", table, re.MULTILINE)
    assert "Cost: unknown for all sessions." in table
    assert re.findall(r"\d+%", prose(NAME, "which-after")) == ["54%", "92%", "25%", "75%"]


def test_the_tasks_in_the_text_match_the_results(runs):
    """Gained most, even, and lost."""
    rows = [line.split() for line in text(runs[0], "where").splitlines() if re.search(r"\d", line)]
    delta = {task: float(delta) for task, _, _, delta in rows}

    assert len(delta) == 8
    assert rows[0] == ["refund-two-items", "0.0", "1.0", "1.0"]
    assert [task for task in delta if delta[task] == 0] == ["refund-mugs"]
    assert [task for task in delta if delta[task] < 0] == ["change-address"]
    assert re.findall(r"`([\w-]+)`", prose(NAME, "where-after")) == [
        "refund-two-items",
        "refund-mugs",
        "change-address",
    ]


def test_the_reasons_are_displayed(runs):
    """Which tools failed, where the two part, what the novice did, how the expert was lost."""
    first = runs[0]

    assert [line.split()[1:] for line in text(first, "tools").splitlines()[1:]] == [
        ["novice-1", "find_order", "38", "17"],
        ["expert-1", "find_order", "41", "5"],
        ["novice-1", "change_address", "4", "1"],
    ]
    assert text(first, "divergence") == "'novice-refund-two-items-0/1.4'"
    assert 'refund_item(order_id="1048", item="blanket")' in text(first, "transcript")
    assert 'find_order(order_id="#1042")' in text(first, "worse")
    assert "24 sessions" in text(first, "digest-group")


@pytest.mark.parametrize("cell", ["which-plot", "tools-plot"])
def test_plots_are_stored_for_lab_and_static_viewers(runs, cell):
    """As a chart, as a picture and as text."""
    (output,) = runs[0][cell]

    assert set(output["data"]) == {"application/vnd.vega.v5+json", "image/png", "text/plain"}
