"""Results of the tau2 benchmark: an experiment (`info`, `tasks`) and its simulations, in one of two layouts.

* one JSON object with `simulations`,
* a folder: ``results.json`` without them, but with their `simulation_index`, and ``simulations/<id>.json`` beside it.

The file of one simulation is read, too: with the experiment, if it still lies in such a folder.

A simulation is a session. Its scalars are the session's metadata; larger values (the task, details of the reward) go to
``agent_data``, which no frame reads. There ``info`` is the SHA-256 of the experiment's info: it includes the policy, is
long, and is stored once for all sessions, as a blob. Times are in an unstated time zone: they are read as UTC, and the
metadata says ``time_zone: unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from kern_nb.db import codec
from kern_nb.db.mapping import to_micros
from kern_nb.ingest.archives import plain_name
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    MalformedRecord,
    error_text,
    hash_record,
    json_type,
    require_field,
)
from kern_nb.ingest.importers.tau2.ticks import flatten_ticks
from kern_nb.ingest.parsing.times import is_local_time, parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import (
    checked_id,
    drop_null,
    finite_scores,
    split_scalars,
    to_id,
    to_list,
    to_object,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Document, Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session, ToolCall, Usage

NAME = "tau2"
FOLDER = "simulations"

# The fields of a message, and of its usage, that map to fields of our records; the others go to `extra`.
_MAPPED_FIELDS = frozenset({"role", "content", "tool_calls", "timestamp", "cost", "usage"})
_CONVERSATION = frozenset({"id", "messages", "ticks"})
_TIMES = ("start_time", "end_time", "timestamp")
_MAPPED_COUNTS = frozenset({"prompt_tokens", "completion_tokens"})


class Tau2(Importer):
    """Results of tau2: a file, or a folder with a file per simulation."""

    name = NAME
    reads = "results of the tau2 benchmark"

    def recognizes(self, source: Source) -> bool:
        """An object with a list of simulations, the experiment of a folder, or one simulation."""
        return any(_is_experiment(value) or _is_folder(source, value) or _is_simulation(value) for value in source.head)

    def companions(self, source: Source) -> Iterable[Path]:
        """The files of the simulations of a folder."""
        return _simulation_files(source) if any(_is_folder(source, value) for value in source.head) else ()

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per simulation."""
        for item in source.documents("simulations"):
            if isinstance(item, Problem):
                yield item
            elif isinstance(item, Document):
                first = next(item.items, None)
                if first is None and _is_folder(source, item.fields):
                    yield from _read_folder(source, item.line, item.fields)
                else:
                    items = () if first is None else chain([first], item.items)
                    yield from _read_simulations(source, item._replace(items=iter(items)))
            elif _is_folder(source, item.value):
                yield from _read_folder(source, item.line, item.value)
            elif _is_simulation(item.value):
                yield from _read_single(source, item.line, item.value)
            else:
                yield Problem(source.name, item.line, "The record has no list of simulations.")


def _is_experiment(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("simulations"), list)


def _is_folder(source: Source, value: Any) -> bool:
    """Whether the simulations of an experiment are in files beside it."""
    if not isinstance(value, dict) or value.get("simulations") or not isinstance(value.get("info"), dict):
        return False
    has_index = isinstance(value.get("simulation_index"), list)
    return has_index or (isinstance(value.get("tasks"), list) and any(_simulation_files(source)))


def _is_simulation(value: Any) -> bool:
    is_identified = isinstance(value, dict) and isinstance(value.get("id"), str) and "task_id" in value
    is_finished = is_identified and ("termination_reason" in value or "reward_info" in value)
    return is_finished and (isinstance(value.get("messages"), list) or isinstance(value.get("ticks"), list))


def _simulation_files(source: Source) -> list[Path]:
    return sorted((source.path.parent / FOLDER).glob("*.json"))


