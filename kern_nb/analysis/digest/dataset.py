"""The rows a digest is computed from. Each frame of the store is read once, however many items there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kern_nb.analysis.conversation import RunTree, load_conversation
from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, build_frame, frame_text, iter_rows
from kern_nb.analysis.totals import compute_totals
from kern_nb.errors import RunNotFound, SessionNotFound

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

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

_RUN_TOTALS = tuple(name for name in TOTALS if name != "n_runs")
_RUNS_ONLY = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
"""The totals that the frame of sessions lacks."""

_KEYS = ("session_id", "run_id", "run_index", "message_index")
_COLUMNS = {
    "runs": (
        *("session_id", "run_index", "run_id", "parent_run_id", "agent_id"),
        *("status", "model", "input", "output", "error"),
        *_RUN_TOTALS,
        "created_at",
    ),
    "messages": (*_KEYS, "role", "tool_call_id", "model", "created_at"),
    "tool_calls": (
        *_KEYS,
        *("tool_call_id", "tool_name", "caller", "status", "is_error", "duration_s", "created_at"),
    ),
}


@dataclass(frozen=True, eq=False)
class DigestRows:
    """The rows of a digest.

    Attributes:
        items: One row a session or run; see `kern_nb.analysis.digest.Digest`.
        counted: One flag an item: False where another item includes its rows.
        runs: One row a run, without its messages.
        messages: One row a message, without its content.
        tool_calls: One row a tool call, without arguments and result.
        scores: One row an item and score name: the mean of its ratings.
        inherited: The number of inherited runs, of a single item.
        missing: Sessions that were deleted meanwhile, or whose id has a lone surrogate, which frames cannot hold.
    """

    items: pd.DataFrame
    counted: pd.Series[bool]
    runs: pd.DataFrame
    messages: pd.DataFrame
    tool_calls: pd.DataFrame
    scores: pd.DataFrame
    inherited: int = 0
    missing: tuple[str, ...] = ()


def read_rows(store: SessionStore, references: Sequence[Reference]) -> DigestRows:
    """Read the rows of sessions and runs.

    A single item includes what a branch inherits. Several sessions have their own rows only, so that nothing that two
    branches share is counted twice. A run includes its members' runs.

    Raises:
        SessionNotFound: None of the sessions exists.
        RunNotFound: A session has no such run.
    """
    return _read_single(store, references[0]) if len(references) == 1 else _read_several(store, references)


def _read_single(store: SessionStore, reference: Reference) -> DigestRows:
    import pandas as pd

    conversation = load_conversation(str(reference), store)
    runs, messages, tool_calls = (
        # With the branch's session id: its reference finds them.
        df[list(_COLUMNS[name])]
        .reset_index(drop=True)
        .assign(session_id=pd.array([conversation.session_id] * len(df), dtype=TEXT))
        for name, df in (
            ("runs", conversation.runs),
            ("messages", conversation.messages),
            ("tool_calls", conversation.tool_calls),
        )
    )
    computed = compute_totals(conversation)
    totals = _set_dtypes(pd.DataFrame([{name: computed[name] for name in TOTALS}]))
    scores = conversation.scores[["name", "value"]].assign(n=0)
    items = _build_items([reference], runs.assign(n=0), totals)
    inherited = int(conversation.runs["inherited"].sum())
    return DigestRows(items, pd.Series([True]), runs, messages, tool_calls, _mean_scores(scores, items), inherited)


def _read_several(store: SessionStore, references: Sequence[Reference]) -> DigestRows:
    import pandas as pd

    ids = list(dict.fromkeys(reference.session_id for reference in references))
    names = [name for name in TOTALS if name not in _RUNS_ONLY]
    sessions = store.sessions_df(ids, columns=["session_id", "parent_session_id", *names]).set_index("session_id")
    missing_ids = tuple(session_id for session_id in ids if session_id not in sessions.index)
    references = [reference for reference in references if reference.session_id in sessions.index]
    if not references:
        raise SessionNotFound(f"There is no session {missing_ids[0]!r}.", "List them with %kern sessions.")
    frames = _Frames(store, [session_id for session_id in ids if session_id not in missing_ids])
    item_runs = _item_runs(frames, references)
    sums = item_runs.groupby("n")[list(_RUN_TOTALS)].sum(min_count=1)
    totals = sums.assign(n_runs=item_runs.groupby("n").size()).reindex(range(len(references)))
    session_totals = sessions[names].reindex([r.session_id for r in references]).reset_index(drop=True)
    is_session = pd.Series([r.run_index is None for r in references])
    # Sessions do not count what a branch copied from its parent, and the runs do: such sums are unknown.
    has_copies = is_session & (session_totals["total_tokens"] != totals["total_tokens"]).fillna(False).astype(bool)
    totals[list(_RUNS_ONLY)] = totals[list(_RUNS_ONLY)].mask(has_copies)
    durations = item_runs[_is_root(item_runs)].groupby("n")["duration_s"].sum(min_count=1)
    totals["duration_s"] = durations.reindex(totals.index)
    totals[names] = totals[names].where(~is_session, session_totals)
    items = _build_items(references, item_runs, _set_dtypes(totals))
    run_ids = set(item_runs["run_id"])
    messages, tool_calls = (df[df["run_id"].isin(run_ids)] for df in (frames.messages, frames.tool_calls))
    runs = item_runs.drop(columns="n").drop_duplicates("run_id").reset_index(drop=True)
    scores = _mean_scores(_item_scores(store, references, item_runs), items)
    is_counted = _is_counted(references, item_runs)
    return DigestRows(items, is_counted, runs, messages, tool_calls, scores, missing=missing_ids)


class _Frames:
    """The rows of some sessions, and of the inherited runs that are items."""

    def __init__(self, store: SessionStore, ids: list[str]) -> None:
        self._store = store
        self.runs = store.runs_df(ids, columns=_COLUMNS["runs"])
        self.messages = store.messages_df(ids, columns=_COLUMNS["messages"])
        self.tool_calls = store.tool_calls_df(ids, columns=_COLUMNS["tool_calls"])
        self._trees: dict[str, RunTree] = {}

    def member_ids(self, reference: Reference) -> list[str]:
        """Return the ids of a run and of its members' runs, its own first.

        Raises:
            RunNotFound: There is no such run.
        """
        index, session_id = reference.run_index or 0, reference.session_id
        if session_id not in self._trees:
            self._trees[session_id] = RunTree(self.runs[self.runs["session_id"] == session_id])
        if index not in self._trees[session_id].by_index:
            self._store.locate(str(reference))  # raises where there is no such run
            self._add_inherited(session_id)
        if index not in self._trees[session_id].by_index:
            raise RunNotFound(f"There is no run {str(reference)!r}.", f"See %kern show {session_id}")
        return self._trees[session_id].member_ids(index)

    def _add_inherited(self, session_id: str) -> None:
        import pandas as pd

        lineage = self._store.runs_df(session_id, lineage=True)
        self._trees[session_id] = RunTree(lineage)
        new = set(lineage["run_id"]) - set(self.runs["run_id"])
        for name, columns in _COLUMNS.items():
            df = getattr(self._store, f"{name}_df")(session_id, lineage=True)[list(columns)]
            df = df[df["run_id"].isin(new)]
            if len(df):
                setattr(self, name, pd.concat([getattr(self, name), df], ignore_index=True))


def _item_runs(frames: _Frames, references: Sequence[Reference]) -> pd.DataFrame:
    """The runs of each item in order, with the item's number as ``n``."""
    import pandas as pd

    numbers = list(enumerate(references))
    session_items = pd.DataFrame([(r.session_id, n) for n, r in numbers if r.run_index is None], columns=["id", "n"])
    members = [(n, run_id) for n, r in numbers if r.run_index is not None for run_id in frames.member_ids(r)]
    parts = [
        frames.runs.merge(session_items, left_on="session_id", right_on="id").drop(columns="id"),
        frames.runs.merge(pd.DataFrame(members, columns=["n", "run_id"]), on="run_id"),
    ]
    stacked = pd.concat([df for df in parts if len(df)] or parts[:1], ignore_index=True)
    return stacked.sort_values(["n", "run_index"], kind="stable")


