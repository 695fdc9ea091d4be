"""What a session is called by: a column of its own, what its runs agree on, a key of its metadata or of its state.

A name is looked for in that order, and the first place where any session has a value is what it means. ``metadata.``
or ``state.`` before it says where to look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.analysis.conversation import spelled
from kern_nb.db.columns import SESSIONS
from kern_nb.errors import BadUsage, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

TEXT = pd.StringDtype()
OF_RUNS = ("model", "model_provider")
"""The columns of ``runs_df`` that say something of a session, where its runs agree."""

_OF_SESSIONS = tuple(c.name for c in SESSIONS if c.kind in ("text", "count", "number"))
_TIMES = tuple(c.name for c in SESSIONS if c.kind == "time")
_PREFIXES = ("metadata.", "state.")
_BETWEEN = " / "
_NAMED = 5
_SAMPLE = 1_000


@dataclass(frozen=True)
class Labels:
    """What sessions say under a name.

    Attributes:
        name: The name, as it was asked for.
        texts: One text a session, missing where it has none.
        problems: Why a session has none, where there is more to say than that; missing elsewhere.
    """

    name: str
    texts: pd.Series[Any]
    problems: pd.Series[Any]

    def found(self) -> list[str]:
        """The values there are."""
        return sorted(self.texts.dropna().unique())


class Reader:
    """Reads labels of the sessions that fit the filters; each place is read once.

    Args:
        store: The store.
        columns: What else is wanted of the sessions: columns of ``sessions_df``.
        filters: What `SessionStore.sessions_df` takes: user_id, agent_id, since, until.
    """

    def __init__(self, store: SessionStore, columns: Iterable[str], filters: dict[str, Any]) -> None:
        self._store = store
        self._filters = {name: value for name, value in filters.items() if value is not None}
        self._narrowed = bool(self._filters)
        df = store.sessions_df(columns=["session_id", "created_at", *columns], **self._filters)
        self._sessions = df.set_index("session_id", drop=False).rename_axis(None).iloc[::-1]
        if self._sessions.empty:
            raise BadUsage(
                "There are no sessions to compare" + (" that fit." if self._filters else "."),
                "Choose other filters." if self._filters else "Recorded ones come in with %kern import PATH.",
            )

    @property
    def sessions(self) -> pd.DataFrame:
        """The sessions, oldest first, by their id."""
        return self._sessions

    def keep(self, name: str, value: Any) -> None:
        """Go on with the sessions that say this under a name.

        Raises:
            BadUsage: no session has a value of that name, or none has this one.
        """
        labels = self.labels(name)
        text = text_of(value)
        kept = (labels.texts == text).fillna(False).astype(bool)
        if not kept.any():
            there = labels.found()
            known = f"There are: {listed(there, 20)}."
            raise BadUsage(f"No session has {name} {text!r}.", did_you_mean(text, there, known))
        self._sessions = self._sessions[kept]
        self._narrowed = True

    def scores(self, name: str) -> pd.Series[Any]:
        """What each session was given: the mean of its ratings of that name, or else of those of its runs.

        Raises:
            BadUsage: the sessions have scores, but none of that name.
        """
        rated = self.rows("scores", ["session_id", "run_id", "name", "value"])
        mine = rated[rated["name"] == name]
        if mine.empty and not rated.empty:
            there = sorted(rated["name"].unique())
            raise BadUsage(
                f"No session has a score {name!r}.", did_you_mean(name, there, f"There are: {listed(there, 20)}.")
            )
        of_run = mine["run_id"].notna()
        own, of_runs = (part.groupby("session_id")["value"].mean() for part in (mine[~of_run], mine[of_run]))
        ids = self._sessions.index
        return own.reindex(ids).fillna(of_runs.reindex(ids)).astype(float)

    def rows(self, frame: str, columns: Sequence[str]) -> pd.DataFrame:
        """Rows of another frame that belong to these sessions, and of none but those written in between."""
        narrowed = {"session_id": list(self._sessions.index)} if self._narrowed else {}
        df: pd.DataFrame = getattr(self._store, f"{frame}_df")(columns=list(columns), **narrowed)
        return df

    def labels(self, names: str | Sequence[str]) -> Labels:
        """What the sessions say under a name, or under several names together.

        Raises:
            BadUsage: no session has a value of that name.
        """
        listed_ = [names] if isinstance(names, str) or not isinstance(names, Iterable) else names
        parts = [self._labels(name) for name in listed_]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            raise BadUsage("No name is given to tell sessions apart by.", 'For example: key="task_id"')
        return _joined(parts)

    def _labels(self, name: str) -> Labels:
        if not isinstance(name, str) or not name:
            raise BadUsage(f"{name!r} is no name to tell sessions apart by.", 'For example: "task_id"')
        nothing = pd.Series(pd.NA, index=self._sessions.index, dtype=TEXT)
        if not name.startswith(_PREFIXES):
            if name in _OF_SESSIONS:
                own = self._read([name])[name]
                if own.notna().any():
                    return Labels(name, own.astype(TEXT), nothing)
            if name in OF_RUNS:
                found = self._agreed(name)
                if found.texts.notna().any() or found.problems.notna().any():
                    return found
        places = [name] if name.startswith(_PREFIXES) else [prefix + name for prefix in _PREFIXES]
        inside = self._read([], places)
        for place in places:
            if inside[place].notna().any():
                return Labels(name, inside[place].astype(TEXT), nothing)
        raise self._unknown(name)

    def _read(self, columns: Sequence[str], expand: Sequence[str] = ()) -> pd.DataFrame:
        """More of the sessions, in their order."""
        wanted = list(dict.fromkeys(["session_id", *columns]))
        df = self._store.sessions_df(columns=wanted, expand=expand, **self._filters)
        return df.set_index("session_id", drop=False).reindex(self._sessions.index)

    def _agreed(self, name: str) -> Labels:
        """The value that a session's runs agree on. Members' runs do not count, nor do runs that state none."""
        runs = self.rows("runs", ["session_id", "parent_run_id", name])
        told = runs[runs["parent_run_id"].isna() & runs[name].notna()][["session_id", name]].drop_duplicates()
        several = told["session_id"].duplicated(keep=False)
        agreed = told[~several].set_index("session_id")[name]
        apart = told[several].groupby("session_id")[name].agg(list).map(lambda found: listed(sorted(found)))
        reasons = f"its runs disagree on {name}: " + apart.astype(TEXT)
        index = self._sessions.index
        return Labels(name, agreed.reindex(index).astype(TEXT), reasons.reindex(index).astype(TEXT))

    def _unknown(self, name: str) -> BadUsage:
        inside = self._metadata_keys()
        keys = f"The metadata has {listed(inside, 30)}. " if inside else ""
        columns = [*OF_RUNS, *_OF_SESSIONS]
        if name in columns:
            return BadUsage(f"No session has a value of {name!r}.", f"Name another. {keys}".strip())
        if name in _TIMES:
            return BadUsage(f"{name!r} is a time, which makes no groups.", "Choose by time with since and until.")
        hint = did_you_mean(name.split(".", 1)[-1], [*inside, *columns], f"{keys}Columns are {', '.join(columns)}.")
        return BadUsage(f"No session has a value of {name!r}.", hint)

    def _metadata_keys(self) -> list[str]:
        """The keys of the metadata of some of the sessions."""
        df = self._store.sessions_df(columns=["metadata"], limit=_SAMPLE, **self._filters)
        told = (json.loads(text) for text in df["metadata"].dropna())
        return list(dict.fromkeys(key for one in told if isinstance(one, dict) for key in one))


def text_of(value: Any) -> str:
    """A value as labels spell it: text as it is, all else as JSON."""
    if isinstance(value, str):
        return spelled(value)
    try:
        return json.dumps(getattr(value, "item", lambda: value)(), ensure_ascii=False)  # of numpy, as Python has it
    except TypeError:
        return str(value)


def listed(values: Sequence[str], most: int = _NAMED) -> str:
    """The first of some values, for a sentence, with a word on how many more there are."""
    return ", ".join(values[:most]) + (f" and {len(values) - most:,} more" if len(values) > most else "")


def _joined(parts: Sequence[Labels]) -> Labels:
    """Several labels as one; a session that lacks one of them has none."""
    frame = pd.concat([part.texts for part in parts], axis=1)
    whole = frame.notna().all(axis=1)
    rows = [tuple(row) for row in frame[whole].to_numpy()]
    texts = {row: _BETWEEN.join(row) for row in set(rows)}
    if len(set(texts.values())) < len(texts):  # a value that holds what stands between: JSON keeps them apart
        texts = {row: json.dumps(row, ensure_ascii=False) for row in texts}
    values = pd.Series([texts[row] for row in rows], index=frame.index[whole], dtype=TEXT).reindex(frame.index)
    problems = parts[0].problems
    for part in parts[1:]:
        problems = problems.fillna(part.problems)
    lacking = pd.Series(pd.NA, index=frame.index, dtype=TEXT)
    for part in reversed(parts):
        lacking = lacking.mask(part.texts.isna(), f"no {part.name}")
    return Labels(_BETWEEN.join(part.name for part in parts), values, problems.fillna(lacking))
