"""Transcripts of Claude Code: JSON lines in ``~/.claude/projects/<folder>/<session id>.jsonl``.

A transcript is a tree of records (`tree`) and events of the client. A session is a file: its id is the
``sessionId`` that the file is named after, else that of its last message. A run is a person's prompt and what follows
up to the next one. Each line of the tree is a draft of the session, the current one first; a line that begins with
another first prompt has an id of its own, and branches before all runs.

* Forks and resumed sessions copy the records before: the keys of messages are the records' ids.
* Sub-agents have files of their own, in ``<session id>/subagents`` or beside the session, which are read with it;
  older versions have them in the transcript (``isSidechain``). Each is a member of the run that called it.
* Titles are ``custom-title``, ``ai-title``, or the ``summary`` of a record of the file.
* Progress of hooks and snapshots of files are left out; other events are in ``agent_data``.
* There is no cost, except in the oldest versions; output tokens are often only those of the first part of an answer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
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
)
from kern_nb.ingest.importers.claude_code.file import (
    SUBAGENTS,
    TranscriptFile,
    agent_session_id,
    call_with_prompt,
    read_files,
    split_sidechains,
)
from kern_nb.ingest.importers.claude_code.messages import (
    INTERRUPTED,
    Record,
    is_message,
    kind_of,
    parse_answer,
    parse_user_record,
    result_duration,
    result_ids,
)
from kern_nb.ingest.importers.claude_code.tree import Step, build_lines
from kern_nb.ingest.parsing.times import to_time
from kern_nb.ingest.parsing.tree import Entry
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import PART_TYPES, Message, Run, Session, text_of

NAME = "claude_code"
AGENT = "claude-code"

_EVENTS = frozenset({"summary", "custom-title", "ai-title", "queue-operation", "pr-link", "last-prompt", "agent-name"})
_TITLES = (("summary", "summary"), ("ai-title", "aiTitle"), ("custom-title", "customTitle"))
_METADATA = {"cwd": "cwd", "gitBranch": "git_branch", "version": "version", "entrypoint": "entrypoint", "slug": "slug"}
_AGENT_ID = re.compile(rb'"agentId"\s*:\s*"([\w-]{1,100})"')
_COMMAND = ("<command-name>", "<command-message>")
_LOCAL_OUTPUT = "<local-command-std"


class ClaudeCode(Importer):
    """Transcripts of Claude Code."""

    name = NAME
    reads = "transcripts of Claude Code"
    locations = (
        Location("~/.claude", "projects/**/*.jsonl", "CLAUDE_CONFIG_DIR"),
        Location("~/.config/claude", "projects/**/*.jsonl"),
    )

    def recognizes(self, source: Source) -> bool:
        """Records with a ``uuid`` and a ``sessionId`` whose message has content, or events before or without these."""
        records = [value for value in source.head if isinstance(value, dict)]
        if any(record.get("type") in ("user", "assistant") for record in records):
            return any(map(_is_transcript_message, records))
        if not any(map(_is_event, records)):
            return False
        said = (v for v in _values(source) if isinstance(v, dict) and v.get("type") in ("user", "assistant"))
        return all(map(_is_transcript_message, islice(said, 1)))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the lines of the conversation, then its sub-agents."""
        files = read_files(source)
        for path in self.companions(source):
            if path.name.endswith(".jsonl"):
                name = PurePath(source.name).parent / path.relative_to(source.path.parent)
                with contextlib.suppress(OSError):
                    companion = Source(path, name.as_posix())
                    if self.recognizes(companion):
                        files += read_files(companion)
        callers = {
            agent: Membership(file.session_id, call) for file in files for agent, call in file.agent_calls.items()
        }
        for file in files:
            if file.membership is not None and file.membership.tool_call_id is None:
                file.membership = callers.get(file.agent, file.membership)
        for file in _callers_first(files):
            yield from file.problems
            yield from _drafts(file, callers)

    def companions(self, source: Source) -> Iterable[Path]:
        """The files of the session's sub-agents."""
        path = source.path
        if path.suffix != ".jsonl" or SUBAGENTS in path.parts or path.name.startswith("agent-"):
            return []
        files = sorted(path.with_suffix("").glob(f"{SUBAGENTS}/**/*.json*"))
        beside = {file.name: file for file in path.parent.glob("agent-*.jsonl")}
        if beside:
            with contextlib.suppress(OSError), path.open("rb") as transcript:
                names = {f"agent-{name.decode()}.jsonl" for line in transcript for name in _AGENT_ID.findall(line)}
                files += [beside[name] for name in sorted(names & beside.keys())]
        return files

    def start_time(self, source: Source) -> str:
        """The time of the first record; forks, which repeat it, come after the session that they copy."""
        for record in _values(source):
            if isinstance(record, dict) and isinstance(record.get("timestamp"), str):
                is_fork = record.get("sessionKind") == "bg" or "forkedFrom" in record
                return f"{record['timestamp']}~" if is_fork else str(record["timestamp"])
        return ""


