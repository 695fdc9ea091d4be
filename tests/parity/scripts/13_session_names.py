"""Sessions have names: your own, or the model's."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

agent = Agent(
    model=scripted("Rome is old.", "Trip to Rome"),
    db=SqliteDb(db_file="agent.db"),
    session_id="cities",
)
agent.run("What is Rome like?")
agent.set_session_name(session_id="cities", session_name="My trip")
show("name", agent.get_session_name(session_id="cities"))
agent.set_session_name(session_id="cities", autogenerate=True)
show("name by the model", agent.get_session_name(session_id="cities"))
show("name in the session", agent.get_session(session_id="cities").session_data["session_name"])
