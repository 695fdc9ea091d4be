"""Sessions and runs of Agno's, for the tests of its contract."""

from __future__ import annotations

from typing import Any

from agno.db.base import SessionType
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession, TeamSession, WorkflowSession


def session(session_id: str = "s1", **fields: Any) -> AgentSession:
    return AgentSession(session_id=session_id, **({"agent_id": "a1", "created_at": 100} | fields))


def run(run_id: str, **fields: Any) -> RunOutput:
    values = {"agent_id": "a1", "status": RunStatus.completed, "content": f"answer {run_id}", "created_at": 100}
    return RunOutput(run_id=run_id, **(values | fields))


def ids(sessions: list[Any]) -> list[str]:
    return [s["session_id"] if isinstance(s, dict) else s.session_id for s in sessions]


def run_ids(runs: Any) -> list[str]:
    return [r["run_id"] if isinstance(r, dict) else r.run_id for r in runs or []]


def fill(db: Any, session_id: str = "s1", count: int = 3, **fields: Any) -> None:
    """A session with runs r0, r1, …"""
    db.upsert_session(session(session_id, **fields))
    prefix = "" if session_id == "s1" else f"{session_id}-"
    for index in range(count):
        db.upsert_run(run(f"{prefix}r{index}"), session_id, run_index=index)


SESSIONS = {
    SessionType.AGENT: session(agent_data={"name": "Ann"}),
    SessionType.TEAM: TeamSession(session_id="s1", team_id="t1", team_data={"name": "Team"}, created_at=100),
    SessionType.WORKFLOW: WorkflowSession(session_id="s1", workflow_id="w1", workflow_data={"n": 1}, created_at=100),
}
