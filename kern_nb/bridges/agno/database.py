"""`AgnoDb`: a database of Agno's on a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from agno.db.base import BaseDb, SessionType
from agno.db.utils import (
    deserialize_run,
    deserialize_session,
    deserialize_sessions,
    get_run_type,
    validate_pagination,
)

from kern_nb.bridges.agno import run_rows
from kern_nb.bridges.agno import sessions as session_io
from kern_nb.bridges.agno.conditional_writes import cancel_run, reassign_owner
from kern_nb.bridges.agno.lists import find_sessions
from kern_nb.bridges.agno.others import passes_others_on
from kern_nb.bridges.agno.runs import RunCache, SessionRuns, read_sessions
from kern_nb.bridges.agno.warnings import warn_not_saved, warning_of_failure
from kern_nb.bridges.agno.writes import delete_run, put_runs
from kern_nb.db import codec
from kern_nb.db.store import SessionStore
from kern_nb.errors import SessionNotFound
from kern_nb.interop.agno import continue_inherited, is_copy, json_value
from kern_nb.records import Session
from kern_nb.records import SessionType as SessionTypeName

JsonObject = dict[str, Any]

_FORKED_FROM = "forked_from_session_id"
_MAX_ABSENT = 10_000
_SCHEMA_VERSION = "3.0.0"


@passes_others_on
class AgnoDb(BaseDb):
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
        super().__init__(session_table=store.tables.name, runs_table=f"{store.tables.name}_runs", id=id)
        self.store = store
        self.others = others
        self._cache = RunCache()
        self._forks: dict[str, list[JsonObject]] = {}  # by session: the runs that a new fork of Agno's inherits
        self._absent: set[str] = set()  # sessions that were read and did not exist
        # By session: the state that was saved last and the one that is stored, if that has changes of others, too.
        self._merged: dict[str, tuple[JsonObject, JsonObject]] = {}

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

    # Runs -------------------------------------------------------------------------------------------------------------

    def upsert_run(self, run: Any, session_id: str, user_id: str | None = None, run_index: int | None = None) -> None:
        """Save a run, or replace it. The store assigns its index: ``run_index`` is a position in Agno's memory.

        Args:
            run: A run of an agent, team or workflow, or its dict.
            session_id: The session.
            user_id: The user of the session.
            run_index: Not used.

        Raises:
            OwnerMismatch: The session belongs to another user.
        """
        with warning_of_failure(f"A run of session {session_id!r}"):
            data = json_value(run if isinstance(run, dict) else run.to_dict())
            if data.get("run_id") is None:
                raise ValueError("Run must have a run_id")  # as Agno's databases do
            if self._is_copy(data, session_id, run_index):
                return
            owner = user_id if user_id is not None else data.get("user_id")
            runs = run_rows.to_records(data, cast("SessionTypeName", get_run_type(run)), owner)
            inherited = self._cache.inherited.get(data["run_id"])
            if inherited is not None:
                continue_inherited(runs[0], self.store.get_run(inherited.run_id), data)
                runs = runs[:1]  # those inside are in ``data``
            own, state = self._merged.get(session_id, (None, None))  # Agno saves the session before its run
            is_last = own is not None and codec.dumps(own) == codec.dumps(runs[0].session_state)
            put_runs(self.store, session_id, runs, state_after=state if is_last else None)

    def _is_copy(self, data: JsonObject, session_id: str, index: int | None) -> bool:
        """Whether a run is one that a fork of Agno's copies, or an unchanged one that a branch inherits."""
        sources = self._forks.get(session_id)
        if sources and index is not None and 0 <= index < len(sources) and is_copy(data, sources[index]):
            return True
        if data["run_id"] not in self._cache.inherited:
            return False
        runs = self._runs(session_id).dicts()
        return any(run["run_id"] == data["run_id"] and is_copy(data, run) for run in runs)

    def get_run(self, run_id: str, deserialize: bool | None = True) -> Any:
        """A run of Agno's, or the row of its table as a dict; None if there is none."""
        inherited = self._cache.inherited.get(run_id)
        if inherited is None:
            row = run_rows.find_run(self.store, run_id)
        else:
            row = next((r for r in self._runs(inherited.session_id).rows() if r["run_id"] == run_id), None)
        if row is None or not deserialize:
            return row
        return deserialize_run(row["run_type"], row["run_data"])

    def get_runs(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        status: Any = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
    ) -> Any:
        """Matching runs: a list, or with ``deserialize=False`` rows as dicts and the number of all matches.

        Args:
            session_id: Only runs of this session, those that it inherits included.
            user_id: Only runs of this user.
            agent_id: Only runs of this agent.
            team_id: Only runs of this team.
            workflow_id: Only runs of this workflow.
            status: Only runs with this status.
            limit: The size of a page.
            page: The page, from 1.
            sort_by: A column; None for the index.
            sort_order: asc, or desc; with a column, the latter is the default.
            deserialize: Whether to return runs of Agno's.
        """
        validate_pagination(limit, page)
        fields = {"user_id": user_id, "agent_id": agent_id, "team_id": team_id, "workflow_id": workflow_id}
        fields["status"] = getattr(status, "value", status)
        filters = {name: value for name, value in fields.items() if value is not None}
        offset = 0 if limit is None or page is None else (page - 1) * limit
        if session_id is None:
            run_options: JsonObject = {
                "sort_by": sort_by,
                "ascending": sort_order == "asc",
                "limit": limit,
                "offset": offset,
            }
            rows, total = run_rows.find_runs(self.store, filters, **run_options)
        else:
            rows = [r for r in self._runs(session_id).rows() if all(r[name] == v for name, v in filters.items())]
            if rows and sort_by in rows[0] and sort_by != "run_data":
                rows.sort(key=lambda row: (row[sort_by] is not None, row[sort_by]), reverse=sort_order != "asc")
            total = len(rows)
            rows = rows[offset : None if limit is None else offset + limit]
        if not deserialize:
            return rows, total
        return [deserialize_run(row["run_type"], row["run_data"]) for row in rows]

    def cancel_pending_run(
        self, run_id: str, *, session_id: str, reason: str, user_id: str | None = None, expected_status: str = "PENDING"
    ) -> bool:
        """Cancel a run if it still has a status; returns whether it was cancelled.

        Args:
            run_id: The run.
            session_id: Its session.
            reason: Its output, if it has none.
            user_id: Its user; a run without one may be cancelled, too.
            expected_status: PENDING or RUNNING.

        Raises:
            ValueError: It is another status.
        """
        if expected_status not in {"PENDING", "RUNNING"}:
            raise ValueError("Only Pending or Running runs can be cancelled by recovery")  # as Agno's databases do
        names: JsonObject = {"session_id": session_id, "user_id": user_id}
        return cancel_run(self.store, run_id, reason=reason, expected_status=expected_status, **names)

    def delete_run(self, run_id: str) -> bool:
        """Delete a run; False if there is none.

        Raises:
            HasBranches: Branches inherit it.
        """
        return delete_run(self.store, run_id)

    def delete_runs(self, run_ids: list[str]) -> None:
        """Delete runs.

        Raises:
            HasBranches: Branches inherit one.
        """
        for run_id in run_ids:
            self.delete_run(run_id)

    def _runs(self, session_id: str) -> SessionRuns:
        return SessionRuns(self.store, session_id, self._cache)
