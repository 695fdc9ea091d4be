"""What kern_nb's own export adds to a trajectory in ATIF, below one key of ``extra``, to restore a session from it.

ATIF has no runs, no roles but three, and only texts and parts as contents. Every value here may be missing or of a
wrong type: anyone can write such a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

from kern_nb.ingest.importer import Fork
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import decode_json, to_count, to_list, to_number, to_object, to_text
from kern_nb.ingest.run_splitter import SourceMessage, hash_content
from kern_nb.records import YEARS, Message, Run, RunStatus, Session, SessionType, ToolCall, Usage

OWN = "kern_nb"
"""The key of ``extra``."""

VERSION = 1
"""The version of what is below the key, in the ``extra`` of the trajectory."""

_FORK = ("parent_session_id", "fork_run_index", "fork_message_index")
_FIELDS = ("llm_call_count", "reasoning_effort")
_ROLLOUT = ("prompt_token_ids", "completion_token_ids", "logprobs")
_STATUSES = frozenset(get_args(RunStatus))
_TYPES = frozenset(get_args(SessionType))
_TOKENS = tuple(name for name in Usage.model_fields if name != "cost")


def is_own(document: dict[str, Any]) -> bool:
    """Whether kern_nb wrote a trajectory."""
    return own_of(document).get("version") == VERSION


def own_of(record: Any) -> dict[str, Any]:
    """What kern_nb added to a record; empty for any other record."""
    return to_object(to_object(to_object(record).get("extra")).get(OWN))


def foreign_extra(record: dict[str, Any]) -> dict[str, Any]:
    """The ``extra`` of a record without what kern_nb added: that of the source."""
    return {key: value for key, value in to_object(record.get("extra")).items() if key != OWN}


def is_message(record: Any) -> bool:
    """Whether a step or a result is a message of the session."""
    return own_of(record).get("is_message") is not False


def decode(own: dict[str, Any], content: Any) -> Any:
    """The value of a content that was written as JSON."""
    return decode_json(content) if own.get("is_json") is True else content


def restore_message(message: Message, record: dict[str, Any]) -> None:
    """Set what ATIF cannot express of a message, from the step or result that it was parsed from."""
    own, metrics = own_of(record), to_object(record.get("metrics"))
    message.extra = foreign_extra(record) | {key: record[key] for key in _FIELDS if record.get(key) is not None}
    message.extra |= {key: metrics[key] for key in _ROLLOUT if metrics.get(key) is not None}
    message.content = decode(own, message.content)
    message.role = to_text(own.get("role")) or message.role
    message.message_id = to_text(own.get("message_id"))
    message.partial = True if own.get("partial") is True else None
    message.model = message.model or to_text(own.get("model"))
    message.tool_call_id = to_text(own.get("tool_call_id")) or message.tool_call_id
    message.tool_name = to_text(own.get("tool_name")) or message.tool_name
    message.created_at = message.created_at or to_time(own.get("timestamp"))
    parts = [part for part in to_list(own.get("parts")) if isinstance(part, dict) and isinstance(part.get("type"), str)]
    if parts:
        rest = message.content if isinstance(message.content, list) else to_text(message.content)
        texts = [{"type": "text", "text": rest}] if isinstance(rest, str) else rest or []
        message.content = [*texts, *parts]


def restore_call(call: ToolCall, record: dict[str, Any]) -> None:
    """Set what ATIF cannot express of a call."""
    own = own_of(record)
    call.extra = foreign_extra(record)
    call.args = own.get("arguments", call.args) if not call.args else call.args
    call.caller = to_text(own.get("caller")) or call.caller
    call.created_at = to_time(own.get("timestamp"))
    call.duration_s = to_number(own.get("duration_s"))


def set_result(call: ToolCall, record: dict[str, Any]) -> None:
    """Set the result of a call that no message states."""
    if "content" not in record:
        return
    own = own_of(record)
    call.result = decode(own, record["content"])
    is_error = to_object(record.get("extra")).get("is_error")
    call.status = "failed" if is_error is True else "completed"


def group_by_run(
    messages: Sequence[SourceMessage], markers: Sequence[tuple[int, dict[str, Any]]]
) -> tuple[list[list[SourceMessage]], list[dict[str, Any]]]:
    """The messages of each run, and what its marker states; ``markers`` are sorted, with the first message of each.

    The key of a message begins with its position, so that a branch can state where it branches from.
    """
    if not markers:
        markers = [(0, {})] if messages else []
    starts = [0, *(start for start, _ in markers[1:]), len(messages)]
    groups = []
    for position, (start, end) in enumerate(pairwise(starts) if markers else ()):
        marker = markers[position][1]
        index = to_count(marker.get("index"))
        index = position if index is None else index
        items = enumerate(messages[start:end])
        groups.append([i._replace(key=f"{_position(index, n)}-{hash_content(i.message)}") for n, i in items])
    return groups, [marker for _, marker in markers]


def _position(run_index: int, message_index: int) -> str:
    """A position in a session, as text that sorts by it."""
    return f"{run_index:09d}.{message_index:09d}"


class ForkPoint(NamedTuple):
    """Where a branch branches from: after a run of its parent, or after some messages of it."""

    session_id: str
    run_index: int
    is_inside: bool

    def to_fork(self, n_messages: int) -> Fork:
        """The fork, with the number of messages that it inherits of the run."""
        after = (self.run_index, n_messages) if self.is_inside else (self.run_index + 1, 0)
        return Fork(self.session_id, _position(*after))


def fork_point(document: dict[str, Any]) -> ForkPoint | None:
    """Where a branch branches from, if the trajectory states it."""
    own = own_of(document)
    parent, run_index, message_index = (own.get(name) for name in _FORK)
    if not isinstance(parent, str) or type(run_index) is not int or run_index < -1:
        return None
    return ForkPoint(parent, run_index, is_inside=message_index is not None)


def own_steps(steps: list[Any], point: ForkPoint) -> tuple[list[Any], int]:
    """The steps of a branch, and how many of the first are inherited: those of the run inside which it branches."""
    first = next((i for i, step in enumerate(steps) if marker_of(step, "run") is not None), len(steps))
    start = first
    if point.is_inside:
        inherited = (to_object(marker_of(step, "inherited")).get("index") for step in steps[:first])
        start = next((i for i, index in enumerate(inherited) if index == point.run_index), first)
    return steps[start:], first - start


def marker_of(step: Any, name: str = "run") -> dict[str, Any] | None:
    """The marker at the first step of a run; that of an inherited run has only its index."""
    marker = own_of(step).get(name)
    return marker if isinstance(marker, dict) else None


def join_inherited(
    groups: list[list[SourceMessage]], markers: list[dict[str, Any]]
) -> tuple[list[list[SourceMessage]], list[dict[str, Any]]]:
    """Join the inherited messages of a run with the run that continues it, as the writer takes them apart again."""
    return [groups[0] + (groups[1] if len(groups) > 1 else []), *groups[2:]], markers[1:] or markers


def branches_of(document: Any) -> list[Any]:
    """The names of the files of a session's branches, and of those of its branches, parents first."""
    return to_list(own_of(document).get("branches"))


