"""The report of an import: counts of what was stored or skipped, and problems by file and line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple

from kern_nb.control_characters import escape_controls
from kern_nb.display import DisplayMixin
from kern_nb.text.formatting import pluralize

_SHOWN_PROBLEMS = 5

# The kinds of files passed over that may have been meant to be imported: one is shown with its reason.
_EXPLAINED = ("unknown layout", "unreadable", "too large")
_NAMES = {
    "unknown layout": ("file in an unknown layout", "files in an unknown layout"),
    "too large": ("file that is too large", "files that are too large"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "other": ("file of another type", "files of other types"),
    "image": ("image", "images"),
    "recording": ("recording", "recordings"),
}


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
        passed_over: The files of a folder or an archive that were not imported, by kind: ``image``, ``unknown layout``,
            ``too large``, ``unreadable``, ``hidden`` and others; with the reason, where there is one.
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
    passed_over: dict[str, list[Problem]] = field(default_factory=dict)

    def pass_over(self, kind: str, file: str, reason: str = "") -> None:
        """Count a file that is not imported."""
        self.passed_over.setdefault(kind, []).append(Problem(file, None, reason))

    def describe_repetitions(self) -> list[str]:
        """Describe the branches, and the part of the files that repeats other sessions: a line, or none."""
        parts = []
        if self.branches:
            what = "is a branch of another" if self.branches == 1 else "are branches of others"
            parts.append(f"{self.branches:,} of the sessions {what}")
        if self.repeated_tokens:
            share = 100 * self.repeated_tokens / (self.tokens + self.repeated_tokens)
            percent = "less than 1" if share < 1 else f"{share:.0f}"
            parts.append(f"{percent}% of the tokens in the files are repetitions, which are not counted again")
        return ["; ".join(parts) + "."] if parts else []

    def describe_passed_over(self) -> list[str]:
        """Describe the files passed over, a line per kind with a reason, and a line for the other kinds."""
        lines, plain = [], []
        for kind, files in sorted(self.passed_over.items(), key=lambda item: (item[0] not in _EXPLAINED, item[0])):
            count = pluralize(len(files), *_NAMES.get(kind, (f"{kind} file",)))
            if kind in _EXPLAINED:
                more = f"; and {len(files) - 1} more in .passed_over[{kind!r}]" if len(files) > 1 else ""
                lines.append(f"{count}: {files[0].file}{': ' if files[0].reason else ''}{files[0].reason}{more}")
            else:
                plain.append(count)
        return [*lines, ", ".join(plain)] if plain else lines

    def __add__(self, other: IngestReport) -> IngestReport:
        names = [field.name for field in fields(self) if field.name != "passed_over"]
        total = IngestReport(**{name: getattr(self, name) + getattr(other, name) for name in names})
        for report in (self, other):
            for kind, files in report.passed_over.items():
                total.passed_over[kind] = total.passed_over.get(kind, []) + files
        return total

    def __repr__(self) -> str:
        """The counts on one line, then the first problems on a line each."""
        kinds = ("session", "run", "message", "tool_call")
        stored = ", ".join(pluralize(getattr(self, f"{kind}s"), kind.replace("_", " ")) for kind in kinds)
        already = f"{pluralize(self.skipped, 'session')} already stored"
        lines = [f"Stored {stored}{f'; skipped {already}' if self.skipped else ''}."]
        if self.skipped and not self.runs:
            lines = [f"Nothing new: skipped {already}."]
        lines += self.describe_repetitions()
        if self.errors:
            lines.append(f"{pluralize(len(self.errors), 'problem')}:")
            lines += [f"  {problem}" for problem in self.errors[:_SHOWN_PROBLEMS]]
        if len(self.errors) > _SHOWN_PROBLEMS:
            lines.append(f"  and {len(self.errors) - _SHOWN_PROBLEMS} more in .errors")
        if self.passed_over:
            lines.append("Passed over:")
            lines += [f"  {line}" for line in self.describe_passed_over()]
        return escape_controls("\n".join(lines))
