"""The same data give identical frames on all four engines: values, order, dtypes and missing values."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
from samples import WHEN

from kern_nb.db import SessionStore
from kern_nb.records import Message, Run, Session, ToolCall, Usage

NAMES = ("sessions", "runs", "messages", "tool_calls", "scores")
IDS = (
    "plain",
    "Zebra",
    "zebra",
    "äpfel",
    "\U0001f600",
    "a b",
    "a_b",
    "a-b",
    "",
    "nul\x00",
    "\x10",
    "sur\ud800",
    "10",
    "9",
)
TEXTS = ("hello", "", "nul \x00", "\ud800", "\x100000", "\U0001f600", "line\nbreak", "x" * 5000, None)


def fill(store: SessionStore) -> None:
    """Sessions of all kinds: hostile ids and texts, every status, stated and unstated usage, scores, branches."""
    for place, session_id in enumerate(IDS):
        for index in range(place % 4):
            store.append_run(session_id, a_mixed_run(place, index))
        if place % 4 == 3:
            store.branch(session_id, after=1, new_session_id=f"{session_id} branch")
            store.append_run(f"{session_id} branch", a_mixed_run(place, 7))
            store.branch(session_id, before=(1, 1), new_session_id=f"{session_id} within")
            store.branch(session_id, before=0, new_session_id=f"{session_id} nothing")
        name = {"session_name": TEXTS[place % len(TEXTS)]} if place % 2 else {}
        metadata = {"text": TEXTS[place % len(TEXTS)], "n": place / 3} if place % 3 else None
        store.save_session(
            Session(
                session_id=session_id,
                session_data=name or None,
                metadata=metadata,
                user_id="user" if place % 2 else None,
                duration_s=1.5 if place % 5 == 0 else None,
                created_at=place // 3,
            )
        )
        for source in (None, "benchmark", "analyst"):
            store.add_score(session_id, "reward", place / 7, source=source)
        if place % 4:
            store.add_score(session_id, "reward", 1.0, run_id=f"run {place} 0")
    for session in store.list_sessions(limit=1000):
        store.save_session(session.model_copy(update={"created_at": min(session.created_at, 50), "updated_at": 60}))


def a_mixed_run(place: int, index: int) -> Run:
    """A run that is different for each place, and the same on each engine."""
    when = WHEN + timedelta(seconds=place, microseconds=index)
    n = place + index
    calls = [
        ToolCall(
            tool_call_id=f"call {i}",
            tool_name="t",
            args={"n": i, "t": TEXTS[n % 9]},
            result=[i],
            status=status,
            created_at=when,
        )
        for i, status in enumerate(("completed", "failed", "unknown", "started")[: n % 5])
    ]
    if calls:
        calls[-1].caller = "user"
    usage = Usage(input_tokens=n * 10, output_tokens=n, cost=n / 8 if n % 3 else 0.0) if n % 2 else None
    messages = [
        Message(role="user", content=TEXTS[n % 9], usage=Usage(input_tokens=5, cost=0.25), created_at=when),
        Message(
            role="assistant", content=[{"type": "text", "text": "part"}, {"type": "x"}], tool_calls=calls, usage=usage
        ),
        Message(role="tool", tool_call_id="call 0", tool_name="t", content={"a": [1, None]}, message_id=f"m{n}"),
    ]
    return Run(
        run_id=f"run {place} {index}",
        agent_id="agent" if place % 2 else None,
        status=("COMPLETED", "ERROR", "CANCELLED", "PAUSED")[n % 4],
        input=TEXTS[n % 9],
        output={"answer": n} if n % 2 else TEXTS[n % 9],
        error=None if n % 4 else "broken",
        messages=messages,
        usage=Usage(input_tokens=n, total_tokens=n * 3, reasoning_tokens=0) if n % 3 == 0 else None,
        duration_s=n / 4 if n % 2 else None,
        time_to_first_token_s=0.125 if n % 3 else None,
        created_at=when if n % 5 else None,
        finished_at=when if n % 2 else None,
        model="m" if n % 2 else None,
    )


@pytest.fixture(scope="module")
def filled(shared_stores):
    """The same data on every engine; the tests only read it."""
    for store in shared_stores.values():
        fill(store)
    return shared_stores


def assert_alike(frames: dict[str, pd.DataFrame]) -> None:
    """Equal to DuckDB's, exactly; times of now apart, which differ by nature."""
    expected = frames["duckdb"]
    assert len(expected) > 0
    for engine, found in frames.items():
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=engine)


