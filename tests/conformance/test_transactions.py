"""`transaction()`: calls of one thread are committed together or not at all, and cost little more than one write."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from samples import a_run, a_small_run, all_rows, inputs, load_session, message_contents, statements

from kern_nb.db import open_store
from kern_nb.errors import BadUsage, ReadOnlyStore, RunExists, StoreBusy, StoreUnavailable, TransactionFailed
from kern_nb.records import Message, Session, ToolCall

LIMIT_S = 60


def write_live_run(store, session_id="chat", output="done"):
    """Write a run with one tool call as it happens."""
    run = store.start_run(session_id, input="go", messages=[Message(role="user", content="go")])
    call = ToolCall(tool_call_id="c", tool_name="look_up", args={"q": "x"})
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content="result")])
    store.finish_run(run.run_id, output=output, messages=[Message(role="assistant", content=output)])
    return run.run_id


@contextlib.contextmanager
def commits(store):
    """Count the commits of a store."""
    counted = []
    listen = counted.append
    sa.event.listen(store.engine, "commit", listen)
    try:
        yield counted
    finally:
        sa.event.remove(store.engine, "commit", listen)


def test_calls_in_a_block_are_committed_together(store):
    """One commit; what is stored is what separate calls store."""
    store.append_run("chat", a_small_run())
    with commits(store) as counted, store.transaction():
        run_id = write_live_run(store)
        store.add_score("chat", "good", 1, run_id=run_id)
        store.rename_session("chat", "title")
    run = store.get_run(run_id)

    assert len(counted) == 1
    assert (run.run_index, run.status, run.output) == (1, "COMPLETED", "done")
    assert message_contents(run.messages) == ["go", None, "result", "done"]
    assert [(call.status, call.result) for call in run.tool_calls] == [("completed", "result")]
    assert load_session(store, "chat").session_name == "title"
    assert store.check()


def test_an_exception_rolls_all_of_it_back(store):
    """Also the session that the block created; the exception is the block's own."""
    store.append_run("chat", a_small_run())
    before = all_rows(store)

    def block():
        with store.transaction():
            write_live_run(store)
            store.append_run("new", a_run())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()

    assert all_rows(store) == before
    assert store.append_run("chat", a_small_run()).run_index == 1


def test_an_error_of_another_database_is_not_translated(store):
    """An exception of the block's own code is raised as it is, whatever its class."""
    error = sa.exc.OperationalError("SELECT 1", {}, ValueError("theirs"))
    with pytest.raises(sa.exc.OperationalError) as caught, store.transaction():
        raise error

    assert caught.value is error


def test_calls_in_a_block_read_what_it_has_written(store):
    """Records, histories and frames; a frame does not change how later statements run."""
    with store.transaction():
        run_id = write_live_run(store)
        assert store.get_run(run_id).output == "done"
        assert len(store.history("chat")) == 4
        assert len(store.messages_df("chat")) == 4
        store.append_run("chat", a_small_run())
        assert store.runs_df("chat").run_index.tolist() == [0, 1]
        assert [session.session_id for session in store.list_sessions()] == ["chat"]
        assert len(store.get_session("chat").runs) == 2
    assert len(store.runs_df("chat")) == 2


def test_sql_in_a_block_is_refused(store):
    """It has a connection of its own on some engines, and would not see what the block has written."""
    store.append_run("chat", a_small_run())
    with store.transaction():
        with pytest.raises(BadUsage, match=r"sql\(\)") as caught:
            store.sql("SELECT * FROM runs")
        store.append_run("chat", a_small_run())

    assert "after" in caught.value.hint
    assert len(store.sql("SELECT * FROM runs")) == 2


def test_a_nested_block_is_the_same_transaction(store):
    """It commits nothing by itself; an exception that leaves it makes all of it fail, even if it is caught."""
    store.append_run("chat", a_small_run())
    with commits(store) as counted, store.transaction():
        with store.transaction():
            store.append_run("chat", a_small_run())
        assert counted == []
        store.append_run("chat", a_small_run())
    assert len(load_session(store, "chat").runs) == 3

    before = all_rows(store)

    def block():
        with store.transaction():
            store.append_run("chat", a_small_run())
            with contextlib.suppress(ZeroDivisionError), store.transaction():
                raise ZeroDivisionError

    with pytest.raises(TransactionFailed, match="ZeroDivisionError"):
        block()
    assert all_rows(store) == before


def test_after_a_failed_write_the_block_can_only_be_left(store):
    """Its error is raised by the call; later calls, and the end of the block, say that nothing is stored."""
    store.append_run("chat", a_small_run(run_id="r"))
    before = all_rows(store)

    def block():
        with store.transaction():
            store.append_run("chat", a_small_run())
            with pytest.raises(RunExists):
                store.append_run("chat", a_small_run(run_id="r"))
            for call in (lambda: store.get_session("chat"), lambda: store.append_run("chat", a_small_run())):
                with pytest.raises(TransactionFailed, match="RunExists") as caught:
                    call()
                assert "whole block" in caught.value.hint

    with pytest.raises(TransactionFailed) as at_end:
        block()
    assert isinstance(at_end.value.__cause__, RunExists)
    assert all_rows(store) == before
    assert store.append_run("chat", a_small_run()).run_index == 1


