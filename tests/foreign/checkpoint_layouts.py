"""Checkpoints of LangGraph written to PostgreSQL in each layout that its package has had, and the same to SQLite."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.ingest.importers.msgpack_writer import Ext, message, pack
from tests.ingest.importers.test_langgraph import ANSWER, CALL, FINAL, HUMAN, RESULT, Recorder

_CHECKPOINTS = """CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
    checkpoint_id TEXT NOT NULL, parent_checkpoint_id TEXT, type TEXT, checkpoint JSONB NOT NULL,
    metadata JSONB NOT NULL DEFAULT '{}', PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id))"""
_SHALLOW_CHECKPOINTS = """CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
    type TEXT, checkpoint JSONB NOT NULL, metadata JSONB NOT NULL DEFAULT '{}',
    PRIMARY KEY (thread_id, checkpoint_ns))"""
_BLOBS = """CREATE TABLE checkpoint_blobs (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
    channel TEXT NOT NULL, version TEXT NOT NULL, type TEXT NOT NULL, blob BYTEA,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version))"""
_SHALLOW_BLOBS = """CREATE TABLE checkpoint_blobs (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
    channel TEXT NOT NULL, type TEXT NOT NULL, blob BYTEA, PRIMARY KEY (thread_id, checkpoint_ns, channel))"""
_WRITES = """CREATE TABLE checkpoint_writes (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
    checkpoint_id TEXT NOT NULL, task_id TEXT NOT NULL, idx INTEGER NOT NULL, channel TEXT NOT NULL, type TEXT,
    blob BYTEA NOT NULL, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx))"""
_MIGRATIONS = "CREATE TABLE checkpoint_migrations (v INTEGER PRIMARY KEY)"
_TASK_PATH = "ALTER TABLE checkpoint_writes ADD COLUMN task_path TEXT NOT NULL DEFAULT ''"

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_migrations")


class Layout(NamedTuple):
    """How a version of the package stores a state.

    Attributes:
        migration: The last migration; None before there was a table of them.
        encoding: That of values.
        inline: The values that are in the checkpoint itself: none, short ones or all.
        is_shallow: Whether only the latest state of a thread is there.
    """

    migration: int | None = 9
    encoding: str = "msgpack"
    inline: str = "short"
    is_shallow: bool = False


LAYOUTS = {
    "1.0.0, before migrations, JSON": Layout(None, "json", "none"),
    "1.0.9, msgpack": Layout(4, inline="none"),
    "2.0.10, with task paths": Layout(inline="none"),
    "3.2, short values in the checkpoint": Layout(),
    "everything in the checkpoint": Layout(None, "json", "all"),
    "shallow": Layout(7, inline="none", is_shallow=True),
}


class BothRecorder(Recorder):
    """Writes each checkpoint to a file as `SqliteSaver` does, and to a database in a layout."""

    def __init__(self, path, connection, layout):
        super().__init__(path)
        self.postgres, self.layout = connection, layout
        tables = [_SHALLOW_CHECKPOINTS, _SHALLOW_BLOBS] if layout.is_shallow else [_CHECKPOINTS, _BLOBS]
        has_paths = layout.migration == 9 or layout.is_shallow
        for statement in [*tables, _WRITES, *[_TASK_PATH] * has_paths]:
            self.execute(statement)
        if layout.migration is not None:
            self.execute(_MIGRATIONS)
            self.insert("checkpoint_migrations", v=layout.migration)

    def execute(self, statement, **params):
        self.postgres.execute(sa.text(statement), params)

    def insert(self, table, **row):
        names = ", ".join(row)
        conflict = ""
        if self.layout.is_shallow and table != "checkpoint_writes":
            key = "thread_id, checkpoint_ns" + ", channel" * ("channel" in row)
            changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in row)
            conflict = "" if "v" in row else f"ON CONFLICT ({key}) DO UPDATE SET {changes}"
        elif table == "checkpoint_blobs":
            conflict = "ON CONFLICT DO NOTHING"
        marks = ", ".join(f":{name}" for name in row)
        self.execute(f"INSERT INTO {table} ({names}) VALUES ({marks}) {conflict}", **row)

    def encode(self, value):
        return json.dumps(to_json(value)).encode() if self.layout.encoding == "json" else pack(value)

    def add(self, source, step, messages=None, parent="last", thread="t", ns="", metadata=None, **state):
        before = f"{self.count:04}" if self.count else None
        name = super().add(source, step, messages, parent, thread, ns, metadata=metadata, **state)
        channels = state if messages is None else {"messages": messages, **state}
        key = {"thread_id": thread, "checkpoint_ns": ns}
        inline, versions = {}, {}
        for channel, value in channels.items():
            is_short = value is None or isinstance(value, (str, int, float, bool))
            versions[channel] = f"{self.count:032}.0.5"
            if self.layout.inline == "all" or (self.layout.inline == "short" and is_short):
                inline[channel] = to_json(value)
                continue
            row = key | {"channel": channel, "type": self.layout.encoding, "blob": self.encode(value)}
            if value is None and self.layout.encoding == "msgpack":
                row |= {"type": "null", "blob": b""}
            self.insert("checkpoint_blobs", **row, **({} if self.layout.is_shallow else {"version": versions[channel]}))
        versions["unset"] = "1"  # a channel without a value in this state
        if self.layout.inline != "all":
            unset = key | {"channel": "unset", "type": "empty", "blob": None if self.layout.migration else b""}
            self.insert("checkpoint_blobs", **unset, **({} if self.layout.is_shallow else {"version": "1"}))
        checkpoint = {"v": 4, "ts": f"2026-03-01T10:00:{self.count:02}+00:00", "id": name, "channel_versions": versions}
        if inline:
            checkpoint["channel_values"] = inline
        stated = {"source": source, "step": step, "parents": {}, **(metadata or {})}
        row = key | {"checkpoint": json.dumps(checkpoint), "metadata": json.dumps(stated)}
        if not self.layout.is_shallow:
            row |= {"checkpoint_id": name, "parent_checkpoint_id": before if parent == "last" else parent}
        self.insert("checkpoints", **row)
        return name

    def write(self, checkpoint, channel, value, task="task", thread="t", ns=""):
        super().write(checkpoint, channel, value, task, thread, ns)
        row = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint, "task_id": task, "idx": 0}
        self.insert("checkpoint_writes", **row, channel=channel, type=self.layout.encoding, blob=self.encode(value))


def to_json(value):
    """A value as the JSON that LangGraph wrote before it wrote msgpack: objects by their constructor."""
    if isinstance(value, Ext) and isinstance(value.value, list):
        module, name, fields, *_ = value.value
        if not isinstance(fields, dict):
            return fields
        return {"lc": 1, "type": "constructor", "id": [*module.split("."), name], "kwargs": to_json(fields)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def record_threads(recorder):
    """Threads with a call, a fork, a nested graph, an error, an interrupt, an input that no step took up."""
    said = [HUMAN, ANSWER, RESULT, FINAL]
    recorder.add("input", -1, __start__={"messages": [HUMAN]}, parent=None, metadata={"user_id": "ann"})
    recorder.add("loop", 0, said[:1], **{"branch:to:model": None})
    recorder.add("loop", 1, said[:2])
    recorder.add("loop", 2, said[:3])
    last = recorder.add("loop", 3, said, topic="freight", mass=40.5, seen=Ext(0, ["builtins", "set", [1]]))
    for text in ("And the box?", "And the barrel?"):
        side = recorder.add("input", 4, said, parent=last)
        recorder.add("loop", 5, [*said, message("human", text, text)], parent=side, topic="box")
    recorder.write("0003", "messages", [RESULT], task="task-7")
    recorder.add("input", -1, [HUMAN], parent=None, ns="tools:task-7")
    own = [HUMAN, message("human", "Weigh it", "n1"), message("ai", "40", "n2", tool_calls=[CALL | {"id": "c9"}])]
    recorder.add("loop", 0, own[:2], ns="tools:task-7")
    recorder.add("loop", 1, own, ns="tools:task-7")
    recorder.add("input", -1, parent=None, thread="failed")
    failed = recorder.add("loop", 0, [HUMAN], thread="failed")
    recorder.write(failed, "__error__", "ValueError('no scale')", thread="failed")
    recorder.add("input", -1, parent=None, thread="Paused")  # upper case precedes lower case only in binary order
    paused = recorder.add("loop", 0, [HUMAN], thread="Paused")
    recorder.write(paused, "__interrupt__", [{"value": "Really?"}], thread="Paused")
    recorder.add("input", -1, parent=None, thread="new", __start__={"messages": [["user", "Hello?"]]})
