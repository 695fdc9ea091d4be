"""What the messages of a run are, as far as they are known without a read: its first ones, and those written since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern_nb.db.mapping import as_stored, result_status
from kern_nb.db.run_writes import RunEnd
from kern_nb.db.schema import Tables
from kern_nb.extra_keys import DURATION_S
from kern_nb.records import Message, Run


class KnownRun:
    """A run as its recorder has written it, so that its end need not be read.

    Args:
        run: The run as it was stored at its start.
        is_complete: Whether ``run`` has all of it: not if it is resumed.
    """

    def __init__(self, run: Run, *, is_complete: bool) -> None:
        self._run = run
        self._messages: list[Message] | None = list(run.messages) if is_complete else None

    def add(self, stored: Sequence[Message]) -> None:
        """Add stored messages, as long as all of the run is known."""
        if self._messages is None:
            return
        calls = {call.tool_call_id: call for message in self._messages for call in message.tool_calls}
        for message in stored:
            call = calls.get(message.tool_call_id) if message.role == "tool" else None
            if call is not None:
                call.result, call.status = message.content, result_status(message)
                call.duration_s = message.internal.get(DURATION_S)
            # The call may have ended otherwise: under a repeated id, or without a known duration.
            if message.role == "tool" and (call is None or not isinstance(call.duration_s, float)):
                self._messages = None
                return
            self._messages.append(message)

    def as_stored(self, tables: Tables, end: RunEnd, values: dict[str, Any]) -> Run | None:
        """Return the completed run as it is stored; None where some of it is not known.

        Args:
            tables: The tables of the store.
            end: What its end has stored.
            values: The arguments of `SessionStore.finish_run`.
        """
        if self._messages is None or self._run.requirements:
            return None
        calls = [call for message in self._messages for call in message.tool_calls]
        if any(call.status == "started" for call in calls):
            return None
        final = {name: value for name, value in values.items() if value is not None and name != "state_unchanged"}
        final |= {"status": "COMPLETED", "session_state": end.session_state, "finished_at": end.finished_at}
        final |= {} if end.internal is None else {"internal": end.internal}
        run = self._run.model_copy(update=final | {"messages": self._messages, "tool_calls": []})
        return as_stored(tables, run)


def opening_messages(instructions: str | None, copies: Sequence[Message], prompt: Any) -> list[Message]:
    """Return the first messages of a run; without a prompt, it answers the last message of the history."""
    system = [Message(role="system", content=instructions)] if instructions else []
    return [*system, *copies, *([] if prompt is None else [Message(role="user", content=prompt)])]


def history_copy(message: Message) -> Message:
    """Copy a message of the history into a run: marked, without the calls and tokens that its own run counts."""
    calls = [{"tool_name": call.tool_name, "args": call.args} for call in message.tool_calls]
    changes: dict[str, Any] = {"usage": None, "tool_calls": [], "message_index": None, "from_history": True}
    changes |= {"extra": {"tool_calls": calls} if calls else {}, "internal": {}}
    return message.model_copy(update=changes)
