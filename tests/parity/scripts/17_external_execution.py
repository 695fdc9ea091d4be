"""A tool runs elsewhere, and its result is supplied."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.tools import tool
from parity_model import call, scripted, show


@tool(external_execution=True)
def run_shell(command: str) -> str:
    """Run a shell command."""
    raise AssertionError("runs elsewhere")


agent = Agent(
    model=scripted(call("run_shell", command="ls"), "There are two files."),
    db=SqliteDb(db_file="agent.db"),
    session_id="shell",
    tools=[run_shell],
)
run = agent.run("Which files are there?")
for requirement in run.active_requirements:
    if requirement.needs_external_execution:
        show("command", requirement.tool_execution.tool_args["command"])
        requirement.set_external_execution_result("a.txt b.txt")
run = agent.continue_run(run_id=run.run_id, requirements=run.requirements)
show("answer", run.content)
show("status", run.status)
