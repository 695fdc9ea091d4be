"""An answer of a given type."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


agent = Agent(
    model=scripted('{"name": "Rome", "inhabitants": 2750000}', '{"name": "Oslo", "inhabitants": 717000}'),
    db=SqliteDb(db_file="agent.db"),
    session_id="cities",
    output_schema=City,
    add_history_to_context=True,
)
show("city", agent.run("Rome").content)
show("city", agent.run("Oslo").content)
