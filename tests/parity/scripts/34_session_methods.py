"""What a session has, a fork of it, and its end."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny"


agent = Agent(
    model=scripted(call("get_weather", city="Rome"), "It is sunny.", "You are welcome.", "It was sunny.", "Sunny."),
    db=SqliteDb(db_file="agent.db"),
    session_id="weather",
    user_id="alice",
    instructions="Be brief.",
    tools=[get_weather],
    add_history_to_context=True,
    metadata={"project": "travel"},
)
first = agent.run("How is Rome?")
agent.run("Thanks")
session = agent.get_session(session_id="weather")
show("messages", session.get_messages())
show("messages without instructions", session.get_messages(skip_roles=["system", "tool"]))
show("last message", session.get_messages(limit=2))
show("chat history", session.get_chat_history())
show("tool calls", len(session.get_tool_calls()))
show("run", session.get_run(first.run_id).content)
show("runs", len(session.runs))
show("metadata", session.metadata)
show("summary", session.get_session_summary())
show("last output", agent.get_last_run_output(session_id="weather").content)
show("output", agent.get_run_output(run_id=first.run_id, session_id="weather").content)

fork = agent.fork_session(source_session_id="weather")
show("answer in the fork", agent.run("How was it?", session_id=fork).content)
show("answer in the original", agent.run("How is it?", session_id="weather").content)
show("runs of the fork", len(agent.get_session(session_id=fork).runs))
agent.delete_session(session_id=fork)
show("deleted", agent.get_session(session_id=fork) is None)
show("runs of the original", len(agent.get_session(session_id="weather").runs))
