"""Sessions that Agno itself writes, offline: what we read equals what its own API returns for them, field by field."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

pytest.importorskip("agno.agent", reason="needs agno")
pytestmark = pytest.mark.filterwarnings("ignore")

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno.media import Image
from agno.metrics import MessageMetrics
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.team import Team
from agno.tools import tool
from agno.workflow import Step, StepOutput, Workflow

from kern_nb.db import InMemoryDb
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.importers.agno import Agno
from kern_nb.ingest.source import Source
from kern_nb.records import text_of


@dataclass
class Scripted(Model):
    """A model that returns answers in turn: texts, or calls as (id, tool, arguments)."""

    id: str = "scripted-1"
    name: str = "Scripted"
    provider: str = "Tests"
    script: list = field(default_factory=list)

    def invoke(self, *args, **kwargs):
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        response = ModelResponse(role="assistant", content=answer if isinstance(answer, str) else "")
        if not isinstance(answer, str):
            name, function, arguments = answer
            function = {"name": function, "arguments": json.dumps(arguments)}
            response.tool_calls = [{"id": name, "type": "function", "function": function}]
            response.reasoning_content = "Let me see."
        counts = {"cache_read_tokens": 3, "reasoning_tokens": 2}
        response.response_usage = MessageMetrics(input_tokens=12, output_tokens=7, total_tokens=19, **counts)
        return response

    async def ainvoke(self, *args, **kwargs):
        return self.invoke()

    def invoke_stream(self, *args, **kwargs):
        yield self.invoke()

    async def ainvoke_stream(self, *args, **kwargs):
        yield self.invoke()

    def _parse_provider_response(self, response, **kwargs):
        return response

    def _parse_provider_response_delta(self, response):
        return response


def weather(city: str) -> str:
    """The weather."""
    if city == "nowhere":
        raise ValueError("no such city")
    return f"{city}: sunny"


@tool(requires_confirmation=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool(external_execution=True)
def shell(command: str) -> str:
    """Run a command."""


@tool(requires_user_input=True, user_input_fields=["to"])
def send(to: str, text: str) -> str:
    """Send a text."""
    return "sent"


def agent(name, script, db=None, **options):
    return Agent(id=name, name=name.title(), model=Scripted(script=script), db=db, telemetry=False, **options)


def record(db):
    """Runs with tools and errors, pauses of each kind, teams, workflows, summaries, media, forks."""
    calls = [("c1", "weather", {"city": "Oslo"}), "Sunny.", ("c2", "weather", {"city": "nowhere"}), "It failed."]
    options = {"tools": [weather], "session_state": {"visits": 0}, "metadata": {"env": "test"}}
    clerk = agent("clerk", [*calls, "Later."], db, add_history_to_context=True, **options)
    clerk.run("Weather in Oslo?", session_id="tools", user_id="ann@example.com")
    clerk.run("And nowhere?", session_id="tools", user_id="ann@example.com")
    clerk.set_session_name(session_id="tools", session_name="Weather")
    clerk.fork_session(source_session_id="tools")
    clerk.run("One more", session_id="tools", user_id="ann@example.com")

    keeper = agent("keeper", ["1", "2"], db, add_history_to_context=True, store_history_messages=True)
    keeper.run("One", session_id="history")
    keeper.run("Two", session_id="history")
    terse = agent("terse", [("c", "weather", {"city": "Rome"}), "ok"], db, tools=[weather], store_tool_messages=False)
    terse.run("Rome?", session_id="no tool messages")
    greeter = agent("greeter", ["Hi", '{"summary": "They greet", "topics": ["hi"]}'], db, enable_session_summaries=True)
    greeter.run("Hi", session_id="summary")
    viewer = agent("viewer", ["A cat"], db)
    images = [Image(content=b"abc", format="png"), Image(url="https://example.com/x.png")]
    viewer.run("What is it?", images=images, session_id="media")
    agent("down", [RuntimeError("model down")], db, retries=0).run("Hi", session_id="error")

    asks = [("d1", "delete", {"path": "a"}), ("d2", "delete", {"path": "b"}), ("e", "shell", {"command": "ls"})]
    pauser = agent("pauser", [asks[0], "Deleted.", asks[1], asks[2]], db, tools=[delete, shell, send])
    pauser.model.script.append(("f", "send", {"text": "hi", "to": ""}))
    run = pauser.run("Delete a", session_id="pauses")
    for requirement in run.requirements:
        requirement.confirm()
    pauser.continue_run(run_id=run.run_id, requirements=run.requirements, session_id="pauses")
    for text in ("Delete b", "List", "Send"):
        pauser.run(text, session_id="pauses")

    delegate = ("t", "delegate_task_to_member", {"member_id": "member", "task": "2+2"})
    team = Team(
        id="team", name="Team", members=[agent("member", ["4"], role="adds")], db=db, telemetry=False,
        model=Scripted(script=[delegate, "It is 4.", "Bye"]), store_member_responses=True,
    )  # fmt: skip
    team.run("What is 2+2?", session_id="team")
    team.run("Thanks", session_id="team")
    team.fork_session(source_session_id="team")
    remover = agent("remover", [("g", "delete", {"path": "z"})], role="deletes", tools=[delete])
    delegate = ("u", "delegate_task_to_member", {"member_id": "remover", "task": "delete z"})
    Team(id="pausing", members=[remover], model=Scripted(script=[delegate]), db=db, telemetry=False).run(
        "Delete z", session_id="paused team"
    )
    inner = Team(
        id="inner", name="Inner", members=[agent("adder", ["5"])], telemetry=False,
        model=Scripted(script=[("v", "delegate_task_to_member", {"member_id": "adder", "task": "2+3"}), "Five"]),
    )  # fmt: skip
    steps = [
        Step(name="write", agent=agent("writer", ["A poem"])),
        Step(name="team", team=inner),
        Step(name="shout", executor=lambda step: StepOutput(content="A POEM")),
    ]
    Workflow(id="flow", name="Flow", db=db, steps=steps, telemetry=False).run("Begin", session_id="workflow")

    forker = agent("forker", ["1", "2", "2b", "3"], db, add_history_to_context=True)
    forker.run("One", session_id="forks")
    second = forker.run("Two", session_id="forks")
    forker.continue_run(run_id=second.run_id, fork=True, continue_from="last_user", session_id="forks")
    forker.run("Three", session_id="forks")
    redoer = agent("redoer", ["1", "1b", "2", "3"], db, instructions="Be brief")
    first = redoer.run("One", session_id="again")
    redoer.continue_run(run_id=first.run_id, regenerate=True, session_id="again")
    second = redoer.run("Two", session_id="again")
    redoer.continue_run(run_id=second.run_id, input="And more", session_id="again")


def api_sessions(db):
    """All sessions, as Agno's own API returns them."""
    kinds = (SessionType.AGENT, SessionType.TEAM, SessionType.WORKFLOW)
    return [session.to_dict() for kind in kinds for session in db.get_sessions(session_type=kind)]


