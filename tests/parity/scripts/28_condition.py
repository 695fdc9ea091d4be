"""A step that runs on a condition, and another one otherwise."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Condition, Step, StepInput, Workflow
from parity_model import scripted, show


def is_question(step_input: StepInput) -> bool:
    """Whether the input is a question."""
    return str(step_input.input).endswith("?")


answer = Step(name="answer", agent=Agent(name="Answerer", model=scripted("Seven.", name="answerer")))
thank = Step(name="thank", agent=Agent(name="Thanker", model=scripted("Thank you.", name="thanker")))
workflow = Workflow(
    name="Questions",
    db=SqliteDb(db_file="workflow.db"),
    session_id="questions",
    steps=[Condition(name="kind", evaluator=is_question, steps=[answer], else_steps=[thank])],
)
show("answer", workflow.run(input="How many hills has Rome?").content)
show("answer", workflow.run(input="Rome has seven hills.").content)
