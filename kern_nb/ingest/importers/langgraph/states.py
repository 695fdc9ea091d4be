"""The checkpoints of a LangGraph thread as a tree: what each one adds to the list of messages, and its other state.

A state repeats all messages before it. Equal bytes are one message, which is decoded once; what a checkpoint adds is
the difference to its parent, so that edits, removals and forks of the list are followed without the reducer's code.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.importers.langchain.messages import REMOVE, ROLES, fields_of
from kern_nb.ingest.importers.langgraph import msgpack
from kern_nb.ingest.parsing.values import to_id

ERROR, INTERRUPT, RESUME = "__error__", "__interrupt__", "__resume__"
START = "__start__"

_REMOVE_ALL = "__remove_all__"
_PREFERRED_CHANNELS = ("messages", "__root__", "__previous__")  # the last: what an entrypoint saved


class Token(NamedTuple):
    """A message in a list of messages.

    Attributes:
        value: The position of its fields in `Values`.
        occurrence: How many equal messages without an id precede it in the list.
    """

    value: int
    occurrence: int


class Values:
    """The distinct messages of a thread by their bytes, in all namespaces."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any] | None] = []
        self._indexes: dict[bytes, int] = {}

    def tokens(self, encoded: bytes, kind: str) -> list[Token]:
        """The messages in an encoded list, or the only one."""
        if kind == "json":
            decoded = json.loads(encoded)
            items = [json.dumps(item).encode() for item in (decoded if isinstance(decoded, list) else [decoded])]
        else:
            encoded = msgpack.delta_snapshot(encoded)
            split = msgpack.split_list(encoded)
            items = [encoded] if split is None else split
        counts: Counter[int] = Counter()
        tokens = []
        for item in items:
            index = self._index(item, kind)
            fields = self.fields[index]
            if fields is None:
                continue
            occurrence = 0 if to_id(fields.get("id")) else counts[index]
            counts[index] += 1
            tokens.append(Token(index, occurrence))
        return tokens

    def coerced_tokens(self, value: Any) -> list[Token]:
        """The messages in an input or in what a node returned: also texts, and roles with a text."""
        items = value if isinstance(value, list) and not _is_pair(value) else [value]
        return self.tokens(json.dumps([coerce_message(item) for item in items]).encode(), "json")

    def _index(self, item: bytes, kind: str) -> int:
        if item not in self._indexes:
            self._indexes[item] = len(self.fields)
            try:
                self.fields.append(fields_of(json.loads(item) if kind == "json" else msgpack.unpack(item)))
            except RECORD_ERRORS:
                self.fields.append(None)
        return self._indexes[item]

    def id_of(self, token: Token) -> str | None:
        """The id that a message states."""
        return to_id((self.fields[token.value] or {}).get("id"))


def coerce_message(value: Any) -> dict[str, Any] | None:
    """The fields of a message, also of an input that LangGraph turns into one: a text, or a role with a text."""
    if isinstance(value, str):
        return {"type": "human", "content": value}
    return fields_of({"role": value[0], "content": value[1]} if _is_pair(value) else value)


def _is_pair(value: Any) -> bool:
    is_pair = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return is_pair and len(value) == len(("role", "text")) and value[0] in ROLES


@dataclass(slots=True)
class Node:
    """A checkpoint.

    Attributes:
        added: The messages that its parent's list lacks, in order.
        has_removals: Whether its list lacks messages of its parent's.
    """

    id: str
    parent: str | None
    source: str | None = None
    step: int | None = None
    time: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    added: list[Token] = field(default_factory=list)
    has_removals: bool = False


class Write(NamedTuple):
    """A value that a task wrote during the step after a checkpoint."""

    task_id: str
    channel: str
    kind: str
    value: bytes


