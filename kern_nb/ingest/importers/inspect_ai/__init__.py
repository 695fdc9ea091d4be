"""Logs of inspect_ai: evaluations, each a zip archive (``.eval``) or one JSON document (``.json``).

An archive has the evaluation in ``header.json`` and each sample in ``samples/<id>_epoch_<n>.json``; one that a crash
left has ``_journal/start.json`` instead of the header. Both are read a sample at a time.

A sample in one epoch is a session: the sample's id is the ``task_id`` that pairs the sessions of two evaluations, the
epoch is the trial. Usage and times come from the events. Calls of a model that are no part of the sample's
messages are nested agents, except those that score it: their usage is in ``agent_data``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Importer,
    Location,
    MalformedRecord,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.importers.inspect_ai.events import GRADERS, ModelCall, SampleEvents, merge_inputs, message_key
from kern_nb.ingest.importers.inspect_ai.messages import Answers, parse_message, parse_usage
from kern_nb.ingest.importers.inspect_ai.nested import nested_drafts, set_provider
from kern_nb.ingest.parsing import zip_members
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.values import (
    drop_null,
    finite_scores,
    split_scalars,
    to_id,
    to_number,
    to_object,
    without,
)
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Document, Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "inspect_ai"

_HEADERS = ("header.json", "_journal/start.json")
_EVAL_FIELDS = ("eval_id", "run_id", "task", "model", "dataset", "solver", "created", "task_version", "revision")
_EVAL_SETTINGS = ("task_args", "config", "model_roles", "tags", "sandbox")
_MAPPED_FIELDS = frozenset(
    {"messages", "events", "events_data", "attachments", "transcript", "uuid", "id", "epoch", "scores", "score"}
)
_SCORES = frozenset({"scores", "score"})
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


class InspectAi(Importer):
    """Logs of inspect_ai."""

    name = NAME
    reads = "logs of inspect_ai"
    locations = (Location("logs", "**/*.eval", "INSPECT_LOG_DIR"),)

    def recognizes(self, source: Source) -> bool:
        """An archive with an evaluation and samples, or an object with an evaluation."""
        if source.head or not zip_members.is_archive(source.path):
            return any(map(_is_log, source.head))
        members = _list_members(source)
        names = {member.name for member in members}
        return bool(names & set(_HEADERS)) and any(_is_sample(n) or n.startswith("_journal/") for n in names)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per sample and epoch, and one per nested agent."""
        if zip_members.is_archive(source.path):
            yield from _read_archive(source)
            return
        for item in source.documents("samples"):
            if isinstance(item, Problem):
                yield item
            elif not isinstance(item, Document):
                text = "The log has no samples." if _is_log(item.value) else "The record is no evaluation."
                yield Problem(source.name, item.line, text)
            else:
                yield from _read_document(source, item)


def _read_document(source: Source, document: Document) -> Iterator[Draft | Problem]:
    if not _is_log(document.fields | {"samples": []}):
        yield Problem(source.name, document.line, "The record is no evaluation.")
        return
    evaluation, index = _Evaluation.of(document.fields), 0
    for item in document.items:
        if isinstance(item, Problem):
            yield item
        else:
            yield from _read_sample(_Origin(source, f"Sample {index}", index, item.line), evaluation, item.value)
            index += 1
    if not index:
        yield Problem(source.name, document.line, "The log has no samples.")


class _Origin(NamedTuple):
    """Where a sample is: its file, and what returns the line of it in a document."""

    source: Source
    label: str
    position: int = 0
    line_in_document: Callable[[], int] | None = None

    def line(self) -> int:
        return 1 if self.line_in_document is None else self.line_in_document()

    def problem(self, reason: str) -> Problem:
        line = None if self.line_in_document is None else self.line()
        return Problem(self.source.name, line, f"{self.label} {reason.rstrip('.')}.")


class _Evaluation(NamedTuple):
    eval: dict[str, Any]
    plan: Any
    status: Any

    @classmethod
    def of(cls, header: dict[str, Any]) -> _Evaluation:
        return cls(to_object(header.get("eval")), header.get("plan"), header.get("status"))

    def metadata(self) -> dict[str, Any]:
        fields = {key: self.eval[key] for key in _EVAL_FIELDS if self.eval.get(key) is not None}
        fields |= {"dataset": to_object(fields.get("dataset")).get("name"), "status": self.status}
        fields |= {"revision": to_object(fields.get("revision")).get("commit")}
        fields |= {"inspect_ai": to_object(self.eval.get("packages")).get("inspect_ai")}
        custom, _ = split_scalars(to_object(self.eval.get("metadata")))
        return custom | drop_null(fields)

    def settings(self) -> dict[str, Any] | None:
        """How the evaluation was configured."""
        return {key: self.eval[key] for key in _EVAL_SETTINGS if self.eval.get(key) not in (None, {}, [])} or None