def _is_root(item_runs: pd.DataFrame) -> pd.Series[bool]:
    """Flag the runs of an item that are not members of its other runs: their time includes the members'."""
    import pandas as pd

    keys = list(iter_rows(item_runs, ("n", "run_id", "parent_run_id")))
    item_run_ids = {(n, run_id) for n, run_id, _ in keys}
    flags = [parent_id is None or (n, parent_id) not in item_run_ids for n, _, parent_id in keys]
    return pd.Series(flags, index=item_runs.index, dtype=bool)


def _build_items(references: Sequence[Reference], item_runs: pd.DataFrame, totals: pd.DataFrame) -> pd.DataFrame:
    """One row an item."""
    import pandas as pd

    roots = item_runs[_is_root(item_runs)]
    latest = roots.groupby("n").tail(1).set_index("n").reindex(range(len(references)))
    inputs = roots.groupby("n")["input"]
    items = pd.DataFrame(
        {
            "item": pd.array([frame_text(str(r)) for r in references], dtype=TEXT),
            "session_id": pd.array([frame_text(r.session_id) for r in references], dtype=TEXT),
            "run_index": pd.array([r.run_index for r in references], dtype=COUNT),
            "status": latest["status"].astype(TEXT),
            "asked": inputs.first().reindex(latest.index).astype(TEXT),
            "n_asked": inputs.count().reindex(latest.index, fill_value=0).astype(COUNT),
            "output": roots.groupby("n")["output"].last().reindex(latest.index).astype(TEXT),
            "error": latest["error"].astype(TEXT),
            "created_at": roots.groupby("n")["created_at"].min().reindex(latest.index),
        }
    )
    counts = totals[["n_runs", "n_messages", "n_tool_calls", "n_tool_errors"]].fillna(0)
    return pd.concat([items.rename_axis(None), totals.assign(**counts)[list(TOTALS)].rename_axis(None)], axis=1)


