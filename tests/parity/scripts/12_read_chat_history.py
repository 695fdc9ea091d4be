"""The model reads the history of the session with a tool."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show

agent = Agent(
    model=scripted("Rome is old.", call("get_chat_history"), "You asked about Rome."),
    db=SqliteDb(db_file="agent.db"),
    session_id="cities",
    read_chat_history=True,
)
agent.run("What is Rome like?")
show("answer", agent.run("What did I ask?").content)
show("history", agent.get_chat_history(session_id="cities"))
