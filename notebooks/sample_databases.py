"""A small database of another program, for `bring_your_agents.ipynb`: an agent of Agno 3 that answers about parcels.

`write_agno` makes the tables of Agno as its documentation describes them, without Agno; `add_run` is what the program
writes later. All texts are invented.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

START = 1_790_000_000

_SESSIONS = """CREATE TABLE agno_sessions (session_id VARCHAR NOT NULL PRIMARY KEY, session_type VARCHAR NOT NULL,
    agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR, session_data JSON, agent_data JSON,
    team_data JSON, workflow_data JSON, metadata JSON, summary JSON, created_at BIGINT NOT NULL, updated_at BIGINT)"""
_RUNS = """CREATE TABLE agno_runs (run_id VARCHAR NOT NULL PRIMARY KEY, session_id VARCHAR NOT NULL,
    run_type VARCHAR NOT NULL, agent_id VARCHAR, team_id VARCHAR, workflow_id VARCHAR, user_id VARCHAR,
    parent_run_id VARCHAR, status VARCHAR, run_index BIGINT, run_data JSON NOT NULL, created_at BIGINT NOT NULL,
    updated_at BIGINT)"""


def write_agno(path: str | Path) -> None:
    """Write two sessions: in the first one the model looks up a parcel, in the second one it guesses."""
    Path(path).unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_SESSIONS)
        connection.execute(_RUNS)
        for number, session_id in enumerate(("parcel-with-tool", "parcel-guessed")):
            title = json.dumps({"session_name": f"Where is parcel {7 + number}?"})
            row = (session_id, "agent", "courier", "kim", title, START + 60 * number, START + 60 * number)
            names = "session_id, session_type, agent_id, user_id, session_data, created_at, updated_at"
            connection.execute(f"INSERT INTO agno_sessions ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    question = "Where is my parcel?"
    add_run(
        path, "parcel-with-tool", question, "It is in Porto, out for delivery.", lookup="in Porto, out for delivery"
    )
    add_run(path, "parcel-guessed", question, "It should arrive soon.")


def add_run(path: str | Path, session_id: str, question: str, answer: str, *, lookup: str | None = None) -> None:
    """Add a run to a session, with a call of the tool `track` that returns ``lookup``."""
    with closing(sqlite3.connect(path)) as connection, connection:
        query = "SELECT count(*) FROM agno_runs WHERE session_id = ?"
        index = connection.execute(query, [session_id]).fetchone()[0]
        run_id, time = f"{session_id}-{index}", START + 3_600 * index
        messages = [_message(f"{run_id}-q", "user", question, time)]
        if lookup is not None:
            function = {"name": "track", "arguments": json.dumps({"parcel": 7})}
            call = {"id": f"{run_id}-c", "type": "function", "function": function}
            messages.append(
                _message(f"{run_id}-1", "assistant", "", time + 1, tool_calls=[call], metrics=_tokens(40, 12))
            )
            result = {"tool_call_id": call["id"], "tool_name": "track", "tool_call_error": False}
            messages.append(_message(f"{run_id}-2", "tool", lookup, time + 2, **result))
        messages.append(_message(f"{run_id}-a", "assistant", answer, time + 3, metrics=_tokens(60, 9)))
        data = {
            "run_id": run_id, "agent_id": "courier", "agent_name": "Courier", "session_id": session_id,
            "user_id": "kim", "model": "gpt-5.2", "model_provider": "OpenAI", "status": "COMPLETED", "created_at": time,
            "input": {"input_content": question}, "content": answer, "content_type": "str", "messages": messages,
            "metrics": _tokens(100 if lookup else 60, 21 if lookup else 9),
        }  # fmt: skip
        row = (run_id, session_id, "agent", "courier", "kim", "COMPLETED", index, json.dumps(data), time)
        names = "run_id, session_id, run_type, agent_id, user_id, status, run_index, run_data, created_at"
        connection.execute(f"INSERT INTO agno_runs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _message(name: str, role: str, content: str, time: int, **fields: Any) -> dict[str, Any]:
    flags = {"from_history": False, "stop_after_tool_call": False}
    return {"id": name, "role": role, "content": content, "created_at": time} | flags | fields


def _tokens(inputs: int, outputs: int) -> dict[str, int]:
    return {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs}
