"""How runs end, for sources that state it by an event after the messages of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kern_nb.ingest.importer import hash_record
from kern_nb.records import Run, RunStatus


class Outcome(NamedTuple):
    """How a run ended, and how many messages there were then."""

    n_messages: int
    status: RunStatus
    error: str | None


@dataclass(slots=True)
class Outcomes:
    """How the runs of a conversation ended. A run that goes on after an event did not end so."""

    noted: list[Outcome] = field(default_factory=list)

    def note(self, n_messages: int, status: RunStatus, error: str | None = None) -> None:
        """Note that the conversation ended, for now, after so many messages."""
        self.noted.append(Outcome(n_messages, status, error))

    def apply(self, runs: Sequence[Run], hashes: list[str]) -> None:
        """Set the status and the error of the runs, and add them to the hashes."""
        ends = {outcome.n_messages: outcome for outcome in self.noted}
        n_messages = 0
        for index, run in enumerate(runs):
            n_messages += len(run.messages)
            if n_messages in ends:
                run.status, run.error = ends[n_messages].status, ends[n_messages].error
            hashes[index] = hash_record(hashes[index], run.status, run.error)
