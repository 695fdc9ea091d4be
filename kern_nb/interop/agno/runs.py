"""Runs of Agno's agents, teams and workflows, and the runs of steps that are inside a workflow's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast, get_args

from kern_nb.interop.agno.messages import (
    AGNO,
    calls_from_agno,
    message_from_agno,
    message_to_agno,
    tool_to_agno,
)
from kern_nb.interop.agno.requirements import (
    answered,
    answered_step,
    is_answered,
    requirement_from_agno,
    step_requirements_from_agno,
)
from kern_nb.interop.agno.usage import metrics_from_usage, usage_from_metrics
from kern_nb.interop.agno.values import JsonObject, restore, split, to_float, to_seconds, to_text, to_time, without_none
from kern_nb.records import OPEN_STATUSES, Requirement, Run, RunStatus, SessionType

_STATUSES = get_args(RunStatus)
_NESTED = ("metrics", "input")
_OWNERS = ("agent_id", "team_id", "workflow_id")

# In the ``internal`` of a run, under `AGNO`:
_TOOLS = "tools"  # the ids of the calls in its ``tools``, in order
_RAW_CALLS = "raw_calls"  # its calls have no ids of their own, and are in ``extra`` as Agno states them
_NO_MESSAGES = "no_messages"  # Agno's list of its messages, if any, is in ``extra``
_RUNS = "runs"  # by key of Agno's dict: the ids of the runs inside it, which are rows of their own
_PAUSED = "paused"  # Agno saved it as paused, and whoever resumes it has claimed it since
AS_IS = "as_is"  # its ``extra`` is Agno's whole dict
_INSIDE = "inside"  # it is inside the dict of its parent

_RUNS_INSIDE = ("step_executor_runs", "workflow_agent_run")
"""Keys of Agno's dict of a workflow run whose values are complete runs, without a row in Agno's database."""


def run_type(data: Mapping[str, Any]) -> SessionType:
    """The type of a run, as Agno derives it."""
    if data.get("agent_id") or data.get("agent_name"):
        return "agent"
    return "team" if data.get("team_id") or data.get("team_name") else "workflow"


def is_nested(run: Run) -> bool:
    """Whether Agno has a run inside the dict of its parent, and not in its list of runs."""
    return _INSIDE in run.internal.get(AGNO, {})


def has_runs(run: Run) -> bool:
    """Whether Agno has runs inside the dict of a run."""
    return _RUNS in run.internal.get(AGNO, {})


def from_agno(
    data: JsonObject, *, kind: SessionType | None = None, user_id: str | None = None, has_steps: bool = True
) -> list[Run]:
    """The runs of a store for one of Agno's: the run, and the runs inside it.

    Args:
        data: Agno's dict of the run, with JSON's types.
        kind: Its type; None derives it.
        user_id: The user of its session.
        has_steps: Whether the runs inside it become runs of their own.
    """
    messages = data["messages"] if _is_dicts(data.get("messages")) else []
    tools = data["tools"] if _is_dicts(data.get("tools")) else []
    repeated = _repeated(data)
    calls, is_exact = calls_from_agno(messages, tools, repeated)
    run = _run(data, kind or run_type(data), user_id)
    options: JsonObject = {"provider": run.model_provider, "model": run.model, "is_exact": is_exact}
    run.messages = [
        message_from_agno(message, calls, **options, is_repeated=index < repeated)
        for index, message in enumerate(messages)
    ]
    run.tool_calls = list(calls.values())
    note: JsonObject = {} if messages else {_NO_MESSAGES: True}
    if not is_exact:
        note[_RAW_CALLS] = True
    elif _is_dicts(data.get("tools")):
        note[_TOOLS] = [tool["tool_call_id"] for tool in tools]
    if run.status == "PAUSED":
        note[_PAUSED] = True
    inside = _runs_inside(data) if has_steps else {}
    steps, earlier, ids = _steps(inside, run.run_id, user_id)
    if len({step.run_id for step in (run, *steps)}) <= len(steps):  # they have no ids of their own
        return from_agno(data, kind=kind, user_id=user_id, has_steps=False)
    run.internal = {AGNO: note | ({_RUNS: ids} if ids else {})}
    run.requirements = _requirements(data, {step.run_id for step in steps}, is_paused=run.status == "PAUSED")
    # What is split into rows of its own is compared there.
    in_rows = {*inside, *(["messages"] if messages else []), *(["tools"] if _TOOLS in note else [])}
    source = {key: value for key, value in data.items() if key not in in_rows}
    extra, differences = split(source, _columns(run), _NESTED)
    run.extra = extra | earlier
    run.internal[AGNO] |= differences
    return [run, *steps]


def _run(data: JsonObject, kind: SessionType, user_id: str | None) -> Run:
    """A run without its messages and calls."""
    status = data.get("status")
    metrics = data.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    content, duration_s = data.get("content"), to_float(metrics.get("duration"))
    error = content if status == "ERROR" and isinstance(content, str) else None
    provider = to_text(data.get("model_provider"))
    run = Run(
        run_id=str(data["run_id"]),
        session_id=to_text(data.get("session_id")),
        parent_run_id=to_text(data.get("parent_run_id")),
        run_type=kind,
        user_id=user_id,
        status=cast("RunStatus", status if status in _STATUSES else "COMPLETED"),
        model=to_text(data.get("model")),
        model_provider=provider,
        input=_input(data.get("input")),
        output=None if error is not None else content,
        error=error,
        usage=None if kind == "workflow" else usage_from_metrics(metrics, provider),
        duration_s=duration_s,
        time_to_first_token_s=to_float(metrics.get("time_to_first_token")),
        session_state=state if isinstance(state := data.get("session_state"), dict) else None,
        created_at=to_time(data.get("created_at")),
    )
    for name in _OWNERS:
        setattr(run, name, to_text(data.get(name)))
    if run.created_at is not None and duration_s is not None and run.status not in OPEN_STATUSES:
        run.finished_at = run.created_at + timedelta(seconds=duration_s)
    return run


def _steps(inside: JsonObject, run_id: str, user_id: str | None) -> tuple[list[Run], JsonObject, JsonObject]:
    """The runs inside a run; earlier versions of those that were resumed; their ids, by key."""
    runs: list[Run] = []
    earlier: JsonObject = {}
    ids: JsonObject = {}
    for key, values in inside.items():
        many: list[JsonObject] = values if isinstance(values, list) else [values]
        ids[key] = [value["run_id"] for value in many] if isinstance(values, list) else values["run_id"]
        last = {value["run_id"]: index for index, value in enumerate(many)}
        if len(last) < len(many):
            earlier[key] = [None if last[value["run_id"]] == index else value for index, value in enumerate(many)]
        for value in (many[index] for index in last.values()):
            step, *rest = from_agno(value, user_id=user_id)
            step.parent_run_id = run_id
            step.internal[AGNO][_INSIDE] = {"key": key, "parent_run_id": value.get("parent_run_id")}
            runs += [step, *rest]
    return runs, earlier, ids


def _runs_inside(data: JsonObject) -> JsonObject:
    """The complete runs inside a dict, by key."""
    inside: JsonObject = {}
    for key in _RUNS_INSIDE:
        values = data.get(key)
        many: list[Any] = values if isinstance(values, list) else [values]
        if many and all(isinstance(v, dict) and isinstance(v.get("run_id"), str) for v in many):
            inside[key] = values
    return inside


def _repeated(data: JsonObject) -> int:
    """The number of messages that a fork of a run repeats. One that replaces its source is part of the history."""
    index = data.get("forked_from_message_index")
    is_fork = data.get("forked_from_run_id") is not None and data.get("regenerated_from") is None
    return index if is_fork and isinstance(index, int) else 0


def _is_dicts(values: Any) -> bool:
    """Whether a value is a list of dicts."""
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _requirements(data: JsonObject, steps: Collection[str], *, is_paused: bool) -> list[Requirement]:
    """The requirements of a run itself; those of its members, and of the runs of its ``steps``, belong to these."""
    requirements = data.get("requirements")
    dicts = [r for r in requirements if isinstance(r, dict) and r.get("id")] if isinstance(requirements, list) else []
    own = [r for r in dicts if r.get("member_run_id") in {None, data.get("run_id")}]
    result = [requirement_from_agno(requirement, is_paused=is_paused) for requirement in own]
    of_steps = data.get("step_requirements")
    for step in of_steps if isinstance(of_steps, list) else ():
        if isinstance(step, dict) and step.get("executor_run_id") not in steps:
            ids = {requirement.requirement_id for requirement in result}
            result += [
                r for r in step_requirements_from_agno(step, ids, is_paused=is_paused) if r.requirement_id not in ids
            ]
    return result


def _input(value: Any) -> Any:
    """The input of a run: that of an agent's or a team's is inside an object with its media."""
    return value.get("input_content") if isinstance(value, dict) and "input_content" in value else value


def to_agno(run: Run, *, inside: Mapping[str, Run] | None = None) -> JsonObject:
    """Agno's dict of a run; the inverse of `from_agno` for its own.

    Args:
        run: The run.
        inside: By id, the runs that may be inside it.
    """
    note = run.internal.get(AGNO)
    if note is not None and AS_IS in note:
        return dict(run.extra)
    columns = _columns(run)
    if note is None:
        data = columns | _rows(run) | {"content_type": "str"}
        if run.run_type == "workflow":  # its tokens are those of its steps
            data["metrics"] = {"steps": {}} | without_none({"duration": run.duration_s})
    else:
        data = restore(columns, run.extra, note, _NESTED) | _rows(run)
        data = _with_answers(data, run.requirements)
        for key, ids in note.get(_RUNS, {}).items():
            data[key] = _inside_to_agno(ids, run.extra.get(key), inside or {})
    return data


def _inside_to_agno(ids: Any, earlier: list[Any] | None, inside: Mapping[str, Run]) -> Any:
    """Agno's dicts of the runs inside a run: of one, or of a list."""
    many = [ids] if isinstance(ids, str) else ids
    dicts = []
    for run_id, before in zip(many, earlier or [None] * len(many), strict=True):
        step = inside.get(run_id)
        if before is not None:
            dicts.append(before)
        elif step is not None:
            dicts.append(_nested_to_agno(step, inside))
    return (dicts[0] if dicts else None) if isinstance(ids, str) else dicts


