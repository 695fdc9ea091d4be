"""The checkpoints of a LangGraph thread as a tree: what each one adds to the list of messages, and its other state.

A state repeats all messages before it. Equal bytes are one message, which is decoded once; what a checkpoint adds is
the difference to its parent, so that edits, removals and forks of the list are followed without the reducer's code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kern_nb.ingest.importer import RECORD_ERRORS, error_text
from kern_nb.ingest.importers.langchain.messages import REMOVE, ROLES, fields_of
from kern_nb.ingest.importers.langgraph import msgpack
from kern_nb.ingest.importers.langgraph.encoding import JSON, MSGPACK, Encoded
from kern_nb.ingest.importers.langgraph.tables import Key, Reader, Write
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

    def tokens(self, value: Encoded) -> list[Token]:
        """The messages in an encoded list, or the only one; raises one of RECORD_ERRORS."""
        if value.kind == MSGPACK:
            encoded = msgpack.delta_snapshot(value.data)
            split = msgpack.split_list(encoded)
            items = [encoded] if split is None else split
        else:
            decoded = value.decode()
            items = [json.dumps(item).encode() for item in (decoded if isinstance(decoded, list) else [decoded])]
        counts: Counter[int] = Counter()
        tokens = []
        for item in items:
            index = self._index(item, value.kind)
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
        return self.tokens(Encoded(JSON, json.dumps([coerce_message(item) for item in items]).encode()))

    def _index(self, item: bytes, kind: str) -> int:
        if item not in self._indexes:
            self._indexes[item] = len(self.fields)
            try:
                self.fields.append(fields_of(msgpack.unpack(item) if kind == MSGPACK else json.loads(item)))
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


class Namespace:
    """The checkpoints of one namespace of a thread.

    Attributes:
        nodes: The checkpoints by id, parents before children.
        writes: What was written in the step after each checkpoint: messages, errors, interrupts and answers to these.
        channel: The channel with the messages; None if no state has any.
        problems: What could not be read, with the number of such checkpoints.
        unread_channels: The channels of a state that could not be read, and why.
    """

    def __init__(self, reader: Reader, thread_id: str, name: str, values: Values) -> None:
        self.name = name
        self.values = values
        self.problems: Counter[str] = Counter()
        self.unread_channels: dict[str, str] = {}
        self._reader = reader
        self._key = Key(thread_id, name)
        self.nodes: dict[str, Node] = {}
        self.writes: dict[str, list[Write]] = {}
        self.channel = self._find_channel()
        for write in reader.writes(*self._key, (self.channel or "messages", ERROR, INTERRUPT, RESUME)):
            self.writes.setdefault(write.checkpoint_id, []).append(write)
        self._load_nodes()

    def state(self, checkpoint_id: str) -> dict[str, Any]:
        """The channels of a checkpoint except the messages."""
        values = {}
        try:
            channels = self._reader.checkpoint(self._key, checkpoint_id).state().channels
        except RECORD_ERRORS:
            return {}  # the problem is reported already
        for name, value in channels.items():
            if name not in (self.channel, START) and (not name.startswith("__") or name.startswith("__pregel")):
                try:
                    values[name] = value.decode()
                except RECORD_ERRORS as error:
                    self.unread_channels[name] = error_text(error)
        return values

    def input_messages(self, checkpoint_id: str) -> list[Token]:
        """The messages of an input that no step has taken up."""
        try:
            start = self._reader.checkpoint(self._key, checkpoint_id).state().channels.get(START)
            value = None if start is None else start.decode()
            value = value.get(self.channel or "messages") if isinstance(value, dict) else value
            return self.values.coerced_tokens(value) if value else []
        except RECORD_ERRORS:
            return []

    def _find_channel(self) -> str | None:
        """The channel with messages in the latest state that has one."""
        for checkpoint in self._reader.checkpoints(self._key, is_newest_first=True):
            try:
                state = checkpoint.state()
                counts = {
                    name: len(self.values.tokens(value))
                    for name, value in state.channels.items()
                    if (not name.startswith("__") or name in _PREFERRED_CHANNELS) and value.is_list()
                }
            except RECORD_ERRORS:
                continue
            names = [name for name in _PREFERRED_CHANNELS if counts.get(name)]
            messages = state.channels.get("messages")
            if not names and "messages" in state.versions and (messages is None or not messages.is_readable()):
                return "messages"  # a delta channel, or one whose value is reported
            names += sorted((name for name, count in counts.items() if count), key=lambda n: (-counts[n], n))
            if names:
                return names[0]
        return None

    def _load_nodes(self) -> None:
        for checkpoint in self._reader.checkpoints(self._key, channel=self.channel or "messages"):
            node = Node(checkpoint.id, checkpoint.parent, metadata=checkpoint.metadata)
            source, step = node.metadata.get("source"), node.metadata.get("step")
            node.source = source if isinstance(source, str) else None
            node.step = step if isinstance(step, int) else None
            parent = self.nodes.get(node.parent or "")
            if parent is None:
                node.parent = None  # pruned, or not before its child
            node.tokens = [] if parent is None else parent.tokens
            try:
                state = checkpoint.state()
                node.time = state.time
                encoded = state.channels.get(self.channel or "")
                if encoded is not None:
                    node.tokens = self.values.tokens(encoded)
                elif parent and node.source != "input" and self.channel in state.versions:
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
            if write.channel == (self.channel or "messages") and write.value.kind in (MSGPACK, JSON):
                try:
                    yield from self.values.coerced_tokens(write.value.decode())
                except RECORD_ERRORS as error:
                    self.problems[error_text(error)] += 1

    def written_values(self, checkpoint_id: str, channel: str) -> list[Any]:
        """What the step after a checkpoint wrote to another channel; None for what cannot be read."""
        values = []
        for write in self.writes.get(checkpoint_id, ()):
            if write.channel == channel:
                try:
                    values.append(write.value.decode())
                except RECORD_ERRORS:
                    values.append(None)
        return values
