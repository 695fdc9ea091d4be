"""`run(stream=True)` of an agent: which events there are, in which order, and that nothing of the answer is missing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pausing_agents import by_turn, clerk, sender
from pydantic import BaseModel
from pydantic_ai.models.function import DeltaThinkingPart, FunctionModel

from kern_nb.agent import Agent, SessionSummaryManager
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Run
from kern_nb.run.agent import (
    ReasoningContentDeltaEvent,
    RunEvent,
    RunOutput,
    RunOutputEvent,
    RunStatus,
)

ANSWER = "Oslo is cold.\nRome is\twarm, and  Paris in between."


def look(city: str) -> str:
    """Look at the weather."""
    if city == "Nowhere":
        raise ValueError("no such city")
    return f"{city}: cold"


def weather(db: Any, *answers: Any, **options: Any) -> Agent:
    """Create an agent that looks at the weather and answers."""
    model = by_turn(*(answers or (call("look", city="Oslo"), ANSWER)))
    return Agent(model, db=db, tools=[look], name="Weather", session_id="chat", **options)


def values(events: Any) -> list[str]:
    """Return the values of ``event``, successive parts of an answer as one."""
    found: list[str] = []
    for event in events:
        if not (event.event == RunEvent.run_content and found[-1:] == [event.event]):
            found.append(event.event)
    return found


def answer(events: Any) -> str:
    """Join the parts of the answer."""
    return "".join(event.content for event in events if event.event == RunEvent.run_content)


BASIC = ["RunStarted", "ToolCallStarted", "ToolCallCompleted", "RunContent", "RunCompleted"]
DETAILED = [
    "RunStarted", "ModelRequestStarted", "ModelRequestCompleted", "ToolCallStarted", "ToolCallCompleted",
    "ModelRequestStarted", "RunContent", "ModelRequestCompleted", "RunContentCompleted", "RunCompleted",
]  # fmt: skip


@pytest.mark.every_engine
def test_stream_of_agent(store):
    """Each event says whose it is; the parts, joined, are the output of the run that is stored."""
    agent = weather(store, store_events=True)
    stream = agent.run("And Oslo?", stream=True)
    assert store.list_sessions() == []  # nothing runs before the first event is requested
    events = list(stream)

    assert values(events) == BASIC
    run = store.get_session("chat").runs[0]
    assert answer(events) == run.output == ANSWER
    assert [event.event for event in run.events] == [value for value in DETAILED if value != "RunContent"]
    assert {(e.run_id, e.session_id, e.agent_id, e.agent_name) for e in events} == {
        (run.run_id, "chat", "weather", "Weather")
    }
    assert all(isinstance(event, RunOutputEvent) for event in events)
    started, completed = events[1], events[2]
    assert (started.tool.tool_name, started.tool.args, started.tool.result) == ("look", {"city": "Oslo"}, None)
    assert (completed.tool.tool_call_id, completed.tool.result) == (started.tool.tool_call_id, "Oslo: cold")
    last = events[-1]
    assert (last.content, last.run.status, last.run.output) == (ANSWER, RunStatus.completed, ANSWER)
    assert not any(event.is_paused or event.is_cancelled for event in events)
    assert "None" not in repr(events)
    assert repr(last).startswith(
        f"RunCompletedEvent(content={ANSWER!r}, run_id={run.run_id!r}, session_id='chat', run="
    )


def test_events_and_output_by_parameter():
    """``stream_events`` and ``yield_run_output``; the constructor's are the defaults."""
    db = InMemoryDb()
    agent = weather(db)
    assert values(agent.run("x", stream=True, stream_events=True)) == DETAILED
    *events, run = agent.run("x", stream=True, yield_run_output=True)
    assert values(events) == BASIC
    assert isinstance(run, RunOutput)
    assert run == events[-1].run

    streaming = agent.variant(stream=True, stream_events=True)
    assert values(streaming.run("x")) == DETAILED
    assert values(streaming.run("x", stream_events=False)) == BASIC
    assert streaming.run("x", stream=False).output == ANSWER
    assert agent.run("x", stream_events=True).output == ANSWER
    *events, run = agent.run("x", stream=True, stream_events=True, yield_run_output=True)
    requests = [event for event in events if event.event == RunEvent.model_request_completed]
    assert sum(event.output_tokens for event in requests) == run.usage.output_tokens


