"""Rollouts of the Codex CLI: ``$CODEX_HOME/sessions/YYYY/MM/DD/rollout-<time>-<thread id>.jsonl``.

Each line is ``{"timestamp", "ordinal"?, "type", "payload"}``. A file of 2025 has items without this envelope after a
header ``{"id", "timestamp", "instructions"}``, or is one document ``{"session", "items"}``.

* A thread is a session. A prompt, with what its turn has before it and what follows, is a run; the duration, the time
  to the first token and the status are those that the events of the turn state.
* The items of one response of the model (reasoning, text, calls) are one message, with its usage: that of
  ``token_usage_record``, else of each ``token_count`` whose total has changed.
* A call failed if an event or its result states an exit code other than 0, or a status "failed".
* What was rolled back is a line of its own. A compaction is a message of the run before, marked in ``extra``.
* A fork whose header has a ``history_base`` repeats nothing. The others repeat the records of their parent: the keys of
  messages are the ids of turns, so that the store recognizes them. What a nested agent's file repeats is left out.
* Encrypted reasoning is dropped; records of unknown types are in the ``extra`` of their run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from kern_nb.db import codec
from kern_nb.ingest.importer import (
    RECORD_ERRORS,
    Draft,
    Fork,
    Importer,
    Location,
    MalformedRecord,
    Membership,
    error_text,
    hash_record,
    json_type,
)
from kern_nb.ingest.importers.codex.items import Item, is_abortion, is_item
from kern_nb.ingest.importers.codex.thread import Thread, Turn, group_by_run
from kern_nb.ingest.importers.codex.titles import read_titles, title_files
from kern_nb.ingest.parsing.times import to_time, to_unix_seconds
from kern_nb.ingest.parsing.values import keep_scalars, to_count, to_id, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage, build_runs
from kern_nb.ingest.source import Source, Value
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session

NAME = "codex"

_TYPES = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted", "token_usage_record"})
_HEADER_KEYS = frozenset({"id", "timestamp", "instructions", "git", "cwd", "originator", "cli_version", "source"})
_FILE_ID = re.compile(r"rollout-.*([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


class Codex(Importer):
    """Rollouts of the Codex CLI."""

    name = NAME
    reads = "sessions of the Codex CLI"
    locations = (
        Location("~/.codex", "sessions/**/rollout-*.jsonl*", "CODEX_HOME"),
        Location("~/.codex", "sessions/rollout-*.json", "CODEX_HOME"),
        Location("~/.codex", "archived_sessions/rollout-*.jsonl*", "CODEX_HOME"),
    )

    def recognizes(self, source: Source) -> bool:
        """Records in the envelope of a rollout, a header and items without it, or a document with both."""
        head = source.head
        if any(map(_is_enveloped, head)) or any(map(_is_document, head)):
            return True
        return bool(head) and _is_header(head[0]) and any(map(is_item, head[1:]))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the session, then a draft for each line that was rolled back."""
        return _read(source)

    def companions(self, source: Source) -> Iterable[Path]:
        """The files with the titles of all threads, beside the folder of the sessions."""
        return title_files(Path(source.location))

    def start_time(self, source: Source) -> str:
        """The time of the header."""
        for value in source.head:
            header = _session_header(value) or {}
            if time := to_text(header.get("timestamp")):
                return time
        return ""


def _is_enveloped(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("payload"), dict) or value.get("type") not in _TYPES:
        return False
    payload = value["payload"]
    if value["type"] == "session_meta":
        return "id" in payload
    return isinstance(value.get("timestamp"), str) and (value["type"] != "response_item" or is_item(payload))


def _is_header(value: Any) -> bool:
    return isinstance(value, dict) and "id" in value and "timestamp" in value and value.keys() <= _HEADER_KEYS


def _is_document(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("items"), list):
        return False
    return _is_header(value.get("session")) and any(map(is_item, value["items"]))


