"""The rows of what a digest is of, and one row for each of it. However many there are, each frame is read once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.analysis.conversation import load, rows, spelled
from kern_nb.analysis.totals import totals
from kern_nb.db.columns import DTYPES
from kern_nb.errors import RunNotFound, SessionNotFound

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

TEXT: Any = DTYPES["text"]
COUNT: Any = DTYPES["count"]
NUMBER: Any = DTYPES["number"]

COUNTS = (
    "n_runs",
    "n_messages",
    "n_tool_calls",
    "n_tool_errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
)
TOTALS = (*COUNTS, "cost", "duration_s")

_OF_RUNS = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
"""What the frame of sessions does not have."""

_PLACE = ("session_id", "run_id", "run_index", "message_index")
_RUN = (
    *("session_id", "run_index", "run_id", "parent_run_id", "agent_id", "status", "model", "input", "output", "error"),
    *(name for name in TOTALS if name != "n_runs"),
    "created_at",
)
_MESSAGE = (*_PLACE, "role", "tool_call_id", "model", "created_at")
_CALL = (*_PLACE, "tool_call_id", "tool_name", "caller", "status", "is_error", "duration_s", "created_at")


@dataclass(frozen=True, eq=False)
class Gathered:
    """What a digest is computed from.

    Attributes:
        items: One row a session or run that is meant; see `kern_nb.analysis.digest.Digest`.
        counted: One flag an item: False where its rows are another item's, too, and count there.
        runs: One row a run, without its messages.
        messages: One row a message, without its content.
        tool_calls: One row a tool call, without arguments and result.
        scores: One row an item and name of a score: the mean of its ratings.
        inherited: How many of the runs a branch inherits; of several items none is gathered for a session.
        missing: Sessions that were deleted meanwhile, or whose id frames cannot hold: half a surrogate pair is in it.
    """

    items: pd.DataFrame
    counted: pd.Series[bool]
    runs: pd.DataFrame
    messages: pd.DataFrame
    tool_calls: pd.DataFrame
    scores: pd.DataFrame
    inherited: int = 0
    missing: tuple[str, ...] = ()


def gathered(store: SessionStore, places: Sequence[Reference]) -> Gathered:
    """The rows of sessions and runs.

    One alone is taken with all it sees: a branch with what it inherits. Of several, each session is taken with its own
    rows, so that nothing which two branches share is counted twice. A run is taken with its members' runs.

    Raises:
        SessionNotFound, RunNotFound: there is none such.
    """
    return _one(store, places[0]) if len(places) == 1 else _several(store, places)


def _one(store: SessionStore, place: Reference) -> Gathered:
    import pandas as pd

    side = load(str(place), store)
    frames = (side.runs[list(_RUN)], side.messages[list(_MESSAGE)], side.tool_calls[list(_CALL)])
    runs, messages, tool_calls = (frame.reset_index(drop=True) for frame in frames)
    # As the branch has them: that is where they are found again.
    runs, messages, tool_calls = (
        df.assign(session_id=pd.array([side.session_id] * len(df), dtype=TEXT)) for df in (runs, messages, tool_calls)
    )
    found = totals(side)
    took = _typed(pd.DataFrame([{name: found[name] for name in TOTALS}]))
    scores = side.scores[["name", "value"]].assign(n=0)
    items = _items([place], runs.assign(n=0), took)
    inherited = int(side.runs["inherited"].sum())
    return Gathered(items, pd.Series([True]), runs, messages, tool_calls, _means(scores, items), inherited)


def _several(store: SessionStore, places: Sequence[Reference]) -> Gathered:
    import pandas as pd

    ids = list(dict.fromkeys(place.session_id for place in places))
    taken = [name for name in TOTALS if name not in _OF_RUNS]
    sessions = store.sessions_df(ids, columns=["session_id", "parent_session_id", *taken]).set_index("session_id")
    missing = tuple(session_id for session_id in ids if session_id not in sessions.index)
    places = [place for place in places if place.session_id in sessions.index]
    if not places:
        raise SessionNotFound(f"There is no session {missing[0]!r}.", "List them with %kern sessions.")
    frames = _Frames(store, [session_id for session_id in ids if session_id not in missing])
    whole = pd.DataFrame([(p.session_id, n) for n, p in enumerate(places) if p.run_index is None], columns=["id", "n"])
    parts = [(n, run_id) for n, p in enumerate(places) if p.run_index is not None for run_id in frames.members(p)]
    of_part = pd.DataFrame(parts, columns=["n", "run_id"])
    member_rows = [
        frames.runs.merge(whole, left_on="session_id", right_on="id").drop(columns="id"),
        frames.runs.merge(of_part, on="run_id"),
    ]
    told = pd.concat([df for df in member_rows if len(df)] or member_rows[:1], ignore_index=True)
    told = told.sort_values(["n", "run_index"], kind="stable")
    sums = told.groupby("n")[[name for name in TOTALS if name != "n_runs"]].sum(min_count=1)
    took = sums.assign(n_runs=told.groupby("n").size()).reindex(range(len(places)))
    of_session = sessions[taken].reindex([p.session_id for p in places]).reset_index(drop=True)
    is_whole = pd.Series([p.run_index is None for p in places])
    # What a branch keeps a copy of was spent by its parent, which the runs do not say.
    copied = is_whole & (of_session["total_tokens"] != took["total_tokens"]).fillna(False).astype(bool)
    took[list(_OF_RUNS)] = took[list(_OF_RUNS)].mask(copied)
    alone = told[_is_root(told)].groupby("n")["duration_s"].sum(min_count=1)  # a member's time is within its leader's
    took["duration_s"] = alone.reindex(took.index)
    took[taken] = took[taken].where(~is_whole, of_session)
    items = _items(places, told, _typed(took))
    needed = set(told["run_id"])
    messages, tool_calls = (df[df["run_id"].isin(needed)] for df in (frames.messages, frames.tool_calls))
    runs = told.drop(columns="n").drop_duplicates("run_id").reset_index(drop=True)
    scores = _means(_scores(store, places, told), items)
    return Gathered(items, _counted(places, told), runs, messages, tool_calls, scores, missing=missing)


class _Frames:
    """The rows of some sessions, and of what is named in them of their parents'."""

    def __init__(self, store: SessionStore, ids: list[str]) -> None:
        self._store = store
        self.runs = store.runs_df(ids, columns=_RUN)
        self.messages = store.messages_df(ids, columns=_MESSAGE)
        self.tool_calls = store.tool_calls_df(ids, columns=_CALL)
        self._families: dict[str, _Family] = {}

    def members(self, place: Reference) -> list[str]:
        """The ids of a run and its members' runs, its own first.

        Raises:
            RunNotFound: there is no such run.
        """
        index = place.run_index or 0
        if place.session_id not in self._families:
            self._families[place.session_id] = _Family(self.runs[self.runs["session_id"] == place.session_id])
        if index not in self._families[place.session_id].by_index:
            self._store.locate(str(place))  # raises where there is none
            self._add_inherited(place.session_id)
        family = self._families[place.session_id]
        if index not in family.by_index:
            raise RunNotFound(f"There is no run {str(place)!r}.", f"See %kern show {place.session_id}")
        return family.of(index)

    def _add_inherited(self, session_id: str) -> None:
        import pandas as pd

        seen = self._store.runs_df(session_id, lineage=True)
        self._families[session_id] = _Family(seen)
        new = set(seen["run_id"]) - set(self.runs["run_id"])
        for name, columns in (("runs", _RUN), ("messages", _MESSAGE), ("tool_calls", _CALL)):
            df = getattr(self._store, f"{name}_df")(session_id, lineage=True)[list(columns)]
            df = df[df["run_id"].isin(new)]
            if len(df):
                setattr(self, name, pd.concat([getattr(self, name), df], ignore_index=True))


