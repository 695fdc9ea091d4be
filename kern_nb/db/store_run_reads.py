"""`RunReadMethods`: the methods of a store that read runs; see `reads` and `latest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kern_nb.db import latest, reads, references
from kern_nb.db.database import Database
from kern_nb.records import Message, Run, RunStatus

if TYPE_CHECKING:
    from kern_nb.db.reads import Details


class RunReadMethods(Database):
    """Read runs, and the history for a model."""

    def get_run(self, run_id: str, *, user_id: str | None = None) -> Run:
        """A run with its messages, tool calls and requirements, by its id.

        The owner of a run is the user of its session: with a ``user_id``, other users' runs are not found.

        Raises:
            RunNotFound: There is no such run.
        """
        with self.read_connection() as connection:
            return reads.get_run(connection, self.tables, run_id, user_id)

    def find_run(self, reference: str, *, user_id: str | None = None) -> Run:
        """A run of a session's own, by a person's reference: ``chat/2``, or a prefix.

        Raises:
            SessionNotFound: There is no such session.
            RunNotFound: There is no such run.
            AmbiguousReference: Several match.
            BadUsage: The session inherits the run.
        """
        with self.read_connection() as connection:
            return references.find_run_by_reference(connection, self.tables, reference, user_id)

    def session_runs(
        self, session_id: str, *, start: int = 0, limit: int = 20, user_id: str | None = None
    ) -> list[Run]:
        """Some runs of a session in order, inherited runs included, as in `get_session`.

        Args:
            session_id: The session.
            start: The first run index.
            limit: The most runs to return.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
        """
        with self.read_connection() as connection:
            return reads.session_runs(connection, self.tables, session_id, start, limit, user_id)

    def last_runs(
        self, session_id: str, n: int, *, status: RunStatus | None = None, user_id: str | None = None
    ) -> list[Run]:
        """The newest runs of a session, oldest first, inherited runs included; the last ones of `get_session`.

        It reads only these: its cost does not depend on the session's length.

        Args:
            session_id: The session.
            n: The most runs to return.
            status: Only runs of this status; None for any.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            BadUsage: ``n`` is not an int of 0 or more.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> store = InMemoryDb()
            >>> runs = [store.append_run("chat", Run(input=f"Question {number}")) for number in range(4)]
            >>> [run.input for run in store.last_runs("chat", 2)]
            ['Question 2', 'Question 3']
        """
        with self.read_connection() as connection:
            return latest.last_runs(connection, self.tables, session_id, n, status, user_id)

    def last_messages(self, session_id: str, n: int, *, user_id: str | None = None) -> list[Message]:
        """The newest messages of a session, oldest first: those of all its runs, of any status, inherited ones, too.

        These are the last messages of `get_session`, with their tool calls; `history` has those for a model. It reads
        only these: its cost does not depend on the session's length.

        Args:
            session_id: The session.
            n: The most messages to return.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            BadUsage: ``n`` is not an int of 0 or more.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> store = InMemoryDb()
            >>> messages = [Message(role="user", content="Hello"), Message(role="assistant", content="Hi!")]
            >>> run = store.append_run("chat", Run(messages=messages))
            >>> [message.content for message in store.last_messages("chat", 1)]
            ['Hi!']
        """
        with self.read_connection() as connection:
            return latest.last_messages(connection, self.tables, session_id, n, user_id)

    def member_runs(self, run_id: str, *, user_id: str | None = None) -> list[Run]:
        """The runs of a team's members, or of a workflow's steps, within a run, in order."""
        with self.read_connection() as connection:
            reads.require_run_owner(connection, self.tables, run_id, user_id)
            return reads.member_runs(connection, self.tables, run_id)

    def details(self, session_id: str, *, user_id: str | None = None) -> Details:
        """What frames show as text only: contents, results, inputs and outputs as they are stored.

        Raises:
            SessionNotFound: There is no such session.
        """
        with self.read_connection() as connection:
            return reads.details(connection, self.tables, session_id, user_id)

    def history(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        last_messages: int | None = None,
        user_id: str | None = None,
    ) -> list[Message]:
        """The messages for a model: those of completed runs, inherited ones included, in order.

        A workflow's run has two: its input and its output. System and developer messages are left out, as each agent
        has its own, and so are members' runs. A tool call and its result are never separated: if a limit or a branch
        point is between them, both are left out.

        Args:
            session_id: The session.
            last_runs: Only the last runs.
            last_messages: Only the last messages.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
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
        member_id: str | None = None,
        user_id: str | None = None,
    ) -> dict[int, list[Message]]:
        """As `history`, by run index.

        Args:
            session_id: The session.
            last_runs: Only the last runs.
            last_messages: Only the last messages.
            after_run: Only runs after this index, and those in ``also``.
            also: Indexes of runs to include besides those after ``after_run``.
            before_run: Only runs before this index.
            member_id: The agent or team whose runs as a member are returned, instead of the top-level runs.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
        """
        limits: dict[str, Any] = {"last_runs": last_runs, "last_messages": last_messages, "member_id": member_id}
        limits |= {"after_run": after_run, "also": also, "before_run": before_run, "user_id": user_id}
        with self.read_connection() as connection:
            return reads.history(connection, self.tables, session_id, **limits)

    def chat_history(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        tool_messages: bool = False,
        user_id: str | None = None,
    ) -> list[Message]:
        """The messages that a person would see as the chat: those of users and assistants, inherited ones included.

        Unlike in `history`, runs of every status are included. Members' runs are left out; a workflow's run has its
        input and its output.

        Args:
            session_id: The session.
            last_runs: Only the last runs.
            tool_messages: Whether the results of tools are included.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
        """
        limits: dict[str, Any] = {"last_runs": last_runs, "tool_messages": tool_messages, "user_id": user_id}
        with self.read_connection() as connection:
            return reads.chat_history(connection, self.tables, session_id, **limits)

    def unfinished_runs(self, session_id: str, *, upto: int, user_id: str | None = None) -> list[int]:
        """The indexes, up to ``upto``, of runs that `history` leaves out because they are not completed."""
        with self.read_connection() as connection:
            return reads.unfinished_runs(connection, self.tables, session_id, upto, user_id)
