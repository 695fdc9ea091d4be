"""`AgnoDb`: a database of Agno's on a store. Its methods for runs are in `run_database`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agno.db.base import BaseDb, SessionType
from agno.db.utils import (
    deserialize_session,
    deserialize_sessions,
    validate_pagination,
)

from kern_nb.bridges.agno import sessions as session_io
from kern_nb.bridges.agno.conditional_writes import reassign_owner
from kern_nb.bridges.agno.lists import find_sessions
from kern_nb.bridges.agno.others import passes_others_on
from kern_nb.bridges.agno.run_database import RunDatabase
from kern_nb.bridges.agno.runs import SessionRuns, read_sessions
from kern_nb.bridges.agno.warnings import warn_not_saved, warning_of_failure
from kern_nb.db import codec
from kern_nb.db.store import SessionStore
from kern_nb.errors import SessionNotFound
from kern_nb.records import Session

JsonObject = dict[str, Any]

_FORKED_FROM = "forked_from_session_id"
_MAX_ABSENT = 10_000
_SCHEMA_VERSION = "3.0.0"


@passes_others_on
class AgnoDb(RunDatabase):
    """A database of Agno 3's whose sessions and runs are rows of a store of kern_nb.

    Agents, teams and workflows use it as their ``db``. What Agno's methods return of sessions and runs is what its own
    databases return. Two processes that save one session keep the keys of both, and the counts of both. A run of one
    user in another's session is refused.

    Args:
        store: The store.
        others: A database of Agno's for everything else: memories, knowledge, evals, traces. Without one, its methods
            raise `NotInStore`.
        id: The id of the database in Agno.

    Example:
        >>> from agno.agent import Agent
        >>> from kern_nb.bridges.agno import AgnoDb
        >>> from kern_nb.db import InMemoryDb
        >>> db = AgnoDb(InMemoryDb())
        >>> agent = Agent(db=db, session_id="chat")
        >>> db.get_session("chat") is None
        True
    """

    def __init__(self, store: SessionStore, *, others: BaseDb | None = None, id: str | None = None) -> None:
        super().__init__(store, id=id)
        self.others = others
        self._absent: set[str] = set()  # sessions that were read and did not exist

    def __repr__(self) -> str:
        return f"AgnoDb({self.store!r})"

    # Tables -----------------------------------------------------------------------------------------------------------

    def table_exists(self, table_name: str) -> bool:
        """Whether the store has sessions; of other tables, whether ``others`` has them."""
        if table_name in {self.session_table_name, self.runs_table_name}:
            return self.store.exists()
        return self.others is not None and self.others.table_exists(table_name)

    def get_latest_schema_version(self, table_name: str) -> str:
        """Agno's version of the layout of sessions and runs; of other tables, that of ``others``."""
        if table_name in {self.session_table_name, self.runs_table_name} or self.others is None:
            return _SCHEMA_VERSION
        return str(self.others.get_latest_schema_version(table_name))

    def to_dict(self) -> JsonObject:
        """What identifies the database in a saved agent: the URL of the store, without a password."""
        return super().to_dict() | {"type": "kern_nb", "url": str(self.store.url)}

    @classmethod
    def from_dict(cls, data: JsonObject) -> AgnoDb:
        """Open the store of a saved agent."""
        from kern_nb.db.open import open_store

        return cls(open_store(data["url"]), id=data.get("id"))

    def close(self) -> None:
        """Close ``others``; the store stays open."""
        if self.others is not None:
            self.others.close()

    # Sessions ---------------------------------------------------------------------------------------------------------

    def get_session(
        self,
        session_id: str,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        deserialize: bool | None = True,
        runs_limit: int | None = None,
    ) -> Any:
        """A session with its runs, those that a branch inherits included; None if it is another user's.

        Args:
            session_id: The session.
            session_type: The class of the result; None derives it.
            user_id: Its user.
            deserialize: Whether to return a session of Agno's; otherwise a dict.
            runs_limit: Only the last runs of the context.
        """
        record = self.store.get_session(session_id, user_id=user_id, runs=False)
        if record is None:
            if len(self._absent) >= _MAX_ABSENT:
                self._absent.clear()
            self._absent.add(session_id)
            return None
        row = session_io.to_row(record)
        runs = SessionRuns(self.store, session_id, self._cache)
        is_agent = record.session_type == "agent" and session_type in {None, SessionType.AGENT}
        if not deserialize or runs_limit is not None or not is_agent:
            row["runs"] = runs.dicts(runs_limit)
            if not deserialize:
                return row
            session = deserialize_session(session_type, row)
        else:
            session = deserialize_session(session_type, row | {"runs": None})
            session.runs = runs.objects()
        session_io.remember(session, record)
        return session

    def get_sessions(
        self,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        component_id: str | None = None,
        session_name: str | None = None,
        start_timestamp: int | None = None,
        end_timestamp: int | None = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
        include_runs: bool = True,
    ) -> Any:
        """Matching sessions: a list, or with ``deserialize=False`` dicts and the number of all matches.

        Args:
            session_type: agent, team or workflow.
            user_id: Only sessions of this user.
            component_id: Only sessions of this agent, team or workflow.
            session_name: A part of the title, ignoring case.
            start_timestamp: The earliest time of creation.
            end_timestamp: The latest time of creation.
            limit: The size of a page.
            page: The page, from 1.
            sort_by: A column; None for the time of creation.
            sort_order: asc, or desc; with a column, the latter is the default.
            deserialize: Whether to return sessions of Agno's.
            include_runs: Whether to read their runs.
        """
        validate_pagination(limit, page)
        filters: JsonObject = {"user_id": user_id, "component_id": component_id, "session_name": session_name}
        filters |= {"start_timestamp": start_timestamp, "end_timestamp": end_timestamp}
        filters["session_type"] = None if session_type is None else SessionType(session_type).value
        options: JsonObject = {"sort_by": sort_by, "sort_order": sort_order, "limit": limit, "page": page}
        records, total = find_sessions(self.store, filters, **options)
        runs = read_sessions(self.store, records, self._cache) if include_runs else {}
        rows = [session_io.to_row(record) | {"runs": runs.get(record.session_id)} for record in records]
        if not deserialize:
            return rows, total
        sessions = deserialize_sessions(session_type, rows)
        for session, record in zip(sessions, records, strict=True):
            session_io.remember(session, record)
        return sessions

    def upsert_session(self, session: Any, deserialize: bool | None = True) -> Any:
        """Save a session without its runs; returns it as stored, or None if it is another user's.

        What others saved since this session was read stays, key by key; counts are added up.
        """
        with warning_of_failure(f"Session {session.session_id!r}"):
            stored = self._save(session)
        if stored is None:
            warn_not_saved(f"Session {session.session_id!r}", "it belongs to another user.")
            return None
        row = session_io.to_row(stored)
        if not deserialize:
            row["runs"] = [run if isinstance(run, dict) else run.to_dict() for run in session.runs or []]
            return row
        saved = deserialize_session(None, row)
        saved.runs = session.runs
        session_io.remember(saved, stored)
        return saved

    def _save(self, session: Any, updated_at: int | None = None) -> Session | None:
        record = session_io.to_record(session)
        base = session_io.base_of(session)
        before = None if base is None else base.record
        if base is None or before is None:
            current = self.store.get_session(record.session_id, runs=False)
            # An agent that has seen no session adds to what others saved; a session from elsewhere replaces it.
            before = None if record.session_id in self._absent else current
        else:
            current = before
        if current is not None and current.user_id not in {None, record.user_id}:
            return None
        if updated_at is not None:
            record.updated_at = updated_at
        elif current is None:
            record.updated_at = record.created_at
        if current is not None:
            record.created_at, record.session_type = None, current.session_type
        if current is None and (source := (record.session_data or {}).get(_FORKED_FROM)) is not None:
            before = self._fork(record, str(source))
        own = session_io.state_of(record)
        stored = session_io.save(self.store, record, before)
        state = session_io.state_of(stored)
        if codec.dumps(own) == codec.dumps(state):
            self._merged.pop(record.session_id, None)
        else:
            self._merged[record.session_id] = (own, state)
        self._absent.discard(record.session_id)
        session_io.remember(session, stored)
        return stored

    def _fork(self, record: Session, source: str) -> Session | None:
        """Make a new session of Agno's, which is a fork, a branch of its source; None if that is not in the store."""
        try:
            branch = self.store.branch(source, new_session_id=record.session_id)
        except SessionNotFound:
            return None
        self._forks = {record.session_id: self._runs(record.session_id).dicts()}  # the last one: its runs come next
        return branch

    def upsert_sessions(
        self, sessions: Sequence[Any], deserialize: bool | None = True, preserve_updated_at: bool = False
    ) -> list[Any]:
        """Save sessions without their runs; returns those that were saved.

        Args:
            sessions: The sessions.
            deserialize: Whether to return sessions of Agno's.
            preserve_updated_at: Whether to store their own ``updated_at``.
        """
        results = []
        for session in sessions:
            if session is None:
                continue
            with warning_of_failure(f"Session {session.session_id!r}"):
                stored = self._save(session, session.updated_at if preserve_updated_at else None)
            if stored is None:
                warn_not_saved(f"Session {session.session_id!r}", "it belongs to another user.")
                continue
            row = session_io.to_row(stored)
            row["runs"] = [run if isinstance(run, dict) else run.to_dict() for run in session.runs or []]
            results.append(deserialize_session(None, row) if deserialize else row)
        return results

    def rename_session(
        self,
        session_id: str,
        session_type: SessionType | None,
        session_name: str,
        user_id: str | None = None,
        deserialize: bool | None = True,
    ) -> Any:
        """Set the title of a session; returns the session, or None if there is none of the user.

        Args:
            session_id: The session.
            session_type: The class of the result; None derives it.
            session_name: The title.
            user_id: The user of the session.
            deserialize: Whether to return a session of Agno's; otherwise a dict.
        """
        if self.store.get_session(session_id, user_id=user_id, runs=False) is None:
            return None
        self.store.rename_session(session_id, session_name, user_id=user_id)
        return self.get_session(session_id, session_type, user_id=user_id, deserialize=deserialize)

    def delete_session(self, session_id: str, user_id: str | None = None) -> bool:
        """Delete a session with its runs; False if there is none of the user.

        Raises:
            HasBranches: Branches inherit its runs.
        """
        self._cache.forget(session_id)
        self._absent.discard(session_id)
        if self.store.get_session(session_id, user_id=user_id, runs=False) is None:
            return False
        try:
            self.store.delete_session(session_id, user_id=user_id)
        except SessionNotFound:
            return False
        return True

    def delete_sessions(self, session_ids: list[str], user_id: str | None = None) -> None:
        """Delete sessions of a user with their runs.

        Raises:
            HasBranches: Branches inherit the runs of one.
        """
        for session_id in session_ids:
            self.delete_session(session_id, user_id=user_id)

    def reassign_session_owner(self, session_id: str, *, previous_user_id: str, user_id: str | None) -> bool:
        """Change the user of a session without active runs; False if it is not the previous user's.

        Args:
            session_id: The session.
            previous_user_id: Its user until now.
            user_id: Its user from now on. Its runs keep theirs.
        """
        return reassign_owner(self.store, session_id, previous_user_id=previous_user_id, user_id=user_id)
