"""Result files of the tau2 benchmark: one JSON object with the experiment (``info``, ``tasks``) and its ``simulations``.

A simulation is a session. Its scalars are the session's metadata; what is larger (the task, the reward's grounds, the
policy) is kept in ``agent_data``, where no frame has to read it. Times are local to a machine nobody named: they are read
as UTC, and the metadata says ``time_zone: unknown``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from kern_nb.ingest.drafts import Draft, Malformed, hash_of, kind_of, need, why
from kern_nb.ingest.report import Problem
from kern_nb.ingest.source import Source
from kern_nb.ingest.turns import Said, runs_of
from kern_nb.records import Message, Run, Session, ToolCall, Usage

NAME = "tau2"
READS = "result files of the tau2 benchmark"

# The fields of a message that have a place of their own; the rest is kept in `extra`.
_PLACED = frozenset({"role", "content", "tool_calls", "timestamp", "cost", "usage"})


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
    info = _object(document.get("info"))
    tasks = {task.get("id"): task for task in document.get("tasks") or () if isinstance(task, dict)}
    experiment = _experiment(source, info)
    for index, simulation in enumerate(document["simulations"]):
        try:
            yield _draft(simulation, info, tasks, experiment, line)
        except (ValueError, TypeError, AttributeError) as error:
            name = f"simulation {index}"
            yield Problem(source.name, source.line_of("simulations", index, line), f"{name} is left out: {why(error)}.")


def _experiment(source: Source, info: dict[str, Any]) -> dict[str, Any]:
    """The metadata that all simulations of a file share."""
    agent, user = _object(info.get("agent_info")), _object(info.get("user_info"))
    return {
        "experiment": PurePath(source.name).stem,
        "domain": _object(info.get("environment_info")).get("domain_name"),
        "model": agent.get("llm"),
        "user_model": user.get("llm"),
        "agent": agent.get("implementation"),
        "time_zone": "unknown",
    }


def _draft(
    simulation: Any, info: dict[str, Any], tasks: dict[Any, Any], experiment: dict[str, Any], line: int
) -> Draft:
    session_id = str(need(simulation, "id", str, "the simulation"))
    messages = need(simulation, "messages", list, "the simulation")
    rest = {key: value for key, value in simulation.items() if key not in ("id", "messages", "duration")}
    scalars = {key: value for key, value in rest.items() if not isinstance(value, (dict, list)) and value is not None}
    larger = {key: value for key, value in rest.items() if isinstance(value, (dict, list))}
    task = tasks.get(simulation.get("task_id"))
    model = experiment["model"]
    said = [_said(message, index, model) for index, message in enumerate(messages)]
    runs, hashes = runs_of(session_id, said, model)
    _end(runs, hashes, simulation.get("termination_reason"))
    start, end = _seconds(rest.get("start_time")), _seconds(rest.get("end_time"))
    session = Session(
        session_id=session_id,
        agent_id=experiment["agent"],
        agent_data={**_object(info.get("agent_info")), NAME: {"info": info, "task": task, **larger}},
        metadata={key: value for key, value in experiment.items() if value is not None} | scalars,
        created_at=start,
        updated_at=end,
        duration_s=simulation.get("duration"),
    )
    said_of_session = (rest, simulation.get("duration"), info, task, experiment["experiment"])
    stamp = _time(rest.get("timestamp"))
    return Draft(
        line=line,
        session=session,
        runs=runs,
        hashes=hashes,
        session_hash=hash_of(*said_of_session),
        source=NAME,
        scores=_scores(rest.get("reward_info")),
        scored_at=None if stamp is None else round(stamp.timestamp() * 1_000_000),
    )
