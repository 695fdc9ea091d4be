"""`SessionAccess`: the store of an agent, a team or a workflow, and the methods that read and change its sessions."""

from __future__ import annotations

import contextlib
import re
import threading
from abc import ABC
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from kern_nb import store_registry
from kern_nb.control_characters import escape_controls
from kern_nb.errors import BadUsage, KernError, NoStore, RunNotFound, SessionNotFound

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run, Session, SessionMetrics, SessionSummary, SessionType
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.runtime.workspace import Workspace


def require_state(value: Any) -> dict[str, Any]:
    """Return a session state; {} for None.

    Raises:
        BadUsage: the value is not a dict.
    """
    if not isinstance(value, dict | None):
        raise BadUsage(f"session_state must be a dict, got {value!r}.", "For example: session_state={'items': []}.")
    return value or {}


def require_dict(parameter: str, value: Any) -> dict[str, Any] | None:
    """Return a dict or None; raise BadUsage for any other value."""
    if not isinstance(value, dict | None):
        raise BadUsage(f"{parameter} must be a dict, got {value!r}.", f"For example: {parameter}={{'team': 'sales'}}.")
    return value


def require_metadata(value: Any) -> dict[str, Any]:
    """Return the metadata of sessions and runs; {} for None.

    Raises:
        BadUsage: the value is not a dict with str keys.
    """
    if not isinstance(value, dict | None) or not all(isinstance(key, str) for key in value or ()):
        message = f"metadata must be a dict with str keys, got {value!r}."
        raise BadUsage(message, "For example: metadata={'env': 'test'}.")
    return value or {}


def require_text(parameter: str, value: Any) -> None:
    """Raise BadUsage for a value that is neither None nor a non-empty str."""
    if value is not None and (not isinstance(value, str) or not value):
        raise BadUsage(f"{parameter} must be a non-empty str, got {value!r}.", f"For example: {parameter}='chat'.")


