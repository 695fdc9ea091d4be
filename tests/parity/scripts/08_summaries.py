"""A summary of the session after each run."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.session import SessionSummaryManager
from parity_model import scripted, show

summaries = scripted(
    '{"summary": "Alice asks about Rome.", "topics": ["Rome"]}',
    '{"summary": "Alice asks about Rome and Oslo.", "topics": ["Rome", "Oslo"]}',
    name="summaries",
)
agent = Agent(
    model=scripted("Rome is old.", "Oslo is cold."),
    db=SqliteDb(db_file="agent.db"),
    session_id="cities",
    session_summary_manager=SessionSummaryManager(model=summaries),
    enable_session_summaries=True,
)
agent.run("I am Alice. What is Rome like?")
summary = agent.get_session_summary(session_id="cities")
show("summary", (summary.summary, summary.topics))
agent.run("And Oslo?")
summary = agent.get_session_summary(session_id="cities")
show("summary", (summary.summary, summary.topics))
