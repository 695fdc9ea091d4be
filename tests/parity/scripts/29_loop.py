"""Steps that repeat until an end condition."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Loop, Step, StepOutput, Workflow
from parity_model import scripted, show


def is_good(outputs: list[StepOutput]) -> bool:
    """Whether an output is good."""
    return any("good" in str(output.content) for output in outputs)


writer = Agent(name="Writer", model=scripted("draft", "better draft", "good draft", "never", name="writer"))
last = Agent(name="Printer", model=scripted("printed", name="printer"))
workflow = Workflow(
    name="Drafts",
    db=SqliteDb(db_file="workflow.db"),
    session_id="drafts",
    steps=[
        Loop(name="improve", steps=[Step(name="write", agent=writer)], end_condition=is_good, max_iterations=5),
        Step(name="print", agent=last),
    ],
)
run = workflow.run(input="A text")
show("answer", run.content)
show("status", run.status)
