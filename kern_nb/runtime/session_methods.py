"""`SessionMethods`: what agents, teams and workflows do with their sessions beside reading and changing one.

Outputs, messages, saving, forks, titles and cancellation; and the asynchronous twins of all session methods.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound
from kern_nb.runtime.async_methods import async_method
from kern_nb.runtime.session_access import SessionAccess

if TYPE_CHECKING:
    from kern_nb.records import Message, Run, Session


class SessionMethods(SessionAccess):
    """Further methods for the sessions of an agent, a team or a workflow."""

    def get_run_output(
        self, run_id: str | int | Run, session_id: str | None = None, *, user_id: str | None = None
    ) -> Run | None:
        """Return a run as it is stored; None if there is no such run of the user.

        Args:
            run_id: The run, as in `acontinue_run`.
            session_id: Its session.
            user_id: The owner of the session.
        """
        try:
            return self._lookup_run(run_id, session_id, self._user(user_id))
        except (RunNotFound, SessionNotFound):
            return None

    def get_last_run_output(self, session_id: str | None = None, *, user_id: str | None = None) -> Run | None:
        """Return the latest run of a session that is not a member's or a step's; None without one."""
        session_id, n = self._require_session_id(session_id), 1
        while True:
            try:
                runs = self.store.last_runs(session_id, n, user_id=self._user(user_id))
            except SessionNotFound:
                return None
            run = next((run for run in reversed(runs) if run.parent_run_id is None), None)
            if run is not None or len(runs) < n:
                return run
            n *= 4

    def get_session_messages(
        self,
        session_id: str | None = None,
        last_n_runs: int | None = None,
        limit: int | None = None,
        *,
        member_ids: Collection[str] | None = None,
        skip_roles: Iterable[str] | None = None,
        skip_statuses: Iterable[Any] | None = None,
        skip_history_messages: bool = True,
        skip_member_messages: bool = True,
        user_id: str | None = None,
    ) -> list[Message]:
        """Return messages of a session; see `Session.get_messages`, which has the same parameters.

        Raises:
            SessionNotFound: there is no such session of the user.
        """
        return self._load_session(session_id, user_id).get_messages(
            last_n_runs=last_n_runs,
            limit=limit,
            member_ids=member_ids,
            skip_roles=skip_roles,
            skip_statuses=skip_statuses,
            skip_history_messages=skip_history_messages,
            skip_member_messages=skip_member_messages,
        )

    def save_session(self, session: Session) -> Session:
        """Store a session that was changed, and return it; see `SessionStore.save_session`.

        Raises:
            OwnerMismatch: it belongs to another user.
        """
        self._forget(self.store, session.session_id)
        return self.store.save_session(session)

    def fork_session(
        self, source_session_id: str | None = None, *, user_id: str | None = None, name: str | None = None
    ) -> str:
        """Create a branch at the end of a session, and return its id. It inherits the runs, and copies none.

        Args:
            source_session_id: The session; the own session where None.
            user_id: The owner of the session.
            name: The title of the branch.

        Raises:
            SessionNotFound: there is no such session of the user.
        """
        source = self._require_session_id(source_session_id)
        return self.store.branch(source, name=name, user_id=self._user(user_id)).session_id

    def cancel_run(self, run_id: str | Run, *, user_id: str | None = None) -> bool:
        """Cancel a run of this or another thread or process, and return whether it was open.

        A run of this process ends at once: `run` returns it as CANCELLED, with what it had. One of another process
        ends with its next message or heartbeat; see `SessionStore.cancel_run`.

        Args:
            run_id: The run, or its id; not that of a member or a step.
            user_id: The owner of its session.

        Raises:
            RunNotFound: there is no such run.
        """
        run_id = run_id if isinstance(run_id, str) else run_id.run_id
        store = self.store
        is_open = store.cancel_run(run_id, user_id=self._user(user_id))
        self._forget(store)
        return is_open

    def generate_session_name(self, session: Session | str | None = None, *, user_id: str | None = None) -> str:
        """Return a title that the model writes from the beginning of a session; it is not stored.

        Args:
            session: The session, or its id; the own session where None.
            user_id: The owner of the session.

        Raises:
            SessionNotFound: there is no such session of the user.
            RunFailed: the model failed.
        """
        from kern_nb.runtime import event_loop
        from kern_nb.runtime.summaries import generate_title

        session_id = session if isinstance(session, str | None) else session.session_id
        target, owner = self._require_session(session_id, user_id).session_id, self._user(user_id)
        store, model = self.store, self._title_model()
        return event_loop.run(lambda: generate_title(store, target, model, owner))

    def set_session_name(
        self,
        session_name: str | None = None,
        session_id: str | None = None,
        *,
        autogenerate: bool = False,
        user_id: str | None = None,
    ) -> str:
        """Set the title of a session, and return it. Without one, or with ``autogenerate``, the model writes it.

        Args:
            session_name: The title.
            session_id: The session; the own session where None.
            autogenerate: Whether the model writes the title.
            user_id: The owner of the session.

        Raises:
            BadUsage: a title is passed, and the model is to write it.
            SessionNotFound: there is no such session of the user.
        """
        if autogenerate and session_name is not None:
            message = f"set_session_name takes a title or autogenerate, not both, got {session_name!r}."
            raise BadUsage(message, "A session is named by session_id=...: set_session_name(session_id='chat', ...)")
        target = self._require_session(session_id, user_id).session_id
        if session_name is None:
            session_name = self.generate_session_name(target, user_id=user_id)
        self._forget(self.store, target)
        self.store.rename_session(target, session_name, user_id=self._user(user_id))
        return session_name

    def _title_model(self) -> Any:
        """Return the model that writes titles."""
        return getattr(self, "model", None)

    def _load_session(self, session_id: str | None, user_id: str | None) -> Session:
        """Return a session of the user, with its runs."""
        session = self.get_session(session_id, user_id=user_id)
        if session is None:
            raise SessionNotFound(f"There is no session {session_id or self.session_id!r}.", "See %kern sessions.")
        return session

    aget_session = async_method(SessionAccess.get_session)
    aget_session_state = async_method(SessionAccess.get_session_state)
    aupdate_session_state = async_method(SessionAccess.update_session_state)
    aget_session_name = async_method(SessionAccess.get_session_name)
    aget_session_summary = async_method(SessionAccess.get_session_summary)
    aget_session_metrics = async_method(SessionAccess.get_session_metrics)
    adelete_session = async_method(SessionAccess.delete_session)
    aset_session_name = async_method(set_session_name)
    agenerate_session_name = async_method(generate_session_name)
    aget_run_output = async_method(get_run_output)
    aget_last_run_output = async_method(get_last_run_output)
    aget_session_messages = async_method(get_session_messages)
    asave_session = async_method(save_session)
    afork_session = async_method(fork_session)
    acancel_run = async_method(cancel_run)