def _nested_to_agno(run: Run, inside: Mapping[str, Run] | None) -> JsonObject:
    data = to_agno(run, inside=inside)
    parent = run.internal[AGNO].get(_INSIDE, {}).get("parent_run_id")
    if parent is None:
        data.pop("parent_run_id", None)
    else:
        data["parent_run_id"] = parent
    return data


def _columns(run: Run) -> JsonObject:
    """What Agno's dict of a run has from columns."""
    provider = run.model_provider
    metrics = metrics_from_usage(run.usage, provider) or {}
    times = {"time_to_first_token": run.time_to_first_token_s, "duration": run.duration_s}
    columns: JsonObject = {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "parent_run_id": run.parent_run_id,
        "user_id": run.user_id,
        "content": run.error if run.output is None else run.output,
        "model": run.model,
        "model_provider": provider,
        "session_state": run.session_state,
        "created_at": to_seconds(run.created_at),
        "status": _status(run),
        "metrics": metrics | without_none(times) or None,
    }
    columns |= {name: getattr(run, name) for name in _OWNERS}
    if run.input is not None:
        columns["input"] = run.input if run.run_type == "workflow" else {"input_content": run.input}
    columns = without_none(columns)
    columns.setdefault(f"{run.run_type}_id", None)  # Agno skips a run without this key
    return columns


