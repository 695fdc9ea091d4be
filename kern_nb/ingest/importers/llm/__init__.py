"""The log of the command-line tool llm (``llm logs path``): a SQLite file with up to two generations of tables.

Since version 0.32 messages are a tree by hash, and a thread is a name for one of its leaves. A turn is one response of
a model: it has the usage, the times and the model. A thread is a session; the turns from a person's prompt to the next
one are a run. A hash identifies what was said before, too, but not who said it: the same prompt in two threads is one
row. A message therefore belongs to the thread whose turn wrote it, and a thread that starts with messages of another
thread's turns is a branch of that. A turn that does not lie on its thread's line is a branch of the thread.

The older tables (`responses`) are read as well. The new ones repeat the messages, not the usage, of a conversation
that was continued: such messages take it from the older row.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, Location, error_text, hash_record
from kern_nb.ingest.importers.llm.parts import Answer, Contents, finish_run, starts_run
from kern_nb.ingest.importers.llm.responses import Responses
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.sqlite_rows import rows
from kern_nb.ingest.parsing.times import parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import load_json, to_id, to_list, to_object, to_text
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest.source import Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session, ToolCall, text_of

NAME = "llm"

_NEW_TABLES = {
    "messages": {"hash", "parent_hash", "role"},
    "parts": {"message_hash", "position", "type"},
    "threads": {"id", "tip_message_hash"},
    "turns": {"id", "thread_id", "parent_message_hash", "tip_message_hash"},
}
_OLD_COLUMNS = {"id", "model", "prompt", "response", "conversation_id", "datetime_utc"}


class Llm(Importer):
    """The log of llm."""

    name = NAME
    reads = "the log of the command-line tool llm"
    locations = (
        Location("~/.config/io.datasette.llm", "logs.db", "LLM_USER_PATH"),
        Location("~/Library/Application Support/io.datasette.llm", "logs.db"),
    )

    def recognizes(self, source: Source) -> bool:
        """The tables of either generation."""
        return _has_new(source.tables) or source.tables.get("responses", frozenset()) >= _OLD_COLUMNS

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of a thread, its current line first, then the conversations of the older tables."""
        try:
            tables = source.tables
            with source.open_sqlite() as connection:
                contents = Contents.load(connection, tables)
                responses = Responses(connection, tables, contents)
                log = _Log(connection, contents, responses) if _has_new(tables) else None
            if log is not None:
                yield from _read_threads(source, log)
            yield from _read_conversations(source, responses, log)
        except sqlite3.Error as error:
            yield Problem(source.name, None, f"The database cannot be read any further: {error}.")


def _has_new(tables: Mapping[str, frozenset[str]]) -> bool:
    return all(tables.get(name, frozenset()) >= columns for name, columns in _NEW_TABLES.items())


_Items = list[tuple[SourceMessage, Answer | None]]


class _Line(NamedTuple):
    """A path in the tree, from the root."""

    thread_id: str
    hashes: list[str]


