"""What a rerun begins from: a run, a message within one, a session; what its agent is then told, and what it is given."""

from __future__ import annotations

import pytest
from pausing_agents import by_turn, with_ids
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from recording_models import PartsModel, RecordingModel
from rerun_shops import TURNS, recorded, rows, seller, shop, told
from team_members import crew, member, task

from kern_nb.agent import Agent
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, MessageNotFound, RunFailed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.operations.rerun import rerun
from kern_nb.records import Message, Run, ToolCall
from kern_nb.workflow import Workflow

PNG = b"\x89PNG a picture of an apple"


@pytest.fixture
def db(tmp_path):
    """One engine, where it does not matter."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def inputs(model, at=0):
    """What a model was told that users said."""
    return [content for role, content in told(model.told, at) if role == "user"]


# What is told ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"add_history_to_context": True}, {"num_history_runs": 0}], ids=str)
def test_rerun_sends_whole_conversation(db, options):
    """However many runs the agent is told otherwise."""
    recorded(db, turns=[f"turn {n}" for n in range(6)])
    model = RecordingModel()
    rerun("chat/5", shop(db, model=model, **options))

    assert inputs(model) == [f"turn {n}" for n in range(6)]


def test_rerun_respects_history_limits(db):
    """These say how much a model is told at all; a result still comes with its call."""
    recorded(db)
    few, none = RecordingModel(), RecordingModel()
    rerun("chat/2", shop(db, model=few, num_history_messages=4))
    rerun("chat/2", shop(db, model=none, history_token_budget=0, session_summary_manager=Summaries()))

    assert told(few.told) == [
        ("user", TURNS[1]),
        ("assistant", ["add"]),
        ("tool", {"apple": 2}),
        ("assistant", "You have {'apple': 2}"),
        ("user", TURNS[2]),
    ]
    assert inputs(none) == [TURNS[2]]


class Summaries:
    """Says nothing of what was dropped."""

    async def ensure_covers(self, *_):
        return None


def test_rerun_excludes_interrupted_runs(db):
    """As ever: what led to no answer is not told, and is still there."""
    agent = recorded(db, turns=TURNS[:1])
    with pytest.raises(RunFailed):
        agent.variant(model=ScriptedModel([ConnectionError("down")])).run("lost", session_id="chat")
    agent.run(TURNS[2])
    model = RecordingModel()
    done = rerun("chat/2", shop(db, model=model))

    assert inputs(model) == [TURNS[0], TURNS[2]]
    assert [r.status for r in done.session.runs] == ["COMPLETED", "ERROR", "COMPLETED"]


# Within a run ---------------------------------------------------------------------------------------------------------


def test_rerun_from_message(store):
    """On every engine: the run's beginning is inherited and told, then the new message is said; the state is that before the run."""
    recorded(store)
    before = rows(store, "chat")
    model = RecordingModel()
    done = rerun("chat/2.4", shop(store, model=model), message="Say it in French.", name="b")

    assert told(model.told)[-4:] == [
        ("user", TURNS[2]),
        ("assistant", ["add"]),
        ("tool", {"apple": 3}),
        ("user", "Say it in French."),
    ]
    session = done.session
    assert (session.fork_run_index, session.fork_message_index) == (2, 3)
    assert [(r.run_index, len(r.messages)) for r in session.runs] == [(0, 5), (1, 5), (2, 4), (3, 3)]
    assert session.session_state == {"basket": {"apple": 2}}
    assert session.metadata["rerun_of"] | {"run_id": 0} == {
        "session_id": "chat",
        "run_index": 2,
        "run_id": 0,
        "message_index": 4,
    }
    assert rows(store, "chat") == before
    assert done.comparison.divergence.a == "chat/2.4"