def test_failing_tool():
    """A tool's error is a result for the model; the finer events state it."""
    agent = weather(InMemoryDb(), call("look", city="Nowhere"), "There is none.")
    (event,) = [e for e in agent.run("x", stream=True) if e.event == RunEvent.tool_call_completed]
    assert (event.tool.result, event.tool.is_error) == ("ValueError: no such city", True)
    (event,) = [e for e in agent.run("x", stream=True, stream_events=True) if e.event == RunEvent.tool_call_error]
    assert event.error == "ValueError: no such city"


def test_pause_and_continue_as_streams():
    """The last event has the requirements; the continued run is a stream, too."""
    sent: list[Any] = []
    agent = clerk(InMemoryDb(), call("send", to="Ann"), "It is sent.", tools=[sender(sent)], name="Clerk")
    *_, paused = agent.run("Write to Ann", stream=True)
    assert (paused.event, paused.is_paused, paused.run.status) == (RunEvent.run_paused, True, "PAUSED")
    assert [tool.tool_name for tool in paused.tools] == ["send"]
    assert paused.active_requirements == paused.requirements

    agent.store.resolve(paused.requirements[0].requirement_id, approve=True, args={"to": "Bob"})
    events = list(agent.continue_run(paused.run_id, stream=True))
    assert values(events) == ["RunContinued", *BASIC[1:]]
    assert events[1].tool.args["to"] == "Bob"
    assert paused.tools[0].args == {"to": "Ann"}
    assert (answer(events), sent) == ("It is sent.", [("Bob", 1)])


def test_error_event_before_exception():
    """The error is stored, then an event, then raised."""
    agent = weather(InMemoryDb(), call("look", city="Oslo"), ConnectionError("the line is dead"))
    events: list[Any] = []
    statuses: list[str] = []

    def read() -> None:
        for event in agent.run("x", stream=True):
            events.append(event)
            statuses.append(agent.store.get_run(event.run_id).status)

    with pytest.raises(RunFailed, match="the line is dead"):
        read()
    assert statuses == ["RUNNING"] * 3 + ["ERROR"]
    assert values(events) == [*BASIC[:3], "RunError"]
    assert (events[-1].content, events[-1].error_type) == ("ConnectionError: the line is dead", "ConnectionError")


def test_bad_arguments_raise_at_the_call():
    """Not at the first event; events to skip are known to the run."""
    agent = weather(InMemoryDb())
    for method in (agent.run, agent.arun):
        with pytest.raises(BadUsage, match="session_id"):
            method("x", session_id="", stream=True)
    with pytest.raises(BadUsage, match="'RunContents', which is not an event"):
        agent.variant(events_to_skip=["RunContents"]).run("x")
    for wrong in ("RunContent", [1]):
        with pytest.raises(BadUsage, match="events_to_skip must be a list"):
            agent.variant(events_to_skip=wrong)


def test_async_stream():
    """Without await, in the caller's loop; also a continued one."""
    sent: list[Any] = []
    agent = clerk(InMemoryDb(), call("send", to="Ann"), "It is sent.", tools=[sender(sent)])

    async def work() -> None:
        threads = threading.active_count()
        events = [event async for event in agent.arun("x", stream=True)]
        assert events[-1].is_paused
        agent.store.resolve(events[-1].requirements[0].requirement_id, approve=True)
        events = [e async for e in agent.acontinue_run(events[0].run_id, stream=True, yield_run_output=True)]
        assert values(events[:-1]) == ["RunContinued", *BASIC[1:]]
        assert isinstance(events[-1], Run)
        assert (await agent.arun("y")).status == "PAUSED"
        assert threading.active_count() < threads + 20

    asyncio.run(work())