class _Family:
    """The runs of a session, and which were made within which."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self.by_index: dict[int, str] = {}
        self._members: dict[str | None, list[str]] = defaultdict(list)
        for run_id, index, parent in rows(runs, ("run_id", "run_index", "parent_run_id")):
            self.by_index[index] = run_id
            self._members[parent].append(run_id)

    def of(self, index: int) -> list[str]:
        """A run and all that was made within it."""
        found = [self.by_index[index]]
        for run_id in found:  # grows while it is read
            found += self._members[run_id]
        return found


def _is_root(told: pd.DataFrame) -> pd.Series[bool]:
    """Whether each run of an item was made within none of the item's other runs."""
    import pandas as pd

    keys = list(rows(told, ("n", "run_id", "parent_run_id")))
    there = {(n, run_id) for n, run_id, _ in keys}
    flags = [parent is None or (n, parent) not in there for n, _, parent in keys]
    return pd.Series(flags, index=told.index, dtype=bool)


def _items(places: Sequence[Reference], told: pd.DataFrame, took: pd.DataFrame) -> pd.DataFrame:
    """One row a place; ``told`` are its runs in order, with its number as ``n``."""
    import pandas as pd

    roots = told[_is_root(told)]
    ends = roots.groupby("n").tail(1).set_index("n").reindex(range(len(places)))
    asked = roots.groupby("n")["input"]
    made = pd.DataFrame(
        {
            "item": pd.array([spelled(str(place)) for place in places], dtype=TEXT),
            "session_id": pd.array([spelled(place.session_id) for place in places], dtype=TEXT),
            "run_index": pd.array([place.run_index for place in places], dtype=COUNT),
            "status": ends["status"].astype(TEXT),
            "asked": asked.first().reindex(ends.index).astype(TEXT),
            "n_asked": asked.count().reindex(ends.index, fill_value=0).astype(COUNT),
            "output": roots.groupby("n")["output"].last().reindex(ends.index).astype(TEXT),
            "error": ends["error"].astype(TEXT),
            "created_at": roots.groupby("n")["created_at"].min().reindex(ends.index),
        }
    )
    counts = took[["n_runs", "n_messages", "n_tool_calls", "n_tool_errors"]].fillna(0)
    return pd.concat([made.rename_axis(None), took.assign(**counts)[list(TOTALS)].rename_axis(None)], axis=1)


