"""A tool call and its result are part of the history; so are results that are objects."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny"


def get_forecast(city: str, days: int = 2) -> dict:
    """Get the forecast for a city."""
    return {"city": city, "days": ["sunny"] * days}


agent = Agent(
    model=scripted(
        call("get_weather", city="Rome"),
        "It is sunny.",
        [call("get_weather", city="Oslo"), call("get_forecast", city="Oslo")],
        "Sunny there, too.",
    ),
    db=SqliteDb(db_file="agent.db"),
    session_id="weather",
    tools=[get_weather, get_forecast],
    add_history_to_context=True,
)
show("answer", agent.run("How is the weather in Rome?").content)
run = agent.run("And in Oslo?")
show("answer", run.content)
show("tools", [(tool.tool_name, tool.tool_args) for tool in run.tools])
show("history", agent.get_chat_history(session_id="weather"))