class _Log:
    """The tables of the newer generation in memory.

    Attributes:
        writers: The threads whose turns wrote a message, oldest first.
        turns: The turn that wrote a message of the model, by thread and hash.
        counted: The last of these messages of each turn, which has its usage; its prompt if the model said nothing.
        silent: The prompts of turns in which the model said nothing.
        used: The older responses whose messages a thread repeats.
        problems: The messages that are malformed.
    """

    def __init__(self, connection: sqlite3.Connection, contents: Contents, responses: Responses) -> None:
        self.contents = contents
        self.responses = responses
        self.messages = {str(row.get("hash")): row for row in rows(connection, "messages")}
        self.parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows(connection, "parts", "ORDER BY message_hash, position"):
            self.parts[str(row.get("message_hash"))].append(row)
        self.threads = {str(row.get("id")): row for row in rows(connection, "threads", "ORDER BY rowid")}
        self.turns: dict[tuple[str, str], Answer] = {}
        self.counted: set[tuple[str, str]] = set()
        self.silent: set[tuple[str, str]] = set()
        self.turn_ids: set[str] = set()
        self.tips: dict[str, list[str]] = {
            name: [tip] for name, row in self.threads.items() if (tip := to_id(row.get("tip_message_hash")))
        }
        self.writers: dict[str, list[str]] = defaultdict(list)
        self.used: set[str] = set()
        self._chains: dict[str, set[str]] = {}
        self.problems: set[str] = set()
        for row in rows(connection, "turns", "ORDER BY rowid"):
            self._add_turn(row)

    def _add_turn(self, row: dict[str, Any]) -> None:
        turn_id, tip = str(row.get("id")), to_id(row.get("tip_message_hash"))
        self.turn_ids.add(turn_id)
        thread_id = to_id(row.get("thread_id")) or turn_id
        if tip is None:
            return
        self.threads.setdefault(thread_id, {})
        if tip not in self.tips.setdefault(thread_id, []):
            self.tips[thread_id].append(tip)
        parent = to_id(row.get("parent_message_hash"))
        chain = self.chain(tip)
        start = chain.index(parent) + 1 if parent in chain else 0
        own = chain[start if parent in chain else -1 :]
        said = [name for name in own if self.role(name) == "assistant"] or [tip]
        for name in said:
            self.turns.setdefault((thread_id, name), Answer(row))
        self.counted.add((thread_id, said[-1]))
        if not own:
            self.silent.add((thread_id, tip))
        # The turn's own input is what follows the answer before it.
        while start and self.role(chain[start - 1]) in ("user", "tool"):
            start -= 1
        if start == 1 and self.role(chain[0]) == "system":
            start = 0
        for name in chain[start:]:
            if thread_id not in self.writers[name]:
                self.writers[name].append(thread_id)

    def role(self, name: str) -> str:
        return str(self.messages[name].get("role") or "user")

    def chain(self, tip: str | None) -> list[str]:
        """The hashes from the root to a message; what is missing or cyclic ends it."""
        chain: dict[str, None] = {}
        while tip is not None and tip in self.messages and tip not in chain:
            chain[tip] = None
            tip = to_id(self.messages[tip].get("parent_hash"))
        return list(chain)[::-1]

    def chains(self, thread_id: str) -> set[str]:
        """The hashes of all messages of a thread."""
        if thread_id not in self._chains:
            tips = self.tips.get(thread_id, ())
            self._chains[thread_id] = {name for tip in tips for name in self.chain(tip)}
        return self._chains[thread_id]

    def lines(self, thread_id: str) -> list[_Line]:
        """The thread's line, then the others that do not lie on one."""
        chains = [self.chain(tip) for tip in self.tips.get(thread_id, ())]
        lines: list[list[str]] = []
        for chain in chains[:1] + sorted(chains[1:], key=len, reverse=True):
            if chain and not any(chain == other[: len(chain)] for other in lines):
                lines.append(chain)
        return [_Line(thread_id, chain) for chain in lines]

    def owner(self, thread_id: str, name: str) -> str:
        """The thread that wrote a message: the one it was forked from, itself, or the first whose turn did."""
        writers, seen = self.writers.get(name, []), {thread_id}
        parent = to_id(self.threads.get(thread_id, {}).get("forked_from"))
        while parent is not None and parent not in seen:
            if parent in writers or (not writers and name in self.chains(parent)):
                return self.owner(parent, name) if len(seen) == 1 else parent
            seen.add(parent)
            parent = to_id(self.threads.get(parent, {}).get("forked_from"))
        return thread_id if thread_id in writers or not writers else writers[0]

    def items(self, line: _Line) -> _Items:
        """The messages of a line, and the response that each answer comes from."""
        older = [
            row for row in self.responses.by_conversation.get(line.thread_id, ())
            if str(row.get("id")) not in self.turn_ids
        ]  # fmt: skip
        items: _Items = []
        for name in line.hashes:
            owner = self.owner(line.thread_id, name)
            answer = self.turns.get((owner, name)) or self.turns.get((line.thread_id, name))
            try:
                messages = self._parse(name)
            except RECORD_ERRORS as error:
                self.problems.add(f"Message {name!r} is not imported: {error_text(error)}.")
                continue
            places = {(owner, name), (line.thread_id, name)}
            has_usage = bool(places & self.counted)
            if answer is None and self.role(name) == "assistant":
                answer, has_usage = self._older_answer(messages[0], older), True
            elif places & self.silent:
                messages.append(Message(role="assistant"))
            for index, message in enumerate(messages):
                is_answer = answer is not None and message.role == "assistant"
                if is_answer and answer:
                    answer.describe(message, has_usage=has_usage)
                calls = [(call.tool_call_id, call.tool_name, call.args) for call in message.tool_calls]
                record = [name, index, message.content, calls, *(answer.record if is_answer and answer else ())]
                key = f"{owner}:{name}:{index}"
                before = items[-1][0].message if items else None
                source = SourceMessage(message, record, key, starts_run(message, before))
                items.append((source, answer if is_answer else None))
        _set_times(items)
        return items

    def _older_answer(self, message: Message, older: list[dict[str, Any]]) -> Answer | None:
        text = text_of(message.content) or ""
        for position, row in enumerate(older):
            if (row.get("response") or "") == text:
                del older[: position + 1]
                self.used.add(str(row.get("id")))
                return Answer(row)
        return None

    def _parse(self, name: str) -> list[Message]:
        """A message, and one for each tool result in it."""
        role = self.role(name)
        message = Message(role=role, message_id=name)
        if metadata := load_json(self.messages[name].get("provider_metadata")):
            message.extra["provider_metadata"] = metadata
        content: list[dict[str, Any]] = []
        results: list[Message] = []
        for row in self.parts.get(name, ()):
            kind, payload = row.get("type"), to_object(load_json(row.get("payload")))
            if kind == "tool_call":
                message.tool_calls.append(_call(payload))
            elif kind == "tool_result":
                results.append(self._result(payload))
            elif kind == "attachment":
                content.append(self.contents.attachment_part(to_object(payload.get("attachment")).get("id")))
            else:
                stated = {key: value for key, value in payload.items() if key not in ("text", "text_ref")}
                kind = "reasoning" if kind == "reasoning" else "text"
                content.append({"type": kind, kind: self.contents.text_of(row, payload), **stated})
        message.content = simplify(content) or None
        return results if results and role == "tool" and not content else [message, *results]

    def _result(self, payload: dict[str, Any]) -> Message:
        extra = {k: v for k, v in payload.items() if k not in ("name", "output", "tool_call_id", "attachments")}
        attachments = [to_object(item).get("id") for item in to_list(payload.get("attachments"))]
        if attachments:
            extra["attachments"] = [self.contents.attachment_part(item) for item in attachments]
        return Message(
            role="tool",
            content=payload.get("output"),
            tool_call_id=to_id(payload.get("tool_call_id")),
            tool_name=to_text(payload.get("name")),
            is_error=True if payload.get("exception") else None,
            extra=extra,
        )


