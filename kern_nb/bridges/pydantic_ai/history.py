"""Which messages of a run's history are stored: pydantic-ai stamps each with the id of its run.

A run's own history was its caller's when it started, so all messages up to the last one of a stored run are known; the
cost of this does not depend on the length of the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic_ai.messages import ModelMessage

from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import MODEL_MESSAGE, RESUMED_AS

_MOST_IDS = 50
"""So many ids of runs, the latest of a history, are looked up."""


@dataclass(frozen=True)
class KnownRun:
    """The stored run that the latest known messages of a history belong to.

    Attributes:
        run_id: The run.
        session_id: Its session.
        run_index: Its index.
        n_known: The number of messages of the history up to its last one.
        n_of_run: The number of messages of the history that belong to it.
    """

    run_id: str
    session_id: str
    run_index: int
    n_known: int
    n_of_run: int


def find_known_run(store: SessionStore, history: Sequence[ModelMessage]) -> KnownRun | None:
    """The last run of a history that is stored; None if none is."""
    ids = list(dict.fromkeys(message.run_id for message in reversed(history) if message.run_id))[:_MOST_IDS]
    if not ids:
        return None
    r = store.tables.runs
    query = sa.select(r.c.run_id, r.c.session_id, r.c.run_index, r.c.internal).where(r.c.run_id.in_(ids))
    with store.read_connection() as connection:
        rows: dict[str, Any] = {row["run_id"]: row for row in connection.execute(query).mappings()}
    row = next((rows[run_id] for run_id in ids if run_id in rows), None)
    if row is None:
        return None
    names = {row["run_id"], *((row["internal"] or {}).get(RESUMED_AS) or ())}
    positions = [position for position, message in enumerate(history) if message.run_id in names]
    return KnownRun(row["run_id"], row["session_id"], row["run_index"], positions[-1] + 1, len(positions))


def inherit(store: SessionStore, session_id: str, known: KnownRun) -> None:
    """Make a new session a branch of the one whose messages its first run continues: they are stored once."""
    if known.session_id == session_id or store.get_session(session_id, runs=False) is not None:
        return
    run = store.get_run(known.run_id)
    positions = [(m.internal.get(MODEL_MESSAGE, -1), m.message_index) for m in run.messages if not m.from_history]
    inherited = [index for position, index in positions if position < known.n_of_run and index is not None]
    is_whole = len(inherited) == len(positions)
    after = known.run_index if is_whole or not inherited else (known.run_index, max(inherited))
    store.branch(known.session_id, after=after, new_session_id=session_id)
