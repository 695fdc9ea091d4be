"""Trajectories of tau-bench, tau2's predecessor: a JSON list with a record per task and trial.

A record is a session, named after the file, the task and the trial; its ``traj`` is a conversation of the chat API.
There are no times and no usage. The model, the domain and the simulated user's model are in the name of the file at
most: they go to the metadata. ``user_cost`` is the simulated user's cost, not the agent's. A tool's error is only a
text that begins with "Error": such a result is marked with ``error_inferred`` in its ``extra``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Any

from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.parsing.values import (
    checked_id,
    drop_null,
    finite_scores,
    split_scalars,
    to_args,
    to_id,
    to_list,
    to_object,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session, ToolCall

NAME = "tau_bench"

_MAPPED_FIELDS = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "name"})
_RECORD_FIELDS = ("traj", "info", "task_id")
_DOMAINS = "airline|retail|telecom|telehealth"
_RESULT_NAME = re.compile(
    r"(?P<agent>tool-calling|act|react|few-shot)-(?P<model>.+)-(?P<temperature>[\d.]+)_range_.*_user-(?P<user_model>.+)-"
    r"(?P<user_strategy>llm|react|verify|reflection|human)_\d+"
)
_HISTORICAL_NAME = re.compile(rf"(?P<model>.+)-(?P<domain>{_DOMAINS})")
_API_OUTPUT = "API output:"
"""The prefix of a tool's result, as an agent that only writes text receives it."""


class TauBench(Importer):
    """Trajectories of tau-bench."""

    name = NAME
    reads = "trajectories of tau-bench"

    def recognizes(self, source: Source) -> bool:
        """A list of records, or a record per line, with a task and a trajectory."""
        records = (record for value in source.head for record in (value if isinstance(value, list) else [value]))
        return any(map(_is_record, records))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per record."""
        counts: dict[str, int] = {}
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            records = item.value if isinstance(item.value, list) else [item.value]
            for index, record in enumerate(records):
                line = partial(int, item.line)
                try:
                    yield _draft(source, record, line, counts)
                except RECORD_ERRORS as error:
                    yield Problem(source.name, item.line, f"Record {index} is not imported: {error_text(error)}.")


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("traj"), list) or "task_id" not in value:
        return False
    return "reward" in value or "info" in value


def _draft(source: Source, record: Any, line: Callable[[], int], counts: dict[str, int]) -> Draft:
    # A task that failed before the first message has a reward nevertheless.
    is_empty = isinstance(record, dict) and "traj" in record and record["traj"] is None
    messages = [] if is_empty else require_field(record, "traj", list, "the record")
    task_id = to_id(record.get("task_id"))
    if task_id is None:
        raise MalformedRecord("'task_id' of the record must be a number or a string")
    parsed = [_parse_message(message, index) for index, message in enumerate(messages)]
    session_id = f"{source.session_name}/{task_id}/{to_id(record.get('trial')) or 0}"
    counts[session_id] = counts.get(session_id, 0) + 1
    if counts[session_id] > 1:
        session_id = f"{session_id}~{counts[session_id]}"
    runs, hashes, keys = split_runs(session_id, parsed)
    info = to_object(record.get("info"))
    if runs and isinstance(info.get("error"), str):
        runs[-1].status, runs[-1].error = "ERROR", info["error"]
        hashes[-1] = hash_record(hashes[-1], info["error"])
    fields = {
        key: value for key, value in record.items() if key not in ("traj", "info", "task_id") and value is not None
    }
    scalars, nested = split_scalars(fields)
    facts, details = split_scalars(drop_null(info))
    if "traceback" in facts:
        details["traceback"] = facts.pop("traceback")
    return Draft(
        file=source.name,
        line=line,
        session=Session(
            session_id=session_id,
            agent_data={NAME: nested | details},
            metadata=_parse_name(PurePath(source.session_name).name) | facts | scalars | {"task_id": task_id},
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields, info, task_id),
        source=NAME,
        scores=_parse_scores(record, info),
    )


def _parse_name(stem: str) -> dict[str, Any]:
    """What the name of a file states, in the two forms that tau-bench uses."""
    match = _RESULT_NAME.fullmatch(stem) or _HISTORICAL_NAME.fullmatch(stem)
    return {"experiment": stem} | (match.groupdict() if match else {})


def _parse_scores(record: dict[str, Any], info: dict[str, Any]) -> dict[str, float]:
    """The reward and its factors."""
    factors = to_object(to_object(info.get("reward_info")).get("info"))
    return finite_scores({"reward": record.get("reward")} | {f"reward.{key}": value for key, value in factors.items()})


def _parse_message(record: Any, index: int) -> SourceMessage:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord(f"message {index} must be an object with a role")
    role, content = record["role"], record.get("content")
    extra = without(record, _MAPPED_FIELDS)
    if role == "tool" and isinstance(content, str) and content.startswith("Error"):
        extra["error_inferred"] = True
    calls = to_list(record.get("tool_calls"))
    if record.get("function_call"):
        calls = [*calls, {"function": record["function_call"]}]
    try:
        message = Message(
            role=role,
            content=content,
            tool_calls=[_parse_call(call) for call in calls],
            tool_call_id=checked_id(record.get("tool_call_id")) if role == "tool" else None,
            tool_name=record.get("name") if role in ("tool", "function") else None,
            extra=extra,
        )
    except RECORD_ERRORS as error:
        raise MalformedRecord(f"message {index}: {error_text(error)}") from error
    is_output = role == "user" and isinstance(content, str) and content.startswith(_API_OUTPUT)
    return SourceMessage(message, record, None, False if is_output else None)


def _parse_call(call: dict[str, Any]) -> ToolCall:
    body = require_field(call, "function", dict, "the tool call")
    args, notes = to_args(body.get("arguments"))
    extra = without(call, ("id", "function", "type"))
    return ToolCall(tool_call_id=checked_id(call.get("id")), tool_name=body.get("name"), args=args, extra=extra | notes)
