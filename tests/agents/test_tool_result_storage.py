"""`store_tool_messages=False`: names and arguments of calls are kept, what they gave is nowhere, whatever became of the run.

Each test lets a tool give a secret, and then looks for it in every column of every table.
"""

from __future__ import annotations

import asyncio

import pydantic_ai
import pytest
from pydantic_ai.messages import NativeToolCallPart, NativeToolReturnPart, TextPart
from recording_models import PartsModel, RecordingModel, calls, calls_once, results
from stored_values import columns_with

from kern_nb import Agent, Team
from kern_nb.agent import RunContext, SessionSummaryManager, tool
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import call

SECRET = "swordfish-is-the-word"


def discreet(model, db, *tools, **options):
    """An agent in the session "chat" that keeps no results."""
    return Agent(model, db=db, session_id="chat", tools=list(tools), store_tool_messages=False, **options)


def reveal() -> dict:
    """What must not be kept."""
    return {"secret": [SECRET], "n": 1}


def test_results_are_stored_by_default(db):
    """So that the search below is known to find what is there."""
    Agent(calls_once("reveal"), db=db, session_id="chat", tools=[reveal]).run("x")

    found = columns_with(db, SECRET)
    assert {place.partition(".")[0] for place in found} == {"agno_sessions_messages", "agno_sessions_tool_calls"}


def test_unstored_result_is_sent_to_model(store):
    """On every engine: the call stands there with its name, arguments, end and duration."""

    def ask(what: str) -> str:
        return f"{what}: {SECRET}"

    model = calls_once("ask", what="the word")
    run = discreet(model, store, ask).run("x")

    assert results(model) == [f"the word: {SECRET}"]
    assert columns_with(store, SECRET) == []
    (kept,) = store.get_run(run.run_id).tool_calls
    assert (kept.tool_name, kept.args, kept.status, kept.result) == ("ask", {"what": "the word"}, "completed", None)
    assert kept.duration_s is not None
    assert [m.role for m in run.messages] == ["user", "assistant", "assistant"]
    assert run.output == "done"


def _raises() -> None:
    raise ValueError(SECRET)


def _asks_again() -> None:
    raise pydantic_ai.ModelRetry(SECRET)


async def _later() -> str:
    await asyncio.sleep(0)
    return SECRET


def _wrapped() -> pydantic_ai.ToolReturn:
    return pydantic_ai.ToolReturn(return_value=SECRET, content=[f"beside: {SECRET}"], metadata={"m": SECRET})


def _picture() -> pydantic_ai.BinaryContent:
    return pydantic_ai.BinaryContent(SECRET.encode(), media_type="image/png")


def _bytes() -> bytes:
    return SECRET.encode()


@pytest.mark.parametrize("function", [_raises, _asks_again, _later, _wrapped, _picture, _bytes])
def test_no_kind_of_result_is_stored(db, function):
    """Errors, retries, files and what is said beside a result are results."""
    run = discreet(RecordingModel([call("give"), "done"]), db, tool(function, name="give")).run("x")

    assert run.status == "COMPLETED"
    assert columns_with(db, SECRET) == []


@pytest.mark.parametrize("function", [reveal, _raises])
def test_failed_run_stores_no_result(db, function):
    """The run is stored with the model's error alone."""
    agent = discreet(RecordingModel([call("give"), ValueError("boom")]), db, tool(function, name="give"))
    with pytest.raises(RunFailed, match="boom"):
        agent.run("x")

    assert columns_with(db, SECRET) == []
    assert db.get_session("chat").runs[0].status == "ERROR"


def test_exhausted_retries_store_no_result(db):
    """The error of the run does not quote the tool."""
    agent = discreet(RecordingModel([call("give")] * 9), db, tool(_asks_again, name="give"))
    with pytest.raises(RunFailed):
        agent.run("x")

    assert columns_with(db, SECRET) == []


def test_invalid_arguments_store_no_result(db):
    """The model is told what is wrong with them; they stay where arguments are kept."""

    def count(n: int) -> int:
        return n

    model = RecordingModel([call("count", n="many"), call("count", n=2), "done"])
    run = discreet(model, db, count).run("x")

    assert results(model)[-1] == 2
    assert [c.args for c in run.tool_calls] == [{"n": "many"}, {"n": 2}]
    assert [c.status for c in run.tool_calls] == ["failed", "completed"]


def test_cancelled_run_stores_no_result(db):
    """What a tool gave before is not there, and the one that was running is unknown."""

    async def cancelled():
        asked = asyncio.Event()

        async def wait():
            asked.set()
            await asyncio.Event().wait()

        model = RecordingModel([call("reveal"), call("wait")])
        running = asyncio.ensure_future(discreet(model, db, reveal, wait).arun("x"))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert columns_with(db, SECRET) == []
    assert [c.status for c in db.get_session("chat").runs[0].tool_calls] == ["completed", "unknown"]


