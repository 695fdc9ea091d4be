"""The summary of the session is sent to the model instead of the history."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.session import SessionSummaryManager
from parity_model import scripted, show

summaries = scripted(
    '{"summary": "The user is Alice, who lives in Turin.", "topics": ["name"]}',
    '{"summary": "Alice asked for her name.", "topics": ["name"]}',
    name="summaries",
)
agent = Agent(
    model=scripted("Hello Alice.", "You are Alice."),
    db=SqliteDb(db_file="agent.db"),
    session_id="names",
    instructions="Be brief.",
    session_summary_manager=SessionSummaryManager(model=summaries),
    add_session_summary_to_context=True,
)
agent.run("I am Alice from Turin")
show("answer", agent.run("What's my name?").content)
show("summary", agent.get_session_summary(session_id="names").summary)
