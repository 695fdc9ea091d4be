"""The runs of some sessions by id: how a person writes them, their agent, and the top-level run of a member's run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from kern_nb.text.missing_values import na_to_none

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

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
        """Return the run as people write it."""
        return f"{self.session_id}/{self.run_index}"


class RunIndex:
    """The runs of some sessions.

    Args:
        store: The store.
        session_ids: The sessions; None among them is ignored.
    """

    def __init__(self, store: SessionStore, session_ids: Iterable[str | None]) -> None:
        ids = sorted({session_id for session_id in session_ids if session_id is not None})
        fields = RunEntry._fields[:-1]
        df = store.runs_df(ids, columns=(*fields, *_OWNER))
        self._runs: dict[str, RunEntry] = {}
        for row in na_to_none(df).to_dict("records"):
            owner = next((row[name] for name in _OWNER if row[name]), None)
            self._runs[row["run_id"]] = RunEntry(**{name: row[name] for name in fields}, owner=owner)
        self._parents = {run_id: run.parent_run_id for run_id, run in self._runs.items()}

    def all(self) -> list[RunEntry]:
        """Return the runs, in order."""
        return list(self._runs.values())

    def find(self, run_id: str | None) -> RunEntry | None:
        """Return a run, or None if it is not stored."""
        return self._runs.get(run_id or "")

    def top_level(self, run_id: str | None) -> RunEntry | None:
        """Return the run that resumes once this one's requirements are resolved: for a member's run, its team's."""
        return self.find(top_level_id(run_id, self._parents))


def top_level_id(run_id: str | None, parents: Mapping[str, str | None]) -> str | None:
    """Return the id at the top of a run's chain of parents, as far as the parents are known."""
    visited = set[str]()
    while run_id is not None and run_id not in visited and (parent := parents.get(run_id)) in parents:
        visited.add(run_id)
        run_id = parent
    return run_id
