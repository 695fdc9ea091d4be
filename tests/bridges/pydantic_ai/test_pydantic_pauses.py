"""Runs that pause for approvals, questions and external results, and who resumes them."""

import asyncio
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.agent import AgentRunResult
from pydantic_ai.exceptions import CallDeferred, ToolFailed
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from kern_nb.bridges.pydantic_ai import attach, deferred_tool_results
from kern_nb.db import InMemoryDb
from kern_nb.errors import AlreadyResolved, BadUsage, KernError, RunClosed, StillWaiting
from kern_nb.records import Run

CALLS = [
    ToolCallPart("delete", {"path": "a.txt"}, "c1"),
    ToolCallPart("measure", {"what": "wind"}, "c2"),
    ToolCallPart("ask", {"question": "Which?"}, "c3"),
    ToolCallPart("look", {}, "c4"),
]


class Shop:
    """An agent with a tool of each kind, its store, and what its tools did."""

    def __init__(self, *calls: ToolCallPart) -> None:
        self.store, self.done = InMemoryDb(), []
        queue = [list(calls)]

        def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            return ModelResponse(queue.pop(0) if queue else [TextPart("done")])

        self.agent: Agent[None, Any] = Agent(FunctionModel(respond), output_type=[str, DeferredToolRequests])
        self.queue = queue

        @self.agent.tool_plain(requires_approval=True)
        def delete(path: str) -> str:
            self.done.append(path)
            return f"deleted {path}"

        @self.agent.tool_plain
        def measure(what: str) -> str:
            raise CallDeferred(metadata={"unit": what})

        @self.agent.tool_plain
        def ask(question: str) -> str:
            raise CallDeferred(kind="question")

        @self.agent.tool_plain
        def look() -> str:
            return "seen"

        attach(self.agent, self.store)

    def run(self, *args: Any, **options: Any) -> AgentRunResult[Any]:
        return asyncio.run(self.agent.run(*args, conversation_id="chat", **options))

    def resume(self, paused: AgentRunResult[Any], **answers: Any) -> AgentRunResult[Any]:
        return self.run(message_history=paused.all_messages(), deferred_tool_results=DeferredToolResults(**answers))

    def runs(self) -> list[Run]:
        return list(self.store.get_session("chat").runs or [])


def test_a_pause_has_a_requirement_for_each_call():
    shop = Shop(*CALLS)
    result = shop.run("Go.")
    assert isinstance(result.output, DeferredToolRequests)
    [run] = shop.runs()
    assert (run.status, run.output) == ("PAUSED", None)
    assert [(r.kind, r.tool_name, r.tool_call_id, r.args) for r in run.requirements] == [
        ("confirmation", "delete", "c1", {"path": "a.txt"}),
        ("external_execution", "measure", "c2", {"what": "wind"}),
        ("user_input", "ask", "c3", {"question": "Which?"}),
    ]
    assert run.requirements[1].extra == {"metadata": {"unit": "wind"}}
    assert [call.status for call in run.tool_calls] == ["started", "started", "started", "completed"]
    assert not shop.done


def test_results_resume_the_same_run_once():
    shop = Shop(*CALLS)
    paused = shop.run("Go.")
    answers = {"approvals": {"c1": True}, "calls": {"c2": {"speed": 3}, "c3": "The first."}}
    answers["answered_by"] = {"c1": "ann"}
    resumed = shop.resume(paused, **answers)
    assert resumed.output == "done"
    [run] = shop.runs()
    assert (run.status, run.output, run.input) == ("COMPLETED", "done", "Go.")
    assert [(r.status, r.approved, r.answer, r.resolved_by) for r in run.requirements] == [
        ("resolved", True, None, "ann"),
        ("resolved", True, {"speed": 3}, None),
        ("resolved", True, "The first.", None),
    ]
    assert [call.result for call in run.tool_calls] == ["deleted a.txt", {"speed": 3}, "The first.", "seen"]
    assert run.usage.input_tokens == sum(m.usage.input_tokens for m in run.messages if m.usage)
    with pytest.raises(RunClosed):
        shop.resume(paused, **answers)
    assert shop.done == ["a.txt"]
    shop.run("Next.", message_history=resumed.all_messages())
    assert [[m.content for m in run.messages if m.role == "user"] for run in shop.runs()] == [["Go."], ["Next."]]