def test_a_failed_read_does_not_end_the_block(store):
    """A run that does not exist is not stored yet."""
    with store.transaction():
        with pytest.raises(KeyError):
            store.get_run("r")
        store.append_run("chat", a_small_run(run_id="r"))

    assert store.get_run("r").run_index == 0


def test_a_conflict_is_not_retried_within_the_block(store, monkeypatch):
    """Only part of the transaction would run again. The call raises StoreBusy, and the whole block can be repeated."""
    store.append_run("chat", a_small_run())
    before = all_rows(store)
    conflict = sa.exc.OperationalError("INSERT", {}, psycopg.errors.DeadlockDetected("conflict"))
    is_conflict = store.is_conflict
    monkeypatch.setattr(store, "is_conflict", lambda error: error is conflict or is_conflict(error))
    tries = []

    def failing(_):
        tries.append(1)
        raise conflict

    def block():
        with store.transaction():
            store.append_run("chat", a_small_run())
            store.write(failing, small=True)

    with pytest.raises(StoreBusy):
        block()
    assert len(tries) == 1
    assert all_rows(store) == before


def test_another_threads_calls_are_not_part_of_it(store):
    """Its reads do not see the block's rows, and its writes are committed although the block is rolled back."""
    store.append_run("chat", a_small_run())
    with ThreadPoolExecutor(2) as pool:
        with contextlib.suppress(ZeroDivisionError), store.transaction():
            store.append_run("of the block", a_small_run())
            write = pool.submit(store.append_run, "of another", a_small_run())
            seen = pool.submit(lambda: [session.session_id for session in store.list_sessions()])
            assert "of the block" not in seen.result(LIMIT_S)
            raise ZeroDivisionError
        assert write.result(LIMIT_S).run_index == 0

    assert {session.session_id for session in store.list_sessions()} == {"chat", "of another"}


def test_blocks_of_several_threads_lose_nothing(store):
    """Each thread has its own transaction; run indexes are unique."""
    store.append_run("chat", a_small_run())

    def work(number):
        with store.transaction():
            first = store.append_run("chat", a_small_run(f"{number}")).run_index
            return first, store.get_run(write_live_run(store)).run_index

    with ThreadPoolExecutor(4) as pool:
        indexes = [index for pair in pool.map(work, range(12)) for index in pair]
    assert sorted(indexes) == list(range(1, 25))
    assert store.check()


def test_a_block_of_a_worker_thread_is_not_split_by_group_commits(store):
    """Threads share small writes; those of a block stay in its transaction."""
    store.append_run("chat", a_small_run())
    barrier = threading.Barrier(4)

    def fail():
        barrier.wait(LIMIT_S)
        with contextlib.suppress(ZeroDivisionError), store.transaction():
            store.append_run("rolled back", a_small_run())
            raise ZeroDivisionError

    def write(number):
        barrier.wait(LIMIT_S)
        store.append_run(f"{number}", a_small_run())

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(fail), *(pool.submit(write, number) for number in range(3))]
        for future in futures:
            future.result(LIMIT_S)
    assert {session.session_id for session in store.list_sessions()} == {"chat", "0", "1", "2"}


def test_a_call_of_another_task_is_refused(store):
    """Tasks share a thread: another task's write would be rolled back with the block."""
    store.append_run("chat", a_small_run())

    async def other():
        store.append_run("of another task", a_small_run())

    async def main():
        with store.transaction():
            store.append_run("chat", a_small_run())
            task = asyncio.ensure_future(other())
            await asyncio.sleep(0)
            with pytest.raises(BadUsage, match="Another task"):
                await task
            store.append_run("chat", a_small_run())

    asyncio.run(main())
    assert {session.session_id: len(store.runs_df(session.session_id)) for session in store.list_sessions()} == {
        "chat": 3
    }


def test_an_event_loop_within_a_block_is_part_of_it(store):
    """It runs and ends within the block."""

    async def main():
        return store.append_run("chat", a_small_run()).run_index

    store.append_run("chat", a_small_run())
    with commits(store) as counted, store.transaction():
        assert asyncio.run(main()) == 1
        assert counted == []


def begin_and_return(store):
    """Begin a transaction, and return before its end."""
    block = store.transaction()
    block.__enter__()
    store.append_run("lost", a_small_run())
    return block


def test_a_transaction_left_behind_is_rolled_back(store):
    """Ctrl-C may keep a block from ending: the next call of the thread is not part of it, and the late end says so."""
    store.append_run("chat", a_small_run())
    block = begin_and_return(store)
    assert store.append_run("chat", a_small_run()).run_index == 1

    assert store.get_session("lost") is None
    with pytest.raises(TransactionFailed, match="returned"):
        block.__exit__(None, None, None)
    with store.transaction():
        store.append_run("chat", a_small_run())
    assert [run.run_index for run in load_session(store, "chat").runs] == [0, 1, 2]


