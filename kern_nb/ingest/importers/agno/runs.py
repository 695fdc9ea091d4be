"""A run of Agno as a run of ours, and the runs inside it: of a team's members and of a workflow's steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, get_args

from kern_nb.ingest.importers.agno.messages import Conversation, media_parts
from kern_nb.ingest.importers.agno.metrics import to_usage
from kern_nb.ingest.importers.agno.requirements import parse_requirements
from kern_nb.ingest.importers.agno.tables import RunRecord
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import to_count, to_duration, to_list, to_object, to_text
from kern_nb.records import OPEN_STATUSES, Run, RunStatus, SessionType

# No process of ours writes to a run that is in progress, and most such runs ended with theirs.
_STATUS_OF: dict[str, RunStatus] = {name: name for name in get_args(RunStatus)} | {"RUNNING": "INTERRUPTED"}
_TYPES: tuple[SessionType, ...] = get_args(SessionType)
_COLUMNS = ("agent_id", "team_id", "workflow_id", "user_id", "model", "model_provider")
# What has a place of its own, or is the same in the messages.
_MAPPED = frozenset(
    {"run_id", "session_id", "parent_run_id", "messages", "tools", "requirements", "status", "session_state", "input",
     "content", "metrics", "created_at", "member_responses", "step_executor_runs", "workflow_agent_run",
     *_COLUMNS}
)  # fmt: skip
# What differs in the copy of a run that a fork of its session has.
_OF_COPY = frozenset({"run_id", "session_id", "user_id", "parent_run_id", "forked_from_session_id", "events"})
_MAX_DEPTH = 20
_MEDIA = ("images", "videos", "audio", "files")


def type_of(run: RunRecord) -> SessionType:
    """Whether a run is that of an agent, a team or a workflow."""
    stated = run.row.get("run_type")
    if stated in _TYPES:
        return stated  # type: ignore[no-any-return]
    if run.data.get("agent_id") or run.data.get("agent_name"):
        return "agent"
    return "team" if run.data.get("team_id") or run.data.get("team_name") else "workflow"


def describe_run(run: Run, record: RunRecord, conversation: Conversation) -> list[Any]:
    """Set what a record states about a run; return the values that are not those of its messages, for its hash."""
    data = record.data
    run.run_id = record.run_id
    run.run_type = type_of(record)
    for name in _COLUMNS:
        setattr(run, name, to_text(record.get(name)))
    status = str(record.get("status") or "COMPLETED").upper()
    run.status = _STATUS_OF.get(status, "COMPLETED")
    run.input = _input(data)
    run.output = data.get("content")
    if run.status == "ERROR" and isinstance(run.output, str):
        run.error, run.output = run.output, None
    metrics = to_object(data.get("metrics"))
    run.usage = to_usage(metrics, run.model_provider, run.model)
    run.duration_s = to_duration(metrics.get("duration"))
    run.time_to_first_token_s = to_duration(metrics.get("time_to_first_token"))
    run.session_state = data["session_state"] if isinstance(data.get("session_state"), dict) else None
    run.created_at = parse_time(record.get("created_at")) or run.created_at
    run.finished_at = None
    if run.created_at is not None and run.duration_s is not None and run.status not in OPEN_STATUSES:
        run.finished_at = run.created_at + timedelta(seconds=run.duration_s)
    run.tool_calls = conversation.calls
    run.requirements = parse_requirements(data, record.run_id, run.status, conversation.problems)
    run.extra = _extra(record) | ({"status": status} if status != run.status else {})
    return [{name: value for name, value in data.items() if name not in _OF_COPY}, run.status, run.run_type]


def _input(data: Mapping[str, Any]) -> Any:
    """The input of a run; media are parts of its messages."""
    value = data.get("input")
    return value["input_content"] if isinstance(value, dict) and "input_content" in value else value


def _extra(record: RunRecord) -> dict[str, Any]:
    """What a run has no column for."""
    data = record.data
    extra = {name: value for name, value in data.items() if name not in _MAPPED and value not in (None, "", [], {})}
    if extra.get("content_type") == "str":
        del extra["content_type"]
    if metrics := data.get("metrics"):
        extra["metrics"] = metrics
    if not any(media_parts(to_object(message), name) for message in to_list(data.get("messages")) for name in _MEDIA):
        parts = [part for name in _MEDIA for part in media_parts(to_object(data.get("input")), name)]
        extra |= {"input_media": parts} if parts else {}
    if (index := to_count(record.row.get("run_index"))) is not None:
        extra["run_index"] = index
    return extra


def inner_runs(record: RunRecord, depth: int = 0) -> Iterator[RunRecord]:
    """Yield the runs inside a run, each after the one that it is a part of."""
    data = record.data
    values = [*to_list(data.get("member_responses")), *to_list(data.get("step_executor_runs"))]
    for value in [*values, data.get("workflow_agent_run")]:
        run_id = to_text(to_object(value).get("run_id"))
        if run_id is None or run_id == record.run_id or depth > _MAX_DEPTH:
            continue
        inner = RunRecord(run_id, {**value, "parent_run_id": record.run_id}, position=record.position)
        yield inner
        yield from inner_runs(inner, depth + 1)


def step_name(run_id: str, results: Any) -> str | None:
    """The name of the step of a workflow, at any depth of its results, that a run is the run of."""
    for value in to_list(results):
        result = to_object(value)
        if result.get("step_run_id") == run_id:
            return to_text(result.get("step_name"))
        if (name := step_name(run_id, result.get("steps"))) is not None:
            return name
    return None


def delegating_call(run: RunRecord, parent: RunRecord) -> str | None:
    """The id of the call by which a team's leader started the run of a member; None if that is not stated."""
    calls = [to_object(call) for call in to_list(parent.data.get("tools"))]
    for call in calls:
        if call.get("child_run_id") == run.run_id:
            return to_text(call.get("tool_call_id"))
    ids, task = {run.data.get("agent_id"), run.data.get("team_id")} - {None}, _input(run.data)
    for call in calls:
        args = to_object(call.get("tool_args"))
        if args.get("member_id") in ids and args.get("task") == task:
            return to_text(call.get("tool_call_id"))
    return None
