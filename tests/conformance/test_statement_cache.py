"""Stores of one process share their compiled statements."""

from __future__ import annotations

import contextlib

import sqlalchemy as sa
from sqlalchemy.engine.default import CacheStats

from kern_nb.db.schema import shared_tables
from kern_nb.records import Message, Run


@contextlib.contextmanager
def compiled_statements(store):
    """The statements that the engine of a store compiles within the block, instead of taking them from the cache."""
    texts = []

    def record(connection, cursor, text, parameters, context, executemany):
        if context.compiled is not None and not context.isddl and context.cache_hit is not CacheStats.CACHE_HIT:
            texts.append(text)

    sa.event.listen(store.engine, "before_cursor_execute", record)
    yield texts
    sa.event.remove(store.engine, "before_cursor_execute", record)


def use(store):
    """Write and read sessions in the usual ways."""
    store.append_run("chat", Run(input="hi", output="hello", messages=[Message(role="user", content="hi")]))
    run = store.start_run("chat", input="more", messages=[Message(role="user", content="more")])
    store.append_messages(run.run_id, [Message(role="assistant", content="yes")])
    store.finish_run(run.run_id, output="yes")
    store.branch("chat", after=0, new_session_id="fork")
    store.add_score("chat", "good", 1.0)
    assert len(store.get_session("fork").runs) == 1
    assert [len(frame) for frame in (store.sessions_df(), store.runs_df(), store.messages_df())] == [2, 2, 3]
    store.delete_session("fork")


def test_a_second_store_compiles_no_statement(store_factory):
    """The statements of the first store are compiled; a second one of the engine uses them."""
    first, second = store_factory("a"), store_factory("b")
    use(first)
    with compiled_statements(second) as texts:
        use(second)
    assert texts == []


def test_stores_share_tables_by_name_and_schema():
    assert shared_tables("chats") is shared_tables("chats")
    others = [shared_tables("other"), shared_tables("chats", "kern"), shared_tables("chats", indexed=False)]
    assert all(tables is not shared_tables("chats") for tables in others)
