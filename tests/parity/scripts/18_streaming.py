"""A run as a stream of events."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.run.agent import RunEvent
from parity_model import call, scripted, show


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny"


agent = Agent(
    model=scripted("Hello Alice.", call("get_weather", city="Rome"), "It is sunny."),
    db=SqliteDb(db_file="agent.db"),
    session_id="weather",
    tools=[get_weather],
)
chunks = [event.content for event in agent.run("I am Alice", stream=True) if event.event == RunEvent.run_content]
show("content", "".join(chunks))
kinds: list[str] = []
for event in agent.run("How is the weather in Rome?", stream=True, stream_events=True):
    if event.event == RunEvent.tool_call_completed:
        show("tool", (event.tool.tool_name, event.tool.tool_args, event.tool.result))
    if event.event == RunEvent.run_completed:
        show("completed", event.content)
    if not kinds or kinds[-1] != event.event:
        kinds.append(event.event)
show("events", kinds)
show("history", agent.get_chat_history(session_id="weather"))
