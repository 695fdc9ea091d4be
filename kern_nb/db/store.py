"""`SessionStore`: what every store can do, whatever the engine. An engine's file holds only what differs.

Methods check their arguments, open a transaction and call the function that does the work: `appending`, `writing`,
`reading` and `lineage` for records, `ingest` for foreign records, `check` for the store's health. How the database is
reached is in `connected`, what comes as DataFrames in `tabular`, runs that wait for an answer in `pauses`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kern_nb.db import blobs, reads, run_writes, session_items, session_search, session_writes, validation
from kern_nb.db.blobs import Blob
from kern_nb.db.dataframes import Tabular
from kern_nb.db.pauses import Pauses
from kern_nb.db.session_items import Card, Family
from kern_nb.db.session_search import Narrowing, Order, SessionIds
from kern_nb.errors import BadUsage
from kern_nb.records import Message, Run, RunStatus, Session, SessionType, Usage

if TYPE_CHECKING:
    from kern_nb.db.damaged_rows import SetAside
    from kern_nb.db.integrity import CheckReport
    from kern_nb.db.reads import Details, SessionPage
    from kern_nb.db.references import Reference
    from kern_nb.db.run_writes import RunEnd
    from kern_nb.ingest.report import IngestReport

Place = int | str | tuple[int | str, int] | None
"""A run by index, id or unique prefix of its id; or (run, message_index)."""


class SessionStore(Tabular, Pauses):
    """Sessions, runs, messages and tool calls as rows of a database.

    Nothing is written, and no file made, before the first write. A store may be used from many threads and, unless it
    is in memory, from many processes.

    Attributes:
        url: Where the store is, without any password.
        tables: The SQLAlchemy tables.
        read_only: Whether writes are refused.
    """

    # Sessions ---------------------------------------------------------------------------------------------------------

    def get_session(self, session_id: str, *, user_id: str | None = None, runs: bool = True) -> Session | None:
        """A session with its runs in order, inherited ones first; None where there is none, or it is another user's.

        Without ``runs`` its own fields are read alone, and ``Session.runs`` is None.
        """
        with self.reading() as connection:
            return reads.get_session(connection, self.tables, session_id, user_id, runs=runs)

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
            return reads.list_sessions(
                connection,
                self._source(),
                filters={"session_type": session_type, **owners},
                name=name,
                status=status,
                limit=limit,
                cursor=cursor,
            )

    def find_sessions(
        self,
        narrowing: Narrowing | None = None,
        *,
        order: Order = "created",
        descending: bool = True,
        offset: int = 0,
        limit: int | None = 50,
        total: int | None = None,
        user_id: str | None = None,
    ) -> SessionIds:
        """The ids of sessions that fit, in order: a part of the list, wherever in it. `sessions_df` has their columns.

        Args:
            narrowing: What they have; all sessions where None.
            order: What they are ordered by: created, updated, title, session (the id), owner, user, messages, tokens
                or cost.
            descending: Whether the last comes first.
            offset: How many to leave out at the beginning.
            limit: The most to give; all where None.
            total: How many fit, where that is known from the part before: they are not counted again.
            user_id: Of this user's sessions alone; ``Narrowing.user`` is a part of an id.

        Returns:
            A list of ids with ``total``, the number of all that fit.

        Raises:
            BadUsage: there is no such order, or it is by tokens or cost and the sessions are too many for the engine.
        """
        options: dict[str, Any] = {"order": order, "descending": descending, "offset": offset, "limit": limit}
        options |= {"total": total, "user_id": user_id}
        with self.reading() as connection:
            return session_search.find_sessions(connection, self._source(), narrowing or Narrowing(), **options)

    def session_cards(self, session_ids: Sequence[str], *, user_id: str | None = None) -> list[Card]:
        """What a list says of these sessions, in this order, without totals; those that are not there are left out.

        With a ``user_id``, another user's sessions are not there.
        """
        with self.reading() as connection:
            return session_items.cards(connection, self.tables, validation.texts("session_ids", session_ids), user_id)

    def session_family(self, session_id: str, *, most: int = 200, user_id: str | None = None) -> Family:
        """A session with all that it comes from, and the branches of these, level by level, up to ``most`` in all.

        With a ``user_id``, another user's sessions are not there.

        Raises:
            SessionNotFound: there is no such session.
        """
        with self.reading() as connection:
            return session_items.family(connection, self.tables, session_id, most, user_id)

    def save_session(self, session: Session) -> Session:
        """Store a session's own fields, and those of its runs that are not stored yet; the session as stored.

        Runs that are stored stay as they are. ``created_at`` and the fork are kept where the session has None.

        Raises:
            OwnerMismatch: it belongs to another user.
        """
        return self.write(lambda connection: session_writes.save_session(connection, self, session))

    def rename_session(self, session_id: str, name: str, *, user_id: str | None = None) -> Session:
        """Give a session a title; the session, without its runs.

        Raises:
            SessionNotFound: there is none.
            OwnerMismatch: it is not the session of ``user_id``. So with all that change one.
        """
        return self.write(lambda connection: session_writes.rename_session(connection, self, session_id, name, user_id))

    def tag_session(self, session_id: str, tags: Sequence[str], *, user_id: str | None = None) -> Session:
        """Give a session these tags in place of those it has; the session, without its runs.

        They are the list at ``tags`` in its metadata, which a branch inherits. `find_sessions` finds sessions by one.

        Raises:
            SessionNotFound: there is none.
            OwnerMismatch: it is another user's.
            BadUsage: a tag is no text, or an empty one.
        """
        if isinstance(tags, str) or not all(isinstance(tag, str) and tag.strip() for tag in tags):
            raise BadUsage(f"{tags!r} is no list of tags.", "For example: ['refund', 'to check']")
        return self.write(lambda connection: session_writes.tag_session(connection, self, session_id, tags, user_id))

    def update_session_state(
        self, session_id: str, updates: dict[str, Any], *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set keys of a session's state, dicts at every depth; a run at the same time keeps its own keys.

        A new ``session_id`` makes the session.

        Returns:
            The state as it is now.

        Raises:
            OwnerMismatch: the session belongs to another user.
        """
        if not isinstance(updates, dict):
            raise BadUsage(f"{updates!r} is no dict of keys to set.", "For example: {'name': 'Alice'}")
        return self.write(lambda connection: run_writes.update_state(connection, self, session_id, updates, user_id))

    def save_summary(self, session_id: str, summary: dict[str, Any] | None, *, user_id: str | None = None) -> None:
        """Set the summary of a session, or take it away.

        Raises:
            SessionNotFound: there is no such session.
            OwnerMismatch: it is another user's.
        """
        self.write(lambda connection: session_writes.save_summary(connection, self, session_id, summary, user_id))

    def delete_session(
        self,
        session_id: str,
        *,
        detach_branches: bool = False,
        progress: bool = True,
        user_id: str | None = None,
    ) -> None:
        """Delete a session with its runs, messages, tool calls, requirements and scores, and files that only it has.

        Args:
            session_id: The session.
            detach_branches: Let branches first take their own copy of the rows they inherit. Many rows are copied in
                several transactions, so that others can write in between. Where this is interrupted, every session is
                as readable as before, and a second call continues.
            progress: Whether to show a progress bar where copying takes longer than a moment.
            user_id: Whose session it is.

        Raises:
            SessionNotFound: there is none.
            OwnerMismatch: it is another user's.
            HasBranches: branches inherit its rows, and ``detach_branches`` is not set; nothing was deleted.
        """
        if detach_branches and self.exists() and not self.read_only:
            self._detach_branches(session_id, progress=progress, user_id=user_id)
        options: dict[str, Any] = {"detach_branches": detach_branches, "user_id": user_id}
        self.write(lambda connection: session_writes.delete_session(connection, self, session_id, **options))

    def _detach_branches(self, session_id: str, *, progress: bool, user_id: str | None) -> None:
        from kern_nb.text.progress import Progress

        with self.connect() as connection:
            heirs = session_writes.large_heirs(connection, self, session_id, user_id)
        with Progress(sum(heirs.values()), shown=progress, what="inherited runs copied") as bar:
            for heir in heirs:
                while n := self.write(lambda c, heir=heir: session_writes.detach_portion(c, self, session_id, heir)):  # type: ignore[misc]
                    bar.done(n)

    def branch(
        self,
        session_id: str,
        *,
        after: Place = None,
        before: Place = None,
        name: str | None = None,
        new_session_id: str | None = None,
        user_id: str | None = None,
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
            user_id: Whose session it is: another user's is not found.

        Raises:
            SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: there is no such place.
            SessionExists: the new id is taken.
        """
        if after is not None and before is not None:
            raise BadUsage("A branch is taken after a place or before it, not both.", "Give one of after= and before=.")
        options: dict[str, Any] = {"after": after, "before": before, "name": name, "new_session_id": new_session_id}
        options["user_id"] = user_id
        return self.write(lambda connection: session_writes.branch(connection, self, session_id, **options))

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
        return self.write(
            lambda connection: run_writes.append_run(connection, self, session_id, run, user_id), small=True
        )

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
        model_provider: str | None = None,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        default_state: dict[str, Any] | None = None,
        owner_data: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
        internal: dict[str, Any] | None = None,
        messages: Sequence[Message] = (),
    ) -> Run:
        """Open a run before the model is called; go on with `append_messages` and `finish_run`.

        ``run_id`` is made up where None. ``default_state`` holds keys that the session's state gets where it lacks
        them. ``owner_data`` describes the agent, team or workflow; a new session keeps it
        as its ``agent_data``, ``team_data`` or ``workflow_data``. ``extra`` is kept with the run as it is, and so
        is ``internal``, what kern_nb's own agents note of it.
        ``messages`` are the run's first, stored in the same transaction.

        Returns:
            The open run: its id, its index, in ``session_state`` the state it starts from, and its messages as stored.

        Raises:
            OwnerMismatch: the session belongs to another user.
            RunExists: a run of that id is stored already.
        """
        run = Run(
            run_id=str(uuid4()) if run_id is None else run_id,
            extra=extra or {},
            internal=internal or {},
            model_provider=model_provider,
            run_type=session_type,
            agent_id=agent_id,
            team_id=team_id,
            workflow_id=workflow_id,
            user_id=user_id,
            model=model,
            parent_run_id=parent_run_id,
            input=input,
            status="RUNNING",
            messages=list(messages),
        )
        return self.write(
            lambda connection: run_writes.start_run(connection, self, session_id, run, default_state, owner_data),
            small=True,
        )

    def append_messages(
        self,
        run_id: str,
        messages: Sequence[Message],
        *,
        session_state: dict[str, Any] | None = None,
        store_results: bool = True,
    ) -> list[Message]:
        """Add messages to an open run as they happen, with the tool calls they make.

        A tool's message completes its call; ``internal["duration_s"]`` of it says what the call took, where that is
        not the time since it was asked for, and ``internal["args"]`` what it ran with, where a person changed that.

        Args:
            run_id: The open run.
            messages: What was said, in order.
            session_state: The state as the run has it now; merged into the session's as `finish_run` does.
            store_results: False ends the calls that tools' messages answer, and keeps neither message nor result.

        Returns:
            The messages as stored, numbered.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it has ended.
        """
        options: dict[str, Any] = {"session_state": session_state, "store_results": store_results}
        return self.write(
            lambda connection: run_writes.append_messages(connection, self, run_id, messages, **options), small=True
        )

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus = "COMPLETED",
        output: Any = None,
        usage: Usage | None = None,
        session_state: dict[str, Any] | None = None,
        error: str | None = None,
        model: str | None = None,
        model_provider: str | None = None,
        duration_s: float | None = None,
        time_to_first_token_s: float | None = None,
        messages: Sequence[Message] = (),
        state_unchanged: bool = False,
    ) -> RunEnd:
        """End an open run. Tool calls still without a result become unknown.

        Without a ``duration_s`` the run took from its start to now. ``messages`` are the run's last, stored in the same
        transaction.

        ``session_state`` is the whole state as the run leaves it: what the run changed of the state it started from
        goes into the session's, key by key, so that a run at the same time keeps its own keys. ``state_unchanged`` says
        that the run changed nothing since `start_run`, or the last `append_messages` that had a state; the run gets the
        session's state as it is now.

        Returns:
            What was stored: the last messages, the state after the run, and when it ended.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it has ended.
        """
        values: dict[str, Any] = {"output": output, "usage": usage, "session_state": session_state, "error": error}
        values |= {"model": model, "model_provider": model_provider}
        values |= {"duration_s": duration_s, "time_to_first_token_s": time_to_first_token_s, "messages": messages}
        values["state_unchanged"] = state_unchanged
        return self.write(
            lambda connection: run_writes.finish_run(connection, self, run_id, status=status, **values), small=True
        )

    def get_run(self, run_id: str, *, user_id: str | None = None) -> Run:
        """A run with its messages, tool calls and requirements, by its id.

        With a ``user_id``, here and in what follows, another user's session is not there. Whose a run is, is what its
        session says.

        Raises:
            RunNotFound: there is none.
        """
        with self.reading() as connection:
            return reads.get_run(connection, self.tables, run_id, user_id)

    def session_runs(
        self, session_id: str, *, start: int = 0, limit: int = 20, user_id: str | None = None
    ) -> list[Run]:
        """Some runs of a session in order, inherited ones too, from an index on; as `get_session` has them.

        Raises:
            SessionNotFound: there is no such session.
        """
        with self.reading() as connection:
            return reads.session_runs(connection, self.tables, session_id, start, limit, user_id)

    def details(self, session_id: str, *, user_id: str | None = None) -> Details:
        """What frames have as text only: contents, results, inputs and outputs as they are stored, and marks.

        Raises:
            SessionNotFound: there is no such session.
        """
        with self.reading() as connection:
            return reads.details(connection, self.tables, session_id, user_id)

    def find_run(self, reference: str, *, user_id: str | None = None) -> Run:
        """A run of a session's own, by a person's reference: ``chat/2``, or a prefix.

        Raises:
            SessionNotFound, RunNotFound, AmbiguousReference: it names nothing, or several things.
            BadUsage: the session inherits it from another.
        """
        from kern_nb.db.references import find

        with self.reading() as connection:
            return find(connection, self.tables, reference, user_id)

    def member_runs(self, run_id: str, *, user_id: str | None = None) -> list[Run]:
        """The runs of a team's members, or of a workflow's steps, that were made within a run, in order."""
        with self.reading() as connection:
            reads.require_run_of(connection, self.tables, run_id, user_id)
            return reads.member_runs(connection, self.tables, run_id)

    def history(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        last_messages: int | None = None,
        user_id: str | None = None,
    ) -> list[Message]:
        """The messages a model would be given: of runs that were completed, inherited ones too, in order.

        System and developer messages are left out, as the agent that goes on has its own; so are members' runs. A tool
        call and its result are never parted: where a limit or a branch point cuts between them, both are left out.

        Raises:
            SessionNotFound: there is no such session.
        """
        limits: dict[str, Any] = {"last_runs": last_runs, "last_messages": last_messages, "user_id": user_id}
        by_run = self.history_by_run(session_id, **limits)
        return [message for messages in by_run.values() for message in messages]

    def history_by_run(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        last_messages: int | None = None,
        after_run: int | None = None,
        also: Sequence[int] = (),
        before_run: int | None = None,
        user_id: str | None = None,
    ) -> dict[int, list[Message]]:
        """As `history`, by run index; of runs before one, or after one and those in ``also``.

        Raises:
            SessionNotFound: there is no such session.
        """
        limits: dict[str, Any] = {"last_runs": last_runs, "last_messages": last_messages}
        limits |= {"after_run": after_run, "also": also, "before_run": before_run, "user_id": user_id}
        with self.reading() as connection:
            return reads.history(connection, self.tables, session_id, **limits)

    def unfinished_runs(self, session_id: str, *, upto: int, user_id: str | None = None) -> list[int]:
        """The indexes of runs up to one that `history` leaves out because they did not end, or not well."""
        with self.reading() as connection:
            return reads.unfinished_runs(connection, self.tables, session_id, upto, user_id)

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
        """Rate a session or one of its runs. The same source rating the same thing again replaces its score.

        Raises:
            SessionNotFound, RunNotFound: there is no such session or run.
            OwnerMismatch: the session is not that of ``user_id``.
        """
        rated: tuple[Any, ...] = (session_id, name, value, run_id, source, user_id)
        self.write(lambda connection: session_writes.add_score(connection, self, *rated))

    # Bytes ------------------------------------------------------------------------------------------------------------

    def put_blob(self, content: bytes, media_type: str | None = None) -> str:
        """Keep bytes; the SHA-256 by which `get_blob` gives them. The same bytes are kept once."""
        return self.write(lambda connection: blobs.put(connection, self, content, media_type))

    def get_blob(self, sha256: str) -> Blob | None:
        """Bytes that were kept, with their media type; None where there are none."""
        with self.reading() as connection:
            return blobs.get(connection, self, sha256)

    # Around the store -------------------------------------------------------------------------------------------------

    def locate(self, reference: str, *, user_id: str | None = None) -> Reference:
        """The session, run or message that a person's reference names: ``chat``, ``chat/2``, ``chat/2.5``, or a prefix.

        With a ``user_id``, only that user's sessions are there.

        Raises:
            SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: it names nothing, or several things.
        """
        from kern_nb.db.references import locate

        with self.reading() as connection:
            return locate(connection, self.tables, reference, user_id)

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

    def check(self, *, repair: bool = False, hosts_gone: Collection[str] = ()) -> CheckReport:
        """Look for broken invariants: damaged values, interrupted runs, rows without their session or parent.

        Everything that is stored is read.

        Args:
            repair: Mend what can be mended; the report says what was. A damaged value is set aside and NULL, or another
                safe value, takes its place; `damaged_values` has it.
            hosts_gone: Names of hosts that do not exist any more, such as containers that were created anew. Their
                open runs count as interrupted. Of a host that cannot be seen from here, this is never assumed.
        """
        from kern_nb.db.integrity import check

        return check(self, repair=repair, hosts_gone=hosts_gone)

    def damaged_values(self) -> list[SetAside]:
        """The damaged values that `check` set aside with ``repair=True``, in that order, as they were stored.

        They are in a table of their own, ``<session_table>_damaged``; those of a session go when it is deleted.
        """
        from kern_nb.db.damaged_rows import set_aside_values

        with self.reading() as connection:
            return set_aside_values(connection, self.tables)
