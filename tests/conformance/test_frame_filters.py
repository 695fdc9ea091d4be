"""The filters of frames, alone and combined: session_id, user_id, agent_id, since, until, limit."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from samples import a_run

from kern_nb.errors import BadUsage, SessionNotFound
from kern_nb.records import Message, Run, Session, ToolCall

ROWS = ("runs", "messages", "tool_calls")
DAYS = [datetime(2026, 1, day, 12, 0, 0, 500_000, tzinfo=UTC) for day in range(1, 7)]


@pytest.fixture
def filled(store):
    """Six sessions, one per day, of two users and three agents, each with one run, two messages and a tool call."""
    for i, when in enumerate(DAYS):
        call = ToolCall(tool_call_id="c", tool_name="t", result="r", created_at=when)
        messages = [
            Message(role="user", content=f"s{i}", created_at=when),
            Message(role="assistant", content="x", tool_calls=[call], created_at=when),
        ]
        run = Run(agent_id=f"a{i % 3}", user_id=f"u{i % 2}", messages=messages, created_at=when)
        store.append_run(f"s{i}", run)
        store.save_session(Session(session_id=f"s{i}", created_at=int(when.timestamp())))
        store.add_score(f"s{i}", "reward", i, run_id=run.run_id)
    return store


def sessions_in(store, name, *args, **filters) -> list[str]:
    """Return the sessions of a frame's rows, sorted and unique."""
    return sorted(set(getattr(store, f"{name}_df")(*args, **filters).session_id))


@pytest.mark.parametrize("name", ["sessions", *ROWS, "scores"])
def test_filter_by_session(filled, name):
    """One id or any collection of ids; an unknown id and an empty collection have no rows."""
    assert sessions_in(filled, name, "s1") == ["s1"]
    assert sessions_in(filled, name, session_id="s1") == ["s1"]
    for ids in (
        ["s1", "s4"],
        ("s4", "s1"),
        {"s1", "s4"},
        pd.Series(["s1", "s4"]),
        np.array(["s1", "s4"]),
        pd.Index(["s1", "s4"]),
    ):
        assert sessions_in(filled, name, ids) == ["s1", "s4"]
    assert sessions_in(filled, name, (f"s{i}" for i in (2, 3))) == ["s2", "s3"]
    assert sessions_in(filled, name, filled.sessions_df(user_id="u0").session_id) == ["s0", "s2", "s4"]
    assert sessions_in(filled, name, ["s1", "no such", "s1"]) == ["s1"]
    assert sessions_in(filled, name, "no such") == []
    assert sessions_in(filled, name, []) == []
    assert sessions_in(filled, name, "%") == []


@pytest.mark.parametrize("name", ["sessions", *ROWS, "scores"])
def test_filter_by_user_and_agent(filled, name):
    """user_id is the owner of the session, agent_id the agent of the session or run; both filters combine."""
    assert sessions_in(filled, name, user_id="u0") == ["s0", "s2", "s4"]
    assert sessions_in(filled, name, agent_id="a1") == ["s1", "s4"]
    assert sessions_in(filled, name, user_id="u0", agent_id="a1") == ["s4"]
    assert sessions_in(filled, name, "s1", user_id="u0") == []
    assert sessions_in(filled, name, ["s1", "s4"], user_id="u1", agent_id="a1") == ["s1"]
    assert sessions_in(filled, name, user_id="nobody") == []
    assert sessions_in(filled, name, agent_id="") == []


@pytest.mark.parametrize("name", ["sessions", *ROWS])
def test_filter_by_time(filled, name):
    """since is inclusive, until exclusive; naive times and dates are UTC; text is parsed."""
    second = DAYS[2].replace(microsecond=0) if name == "sessions" else DAYS[2]  # sessions keep whole seconds
    tick = timedelta(microseconds=1)
    assert sessions_in(filled, name, since=second) == ["s2", "s3", "s4", "s5"]
    assert sessions_in(filled, name, since=second + tick) == ["s3", "s4", "s5"]
    assert sessions_in(filled, name, until=second) == ["s0", "s1"]
    assert sessions_in(filled, name, until=second + tick) == ["s0", "s1", "s2"]
    assert sessions_in(filled, name, since="2026-01-02", until="2026-01-04") == ["s1", "s2"]
    assert sessions_in(filled, name, since=date(2026, 1, 2), until=date(2026, 1, 4)) == ["s1", "s2"]
    assert sessions_in(filled, name, since=datetime(2026, 1, 5, 13)) == ["s5"]  # noqa: DTZ001 - naive on purpose
    assert sessions_in(filled, name, since=pd.Timestamp("2026-01-05T13:00Z")) == ["s5"]
    east = timezone(timedelta(hours=14))
    assert sessions_in(filled, name, since=datetime(2026, 1, 6, 2, 0, 1, tzinfo=east)) == ["s5"]
    assert sessions_in(filled, name, since="2026-01-04", until="2026-01-02") == []
    assert sessions_in(filled, name, since="2026-01-02", agent_id="a1", user_id="u0") == ["s4"]


