"""All members get the same task."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.team import Team
from agno.team.mode import TeamMode
from parity_model import call, scripted, show

optimist = Agent(name="Optimist", role="Sees the good", model=scripted("It will be sunny.", name="optimist"))
pessimist = Agent(name="Pessimist", role="Sees the bad", model=scripted("It will rain.", name="pessimist"))
team = Team(
    name="Forecast",
    mode=TeamMode.broadcast,
    members=[optimist, pessimist],
    model=scripted(call("delegate_task_to_members", task="How is tomorrow?"), "Sun or rain.", name="leader"),
    db=SqliteDb(db_file="team.db"),
    session_id="weather",
)
run = team.run("How will the weather be?")
show("answer", run.content)
show("status", run.status)
