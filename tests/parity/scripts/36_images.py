"""An image in the input is sent to the model, and again with the history."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.media import Image
from parity_model import scripted, show

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d49484452")

agent = Agent(
    model=scripted("A red dot.", "Red."),
    db=SqliteDb(db_file="agent.db"),
    session_id="pictures",
    add_history_to_context=True,
)
show("answer", agent.run("What is this?", images=[Image(content=PIXEL, format="png")]).content)
show("answer", agent.run("Which colour?").content)