def test_async_error():
    """As `test_error_event_before_exception`."""
    agent = weather(InMemoryDb(), ConnectionError("the line is dead"))

    events: list[Any] = []

    async def read() -> None:
        async for event in agent.arun("x", stream=True):
            events.append(event)  # noqa: PERF401 - those before the error

    with pytest.raises(RunFailed, match="the line is dead"):
        asyncio.run(read())
    assert values(events) == ["RunStarted", "RunError"]


def test_sync_stream_in_running_loop():
    """As in a notebook's cell: the loop of the caller runs already."""
    agent = weather(InMemoryDb())

    async def cell() -> list[Any]:
        return list(agent.run("x", stream=True))

    assert values(asyncio.run(cell())) == BASIC


def test_stream_within_tool():
    """A tool, plain or async, reads the stream of another agent while it runs."""
    inner = weather(InMemoryDb())

    def ask() -> str:
        """Ask."""
        return answer(inner.run("x", stream=True))

    async def ask_async() -> str:
        """Ask."""
        return answer([event async for event in inner.arun("x", stream=True)])

    async def ask_blocking() -> str:
        """Ask."""
        return ask()

    for tool in (ask, ask_async, ask_blocking):
        outer = Agent(by_turn(call(tool.__name__), "done"), db=InMemoryDb(), tools=[tool])
        events = list(outer.run("x", stream=True))
        assert [e.tool.result for e in events if e.event == "ToolCallCompleted"] == [ANSWER]