def _status(run: Run) -> str:
    """The status of a run, in Agno's words."""
    if run.status == "RUNNING" and _PAUSED in run.internal.get(AGNO, {}):
        return "PAUSED"
    return "ERROR" if run.status == "INTERRUPTED" else run.status


def _rows(run: Run) -> JsonObject:
    """What Agno's dict of a run has from rows of messages and tool calls."""
    note = run.internal.get(AGNO, {})
    is_exact = not note.get(_RAW_CALLS, False)
    rows: JsonObject = {}
    if run.messages or (AGNO in run.internal and _NO_MESSAGES not in note):
        provider = run.model_provider
        rows["messages"] = [message_to_agno(message, provider, is_exact=is_exact) for message in run.messages]
    by_id = {call.tool_call_id: call for call in run.tool_calls}
    if _TOOLS in note:
        rows["tools"] = [tool_to_agno(by_id[call_id]) for call_id in note[_TOOLS] if call_id in by_id]
    elif AGNO not in run.internal and by_id:
        rows["tools"] = [tool_to_agno(call) for call in run.tool_calls]
    return rows


def _with_answers(data: JsonObject, requirements: Sequence[Requirement]) -> JsonObject:
    """A paused run with the answers that the store has, which its agent then continues with."""
    # Those that Agno itself stored have no time.
    resolved = {r.requirement_id: r for r in requirements if r.status == "resolved" and r.resolved_at is not None}
    if data.get("status") != "PAUSED" or not resolved:
        return data
    result = dict(data)
    if _is_dicts(data.get("step_requirements")):
        result["step_requirements"] = [answered_step(step, resolved) for step in data["step_requirements"]]
    if not _is_dicts(data.get("requirements")):
        return result
    changed, tools = [], {}
    for requirement in data["requirements"]:
        # Agno saved one with its answer once it had used it: its call is not made again.
        answer = None if is_answered(requirement) else resolved.get(requirement.get("id"))
        now = requirement if answer is None else answered(requirement, answer)
        changed.append(now)
        if answer is not None:
            tools[now["tool_execution"].get("tool_call_id")] = now["tool_execution"]
    result["requirements"] = changed
    if _is_dicts(data.get("tools")):
        result["tools"] = [tools.get(tool.get("tool_call_id"), tool) for tool in data["tools"]]
    return result
