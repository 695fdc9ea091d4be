"""Trajectories in ATIF, the interchange format of Harbor and Terminal-Bench: versions 1.0 to 1.8.

A trajectory is a session. A step of the user is a prompt, a step of the agent is an answer with its tool calls; the
results of its observation are tool messages. Steps that are copied context are marked as history: their usage is
counted where they were written. Trajectories of nested agents lie in the file or beside it, a continuation beside it.

A trajectory that kern_nb exported has further data in ``extra`` (`own`), which restores runs and branches.

In the folder of a Harbor trial, the reward and the task are in ``result.json`` or ``verifier/`` (`trial`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Fork,
    Importer,
    Location,
    Membership,
    error_text,
    hash_record,
    require_field,
)
from kern_nb.ingest.importers.atif import own as atif_own
from kern_nb.ingest.importers.atif.steps import parse_metrics, parse_step
from kern_nb.ingest.importers.atif.trial import Trial, read_trial, trial_files
from kern_nb.ingest.parsing.times import is_local_time, to_time, to_unix_seconds
from kern_nb.ingest.parsing.values import drop_null, split_scalars, to_id, to_list, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, build_runs, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session, Usage

NAME = "atif"

_MAPPED_FIELDS = frozenset({"steps", "subagent_trajectories", "session_id", "trajectory_id", "agent"})
_MAX_DEPTH = 20


class Atif(Importer):
    """Trajectories in ATIF."""

    name = NAME
    reads = "trajectories in ATIF, as Harbor writes them"
    locations = (Location("jobs", "**/agent/trajectory*.json"),)

    def recognizes(self, source: Source) -> bool:
        """An object that states a version of ATIF and has steps, or a list of these."""
        return any(map(_is_trajectory, _values_of(source)))

    def companions(self, source: Source) -> Iterable[Path]:
        """The trajectories that this one names, if they lie beside it, those that they name, and the trial's result."""
        named: dict[Path, None] = {}
        pending = [source]
        while pending:
            current = pending.pop()
            paths = [path for value in _values_of(current) for _, _, path in _references(current.path, value)]
            for path in paths:
                if path not in named and path != source.path:
                    named[path] = None
                    pending.append(Source(path, path.name))
        return [*trial_files(source.path), *named]

    def start_time(self, source: Source) -> str:
        """When its first step was taken."""
        steps = [step for value in _values_of(source) for step in to_list(to_object(value).get("steps"))]
        times = [step["timestamp"] for step in steps if isinstance(to_object(step).get("timestamp"), str)]
        return str(times[0]) if times else ""

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per trajectory: nested agents and continuations after the one that names them."""
        yield from _read_file(source, read_trial(source), _Link(), {source.path.resolve()})


class _Link(NamedTuple):
    """How a trajectory belongs to the one that names it."""

    fork: Fork | None = None
    is_branch: bool = False
    membership: Membership | None = None
    fallback_id: str | None = None
    name: str | None = None


def _values_of(source: Source) -> list[Any]:
    """The first values of a file; a list may be a data set."""
    return [item for value in source.head for item in (value if isinstance(value, list) else [value])]


def _is_trajectory(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("steps"), list):
        return False
    version = value.get("schema_version")
    return isinstance(version, str) and version.upper().startswith("ATIF-")


def _read_file(source: Source, trial: Trial, link: _Link, seen: set[Path]) -> Iterator[Draft | Problem]:
    yield from trial.problems
    for item in source.values():
        if isinstance(item, Problem):
            yield item
            continue
        is_list = isinstance(item.value, list)
        for index, value in enumerate(item.value if is_list else [item.value]):
            line = source.line_of(None, index, item.line) if is_list else item.line
            if not _is_trajectory(value):
                yield Problem(source.name, line, "The record is no trajectory in ATIF.")
                continue
            name = f"{source.session_name}-{index + 1}" if is_list else None
            yield from _read_trajectory(source, line, value, trial, link._replace(name=name), seen)


def _read_trajectory(
    source: Source, line: int, document: dict[str, Any], trial: Trial, link: _Link, seen: set[Path], depth: int = 0
) -> Iterator[Draft | Problem]:
    problems: list[Problem] = []
    try:
        draft = _draft(source, line, document, trial, link, problems)
    except RECORD_ERRORS as error:
        yield Problem(source.name, line, f"The trajectory is not imported: {error_text(error)}.")
        return
    yield from problems
    yield draft
    parent_id = draft.session_id
    owners = {key: call_id for key, call_id, _ in _nested_references(document)}
    for index, nested in enumerate(to_list(document.get("subagent_trajectories"))):
        identity = to_id(to_object(nested).get("trajectory_id")) or to_id(to_object(nested).get("session_id"))
        owner = None if identity is None else owners.get(identity)
        inner = _Link(membership=Membership(parent_id, owner), fallback_id=f"{parent_id}/{index}")
        if depth < _MAX_DEPTH and isinstance(nested, dict) and isinstance(nested.get("steps"), list):
            yield from _read_trajectory(source, line, nested, Trial(), inner, seen, depth + 1)
        else:
            yield Problem(source.name, line, f"The nested trajectory {index} is not imported: it has no steps.")
    for kind, call_id, path in _references(source.path, document):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        name = (PurePath(source.name).parent / path.relative_to(source.path.parent)).as_posix()
        nested = _Link(membership=Membership(parent_id, call_id))
        link = {"next": _Link(fork=Fork(parent_id)), "branch": _Link(is_branch=True)}.get(kind, nested)
        try:
            other = Source(path, name)
        except OSError as error:
            yield Problem(name, None, f"The file cannot be read: {error.strerror or error}.")
            continue
        yield from _read_file(other, Trial(), link, seen)


def _nested_references(document: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the id of each nested trajectory that a result refers to, the call of the result, and a path."""
    for step in to_list(document.get("steps")):
        for result in to_list(to_object(to_object(step).get("observation")).get("results")):
            call_id = to_object(result).get("source_call_id")
            references = to_object(result).get("subagent_trajectory_ref")
            for reference in references if isinstance(references, list) else [references]:
                fields = to_object(reference)
                path = to_text(fields.get("trajectory_path"))
                for identity in (to_id(fields.get("trajectory_id")), to_id(fields.get("session_id"))):
                    if identity is not None or path is not None:
                        yield identity or "", to_id(call_id), path


