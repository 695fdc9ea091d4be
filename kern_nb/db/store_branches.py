"""`BranchMethods`: the methods of a store that branch sessions and move their heads; see `session_rewinds`."""

from __future__ import annotations

from typing import Any

from kern_nb.db import session_rewinds, session_writes
from kern_nb.db.database import Database
from kern_nb.db.lineage import BranchPointLike
from kern_nb.errors import BadUsage
from kern_nb.records import Session


class BranchMethods(Database):
    """Branch sessions, and move their heads."""

    def branch(
        self,
        session_id: str,
        *,
        after: BranchPointLike = None,
        before: BranchPointLike = None,
        name: str | None = None,
        new_session_id: str | None = None,
        user_id: str | None = None,
    ) -> Session:
        """Create a session that inherits this one up to a branch point, without copying a row; returns it.

        It inherits the session state at the branch point (within a run: before the run), and the owner; not usage, cost
        or title. Its own runs are numbered from the branch point on.

        Args:
            session_id: The session to branch from, which may be a branch.
            after: The last run (or message) to inherit: a run's index, its id or a prefix, or (run, message_index).
            before: The first run (or message) not to inherit. Neither ``after`` nor ``before`` means the end.
            name: The new session's title.
            new_session_id: Its id; None generates one.
            user_id: The user of the session: another user's is not found.

        Raises:
            SessionNotFound: There is no such session.
            RunNotFound: There is no such run.
            MessageNotFound: There is no such message.
            AmbiguousReference: Several runs match.
            SessionExists: The new id is in use.
            BadUsage: Both ``after`` and ``before`` are given.
        """
        if after is not None and before is not None:
            raise BadUsage("A branch takes after or before, not both.", "Give one of after= and before=.")
        options: dict[str, Any] = {"after": after, "before": before, "name": name, "new_session_id": new_session_id}
        options["user_id"] = user_id
        return self.write(lambda connection: session_writes.branch(connection, self, session_id, **options))

    def rewind_session(
        self,
        session_id: str,
        *,
        after: BranchPointLike = None,
        before: BranchPointLike = None,
        keep_as: str | None = None,
        user_id: str | None = None,
    ) -> Session:
        """Move the head of a session back to an earlier point; returns the session without its runs.

        What follows is kept: the session's own runs, with their requirements and scores, move to a new session, of
        which this one becomes a branch. Nothing is copied, and branches inherit what they inherited. The state is that
        at the point; title, tags and scores of the session stay. The next runs have indexes after all runs so far.
        An import of the session's records goes on in the new session.

        Args:
            session_id: The session.
            after: The last run (or message) to keep: a run's index, its id or a prefix, or (run, message_index).
            before: The first run (or message) not to keep.
            keep_as: The id of the new session; None generates one: ``chat~1`` for the session chat. If nothing follows
                the point, or inherited runs only, there is none.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            RunNotFound: There is no such run.
            MessageNotFound: There is no such message.
            AmbiguousReference: Several runs match.
            RunOpen: A run of its own has not ended; nothing was changed.
            SessionExists: The session ``keep_as`` exists.
            BadUsage: Not exactly one of ``after`` and ``before`` is given, or a program stores the head itself.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Run
            >>> store = InMemoryDb()
            >>> runs = [store.append_run("chat", Run(input=f"Question {number}")) for number in range(3)]
            >>> store.rewind_session("chat", after=0, keep_as="first try")
            <Session chat, branch of first try>
            >>> run = store.append_run("chat", Run(input="Another question"))
            >>> [run.input for run in store.get_session("chat").runs]
            ['Question 0', 'Another question']
            >>> [run.input for run in store.get_session("first try").runs]
            ['Question 0', 'Question 1', 'Question 2']
        """
        if (after is None) == (before is None):
            raise BadUsage("Rewinding takes after or before.", "Pass one of them: after=2 keeps run 2.")
        options: dict[str, Any] = {"after": after, "before": before, "keep_as": keep_as, "user_id": user_id}
        return self.write(lambda connection: session_rewinds.rewind_session(connection, self, session_id, **options))
