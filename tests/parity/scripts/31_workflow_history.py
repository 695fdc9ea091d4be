"""Steps are told the earlier runs of the workflow."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Step, Workflow
from parity_model import scripted, show

agent = Agent(name="Tutor", model=scripted("Rome is old.", "Oslo is cold.", "You asked about both.", name="tutor"))
workflow = Workflow(
    name="Lessons",
    db=SqliteDb(db_file="workflow.db"),
    session_id="lessons",
    steps=[Step(name="teach", agent=agent)],
    add_workflow_history_to_steps=True,
    num_history_runs=2,
)
for question in ("What is Rome like?", "And Oslo?", "What did I ask?"):
    show("answer", workflow.run(input=question).content)
show("history", [(chat.input, chat.output) for chat in workflow.get_chat_history(session_id="lessons")])
