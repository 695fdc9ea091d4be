"""The turns of a conversation as data for a script: what was said in each run, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kern_nb.operations.inbox import short_ids
from kern_nb.records import Requirement, Run, Session
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import is_whole
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import key_of
from kern_nb.widgets.requirements.actions import latest_pause

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

TURNS = 20
"""So many turns are shown at first, and more of them at a time."""

_ID = 24
_GO_ON = ("ERROR", "CANCELLED", "INTERRUPTED")
_NOT_SAID = ("system", "developer")


def latest(store: SessionStore, session_id: str, before: int | None = None) -> list[Run]:
    """The latest turns of a session, or the latest before a run, with the runs of members between them."""
    df = _places(store, session_id)
    df = df if before is None else df[df["run_index"] < before]
    starts = df.loc[df["parent_run_id"].isna(), "run_index"].tail(TURNS)
    if starts.empty:
        return []
    start = int(starts.iloc[0])
    return store.session_runs(session_id, start=start, limit=int((df["run_index"] >= start).sum()))


def newest(store: SessionStore, session_id: str) -> int:
    """The index of the latest turn; 0 where there is none."""
    df = _places(store, session_id)
    return max(map(int, df.loc[df["parent_run_id"].isna(), "run_index"].tail(1)), default=0)


def _places(store: SessionStore, session_id: str) -> pd.DataFrame:
    return store.runs_df(session_id, columns=("run_index", "parent_run_id"), lineage=True)


def turn(
    session: Session, run: Run, store: SessionStore, card: Callable[[Requirement, str], dict[str, Any]]
) -> dict[str, Any]:
    """A turn.

    Args:
        session: The session that is shown, without its runs.
        run: The run.
        store: Where they are.
        card: Makes the card of a requirement, and of what stands for it in a line.
    """
    told = transcript_data.part(session, [run], transcript_data.Start(run.run_index or 0))
    shown = told["runs"][0]
    is_ours = run.session_id == session.session_id
    asked = latest_pause(store.get_run(run.run_id).requirements) if is_ours and run.status == "PAUSED" else []
    names = short_ids(store, asked)
    return {
        "key": key_of(run.run_id),
        "index": run.run_index,
        "at": f"{formatting.cut(session.session_id, _ID)}/{run.run_index}",
        "status": run.status if is_whole(session, run) else "",
        "facts": shown["facts"],
        "messages": list(_said(run, shown["messages"], {one.tool_call_id for one in asked})),
        "more": told["next"] is not None and told["next"].run_index == run.run_index,
        "ends": [one for one in shown["ends"] if one["kind"] != "waiting"],
        "cards": [card(one, names[one.requirement_id]) for one in asked],
        "ready": bool(asked) and not any(map(requirements.is_waiting, asked)),
        "again": is_ours and run.status in _GO_ON,
    }


def _said(run: Run, messages: list[dict[str, Any]], asked: set[str | None]) -> Iterator[dict[str, Any]]:
    """What was said aloud; calls whose answer is asked for are left to their cards."""
    for shown in messages:
        if shown["role"] in _NOT_SAID or shown.get("answer"):
            continue
        made = run.messages[shown["place"]].tool_calls if shown["place"] < len(run.messages) else []
        waits = {n for n, one in enumerate(made) if one.status == "started" and one.tool_call_id in asked}
        yield shown | {"calls": [one for one in shown["calls"] if one["number"] not in waits]}
