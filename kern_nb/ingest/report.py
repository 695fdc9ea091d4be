"""What an import did: how much was stored, what was there already, and what was wrong, by file and line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kern_nb.control_characters import escape_controls
from kern_nb.display import DisplayMixin

_SHOWN = 5


class Problem(NamedTuple):
    """A record that was not taken in, or a file that no importer reads.

    Attributes:
        file: The file, relative to the path that was imported.
        line: The line where the record starts; None where the whole file is meant.
        reason: What is wrong with it.
    """

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        """As editors and compilers write it."""
        return f"{self.file}:{'' if self.line is None else f'{self.line}:'} {self.reason}"


@dataclass(slots=True)
class IngestReport(DisplayMixin):
    """What an import did.

    Attributes:
        sessions: Sessions that are new.
        runs: Runs that were written: new ones, and those whose record has changed. Likewise messages and tool calls.
        messages: See ``runs``.
        tool_calls: See ``runs``.
        skipped: Sessions that were there already, unchanged.
        errors: What was not taken in.
    """

    _view = "kern_nb.views.reports:ingest"

    sessions: int = 0
    runs: int = 0
    messages: int = 0
    tool_calls: int = 0
    skipped: int = 0
    errors: list[Problem] = field(default_factory=list)

    def __add__(self, other: IngestReport) -> IngestReport:
        """Two imports as one."""
        names = ("sessions", "runs", "messages", "tool_calls", "skipped", "errors")
        return IngestReport(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __repr__(self) -> str:
        """The figures on a line, then the first problems on lines of their own."""
        kinds = ("session", "run", "message", "tool_call")
        stored = ", ".join(_count(getattr(self, f"{kind}s"), kind.replace("_", " ")) for kind in kinds)
        lines = [f"Stored {stored}; skipped {_count(self.skipped, 'session')} already there."]
        if self.errors:
            lines.append(f"{_count(len(self.errors), 'problem')}:")
            lines += [f"  {problem}" for problem in self.errors[:_SHOWN]]
        if len(self.errors) > _SHOWN:
            lines.append(f"  and {len(self.errors) - _SHOWN} more in .errors")
        return escape_controls("\n".join(lines))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
