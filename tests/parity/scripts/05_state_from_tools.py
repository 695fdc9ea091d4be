"""Tools change the session state, which the next run has."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.run import RunContext
from parity_model import call, scripted, show


def add_item(run_context: RunContext, item: str) -> str:
    """Add an item to the shopping list."""
    run_context.session_state["shopping_list"].append(item)
    return f"The list is now {run_context.session_state['shopping_list']}"


agent = Agent(
    model=scripted(call("add_item", item="milk"), "Added milk.", call("add_item", item="bread"), "Added bread."),
    db=SqliteDb(db_file="agent.db"),
    session_id="shopping",
    session_state={"shopping_list": []},
    tools=[add_item],
    instructions="Current state: {shopping_list}",
)
for item in ("milk", "bread"):
    run = agent.run(f"Add {item}")
    show("answer", run.content)
    show("state of the run", run.session_state["shopping_list"])
show("state", agent.get_session_state(session_id="shopping"))
show("updated", agent.update_session_state({"budget": 20}, session_id="shopping"))
show("state after the update", agent.get_session_state(session_id="shopping"))
