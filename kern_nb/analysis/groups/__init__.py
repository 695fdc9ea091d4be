"""`compare_groups`: groups of sessions beside a baseline, paired by a key such as the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kern_nb import store_registry
from kern_nb.analysis.dataframe import FLAG, NUMBER, TEXT
from kern_nb.analysis.groups import pairing
from kern_nb.analysis.groups.keys import LabelReader, Labels, label_text
from kern_nb.analysis.selection import require_mapping
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.text.formatting import join_first

if TYPE_CHECKING:
    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import TimeLike

__all__ = ["GroupComparison", "compare_groups"]

MAX_GROUPS = 50
"""More groups are rarely meant: by session id, say, or by cost."""

_TOLERANCE = 1e-6
"""As in tau2: a computed reward may be 0.9999999."""


def compare_groups(
    store: SessionStore | str | None = None,
    *,
    by: str | Sequence[str] = "model",
    key: str | Sequence[str] = "task_id",
    score: str | None = "reward",
    groups: Sequence[Any] | None = None,
    where: Mapping[str, Any] | None = None,
    success: float = 1.0,
    confidence: float = 0.95,
    user_id: str | None = None,
    agent_id: str | None = None,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
) -> GroupComparison:
    """Compare groups of sessions, paired by a key: the same tasks with two models, for example.

    Each session is one trial of its key in its group. Trials of a key are averaged first, so that every key has the
    same weight.

    ``by``, ``key`` and the names in ``where`` each name a column of ``sessions_df`` (agent_id), a column of ``runs_df``
    on which the runs of a session agree (model, model_provider), a key of the metadata (task_id) or of the session
    state; the first one with a value is used. ``metadata.task_id`` and ``state.plan`` select the source, and dots go
    into nested objects. Several names are combined: ``key=["domain", "task_id"]``.

    Args:
        store: A store or its name; the current store where None.
        by: What defines the groups.
        key: What pairs sessions of different groups.
        score: The name of the score. A session's score is the mean of its ratings; where only its runs are rated, of
            theirs. None compares no scores.
        groups: The groups to compare, the baseline first, as labels or values; where None all groups, the one whose
            first session is the oldest as the baseline (the first by name where several are as old).
        where: Only sessions with these values, ``{"metadata.domain": "airline"}``.
        success: The least score of a success, with a tolerance of a millionth.
        confidence: The confidence level of the intervals.
        user_id: Only sessions of this user.
        agent_id: Only sessions of this agent.
        since: Only sessions created then or later; naive times are UTC.
        until: Only sessions created before then.

    Returns:
        The groups, the paired differences with intervals, and what is in no pair.

    Raises:
        BadUsage: An argument has a wrong type or value, no session has a name or group, or there are fewer than two
            groups or more than 50.
        NoStore: No store has that name, or there is no current store.

    Example:
        >>> from kern_nb import InMemoryDb, Run, Session, compare_groups
        >>> store = InMemoryDb()
        >>> for model, task, reward in [("a", "1", 0), ("a", "2", 1), ("b", "1", 1), ("b", "2", 1)]:
        ...     session = Session(session_id=model + task, runs=[Run(model=model)], metadata={"task_id": task})
        ...     _ = store.save_session(session)
        ...     _ = store.add_score(model + task, "reward", reward)
        >>> comparison = compare_groups(store, by="model", key="task_id", groups=["a", "b"])
        >>> comparison.groups[["group", "n_sessions", "success_rate"]].to_dict("records")
        [{'group': 'a', 'n_sessions': 2, 'success_rate': 0.5}, {'group': 'b', 'n_sessions': 2, 'success_rate': 1.0}]
        >>> comparison.better["key"].tolist()
        ['1']
    """
    if not _is_number(confidence) or not 0 < confidence < 1:
        hint = "For example: confidence=0.95"
        raise BadUsage(f"confidence must be a number between 0 and 1, got {confidence!r}.", hint)
    if not _is_number(success):
        raise BadUsage(f"success must be a number, got {success!r}.", "For example: success=1.0")
    if score is not None and not isinstance(score, str):
        hint = 'For example: score="reward"; None compares no scores.'
        raise BadUsage(f"score must be the name of a score, got {score!r}.", hint)
    require_mapping(where)
    score = None if score is None else label_text(score)
    filters = {"user_id": user_id, "agent_id": agent_id, "since": since, "until": until}
    reader = LabelReader(store_registry.find(store), pairing.USAGE_METRICS.values(), filters, where)
    group_labels, key_labels = reader.read_labels(by), reader.read_labels(key)
    names = _select_groups(group_labels, reader, groups)
    is_selected = group_labels.texts.isna() | group_labels.texts.isin(names)
    unselected = group_labels.texts[~is_selected].value_counts()
    sessions = _build_sessions(reader, group_labels, key_labels, score, success)[is_selected.to_numpy()]
    compared = sessions[sessions["group"].notna() & sessions["key"].notna()].reset_index(drop=True)
    score_metric = f"score.{score}" if score in pairing.USAGE_METRICS else score
    pass_k = pairing.build_pass_k(compared, names)
    pairs, metrics, unmatched = pairing.compare_keys(compared, names, score_metric, confidence)
    dtypes = dict.fromkeys(("score", *pairing.USAGE_METRICS), NUMBER) | {"success": FLAG}
    return GroupComparison(
        groups=pairing.build_groups(compared, names, pass_k),
        pairs=pairs,
        metrics=metrics,
        pass_k=pass_k,
        better=pairing.select_changed(pairs, score_metric, 1),
        worse=pairing.select_changed(pairs, score_metric, -1),
        unmatched=unmatched,
        ambiguous=_build_ambiguous(sessions, group_labels, key_labels, score),
        sessions=compared.astype(dtypes),
        by=group_labels.name,
        key=key_labels.name,
        score=score_metric,
        success=success,
        confidence=confidence,
        others={str(group): int(n) for group, n in unselected.items()},
    )


@dataclass(frozen=True, repr=False, eq=False)
class GroupComparison(DisplayMixin):
    """Groups of sessions beside a baseline. In the frames ``a`` is the baseline and ``b`` a contender.

    With two or more contenders, ``pairs``, ``metrics``, ``better`` and ``worse`` are stacked, and a first column
    ``group`` names ``b``. The metrics are the score under its own name, ``tokens`` (total_tokens), ``cost``, ``time``
    (seconds), ``tool_calls``, ``tool_errors``, ``messages`` and ``runs``, each of a session and of its agent. Unknown
    values are missing: they are left out of means and sums, and never 0.

    Attributes:
        groups: One row a group, the baseline first: ``group``, ``n_sessions``, ``n_keys``, ``n_scored``, ``score`` (the
            mean over scored sessions), ``success_rate`` (of scored sessions), ``pass_1`` to ``pass_k`` (up to 100; see
            `statistics.pass_hat_k`), and the means per session of the metrics. ``tokens_total``, ``cost_total`` and
            ``time_total`` are sums; ``tokens_known`` and so on are the numbers of sessions in mean and sum.
        pairs: One row a common key and metric: ``key``, ``metric``, ``a``, ``b`` (means over the trials of the key) and
            ``delta`` (b - a); missing where unknown for either.
        metrics: One row a metric: ``metric``, ``n_pairs`` (keys with both values known), ``a``, ``b`` and ``delta``
            (means over these), ``low`` and ``high`` (the bootstrap interval of delta over keys; see
            `statistics.mean_interval`; missing with one pair), and ``better``: "a", "b", or "neither" where the
            interval contains 0; missing where the metric has no direction or there is no interval.
        pass_k: One row a group and k: ``group``, ``k``, ``pass_k`` and ``n_keys``, the keys with at least k scored
            trials, over which it is averaged.
        better: The keys whose score is higher in b, by the size of the change: ``key``, ``a``, ``b``, ``delta``.
        worse: The keys whose score is lower in b.
        unmatched: One row a key and a group without a session of it: ``key``, ``group``. They are in no pair.
        ambiguous: The sessions that are left out, or not scored: ``session_id``, ``reason``, ``group``, ``key``. With
            both group and key a session counts for all but the score.
        sessions: The compared sessions: ``session_id``, ``group``, ``key``, ``score``, ``success`` and the other
            metrics.
        by: What defines the groups.
        key: What pairs sessions.
        score: The metric that is the score.
        success: The least score of a success.
        confidence: The confidence level of the intervals.
        others: The number of sessions of each group that was not selected.
    """

    _view = "kern_nb.views.groups:groups"

    groups: pd.DataFrame
    pairs: pd.DataFrame
    metrics: pd.DataFrame
    pass_k: pd.DataFrame
    better: pd.DataFrame
    worse: pd.DataFrame
    unmatched: pd.DataFrame
    ambiguous: pd.DataFrame
    sessions: pd.DataFrame
    by: str
    key: str
    score: str | None
    success: float
    confidence: float
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def df(self) -> pd.DataFrame:
        """The metrics."""
        return self.metrics

    @property
    def baseline(self) -> str:
        """The baseline group."""
        return str(self.groups["group"].iloc[0])

    @property
    def contenders(self) -> list[str]:
        """The groups beside the baseline."""
        return [str(group) for group in self.groups["group"].iloc[1:]]

    def plot(self) -> Plot:
        """Plot the paired differences with their intervals."""
        from kern_nb.analysis import plots

        return plots.groups(self.metrics)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _select_groups(labels: Labels, reader: LabelReader, requested: Sequence[Any] | None) -> list[str]:
    """Return the groups in order, the baseline first."""
    available = labels.distinct()
    available_hint = f"The groups by {labels.name} are: {join_first(available, 20)}." if available else ""
    if requested is not None:
        names = [label_text(group) for group in ([requested] if isinstance(requested, str) else requested)]
        for name in names:
            if name not in available:
                raise BadUsage(f"No session is in the group {name!r}.", did_you_mean(name, available, available_hint))
        if len(set(names)) < len(names):
            raise BadUsage(f"groups must be distinct, got {join_first(names)}.", available_hint)
    else:
        # By the time of the first session, then by name: the sort by time is stable.
        first = reader.sessions["created_at"].groupby(labels.texts, sort=True).min()
        names = [str(name) for name in first.sort_values(kind="stable", na_position="last").index]
    if len(names) < 2:  # noqa: PLR2004 - a baseline and a contender
        count = f"only {names[0]!r}" if names else "none"
        if requested is not None:
            raise BadUsage(f"compare_groups takes two or more groups, got {count}.", available_hint)
        problems = labels.problems.dropna()
        n = len(problems)
        reason = f" {n:,} sessions have no group; of the first, {problems.iloc[0]}." if n else ""
        raise BadUsage(
            f"compare_groups takes two or more groups; by {labels.name} there is {count}.",
            f"Choose something else in by.{reason}",
        )
    if len(names) > MAX_GROUPS:
        raise BadUsage(
            f"By {labels.name} there are {len(names):,} groups; at most {MAX_GROUPS} can be compared.",
            f"Select groups, the baseline first: groups={names[:2]!r}.",
        )
    return names


def _build_sessions(
    reader: LabelReader, group_labels: Labels, key_labels: Labels, score: str | None, success: float
) -> pd.DataFrame:
    """Build one row a session: labels, score and metrics; floats, NaN where unknown."""
    columns = {"session_id": reader.sessions["session_id"], "group": group_labels.texts, "key": key_labels.texts}
    numbers = {"score": np.nan if score is None else reader.read_scores(score)}
    numbers |= {name: reader.sessions[column].astype(float) for name, column in pairing.USAGE_METRICS.items()}
    frame = pd.DataFrame(columns | numbers)
    frame[list(numbers)] = frame[list(numbers)].where(np.isfinite(frame[list(numbers)]))
    frame.insert(4, "success", (frame["score"] >= success - _TOLERANCE).astype(float).where(frame["score"].notna()))
    return frame.reset_index(drop=True)


def _build_ambiguous(
    sessions: pd.DataFrame, group_labels: Labels, key_labels: Labels, score: str | None
) -> pd.DataFrame:
    """Build one row a session that is left out or not scored; see `GroupComparison.ambiguous`."""
    ids = sessions["session_id"]
    reasons = pd.DataFrame(index=sessions.index)
    for column, labels in (("group", group_labels), ("key", key_labels)):
        reason = labels.problems.fillna(f"no {labels.name}").reindex(ids).set_axis(sessions.index)
        reasons[column] = reason.where(sessions[column].isna())
    unscored = sessions["score"].isna() & (score is not None)
    reasons["score"] = pd.Series(f"not scored: no {score}", index=sessions.index, dtype=TEXT).where(unscored)
    has_reason = reasons.notna().any(axis=1)
    texts = ["; ".join(dict.fromkeys(r for r in row if not pd.isna(r))) for row in reasons[has_reason].to_numpy()]
    frame = sessions.loc[has_reason, ["session_id", "group", "key"]].reset_index(drop=True)
    frame.insert(1, "reason", pd.Series(texts, dtype=TEXT))
    return frame
