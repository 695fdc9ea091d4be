"""A person rejects a tool call with a note."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.tools import tool
from parity_model import call, scripted, show


@tool(requires_confirmation=True)
def delete_file(path: str) -> str:
    """Delete a file."""
    show("deleted", path)
    return f"deleted {path}"


agent = Agent(
    model=scripted(call("delete_file", path="new.txt"), "I keep it."),
    db=SqliteDb(db_file="agent.db"),
    session_id="files",
    tools=[delete_file],
)
run = agent.run("Delete new.txt")
for requirement in run.active_requirements:
    requirement.reject("It is still in use.")
run = agent.continue_run(run_id=run.run_id, requirements=run.requirements)
show("answer", run.content)
show("status", run.status)
show("calls", [(tool.tool_name, tool.confirmed) for tool in run.tools])
