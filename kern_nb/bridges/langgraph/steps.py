"""`Step`: what a checkpoint adds to its thread, as the difference between its messages and those of its parent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from kern_nb.bridges.langgraph import channels
from kern_nb.bridges.langgraph.channels import Fields
from kern_nb.bridges.langgraph.rows import Checkpoint, Key, Rows
from kern_nb.bridges.langgraph.values import Encoded, split
from kern_nb.ingest.importers.langchain.messages import REMOVE
from kern_nb.ingest.parsing.times import parse_time

_CACHED_LISTS = 64


@dataclass
class Step:
    """A checkpoint that is being recorded.

    Attributes:
        values: The encoding and bytes of each channel.
        messages: The channel with the messages.
        items: The encoded messages of the state.
        fresh: The fields of the messages that the parent's state lacks.
        edited: Those whose id the parent's state has, with other fields.
        removed: The ids that are not in the state any more, or have other fields.
    """

    checkpoint: Checkpoint
    parent: Checkpoint | None
    time: Any
    values: dict[str, tuple[str, bytes]]
    messages: str | None
    items: list[bytes]
    fresh: list[Fields]
    edited: list[Fields]
    removed: set[str]

    @property
    def source(self) -> Any:
        """What wrote it: an input, the loop, an update or a fork."""
        return self.checkpoint.metadata.get("source")

    @property
    def is_pending(self) -> bool:
        """Whether nodes are to run after it."""
        return channels.is_pending(self.values)

    @property
    def skips_steps(self) -> bool:
        """Whether steps before it were not saved, as with durability "exit"."""
        step = self.checkpoint.metadata.get("step")
        before = self.parent.metadata.get("step") if self.parent else -2
        return isinstance(step, int) and isinstance(before, int) and step > before + 1

    def with_edits_as_new(self) -> Step:
        """The step with its edited messages as new ones, in the order of the state."""
        ids = {channels.id_of(fields) for fields in (*self.fresh, *self.edited)}
        ordered = []
        for item in self.items:
            fields = channels.message_fields(item)
            if fields is not None and channels.id_of(fields) in ids:
                ordered.append(fields)
        return replace(self, fresh=ordered or [*self.edited, *self.fresh], edited=[])


class StepReader:
    """Reads what new checkpoints add; the lists of messages of the last ones are in memory."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._lists: OrderedDict[Key, list[bytes]] = OrderedDict()

    def read(
        self,
        connection: Connection,
        checkpoint: Checkpoint,
        parent: Checkpoint | None,
        encoded: Mapping[str, Encoded],
        data: dict[str, tuple[str, bytes]],
        state: Mapping[str, Any],
    ) -> Step:
        """Read a new checkpoint; see `Recorder.record`."""
        versions = state.get("channel_versions") or {}
        lists = {name: value.items for name, value in encoded.items()}
        name = channels.find_messages(lists, versions)
        before = self.items(connection, parent, name) if parent and name else []
        if name is not None and lists.get(name) is not None:
            items = lists[name] or []
        elif name is not None and name not in encoded and name in versions and parent is not None:
            items = before
            if checkpoint.metadata.get("source") != "input":  # an input is taken up by the next step
                written = self._rows.writes_of(connection, parent)
                items = channels.replay(before, [(w.kind, w.content) for w in written if w.channel == name])
        else:
            items = []
        self._remember(checkpoint.key, items)
        added, lost = channels.difference(before, items)
        old = {
            message_id: fields
            for item in lost
            if (message_id := channels.id_of(fields := channels.message_fields(item)))
        }
        fresh, edited = [], []
        for item in added:
            fields = channels.message_fields(item)
            if fields is None or fields["type"] == REMOVE:
                continue
            message_id = channels.id_of(fields)
            if message_id is None or message_id not in old:
                fresh.append(fields)
            elif old.pop(message_id) != fields:
                edited.append(fields)
        removed = set(old) | {message_id for fields in edited if (message_id := channels.id_of(fields))}
        time = parse_time(state.get("ts"))
        return Step(checkpoint, parent, time, data, name, items, fresh, edited, removed)

    def items(self, connection: Connection, checkpoint: Checkpoint, name: str) -> list[bytes]:
        """The encoded messages of a stored checkpoint; of a delta channel, from the last one that has its value."""
        path: list[Checkpoint] = []
        current: Checkpoint | None = checkpoint
        items: list[bytes] = []
        while current is not None:
            cached = self._lists.get(current.key)
            if cached is not None:
                items = cached
                break
            if name in current.channels:
                reference = current.channels[name]
                data = self._rows.load_values(connection, current.home.session_id, [reference], {})[reference]
                items = split(reference[0], data)[1] or []
                break
            path.append(current)
            before = current.home._replace(checkpoint_id=current.parent_id or "")
            current = self._rows.get(connection, *before) if current.parent_id else None
        for later in reversed(path):
            if later.parent_id is not None and later.metadata.get("source") != "input":
                written = self._rows.writes(connection, later.home._replace(checkpoint_id=later.parent_id))
                items = channels.replay(items, [(w.kind, w.content) for w in written if w.channel == name])
        self._remember(checkpoint.key, items)
        return items

    def _remember(self, key: Key, items: list[bytes]) -> None:
        self._lists[key] = items
        self._lists.move_to_end(key)
        while len(self._lists) > _CACHED_LISTS:
            self._lists.popitem(last=False)
