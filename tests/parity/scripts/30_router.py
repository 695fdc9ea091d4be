"""A function selects the next step."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Router, Step, StepInput, Workflow
from parity_model import scripted, show

maths = Step(name="maths", agent=Agent(name="Maths", model=scripted("42", name="maths")))
poetry = Step(name="poetry", agent=Agent(name="Poetry", model=scripted("Roses.", name="poetry")))


def select(step_input: StepInput) -> list[Step]:
    """Select by the topic."""
    return [maths] if "number" in str(step_input.input) else [poetry]


workflow = Workflow(
    name="Desk",
    db=SqliteDb(db_file="workflow.db"),
    session_id="desk",
    steps=[Router(name="topic", selector=select, choices=[maths, poetry])],
)
show("answer", workflow.run(input="A number, please").content)
show("answer", workflow.run(input="A poem, please").content)
