"""Keys of the session state fill the instructions; unknown ones stay as they are."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

agent = Agent(
    model=scripted("Hello Alice.", "Hello Bob."),
    db=SqliteDb(db_file="agent.db"),
    session_state={"user_name": "Alice", "items": ["milk", "bread"]},
    instructions="The user is {user_name}. The list: {items}. Leave {unknown} and {}.",
)
show("answer", agent.run("Who am I?", session_id="a").content)
show("answer", agent.run("Who am I, {user_name}?", session_id="b", session_state={"user_name": "Bob"}).content)
show("state a", agent.get_session_state(session_id="a"))
show("state b", agent.get_session_state(session_id="b"))