def test_rerun_from_failed_run(db):
    """Unlike whole runs that failed: the part before the message is what the rerun goes on from."""
    answers = (call("add", item="fig"), call("add", item="plum"), ConnectionError("down"))
    with pytest.raises(RunFailed):
        shop(db, model=by_turn(*answers), session_id="chat").run("A fig")
    model = RecordingModel()
    rerun("chat/0.5", shop(db, model=model), message="Go on")

    assert told(model.told) == [("user", "A fig"), ("assistant", ["add"]), ("tool", {"fig": 1}), ("user", "Go on")]


def test_rerun_keeps_call_and_result_together(db):
    """Of two calls of one answer, one whose result is not inherited is not told; nor is it in what a provider adds."""
    thinking = [ThinkingPart("hm", signature="s"), ToolCallPart("add", {"item": "fig"}, "one")]
    thinking.append(ToolCallPart("add", {"item": "plum"}, "two"))
    answers = iter([ModelResponse(parts=thinking), ModelResponse(parts=[TextPart("done")])])
    agent = shop(db, model=FunctionModel(lambda *_: next(answers)), session_id="chat")
    run = agent.run("A fig and a plum")
    first = next(m for m in run.messages if m.role == "tool")
    watcher = PartsModel()
    rerun(f"chat/0.{first.message_index + 1}", shop(db, model=watcher.model), message="Stop")

    parts = [part for message in watcher.seen[0] for part in message.parts]
    called = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    assert called == [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)] == [first.tool_call_id]
    assert any(isinstance(part, ThinkingPart) and part.signature == "s" for part in parts)

    # Before any result, no call is told.
    none = PartsModel()
    rerun(f"chat/0.{first.message_index}", shop(db, model=none.model), message="Stop")
    parts = [part for message in none.seen[0] for part in message.parts]
    assert not [part for part in parts if isinstance(part, (ToolCallPart, ToolReturnPart))]


def test_rerun_with_repeated_call_ids(db):
    """Providers do, within a run; each result stays with its call."""
    calls = [[("add", {"item": "fig"}, "id")], [("add", {"item": "plum"}, "id")], "done"]
    shop(db, model=with_ids(*calls), session_id="chat").run("go")
    watcher = PartsModel()
    rerun("chat/0.6", shop(db, model=watcher.model), message="Stop")

    parts = [part for message in watcher.seen[0] for part in message.parts]
    called = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    assert called == [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)]
    assert len(called) == 2


def test_rerun_repeats_user_message(db):
    """Of a run that begins with it, the whole is left out: instructions before it are the agent's own."""
    agent = recorded(db)
    done = rerun("chat/1.1", agent, model=seller("pear"), name="b")

    assert (done.runs[0].input, done.runs[0].run_index, done.session.fork_run_index) == (TURNS[1], 1, 0)
    assert done.session.fork_message_index is None
    assert [side.label for side in done.comparison.sides] == ["chat/1", "b/1"]


def test_rerun_ignores_history_copies(db):
    """With store_history_messages a run begins with them; what is said then is still the run's first message."""
    agent = recorded(db, store_history_messages=True, add_history_to_context=True)
    run = db.get_session("chat").runs[1]
    asked = next(m for m in run.messages if m.content == TURNS[1])
    done = rerun(f"chat/1.{asked.message_index}", agent)

    assert asked.message_index > 1
    assert done.session.fork_message_index is None
    with pytest.raises(BadUsage):
        rerun("chat/1.1", agent)  # such a copy


@pytest.mark.parametrize("index", [0, 2, 3, 4])
def test_rerun_without_user_message_needs_message(db, index):
    """Instructions, the model's calls and answers, and tools' results: nothing is written."""
    agent = recorded(db)
    before = rows(db)
    with pytest.raises(BadUsage, match=f"chat/1.{index}"):
        rerun(f"chat/1.{index}", agent)
    with pytest.raises(MessageNotFound):
        rerun("chat/1.5", agent, message="x")

    assert rows(db) == before
    assert rerun(f"chat/1.{index}", agent, message="x").status == "COMPLETED"


