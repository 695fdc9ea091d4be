"""From sessions with a group and a key to what is compared: groups, keys side by side, differences with intervals.

Everywhere the baseline is ``a`` and a contender is ``b``. Trials of a key are averaged first; a value that nobody knows
is left out of its mean, and never counted as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kern_nb.analysis.groups.statistics import mean_interval, pass_hat_k
from kern_nb.analysis.metric_directions import HIGHER, NEUTRAL, direction

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The dtypes of the store's frames.
TEXT, COUNT, NUMBER, FLAG = pd.StringDtype(), pd.Int64Dtype(), pd.Float64Dtype(), pd.BooleanDtype()

TOOK = {
    "tokens": "total_tokens",
    "cost": "cost",
    "time": "duration_s",
    "tool_calls": "n_tool_calls",
    "tool_errors": "n_tool_errors",
    "messages": "n_messages",
    "runs": "n_runs",
}
"""What sessions took: the metric, and the column of ``sessions_df`` it is."""

SUMMED = ("tokens", "cost", "time")
_MOST_K = 100
_SAME = 1e-9
"""Means that differ by less than this share of them are the same, and differ by how floats were added."""


def group_table(sessions: pd.DataFrame, groups: Sequence[str], pass_k: pd.DataFrame) -> pd.DataFrame:
    """One row a group; see `GroupComparison.groups`."""
    by = sessions.groupby("group", sort=False)
    made = pd.DataFrame(index=pd.Index(list(groups), dtype=TEXT))
    counts = {"n_sessions": by.size(), "n_keys": by["key"].nunique(), "n_scored": by["score"].count()}
    for name, count in counts.items():
        made[name] = count.reindex(made.index, fill_value=0).astype(COUNT)
    made["score"] = by["score"].mean().astype(NUMBER)
    made["success_rate"] = by["success"].mean().astype(NUMBER)
    for k, part in pass_k.groupby("k"):
        made[f"pass_{k}"] = part.set_index("group")["pass_k"]
    for name in TOOK:
        made[name] = by[name].mean().astype(NUMBER)
    for name in SUMMED:
        made[f"{name}_total"] = by[name].sum(min_count=1).astype(COUNT if name == "tokens" else NUMBER)
        made[f"{name}_known"] = by[name].count().reindex(made.index, fill_value=0).astype(COUNT)
    return made.rename_axis("group").reset_index().astype({"group": TEXT})


def pass_table(sessions: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """One row a group and k: ``group``, ``k``, ``pass_k``, ``n_keys``, up to the most trials that any key has."""
    scored = sessions[sessions["success"].notna()]
    trials = scored.groupby(["group", "key"], sort=False)["success"].agg(["size", "sum"]).astype(int)
    most = min(_MOST_K, int(trials["size"].max())) if len(trials) else 1
    rows: list[tuple[str, int, float | None, int]] = []
    for group in groups:
        mine = trials.loc[[group]] if group in trials.index.get_level_values(0) else trials.iloc[:0]
        pairs = list(zip(mine["size"].tolist(), mine["sum"].tolist(), strict=True))
        rows += [(group, k, *pass_hat_k(pairs, k)) for k in range(1, most + 1)]
    frame = pd.DataFrame(rows, columns=["group", "k", "pass_k", "n_keys"])
    return frame.astype({"group": TEXT, "k": COUNT, "pass_k": NUMBER, "n_keys": COUNT})


class Means:
    """What the trials of each key come to in each group.

    Args:
        sessions: One row a session, with ``group``, ``key`` and the metrics as floats.
        groups: The groups, the baseline first.
        score: The metric that is the score, under its own name here; None where none is compared.
    """

    def __init__(self, sessions: pd.DataFrame, groups: Sequence[str], score: str | None) -> None:
        self.baseline, *self.contenders = groups
        self.score = score
        self.metrics = [*([] if score is None else [score]), *TOOK]
        named = sessions if score is None else sessions.rename(columns={"score": score})
        means = named.groupby(["group", "key"], sort=False)[self.metrics].mean().astype(float)
        self._of = dict.fromkeys(groups, means.iloc[:0].droplevel("group"))
        self._of |= {str(group): part.droplevel("group") for group, part in means.groupby(level="group", sort=False)}
        self.keys = _in_order({key for part in self._of.values() for key in part.index})

    def unmatched(self) -> pd.DataFrame:
        """One row a key and a group that lacks it."""
        groups = (self.baseline, *self.contenders)
        rows = [(key, group) for group in groups for key in self.keys if key not in self._of[group].index]
        return pd.DataFrame(rows, columns=["key", "group"]).astype(TEXT)

    def pairs(self) -> pd.DataFrame:
        """One row a key, metric and contender, of the keys that both have."""
        return self._stacked([self._pairs(group) for group in self.contenders])

    def compared(self, confidence: float) -> pd.DataFrame:
        """One row a metric and contender: the means over the pairs, and the interval of their difference."""
        frames = []
        for group in self.contenders:
            _, a, b, delta = self._sides(group)
            rows = [self._compared(i, a[:, i], b[:, i], delta[:, i], confidence) for i in range(len(self.metrics))]
            names = ["metric", "n_pairs", "a", "b", "delta", "low", "high", "better"]
            kinds = {"metric": TEXT, "n_pairs": COUNT, "better": TEXT}
            frame = pd.DataFrame(rows, columns=names)
            frames.append(frame.astype(kinds | dict.fromkeys(("a", "b", "delta", "low", "high"), NUMBER)))
        return self._stacked(frames)

    def _compared(
        self, i: int, a: NDArray[Any], b: NDArray[Any], delta: NDArray[Any], confidence: float
    ) -> tuple[Any, ...]:
        name, known = self.metrics[i], ~np.isnan(delta)
        n = int(known.sum())
        if not n:
            return name, 0, None, None, None, None, None, None
        low, high = mean_interval(delta[known], confidence) or (None, None)
        way = HIGHER if name == self.score else direction(name)
        better = _better(low, high, way)
        return name, n, a[known].mean(), b[known].mean(), delta[known].mean(), low, high, better

    def _pairs(self, group: str) -> pd.DataFrame:
        keys, a, b, delta = self._sides(group)
        n = len(self.metrics)
        named = {
            "key": pd.array(np.repeat(np.asarray(keys, dtype=object), n), dtype=TEXT),
            "metric": pd.array(self.metrics * len(keys), dtype=TEXT),
        }
        numbers = {"a": a, "b": b, "delta": delta}
        return pd.DataFrame(named | {name: pd.Series(x.ravel()).astype(NUMBER) for name, x in numbers.items()})

    def _sides(self, group: str) -> tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The keys of both, and for each the metrics of a, of b and the difference; NaN is unknown."""
        of_a, of_b = self._of[self.baseline], self._of[group]
        keys = [key for key in self.keys if key in of_a.index and key in of_b.index]
        a, b = of_a.loc[keys].to_numpy(), of_b.loc[keys].to_numpy()
        delta = b - a
        delta[np.abs(delta) <= _SAME * np.maximum(np.abs(a), np.abs(b))] = 0
        return keys, a, b, delta

    def _stacked(self, frames: list[pd.DataFrame]) -> pd.DataFrame:
        """The frames of the contenders as one, with a column that names them where they are several."""
        if len(frames) == 1:
            return frames[0]
        for frame, group in zip(frames, self.contenders, strict=True):
            frame.insert(0, "group", pd.Series(group, index=frame.index, dtype=TEXT))
        return pd.concat(frames, ignore_index=True)


def moved(pairs: pd.DataFrame, score: str | None, way: int) -> pd.DataFrame:
    """The keys whose score went up (1) or down (-1), those that moved most first."""
    found = pairs[(pairs["metric"] == score).fillna(False) & (pairs["delta"] * way > 0).fillna(False)]
    order = (found["delta"] * -way).sort_values(kind="stable").index
    return found.loc[order].drop(columns="metric").reset_index(drop=True)


def _better(low: float | None, high: float | None, way: int) -> str | None:
    """The side that an interval speaks for; None where no side can be better, or there is no interval."""
    if low is None or high is None or way == NEUTRAL:
        return None
    if low <= 0 <= high:
        return "neither"
    return "b" if low * way > 0 else "a"


def _in_order(keys: set[str]) -> list[str]:
    """Keys as people count: by number where all are numbers."""
    if all(key.isascii() and key.isdigit() for key in keys):
        return sorted(keys, key=lambda key: (len(key.lstrip("0")), key.lstrip("0"), key))
    return sorted(keys)