def _read_folder(source: Source, line: int, document: dict[str, Any]) -> Iterator[Draft | Problem]:
    try:
        experiment = _parse_experiment(source, document, is_folder=True)
    except RECORD_ERRORS as error:
        yield Problem(source.name, line, f"The experiment is not imported: {error_text(error)}.")
        return
    files = _simulation_files(source)
    for file in files:
        yield from _read_file(file, (PurePath(source.name).parent / FOLDER / file.name).as_posix(), experiment)
    names = {file.stem for file in files}
    for index, entry in enumerate(to_list(document.get("simulation_index"))):
        simulation_id = to_object(entry).get("id")
        if isinstance(simulation_id, str) and simulation_id not in names:
            reason = f"Simulation {simulation_id!r} of the index has no file in {FOLDER}/."
            yield Problem(source.name, source.line_of("simulation_index", index, line), reason)


def _read_file(file: Path, name: str, experiment: _Experiment) -> Iterator[Draft | Problem]:
    """Read the file of one simulation of a folder."""
    try:
        source = Source(file, name)
        items = list(source.values())
    except OSError as error:
        yield Problem(name, None, f"The file cannot be read: {error.strerror or error}.")
        return
    for item in items:
        if isinstance(item, Problem):
            yield item
        else:
            yield from _read_simulation(item.value, experiment._replace(file=name), item.line)


def _read_single(source: Source, line: int, simulation: dict[str, Any]) -> Iterator[Draft | Problem]:
    """Read a simulation whose file is imported by itself."""
    document: dict[str, Any] = {}
    folder = source.path.absolute().parent
    results = folder.parent / "results.json"
    try:
        if folder.name == FOLDER and results.is_file():
            owner = Source(results, results.name)
            document = next((value for value in owner.head if _is_folder(owner, value)), {})
            experiment = _parse_experiment(owner, document, is_folder=bool(document))._replace(file=source.name)
        else:
            experiment = _parse_experiment(source, document)
    except (*RECORD_ERRORS, OSError) as error:
        yield Problem(source.name, line, f"The simulation is not imported: {error_text(error)}.")
        return
    yield from _read_simulation(simulation, experiment, line)


def _read_simulation(simulation: Any, experiment: _Experiment, line: int) -> Iterator[Draft | Problem]:
    try:
        yield _draft(simulation, experiment, lambda: line)
    except RECORD_ERRORS as error:
        yield Problem(experiment.file, line, f"The simulation is not imported: {error_text(error)}.")


def _read_simulations(source: Source, document: Document) -> Iterator[Draft | Problem]:
    try:
        experiment = _parse_experiment(source, document.fields)
    except RECORD_ERRORS as error:
        yield Problem(source.name, document.line, f"The experiment is not imported: {error_text(error)}.")
        return
    for index, item in enumerate(document.items):
        if isinstance(item, Problem):
            yield item
            continue
        try:
            yield _draft(item.value, experiment, item.line)
        except RECORD_ERRORS as error:
            yield Problem(source.name, item.line(), f"Simulation {index} is not imported: {error_text(error)}.")


class _Experiment(NamedTuple):
    file: str
    metadata: dict[str, Any]
    agent: dict[str, Any]
    tasks: dict[str, Any]
    info: dict[str, bytes]


def _parse_experiment(source: Source, document: dict[str, Any], *, is_folder: bool = False) -> _Experiment:
    info = to_object(document.get("info"))
    agent = to_object(info.get("agent_info"))
    serialized_info = codec.dumps(info).encode()
    metadata = {
        "experiment": PurePath(source.location).parent.name if is_folder else PurePath(source.session_name).name,
        "domain": to_object(info.get("environment_info")).get("domain_name"),
        "model": agent.get("llm"),
        "user_model": to_object(info.get("user_info")).get("llm"),
    }
    return _Experiment(
        file=source.name,
        metadata=drop_null(metadata),
        agent=agent,
        tasks={str(task.get("id")): task for task in to_list(document.get("tasks")) if isinstance(task, dict)},
        info={sha256(serialized_info).hexdigest(): serialized_info},
    )


