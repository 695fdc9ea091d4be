"""pass^k: the chance that k trials of a task all succeed, by the unbiased estimator comb(c, k) / comb(n, k)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trials import row, save_trials, table

from kern_nb.analysis.groups import compare_groups
from kern_nb.analysis.groups.statistics import pass_hat_k
from kern_nb.db import InMemoryDb

# Four trials each. Worked by hand: comb(c, k) / comb(4, k).
#
#   task   c   k=1   k=2   k=3   k=4
#   A      4   1     1     1     1
#   B      3   3/4   3/6   1/4   0
#   C      2   2/4   1/6   0     0
#   D      0   0     0     0     0
#   sum        9/4   10/6  5/4   1
#   mean       9/16  5/12  5/16  1/4
EQUAL = [(4, 4), (4, 3), (4, 2), (4, 0)]
EQUAL_PASS = {1: Fraction(9, 16), 2: Fraction(5, 12), 3: Fraction(5, 16), 4: Fraction(1, 4)}

# Unequal numbers of trials. A task with fewer than k does not count for k.
#
#   task   n   c   k=1   k=2   k=3
#   A      3   2   2/3   1/3   0
#   B      2   2   1     1     -
#   C      1   0   0     -     -
#   D      1   1   1     -     -
#   keys           4     2     1
#   mean           2/3   2/3   0
UNEQUAL = {"A": [1, 1, 0], "B": [1, 1], "C": [0], "D": [1]}
UNEQUAL_PASS = {1: (Fraction(2, 3), 4), 2: (Fraction(2, 3), 2), 3: (Fraction(0), 1)}


@pytest.mark.parametrize("k", EQUAL_PASS)
def test_pass_k_matches_a_table_by_hand(k):
    """Four tasks, four trials each."""
    found = pass_hat_k(EQUAL, k)

    assert found.value == pytest.approx(float(EQUAL_PASS[k]), abs=1e-15)
    assert found.n_keys == 4


def test_unequal_numbers_of_trials():
    """A key with fewer than k trials says nothing about k, and how many do is told."""
    pairs = [(len(rewards), sum(rewards)) for rewards in UNEQUAL.values()]
    found = {k: pass_hat_k(pairs, k) for k in (1, 2, 3)}

    assert {k: (pytest.approx(float(value)), n) for k, (value, n) in UNEQUAL_PASS.items()} == found
    assert pass_hat_k(pairs, 4) == (None, 0)
    assert pass_hat_k([], 1) == (None, 0)


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=5), st.integers(1, 6))
def test_pass_k_is_the_share_of_successful_subsets(tasks, k):
    """The estimator is what counting every choice of k trials gives."""
    shares = [
        Fraction(sum(all(chosen) for chosen in combinations(task, k)), len(list(combinations(task, k))))
        for task in tasks
        if len(task) >= k
    ]
    found = pass_hat_k([(len(task), sum(task)) for task in tasks], k)

    assert found.n_keys == len(shares)
    assert found.value == (pytest.approx(float(sum(shares) / len(shares))) if shares else None)


def test_thousand_trials_of_a_key():
    """The numbers of choices are longer than a float is wide."""
    assert pass_hat_k([(2000, 1999)], 1000).value == pytest.approx(0.5)


def test_pass_k_in_a_comparison():
    """Each group has pass_1 to pass_k up to the most trials of any key of any group; success_rate is of sessions."""
    with InMemoryDb() as store:
        save_trials(store, "a", UNEQUAL)
        save_trials(store, "b", {"A": [1], "B": [0]})
        found = compare_groups(store)
    a, b = row(found.groups, group="a"), row(found.groups, group="b")

    assert [name for name in found.groups.columns if name.startswith("pass_")] == ["pass_1", "pass_2", "pass_3"]
    assert [a["pass_1"], a["pass_2"], a["pass_3"]] == [pytest.approx(float(v)) for v, _ in UNEQUAL_PASS.values()]
    assert [b["pass_1"], b["pass_2"], b["pass_3"]] == [0.5, None, None]
    assert (a["success_rate"], b["success_rate"]) == (pytest.approx(5 / 7), 0.5)
    assert [row[3] for row in table(found.pass_k)] == [4, 2, 1, 2, 0, 0]


def test_success_threshold():
    """A reward that floats make 0.9999999 is one; with a lower bar, so is half a point. Unscored trials do not count."""
    with InMemoryDb() as store:
        save_trials(store, "a", {"A": [0.9999999, 0.99, None], "B": [1.0000001]})
        save_trials(store, "b", {"A": [0.5], "B": [0.4]})
        strict, easy = compare_groups(store), compare_groups(store, success=0.5)

    assert table(strict.groups[["n_sessions", "n_scored", "success_rate"]]) == [(4, 3, pytest.approx(2 / 3)), (2, 2, 0)]
    assert table(easy.groups["success_rate"].to_frame()) == [(1,), (0.5,)]
    assert row(strict.groups, group="a")["pass_2"] == 0
