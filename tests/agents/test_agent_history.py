"""What an agent is told of its session's past: answered runs in order, as much as it asks for, calls with their results."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel, calls, calls_once

from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.errors import RunFailed
from kern_nb.models.scripted import call
from kern_nb.records import Message, Run, ToolCall
from kern_nb.team import Team


def look_up(city: str) -> str:
    """Look up the weather."""
    return f"sun over {city}"


def remembering(model, db, **options):
    """An agent in the session "chat" that is told of its past."""
    return Agent(model, db=db, session_id="chat", add_history_to_context=True, **options)


def turn(n):
    """What run n of a `RecordingModel` says."""
    return [("user", f"q{n}"), ("assistant", f"answer {n}")]


def paired(messages):
    """Whether each call is answered before anyone else speaks, and nothing is answered that was not asked."""
    open_calls = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return False
            open_calls.remove(message.tool_call_id)
        elif open_calls:
            return False
        open_calls |= {one.tool_call_id for one in message.tool_calls}
    return not open_calls


def test_history_is_off_by_default(db):
    """History is opt-in."""
    model = RecordingModel()
    agent = Agent(model, db=db, session_id="chat")
    agent.run("q0")
    agent.run("q1")

    assert model.heard() == [("user", "q1")]


def test_history_defaults_to_the_last_three_runs(db):
    """num_history_runs is 3, oldest first, then the new input."""
    model = RecordingModel()
    agent = remembering(model, db)
    for n in range(6):
        agent.run(f"q{n}")

    assert model.heard() == [*turn(2), *turn(3), *turn(4), ("user", "q5")]
    assert model.heard(1) == [*turn(0), ("user", "q1")]


@pytest.mark.parametrize("runs", [0, 1, 4, 100])
def test_num_history_runs_limits_runs(db, runs):
    """num_history_runs, of which there may be fewer."""
    model = RecordingModel()
    agent = remembering(model, db, num_history_runs=runs)
    for n in range(6):
        agent.run(f"q{n}")

    told = [line for n in range(max(0, 5 - runs), 5) for line in turn(n)]
    assert model.heard() == [*told, ("user", "q5")]


@pytest.mark.parametrize("messages", [0, 1, 2, 3, 100])
def test_num_history_messages_limits_messages(db, messages):
    """num_history_messages counts messages instead of runs."""
    model = RecordingModel()
    agent = remembering(model, db, num_history_messages=messages, num_history_runs=1)
    for n in range(4):
        agent.run(f"q{n}")

    before = [line for n in range(3) for line in turn(n)]
    assert model.heard() == [*before[max(0, 6 - messages) :], ("user", "q3")]


@pytest.mark.parametrize("messages", range(1, 11))
def test_history_limit_keeps_call_and_result_together(db, messages):
    """Wherever num_history_messages cuts, a model gets neither a call without its result nor the reverse."""
    two = calls(call("look_up", city="Rome"), call("look_up", city="Oslo"))
    remembering(two, db, tools=[look_up]).run("both?")
    remembering(two, db, tools=[look_up]).run("again?")
    model = RecordingModel()
    remembering(model, db, num_history_messages=messages).run("and now?")

    assert paired(model.told[-1])
    assert all(m.content.startswith("sun over") for m in model.told[-1] if m.role == "tool")  # none is made up
    assert model.heard()[-2:] == [("assistant", "done"), ("user", "and now?")]


def test_history_includes_calls_and_results(db):
    """Arguments and results as they were."""
    remembering(calls_once("look_up", city="Rome"), db, tools=[look_up]).run("weather?")
    model = RecordingModel()
    remembering(model, db).run("thanks")

    assert model.heard() == [
        *[("user", "weather?"), ("assistant", "look_up()"), ("tool", "sun over Rome"), ("assistant", "done")],
        ("user", "thanks"),
    ]
    assert model.told[-1][1].tool_calls[0].args == {"city": "Rome"}


def test_history_excludes_failed_runs(db):
    """Its question had no answer; the runs before it are told as if it had not been."""
    model = RecordingModel(["answer 0", ValueError("boom")])
    agent = remembering(model, db, num_history_runs=1)
    agent.run("q0")
    with pytest.raises(RunFailed):
        agent.run("lost")
    agent.run("q1")

    assert model.heard() == [*turn(0), ("user", "q1")]


def test_history_includes_paused_run_after_completion(db):
    """Not before: its call has no result yet."""
    wants = calls_once("look_up", city="Rome")
    agent = remembering(wants, db, tools=[tool(look_up, requires_confirmation=True)])
    paused = agent.run("weather?")
    model = RecordingModel()
    remembering(model, db).run("meanwhile")
    assert model.heard() == [("user", "meanwhile")]

    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent.continue_run(paused.run_id)
    remembering(model, db).run("thanks")

    assert model.heard()[:3] == [("user", "weather?"), ("assistant", "look_up()"), ("tool", "sun over Rome")]


def test_resumed_run_receives_earlier_history(db):
    """What was said after it began is not put before its own question."""
    model = RecordingModel([call("look_up", city="Rome"), "two"])
    agent = remembering(model, db, tools=[tool(look_up, requires_confirmation=True)])
    paused = agent.run("ONE")
    agent.run("TWO")
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    agent.continue_run(paused.run_id)

    assert model.heard() == [("user", "ONE"), ("assistant", "look_up()"), ("tool", "sun over Rome")]


@pytest.mark.parametrize("status", ["INTERRUPTED", "CANCELLED", "RUNNING", "ERROR", "PAUSED"])
def test_history_excludes_runs_without_answer(db, status):
    """Whoever left them: another process, a cancelled cell, a run that is being made now."""
    for name, ended in (("q0", "COMPLETED"), ("lost", status)):
        said_then = [Message(role="user", content=name), Message(role="assistant", content="answer 0")]
        db.append_run("chat", Run(status=ended, messages=said_then))
    model = RecordingModel()
    remembering(model, db).run("q1")

    assert model.heard() == [*turn(0), ("user", "q1")]


def test_history_copies_are_not_sent_twice(db):
    """store_history_messages keeps what was told with each run; the next run hears each line once."""
    model = RecordingModel()
    agent = remembering(model, db, store_history_messages=True, instructions="Be kind.")
    for n in range(3):
        agent.run(f"q{n}")

    assert model.heard() == [*turn(0), *turn(1), ("user", "q2")]
    assert len([m for m in model.told[-1] if m.role == "system"]) == 1


@pytest.mark.every_engine
def test_branch_history_ends_at_branch_point(store):
    """On every engine: the branch hears its parent's runs up to the fork and its own, the parent never the branch's."""
    model = RecordingModel()
    agent = Agent(model, db=store, add_history_to_context=True, num_history_runs=10)
    for n in range(3):
        agent.run(f"q{n}", session_id="main")
    store.branch("main", after=1, new_session_id="fork")
    agent.run("q3", session_id="fork")
    assert model.heard() == [*turn(0), *turn(1), ("user", "q3")]
    store.branch("fork", before=1, new_session_id="twig")
    agent.run("q4", session_id="twig")
    assert model.heard() == [*turn(0), ("user", "q4")]
    agent.run("q5", session_id="fork")
    assert model.heard() == [*turn(0), *turn(1), *turn(3), ("user", "q5")]
    agent.run("q6", session_id="main")
    assert model.heard() == [*turn(0), *turn(1), *turn(2), ("user", "q6")]


ASKED = [("user", "both?")]
ONE = [*ASKED, ("assistant", "look_up()"), ("tool", "sun over Rome")]
BOTH = [*ASKED, ("assistant", "look_up(), look_up()"), ("tool", "sun over Rome"), ("tool", "sun over Oslo")]


@pytest.mark.parametrize(
    ("at", "told"), [(0, ASKED), (1, ASKED), (2, ONE), (3, BOTH), (4, [*BOTH, ("assistant", "done")])]
)
def test_branch_within_run_receives_only_complete_calls(db, at, told):
    """Between a call and its result, both are left out; the agent goes on from the rest."""
    asks = [ToolCall(tool_call_id=city, tool_name="look_up", args={"city": city}) for city in ("Rome", "Oslo")]
    gives = [Message(role="tool", tool_call_id=c, tool_name="look_up", content=look_up(c)) for c in ("Rome", "Oslo")]
    answered = [Message(role="assistant", tool_calls=asks), *gives, Message(role="assistant", content="done")]
    db.append_run("chat", Run(messages=[Message(role="user", content="both?"), *answered]))
    db.branch("chat", after=(0, at), new_session_id="fork")
    model = RecordingModel()
    run = remembering(model, db).run("go on", session_id="fork")

    assert (model.heard(), run.status) == ([*told, ("user", "go on")], "COMPLETED")
    assert paired(model.told[-1])


def test_num_history_messages_counts_completed_runs_only(store):
    """What a run that failed said, or a team's members, does not use up the limit."""
    remembering(RecordingModel(), store).run("q0")
    member = Agent(RecordingModel(), id="ann")
    lead = Team([member], calls(*[call("delegate_task_to_member", member_id="ann", task="t")] * 3), db=store)
    lead.run("q1", session_id="chat")
    with pytest.raises(RunFailed):
        remembering(RecordingModel([call("look_up", city="Paris"), ValueError("no")]), store, tools=[look_up]).run("q2")

    whole = [m.content for m in store.history("chat")]
    assert len(whole) == 8
    for messages in (1, 6, 7, 8, 9):
        assert [m.content for m in store.history("chat", last_messages=messages)] == whole[-messages:]
    model = RecordingModel()
    remembering(model, store, num_history_messages=9).run("q3")
    assert model.heard()[:2] == turn(0)