def _values(source: Source) -> Iterator[Any]:
    return (item.value for item in source.values() if not isinstance(item, Problem))


def _is_transcript_message(record: Record) -> bool:
    has_ids = all(isinstance(record.get(key), str) for key in ("uuid", "sessionId"))
    if not has_ids or record.get("type") not in ("user", "assistant") or not is_message(record):
        return False
    content = record["message"]["content"]
    if isinstance(content, str):
        return bool(content)
    kinds = [part.get("type") for part in content if isinstance(part, dict)]
    return any(isinstance(kind, str) and kind in PART_TYPES for kind in kinds)


def _is_event(record: Record) -> bool:
    kind = record.get("type")
    if kind == "file-history-snapshot":
        return "snapshot" in record and "messageId" in record
    if kind == "summary":
        return "leafUuid" in record
    if kind in ("progress", "system", "attachment"):
        return all(isinstance(record.get(key), str) for key in ("uuid", "sessionId")) and "parentUuid" in record
    return isinstance(kind, str) and kind in _EVENTS and isinstance(record.get("sessionId"), str)


def _callers_first(files: list[TranscriptFile]) -> Iterator[TranscriptFile]:
    """The files in their order, but that of a sub-agent after that of its caller."""
    waiting: dict[str, list[TranscriptFile]] = {}
    ids = {file.session_id for file in files}
    ready: list[TranscriptFile] = []
    for file in files:
        caller = file.membership.session_id if file.membership else ""
        (waiting.setdefault(caller, []) if caller in ids - {file.session_id} else ready).append(file)
    while ready or waiting:
        ready = ready or waiting.pop(next(iter(waiting)))  # agents that call each other
        file = ready.pop(0)
        yield file
        ready = waiting.pop(file.session_id, []) + ready


def _drafts(file: TranscriptFile, callers: Mapping[str, Membership]) -> Iterator[Draft | Problem]:
    yield from _conversation(file, file.entries, file.session_id, file.membership, report=True)
    chains = split_sidechains(file.sidechains)
    for name, entries in chains.items():
        stated = callers.get(name)
        if stated is None:
            others = {agent_session_id(file.session_id, other): chains[other] for other in chains if other != name}
            owners = {file.session_id: file.entries, **others}
            calls = {owner: call for owner, chain in owners.items() if (call := call_with_prompt(chain, entries))}
            stated = Membership(*next(iter(calls.items()), (file.session_id, None)))
        yield from _conversation(file, entries, agent_session_id(file.session_id, name), stated, report=False)


class _Item(NamedTuple):
    message: SourceMessage
    duration_s: float | None = None


def _conversation(
    file: TranscriptFile, entries: list[Entry], session_id: str, membership: Membership | None, *, report: bool
) -> Iterator[Draft | Problem]:
    """Yield a draft for each line of a conversation."""
    source = file.source
    if not any(is_message(entry.record) for entry in entries):
        return
    lines, orphans = build_lines(entries)
    lines_of = {entry.record["uuid"]: entry.line for entry in entries}
    for entry in orphans if report and membership is None else ():
        text = f"The record's parent {entry.parent!r} is not in the file: it begins a line of the conversation."
        yield Problem(source.name, entry.line, text)
    session = _session(file, entries, session_id)
    facts = hash_record(session.session_data, {**(session.metadata or {}), "file": None}, session.agent_data)
    reported: set[str] = set()
    read: set[int] = set()
    for steps, root in lines:
        line_id = session_id if root is None else f"{session_id}~{root.answer[0]['uuid'][:8]}"
        if membership is not None and read:  # the runs of a sub-agent are no session, so that they cannot branch
            steps = [step for step in steps if id(step) not in read]  # noqa: PLW2901
            line_id = f"{session_id}~{steps[0].answer[0]['uuid'][:8]}"
        read |= set(map(id, steps))
        items: list[_Item] = []
        for step in steps:
            try:
                items += _parse_step(step)
            except RECORD_ERRORS as error:
                uuid = step.answer[0]["uuid"]
                if uuid not in reported:
                    reported.add(uuid)
                    yield Problem(source.name, lines_of[uuid], f"The record is not imported: {error_text(error)}.")
        if not items:
            continue
        runs, hashes, keys = split_runs(line_id, _mark_commands([item.message for item in items]))
        _set_outcomes(runs, hashes, items)
        line = entries[0].line
        yield Draft(
            file=source.name,
            line=lambda line=line: line,  # type: ignore[misc]
            session=session.model_copy(update={"session_id": line_id}),
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=facts,
            source=NAME,
            has_record_ids=True,
            fork=None if root is None or membership else Fork(session_id, ""),
            membership=membership,
        )