def with_inner(run):
    """A run, and those inside it."""
    inner = [*(run.get("member_responses") or []), *(run.get("step_executor_runs") or [])]
    return [run, *(other for value in inner for other in with_inner(value))]


def assert_equal(drafts, sessions):
    """What the drafts have equals what the API returned; returns the number of runs that were compared."""
    ids = {session["session_id"] for session in sessions}
    by_id = {draft.session_id: draft for draft in drafts if draft.session_id in ids}
    runs = {run.run_id: run for draft in drafts for run in draft.runs}
    assert by_id.keys() == ids
    n_compared = 0
    for session in sessions:
        own = by_id[session["session_id"]].session
        for name in ("agent_id", "team_id", "workflow_id", "user_id", "created_at", "updated_at"):
            assert getattr(own, name) == session.get(name)
        for name in ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary"):
            assert getattr(own, name) == (session.get(name) or None)
        is_copy = "forked_from_session_id" in (session["session_data"] or {})
        for run in [inner for outer in session["runs"] for inner in with_inner(outer)]:
            if run["run_id"] in runs:
                assert_run(runs[run["run_id"]], run)
                n_compared += 1
            else:
                assert is_copy
                assert run.get("parent_run_id")
    return n_compared


def assert_run(own, run):
    output = own.error if own.status == "ERROR" else own.output
    assert (own.status, output, own.model) == (run["status"], run["content"], run.get("model"))
    assert (own.session_state, int(own.created_at.timestamp())) == (run.get("session_state"), run["created_at"])
    assert own.user_id == run.get("user_id")
    given = run["input"]
    assert own.input == (given["input_content"] if isinstance(given, dict) else given)
    metrics = run.get("metrics") or {}
    assert (own.duration_s, own.time_to_first_token_s) == (metrics.get("duration"), metrics.get("time_to_first_token"))
    for name in ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "reasoning_tokens"):
        assert (own.usage and getattr(own.usage, name)) == metrics.get(name)
    messages = run.get("messages") or []
    assert [message.message_id for message in own.messages] == [message["id"] for message in messages]
    for message, record in zip(own.messages, messages, strict=True):
        assert_message(message, record)
    calls = {call.tool_call_id: call for message in own.messages for call in message.tool_calls}
    calls |= {call.tool_call_id: call for call in own.tool_calls}
    for execution in run.get("tools") or []:
        call = calls[execution["tool_call_id"]]
        assert (call.tool_name, call.args) == (execution["tool_name"], execution["tool_args"])
        assert call.duration_s == (execution["metrics"] or {}).get("duration")
        has_result = execution["result"] is not None
        assert call.status == ("failed" if execution["tool_call_error"] else "completed" if has_result else None)
    if not run.get("parent_run_id"):
        ids = [requirement["id"] for requirement in run.get("requirements") or []]
        assert [requirement.requirement_id for requirement in own.requirements] == ids