def test_two_consumers_at_once():
    """A slow one delays nobody else, in threads and in one loop."""
    agent = weather(InMemoryDb())
    slow = agent.run("x", session_id="slow", stream=True)
    assert next(slow).event == "RunStarted"
    results: list[str] = []

    def read(session_id: str) -> None:
        results.append(answer(agent.run("x", session_id=session_id, stream=True)))

    threads = [threading.Thread(target=read, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [ANSWER] * 4
    assert answer(slow) == ANSWER

    async def work() -> None:
        held = agent.arun("x", session_id="held", stream=True)
        assert (await anext(held)).event == "RunStarted"
        assert answer([event async for event in agent.arun("x", session_id="other", stream=True)]) == ANSWER
        assert answer([event async for event in held]) == ANSWER

    asyncio.run(work())


def test_run_waits_for_its_consumer():
    """At the event before it, a tool has not run, and the model has not been asked."""
    told: list[str] = []

    def script(_: Any) -> Any:
        told.append("asked")
        return call("note") if len(told) == 1 else "done"

    def note() -> str:
        """Note."""
        told.append("ran")
        return "noted"

    agent = Agent(ScriptedModel(script), db=InMemoryDb(), tools=[note])
    counts = {event.event: len(told) for event in agent.run("x", stream=True)}
    assert counts == {
        "RunStarted": 0, "ToolCallStarted": 1, "ToolCallCompleted": 2, "RunContent": 3, "RunCompleted": 3,
    }  # fmt: skip


def test_many_parts_in_order():
    """Every part of a long answer, once."""
    words = " ".join(str(n) for n in range(2_000))
    agent = Agent(ScriptedModel(words), db=InMemoryDb())
    assert answer(agent.run("x", stream=True)) == words


def test_reasoning_events():
    """What the model thinks is not part of the answer."""

    async def stream(_messages: Any, _info: Any) -> AsyncIterator[Any]:
        for text in ("It is ", "winter."):
            yield {0: DeltaThinkingPart(content=text)}
        yield "It is cold."

    agent = Agent(FunctionModel(stream_function=stream), db=InMemoryDb())
    events = list(agent.run("x", stream=True, stream_events=True))
    assert values(events)[2:6] == [
        "ReasoningStarted", "ReasoningContentDelta", "ReasoningContentDelta", "ReasoningCompleted",
    ]  # fmt: skip
    deltas = [event.reasoning_content for event in events if isinstance(event, ReasoningContentDeltaEvent)]
    assert "".join(deltas) == "It is winter."
    assert [e.content for e in events if e.event == RunEvent.reasoning_completed] == ["It is winter."]
    assert answer(events) == events[-1].content == "It is cold."
    assert not any("Reasoning" in event.event for event in agent.run("x", stream=True))


def test_summary_events():
    """With the finer events, the stream waits for the summary, and the completed run is the last event."""
    summaries = SessionSummaryManager(ScriptedModel('{"summary": "Oslo is cold.", "topics": ["weather"]}'))
    agent = weather(InMemoryDb(), session_summary_manager=summaries)
    events = list(agent.run("x", stream=True, stream_events=True))
    assert values(events)[-3:] == ["SessionSummaryStarted", "SessionSummaryCompleted", "RunCompleted"]
    assert events[-2].session_summary.summary == "Oslo is cold."
    assert values(agent.run("x", stream=True)) == BASIC
    agent.get_session_summary()


def test_stored_events():
    """``run.events`` of a stored run, streamed or not; the parts of an answer are skipped by default."""
    db = InMemoryDb()
    agent = weather(db, store_events=True)
    stored = [value for value in DETAILED if value != "RunContent"]
    list(agent.run("x", stream=True))
    agent.run("x")
    for run in db.get_session("chat").runs:
        assert [event.event for event in run.events] == stored
        tool = next(event.tool for event in run.events if event.event == "ToolCallCompleted")
        assert (tool.tool_name, tool.args, tool.result) == ("look", {"city": "Oslo"}, "Oslo: cold")
        assert (run.events[-1].content, run.events[-1].agent_name) == (ANSWER, "Weather")
        assert run.internal["events"] == json.loads(json.dumps(run.internal["events"]))
    assert weather(db).run("y").events == []

    own = weather(db, store_events=True, events_to_skip=[RunEvent.tool_call_started, "RunStarted"])
    *_, run = own.run("x", stream=True, yield_run_output=True)
    assert "RunContent" in [event.event for event in run.events]
    assert not {"RunStarted", "ToolCallStarted"} & {event.event for event in run.events}
    assert run.events == db.get_run(run.run_id).events


def test_stored_events_of_paused_run():
    """A continued run has those before its pause, too; results of tools are stored only where tools' messages are."""
    agent = clerk(
        InMemoryDb(), call("send", to="Ann"), "Sent.", tools=[sender([])], store_events=True, store_tool_messages=False
    )
    run = agent.run("x")
    assert [event.event for event in run.events][-1] == "RunPaused"
    agent.store.resolve(run.requirements[0].requirement_id, approve=True)
    run = agent.continue_run(run)
    names = [event.event for event in run.events]
    assert [names.count(name) for name in ("RunStarted", "RunPaused", "RunContinued", "RunCompleted")] == [1, 1, 1, 1]
    assert "sent 1 to Ann" not in json.dumps(run.internal["events"])


def test_stored_events_of_failed_run():
    """The error is the last one."""
    agent = weather(InMemoryDb(), ConnectionError("the line is dead"), store_events=True)
    with pytest.raises(RunFailed):
        agent.run("x")
    (run,) = agent.get_session().runs
    assert [event.event for event in run.events] == ["RunStarted", "ModelRequestStarted", "RunError"]
    assert run.events[-1].content == run.error


def test_printed_once(capsys):
    """``print_response(stream=False)`` prints what a stream does, at the end."""
    agent = weather(InMemoryDb())
    printed = []
    for stream in (True, False, None):
        agent.print_response("x", stream=stream)
        printed.append(capsys.readouterr().out)
    asyncio.run(agent.aprint_response("x", stream=False))
    printed.append(capsys.readouterr().out)
    assert ANSWER.split("\n", maxsplit=1)[0] in printed[0]
    assert "look(" in printed[0]
    assert len({text.rstrip() for text in printed}) == 1


class Report(BaseModel):
    """An answer."""

    city: str
    degrees: int


def test_structured_output():
    """The completed event has the object; what is stored with the run has its JSON."""
    answers = ScriptedModel('{"city": "Oslo", "degrees": -3}')
    agent = Agent(answers, db=InMemoryDb(), session_id="chat", output_schema=Report, store_events=True)
    *_, last = agent.run("x", stream=True)
    assert (last.content, last.content_type) == (Report(city="Oslo", degrees=-3), "Report")
    assert agent.get_session().runs[0].events[-1].content == {"city": "Oslo", "degrees": -3}
