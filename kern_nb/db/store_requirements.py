"""`RequirementMethods`: the methods of a store for requirements and for runs that are paused and resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kern_nb.db import cancel_signals, cancellations, handoffs, requirements, run_claims
from kern_nb.db.database import Database
from kern_nb.records import UNRESOLVED_STATUSES, Message, Requirement, Run, Usage


class RequirementMethods(Database):
    """Pause, resolve, hand off, claim and release. The work is in `requirements`, `handoffs` and `run_claims`."""

    def pause_run(
        self,
        run_id: str,
        requirements: Sequence[Requirement],
        *,
        output: Any = None,
        usage: Usage | None = None,
        session_state: dict[str, Any] | None = None,
        duration_s: float | None = None,
        internal: dict[str, Any] | None = None,
    ) -> list[Requirement]:
        """Pause an open run until its requirements are resolved; returns these as stored. Its calls are not changed.

        Args:
            run_id: The open run.
            requirements: New requirements, pending.
            output: The run's output so far.
            usage: The tokens and cost so far.
            session_state: The whole state as the run has it; merged as in `finish_run`.
            duration_s: The time the run took so far.
            internal: Keys to set in the run's ``internal``: data of kern_nb's own agents.

        Raises:
            RunNotFound: There is no such run.
            RunClosed: It has ended.
            RequirementExists: The run has a requirement with this id.
            BadUsage: A requirement is not pending.
        """
        values: dict[str, Any] = {"output": output, "usage": usage, "session_state": session_state}
        values |= {"duration_s": duration_s, "internal": internal}
        return self.write(lambda connection: run_claims.pause_run(connection, self, run_id, requirements, **values))

    def requirements(
        self,
        *,
        session_id: str | None = None,
        run_id: str | None = None,
        user_id: str | None = None,
        assignee: str | None = None,
        status: str | Sequence[str] | None = UNRESOLVED_STATUSES,
        run_status: str | None = None,
    ) -> list[Requirement]:
        """List requirements, oldest first; by default those that are not resolved.

        Args:
            session_id: Only those of one session.
            run_id: Only those of one run and its members' runs.
            user_id: Only those of one user's sessions.
            assignee: Only those assigned to one person.
            status: One status or several; None for all.
            run_status: Only those of runs with this status.
        """
        filters = {"session_id": session_id, "run_id": run_id, "user_id": user_id, "assignee": assignee}
        filters["run_status"] = run_status
        with self.read_connection() as connection:
            return requirements.list_requirements(connection, self, filters, status)

    def find_requirement(self, run_id: str, *, tool_call_id: str, user_id: str | None = None) -> Requirement:
        """The requirement of a run, or of its members' runs, for a tool call; of several, the unresolved or the last.

        Args:
            run_id: The run.
            tool_call_id: The tool call that waits for it.
            user_id: The user of its session: another user's requirement is not found.

        Raises:
            RequirementNotFound: The run has none for this call.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Requirement
            >>> store = InMemoryDb()
            >>> run = store.start_run("chat", input="Delete a.txt")
            >>> ask = Requirement(kind="confirmation", tool_call_id="call_1", tool_name="delete_file")
            >>> [asked] = store.pause_run(run.run_id, [ask])
            >>> store.resolve(store.find_requirement(run.run_id, tool_call_id="call_1"), approve=True).status
            'resolved'
        """
        with self.read_connection() as connection:
            return requirements.find_by_call(connection, self, run_id, tool_call_id, user_id)

    def resolve(
        self,
        requirement_id: str | Requirement,
        *,
        approve: bool | None = None,
        args: dict[str, Any] | None = None,
        value: Any = None,
        note: str | None = None,
        by: str | None = None,
        user_id: str | None = None,
    ) -> Requirement:
        """Answer a requirement of a paused run. Of several concurrent answers, the first is stored.

        Returns the requirement with its answer. ``agent.continue_run`` resumes the run.

        Args:
            requirement_id: The requirement, its id or a unique prefix of that; or its run (``chat/2``), if that has no
                other unresolved requirement. Requirements of several runs may have one id: a record names its run.
            approve: Whether the tool may run; False rejects.
            args: Arguments by name that replace the model's; approves.
            value: The requested value: of user input the arguments by name, otherwise the tool's result.
            note: A note for the model, such as the reason of a rejection.
            by: Who answers.
            user_id: The user of its session: another user's requirement is not found.

        Raises:
            RequirementNotFound: Nothing matches.
            AmbiguousReference: Several match.
            AlreadyResolved: It is resolved or expired; nothing was changed.
            AlreadyClaimed: Somebody else claimed it.
            RunClosed: Its run is not paused.
            BadUsage: The answer does not fit the requirement's kind.
        """
        answer: dict[str, Any] = {"approve": approve, "args": args, "value": value, "note": note, "by": by}
        answer["user_id"] = user_id
        reference = requirements.key_of(requirement_id)
        resolved = self.write(lambda connection: requirements.resolve(connection, self, reference, **answer))
        if resolved.status == "expired":
            raise requirements.resolved_error(resolved)
        return resolved

    def claim(self, requirement_id: str | Requirement, *, by: str, user_id: str | None = None) -> Requirement:
        """Claim a requirement before working on it: then only ``by`` may resolve it. Returns it as claimed.

        Args:
            requirement_id: The requirement, as in `resolve`.
            by: Who claims it.
            user_id: The user of its session: another user's requirement is not found.

        Raises:
            RequirementNotFound: Nothing matches.
            AlreadyClaimed: Somebody else claimed it.
            AlreadyResolved: It is resolved or expired.
        """
        reference = requirements.key_of(requirement_id)
        return self.write(lambda connection: requirements.claim(connection, self, reference, by, user_id))

    def handoff(
        self,
        reference: str | Requirement,
        *,
        to: str,
        note: str | None = None,
        by: str | None = None,
        user_id: str | None = None,
    ) -> Requirement:
        """Assign pending requirements to a person; or, if none is pending, hand off the session.

        A session that is handed off gets a paused run. When the person has answered it (``resolve(..., value=...)``),
        the agent continues with the answer. Returns the requirement that is assigned to the person (the first of
        several).

        Args:
            reference: A requirement, a run, or a session.
            to: The person.
            note: A note for the person.
            by: Who hands it off.
            user_id: The user of its session: another user's is not found.

        Raises:
            RequirementNotFound: Nothing matches.
            AlreadyResolved: It is resolved or expired.
            AlreadyClaimed: Somebody else claimed it.
        """
        options: dict[str, Any] = {"to": to, "note": note, "by": by, "user_id": user_id}
        name = requirements.key_of(reference)
        return self.write(lambda connection: handoffs.hand_off(connection, self, name, **options))

    def reply(
        self,
        reference: str | Requirement,
        content: str | None = None,
        *,
        files: Mapping[str, str | bytes] | None = None,
        by: str | None = None,
        user_id: str | None = None,
    ) -> list[Message]:
        """Write into a session that is handed off; it stays so until `resolve` hands it back. Returns the messages.

        The agent reads the messages when it continues, and finds the files in the session's workspace.

        Args:
            reference: The session, its run, or the requirement.
            content: A message of the person.
            files: Files to add to the session's workspace or to overwrite, by relative path.
            by: The person; the assignee where None.
            user_id: The user of its session: another user's is not found.

        Raises:
            RequirementNotFound: Nothing is pending there.
            AlreadyResolved: The session was handed back.
            AlreadyClaimed: Another person claimed the requirement.
            BadUsage: The session is not handed off, or a path leads out of the workspace; nothing was written.
        """
        key = requirements.key_of(reference)
        options: dict[str, Any] = {"files": files or {}, "by": by, "user_id": user_id}
        return self.write(lambda connection: handoffs.reply(connection, self, key, content, **options))

    def claim_run(self, run_id: str, *, user_id: str | None = None) -> Run:
        """Claim a paused or interrupted run, to resume it in this process. One of several concurrent claims succeeds.

        Tool calls that had started when the run was interrupted become ``unknown``. With a ``user_id``, a run of
        another user's session is not found, and a session without a user becomes theirs. Returns the run with its
        messages, tool calls and answers; its status is RUNNING.

        Raises:
            RunNotFound: There is no such run.
            RunClosed: It is completed.
            StillWaiting: A requirement is pending.
            AlreadyClaimed: Another process runs it.
        """
        return self.write(lambda connection: run_claims.claim_run(connection, self, run_id, user_id))

    def cancel_run(self, run_id: str, *, user_id: str | None = None) -> bool:
        """Cancel an open run, with its members' or steps' runs; returns whether it was open.

        A paused run, or one whose process is gone, is CANCELLED now. The process that makes a run, this or another one,
        ends it with its next message or heartbeat, which come every 15 s: it is CANCELLED then, with what it has. A
        run that ends before that is completed.

        Args:
            run_id: The run.
            user_id: The user of its session: another user's run is not found.

        Raises:
            RunNotFound: There is no such run.
            BadUsage: It is the run of a member or a step.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Requirement
            >>> store = InMemoryDb()
            >>> run = store.start_run("chat", input="Delete a.txt")
            >>> paused = store.pause_run(run.run_id, [Requirement(kind="confirmation", tool_name="delete_file")])
            >>> store.cancel_run(run.run_id), store.get_run(run.run_id).status
            (True, 'CANCELLED')
        """
        is_open = self.write(lambda connection: cancellations.cancel_run(connection, self, run_id, user_id))
        if is_open:
            cancel_signals.notify(run_id)
        return is_open

    def forget_answers(self, run_id: str) -> None:
        """Delete the values in a run's answers, for tools whose results are not stored; who answered is kept."""
        self.write(lambda connection: run_claims.forget_answers(connection, self, run_id))

    def release_run(self, before: Run) -> None:
        """Release a claimed run that was not changed since: it is again as ``before`` `claim_run`."""
        self.write(lambda connection: run_claims.release_run(connection, self, before))
