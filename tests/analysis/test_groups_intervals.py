"""The interval of a paired mean difference: the percentile bootstrap, over keys."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kern_nb.analysis.groups.statistics import mean_interval


def every_resample(values):
    """The means of all ways to draw as many values with replacement, sorted."""
    return sorted(math.fsum(chosen) / len(values) for chosen in product(values, repeat=len(values)))


def percentile(means, share):
    """The value below which a share of sorted means lies, in between where it falls between two."""
    at = share * (len(means) - 1)
    low = math.floor(at)
    return means[low] + (at - low) * (means[min(low + 1, len(means) - 1)] - means[low])


def test_interval_of_four_pairs_matches_all_256_resamples():
    """With so few, every resample can be listed: the percentiles of these are met within the chance of the draws."""
    deltas = [-1.0, 0.5, 2.0, 7.0]
    means = every_resample(deltas)
    low, high = mean_interval(deltas, 0.8)

    assert len(means) == 256
    assert (low, high) == (
        pytest.approx(percentile(means, 0.1), abs=0.1),
        pytest.approx(percentile(means, 0.9), abs=0.1),
    )
    # The draws take the means that there are, no others.
    assert min(abs(low - mean) for mean in means) < 0.05


def test_interval_matches_a_plain_bootstrap():
    """A loop over the random module, with other draws, ends up at the same ends."""
    chance = random.Random(7)
    deltas = [chance.gauss(1, 3) for _ in range(60)]
    means = sorted(math.fsum(chance.choices(deltas, k=60)) / 60 for _ in range(20_000))
    low, high = mean_interval(deltas, 0.95)
    width = high - low

    assert low == pytest.approx(percentile(means, 0.025), abs=0.04 * width)
    assert high == pytest.approx(percentile(means, 0.975), abs=0.04 * width)


def test_interval_coverage_matches_the_confidence():
    """Of 90 % intervals of samples of 40, nine in ten hold the mean they were drawn from."""
    chance = random.Random(11)
    held = 0
    for _ in range(200):
        low, high = mean_interval([chance.gauss(2, 1) for _ in range(40)], 0.9)
        held += low <= 2 <= high

    assert 0.82 <= held / 200 <= 0.96


@settings(max_examples=20)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_interval_is_deterministic(deltas):
    """It is drawn from a generator that always starts at the same place; it is within the data, and around the mean."""
    low, high = mean_interval(deltas)
    slack = 1e-9 * max(map(abs, deltas))

    assert (low, high) == mean_interval(deltas)
    assert min(deltas) - slack <= low <= high <= max(deltas) + slack


def test_higher_confidence_widens_the_interval():
    """Confidence is what the interval is asked for."""
    deltas = [float(n) for n in range(20)]
    narrow, wide = mean_interval(deltas, 0.5), mean_interval(deltas, 0.99)

    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_degenerate_data():
    """One pair has no interval; differences that are all the same are the interval, without a warning."""
    assert mean_interval([]) is None
    assert mean_interval([3.0]) is None
    assert mean_interval([0.1, 0.1, 0.1]) == (0.1, 0.1)
    assert mean_interval([0.0, 0.0]) == (0.0, 0.0)


def test_many_pairs_are_fast():
    """So many are drawn less often, in parts that fit into memory; the interval is that of the normal distribution."""
    chance = random.Random(3)
    deltas = [chance.gauss(0, 1) for _ in range(20_000)]
    mean = math.fsum(deltas) / len(deltas)
    half = 1.96 / math.sqrt(len(deltas))

    assert mean_interval(deltas) == (pytest.approx(mean - half, abs=half / 6), pytest.approx(mean + half, abs=half / 6))