def test_paused_run_stores_no_result(db):
    """Two calls at once, one waits: what the other gave is not kept, and it is not run again when the run goes on."""
    given = []

    def other() -> str:
        given.append(SECRET)
        return SECRET

    def guarded() -> str:
        return f"guarded {SECRET}"

    model = calls(call("other"), call("guarded"))
    agent = discreet(model, db, other, tool(guarded, requires_confirmation=True))
    paused = agent.run("x")
    assert (paused.status, columns_with(db, SECRET)) == ("PAUSED", [])
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    run = agent.continue_run(paused.run_id)

    assert (run.status, run.output, given) == ("COMPLETED", "done", [SECRET])
    assert columns_with(db, SECRET) == []
    assert f"guarded {SECRET}" in results(model)


def external() -> str:
    """Run elsewhere."""
    return "never called"


@pytest.mark.parametrize(
    "made", [tool(external, external_execution=True), tool(external, handoff=True), tool(external, requires_user_input=True)]
)  # fmt: skip
def test_external_value_is_stored_until_resume(db, made):
    """A result that a person or a program gave has to be stored until the run goes on; after that it is nowhere."""
    model = calls_once("external")
    agent = discreet(model, db, made)
    paused = agent.run("x")
    db.resolve(paused.requirements[0].requirement_id, value=SECRET)
    assert columns_with(db, SECRET) == ["agno_sessions_requirements.answer"]
    run = agent.continue_run(paused.run_id)

    assert (run.output, results(model)) == ("done", [SECRET])
    assert columns_with(db, SECRET) == []


def test_provider_tool_results_are_not_stored(db):
    """Tools that run at the provider's are tools."""
    parts = [
        NativeToolCallPart("web_search", {"query": "the word"}, "id1"),
        NativeToolReturnPart("web_search", {"found": SECRET}, "id1"),
        TextPart("I have it."),
    ]
    run = discreet(PartsModel(parts).model, db).run("x")

    assert run.output == "I have it."
    assert columns_with(db, SECRET) == []


def test_history_has_no_unstored_result(db):
    """Nor do copies of the history; a call without its result is not told either."""
    agent = discreet(calls_once("reveal"), db, reveal, add_history_to_context=True, store_history_messages=True)
    for _ in range(3):
        agent.run("x")

    assert columns_with(db, SECRET) == []
    model = RecordingModel()
    discreet(model, db, add_history_to_context=True).run("now")
    assert model.heard() == [("user", "x"), ("assistant", "done")] * 3 + [("user", "now")]


@pytest.mark.parametrize(
    "function",
    [reveal, _picture, _wrapped],
)
def test_results_of_others_are_not_copied(db, function):
    """A discreet agent that keeps the history of a session leaves out the results in it."""
    gives = tool(function, name="give")
    Agent(RecordingModel([call("give"), "done"]), db=db, session_id="chat", tools=[gives]).run("x")
    before = columns_with(db, SECRET)
    run = discreet(RecordingModel(), db, add_history_to_context=True, store_history_messages=True).run("now")

    assert columns_with(db, SECRET) == before
    assert SECRET not in str(db.get_run(run.run_id).messages)


def test_summary_has_no_unstored_result(db):
    """The summary's model is not told either."""
    summary = RecordingModel(["short"])
    manager = SessionSummaryManager(summary)
    options = {"enable_session_summaries": True, "session_summary_manager": manager}
    agent = discreet(calls_once("reveal"), db, reveal, **options)
    agent.run("x")
    agent.get_session_summary()

    assert summary.told
    assert SECRET not in str(summary.told)


def test_streaming_stores_no_result(db, capsys):
    """What is shown is not stored."""
    discreet(calls_once("reveal"), db, reveal).print_response("x")

    assert columns_with(db, SECRET) == []
    assert "done" in capsys.readouterr().out


def test_team_stores_no_result_of_member(db):
    """The member's option is the member's: its tools' results are nowhere, its answer is the leader's result."""
    member = Agent(calls_once("reveal"), name="spy", tools=[reveal], store_tool_messages=False)
    leader = RecordingModel([call("delegate_task_to_member", member_id="spy", task="find out"), "thanks"])
    run = Team([member], leader, db=db, session_id="chat").run("x")

    assert run.output == "thanks"
    assert columns_with(db, SECRET) == []
    assert run.tool_calls[0].result == "done"


def test_tool_stores_files_explicitly(db):
    """The session's state is the tool's own decision."""

    def note(run_context: RunContext) -> str:
        run_context.session_state["noted"] = SECRET
        return SECRET

    discreet(calls_once("note"), db, note).run("x")
    assert {place.rpartition(".")[2] for place in columns_with(db, SECRET)} == {"session_data", "session_state"}
