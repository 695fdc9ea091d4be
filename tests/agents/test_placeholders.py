"""`{key}` in instructions, role and input is filled in from the session state, for agents, members and steps."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls_once
from team_members import crew, task

from kern_nb import Agent, InMemoryDb, Workflow
from kern_nb.agent import RunContext

STATE = {"name": "Bob", "cart": ["tea"], "user": {"age": 3}, "none": None}


def told(agent: Agent, input: object = "hi", **options: object) -> tuple[str, object]:
    """Run, and return the instructions and the last message that the model received."""
    run = agent.run(input, **options)
    stored = [(m.role, m.content) for m in run.messages]
    model = agent.model
    assert model.told[-1][-1].content == next(content for role, content in stored if role == "user")
    instructions = next((str(content) for role, content in stored if role == "system"), "")
    assert instructions == model.instructions()  # what is stored is what was sent
    return instructions, model.told[-1][-1].content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Greet {name}, cart {cart}, {user}, {none}.", "Greet Bob, cart ['tea'], {'age': 3}, None."),
        ("{unknown} { name } {} {user[age]} {name", "{unknown} { name } {} {user[age]} {name"),
        ('Answer as {"name": {name}, "n": {}}', 'Answer as {"name": Bob, "n": {}}'),
        ("{{name}} ${name} $name $$ {name}{name}", "{Bob} ${name} $name $$ BobBob"),
        ("{user_id} {current_user_id} {current_session_id} {session_id}", "ann ann chat {session_id}"),
        ("def f() {\n  return name\n}", "def f() {\n  return name\n}"),
    ],
)
def test_placeholders_are_filled_in(text, expected):
    """In instructions and in a text input; unknown keys and other braces remain."""
    options = {"db": InMemoryDb(), "session_id": "chat", "user_id": "ann", "session_state": STATE}
    instructions, message = told(Agent(RecordingModel(), instructions=text, **options), text)

    assert instructions == expected
    assert message == expected


def test_input_is_stored_as_it_was_passed(db):
    """Only the message is filled in, so that a rerun fills it in from the state of its own."""
    agent = Agent(RecordingModel(), db=db, session_id="chat", session_state={"name": "Bob"})
    run = agent.run("I am {name}")

    assert run.input == "I am {name}"
    assert [m.content for m in run.messages if m.role == "user"] == ["I am Bob"]


def test_values_are_not_templates(db):
    """A placeholder within a value, which may come from anyone, is not replaced."""
    state = {"note": "{secret} {note}", "secret": "42"}
    assert told(Agent(RecordingModel(), db=db, session_state=state, instructions="{note}"))[0] == "{secret} {note}"


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        (["Be {name}."], "Be Bob."),
        (["One {name}", " two "], "- One Bob\n- two"),
        (["First\n{name}", "second"], "First\nBob\n\n- second"),
        (lambda session_state: f"{session_state['name']} {{cart}}", "Bob ['tea']"),
        (lambda run_context: [run_context.user_id, "{name}"], "- ann\n- Bob"),
    ],
)
def test_lists_and_functions_are_filled_in(db, instructions, expected):
    """Several instructions are a list; a text of several lines is a paragraph of its own."""
    agent = Agent(RecordingModel(), db=db, user_id="ann", session_state=STATE, instructions=instructions)
    assert told(agent)[0] == expected


def test_description_and_role_precede_the_instructions(db):
    """The model knows the role of its agent; metadata is filled in, too."""
    agent = Agent(RecordingModel(), db=db, session_state=STATE, role="helps {name}", instructions="Be brief.")
    assert told(agent)[0] == "<your_role>\nhelps Bob\n</your_role>\n\nBe brief."
    agent = agent.variant(description="A {kind} of {name}", metadata={"kind": "clerk", "name": "none"})
    assert told(agent)[0] == "A clerk of Bob\n\n<your_role>\nhelps Bob\n</your_role>\n\nBe brief."
    assert told(agent.variant(role=None))[0] == "A clerk of Bob\nBe brief."


def test_resolve_in_context_off(db):
    """Nothing is filled in, neither in the instructions nor in the input."""
    agent = Agent(
        RecordingModel(),
        db=db,
        session_state=STATE,
        instructions=["{name}", "b"],
        role="{name}",
        resolve_in_context=False,
    )
    assert told(agent, "{name}") == ("<your_role>\n{name}\n</your_role>\n\n- {name}\n- b", "{name}")


def test_texts_with_files_and_several_texts(db):
    """A text beside files is filled in; several texts are the lines of one message, as they are."""
    agent = Agent(RecordingModel(), db=db, session_state=STATE)
    agent.run("For {name}", images=b"\x89PNG\r\n\x1a\n")
    assert agent.model.told[-1][-1].content[0]["text"] == "For Bob"
    assert told(agent, ["{name}", "b"])[1] == "{name}\nb"


def test_state_of_earlier_runs_is_filled_in(db):
    """A tool's change, an update and the state passed to a run, each from the next run on, also in another process."""

    def rename(session_state: dict) -> str:
        session_state["name"] = "Eve"
        return "ok"

    def agent(model: RecordingModel) -> Agent:
        options = {"tools": [rename], "instructions": "{name}", "session_state": {"name": "Bob"}}
        return Agent(model, db=db, session_id="chat", **options)

    first = agent(calls_once("rename"))
    first.run("go")
    assert [first.model.instructions(n) for n in (0, 1)] == ["Bob", "Bob"]
    other = agent(RecordingModel())
    assert told(other)[0] == "Eve"
    other.update_session_state({"name": "Kim"})
    assert told(other)[0] == "Kim"
    assert told(other, session_state={"name": "Lee"})[0] == "Lee"
    assert told(other)[0] == "Lee"


