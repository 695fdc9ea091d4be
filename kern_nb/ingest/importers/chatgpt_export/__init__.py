"""The data export of ChatGPT: ``conversations.json``, or ``conversations-000.json`` and so on, of the zip archive.

A conversation has a ``mapping``: a tree of nodes, each with a message or none. An edit of a prompt and another attempt
at an answer are siblings; ``current_node`` is the leaf that the page shows. Each other leaf is a draft, too.

* A prompt begins a run. Hidden messages, such as custom instructions, are kept and marked in ``extra``.
* An assistant's message to a recipient other than "all" is a call of that tool; its id is that of the message, as
  calls have none. The tool messages after it are its results.
* Thoughts are parts of type thinking. The model is that of each message. The export has no tokens and no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kern_nb.ingest.importer import (
    READ_ERRORS,
    Draft,
    Fork,
    Importer,
    error_text,
    hash_record,
    json_type,
    require_field,
)
from kern_nb.ingest.importers.chatgpt_export.messages import Record, is_hidden, is_message, parse_line, time_of
from kern_nb.ingest.parsing import tree
from kern_nb.ingest.parsing.times import to_unix_seconds
from kern_nb.ingest.parsing.tree import Entry, build_steps, record_key
from kern_nb.ingest.parsing.values import keep_scalars, to_id, to_object, to_text, without
from kern_nb.ingest.run_splitter import split_runs
from kern_nb.ingest.source import Item, Source
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session

NAME = "chatgpt_export"

_MAPPED_FIELDS = ("mapping", "title", "create_time", "update_time", "conversation_id", "id")


class ChatGPTExport(Importer):
    """The conversations of an export of ChatGPT."""

    name = NAME
    reads = "the data export of ChatGPT"

    def recognizes(self, source: Source) -> bool:
        """A conversation with a mapping in which some node has a message."""
        return any(_is_conversation(record) for value in source.head for record in _records(value))

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield the drafts of each conversation: the line that the page shows, then one for each other leaf."""
        for item in source.items():
            if isinstance(item, Problem):
                yield item
                continue
            try:
                yield from _read_conversation(source, item)
            except READ_ERRORS as error:
                yield Problem(source.name, item.line(), f"The conversation is not imported: {error_text(error)}.")


def _records(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_conversation(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("mapping"), dict):
        return False
    nodes = [node for node in value["mapping"].values() if isinstance(node, dict)]
    is_tree = any("parent" in node or "children" in node for node in nodes)
    return is_tree and any(is_message(node.get("message")) for node in nodes)


def _read_conversation(source: Source, item: Item) -> Iterator[Draft | Problem]:
    record = item.value
    mapping = require_field(record, "mapping", dict, "the conversation")
    session_id = to_id(record.get("conversation_id")) or to_id(record.get("id"))
    if session_id is None:
        session_id = f"{source.session_name}-{hash_record(record.get('create_time'), list(mapping))[:8]}"
    entries, problems = _to_entries(mapping)
    for reason in problems:
        yield Problem(source.name, item.line(), f"Conversation {session_id[:80]!r}: {reason}.")
    links = tree.link(entries)
    steps = build_steps(entries, links, _is_significant)
    positions = {entry.key: position for position, entry in enumerate(entries)}
    current = steps.get(positions.get(to_id(record.get("current_node")) or "", -1), steps[-1])
    while current.parent is not None and not current.is_significant:
        current = current.parent
    lines = tree.lines(steps[-1], current)
    if not entries:
        lines = [[]]
    for line, first in tree.by_root(lines):
        line_id = session_id if first is None else f"{session_id}~{entries[first.position].key[:8]}"
        nodes = [entries[step.position].record for step in line]
        draft = _draft(
            source, item.line, record, line_id, [(record_key(session_id, n["key"]), n["message"]) for n in nodes]
        )
        draft.fork = None if first is None else Fork(session_id, "")
        yield draft


def _is_significant(entry: Entry) -> bool:
    message = entry.record["message"]
    return to_object(message.get("author")).get("role") in ("user", "assistant") and not is_hidden(message)


def _to_entries(mapping: dict[str, Any]) -> tuple[list[Entry], list[str]]:
    """The nodes in the order of their times; a node without a time follows its parent."""
    problems: list[str] = []
    nodes: dict[str, Record] = {}
    for key, node in mapping.items():
        if not isinstance(node, dict):
            problems.append(f"node {key[:80]!r} is not imported: it must be an object, got {json_type(node)}")
            continue
        message = node.get("message")
        if message is not None and not is_message(message):
            problems.append(f"the message of node {key[:80]!r} is not imported: it has no author or no content")
        nodes[key] = node
    for key, node in list(nodes.items()):  # a damaged node is still the child of another one
        children = node.get("children")
        for child in children if isinstance(children, list) else []:
            if isinstance(child, str) and child in nodes and nodes[child].get("parent") is None and child != key:
                nodes[child] = nodes[child] | {"parent": key}
    times = _times(nodes)
    entries = []
    for key in sorted(nodes, key=times.__getitem__):
        message = nodes[key].get("message")
        record = {"key": key, "message": message}
        entries.append(Entry(1, record, key, to_id(nodes[key].get("parent")), is_message(message)))
    return entries, problems


def _times(nodes: dict[str, Record]) -> dict[str, float]:
    """The time of each node; that of its parent if it has none."""
    times: dict[str, float] = {}
    for key in nodes:
        chain = []
        at: Any = key
        while isinstance(at, str) and at in nodes and at not in times:
            chain.append(at)
            times[at] = 0.0  # the end of a cycle
            at = nodes[at].get("parent")
        for name in reversed(chain):
            own = time_of(to_object(nodes[name].get("message")))
            parent = nodes[name].get("parent")
            above = times.get(parent, 0.0) if isinstance(parent, str) else 0.0
            times[name] = own.timestamp() if own is not None else above
    return times


def _draft(
    source: Source, line_of: Callable[[], int], record: Record, session_id: str, line: list[tuple[str, Record]]
) -> Draft:
    runs, hashes, keys = split_runs(session_id, parse_line(line))
    for index, run in enumerate(runs):
        _set_status(run)
        hashes[index] = hash_record(hashes[index], run.status)
    title = to_text(record.get("title"))
    fields = without(record, _MAPPED_FIELDS)
    times = [time_of({"create_time": record.get(name)}) for name in ("create_time", "update_time")]
    nested = {key: value for key, value in fields.items() if isinstance(value, (dict, list)) and value}
    return Draft(
        file=source.name,
        line=line_of,
        session=Session(
            session_id=session_id,
            agent_id="chatgpt",
            session_data={"session_name": title} if title else None,
            agent_data={NAME: nested} if nested else None,
            metadata={"file": source.name} | keep_scalars(fields),
            created_at=to_unix_seconds(times[0]),
            updated_at=to_unix_seconds(times[1] or times[0]),
        ),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(title, fields),
        source=NAME,
        has_record_ids=True,
    )


def _set_status(run: Run) -> None:
    answers: list[Message] = [message for message in run.messages if message.role == "assistant"]
    if answers and answers[-1].partial:
        run.status = "CANCELLED"
