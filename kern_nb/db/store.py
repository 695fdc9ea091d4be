"""`SessionStore`: what every store can do, whatever the engine. An engine's file has only what differs.

Methods check their arguments, open a transaction and call the function that does the work: `session_writes`,
`session_deletes` and `reads` for sessions, `session_search` and `session_items` for lists, `integrity` for the check.
`dataframes` and the files ``store_*.py`` have the other methods, `database` the connections.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kern_nb.db import (
    blobs,
    reads,
    references,
    session_deletes,
    session_items,
    session_search,
    session_writes,
    validation,
)
from kern_nb.db.blobs import Blob
from kern_nb.db.database import Database
from kern_nb.db.dataframes import DataFrameMethods
from kern_nb.db.session_items import SessionItem, SessionTree
from kern_nb.db.session_search import SessionFields, SessionFilter, SessionIds, SessionOrder
from kern_nb.db.store_branches import BranchMethods
from kern_nb.db.store_requirements import RequirementMethods
from kern_nb.db.store_run_deletes import RunDeleteMethods
from kern_nb.db.store_run_reads import RunReadMethods
from kern_nb.db.store_runs import RunMethods
from kern_nb.db.store_sessions import SessionListMethods
from kern_nb.errors import BadUsage
from kern_nb.records import RunStatus, Session, SessionType
from kern_nb.text.progress import Progress

if TYPE_CHECKING:
    from kern_nb.db.damage_repair import DamagedValue
    from kern_nb.db.frame_queries import TimeLike
    from kern_nb.db.integrity import CheckReport
    from kern_nb.db.reads import SessionPage
    from kern_nb.db.references import Reference
    from kern_nb.ingest_report import IngestReport


class SessionStore(
    SessionListMethods,
    DataFrameMethods,
    BranchMethods,
    RunMethods,
    RunReadMethods,
    RunDeleteMethods,
    RequirementMethods,
):
    """Sessions, runs, messages and tool calls as rows of a database.

    Before the first write, no file is created and nothing is written. A store can be used from many threads and, unless
    it is in memory, from many processes. With a ``user_id``, a method finds that user's sessions only.

    Attributes:
        url: The URL, without a password.
        tables: The SQLAlchemy tables.
        read_only: Whether writes are refused.

    Example:
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.records import Message, Run
        >>> store = InMemoryDb()
        >>> run = store.append_run("chat", Run(input="Hello", messages=[Message(role="user", content="Hello")]))
        >>> run.run_index
        0
        >>> store.get_session("chat")
        <Session chat, 1 run>
        >>> store.branch("chat", after=0, new_session_id="what-if")
        <Session what-if, branch of chat>
        >>> store.runs_df("chat")["n_messages"].tolist()
        [1]
    """

    def _empty_store(self) -> Database:
        from kern_nb.db.memory import empty_store

        return empty_store(self.tables.name)

    # Read sessions ----------------------------------------------------------------------------------------------------

    def get_session(
        self,
        session_id: str,
        *,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        runs: bool = True,
        include_unowned: bool = False,
    ) -> Session | None:
        """A session with its runs in order, inherited runs first; None if it does not exist.

        Args:
            session_id: The session.
            session_type: agent, team or workflow: a session of another type is not found; None for any.
            user_id: Its user: another user's session is not found.
            runs: Whether to read the runs; without them, ``Session.runs`` is None.
            include_unowned: Whether a ``user_id`` also finds a session without a user.
        """
        options: dict[str, bool] = {"runs": runs, "include_unowned": include_unowned}
        with self.read_connection() as connection:
            session = reads.get_session(connection, self.tables, session_id, user_id, **options)
        return session if session is None or session_type in (None, session.session_type) else None

    def list_sessions(
        self,
        *,
        session_type: SessionType | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        user_id: str | None = None,
        owner: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        name: str | None = None,
        status: RunStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of sessions without their runs, newest first, with the ``cursor`` of the next: None on the last page.

        Args:
            session_type: agent, team or workflow.
            agent_id: Only sessions of this agent.
            team_id: Only sessions of this team.
            workflow_id: Only sessions of this workflow.
            user_id: Only sessions of this user.
            owner: Only sessions whose agent, team or workflow has this id.
            metadata: Only sessions whose metadata have these values at these keys: ``{"task_id": 7}``.
            since: Only sessions that were created at this time or later; naive times are UTC.
            until: Only sessions that were created before this time.
            name: A part of the title, ignoring case.
            status: The status of the session's latest run.
            limit: The size of the page.
            cursor: The ``cursor`` of the previous page.

        Raises:
            BadUsage: ``limit`` is not a positive int, or ``cursor`` is not from a previous page.
        """
        exact: dict[str, Any] = {"session_type": session_type, "owner": owner, "user_id": user_id, "metadata": metadata}
        exact |= {"agent_id": agent_id, "team_id": team_id, "workflow_id": workflow_id, "since": since, "until": until}
        options: dict[str, Any] = {"name": name, "status": status, "limit": limit, "cursor": cursor}
        options["fields"] = SessionFields(**exact)
        with self.read_connection() as connection:
            return reads.list_sessions(connection, self._source(), **options)

    def find_sessions(
        self,
        narrowing: SessionFilter | None = None,
        *,
        user_id: str | None = None,
        owner: str | None = None,
        session_type: SessionType | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        order: SessionOrder = "created",
        descending: bool = True,
        offset: int = 0,
        limit: int | None = 50,
        cursor: str | None = None,
        total: int | None = None,
    ) -> SessionIds:
        """The ids of matching sessions: a part of the ordered list, with ``total``, the number of all matches.

        All conditions but those of ``narrowing`` are exact. ``get_session(..., runs=False)``, `list_sessions`, which
        takes the same, and `sessions_df` have the fields of sessions.

        Args:
            narrowing: Conditions on parts of texts; None for all sessions.
            user_id: Only sessions of this user.
            owner: Only sessions whose agent, team or workflow has this id.
            session_type: agent, team or workflow.
            agent_id: Only sessions of this agent.
            team_id: Only sessions of this team.
            workflow_id: Only sessions of this workflow.
            metadata: Only sessions whose metadata have these values at these keys: ``{"task_id": 7}``.
            since: Only sessions that were created at this time or later; naive times are UTC.
            until: Only sessions that were created before this time.
            order: created, updated, title, session (the id), owner, user, messages, tokens or cost.
            descending: Whether the order is descending.
            offset: The number of sessions to skip.
            limit: The most ids to return; None for all.
            cursor: The ``cursor`` of the previous part, instead of an offset: it skips and repeats no session, even if
                others were added since.
            total: The number of matches, if known from another part: it is not counted again.

        Raises:
            BadUsage: The order is unknown, or it is tokens or cost and there are too many sessions for the engine; a
                time or a key of ``metadata`` is invalid; or ``cursor`` is not from such a part.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Session
            >>> store = InMemoryDb()
            >>> for task in (7, 8):
            ...     _ = store.save_session(Session(session_id=f"task {task}", metadata={"task_id": task}))
            >>> store.find_sessions(metadata={"task_id": 7})
            ['task 7']
        """
        exact: dict[str, Any] = {"session_type": session_type, "owner": owner, "user_id": user_id, "metadata": metadata}
        exact |= {"agent_id": agent_id, "team_id": team_id, "workflow_id": workflow_id, "since": since, "until": until}
        options: dict[str, Any] = {"order": order, "descending": descending, "offset": offset, "limit": limit}
        options |= {"total": total, "cursor": cursor, "fields": SessionFields(**exact)}
        with self.read_connection() as connection:
            return session_search.find_sessions(connection, self._source(), narrowing or SessionFilter(), **options)

    def session_cards(self, session_ids: Sequence[str], *, user_id: str | None = None) -> list[SessionItem]:
        """What a list shows of these sessions, in this order, without totals; skips those that do not exist."""
        with self.read_connection() as connection:
            return session_items.load_items(connection, self.tables, session_ids, user_id)

    def session_family(self, session_id: str, *, most: int = 200, user_id: str | None = None) -> SessionTree:
        """A session with all its ancestors and their branches, level by level.

        Args:
            session_id: The session.
            most: The most sessions to return; ancestors are always included.
            user_id: Only sessions of this user.

        Raises:
            SessionNotFound: There is no such session.
        """
        with self.read_connection() as connection:
            return session_items.load_tree(connection, self.tables, session_id, most, user_id)

    def locate(self, reference: str, *, user_id: str | None = None) -> Reference:
        """Resolve a person's reference to a session, run or message: ``chat``, ``chat/2``, ``chat/2.5``, or a prefix.

        Raises:
            SessionNotFound: There is no such session.
            RunNotFound: There is no such run.
            MessageNotFound: There is no such message.
            AmbiguousReference: Several match.
        """
        with self.read_connection() as connection:
            return references.resolve_reference(connection, self.tables, reference, user_id)

    # Write sessions ---------------------------------------------------------------------------------------------------

    def save_session(self, session: Session, *, expected_revision: int | None = None) -> Session:
        """Store a session's own fields, and those of its runs that are not stored; the session as stored.

        Stored runs are not changed. ``created_at`` and the branch point are not changed if the session has None.
        ``session_data`` is merged key by key: what this session has changed since it was read is stored, and the keys
        that others changed meanwhile stay. A session that was not read from a store removes no key.

        Args:
            session: The session.
            expected_revision: Its `Session.revision` as read, 0 for a new session: then it is saved only if nobody has
                changed its fields since, and ``session_data`` is stored as it is. Appended runs change no field, unless
                they change the session state.

        Raises:
            OwnerMismatch: It belongs to another user.
            StaleSession: Its revision is another one than ``expected_revision``; nothing was saved.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Session
            >>> store = InMemoryDb()
            >>> session = store.save_session(Session(session_id="chat", metadata={"task": 1}))
            >>> session.metadata = {"task": 2}
            >>> store.save_session(session, expected_revision=session.revision).revision
            2
        """
        if expected_revision is not None:
            expected_revision = validation.require_count("expected_revision", expected_revision)
        save = partial(session_writes.save_session, store=self, session=session, expected_revision=expected_revision)
        return self.write(save)

    def rename_session(self, session_id: str, name: str, *, user_id: str | None = None) -> Session:
        """Set a session's title; returns the session without its runs.

        Args:
            session_id: The session.
            name: The title.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
        """
        return self.write(lambda connection: session_writes.rename_session(connection, self, session_id, name, user_id))

    def tag_session(self, session_id: str, tags: Sequence[str], *, user_id: str | None = None) -> Session:
        """Replace a session's tags, the list ``tags`` in its metadata, which a branch inherits.

        Returns the session without its runs.

        Args:
            session_id: The session.
            tags: The tags.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            BadUsage: A tag is not a string, or empty.
        """
        if isinstance(tags, str) or not all(isinstance(tag, str) and tag.strip() for tag in tags):
            raise BadUsage(f"tags must be a list of strings, got {tags!r}.", "For example: ['refund', 'to check']")
        return self.write(lambda connection: session_writes.tag_session(connection, self, session_id, tags, user_id))

    def update_session_state(
        self, session_id: str, updates: dict[str, Any], *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set keys of a session's state, dicts at every depth; returns the state. Concurrent runs keep their own keys.

        Args:
            session_id: The session; a new id creates it.
            updates: The keys to set.
            user_id: The user of the session.

        Raises:
            OwnerMismatch: The session belongs to another user.
            BadUsage: ``updates`` is not a dict.
        """
        if not isinstance(updates, dict):
            raise BadUsage(f"updates must be a dict, got {updates!r}.", "For example: {'name': 'Alice'}")
        return self.write(
            lambda connection: session_writes.update_state(connection, self, session_id, updates, user_id)
        )

    def save_summary(self, session_id: str, summary: dict[str, Any] | None, *, user_id: str | None = None) -> None:
        """Set or remove the summary of a session.

        Args:
            session_id: The session.
            summary: The summary; None removes it.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
        """
        self.write(lambda connection: session_writes.save_summary(connection, self, session_id, summary, user_id))

    def delete_session(
        self, session_id: str, *, detach_branches: bool = False, progress: bool = True, user_id: str | None = None
    ) -> None:
        """Delete a session with its runs, messages, tool calls, requirements and scores, and files that only it has.

        Args:
            session_id: The session.
            detach_branches: Whether branches first get their own copy of the rows they inherit. Many rows are copied in
                several transactions, so that others can write in between. After an interruption every session is
                complete, and a second call continues.
            progress: Whether to show a progress bar while many rows are copied.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            HasBranches: Branches inherit its rows, and ``detach_branches`` is not set; nothing was deleted.
        """
        if detach_branches and self.exists() and not self.read_only:
            with self.connect() as connection:
                runs = session_deletes.count_runs_to_detach(connection, self, session_id, user_id)
            with Progress(sum(runs.values()), shown=progress, what="inherited runs copied") as bar:
                for branch in runs:
                    detach = partial(session_deletes.detach_batch, store=self, session_id=session_id, branch_id=branch)
                    while n := self.write(detach):
                        bar.done(n)
        options: dict[str, Any] = {"detach_branches": detach_branches, "user_id": user_id}
        self.write(lambda connection: session_deletes.delete_session(connection, self, session_id, **options))

    def add_score(
        self,
        session_id: str,
        name: str,
        value: float,
        *,
        run_id: str | None = None,
        source: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Score a session or one of its runs. Another score with the same name and source replaces it.

        Args:
            session_id: The session.
            name: The name of the score.
            value: The score.
            run_id: The run; None scores the session.
            source: Who or what scores.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            RunNotFound: It has no such run.
            OwnerMismatch: It is not the session of ``user_id``.
        """
        score = {"session_id": session_id, "run_id": run_id, "name": name, "value": value, "source": source}
        self.write(lambda connection: session_writes.add_score(connection, self, score, user_id))

    # The store --------------------------------------------------------------------------------------------------------

    def put_blob(self, content: bytes, media_type: str | None = None) -> str:
        """Store bytes, once however often; returns their SHA-256, for `get_blob`."""
        return self.write(lambda connection: blobs.put(connection, self, content, media_type))

    def get_blob(self, sha256: str) -> Blob | None:
        """Stored bytes with their media type; None if they do not exist."""
        with self.read_connection() as connection:
            return blobs.get(connection, self, sha256)

    def ingest(
        self,
        path: str | Path,
        format: str | None = None,
        *,
        since: TimeLike | None = None,
        progress: bool = True,
    ) -> IngestReport:
        """Import recorded sessions from files or a PostgreSQL database. Importing them again gives the same rows.

        A record that several files repeat is stored once: forks, retries and copies become branches. The report says
        what was imported, what existed already, what was passed over, and the errors by file and line.

        Args:
            path: A file, an archive, a folder of files, or the URL of a PostgreSQL database with tables of Agno, the
                OpenAI Agents SDK or LangGraph, which is only read.
            format: The importer's name (``tau2``, ``chat``); None recognizes it. `kern_nb.formats` lists them.
            since: Only sessions with something at or after this time.
            progress: Whether to show a progress bar if it takes longer than a moment.

        Raises:
            RecordsNotFound: The path does not exist, or the folder has no matching file.
            UnknownFormat: No importer reads it, or none has that name.
            BadUsage: ``since`` is not a time.
        """
        from kern_nb.db.frame_queries import parse_time
        from kern_nb.db.mapping import from_micros
        from kern_nb.ingest import ingest

        start = None if since is None else from_micros(parse_time(since))
        return ingest(self, path, format, since=start, progress=progress)

    def refresh(self) -> None:
        """Read again what another program has written, of a database that is read in place.

        Any other store always shows what is stored.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> InMemoryDb().refresh()
        """

    def check(self, *, repair: bool = False, hosts_gone: Collection[str] = ()) -> CheckReport:
        """Check for broken invariants: damaged values, interrupted runs, rows without their session or parent.

        Reads everything that is stored.

        Args:
            repair: Whether to repair what can be repaired; the report says what was. A damaged value is replaced with
                NULL or another safe value, and moved to `damaged_values`.
            hosts_gone: Names of hosts that no longer exist, such as replaced containers: their open runs count as
                interrupted now, and not when their heartbeats have been missing for five minutes.
        """
        from kern_nb.db.integrity import check

        return check(self, repair=repair, hosts_gone=hosts_gone)

    def damaged_values(self) -> list[DamagedValue]:
        """The damaged values that ``check(repair=True)`` moved out of their rows, as they were stored, oldest first.

        They are in the table ``<session_table>_damaged``; those of a session are deleted with it.
        """
        from kern_nb.db.damage_repair import load_damaged_values

        with self.read_connection() as connection:
            return load_damaged_values(connection, self.tables)
