"""The model itself sets keys of the session state."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import call, scripted, show

agent = Agent(
    model=scripted(call("update_session_state", session_state_updates={"city": "Rome"}), "I note Rome."),
    db=SqliteDb(db_file="agent.db"),
    session_id="travel",
    session_state={"city": None, "days": 3},
    enable_agentic_state=True,
)
show("answer", agent.run("I am going to Rome").content)
state = agent.get_session_state(session_id="travel")
show("state", {"city": state["city"], "days": state["days"]})
