"""The report of an import: counts of what was stored or skipped, and problems by file and line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple

from kern_nb.control_characters import escape_controls
from kern_nb.display import DisplayMixin
from kern_nb.text.formatting import pluralize

_SHOWN_PROBLEMS = 5


class Problem(NamedTuple):
    """A record that was not imported, or a file that no importer reads.

    Attributes:
        file: The file, relative to the imported path.
        line: The line where the record starts; None for the whole file.
        reason: What is wrong with it.
    """

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        """Format the problem as compilers do: ``file:line: reason``."""
        return f"{self.file}:{'' if self.line is None else f'{self.line}:'} {self.reason}"


@dataclass(slots=True)
class IngestReport(DisplayMixin):
    """The result of an import.

    Attributes:
        sessions: The number of new sessions.
        runs: The number of runs written: new runs, and runs whose record has changed.
        messages: The number of messages written with them.
        tool_calls: The number of tool calls written with them.
        skipped: The number of sessions that were stored already and are unchanged.
        branches: The number of the new sessions that are branches of others.
        tokens: The number of tokens of the stored messages.
        repeated_tokens: The number of tokens of messages that files repeat from other sessions; they are inherited.
        errors: The problems: what was not imported, and why.
    """

    _view = "kern_nb.views.reports:ingest"

    sessions: int = 0
    runs: int = 0
    messages: int = 0
    tool_calls: int = 0
    skipped: int = 0
    branches: int = 0
    tokens: int = 0
    repeated_tokens: int = 0
    errors: list[Problem] = field(default_factory=list)

    def __add__(self, other: IngestReport) -> IngestReport:
        names = [field.name for field in fields(self)]
        return IngestReport(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __repr__(self) -> str:
        """The counts on one line, then the first problems on a line each."""
        kinds = ("session", "run", "message", "tool_call")
        stored = ", ".join(pluralize(getattr(self, f"{kind}s"), kind.replace("_", " ")) for kind in kinds)
        lines = [f"Stored {stored}; skipped {pluralize(self.skipped, 'session')} already stored."]
        if self.errors:
            lines.append(f"{pluralize(len(self.errors), 'problem')}:")
            lines += [f"  {problem}" for problem in self.errors[:_SHOWN_PROBLEMS]]
        if len(self.errors) > _SHOWN_PROBLEMS:
            lines.append(f"  and {len(self.errors) - _SHOWN_PROBLEMS} more in .errors")
        return escape_controls("\n".join(lines))
