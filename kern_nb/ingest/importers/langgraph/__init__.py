"""Checkpoints of LangGraph, in SQLite (the program chooses the file; deepagents has a folder for it) and in PostgreSQL.

A thread is a session, an input of it a run. Every step is a checkpoint with the whole state: what it adds to the list
of messages is that step's messages, at the time of the checkpoint. Checkpoints form a tree: the path to the newest one
is the current line, other leaves with messages of their own are branches. A message that was removed from the state
stays, because it was said. The other channels are the session's state. A namespace is a nested graph, which usually
repeats the messages of its parent: those that it has alone are a session whose runs are members of the parent's.

Nothing in a state is constructed or loaded; pickled and encrypted states are reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Location, Membership, error_text, hash_record
from kern_nb.ingest.importers.langchain.messages import REMOVE, parse_message, provider_of
from kern_nb.ingest.importers.langgraph.encoding import JSON, MSGPACK
from kern_nb.ingest.importers.langgraph.states import ERROR, INTERRUPT, RESUME, Namespace, Node, Token, Values
from kern_nb.ingest.importers.langgraph.tables import Reader, has_layout, open_reader
from kern_nb.ingest.parsing.table_importer import TableImporter
from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables
from kern_nb.ingest.parsing.times import parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import drop_null, keep_scalars, to_id
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session

NAME = "langgraph"

_OWN_METADATA = frozenset({"source", "step", "parents", "writes", "thread_id", "checkpoint_ns", "checkpoint_id"})


class LangGraph(TableImporter):
    """Checkpoints of LangGraph."""

    name = NAME
    reads = "checkpoints of LangGraph in SQLite and PostgreSQL"
    locations = (Location("~/.deepagents", "**/sessions.db"),)

    def has_layout(self, tables: Tables) -> bool:
        """A table of checkpoints with threads and namespaces."""
        return has_layout(tables)

    def read_tables(
        self, connection: AnyConnection, tables: Tables, *, schema: str | None = None, file: str = "database"
    ) -> Iterator[Draft | Problem]:
        """Yield the drafts of a thread, its current line first, then those of its nested graphs."""
        reader = open_reader(connection, tables, schema)
        for name in reader.missing:
            reason = f"The table {name} is missing or may not be read: what it has of the sessions is not imported."
            yield Problem(file, None, reason)
        for thread_id, names in reader.threads().items():
            yield from _read_thread(file, reader, thread_id, names)


def _read_thread(file: str, reader: Reader, thread_id: str, names: list[str]) -> Iterator[Draft | Problem]:
    values = Values()
    names = sorted(dict.fromkeys(names), key=lambda name: name.count("|") + bool(name))  # parents first, oldest first
    said: set[str] = set()  # in namespaces above
    stored: set[str] = set()
    repeated: set[tuple[str, str | None]] = set()  # calls whose id several runs of a session have
    calling_ids = _calling_ids(reader, thread_id, names, values)
    for name in names:
        namespace = Namespace(reader, thread_id, name, values)
        session_id = f"{thread_id}/{name}" if name else thread_id
        parents = ["|".join(name.split("|")[:i]) for i in range(name.count("|"), 0, -1)]
        parent_ids = [f"{thread_id}/{parent}" for parent in parents] + [thread_id]
        membership = None
        if name and said:
            parent_id = next((i for i in parent_ids if i in stored), thread_id)
            call_id = calling_ids.get(name)
            membership = Membership(parent_id, None if (parent_id, call_id) in repeated else call_id)
        builder = _Builder(file, namespace, thread_id, session_id, frozenset(said), membership)
        try:
            for draft in builder.drafts():
                stored.add(session_id)
                counts = Counter(
                    i for run in draft.runs for i in {c.tool_call_id for m in run.messages for c in m.tool_calls}
                )
                repeated |= {(session_id, call_id) for call_id, count in counts.items() if count > 1}
                yield draft
        except RECORD_ERRORS as error:
            builder.problems.add(f"Thread {session_id!r} is not imported: {error_text(error)}.")
        problems = [*sorted(builder.problems), *_describe_problems(namespace, session_id)]
        if session_id not in stored and not name and not problems:
            problems.append(f"Thread {session_id!r} is not imported: no channel of it has messages.")
        yield from (Problem(file, None, reason) for reason in problems)
        said |= {_identity(values, token) for node in namespace.nodes.values() for token in node.added}


def _describe_problems(namespace: Namespace, session_id: str) -> Iterator[str]:
    for reason, count in namespace.problems.items():
        number = (
            f"{count} checkpoints of thread {session_id!r} are"
            if count > 1
            else (f"A checkpoint of thread {session_id!r} is")
        )
        yield f"{number} not imported: {reason}."
    for channel, reason in namespace.unread_channels.items():
        yield f"Channel {channel!r} of thread {session_id!r} is not imported: {reason}."


def _calling_ids(reader: Reader, thread_id: str, names: list[str], values: Values) -> dict[str, str]:
    """The call that started each nested graph: the task that names the namespace wrote the result of the call."""
    tasks = {task_id: name for name in names if (task_id := name.rpartition("|")[2].partition(":")[2])}
    if not tasks:
        return {}
    ids: dict[str, set[str]] = {}
    for write in reader.writes(thread_id):
        if write.task_id in tasks and write.value.kind in (MSGPACK, JSON):
            try:
                tokens = values.tokens(write.value)
            except RECORD_ERRORS:
                continue
            stated = (to_id((values.fields[token.value] or {}).get("tool_call_id")) for token in tokens)
            ids.setdefault(tasks[write.task_id], set()).update(call_id for call_id in stated if call_id)
    return {name: call_ids.pop() for name, call_ids in ids.items() if len(call_ids) == 1}


def _identity(values: Values, token: Token) -> str:
    """What is equal in a nested graph's copy of a message: its id, else what it says."""
    fields = values.fields[token.value] or {}
    return values.id_of(token) or hash_record(fields.get("type"), fields.get("content"), fields.get("tool_calls"))