def _session(file: TranscriptFile, entries: list[Entry], session_id: str) -> Session:
    records = [entry.record for entry in entries]
    times = [time for record in records if (time := to_time(record.get("timestamp")))]
    metadata: Record = {"file": file.source.name}
    for key, name in _METADATA.items():
        values = [record[key] for record in records if isinstance(record.get(key), str)]
        metadata |= {name: values[-1]} if values else {}
    metadata |= {key: v for key, v in file.description.items() if isinstance(v, (str, int, float))}
    uuids = {record["uuid"] for record in records}
    title = file.description.get("description")
    is_whole = entries is file.entries
    for kind, key in _TITLES if is_whole else ():
        for event in file.events:
            value = event.get(key) if event.get("type") == kind else None
            if isinstance(value, str) and value:
                # The summaries of other sessions are written to a file, too.
                if kind != "summary" or event.get("leafUuid") in uuids:
                    title = value
                else:
                    metadata["summary"] = value
    agent = file.description.get("agentType")
    return Session(
        session_id=session_id,
        agent_id=agent if isinstance(agent, str) and agent else AGENT,
        session_data={"session_name": title} if isinstance(title, str) and title else None,
        metadata=metadata,
        agent_data={"events": file.events} if file.events and is_whole else None,
        created_at=int(min(times).timestamp()) if times else None,
        updated_at=int(max(times).timestamp()) if times else None,
    )


def _parse_step(step: Step) -> list[_Item]:
    first = step.answer[0]
    kind = kind_of(first)
    if kind == "answer":
        messages = [parse_answer(step.answer, step.counted)]
        calls = {call.tool_call_id: call for call in messages[0].message.tool_calls}
        for record in step.results:
            ids = result_ids(record)
            if len(ids) == 1 and (duration := result_duration(record)) is not None and (call_id := ids.pop()) in calls:
                calls[call_id].duration_s = duration
            messages += parse_user_record(record, starts_run=False)
    else:
        messages = list(parse_user_record(first, starts_run=kind == "prompt"))
    items = [_Item(message) for message in messages]
    if items and step.duration_s is not None:
        items[-1] = _Item(items[-1].message, step.duration_s)
    return items


def _mark_commands(messages: list[SourceMessage]) -> list[SourceMessage]:
    """A slash command that the model answers is a prompt; one that the client runs has an output, or nothing."""
    result = list(messages)
    follower = ""  # what follows: an answer, a prompt, or the output of a local command
    for index in range(len(messages) - 1, -1, -1):
        item = messages[index]
        message = item.message
        text = "" if message.role == "tool" else (text_of(message.content) or "").lstrip()
        if message.role == "assistant":
            follower = "answer" if message.model else "local"
        elif item.starts_run:
            follower = "prompt"
        elif text.startswith(_LOCAL_OUTPUT):
            follower = "local"
        elif text.startswith(_COMMAND) and message.role == "user" and message.extra.get("isMeta") is not True:
            result[index] = item._replace(starts_run=follower == "answer")
            follower = "prompt"
    return result


def _set_outcomes(runs: list[Run], hashes: list[str], items: list[_Item]) -> None:
    """Set the status and the wall time of each run, as far as the transcript states them."""
    start = 0
    for index, run in enumerate(runs):
        own = items[start : start + len(run.messages)]
        durations = [item.duration_s for item in own if item.duration_s is not None]
        start += len(own)
        _set_times(run, [item.message for item in own])
        if durations:
            run.duration_s = sum(durations)
            hashes[index] = hash_record(hashes[index], run.duration_s)
        for message in reversed(run.messages):
            if message.role == "user" and (text_of(message.content) or "").startswith(INTERRUPTED):
                run.status = "CANCELLED"
                break
            if message.role == "assistant":
                _set_error(run, message)
                break


def _set_times(run: Run, messages: list[SourceMessage]) -> None:
    """A local command before a prompt or after the answer does not extend the run."""
    times = [m.message.created_at for m in messages if m.starts_run or m.message.role in ("assistant", "tool")]
    stated = [time for time in times if time is not None]
    if stated:
        run.created_at, run.finished_at = min(stated), max(stated)
        run.duration_s = (run.finished_at - run.created_at).total_seconds() if len(stated) > 1 else None


def _set_error(run: Run, message: Message) -> None:
    if message.extra.get("isApiErrorMessage") is True:
        run.status, run.error = "ERROR", text_of(message.content)
