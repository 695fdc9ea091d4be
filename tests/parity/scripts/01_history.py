"""Two runs of a session: the second is told the first."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

db = SqliteDb(db_file="agent.db")
agent = Agent(
    model=scripted("Hello Alice.", "You are Alice.", "Who are you?"),
    db=db,
    session_id="conversation_123",
    instructions="Be brief.",
    add_history_to_context=True,
)
show("answer", agent.run("My name is Alice").content)
run = agent.run("What's my name?")
show("answer", run.content)
show("status", run.status)
show("answer of another session", agent.run("Who am I?", session_id="conversation_456").content)
show("history", agent.get_chat_history(session_id="conversation_123"))
