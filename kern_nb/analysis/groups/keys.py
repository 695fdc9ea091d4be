"""Labels of sessions, by which they are grouped, paired and filtered.

A name is looked up in this order, and the first source with a value for any session is used: columns of the session,
columns on which its runs agree, keys of its metadata, keys of its state. The prefix ``metadata.`` or ``state.`` selects
the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.analysis.dataframe import TEXT
from kern_nb.control_characters import replace_surrogates
from kern_nb.db.columns import SESSIONS
from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.text.formatting import join_first

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

RUN_COLUMNS = ("model", "model_provider")
"""The columns of ``runs_df`` that label a session where its runs agree."""

_SESSION_COLUMNS = tuple(c.name for c in SESSIONS if c.kind in ("text", "count", "number"))
_TIME_COLUMNS = tuple(c.name for c in SESSIONS if c.kind == "time")
_PREFIXES = ("metadata.", "state.")
_SEPARATOR = " / "
_SAMPLE = 1_000


@dataclass(frozen=True)
class Labels:
    """The labels of sessions under a name.

    Attributes:
        name: The requested name.
        texts: One text a session, missing where it has none.
        problems: Why a session has none, where there is a particular reason; else missing.
    """

    name: str
    texts: pd.Series[Any]
    problems: pd.Series[Any]

    def distinct(self) -> list[str]:
        """Return the distinct labels, sorted."""
        return sorted(self.texts.dropna().unique())


class LabelReader:
    """Reads labels of the sessions that match some filters.

    Args:
        store: The store.
        columns: Further columns of ``sessions_df`` to read.
        filters: Arguments of `SessionStore.sessions_df`: user_id, agent_id, since, until.
        where: The labels of the sessions to keep, by name.

    Attributes:
        sessions: The sessions, oldest first, with their ids as the index.

    Raises:
        BadUsage: No session matches, or none has a name or label in ``where``.
    """

    def __init__(
        self, store: SessionStore, columns: Iterable[str], filters: dict[str, Any], where: Mapping[str, Any] | None
    ) -> None:
        self._store = store
        self._filters = {name: value for name, value in filters.items() if value is not None}
        self._is_filtered = bool(self._filters)
        df = store.sessions_df(columns=["session_id", "created_at", *columns], **self._filters)
        self.sessions = df.set_index("session_id", drop=False).rename_axis(None).iloc[::-1]
        if df.empty:
            raise BadUsage(
                "No session matches." if self._filters else "There are no sessions.",
                "Choose other filters." if self._filters else "Import recorded sessions with %kern import PATH.",
            )
        for name, value in (where or {}).items():
            self._filter(name, value)

    def _filter(self, name: str, value: Any) -> None:
        labels = self.read_labels(name)
        text = label_text(value)
        is_match = (labels.texts == text).fillna(False).astype(bool)
        if not is_match.any():
            available = labels.distinct()
            hint = did_you_mean(text, available, f"Known values: {join_first(available, 20)}.")
            raise BadUsage(f"No session has {name} {text!r}.", hint)
        self.sessions = self.sessions[is_match]
        self._is_filtered = True

    def read_scores(self, name: str) -> pd.Series[Any]:
        """Return the score of each session: the mean of its ratings, or else of its runs' ratings.

        Raises:
            BadUsage: The sessions have scores, but none of that name.
        """
        ratings = self.read_frame("scores", ["session_id", "run_id", "name", "value"])
        matching = ratings[ratings["name"] == name]
        if matching.empty and not ratings.empty:
            available = sorted(ratings["name"].unique())
            hint = did_you_mean(name, available, f"Known scores: {join_first(available, 20)}.")
            raise BadUsage(f"No session has a score {name!r}.", hint)
        is_of_run = matching["run_id"].notna()
        parts = (matching[~is_of_run], matching[is_of_run])
        of_sessions, of_runs = (part.groupby("session_id")["value"].mean() for part in parts)
        ids = self.sessions.index
        return of_sessions.reindex(ids).fillna(of_runs.reindex(ids)).astype(float)

    def read_frame(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """Read the rows of another frame; unfiltered, they may include sessions written meanwhile."""
        ids = {"session_id": list(self.sessions.index)} if self._is_filtered else {}
        df: pd.DataFrame = getattr(self._store, f"{name}_df")(columns=list(columns), **ids)
        return df

    def read_labels(self, names: str | Sequence[str]) -> Labels:
        """Read the labels under a name, or under several names combined.

        Raises:
            BadUsage: No session has a value for a name.
        """
        name_list = [names] if isinstance(names, str) or not isinstance(names, Iterable) else names
        parts = [self._read_label(name) for name in name_list]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            raise BadUsage("A name to group or pair sessions by is required.", 'For example: key="task_id"')
        return _combine(parts)

    def _read_label(self, name: str) -> Labels:
        if not isinstance(name, str) or not name:
            hint = 'For example: "task_id"'
            raise BadUsage(f"A name to group or pair sessions by must be a non-empty str, got {name!r}.", hint)
        no_problems = pd.Series(pd.NA, index=self.sessions.index, dtype=TEXT)
        if name in _SESSION_COLUMNS:
            own = self._read([name])[name]
            if own.notna().any():
                return Labels(name, own.astype(TEXT), no_problems)
        if name in RUN_COLUMNS:
            labels = self._read_run_label(name)
            if labels.texts.notna().any() or labels.problems.notna().any():
                return labels
        paths = [name] if name.startswith(_PREFIXES) else [prefix + name for prefix in _PREFIXES]
        expanded = self._read([], paths)
        for path in paths:
            if expanded[path].notna().any():
                return Labels(name, expanded[path].astype(TEXT), no_problems)
        raise self._unknown_name(name)

    def _read(self, columns: Sequence[str], expand: Sequence[str] = ()) -> pd.DataFrame:
        """Read more columns of the sessions, in their order."""
        names = list(dict.fromkeys(["session_id", *columns]))
        df = self._store.sessions_df(columns=names, expand=expand, **self._filters)
        return df.set_index("session_id", drop=False).reindex(self.sessions.index)

    def _read_run_label(self, name: str) -> Labels:
        """Read the value on which a session's runs agree, without members' runs and those with no value."""
        runs = self.read_frame("runs", ["session_id", "parent_run_id", name])
        is_relevant = runs["parent_run_id"].isna() & runs[name].notna()
        values = runs[is_relevant][["session_id", name]].drop_duplicates()
        disagree = values["session_id"].duplicated(keep=False)
        agreed = values[~disagree].set_index("session_id")[name]
        lists = values[disagree].groupby("session_id")[name].agg(list).map(lambda names: join_first(sorted(names)))
        problems = f"its runs disagree on {name}: " + lists.astype(TEXT)
        index = self.sessions.index
        return Labels(name, agreed.reindex(index).astype(TEXT), problems.reindex(index).astype(TEXT))

    def _unknown_name(self, name: str) -> BadUsage:
        sample = self._store.sessions_df(columns=["metadata"], limit=_SAMPLE, **self._filters)
        values = (json.loads(text) for text in sample["metadata"].dropna())
        keys = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
        keys_hint = f"The metadata has {join_first(keys, 30)}. " if keys else ""
        columns = [*RUN_COLUMNS, *_SESSION_COLUMNS]
        if name in columns:
            return BadUsage(f"No session has a value for {name!r}.", f"Choose another name. {keys_hint}".strip())
        if name in _TIME_COLUMNS:
            return BadUsage(f"{name!r} is a time and cannot group sessions.", "Filter by time with since and until.")
        otherwise = f"{keys_hint}Columns are {', '.join(columns)}."
        hint = did_you_mean(name.split(".", 1)[-1], [*keys, *columns], otherwise)
        return BadUsage(f"No session has a value for {name!r}.", hint)


def label_text(value: Any) -> str:
    """Return a value as a label: text unchanged, anything else as JSON."""
    if isinstance(value, str):
        return replace_surrogates(value)
    try:
        return json.dumps(getattr(value, "item", lambda: value)(), ensure_ascii=False)  # numpy values as Python's
    except TypeError:
        return str(value)


def _combine(parts: Sequence[Labels]) -> Labels:
    """Combine several labels into one; missing where a session lacks any of them."""
    frame = pd.concat([part.texts for part in parts], axis=1)
    is_complete = frame.notna().all(axis=1)
    rows = [tuple(row) for row in frame[is_complete].to_numpy()]
    texts = {row: _SEPARATOR.join(row) for row in set(rows)}
    if len(set(texts.values())) < len(texts):  # a value contains the separator: JSON is unambiguous
        texts = {row: json.dumps(row, ensure_ascii=False) for row in texts}
    values = pd.Series([texts[row] for row in rows], index=frame.index[is_complete], dtype=TEXT).reindex(frame.index)
    problems = parts[0].problems
    for part in parts[1:]:
        problems = problems.fillna(part.problems)
    for part in parts:
        problems = problems.mask(problems.isna() & part.texts.isna(), f"no {part.name}")
    return Labels(_SEPARATOR.join(part.name for part in parts), values, problems)
