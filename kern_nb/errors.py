"""What can go wrong: one tree, drawn here, each member also the builtin error it resembles.

    KernError
    ├── StoreNotFound (FileNotFoundError)    the path of a store that must exist does not
    ├── NotAStore (ValueError)               the file or URL is no session store
    │   └── ForeignLayout                    it is another framework's
    ├── SchemaTooNew (RuntimeError)          a newer kern_nb wrote it
    ├── StoreBusy (TimeoutError)             another process holds the file
    ├── StoreUnavailable (ConnectionError)   the server or file cannot be reached
    │   └── StoreFull                        the disk of the store has no space left
    ├── DamagedRow (ValueError)              a stored value is not what its column holds
    ├── ReadOnlyStore (PermissionError)      a write to a store that was opened to be read
    ├── NoStore (LookupError)                no store is attached under that name
    ├── SessionNotFound (KeyError)
    ├── RunNotFound (KeyError)
    ├── MessageNotFound (KeyError)
    ├── AmbiguousReference (LookupError)     a prefix that fits several
    ├── SessionExists (ValueError)           the new session's id is taken
    ├── RunExists (ValueError)               the run's id is taken
    ├── HasBranches (ValueError)             a session whose rows a branch inherits cannot go
    ├── OwnerMismatch (PermissionError)      one user's run, another user's session
    ├── RunClosed (RuntimeError)             writing to a run that has ended
    ├── RunFailed (RuntimeError)             a run ended with an error, which is stored
    ├── SummaryFailed (RuntimeError)         a model made no summary
    ├── RequirementNotFound (KeyError)
    ├── RequirementExists (ValueError)       the requirement's id is taken
    ├── AlreadyResolved (RuntimeError)       a requirement that has its answer, or expired
    ├── AlreadyClaimed (RuntimeError)        a paused run, or a requirement, that another one took on
    ├── StillWaiting (RuntimeError)          a paused run that lacks answers
    ├── ScriptEnded (LookupError)            a ScriptedModel was asked for more answers than it has
    ├── FileNotInWorkspace (FileNotFoundError)
    ├── UnstorableValue (TypeError)          a value that would not come back as it went in
    ├── QueryRefused (PermissionError)       SQL that is not one read
    ├── QueryFailed (ValueError)             SQL that the engine could not run
    ├── RecordsNotFound (FileNotFoundError)  the path of records to take in does not exist, or holds none
    ├── UnknownFormat (ValueError)           records that no importer reads
    └── BadUsage (ValueError)                a magic's line that does not parse

The message says what happened, with names and values. ``hint`` says what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kern_nb.control_characters import escape_controls

_LINE = 500


class KernError(Exception):
    """Anything that kern_nb raises on purpose.

    Args:
        message: What happened, with names and values.
        hint: The next action, or an empty string.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        # Both may name what a store or a model said, and end in a terminal.
        super().__init__(escape_controls(message))
        self.hint = escape_controls(hint)

    def __str__(self) -> str:
        """The message itself; KeyError would quote it."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[KernError], tuple[str, str]]:
        """Keep the hint when the error crosses to another process."""
        return type(self), (str(self), self.hint)

    def _render_traceback_(self) -> list[str]:
        """Two lines in a notebook in place of a traceback (IPython's protocol)."""
        lines = [f"{type(self).__name__}: {_one_line(str(self))}"]
        return [*lines, f"Hint: {_one_line(self.hint)}"] if self.hint else lines


class StoreNotFound(KernError, FileNotFoundError):
    """The path of a store that must exist does not."""


class NotAStore(KernError, ValueError):
    """The file or URL is no session store."""


class ForeignLayout(NotAStore):
    """The file or database is in another framework's layout."""


class SchemaTooNew(KernError, RuntimeError):
    """A newer kern_nb wrote the store."""


class StoreBusy(KernError, TimeoutError):
    """Another process holds the file."""


class StoreUnavailable(KernError, ConnectionError):
    """The server or file cannot be reached."""


class StoreFull(StoreUnavailable):
    """The disk of the store has no space left; nothing of the write was stored."""


class DamagedRow(KernError, ValueError):
    """A stored value is not what its column holds: a disk, another program or a hand changed it."""


class ReadOnlyStore(KernError, PermissionError):
    """A write to a store that was opened to be read."""


class NoStore(KernError, LookupError):
    """No store is attached under that name."""


class SessionNotFound(KernError, KeyError):
    """There is no such session."""


class RunNotFound(KernError, KeyError):
    """There is no such run."""


class MessageNotFound(KernError, KeyError):
    """There is no such message."""


class AmbiguousReference(KernError, LookupError):
    """A prefix that fits several sessions or runs."""


class SessionExists(KernError, ValueError):
    """The id of the new session is taken."""


class RunExists(KernError, ValueError):
    """The id of the run is taken: it is stored already."""


class HasBranches(KernError, ValueError):
    """A session whose rows a branch inherits cannot be deleted."""


class OwnerMismatch(KernError, PermissionError):
    """One user's run was sent to another user's session."""


class RunClosed(KernError, RuntimeError):
    """A write to a run that has ended."""


class RunFailed(KernError, RuntimeError):
    """A run ended with an error. It is stored with its status and its messages."""


class SummaryFailed(KernError, RuntimeError):
    """A model that was asked for a summary made none. What was made before stays."""


class RequirementNotFound(KernError, KeyError):
    """There is no such requirement."""


class RequirementExists(KernError, ValueError):
    """The id of the requirement is taken."""


class AlreadyResolved(KernError, RuntimeError):
    """The requirement has its answer, or nobody answered in time: a pause is answered once."""


class AlreadyClaimed(KernError, RuntimeError):
    """Another process goes on with the run, or another person is at the requirement."""


class StillWaiting(KernError, RuntimeError):
    """The run waits for answers that are not there yet."""


class ScriptEnded(KernError, LookupError):
    """A ScriptedModel was asked for more answers than its script has."""


class FileNotInWorkspace(KernError, FileNotFoundError):
    """The session's workspace has no such file."""


class UnstorableValue(KernError, TypeError):
    """A value that would not come back as it went in."""


class QueryRefused(KernError, PermissionError):
    """SQL that is not a single reading statement."""


class QueryFailed(KernError, ValueError):
    """SQL that the engine could not run; the message is the engine's own."""


class RecordsNotFound(KernError, FileNotFoundError):
    """The path of records to take in does not exist, or is a folder that holds none."""


class UnknownFormat(KernError, ValueError):
    """Records that no importer reads."""


class BadUsage(KernError, ValueError):
    """The line of a magic does not parse."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the nearest known word, or ``otherwise``."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def _one_line(text: str) -> str:
    """Text on one line, cut where a screen would lose it."""
    line = " ".join(text.split())
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"
