"""Statistics of a group comparison: pass^k, and the bootstrap interval of a paired mean difference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

SEED = 20_240_617
"""The seed of the bootstrap: the same data give the same interval."""

_MAX_DRAWS = 5_000_000
_BATCH_DRAWS = 500_000


class PassHatK(NamedTuple):
    """pass^k over keys.

    Attributes:
        value: The estimate; None where no key has k trials.
        n_keys: The keys with at least k trials, over which it is averaged.
    """

    value: float | None
    n_keys: int


def pass_hat_k(trials: Iterable[tuple[int, int]], k: int) -> PassHatK:
    """Estimate the probability that k trials of the same key all succeed, averaged over the keys.

    For a key with n trials of which c succeeded, ``comb(c, k) / comb(n, k)`` is the unbiased estimate: the share of the
    subsets of k trials that have successes only. Keys with fewer than k trials are left out, so with unequal numbers of
    trials the keys may differ between values of k.

    Source: Yao et al., "tau-bench: A Benchmark for Tool-Agent-User Interaction in Real-World Domains", 2024,
    arXiv:2406.12045, section 2.

    Args:
        trials: For each key the number of trials and of successes.
        k: The number of trials that must all succeed; 1 or more.
    """
    counts = Counter((n, c) for n, c in trials if n >= k)
    n_keys = counts.total()
    if not n_keys:
        return PassHatK(None, 0)
    chances = (keys * (math.comb(c, k) / math.comb(n, k)) for (n, c), keys in sorted(counts.items()))
    return PassHatK(math.fsum(chances) / n_keys, n_keys)


def mean_interval(deltas: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Compute the percentile bootstrap interval of the mean of paired differences.

    Keys are resampled with replacement, each with the mean of its trials; sessions are not, as trials of one key are
    not independent. The interval leaves out half of ``1 - confidence`` of the resampled means at either end. With few
    pairs it is too narrow; of equal differences it is that difference twice.

    Args:
        deltas: One difference a key, none of them missing.
        confidence: With 0.95, 95 % of such intervals contain the mean they estimate.

    Returns:
        The bounds; None for fewer than two pairs, which have no variance.
    """
    from scipy.stats import bootstrap

    n = len(deltas)
    if n < 2:  # noqa: PLR2004 - one value has no variance
        return None
    values = np.asarray(deltas, dtype=float)
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=max(999, min(9_999, _MAX_DRAWS // n)),  # fewer for many pairs
        batch=max(1, _BATCH_DRAWS // n),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    # A sum of tenths may be 1e-17 in place of 0, and the interval would exclude 0.
    noise = 1e-12 * float(np.abs(values).max())
    low, high = (0.0 if abs(end) < noise else float(end) for end in (interval.low, interval.high))
    return low, high
