"""What LangGraph gets back from a store is what its own saver returns."""

import sqlite3

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from graphs import (
    THREAD,
    BothSavers,
    ask,
    chat_graph,
    confirm_and_look_up,
    delta_graph,
    join_graph,
    nested_graph,
    parallel_graph,
)
from langchain_core.messages import HumanMessage, RemoveMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from kern_nb.bridges.langgraph import KernSaver
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, UnstorableValue


def chat(graph):
    ask(graph, "hello")
    ask(graph, "weather")


def resume(graph):
    ask(graph, "weather")
    graph.invoke(Command(resume="yes"), THREAD)


def fork(graph):
    chat(graph)
    before = next(s for s in graph.get_state_history(THREAD) if s.values["messages"][-1].content == "weather")
    edited = HumanMessage("edited", id=before.values["messages"][-1].id)
    graph.invoke(None, graph.update_state(before.config, {"messages": [edited]}))
    ask(graph, "go on")
    graph.invoke(None, before.config)


def fail(graph):
    with pytest.raises(ValueError, match="no answer"):
        ask(graph, "fail")
    graph.update_state(THREAD, {"messages": [HumanMessage("hello again")]})
    graph.invoke(None, THREAD)


def edit(graph):
    chat(graph)
    first = graph.get_state(THREAD).values["messages"][0]
    graph.update_state(THREAD, {"messages": [RemoveMessage(first.id)]}, as_node="agent")
    ask(graph, "hello")


def save_at_exit(graph):
    ask(graph, "hello", durability="exit")
    ask(graph, "weather", durability="exit")


def stop_at_breakpoint(graph):
    ask(graph, "weather", interrupt_before=["tools"])
    graph.invoke(None, THREAD)


def add_items(graph):
    graph.invoke({"items": [], "total": 0}, THREAD)


@pytest.mark.parametrize(
    ("builder", "drive"),
    [
        (chat_graph(), chat),
        (chat_graph(confirm_and_look_up), lambda graph: ask(graph, "weather")),
        (chat_graph(confirm_and_look_up), resume),
        (chat_graph(), fork),
        (chat_graph(), fail),
        (chat_graph(), edit),
        (chat_graph(), save_at_exit),
        (chat_graph(), stop_at_breakpoint),
        (nested_graph(), chat),
        (nested_graph(confirm_and_look_up), resume),
        (parallel_graph(), add_items),
        (join_graph(), add_items),
    ],
    ids=[
        "chat",
        "paused",
        "resumed",
        "fork",
        "fail",
        "edit",
        "exit",
        "breakpoint",
        "nested",
        "nested-resumed",
        "parallel",
        "join",
    ],
)
def test_states_are_those_of_the_sqlite_saver(store, builder, drive):
    theirs = SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))
    drive(builder.compile(checkpointer=BothSavers(theirs, KernSaver(store))))
    expected, graph = builder.compile(checkpointer=theirs), builder.compile(checkpointer=KernSaver(store))
    assert list(graph.get_state_history(THREAD)) == list(expected.get_state_history(THREAD))
    assert graph.get_state(THREAD, subgraphs=True) == expected.get_state(THREAD, subgraphs=True)
    assert list(KernSaver(store).list(None)) == list(theirs.list(None))
    assert not store.check().problems
    theirs.conn.close()


def test_a_long_chat_shares_what_its_states_repeat(store, tmp_path):
    """Each state repeats all messages: stored whole, 60 turns of 3 states would be 90 times the text."""
    text = "word " * 100
    builder = chat_graph()
    graph = builder.compile(checkpointer=KernSaver(store))
    for i in range(30):
        ask(graph, f"hello {i} {text}")
    store.close()
    states = 30 * 3 * 15 * len(text)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.db")) < states
    assert len(graph.get_state(THREAD).values["messages"]) == 60


def test_a_pickle_is_refused_by_name(store):
    with pytest.raises(BadUsage, match=r"JsonPlusSerializer\(pickle_fallback=True\) writes pickles"):
        KernSaver(store, serde=JsonPlusSerializer(pickle_fallback=True))

    class Pickling:
        def dumps_typed(self, value):
            return "pickle", b""

        def loads_typed(self, data):
            raise AssertionError("a pickle is never loaded")

    graph = chat_graph().compile(checkpointer=KernSaver(store, serde=Pickling()))
    with pytest.raises(UnstorableValue, match="writes as a pickle"):
        ask(graph, "hello")


def test_an_encrypted_thread_resumes_and_shows_no_messages(store):
    class Cipher:
        def encrypt(self, plaintext):
            return "xor", bytes(byte ^ 42 for byte in plaintext)

        def decrypt(self, ciphername, ciphertext):
            return bytes(byte ^ 42 for byte in ciphertext)

    graph = chat_graph(confirm_and_look_up).compile(
        checkpointer=KernSaver(store, serde=EncryptedSerializer(Cipher(), JsonPlusSerializer()))
    )
    ask(graph, "weather")
    assert graph.invoke(Command(resume="yes"), THREAD)["messages"][-1].content == "It is yes weather."
    assert "weather" not in store.runs_df().to_csv() + store.messages_df().to_csv()
    assert list(store.runs_df()["status"]) == ["COMPLETED"]


def test_a_list_is_filtered_and_limited(store):
    saver = KernSaver(store)
    graph = chat_graph().compile(checkpointer=saver)
    chat(graph)
    inputs = list(saver.list(THREAD, filter={"source": "input"}))
    assert [found.metadata["step"] for found in inputs] == [2, -1]
    assert [found.metadata["step"] for found in saver.list(THREAD, limit=2)] == [6, 5]
    assert [found.metadata["step"] for found in saver.list(THREAD, before=inputs[1].config)] == []
    assert len(list(saver.list(THREAD, before=inputs[0].config))) == 3
    config = saver.put(inputs[0].config, inputs[0].checkpoint | {"id": "z"}, {"user": {"level": "a", "x.y": 1}}, {})
    for path, value in (("user.level", "a"), ("user.x.y", 1), ("user", {"level": "a", "x.y": 1})):
        assert [found.config for found in saver.list(THREAD, filter={path: value})] == [config]
    assert list(saver.list(THREAD, filter={"user.level.b": "a"})) == []


def test_delta_channels_are_rebuilt_also_in_branches_and_after_pruning(store):
    saver = KernSaver(store)
    graph = delta_graph().compile(checkpointer=saver)
    for i in range(8):
        graph.invoke({"messages": [HumanMessage(str(i))]}, THREAD)
    texts = [text for i in range(8) for text in (str(i), f"echo {i}")]
    assert [message.content for run in store.get_session("t").runs for message in run.messages] == texts
    store.branch("t", after=3, new_session_id="branch")
    branch = {"configurable": {"thread_id": "branch"}}
    graph.invoke({"messages": [HumanMessage("new")]}, branch)
    assert [m.content for m in graph.get_state(branch).values["messages"]] == [*texts[:8], "new", "echo new"]
    saver.prune(["t"])
    assert [m.content for m in graph.get_state(THREAD).values["messages"]] == texts


def test_a_store_is_not_written_to_by_reading(tmp_path):
    path = tmp_path / "new.db"
    saver = KernSaver(SqliteDb(db_file=str(path)))
    assert saver.get_tuple(THREAD) is None
    assert list(saver.list(THREAD)) == []
    assert not path.exists()