def _is_log(value: Any) -> bool:
    """The evaluation states its task and model; a document without samples has at least a status."""
    if not isinstance(value, dict) or not isinstance(value.get("eval"), dict):
        return False
    return "task" in value["eval"] and "model" in value["eval"] and ("status" in value or "samples" in value)


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _list_members(source: Source) -> list[zip_members.Member]:
    try:
        return zip_members.list_members(source.path)
    except OSError:
        return []


def _read_archive(source: Source) -> Iterator[Draft | Problem]:
    members = {member.name: member for member in _list_members(source)}
    evaluation = None
    for name in _HEADERS:
        if evaluation is None and name in members:
            header = _parse_member(source, members[name])
            if isinstance(header, Problem):
                yield header
            else:
                evaluation = _Evaluation.of(to_object(header))
    samples = [member for name, member in members.items() if _is_sample(name)]
    if not samples:
        yield Problem(source.name, None, "The log has no samples.")
    for member in samples:
        sample = _parse_member(source, member)
        if isinstance(sample, Problem):
            yield sample
        else:
            yield from _read_sample(_Origin(source, member.name), evaluation or _Evaluation({}, None, None), sample)


def _parse_member(source: Source, member: zip_members.Member) -> Any:
    try:
        return json.loads(zip_members.read_member(source.path, member))
    except (ValueError, RecursionError, OSError) as error:
        return Problem(source.name, None, f"{member.name} is not imported: {str(error).rstrip('.')}.")


def _read_sample(origin: _Origin, evaluation: _Evaluation, sample: Any) -> Iterator[Draft | Problem]:
    problems: list[Problem] = []
    try:
        drafts = _drafts(origin, evaluation, sample, problems)
    except RECORD_ERRORS as error:
        yield origin.problem(f"is not imported: {error_text(error)}")
        return
    yield from problems
    yield from drafts


def _drafts(origin: _Origin, evaluation: _Evaluation, sample: Any, problems: list[Problem]) -> list[Draft]:
    def report(reason: str) -> None:
        problems.append(origin.problem(reason))

    if isinstance(sample, dict) and sample.get("messages") is None:  # it failed before its state was saved
        sample = sample | {"messages": []}
    records = require_field(sample, "messages", list, "the sample")
    transcript = SampleEvents(sample)
    sample = {
        key: value if key in _MAPPED_FIELDS - _SCORES else transcript.resolve(value) for key, value in sample.items()
    }
    session_id, model = _session_id(origin, evaluation, sample), evaluation.eval.get("model")
    messages = [transcript.resolve(record) for record in records if isinstance(record, dict)]
    if len(messages) < len(records):
        report("has messages that are no objects; they are not imported")
    calls = [call for call in transcript.calls if not call.is_grading]
    own, pairs = calls, [(message, False) for message in messages]
    if not messages and calls:
        own = [call for call in calls if call.thread == calls[0].thread]
        pairs = merge_inputs(own, [call.output for call in own if call.output is not None])
    elif transcript.is_compacted:
        outputs = {id(call) for call in calls if _is_answer(call, messages)}
        threads = {call.thread for call in calls if id(call) in outputs}
        own = [call for call in calls if call.thread in threads]
        pairs = merge_inputs(own, messages)
    answers = Answers(own)
    parsed: list[SourceMessage] = []
    for message, is_summary in pairs:
        try:
            parsed.append(parse_message(message, answers.take(message), transcript, model, is_summary=is_summary))
        except MalformedRecord as error:
            report(f"has a message that is not imported: {error}")
    main = _session_draft(origin, evaluation, sample, session_id, parsed, transcript.scored_at)
    if not any(call.usage for call in transcript.calls):  # the log has no events
        _set_usage(main, sample)
    own_ids = {id(call) for call in own}
    others = [*answers.rest(), *(call for call in calls if id(call) not in own_ids)]
    inherited = frozenset(message_key(message) for message, _ in pairs)
    return [main, *nested_drafts(main, transcript, others, inherited, report)]


def _is_answer(call: ModelCall, messages: list[dict[str, Any]]) -> bool:
    identity = None if call.output is None else call.output.get("id")
    return identity is not None and any(message.get("id") == identity for message in messages)


