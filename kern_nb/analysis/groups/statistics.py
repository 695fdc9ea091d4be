"""The two statistics of a comparison of groups: pass^k, and the bootstrap interval of a paired mean difference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SEED = 20_240_617
"""The bootstrap draws from a generator that starts here each time: the same data give the same interval."""

_FEWEST, _MOST = 999, 9_999
_DRAWS = 5_000_000
_AT_ONCE = 500_000


class PassHatK(NamedTuple):
    """pass^k over keys.

    Attributes:
        value: The estimate; None where no key has k trials.
        n_keys: The keys with at least k trials, over which it is averaged.
    """

    value: float | None
    n_keys: int


def pass_hat_k(trials: Iterable[tuple[int, int]], k: int) -> PassHatK:
    """The chance that k trials of the same key all succeed, averaged over the keys.

    Of a key with n trials of which c succeeded, ``comb(c, k) / comb(n, k)`` estimates it without bias: the share of the
    ways to choose k of the trials that chooses successes only. A key with fewer than k trials says nothing of k and
    does not count; so with unequal numbers of trials each k may be about other keys.

    Source: Yao et al., "tau-bench: A Benchmark for Tool-Agent-User Interaction in Real-World Domains", 2024,
    arXiv:2406.12045, section 2.

    Args:
        trials: For each key its number of trials and how many of them succeeded.
        k: How many trials must all succeed; 1 or more.
    """
    counts = Counter((n, c) for n, c in trials if n >= k)
    n_keys = counts.total()
    if not n_keys:
        return PassHatK(None, 0)
    chances = (keys * (math.comb(c, k) / math.comb(n, k)) for (n, c), keys in sorted(counts.items()))
    return PassHatK(math.fsum(chances) / n_keys, n_keys)


def resamples(n: int) -> int:
    """How many bootstrap samples are drawn of n pairs: 9,999, and down to 999 where there are many pairs."""
    return max(_FEWEST, min(_MOST, _DRAWS // n))


def mean_interval(deltas: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean of paired differences.

    The pairs are drawn with replacement, each a key with the mean of its trials: trials of one key are not independent
    of each other, so keys are resampled, never sessions. The interval is between the percentiles of the means that
    leave out half of ``1 - confidence`` at either end.

    With few pairs such an interval is too narrow. Of differences that are all the same it is that difference twice.

    Args:
        deltas: One difference a key, none of them missing.
        confidence: Of 0.95, 95 % of such intervals hold the mean they estimate.

    Returns:
        Its ends; None of fewer than two pairs, which say nothing about how much pairs differ.
    """
    import numpy as np
    from scipy.stats import bootstrap

    n = len(deltas)
    if n < 2:  # noqa: PLR2004 - that is what there is to draw from
        return None
    values = np.asarray(deltas, dtype=float)
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples(n),
        batch=max(1, _AT_ONCE // n),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    # A sum of tenths that should be 0 comes out as 1e-17, which would be on one side of it.
    noise = 1e-12 * float(np.abs(values).max())
    low, high = (0.0 if abs(end) < noise else float(end) for end in (found.low, found.high))
    return low, high
