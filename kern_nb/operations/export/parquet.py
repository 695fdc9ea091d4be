"""Sessions as the rows of a Parquet file, as trainers and the viewer of the Hugging Face Hub read chat datasets.

A row is a session: ``messages`` is a list of ``{role, content, reasoning_content, tool_calls, tool_call_id, name}`` in
the shape of OpenAI's chat API, with the arguments of a call as JSON text, because a column has one type. The other
columns are facts of the session; ``metadata`` and ``scores`` are JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, Any

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from kern_nb.operations.export.chat import ChatMessage, chat_messages, stated_models
from kern_nb.operations.export.conversations import Conversation, stated_cost, usage_of
from kern_nb.operations.export.plain import to_json, to_plain
from kern_nb.records import Usage

_MAX_ROWS = 500
_MAX_CHARACTERS = 16_000_000
"""What a row group has at most, and so what is held in memory at once, unless a single session has more."""

_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)])
_MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("reasoning_content", pa.string()),
        ("tool_calls", pa.list_(_CALL)),
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
    ]
)
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("title", pa.string()),
        ("agent", pa.string()),
        ("model", pa.string()),
        ("models", pa.list_(pa.string())),
        ("parent_session_id", pa.string()),
        ("status", pa.string()),
        ("n_runs", pa.int64()),
        ("n_tool_calls", pa.int64()),
        ("n_tool_errors", pa.int64()),
        ("usage", pa.struct([("input_tokens", pa.int64()), ("output_tokens", pa.int64())])),
        ("cost", pa.float64()),
        ("created_at", _TIME),
        ("updated_at", _TIME),
        ("metadata", pa.string()),
        ("scores", pa.string()),
    ]
)
"""The columns, which are the same in each file: parts of a dataset have one schema."""


def write_rows(file: IO[bytes], conversations: Iterable[Conversation]) -> None:
    """Write a row a session, in batches."""
    with ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for batch in _batches(conversations):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))


def _batches(conversations: Iterable[Conversation]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for conversation in conversations:
        row, length = _to_row(conversation)
        if batch and (len(batch) >= _MAX_ROWS or size + length > _MAX_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += length
    if batch:
        yield batch


def _to_row(conversation: Conversation) -> tuple[dict[str, Any], int]:
    """A session as a row, and the length of its texts."""
    session, runs = conversation.session, conversation.runs
    messages = [_to_message(message) for message in chat_messages(conversation)]
    models = stated_models(runs)
    calls = [call for run in runs for call in run.tool_calls if call.caller != "user"]
    usage = _usage(conversation)
    row = {
        "id": conversation.session_id,
        "messages": messages,
        "title": session.session_name,
        "agent": conversation.owner,
        "model": models[0] if len(models) == 1 else None,
        "models": models,
        "parent_session_id": session.parent_session_id,
        "status": runs[-1].status if runs else None,
        "n_runs": len(runs),
        "n_tool_calls": len(calls),
        "n_tool_errors": sum(call.status == "failed" for call in calls),
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        "cost": stated_cost(usage),
        "created_at": _to_time(session.created_at),
        "updated_at": _to_time(session.updated_at),
        "metadata": to_json(session.metadata) if session.metadata else None,
        "scores": to_json(conversation.scores) if conversation.scores else None,
    }
    times = {name: row.pop(name) for name in ("created_at", "updated_at")}
    plain: dict[str, Any] = to_plain(row)
    return plain | times, sum(len(m["content"]) for m in messages)


def _to_message(message: ChatMessage) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {
        "role": message.role,
        "content": message.content,
        "reasoning_content": message.reasoning,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
        "name": message.tool_name,
    }


def _usage(conversation: Conversation) -> Usage:
    """The usage of the session's own runs and their members'; of what a branch inherits, none."""
    remaining = [run for run in conversation.runs if run.run_id not in conversation.copied]
    usages = []
    while remaining:
        run = remaining.pop()
        remaining += conversation.members.get(run.run_id, ())
        usages.append(usage_of(run, conversation.estimated))
    return Usage.total(usages) or Usage()


def _to_time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
