"""Shared by the tests of bundles: a store with all kinds of data, and functions to compare stores."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import kern_nb
from kern_nb.db import SessionStore
from kern_nb.records import Message, Requirement, Run, Session, ToolCall, Usage

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")
TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

AWKWARD: dict[Any, Any] = {
    "nul": "a\x00b\x10\x100000",
    "half": "\ud83d alone, \udfff",
    "decimal": Decimal("1.10"),
    "when": TIME,
    "day": date(2026, 2, 28),
    "bytes": b"\x00\xff",
    "huge": 2**200,
    "tiny": 1e-320,
    "infinite": float("inf"),
    "zero": -0.0,
    "$type": "decimal",
    "nested": [{"$items": [1, None, True]}, {"\ud800": "\x00"}],
    3: "a number as a key",
    "lines": "one\r\ntwo\u2028three",
}


def chat(text: str, **fields: Any) -> Run:
    """A finished run of four messages and a tool call."""
    call = ToolCall(tool_call_id="call", tool_name="look_up", args={"query": text}, duration_s=0.25)
    messages = [
        Message(role="user", content=text, created_at=TIME),
        Message(role="assistant", tool_calls=[call], usage=Usage(input_tokens=10, output_tokens=5, cost=0.125)),
        Message(role="tool", tool_call_id="call", tool_name="look_up", content=f"found {text}"),
        Message(role="assistant", content=f"answer to {text}", usage=Usage(input_tokens=20, output_tokens=7)),
    ]
    return Run(**{"input": text, "output": f"answer to {text}", "messages": messages, "agent_id": "clerk"} | fields)


def fill_store(store: SessionStore) -> SessionStore:
    """Fill a store with all kinds of data, in finished runs."""
    state = {"step": 1, "odd": AWKWARD}
    store.append_run("chat", chat("one", session_state=state), user_id="alice")
    picture = store.put_blob(b"\x89PNG\x00\xff", "image/png")
    note = store.put_blob(b"plain", None)
    store.append_run("chat", awkward(picture), user_id="alice")
    store.append_run("chat", chat("three", status="ERROR", error="broke", output=None), user_id="alice")
    store.branch("chat", after=(1, 2), new_session_id="what-if", name="What if?")
    store.append_run("what-if", chat("other", session_state={"step": 2}))
    store.branch("what-if", after=0, new_session_id="deeper")
    store.append_run("deeper", chat("deep"))
    store.branch("deeper", new_session_id="deepest")
    store.rename_session("chat", "A chat \ud83d")
    store.tag_session("chat", ["to check"])
    store.save_summary("chat", {"summary": "They talked.", "odd": AWKWARD})
    store.add_score("chat", "reward", 1.0, source="me")
    store.add_score("chat", "reward", 0.5)
    store.add_score("chat", "tone", 0.25, run_id=store.runs_df("chat")["run_id"][1])
    store.save_session(
        Session(session_id="empty", metadata={"note": AWKWARD, "file": note}, created_at=5, updated_at=7)
    )
    top = store.append_run("team", chat("top", run_type="team", team_id="desk"))
    store.append_run("team", chat("member", parent_run_id=top.run_id))
    store.append_run("it's \u202e<b>\x00", chat("named oddly"))
    return store


def awkward(picture: str) -> Run:
    """Build a run with awkward values, a file, and an answered requirement."""
    calls = [
        ToolCall(tool_call_id="same", tool_name="a", args="not {json", status="failed", result={"odd": AWKWARD}),
        ToolCall(tool_call_id="same", tool_name="b", args=None, status="unknown", caller="user"),
    ]
    messages = [
        Message(role="user", content=[{"type": "text", "text": "see"}, {"type": "image", "sha256": picture}]),
        Message(role="assistant", content={"odd": AWKWARD}, tool_calls=calls, extra={"odd": AWKWARD}, message_id="m"),
        Message(role="assistant", content="", model="m-2"),
        Message(role="tool", tool_call_id="same", content=5, is_error=True),
    ]
    requirement = Requirement(
        kind="confirmation",
        status="resolved",
        tool_call_id="same",
        args={"odd": AWKWARD},
        approved=True,
        answer=Decimal("2.50"),
        note="fine \x00",
        created_at=TIME,
        resolved_at=TIME,
        resolved_by="ann",
        assignee="bob",
        extra={"fields": ["a"]},
    )
    return Run(
        input={"odd": AWKWARD},
        output=[1, Decimal("0.10")],
        messages=messages,
        requirements=[requirement],
        usage=Usage(input_tokens=1, cost=0.1, total_tokens=4),
        duration_s=1.5,
        time_to_first_token_s=0.1,
        finished_at=TIME,
        extra={"odd": AWKWARD},
        model="m-1",
        model_provider="p",
    )


def exported(store: SessionStore, path: Path, *references: str, **options: Any) -> Path:
    """Export these sessions, or all, and return the path of the bundle."""
    kern_nb.export(*references, path=path, store=store, everything=not references, overwrite=True, **options)
    return path


def frames_of(store: SessionStore) -> dict[str, Any]:
    """Return all frames, sorted by their keys instead of the order of writing."""
    result = {}
    for name in FRAMES:
        frame = getattr(store, name)()
        keys = [
            key for key in ("session_id", "run_index", "message_index", "tool_call_id", "name", "value") if key in frame
        ]
        result[name] = frame.sort_values(keys).reset_index(drop=True)
    return result


def rows_of(store: SessionStore) -> dict[str, list[Any]]:
    """Return every row of every table, to check that nothing was written."""
    result = {}
    with store.read_connection() as connection:
        for table in (store.tables.sessions, *store.tables.session_tables, store.tables.blobs):
            rows = connection.execute(sa.select(table)).fetchall()
            result[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return result


def history_of(store: SessionStore, session_id: str) -> list[Any]:
    """Return the history that a model gets of a session."""
    return [(m.role, m.content, [c.tool_name for c in m.tool_calls]) for m in store.history(session_id)]


def runs_of(store: SessionStore, session_id: str) -> list[dict[str, Any]]:
    """Return the runs of a session without the ids that identify rows."""
    session = store.get_session(session_id)
    ids = {"run_id", "session_id", "parent_run_id", "requirements"}
    return [run.model_dump(exclude=ids) for run in session.runs]
