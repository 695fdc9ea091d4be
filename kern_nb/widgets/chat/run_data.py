"""The runs of a conversation as data for a script: their messages and requirements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kern_nb.operations.inbox import short_ids
from kern_nb.records import Requirement, Run, Session
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import is_complete
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import encode_key
from kern_nb.widgets.requirements.actions import requirements_of_latest_pause

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

PAGE_RUNS = 20  # the runs that are shown at first, and more of them at a time


def load_latest(store: SessionStore, session_id: str, before: int | None = None) -> list[Run]:
    """Load the latest runs of a session, or the latest ones before a run index, without the runs of members."""
    df = _indexes(store, session_id)
    df = df if before is None else df[df["run_index"] < before]
    starts = df.loc[df["parent_run_id"].isna(), "run_index"].tail(PAGE_RUNS)
    if starts.empty:
        return []
    start = int(starts.iloc[0])
    runs = store.session_runs(session_id, start=start, limit=int((df["run_index"] >= start).sum()))
    return [run for run in runs if run.parent_run_id is None]


def newest_index(store: SessionStore, session_id: str) -> int:
    """Return the index of the latest run; 0 without runs."""
    df = _indexes(store, session_id)
    return max(map(int, df.loc[df["parent_run_id"].isna(), "run_index"].tail(1)), default=0)


def _indexes(store: SessionStore, session_id: str) -> pd.DataFrame:
    return store.runs_df(session_id, columns=("run_index", "parent_run_id"), lineage=True)


def run_item(
    session: Session, run: Run, store: SessionStore, form_data: Callable[[Requirement, str], dict[str, Any]]
) -> dict[str, Any]:
    """Convert a run of a session, and its requirements by ``form_data``, which gets each with its short id."""
    part = transcript_data.transcript_part(session, [run], transcript_data.Start(run.run_index or 0))
    content, following = part["runs"][0], part["next"]
    is_own = run.session_id == session.session_id
    paused = is_own and run.status == "PAUSED"
    needed = requirements_of_latest_pause(store.get_run(run.run_id).requirements) if paused else []
    names = short_ids(store, needed)
    return {
        "key": encode_key(run.run_id),
        "index": run.run_index,
        "at": f"{formatting.truncate(session.session_id, 24)}/{run.run_index}",
        "status": run.status if is_complete(session, run) else "",
        "facts": content["facts"],
        "messages": list(_messages(run, content["messages"], {r.tool_call_id for r in needed})),
        "more": following is not None and following.run_index == run.run_index,
        "ends": [end for end in content["ends"] if end["kind"] != "waiting"],
        "cards": [form_data(r, names[r.key]) for r in needed],
        "ready": bool(needed) and not any(map(requirements.is_pending, needed)),
        "again": is_own and run.status in ("ERROR", "CANCELLED", "INTERRUPTED"),
    }


def _messages(run: Run, items: list[dict[str, Any]], required: set[str | None]) -> Iterator[dict[str, Any]]:
    """Yield the messages of the conversation; calls with a requirement are left to its form."""
    for item in items:
        if item["role"] in ("system", "developer") or item.get("answer"):
            continue
        calls = run.messages[item["position"]].tool_calls if item["position"] < len(run.messages) else []
        paused = {n for n, call in enumerate(calls) if call.status == "started" and call.tool_call_id in required}
        yield item | {"calls": [call for call in item["calls"] if call["number"] not in paused]}
