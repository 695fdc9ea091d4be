"""The members of a team share its state."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.run import RunContext
from agno.team import Team
from parity_model import call, scripted, show


def add_item(run_context: RunContext, item: str) -> str:
    """Add an item to the shopping list."""
    run_context.session_state["shopping_list"].append(item)
    return f"added {item}"


def count_items(run_context: RunContext) -> str:
    """Count the items of the shopping list."""
    return str(len(run_context.session_state["shopping_list"]))


shopper = Agent(
    name="Shopper",
    role="Manages the list",
    model=scripted(call("add_item", item="milk"), "Milk is on the list.", name="shopper"),
    tools=[add_item],
)
team = Team(
    name="Kitchen",
    members=[shopper],
    model=scripted(
        call("delegate_task_to_member", member_id="shopper", task="Add milk"),
        call("count_items"),
        "There is one item.",
        name="leader",
    ),
    tools=[count_items],
    db=SqliteDb(db_file="team.db"),
    session_id="kitchen",
    session_state={"shopping_list": []},
)
show("answer", team.run("Add milk, and count").content)
show("state", team.get_session_state(session_id="kitchen"))
