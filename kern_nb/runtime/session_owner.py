"""`SessionOwner`: what an agent, a team and a workflow share: their store and sessions, and how they are called."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

from kern_nb import store_registry
from kern_nb.control_characters import visible
from kern_nb.errors import BadUsage, KernError, NoStore, RunNotFound, SessionNotFound, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Message, Run, Session, SessionMetrics, SessionSummary, SessionType
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.runtime.workspace import Workspace

    RunFunction = Callable[[Emit], Coroutine[Any, Any, Run]]
    """Makes a run, and emits its events."""

_SETTABLE = (
    "model", "instructions", "role", "name", "user_id", "timeout_s", "max_requests", "cache_session",
    "overwrite_db_session_state",
)  # fmt: skip
"""Parameters that are attributes of the same name: `variant` uses the current value."""


def _require_text(parameter: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadUsage(f"{parameter} must be a non-empty str, got {value!r}.", f"For example: {parameter}='chat'.")


def require_state(value: Any) -> dict[str, Any]:
    """Return a session state; {} for None.

    Raises:
        BadUsage: the value is not a dict.
    """
    if not isinstance(value, dict | None):
        raise BadUsage(f"session_state must be a dict, got {value!r}.", "For example: session_state={'items': []}.")
    return value or {}


class SessionOwner(ABC):
    """Base class of agents, teams and workflows.

    Its store is ``db``, opened if that is a path or URL; else the attached store; else one in memory, which ends with
    the process.
    """

    session_type: ClassVar[SessionType]
    _arguments: dict[str, Any]
    """The constructor's arguments."""

    def __init__(
        self,
        *,
        db: SessionStore | str | Path | None,
        session_id: str | None,
        user_id: str | None,
        name: str | None,
        id: str | None,
        session_state: dict[str, Any] | None,
        overwrite_db_session_state: bool,
        timeout_s: float | None,
        session_summary_manager: SessionSummaryManager | None,
    ) -> None:
        for parameter, value in (("session_id", session_id), ("user_id", user_id), ("name", name), ("id", id)):
            _require_text(parameter, value)
        if db is not None and not isinstance(db, (str, Path)) and not hasattr(db, "start_run"):
            raise BadUsage(f"db must be a store, a path or a URL, got {db!r}.", "For example: db='sessions.duckdb'.")
        if session_summary_manager is not None and not hasattr(session_summary_manager, "ensure_covers"):
            message = f"session_summary_manager must be a SessionSummaryManager, got {session_summary_manager!r}."
            raise BadUsage(message, "Create one with SessionSummaryManager(model=...), from kern_nb.agent.")
        self._db = db
        self.session_id = session_id
        self.user_id = user_id
        self.name = name
        self.id = id or (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") if name else "") or self.session_type
        self.overwrite_db_session_state = overwrite_db_session_state
        self.timeout_s = timeout_s
        self._default_state = require_state(session_state)
        self._summary_manager = session_summary_manager
        self._keeps_summaries = False
        self._memory_store: SessionStore | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the kind, the id and the session."""
        session = f" session_id={self.session_id!r}" if self.session_id else ""
        return visible(f"<{type(self).__name__} {self.id}{session}>")

    @property
    def db(self) -> SessionStore | None:
        """The store passed to the constructor; a path or URL is opened here."""
        if isinstance(self._db, (str, Path)):
            from kern_nb.db import open_store

            with self._lock:
                self._db = open_store(self._db) if isinstance(self._db, (str, Path)) else self._db
        return self._db

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

    def _owner_fields(self) -> dict[str, Any]:
        """Return the kind, id and configuration, as parameters of `SessionStore.start_run`."""
        return {
            "session_type": self.session_type,
            f"{self.session_type}_id": self.id,
            "owner_data": {"name": self.name, **self._configuration()},
        }

    @abstractmethod
    def _configuration(self) -> dict[str, Any]:
        """Return what is stored of the owner with a new session."""

    def variant(self, **changes: Any) -> Self:
        """Create a copy with some parameters changed: ``agent.variant(model="openai:gpt-5.2-mini")``.

        The copy has this object's current parameters, and so the same store, tools and members, but its own cache, lock
        and generated session. This object is not changed.

        Args:
            **changes: Parameters of the constructor: ``model``, ``instructions``, ``tools``, ``num_history_runs``. Of a
                team, model, instructions and tools are the leader's.

        Raises:
            BadUsage: a parameter is unknown, or its value is not valid.
        """
        parameters = self._parameters()
        if unknown := [name for name in changes if name not in parameters]:
            hint = did_you_mean(unknown[0], parameters, f"Its parameters are {', '.join(parameters)}.")
            raise BadUsage(f"{self!r} has no parameter {unknown[0]!r}.", hint)
        new = copy.copy(self)  # a subclass may have further attributes, and a constructor with fewer parameters
        new._reinitialize(parameters | changes)  # noqa: SLF001 - an instance of this class
        return new

    def _parameters(self) -> dict[str, Any]:
        """Return the constructor's parameters with their current values."""
        current = {name: getattr(self, name) for name in _SETTABLE if name in self._arguments}
        state = copy.deepcopy(self._default_state)
        return self._arguments | current | {"db": self._db, "session_state": state}

    @abstractmethod
    def _reinitialize(self, parameters: dict[str, Any]) -> None:
        """Call the constructor of this class again, with other parameters."""

    def _check_tools(self) -> None:  # noqa: B027 - a workflow has no tools of its own
        """Raise BadUsage if a tool cannot be used."""

    # Running ----------------------------------------------------------------------------------------------------------

    def run(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
    ) -> Run:
        """Run synchronously; see `arun`. Also works inside a running event loop, like that of a notebook's cell."""
        return self._run_sync(self._start(input, session_id, user_id, session_state))

    async def arun(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
    ) -> Run:
        """Run on an input. Every message is stored as it comes.

        Args:
            input: A text, or any other value, which becomes JSON.
            session_id: The session; the owner's own where None, and a new one where it has none.
            user_id: The owner of the session; the default user where None.
            session_state: State that takes precedence over the stored one.

        Returns:
            The run as stored; its status is PAUSED if it has pending requirements.

        Raises:
            RunFailed: the run ended with an error, and is stored with it.
            OwnerMismatch: the session belongs to another user; nothing is stored.
        """
        from kern_nb.runtime.events import ignore

        return await self._start(input, session_id, user_id, session_state)(ignore)

    def print_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
    ) -> None:
        """Run, and print the response as it comes: into the cell, or on the terminal. Parameters as for `arun`."""
        self._print(self._start(input, session_id, user_id, session_state))

    async def aprint_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
    ) -> None:
        """Do `print_response` asynchronously."""
        await self._aprint(self._start(input, session_id, user_id, session_state))

    def continue_run(
        self, run_id: str | int | Run, *, session_id: str | None = None, user_id: str | None = None
    ) -> Run:
        """Continue a run synchronously; see `acontinue_run`."""
        return self._run_sync(lambda emit: self._resume_run(run_id, session_id, emit, user_id=user_id))

    async def acontinue_run(
        self, run_id: str | int | Run, *, session_id: str | None = None, user_id: str | None = None
    ) -> Run:
        """Continue a run whose requirements are resolved, or that was interrupted, also one of another process.

        Of several concurrent callers, one continues the run. A tool that had started when its process died is not run
        again: the model learns that its effect is unknown.

        Args:
            run_id: The run, or its id; or ``chat/2``; or, with ``session_id``, its index or a unique prefix of its id.
            session_id: Its session.
            user_id: The owner of the session; the agent's own user where None. A session without an owner becomes
                theirs.

        Raises:
            RunNotFound: there is no such run, or its session belongs to another user.
            StillWaiting: requirements are pending.
            AlreadyClaimed: another caller continues it.
            RunClosed: it has ended.
            RunFailed: it ended with an error.
        """
        from kern_nb.runtime.events import ignore

        return await self._resume_run(run_id, session_id, ignore, user_id=user_id)

    def _start(
        self,
        input: Any,
        session_id: str | None,
        user_id: str | None,
        session_state: dict[str, Any] | None = None,
        **media: Any,
    ) -> RunFunction:
        """Prepare a run. What only the calling thread knows, like its cell, is recorded here."""
        from kern_nb.runtime.provenance import current_cell

        _require_text("session_id", session_id)
        _require_text("user_id", user_id)
        cell = current_cell()
        extra = {"notebook": cell} if cell else {}
        session_id, user_id = self._session(session_id), self._user(user_id)
        return self._prepare_run(input, session_id, user_id, extra, session_state=session_state, **media)

    @abstractmethod
    def _prepare_run(
        self, input: Any, session_id: str, user_id: str | None, extra: dict[str, Any], **options: Any
    ) -> RunFunction:
        """Check the arguments of a run, before anything is stored, and return what makes it."""

    @abstractmethod
    async def _resume_run(
        self, run_id: str | int | Run, session_id: str | None, emit: Emit, *, user_id: str | None = None
    ) -> Run:
        """Continue a run; see `acontinue_run`."""

    def _run_sync(self, work: RunFunction) -> Run:
        from kern_nb.runtime import event_loop
        from kern_nb.runtime.events import ignore

        return event_loop.run(lambda: work(ignore))

    def _print(self, work: RunFunction) -> None:
        from kern_nb.runtime import event_loop
        from kern_nb.runtime.printing import EventRelay, printer

        relay, emit = EventRelay(), printer()
        event_loop.run(lambda: work(relay.send), watch=lambda future: relay.forward(future, emit))

    async def _aprint(self, work: RunFunction) -> None:
        from kern_nb.runtime.printing import printer

        await work(printer())

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

    async def _load_run(
        self,
        run_id: str | int | Run,
        session_id: str | None,
        user_id: str | None,
        parent: RunContext | None,
    ) -> tuple[SessionStore, Run, str | None]:
        """Load a run to resume, with its store and the user to check; the run of a parent is found by its id."""
        from kern_nb.runtime.event_loop import in_thread

        if parent is not None:
            return parent.store, await in_thread(lambda: parent.store.get_run(str(run_id))), None
        user_id = self._user(user_id)
        return self.store, await in_thread(lambda: self._find_run(run_id, session_id, user_id)), user_id

    def _find_run(self, run_id: str | int | Run, session_id: str | None, user_id: str | None) -> Run:
        """Find a run by a reference of a person.

        Raises:
            RunNotFound: there is no such run, or its session belongs to another user.
        """
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

    # Summaries --------------------------------------------------------------------------------------------------------

    def _summaries(self) -> SessionSummaryManager:
        """Return the summary manager, created on first use."""
        from kern_nb.runtime.summaries import SessionSummaryManager

        with self._lock:
            self._summary_manager = self._summary_manager or SessionSummaryManager()
            return self._summary_manager

    def _start_summary(self, store: SessionStore, run: Run) -> None:
        """Update the session's summary in the background after a completed run, where summaries are enabled.

        The model is the manager's, else the owner's; a workflow has none, and uses that of the environment.
        """
        if self._keeps_summaries and run.status == "COMPLETED" and run.parent_run_id is None:
            try:
                future = self._summaries().start(store, run.session_id or "", getattr(self, "model", None))
                future.add_done_callback(lambda _: self._forget(store, run.session_id))
            except Exception as error:  # noqa: BLE001 - the run is completed, and its answer is there
                logging.getLogger("kern_nb").warning("Session %s has no new summary: %s", run.session_id, error)

    def _forget(self, store: SessionStore, session_id: str | None = None) -> None:  # noqa: B027 - no cache by default
        """Drop what is cached of a session that changes, or of all sessions of the store."""

    # Sessions ---------------------------------------------------------------------------------------------------------

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

    def get_chat_history(
        self, session_id: str | None = None, *, last_runs: int | None = None, user_id: str | None = None
    ) -> list[Message]:
        """Return the messages of a session's completed runs, inherited ones included.

        Args:
            session_id: The session; the own session where None.
            last_runs: Only so many of the latest runs.
            user_id: The owner of the session.

        Raises:
            SessionNotFound: there is no such session of the user; also raised by the methods below.
        """
        return self.store.history(
            self._require_session_id(session_id), last_runs=last_runs, user_id=self._user(user_id)
        )

    def get_session_state(self, session_id: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        """Return the state of a session; {} without a session."""
        session = self.store.get_session(self._require_session_id(session_id), user_id=self._user(user_id), runs=False)
        return session.session_state if session else {}

    def get_workspace(self, session_id: str | None = None, *, user_id: str | None = None) -> Workspace:
        """Return the files of a session, read-only; tools write them: ``run_context.workspace``."""
        from kern_nb.runtime.workspace import Workspace

        return Workspace(self.store, self.get_session_state(session_id, user_id=user_id), read_only=True)

    def update_session_state(
        self, updates: dict[str, Any], session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set keys of a session's state, and return the new state.

        Args:
            updates: The keys to set.
            session_id: The session; the own session where None.
            user_id: The owner of the session.

        Raises:
            OwnerMismatch: the session belongs to another user.
        """
        session_id = self._require_session_id(session_id)
        self._forget(self.store, session_id)
        return self.store.update_session_state(session_id, updates, user_id=self._user(user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """Return the title of a session."""
        return self._require_session(session_id, user_id).session_name

    def set_session_name(self, session_name: str, session_id: str | None = None, *, user_id: str | None = None) -> str:
        """Set the title of a session, and return it."""
        session_id = self._require_session(session_id, user_id).session_id
        self._forget(self.store, session_id)
        self.store.rename_session(session_id, session_name, user_id=self._user(user_id))
        return session_name

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


# Access for operations and widgets ------------------------------------------------------------------------------------


def owner_fields(owner: SessionOwner) -> dict[str, Any]:
    """Return an owner's kind, id and configuration, as parameters of `SessionStore.start_run`."""
    return owner._owner_fields()  # noqa: SLF001 - of this module


def existing_store(owner: SessionOwner) -> SessionStore | None:
    """Return the store passed to an owner, or the one in memory of its first run; None without either."""
    return owner.db or owner._memory_store  # noqa: SLF001 - of this module


def check_tools(owner: SessionOwner) -> None:
    """Check that the tools of an agent or a team can be used.

    Raises:
        BadUsage: a tool cannot be used.
    """
    owner._check_tools()  # noqa: SLF001 - of this module
