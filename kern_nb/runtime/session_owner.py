"""`SessionOwner`: what an agent, a team and a workflow share. Their sessions, and how they are called from a cell."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

from kern_nb import store_registry
from kern_nb.control_characters import escape_controls
from kern_nb.errors import BadUsage, KernError, NoStore, RunNotFound, SessionNotFound, did_you_mean

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Message, Run, Session, SessionMetrics, SessionSummary, SessionType
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.workspace import Workspace

    Work = Callable[[Emit], Coroutine[Any, Any, Run]]
    """What makes a run, and tells what happens in it."""

_NO_SESSION = "Give a session_id, here or to the constructor, or run it first."

_SETTABLE = (
    "model", "instructions", "role", "name", "user_id", "timeout_s", "max_requests", "cache_session",
    "overwrite_db_session_state",
)  # fmt: skip
"""Parameters that are attributes of the same name: one that was set since is what counts."""


def _require_text(what: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadUsage(f"{what}={value!r} is no name.", f"Give a string: {what}='chat'.")


def require_state(value: Any) -> dict[str, Any]:
    """A session state as it was given; empty where there is none.

    Raises:
        BadUsage: it is no dict.
    """
    if not isinstance(value, dict | None):
        raise BadUsage(f"session_state={value!r} is no dict.", "For example: session_state={'items': []}.")
    return value or {}


class SessionOwner(ABC):
    """Sessions of an agent, a team or a workflow, in its store.

    The store is ``db``, or opened from it where it is a path or URL; without one, the attached store; without that,
    one in memory, which ends with the process.
    """

    session_type: ClassVar[SessionType]
    _given: dict[str, Any]

    def __init__(
        self,
        *,
        db: SessionStore | str | Path | None,
        session_id: str | None,
        user_id: str | None,
        name: str | None,
        id: str | None,
    ) -> None:
        for what, value in (("session_id", session_id), ("user_id", user_id), ("name", name), ("id", id)):
            _require_text(what, value)
        if db is not None and not isinstance(db, (str, Path)) and not hasattr(db, "start_run"):
            raise BadUsage(f"db={db!r} is no store.", "Give a store, a path or a URL: db='sessions.duckdb'.")
        self._db = db
        self.session_id = session_id
        self.user_id = user_id
        self.name = name
        self.id = id or (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") if name else "") or self.session_type
        self._memory: SessionStore | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Its kind and id, and the session it goes on in."""
        session = f" session_id={self.session_id!r}" if self.session_id else ""
        return escape_controls(f"<{type(self).__name__} {self.id}{session}>")

    @property
    def db(self) -> SessionStore | None:
        """The store that was given; a path or URL is opened here."""
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
                if self._memory is None:
                    from kern_nb.db import InMemoryDb

                    self._memory = InMemoryDb()
                return self._memory

    @property
    def kept_in(self) -> SessionStore | None:
        """The store that was given, or the one in memory that its first run made; None where there is neither."""
        return self.db or self._memory

    def owner(self) -> dict[str, Any]:
        """Whose run it is, as `SessionStore.start_run` takes it."""
        return {
            "session_type": self.session_type,
            f"{self.session_type}_id": self.id,
            "owner_data": {"name": self.name, **self.configuration()},
        }

    def configuration(self) -> dict[str, Any]:
        """What is kept of it with a new session."""
        return {}

    def variant(self, **changes: Any) -> Self:
        """A new one that is like this one but for what is given: ``agent.variant(model="openai:gpt-5.2-mini")``.

        It has the same parameters as this one has now, and so the same store, tools and members. Nothing is shared that
        one of them keeps for itself: no cache, no lock, no session that was made up. This one stays as it is.

        Args:
            **changes: Any parameters of the constructor: ``model``, ``instructions``, ``tools``, ``num_history_runs``.
                A team's model, instructions and tools are its leader's.

        Raises:
            BadUsage: there is no such parameter, or it takes no such value.
        """
        known = self._parameters()
        if unknown := [name for name in changes if name not in known]:
            hint = did_you_mean(unknown[0], known, f"It takes {', '.join(known)}.")
            raise BadUsage(f"{self!r} takes no {unknown[0]!r}.", hint)
        new = copy.copy(self)  # a class of the user's own may keep more, and its constructor take less
        new._make_anew(known | changes)  # noqa: SLF001 - it is one of us
        return new

    def _parameters(self) -> dict[str, Any]:
        """The constructor's parameters, as they are now."""
        now = {name: getattr(self, name) for name in _SETTABLE if name in self._given}
        return self._given | now | {"db": self._db}

    @abstractmethod
    def _make_anew(self, parameters: dict[str, Any]) -> None:
        """Construct it again, with other parameters."""

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self, input: Any, *, session_id: str | None = None, user_id: str | None = None, **options: Any) -> Run:
        """As `arun`, from sync code. Works inside a running event loop too, as a notebook's cell does."""
        made = self._begin(input, session_id, user_id, options)
        return self._wait(made)

    async def arun(
        self, input: Any, *, session_id: str | None = None, user_id: str | None = None, **options: Any
    ) -> Run:
        """Run on an input; see the class for the options. Every message is stored when it is said.

        Args:
            input: A text, a list of texts and files, or a value, which is written as JSON.
            session_id: The session; its own where None, and a new one where it has none.
            user_id: Whose session it is.
            **options: What else the run is given.

        Returns:
            The run as stored; its status is PAUSED where it waits for an answer.

        Raises:
            RunFailed: it ended with an error, and is stored with it.
            OwnerMismatch: the session is another user's; nothing was stored.
        """
        from kern_nb.runtime.events import ignore

        return await self._begin(input, session_id, user_id, options)(ignore)

    def print_response(
        self, input: Any, *, session_id: str | None = None, user_id: str | None = None, **options: Any
    ) -> None:
        """Run, and show what is said as it is said: in the cell, or on the terminal."""
        self._print(self._begin(input, session_id, user_id, options))

    async def aprint_response(
        self, input: Any, *, session_id: str | None = None, user_id: str | None = None, **options: Any
    ) -> None:
        """As `print_response`, to be awaited."""
        from kern_nb.runtime.printing import printer

        with printer() as emit:
            await self._begin(input, session_id, user_id, options)(emit)

    def continue_run(
        self, run_id: str | int | Run, *, session_id: str | None = None, user_id: str | None = None
    ) -> Run:
        """As `acontinue_run`, from sync code."""
        return self._wait(lambda emit: self._proceed(run_id, session_id, emit, user_id=user_id))

    async def acontinue_run(
        self, run_id: str | int | Run, *, session_id: str | None = None, user_id: str | None = None
    ) -> Run:
        """Go on with a run whose answers are there, or that was interrupted. Another process may have begun it.

        Of several who go on with one run at once, one does. A tool that had started when a process died is not run
        again: the model is told that its effect is unknown.

        Args:
            run_id: The run, or its id; or ``chat/2``; or, with ``session_id``, its index or a unique prefix of its id.
            session_id: Its session.
            user_id: Whose session it is; the agent's own user where None. A session of nobody becomes theirs.

        Raises:
            RunNotFound: there is none such, or it is in another user's session.
            StillWaiting: answers are missing.
            AlreadyClaimed, RunClosed: another one goes on with it, or it has ended.
            RunFailed: it ended with an error.
        """
        from kern_nb.runtime.events import ignore

        return await self._proceed(run_id, session_id, ignore, user_id=user_id)

    def _begin(self, input: Any, session_id: str | None, user_id: str | None, options: dict[str, Any]) -> Work:
        """What makes the run, given an `Emit`. What the calling thread alone knows is found out here."""
        from kern_nb.runtime.provenance import here

        _require_text("session_id", session_id)
        _require_text("user_id", user_id)
        known = [p.name for p in inspect.signature(self._prepared).parameters.values() if p.default is not p.empty]
        if unknown := [name for name in options if name not in known or name == "parent"]:
            public = ", ".join(["session_id", "user_id", *(name for name in known if name != "parent")])
            raise BadUsage(f"A run of {self!r} takes no {unknown[0]!r}.", f"It takes the input and {public}.")
        made_by = here()
        extra = {"notebook": made_by} if made_by else {}
        return self._prepared(input, self._session(session_id), self._user(user_id), extra, **options)

    @abstractmethod
    def _prepared(
        self, input: Any, session_id: str, user_id: str | None, extra: dict[str, Any], **options: Any
    ) -> Work:
        """What makes a run. Its arguments are checked here, before anything is stored."""

    @abstractmethod
    async def _proceed(
        self, run_id: str | int | Run, session_id: str | None, emit: Emit, *, user_id: str | None = None
    ) -> Run:
        """Go on with a run; see `acontinue_run`."""

    def _wait(self, work: Work) -> Run:
        from kern_nb.runtime import event_loop
        from kern_nb.runtime.events import ignore

        return event_loop.run(lambda: work(ignore))

    def _print(self, work: Work) -> None:
        from kern_nb.runtime import event_loop
        from kern_nb.runtime.printing import Relay, printer

        relay = Relay()
        with printer() as emit:
            event_loop.run(lambda: work(relay.put), watch=lambda future: relay.pass_on(future, emit))

    def _session(self, session_id: str | None) -> str:
        """The session to go on in: the one given, its own, or a new one that is its own from now on."""
        if session_id is not None:
            return session_id
        with self._lock:
            self.session_id = self.session_id or str(uuid4())
            return self.session_id

    def _user(self, user_id: str | None) -> str | None:
        """The user that is named, else the agent's own; "" is a user like any other."""
        return self.user_id if user_id is None else user_id

    def _found(self, run_id: str | int | Run, session_id: str | None, user_id: str | None) -> Run:
        """The run that a person names.

        Raises:
            RunNotFound: there is none such, or its session is another user's.
        """
        try:
            return self._named(run_id, session_id, user_id)
        except (SessionNotFound, RunNotFound):
            if user_id is None:
                raise
            with contextlib.suppress(KernError):  # a session of nobody becomes the user's, as with any run of theirs
                found = self._named(run_id, session_id, None)
                session = self.store.get_session(found.session_id or "", runs=False)
                if session is not None and session.user_id is None:
                    return found
            raise

    def _named(self, run_id: str | int | Run, session_id: str | None, user_id: str | None) -> Run:
        given = getattr(run_id, "run_id", run_id)
        if isinstance(given, str):
            with contextlib.suppress(RunNotFound):
                found = self.store.get_run(given, user_id=user_id)
                if session_id in (None, found.session_id):
                    return found
        session_id = session_id or (self.session_id if isinstance(given, int) else None)
        place = str(given)
        if session_id is None and "/" not in place:
            raise RunNotFound(f"There is no run {given!r}.", "Give its whole id, or its session: chat/2")
        if session_id is not None and not place.startswith(f"{session_id}/"):
            place = f"{session_id}/{place}"
        return self.store.find_run(place, user_id=user_id)

    # Sessions ---------------------------------------------------------------------------------------------------------

    def _known(self, session_id: str | None) -> str:
        found = session_id or self.session_id
        if found is None:
            raise BadUsage(f"{self!r} has no session yet.", _NO_SESSION)
        return found

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> Session | None:
        """A session with its runs; None where there is none, or it is another user's.

        ``user_id``, here and in what follows, is whose session it is; the agent's own user where None.
        """
        return self.store.get_session(self._known(session_id), user_id=self._user(user_id))

    def get_chat_history(
        self, session_id: str | None = None, *, last_runs: int | None = None, user_id: str | None = None
    ) -> list[Message]:
        """What was said in a session: of runs that were completed, inherited ones too.

        Raises:
            SessionNotFound: there is no such session, or it is another user's. So with all that follow.
        """
        return self.store.history(self._known(session_id), last_runs=last_runs, user_id=self._user(user_id))

    def get_session_state(self, session_id: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        """The state of a session; empty where there is none."""
        session = self.store.get_session(self._known(session_id), user_id=self._user(user_id), runs=False)
        return session.session_state if session else {}

    def get_workspace(self, session_id: str | None = None, *, user_id: str | None = None) -> Workspace:
        """The files of a session, to be read; tools write them: ``run_context.workspace``."""
        from kern_nb.runtime.workspace import Workspace

        return Workspace(self.store, self.get_session_state(session_id, user_id=user_id), read_only=True)

    def update_session_state(
        self, updates: dict[str, Any], session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set keys of a session's state; the state as it is now.

        Raises:
            OwnerMismatch: the session is another user's.
        """
        return self.store.update_session_state(self._known(session_id), updates, user_id=self._user(user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """The title of a session."""
        return self._required(session_id, user_id).session_name

    def set_session_name(self, session_name: str, session_id: str | None = None, *, user_id: str | None = None) -> str:
        """Give a session a title; the title."""
        known = self._required(session_id, user_id).session_id
        self.store.rename_session(known, session_name, user_id=self._user(user_id))
        return session_name

    def get_session_summary(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> SessionSummary | None:
        """The summary of a session, None where none was made."""
        from kern_nb.runtime.summaries import record

        return record(self._required(session_id, user_id))

    def get_session_metrics(self, session_id: str | None = None, *, user_id: str | None = None) -> SessionMetrics:
        """What a session took: the sum of its own rows."""
        from kern_nb.records import SessionMetrics

        known = self._required(session_id, user_id).session_id
        frame = self.store.sessions_df(known, user_id=self._user(user_id))
        totals = frame.loc[:, [name for name in SessionMetrics.model_fields if name in frame]].iloc[0].dropna()
        return SessionMetrics.model_validate(totals.to_dict())

    def delete_session(
        self, session_id: str | None = None, *, detach_branches: bool = False, user_id: str | None = None
    ) -> None:
        """Delete a session with all that is in it; see `SessionStore.delete_session`."""
        known = self._required(session_id, user_id).session_id
        self.store.delete_session(known, detach_branches=detach_branches, user_id=self._user(user_id))

    def _required(self, session_id: str | None, user_id: str | None = None) -> Session:
        """A session of the user, without its runs."""
        found = self.store.get_session(self._known(session_id), user_id=self._user(user_id), runs=False)
        if found is None:
            raise SessionNotFound(f"There is no session {self._known(session_id)!r}.", "List them with %kern sessions.")
        return found
