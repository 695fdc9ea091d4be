"""The exceptions of kern_nb: one tree; each class also subclasses the builtin exception it resembles.

The message states what happened, with names and values. ``hint`` states what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kern_nb.control_characters import escape_controls

_MAX_LINE = 500


class KernError(Exception):
    """The base class of all exceptions that kern_nb raises.

    Args:
        message: What happened, with names and values.
        hint: The next action, or an empty string.

    Example:
        >>> error = KernError("The store is closed.", "Attach it again.")
        >>> error.hint
        'Attach it again.'
    """

    def __init__(self, message: str, hint: str = "") -> None:
        # Both may quote text from a store or a model, and may be printed in a terminal.
        super().__init__(escape_controls(message))
        self.hint = escape_controls(hint)

    def __str__(self) -> str:
        """The message; KeyError would quote it."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[KernError], tuple[str, str]]:
        """Keep the hint when the error is pickled."""
        return type(self), (str(self), self.hint)

    def _render_traceback_(self) -> list[str]:
        """Two lines instead of a traceback in a notebook (IPython's protocol)."""
        lines = [f"{type(self).__name__}: {_single_line(str(self))}"]
        return [*lines, f"Hint: {_single_line(self.hint)}"] if self.hint else lines


class StoreNotFound(KernError, FileNotFoundError):
    """The path of a store that must exist does not."""


class NotAStore(KernError, ValueError):
    """The file or URL is not a session store."""


class ForeignLayout(NotAStore):
    """The file or database belongs to another program."""


class SchemaTooNew(KernError, RuntimeError):
    """A newer kern_nb wrote the store."""


class StoreBusy(KernError, TimeoutError):
    """Another process holds the file."""


class StoreUnavailable(KernError, ConnectionError):
    """The server or file is not reachable."""


class StoreFull(StoreUnavailable):
    """The disk of the store has no space left; the write was not stored."""


class DamagedRow(KernError, ValueError):
    """A stored value is invalid for its column: a disk, another program or a person changed it."""


class TransactionFailed(KernError, RuntimeError):
    """A call in a transaction failed, and all of the transaction is rolled back."""


class ReadOnlyStore(KernError, PermissionError):
    """A write to a store that was opened read-only."""


class NoStore(KernError, LookupError):
    """No store is attached under that name."""


class SessionNotFound(KernError, KeyError):
    """The session does not exist."""


class RunNotFound(KernError, KeyError):
    """The run does not exist."""


class MessageNotFound(KernError, KeyError):
    """The message does not exist."""


class AmbiguousReference(KernError, LookupError):
    """A prefix that matches several sessions or runs."""


class SessionExists(KernError, ValueError):
    """A session with the id of the new one exists already."""


class StaleSession(KernError, RuntimeError):
    """The session was changed since the revision that a saver expects; nothing was saved."""


class RunExists(KernError, ValueError):
    """A run with this id is stored already."""


class HasBranches(KernError, ValueError):
    """A session whose rows a branch inherits cannot be deleted."""


class OwnerMismatch(KernError, PermissionError):
    """A user's run does not belong in another user's session."""


class RunClosed(KernError, RuntimeError):
    """A write to a run that has ended."""


class RunOpen(KernError, RuntimeError):
    """A change of a session that has a run that has not ended."""


class RunFailed(KernError, RuntimeError):
    """A run ended with an error. It is stored with its status and its messages."""


class SummaryFailed(KernError, RuntimeError):
    """A model returned no summary. Earlier summaries are kept."""


class RequirementNotFound(KernError, KeyError):
    """The requirement does not exist."""


class RequirementExists(KernError, ValueError):
    """A requirement with this id exists already."""


class AlreadyResolved(KernError, RuntimeError):
    """The requirement is resolved or expired: it is resolved only once."""


class AlreadyClaimed(KernError, RuntimeError):
    """Another process resumes the run, or another person claimed the requirement."""


class SessionHandedOff(KernError, RuntimeError):
    """A run of an agent in a session that is handed off to a person."""


class StillWaiting(KernError, RuntimeError):
    """The paused run has pending requirements."""


class ScriptEnded(KernError, LookupError):
    """A ScriptedModel has no more answers."""


class FileNotInWorkspace(KernError, FileNotFoundError):
    """The file does not exist in the session's workspace."""


class UnstorableValue(KernError, TypeError):
    """A value that cannot be stored without loss."""


class QueryRefused(KernError, PermissionError):
    """SQL other than a single reading statement."""


class QueryFailed(KernError, ValueError):
    """SQL that the engine could not run; the message is the engine's own."""


class RecordsNotFound(KernError, FileNotFoundError):
    """The path to import does not exist, or is a folder without records."""


class UnknownFormat(KernError, ValueError):
    """Records in a format without an importer."""


class MissingExtra(KernError, ImportError):
    """A library of an optional extra is not installed, or its version lacks what is needed."""


class BadUsage(KernError, ValueError):
    """Invalid arguments of a call, or a magic's line that does not parse."""


def did_you_mean(name: str, options: Iterable[str], fallback: str = "") -> str:
    """A hint with the closest option, or ``fallback``."""
    matches = difflib.get_close_matches(name, list(options), n=1)
    return f"Did you mean {matches[0]!r}?" if matches else fallback


def _single_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"