def restore_run(run: Run, marker: dict[str, Any]) -> None:
    """Set what the marker of a run states."""
    if to_text(marker.get("status")) in _STATUSES:
        run.status = marker["status"]
    if to_text(marker.get("type")) in _TYPES:
        run.run_type = marker["type"]
    run.error = to_text(marker.get("error"))
    for name in ("agent_id", "team_id", "workflow_id", "model_provider"):
        setattr(run, name, to_text(marker.get(name)))
    run.model = to_text(marker.get("model")) or run.model
    run.duration_s = to_number(marker.get("duration_s"))
    run.time_to_first_token_s = to_number(marker.get("time_to_first_token_s"))
    run.created_at = to_time(marker.get("created_at")) or run.created_at
    run.finished_at = to_time(marker.get("finished_at")) or run.finished_at
    run.input, run.output = (marker.get(name, getattr(run, name)) for name in ("input", "output"))
    usage = to_object(marker.get("usage"))
    if usage:
        run.usage = Usage(**{name: to_count(usage.get(name)) for name in _TOKENS}, cost=to_number(usage.get("cost")))


def restore_session(session: Session, document: dict[str, Any]) -> dict[str, float]:
    """Set what the trajectory states of its session; return the scores."""
    own = own_of(document)
    if to_text(own.get("session_type")) in _TYPES:
        session.session_type = own["session_type"]
        for name in ("agent_id", "team_id", "workflow_id"):
            setattr(session, name, to_text(own.get(name)))
    if title := to_text(own.get("session_name")):
        session.session_data = {"session_name": title}
    session.metadata = to_object(own.get("metadata")) or None
    for name in ("created_at", "updated_at"):
        setattr(session, name, _seconds(own.get(name)))
    session.duration_s = to_number(own.get("duration_s"))
    scores = {name: to_number(value) for name, value in to_object(own.get("scores")).items()}
    return {name: float(value) for name, value in scores.items() if value is not None}


def _seconds(value: Any) -> int | None:
    """Unix seconds."""
    seconds = to_count(value)
    return seconds if seconds is not None and seconds <= YEARS[1] else None
