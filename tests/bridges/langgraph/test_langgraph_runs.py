"""Threads of LangGraph in our terms: sessions, runs, branches, requirements."""

import asyncio
import threading

import pytest

pytest.importorskip("langgraph.graph", reason="needs langgraph")

from graphs import THREAD, Items, ask, chat_graph, confirm_and_look_up, nested_graph, parallel_graph
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from kern_nb import attach_agent, compare, detach_agent
from kern_nb.bridges.langgraph import KernSaver, resume_run
from kern_nb.errors import AlreadyClaimed, BadUsage, OwnerMismatch, StillWaiting


def runs(store, session_id="t"):
    return [
        (run.session_id, run.run_index, run.status, run.input, run.output) for run in store.get_session(session_id).runs
    ]


def test_an_input_is_a_run_with_its_messages_calls_usage_and_model(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    ask(graph, "hello")
    ask(graph, "weather")
    assert runs(store) == [
        ("t", 0, "COMPLETED", "hello", "Hello!"),
        ("t", 1, "COMPLETED", "weather", "It is found weather."),
    ]
    run = store.get_session("t").runs[1]
    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    [call] = run.tool_calls
    assert (call.tool_name, call.args, call.result, call.status) == (
        "lookup", {"q": "weather"}, "found weather", "completed",
    )  # fmt: skip
    frame = store.runs_df()
    assert list(frame["input_tokens"].dropna()) == [30]
    assert list(frame["cache_read_tokens"].dropna()) == [4]
    assert set(frame["model"].dropna()) == {"fake-1"}
    assert store.get_session("t").user_id == "ann"


def test_an_interrupt_pauses_the_run_and_the_answer_completes_it(store):
    graph = chat_graph(confirm_and_look_up).compile(checkpointer=KernSaver(store))
    ask(graph, "weather")
    [requirement] = store.requirements(session_id="t")
    assert (requirement.kind, requirement.tool_name, requirement.args) == ("confirmation", "lookup", {"q": "weather"})
    assert [status for _, _, status, *_ in runs(store)] == ["PAUSED"]
    graph.invoke(Command(resume="yes"), THREAD)
    assert runs(store) == [("t", 0, "COMPLETED", "weather", "It is yes weather.")]
    [resolved] = store.requirements(session_id="t", status=None)
    assert (resolved.status, resolved.answer) == ("resolved", "yes")


def test_an_error_ends_the_run_and_another_prompt_starts_one(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    with pytest.raises(ValueError, match="no answer"):
        ask(graph, "fail")
    assert store.get_session("t").runs[0].error == "ValueError('no answer')"
    graph.update_state(THREAD, {"messages": [HumanMessage("hello again")]})
    assert [status for _, _, status, *_ in runs(store)] == ["ERROR", "PENDING"]
    graph.invoke(None, THREAD)
    assert [status for _, _, status, *_ in runs(store)] == ["ERROR", "COMPLETED"]


def test_a_run_that_is_tried_again_keeps_its_error(store):
    failures = iter([True, False])

    def flaky(state):
        if next(failures):
            raise ValueError("try again")
        return {"messages": [ToolMessage("ok", tool_call_id="call_1")]}

    graph = chat_graph(flaky).compile(checkpointer=KernSaver(store))
    with pytest.raises(ValueError, match="try again"):
        ask(graph, "weather")
    graph.invoke(None, THREAD)
    [run] = store.get_session("t").runs
    assert (run.status, run.error, run.extra["errors"]) == ("COMPLETED", None, ["ValueError('try again')"])


@pytest.mark.every_engine
def test_a_fork_is_a_branch_that_inherits_what_was_said_before(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    ask(graph, "hello")
    ask(graph, "weather")
    before = next(s for s in graph.get_state_history(THREAD) if s.values["messages"][-1].content == "weather")
    edited = HumanMessage("traffic", id=before.values["messages"][-1].id)
    graph.invoke(None, graph.update_state(before.config, {"messages": [edited]}))
    [branch] = [s.session_id for s in store.list_sessions() if s.parent_session_id == "t"]
    assert runs(store, branch) == [
        ("t", 0, "COMPLETED", "hello", "Hello!"),
        (branch, 1, "COMPLETED", "traffic", "It is found traffic."),
    ]
    assert len(runs(store)) == 2
    assert compare("t", branch, store=store).divergence is not None
    ask(graph, "go on")  # the thread's newest state is the fork's
    assert [index for _, index, *_ in runs(store, branch)] == [0, 1, 2]


@pytest.mark.every_engine
def test_a_branch_of_ours_goes_on_in_langgraph(store):
    saver = KernSaver(store)
    graph = chat_graph().compile(checkpointer=saver)
    ask(graph, "hello")
    ask(graph, "weather")
    store.branch("t", after=0, new_session_id="what-if")
    branch = {"configurable": {"thread_id": "what-if"}}
    assert len(list(graph.get_state_history(branch))) == 3
    ask(graph, "traffic", branch)
    assert [m.content for m in graph.get_state(branch).values["messages"]][:3] == ["hello", "Hello!", "traffic"]
    assert runs(store, "what-if")[1:] == [("what-if", 1, "COMPLETED", "traffic", "It is found traffic.")]
    saver.delete_thread("t")
    assert len(graph.get_state(branch).values["messages"]) == 6
    assert [run.session_id for run in store.get_session("what-if").runs] == ["what-if", "what-if"]


def test_a_branch_inside_a_run_does_not_see_what_was_written_later(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    ask(graph, "weather")
    store.branch("t", after=(0, 1), new_session_id="inside")
    inside = {"configurable": {"thread_id": "inside"}}
    state = graph.get_state(inside)
    assert (len(state.values["messages"]), state.next) == (2, ("tools",))
    graph.invoke(None, inside)
    assert runs(store, "inside")[1][2:] == ("COMPLETED", None, "It is found weather.")


def test_deleting_a_session_deletes_the_thread(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    ask(graph, "hello")
    store.branch("t", new_session_id="kept")
    store.delete_session("t", detach_branches=True)
    assert graph.get_state(THREAD).values == {}
    kept = {"configurable": {"thread_id": "kept"}}
    assert [m.content for m in graph.get_state(kept).values["messages"]] == ["hello", "Hello!"]


def test_a_copied_thread_is_a_branch(store):
    saver = KernSaver(store)
    graph = chat_graph().compile(checkpointer=saver)
    ask(graph, "hello")
    saver.copy_thread("t", "copy")
    ask(graph, "weather", {"configurable": {"thread_id": "copy"}})
    assert [session_id for session_id, *_ in runs(store, "copy")] == ["t", "copy"]
    assert len(runs(store)) == 1
    with pytest.raises(BadUsage, match="'copy' exists"):
        saver.copy_thread("t", "copy")


@pytest.mark.every_engine
def test_a_nested_graph_is_a_member_and_nothing_is_counted_twice(store):
    graph = nested_graph(confirm_and_look_up).compile(checkpointer=KernSaver(store))
    ask(graph, "weather")
    outer, inner = store.get_session("t").runs
    assert (inner.parent_run_id, inner.agent_id) == (outer.run_id, "child")
    assert [run.status for run in (outer, inner)] == ["PAUSED", "PAUSED"]
    assert len(store.requirements(session_id="t")) == 1
    graph.invoke(Command(resume="yes"), THREAD)
    assert [status for _, _, status, *_ in runs(store)] == ["COMPLETED", "COMPLETED"]
    assert len(store.messages_df()) == 4
    assert len(store.tool_calls_df()) == 1
    assert int(store.runs_df()["input_tokens"].sum()) == 30


def test_the_state_is_the_sessions(store):
    graph = parallel_graph().compile(checkpointer=KernSaver(store))
    graph.invoke({"items": [], "total": 0}, THREAD)
    session = store.get_session("t")
    assert session.session_data["session_state"] == {"items": [0, 2, 4], "total": 6}
    assert session.runs[0].session_state == {"items": [0, 2, 4], "total": 6}


def test_another_users_thread_is_refused(store):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    ask(graph, "hello")
    with pytest.raises(OwnerMismatch):
        ask(graph, "hello", {"configurable": {"thread_id": "t", "user_id": "bob"}})


def test_attach_names_the_agent_and_undoes_it(store):
    graph = chat_graph().compile(name="helper")
    before = graph.checkpointer, graph.config
    assert attach_agent(graph, store).framework == "langgraph"
    ask(graph, "hello")
    assert store.get_session("t").agent_id == "helper"
    detach_agent(graph)
    assert (graph.checkpointer, graph.config) == before
    with pytest.raises(BadUsage, match="not a compiled graph"):
        attach_agent(chat_graph(), store)
    with pytest.raises(BadUsage, match="checkpointer=True"):
        attach_agent(chat_graph().compile(checkpointer=True), store)


def test_a_breakpoint_and_a_limit_are_known_of_an_attached_graph(store):
    graph = chat_graph().compile()
    attach_agent(graph, store)
    ask(graph, "weather", interrupt_before=["tools"])
    [requirement] = store.requirements(session_id="t")
    assert (requirement.kind, requirement.prompt) == ("confirmation", "Continue with tools?")
    assert [status for _, _, status, *_ in runs(store)] == ["PAUSED"]
    graph.invoke(None, THREAD)
    assert [status for _, _, status, *_ in runs(store)] == ["COMPLETED"]
    with pytest.raises(GraphRecursionError):
        ask(graph, "weather", THREAD | {"recursion_limit": 1})
    assert store.get_session("t").runs[1].error.startswith("GraphRecursionError: Recursion limit of 1 reached")
    detach_agent(graph)


def test_of_several_answers_one_is_worked_on_before_a_tool_runs(store):
    ran, release = [], threading.Event()

    def tool(state):
        answer = interrupt("Go on?")
        ran.append(answer)
        release.wait(10)
        return {"messages": [ToolMessage(answer, tool_call_id="call_1")]}

    graph = chat_graph(tool).compile()
    attach_agent(graph, store)
    ask(graph, "weather")
    refused = []

    def resume(answer):
        try:
            graph.invoke(Command(resume=answer), THREAD)
        except AlreadyClaimed as error:
            refused.append(str(error))
            if len(refused) == 3:
                release.set()

    threads = [threading.Thread(target=resume, args=(f"answer {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ran) == 1
    assert len(refused) == 3
    assert "t/0 is resumed by another caller" in refused[0]
    assert runs(store)[0][2:] == ("COMPLETED", "weather", f"It is {ran[0]}.")
    detach_agent(graph)


def test_interrupts_of_parallel_tasks_are_answered_one_by_one_async(store):
    builder = StateGraph(Items)
    for name in ("a", "b"):
        builder.add_node(name, lambda state, name=name: {"items": [interrupt({"question": f"{name}?"})]})
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    graph = builder.compile()
    attach_agent(graph, store)

    async def drive():
        paused = await graph.ainvoke({"items": []}, THREAD)
        first = paused["__interrupt__"][0]
        await graph.ainvoke(Command(resume={first.id: "A"}), THREAD)
        answers = {r.prompt: (r.status, r.answer) for r in store.requirements(session_id="t", status=None)}
        assert sorted(answers.values(), key=str) == [("pending", None), ("resolved", "A")]
        assert [status for _, _, status, *_ in runs(store)] == ["PAUSED"]
        return await graph.ainvoke(Command(resume="B"), THREAD)

    assert sorted(asyncio.run(drive())["items"]) == ["A", "B"]
    assert [status for _, _, status, *_ in runs(store)] == ["COMPLETED"]
    assert {r.status for r in store.requirements(session_id="t", status=None)} == {"resolved"}
    detach_agent(graph)


@pytest.mark.parametrize("graph_of", [chat_graph, nested_graph])
def test_stored_answers_resume_a_graph(store, graph_of):
    def tool(state):
        call = state["messages"][-1].tool_calls[0]
        request = {"name": call["name"], "args": call["args"], "description": "Run it?"}
        [decision] = interrupt({"action_requests": [request]})["decisions"]
        name = interrupt("Who is it?")
        return {"messages": [ToolMessage(f"{decision['type']} by {name}", tool_call_id=call["id"])]}

    graph = graph_of(tool).compile()
    attach_agent(graph, store)
    ask(graph, "weather")
    run = store.get_session("t").runs[0]
    with pytest.raises(StillWaiting, match=r"1 pending requirements: Run it\?"):
        resume_run(graph, run.run_id)
    store.resolve(store.requirements(run_id=run.run_id)[0], approve=True, by="ann")
    resume_run(graph, run.run_id)
    assert store.get_run(run.run_id).status == "PAUSED"
    store.resolve(store.requirements(run_id=run.run_id)[0], value="Ann")
    resume_run(graph, run.run_id)
    assert runs(store)[0] == ("t", 0, "COMPLETED", "weather", "It is approve by Ann.")
    with pytest.raises(BadUsage, match="COMPLETED"):
        resume_run(graph, run.run_id)
    detach_agent(graph)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_without_attaching_the_recursion_limit_is_an_error_at_once(store, durability):
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    for text in ("one", "two"):
        with pytest.raises(GraphRecursionError):
            ask(graph, text, THREAD | {"recursion_limit": 1}, durability=durability)
        run = store.last_runs("t", 1)[0]
        assert (run.input, run.status, run.error) == (
            text,
            "ERROR",
            "GraphRecursionError: Recursion limit of 1 reached.",
        )
    ask(graph, "hello", durability=durability)
    assert [run.status for run in store.get_session("t").runs] == ["ERROR", "ERROR", "COMPLETED"]


def test_without_attaching_more_steps_than_the_limit_in_several_invocations_are_no_error(store):
    graph = chat_graph(confirm_and_look_up).compile(checkpointer=KernSaver(store))
    config = THREAD | {"recursion_limit": 3}
    ask(graph, "weather", config)
    for _ in range(3):
        ask(graph, "weather", config)
        graph.invoke(Command(resume="yes"), config)
    assert store.last_runs("t", 1)[0].status == "COMPLETED"


def test_without_attaching_an_error_that_is_not_stored_ends_its_run_with_the_next_input(store):
    """Two nodes write one value at once, which no task is to blame for: LangGraph raises it, and stores nothing."""

    class State(MessagesState):
        value: int

    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, lambda state: {"value": 1} if "both" in state["messages"][-1].content else {})
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=KernSaver(store))
    with pytest.raises(InvalidUpdateError):
        ask(graph, "both")
    assert store.last_runs("t", 1)[0].status == "RUNNING", "the saver cannot know"
    ask(graph, "fine")
    first, second = store.get_session("t").runs
    assert (first.status, second.status) == ("ERROR", "COMPLETED")
    assert "LangGraph does not store" in first.error
