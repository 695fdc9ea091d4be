"""`KernSession`: items come back as they were added, and are the messages of a session."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern_nb.db import InMemoryDb, SessionStore, open_store
from kern_nb.errors import BadUsage, HasBranches, OwnerMismatch
from kern_nb.records import Message, Run, ToolCall

pytest.importorskip("agents.memory", reason="needs openai-agents")

from agents import SessionSettings

from kern_nb.bridges.openai_agents import KernSession


def _answer(text: str, item_id: str = "msg_1") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": content}


ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "Add 1 and 2. \x00 \ud800 é"},
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Two calls."}], "content": None},
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "c1",
        "name": "add",
        "arguments": '{"a":1,"b":2}',
        "status": None,
    },
    {"id": "fc_2", "type": "function_call", "call_id": "c2", "name": "add", "arguments": "{"},
    {"type": "function_call_output", "call_id": "c1", "output": "3"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "bad"}]},
    {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
    _answer("It is 3."),
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}],
    },
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "…"},
    {"type": "a_future_kind", "value": 1.0, "more": {"deep": [True, None]}},
    {"role": "developer", "content": "Be brief."},
    _answer("A picture."),
]


def _run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_items_come_back(store: SessionStore) -> None:
    """Every item comes back exactly, in one batch or one by one, with any limit."""
    whole, single = KernSession("whole", store), KernSession("single", store)
    _run(whole.add_items(ITEMS))  # type: ignore[arg-type]
    for item in ITEMS:
        _run(single.add_items([item]))  # type: ignore[list-item]
    for session in (whole, single):
        assert _run(session.get_items()) == ITEMS
        for limit in range(len(ITEMS) + 2):
            assert _run(session.get_items(limit=limit)) == (ITEMS[-limit:] if limit else [])
    assert store.check().problems == []


def test_frames(store: SessionStore) -> None:
    """Items are runs, messages and tool calls."""
    _run(KernSession("chat", store).add_items(ITEMS))  # type: ignore[arg-type]
    assert list(store.runs_df()["n_messages"]) == [5, 3]
    assert list(store.runs_df()["output"]) == ["It is 3.", "A picture."]
    roles = ["user", "assistant", "tool", "tool", "assistant", "user", "developer", "assistant"]
    assert list(store.messages_df()["role"]) == roles
    calls = store.tool_calls_df()
    assert list(calls["tool_name"]) == ["add", "add", "web_search"]
    assert list(calls["status"]) == ["completed", "completed", "completed"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
_item = st.dictionaries(st.sampled_from(["role", "type", "content", "call_id", "id", "name", "x"]), _json, max_size=5)


@given(st.lists(st.sampled_from(ITEMS) | _item, max_size=6), st.integers(1, 4))
def test_any_item(items: list[dict[str, Any]], limit: int) -> None:
    """Whatever an item is, it comes back."""
    with InMemoryDb() as store:
        session = KernSession("chat", store)
        _run(session.add_items(items))  # type: ignore[arg-type]
        assert _run(session.get_items()) == items
        assert _run(session.get_items(limit=limit)) == items[-limit:]
        popped = [_run(session.pop_item()) for _ in items]
        assert popped == items[::-1]
        assert _run(session.pop_item()) is None
        assert store.check().problems == []


def test_pop_item(store: SessionStore) -> None:
    """A popped item is gone from the session's messages and calls, and others can be added after it."""
    session = KernSession("chat", store)
    _run(session.add_items(ITEMS[:4]))  # type: ignore[arg-type]
    assert _run(session.pop_item()) == ITEMS[3]
    assert _run(session.get_items()) == ITEMS[:3]
    assert list(store.tool_calls_df()["tool_call_id"]) == ["c1"]
    _run(session.add_items(ITEMS[4:5]))  # type: ignore[arg-type]
    assert _run(session.get_items()) == ITEMS[:3] + ITEMS[4:5]
    assert list(store.tool_calls_df()["status"]) == ["completed"]
    assert _run(session.pop_item()) == ITEMS[4]
    assert list(store.tool_calls_df()["status"]) == ["unknown"]
    assert store.check().problems == []


def test_clear_session(store: SessionStore) -> None:
    """A cleared session is empty, keeps its title, and goes on."""
    session = KernSession("chat", store)
    _run(session.clear_session())
    _run(session.add_items(ITEMS))  # type: ignore[arg-type]
    store.rename_session("chat", "Sums")
    _run(session.clear_session())
    assert _run(session.get_items()) == []
    _run(session.add_items(ITEMS[:1]))  # type: ignore[arg-type]
    assert _run(session.get_items()) == ITEMS[:1]
    loaded = store.get_session("chat")
    assert loaded is not None
    assert loaded.session_name == "Sums"


def test_branch(store: SessionStore) -> None:
    """A branch has the items up to the branch point, and adds its own."""
    session = KernSession("chat", store)
    _run(session.add_items(ITEMS))  # type: ignore[arg-type]
    run = store.branch("chat", after=0, new_session_id="run")
    message = store.branch("chat", after=(0, 2), new_session_id="message")
    assert _run(KernSession(run.session_id, store).get_items()) == ITEMS[:8]
    assert _run(KernSession(message.session_id, store).get_items()) == ITEMS[:5]
    branch = KernSession("run", store)
    _run(branch.add_items(ITEMS[-2:]))  # type: ignore[arg-type]
    assert _run(branch.get_items(limit=3)) == [ITEMS[7], *ITEMS[-2:]]
    assert _run(session.get_items()) == ITEMS


