"""Paused runs of attached pydantic-ai agents, answered and continued by magics as those of our own agents are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import RunContext

import kern_nb
from kern_nb.bridges import detach_agent, run_options
from kern_nb.bridges.pydantic_ai import resume
from kern_nb.errors import BadUsage, RunClosed, StillWaiting
from kern_nb.magics import completion_sources
from kern_nb.widgets.requirements.widget import inbox_widget

DELETE = ToolCallPart("delete", {"path": "a.txt"}, "c1")
CITIES = [{"label": "Rome", "description": "warm"}, {"label": "Oslo"}]
ONE = {"header": "City", "question": "Which city?", "options": CITIES}
MANY = {
    "header": "Days",
    "question": "Which days?",
    "options": [{"label": "Mon"}, {"label": "Tue"}],
    "multi_select": True,
}


class Desk:
    """An agent in the variable ``clerk``, whose model gives these answers, and what its tools did."""

    def __init__(self, notebook: Any, *answers: list[Any], name: str | None = "clerk") -> None:
        self.notebook, self.done = notebook, []
        self.answers = list(answers)
        self.seen: list[ModelMessage] = []

        def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            self.seen = messages
            return ModelResponse(self.answers.pop(0) if self.answers else [TextPart("Done.")])

        self.store = kern_nb.attach(":memory:", name="desk")
        output = [str, DeferredToolRequests]
        self.agent: Agent[Any, Any] = Agent(FunctionModel(respond), name=name, output_type=output)

        @self.agent.tool(requires_approval=True)
        def delete(ctx: RunContext[Any], path: str) -> str:
            self.done.append((path, ctx.deps))
            return f"deleted {path}"

        @self.agent.tool_plain(requires_approval=True)
        async def post(text: str) -> str:
            await asyncio.sleep(0)
            self.done.append(text)
            return f"posted {text}"

        @self.agent.tool_plain
        def measure(what: str) -> str:
            raise CallDeferred(metadata={"unit": what})

        @self.agent.tool_plain
        def ask(question: str) -> str:
            raise CallDeferred(kind="question")

        @self.agent.tool_plain
        def choose(questions: list[dict[str, Any]]) -> str:
            raise CallDeferred(kind="question")

        @self.agent.tool_plain
        def pick() -> str:
            raise CallDeferred({"question": "Which size?", "options": ["S", "M"]}, kind="question")

        notebook.shell.user_ns["clerk"] = self.agent
        notebook.run("%kern attach-agent clerk")

    def run(self, text: str = "Go.", **options: Any) -> Any:
        return asyncio.run(self.agent.run(text, conversation_id="chat", **options))

    @property
    def ids(self) -> dict[str, str]:
        """The pending requirements by their calls."""
        return {str(r.tool_call_id): r.requirement_id for r in self.store.requirements()}

    def results(self) -> dict[str, Any]:
        """What the model got of each call."""
        parts = [part for message in self.seen if isinstance(message, ModelRequest) for part in message.parts]
        return {part.tool_call_id: part.content for part in parts if part.part_kind == "tool-return"}


@pytest.fixture
def desk(notebook):
    desks = []

    def make(*answers, **options):
        desks.append(Desk(notebook, *answers, **options))
        return desks[-1]

    yield make
    for made in desks:
        detach_agent(made.agent)


def test_a_requirement_of_each_kind_is_answered_and_the_run_continues(notebook, desk):
    calls = [
        DELETE,
        ToolCallPart("post", {"text": "x"}, "c2"),
        ToolCallPart("post", {"text": "y"}, "c3"),
        ToolCallPart("measure", {"what": "wind"}, "c4"),
        ToolCallPart("ask", {"question": "Who?"}, "c5"),
        ToolCallPart("choose", {"questions": [ONE, MANY]}, "c6"),
        ToolCallPart("pick", {}, "c7"),
    ]
    d = desk([DELETE], [TextPart("Earlier.")], calls)
    d.answers[0] = [TextPart("Hi.")]
    d.answers.pop(1)
    first = d.run("Hello")
    d.run(message_history=first.all_messages())
    ids = d.ids
    kinds = {r.tool_call_id: r.kind for r in d.store.requirements()}
    assert kinds == dict(zip(
        ["c1", "c2", "c3", "c4", "c5", "c6", "c7"],
        ["confirmation"] * 3 + ["external_execution", "user_input"] + ["user_feedback"] * 2, strict=True,
    ))  # fmt: skip
    with pytest.raises(StillWaiting):
        resume(d.agent, d.store, d.store.get_session("chat").runs[1])
    notebook.run(f"%kern approve {ids['c1']}")
    notebook.run(f'%kern approve {ids["c2"]} --args \'{{"text": "edited"}}\'')
    notebook.run(f"%kern reject {ids['c3']} --note 'Not that one.'")
    notebook.run(f"%kern answer {ids['c4']} '{{\"speed\": 3}}'")
    notebook.run(f"%kern answer {ids['c5']} Ann")
    notebook.run(f"%kern answer {ids['c6']} City=oslo Days=Mon,2")
    last = notebook.run(f"%kern answer {ids['c7']} M")
    assert "%kern continue chat/1 --agent clerk" in repr(last)

    run = notebook.run("%kern continue chat/1 --agent clerk")

    assert (run.status, run.output, run.input) == ("COMPLETED", "Done.", "Go.")
    assert d.results() == {
        "c1": "deleted a.txt", "c2": "posted edited", "c3": "Not that one.", "c4": {"speed": 3}, "c5": "Ann",
        "c6": {"City": ["Oslo"], "Days": ["Mon", "Tue"]}, "c7": "M",
    }  # fmt: skip
    assert set(d.done) == {("a.txt", None), "edited"}
    assert [m.content for m in run.messages if m.role == "user"] == ["Go."]
    assert "pause" not in run.internal
    error, _ = notebook.fails("%kern continue chat/1")
    assert isinstance(error, RunClosed)
    assert len(d.done) == 2


def test_it_continues_inside_a_running_event_loop_and_pauses_again(notebook, desk):
    d = desk([DELETE], [ToolCallPart("post", {"text": "x"}, "c2")])
    d.run()
    cell = "import asyncio\nasync def go():\n    return get_ipython().run_line_magic('kern', 'continue chat')\n"
    for status in ("PAUSED", "COMPLETED"):
        notebook.run("%kern approve chat")
        assert notebook.run(f"{cell}asyncio.run(go())").status == status
    assert d.done == [("a.txt", None), "x"]
    assert [run.status for run in d.store.get_session("chat").runs] == ["COMPLETED"]


def test_arguments_of_the_run_are_passed_again_and_another_process_names_them(notebook, desk):
    d = desk([DELETE], [DELETE])
    for _ in range(2):
        d.run(deps="the deps", instructions="Be brief.")
    first, second = d.store.get_session("chat").runs
    for requirement in d.store.requirements():
        d.store.resolve(requirement, approve=True)
    notebook.run("%kern continue chat/0")
    assert d.seen[-1].instructions == "Be brief."

    run_options.forget(second.run_id)  # as in another process
    error, lines = notebook.fails("%kern continue chat/1")
    assert isinstance(error, BadUsage)
    assert "instructions, deps" in lines[0]
    assert "resume(agent, store, run, instructions=..., deps=...)" in lines[1]
    assert (
        resume(d.agent, d.store, d.store.get_run(second.run_id), deps="others", instructions="!").status == "COMPLETED"
    )
    assert d.done == [("a.txt", "the deps"), ("a.txt", "others")]
    assert first.run_id != second.run_id


def test_a_click_in_the_inbox_continues_it(notebook, desk):
    d = desk([DELETE])
    d.run()
    widget = inbox_widget(by="ann")
    (shown,) = widget.poll("", 20)["runs"]
    assert shown["here"] == "clerk"
    widget.approve(shown["cards"][0]["key"], {})
    assert "%kern continue chat/0 --agent clerk" in widget.resume(shown["key"])["line"]
    end = time.monotonic() + 20
    while d.store.get_session("chat").runs[0].status != "COMPLETED" and time.monotonic() < end:
        time.sleep(0.02)
    assert [run.status for run in d.store.get_session("chat").runs] == ["COMPLETED"]
    assert d.done == [("a.txt", None)]


def test_a_session_that_is_handed_off_is_not_a_run_of_the_framework(notebook, desk):
    d = desk([TextPart("Hi.")])
    d.run()
    d.store.handoff("chat", to="ann")
    d.store.resolve(d.store.requirements()[0], value="She called.")
    error, lines = notebook.fails("%kern continue chat")
    assert isinstance(error, BadUsage)
    assert "hands the session off" in lines[0]


def test_where_no_agent_fits_the_hint_is_of_its_framework(notebook, desk):
    d = desk([DELETE])
    d.run()
    notebook.run("%kern approve chat")
    agent = notebook.shell.user_ns.pop("clerk")
    error, lines = notebook.fails("%kern continue chat")
    assert isinstance(error, BadUsage)
    assert "'clerk', an agent of pydantic-ai; none is attached in this notebook" in lines[0]
    assert "%kern attach-agent clerk" in lines[1]

    other = Agent(FunctionModel(lambda *_: ModelResponse([TextPart("x")])), name="other")
    notebook.shell.user_ns["else_"] = other
    notebook.run("%kern attach-agent else_")
    error, lines = notebook.fails("%kern continue chat")
    assert "those of this notebook are: else_" in lines[0]
    assert "--agent else_" in lines[1]
    assert "kern_nb starts only runs of its own" in notebook.fails("%%kern run else_\nHello")[1][0]
    with pytest.raises(BadUsage, match="an agent of pydantic-ai"):
        kern_nb.chat(other)
    detach_agent(other)

    notebook.shell.user_ns["clerk"] = agent
    kern_nb.attach_agent(agent, kern_nb.attach(":memory:", name="second"))
    error, lines = notebook.fails("%kern continue chat --store desk")
    assert "attached to" in lines[0]
    kern_nb.attach_agent(agent, d.store)
    assert notebook.run("%kern continue chat --store desk").status == "COMPLETED"


def test_an_agent_without_a_name_and_completion(notebook, desk):
    d = desk([DELETE], name=None)
    asyncio.run(d.agent.run("Go.", conversation_id="chat", infer_name=False))
    assert d.store.get_session("chat").runs[0].agent_id is None
    assert completion_sources.SOURCES["runners"]("", None) == ["clerk"]
    assert completion_sources.SOURCES["agents"]("", None) == []
    notebook.run("%kern approve chat")
    assert notebook.run("%kern continue chat").status == "COMPLETED"