def settled(found: pd.DataFrame) -> pd.DataFrame:
    """A frame whose times of the writing itself are left out."""
    now = pd.Timestamp.now(tz="UTC") - pd.Timedelta(days=1)
    for column in found.select_dtypes("datetimetz"):
        found[column] = found[column].mask(found[column] > now)
    return found


def test_frames_are_equal_on_all_engines(filled):
    """Hostile ids sort alike, texts are shown alike, missing stays missing, and totals are equal to the last digit."""
    for name in NAMES:
        assert_alike({engine: settled(getattr(store, f"{name}_df")()) for engine, store in filled.items()})


def test_filtered_frames_are_equal_on_all_engines(filled):
    """With each filter, and with a limit, which cuts at the same row everywhere."""
    selected = {
        "sessions": [
            {"limit": 7},
            {"user_id": "user"},
            {"session_id": ["zebra", "10", "nul\x00"]},
            {"until": "1970-01-01T00:00:03"},
        ],
        "runs": [
            {"limit": 7},
            {"agent_id": "agent"},
            {"session_id": "sur\ud800"},
            {"since": WHEN, "until": "2026-03-01T12:00:08"},
        ],
        "messages": [{"limit": 9}, {"user_id": "user"}, {"session_id": "zebra"}],
        "tool_calls": [{"limit": 9}, {"agent_id": "agent"}, {"session_id": ["zebra", "10"]}],
        "scores": [{"limit": 9}, {"session_id": ["zebra", "10"]}],
    }
    for name, options in selected.items():
        for filters in options:
            found = {engine: settled(getattr(store, f"{name}_df")(**filters)) for engine, store in filled.items()}
            assert_alike(found)


def test_selected_columns_and_values_are_equal_on_all_engines(filled):
    """Also with filters and lineage, which join the same tables."""
    requested = {"columns": ["session_id"], "expand": ["metadata.text", "metadata.n", "state.x"]}
    for name in NAMES:
        for filters in ({}, {"limit": 7}, {"user_id": "user"}, {"session_id": ["zebra", "10", "nul\x00", "sur\ud800"]}):
            found = {e: getattr(store, f"{name}_df")(**filters, **requested) for e, store in filled.items()}
            assert_alike(found)
            assert filters or found["duckdb"].notna().any().tolist() == [True, True, True, False]
    for branch in ("a-b branch", "sur\ud800 branch"):
        requested = {"lineage": True, "columns": ["inherited", "args"], "expand": ["args.t", "args.n", "metadata.n"]}
        assert_alike({engine: store.tool_calls_df(branch, **requested) for engine, store in filled.items()})


def test_frames_with_lineage_are_equal_on_all_engines(filled):
    """Inherited rows too."""
    for name in ("runs", "messages", "tool_calls"):
        for branch in ("a-b branch", "a-b within", "sur\ud800 branch"):
            assert_alike(
                {e: settled(getattr(store, f"{name}_df")(branch, lineage=True)) for e, store in filled.items()}
            )


def test_records_are_equal_on_all_engines(filled):
    """Sessions, pages and histories say the same everywhere."""
    records = {engine: all_records(store) for engine, store in filled.items()}
    expected = records["duckdb"]
    for engine, sessions in records.items():
        assert list(sessions) == list(expected), engine
        for session_id, session in sessions.items():
            assert session == expected[session_id], (engine, session_id)


def all_records(store: SessionStore) -> dict[str, tuple[list[object], list[object]]]:
    """By session, in the order of the list: its runs and its history."""
    records: dict[str, tuple[list[object], list[object]]] = {}
    for listed in store.list_sessions(limit=100):
        session = store.get_session(listed.session_id)
        for run in session.runs:
            run.created_at = None if run.created_at and run.created_at.year != WHEN.year else run.created_at
        records[listed.session_id] = [dumped(run) for run in session.runs], texts(store, listed.session_id)
    return records


def dumped(run: Run) -> dict[str, object]:
    """A run without the time at which it was written."""
    found = run.model_dump()
    if found["created_at"] and found["created_at"] > WHEN + timedelta(days=1):
        found["created_at"] = None
    return found


def texts(store: SessionStore, session_id: str) -> list[object]:
    """The history of a session."""
    return [(message.role, message.content) for message in store.history(session_id)]
