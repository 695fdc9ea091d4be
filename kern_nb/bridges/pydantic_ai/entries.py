"""The entries of conversations as messages: one entry is one message of pydantic-ai, and one or more of ours.

The first of these has the entry's id, and in ``internal`` its parent and the message as pydantic-ai dumps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic_ai.conversation_store import ConversationEntry
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse
from sqlalchemy.engine import Connection

from kern_nb.bridges.pydantic_ai.conversion import PartConverter
from kern_nb.db.lineage import BranchPoint, Lineage, Segment, load_lineage
from kern_nb.db.reads import require_session
from kern_nb.db.store import SessionStore
from kern_nb.extra_keys import MODEL_MESSAGE
from kern_nb.interop import media
from kern_nb.records import Message

ENTRY = "entry"
"""The key in ``internal`` of the entry's parent, its message, and the index of the last of our messages of it."""


@dataclass(frozen=True)
class NewEntry:
    """An entry that is to be stored.

    Attributes:
        entry: The entry.
        dump: Its message, with files replaced by references.
        messages: Our messages of it, without indexes.
    """

    entry: ConversationEntry
    dump: dict[str, Any]
    messages: list[Message]

    @property
    def is_response(self) -> bool:
        """Whether it is an answer of the model."""
        return isinstance(self.entry.message, ModelResponse)

    def mark(self, message: Message, position: int, last: int) -> None:
        """Make a message the first one of this entry; ``last`` is the index of the last one."""
        message.message_id = self.entry.id
        message.internal |= {MODEL_MESSAGE: position, ENTRY: self.stored(last)}

    def stored(self, last: int) -> dict[str, Any]:
        """The value of `ENTRY`."""
        return {"parent_id": self.entry.parent_id, "kind": self.entry.kind, "message": self.dump, "last": last}


@dataclass(frozen=True)
class Location:
    """Where the last message of an entry is.

    Attributes:
        session_id: Its session.
        run_id: Its run.
        run_index: The index of that.
        message_index: Its index.
    """

    session_id: str
    run_id: str
    run_index: int
    message_index: int

    @property
    def point(self) -> BranchPoint:
        """The branch point after it."""
        return BranchPoint(self.run_index, self.message_index)


def convert(entry: ConversationEntry, store: SessionStore) -> NewEntry:
    """Convert an entry, and store the bytes of its files."""
    [dump] = ModelMessagesTypeAdapter.dump_python([entry.message])
    messages = PartConverter(store.put_blob).convert([entry.message])
    # An entry is found by its first message, so it needs one.
    messages = messages or [Message(role="user", content=None)]
    return NewEntry(entry, media.store_parts(dump, store.put_blob), messages)


def prepare(connection: Connection, store: SessionStore) -> None:
    """Create the index of messages by id, on an engine with indexes; only stores with conversations need it."""
    m = store.tables.messages
    name = f"{store.tables.name}_messages_by_id"
    if not m.indexes or any(index["name"] == name for index in sa.inspect(connection).get_indexes(m.name, m.schema)):
        return
    preparer = connection.dialect.identifier_preparer
    target = f"{preparer.format_table(m)} (message_id) WHERE message_id IS NOT NULL"
    connection.execute(sa.text(f"CREATE INDEX {preparer.quote(name)} ON {target}"))


def locate(connection: Connection, store: SessionStore, entry_id: str) -> Location | None:
    """Where an entry is stored; None if it is not."""
    row = _find(connection, store, entry_id)
    if row is None:
        return None
    return Location(row["session_id"], row["run_id"], row["run_index"], row["internal"][ENTRY]["last"])


def read_entry(connection: Connection, store: SessionStore, entry_id: str) -> ConversationEntry:
    """See `KernConversationStore.read_entry`."""
    row = _find(connection, store, entry_id)
    if row is None:
        raise LookupError(f"There is no entry {entry_id!r}.")
    return _entry(row, store)


def read_history(
    connection: Connection, store: SessionStore, head_id: str | None, limit: int | None
) -> list[ConversationEntry]:
    """See `KernConversationStore.read_history`."""
    if head_id is None:
        return []
    head = locate(connection, store, head_id)
    if head is None:
        raise LookupError(f"There is no entry {head_id!r}.")
    if limit == 0:
        return []
    m = store.tables.messages
    session = require_session(connection, store.tables, head.session_id)
    lineage = load_lineage(connection, store.tables, session)
    upto = Lineage([*lineage[:-1], Segment(head.session_id, head.point)])
    query = sa.select(m).where(upto.inside(m), m.c.message_id.is_not(None))
    query = query.order_by(m.c.run_index.desc(), m.c.message_index.desc())
    rows = connection.execute(query.limit(limit) if limit is not None else query).mappings().all()
    read = [_entry(row, store) for row in reversed(rows) if _is_entry(row)]
    links = [entry.parent_id for entry in read[1:]]
    is_chain = links == [entry.id for entry in read[:-1]] and bool(read) and read[-1].id == head_id
    is_whole = bool(read) and (read[0].parent_id is None or len(read) == limit)
    return read if is_chain and is_whole else _walk(connection, store, head_id, limit)


def _walk(
    connection: Connection, store: SessionStore, head_id: str | None, limit: int | None
) -> list[ConversationEntry]:
    """The history, entry by entry: other messages with ids are between them."""
    history: list[ConversationEntry] = []
    while head_id is not None and (limit is None or len(history) < limit):
        history.append(read_entry(connection, store, head_id))
        head_id = history[-1].parent_id
    return history[::-1]


def _find(connection: Connection, store: SessionStore, entry_id: str) -> sa.RowMapping | None:
    m = store.tables.messages
    rows = connection.execute(sa.select(m).where(m.c.message_id == entry_id)).mappings()
    return next((row for row in rows if _is_entry(row)), None)


def _is_entry(row: sa.RowMapping) -> bool:
    return isinstance((row["internal"] or {}).get(ENTRY), dict)


def _entry(row: sa.RowMapping, store: SessionStore) -> ConversationEntry:
    stored = row["internal"][ENTRY]
    [message] = ModelMessagesTypeAdapter.validate_python([media.load_parts(stored["message"], store)])
    return ConversationEntry(id=row["message_id"], parent_id=stored["parent_id"], message=message, kind=stored["kind"])


def positions(rows: Sequence[sa.RowMapping]) -> dict[int, list[sa.RowMapping]]:
    """The messages of a run, by the position of the message of pydantic-ai that they are parts of."""
    by_position: dict[int, list[sa.RowMapping]] = {}
    for row in rows:
        position = (row["internal"] or {}).get(MODEL_MESSAGE)
        if isinstance(position, int) and not row["from_history"]:
            by_position.setdefault(position, []).append(row)
    return by_position
