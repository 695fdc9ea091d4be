"""What an agent cannot be made or run with is said at once, in a line with a way out; nothing is stored of it."""

from __future__ import annotations

import pytest
from pydantic_ai.models.function import FunctionModel
from recording_models import RecordingModel

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import SessionSummaryManager, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, KernError, RunFailed
from kern_nb.models.scripted import ScriptedModel, call


def nothing():
    """A tool."""


def max_of(numbers: list[int]) -> int:
    """Another tool."""
    return max(numbers)


WRONG = [
    {"session_id": 5},
    {"user_id": 5},
    {"name": 5},
    {"session_state": [1]},
    {"instructions": 5},
    {"num_history_runs": "3"},
    {"num_history_runs": -1},
    {"num_history_messages": -1},
    {"history_token_budget": -5},
    {"timeout_s": -1},
    {"session_summary_manager": RecordingModel(), "enable_session_summaries": True},
    {"db": 5},
    {"tools": 5},
    {"user_id": ""},
    {"model": 3},
    {"model": "gpt-5.2"},
    {"model": "nobody:x"},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_invalid_argument_stores_nothing(db, options):
    """When the agent is made, or at the latest before its run begins."""
    with pytest.raises(BadUsage) as refused:
        Agent(**{"model": RecordingModel(), "db": db, "add_history_to_context": True} | options).run("x")

    assert not isinstance(refused.value, RunFailed)
    assert refused.value.hint
    assert len(db.runs_df()) == 0


@pytest.mark.parametrize(
    "given",
    [
        {"session_state": [1]},
        {"session_id": 5},
        {"user_id": 5},
    ],
    ids=str,
)
def test_invalid_run_option_is_rejected(db, given):
    """Likewise."""
    with pytest.raises(BadUsage):
        Agent(RecordingModel(), db=db).run("x", **given)

    assert len(db.runs_df()) == 0


def test_db_accepts_path(tmp_path):
    """As `attach` takes it."""
    path = tmp_path / "s.db"
    Agent(RecordingModel(), db=str(path), session_id="chat").run("x")

    with SqliteDb(db_file=path) as store:
        assert store.get_session("chat").runs[0].output == "answer 0"


def test_tools_accepts_single_function(db):
    """What else could be meant?"""
    assert list(Agent(RecordingModel(), db=db, tools=nothing)._model_loop()[1]) == ["nothing"]


def test_script_of_one_text(db):
    """Not its letters one after the other."""
    assert Agent(ScriptedModel("hello"), db=db).run("x").output == "hello"


@pytest.mark.parametrize("wrong", [None, 3, call("look")])
def test_invalid_script_is_rejected(wrong):
    """When the model is made."""
    with pytest.raises(BadUsage, match="script must be a list or a function"):
        ScriptedModel(wrong)


@pytest.mark.parametrize("wrong", [None, 3, {"a": 1}, [call("look"), 3]])
def test_invalid_script_answer(db, wrong):
    """The run's error says what it gave, and what an answer is."""
    with pytest.raises(RunFailed, match="must return answers, got") as failed:
        Agent(ScriptedModel(lambda _: wrong), db=db).run("x")
    assert "An answer is a string" in failed.value.hint


@pytest.mark.parametrize("wrong", [3, "look", None, {"name": "look"}, [nothing]])
def test_invalid_tool_is_rejected(db, wrong):
    """When the agent is made, not when it runs."""
    with pytest.raises(BadUsage, match="A tool must be"):
        Agent(RecordingModel(), db=db, tools=[wrong])


@pytest.mark.parametrize("tools", [[nothing, nothing], [nothing, tool(max_of, name="nothing")]])
def test_duplicate_tool_names_are_rejected(db, tools):
    """By that name, when the agent is made."""
    with pytest.raises(BadUsage, match="nothing"):
        Agent(RecordingModel(), db=db, tools=tools)


def test_function_without_signature_is_rejected(db):
    """By name, and before anything is stored."""
    with pytest.raises(BadUsage, match="max"):
        Agent(RecordingModel(), db=db, tools=[max], session_id="refused").run("x")

    assert db.get_session("refused") is None


def test_failure_after_run_keeps_answer(db):
    """The run was completed and is stored so: that is what the caller gets."""

    class Broken(SessionSummaryManager):
        def start(self, *_args):
            raise ValueError("boom")

    agent = Agent(RecordingModel(), db=db, enable_session_summaries=True, session_summary_manager=Broken())
    assert agent.run("x").output == "answer 0"


def test_missing_key_is_named(db, monkeypatch):
    """With what to do about it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(KernError, match="OPENAI_API_KEY") as failed:
        Agent("openai:gpt-5.2", db=db).run("x")

    assert "ScriptedModel" in failed.value.hint


def test_instructions_must_be_text(db):
    """What the function gave is named."""
    with pytest.raises(RunFailed, match="must return a text, got 5"):
        Agent(RecordingModel(), db=db, instructions=lambda: 5).run("x")


def test_model_without_streaming(db):
    """`run` needs no stream; showing what is said needs one, or shows the answer whole."""

    def respond(_messages, _info):
        from pydantic_ai.messages import ModelResponse, TextPart

        return ModelResponse(parts=[TextPart("hello")])

    assert Agent(FunctionModel(respond), db=db).run("x").output == "hello"


@pytest.mark.parametrize(("limit", "output"), [(3, "done"), (None, "done"), (2, None)])
def test_max_requests(db, limit, output):
    """max_requests: one that goes in circles ends, with what it is stored."""
    model = RecordingModel([call("nothing"), call("nothing"), "done"])
    agent = Agent(model, db=db, session_id="chat", tools=[nothing], max_requests=limit)
    if output:
        assert agent.run("x").output == output
    else:
        with pytest.raises(RunFailed, match="max_requests=2") as failed:
            agent.run("x")
        assert "max_requests=" in failed.value.hint
        assert [run.status for run in agent.get_session().runs] == ["ERROR"]
    assert len(model.told) == (3 if output else 2)


def test_max_requests_allows_long_runs(db):
    """Sixty calls of tools, one after the other, for whoever allows it."""
    model = RecordingModel([call("nothing")] * 60)
    run = Agent(model, db=db, tools=[nothing], max_requests=None).run("x")

    assert (run.output, len(run.tool_calls)) == ("answer 60", 60)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Agent(RecordingModel(), **options),
        lambda **options: Team([Agent(RecordingModel())], RecordingModel(), **options),
        lambda **options: Workflow([Agent(RecordingModel())], **options),
    ],
    ids=["agent", "team", "workflow"],
)
def test_parameter_out_of_scope_is_refused_with_its_reason(make):
    """Unless it is switched off, as Agno's default is."""
    with pytest.raises(BadUsage, match=r"\(knowledge=\.\.\.\) is refused: knowledge bases") as refused:
        make(knowledge=object())

    assert "attach_agent" in (refused.value.hint or "")
    make(knowledge=None, enable_agentic_memory=False, search_knowledge=True, telemetry=False, checkpoint="runs")
    for name, value in (("checkpoint", "tools"), ("build_context", False), ("debug_level", 2), ("telemetry", True)):
        with pytest.raises(BadUsage, match=rf"\({name}=\.\.\.\) is refused: .* not a part of kern_nb"):
            make(**{name: value})
    with pytest.raises(TypeError, match="unknown_option"):
        make(unknown_option=1)


def test_workflow_refuses_what_is_a_setting_of_its_agents():
    steps = [Agent(RecordingModel())]
    with pytest.raises(BadUsage, match="store_media") as refused:
        Workflow(steps, store_media=False)

    assert "agents among the steps" in (refused.value.hint or "")
    Workflow(steps, store_media=True, store_executor_outputs=True, agent=None)
    with pytest.raises(BadUsage, match="an agent that decides"):
        Workflow(steps, agent=object())