@pytest.mark.parametrize("verdict", [False, ToolDenied("Not that one.")])
def test_a_denied_call_does_not_run(verdict):
    shop = Shop(CALLS[0])
    shop.resume(shop.run("Go."), approvals={"c1": verdict})
    [run] = shop.runs()
    assert (run.status, run.requirements[0].approved) == ("COMPLETED", False)
    assert run.requirements[0].note == (None if verdict is False else "Not that one.")
    assert run.tool_calls[0].status == "failed"
    assert not shop.done


def test_edited_arguments_and_a_failed_result():
    shop = Shop(CALLS[0], CALLS[1])
    approval = ToolApproved(override_args={"path": "b.txt"})
    shop.resume(shop.run("Go."), approvals={"c1": approval}, calls={"c2": ToolFailed("No wind.")})
    [run] = shop.runs()
    assert [r.approved for r in run.requirements] == [True, False]
    assert [(c.args, c.status, c.result) for c in run.tool_calls] == [
        ({"path": "b.txt"}, "completed", "deleted b.txt"),
        ({"what": "wind"}, "failed", "No wind."),
    ]
    assert run.requirements[1].note == "No wind."


def test_answers_of_the_inbox_resume_it():
    shop = Shop(CALLS[0], CALLS[1])
    paused = shop.run("Go.")
    first, second = shop.runs()[0].requirements
    with pytest.raises(BadUsage, match="not resolved"):
        deferred_tool_results(shop.store, first.run_id)
    shop.store.resolve(first.requirement_id, approve=False, note="Never.", by="ann")
    shop.store.resolve(second.requirement_id, value=7)
    with pytest.raises(AlreadyResolved, match="rejected by ann"):
        shop.resume(paused, approvals={"c1": True}, calls={"c2": 7})
    results = deferred_tool_results(shop.store, first.run_id)
    shop.run(message_history=paused.all_messages(), deferred_tool_results=results)
    [run] = shop.runs()
    assert [call.result for call in run.tool_calls] == ["Never.", 7]
    assert (run.status, shop.done) == ("COMPLETED", [])


def test_a_run_with_pending_requirements_is_not_resumed():
    shop = Shop(CALLS[0], CALLS[1])
    paused = shop.run("Go.")
    with pytest.raises(StillWaiting, match="measure"):
        shop.resume(paused, approvals={"c1": True})
    assert shop.runs()[0].status == "PAUSED"
    shop.resume(paused, approvals={"c1": True}, calls={"c2": 1})
    assert shop.done == ["a.txt"]


def test_a_run_may_pause_again():
    shop = Shop(CALLS[0])
    paused = shop.run("Go.")
    shop.queue.append([ToolCallPart("delete", {"path": "b.txt"}, "c9")])
    again = shop.resume(paused, approvals={"c1": True})
    assert isinstance(again.output, DeferredToolRequests)
    [run] = shop.runs()
    assert (run.status, [r.status for r in run.requirements]) == ("PAUSED", ["resolved", "pending"])
    end = shop.resume(again, approvals={"c9": True})
    [run] = shop.runs()
    assert (run.status, shop.done) == ("COMPLETED", ["a.txt", "b.txt"])
    assert [m.role for m in run.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
    shop.run("Next.", message_history=end.all_messages())
    assert [len(run.messages) for run in shop.runs()] == [6, 2]


def test_of_two_who_resume_at_once_one_runs_the_tool():
    shop = Shop(CALLS[0])
    paused = shop.run("Go.")
    results = DeferredToolResults(approvals={"c1": True})

    async def resume_twice() -> list[Any]:
        runs = [shop.agent.run(message_history=paused.all_messages(), deferred_tool_results=results) for _ in range(2)]
        return await asyncio.gather(*runs, return_exceptions=True)

    outcomes = asyncio.run(resume_twice())
    assert sum(isinstance(outcome, KernError) for outcome in outcomes) == 1
    assert shop.done == ["a.txt"]
    assert [run.status for run in shop.runs()] == ["COMPLETED"]


def test_a_pause_from_before_the_agent_was_attached_is_a_run_of_its_own():
    shop, other = Shop(CALLS[0]), InMemoryDb()
    paused = shop.run("Go.")
    attach(shop.agent, other)
    shop.resume(paused, approvals={"c1": True})
    [run] = other.get_session("chat").runs
    assert [(m.role, m.from_history) for m in run.messages] == [
        ("user", True), ("assistant", True), ("tool", None), ("assistant", None)
    ]  # fmt: skip
