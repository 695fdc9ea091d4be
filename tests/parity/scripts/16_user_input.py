"""A person fills in an argument of a tool."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.tools import tool
from parity_model import call, scripted, show


@tool(requires_user_input=True, user_input_fields=["to_address"])
def send_email(subject: str, to_address: str) -> str:
    """Send an email."""
    return f"Sent {subject} to {to_address}"


agent = Agent(
    model=scripted(call("send_email", subject="Hello", to_address=""), "It is sent."),
    db=SqliteDb(db_file="agent.db"),
    session_id="mail",
    tools=[send_email],
)
run = agent.run("Write to Alice")
for requirement in run.active_requirements:
    if requirement.needs_user_input:
        show("fields", [field.name for field in requirement.user_input_schema])
        requirement.provide_user_input({"to_address": "alice@example.com"})
run = agent.continue_run(run_id=run.run_id, requirements=run.requirements)
show("answer", run.content)
show("result", [tool.result for tool in run.tools])