def _session_header(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    if value.get("type") == "session_meta":
        return to_object(value.get("payload"))
    if _is_header(value.get("session")):
        return to_object(value["session"])
    return value if _is_header(value) else None


class _Record(NamedTuple):
    line: int
    kind: str
    payload: dict[str, Any]
    time: str | None = None
    ordinal: Any = None


def _records(source: Source) -> Iterator[_Record | Problem]:
    """Yield the records of a file in the envelope of current versions."""
    for item in source.values():
        if isinstance(item, Problem):
            yield item
        elif isinstance(item.value, dict) and isinstance(item.value.get("items"), list):
            yield _Record(item.line, "session_meta", to_object(item.value.get("session")))
            for index, value in enumerate(item.value["items"]):
                yield _to_record(source, Value(source.line_of("items", index, item.line), value))
        else:
            yield _to_record(source, item)


def _to_record(source: Source, item: Value) -> _Record | Problem:
    value = item.value
    if not isinstance(value, dict):
        return Problem(source.name, item.line, f"The record must be an object, got {json_type(value)}.")
    kind, payload = value.get("type"), value.get("payload")
    if isinstance(kind, str) and isinstance(payload, dict):
        return _Record(item.line, kind, payload, value.get("timestamp"), value.get("ordinal"))
    if is_item(value):
        return _Record(item.line, "response_item", value, value.get("timestamp"))
    if _is_header(value):
        return _Record(item.line, "session_meta", value, value.get("timestamp"))
    if "record_type" in value:
        return _Record(item.line, "state", value)
    reason = "has no payload" if isinstance(kind, str) else "has no type"
    return Problem(source.name, item.line, f"The record is not imported: it {reason}.")


def _read(source: Source) -> Iterator[Draft | Problem]:
    thread = Thread()
    line = 1
    for record in _records(source):
        if isinstance(record, Problem):
            yield record
            continue
        if record.kind == "session_meta" and thread.ends_before(record.payload):  # several files may be joined to one
            yield from _drafts(source, thread, line)
            thread, line = Thread(), record.line
        try:
            thread.add(record.kind, record.payload, to_time(record.time), record.ordinal)
        except RECORD_ERRORS as error:
            yield Problem(source.name, record.line, f"The record is not imported: {error_text(error)}.")
    yield from _drafts(source, thread, line)


def _drafts(source: Source, thread: Thread, line: int) -> Iterator[Draft | Problem]:
    thread.finish()
    path = thread.path
    if thread.is_nested and thread.parents:
        own = [turn for turn in path if thread.is_replayed(turn) is False]
        if own:
            path = own
        else:
            reason = f"The session repeats records of its parent {thread.parents[-1]!r}, but not where its own begin"
            yield Problem(source.name, line, f"{reason}: all of them are imported.")
    lines = [path]
    for rolled_back, tail in thread.rolled_back:
        if not any(thread.is_replayed(turn) for turn in tail):  # else the parent's file has this line
            own = [turn for turn in rolled_back if not thread.is_replayed(turn)]
            lines.append(own if thread.is_nested else rolled_back)
    for turns in lines:
        try:
            yield _draft(source, thread, turns, line)
        except RECORD_ERRORS as error:
            yield Problem(source.name, line, f"The session is not imported: {error_text(error)}.")


def _draft(source: Source, thread: Thread, path: list[Turn], line: int) -> Draft:
    meta = thread.meta
    stem = source.session_name
    match = _FILE_ID.search(stem)
    session_id = thread.thread_id or (match[1] if match else stem)
    groups = list(group_by_run(path))
    messages = [
        [
            _to_source_message(item, thread, is_aborted=any(turn.status == "CANCELLED" for turn in turns))
            for item in items
        ]
        for items, turns in groups
    ]
    if not meta and not messages:
        raise MalformedRecord("it has no header and no messages")
    runs, hashes, keys = build_runs(session_id, messages)
    n_runs = Counter(id(turn) for _, turns in groups for turn in turns)
    for index, (run, (_, turns)) in enumerate(zip(runs, groups, strict=True)):
        is_shared = n_runs[id(turns[-1])] > 1
        stated = _set_run(run, turns, to_text(meta.get("model_provider")), is_shared=is_shared)
        hashes[index] = hash_record(hashes[index], stated)
    blobs, base = _to_blob(meta)
    membership = _find_membership(thread)
    titles = read_titles(Path(source.location), session_id)
    title = titles.name or thread.title or titles.title
    origin = _origin(meta)
    return Draft(
        file=source.name,
        line=lambda: line,
        session=Session(
            session_id=session_id,
            agent_id=NAME,
            session_data={"session_name": title} if title else None,
            agent_data={NAME: {**base, **without(_nested(meta), ("git",))}} if meta else None,
            metadata={"file": source.name, **({"model": thread.model} if thread.model else {}), **origin},
            created_at=to_unix_seconds(to_time(meta.get("timestamp")) or thread.first_time),
            updated_at=to_unix_seconds(thread.last_time or to_time(meta.get("timestamp"))),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(meta, title, thread.model),
        source=NAME,
        blobs=blobs,
        has_record_ids=True,
        fork=None if membership else _find_fork(meta),
        membership=membership,
    )


def _to_source_message(item: Item, thread: Thread, *, is_aborted: bool) -> SourceMessage:
    message = item.message
    if thread.rolled_back:  # lines share messages, and each sets indexes of its own
        message = message.model_copy(deep=True)
    stated: list[Any] = []
    for call in message.tool_calls:
        outcome = thread.outcomes.get(call.tool_call_id or "")
        duration = thread.durations.get(call.tool_call_id or "")
        call.duration_s = outcome.duration_s if outcome is not None and outcome.duration_s is not None else duration
        if outcome is not None:
            stated.append(outcome.values())
            call.extra |= {"exit_code": outcome.exit_code} if outcome.exit_code is not None else {}
            call.extra |= {"new_thread_id": outcome.thread_id} if outcome.thread_id else {}
    outcome = thread.outcomes.get(message.tool_call_id or "")
    if message.role == "tool" and outcome is not None and outcome.is_error is not None:
        message.is_error = outcome.is_error
        stated.append(outcome.is_error)
    if is_aborted and message.role == "tool" and message.is_error is None and is_abortion(message.content):
        message.is_error = True
        stated.append("aborted")
    return SourceMessage(message, [item.record, stated], item.key, item.starts_run or False)


def _set_run(run: Run, turns: list[Turn], provider: str | None, *, is_shared: bool) -> list[Any]:
    """Set what the events of its turns state; returns it. Several prompts in a turn have no times of their own."""
    prompted = next((turn for turn in turns if turn.n_prompts), turns[0])
    last = turns[-1] if turns[-1].status is not None else prompted
    run.model, run.model_provider = run.model or prompted.model, provider
    if last.status is not None:
        run.status, run.error = last.status, last.error
    elif prompted.has_start and not prompted.has_end:
        run.status = "INTERRUPTED"
    if not is_shared:
        if prompted.duration_s is not None:
            run.duration_s = prompted.duration_s
        run.time_to_first_token_s = prompted.time_to_first_token_s
    records = [record for turn in turns for record in turn.records if not is_shared or turn is turns[0]]
    if records:
        run.extra = {"records": records}
    if prompted.context:
        run.extra["turn_context"] = prompted.context
    turn_ids = [turn.turn_id for turn in turns if turn.turn_id is not None]
    if turn_ids:
        run.extra["turn_ids"] = turn_ids
    return [run.status, run.error, prompted.duration_s, run.time_to_first_token_s, provider, run.model, run.extra]


def _nested(meta: dict[str, Any]) -> dict[str, Any]:
    """What the header states beside its scalars; its instructions are a blob."""
    return {
        key: value
        for key, value in meta.items()
        if isinstance(value, (dict, list)) and value and key != "base_instructions"
    } | ({"instructions": meta["instructions"]} if to_text(meta.get("instructions")) else {})


def _to_blob(meta: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The instructions of the model, which are long and equal in many sessions, and the reference to them."""
    if not meta.get("base_instructions"):
        return {}, {}
    content = codec.dumps(meta["base_instructions"]).encode("utf-8", "surrogatepass")
    name = sha256(content).hexdigest()
    return {name: content}, {"base_instructions": name}


def _origin(meta: dict[str, Any]) -> dict[str, Any]:
    """The scalars of the header that users filter by."""
    git, spawn = to_object(meta.get("git")), _find_spawn(meta)
    names = ("commit_hash", "branch", "repository_url")
    origin = keep_scalars(without(meta, ("id", "session_id", "timestamp", "instructions", "base_instructions")))
    origin |= {f"git_{name}": git[name] for name in names if to_text(git.get(name))}
    if "subagent" in to_object(meta.get("source")):
        origin["source"] = "subagent"
    return origin | keep_scalars({key: value for key, value in spawn.items() if key != "parent_thread_id"})


def _find_spawn(meta: dict[str, Any]) -> dict[str, Any]:
    return to_object(to_object(to_object(meta.get("source")).get("subagent")).get("thread_spawn"))


def _find_fork(meta: dict[str, Any]) -> Fork | None:
    """The parent of a fork that repeats nothing. Ordinals continue over forks, so they order the parent's messages."""
    base = to_object(meta.get("history_base"))
    parent, end = to_id(base.get("thread_id")), to_count(base.get("end_ordinal_exclusive"))
    if parent is None:
        return None
    return Fork(parent, None if end is None else f"{end:012d}")


def _find_membership(thread: Thread) -> Membership | None:
    if not thread.is_nested:
        return None
    spawn = _find_spawn(thread.meta)
    ids = (to_id(fields.get("parent_thread_id")) for fields in (spawn, thread.meta))
    parent = next((value for value in ids if value), None)
    return None if parent is None or parent == thread.thread_id else Membership(parent)
