"""Tables of a group comparison: groups, paired keys, and differences with intervals.

The baseline is ``a`` and a contender is ``b``. Trials of a key are averaged first; unknown values are left out of
means, and never counted as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, stack_frames
from kern_nb.analysis.groups.statistics import mean_interval, pass_hat_k
from kern_nb.analysis.metrics import better_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

USAGE_METRICS = {
    "tokens": "total_tokens",
    "cost": "cost",
    "time": "duration_s",
    "tool_calls": "n_tool_calls",
    "tool_errors": "n_tool_errors",
    "messages": "n_messages",
    "runs": "n_runs",
}
"""The metrics of sessions besides the score, and their columns of ``sessions_df``."""

_MAX_K = 100
_TOLERANCE = 1e-9
"""Means that differ by a smaller share are equal: the difference is one of float addition."""


def build_groups(sessions: pd.DataFrame, groups: Sequence[str], pass_k: pd.DataFrame) -> pd.DataFrame:
    """Build one row a group; see `GroupComparison.groups`."""
    by_group = sessions.groupby("group", sort=False)
    table = pd.DataFrame(index=pd.Index(list(groups), dtype=TEXT))

    def add_count(name: str, counts: pd.Series[int]) -> None:
        table[name] = counts.reindex(table.index, fill_value=0).astype(COUNT)

    add_count("n_sessions", by_group.size())
    add_count("n_keys", by_group["key"].nunique())
    add_count("n_scored", by_group["score"].count())
    table["score"] = by_group["score"].mean().astype(NUMBER)
    table["success_rate"] = by_group["success"].mean().astype(NUMBER)
    for k, part in pass_k.groupby("k"):
        table[f"pass_{k}"] = part.set_index("group")["pass_k"]
    for name in USAGE_METRICS:
        table[name] = by_group[name].mean().astype(NUMBER)
    for name in ("tokens", "cost", "time"):
        table[f"{name}_total"] = by_group[name].sum(min_count=1).astype(COUNT if name == "tokens" else NUMBER)
        add_count(f"{name}_known", by_group[name].count())
    return table.rename_axis("group").reset_index().astype({"group": TEXT})


def build_pass_k(sessions: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Build one row a group and k, up to the most trials of any key: ``group``, ``k``, ``pass_k``, ``n_keys``."""
    scored = sessions[sessions["success"].notna()]
    trials = scored.groupby(["group", "key"], sort=False)["success"].agg(["size", "sum"]).astype(int)
    max_k = min(_MAX_K, int(trials["size"].max())) if len(trials) else 1
    rows: list[tuple[str, int, float | None, int]] = []
    for group in groups:
        own = trials.loc[[group]] if group in trials.index.get_level_values(0) else trials.iloc[:0]
        pairs = list(zip(own["size"].tolist(), own["sum"].tolist(), strict=True))
        rows += [(group, k, *pass_hat_k(pairs, k)) for k in range(1, max_k + 1)]
    frame = pd.DataFrame(rows, columns=["group", "k", "pass_k", "n_keys"])
    return frame.astype({"group": TEXT, "k": COUNT, "pass_k": NUMBER, "n_keys": COUNT})


class KeyMeans:
    """The means over the trials of each key in each group.

    Args:
        sessions: One row a session, with ``group``, ``key`` and the metrics as floats.
        groups: The groups, the baseline first.
        score: The name of the score among the metrics; None compares no score.
    """

    def __init__(self, sessions: pd.DataFrame, groups: Sequence[str], score: str | None) -> None:
        self.baseline, *self.contenders = groups
        self.score = score
        self.metrics = [*([] if score is None else [score]), *USAGE_METRICS]
        renamed = sessions if score is None else sessions.rename(columns={"score": score})
        means = renamed.groupby(["group", "key"], sort=False)[self.metrics].mean().astype(float)
        self._by_group = dict.fromkeys(groups, means.iloc[:0].droplevel("group"))
        self._by_group |= {
            str(group): part.droplevel("group") for group, part in means.groupby(level="group", sort=False)
        }
        self.keys = _sort_keys({key for part in self._by_group.values() for key in part.index})

    def unmatched(self) -> pd.DataFrame:
        """Build one row a key and a group that lacks it."""
        groups = (self.baseline, *self.contenders)
        rows = [(key, group) for group in groups for key in self.keys if key not in self._by_group[group].index]
        return pd.DataFrame(rows, columns=["key", "group"]).astype(TEXT)

    def pairs(self) -> pd.DataFrame:
        """Build one row a key, metric and contender, of the keys that both have."""
        return stack_frames([self._pairs(group) for group in self.contenders], "group", self.contenders)

    def differences(self, confidence: float) -> pd.DataFrame:
        """Build one row a metric and contender: the means over the pairs, and the interval of their difference."""
        names = ["metric", "n_pairs", "a", "b", "delta", "low", "high", "better"]
        dtypes = dict.fromkeys(names, NUMBER) | {"metric": TEXT, "n_pairs": COUNT, "better": TEXT}
        frames = []
        for group in self.contenders:
            rows: list[tuple[Any, ...]] = []
            _, *values = self._values(group)
            for i, metric in enumerate(self.metrics):
                is_known = ~np.isnan(values[2][:, i])
                a, b, delta = (x[is_known, i] for x in values)
                if not len(delta):
                    rows.append((metric, 0, *[None] * 6))
                    continue
                low, high = mean_interval(delta, confidence) or (None, None)
                better = better_side(metric, low, high, is_score=metric == self.score)
                rows.append((metric, len(delta), a.mean(), b.mean(), delta.mean(), low, high, better))
            frames.append(pd.DataFrame(rows, columns=names).astype(dtypes))
        return stack_frames(frames, "group", self.contenders)

    def _pairs(self, group: str) -> pd.DataFrame:
        keys, a, b, delta = self._values(group)
        columns = {
            "key": pd.array(np.repeat(np.asarray(keys, dtype=object), len(self.metrics)), dtype=TEXT),
            "metric": pd.array(self.metrics * len(keys), dtype=TEXT),
        }
        numbers = {"a": a, "b": b, "delta": delta}
        return pd.DataFrame(columns | {name: pd.Series(x.ravel()).astype(NUMBER) for name, x in numbers.items()})

    def _values(self, group: str) -> tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The common keys, and for each the metrics of a, of b and the difference; NaN is unknown."""
        means_a, means_b = self._by_group[self.baseline], self._by_group[group]
        keys = [key for key in self.keys if key in means_a.index and key in means_b.index]
        a, b = means_a.loc[keys].to_numpy(), means_b.loc[keys].to_numpy()
        delta = b - a
        delta[np.abs(delta) <= _TOLERANCE * np.maximum(np.abs(a), np.abs(b))] = 0
        return keys, a, b, delta


def select_changed(pairs: pd.DataFrame, score: str | None, direction: int) -> pd.DataFrame:
    """Select the keys whose score went up (1) or down (-1), by the size of the change."""
    is_changed = (pairs["metric"] == score).fillna(False) & (pairs["delta"] * direction > 0).fillna(False)
    changed = pairs[is_changed]
    order = (changed["delta"] * -direction).sort_values(kind="stable").index
    return changed.loc[order].drop(columns="metric").reset_index(drop=True)


def _sort_keys(keys: set[str]) -> list[str]:
    """Sort keys by number where all are numbers, else as text."""
    if all(key.isascii() and key.isdigit() for key in keys):
        return sorted(keys, key=lambda key: (len(key.lstrip("0")), key.lstrip("0"), key))
    return sorted(keys)