def test_inherited_items_are_not_removed(store: SessionStore) -> None:
    """What a branch inherits cannot be removed from either side; the error names the branch."""
    session = KernSession("chat", store)
    _run(session.add_items(ITEMS))  # type: ignore[arg-type]
    store.branch("chat", new_session_id="branch")
    branch = KernSession("branch", store)
    for action in (session.pop_item, session.clear_session):
        with pytest.raises(HasBranches, match="branch"):
            _run(action())
    for action in (branch.pop_item, branch.clear_session):
        with pytest.raises(BadUsage, match="chat"):
            _run(action())
    assert _run(session.get_items()) == _run(branch.get_items()) == ITEMS
    _run(branch.add_items(ITEMS[:1]))  # type: ignore[arg-type]
    assert _run(branch.pop_item()) == ITEMS[0]


def test_items_added_to_an_inherited_run(store: SessionStore) -> None:
    """Items that continue the run a branch inherits are not the branch's."""
    session = KernSession("chat", store)
    _run(session.add_items(ITEMS[:4]))  # type: ignore[arg-type]
    store.branch("chat", new_session_id="branch")
    _run(session.add_items(ITEMS[4:8]))  # type: ignore[arg-type]
    assert _run(session.get_items()) == ITEMS[:8]
    assert _run(KernSession("branch", store).get_items()) == ITEMS[:4]


def test_session_of_another_agent(store: SessionStore) -> None:
    """Messages that another agent wrote are items; those of failed runs and of members are not."""
    call = ToolCall(tool_call_id="c", tool_name="add", args={"a": 1}, result="3", status="completed")
    messages = [
        Message(role="system", content="Be nice."),
        Message(role="user", content="Add."),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="3", tool_call_id="c"),
        Message(role="assistant", content="It is 3."),
    ]
    run = store.append_run("chat", Run(messages=messages))
    store.append_run("chat", Run(messages=[Message(role="user", content="inner")], parent_run_id=run.run_id))
    store.append_run("chat", Run(messages=[Message(role="user", content="lost")], status="ERROR"))
    session = KernSession("chat", store)
    expected = [
        {"role": "user", "content": "Add."},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    assert _run(session.get_items()) == expected
    _run(session.add_items(ITEMS[:1]))  # type: ignore[arg-type]
    assert _run(session.get_items(limit=2)) == [expected[-1], ITEMS[0]]
    assert _run(session.pop_item()) == ITEMS[0]
    with pytest.raises(BadUsage, match="not written by"):
        _run(session.pop_item())


def test_session_settings(store: SessionStore) -> None:
    """The limit of the settings is the default, given as an object or a dict."""
    for settings in (SessionSettings(limit=2), {"limit": 2}):
        session = KernSession("chat", store, session_settings=settings)
        if not store.list_sessions():
            _run(session.add_items(ITEMS))  # type: ignore[arg-type]
        assert _run(session.get_items()) == ITEMS[-2:]
        assert _run(session.get_items(limit=1)) == ITEMS[-1:]


def test_users(store: SessionStore) -> None:
    """A session of one user is not another's."""
    _run(KernSession("chat", store, user_id="alice").add_items(ITEMS))  # type: ignore[arg-type]
    other = KernSession("chat", store, user_id="bob")
    assert _run(other.get_items()) == []
    assert _run(other.pop_item()) is None
    with pytest.raises(OwnerMismatch):
        _run(other.add_items(ITEMS))  # type: ignore[arg-type]


def test_concurrent_processes(persistent_target: str, record_property: Callable[[str, object], None]) -> None:
    """Two processes run agents on one session: nothing is lost, doubled, or mixed."""
    is_sqlite = persistent_target.endswith(".db")
    count = 100 if "KERN_PEERS" in os.environ and is_sqlite else 10
    record_property("suite", f"openai-agents {version('openai-agents')}: two processes, runs on one session")
    record_property("store", "sqlite" if is_sqlite else "postgres" if "://" in persistent_target else "duckdb")
    open_store(persistent_target).close()
    script = Path(__file__).with_name("openai_runs_process.py")
    command = [sys.executable, str(script), persistent_target]
    processes = [subprocess.Popen([*command, name, str(count)]) for name in ("p", "q")]
    assert [process.wait() for process in processes] == [0, 0]
    with open_store(persistent_target) as store:
        items = _run(KernSession("chat", store).get_items())
        record_property("passed", len({str(item["content"]) for item in items if item.get("role") == "user"}))
        record_property("total", 2 * count)
        assert Counter(item["content"] for item in items if item.get("role") == "user") == Counter(
            f"{name}{index}" for name in "pq" for index in range(count)
        )
        for start in range(0, len(items), 4):
            prompt, call, output, answer = items[start : start + 4]
            assert call["call_id"] == output["call_id"] == prompt["content"]
            assert answer["content"][0]["text"] == f"{prompt['content']} is done"
        assert list(store.runs_df()["status"]) == ["COMPLETED"] * 2 * count
        assert store.check().problems == []
