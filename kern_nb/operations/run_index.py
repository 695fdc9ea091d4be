"""The runs of some sessions by id: how a person writes them, their agent, and the top-level run of a member's run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kern_nb.db import SessionStore
from kern_nb.text.missing_values import na_to_none

_OWNER = ("agent_id", "team_id", "workflow_id")


class RunEntry(NamedTuple):
    """What a message about a run needs to know of it."""

    run_id: str
    session_id: str
    run_index: int
    parent_run_id: str | None
    status: str | None
    input: str | None
    owner: str | None

    def __str__(self) -> str:
        return f"{self.session_id}/{self.run_index}"


class RunIndex:
    """The runs of some sessions.

    Args:
        store: The store.
        session_ids: The sessions; None among them is ignored.
        lineage: Whether to include the runs that the session, a single one, inherits.
    """

    def __init__(self, store: SessionStore, session_ids: Iterable[str | None], *, lineage: bool = False) -> None:
        ids = sorted({session_id for session_id in session_ids if session_id is not None})
        fields = RunEntry._fields[:-1]
        df = store.runs_df(ids[0] if lineage else ids, columns=(*fields, *_OWNER), lineage=lineage)
        self._runs: dict[str, RunEntry] = {}
        for row in na_to_none(df).to_dict("records"):
            owner = next((row[name] for name in _OWNER if row[name]), None)
            self._runs[row["run_id"]] = RunEntry(**{name: row[name] for name in fields}, owner=owner)

    def all(self) -> list[RunEntry]:
        """Return the runs, in order."""
        return list(self._runs.values())

    def find(self, run_id: str | None) -> RunEntry | None:
        """Return a run, or None if it is not stored."""
        return self._runs.get(run_id or "")

    def at(self, run_index: int) -> RunEntry:
        """Return the run of an index, in the index of one session."""
        return next(run for run in self._runs.values() if run.run_index == run_index)

    def top_level(self, run_id: str | None) -> RunEntry | None:
        """Return the run that resumes once this one's requirements are resolved: for a member's run, its team's."""
        run, visited = self.find(run_id), set[str]()
        while run is not None and run.run_id not in visited and (parent := self.find(run.parent_run_id)) is not None:
            visited.add(run.run_id)
            run = parent
        return run
