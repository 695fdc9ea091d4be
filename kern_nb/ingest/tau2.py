"""Result files of the tau2 benchmark: one JSON object with the experiment (`info`, `tasks`) and its `simulations`.

A simulation is a session. Its scalars are the session's metadata; what is larger (the task, the reward's grounds) is
kept in ``agent_data``, where no frame has to read it. There ``info`` is the SHA-256 of the experiment's:
with the policy it is long, and is stored once for all sessions, as a blob. Times are local to a machine nobody named:
they are read as UTC, and the metadata says ``time_zone: unknown``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from typing import Any, NamedTuple

from kern_nb.db import codec
from kern_nb.db.mapping import to_micros
from kern_nb.ingest.importer import AMISS, Draft, Malformed, hash_of, need, why
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem
from kern_nb.ingest.run_splitter import Said, runs_of
from kern_nb.records import Message, Run, Session, ToolCall, Usage

NAME = "tau2"
READS = "result files of the tau2 benchmark"

# What has a place of its own: the fields of a message, and of its usage. The rest is kept in `extra`.
_PLACED = frozenset({"role", "content", "tool_calls", "timestamp", "cost", "usage"})
_COUNTED = frozenset({"prompt_tokens", "completion_tokens"})


def recognises(value: Any) -> bool:
    """An object with a list of simulations."""
    return isinstance(value, dict) and isinstance(value.get("simulations"), list)


def read(source: Source) -> Iterator[Draft | Problem]:
    """One draft a simulation."""
    for found in source.values():
        if isinstance(found, Problem):
            yield found
        elif not recognises(found.value):
            yield Problem(source.name, found.line, "There is no list of simulations here.")
        else:
            yield from _simulations(source, found.line, found.value)


def _simulations(source: Source, line: int, document: dict[str, Any]) -> Iterator[Draft | Problem]:
    try:
        experiment = _experiment(source, document)
    except AMISS as error:
        yield Problem(source.name, line, f"The experiment cannot be read: {why(error)}")
        return
    for index, simulation in enumerate(document["simulations"]):
        place = partial(source.line_of, "simulations", index, line)
        try:
            yield _draft(simulation, experiment, place)
        except AMISS as error:
            yield Problem(source.name, place(), f"Simulation {index} is left out: {why(error)}.")


class _Experiment(NamedTuple):
    """What all simulations of a file share."""

    file: str
    metadata: dict[str, Any]
    agent: dict[str, Any]
    model: str | None
    tasks: dict[str, Any]
    info: dict[str, bytes]


def _experiment(source: Source, document: dict[str, Any]) -> _Experiment:
    info = _object(document.get("info"))
    agent = _object(info.get("agent_info"))
    tasks, told = document.get("tasks"), codec.dumps(info).encode()
    metadata = {
        "experiment": PurePath(source.name).stem,
        "domain": _object(info.get("environment_info")).get("domain_name"),
        "model": agent.get("llm"),
        "user_model": _object(info.get("user_info")).get("llm"),
        "time_zone": "unknown",
    }
    return _Experiment(
        file=source.name,
        metadata={key: value for key, value in metadata.items() if value is not None},
        agent=agent,
        model=metadata["model"],
        tasks={str(task.get("id")): task for task in tasks if isinstance(task, dict)}
        if isinstance(tasks, list)
        else {},
        info={sha256(told).hexdigest(): told},
    )


def _draft(simulation: Any, experiment: _Experiment, line: Callable[[], int]) -> Draft:
    session_id = need(simulation, "id", str, "it")
    messages = need(simulation, "messages", list, "it")
    rest = {key: value for key, value in simulation.items() if key not in ("id", "messages") and value is not None}
    scalars = {key: value for key, value in rest.items() if not isinstance(value, (dict, list))}
    larger = {key: value for key, value in rest.items() if isinstance(value, (dict, list))}
    task = experiment.tasks.get(str(rest.get("task_id")))
    model, [info] = experiment.model, experiment.info
    runs, hashes = runs_of(session_id, [_said(m, i, model) for i, m in enumerate(messages)], model)
    _end(runs, hashes, rest.get("termination_reason"))
    start, end, told = (_micros(rest, key) for key in ("start_time", "end_time", "timestamp"))
    session = Session(
        session_id=session_id,
        agent_id=experiment.agent.get("implementation"),
        agent_data={**experiment.agent, NAME: {"info": info, "task": task, **larger}},
        metadata=experiment.metadata | scalars,
        created_at=None if start is None else start // 1_000_000,
        updated_at=None if end is None else end // 1_000_000,
        duration_s=rest.get("duration"),
    )
    return Draft(
        file=experiment.file,
        line=line,
        session=session,
        runs=runs,
        hashes=hashes,
        session_hash=hash_of(rest, info, task),  # not the file's name: a copy under another name is no other session
        blobs=experiment.info,
        source=NAME,
        scores=_scores(rest.get("reward_info")),
        scored_at=told,
    )


def _said(record: Any, index: int, model: str | None) -> Said:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise Malformed(f"message {index} is no object with a role")
    role: str = record["role"]
    extra = {key: value for key, value in record.items() if key not in _PLACED and value is not None}
    calls = record.get("tool_calls")
    try:
        message = Message(
            role=role,
            content=record.get("content"),
            tool_calls=[_call(call, record.get("timestamp")) for call in calls] if calls else [],
            tool_call_id=extra.pop("id", None) if role == "tool" else None,
            is_error=extra.pop("error") if isinstance(extra.get("error"), bool) else None,
            model=model if role == "assistant" else None,
            usage=_usage(record, extra),
            created_at=record.get("timestamp"),
            extra=extra,
        )
    except AMISS as error:
        raise Malformed(f"message {index}: {why(error)}") from error
    return Said(message, record)


def _call(record: dict[str, Any], timestamp: Any) -> ToolCall:
    placed = ("id", "name", "arguments", "requestor")
    return ToolCall(
        tool_call_id=record.get("id"),
        tool_name=record.get("name"),
        args=record.get("arguments"),
        caller=record.get("requestor") or "assistant",
        created_at=timestamp,
        extra={key: value for key, value in record.items() if key not in placed and value is not None},
    )


def _usage(record: dict[str, Any], extra: dict[str, Any]) -> Usage | None:
    """The usage of a message; what it counts beyond prompt and completion goes to ``extra``."""
    usage, cost = record.get("usage"), record.get("cost")
    if usage is None and cost is None:
        return None
    counts = usage or {}
    if counts.keys() - _COUNTED:
        extra["usage"] = {key: value for key, value in counts.items() if key not in _COUNTED}
    return Usage(input_tokens=counts.get("prompt_tokens"), output_tokens=counts.get("completion_tokens"), cost=cost)


def _end(runs: list[Run], hashes: list[str], reason: Any) -> None:
    """How the simulation ended is how its last run did."""
    if not runs or not isinstance(reason, str) or reason.endswith("_stop"):
        return
    runs[-1].status = "ERROR" if "error" in reason else "CANCELLED"
    runs[-1].error = reason
    hashes[-1] = hash_of(hashes[-1], reason)


def _scores(info: Any) -> dict[str, float]:
    """The reward, and what it is the product of; what is no number is left out."""
    info = _object(info)
    told = {"reward": info.get("reward")}
    told |= {f"reward.{key}": value for key, value in _object(info.get("reward_breakdown")).items()}
    return {
        key: float(value) for key, value in told.items() if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _micros(record: dict[str, Any], key: str) -> int | None:
    """Unix microseconds of a time; one without a zone is read as UTC."""
    if key not in record:
        return None
    time = datetime.fromisoformat(record[key])
    return to_micros(time.replace(tzinfo=UTC) if time.tzinfo is None else time)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
