"""A tool waits for a person, who confirms it."""

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
    model=scripted(call("delete_file", path="old.txt"), "It is deleted.", "Nothing else."),
    db=SqliteDb(db_file="agent.db"),
    session_id="files",
    tools=[delete_file],
    add_history_to_context=True,
)
run = agent.run("Delete old.txt")
show("is_paused", run.is_paused)
show("status", run.status)
for requirement in run.active_requirements:
    if requirement.needs_confirmation:
        show("waits", (requirement.tool_execution.tool_name, requirement.tool_execution.tool_args))
        requirement.confirm()
run = agent.continue_run(run_id=run.run_id, requirements=run.requirements)
show("answer", run.content)
show("status", run.status)
show("answer", agent.run("Anything else?").content)
