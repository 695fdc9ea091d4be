"""`export`: sessions and runs to a file: a bundle that imports without loss, a page to read, formats of other programs.

`targets` selects the format, `order` what is written. For a bundle, `read` reads the rows, `detach` makes a branch or
run independent, `write` writes them. For formats of other programs, `conversations` reads records, `atif`, `sts`,
`parquet` and `agno` convert them, and `documents` writes them; `folder` writes several files that belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.errors import BadUsage
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference
    from kern_nb.operations.export.targets import Target


@dataclass(frozen=True, repr=False)
class Export:
    """A written file, or a folder of files.

    Attributes:
        path: The file or folder.
        format: ``bundle``, ``page``, ``atif``, ``sts``, ``parquet`` or ``agno``.
        sessions: The number of sessions; a run exported alone is a session of its own.
        runs: The number of runs, including those that a branch inherits from a session outside the file.
        messages: Likewise for messages.
        tool_calls: Likewise for tool calls.
        blobs: The number of distinct files of sessions; in ATIF, that of pictures and sounds. Other formats have none.
        size: The size in bytes.
        words: The words of the ``%kern`` line that does the same.
        without_messages: The number of sessions that were left out, because ATIF requires a message.
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
    without_messages: int = 0

    def __repr__(self) -> str:
        counts = [(self.sessions, "session"), (self.runs, "run"), (self.messages, "message")]
        counts += [(self.tool_calls, "tool call"), (self.blobs, "file")]
        text = ", ".join(formatting.pluralize(number, noun) for number, noun in counts if number or noun == "session")
        path, size = formatting.single_line(str(self.path)), formatting.format_count(self.size)
        left_out = formatting.pluralize(self.without_messages, "session")
        note = f" Left out {left_out} without messages." if self.without_messages else ""
        return f"Wrote {text} to {path}: {size} bytes.{note}"


def export(
    *references: ReferenceLike,
    path: str | Path,
    format: str | None = None,
    everything: bool = False,
    overwrite: bool = False,
    store: str | SessionStore | None = None,
    user_id: str | None = None,
    progress: bool = True,
) -> Export:
    """Write sessions and runs to a file: a bundle, a page to read, or a format of other programs.

    A bundle is JSON with one session per line: everything that is stored of it, with its runs, messages, tool calls,
    requirements, scores and files; ``store.ingest(path)`` restores the same. A branch stays one if its parent is
    exported too, else it gets its own copy of what it inherits. A run named by its reference becomes a session of that
    run and its members' runs.

    The formats:

    * ``bundle``: the default for ``.json``, as above.
    * ``page``: the default for ``.html``, transcripts to read.
    * ``atif``: a trajectory in ATIF, the interchange format of Harbor and Terminal-Bench: one session in a ``.json``
      file, or a folder with a file a session. What a branch inherits is copied context (importing the folder makes it a
      branch again), members' runs are nested trajectories; pictures are files in ``images/`` beside it.
    * ``sts``: the Session Trace Simple Format, which the Hugging Face Hub shows: one session in a ``.jsonl`` file, or a
      folder. It has texts, reasoning and calls; usage, pictures and members' runs are left out.
    * ``parquet``: the default for ``.parquet``, a row a session, as trainers read them: ``messages`` in the shape of
      OpenAI's chat API with arguments as JSON text, and columns for the title, model, tokens, cost and metadata. The
      texts are those of ``sts``. For the tables of a store, use ``store.table("messages")``.
    * ``agno``: a database of Agno 3 (SQLite, ``.db``), which Agno's agents continue. A branch has copies of the runs
      that it inherits.

    The file is written under another name beside its path, and moved there when it is complete. In a folder, only files
    with the name of a session's file are replaced, with ``overwrite``.

    Args:
        *references: Sessions and runs: ``chat`` or ``chat/2``, or records from a store.
        path: The file, or for ``atif`` and ``sts`` a folder.
        format: The format; by default the one of the path's suffix.
        everything: Export all sessions of the store; takes no references.
        overwrite: Whether to overwrite an existing file.
        store: A store or its name; by default the one in use.
        user_id: Only sessions of this user.
        progress: Whether to show a progress bar after a moment.

    Raises:
        SessionNotFound: A reference names no session.
        RunNotFound: A reference names no run.
        AmbiguousReference: A reference names several.
        BadUsage: No session is named, the path does not suit the format or cannot be written, several sessions are for
            a file that has one, or the file exists.

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
    from kern_nb.operations.export.order import select
    from kern_nb.operations.export.targets import USAGE, require_single, select_target

    opened = store_registry.find(store)
    target = select_target(path, format)
    if everything and references:
        raise BadUsage("export takes references or everything=True, got both.", USAGE)
    if not everything and not references:
        raise BadUsage("No session or run is named.", USAGE)
    _require_writable(target, overwrite=overwrite)
    items = select(opened, references, user_id)
    require_single(target, len(items))
    counts, size = _write(target, opened, items, overwrite=overwrite, progress=progress)
    names = ("--all",) if everything else tuple(map(format_reference, references))
    options = (*(() if format is None else ("--format", format)), *(("--force",) if overwrite else ()))
    words = ("export", *names, str(path), *options)
    return Export(path=target.path, format=target.format, size=size, words=words, **counts)


def _require_writable(target: Target, *, overwrite: bool) -> None:
    from kern_nb.operations.export.folder import require_folder
    from kern_nb.operations.export.write import require_writable

    if target.is_folder:
        require_folder(target.path)
    else:
        require_writable(target.path, overwrite=overwrite)


def _write(
    target: Target, store: SessionStore, items: Sequence[Reference], *, overwrite: bool, progress: bool
) -> tuple[dict[str, int], int]:
    """Write the file or folder; return the counts and the size."""
    from kern_nb.operations.export import write

    if target.format in ("atif", "sts"):
        from kern_nb.operations.export.documents import write_documents
        from kern_nb.operations.export.folder import write_folder

        folder = target.path if target.is_folder else target.path.parent
        return write_folder(
            folder, lambda part: write_documents(part, target, store, items, progress=progress), overwrite=overwrite
        )
    write_items: Callable[..., write.Counts]
    if target.format == "parquet":
        from kern_nb.operations.export.documents import write_parquet as write_items
    elif target.format == "agno":
        from kern_nb.operations.export.documents import write_agno as write_items
    else:
        write_items = write.write_bundle if target.format == "bundle" else write.write_page
    counts = write.write_atomically(
        target.path,
        lambda file: write_items(file, store, items, progress=progress),
        overwrite=overwrite,
        is_binary=target.format in ("parquet", "agno"),
    )
    return counts, target.path.stat().st_size
