"""A step ends the workflow early."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Step, StepInput, StepOutput, Workflow
from parity_model import scripted, show


def check(step_input: StepInput) -> StepOutput:
    """Stop on a word."""
    if "secret" in str(step_input.input):
        return StepOutput(content="This is not allowed.", stop=True)
    return StepOutput(content=step_input.input)


agent = Agent(name="Writer", model=scripted("Published.", name="writer"))
workflow = Workflow(
    name="Publishing",
    db=SqliteDb(db_file="workflow.db"),
    session_id="publishing",
    steps=[Step(name="check", executor=check), Step(name="publish", agent=agent)],
)
for text in ("a secret", "the news"):
    run = workflow.run(input=text)
    show("answer", run.content)
    show("status", run.status)