def _set_dtypes(totals: pd.DataFrame) -> pd.DataFrame:
    dtypes = {name: COUNT if name in COUNTS else NUMBER for name in TOTALS}
    return totals.astype(dict.fromkeys(TOTALS, NUMBER)).astype(dtypes)


def _item_scores(store: SessionStore, references: Sequence[Reference], item_runs: pd.DataFrame) -> pd.DataFrame:
    """The ratings of the items as wholes, with the item's number as ``n``."""
    import pandas as pd

    columns = ["name", "value", "n"]
    ratings = store.scores_df({*(r.session_id for r in references), *item_runs["session_id"]})
    numbers = {r.session_id: n for n, r in enumerate(references) if r.run_index is None}
    of_sessions = ratings[ratings["run_id"].isna()]
    of_sessions = of_sessions.assign(n=of_sessions["session_id"].astype(object).map(numbers))
    run_ids = pd.DataFrame(_item_run_ids(references, item_runs).items(), columns=["n", "run_id"])
    of_runs = ratings[ratings["run_id"].notna()].merge(run_ids.astype({"run_id": TEXT}), on="run_id")
    parts = [df[columns] for df in (of_sessions, of_runs) if len(df)] or [of_sessions[columns]]
    return pd.concat(parts).dropna(subset=["n"]).astype({"n": int})


def _mean_scores(scores: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    means = scores.groupby(["n", "name"], sort=True)["value"].mean().reset_index()
    names = items["item"].tolist()
    rows = [(names[n], name, value) for n, name, value in iter_rows(means, ("n", "name", "value"))]
    return build_frame(rows, {"item": "text", "name": "text", "value": "number"})


def _is_counted(references: Sequence[Reference], item_runs: pd.DataFrame) -> pd.Series[bool]:
    """Flag the items that count in sums: not a run that another item includes, nor a run's second mention."""
    import pandas as pd

    run_ids = _item_run_ids(references, item_runs)
    items_of: dict[str, list[int]] = defaultdict(list)
    for n, run_id in iter_rows(item_runs, ("n", "run_id")):
        items_of[run_id].append(n)

    def is_counted(n: int) -> bool:
        if n not in run_ids:
            return True
        duplicates = (m for m in items_of[run_ids[n]] if m != n)
        return not any(m not in run_ids or run_ids[m] != run_ids[n] or m < n for m in duplicates)

    return pd.Series([is_counted(n) for n in range(len(references))])


def _item_run_ids(references: Sequence[Reference], item_runs: pd.DataFrame) -> dict[int, str]:
    """The ids of the runs that are items, by the item's number."""
    items = {(n, r.run_index) for n, r in enumerate(references) if r.run_index is not None}
    return {n: run_id for n, index, run_id in iter_rows(item_runs, ("n", "run_index", "run_id")) if (n, index) in items}
