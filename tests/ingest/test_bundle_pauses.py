"""A paused run in a bundle: it waits in the store that takes it in, is answered there, and is not reset by a later import."""

from __future__ import annotations

import pytest
from bundles import exported, rows_of

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.errors import StillWaiting
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Requirement, Run


@pytest.fixture
def ran():
    """What the tool was called with."""
    return []


@pytest.fixture
def clerk(ran):
    """Make an agent whose tool waits for a confirmation: `clerk(store)`."""

    def refund(order: int) -> str:
        ran.append(order)
        return "refunded"

    def make(store, answers=(), **options):
        tools = [tool(refund, requires_confirmation=True)]
        script = [*answers, "done"]
        return Agent(ScriptedModel(script), id="clerk", db=store, session_id="p", tools=tools, **options)

    return make


@pytest.fixture
def paused(store, clerk):
    """A paused run of the clerk's in a store of each engine."""
    return clerk(store, [call("refund", order=1)]).run("go")


@pytest.fixture
def there(store_factory):
    """Another store of the same engine."""
    return store_factory("there")


def requirement_of(store):
    """What the one run waits for."""
    [asked] = store.requirements(status=None)
    return asked


def test_it_is_answered_and_continued_in_the_other_store(store, there, paused, clerk, ran, tmp_path):
    """It waits there as it did here; the tool runs once, with the answer."""
    there.ingest(exported(store, tmp_path / "b.json"), progress=False)
    run = there.get_session("p").runs[0]

    assert (run.status, [c.status for c in run.tool_calls]) == ("PAUSED", ["started"])
    assert run.model_dump(exclude={"requirements"}) == store.get_run(paused.run_id).model_dump(exclude={"requirements"})
    assert there.check().problems == []
    with pytest.raises(StillWaiting):
        clerk(there).continue_run(run.run_id)
    there.resolve(requirement_of(there).requirement_id, args={"order": 2}, by="ann")
    done = clerk(there).continue_run(run.run_id)

    assert (done.status, done.output, ran) == ("COMPLETED", "done", [2])
    assert [c.status for c in done.tool_calls] == ["completed"]
    assert store.get_run(paused.run_id).status == "PAUSED"


def test_importing_it_again_resets_nothing(store, there, paused, clerk, ran, tmp_path):
    """Not what was claimed, answered or continued since."""
    bundle = exported(store, tmp_path / "b.json")
    there.ingest(bundle, progress=False)
    asked = requirement_of(there).requirement_id
    steps = [
        lambda: None,
        lambda: there.claim(asked, by="ann"),
        lambda: there.resolve(asked, approve=True, by="ann"),
        lambda: clerk(there).continue_run(paused.run_id),
    ]
    for step in steps:
        step()
        before = rows_of(there)
        report = there.ingest(bundle, progress=False)
        assert (report.runs, report.errors, rows_of(there)) == (0, [], before)

    assert ran == [1]


def test_a_run_that_was_continued_there_and_interrupted_is_not_paused_again(store, there, paused, tmp_path):
    """Its tool may have run: it does not wait for the same answer a second time."""
    bundle = exported(store, tmp_path / "b.json")
    there.ingest(bundle, progress=False)
    there.resolve(requirement_of(there).requirement_id, approve=True)
    there.claim_run(paused.run_id)
    there.finish_run(paused.run_id, status="INTERRUPTED")
    there.ingest(bundle, progress=False)

    assert there.get_run(paused.run_id).status == "INTERRUPTED"
    assert requirement_of(there).status == "resolved"


def test_what_the_first_store_did_since_is_taken_over(store, there, paused, clerk, ran, tmp_path):
    """The answer first, then the end; an earlier bundle takes nothing back."""
    first = exported(store, tmp_path / "1.json")
    there.ingest(first, progress=False)
    store.resolve(requirement_of(store).requirement_id, approve=True, by="ann")
    second = exported(store, tmp_path / "2.json")
    there.ingest(second, progress=False)
    asked = requirement_of(there)
    assert (asked.status, asked.resolved_by, there.get_run(paused.run_id).status) == ("resolved", "ann", "PAUSED")
    there.ingest(first, progress=False)
    assert requirement_of(there) == asked

    clerk(store).continue_run(paused.run_id)
    third = exported(store, tmp_path / "3.json")
    for bundle in (third, second, first):
        there.ingest(bundle, progress=False)
        run = there.get_run(paused.run_id)
        assert (run.status, run.output, len(run.messages)) == ("COMPLETED", "done", 4)
    assert ran == [1]


