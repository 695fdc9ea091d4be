"""`check()` reports every broken invariant, and repairs what can be repaired without guessing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa

from kern_nb.records import Message, Run, ToolCall


def kinds(report):
    return sorted(problem.kind for problem in report.problems)


def start_in_a_process_that_ends(store):
    """Open a run in another process that then ends."""
    run = store.start_run("chat", input="look it up")
    call = ToolCall(tool_call_id="c1", tool_name="search", args={"q": "kern"})
    store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, _, started = store_process(store, run.run_id).split(":")
    r = store.tables.runs
    gone = f"{host}:{ended.pid}:{started}"
    store.write(lambda c: c.execute(r.update().where(r.c.run_id == run.run_id).values(process=gone)))
    return run


def store_process(store, run_id):
    r = store.tables.runs
    with store.connect() as connection:
        return connection.execute(sa.select(r.c.process).where(r.c.run_id == run_id)).scalar_one()


def test_a_valid_store_has_no_problems(store):
    """An empty store is valid, and so is one with runs and branches."""
    assert store.check()
    store.append_run("chat", Run(messages=[Message(role="user", content="hi")]))
    store.branch("chat", new_session_id="what-if")

    report = store.check()

    assert report
    assert repr(report) == "No problems found."


def test_a_running_run_is_not_a_problem(store):
    """A run of a living process is not interrupted."""
    store.start_run("chat", input="hi")

    assert store.check()


def test_a_run_of_a_dead_process_is_reported(store):
    """It is reported as interrupted, and checking changes nothing."""
    run = start_in_a_process_that_ends(store)

    report = store.check()

    assert not report
    assert [(p.kind, p.run_id, p.repaired) for p in report.problems] == [("interrupted", run.run_id, False)]
    assert store.runs_df()["status"].tolist() == ["RUNNING"]


def test_repair_marks_an_interrupted_run_and_runs_no_tool(store):
    """Its messages stay, its status changes, and a started tool becomes unknown."""
    start_in_a_process_that_ends(store)

    assert store.check(repair=True)

    assert store.runs_df()["status"].tolist() == ["INTERRUPTED"]
    assert store.messages_df()["role"].tolist() == ["assistant"]
    assert store.tool_calls_df()["status"].tolist() == ["unknown"]
    assert store.check()


def test_a_run_on_another_host_is_reported_and_not_changed(store):
    """Whether it still runs is unknown here."""
    run = store.start_run("chat", input="hi")
    r = store.tables.runs
    store.write(lambda c: c.execute(r.update().values(process="another-host:1:1")))

    report = store.check(repair=True)

    assert [(p.kind, p.run_id, p.repaired) for p in report.problems] == [("running elsewhere", run.run_id, False)]
    assert store.runs_df()["status"].tolist() == ["RUNNING"]


def test_runs_of_hosts_gone_are_marked_interrupted(store):
    """A replaced container has another name; the report names it and the option."""
    run = store.start_run("chat", input="hi")
    r = store.tables.runs
    store.write(lambda c: c.execute(r.update().values(process="3f2a9c41d0be:1:1")))

    assert "hosts_gone=['3f2a9c41d0be']" in store.check().problems[0].detail
    assert not store.check(repair=True, hosts_gone=["another-host"])
    report = store.check(repair=True, hosts_gone=["3f2a9c41d0be"])

    assert [(p.kind, p.run_id, p.repaired) for p in report.problems] == [("interrupted", run.run_id, True)]
    assert store.runs_df()["status"].tolist() == ["INTERRUPTED"]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda t: t.sessions.delete().where(t.sessions.c.session_id == "chat"), ["no parent", "no session"]),
        (lambda t: t.runs.delete().where(t.runs.c.session_id == "chat"), ["fork beyond the parent", "no run"]),
        (lambda t: t.messages.delete().where(t.messages.c.message_index == 0), ["gap"]),
        (lambda t: t.tool_calls.update().values(status="started"), ["left started"]),
    ],
)
def test_manual_damage_is_reported(store, damage, kind):
    """Rows without their session or run, a branch without its parent, a lost message, a call that never ended."""
    call = ToolCall(tool_call_id="c1", tool_name="f", result="ok")
    messages = [Message(role="user", content="hi"), Message(role="assistant", tool_calls=[call])]
    store.append_run("chat", Run(messages=messages))
    store.branch("chat", new_session_id="what-if")
    store.write(lambda connection: connection.execute(damage(store.tables)))

    report = store.check()

    assert sorted(set(kinds(report))) == kind
    assert set(report.df.columns) == {"kind", "session_id", "run_id", "detail", "repaired"}