def _typed(took: pd.DataFrame) -> pd.DataFrame:
    kinds = {name: COUNT if name in COUNTS else NUMBER for name in TOTALS}
    return took.astype(dict.fromkeys(TOTALS, NUMBER)).astype(kinds)


def _scores(store: SessionStore, places: Sequence[Reference], told: pd.DataFrame) -> pd.DataFrame:
    """What rates the items as wholes, with the item's number: the sessions themselves, or the runs that are meant."""
    import pandas as pd

    rated = store.scores_df({*(p.session_id for p in places), *told["session_id"]})
    numbers = {p.session_id: n for n, p in enumerate(places) if p.run_index is None}
    of_sessions = rated[rated["run_id"].isna()]
    found = [of_sessions.assign(n=of_sessions["session_id"].astype(object).map(numbers))]
    heads = pd.DataFrame(_heads(places, told).items(), columns=["n", "run_id"]).astype({"run_id": TEXT})
    found.append(rated[rated["run_id"].notna()].merge(heads, on="run_id"))
    scores = pd.concat([df[["name", "value", "n"]] for df in found if len(df)] or [found[0][["name", "value", "n"]]])
    return scores.dropna(subset=["n"]).astype({"n": int})


def _means(scores: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    means = scores.groupby(["n", "name"], sort=True)["value"].mean().reset_index()
    made = {
        "item": pd.array(items["item"].iloc[means["n"].to_list()].tolist(), dtype=TEXT),
        "name": pd.array(means["name"].tolist(), dtype=TEXT),
        "value": pd.array(means["value"].tolist(), dtype=NUMBER),
    }
    return pd.DataFrame(made)


def _counted(places: Sequence[Reference], told: pd.DataFrame) -> pd.Series[bool]:
    """Whether each item counts in sums: one whose run is within another item, or is named twice, counts there."""
    import pandas as pd

    if all(place.run_index is None for place in places):
        return pd.Series([True] * len(places))
    heads = _heads(places, told)
    within: dict[str, list[int]] = defaultdict(list)
    for n, run_id in rows(told, ("n", "run_id")):
        within[run_id].append(n)

    def counts(n: int) -> bool:
        if n not in heads:
            return True
        others = (m for m in within[heads[n]] if m != n)
        return not any(m not in heads or heads[m] != heads[n] or m < n for m in others)

    return pd.Series([counts(n) for n in range(len(places))])


def _heads(places: Sequence[Reference], told: pd.DataFrame) -> dict[int, str]:
    """The ids of the runs that are items, by the item's number."""
    meant = {(n, place.run_index) for n, place in enumerate(places) if place.run_index is not None}
    return {n: run_id for n, index, run_id in rows(told, ("n", "run_index", "run_id")) if (n, index) in meant}