class Namespace:
    """The checkpoints of one namespace of a thread.

    Attributes:
        nodes: The checkpoints by id, parents before children.
        writes: What was written in the step after each checkpoint: messages, errors, interrupts and answers to these.
        channel: The channel with the messages; None if no state has any.
        problems: What could not be read, with the number of such checkpoints.
    """

    def __init__(
        self, connection: sqlite3.Connection, thread_id: str, name: str, values: Values, *, has_writes: bool
    ) -> None:
        self.name = name
        self.values = values
        self.problems: Counter[str] = Counter()
        self._connection = connection
        self._key = (thread_id, name)
        self.nodes: dict[str, Node] = {}
        self.writes: dict[str, list[Write]] = {}
        self.channel = self._find_channel()
        if has_writes:
            self._load_writes()
        self._load_nodes()

    def state(self, checkpoint_id: str) -> dict[str, Any]:
        """The channels of a checkpoint except the messages."""
        row = self._connection.execute(f"{_SELECT} AND checkpoint_id = ?", [*self._key, checkpoint_id]).fetchone()
        try:
            state, kind = _read_checkpoint(row[2], row[3])
            return {
                name: _decode(value, kind)
                for name, value in _channels(state).items()
                if name not in (self.channel, START) and (not name.startswith("__") or name.startswith("__pregel"))
            }
        except RECORD_ERRORS:
            return {}  # the problem is reported already

    def input_messages(self, checkpoint_id: str) -> list[Token]:
        """The messages of an input that no step has taken up."""
        row = self._connection.execute(f"{_SELECT} AND checkpoint_id = ?", [*self._key, checkpoint_id]).fetchone()
        try:
            value = _decode(*_start(row[2], row[3]))
            value = value.get(self.channel or "messages") if isinstance(value, dict) else value
            return self.values.coerced_tokens(value) if value else []
        except RECORD_ERRORS:
            return []

    def _find_channel(self) -> str | None:
        """The channel with messages in the latest state that has one."""
        for row in self._rows("ORDER BY checkpoint_id DESC"):
            try:
                state, kind = _read_checkpoint(row[2], row[3])
                channels = _channels(state)
                counts = {
                    name: len(self.values.tokens(value, kind))
                    for name, value in channels.items()
                    if _is_list(value, kind) and (not name.startswith("__") or name in _PREFERRED_CHANNELS)
                }
            except RECORD_ERRORS:
                continue
            names = [name for name in _PREFERRED_CHANNELS if counts.get(name)]
            if not names and "messages" in (state.get("channel_versions") or ()) and "messages" not in channels:
                return "messages"  # a delta channel
            names += sorted((name for name, count in counts.items() if count), key=lambda n: (-counts[n], n))
            if names:
                return names[0]
        return None

    def _load_writes(self) -> None:
        query = (
            "SELECT checkpoint_id, task_id, channel, type, value FROM writes WHERE thread_id = ? AND checkpoint_ns = ?"
            " AND channel IN (?, ?, ?, ?) ORDER BY checkpoint_id, rowid"
        )
        rows = self._connection.execute(query, [*self._key, self.channel or "messages", ERROR, INTERRUPT, RESUME])
        for checkpoint_id, task_id, channel, kind, value in rows:
            write = Write(str(task_id), channel, str(kind), _to_bytes(value))
            self.writes.setdefault(str(checkpoint_id), []).append(write)

    def _load_nodes(self) -> None:
        for row in self._rows("ORDER BY checkpoint_id"):
            node = Node(str(row[0]), str(row[1]) if row[1] else None)
            node.metadata = _metadata(row[4])
            source, step = node.metadata.get("source"), node.metadata.get("step")
            node.source = source if isinstance(source, str) else None
            node.step = step if isinstance(step, int) else None
            parent = self.nodes.get(node.parent or "")
            if parent is None:
                node.parent = None  # pruned, or not before its child
            node.tokens = [] if parent is None else parent.tokens
            try:
                state, kind = _read_checkpoint(row[2], row[3])
                node.time = state["ts"] if isinstance(state.get("ts"), str) else None
                encoded = _channels(state).get(self.channel or "")
                if encoded is not None:
                    node.tokens = self.values.tokens(encoded, kind)
                elif parent and node.source != "input" and self.channel in (state.get("channel_versions") or ()):
                    node.tokens = self._replay(parent)
            except RECORD_ERRORS as error:
                self.problems[error_text(error)] += 1
            before, after = set(parent.tokens if parent else ()), set(node.tokens)
            node.added = [token for token in node.tokens if token not in before]
            ids = {self.values.id_of(token) for token in node.tokens} - {None}
            node.has_removals = any(self.values.id_of(t) not in ids for t in before - after)
            self.nodes[node.id] = node

    def _replay(self, parent: Node) -> list[Token]:
        """The list of a delta channel, of which a state stores nothing: the parent's, and what was written since."""
        tokens = list(parent.tokens)
        for token in self.written_messages(parent.id):
            fields = self.values.fields[token.value] or {}
            message_id = self.values.id_of(token)
            if fields["type"] == REMOVE:
                tokens = [] if message_id == _REMOVE_ALL else [t for t in tokens if self.values.id_of(t) != message_id]
                continue
            same = [i for i, t in enumerate(tokens) if message_id and self.values.id_of(t) == message_id]
            if same:
                tokens[same[0]] = token
            else:
                tokens.append(token)
        return tokens

    def written_messages(self, checkpoint_id: str) -> Iterator[Token]:
        """The messages that the step after a checkpoint wrote."""
        for write in self.writes.get(checkpoint_id, ()):
            if write.channel == (self.channel or "messages") and write.kind in ("msgpack", "json"):
                try:
                    yield from self.values.coerced_tokens(_decode(write.value, write.kind))
                except RECORD_ERRORS as error:
                    self.problems[error_text(error)] += 1

    def written_values(self, checkpoint_id: str, channel: str) -> list[Any]:
        """What the step after a checkpoint wrote to another channel; None for what cannot be read."""
        values = []
        for write in self.writes.get(checkpoint_id, ()):
            if write.channel == channel:
                try:
                    values.append(_decode(write.value, write.kind))
                except RECORD_ERRORS:
                    values.append(None)
        return values

    def _rows(self, order: str) -> Iterator[tuple[Any, ...]]:
        yield from self._connection.execute(f"{_SELECT} {order}", self._key)


