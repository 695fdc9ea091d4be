"""Result files of the tau2 benchmark: one JSON object with the experiment (`info`, `tasks`) and its `simulations`.

A simulation is a session. Its scalars are the session's metadata; larger values (the task, details of the reward) go to
``agent_data``, which no frame reads. There ``info`` is the SHA-256 of the experiment's info: it includes the policy, is
long, and is stored once for all sessions, as a blob. Times are in an unstated time zone: they are read as UTC, and the
metadata says ``time_zone: unknown``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from typing import Any, NamedTuple

from kern_nb.db import codec
from kern_nb.db.mapping import to_micros
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.json_source import Source
from kern_nb.ingest.report import Problem
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.records import Message, Run, Session, ToolCall, Usage

NAME = "tau2"

# The fields of a message, and of its usage, that map to fields of our records; the others go to `extra`.
_MAPPED_FIELDS = frozenset({"role", "content", "tool_calls", "timestamp", "cost", "usage"})
_MAPPED_COUNTS = frozenset({"prompt_tokens", "completion_tokens"})


class Tau2(Importer):
    """Result files of tau2."""

    name = NAME
    reads = "result files of the tau2 benchmark"

    def recognizes(self, source: Source) -> bool:
        """An object with a list of simulations."""
        return any(map(_is_experiment, source.head))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per simulation."""
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif not _is_experiment(item.value):
                yield Problem(source.name, item.line, "The record has no list of simulations.")
            else:
                yield from _read_simulations(source, item.line, item.value)


def _is_experiment(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("simulations"), list)


def _read_simulations(source: Source, line: int, document: dict[str, Any]) -> Iterator[Draft | Problem]:
    try:
        experiment = _parse_experiment(source, document)
    except RECORD_ERRORS as error:
        yield Problem(source.name, line, f"The experiment is not imported: {error_text(error)}.")
        return
    for index, simulation in enumerate(document["simulations"]):
        line_of_record = partial(source.line_of, "simulations", index, line)
        try:
            yield _draft(simulation, experiment, line_of_record)
        except RECORD_ERRORS as error:
            yield Problem(source.name, line_of_record(), f"Simulation {index} is not imported: {error_text(error)}.")


class _Experiment(NamedTuple):
    file: str
    metadata: dict[str, Any]
    agent: dict[str, Any]
    tasks: dict[str, Any]
    info: dict[str, bytes]


def _parse_experiment(source: Source, document: dict[str, Any]) -> _Experiment:
    info = _to_dict(document.get("info"))
    agent = _to_dict(info.get("agent_info"))
    tasks = document["tasks"] if isinstance(document.get("tasks"), list) else []
    serialized_info = codec.dumps(info).encode()
    metadata = {
        "experiment": PurePath(source.name).stem,
        "domain": _to_dict(info.get("environment_info")).get("domain_name"),
        "model": agent.get("llm"),
        "user_model": _to_dict(info.get("user_info")).get("llm"),
        "time_zone": "unknown",
    }
    return _Experiment(
        file=source.name,
        metadata={key: value for key, value in metadata.items() if value is not None},
        agent=agent,
        tasks={str(task.get("id")): task for task in tasks if isinstance(task, dict)},
        info={sha256(serialized_info).hexdigest(): serialized_info},
    )


def _draft(simulation: Any, experiment: _Experiment, line: Callable[[], int]) -> Draft:
    session_id = require_field(simulation, "id", str, "the simulation")
    messages = require_field(simulation, "messages", list, "the simulation")
    fields = {key: value for key, value in simulation.items() if key not in ("id", "messages") and value is not None}
    scalars = {key: value for key, value in fields.items() if not isinstance(value, (dict, list))}
    nested = {key: value for key, value in fields.items() if isinstance(value, (dict, list))}
    task = experiment.tasks.get(str(fields.get("task_id")))
    model, [info] = experiment.metadata.get("model"), experiment.info
    runs, hashes, keys = split_runs(session_id, [_parse_message(m, i, model) for i, m in enumerate(messages)], model)
    _set_final_status(runs, hashes, fields.get("termination_reason"))
    times = (fields.get(key) for key in ("start_time", "end_time", "timestamp"))
    start, end, scored_at = (None if time is None else to_micros(datetime.fromisoformat(time)) for time in times)
    session = Session(
        session_id=session_id,
        agent_id=experiment.agent.get("implementation"),
        agent_data={**experiment.agent, NAME: {"info": info, "task": task, **nested}},
        metadata=experiment.metadata | scalars,
        created_at=None if start is None else start // 1_000_000,
        updated_at=None if end is None else end // 1_000_000,
        duration_s=fields.get("duration"),
    )
    return Draft(
        file=experiment.file,
        line=line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields, info, task),  # without the file name: a renamed copy is the same session
        blobs=experiment.info,
        source=NAME,
        scores=_parse_scores(fields.get("reward_info")),
        scored_at=scored_at,
    )


def _parse_message(record: Any, index: int, model: str | None) -> SourceMessage:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord(f"message {index} must be an object with a role")
    role: str = record["role"]
    extra = {key: value for key, value in record.items() if key not in _MAPPED_FIELDS and value is not None}
    try:
        message = Message(
            role=role,
            content=record.get("content"),
            tool_calls=[_parse_call(call, record.get("timestamp")) for call in record.get("tool_calls") or ()],
            tool_call_id=extra.pop("id", None) if role == "tool" else None,
            is_error=extra.pop("error") if isinstance(extra.get("error"), bool) else None,
            model=model if role == "assistant" else None,
            usage=_parse_usage(record, extra),
            created_at=record.get("timestamp"),
            extra=extra,
        )
    except RECORD_ERRORS as error:
        raise MalformedRecord(f"message {index}: {error_text(error)}") from error
    return SourceMessage(message, record)


def _parse_call(record: dict[str, Any], timestamp: Any) -> ToolCall:
    mapped = ("id", "name", "arguments", "requestor")
    return ToolCall(
        tool_call_id=record.get("id"),
        tool_name=record.get("name"),
        args=record.get("arguments"),
        caller=record.get("requestor") or "assistant",
        created_at=timestamp,
        extra={key: value for key, value in record.items() if key not in mapped and value is not None},
    )


def _parse_usage(record: dict[str, Any], extra: dict[str, Any]) -> Usage | None:
    """The usage of a message; counts other than prompt and completion tokens are added to ``extra``."""
    usage, cost = record.get("usage"), record.get("cost")
    if usage is None and cost is None:
        return None
    counts = usage or {}
    if counts.keys() - _MAPPED_COUNTS:
        extra["usage"] = {key: value for key, value in counts.items() if key not in _MAPPED_COUNTS}
    return Usage(input_tokens=counts.get("prompt_tokens"), output_tokens=counts.get("completion_tokens"), cost=cost)


def _set_final_status(runs: list[Run], hashes: list[str], reason: Any) -> None:
    if not runs or not isinstance(reason, str) or reason.endswith("_stop"):
        return
    runs[-1].status = "ERROR" if "error" in reason else "CANCELLED"
    runs[-1].error = reason
    hashes[-1] = hash_record(hashes[-1], reason)


def _parse_scores(info: Any) -> dict[str, float]:
    """The reward and its factors; values that are not finite numbers are ignored."""
    info = _to_dict(info)
    scores = {"reward": info.get("reward")}
    scores |= {f"reward.{key}": value for key, value in _to_dict(info.get("reward_breakdown")).items()}
    return {
        key: float(value) for key, value in scores.items() if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _to_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
