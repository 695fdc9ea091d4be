"""The peers, each through its own interface: Agno 3.1.10's SQLite store, OpenAI Agents 0.24's SQLiteSession.

Agno's functions here are the calls that an agent makes around one run, taken from its source: read the session, add
the run to it, save the session's row, save the run's.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.samples import MODEL, Turn

if TYPE_CHECKING:
    from agno.agent import Agent
    from agno.db.sqlite import SqliteDb
    from agno.run.agent import RunOutput

AGNO = "Agno 3.1.10"
OPENAI = "OpenAI Agents 0.24"


def agno_store(file: Path) -> SqliteDb:
    """A new SQLite store of Agno's, its tables made."""
    from agno.db.sqlite import SqliteDb

    return SqliteDb(db_file=str(file))


def agno_run(turn: Turn, session_id: str) -> RunOutput:
    """A turn in Agno's records, as its agent fills them: the call stands on the message and in the list of tools."""
    from agno.metrics import MessageMetrics, RunMetrics
    from agno.models.message import Message
    from agno.models.response import ToolExecution
    from agno.run.agent import RunInput, RunOutput
    from agno.run.base import RunStatus

    spent = {"input_tokens": turn.tokens_in, "output_tokens": turn.tokens_out}
    function = {"name": turn.tool, "arguments": json.dumps(turn.args)}
    asked = [{"id": "call_1", "type": "function", "function": function}]
    call = {"tool_call_id": "call_1", "tool_name": turn.tool, "tool_args": turn.args}
    return RunOutput(
        run_id=str(uuid.uuid4()),
        agent_id="support",
        agent_name="Support",
        session_id=session_id,
        input=RunInput(input_content=turn.question),
        content=turn.answer,
        model=MODEL,
        model_provider="OpenAI",
        messages=[
            Message(role="user", content=turn.question),
            Message(role="assistant", content="", tool_calls=asked, metrics=MessageMetrics(**spent)),
            Message(role="tool", content=turn.result, **call, tool_call_error=False),
            Message(role="assistant", content=turn.answer, metrics=MessageMetrics(**spent)),
        ],
        tools=[ToolExecution(**call, result=turn.result, tool_call_error=False)],
        metrics=RunMetrics(**spent),
        session_state={},
        status=RunStatus.completed,
        created_at=int(time.time()),
    )


def agno_append(store: SqliteDb, run: RunOutput) -> None:
    """What Agno's agent does to the store around one run."""
    from agno.db.base import SessionType
    from agno.session import AgentSession

    found: Any = store.get_session(session_id=str(run.session_id), session_type=SessionType.AGENT)
    now = int(time.time())
    session = found or AgentSession(
        session_id=str(run.session_id), agent_id="support", session_data={"session_state": {}}, created_at=now
    )
    session.upsert_run(run)
    store.upsert_session(session)
    store.upsert_run(run, session_id=session.session_id, run_index=len(session.runs) - 1)


def agno_agent(store: SqliteDb) -> Agent:
    """An agent on the store, only to fork its sessions: no model is ever called."""
    from agno.agent import Agent
    from agno.models.openai import OpenAIResponses

    model = OpenAIResponses(id=MODEL, api_key="unused")
    return Agent(id="support", name="Support", db=store, model=model, telemetry=False)


def openai_items(turn: Turn) -> list[dict[str, Any]]:
    """A turn as the items that the OpenAI Agents SDK saves: four of them."""
    return [
        {"role": "user", "content": turn.question},
        {"type": "function_call", "call_id": "call_1", "name": turn.tool, "arguments": json.dumps(turn.args)},
        {"type": "function_call_output", "call_id": "call_1", "output": turn.result},
        {"role": "assistant", "content": turn.answer},
    ]
