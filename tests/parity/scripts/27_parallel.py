"""Two steps at once."""

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.workflow import Parallel, Step, StepInput, StepOutput, Workflow
from parity_model import scripted, show


def merge(step_input: StepInput) -> StepOutput:
    """Merge the results."""
    news = step_input.get_step_content("news")
    weather = step_input.get_step_content("weather")
    return StepOutput(content=f"{news} {weather}")


news = Step(name="news", agent=Agent(name="News", model=scripted("Nothing new.", name="news")))
weather = Step(name="weather", agent=Agent(name="Weather", model=scripted("It is sunny.", name="weather")))
workflow = Workflow(
    name="Morning",
    db=SqliteDb(db_file="workflow.db"),
    session_id="morning",
    steps=[Parallel(news, weather, name="gather"), Step(name="merge", executor=merge)],
)
run = workflow.run(input="Rome")
show("answer", run.content)
show("status", run.status)
