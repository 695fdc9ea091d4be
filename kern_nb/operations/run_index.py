"""Where runs stand: what a person calls them, whose they are, and which of them a member's run serves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kern_nb.db import SessionStore


_COLUMNS = (
    "run_id",
    "session_id",
    "run_index",
    "parent_run_id",
    "status",
    "agent_id",
    "team_id",
    "workflow_id",
    "input",
)


class RunEntry(NamedTuple):
    """A run, as far as one has to know it to speak of it."""

    run_id: str
    session_id: str
    run_index: int
    parent_run_id: str | None
    status: str | None
    owner: str | None
    input: str | None

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.session_id}/{self.run_index}"


class RunIndex:
    """The runs of some sessions.

    Args:
        store: Where they are stored.
        session_ids: The sessions.
    """

    def __init__(self, store: SessionStore, session_ids: Iterable[str | None]) -> None:
        wanted = sorted({one for one in session_ids if one is not None})
        df = store.runs_df(wanted, columns=_COLUMNS)
        rows = df.astype(object).where(df.notna(), None).to_dict("records")
        self._runs = {
            row["run_id"]: RunEntry(
                run_id=row["run_id"],
                session_id=row["session_id"],
                run_index=int(row["run_index"]),
                parent_run_id=row["parent_run_id"],
                status=row["status"],
                owner=row["agent_id"] or row["team_id"] or row["workflow_id"],
                input=row["input"],
            )
            for row in rows
        }

    def all(self) -> list[RunEntry]:
        """The runs, in order."""
        return list(self._runs.values())

    def find(self, run_id: str | None) -> RunEntry | None:
        """A run; None where it is not stored."""
        return self._runs.get(run_id or "")

    def top_level(self, run_id: str | None) -> RunEntry | None:
        """The run that goes on once this one has its answers: of a member's run, its team's."""
        place, seen = self.find(run_id), set[str]()
        while place is not None and place.run_id not in seen and (above := self.find(place.parent_run_id)):
            seen.add(place.run_id)
            place = above
        return place