def test_rerun_onward_from_message(db):
    """Then the inputs of the runs after it."""
    agent = recorded(db)
    done = rerun("chat/0.4", agent, message="Thanks", onward=True, name="b")

    assert [(r.run_index, r.input) for r in done.runs] == [(1, "Thanks"), (2, TURNS[1]), (3, TURNS[2])]


# What is given --------------------------------------------------------------------------------------------------------


def test_rerun_sends_files(store):
    """On every engine: a picture as it was sent, from the store; it is stored once."""
    first = PartsModel()
    Agent(first.model, db=store, session_id="chat").run("Look", images=PNG)
    again, edited, other = PartsModel(), PartsModel(), PartsModel()
    done = rerun("chat/0", Agent(again.model, db=store))
    rerun("chat/0", Agent(edited.model, db=store), message="Look closely")
    rerun("chat/0", Agent(other.model, db=store), message=["Look here", b"\x89PNG another"])

    assert again.inputs() == first.inputs()
    assert done.runs[0].input == store.get_session("chat").runs[0].input
    assert [(part if isinstance(part, str) else part.data) for part in edited.inputs()[0]] == ["Look closely", PNG]
    assert [getattr(part, "data", part) for part in other.inputs()[0]] == ["Look here", b"\x89PNG another"]


def test_missing_file_is_described(db):
    """The model learns that there was one."""
    Agent(PartsModel().model, db=db, session_id="chat", store_media=False).run("Look", images=PNG)
    watcher = PartsModel()
    rerun("chat/0", Agent(watcher.model, db=db))

    text, lost = watcher.inputs()[0].splitlines()
    assert text == "Look"
    assert "not stored" in lost


def test_rerun_skips_runs_without_input(db):
    """And named; where nothing is left, or that very run is asked for, nothing is written."""
    calls = [ToolCall(tool_call_id="c", tool_name="t")]
    db.append_run("chat", Run(messages=[Message(role="assistant", content="Hello")]))
    db.append_run("chat", Run(messages=[Message(role="user", content="Hi"), Message(role="assistant", content="!")]))
    db.append_run("chat", Run(messages=[Message(role="user", content=None, tool_calls=calls)]))
    db.append_run("silent", Run(messages=[Message(role="assistant", content="Hello")]))
    agent, before = Agent("model", db=db), rows(db)
    for reference in ("chat/0", "chat/2", "silent", "silent/0"):
        with pytest.raises(BadUsage, match="input"):
            rerun(reference, agent)
    assert rows(db) == before

    done = rerun("chat", Agent(RecordingModel(), db=db))
    assert ([r.input for r in done.runs], done.skipped) == (["Hi"], ("chat/0", "chat/2"))
    assert "chat/0, chat/2" in repr(done)
    assert rerun("chat/0", Agent(RecordingModel(), db=db), message="Hi").runs[0].input == "Hi"


def test_rerun_rejects_empty_session(db):
    """There is nothing to run again."""
    recorded(db, turns=TURNS[:1])
    db.branch("chat", before=0, new_session_id="empty")
    with pytest.raises(BadUsage, match="empty"):
        rerun("empty", shop(db))


def test_rerun_sends_text_unchanged(db):
    """Halves of characters, NUL, a megabyte."""
    for text in ("half \ud83d", "be\x00fore", "", "x" * 1_000_000):
        agent = Agent(ScriptedModel("ok"), db=db)
        run = agent.run(text)
        done = rerun(f"{run.session_id}/0", agent)
        assert done.runs[0].input == text
        assert done.runs[0].messages[0].content == text


# Teams and workflows --------------------------------------------------------------------------------------------------


