"""The same workflow script on Agno and on kern_nb: agents are told the same, and the outputs are the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

import agno.workflow
from agno.agent import Agent as AgnoAgent
from agno.db.in_memory import InMemoryDb as AgnoInMemoryDb
from agno_agents import Scripted
from workflow_scripts import SCRIPTS

import kern_nb.workflow
from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.models.scripted import ScriptedModel

NAMES = ("Condition", "HumanReview", "Loop", "Parallel", "Router", "Step", "StepOutput", "Steps")

DIFFERENCES = {
    "output_of_parallel": "Agno drops the outputs of all branches but the last",
    "condition_without_else": "Agno tells the next agent that the condition was not met, instead of the previous output",
    "steps_of_one_name": "Agno tells the second agent the output of the first one, which has the last name in its dict",
    "dict_input": "Agno sends no message",
}


class Recording(Scripted):
    """Notes what it is told."""

    def __init__(self, told: list[Any], name: str, answers: list[str]) -> None:
        super().__init__(id=name, answers=answers)
        self.told = told

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        messages = kwargs.get("messages") or (args[0] if args else [])
        self.told.append((self.id, messages[-1].content if messages else None))
        return super().invoke()


def library(module, told, agent, workflow, output, resolve):
    """What a script uses of a library."""

    def run(steps, *inputs, **options):
        flow = workflow(steps, **options)
        return [output(flow.run(input=value)) for value in inputs]

    def answer(steps, value, *answers):
        flow = workflow(steps)
        result = flow.run(input=value)
        for values in answers:
            result = resolve(flow, result, values)
        return output(result)

    names = {name: getattr(module, name) for name in NAMES}
    return SimpleNamespace(**names, told=told, agent=agent, workflow=workflow, output=output, run=run, answer=answer)


def of_agno():
    """Agno."""
    told: list[Any] = []
    db = AgnoInMemoryDb()
    sessions = iter(range(100))

    def agent(name, *answers):
        return AgnoAgent(model=Recording(told, name, list(answers) or [f"{name} says"] * 9), name=name, telemetry=False)

    def workflow(steps, **options):
        session_id = f"s{next(sessions)}"
        return agno.workflow.Workflow(
            steps=steps, db=db, name="Flow", session_id=session_id, telemetry=False, **options
        )

    def resolve(flow, run, values):
        for requirement in (run.step_requirements or [])[-1:]:
            if "edit" in values:
                requirement.edit(values["edit"])
            elif "values" in values:
                requirement.set_user_input(**values["values"])
            elif "select" in values:
                requirement.select(values["select"])
            elif "reject" in values:
                requirement.reject(values.get("note"))
            else:
                requirement.confirm()
        for requirement in run.error_requirements or []:
            (requirement.skip if "reject" in values else requirement.retry)()
        return flow.continue_run(run)

    return library(agno.workflow, told, agent, workflow, lambda run: run.content, resolve)


def of_kern_nb():
    """kern_nb."""
    told: list[Any] = []
    db = InMemoryDb()
    sessions = iter(range(100))

    def agent(name, *answers):
        script = list(answers) or [f"{name} says"] * 9

        def say(messages):
            told.append((name, messages[-1].content))
            return script.pop(0)

        return Agent(ScriptedModel(say), name=name)

    def workflow(steps, **options):
        return kern_nb.workflow.Workflow(steps=steps, db=db, name="Flow", session_id=f"s{next(sessions)}", **options)

    def resolve(flow, run, values):
        (requirement,) = db.requirements(run_id=run.run_id)
        if "edit" in values:
            db.resolve(requirement, args={"output": values["edit"]})
        elif "values" in values or "select" in values:
            db.resolve(requirement, value=values.get("values") or {"choice": values["select"]})
        else:
            db.resolve(requirement, approve="reject" not in values, note=values.get("note"))
        return flow.continue_run(run)

    return library(kern_nb.workflow, told, agent, workflow, lambda run: run.output, resolve)


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_script(name):
    """Or it is one of the listed differences."""
    results = []
    for lib in (of_agno(), of_kern_nb()):
        output = SCRIPTS[name](lib)
        results.append((sorted(lib.told, key=str) if "parallel" in name else lib.told, output))

    assert (results[0] != results[1]) == (name in DIFFERENCES), results
