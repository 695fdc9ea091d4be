"""The model searches the user's other sessions."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show

agent = Agent(
    model=scripted("Noted.", "Noted, Bob.", call("search_past_sessions"), "You like sailing."),
    db=SqliteDb(db_file="agent.db"),
    id="friend",
    search_past_sessions=True,
    num_past_sessions_to_search=2,
)
agent.run("I like sailing", session_id="monday", user_id="alice")
agent.run("I like chess", session_id="tuesday", user_id="bob")
show("answer", agent.run("What do I like?", session_id="wednesday", user_id="alice").content)