_SELECT = (
    "SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
    " WHERE thread_id = ? AND checkpoint_ns = ?"
)


def _read_checkpoint(kind: Any, data: Any) -> tuple[dict[str, Any], str]:
    """A checkpoint whose channels are encoded, and their encoding."""
    kind = str(kind or "json")
    if "pickle" in kind:
        raise MalformedRecord("the state is a pickle, which can run code and is not loaded")
    if "+" in kind:
        raise MalformedRecord(f"the state is encrypted ({kind})")
    if kind == "msgpack":
        state = msgpack.read_state(_to_bytes(data))
    elif kind == "json":
        state = json.loads(_to_bytes(data))
        if isinstance(state, dict):
            channels = state.get("channel_values")
            channels = channels if isinstance(channels, dict) else {}
            state["channel_values"] = {name: json.dumps(value).encode() for name, value in channels.items()}
    else:
        raise MalformedRecord(f"the state has the unknown encoding {kind!r}")
    if not isinstance(state, dict) or not isinstance(state.get("channel_values"), dict):
        raise MalformedRecord("the state has no channels")
    return state, kind


def _channels(state: dict[str, Any]) -> dict[str, bytes]:
    return state["channel_values"]  # type: ignore[no-any-return]


def _start(kind: Any, data: Any) -> tuple[bytes, str]:
    state, encoding = _read_checkpoint(kind, data)
    return _channels(state).get(START, b"null" if encoding == "json" else b"\xc0"), encoding


def _is_list(encoded: bytes, kind: str) -> bool:
    if kind == "json":
        return encoded.startswith(b"[")
    return msgpack.split_list(msgpack.delta_snapshot(encoded)) is not None


def _decode(encoded: bytes, kind: str) -> Any:
    if kind == "msgpack":
        return msgpack.unpack(encoded)
    if kind == "json":
        return json.loads(encoded)
    if kind in ("null", "empty"):
        return None
    raise MalformedRecord(f"the value has the encoding {kind!r}, which is not read")


def _metadata(data: Any) -> dict[str, Any]:
    try:
        value = json.loads(_to_bytes(data))
    except RECORD_ERRORS:
        try:
            value = msgpack.unpack(_to_bytes(data))
        except RECORD_ERRORS:
            return {}
    return value if isinstance(value, dict) else {}


def _to_bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass")
    return data if isinstance(data, bytes) else b""
