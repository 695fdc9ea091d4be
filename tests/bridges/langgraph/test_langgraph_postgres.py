"""What `PostgresSaver` writes is read as what `SqliteSaver` writes of the same graphs."""

import sqlite3

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")
pytest.importorskip("langgraph.checkpoint.postgres", reason="needs langgraph-checkpoint-postgres")

import psycopg
import psycopg.rows
from graphs import (
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
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.shallow import ShallowPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from kern_nb.db import InMemoryDb, open_store
from kern_nb.foreign import ForeignStore

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df")


def record(saver):
    """Threads with calls, a fork, a removal, nested and parallel nodes, a pause, an answer and an error."""

    def config(name):
        return {"configurable": {"thread_id": name, "user_id": "ann"}}

    chat = chat_graph().compile(checkpointer=saver)
    for text in ("hello", "weather"):
        ask(chat, text, config("chat"))
    before = next(s for s in chat.get_state_history(config("chat")) if s.values["messages"][-1].content == "weather")
    edited = HumanMessage("edited", id=before.values["messages"][-1].id)
    chat.invoke(None, chat.update_state(before.config, {"messages": [edited]}))
    ask(chat, "go on", config("chat"))
    ask(chat, "hello", config("removed"))
    first = chat.get_state(config("removed")).values["messages"][0]
    chat.update_state(config("removed"), {"messages": [RemoveMessage(first.id)]}, as_node="agent")
    with pytest.raises(ValueError, match="no answer"):
        ask(chat, "fail", config("failed"))
    pausing = nested_graph(confirm_and_look_up).compile(checkpointer=saver)
    ask(pausing, "weather", config("paused"))
    ask(pausing, "weather", config("resumed"))
    pausing.invoke(Command(resume="yes"), config("resumed"))
    for name, graph in (("parallel", parallel_graph()), ("join", join_graph())):
        graph.compile(checkpointer=saver).invoke({"items": [], "total": 0}, config(name))


def to_frames(store):
    return {name: getattr(store, name)() for name in FRAMES}


def test_sessions_are_those_of_the_sqlite_file(tmp_path, postgres_database_url):
    url = postgres_database_url.replace("+psycopg", "", 1)
    connection = sqlite3.connect(tmp_path / "c.sqlite", check_same_thread=False)
    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        record(BothSavers(SqliteSaver(connection), saver))
    connection.close()
    with psycopg.connect(url) as reader:
        before = dump(reader)
    with pytest.warns(UserWarning, match="2 records .* cannot be read"):  # the threads without messages
        attached = open_store(postgres_database_url)
    with attached, InMemoryDb() as expected, InMemoryDb() as imported:
        reports = [attached.report, expected.ingest(tmp_path / "c.sqlite", progress=False), imported.ingest(url)]
        assert isinstance(attached, ForeignStore)
        assert len(expected.sessions_df()) == 6
        reasons = [[problem.reason for problem in report.errors] for report in reports]
        assert reasons[0] == reasons[1] == reasons[2]
        for store in (attached, imported):
            for name, frame in to_frames(expected).items():
                assert to_frames(store)[name].equals(frame), name
    with psycopg.connect(url) as reader:
        assert dump(reader) == before


def test_the_latest_state_of_a_thread_is_read(postgres_database_url):
    url = postgres_database_url.replace("+psycopg", "", 1)
    config = {"configurable": {"thread_id": "t"}}
    with psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        with pytest.warns(DeprecationWarning, match="ShallowPostgresSaver"):
            saver = ShallowPostgresSaver(connection)
        saver.setup()
        graph = chat_graph().compile(checkpointer=saver)
        ask(graph, "hello", config)
        ask(graph, "weather", config)
        said = [message.content for message in graph.get_state(config).values["messages"]]
    with open_store(postgres_database_url) as store:
        assert [message or "" for message in store.messages_df()["content"].fillna("")] == said


def test_a_delta_channel_is_replayed(postgres_database_url):
    config = {"configurable": {"thread_id": "t"}}
    with PostgresSaver.from_conn_string(postgres_database_url.replace("+psycopg", "", 1)) as saver:
        saver.setup()
        graph = delta_graph().compile(checkpointer=saver)
        for i in range(8):
            graph.invoke({"messages": [HumanMessage(str(i))]}, config)
    with open_store(postgres_database_url) as store:
        texts = [text for i in range(8) for text in (str(i), f"echo {i}")]
        assert list(store.messages_df()["content"]) == texts


def dump(connection):
    names = [f"checkpoint{name}" for name in ("s", "_blobs", "_writes", "_migrations")]
    return {name: sorted(connection.execute(f"SELECT x::text FROM {name} x").fetchall()) for name in names}
