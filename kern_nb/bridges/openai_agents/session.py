"""`KernSession`: a session of the OpenAI Agents SDK in a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agents.memory import SessionABC, SessionSettings

from kern_nb import store_registry
from kern_nb.bridges.openai_agents import memory
from kern_nb.bridges.openai_agents.recorder import current_recording
from kern_nb.runtime.event_loop import in_thread

if TYPE_CHECKING:
    from agents import TResponseInputItem

    from kern_nb.db import SessionStore


class KernSession(SessionABC):
    """A session of the OpenAI Agents SDK whose items are the messages of a session of a store.

    Items come back exactly as they were added; in frames and transcripts they are messages and tool calls. A branch of
    the session has its items up to the branch point. A session that other agents wrote, or that was imported, has their
    messages as items.

    With an agent that is attached (`attach_agent`), the items belong to the runs that are recorded. Otherwise each
    message of a user starts a run.

    Args:
        session_id: The session; a new id creates it with the first item.
        store: The store, or the name of an attached one; None for the one in use.
        user_id: The user of the session.
        session_settings: Settings of the SDK, such as the default ``limit``.

    Example:
        >>> import asyncio
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.bridges.openai_agents import KernSession
        >>> session = KernSession("chat", InMemoryDb())
        >>> asyncio.run(session.add_items([{"role": "user", "content": "Hello"}]))
        >>> asyncio.run(session.get_items())
        [{'role': 'user', 'content': 'Hello'}]
    """

    def __init__(
        self,
        session_id: str,
        store: str | SessionStore | None = None,
        *,
        user_id: str | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.store = store_registry.find(store)
        self.user_id = user_id
        self.session_settings = SessionSettings().resolve(session_settings)
        self._run_id: str | None = None

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first.

        Args:
            limit: Only the newest so many; None takes that of ``session_settings``.
        """
        limit = self.session_settings.limit if limit is None and self.session_settings is not None else limit
        # A cancelled caller need not wait until a read has ended.
        items: Any = await asyncio.to_thread(memory.read_items, self.store, self.session_id, limit, self.user_id)
        return items  # type: ignore[no-any-return]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items at the end.

        Raises:
            OwnerMismatch: The session belongs to another user.
        """
        if not items:
            return
        values: list[Any] = list(items)
        recording = current_recording(self.store, self.session_id)
        if recording is not None:
            await in_thread(lambda: recording.remember(values))
            return
        self._run_id = await in_thread(
            lambda: memory.add_items(self.store, self.session_id, values, self.user_id, self._run_id)
        )

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove and return the newest item; None if there is none.

        Raises:
            BadUsage: The session inherits the item, or another framework wrote it.
            HasBranches: A branch inherits the item.
        """
        recording = current_recording(self.store, self.session_id)
        if recording is not None and (last := await in_thread(recording.forget_last)) is not None:
            return last  # type: ignore[return-value]
        item: Any = await in_thread(lambda: memory.pop_item(self.store, self.session_id, self.user_id))
        return item  # type: ignore[no-any-return]

    async def clear_session(self) -> None:
        """Remove all items, and the runs that they belong to.

        Raises:
            BadUsage: The session inherits items.
            HasBranches: A branch inherits them.
        """
        await in_thread(lambda: memory.clear(self.store, self.session_id, self.user_id))
        self._run_id = None
