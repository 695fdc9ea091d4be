"""The id of a requirement is unique within its run, as the frameworks that number their calls need."""

from __future__ import annotations

import threading

import pytest
from paused_runs import a_paused_run, a_requirement, ids
from samples import load_session, rows_naming

from kern_nb.errors import (
    AlreadyClaimed,
    AlreadyResolved,
    AmbiguousReference,
    RequirementExists,
    RequirementNotFound,
    RunClosed,
)
from kern_nb.records import Requirement, Run


def by_run(store, run):
    """The requirements of a run, whatever their status."""
    return store.requirements(run_id=run.run_id, status=None)


def test_runs_can_have_requirements_of_one_id(store):
    """In one session and in two; each run has its own, and is paused by it alone."""
    first, second = a_paused_run(store), a_paused_run(store)
    third = a_paused_run(store, "other", a_requirement("ask", "user_input"))

    assert [r.key for r in store.requirements()] == [(run.run_id, "ask") for run in (first, second, third)]
    store.resolve(first.requirements[0], approve=True)
    assert [by_run(store, run)[0].status for run in (first, second, third)] == ["resolved", "pending", "pending"]
    assert store.claim_run(first.run_id).status == "RUNNING"
    assert [run.requirements[0].status for run in load_session(store, "chat").runs] == ["resolved", "pending"]
    store.delete_session("other")
    assert rows_naming(store, "other") == {}
    assert len(store.requirements(status=None)) == 2


def test_a_run_has_each_id_once(store):
    """Also one that an earlier pause of the run had."""
    run = a_paused_run(store)
    store.resolve("ask", approve=True)
    store.claim_run(run.run_id)
    with pytest.raises(RequirementExists, match="'ask' of run"):
        store.pause_run(run.run_id, [a_requirement("ask")])

    assert by_run(store, run)[0].status == "resolved"


def test_an_id_of_several_runs_is_refused_with_their_names(store):
    """Each name resolves one; an id of which only one is pending needs no name; a run still names its own."""
    runs = [a_paused_run(store) for _ in range(4)]
    for answer in (
        store.resolve,
        lambda name, approve: store.claim(name, by="x"),
        lambda name, approve: store.handoff(name, to="x"),
    ):
        with pytest.raises(AmbiguousReference, match="several runs") as refused:
            answer("ask", approve=True)
    assert f"{runs[2].run_id}/ask" in str(refused.value)
    assert store.resolve(f"{runs[2].run_id}/ask", approve=True).run_id == runs[2].run_id
    assert store.resolve("chat/1", approve=True).run_id == runs[1].run_id
    assert store.claim(runs[0].requirements[0], by="ann").run_id == runs[0].run_id
    assert store.handoff(runs[3].requirements[0], to="bob").run_id == runs[3].run_id
    store.resolve(runs[0].requirements[0], approve=False, by="ann")

    assert store.resolve("ask", approve=True, by="bob").run_id == runs[3].run_id
    with pytest.raises(AmbiguousReference):
        store.resolve("ask", approve=True)
    with pytest.raises(AlreadyResolved):
        store.resolve(runs[3].requirements[0], approve=True)
    with pytest.raises(RequirementNotFound):
        store.resolve(Requirement(requirement_id="ask", run_id="no run", kind="confirmation"), approve=True)


def test_a_requirement_is_found_by_its_tool_call(store):
    """In the run and in its members' runs; the pending one before answered ones of the same call."""
    a_paused_run(store, "other")
    run = a_paused_run(store, "chat", a_requirement("one"), a_requirement("two", tool_call_id="call 2"))
    assert store.find_requirement(run.run_id, tool_call_id="call 2").requirement_id == "two"
    member = store.start_run("chat", input="x", parent_run_id=run.run_id)
    store.pause_run(member.run_id, [a_requirement("three", tool_call_id="call 3"), a_requirement("four")])
    assert store.find_requirement(run.run_id, tool_call_id="call 3").key == (member.run_id, "three")
    assert store.find_requirement(run.run_id, tool_call_id="call").requirement_id == "one"
    for requirement in store.requirements(run_id=run.run_id):
        store.resolve(requirement, approve=True)
    assert store.find_requirement(run.run_id, tool_call_id="call").status == "resolved"
    store.claim_run(run.run_id)
    store.pause_run(run.run_id, [a_requirement("again")])

    assert store.find_requirement(run.run_id, tool_call_id="call").requirement_id == "again"
    for run_id, call_id in ((run.run_id, "call 4"), ("no run", "call"), (run.run_id, "")):
        with pytest.raises(RequirementNotFound, match="call"):
            store.find_requirement(run_id, tool_call_id=call_id)


def test_feedback_is_requested_and_given(store):
    """A question with options; the answer is a value of any shape."""
    questions = [{"question": "Which?", "options": [{"label": "a"}, {"label": "b"}], "multi_select": True}]
    ask = Requirement(kind="user_feedback", tool_call_id="call", tool_name="ask_user", extra={"questions": questions})
    run = a_paused_run(store, "chat", ask)
    assert store.requirements()[0].extra == {"questions": questions}
    answered = store.resolve(run.requirements[0], value={"Which?": ["b"]}, by="ann")

    assert (answered.kind, answered.approved, answered.answer) == ("user_feedback", True, {"Which?": ["b"]})
    assert store.claim_run(run.run_id).requirements[0] == answered


def test_of_two_resumes_the_second_is_refused(store):
    """Of eight threads that answer and claim, as bridges do before they run a tool, one goes on; later ones are refused, too."""
    run = a_paused_run(store, "chat", a_requirement("call_1", tool_call_id="call_1"))
    resumed, refused = [], []
    start = threading.Barrier(8)

    def resume() -> None:
        start.wait()
        try:
            store.resolve(store.find_requirement(run.run_id, tool_call_id="call_1"), approve=True)
            resumed.append(store.claim_run(run.run_id))
        except (AlreadyResolved, AlreadyClaimed) as error:
            refused.append(error)

    threads = [threading.Thread(target=resume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(resumed), len(refused)) == (1, 7)
    with pytest.raises(AlreadyClaimed):
        store.claim_run(run.run_id)
    store.finish_run(run.run_id, output="sent")
    with pytest.raises(RunClosed):
        store.claim_run(run.run_id)
    with pytest.raises(AlreadyResolved):
        store.resolve(store.find_requirement(run.run_id, tool_call_id="call_1"), approve=True)


def test_appended_runs_can_have_requirements_of_one_id(store):
    """As a framework saves them, answered and pending."""
    answered = a_requirement("call_1", status="resolved", approved=True)
    store.append_run("chat", Run(requirements=[answered]))
    run = store.append_run("chat", Run(status="PAUSED", requirements=[a_requirement("call_1")]))

    assert ids(store.requirements(status=None)) == ["call_1", "call_1"]
    assert store.resolve("call_1", approve=True).run_id == run.run_id
