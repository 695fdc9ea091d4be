"""`summarize` with a model that fails, is interrupted, or has nowhere to store: what was made stays, nothing is half."""

from __future__ import annotations

import signal
import threading

import pytest
from recording_models import RecordingModel

from kern_nb.db import SqliteDb, open_store
from kern_nb.errors import ReadOnlyStore, SummaryFailed
from kern_nb.operations.summarize import summarize
from kern_nb.records import Message, Run
from kern_nb.text import progress

WAIT_S = 30


def long_past(store, session_id, runs=40):
    """So much that it is told in portions: a run each, of which some ten make one."""
    for n in range(runs):
        said = [Message(role="user", content=f"q{n}. " + "x" * 3_900), Message(role="assistant", content="y" * 3_900)]
        store.append_run(session_id, Run(input=f"q{n}", messages=said))


def asked(model, at=-1):
    """What the model was asked."""
    return model.heard(at)[-1][1]


def test_failing_model_keeps_stored_parts(store):
    """On every engine: of four portions the third fails; the next call tells the third and fourth alone."""
    long_past(store, "chat")
    failing = RecordingModel(["FIRST", "SECOND", ValueError("no summary today")])
    with pytest.raises(SummaryFailed, match="Could not summarize chat: ValueError: no summary today") as failed:
        summarize("chat", store=store, model=failing)
    assert "stored" in failed.value.hint
    kept = store.get_session("chat").summary
    assert kept["summary"] == "SECOND"

    model = RecordingModel()
    found = summarize("chat", store=store, model=model)
    told = "".join(asked(model, n) for n in range(len(model.told)))
    assert "SECOND" in asked(model, 0)
    assert [f"q{n}." in told for n in range(40)] == [n > kept["last_run_index"] for n in range(40)]
    assert (found.last_run_index, found.runs_since) == (39, 0)


def test_empty_answer_is_an_error(db):
    """The old one stays."""
    long_past(db, "chat", 1)
    for answer in ('{"summary": " ", "topics": []}', '{"summary": ""}'):
        with pytest.raises(SummaryFailed, match="empty summary"):
            summarize("chat", store=db, model=RecordingModel([answer]))
    assert db.get_session("chat").summary is None


def test_failure_keeps_other_summaries(db):
    """One that fails ends the call, and says which it was; those that were made are stored and not told again."""
    for name in ("a", "b", "c"):
        long_past(db, name, 1)
        db.append_run(name, Run(messages=[Message(role="user", content=f"I am {name}")]))
    done = threading.Event()

    def answer(messages):
        if "I am b" in messages[-1].content:
            assert done.wait(WAIT_S)
            raise ValueError("not b")
        if "I am a" in messages[-1].content:
            threading.Timer(0.3, done.set).start()
        return "made"

    with pytest.raises(SummaryFailed, match="Could not summarize b"):
        summarize("a", "b", "c", store=db, model=RecordingModel(answer))
    assert db.get_session("a").summary["summary"] == "made"
    assert db.get_session("b").summary is None
    model = RecordingModel()
    found = summarize("a", "b", "c", store=db, model=model)
    assert not any("I am a" in asked(model, n) for n in range(len(model.told)))
    assert len(found.summaries) == 3


def test_overall_summary_fails_separately(db):
    """Each session's summary is there, then, and is not asked for again."""
    for name in ("a", "b"):
        long_past(db, name, 1)

    def answer(messages):
        if messages[-1].content.startswith("Summaries"):
            raise ValueError("too much")
        return "made"

    with pytest.raises(SummaryFailed, match="Could not summarize all sessions together"):
        summarize("a", "b", store=db, model=RecordingModel(answer))
    model = RecordingModel()
    summarize("a", "b", store=db, model=model)
    assert len(model.told) == 1


def test_interrupt_keeps_complete_batches(store):
    """On every engine: KeyboardInterrupt comes at once, what was stored stays, and the next call goes on from there."""
    long_past(store, "chat")
    begun, never = threading.Event(), threading.Event()

    def think(_messages):
        if len(model.told) == 3:
            begun.set()
            never.wait()
        return f"part {len(model.told)}"

    def interrupt():
        begun.wait(WAIT_S)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    model = RecordingModel(think)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        summarize("chat", store=store, model=model)
    thread.join()
    never.set()

    kept = store.get_session("chat").summary
    assert kept["summary"] == "part 2"
    following = RecordingModel()
    assert summarize("chat", store=store, model=following).last_run_index == 39
    assert "part 2" in asked(following, 0)


def test_read_only_store_is_rejected_before_model_call(tmp_path):
    """A summary that is up to date can be had there, and a run's, which is not stored anyway."""
    path = tmp_path / "s.db"
    with SqliteDb(db_file=path) as db:
        long_past(db, "chat", 1)
        long_past(db, "done", 1)
        summarize("done", store=db, model=RecordingModel(["MADE"]))
    model = RecordingModel(["of the run"])
    with open_store(path, read_only=True) as db:
        with pytest.raises(ReadOnlyStore, match="the model was not called") as refused:
            summarize("chat", store=db, model=model)
        assert "--read-only" in refused.value.hint
        assert model.told == []
        assert summarize("done", store=db, model=model).summary == "MADE"
        assert summarize("chat/0", store=db, model=model).summary == "of the run"


def test_session_deleted_during_summary(db):
    """Its summary is told to be lost, and makes no session."""
    long_past(db, "chat", 1)

    def answer(_messages):
        db.delete_session("chat")
        return "too late"

    with pytest.raises(LookupError, match="chat"):
        summarize("chat", store=db, model=RecordingModel(answer))
    assert db.get_session("chat") is None


@pytest.mark.parametrize("shown", [True, False])
def test_progress_in_notebook(db, monkeypatch, shown):
    """One line, updated by the cell's own thread, once it takes longer than a moment; none where it is not wanted."""
    seen = []

    class Handle:
        def update(self, bundle, *, raw):
            seen.append((threading.current_thread(), bundle["text/plain"]))

    def display(bundle, *, raw, display_id):
        Handle().update(bundle, raw=raw)
        return Handle()

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    for name in ("a", "b"):
        long_past(db, name, 1)

    def answer(messages):
        if messages[-1].content.startswith("Summaries"):
            threading.Event().wait(1.0)
        return "made"

    summarize("a", "b", store=db, model=RecordingModel(answer), progress=shown)

    assert bool(seen) == shown
    if shown:
        assert {thread for thread, _ in seen} == {threading.current_thread()}
        assert "2 of 2 summarized, 2 answers" in seen[0][1]
        assert seen[-1][1].startswith("Summarized 2 of 2 in ")
