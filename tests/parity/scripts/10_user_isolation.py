"""Each user has their own sessions."""

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

db = SqliteDb(db_file="agent.db")
agent = Agent(
    model=scripted("Hello Alice.", "Hello Bob.", "You are Alice."),
    db=db,
    id="greeter",
    add_history_to_context=True,
)
agent.run("I am Alice", session_id="session_a", user_id="alice@example.com")
agent.run("I am Bob", session_id="session_b", user_id="bob@example.com")
show("answer", agent.run("Who am I?", session_id="session_a", user_id="alice@example.com").content)
for user in ("alice@example.com", "bob@example.com", "eve@example.com"):
    session = db.get_session(session_id="session_b", session_type=SessionType.AGENT, user_id=user)
    show(f"session for {user}", session and [message.content for message in session.get_messages()])
sessions = db.get_sessions(session_type=SessionType.AGENT, user_id="alice@example.com", component_id="greeter")
show("sessions of Alice", [(session.session_id, len(session.runs)) for session in sessions])
show("sessions of Eve", db.get_sessions(session_type=SessionType.AGENT, user_id="eve@example.com"))
show("owner", agent.get_session(session_id="session_a").user_id)