def test_members_and_steps_are_filled_in(db):
    """Leader, member, and the agents of a workflow; the keys of a workflow name it."""
    member = Agent(RecordingModel(), name="helper", role="helps {name}", instructions="{name} {current_user_id}")
    heard: list = []
    team = crew(db, [member], task("helper", "greet {name}"), "done", heard=heard, instructions="Lead {name}")
    step = Agent(RecordingModel(), name="last", instructions="{workflow_id} {workflow_name} {name}")
    workflow = Workflow([team, step], db=db, name="My flow", session_id="flow", user_id="ann", session_state=STATE)
    workflow.run("start {name}")

    assert heard[0][0].content.startswith("Lead Bob\n")
    assert "helper: helps Bob" in heard[0][0].content
    assert heard[0][-1].content == "start Bob"
    assert member.model.instructions() == "<your_role>\nhelps Bob\n</your_role>\n\nBob ann"
    assert member.model.told[0][-1].content == "greet Bob"
    assert step.model.instructions() == "my-flow My flow Bob"


def test_interrupted_run_is_filled_in_when_it_is_continued(db):
    """A run that ended before its first message was stored."""
    agent = Agent(RecordingModel(), db=db, session_id="chat", session_state={"name": "Bob"}, instructions="{name}")
    run = db.start_run("chat", input="I am {name}", agent_id=agent.id, default_state={"name": "Bob"})
    db.finish_run(run.run_id, status="INTERRUPTED")
    agent.continue_run(run.run_id)

    assert agent.model.instructions() == "Bob"
    assert agent.model.told[-1][-1].content == "I am Bob"


def test_current_run_id_is_the_own_run(db):
    """In a text; the state of a team's run, which its members share, has that of the team."""
    ids: list[tuple[str, str]] = []

    def note(run_context: RunContext) -> str:
        ids.append((run_context.run_id, run_context.session_state["current_run_id"]))
        return "ok"

    member = Agent(calls_once("note"), name="helper", instructions="{current_run_id}", tools=[note])
    run = crew(db, [member], task("helper"), "done").run("go")
    member_run = db.member_runs(run.run_id)[0]

    assert ids == [(member_run.run_id, run.run_id)]
    assert member.model.instructions() == member_run.run_id