def _references(file: Path, value: Any) -> list[tuple[str, str | None, Path]]:
    """The trajectories that one names and that lie in its folder: nested ones with their call, the next, branches."""
    if not _is_trajectory(value):
        return []
    references: dict[Path, tuple[str, str | None, Path]] = {}
    for _, call_id, name in _nested_references(value):
        path = _file_beside(file, name)
        if path is not None:
            references.setdefault(path, ("nested", call_id, path))
    path = _file_beside(file, value.get("continued_trajectory_ref"))
    if path is not None:
        references.setdefault(path, ("next", None, path))
    for name in atif_own.branches_of(value) if atif_own.is_own(value) else ():
        path = _file_beside(file, name)
        if path is not None:
            references.setdefault(path, ("branch", None, path))
    return list(references.values())


def _file_beside(file: Path, name: Any) -> Path | None:
    """A file in the folder of another one, or below; None for any other path."""
    if not isinstance(name, str) or not name.endswith(".json") or "\0" in name:
        return None
    parts = PurePath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or PurePath(name).is_absolute():
        return None
    path = file.parent.joinpath(*parts)
    try:
        is_inside = path.resolve().is_relative_to(file.parent.resolve())
        return path if is_inside and path.is_file() and path != file else None
    except (OSError, RuntimeError):
        return None


def _draft(
    source: Source, line: int, document: dict[str, Any], trial: Trial, link: _Link, problems: list[Problem]
) -> Draft:
    steps = require_field(document, "steps", list, "the trajectory")
    agent = to_object(document.get("agent"))
    session_id = _session_id(source, line, document, link)
    model = agent["model_name"] if isinstance(agent.get("model_name"), str) else None
    is_own = atif_own.is_own(document)
    fork, point, n_inherited = link.fork, None, 0
    if link.is_branch and is_own:
        point = atif_own.fork_point(document)
    if point is not None:
        steps, n_inherited = atif_own.own_steps(steps, point)
    elif fork is not None:
        steps = [step for step in steps if to_object(step).get("is_copied_context") is not True]
    parsed, markers = _parse_steps(source, line, steps, model, problems, is_own=is_own, n_inherited=n_inherited)
    if is_own:
        groups, stated = atif_own.group_by_run(parsed, markers)
        if point is not None:
            fork = point.to_fork(len(groups[0]) if n_inherited else 0)
        if n_inherited:
            groups, stated = atif_own.join_inherited(groups, stated)
        runs, hashes, keys = build_runs(session_id, groups, model)
        for run, marker in zip(runs, stated, strict=True):
            problems += _restore(source, line, partial(atif_own.restore_run, run, marker))
    else:
        runs, hashes, keys = split_runs(session_id, parsed, model)
        _set_run_fields(runs, hashes, document, trial)
    fields = without(document, _MAPPED_FIELDS)
    scalars, nested = split_scalars(fields)
    timestamps = [to_object(step).get("timestamp") for step in steps]
    times = [time for value in timestamps if (time := to_time(value))]
    facts = {"version": to_id(agent.get("version")), "model": model, "session_id": to_id(document.get("session_id"))}
    facts["time_zone"] = "unknown" if any(map(is_local_time, timestamps)) else None
    session = Session(
        session_id=session_id,
        agent_id=agent["name"] if isinstance(agent.get("name"), str) else NAME,
        agent_data={NAME: {"agent": agent, **nested, **trial.details}},
        metadata=scalars | drop_null(facts) | trial.metadata,
        created_at=to_unix_seconds(min(times, default=None)),
        updated_at=to_unix_seconds(max(times, default=None)),
        duration_s=trial.duration_s,
    )
    scores = dict(trial.scores)
    if is_own:
        problems += _restore(source, line, lambda: scores.update(atif_own.restore_session(session, document)))
    return Draft(
        file=source.name,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields, agent, trial.metadata, trial.details, trial.scores),
        source=NAME,
        scores=scores,
        scored_at=trial.scored_at,
        fork=fork,
        membership=link.membership,
    )


