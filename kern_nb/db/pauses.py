"""`Pauses`: what a store does for runs that wait for someone. The work is in `pausing` and `answering`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern_nb.db import requirements, run_claims
from kern_nb.db.database import Database
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run, Usage


class Pauses(Database):
    """Requirements, their answers, and who goes on with a run."""

    def pause_run(
        self,
        run_id: str,
        requirements: Sequence[Requirement],
        *,
        output: Any = None,
        usage: Usage | None = None,
        session_state: dict[str, Any] | None = None,
        duration_s: float | None = None,
    ) -> list[Requirement]:
        """Let an open run wait for answers. Its tool calls stay as they are.

        Returns:
            The requirements as stored.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it has ended.
        """
        values = {"output": output, "usage": usage, "session_state": session_state, "duration_s": duration_s}
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
        """What runs wait for, oldest first; by default what is not answered yet.

        Args:
            session_id: Of one session.
            run_id: Of one run and those of its members.
            user_id: Of one user's sessions.
            assignee: Those for one person.
            status: One status or several; None for all.
            run_status: Of runs that have this status: with None for ``status``, what PAUSED runs were told, too.
        """
        filters = {"session_id": session_id, "run_id": run_id, "user_id": user_id, "assignee": assignee}
        with self.read_connection() as connection:
            return requirements.requirements(connection, self, **filters, status=status, run_status=run_status)

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
        """Answer what a paused run waits for. Of several who answer, the first one's answer stands.

        Args:
            requirement_id: The requirement, its id or a unique prefix of that; or its run (``chat/2``), where that
                waits for this alone.
            approve: Whether the tool may run, or the question is answered at all; False refuses.
            args: The arguments to use in place of those the model gave, by name; approves.
            value: The value that was asked for: of user input the arguments by name, else the tool's result.
            note: A word for the model: the reason of a refusal.
            by: Who answers.
            user_id: Whose session it is in: another user's requirement is not found.

        Returns:
            The requirement with its answer. ``agent.continue_run`` goes on with the run.

        Raises:
            RequirementNotFound, AmbiguousReference: it names none, or several.
            AlreadyResolved: it was answered before, or expired; nothing was changed.
            AlreadyClaimed: someone else is at it.
            BadUsage: the answer does not fit the question.
        """
        answer: dict[str, Any] = {"approve": approve, "args": args, "value": value, "note": note, "by": by}
        answer["user_id"] = user_id
        name = requirement_id.requirement_id if isinstance(requirement_id, Requirement) else requirement_id
        found = self.write(lambda connection: requirements.resolve(connection, self, name, **answer))
        if found.status == "expired":
            raise requirements.expired_error(found)
        return found

    def claim(self, requirement_id: str, *, by: str, user_id: str | None = None) -> Requirement:
        """Take a requirement on before working at it, so that nobody else does: only ``by`` may answer it then.

        With a ``user_id``, another user's requirement is not found.

        Raises:
            AlreadyClaimed, AlreadyResolved: someone was faster.
        """
        return self.write(lambda connection: requirements.claim(connection, self, requirement_id, by, user_id))

    def handoff(
        self, reference: str, *, to: str, note: str | None = None, by: str | None = None, user_id: str | None = None
    ) -> Requirement:
        """Hand what waits on to a named person; or, where nothing waits, the session itself.

        A session that is handed over gets a paused run; once the person has answered (``resolve(..., value=...)``),
        the agent goes on with what they said.

        Args:
            reference: A requirement, a run, or a session.
            to: The person.
            note: What they should know.
            by: Who hands it on.
            user_id: Whose session it is: another user's is not found.

        Returns:
            The requirement that now waits for them (of several, the first).

        Raises:
            RequirementNotFound: there is nothing of that name.
            AlreadyResolved, AlreadyClaimed: it was answered, or someone else is at it.
        """
        options: dict[str, Any] = {"to": to, "note": note, "by": by, "user_id": user_id}
        return self.write(lambda connection: requirements.hand_off(connection, self, reference, **options))

    def claim_run(self, run_id: str, *, user_id: str | None = None) -> Run:
        """Take on a run that paused, or that was interrupted, and go on writing it from this process.

        With a ``user_id``, a run of another user's session is not found, and a session of nobody becomes theirs.

        Of several who try at once, one gets it. Calls that had started when the run was interrupted are ``unknown``.

        Returns:
            The run with its messages, tool calls and answers; its status is RUNNING.

        Raises:
            RunNotFound, RunClosed: there is no such run, or it was completed.
            StillWaiting: answers are missing.
            AlreadyClaimed: another process goes on with it.
        """
        return self.write(lambda connection: run_claims.claim_run(connection, self, run_id, user_id))

    def forget_answers(self, run_id: str) -> None:
        """Drop the values that a run was given, where its tools' results are not to be kept; who gave them stays."""
        self.write(lambda connection: run_claims.forget_answers(connection, self, run_id))

    def release_run(self, before: Run) -> None:
        """Give back a run that was taken on and not touched since: it is as it was ``before`` `claim_run`."""
        self.write(lambda connection: run_claims.release_run(connection, self, before))
