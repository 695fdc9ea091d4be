"""Workflow scripts for Agno and for kern_nb alike: each is a function of a library, and returns the outputs of its runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

SCRIPTS: dict[str, Callable[[Any], Any]] = {}


def script(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a script."""
    SCRIPTS[function.__name__] = function
    return function


class Request(BaseModel):
    """An input."""

    topic: str
    n: int = 2


def raises(_step_input):
    """Fail."""
    raise ValueError("boom")


@script
def sequence(lib):
    def prepare(step_input):
        return lib.StepOutput(content=f"prepared {step_input.input}")

    steps = [
        lib.Step(name="prepare", executor=prepare),
        lib.agent("writer"),
        lib.Step(name="edit", agent=lib.agent("editor")),
    ]
    return lib.run(steps, "roses")


@script
def parallel(lib):
    seen = []

    def look(step_input):
        seen.append(
            (
                step_input.get_step_content("gather"),
                step_input.get_step_content("A"),
                step_input.get_step_content("none"),
            )
        )
        return "looked"

    branches = [lib.Step(name="A", agent=lib.agent("a")), lib.Step(name="B", agent=lib.agent("b"))]
    return lib.run([lambda _: "begin", lib.Parallel(*branches, name="gather"), lib.agent("sum"), look], "in"), seen


@script
def condition(lib):
    def evaluate(step_input):
        return "x" in step_input.input

    otherwise = [lib.agent("no"), lib.agent("no again")]
    node = lib.Condition(name="c", evaluator=evaluate, steps=[lib.agent("yes")], else_steps=otherwise)
    return lib.run([lib.agent("first"), node, lib.agent("last")], "x", "y")


@script
def loop(lib):
    def ends(outputs):
        return any("good" in str(output.content) for output in outputs)

    steps = [lib.agent("w", "bad", "better", "good", "best"), lib.agent("c")]
    node = lib.Loop(name="l", steps=steps, end_condition=ends, max_iterations=4)
    return lib.run([lib.agent("first"), node, lib.agent("last")], "in")


@script
def loop_that_forwards(lib):
    node = lib.Loop(name="l", steps=[lib.agent("w", "v1", "v2", "v3")], max_iterations=3, forward_iteration_output=True)
    return lib.run([node, lib.agent("last")], "in")


@script
def router(lib):
    a, b = lib.Step(name="A", agent=lib.agent("a")), lib.Step(name="B", agent=lib.agent("b"))

    def select(step_input):
        return {"object": [a], "name": "B", "both": ["A", b]}[step_input.input]

    node = lib.Router(name="r", selector=select, choices=[a, b])
    return lib.run([lib.agent("first"), node, lib.agent("last")], "object", "name", "both")


@script
def router_with_choices(lib):
    def select(step_input, step_choices):
        return step_choices[len(step_input.input)]

    return lib.run(
        [lib.Router(name="r", selector=select, choices=[lib.agent("a"), lib.agent("b")]), lib.agent("last")], "q"
    )


@script
def stop(lib):
    def check(_step_input):
        return lib.StepOutput(content="stopped", stop=True)

    in_loop = [lib.Loop(name="l", steps=[lib.agent("w"), check, lib.agent("never")]), lib.agent("never")]
    return lib.run([lib.agent("first"), check, lib.agent("never")], "in"), lib.run(in_loop, "in")


@script
def generators(lib):
    def texts(_step_input):
        yield "Hel"
        yield "lo"

    def output(_step_input):
        yield "thinking"
        yield lib.StepOutput(content="answer")

    return lib.run([texts, lib.agent("a"), output, lib.agent("b")], "in")


@script
def state(lib):
    def put(_step_input, run_context):
        run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
        return lib.StepOutput(content=f"n={run_context.session_state['n']}")

    return lib.run(
        [put, lib.agent("a"), lib.Step(name="again", executor=put), lib.agent("b")], "in", session_state={"n": 5}
    )


@script
def additional_data(lib):
    def look(step_input):
        return lib.StepOutput(content=f"{step_input.additional_data['k']} {step_input.input}")

    return lib.output(lib.workflow([look, lib.agent("a")]).run(input="in", additional_data={"k": "v"}))


@script
def history(lib):
    def look(step_input):
        return f"{step_input.get_workflow_history()} {step_input.get_workflow_history(num_runs=1)}"

    without = lib.Step(name="b", agent=lib.agent("b"), add_workflow_history=False)
    return lib.run([look, lib.agent("a"), without], "q1", "q2", "q3", add_workflow_history_to_steps=True)


@script
def one_function(lib):
    writer = lib.agent("a")

    def whole(workflow, execution_input):
        return f"{lib.output(writer.run(f'do {execution_input.input}'))} by {workflow.name}"

    return lib.run(whole, "in")