def _session_id(source: Source, line: int, document: dict[str, Any], link: _Link) -> str:
    """The id of the trajectory; that of the session may repeat, so that it needs the name of the file."""
    trajectory_id, session_id = to_id(document.get("trajectory_id")), to_id(document.get("session_id"))
    if trajectory_id is not None:
        return trajectory_id
    if link.fallback_id is not None:
        return link.fallback_id
    is_later = line > 1 and ".jsonl" in PurePath(source.name).suffixes
    name = link.name or source.session_name + (f"-{line}" if is_later else "")
    return name if session_id is None else f"{session_id}/{name}"


def _restore(source: Source, line: int, restore: Callable[[], object]) -> list[Problem]:
    """Restore what kern_nb wrote; return the problem if a value cannot be read."""
    try:
        restore()
    except RECORD_ERRORS as error:
        return [Problem(source.name, line, f"A part of the trajectory is not imported: {error_text(error)}.")]
    return []


def _parse_steps(
    source: Source,
    line: int,
    steps: list[Any],
    model: str | None,
    problems: list[Problem],
    *,
    is_own: bool,
    n_inherited: int,
) -> tuple[list[SourceMessage], list[tuple[int, dict[str, Any]]]]:
    """The messages of the steps, and the markers of runs that kern_nb wrote, each with the index of its first message.

    Copied context is history; its last prompt is the one that an agent continues from. The first ``n_inherited`` steps
    are a part of a run of the parent, to be compared with it.
    """
    copied = [i >= n_inherited and to_object(step).get("is_copied_context") is True for i, step in enumerate(steps)]
    first = copied.index(False) if False in copied else len(steps)
    prompts = [i for i in range(first) if to_object(steps[i]).get("source") == "user"]
    continues = first == len(steps) or to_object(steps[first]).get("source") != "user"
    parsed: list[SourceMessage] = []
    markers: list[tuple[int, dict[str, Any]]] = []
    for index, step in enumerate(steps):
        marker = atif_own.marker_of(step, "inherited" if index < n_inherited else "run") if is_own else None
        markers += [] if marker is None else [(len(parsed), marker)]
        is_prompt = not copied[index] or (continues and prompts[-1:] == [index])
        errors: list[str] = []
        try:
            parsed += parse_step(step, model, errors, is_copied=copied[index], is_prompt=is_prompt, is_own=is_own)
        except RECORD_ERRORS as error:
            errors = [f"Step {index + 1} is not imported: {error_text(error)}."]
        number = source.line_of("steps", index, line) if errors else None
        problems += [Problem(source.name, number, error) for error in errors]
    return parsed, markers


def _set_run_fields(runs: list[Run], hashes: list[str], document: dict[str, Any], trial: Trial) -> None:
    """Set the provider, the error of the trial, and what the totals add to the usage that the steps of a run state."""
    for index, run in enumerate(runs):
        run.model_provider = run.model.split("/")[0] if run.model and "/" in run.model else trial.provider
        hashes[index] = hash_record(hashes[index], run.model_provider)
    if runs and trial.error is not None:
        runs[-1].status, runs[-1].error = "ERROR", trial.error
        hashes[-1] = hash_record(hashes[-1], trial.error)
    totals = to_object(document.get("final_metrics"))
    has_nested = bool(document.get("subagent_trajectories")) or any(_nested_references(document))
    if len(runs) == 1 and totals:
        runs[0].usage = _remaining_usage(runs[0], totals, has_nested=has_nested)
        hashes[0] = hash_record(hashes[0], totals) if runs[0].usage else hashes[0]


def _remaining_usage(run: Run, totals: dict[str, Any], *, has_nested: bool) -> Usage | None:
    """What the totals state and no step does: many agents know the cost of the whole only.

    The total cost may include that of nested agents, which state theirs.
    """
    used = Usage.total(message.usage for message in run.messages)
    usage = parse_metrics({key.removeprefix("total_"): value for key, value in totals.items()})
    if used is None:
        return usage
    for name in Usage.model_fields:
        if getattr(used, name) is not None or name == "total_tokens" or (name == "cost" and has_nested):
            setattr(usage, name, None)
    return None if usage == Usage() else usage
