"""`RunMethods`: the methods of a store that write and read runs; see `run_writes`, `message_writes` and `reads`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kern_nb.db import latest, message_writes, reads, references, run_deletes, run_replacements, run_writes
from kern_nb.db.database import Database
from kern_nb.records import Message, Run, RunStatus, SessionType, Usage

if TYPE_CHECKING:
    from kern_nb.db.reads import Details
    from kern_nb.db.run_writes import RunEnd


class RunMethods(Database):
    """Append, start, finish and read runs, and the history for a model."""

    def append_run(self, session_id: str, run: Run, *, user_id: str | None = None) -> Run:
        """Store a finished run with its messages and tool calls, in one transaction.

        Returns the run as stored, with its ``run_index``.

        Args:
            session_id: The session; a new id creates it.
            run: The run. Its ``session_state`` is stored as it is, and merged into the session's, key by key: other
                runs' keys are kept.
            user_id: The user of the session.

        Raises:
            OwnerMismatch: The session belongs to another user.
            UnstorableValue: A value would be read back differently; nothing was stored.
            RunExists: The run id is in use.
        """
        return self.write(
            lambda connection: run_writes.append_run(connection, self, session_id, run, user_id), small=True
        )

    def put_run(self, session_id: str, run: Run, *, user_id: str | None = None) -> Run:
        """Store a run as it is now, with its messages, tool calls and requirements, in one transaction.

        A run that is stored under its ``run_id`` is replaced: it keeps its ``run_index``, answers to its requirements,
        scores, and what this one does not state of ``created_at``, ``user_id`` and ``session_state``. It may have any
        status; this process is responsible for one that is PENDING or RUNNING. Only what differs is written. A branch
        that inherits the run keeps the messages it has; it does not get those that follow.

        Returns the run as stored.

        Args:
            session_id: The session; a new id creates it.
            run: The run. What it changed of its ``session_state`` since it was stored is merged into the session's.
            user_id: The user of the session.

        Raises:
            OwnerMismatch: The session belongs to another user.
            RunExists: The run id is in use in another session.
            HasBranches: A message that a branch inherits would be changed or removed; nothing was changed.
            RequirementExists: Two requirements of the run have one id.
            UnstorableValue: A value would be read back differently; nothing was stored.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Message, Run
            >>> store = InMemoryDb()
            >>> run = Run(run_id="r1", status="RUNNING", messages=[Message(role="user", content="Hi")])
            >>> store.put_run("chat", run)
            <Run chat/0 RUNNING, 1 message, 0 tool calls>
            >>> run.messages.append(Message(role="assistant", content="Hello!"))
            >>> store.put_run("chat", run.model_copy(update={"status": "COMPLETED", "output": "Hello!"}))
            <Run chat/0 COMPLETED, 2 messages, 0 tool calls: 'Hello!'>
        """
        return self.write(
            lambda connection: run_replacements.put_run(connection, self, session_id, run, user_id), small=True
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
        metadata: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
        internal: dict[str, Any] | None = None,
        messages: Sequence[Message] = (),
    ) -> Run:
        """Open a run before the model is called; continue with `append_messages` and `finish_run`.

        Returns the open run: its id, its index, its messages as stored, and the state it starts from in
        ``session_state``.

        Args:
            session_id: The session; a new id creates it.
            input: The run's input.
            session_type: agent, team or workflow.
            agent_id: The agent of the run.
            team_id: The team of the run.
            workflow_id: The workflow of the run.
            user_id: The user of the session.
            model: The model's name.
            model_provider: The model's provider.
            parent_run_id: The run of the team or workflow that this run belongs to.
            run_id: Its id; None generates one.
            default_state: Keys to set in the session's state if it does not have them.
            owner_data: A description of the agent, team or workflow, stored with a new session.
            metadata: Keys to set in the session's metadata if it does not have them.
            extra: Other data of the caller, stored with the run.
            internal: Data of kern_nb's own agents; see `extra_keys`.
            messages: The first messages, stored in the same transaction.

        Raises:
            OwnerMismatch: The session belongs to another user.
            RunExists: The run id is in use.
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
        options: dict[str, Any] = {"default_state": default_state, "owner_data": owner_data, "metadata": metadata}
        return self.write(
            lambda connection: run_writes.start_run(connection, self, session_id, run, **options), small=True
        )

    def append_messages(
        self,
        run_id: str,
        messages: Sequence[Message],
        *,
        session_state: dict[str, Any] | None = None,
        store_results: bool = True,
    ) -> list[Message]:
        """Add messages to an open run as they happen, with their tool calls; returns them as stored, numbered.

        A tool's message ends its call. Its ``internal["duration_s"]`` is the duration of the call, if that is not the
        time since the call was stored; its ``internal["args"]`` the arguments of the call, if a person changed them.

        Args:
            run_id: The open run.
            messages: The messages, in order.
            session_state: The whole state as the run has it; merged as in `finish_run`.
            store_results: False ends the calls of tools' messages without storing the messages or results.

        Raises:
            RunNotFound: There is no such run.
            RunClosed: It has ended.
        """
        options: dict[str, Any] = {"session_state": session_state, "store_results": store_results}
        return self.write(
            lambda connection: message_writes.append_messages(connection, self, run_id, messages, **options), small=True
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
        """End an open run. Its tool calls without a result become unknown.

        Returns the last messages, the state after the run, and when it ended.

        Args:
            run_id: The open run.
            status: The status to set.
            output: The run's output.
            usage: The tokens and cost.
            session_state: The whole state at the end of the run. What the run changed of the state it started from is
                merged into the session's, key by key, so that concurrent runs keep their own keys.
            error: The error of a failed run.
            model: The model's name.
            model_provider: The model's provider.
            duration_s: The duration; None computes it from the start of the run.
            time_to_first_token_s: The time to the first token.
            messages: The last messages, stored in the same transaction.
            state_unchanged: Whether the run has not changed the state since `start_run`, or since the last
                `append_messages` with a state; the run gets the session's current state.

        Raises:
            RunNotFound: There is no such run.
            RunClosed: It has ended.
        """
        values: dict[str, Any] = {"output": output, "usage": usage, "session_state": session_state, "error": error}
        values |= {"model": model, "model_provider": model_provider, "duration_s": duration_s, "messages": messages}
        values |= {"time_to_first_token_s": time_to_first_token_s, "state_unchanged": state_unchanged}
        return self.write(
            lambda connection: run_writes.finish_run(connection, self, run_id, status=status, **values), small=True
        )

    def delete_run(self, run_id: str, *, detach_branches: bool = False, user_id: str | None = None) -> None:
        """Delete a run, and its members' or steps' runs, with their messages, tool calls, requirements and scores.

        Later runs keep their indexes. The session's state is kept; its summary is removed if it includes the run.

        Args:
            run_id: The run.
            detach_branches: Whether branches that inherit it first get their own copy of what they inherit.
            user_id: The user of its session: another user's run is not found.

        Raises:
            RunNotFound: There is no such run.
            HasBranches: Branches inherit it, and ``detach_branches`` is not set; nothing was deleted.

        Example:
            >>> from kern_nb.db import InMemoryDb
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
            detach_branches: Whether branches that inherit such a run first get their own copy of what they inherit.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            RunNotFound: It has no run ``after``.
            HasBranches: Branches inherit such a run, and ``detach_branches`` is not set; nothing was deleted.

        Example:
            >>> from kern_nb.db import InMemoryDb
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
            detach_branches: Whether branches that inherit its runs first get their own copy of what they inherit.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            HasBranches: Branches inherit its runs, and ``detach_branches`` is not set; nothing was deleted.

        Example:
            >>> from kern_nb.db import InMemoryDb
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
            detach_branches: Whether branches that inherit the message first get their own copy of what they inherit.
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
            OwnerMismatch: It is not the session of ``user_id``.
            HasBranches: Branches inherit the message, and ``detach_branches`` is not set; nothing was removed.

        Example:
            >>> from kern_nb.db import InMemoryDb
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

        System and developer messages are left out, as each agent has its own, and so are members' runs. A tool call and
        its result are never separated: if a limit or a branch point is between them, both are left out.

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
            user_id: The user of the session.

        Raises:
            SessionNotFound: There is no such session.
        """
        limits: dict[str, Any] = {"last_runs": last_runs, "last_messages": last_messages}
        limits |= {"after_run": after_run, "also": also, "before_run": before_run, "user_id": user_id}
        with self.read_connection() as connection:
            return reads.history(connection, self.tables, session_id, **limits)

    def unfinished_runs(self, session_id: str, *, upto: int, user_id: str | None = None) -> list[int]:
        """The indexes, up to ``upto``, of runs that `history` leaves out because they are not completed."""
        with self.read_connection() as connection:
            return reads.unfinished_runs(connection, self.tables, session_id, upto, user_id)
