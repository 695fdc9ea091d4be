"""`export`: sessions and runs to a file. A bundle, to be imported elsewhere without a loss; or a page, to be read.

`choosing` says what is written and in which order, `gathering` reads its rows, `writing` puts them into the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.errors import BadUsage
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore

__all__ = ["Export", "export"]

BUNDLE, PAGE = "bundle", "page"

_FORMATS = {".json": BUNDLE, ".html": PAGE}
_TABLES = frozenset({".csv", ".tsv", ".parquet", ".feather", ".arrow", ".xlsx"})
_USAGE = "For example: %kern export chat other chats.json, or %kern export --all store.json"


@dataclass(frozen=True, repr=False)
class Export:
    """What was written.

    Attributes:
        path: The file.
        format: ``bundle`` or ``page``.
        sessions: How many sessions it holds; a run that was named by itself is a session of its own.
        runs: How many runs; what a branch inherits from a session that is not in the file is counted with it.
        messages: Likewise messages.
        tool_calls: Likewise tool calls.
        blobs: How many files of sessions, each once, however many sessions name it; a page has none.
        size: The file's bytes.
        words: The line of ``%kern`` that does the same, word by word.
    """

    path: Path
    format: str
    sessions: int
    runs: int
    messages: int
    tool_calls: int
    blobs: int
    size: int
    words: tuple[str, ...]

    def __repr__(self) -> str:
        counts = [(self.sessions, "session"), (self.runs, "run"), (self.messages, "message")]
        counts += [(self.tool_calls, "tool call"), (self.blobs, "file")]
        said = ", ".join(formatting.pluralize(number, noun) for number, noun in counts if number or noun == "session")
        return f"Wrote {said} to {formatting.single_line(str(self.path))}: {formatting.format_count(self.size)} bytes."


def export(
    *references: ReferenceLike,
    path: str | Path,
    everything: bool = False,
    overwrite: bool = False,
    store: str | SessionStore | None = None,
    user_id: str | None = None,
    progress: bool = True,
) -> Export:
    """Write sessions and runs to a file: a bundle (``.json``) or a page to read (``.html``).

    A bundle is JSON, with one session on each line. It holds sessions with all that is stored of them, their runs,
    messages, tool calls, requirements, scores and files, and ``store.ingest(path)`` gives the same again. A branch
    stays one where its parent is exported too; else it gets its own copy of what it inherits. A run that is named by
    itself becomes a session of that run (and its members' runs) alone.

    The file appears when it is complete: until then it is written under another name beside it.

    Args:
        references: Sessions and runs, ``chat`` or ``chat/2``; or as a store gave them.
        path: The file; its suffix says which of the two is meant.
        everything: All sessions of the store, in place of names.
        overwrite: Whether to write over a file that is there.
        store: A store or the name of one; the one in use where None.
        user_id: Of this user's sessions alone: another's are not there.
        progress: Whether to show a progress bar where it takes longer than a moment.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: a name fits nothing, or several things.
        BadUsage: nothing is named, the path cannot be written, or a file is there already.
    """
    from kern_nb.analysis.selection import format_reference
    from kern_nb.operations.export import write
    from kern_nb.operations.export.order import chosen

    found = store_registry.find(store)
    target = Path(path).expanduser()
    kind = _format(target)
    if everything == bool(references):
        given = "Both sessions and everything are" if everything else "No session or run is"
        raise BadUsage(f"{given} named.", _USAGE)
    _require_place(target, overwrite=overwrite)
    items = chosen(found, references, user_id)
    write_items = write.bundle if kind == BUNDLE else write.page
    counts = write.safely(target, lambda file: write_items(file, found, items, progress=progress), overwrite=overwrite)
    named = ("--all",) if everything else tuple(format_reference(one) for one in references)
    words = ("export", *named, str(path), *(("--force",) if overwrite else ()))
    return Export(path=target, format=kind, size=target.stat().st_size, words=words, **counts)


def _format(path: Path) -> str:
    """The format of a path's suffix.

    Raises:
        BadUsage: it is none of ours.
    """
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    if suffix in _TABLES:
        hint = "Tables are frames: df = %kern load messages, then df.to_csv(...) or df.to_parquet(...)."
    elif suffix == ".jsonl":
        hint = f"Name it {path.stem}.json: that, too, has one session on each line."
    else:
        hint = _USAGE
    raise BadUsage(f"{str(path)!r} ends neither in .json (a bundle) nor in .html (a page).", hint)


def _require_place(path: Path, *, overwrite: bool) -> None:
    """See that a file may be made there.

    Raises:
        BadUsage: it may not.
    """
    try:
        is_folder, has_folder, is_there = path.is_dir(), path.parent.is_dir(), path.exists()
    except OSError as error:
        raise BadUsage(f"{str(path)!r} is no path: {error.strerror}.", "Choose another name.") from error
    if is_folder:
        raise BadUsage(f"{str(path)!r} is a folder.", "Name a file in it.")
    if not has_folder:
        raise BadUsage(f"There is no folder {str(path.parent)!r}.", f"Make it first; paths start at {Path.cwd()}.")
    if is_there and not overwrite:
        raise exists(path)


def exists(path: Path) -> BadUsage:
    """The refusal to write over a file."""
    return BadUsage(
        f"{str(path)!r} is there already; nothing was written.",
        "Choose another name, or write over it: --force, in Python overwrite=True.",
    )
