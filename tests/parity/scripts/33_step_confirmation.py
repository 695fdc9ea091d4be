"""A person confirms or rejects a step."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import HumanReview, Step, StepInput, StepOutput, Workflow
from parity_model import scripted, show


def report(step_input: StepInput) -> StepOutput:
    """Report the outcome."""
    return StepOutput(content=f"reported: {step_input.previous_step_content}")


publisher = Agent(name="Publisher", model=scripted("Published.", name="publisher"))
workflow = Workflow(
    name="Publishing",
    db=SqliteDb(db_file="workflow.db"),
    session_id="publishing",
    steps=[
        Step(
            name="publish",
            agent=publisher,
            human_review=HumanReview(requires_confirmation=True, confirmation_message="Publish?"),
        ),
        Step(name="report", executor=report),
    ],
)
for text, is_confirmed in (("news", True), ("rumours", False)):
    run = workflow.run(input=text)
    show("is_paused", run.is_paused)
    for requirement in run.steps_requiring_confirmation:
        show("waits", (requirement.step_name, requirement.confirmation_message))
        if is_confirmed:
            requirement.confirm()
        else:
            requirement.reject()
    run = workflow.continue_run(run)
    show("answer", run.content)
    show("status", run.status)
