"""`export`: sessions and runs to a file: a bundle that imports without loss, or a page to read.

`order` selects what is written, `read` reads its rows, `detach` makes a branch or run independent, `write` writes them.
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

_FORMATS = {".json": "bundle", ".html": "page"}
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".feather", ".arrow", ".xlsx"})
_USAGE = "For example: %kern export chat other chats.json, or %kern export --all store.json"


@dataclass(frozen=True, repr=False)
class Export:
    """A written file.

    Attributes:
        path: The file.
        format: ``bundle`` or ``page``.
        sessions: The number of sessions; a run exported alone is a session of its own.
        runs: The number of runs, including those that a branch inherits from a session outside the file.
        messages: Likewise for messages.
        tool_calls: Likewise for tool calls.
        blobs: The number of distinct files of sessions; a page has none.
        size: The size in bytes.
        words: The words of the ``%kern`` line that does the same.
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
        text = ", ".join(formatting.pluralize(number, noun) for number, noun in counts if number or noun == "session")
        return f"Wrote {text} to {formatting.single_line(str(self.path))}: {formatting.format_count(self.size)} bytes."


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

    A bundle is JSON with one session per line: everything that is stored of it, with its runs, messages, tool calls,
    requirements, scores and files; ``store.ingest(path)`` restores the same. A branch stays one if its parent is
    exported too, else it gets its own copy of what it inherits. A run named by its reference becomes a session of that
    run and its members' runs.

    The file is written under another name beside its path, and moved there when it is complete.

    Args:
        *references: Sessions and runs: ``chat`` or ``chat/2``, or records from a store.
        path: The file; its suffix selects the format.
        everything: Export all sessions of the store; takes no references.
        overwrite: Whether to overwrite an existing file.
        store: A store or its name; by default the one in use.
        user_id: Only sessions of this user.
        progress: Whether to show a progress bar after a moment.

    Raises:
        SessionNotFound: A reference names no session.
        RunNotFound: A reference names no run.
        AmbiguousReference: A reference names several.
        BadUsage: No session is named, the path cannot be written, or the file exists.

    Example:
        >>> import tempfile
        >>> from kern_nb import Run, export
        >>> from kern_nb.db import InMemoryDb
        >>> store = InMemoryDb()
        >>> run = store.append_run("chat", Run(input="Hi", output="Hello"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = export("chat", path=f"{folder}/chat.json", store=store)
        >>> (result.format, result.sessions, result.runs)
        ('bundle', 1, 1)
    """
    from kern_nb.analysis.selection import format_reference
    from kern_nb.operations.export import write
    from kern_nb.operations.export.order import select

    opened = store_registry.find(store)
    target = Path(path).expanduser()
    format_name = _format(target)
    if everything and references:
        raise BadUsage("export takes references or everything=True, got both.", _USAGE)
    if not everything and not references:
        raise BadUsage("No session or run is named.", _USAGE)
    write.require_writable(target, overwrite=overwrite)
    items = select(opened, references, user_id)
    write_items = write.write_bundle if format_name == "bundle" else write.write_page
    counts = write.write_atomically(
        target, lambda file: write_items(file, opened, items, progress=progress), overwrite=overwrite
    )
    names = ("--all",) if everything else tuple(map(format_reference, references))
    words = ("export", *names, str(path), *(("--force",) if overwrite else ()))
    return Export(path=target, format=format_name, size=target.stat().st_size, words=words, **counts)


def _format(path: Path) -> str:
    """Return the format of a path's suffix; raise BadUsage for an unknown one."""
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    if suffix in _TABLE_SUFFIXES:
        hint = "For tables, use a frame: df = %kern load messages, then df.to_csv(...) or df.to_parquet(...)."
    elif suffix == ".jsonl":
        hint = f"Name it {path.stem}.json, which also has one session per line."
    else:
        hint = _USAGE
    raise BadUsage(f"The path must end in .json (a bundle) or .html (a page), got {str(path)!r}.", hint)
