"""Tables of a group comparison: groups, paired keys, and differences with intervals.

The baseline is ``a`` and a contender is ``b``. Trials of a key are averaged first; unknown values are left out of
means, and never counted as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, build_frame, stack_frames
from kern_nb.analysis.groups.statistics import mean_interval, pass_hat_k
from kern_nb.analysis.metrics import better_side

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
    return build_frame(rows, {"group": "text", "k": "count", "pass_k": "number", "n_keys": "count"})


def compare_keys(
    sessions: pd.DataFrame, groups: Sequence[str], score: str | None, confidence: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Average the trials of each key, and compare the groups with the first: pairs, metrics and unmatched keys.

    The sessions have ``group``, ``key``, ``score`` and the metrics as floats, NaN where unknown. ``score`` is the name
    of the score among the metrics; None compares no score.
    """
    metrics = [*([] if score is None else [score]), *USAGE_METRICS]
    renamed = sessions if score is None else sessions.rename(columns={"score": score})
    means = renamed.groupby(["group", "key"], sort=False)[metrics].mean().astype(float)
    by_group = {name: means[means.index.get_level_values("group") == name].droplevel("group") for name in groups}
    keys = _sort_keys(set(means.index.get_level_values("key")))
    baseline, *contenders = groups
    pairs = [_pair(by_group[baseline], by_group[name], keys) for name in contenders]
    differences = [_differences(frame, metrics, score, confidence) for frame in pairs]
    unmatched = [(key, name) for name in groups for key in keys if key not in by_group[name].index]
    return (
        stack_frames(pairs, "group", contenders),
        stack_frames(differences, "group", contenders),
        build_frame(unmatched, {"key": "text", "group": "text"}),
    )


def _pair(means_a: pd.DataFrame, means_b: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Build one row a key and metric, of the keys that both have."""
    keys = [key for key in keys if key in means_a.index and key in means_b.index]
    metrics = list(means_a.columns)
    a, b = means_a.loc[keys].to_numpy(), means_b.loc[keys].to_numpy()
    delta = b - a
    delta[np.abs(delta) <= _TOLERANCE * np.maximum(np.abs(a), np.abs(b))] = 0
    columns = {
        "key": pd.array(np.repeat(np.asarray(keys, dtype=object), len(metrics)), dtype=TEXT),
        "metric": pd.array(metrics * len(keys), dtype=TEXT),
    }
    numbers = {"a": a, "b": b, "delta": delta}
    return pd.DataFrame(columns | {name: pd.Series(x.ravel()).astype(NUMBER) for name, x in numbers.items()})


def _differences(pairs: pd.DataFrame, metrics: Sequence[str], score: str | None, confidence: float) -> pd.DataFrame:
    """Build one row a metric: the means over the pairs, and the interval of their difference."""
    rows: list[tuple[Any, ...]] = []
    for metric in metrics:
        measured = pairs[(pairs["metric"] == metric) & pairs["delta"].notna()]
        a, b, delta = (measured[name].to_numpy(float) for name in ("a", "b", "delta"))
        if not len(delta):
            rows.append((metric, 0, *[None] * 6))
            continue
        low, high = mean_interval(delta.tolist(), confidence) or (None, None)
        better = better_side(metric, low, high, is_score=metric == score)
        rows.append((metric, len(delta), a.mean(), b.mean(), delta.mean(), low, high, better))
    names = ["metric", "n_pairs", "a", "b", "delta", "low", "high", "better"]
    dtypes = dict.fromkeys(names, NUMBER) | {"metric": TEXT, "n_pairs": COUNT, "better": TEXT}
    return pd.DataFrame(rows, columns=names).astype(dtypes)


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
