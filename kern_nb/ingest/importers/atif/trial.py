"""The folder of a Harbor trial around a trajectory: the task, the reward, the error and the times of the trial.

A trial has ``agent/trajectory.json``, ``result.json``, and the reward in ``verifier/reward.txt`` or ``reward.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from kern_nb.db.file_descriptors import open_binary
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.values import finite_scores, split_scalars, to_object
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem

_MAIN = "trajectory.json"
_RESULT = "result.json"
_REWARDS = ("verifier/reward.json", "verifier/reward.txt", "reward.json", "reward.txt")
_RESULT_KEYS = frozenset({"verifier_result", "task_name", "trial_name", "agent_result", "exception_info"})
_MAX_BYTES = 10_000_000
_NAMES = ("task_name", "trial_name", "source", "task_checksum")


@dataclass
class Trial:
    """What the files beside a trajectory state."""

    metadata: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    scored_at: int | None = None
    duration_s: float | None = None
    provider: str | None = None
    error: str | None = None
    problems: list[Problem] = field(default_factory=list)


def trial_files(trajectory: Path) -> list[Path]:
    """The result and the rewards beside a trial's main trajectory."""
    if trajectory.name != _MAIN and (trajectory.parent / _MAIN).exists():
        return []
    folders = [trajectory.parent]
    if trajectory.absolute().parent.name == "agent":
        folders.append(trajectory.parent.parent)
    names = (_RESULT, *_REWARDS)
    return [folder / name for folder in folders for name in names if (folder / name).is_file()]


def read_trial(source: Source) -> Trial:
    """Read what belongs to a trajectory. A damaged file is a problem, and leaves the others."""
    trial = Trial()
    rewards: dict[str, Any] = {}
    for path in trial_files(source.path):
        name = _name_of(path, source)
        try:
            with open_binary(path) as file:
                value = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            trial.problems.append(Problem(name, None, f"The file is not imported: {str(error).rstrip('.')}."))
            continue
        if path.name != _RESULT:
            rewards = (value if isinstance(value, dict) else {"reward": value}) | rewards
        elif isinstance(value, dict) and not _RESULT_KEYS.isdisjoint(value):
            rewards |= _read_result(trial, value)
    try:
        trial.scores = finite_scores(rewards)
    except OverflowError as error:
        trial.problems.append(Problem(source.name, None, f"The reward is not imported: {error}."))
    return trial


def _name_of(path: Path, source: Source) -> str:
    """The name of a file as problems show it, from that of the trajectory."""
    folder, name = source.path.parent, PurePath(source.name).parent
    if not path.is_relative_to(folder):
        folder, name = folder.parent, name.parent
    return (name / path.relative_to(folder)).as_posix()


def _read_result(trial: Trial, result: dict[str, Any]) -> dict[str, Any]:
    """Set the facts of a trial; return its rewards."""
    facts = {key: result[key] for key in _NAMES if isinstance(result.get(key), str)}
    task = result.get("task_name") or result.get("task_id")
    trial.metadata = facts | ({"task_id": task} if isinstance(task, str) else {})
    model = to_object(to_object(result.get("agent_info")).get("model_info"))
    trial.provider = model["provider"] if isinstance(model.get("provider"), str) else None
    trial.details = {"result": split_scalars(result)[1] | {"started_at": result.get("started_at")}}
    error = to_object(result.get("exception_info"))
    if error:
        texts = (error.get("exception_type"), error.get("exception_message"))
        trial.error = ": ".join(str(text) for text in texts if text) or "the trial failed"
    execution = to_object(result.get("agent_execution"))
    start, end = to_time(execution.get("started_at")), to_time(execution.get("finished_at"))
    trial.duration_s = (end - start).total_seconds() if start and end and end >= start else None
    scored_at = to_time(to_object(result.get("verifier")).get("finished_at")) or to_time(result.get("finished_at"))
    verdict = to_object(result.get("verifier_result"))
    rewards = to_object(verdict.get("rewards")) or {"reward": verdict.get("reward")}
    if scored_at is not None:
        trial.scored_at = int(scored_at.timestamp() * 1_000_000)
    return rewards
