"""One process claims a paused or interrupted run, when its requirements are resolved."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from paused_runs import FUTURE, PAST, a_paused_run, a_requirement, ids, stored_requirement
from samples import a_run, all_rows, load_session, message_contents

from kern_nb.errors import (
    AlreadyClaimed,
    AlreadyResolved,
    RunClosed,
    RunExists,
    RunNotFound,
    StillWaiting,
    UnstorableValue,
)
from kern_nb.records import Message, Run


def test_a_resolved_run_can_be_claimed(store):
    """It has its messages, its open call and the answer; later messages are appended, and it ends like any run."""
    paused = a_paused_run(store, "chat", a_requirement("ask"), user_id="alice", agent_id="a")
    store.resolve("ask", args={"to": "eve"}, note="not bob", by="alice")
    run = store.claim_run(paused.run_id)

    assert run == store.get_run(paused.run_id)
    assert run.model_dump(exclude={"status", "requirements"}) == paused.model_dump(exclude={"status", "requirements"})
    assert run.status == "RUNNING"
    assert [(r.approved, r.answer, r.note) for r in run.requirements] == [
        (True, {"to": "eve", "text": "hi"}, "not bob")
    ]
    assert [call.status for call in run.tool_calls] == ["started"]
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="call", content="sent")])
    store.append_messages(run.run_id, [Message(role="assistant", content="done")])
    store.finish_run(run.run_id, output="done")
    done = load_session(store, "chat").runs[0]
    assert (done.status, done.output, done.run_index) == ("COMPLETED", "done", 0)
    assert [m.message_index for m in done.messages] == [0, 1, 2, 3]
    assert [(call.status, call.result) for call in done.tool_calls] == [("completed", "sent")]
    assert message_contents(store.history("chat")) == ["send it", None, "sent", "done"]
    with pytest.raises(AlreadyResolved):
        store.resolve("ask", approve=False)


def test_a_run_with_a_pending_requirement_cannot_be_claimed(store):
    """Earlier answers are stored; the error names the pending requirement; a rejection resolves, too."""
    run = a_paused_run(store, "chat", a_requirement("a"), a_requirement("b", "user_input"), a_requirement("c"))
    store.resolve("a", approve=True)
    store.resolve("c", approve=False, note="no")
    before = all_rows(store)
    with pytest.raises(StillWaiting, match=r"chat/0 .*b \(send_mail\)"):
        store.claim_run(run.run_id)
    assert all_rows(store) == before

    store.resolve("chat/0", value={"text": "bye"})
    found = {r.requirement_id: (r.approved, r.answer) for r in store.claim_run(run.run_id).requirements}
    assert found == {"a": (True, None), "b": (True, {"text": "bye"}), "c": (False, None)}


def test_expired_requirements_do_not_block_a_claim(store):
    """It is resumed with the expiry; a requirement that has not expired is pending."""
    run = a_paused_run(store, "chat", a_requirement("late", expires_at=PAST), a_requirement("early", expires_at=FUTURE))
    with pytest.raises(StillWaiting, match="early") as caught:
        store.claim_run(run.run_id)
    assert "late" not in str(caught.value)
    store.resolve("early", approve=True)

    found = {r.requirement_id: (r.status, r.approved) for r in store.claim_run(run.run_id).requirements}
    assert found == {"late": ("expired", None), "early": ("resolved", True)}
    with pytest.raises(AlreadyResolved, match="expired"):
        store.resolve("late", approve=True)


def test_a_team_run_can_be_claimed_when_its_members_are_resolved(store):
    """At every depth."""
    team = store.start_run("chat", input="x", session_type="team")
    member = a_paused_run(store, "chat", a_requirement("b"), parent_run_id=team.run_id)
    a_paused_run(store, "chat", a_requirement("c"), parent_run_id=member.run_id)
    store.pause_run(team.run_id, [a_requirement("a")])
    for name in ("a", "b", "c"):
        with pytest.raises(StillWaiting, match=name):
            store.claim_run(team.run_id)
        store.resolve(name, approve=True)

    assert store.claim_run(team.run_id).status == "RUNNING"


def test_a_claimed_run_can_pause_again(store):
    """With new requirements each time; earlier answers stay in the run."""
    run = a_paused_run(store, "chat", a_requirement("first"))
    store.resolve("first", approve=True)
    store.claim_run(run.run_id)
    store.pause_run(run.run_id, [a_requirement("second", "user_input")])
    with pytest.raises(StillWaiting, match="second"):
        store.claim_run(run.run_id)
    store.resolve("chat/0", value={"text": "x"})

    assert ids(store.claim_run(run.run_id).requirements) == ["first", "second"]


def test_a_running_run_cannot_be_claimed(store):
    """Nor one that has ended or does not exist; nothing is changed."""
    running = store.start_run("chat", input="x")
    completed = store.append_run("chat", a_run())
    paused = a_paused_run(store)
    store.resolve("ask", approve=True)
    store.claim_run(paused.run_id)
    before = all_rows(store)
    for run_id in (running.run_id, paused.run_id):
        with pytest.raises(AlreadyClaimed, match=run_id):
            store.claim_run(run_id)
    with pytest.raises(RunClosed, match="COMPLETED"):
        store.claim_run(completed.run_id)
    for nowhere in ("nowhere", "", "\x00", "\ud800", running.run_id[:8], "chat/0"):
        with pytest.raises(RunNotFound):
            store.claim_run(nowhere)

    assert all_rows(store) == before


def test_a_released_run_is_unchanged(store):
    """It can be claimed again; a run that this process did not claim is not changed."""
    failed, waits = a_paused_run(store, "failed", a_requirement("a")), a_paused_run(store, "waits", a_requirement("b"))
    store.resolve("a", approve=True)
    store.resolve("b", approve=True)
    store.finish_run(failed.run_id, status="ERROR", error="the model is down")
    untouched = a_paused_run(store, "other", a_requirement("other"))
    for run_id in (failed.run_id, waits.run_id):
        before = store.get_run(run_id)
        store.update_session_state(before.session_id, {"n": 1})
        store.claim_run(run_id)
        store.release_run(before)
        assert store.get_run(run_id) == before
        assert store.claim_run(run_id).status == "RUNNING"
    store.release_run(untouched.model_copy(update={"status": "ERROR"}))
    store.release_run(Run(run_id="nowhere"))

    assert store.get_run(untouched.run_id) == untouched
    assert store.check().problems == []


@pytest.mark.parametrize("circle", [["a"], ["a", "b"]])
def test_cyclic_parent_runs_do_not_hang(store, circle):
    """Records can have any parent; listing their requirements terminates."""
    for run_id, parent in zip(circle, circle[1:] + circle[:1], strict=True):
        run = Run(run_id=run_id, parent_run_id=parent, status="PAUSED", requirements=[a_requirement(f"of {run_id}")])
        store.append_run("chat", run)
    sent = []

    def listen(*_):
        sent.append(1)
        assert len(sent) < 200, "it asks for ever"

    sa.event.listen(store.engine, "before_cursor_execute", listen)
    assert ids(store.requirements(run_id="a")) == [f"of {run_id}" for run_id in circle]


def test_a_run_can_be_started_with_an_id(store):
    """With its other fields; an id in use is refused, and nothing is changed."""
    name, extra = "a\x00/\ud800.1", {"note\x00book": ["\ud800", {"cell": 1}]}
    run = store.start_run("chat", input="x", run_id=name, extra=extra, model="m", model_provider="p")
    assert store.get_run(name) == run == load_session(store, "chat").runs[0]
    assert (run.run_id, run.extra, run.model_provider) == (name, extra, "p")
    before = all_rows(store)
    for session_id in ("chat", "other"):
        with pytest.raises(RunExists):
            store.start_run(session_id, input="x", run_id=name)
    with pytest.raises(UnstorableValue):
        store.start_run("chat", input="x", run_id="x" * 1001)
    with pytest.raises(UnstorableValue):
        store.start_run("chat", input="x", extra={"x": object()})
    assert all_rows(store) == before

    store.pause_run(name, [a_requirement("ask")])
    store.resolve("ask", approve=True)
    store.claim_run(name)
    store.finish_run(name, model="n", model_provider="q", duration_s=0.5, time_to_first_token_s=0.25)
    done = store.get_run(name)
    assert (done.model, done.model_provider, done.duration_s, done.time_to_first_token_s) == ("n", "q", 0.5, 0.25)
    assert (done.extra, stored_requirement(store).run_id) == (extra, name)
    with pytest.raises(RunNotFound):
        store.get_run("a")