def test_a_dropped_transaction_is_rolled_back(store):
    """Nothing keeps it open."""
    store.append_run("chat", a_small_run())
    begin_and_return(store)
    gc.collect()
    with ThreadPoolExecutor(1) as pool:  # another writer does not wait
        assert pool.submit(store.append_run, "chat", a_small_run()).result(LIMIT_S).run_index == 1

    assert store.get_session("lost") is None


def test_an_interrupt_rolls_back(store):
    """As any exception does."""
    store.append_run("chat", a_small_run())
    before = all_rows(store)

    def block():
        with store.transaction():
            store.append_run("chat", a_small_run())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()

    assert all_rows(store) == before
    assert store.append_run("chat", a_small_run()).run_index == 1


def test_the_ids_of_rolled_back_runs_can_be_used(store):
    """What the store remembers of open runs is forgotten with them."""
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        store.append_run("chat", a_small_run())
        store.start_run("chat", input="x", run_id="r")
        raise ZeroDivisionError
    store.start_run("other", input="x", run_id="r")
    store.append_messages("r", [Message(role="user", content="x")])
    store.finish_run("r", output="y")

    assert store.get_run("r").session_id == "other"
    assert message_contents(store.get_run("r").messages) == ["x"]


def test_a_block_creates_the_store(store):
    """As a first write does; a read-only store refuses it before anything happens."""
    with store.transaction():
        pass
    assert store.exists()
    assert store.list_sessions() == []


def test_a_read_only_store_refuses_a_block(persistent_target):
    """By name, with a hint."""
    with open_store(persistent_target) as store:
        store.append_run("chat", a_small_run())
    with open_store(persistent_target, read_only=True) as store:
        with pytest.raises(ReadOnlyStore) as caught, store.transaction():
            raise AssertionError("the block ran")
        assert caught.value.hint
        assert len(store.list_sessions()) == 1


def test_two_processes_can_create_one_session_in_blocks(store, other_store):
    """The second waits for the first, and its run follows."""
    if other_store is store:
        pytest.skip("in memory there is one process")
    store.append_run("other", a_small_run())
    started, finish = threading.Event(), threading.Event()

    def first():
        with store.transaction():
            store.append_run("new", a_small_run("first"))
            started.set()
            finish.wait(LIMIT_S)

    def second():
        with other_store.transaction():
            finish.set() if store.readers_share is False else None
            return other_store.append_run("new", a_small_run("second")).run_index

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert started.wait(LIMIT_S)
        two = pool.submit(second)
        threading.Timer(0.3, finish.set).start()
        one.result(LIMIT_S)
        assert two.result(LIMIT_S) == 1


def test_a_live_run_in_a_block_costs_at_most_three_appends(store):
    """Counted in statements, in a session that exists; `benchmarks/live_run.py` measures the time."""
    store.append_run("chat", a_run())
    write_live_run(store)
    with statements(store) as whole:
        store.append_run("chat", a_run())
    with commits(store) as counted, statements(store) as live, store.transaction():
        write_live_run(store)

    assert len(counted) == 1
    assert len(live) <= 3 * len(whole)


def test_saving_and_deleting_sessions_in_a_block(store):
    """Calls that otherwise take several transactions are part of the block, too."""
    for index in range(3):
        store.append_run("trunk", a_run(f"{index}"))
    store.branch("trunk", new_session_id="branch")
    before = all_rows(store)
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        store.delete_session("trunk", detach_branches=True)
        store.save_session(Session(session_id="saved", runs=[a_small_run()]))
        assert store.get_session("trunk") is None
        assert len(store.get_session("branch").runs) == 3
        raise ZeroDivisionError
    assert all_rows(store) == before


def test_a_statement_that_an_interrupt_left_does_not_prevent_commits(store):
    """IPython keeps the traceback, and with it a statement that has not ended: SQLite waits for its end."""
    store.append_run("chat", a_small_run())
    kept = []

    def interrupted(connection):
        r = store.tables.runs
        kept.append(connection.execute(r.update().values(output="lost").returning(r.c.run_id)))
        raise KeyboardInterrupt

    def block():
        with store.transaction():
            store.write(interrupted)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as caught:
            block()
        kept.append(caught.value)
        with store.transaction():
            store.append_run("chat", a_small_run())
    assert [run.output for run in load_session(store, "chat").runs] == ["answer to hello"] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_not_part_of_the_block(store, engine_name):
    """Its calls use connections of its own or are refused, and the end of the block commits nothing there."""
    store.append_run("chat", a_small_run())
    with store.transaction():
        store.append_run("chat", a_small_run("in the block"))
        child = os.fork()
        if child == 0:
            try:
                os._exit(run_in_child(store, engine_name))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.append_run("chat", a_small_run("also"))

    assert inputs(load_session(store, "chat")) == ["hello", "in the block", "also"]


def run_in_child(store, engine_name):
    """Read the session in the forked child; 0 if the rows of the block are not seen."""
    try:
        return 0 if len(store.get_session("chat").runs) == 1 else 1
    except StoreUnavailable:
        return 0 if engine_name != "postgres" else 2
