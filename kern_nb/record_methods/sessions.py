"""Filters of a session's runs and messages, under Agno's names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, cast

from kern_nb.errors import BadUsage
from kern_nb.record_methods.runs import to_json_value
from kern_nb.record_methods.summaries import stored_summary

if TYPE_CHECKING:
    from kern_nb.records import Message, Run, Session, SessionSummary, ToolCall

_SKIPPED_STATUSES = ("PAUSED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")


class SessionMethods:
    """Filters of a session's runs and messages, under Agno's names."""

    if TYPE_CHECKING:
        session_id: str
        session_type: Any
        summary: dict[str, Any] | None
        runs: list[Run] | None

    def get_run(self, run_id: str) -> Run | None:
        """Return a copy of a run by its id; None if the session has no such run."""
        run = next((run for run in self._runs() if run.run_id == run_id), None)
        return run.model_copy(deep=True) if run else None

    def get_messages(
        self,
        agent_id: str | None = None,
        team_id: str | None = None,
        *,
        member_ids: Collection[str] | None = None,
        last_n_runs: int | None = None,
        limit: int | None = None,
        skip_roles: Iterable[str] | None = None,
        skip_statuses: Iterable[Any] | None = None,
        skip_history_messages: bool = True,
        skip_member_messages: bool = True,
    ) -> list[Message]:
        """Return messages of the session, in order; instructions once, as in the first run.

        Args:
            agent_id: Only runs of this agent; in a team's or workflow's session, those of members and steps, too.
            team_id: Only runs of this team; likewise.
            member_ids: Only runs of these members of a team; the members' own messages.
            last_n_runs: Only the last runs.
            limit: The most messages: the instructions and the latest; a tool's result is not the first.
            skip_roles: The roles to leave out.
            skip_statuses: The statuses of runs to leave out; by default runs without an end in the conversation:
                paused, cancelled, failed, interrupted and regenerated ones.
            skip_history_messages: Whether to leave out copies of earlier runs' messages.
            skip_member_messages: Whether to leave out the runs of members.

        Raises:
            BadUsage: the session was listed without its runs.
        """
        if member_ids is not None or (self.session_type != "agent" and (agent_id or team_id)):
            skip_member_messages = False
        statuses = {_status(s) for s in (_SKIPPED_STATUSES if skip_statuses is None else skip_statuses)}
        runs = [run for run in self._runs() if run.status not in statuses]
        if skip_member_messages:
            runs = [run for run in runs if run.parent_run_id is None]
        runs = [run for run in runs if agent_id in (None, run.agent_id) and team_id in (None, run.team_id)]
        if member_ids is not None:
            runs = [run for run in runs if run.agent_id in member_ids or run.team_id in member_ids]
        if last_n_runs is not None:
            runs = runs[-last_n_runs:] if last_n_runs > 0 else []
        roles = set(skip_roles or ())
        messages: list[Message] = []
        has_system = False
        for message in (message for run in runs for message in run.messages):
            is_repeated = message.role == "system" and has_system
            if message.role in roles or is_repeated or (message.from_history and skip_history_messages):
                continue
            has_system |= message.role == "system"
            messages.append(message)
        return messages if limit is None else _latest(messages, limit)

    def get_chat_history(self, last_n_runs: int | None = None) -> list[Message]:
        """Return the user's and the assistant's messages, of runs of any status; of a workflow, inputs and outputs."""
        if self.session_type == "workflow":
            from kern_nb.records import Message

            runs = [run for run in self._runs() if run.parent_run_id is None]
            runs = runs if last_n_runs is None else runs[-last_n_runs:] if last_n_runs > 0 else []
            ends = [end for run in runs for end in (("user", run.input), ("assistant", run.output))]
            return [Message(role=role, content=content) for role, content in ends if content is not None]
        return self.get_messages(skip_roles=("system", "tool"), skip_statuses=(), last_n_runs=last_n_runs)

    def get_tool_calls(self, num_calls: int | None = None) -> list[ToolCall]:
        """Return the tool calls, those of the latest run first; at most ``num_calls``, if not 0."""
        calls = [call for run in reversed(self._runs()) for call in run.tool_calls]
        return calls[:num_calls] if num_calls else calls

    def get_session_summary(self) -> SessionSummary | None:
        """Return the stored summary; None without one."""
        return stored_summary(self.session_id, self.summary)

    def to_dict(self, include_runs: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - as documented
        """Return the fields as JSON values, with the runs as `Run.to_dict` returns them."""
        values: dict[str, Any] = to_json_value(cast("Session", self).model_dump(exclude={"runs"}))
        return values | {"runs": [run.to_dict() for run in self.runs or ()] or None} if include_runs else values

    def _runs(self) -> list[Run]:
        if self.runs is None:
            message = f"Session {self.session_id!r} was listed without its runs."
            raise BadUsage(message, "Read it with store.get_session(session_id) or agent.get_session().")
        return self.runs


def _latest(messages: list[Message], limit: int) -> list[Message]:
    """Return the instructions and the latest messages, at most ``limit``; a tool's result needs its call."""
    system = [message for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    n = limit - len(system)
    latest = rest[-n:] if n > 0 else []
    while latest and not system and latest[0].role == "tool":
        latest.pop(0)
    return system + latest


def _status(value: Any) -> str:
    return str(getattr(value, "value", value)).upper()