def test_rerun_of_team(store):
    """On every engine: their runs are made by it, and are not run again by themselves; the leader's model may be another."""
    ann = member("Ann", "sunny")
    team = crew(store, [ann], task("ann"), "It is sunny.")
    team.run("weather?")
    team.run("again?")
    heard = []
    leader = by_turn(task("ann", "now"), "Still sunny.", heard=heard)
    done = rerun("chat/2", team, model=leader, name="b")

    assert [(r.run_index, r.team_id, r.output) for r in done.runs] == [(2, "crew", "Still sunny.")]
    runs = done.session.runs[2:]
    assert [(r.run_type, r.agent_id, r.parent_run_id) for r in runs] == [
        ("team", None, None),
        ("agent", "ann", runs[0].run_id),
    ]
    assert [content for role, content in told(heard) if role == "user"] == ["weather?", "again?"]
    assert [r.input for r in rerun("chat", team, name="c").runs] == ["weather?", "again?"]
    for reference, leader_run in (("chat/1", "chat/0"), ("chat/3.0", "chat/2")):
        with pytest.raises(BadUsage, match=f"within run {leader_run}"):
            rerun(reference, team)


def test_rerun_of_workflow(store):
    """On every engine: its steps too; whatever its input is."""
    flow = Workflow([lambda step: {"n": step.input["n"] + 1}], db=store, name="Flow", session_id="chat")
    flow.run({"n": 1})
    flow.run({"n": 2})
    done = rerun("chat/2", flow, message={"n": 5}, name="b")

    assert (done.output, done.runs[0].input) == ({"n": 6}, {"n": 5})
    assert [r.input for r in rerun("chat", flow).runs] == [{"n": 1}, {"n": 2}]
    before = rows(store)
    with pytest.raises(BadUsage, match="of its own"):
        rerun("chat/0", flow, model="openai:gpt-5.2")
    assert rows(store) == before


def test_rerun_by_other_kind(db):
    """A team's conversation, by one agent: the branch is the agent's."""
    team = crew(db, [member("Ann", "sunny")], task("ann"), "It is sunny.")
    team.run("weather?")
    done = rerun("chat/0", Agent(ScriptedModel("I do not know."), db=db, name="Solo"), name="b")

    session = done.session
    assert (session.session_type, session.agent_id, session.team_id) == ("agent", "solo", None)
    assert done.output == "I do not know."


def test_rerun_of_benchmark(shared_data, db):
    """Simulated users' turns are the inputs; their own calls are not the agent's."""
    folder = next(p for p in sorted(shared_data.rglob("*tau2*")) if p.is_dir() or p.suffix == ".json")
    db.ingest(folder, progress=False)
    session = next(s for s in db.list_sessions(limit=500) if s.session_id)
    runs = [r for r in db.get_session(session.session_id).runs if r.input]
    model = RecordingModel()
    done = rerun(f"{session.session_id}/{runs[-1].run_index}", Agent(model, db=db, name="New"))

    assert done.runs[0].input == runs[-1].input
    assert told(model.told)[-1] == ("user", runs[-1].input)
    assert done.session.metadata["model"] == "listener"
    assert done.session.metadata["task_id"] == session.metadata["task_id"]
    with pytest.raises(BadUsage, match="calls of"):
        rerun(session.session_id, model=model, store=db)


# State ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Agent, Workflow], ids=lambda kind: kind.__name__)
def test_rerun_passes_session_state(db, kind):
    """A run with it is the same run again only with it: before run 0 a session has no state of its own."""

    def pay(session_state, amount: int = 3) -> str:
        session_state["purse"] -= amount
        return f"{session_state['purse']} left"

    def step(given) -> str:
        return pay(given.session_state)

    def payer():
        if kind is Workflow:
            return Workflow([step], db=db)
        return Agent(ScriptedModel([call("pay"), "Paid."]), tools=[pay], db=db)

    first = payer().run("pay", session_id="chat", session_state={"purse": 10})
    then = payer().run("pay", session_id="chat")
    again, second = rerun(first, payer()), rerun(then, payer())

    assert [run.status for run in (*again.runs, *second.runs)] == ["COMPLETED", "COMPLETED"]
    assert db.get_session(again.session_id).session_state == {"purse": 7}
    assert db.get_session(second.session_id).session_state == {"purse": 4}
    assert db.get_session("chat").session_state == {"purse": 4}
