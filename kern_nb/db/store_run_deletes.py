"""`RunDeleteMethods`: the methods of a store that delete runs and messages; see `run_deletes`."""

from __future__ import annotations

from typing import Any

from kern_nb.db import run_deletes
from kern_nb.db.database import Database
from kern_nb.records import Message


class RunDeleteMethods(Database):
    """Delete runs of a session, or its newest message."""

    def delete_run(self, run_id: str, *, detach_branches: bool = False, user_id: str | None = None) -> None:
        """Delete a run, and its members' or steps' runs, with their messages, tool calls, requirements and scores.

        Other runs keep their indexes, and no later run gets that of the deleted one. The session's state is kept; its
        summary is removed if it includes the run.

        Args:
            run_id: The run.
            detach_branches: Whether branches that inherit it first get their own copy of what they inherit.
            user_id: The user of its session: another user's run is not found.

        Raises:
            RunNotFound: There is no such run.
            HasBranches: Branches inherit it, and ``detach_branches`` is not set; nothing was deleted.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Run
            >>> store = InMemoryDb()
            >>> runs = [store.append_run("chat", Run(input=f"Question {number}")) for number in range(3)]
            >>> store.delete_run(runs[1].run_id)
            >>> [run.run_index for run in store.get_session("chat").runs]
            [0, 2]
        """
        options: dict[str, Any] = {"detach_branches": detach_branches, "user_id": user_id}
        self.write(lambda connection: run_deletes.delete_run(connection, self, run_id, **options))

    def delete_runs(
        self,
        session_id: str,
        *,
        after: int | str | None = None,
        detach_branches: bool = False,
        user_id: str | None = None,
    ) -> int:
        """Delete a session's own runs after one of its runs, or all; inherited runs are not deleted.

        What is deleted and kept is as for `delete_run`: the session goes on from ``after`` and the runs of its members.

        Returns the number of deleted runs.

        Args:
            session_id: The session.
            after: The last run to keep: its index, its id or a unique prefix of its id, also of an inherited run. None
                deletes all.
            detach_branches: Whether branches that inherit such a run first get their own copy.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            RunNotFound: It has no run ``after``.
            HasBranches: Branches inherit such a run, and ``detach_branches`` is not set; nothing was deleted.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Run
            >>> store = InMemoryDb()
            >>> runs = [store.append_run("chat", Run(input=f"Question {number}")) for number in range(3)]
            >>> store.delete_runs("chat", after=0)
            2
            >>> [run.input for run in store.get_session("chat").runs]
            ['Question 0']
        """
        options: dict[str, Any] = {"after": after, "detach_branches": detach_branches, "user_id": user_id}
        return self.write(lambda connection: run_deletes.delete_runs(connection, self, session_id, **options))

    def clear_session(self, session_id: str, *, detach_branches: bool = False, user_id: str | None = None) -> int:
        """Delete all runs of a session's own and its summary. It keeps its title, state, tags, scores and ancestors.

        Scores of the deleted runs are deleted with them.

        Returns the number of deleted runs.

        Args:
            session_id: The session.
            detach_branches: As for `delete_runs`.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            HasBranches: As for `delete_runs`.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Run
            >>> store = InMemoryDb()
            >>> run = store.append_run("chat", Run(input="Hello"))
            >>> session = store.rename_session("chat", "Greeting")
            >>> store.clear_session("chat")
            1
            >>> store.get_session("chat")
            <Session chat 'Greeting', 0 runs>
        """
        options: dict[str, Any] = {"after": None, "detach_branches": detach_branches, "user_id": user_id}
        return self.write(
            lambda connection: run_deletes.delete_runs(connection, self, session_id, **options, clear=True)
        )

    def pop_message(
        self, session_id: str, *, detach_branches: bool = False, user_id: str | None = None
    ) -> Message | None:
        """Remove the newest message of a session's own, and return it with its tool calls; None if it has none.

        An answer's tool calls are removed with it; the call that a tool's message answered becomes unknown. Its run is
        kept, without the output if that is the message, and with the tokens and cost that were spent.

        Args:
            session_id: The session.
            detach_branches: As for `delete_runs`.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            HasBranches: Branches inherit the message, and ``detach_branches`` is not set; nothing was removed.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Message, Run
            >>> store = InMemoryDb()
            >>> messages = [Message(role="user", content="Hello"), Message(role="assistant", content="Hi!")]
            >>> run = store.append_run("chat", Run(messages=messages))
            >>> store.pop_message("chat").content
            'Hi!'
            >>> [message.content for message in store.last_messages("chat", 10)]
            ['Hello']
        """
        options: dict[str, Any] = {"detach_branches": detach_branches, "user_id": user_id}
        return self.write(lambda connection: run_deletes.pop_message(connection, self, session_id, **options))