class _Entry(NamedTuple):
    """A message on a path.

    Attributes:
        position: The position on the path of the checkpoint that adds it.
        earlier: The versions of it that it replaced.
    """

    token: Token
    position: int
    starts_run: bool | None
    is_compaction: bool
    time: str | None
    earlier: tuple[Token, ...] = ()


class _Builder:
    """The drafts of a namespace."""

    def __init__(
        self,
        file: str,
        namespace: Namespace,
        thread_id: str,
        session_id: str,
        said: frozenset[str],
        membership: Membership | None,
    ) -> None:
        self.file = file
        self.namespace = namespace
        self.values = namespace.values
        self.thread_id = thread_id
        self.session_id = session_id
        self.said = said
        self.membership = membership
        self.problems: set[str] = set()

    def drafts(self) -> Iterator[Draft]:
        """A draft per leaf, the newest checkpoint's first; none for a leaf without messages of its own."""
        nodes = self.namespace.nodes
        parents = {node.parent for node in nodes.values()}
        leaves = sorted((name for name in nodes if name not in parents), reverse=True)
        drafted: list[list[str]] = []
        for leaf in leaves:
            path = [nodes[leaf]]
            while path[-1].parent is not None:
                path.append(nodes[path[-1].parent])
            draft = self._draft(path[::-1])
            if draft is None:
                continue
            keys = [key for run_keys in draft.keys for key in run_keys]
            if any(keys == other[: len(keys)] for other in drafted):
                continue
            drafted.append(keys)
            yield draft

    def _draft(self, path: list[Node]) -> Draft | None:
        entries = self._entries(path)
        if not entries:
            return None
        messages = []
        for entry in list(entries):
            try:
                messages.append(self._source_message(entry))
            except RECORD_ERRORS as error:
                self.problems.add(f"A message of thread {self.session_id!r} is not imported: {error_text(error)}.")
                entries.remove(entry)
        if not messages:
            return None
        runs, hashes, keys = split_runs(self.session_id, messages)
        first = 0
        positions = []
        for run in runs:
            positions.append(entries[first].position)
            first += len(run.messages)
        for index, run in enumerate(runs):
            end = len(path) if index + 1 == len(runs) else positions[index + 1]
            while index + 1 < len(runs) and end > 1 and path[end - 1].source == "input":
                end -= 1  # the checkpoint of the next run's input
            end = min(end, len(path))
            went_on = end < len(path) and path[end].source == "loop"  # after an answer to an interrupt
            values = self._finish_run(run, path[end - 1], went_on=went_on)
            hashes[index] = hash_record(hashes[index], *values)
        times = [time for node in path if (time := parse_time(node.time))]
        metadata = {"checkpoint_id": path[-1].id, "checkpoint_ns": self.namespace.name or None}
        for node in path:
            metadata |= {key: value for key, value in keep_scalars(node.metadata).items() if key not in _OWN_METADATA}
        user_id = to_id(metadata.get("user_id"))
        state = runs[-1].session_state
        session = Session(
            session_id=self.session_id,
            agent_id=NAME,
            user_id=user_id,
            session_data={"session_state": state} if state else None,
            metadata=drop_null(metadata),
            created_at=to_unix_seconds(min(times, default=None)),
            updated_at=to_unix_seconds(max(times, default=None)),
        )
        return Draft(
            file=self.file,
            line=lambda: 1,
            session=session,
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=hash_record(session.metadata, state),
            source=NAME,
            has_record_ids=True,
            membership=self.membership,
        )

    def _entries(self, path: list[Node]) -> list[_Entry]:
        """The messages of a path in the order in which they were said; a later version replaces an earlier one."""
        entries: list[_Entry] = []
        positions: dict[Any, int] = {}

        def add(entry: _Entry) -> None:
            fields = self.values.fields[entry.token.value] or {}
            if _identity(self.values, entry.token) in self.said or fields.get("type") == REMOVE:
                return
            identity: Any = self.values.id_of(entry.token) or entry.token
            if identity in positions:
                old = entries[positions[identity]]
                entries[positions[identity]] = old._replace(token=entry.token, earlier=(*old.earlier, old.token))
            else:
                positions[identity] = len(entries)
                entries.append(entry)

        for position, node in enumerate(path):
            for entry in self._added(path, position, node):
                add(entry)
        leaf = path[-1]
        if leaf.source == "input":
            pending = list(self.namespace.written_messages(leaf.id)) or self.namespace.input_messages(leaf.id)
            for token in pending:
                add(_Entry(token, len(path), None, False, leaf.time))
        return entries

    def _added(self, path: list[Node], position: int, node: Node) -> Iterator[_Entry]:
        """A person's prompt comes with an input, an edit of the state, or the answer to an interrupt."""
        before = path[position - 1] if position else None
        follows_input = before is not None and before.source == "input"
        is_next_step = before is not None and node.step is not None and node.step == (before.step or 0) + 1
        is_answer = before is not None and bool(self.namespace.written_values(before.id, RESUME))
        may_start: bool | None = True
        for token in node.added:
            is_human = (self.values.fields[token.value] or {}).get("type") in ("human", "user")
            starts_run: bool | None = None
            if is_human and (follows_input or node.source in ("input", "update") or is_answer):
                starts_run, may_start = may_start, None
            elif is_human and is_next_step:
                starts_run = False
            is_compaction = is_human and starts_run is False and node.has_removals
            is_prompt = is_human and follows_input and before is not None
            yield _Entry(token, position, starts_run, is_compaction, before.time if is_prompt and before else node.time)

    def _source_message(self, entry: _Entry) -> SourceMessage:
        fields = self.values.fields[entry.token.value] or {}
        message: Message = parse_message(fields, parse_time(entry.time))
        if entry.is_compaction:
            message.extra["compaction"] = True
        earlier = [(self.values.fields[token.value] or {}).get("content") for token in entry.earlier]
        if replaced := [content for content in earlier if content != fields.get("content")]:
            message.extra["replaced_content"] = replaced
        digest = hash_record(fields)[:12]
        # A message that a program passes to two threads has one id: the key is that of the message in its thread.
        message_id = self.values.id_of(entry.token) or entry.token.occurrence
        key = f"{self.thread_id}:{message_id}:{digest}"
        return SourceMessage(message, fields, key, entry.starts_run)

    def _finish_run(self, run: Run, node: Node, *, went_on: bool) -> list[Any]:
        """Set the status, provider and state of a run, whose last checkpoint is ``node``; return what was used."""
        run.model_provider = next((p for m in reversed(run.messages) if (p := provider_of(m))), None)
        run.duration_s = run.duration_s or None  # one checkpoint of a whole run says nothing about its duration
        state = self.namespace.state(node.id)
        is_pending = any(name.startswith("branch:to:") for name in state)
        state = {
            name: value for name, value in state.items()
            if not name.startswith(("__", "branch:", "start:")) and value != name and value is not None
        }  # fmt: skip
        run.session_state = state or None
        errors = [str(value) for value in self.namespace.written_values(node.id, ERROR)]
        interrupts = self.namespace.written_values(node.id, INTERRUPT)
        if interrupts:
            run.extra["interrupts"] = interrupts
        # What parallel tasks of an unfinished step wrote: when it ends, the state gets it with ids, in another order.
        pending = [] if went_on else list(self.namespace.written_messages(node.id))
        if pending and node.source != "input":
            run.extra["pending_messages"] = [self.values.fields[token.value] for token in pending]
        if errors and not went_on:
            run.status, run.error = "ERROR", "\n".join(errors)
        elif (interrupts or is_pending) and not went_on:
            run.status = "INTERRUPTED"
        return [run.status, errors, interrupts, state, run.model_provider, run.extra.get("pending_messages")]
