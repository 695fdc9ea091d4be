"""Sessions that the OpenAI Agents SDK itself writes, offline: what we read equals what its own API returns."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("agents.memory", reason="needs openai-agents")
pytestmark = pytest.mark.filterwarnings("ignore")

from agents import Agent, Runner, SQLiteSession, function_tool, set_tracing_disabled
from agents.extensions.memory.advanced_sqlite_session import AdvancedSQLiteSession
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.usage import Usage

from kern_nb.db import InMemoryDb
from kern_nb.ingest.importers.openai_responses.items import parse_items


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class CountingModel(ScriptedModel):
    """A scripted model that states its usage."""

    async def get_response(self, *args, **kwargs):
        response = await super().get_response(*args, **kwargs)
        response.usage = Usage(requests=1, input_tokens=10, output_tokens=3, total_tokens=13)
        return response


def agent(*steps):
    return Agent(name="A", model=CountingModel(list(steps)), tools=[add])


async def record(path):
    """Write two sessions; returns the items that the API has for each line."""
    plain = SQLiteSession("plain", path)
    steps = [[function_call("add", {"a": 1, "b": 2}, call_id="c1")], [assistant_message("It is 3")]]
    helper = agent(*steps, [assistant_message("Bye")])
    await Runner.run(helper, "1+2?", session=plain)
    await Runner.run(helper, "Thanks", session=plain)
    lines = {"plain": await plain.get_items()}
    plain.close()

    talk = AdvancedSQLiteSession(session_id="talk", db_path=path, create_tables=True)
    helper = agent(*([assistant_message(f"Answer {n}")] for n in range(9)))

    async def say(text):
        await talk.store_run_usage(await Runner.run(helper, text, session=talk))

    for text in ("one", "two", "three"):
        await say(text)
    await talk.create_branch_from_turn(2, "alt")
    await say("two, again")
    await say("three, again")
    await talk.create_branch_from_turn(3, "deeper")
    await say("deep")
    await talk.switch_to_branch("main")
    await talk.create_branch_from_turn(3, "empty")
    usage = {}
    for branch in await talk.list_branches():
        name = branch["branch_id"]
        lines["talk" if name == "main" else f"talk~{name}"] = await talk.get_items(branch_id=name)
        usage[name] = await talk.get_session_usage(branch_id=name)
    return talk, lines, usage


def test_lines_and_usage(tmp_path):
    set_tracing_disabled(True)
    path = tmp_path / "sessions.db"
    talk, lines, usage = asyncio.run(record(path))
    before = path.read_bytes(), (tmp_path / "sessions.db-wal").read_bytes()
    with InMemoryDb() as store:
        assert not store.ingest(path, progress=False).errors
        assert set(store.sessions_df().session_id) == set(lines)
        for name, items in lines.items():
            expected = [item.message for item in parse_items(items)]
            own = [message for run in store.get_session(name).runs for message in run.messages]
            assert [(m.role, m.content, m.tool_call_id) for m in own] == [
                (m.role, m.content, m.tool_call_id) for m in expected
            ]
            assert [c.args for m in own for c in m.tool_calls] == [c.args for m in expected for c in m.tool_calls]
        for name, counts in usage.items():
            runs = store.runs_df(session_id="talk" if name == "main" else f"talk~{name}")
            for column in ("input_tokens", "output_tokens", "total_tokens"):
                assert runs[column].sum() == (counts or {}).get(column, 0)
        assert not store.check().problems
        assert store.ingest(path, progress=False).runs == 0
    assert (path.read_bytes(), (tmp_path / "sessions.db-wal").read_bytes()) == before
    talk.close()
