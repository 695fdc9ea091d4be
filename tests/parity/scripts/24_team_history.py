"""Members are told the history of the team."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.team import Team
from parity_model import call, scripted, show

helper = Agent(name="Helper", role="Helps", model=scripted("Rome it is.", "You said Rome.", name="helper"))
team = Team(
    name="Travel",
    members=[helper],
    model=scripted(
        call("delegate_task_to_member", member_id="helper", task="Note Rome"),
        "I note Rome.",
        call("delegate_task_to_member", member_id="helper", task="Which city?"),
        "Rome.",
        name="leader",
    ),
    db=SqliteDb(db_file="team.db"),
    session_id="travel",
    add_team_history_to_members=True,
    num_team_history_runs=2,
)
show("answer", team.run("I am going to Rome").content)
show("answer", team.run("Where am I going?").content)