def _call(payload: dict[str, Any]) -> ToolCall:
    return ToolCall(
        tool_call_id=to_id(payload.get("tool_call_id")),
        tool_name=to_text(payload.get("name")),
        args=payload.get("arguments"),
        extra={k: v for k, v in payload.items() if k not in ("name", "arguments", "tool_call_id")},
    )


def _set_times(items: _Items) -> None:
    """An answer and the messages that it answers have the time when these were sent."""
    time = None
    for source, answer in reversed(items):
        time = answer.start if answer is not None else time
        source.message.created_at = time
        if source.message.role == "assistant" and answer is None:
            source.message.created_at = time = None


def _read_threads(source: Source, log: _Log) -> Iterator[Draft | Problem]:
    for thread_id, row in log.threads.items():
        for line in log.lines(thread_id):
            try:
                started = parse_time(row.get("datetime_utc"))
                yield _draft(source, thread_id, to_text(row.get("name")), log.items(line), started)
            except RECORD_ERRORS as error:
                yield Problem(source.name, None, f"Thread {thread_id!r} is not imported: {error_text(error)}.")
    yield from (Problem(source.name, None, reason) for reason in sorted(log.problems))


def _read_conversations(source: Source, responses: Responses, log: _Log | None) -> Iterator[Draft | Problem]:
    for conversation_id, all_rows in responses.by_conversation.items():
        logged = log.turn_ids | log.used if log else set()
        items: _Items = []
        system = None
        for row in (row for row in all_rows if str(row.get("id")) not in logged):
            try:
                items += responses.messages(row, system)
                system = responses.system(row)
            except RECORD_ERRORS as error:
                reason = f"Response {row.get('id')!r} is not imported: {error_text(error)}."
                yield Problem(source.name, None, reason)
        if items:
            yield _draft(source, conversation_id, responses.titles.get(conversation_id), items)


def _draft(source: Source, session_id: str, title: str | None, items: _Items, started: datetime | None = None) -> Draft:
    runs, hashes, keys = split_runs(session_id, [message for message, _ in items])
    first = 0
    for index, run in enumerate(runs):
        answers = [answer for _, answer in items[first : first + len(run.messages)] if answer is not None]
        first += len(run.messages)
        hashes[index] = hash_record(hashes[index], *finish_run(run, answers))
    times = [run.created_at for run in runs if run.created_at]
    ends = [run.finished_at for run in runs if run.finished_at]
    session = Session(
        session_id=session_id,
        agent_id=NAME,
        session_data={"session_name": title} if title else None,
        created_at=to_unix_seconds(min(times, default=started)),
        updated_at=to_unix_seconds(max(ends, default=None)),
    )
    return Draft(
        file=source.name,
        line=lambda: 1,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title),
        source=NAME,
        has_record_ids=True,
    )
