"""`SessionStore`: what every store can do, whatever the engine. An engine's file holds only what differs.

Methods check their arguments, open a transaction and call the function that does the work: `appending`, `writing`,
`reading` and `lineage` for records, `frames` and `query` for tables, `ingest` for foreign records, `check` for the
store's health.
"""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import appending, reading, schema, writing
from kern_nb.db.schema import Tables
from kern_nb.errors import BadUsage, KernError, ReadOnlyStore, StoreUnavailable
from kern_nb.records import Message, Run, RunStatus, Session, SessionType, Usage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from kern_nb.db.check import CheckReport
    from kern_nb.db.frames import When
    from kern_nb.db.reading import SessionPage
    from kern_nb.db.references import Reference
    from kern_nb.ingest.report import IngestReport

T = TypeVar("T")
Place = int | str | tuple[int | str, int] | None
"""A run by index, id or unique prefix of its id; or (run, message_index)."""

_TRIES = 12
_stores: weakref.WeakSet[SessionStore] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child opens connections of its own; the parent's stay the parent's."""
    for store in _stores:
        store.engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SessionStore(ABC):
    """Sessions, runs, messages and tool calls as rows of a database.

    Nothing is written, and no file made, before the first write. A store may be used from many threads and, unless it
    is in memory, from many processes.

    Attributes:
        url: Where the store is, without any password.
        tables: The SQLAlchemy tables.
        read_only: Whether writes are refused.
    """

    def __init__(self, url: str, tables: Tables, *, read_only: bool = False) -> None:
        self.url = url
        self.tables = tables
        self.read_only = read_only
        self._found = False
        _stores.add(self)

    def __repr__(self) -> str:
        """The engine and the place."""
        return f"<{type(self).__name__} {self.url}{' (read-only)' if self.read_only else ''}>"

    def __enter__(self) -> Self:
        """Close the store at the end of the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store."""
        self.close()

    # What differs between engines -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, made at first use."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """The engine's INSERT with ON CONFLICT."""

    @abstractmethod
    def insert_rows(self, connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert many rows as fast as the engine can."""

    @abstractmethod
    def arrow(self, query: sa.Select[Any]) -> pa.Table:
        """The result of a query as Arrow columns, in the store's own encoding."""

    @abstractmethod
    def run_sql(self, query: str, params: Mapping[str, Any]) -> pa.Table:
        """The result of a person's SQL over the views, which can only read."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Whether a transaction failed only because of another one, and may be tried again."""

    def locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, locking its rows where several transactions write at once."""
        return query

    def nth_largest(self, column: sa.ColumnElement[int], n: int) -> sa.ColumnElement[int] | None:
        """An aggregate, the n-th largest value of a column, where the engine has no index to find a page's rows by."""
        return None

    def is_there(self) -> bool:
        """Whether there is a file or database to look into; never makes one."""
        return True

    def close(self) -> None:
        """Let go of the file or the connections. A later call opens the store again."""
        self.engine.dispose()

    # Transactions -----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the store's tables are there.

        Raises:
            SchemaTooNew, ForeignLayout: they are there and are not ours to use.
            StoreUnavailable: they were there, and the file is not any more.
        """
        if not self.is_there():
            if self._found:
                raise StoreUnavailable(f"{self.url} is gone: its file was removed.", "Attach it again to start anew.")
            return False
        if not self._found:
            with self.connect() as connection:
                found = schema.version(connection, self.tables)
            if found is not None and found < schema.SCHEMA_VERSION:
                self._upgrade(found)
            self._found = found is not None
        return self._found

    def _upgrade(self, found: int) -> None:
        if self.read_only:
            raise ReadOnlyStore(
                f"{self.url} is of schema version {found}, this kern_nb reads version {schema.SCHEMA_VERSION}.",
                "Open it once without read_only=True: it is upgraded in place.",
            )
        self._transaction(lambda connection: schema.create(connection, self.tables))

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[Connection]:
        """A connection in a transaction, with what the driver says of a lost store turned into our error."""
        engine = self.engine.execution_options(kern_write=True) if write else self.engine
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.StatementError as error:
            if isinstance(error.orig, KernError):  # a value that the codec refused
                raise error.orig from None
            if not isinstance(error, sa.exc.OperationalError) or self.is_conflict(error):
                raise
            reason = str(error.orig).strip().splitlines()[0]
            raise StoreUnavailable(
                f"{self.url}: {reason}.", "Check that it can be reached, then attach it again."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read records; before the first write, to an empty store."""
        source = self._source()
        with source.connect() as connection:
            if source is not self and self.tables.metadata.schema:  # its tables are in no schema
                connection.execution_options(schema_translate_map={self.tables.metadata.schema: None})
            yield connection

    def _source(self) -> SessionStore:
        """The store itself, or an empty one in its place before its tables exist."""
        if self.exists():
            return self
        from kern_nb.db.memory import empty_store

        return empty_store(self.tables.name)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run one writing transaction; again where another one was in the way.

        Raises:
            ReadOnlyStore: the store was opened to be read.
        """
        if self.read_only:
            raise ReadOnlyStore(f"{self.url} is open read-only; nothing was written.", "Attach it without --read-only.")
        if not self.exists():
            self._transaction(lambda connection: schema.create(connection, self.tables))
            self._found = True
        return self._transaction(work)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(_TRIES):
            try:
                with self.connect(write=True) as connection:
                    return work(connection)
            except KernError:
                raise
            except Exception as error:
                if attempt == _TRIES - 1 or not self.is_conflict(error):
                    raise
                time.sleep(0.002 * 2 ** min(attempt, 7))
        raise AssertionError("unreachable")

    # Sessions ---------------------------------------------------------------------------------------------------------

    def get_session(self, session_id: str, *, user_id: str | None = None) -> Session | None:
        """A session with its runs in order, inherited ones first; None where there is none, or it is another user's."""
        with self.reading() as connection:
            return reading.get_session(connection, self.tables, session_id, user_id)

    def list_sessions(
        self,
        *,
        session_type: SessionType | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        user_id: str | None = None,
        name: str | None = None,
        status: RunStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of sessions without their runs, newest first.

        Args:
            session_type: agent, team or workflow.
            agent_id: Those of one agent; likewise ``team_id``, ``workflow_id``, ``user_id``.
            team_id: See ``agent_id``.
            workflow_id: See ``agent_id``.
            user_id: See ``agent_id``.
            name: A part of the title, in any case.
            status: The status of the session's latest run.
            limit: The most sessions to give.
            cursor: The ``cursor`` of the page before.

        Returns:
            A list of `Session` (``runs`` is None) with a ``cursor``, None on the last page.
        """
        owners = {"agent_id": agent_id, "team_id": team_id, "workflow_id": workflow_id, "user_id": user_id}
        with self.reading() as connection:
            return reading.list_sessions(
                connection,
                self._source(),
                filters={"session_type": session_type, **owners},
                name=name,
                status=status,
                limit=limit,
                cursor=cursor,
            )

    def save_session(self, session: Session) -> Session:
        """Store a session's own fields, and those of its runs that are not stored yet; the session as stored.

        Runs that are stored stay as they are. ``created_at`` and the fork are kept where the session has None.

        Raises:
            OwnerMismatch: it belongs to another user.
        """
        return self.write(lambda connection: writing.save_session(connection, self, session))

    def rename_session(self, session_id: str, name: str) -> Session:
        """Give a session a title; the session, without its runs.

        Raises:
            SessionNotFound: there is none.
        """
        return self.write(lambda connection: writing.rename_session(connection, self, session_id, name))

    def delete_session(self, session_id: str, *, detach_branches: bool = False) -> None:
        """Delete a session with its runs, messages, tool calls, requirements and scores.

        Args:
            session_id: The session.
            detach_branches: Let branches first take their own copy of the rows they inherit.

        Raises:
            SessionNotFound: there is none.
            HasBranches: branches inherit its rows, and ``detach_branches`` is not set; nothing was deleted.
        """
        self.write(
            lambda connection: writing.delete_session(connection, self, session_id, detach_branches=detach_branches)
        )

    def branch(
        self,
        session_id: str,
        *,
        after: Place = None,
        before: Place = None,
        name: str | None = None,
        new_session_id: str | None = None,
    ) -> Session:
        """A new session that inherits this one up to a place, without copying a row.

        It inherits the session state as it was there, and the owner; not usage, cost or title. Its own runs are
        numbered on from the fork. The state within a run is that before the run.

        Args:
            session_id: The session to branch from, which may be a branch.
            after: The last run (or message) to inherit. Neither ``after`` nor ``before`` means the end.
            before: The first run (or message) not to inherit.
            name: The new session's title.
            new_session_id: Its id; made up where None.

        Raises:
            SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: there is no such place.
            SessionExists: the new id is taken.
        """
        if after is not None and before is not None:
            raise BadUsage("A branch is taken after a place or before it, not both.", "Give one of after= and before=.")
        return self.write(
            lambda connection: writing.branch(
                connection, self, session_id, after=after, before=before, name=name, new_session_id=new_session_id
            )
        )

    # Runs -------------------------------------------------------------------------------------------------------------

    def append_run(self, session_id: str, run: Run, *, user_id: str | None = None) -> Run:
        """Store a finished run with its messages and tool calls, in one transaction.

        A new ``session_id`` makes the session. A ``session_state`` on the run is merged into the session's, key by key:
        another run's keys stay.

        Returns:
            The run as stored, its ``run_index`` assigned.

        Raises:
            OwnerMismatch: the session belongs to another user.
            UnstorableValue: a value would not come back as it went in; nothing was stored.
            RunExists: a run of that id is stored already.
        """
        return self.write(lambda connection: appending.append_run(connection, self, session_id, run, user_id))

    def start_run(
        self,
        session_id: str,
        *,
        input: Any,
        session_type: SessionType = "agent",
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        user_id: str | None = None,
        model: str | None = None,
        parent_run_id: str | None = None,
    ) -> Run:
        """Open a run before the model is called; go on with `append_messages` and `finish_run`.

        Returns:
            The open run: its id, its index, and in ``session_state`` the state it starts from.

        Raises:
            OwnerMismatch: the session belongs to another user.
        """
        run = Run(
            run_type=session_type,
            agent_id=agent_id,
            team_id=team_id,
            workflow_id=workflow_id,
            user_id=user_id,
            model=model,
            parent_run_id=parent_run_id,
            input=input,
            status="RUNNING",
        )
        return self.write(lambda connection: appending.start_run(connection, self, session_id, run))

    def append_messages(self, run_id: str, messages: Sequence[Message]) -> list[Message]:
        """Add messages to an open run as they happen, with the tool calls they make.

        A tool's message completes its call.

        Returns:
            The messages as stored, numbered.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it has ended.
        """
        return self.write(lambda connection: appending.append_messages(connection, self, run_id, messages))

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus = "COMPLETED",
        output: Any = None,
        usage: Usage | None = None,
        session_state: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """End an open run. Tool calls still without a result become unknown.

        ``session_state`` is the whole state as the run leaves it: what the run changed of the state it started from
        goes into the session's, key by key, so that a run at the same time keeps its own keys.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it has ended.
        """
        values: dict[str, Any] = {"output": output, "usage": usage, "session_state": session_state, "error": error}
        self.write(lambda connection: appending.finish_run(connection, self, run_id, status=status, **values))

    def history(
        self, session_id: str, *, last_runs: int | None = None, last_messages: int | None = None
    ) -> list[Message]:
        """The messages a model would be given: of runs that were completed, inherited ones too, in order.

        System and developer messages are left out, as the agent that goes on has its own; so are members' runs. A tool
        call and its result are never parted: where a limit or a branch point cuts between them, both are left out.

        Raises:
            SessionNotFound: there is no such session.
        """
        with self.reading() as connection:
            return reading.history(connection, self.tables, session_id, last_runs, last_messages)

    def add_score(
        self, session_id: str, name: str, value: float, *, run_id: str | None = None, source: str | None = None
    ) -> None:
        """Rate a session or one of its runs. The same source rating the same thing again replaces its score.

        Raises:
            SessionNotFound, RunNotFound: there is no such session or run.
        """
        self.write(lambda connection: writing.add_score(connection, self, session_id, name, value, run_id, source))

    # Tables -----------------------------------------------------------------------------------------------------------

    def sessions_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """One row a session, newest first; columns in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: The sessions of a user.
            agent_id: The sessions of an agent.
            since: Created then or later; naive times are UTC.
            until: Created before then.
            limit: The first so many rows.
        """
        return self._frame("sessions", session_id, user_id, agent_id, since, until, limit)

    def runs_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a run, ordered by session and run; arguments as for `messages_df`."""
        return self._frame("runs", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def messages_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a message, ordered by session, run and message; columns in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: Those in sessions of a user.
            agent_id: Those in runs of an agent.
            since: Created then or later; naive times are UTC.
            until: Created before then.
            limit: The first so many rows.
            lineage: Of one branch, the inherited rows too, told by the column ``inherited``.
        """
        return self._frame("messages", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def tool_calls_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a tool call, ordered by session, run and call; arguments as for `messages_df`."""
        return self._frame("tool_calls", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def scores_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """One row a score; arguments as for `sessions_df`."""
        return self._frame("scores", session_id, user_id, agent_id, since, until, limit)

    def _frame(self, name: str, *filters: Any, lineage: bool = False) -> pd.DataFrame:
        from kern_nb.db.frames import Filters, frame

        return frame(self._source(), name, Filters(*filters), lineage=lineage)

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The result of one reading SQL statement over the views.

        The views are ``sessions``, ``runs``, ``messages``, ``tool_calls``, ``scores`` and ``requirements``, with the
        columns of the frames. The dialect is the engine's own. A parameter is written ``$name`` on every engine.

        Args:
            query: One SELECT.
            params: The values of the parameters.

        Raises:
            QueryRefused: it is not a single SELECT.
            QueryFailed: the engine could not run it; the message is the engine's own.
        """
        from kern_nb.db.query import run

        return run(self._source(), query, params or {})

    # Around the store -------------------------------------------------------------------------------------------------

    def resolve(self, reference: str) -> Reference:
        """The session, run or message that a person's reference names: ``chat``, ``chat/2``, ``chat/2.5``, or a prefix.

        Raises:
            SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: it names nothing, or several things.
        """
        from kern_nb.db.references import resolve

        with self.reading() as connection:
            return resolve(connection, self.tables, reference)

    def ingest(self, path: str | Path, format: str | None = None, *, progress: bool = True) -> IngestReport:
        """Take in recorded sessions from a file or a folder. Again gives the same rows.

        Args:
            path: A file, or a folder of them.
            format: The importer's name (``tau2``, ``chat``); recognised where None.
            progress: Whether to show a progress bar where it takes longer than a moment.

        Returns:
            What was read, what was there already, and what was wrong, by file and line.

        Raises:
            UnknownFormat: no importer reads it, or none has that name.
        """
        from kern_nb.ingest import ingest

        return ingest(self, Path(path), format, progress=progress)

    def check(self, *, repair: bool = False) -> CheckReport:
        """Look for broken invariants: interrupted runs, rows without a session, branches without a parent.

        Args:
            repair: Mend what can be mended; the report says what was.
        """
        from kern_nb.db.check import check

        return check(self, repair=repair)