class SessionAccess(ABC):
    """The sessions of an agent, a team or a workflow.

    Its store is ``db``, opened if that is a path or URL; else the attached store; else one in memory, which ends with
    the process.
    """

    session_type: ClassVar[SessionType]

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Set what agents, teams and workflows have in common, from ``locals()`` of their constructor."""
        self._arguments = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        for parameter in ("session_id", "user_id", "name", "id"):
            require_text(parameter, arguments[parameter])
        db, manager = arguments["db"], arguments["session_summary_manager"]
        db = getattr(db, "store", db)  # of an asynchronous store
        if db is not None and not isinstance(db, (str, Path)) and not hasattr(db, "start_run"):
            raise BadUsage(f"db must be a store, a path or a URL, got {db!r}.", "For example: db='sessions.duckdb'.")
        if manager is not None and not hasattr(manager, "ensure_covers"):
            message = f"session_summary_manager must be a SessionSummaryManager, got {manager!r}."
            raise BadUsage(message, "Create one with SessionSummaryManager(model=...), from kern_nb.agent.")
        self._db: SessionStore | str | Path | None = db
        self.session_id: str | None = arguments["session_id"]
        self.user_id: str | None = arguments["user_id"]
        self.name: str | None = arguments["name"]
        derived_id = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") if self.name else ""
        self.id: str = arguments["id"] or derived_id or self.session_type
        self._summary_manager: SessionSummaryManager | None = manager
        self.overwrite_db_session_state: bool = arguments["overwrite_db_session_state"]
        self.timeout_s: float | None = arguments["timeout_s"]
        self._default_state = require_state(arguments["session_state"])
        self._metadata = require_metadata(arguments.get("metadata"))
        self._memory_store: SessionStore | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        session = f" session_id={self.session_id!r}" if self.session_id else ""
        return escape_controls(f"<{type(self).__name__} {self.id}{session}>")

    @property
    def db(self) -> SessionStore | None:
        """The store passed to the constructor; a path or URL is opened here."""
        if isinstance(self._db, (str, Path)):
            from kern_nb.db import open_store

            with self._lock:
                self._db = open_store(self._db) if isinstance(self._db, (str, Path)) else self._db
        return self._db

    @db.setter
    def db(self, store: SessionStore | str | Path | None) -> None:
        self._db = getattr(store, "store", store)

    @property
    def store(self) -> SessionStore:
        """The store that a run would be written to now."""
        if self.db is not None:
            return self.db
        try:
            return store_registry.current_store()
        except NoStore:
            with self._lock:
                if self._memory_store is None:
                    from kern_nb.db import InMemoryDb

                    self._memory_store = InMemoryDb()
                return self._memory_store

    def _session(self, session_id: str | None) -> str:
        """Return the session of a run: the argument, the own session, or a new one, which becomes the own."""
        if session_id is not None:
            return session_id
        with self._lock:
            self.session_id = self.session_id or str(uuid4())
            return self.session_id

    def _user(self, user_id: str | None) -> str | None:
        """Return the argument, or the default user for None; "" is a valid user."""
        return self.user_id if user_id is None else user_id

    def _find_run(self, run_id: str | int | Run, session_id: str | None, user_id: str | None) -> Run:
        """Find a run by a reference of a person, if its session belongs to the user or nobody."""
        try:
            return self._lookup_run(run_id, session_id, user_id)
        except (SessionNotFound, RunNotFound):
            if user_id is None:
                raise
            with contextlib.suppress(KernError):  # a session without an owner becomes the user's, as in a new run
                run = self._lookup_run(run_id, session_id, None)
                session = self.store.get_session(run.session_id or "", runs=False)
                if session is not None and session.user_id is None:
                    return run
            raise

    def _lookup_run(self, run_id: str | int | Run, session_id: str | None, user_id: str | None) -> Run:
        value = getattr(run_id, "run_id", run_id)
        if isinstance(value, str):
            with contextlib.suppress(RunNotFound):
                run = self.store.get_run(value, user_id=user_id)
                if session_id in (None, run.session_id):
                    return run
        session_id = session_id or (self.session_id if isinstance(value, int) else None)
        ref = str(value)
        if session_id is None and "/" not in ref:
            raise RunNotFound(f"There is no run {value!r}.", "Pass its whole id, or its session: chat/2")
        if session_id is not None and not ref.startswith(f"{session_id}/"):
            ref = f"{session_id}/{ref}"
        return self.store.find_run(ref, user_id=user_id)

    def _summaries(self) -> SessionSummaryManager:
        """Return the summary manager, created on first use."""
        from kern_nb.runtime.summaries import SessionSummaryManager

        with self._lock:
            self._summary_manager = self._summary_manager or SessionSummaryManager()
            return self._summary_manager

    def _forget(self, store: SessionStore, session_id: str | None = None) -> None:  # noqa: B027 - no cache by default
        """Drop what is cached of a session that changes, or of all sessions of the store."""

    def _require_session_id(self, session_id: str | None) -> str:
        session_id = session_id or self.session_id
        if session_id is None:
            raise BadUsage(f"{self!r} has no session.", "Pass a session_id, or run it first.")
        return session_id

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> Session | None:
        """Return a session with its runs; None if there is no such session of the user.

        ``user_id``, here and in the other session methods, is the owner of the session; the default user where None.
        """
        return self.store.get_session(self._require_session_id(session_id), user_id=self._user(user_id))

    def get_session_state(self, session_id: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        """Return the state of a session; {} without a session."""
        session = self.store.get_session(self._require_session_id(session_id), user_id=self._user(user_id), runs=False)
        return session.session_state if session else {}

    def get_workspace(self, session_id: str | None = None, *, user_id: str | None = None) -> Workspace:
        """Return the files of a session, read-only; tools write them: ``run_context.workspace``."""
        from kern_nb.runtime.workspace import Workspace

        return Workspace(self.store, self.get_session_state(session_id, user_id=user_id), read_only=True)

    def update_session_state(
        self,
        updates: dict[str, Any] | None = None,
        session_id: str | None = None,
        *,
        session_state_updates: dict[str, Any] | None = None,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """Set keys of a session's state, and return the new state.

        Args:
            updates: The keys to set.
            session_id: The session; the own session where None.
            session_state_updates: Another name of ``updates``.
            user_id: The owner of the session.

        Raises:
            BadUsage: there are no updates, or both names are used.
            OwnerMismatch: the session belongs to another user.
        """
        if (updates is None) == (session_state_updates is None):
            raise BadUsage("update_session_state takes updates.", "For example: update_session_state({'items': []})")
        updates = session_state_updates if updates is None else updates
        session_id = self._require_session_id(session_id)
        self._forget(self.store, session_id)
        return self.store.update_session_state(session_id, updates or {}, user_id=self._user(user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """Return the title of a session."""
        return self._require_session(session_id, user_id).session_name

    def get_session_summary(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> SessionSummary | None:
        """Return the summary of a session, after a wait for one that is being written; None without one."""
        from kern_nb.runtime.summaries import parse_summary

        session_id = self._require_session(session_id, user_id).session_id
        if self._summary_manager is not None:
            self._summary_manager.wait(self.store, session_id)
        return parse_summary(self._require_session(session_id, user_id))

    def get_session_metrics(self, session_id: str | None = None, *, user_id: str | None = None) -> SessionMetrics:
        """Return the totals of a session: the sums of its own rows."""
        from kern_nb.records import SessionMetrics

        session_id = self._require_session(session_id, user_id).session_id
        frame = self.store.sessions_df(session_id, user_id=self._user(user_id))
        totals = frame.loc[:, [name for name in SessionMetrics.model_fields if name in frame]].iloc[0].dropna()
        return SessionMetrics.model_validate(totals.to_dict())

    def delete_session(
        self, session_id: str | None = None, *, detach_branches: bool = False, user_id: str | None = None
    ) -> None:
        """Delete a session with its runs; see `SessionStore.delete_session`."""
        session_id = self._require_session_id(session_id)
        self._forget(self.store, session_id)
        self._require_session(session_id, user_id)
        self.store.delete_session(session_id, detach_branches=detach_branches, user_id=self._user(user_id))

    def _require_session(self, session_id: str | None, user_id: str | None = None) -> Session:
        """Return a session of the user, without its runs."""
        session_id = self._require_session_id(session_id)
        session = self.store.get_session(session_id, user_id=self._user(user_id), runs=False)
        if session is None:
            raise SessionNotFound(f"There is no session {session_id!r}.", "List them with %kern sessions.")
        return session