def _session_id(origin: _Origin, evaluation: _Evaluation, sample: dict[str, Any]) -> str:
    if isinstance(sample.get("uuid"), str) and sample["uuid"]:
        return str(sample["uuid"])
    owner = evaluation.eval.get("eval_id") or evaluation.eval.get("run_id")
    owner = owner if isinstance(owner, str) else origin.source.name.rsplit(".", 1)[0]
    identity, epoch = to_id(sample.get("id")) or origin.position, to_id(sample.get("epoch")) or 1
    return f"{owner}/{identity}/{epoch}"


def _session_draft(
    origin: _Origin,
    evaluation: _Evaluation,
    sample: dict[str, Any],
    session_id: str,
    parsed: list[SourceMessage],
    scored_at: Any,
) -> Draft:
    model = evaluation.eval.get("model") if isinstance(evaluation.eval.get("model"), str) else None
    runs, hashes, keys = split_runs(session_id, parsed, model)
    start, end = to_time(sample.get("started_at")), to_time(sample.get("completed_at"))
    _set_run_fields(runs, hashes, sample, model)
    fields = without(sample, _MAPPED_FIELDS)
    scalars, nested = split_scalars(fields)
    identity = {"task_id": sample.get("id"), "trial": sample.get("epoch")}
    identity = {key: str(v) if key == "task_id" else v for key, v in identity.items() if v is not None}
    custom, _ = split_scalars(to_object(sample.get("metadata")))
    scalars.pop("error", None)
    scores = _parse_scores(sample)
    details = {
        "eval": evaluation.settings(),
        "plan": evaluation.plan,
        "scores": sample.get("scores") or sample.get("score"),
    }
    time = to_time(scored_at) or end
    return Draft(
        file=origin.source.name,
        line=origin.line,
        session=Session(
            session_id=session_id,
            agent_id=NAME,
            agent_data={NAME: nested | drop_null(details)},
            metadata=custom | scalars | evaluation.metadata() | identity,
            created_at=to_unix_seconds(start),
            updated_at=to_unix_seconds(end),
            duration_s=to_number(sample.get("total_time")),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields, evaluation.metadata(), identity, details),
        source=NAME,
        scores=scores,
        scored_at=None if time is None else int(time.timestamp() * 1_000_000),
    )


def _set_run_fields(runs: list[Run], hashes: list[str], sample: dict[str, Any], model: str | None) -> None:
    """Set what the sample states about its runs: the provider, how the last one ended, the times of a single one."""
    if not runs:
        return
    set_provider(runs, hashes, model)
    error, limit = sample.get("error"), sample.get("limit")
    last = runs[-1]
    if error:
        message = to_object(error).get("message", error)
        last.status, last.error = "ERROR", message if isinstance(message, str) else str(message)
    elif isinstance(limit, dict):
        last.status, last.error = "CANCELLED", f"the {limit.get('type')} limit of {limit.get('limit')} was reached"
    hashes[-1] = hash_record(hashes[-1], last.error)
    if len(runs) == 1:
        start, end = to_time(sample.get("started_at")), to_time(sample.get("completed_at"))
        last.created_at, last.finished_at = start or last.created_at, end or last.finished_at
        duration = to_number(sample.get("total_time"))
        last.duration_s = last.duration_s if duration is None else duration
        hashes[0] = hash_record(hashes[0], sample.get("started_at"), sample.get("completed_at"), duration)


def _set_usage(main: Draft, sample: dict[str, Any]) -> None:
    """Set the usage of a sample without events on its last run, the one that the models worked on."""
    models, roles = to_object(sample.get("model_usage")), to_object(sample.get("role_usage"))
    counts: Counter[str] = Counter()
    for usage in map(to_object, models.values()):
        counts.update({key: value for key, value in usage.items() if to_number(value) is not None})
    for role in GRADERS & roles.keys():
        counts.subtract(
            {key: v for key, v in to_object(roles[role]).items() if key in counts and to_number(v) is not None}
        )
    if main.runs and counts:
        main.runs[-1].usage = parse_usage(counts)
        main.hashes[-1] = hash_record(main.hashes[-1], dict(counts))


def _parse_scores(sample: dict[str, Any]) -> dict[str, float]:
    """The scores that are numbers or grades; a score of several values is one score each."""
    scores = to_object(sample.get("scores")) or {"score": sample.get("score")}
    values: dict[str, Any] = {}
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if parts is None:
            values[name] = _grade(value)
        else:
            values |= {f"{name}.{key}": _grade(part) for key, part in parts}
    return finite_scores(values)


def _grade(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in _GRADES or value.lower() in _GRADES:
        return _GRADES.get(value, _GRADES.get(value.lower()))
    try:
        return float(value)
    except ValueError:
        return None
