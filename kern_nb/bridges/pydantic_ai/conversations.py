"""`KernConversationStore`: conversations of pydantic-ai as sessions of a store.

A conversation is the session of its id. Its record is in the session's data, its scope is the session's user, and each
entry of its log is a message, with the entry's id as ``message_id``, in the run that produced it: one that an attached
agent has recorded is stored once. A fork is a branch of the session, and copies no row. Where a conversation goes back
to an earlier message, what it leaves is kept as another session, of which it is a branch from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy.engine import Connection

from kern_nb.bridges.pydantic_ai import entries, records
from kern_nb.db.store import SessionStore
from kern_nb.errors import MissingExtra
from kern_nb.runtime.event_loop import in_thread

try:
    from pydantic_ai.conversation_store import ConversationEntry, ConversationRecord, ConversationStore
except ImportError as error:
    raise MissingExtra(
        "This version of pydantic-ai has no conversation stores.", 'Run pip install -U "pydantic-ai-slim>=2.66".'
    ) from error

T = TypeVar("T")


class KernConversationStore(ConversationStore):
    """A `ConversationStore` of pydantic-ai on a session store: frames, transcripts and branches show its conversations.

    Deleting a conversation deletes its session, with its runs, and what it has left; a fork of it keeps the messages
    it shares, as its own from then on.

    Args:
        store: The session store.

    Example:
        >>> import asyncio
        >>> from kern_nb.db import InMemoryDb
        >>> from pydantic_ai import Agent
        >>> from pydantic_ai.conversation import Conversation
        >>> from pydantic_ai.models.test import TestModel
        >>> store = InMemoryDb()
        >>> conversations, agent = KernConversationStore(store), Agent(TestModel(custom_output_text="Hello!"))
        >>> async def chat():
        ...     result = await agent.run("Hi", conversation=Conversation(conversation_id="chat"))
        ...     await conversations.save(result)
        ...     return await conversations.fork("chat", at=1, new_conversation_id="what-if")
        >>> len(asyncio.run(chat()).messages)
        1
        >>> store.get_session("what-if")
        <Session what-if, branch of chat, 1 run>
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._is_prepared = False

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation; None if the store does not have it."""
        return await self._read_rows(lambda connection: records.find(connection, self._store, conversation_id))

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The records, or those of a scope, the latest first."""
        return await self._read_rows(lambda connection: records.find_all(connection, self._store, scope, limit))

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and its new entries in one transaction.

        Raises:
            ConversationConflict: The stored revision is another one, or the head is not stored.
            UnstorableValue: A message has a value that would be read back differently; nothing was stored.
        """

        def write() -> None:
            new = [entries.convert(entry, self._store) for entry in new_entries]

            def work(connection: Connection) -> None:
                if not self._is_prepared:
                    entries.prepare(connection, self._store)
                records.write(connection, self._store, record, new, expected_revision)

            self._store.write(work)
            self._is_prepared = True

        await in_thread(write)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation's session, and what it has left.

        Raises:
            ConversationConflict: The stored revision is another one.
        """
        work = partial(records.delete, store=self._store, conversation_id=conversation_id, expected=expected_revision)
        await in_thread(lambda: self._store.write(work))

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry with an id.

        Raises:
            LookupError: The store does not have it.
        """
        return await self._read_rows(lambda connection: entries.read_entry(connection, self._store, entry_id))

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries up to ``head_id``, or the last ``limit`` of them, read in one query.

        Raises:
            LookupError: The store does not have the head.
        """
        return await self._read_rows(lambda connection: entries.read_history(connection, self._store, head_id, limit))

    async def _read_rows(self, read: Callable[[Connection], T]) -> T:
        def read_now() -> T:
            with self._store.read_connection() as connection:
                return read(connection)

        return await in_thread(read_now)
