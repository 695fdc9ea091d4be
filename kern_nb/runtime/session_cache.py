"""`SessionCache`: sessions that an agent, a team or a workflow keeps in memory once it has read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from kern_nb.runtime.session_methods import SessionMethods

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Session


class SessionCache(SessionMethods):
    """Session methods with ``cache_session``."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__(arguments)
        self.cache_session: bool = arguments["cache_session"]
        self._cached: WeakKeyDictionary[SessionStore, dict[str, Session]] = WeakKeyDictionary()

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> Session | None:
        """Return a session with its runs; None if there is no such session of the user.

        With ``cache_session`` it is read once, until this owner changes it; changes by others are not seen.
        """
        session_id, owner, store = self._require_session_id(session_id), self._user(user_id), self.store
        session = self._cached.get(store, {}).get(session_id)
        if session is None or owner not in (None, session.user_id):
            session = super().get_session(session_id, user_id=user_id)
            if not self.cache_session or session is None:
                return session
            self._cached.setdefault(store, {})[session_id] = session
        return session.model_copy(deep=True)  # the cached one must not be modified

    def _forget(self, store: SessionStore, session_id: str | None = None) -> None:
        cached = self._cached.get(store, {})
        for key in [session_id] if session_id else list(cached):
            cached.pop(key, None)
