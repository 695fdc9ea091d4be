"""A workflow of a function and two agents."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Step, StepInput, StepOutput, Workflow
from parity_model import scripted, show


def prepare(step_input: StepInput) -> StepOutput:
    """Write the task."""
    return StepOutput(content=f"Write about {step_input.input}")


writer = Agent(name="Writer", model=scripted("Roses are red.", name="writer"))
editor = Agent(name="Editor", model=scripted("Roses are very red.", name="editor"))
workflow = Workflow(
    name="Poem",
    db=SqliteDb(db_file="workflow.db"),
    session_id="poem",
    session_state={"language": "English"},
    steps=[
        Step(name="prepare", executor=prepare),
        Step(name="write", agent=writer),
        Step(name="edit", agent=editor),
    ],
)
run = workflow.run(input="roses")
show("answer", run.content)
show("status", run.status)
show("state", workflow.get_session_state(session_id="poem"))
