"""A member is told what the other members did in this run."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.team import Team
from parity_model import call, scripted, show

researcher = Agent(name="Researcher", role="Finds facts", model=scripted("Rome has 7 hills.", name="researcher"))
writer = Agent(name="Writer", role="Writes", model=scripted("Seven hills of Rome.", name="writer"))
team = Team(
    name="Press",
    members=[researcher, writer],
    model=scripted(
        call("delegate_task_to_member", member_id="researcher", task="Facts about Rome"),
        call("delegate_task_to_member", member_id="writer", task="Write the title"),
        "Seven hills of Rome.",
        name="leader",
    ),
    db=SqliteDb(db_file="team.db"),
    session_id="press",
    share_member_interactions=True,
)
show("answer", team.run("A title about Rome").content)
