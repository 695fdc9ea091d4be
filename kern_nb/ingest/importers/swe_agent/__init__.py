"""Trajectories of SWE-agent (``<instance>.traj``) and of mini-swe-agent (``<instance>.traj.json``), JSON documents.

* A trajectory is a session with one run: the first user message is the task, later ones are the output of the
  environment. Demonstrations are kept, marked in ``extra``; their calls are no calls.
* The messages are those of ``history``. It may lack the last step, which is then in the run's ``extra``; without a
  history, the messages are those of ``trajectory``. A call took the time that the trajectory states for its action.
* SWE-agent states the tokens and the cost of the whole session only: they are those of the run. mini-swe-agent states
  the cost, and in later versions the usage and time of each answer.
* ``resolved`` of a report beside the file is the score. The instance is the ``task_id`` that pairs experiments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kern_nb.ingest.importer import READ_ERRORS, Draft, Importer, Location, error_text, hash_record
from kern_nb.ingest.importers.swe_agent.messages import Record, Step, parse_messages
from kern_nb.ingest.parsing.times import to_unix_seconds
from kern_nb.ingest.parsing.values import (
    decode_json,
    keep_scalars,
    sum_present,
    to_cost,
    to_count,
    to_list,
    to_object,
    to_text,
    without,
)
from kern_nb.ingest.run_splitter import build_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session, Usage

NAME = "swe_agent"
MINI_FORMAT = "mini-swe-agent"

_REPORTS = ("report.json", "../report.json", "../results.json", "../results/results.json", "../../results.json")
_PASSED = ("resolved", "resolved_ids")
_SUBMITTED = re.compile(r"submitted\s*", re.IGNORECASE)


class SweAgent(Importer):
    """Trajectories of SWE-agent and mini-swe-agent."""

    name = NAME
    reads = "trajectories of SWE-agent and mini-swe-agent"
    locations = (
        Location("trajectories", "**/*.traj", "SWE_AGENT_TRAJECTORY_DIR"),
        Location("~/.config/mini-swe-agent", "*.traj.json", "MSWEA_GLOBAL_CONFIG_DIR"),
        Location("~/Library/Application Support/mini-swe-agent", "*.traj.json"),
        Location("%LOCALAPPDATA%/mini-swe-agent/mini-swe-agent", "*.traj.json"),
    )

    def recognizes(self, source: Source) -> bool:
        """A history with a trajectory of actions, or messages in a format of mini-swe-agent."""
        return any(_is_trajectory(value) or _is_mini(value) for value in source.head)

    def companions(self, source: Source) -> Iterable[Path]:
        """The reports with the scores."""
        return _report_files(source)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per trajectory."""
        position = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
            elif not (_is_trajectory(item.value) or _is_mini(item.value)):
                yield Problem(source.name, item.line, "The record is not imported: it is no trajectory.")
            else:
                position += 1
                name = source.session_name.removesuffix(".traj")
                session_id = name if position == 1 else f"{name}-{position}"
                try:
                    yield from _read_trajectory(source, item.line, item.value, session_id)
                except READ_ERRORS as error:
                    yield Problem(source.name, item.line, f"The trajectory is not imported: {error_text(error)}.")


