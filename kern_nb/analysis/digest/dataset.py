"""The rows a digest is computed from. Each frame of the store is read once, however many items there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from kern_nb.analysis.conversation import RunTree, load_conversation
from kern_nb.analysis.dataframe import COUNT, NUMBER, TEXT, build_frame, iter_rows
from kern_nb.analysis.metrics import COUNTS, TOTALS, compute_totals
from kern_nb.control_characters import replace_surrogates
from kern_nb.errors import RunNotFound, SessionNotFound

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference

_RUN_TOTALS = TOTALS[1:]
_RUNS_ONLY = ["cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]
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
    "tool_calls": (*_KEYS, *("tool_call_id", "tool_name", "caller", "status", "is_error", "duration_s", "created_at")),
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
    conversation = load_conversation(str(reference), store)
    runs, messages, tool_calls = (
        # With the branch's session id: its reference finds them.
        getattr(conversation, name)[list(columns)]
        .reset_index(drop=True)
        .assign(session_id=lambda df: pd.array([conversation.session_id] * len(df), dtype=TEXT))
        for name, columns in _COLUMNS.items()
    )
    totals = pd.DataFrame([compute_totals(conversation)])
    items = _build_items([reference], _select_roots(runs.assign(n=0)), totals)
    scores = _mean_scores(conversation.scores.assign(n=0), items)
    inherited = int(conversation.runs["inherited"].sum())
    return DigestRows(items, pd.Series([True]), runs, messages, tool_calls, scores, inherited)


def _read_several(store: SessionStore, references: Sequence[Reference]) -> DigestRows:
    ids = list(dict.fromkeys(reference.session_id for reference in references))
    names = [name for name in TOTALS if name not in _RUNS_ONLY]
    sessions = store.sessions_df(ids, columns=["session_id", *names]).set_index("session_id")
    missing_ids = tuple(session_id for session_id in ids if session_id not in sessions.index)
    references = [reference for reference in references if reference.session_id in sessions.index]
    if not references:
        raise SessionNotFound(f"There is no session {missing_ids[0]!r}.", "List them with %kern sessions.")
    frames = _Frames(store, [session_id for session_id in ids if session_id not in missing_ids])
    members = {n: frames.member_ids(r) for n, r in enumerate(references) if r.run_index is not None}
    run_ids = {n: ids[0] for n, ids in members.items()}
    item_runs = _item_runs(frames.runs, references, members)
    roots, by_item = _select_roots(item_runs), item_runs.groupby("n")
    totals = by_item[list(_RUN_TOTALS)].sum(min_count=1).assign(n_runs=by_item.size()).reindex(range(len(references)))
    session_totals = sessions[names].reindex([r.session_id for r in references]).reset_index(drop=True)
    is_session = pd.Series([r.run_index is None for r in references])
    # Sessions do not count what a branch copied from its parent, and the runs do: such sums are unknown.
    has_copies = is_session & (session_totals["total_tokens"] != totals["total_tokens"]).fillna(False).astype(bool)
    totals[_RUNS_ONLY] = totals[_RUNS_ONLY].mask(has_copies)
    totals["duration_s"] = roots.groupby("n")["duration_s"].sum(min_count=1).reindex(totals.index)
    totals[names] = totals[names].where(~is_session, session_totals)
    items = _build_items(references, roots, totals)
    messages, tool_calls = (df[df["run_id"].isin(item_runs["run_id"])] for df in (frames.messages, frames.tool_calls))
    runs = item_runs.drop(columns="n").drop_duplicates("run_id").reset_index(drop=True)
    scores = _mean_scores(_item_scores(store, references, item_runs, run_ids), items)
    is_counted = _is_counted(len(references), item_runs, run_ids)
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
        """Return the ids of a run, its own first, and of its members' runs; raise RunNotFound if there is no run."""
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
        lineage = self._store.runs_df(session_id, lineage=True)
        self._trees[session_id] = RunTree(lineage)
        new = set(lineage["run_id"]) - set(self.runs["run_id"])
        for name, columns in _COLUMNS.items():
            df = getattr(self._store, f"{name}_df")(session_id, lineage=True)[list(columns)]
            df = df[df["run_id"].isin(new)]
            if len(df):
                setattr(self, name, pd.concat([getattr(self, name), df], ignore_index=True))