def _draft(simulation: Any, experiment: _Experiment, line: Callable[[], int]) -> Draft:
    session_id = _session_id(simulation, experiment)
    messages = _messages_of(simulation)
    fields = without(simulation, _CONVERSATION)
    scalars, nested = split_scalars(fields)
    if (task_id := to_id(fields.get("task_id"))) is not None:
        scalars["task_id"] = task_id  # experiments are paired by it
    task = experiment.tasks.get(str(fields.get("task_id")))
    model, [info] = experiment.metadata.get("model"), experiment.info
    runs, hashes, keys = split_runs(session_id, [_parse_message(m, i, model) for i, m in enumerate(messages)], model)
    _set_final_status(runs, hashes, fields.get("termination_reason"))
    stated = [fields.get(key) for key in _TIMES]
    start, end, scored_at = map(_checked_time, _TIMES, stated)
    if any(map(is_local_time, [*stated, *(message.get("timestamp") for message in messages)])):
        scalars["time_zone"] = "unknown"
    session = Session(
        session_id=session_id,
        agent_id=experiment.agent.get("implementation"),
        agent_data={**experiment.agent, NAME: {"info": info, "task": task, **nested}},
        metadata=experiment.metadata | scalars,
        created_at=to_unix_seconds(start),
        updated_at=to_unix_seconds(end),
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
        scored_at=to_micros(scored_at),
    )


def _session_id(simulation: Any, experiment: _Experiment) -> str:
    """The id of a simulation; without one, its task and trial name it in its file."""
    if not isinstance(simulation, dict):
        raise MalformedRecord(f"the simulation must be an object, got {json_type(simulation)}")
    session_id, task_id, trial = (to_id(simulation.get(key)) for key in ("id", "task_id", "trial"))
    if session_id is None and task_id is not None:
        return f"{PurePath(plain_name(experiment.file)).with_suffix('').as_posix()}/{task_id}/{trial or 0}"
    if session_id is None:
        raise MalformedRecord("the simulation has no 'id'")
    return session_id


def _messages_of(simulation: dict[str, Any]) -> list[Any]:
    """The messages in their order, which they may state."""
    if simulation.get("messages") is None and isinstance(simulation.get("ticks"), list):
        return flatten_ticks(simulation["ticks"])
    if "messages" in simulation and simulation["messages"] is None:
        return []  # it failed before the first message, and has a reward nevertheless
    messages: list[Any] = require_field(simulation, "messages", list, "the simulation")
    if all(isinstance(message, dict) and type(message.get("turn_idx")) is int for message in messages):
        return sorted(messages, key=lambda message: message["turn_idx"])
    return messages


def _parse_message(record: Any, index: int, model: str | None) -> SourceMessage:
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        raise MalformedRecord(f"message {index} must be an object with a role")
    role: str = record["role"]
    extra = without(record, _MAPPED_FIELDS)
    time = _parse_time(record.get("timestamp"))
    try:
        message = Message(
            role=role,
            content=record.get("content"),
            tool_calls=[_parse_call(call, time) for call in record.get("tool_calls") or ()],
            tool_call_id=checked_id(extra.pop("id", None)) if role == "tool" else None,
            is_error=extra.pop("error") if isinstance(extra.get("error"), bool) else None,
            model=model if role == "assistant" else None,
            usage=_parse_usage(record, extra),
            created_at=time,
            extra=extra,
        )
    except RECORD_ERRORS as error:
        raise MalformedRecord(f"message {index}: {error_text(error)}") from error
    return SourceMessage(message, record)


def _parse_call(record: dict[str, Any], timestamp: Any) -> ToolCall:
    mapped = ("id", "name", "arguments", "requestor")
    return ToolCall(
        tool_call_id=checked_id(record.get("id")),
        tool_name=record.get("name"),
        args=record.get("arguments"),
        caller=record.get("requestor") or "assistant",
        created_at=timestamp,
        extra=without(record, mapped),
    )


def _parse_time(value: Any) -> Any:
    """A time as most are written, which is validated fastest; the record converts or refuses other values."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _checked_time(name: str, value: Any) -> datetime | None:
    """A time of a simulation, which is refused with a value that is none."""
    if value is not None and parse_time(value) is None:
        raise MalformedRecord(f"{name!r} of the simulation is no time")
    return parse_time(value)


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
    info = to_object(info)
    scores = {"reward": info.get("reward")}
    scores |= {f"reward.{key}": value for key, value in to_object(info.get("reward_breakdown")).items()}
    return finite_scores(scores)
