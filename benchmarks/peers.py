"""The other libraries, each through its own interface: Agno 3.1.10's SQLite store, OpenAI Agents 0.24's SQLiteSession.

`agno_append` makes the calls that an Agno agent makes around one run: read the session, add the run to it, save the
row of the session, save the row of the run.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.samples import MODEL, SampleRun

if TYPE_CHECKING:
    from agno.agent import Agent
    from agno.db.sqlite import SqliteDb
    from agno.run.agent import RunOutput

AGNO = "Agno 3.1.10"
OPENAI = "OpenAI Agents 0.24"


def agno_store(file: Path) -> SqliteDb:
    """Open a new SQLite store of Agno."""
    from agno.db.sqlite import SqliteDb

    return SqliteDb(db_file=str(file))


def agno_run(sample: SampleRun, session_id: str) -> RunOutput:
    """Convert a sample run to Agno's records, which have the call on the message and in the list of tools."""
    from agno.metrics import MessageMetrics, RunMetrics
    from agno.models.message import Message
    from agno.models.response import ToolExecution
    from agno.run.agent import RunInput, RunOutput
    from agno.run.base import RunStatus

    usage = {"input_tokens": sample.tokens_in, "output_tokens": sample.tokens_out}
    function = {"name": sample.tool, "arguments": json.dumps(sample.args)}
    tool_calls = [{"id": "call_1", "type": "function", "function": function}]
    call = {"tool_call_id": "call_1", "tool_name": sample.tool, "tool_args": sample.args}
    return RunOutput(
        run_id=str(uuid.uuid4()),
        agent_id="support",
        agent_name="Support",
        session_id=session_id,
        input=RunInput(input_content=sample.question),
        content=sample.answer,
        model=MODEL,
        model_provider="OpenAI",
        messages=[
            Message(role="user", content=sample.question),
            Message(role="assistant", content="", tool_calls=tool_calls, metrics=MessageMetrics(**usage)),
            Message(role="tool", content=sample.result, **call, tool_call_error=False),
            Message(role="assistant", content=sample.answer, metrics=MessageMetrics(**usage)),
        ],
        tools=[ToolExecution(**call, result=sample.result, tool_call_error=False)],
        metrics=RunMetrics(**usage),
        session_state={},
        status=RunStatus.completed,
        created_at=int(time.time()),
    )


def agno_append(store: SqliteDb, run: RunOutput) -> None:
    """Make the store calls of an Agno agent around one run."""
    from agno.db.base import SessionType
    from agno.session import AgentSession

    stored: Any = store.get_session(session_id=str(run.session_id), session_type=SessionType.AGENT)
    now = int(time.time())
    session = stored or AgentSession(
        session_id=str(run.session_id), agent_id="support", session_data={"session_state": {}}, created_at=now
    )
    session.upsert_run(run)
    store.upsert_session(session)
    store.upsert_run(run, session_id=session.session_id, run_index=len(session.runs) - 1)


def agno_agent(store: SqliteDb) -> Agent:
    """Construct an agent that forks sessions of the store; its model is never called."""
    from agno.agent import Agent
    from agno.models.openai import OpenAIResponses

    model = OpenAIResponses(id=MODEL, api_key="unused")
    return Agent(id="support", name="Support", db=store, model=model, telemetry=False)


def openai_items(sample: SampleRun) -> list[dict[str, Any]]:
    """Convert a sample run to the four items that the OpenAI Agents SDK saves."""
    return [
        {"role": "user", "content": sample.question},
        {"type": "function_call", "call_id": "call_1", "name": sample.tool, "arguments": json.dumps(sample.args)},
        {"type": "function_call_output", "call_id": "call_1", "output": sample.result},
        {"role": "assistant", "content": sample.answer},
    ]