def test_what_was_done_there_stays_where_both_stores_went_on(store, there, paused, clerk, tmp_path):
    """Answered in both, each keeps its own."""
    there.ingest(exported(store, tmp_path / "1.json"), progress=False)
    there.resolve(requirement_of(there).requirement_id, approve=False, note="no", by="bob")
    store.resolve(requirement_of(store).requirement_id, approve=True, by="ann")
    clerk(store).continue_run(paused.run_id)
    there.ingest(exported(store, tmp_path / "2.json"), progress=False)

    assert there.get_run(paused.run_id).status == "PAUSED"
    assert requirement_of(there).resolved_by == "bob"


def test_a_run_under_way_in_the_first_store_is_interrupted_in_the_other(store, there, paused, tmp_path):
    """Also where it waited there before: it is not answered in both."""
    there.ingest(exported(store, tmp_path / "1.json"), progress=False)
    store.resolve(requirement_of(store).requirement_id, approve=True)
    store.claim_run(paused.run_id)
    there.ingest(exported(store, tmp_path / "2.json"), progress=False)
    run = there.get_run(paused.run_id)

    assert (run.status, [c.status for c in run.tool_calls]) == ("INTERRUPTED", ["unknown"])
    assert there.requirements() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("pending", "pending"), ("claimed", "pending"), ("resolved", "resolved"), ("expired", "expired")],
)
def test_each_status_of_what_it_waits_for_arrives(store, there, before, after, tmp_path):
    """A claim was made in the first store, and is not kept; an answer is."""
    fields = {"claimed_by": "ann"} if before == "claimed" else {}
    fields |= {"approved": True, "answer": {"a": 1}, "resolved_by": "ann"} if before == "resolved" else {}
    asked = Requirement(requirement_id="ask", kind="confirmation", status=before, tool_name="t", **fields)
    handed = Requirement(requirement_id="hand", kind="handoff", assignee="bob", note="look", prompt="look")
    store.append_run("p", Run(run_id="r", input="x", status="PAUSED", requirements=[asked, handed]))
    there.ingest(exported(store, tmp_path / "b.json"), progress=False)
    found, hand = there.get_run("r").requirements

    assert (found.status, found.claimed_by, found.answer) == (after, None, fields.get("answer"))
    assert (hand.status, hand.assignee, hand.note, hand.kind) == ("pending", "bob", "look", "handoff")
    assert there.resolve("hand", value="seen", by="bob").status == "resolved"


def test_an_inherited_pause_that_is_copied_does_not_wait_twice(store, there, tmp_path):
    """A branch that is exported without its parent has a copy of the run, which nobody continues."""
    asked = Requirement(kind="confirmation", tool_name="t")
    store.append_run("p", Run(input="x", status="PAUSED", requirements=[asked]))
    store.append_run("p", Run(input="y", output="z"))
    store.branch("p", new_session_id="b")
    there.ingest(exported(store, tmp_path / "b.json", "b"), progress=False)

    assert [run.status for run in there.get_session("b").runs] == ["INTERRUPTED", "COMPLETED"]
    assert there.requirements() == []


@pytest.mark.parametrize("kind", [Team, Workflow])
def test_a_members_or_steps_pause_travels_with_its_leader(store, there, clerk, ran, tmp_path, kind):
    """The leader's run waits for what the member's waits for, in the other store, too."""

    def leader(db, answers):
        member = clerk(None, answers)
        if kind is Workflow:
            return Workflow([member], id="flow", db=db, session_id="w")
        script = [call("delegate_task_to_member", member_id="clerk", task="go")] if answers else []
        return Team([member], ScriptedModel([*script, "all done"]), id="desk", db=db, session_id="w")

    run = leader(store, [call("refund", order=1)]).run("go")
    assert run.status == "PAUSED"
    there.ingest(exported(store, tmp_path / "b.json"), progress=False)
    assert [r.status for r in there.get_session("w").runs] == ["PAUSED", "PAUSED"]
    there.resolve(requirement_of(there).requirement_id, approve=True)
    done = leader(there, []).continue_run(run.run_id)

    assert (done.status, ran) == ("COMPLETED", [1])
    assert [r.status for r in there.get_session("w").runs] == ["COMPLETED", "COMPLETED"]
