"""The session state is sent to the model."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

agent = Agent(
    model=scripted("Apples and pears."),
    db=SqliteDb(db_file="agent.db"),
    session_id="shopping",
    session_state={"shopping_list": ["apples", "pears"]},
    instructions="Answer from the state.",
    add_session_state_to_context=True,
)
show("answer", agent.run("What is on my list?").content)
