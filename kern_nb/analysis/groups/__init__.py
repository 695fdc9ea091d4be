"""`compare_groups`: the sessions of two or more groups beside each other, paired by what they were about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

from kern_nb import store_registry
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.analysis.groups.keys import Labels, Reader
    from kern_nb.analysis.plots import Plot
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import When

__all__ = ["GroupComparison", "compare_groups"]

MOST_GROUPS = 50
"""More are hardly meant: by a session's id, say, or its cost."""

_TOLERANCE = 1e-6
"""As tau2 does: a reward that is computed may be 0.9999999."""


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
    since: When | None = None,
    until: When | None = None,
) -> GroupComparison:
    """Put groups of sessions beside each other, paired by a key: the same tasks with two models, say.

    Each session is one trial of its key in its group. Trials of a key are averaged before groups are compared, so that
    a key with many trials weighs no more than another.

    ``by``, ``key`` and the names in ``where`` each name, in this order, a column of ``sessions_df`` (agent_id), a
    column of ``runs_df`` on which the runs of a session agree (model, model_provider), a key of the metadata (task_id)
    or of the session state; ``metadata.task_id`` and ``state.plan`` say where to look, and dots go on into objects.
    Several names together tell apart what one does not: ``key=["domain", "task_id"]``.

    Args:
        store: A store or the name of one; the one in use where None.
        by: What tells the groups apart.
        key: What makes sessions of different groups comparable.
        score: The name of the score. A session's is the mean of its ratings; where only its runs are rated, of theirs.
            None compares no scores.
        groups: The groups to compare, the baseline first, as texts or as the values they are made of; where None all
            there are, the one that began first being the baseline (by name where several began at once).
        where: Only sessions with these values, ``{"metadata.domain": "airline"}``.
        success: A score from here on, less a millionth, is a success.
        confidence: Of the intervals.
        user_id: The sessions of a user.
        agent_id: The sessions of an agent.
        since: Created then or later; naive times are UTC.
        until: Created before then.

    Raises:
        BadUsage: a name that no session has, a group that there is not, fewer than two groups.
        NoStore: there is no store of that name, or none in use.
    """
    from kern_nb.analysis.groups import pairing
    from kern_nb.analysis.groups.keys import Reader, text_of

    if not _is_number(confidence) or not 0 < confidence < 1:
        raise BadUsage(f"confidence={confidence!r} is no share between 0 and 1.", "For example: confidence=0.95")
    if not _is_number(success):
        raise BadUsage(f"success={success!r} is no number.", "For example: success=1.0")
    if score is not None and not isinstance(score, str):
        raise BadUsage(f"score={score!r} is no name of a score.", 'For example: score="reward"; None compares none.')
    if where is not None and not isinstance(where, Mapping):
        raise BadUsage(f"where={where!r} is no mapping of names to values.", 'For example: where={"domain": "airline"}')
    score = None if score is None else text_of(score)
    filters = {"user_id": user_id, "agent_id": agent_id, "since": since, "until": until}
    reader = Reader(store_registry.find(store), pairing.TOOK.values(), filters)
    for name, value in (where or {}).items():
        reader.keep(name, value)
    of_group, of_key = reader.labels(by), reader.labels(key)
    names = _chosen(of_group, reader, groups)
    asked = of_group.texts.isna() | of_group.texts.isin(names)
    others = of_group.texts[~asked].value_counts()
    sessions = _sessions(reader, of_group, of_key, score, success)[asked.to_numpy()]
    compared = sessions[sessions["group"].notna() & sessions["key"].notna()].reset_index(drop=True)
    title = f"score.{score}" if score in pairing.TOOK else score
    means = pairing.Means(compared, names, title)
    pass_k = pairing.pass_table(compared, names)
    pairs = means.pairs()
    numbers = dict.fromkeys(("score", *pairing.TOOK), pairing.NUMBER)
    return GroupComparison(
        groups=pairing.group_table(compared, names, pass_k),
        pairs=pairs,
        metrics=means.compared(confidence),
        pass_k=pass_k,
        better=pairing.moved(pairs, title, 1),
        worse=pairing.moved(pairs, title, -1),
        unmatched=means.unmatched(),
        ambiguous=_ambiguous(sessions, of_group, of_key, score),
        sessions=compared.astype(numbers | {"success": pairing.FLAG}),
        by=of_group.name,
        key=of_key.name,
        score=title,
        success=success,
        confidence=confidence,
        others={str(group): int(n) for group, n in others.items()},
    )


