"""Some tools wait for a value: arguments that a person fills in, or a result from elsewhere."""

from __future__ import annotations

import pytest
from pausing_agents import calls, clerk, requirement_id, results, said
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset, FunctionToolset

from kern_nb.agent import Agent, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, StillWaiting
from kern_nb.models.scripted import call


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


BLANKS = ["date", "seats"]
WHOLE = call("book", city="Paris", date="someday")
PARTLY = call("book", city="Paris")


def booking(booked, **options):
    """A tool that books a table, with what a person says."""

    def book(city: str, date: str, seats: int = 1) -> str:
        """Book a table."""
        booked.append((city, date, seats))
        return f"{city} on {date} for {seats}"

    return tool(book, **options)


def waiting(store, answer, booked=None, heard=None, **options):
    """A clerk who waits for what a person says of a booking."""
    agent = clerk(store, answer, "done", tools=[booking([] if booked is None else booked, **options)], heard=heard)
    return agent, agent.run("a table")


def test_user_input_fills_any_argument(store):
    """Those they name replace the model's; the question names them all, with what the model gave."""
    booked = []
    agent, run = waiting(store, WHOLE, booked, requires_user_input=True)
    one = run.requirements[0]
    assert (one.kind, one.args, one.extra["fields"]) == ("user_input", WHOLE.args, ["city", "date", "seats"])
    with pytest.raises(StillWaiting, match="book"):
        agent.continue_run(run.run_id)
    store.resolve(requirement_id(run), value={"date": "May 1", "seats": "4"}, by="carol")
    done = agent.continue_run(run.run_id)

    assert booked == [("Paris", "May 1", 4)]
    assert (done.status, results(done)) == ("COMPLETED", ["Paris on May 1 for 4"])


@pytest.mark.every_engine
def test_user_input_fills_declared_fields(store):
    """The question names these, and only these; `args` says the same as `value`."""
    booked = []
    agent, run = waiting(store, PARTLY, booked, user_input_fields=BLANKS)
    assert (run.requirements[0].args, run.requirements[0].extra["fields"]) == (PARTLY.args, BLANKS)
    store.resolve(requirement_id(run), args={"date": "May 1", "seats": 4})
    agent.continue_run(run.run_id)

    assert booked == [("Paris", "May 1", 4)]


def test_user_input_fields_are_hidden_from_model(store):
    """Neither as parameters, nor as required; the others are."""
    schemas = []

    def note_tools(_messages, info):
        schemas.extend(one.parameters_json_schema for one in info.function_tools)
        raise ConnectionError("that is all")

    agent = Agent(FunctionModel(note_tools), db=store, tools=[booking([], user_input_fields=BLANKS)])
    with pytest.raises(RuntimeError, match="that is all"):
        agent.run("a table")

    assert [set(one["properties"]) for one in schemas] == [{"city"}]
    assert [one["required"] for one in schemas] == [["city"]]
    assert "date" not in str(schemas)


def test_single_field_accepts_plain_value(store):
    """Nobody need write its name."""
    booked = []
    agent, run = waiting(store, PARTLY, booked, user_input_fields=["date"])
    store.resolve("chat/0", value="May 1")
    agent.continue_run(run.run_id)

    assert booked == [("Paris", "May 1", 1)]


@pytest.mark.parametrize("value", ["no table is needed", 7, {"table": 12}, ["a", None], False, ""])
def test_user_input_without_matching_field_is_result(store, value):
    """The tool need not run then; the model is told the value."""
    booked, heard = [], []
    agent, run = waiting(store, WHOLE, booked, heard, requires_user_input=True)
    store.resolve(requirement_id(run), value=value)
    done = agent.continue_run(run.run_id)

    assert booked == []
    assert calls(done) == [("book", "completed", value)]
    assert results(heard[-1]) == [value]


def test_invalid_user_input_is_reported_to_model(store):
    """The tool does not run with it."""
    booked, heard = [], []
    agent, run = waiting(store, PARTLY, booked, heard, user_input_fields=BLANKS)
    store.resolve(requirement_id(run), value={"date": "May 1", "seats": "lots"})
    done = agent.continue_run(run.run_id)

    assert (booked, done.status, calls(done)[0][1]) == ([], "COMPLETED", "failed")
    assert "seats" in str(results(heard[-1])[0])


