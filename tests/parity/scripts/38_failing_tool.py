"""A tool that fails, and a tool that does not exist."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show


def connect(host: str) -> str:
    """Connect to a host."""
    raise ConnectionError(f"{host} does not answer")


agent = Agent(
    model=scripted(call("connect", host="a"), "It fails.", call("conect", host="b"), "There is no such tool."),
    db=SqliteDb(db_file="agent.db"),
    session_id="network",
    tools=[connect],
    add_history_to_context=True,
)
run = agent.run("Connect to a")
show("answer", run.content)
show("status", run.status)
show("failed", [tool.tool_call_error for tool in run.tools])
run = agent.run("Connect to b")
show("answer", run.content)
show("status", run.status)
