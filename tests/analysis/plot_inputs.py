"""Frames to draw, a store to draw from, and what is in the specification of a plot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from kern_nb.records import Message, Run, ToolCall, Usage

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

START = datetime(2026, 11, 20, tzinfo=UTC)


def runs(*rows: dict[str, Any]) -> pd.DataFrame:
    """Runs, as far as a plot of them looks; what is not given is missing, as a store has it."""
    blank = {"session_id": "chat", "run_index": 0, "status": "COMPLETED"}
    columns = {
        "session_id": "string",
        "run_index": "Int64",
        "status": "string",
        "total_tokens": "Int64",
        "cost": "Float64",
        "duration_s": "Float64",
        "created_at": "datetime64[us, UTC]",
    }
    return pd.DataFrame([blank | row for row in rows], columns=list(columns)).astype(columns)


def sessions(*rows: dict[str, Any]) -> pd.DataFrame:
    """Sessions, as far as a tree looks."""
    blank = {"n_runs": 1, "status": "COMPLETED"}
    columns = {
        "session_id": "string",
        "session_name": "string",
        "parent_session_id": "string",
        "fork_run_index": "Int64",
        "fork_message_index": "Int64",
        "n_runs": "Int64",
        "status": "string",
    }
    return pd.DataFrame([blank | row for row in rows], columns=list(columns)).astype(columns)


def calls(*rows: tuple[str, bool | None] | tuple[str, bool | None, str]) -> pd.DataFrame:
    """Tool calls: the tool, whether it failed, and who called it."""
    made = [(*row, "assistant")[:3] for row in rows]
    frame = pd.DataFrame(made, columns=["tool_name", "is_error", "caller"])
    return frame.astype({"tool_name": "string", "is_error": "boolean", "caller": "string"})


def metrics(*rows: dict[str, Any]) -> pd.DataFrame:
    """Metrics of a comparison or of groups; the differences are worked out."""
    made = []
    for row in rows:
        delta = row["b"] - row["a"] if None not in (row["a"], row["b"]) else None
        percent = 100 * delta / row["a"] if delta is not None and row["a"] else None
        made.append({"delta": delta, "delta_pct": percent, "better": None, **row})
    frame = pd.DataFrame(made)
    numbers = [c for c in ("a", "b", "delta", "delta_pct", "low", "high") if c in frame]
    return frame.astype(dict.fromkeys(numbers, "Float64") | {"metric": "string", "better": "string"})


def fill_store(store: SessionStore) -> SessionStore:
    """A store with a session of five runs, a branch of it, a branch of that, an empty one, and another session."""

    def run(minute: int, status: str = "COMPLETED", **fields: Any) -> Run:
        used = [
            ToolCall(tool_call_id="1", tool_name=f"tool-{minute % 3}", status="failed" if minute == 2 else "completed")
        ]
        messages = [
            Message(role="user", content="Where?"),
            Message(role="assistant", content=None, tool_calls=used),
            Message(role="tool", tool_call_id="1", content="Here."),
        ]
        begun = START + timedelta(minutes=minute)
        return Run(status=status, messages=messages, created_at=begun, duration_s=1.5, **fields)

    for minute in range(5):
        used = Usage(input_tokens=100 * minute, output_tokens=10, cost=0.001) if minute != 3 else None
        store.append_run("chat", run(minute, "ERROR" if minute == 4 else "COMPLETED", usage=used))
    store.branch("chat", after=2, name="what-if", new_session_id="branch")
    store.append_run("branch", run(3))
    store.branch("branch", after=1, name="earlier", new_session_id="twig")
    store.append_run("twig", run(2, "PAUSED"))
    store.branch("chat", after=4, name="nothing yet", new_session_id="empty")
    store.append_run("other", run(9))
    return store


def values(plot: Any) -> list[dict[str, Any]]:
    """All the data in the specification of a plot."""
    return [row for part in _within(plot.spec) if isinstance(part.get("data"), dict) for row in part["data"]["values"]]


def parts(plot: Any, key: str) -> list[Any]:
    """What stands under a key, anywhere in the specification but in its data."""
    return [part[key] for part in _within(plot.spec) if key in part]


def _within(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for key, inner in part.items():
            if key != "values":
                yield from _within(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _within(inner)