@script
def contents(lib):
    seen = []

    def look(step_input):
        seen.append(
            (
                step_input.get_step_output("deep").content,
                step_input.previous_step_content,
                step_input.get_step_content("c"),
            )
        )
        return "looked"

    def look_at_all(step_input):
        seen.append((step_input.get_all_previous_content(), step_input.get_last_step_content()))
        return "looked"

    inner = lib.Condition(name="c", evaluator=True, steps=[lib.Step(name="deep", agent=lib.agent("d"))])
    plain = [lib.Step(name="A", agent=lib.agent("a")), lib.Step(name="B", agent=lib.agent("b")), look_at_all]
    return lib.run([lib.Steps(name="s", steps=[inner]), look, lib.agent("last")], "in"), lib.run(plain, "in"), seen


@script
def nested_workflow(lib):
    inner = lib.workflow([lib.agent("i1"), lib.agent("i2")])
    return lib.run([lib.agent("a"), lib.Step(name="inner", workflow=inner), lib.agent("b")], "in")


@script
def input_schema(lib):
    seen = []

    def look(step_input):
        seen.append((type(step_input.input).__name__, step_input.input.topic))
        return "looked"

    return lib.run([lib.agent("a"), look], {"topic": "t"}, Request(topic="u"), input_schema=Request), seen


@script
def confirmation(lib):
    def steps():
        review = lib.HumanReview(requires_confirmation=True)
        return [lib.agent("a"), lib.Step(name="b", agent=lib.agent("b"), human_review=review), lib.agent("c")]

    return lib.answer(steps(), "in", {}), lib.answer(steps(), "in", {"reject": True})


@script
def confirmed_condition(lib):
    def steps():
        review = lib.HumanReview(requires_confirmation=True, on_reject="else")
        node = lib.Condition(name="c", steps=[lib.agent("y")], else_steps=[lib.agent("n")], human_review=review)
        return [lib.agent("a"), node, lib.agent("c")]

    return lib.answer(steps(), "in", {}), lib.answer(steps(), "in", {"reject": True})


@script
def user_input(lib):
    schema = [{"name": "city", "field_type": "str"}, {"name": "n", "field_type": "int", "required": False}]
    review = lib.HumanReview(requires_user_input=True, user_input_schema=schema)
    step = lib.Step(name="b", agent=lib.agent("b"), human_review=review)
    return lib.answer([lib.agent("a"), step, lib.agent("c")], "in", {"values": {"city": "Oslo", "n": 3}})


@script
def output_review(lib):
    def steps(**options):
        review = lib.HumanReview(requires_output_review=True, **options)
        return [
            lib.agent("a"),
            lib.Step(name="b", agent=lib.agent("b", "d1", "d2"), human_review=review),
            lib.agent("c"),
        ]

    retried = lib.answer(steps(on_reject="retry"), "in", {"reject": True, "note": "too long"}, {})
    return retried, lib.answer(steps(), "in", {"edit": "edited"}), lib.answer(steps(), "in", {"reject": True})


@script
def route_of_a_person(lib):
    choices = [lib.Step(name="A", agent=lib.agent("x")), lib.Step(name="B", agent=lib.agent("y"))]
    node = lib.Router(name="r", choices=choices, human_review=lib.HumanReview(requires_user_input=True))
    return lib.answer([lib.agent("a"), node, lib.agent("c")], "in", {"select": "B"})


@script
def iteration_review(lib):
    review = lib.HumanReview(requires_iteration_review=True, on_reject="retry")
    node = lib.Loop(name="l", steps=[lib.agent("w", "v1", "v2", "v3")], max_iterations=4, human_review=review)
    return lib.answer([node, lib.agent("c")], "in", {"reject": True, "note": "more"}, {})


@script
def errors(lib):
    skipped = lib.Step(name="s", executor=raises, max_retries=0, human_review=lib.HumanReview(on_error="skip"))
    tolerated = lib.Step(name="t", executor=raises, max_retries=0, skip_on_failure=True)
    return lib.run([lib.agent("a"), skipped, lib.agent("b"), tolerated, lib.agent("c")], "in")


@script
def error_of_a_person(lib):
    attempts = []

    def flaky(_step_input):
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("boom")
        return lib.StepOutput(content="fixed")

    def steps(function):
        review = lib.HumanReview(on_error="pause")
        return [
            lib.agent("a"),
            lib.Step(name="f", executor=function, max_retries=0, human_review=review),
            lib.agent("c"),
        ]

    return lib.answer(steps(flaky), "in", {}, {}), lib.answer(steps(raises), "in", {"reject": True}), len(attempts)


# Where they differ ----------------------------------------------------------------------------------------------------


@script
def output_of_parallel(lib):
    return lib.run(
        [lib.Parallel(lib.Step(name="A", agent=lib.agent("a")), lib.Step(name="B", agent=lib.agent("b")))], "in"
    )


@script
def condition_without_else(lib):
    node = lib.Condition(name="c", evaluator=False, steps=[lib.agent("yes")])
    return lib.run([lib.agent("first"), node, lib.agent("last")], "in")


@script
def steps_of_one_name(lib):
    steps = [lambda _: "one", lib.agent("a"), lambda _: "two", lib.agent("b")]
    return lib.run(steps, "in")


@script
def dict_input(lib):
    return lib.run([lib.agent("a")], {"topic": "t"})