def assert_message(message, record):
    assert (message.role, message.tool_call_id) == (record["role"], record.get("tool_call_id"))
    text = text_of(message.content) if isinstance(message.content, list) else message.content
    assert (text or "") == (record.get("content") or "")
    assert bool(message.from_history) == record["from_history"]
    assert message.is_error == record.get("tool_call_error")
    assert int(message.created_at.timestamp()) == record["created_at"]
    if message.from_history:
        assert message.usage is None
        return
    calls = [(call["id"], call["function"]["name"]) for call in record.get("tool_calls") or []]
    assert [(call.tool_call_id, call.tool_name) for call in message.tool_calls] == calls
    metrics = record.get("metrics") or {}
    assert (message.usage and message.usage.input_tokens) == metrics.get("input_tokens")


@pytest.mark.parametrize("table", [None, "my chats"])
def test_a_file_of_version_3(tmp_path, table):
    path = tmp_path / "agno.db"
    db = AgnoSqliteDb(db_file=str(path), session_table=table)
    record(db)
    files = [file for file in tmp_path.iterdir() if not file.name.endswith("-shm")]
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in files}

    source = Source(path, path.name)
    assert Agno().recognizes(source)
    drafts = list(Agno().read(source))
    assert {file.name: hashlib.sha256(file.read_bytes()).digest() for file in files} == before
    assert "agno.db-wal" in before  # which has what was just written

    assert all(isinstance(draft, Draft) for draft in drafts)
    sessions = api_sessions(db)
    assert assert_equal(drafts, sessions) > 30
    with InMemoryDb() as store:
        report = store.ingest(path, progress=False)
        assert not report.errors
        assert not store.check().problems
        assert store.ingest(path, progress=False).runs == 0
        _assert_counts(store, sessions)
    db.db_engine.dispose()


def _assert_counts(store, sessions):
    """Nothing is counted twice: the totals of the frames are those of the runs that are no copies."""
    runs = store.runs_df()
    own = [s for s in sessions if "forked_from_session_id" not in (s["session_data"] or {})]
    unique = {run["run_id"]: run for s in own for top in s["runs"] for run in with_inner(top)}
    tokens = sum((run.get("metrics") or {}).get("total_tokens", 0) for run in unique.values())
    assert len(runs) == len(unique)
    assert set(runs.run_id) == set(unique)
    assert runs.total_tokens.sum() == tokens
    frame = store.sessions_df()
    copies = [s["session_id"] for s in sessions if s not in own]
    assert set(frame[frame.session_id.isin(copies)].parent_session_id) == {"tools", "team"}
    copy = next(s for s in sessions if (s["session_data"] or {}).get("forked_from_session_id") == "tools")
    inherited = store.get_session(copy["session_id"]).runs
    assert [run.output for run in inherited] == [run["content"] for run in copy["runs"]]
    messages = [message.message_id for run in inherited for message in run.messages]
    assert messages == [message["id"] for run in copy["runs"] for message in run["messages"]]
    pending = store.sql("SELECT kind, run_id FROM requirements WHERE status = 'pending'")
    kinds = ["confirmation", "confirmation", "external_execution", "user_input"]
    assert sorted(pending.kind) == kinds
    assert len(store.sql("SELECT * FROM requirements WHERE status = 'resolved'")) == 1


def test_postgres(new_postgres_database):
    postgres = pytest.importorskip("agno.db.postgres", reason="needs agno with psycopg")
    url = new_postgres_database()
    db = postgres.PostgresDb(db_url=url)
    record(db)
    engine = sa.create_engine(url)
    columns = sa.inspect(engine)
    tables = {name: [c["name"] for c in columns.get_columns(name, "ai")] for name in columns.get_table_names("ai")}
    with engine.connect() as connection:
        drafts = list(Agno().read_tables(connection, tables, schema="ai"))
    assert all(isinstance(draft, Draft) for draft in drafts)
    assert assert_equal(drafts, api_sessions(db)) > 30
    engine.dispose()
    db.db_engine.dispose()
