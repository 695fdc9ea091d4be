"""An asynchronous script: two sessions at once, then history."""

import asyncio

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show


async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    await asyncio.sleep(0)
    return f"{city}: sunny"


def create(name: str, db: SqliteDb) -> Agent:
    """An agent with a session of its own."""
    model = scripted(call("get_weather", city=name), f"{name} is sunny.", f"You asked about {name}.", name=name)
    return Agent(model=model, db=db, session_id=name, tools=[get_weather], add_history_to_context=True)


async def main() -> None:
    """Run both."""
    db = SqliteDb(db_file="agent.db")
    agents = [create("Rome", db), create("Oslo", db)]
    runs = await asyncio.gather(*(agent.arun("How is the weather?") for agent in agents))
    show("answers", [run.content for run in runs])
    for agent in agents:
        run = await agent.arun("What did I ask?")
        show("answer", run.content)
        show("history", await agent.aget_chat_history(session_id=agent.session_id))


asyncio.run(main())
