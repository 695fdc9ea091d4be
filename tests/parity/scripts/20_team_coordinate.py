"""The leader of a team gives its members tasks."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.team import Team
from parity_model import call, scripted, show

writer = Agent(name="Writer", role="Writes poems", model=scripted("Roses are red.", "Violets.", name="writer"))
critic = Agent(name="Critic", role="Judges poems", model=scripted("It is good.", name="critic"))
team = Team(
    name="Poets",
    members=[writer, critic],
    model=scripted(
        call("delegate_task_to_member", member_id="writer", task="Write about roses"),
        call("delegate_task_to_member", member_id="critic", task="Judge: Roses are red."),
        "Roses are red. The critic likes it.",
        call("delegate_task_to_member", member_id="writer", task="Write about violets"),
        "Violets.",
        name="leader",
    ),
    db=SqliteDb(db_file="team.db"),
    session_id="poems",
    add_history_to_context=True,
)
run = team.run("A poem about roses, please")
show("answer", run.content)
show("status", run.status)
show("answer", team.run("And violets?").content)
show("history", team.get_chat_history(session_id="poems"))