def _item_runs(
    runs: pd.DataFrame, references: Sequence[Reference], members: Mapping[int, Sequence[str]]
) -> pd.DataFrame:
    """The runs of each item in order, with the item's number as ``n``."""
    sessions = [(r.session_id, n) for n, r in enumerate(references) if r.run_index is None]
    run_ids = [(run_id, n) for n, ids in members.items() for run_id in ids]
    parts = [
        runs.merge(pd.DataFrame(sessions, columns=["session_id", "n"]), on="session_id"),
        runs.merge(pd.DataFrame(run_ids, columns=["run_id", "n"]), on="run_id"),
    ]
    stacked = pd.concat([df for df in parts if len(df)] or parts[:1], ignore_index=True)
    return stacked.sort_values(["n", "run_index"], kind="stable")


def _select_roots(item_runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of each item that are not members of its other runs: their time includes the members'."""
    run_ids = set(iter_rows(item_runs, ("n", "run_id")))
    return item_runs.loc[[parent_id not in run_ids for parent_id in iter_rows(item_runs, ("n", "parent_run_id"))]]


def _build_items(references: Sequence[Reference], roots: pd.DataFrame, totals: pd.DataFrame) -> pd.DataFrame:
    by_item = roots.groupby("n")
    latest = by_item.tail(1).set_index("n").reindex(range(len(references)))
    items = pd.DataFrame(
        {
            "item": pd.array([replace_surrogates(str(r)) for r in references], dtype=TEXT),
            "session_id": pd.array([replace_surrogates(r.session_id) for r in references], dtype=TEXT),
            "run_index": pd.array([r.run_index for r in references], dtype=COUNT),
            "status": latest["status"].astype(TEXT),
            "asked": by_item["input"].first().reindex(latest.index).astype(TEXT),
            "n_asked": by_item["input"].count().reindex(latest.index, fill_value=0).astype(COUNT),
            "output": by_item["output"].last().reindex(latest.index).astype(TEXT),
            "error": latest["error"].astype(TEXT),
            "created_at": by_item["created_at"].min().reindex(latest.index),
        }
    )
    totals = totals[list(TOTALS)].astype(NUMBER).astype(dict.fromkeys(COUNTS, COUNT))
    never_missing = ["n_runs", "n_messages", "n_tool_calls", "n_tool_errors"]
    totals[never_missing] = totals[never_missing].fillna(0)
    return pd.concat([items, totals], axis=1).rename_axis(None)


def _item_scores(
    store: SessionStore, references: Sequence[Reference], item_runs: pd.DataFrame, run_ids: Mapping[int, str]
) -> pd.DataFrame:
    """The ratings of the items as wholes, with the item's number as ``n``."""
    items = pd.DataFrame(
        [(n, run_ids.get(n, r.session_id), n in run_ids) for n, r in enumerate(references)],
        columns=["n", "subject", "is_run"],
    )
    ratings = store.scores_df({*(r.session_id for r in references), *item_runs["session_id"]})
    subjects = ratings["run_id"].fillna(ratings["session_id"])
    ratings = ratings.assign(subject=subjects, is_run=ratings["run_id"].notna())
    return ratings.merge(items.astype({"subject": TEXT}), on=["subject", "is_run"])


def _mean_scores(scores: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    means = scores.groupby(["n", "name"], sort=True)["value"].mean().reset_index()
    names = items["item"].tolist()
    rows = [(names[n], name, value) for n, name, value in iter_rows(means, ("n", "name", "value"))]
    return build_frame(rows, {"item": "text", "name": "text", "value": "number"})


def _is_counted(n_items: int, item_runs: pd.DataFrame, run_ids: Mapping[int, str]) -> pd.Series[bool]:
    """Flag the items that count in sums: not a run that another item includes, nor a run's second mention."""
    items_of: dict[str, list[int]] = defaultdict(list)
    for n, run_id in iter_rows(item_runs, ("n", "run_id")):
        items_of[run_id].append(n)

    def is_counted(n: int) -> bool:
        run_id = run_ids.get(n)
        return run_id is None or all(run_ids.get(m) == run_id and m >= n for m in items_of[run_id])

    return pd.Series([is_counted(n) for n in range(n_items)])