def test_user_input_can_be_rejected(store):
    """The model is told the reason."""
    booked = []
    agent, run = waiting(store, PARTLY, booked, user_input_fields=BLANKS)
    store.resolve(requirement_id(run), approve=False, note="not my business")

    assert results(agent.continue_run(run.run_id)) == ["not my business"]
    assert booked == []


def test_empty_field_uses_default(store):
    """As if the function were called without it."""
    booked = []
    agent, run = waiting(store, PARTLY, booked, user_input_fields=BLANKS)
    store.resolve(requirement_id(run), value={"date": "May 1"})
    agent.continue_run(run.run_id)
    agent, run = waiting(store, call("book", city="Rome", date="June"), booked, user_input_fields=["seats"])
    store.resolve(requirement_id(run), value={})
    agent.continue_run(run.run_id)

    assert booked == [("Paris", "May 1", 1), ("Rome", "June", 1)]


def test_required_field_must_be_filled(store):
    """The one who answers is told, or the model is; the tool is not given None for a text."""
    booked = []
    agent, run = waiting(store, PARTLY, booked, user_input_fields=BLANKS)
    try:
        store.resolve(requirement_id(run), value={"seats": 2})
    except BadUsage:
        store.resolve(requirement_id(run), value={"seats": 2, "date": "May 1"})
    agent.continue_run(run.run_id)

    assert ("Paris", None, 2) not in booked


def test_user_input_approved_unchanged(store):
    """A yes is not the result None."""
    booked = []
    agent, run = waiting(store, WHOLE, booked, requires_user_input=True)
    try:
        store.resolve(requirement_id(run), approve=True)
    except BadUsage:
        return
    agent.continue_run(run.run_id)

    assert booked == [("Paris", "someday", 1)]


@pytest.mark.parametrize("value", [{"a": [1, None]}, "text", 0, False, "", [], None])
def test_external_result_is_used(store, value):
    """Any value, falsy ones too; the function here is never called."""
    booked, heard = [], []
    agent, run = waiting(store, WHOLE, booked, heard, external_execution=True)
    assert [(one.kind, one.args) for one in run.requirements] == [("external_execution", WHOLE.args)]
    store.resolve(requirement_id(run), value=value, approve=True)
    done = agent.continue_run(run.run_id)

    assert (booked, done.status) == ([], "COMPLETED")
    assert calls(done) == [("book", "completed", value)]
    assert results(heard[-1]) == [value]


def test_external_failure_is_reported_to_model(store):
    """As a failure, with the reason."""
    agent, run = waiting(store, WHOLE, external_execution=True)
    store.resolve(requirement_id(run), approve=False, note="the machine is down")
    done = agent.continue_run(run.run_id)

    assert calls(done) == [("book", "failed", "the machine is down")]
    assert said(done)[-1] == ("assistant", "done")


def look(city: str) -> str:
    """Look at the weather."""
    return f"sun in {city}"


def needs_leave():
    """A toolset of pydantic-ai's, as an MCP server's is, some of whose calls need confirmation."""
    return FunctionToolset([look]).approval_required(lambda _context, _tool, args: args["city"] == "Area 51")


def is_elsewhere():
    """A toolset whose tools are run by somebody else."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return ExternalToolset([ToolDefinition(name="look", parameters_json_schema=schema)])


@pytest.mark.parametrize(
    ("toolset", "kind", "answer", "result"),
    [
        (needs_leave, "confirmation", {"approve": True}, "sun in Area 51"),
        (needs_leave, "confirmation", {"args": {"city": "Rome"}}, "sun in Rome"),
        (needs_leave, "confirmation", {"approve": False, "note": "secret"}, "secret"),
        (is_elsewhere, "external_execution", {"value": ["sun"]}, ["sun"]),
    ],
)
def test_pydantic_ai_toolset_pauses(store, toolset, kind, answer, result):
    """And another agent goes on with them."""
    turns = call("look", city="Area 51"), "done"
    run = clerk(store, *turns, tools=[toolset()]).run("go")
    assert [(one.kind, one.tool_name, one.args) for one in run.requirements] == [(kind, "look", {"city": "Area 51"})]
    store.resolve("chat/0", **answer)

    assert results(clerk(store, *turns, tools=[toolset()]).continue_run("chat/0")) == [result]
