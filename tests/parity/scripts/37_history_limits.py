"""Limits of the history by messages and by tool calls."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny"


db = SqliteDb(db_file="agent.db")
answers = []
for city in ("Rome", "Oslo", "Bern"):
    answers += [call("get_weather", city=city), f"{city} is sunny."]
agent = Agent(model=scripted(*answers), db=db, session_id="weather", tools=[get_weather])
for city in ("Rome", "Oslo", "Bern"):
    agent.run(f"How is {city}?")

options = {"db": db, "session_id": "weather", "tools": [get_weather], "add_history_to_context": True}
by_messages = Agent(model=scripted("Four.", name="by messages"), num_history_messages=4, **options)
show("answer", by_messages.run("How many messages do you see?").content)
by_calls = Agent(
    model=scripted("One.", name="by tool calls"), num_history_runs=3, max_tool_calls_from_history=1, **options
)
show("answer", by_calls.run("How many calls do you see?").content)