@pytest.mark.parametrize("name", ["sessions", *ROWS, "scores"])
def test_limit_returns_first_rows(filled, name):
    """The first rows in order; 0 returns none, a large limit all."""
    frame = getattr(filled, f"{name}_df")
    whole = frame()
    for limit in (0, 1, 3, len(whole), len(whole) + 10):
        pd.testing.assert_frame_equal(frame(limit=limit), whole.head(limit))
    of_user = frame(user_id="u1")
    pd.testing.assert_frame_equal(frame(user_id="u1", limit=2), of_user.head(2))


def test_negative_limit_and_invalid_time_are_refused(store):
    """The error names the value."""
    store.append_run("s", a_run())
    for name in ("sessions", *ROWS):
        frame = getattr(store, f"{name}_df")
        with pytest.raises(BadUsage, match="-1"):
            frame(limit=-1)
        for when in ("yesterdayish", "2026-13-45", pd.NaT, "", 1_790_000_000, 1.5, np.int64(3), True):
            with pytest.raises(BadUsage):
                frame(since=when)


@pytest.mark.parametrize(
    "requested",
    [
        {"session_id": 3},
        {"user_id": 3},
        {"agent_id": ["a"]},
        {"limit": "3"},
        {"limit": 2.5},
        {"limit": True},
        {"columns": 3},
        {"expand": 3},
    ],
)
def test_arguments_of_wrong_type_are_refused(store, requested):
    """The error names argument and value, and is not the engine's."""
    store.append_run("s", a_run())
    ((name, value),) = requested.items()
    for frame in ("sessions", *ROWS):
        with pytest.raises(BadUsage, match=f"{name}.*{re.escape(repr(value))}") as refused:
            getattr(store, f"{frame}_df")(**requested)
        assert refused.value.hint


def test_order_of_sessions_and_rows(filled):
    """The order is the same on every engine."""
    assert filled.sessions_df().session_id.tolist() == ["s5", "s4", "s3", "s2", "s1", "s0"]
    for name in ROWS:
        assert getattr(filled, f"{name}_df")().session_id.is_monotonic_increasing


def test_filter_by_agent_within_session(store):
    """A session has rows of two agents; agent_id returns those of one."""
    for i in range(4):
        store.append_run("s", a_run(f"{i}", agent_id="ab"[i % 2]))

    assert store.runs_df(agent_id="b").run_index.tolist() == [1, 3]
    assert store.messages_df(agent_id="a").run_index.tolist() == [0] * 4 + [2] * 4
    assert store.tool_calls_df("s", agent_id="a").run_index.tolist() == [0, 2]


def test_lineage_requires_one_existing_session(store):
    """No session and several sessions are refused; an unknown one is reported."""
    store.append_run("s", a_run())
    for name in ROWS:
        frame = getattr(store, f"{name}_df")
        for wrong in (None, ["s"]):
            with pytest.raises(BadUsage, match="lineage"):
                frame(wrong, lineage=True)
        with pytest.raises(KeyError, match="no such"):
            frame("no such", lineage=True)


def test_filters_apply_to_inherited_rows(store):
    """user_id, agent_id, since and limit mean the same with lineage."""
    for i, when in enumerate(DAYS[:4]):
        store.append_run("s", a_run(f"{i}", agent_id="ab"[i % 2], user_id="u", created_at=when))
    store.branch("s", after=2, new_session_id="b")
    store.append_run("b", a_run("own", agent_id="a", user_id="u", created_at=DAYS[5]))

    assert store.runs_df("b", lineage=True).run_index.tolist() == [0, 1, 2, 3]
    assert store.runs_df("b", lineage=True).inherited.tolist() == [True, True, True, False]
    assert store.runs_df("b", lineage=True, agent_id="a").run_index.tolist() == [0, 2, 3]
    assert store.messages_df("b", lineage=True, agent_id="b").run_index.tolist() == [1] * 4
    assert store.runs_df("b", lineage=True, since=DAYS[1], limit=2).run_index.tolist() == [1, 2]
    with pytest.raises(SessionNotFound):  # as for a session that does not exist: another user's is not told apart
        store.runs_df("b", lineage=True, user_id="another")


def test_filter_by_seventy_thousand_ids(store):
    """More ids than any engine accepts as parameters."""
    store.append_run("s", a_run())
    ids = [f"no such {i}" for i in range(70_000)] + ["s"]

    assert store.sessions_df(ids).session_id.tolist() == ["s"]
    assert len(store.messages_df(ids)) == 4
