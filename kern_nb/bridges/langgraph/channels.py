"""The channels of a state in our terms: its messages, whether a step is due, what a person asked, and the rest.

The encoded values are read without importing what they name, as the importer of LangGraph reads them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord
from kern_nb.ingest.importers.langchain.messages import REMOVE, fields_of
from kern_nb.ingest.importers.langgraph import msgpack
from kern_nb.ingest.importers.langgraph.states import START, coerce_message
from kern_nb.ingest.parsing.values import to_id
from kern_nb.records import text_of

TASKS, END = "__pregel_tasks", "__end__"
REMOVE_ALL = "__remove_all__"

_PREFERRED = ("messages", "__root__", "__previous__")
_JOIN = re.compile(r"join:(.+):[^:]+")
_INTERNAL = ("__", "branch:", "start:", "join:")

Fields = dict[str, Any]
"""The fields of a message."""


def decode(kind: str, data: bytes) -> Any:
    """An encoded value as plain JSON; raises MalformedRecord for an encoding that is not read, such as encrypted."""
    if kind == "msgpack":
        return msgpack.unpack(data)
    if kind == "json":
        return json.loads(data)
    if kind in ("null", "empty"):
        return None
    if kind in ("bytes", "bytearray"):
        return msgpack.unpack(b"\xc6" + len(data).to_bytes(4, "big") + data)
    raise MalformedRecord(f"the value has the encoding {kind!r}, which is not read")


def message_fields(item: bytes) -> Fields | None:
    """The fields of an encoded message; None for anything else."""
    try:
        return fields_of(msgpack.unpack(item))
    except RECORD_ERRORS:
        return None


def find_messages(items: Mapping[str, list[bytes] | None], versions: Iterable[str]) -> str | None:
    """The channel with the messages; None if no channel has any.

    Args:
        items: The encoded items of the channels that are lists; None for other channels.
        versions: The names of all channels that were ever written: a delta channel may have no value.
    """
    others = sorted(name for name in items if name not in _PREFERRED and not name.startswith(_INTERNAL))
    for name in (*_PREFERRED, *others):
        encoded = items.get(name)
        if encoded and message_fields(encoded[-1]) is not None:
            return name
    if "messages" in versions and not items.get("messages"):
        return "messages"
    return None


def difference(before: list[bytes], after: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The items that a list got, in order, and those that it lost."""
    old = Counter(before)
    added = []
    for item in after:
        if old[item]:
            old[item] -= 1
        else:
            added.append(item)
    return added, list(old.elements())


def replay(items: list[bytes], writes: Iterable[tuple[str, bytes]]) -> list[bytes]:
    """The items of a delta channel after writes to it: the reducer of messages adds, replaces by id, and removes."""
    ids = {message_id: item for item in items if (message_id := id_of(message_fields(item)))}
    result = list(items)
    for kind, data in writes:
        if kind != "msgpack":
            continue
        split = msgpack.split_list(data)
        for item in [data] if split is None else split:
            fields = message_fields(item)
            if fields is None:
                continue
            message_id = id_of(fields)
            if fields["type"] == REMOVE:
                removed = set(ids) if message_id == REMOVE_ALL else {message_id}
                gone = {ids.pop(i) for i in removed if i in ids}
                result = [] if message_id == REMOVE_ALL else [r for r in result if r not in gone]
            elif message_id and message_id in ids:
                result[result.index(ids[message_id])] = item
                ids[message_id] = item
            else:
                result.append(item)
                if message_id:
                    ids[message_id] = item
    return result


def id_of(fields: Fields | None) -> str | None:
    """The id that a message states."""
    return to_id((fields or {}).get("id"))


def is_pending(values: Mapping[str, tuple[str, bytes]]) -> bool:
    """Whether a state has something to do: an edge that was taken, a message that was sent, or an input.

    Args:
        values: The encoding and the bytes of each channel that has a value.
    """
    for name, (kind, data) in values.items():
        if name.startswith("branch:to:") or name == START:
            return True
        if name == TASKS and data not in (b"\x90", b""):
            return True
        if (match := _JOIN.fullmatch(name)) is not None and kind == "msgpack":
            arrived = decode(kind, data)
            if isinstance(arrived, list) and set(match[1].split("+")) <= {str(name) for name in arrived}:
                return True
    return False


def next_nodes(values: Mapping[str, tuple[str, bytes]]) -> list[str]:
    """The nodes to which an edge was taken."""
    prefix = "branch:to:"
    return [name.removeprefix(prefix) for name in values if name.startswith(prefix)]


def state_of(values: Mapping[str, tuple[str, bytes]], messages: str | None) -> dict[str, Any]:
    """The state of a session: the channels that are neither the messages nor the framework's own."""
    state = {}
    for name, (kind, data) in values.items():
        if name == messages or name.startswith(_INTERNAL):
            continue
        try:
            value = decode(kind, data)
        except RECORD_ERRORS:
            continue  # an encrypted state is not shown
        if value is not None and value != name:
            state[name] = value
    return state


def output_of(values: Mapping[str, tuple[str, bytes]]) -> Any:
    """What a function with an entrypoint returned; None for a graph, whose state is the result."""
    if END not in values:
        return None
    try:
        return decode(*values[END])
    except RECORD_ERRORS:
        return None


def input_of(values: Mapping[str, tuple[str, bytes]], messages: str | None) -> Any:
    """What a person asked: the text of the last message of the input, or the input without one."""
    if START not in values:
        return None
    try:
        value = decode(*values[START])
    except RECORD_ERRORS:
        return None
    name = messages if messages in _PREFERRED and isinstance(value, dict) and messages in value else "messages"
    given = value.get(name) if isinstance(value, dict) else value
    texts = []
    for item in given if isinstance(given, list) and coerce_message(given) is None else [given]:
        fields = None if item is None or not isinstance(item, (str, list, dict)) else coerce_message(item)
        if fields is not None:
            texts.append(fields.get("content"))
    if texts and (not isinstance(value, dict) or set(value) <= {name}):
        return text_of(texts[-1]) or texts[-1]
    if texts and isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key != name}
        return rest | {name: texts[-1]} if rest else texts[-1]
    return value