@dataclass(frozen=True, repr=False, eq=False)
class GroupComparison(DisplayMixin):
    """Groups of sessions beside a baseline, the first of them. It is ``a`` in the frames, and a contender is ``b``.

    Of three groups or more, ``pairs``, ``metrics``, ``better`` and ``worse`` begin with a column ``group`` that says
    which contender is ``b``, and have the rows of all of them. The metrics are the score under its own name, ``tokens``
    (total_tokens), ``cost``, ``time`` (seconds), ``tool_calls``, ``tool_errors``, ``messages`` and ``runs``, all of a
    session and of its agent. What nobody knows is missing: it is left out of means and sums, and never 0.

    Attributes:
        groups: One row a group, the baseline first: ``group``, ``n_sessions``, ``n_keys``, ``n_scored``, ``score`` (the
            mean over scored sessions), ``success_rate`` (their share that succeeded), ``pass_1`` to ``pass_k`` for the
            trials there are (100 at most; see `statistics.pass_hat_k`), and the means per session of the metrics.
            ``tokens_total``, ``cost_total`` and ``time_total`` are sums; ``tokens_known`` and so on say of how many
            sessions mean and sum are.
        pairs: One row a key that both have and a metric: ``key``, ``metric``, ``a``, ``b`` (means over the trials of
            the key) and ``delta`` (b - a); missing where unknown of either.
        metrics: One row a metric: ``metric``, ``n_pairs`` (keys for which both are known), ``a``, ``b`` and ``delta``
            (means over these), ``low`` and ``high`` (the bootstrap interval of delta, which resamples keys; see
            `statistics.mean_interval`; missing with one pair), and ``better``: "a", "b", or "neither"
            where the interval includes 0; missing where no direction is declared or there is no interval.
        pass_k: One row a group and k: ``group``, ``k``, ``pass_k`` and ``n_keys``, the keys with at least k scored
            trials, over which it is averaged.
        better: The keys whose score is higher in b, the most so first: ``key``, ``a``, ``b``, ``delta``.
        worse: The keys whose score is lower in b.
        unmatched: One row a key and a group that has no session of it: ``key``, ``group``. They are in no pair.
        ambiguous: The sessions that are left out, or not scored, with the reason: ``session_id``, ``reason``,
            ``group``, ``key``. With both group and key a session counts for all but the score.
        sessions: The sessions that are compared: ``session_id``, ``group``, ``key``, ``score``, ``success`` and the
            other metrics.
        by: What tells the groups apart.
        key: What pairs them.
        score: The metric that is the score.
        success: The score from which on a session succeeded.
        confidence: Of the intervals.
        others: How many sessions are of groups that were not asked for, by group.
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
        """The metrics, as of a `Comparison`."""
        return self.metrics

    @property
    def baseline(self) -> str:
        """The group that the others are compared with."""
        return str(self.groups["group"].iloc[0])

    @property
    def contenders(self) -> list[str]:
        """The other groups."""
        return [str(group) for group in self.groups["group"].iloc[1:]]

    def plot(self) -> Plot:
        """The paired differences as bars with their intervals."""
        from kern_nb.analysis import plots

        return plots.groups(self.metrics)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _chosen(of_group: Labels, reader: Reader, asked: Sequence[Any] | None) -> list[str]:
    """The groups in order, the baseline first."""
    from kern_nb.analysis.groups.keys import listed, text_of

    there = of_group.found()
    known = f"The groups by {of_group.name} are: {listed(there, 20)}." if there else ""
    if asked is not None:
        names = [text_of(one) for one in ([asked] if isinstance(asked, str) else asked)]
        for name in names:
            if name not in there:
                raise BadUsage(f"No session is of the group {name!r}.", did_you_mean(name, there, known))
        if len(set(names)) < len(names):
            raise BadUsage(f"A group is named twice: {listed(names)}.", known)
    else:
        # The sessions are in order of time: so are the first ones of each group, and by name those of one time.
        first = reader.sessions["created_at"].groupby(of_group.texts, sort=True).min()
        names = [str(name) for name in first.sort_values(kind="stable", na_position="last").index]
    if len(names) < 2:  # noqa: PLR2004 - one alone compares with nothing
        only = f"only {names[0]!r}" if names else "none"
        if asked is not None:
            raise BadUsage(f"A comparison takes two or more groups; named is {only}.", known)
        torn = of_group.problems.dropna()
        why = f" Of {len(torn):,} sessions it is unclear; of the first, {torn.iloc[0]}." if len(torn) else ""
        raise BadUsage(
            f"A comparison takes two or more groups; by {of_group.name} there is {only}.",
            f"Name something else in by.{why}",
        )
    if len(names) > MOST_GROUPS:
        raise BadUsage(
            f"By {of_group.name} there are {len(names):,} groups, more than the {MOST_GROUPS} that can be compared.",
            f"Name those you mean, the baseline first: groups={names[:2]!r}.",
        )
    return names


def _sessions(reader: Reader, of_group: Labels, of_key: Labels, score: str | None, success: float) -> pd.DataFrame:
    """One row a session: what it is called by, what it was given, what it took; floats, NaN where unknown."""
    import numpy as np
    import pandas as pd

    from kern_nb.analysis.groups.pairing import TOOK

    ids = reader.sessions["session_id"]
    made = pd.DataFrame({"session_id": ids, "group": of_group.texts, "key": of_key.texts})
    made["score"] = np.nan if score is None else reader.scores(score)
    for name, column in TOOK.items():
        made[name] = reader.sessions[column].astype(float)
    numbers = ["score", *TOOK]
    made[numbers] = made[numbers].where(np.isfinite(made[numbers]))
    made.insert(4, "success", (made["score"] >= success - _TOLERANCE).astype(float).where(made["score"].notna()))
    return made.reset_index(drop=True)


def _ambiguous(sessions: pd.DataFrame, of_group: Labels, of_key: Labels, score: str | None) -> pd.DataFrame:
    """One row a session that is left out or not scored; see `GroupComparison.ambiguous`."""
    import pandas as pd

    from kern_nb.analysis.groups.keys import TEXT

    ids = sessions["session_id"]
    reasons = pd.DataFrame(index=sessions.index)
    for column, labels in (("group", of_group), ("key", of_key)):
        why = labels.problems.fillna(f"no {labels.name}").reindex(ids).set_axis(sessions.index)
        reasons[column] = why.where(sessions[column].isna())
    reasons["score"] = pd.array([pd.NA if score is None else f"not scored: no {score}"] * len(sessions), dtype=TEXT)
    reasons["score"] = reasons["score"].where(sessions["score"].isna())
    some = reasons.notna().any(axis=1)
    told = ["; ".join(dict.fromkeys(r for r in row if not pd.isna(r))) for row in reasons[some].to_numpy()]
    made = sessions.loc[some, ["session_id", "group", "key"]].reset_index(drop=True)
    made.insert(1, "reason", pd.Series(told, dtype=TEXT))
    return made
