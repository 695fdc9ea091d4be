"""The leader passes the question on, and the member's answer is the team's."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.team import Team
from agno.team.mode import TeamMode
from parity_model import call, scripted, show

english = Agent(name="English", role="Answers in English", model=scripted("Good day.", name="english"))
french = Agent(name="French", role="Answers in French", model=scripted("Bonjour.", name="french"))
team = Team(
    name="Languages",
    mode=TeamMode.route,
    members=[english, french],
    model=scripted(call("delegate_task_to_member", member_id="french", task="Say hello"), name="leader"),
    db=SqliteDb(db_file="team.db"),
    session_id="hello",
)
run = team.run("Say hello in French")
show("answer", run.content)
show("status", run.status)
