"""Write the formats of other programs: ATIF and STS, a file a session; Parquet, a row a session; Agno's database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from kern_nb import files
from kern_nb.batches import batched
from kern_nb.db import SessionStore
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage
from kern_nb.operations.export.atif import TrajectoryWriter
from kern_nb.operations.export.conversations import Conversation, read_conversations
from kern_nb.operations.export.media import MediaFolder
from kern_nb.operations.export.plain import to_json
from kern_nb.operations.export.sts import sts_lines
from kern_nb.operations.export.targets import Target
from kern_nb.operations.export.write import COUNTED, Counts, ExportProgress

WITHOUT_MESSAGES = "without_messages"
"""The count of sessions that were left out, because the format cannot express a session without messages."""

_WriteSession = Callable[[Conversation, Path], bool]


def write_documents(
    folder: Path, target: Target, store: SessionStore, references: Sequence[Reference], *, progress: bool
) -> Counts:
    """Write a file a session into a folder; pictures are files below it.

    Raises BadUsage if no session has a message, for a format that cannot express this.
    """
    counts = dict.fromkeys((*COUNTED, "blobs", WITHOUT_MESSAGES), 0)
    media = MediaFolder(folder)

    def load(sha256: str) -> bytes | None:
        blob = store.get_blob(sha256)
        return None if blob is None else blob.content

    branches = _find_branches(store, target, references) if target.format == "atif" and target.is_folder else {}

    def write_atif(conversation: Conversation, path: Path) -> bool:
        writer = TrajectoryWriter(conversation, media, load)
        document = writer.build(branches.get(conversation.session_id, ()))
        if document is None:
            return False
        _write_text(path, [to_json(document, indent=2)])
        for name, number in writer.counts.items():
            counts[name] += number
        return True

    def write_sts(conversation: Conversation, path: Path) -> bool:
        _write_text(path, sts_lines(conversation))
        _count(counts, conversation)
        return True

    write_session: _WriteSession = write_atif if target.format == "atif" else write_sts
    for conversation in _with_progress(store, references, progress=progress):
        name = target.file_name(conversation.session_id) if target.is_folder else target.path.name
        is_written = write_session(conversation, folder / name)
        counts["sessions"] += is_written
        counts[WITHOUT_MESSAGES] += not is_written
    counts["blobs"] = len(media.names)
    if not counts["sessions"]:
        message = "The session has no messages" if len(references) == 1 else "None of the sessions has messages"
        raise BadUsage(f"{message}, which the format {target.format} requires.", "Export a bundle (.json) instead.")
    return counts


def _find_branches(store: SessionStore, target: Target, references: Sequence[Reference]) -> dict[str, list[str]]:
    """The files of all descendants of each exported session whose own parent is not exported, parents first."""
    s = store.tables.sessions
    session_ids = [reference.session_id for reference in references if reference.run_index is None]
    parents: dict[str, str | None] = {}
    with store.read_connection() as connection:
        for batch in batched(session_ids):
            query = sa.select(s.c.session_id, s.c.parent_session_id).where(s.c.session_id.in_(batch))
            parents |= {row.session_id: row.parent_session_id for row in connection.execute(query)}
    roots: dict[str, str] = {}
    branches: dict[str, list[str]] = {}
    for session_id in session_ids:  # a parent precedes its branches
        root = roots.get(parents.get(session_id) or "")
        roots[session_id] = session_id if root is None else root
        if root is not None:
            branches.setdefault(root, []).append(target.file_name(session_id))
    return branches


def write_parquet(file: IO[bytes], store: SessionStore, references: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a row a session."""
    from kern_nb.operations.export.parquet import write_rows

    counts = dict.fromkeys((*COUNTED, "blobs"), 0)
    write_rows(file, _counted(counts, _with_progress(store, references, progress=progress)))
    return counts


def write_agno(file: IO[bytes], store: SessionStore, references: Sequence[Reference], *, progress: bool) -> Counts:
    """Write a database of Agno."""
    from kern_nb.operations.export.agno import write_database

    counts = dict.fromkeys((*COUNTED, "blobs"), 0)
    write_database(file, _counted(counts, _with_progress(store, references, progress=progress)))
    return counts


def _counted(counts: Counts, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    for conversation in conversations:
        counts["sessions"] += 1
        _count(counts, conversation)
        yield conversation


def _with_progress(store: SessionStore, references: Sequence[Reference], *, progress: bool) -> Iterator[Conversation]:
    with ExportProgress(len(references), shown=progress) as bar:
        for conversation in read_conversations(store, references):
            if conversation is not None:
                yield conversation
            bar.done(1)


def _count(counts: Counts, conversation: Conversation) -> None:
    counts["runs"] += len(conversation.runs)
    counts["messages"] += sum(len(run.messages) for run in conversation.runs)
    counts["tool_calls"] += sum(len(run.tool_calls) for run in conversation.runs)


def _write_text(path: Path, lines: Iterable[str]) -> None:
    with open(path, "x", encoding="utf-8", newline="\n", opener=files.private_opener) as file:
        file.writelines(f"{line}\n" for line in lines)
