"""`RunMethods`: the methods of a store that write runs; see `run_writes`, `run_replacements` and `message_writes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kern_nb.db import message_writes, run_replacements, run_writes
from kern_nb.db.database import Database
from kern_nb.records import Message, Run, RunStatus, SessionType, Usage

if TYPE_CHECKING:
    from kern_nb.db.run_writes import RunEnd


class RunMethods(Database):
    """Append, store, start and finish runs."""

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
        internal: dict[str, Any] | None = None,
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
            internal: Keys to set in the run's ``internal``: data of kern_nb's own agents.

        Raises:
            RunNotFound: There is no such run.
            RunClosed: It has ended.
        """
        values: dict[str, Any] = {"output": output, "usage": usage, "session_state": session_state, "error": error}
        values |= {"model": model, "model_provider": model_provider, "duration_s": duration_s, "messages": messages}
        values |= {"time_to_first_token_s": time_to_first_token_s, "state_unchanged": state_unchanged}
        values["internal"] = internal
        return self.write(
            lambda connection: run_writes.finish_run(connection, self, run_id, status=status, **values), small=True
        )