def _is_trajectory(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    steps = [step for step in to_list(value.get("trajectory")) if isinstance(step, dict)]
    has_steps = any("action" in step and "observation" in step for step in steps)
    history = [message for message in to_list(value.get("history")) if isinstance(message, dict)]
    has_history = any(isinstance(m.get("role"), str) and ("agent" in m or "message_type" in m) for m in history)
    return has_steps or (has_history and "trajectory" in value)


def _is_mini(value: Any) -> bool:
    if not isinstance(value, dict) or not str(value.get("trajectory_format", "")).startswith(MINI_FORMAT):
        return False
    return any(isinstance(m, dict) and ("role" in m or "output" in m) for m in to_list(value.get("messages")))


def _report_files(source: Source) -> list[Path]:
    folder = source.path.absolute().parent
    files = dict.fromkeys((folder / name).resolve() for name in _REPORTS)
    return [file for file in files if file.is_file() and file != source.path.absolute()]


def _read_trajectory(source: Source, line: int, record: Record, session_id: str) -> Iterator[Draft | Problem]:
    info, config = to_object(record.get("info")), _config(record)
    is_mini = _is_mini(record)
    task_id = to_text(record.get("instance_id")) or PurePosixPath(session_id).name
    model = to_text(to_object(to_object(config.get("agent")).get("model")).get("name"))
    model = model or to_text(to_object(config.get("model")).get("model_name"))
    steps = [Step.of(step) for step in to_list(record.get("trajectory"))]
    stated = to_list(record.get("messages" if is_mini else "history"))
    messages, errors = parse_messages(stated, steps)
    for index, reason in errors:
        yield Problem(source.name, line, f"Message {index} is not imported: {reason}.")
    runs, hashes, keys = build_runs(session_id, [messages] if messages else [], model)
    submission, exit_status = info.get("submission"), to_text(info.get("exit_status"))
    for index, run in enumerate(runs):
        _set_outcome(run, exit_status)
        _set_usage(run, to_object(info.get("model_stats")))
        left = [step.record for step in steps if not step.is_said]
        run.extra = {"steps": left} if left else {}
        hashes[index] = hash_record(hashes[index], info, left)
    scores = _read_scores(source, task_id)
    data = {"submission": submission, "info": without(info, ("submission", "config", "model_stats"))}
    metadata = {
        "file": source.name,
        "task_id": task_id,
        "model": model,
        "environment": to_text(record.get("environment")),
        "exit_status": exit_status,
        "api_calls": to_count(to_object(info.get("model_stats")).get("api_calls")),
        "version": to_text(info.get("swe_agent_version")) or to_text(info.get("mini_version")),
    }
    times = [message.created_at for run in runs for message in run.messages if message.created_at]
    yield Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id="mini-swe-agent" if is_mini else "swe-agent",
            agent_data={NAME: {key: value for key, value in data.items() if value}},
            metadata=keep_scalars(metadata),
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(info, model, scores),
        source=NAME,
        scores=scores,
    )


def _config(record: Record) -> Record:
    """The configuration, which older versions write as JSON text."""
    config = decode_json(record.get("replay_config"))
    return to_object(config) or to_object(to_object(record.get("info")).get("config"))


def _set_outcome(run: Run, exit_status: str | None) -> None:
    """A trajectory that was submitted for another reason, as ``submitted (exit_cost)``, did not end by itself."""
    if exit_status is None or _SUBMITTED.fullmatch(exit_status):
        return
    run.status = "ERROR" if "error" in exit_status.lower() or "exception" in exit_status.lower() else "CANCELLED"
    run.error = exit_status


def _set_usage(run: Run, stats: Record) -> None:
    """The totals of the session, where the messages do not state them; a cost of 0 is unknown."""
    used = [message.usage for message in run.messages if message.usage]
    cost = sum_present(usage.cost for usage in used)
    usage = Usage(
        input_tokens=None if used else to_count(stats.get("tokens_sent")),
        output_tokens=None if used else to_count(stats.get("tokens_received")),
        cost=None if cost else to_cost(stats.get("instance_cost")),
    )
    if usage != Usage():
        run.usage = usage


def _read_scores(source: Source, task_id: str) -> dict[str, float]:
    """Whether the instance is resolved, as the first report says that names it."""
    for file in _report_files(source):
        try:
            values = list(Source(file, file.name).head)
        except OSError:
            continue
        for report in values:
            if isinstance(report, dict) and (score := _find_score(report, task_id)) is not None:
                return {"resolved": score}
    return {}


def _find_score(report: Record, task_id: str) -> float | None:
    own = to_object(report.get(task_id)).get("resolved")
    if isinstance(own, bool):
        return float(own)
    if any(task_id in to_list(report.get(name)) for name in _PASSED):
        return 1.0
    is_named = any(task_id in value for value in report.values() if isinstance(value, list))
    return 0.0 if is_named and any(isinstance(report.get(name), list) for name in _PASSED) else None
