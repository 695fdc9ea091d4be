"""Only the latest runs are sent."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from parity_model import scripted, show

agent = Agent(
    model=scripted("one", "two", "three", "four"),
    db=SqliteDb(db_file="agent.db"),
    session_id="numbers",
    add_history_to_context=True,
    num_history_runs=2,
)
for word in ("first", "second", "third", "fourth"):
    show("answer", agent.run(word).content)
show("latest run", agent.get_session_messages(session_id="numbers", last_n_runs=1))
