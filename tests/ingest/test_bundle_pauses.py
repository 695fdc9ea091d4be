"""A paused run in a bundle stays paused in the other store, is answered there, and is not reset by a later import."""

from __future__ import annotations

import pytest
from bundles import exported, rows_of

from kern_nb import Agent, Team, Workflow
from kern_nb.agent import tool
from kern_nb.errors import StillWaiting
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Requirement, Run


@pytest.fixture
def refunds():
    """What the tool was called with."""
    return []


@pytest.fixture
def clerk(refunds):
    """Make an agent whose tool waits for a confirmation: `clerk(store)`."""

    def refund(order: int) -> str:
        refunds.append(order)
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
def other(store_factory):
    """Another store of the same engine."""
    return store_factory("there")


def requirement_of(store):
    """What the one run waits for."""
    [requirement] = store.requirements(status=None)
    return requirement


def test_an_imported_pause_is_resolved_and_resumed(store, other, paused, clerk, refunds, tmp_path):
    """It is pending in the other store; the tool runs once, with the answer."""
    other.ingest(exported(store, tmp_path / "b.json"), progress=False)
    run = other.get_session("p").runs[0]

    assert (run.status, [c.status for c in run.tool_calls]) == ("PAUSED", ["started"])
    assert run.model_dump(exclude={"requirements"}) == store.get_run(paused.run_id).model_dump(exclude={"requirements"})
    assert other.check().problems == []
    with pytest.raises(StillWaiting):
        clerk(other).continue_run(run.run_id)
    other.resolve(requirement_of(other).requirement_id, args={"order": 2}, by="ann")
    resumed = clerk(other).continue_run(run.run_id)

    assert (resumed.status, resumed.output, refunds) == ("COMPLETED", "done", [2])
    assert [c.status for c in resumed.tool_calls] == ["completed"]
    assert store.get_run(paused.run_id).status == "PAUSED"


def test_a_repeated_import_resets_no_requirement(store, other, paused, clerk, refunds, tmp_path):
    """Claims, answers and resumed runs stay."""
    bundle = exported(store, tmp_path / "b.json")
    other.ingest(bundle, progress=False)
    requirement = requirement_of(other).requirement_id
    steps = [
        lambda: None,
        lambda: other.claim(requirement, by="ann"),
        lambda: other.resolve(requirement, approve=True, by="ann"),
        lambda: clerk(other).continue_run(paused.run_id),
    ]
    for step in steps:
        step()
        before = rows_of(other)
        report = other.ingest(bundle, progress=False)
        assert (report.runs, report.errors, rows_of(other)) == (0, [], before)

    assert refunds == [1]


def test_an_interrupted_resumed_run_is_not_paused_again(store, other, paused, tmp_path):
    """Its tool may have run, so the same requirement is not pending a second time."""
    bundle = exported(store, tmp_path / "b.json")
    other.ingest(bundle, progress=False)
    other.resolve(requirement_of(other).requirement_id, approve=True)
    other.claim_run(paused.run_id)
    other.finish_run(paused.run_id, status="INTERRUPTED")
    other.ingest(bundle, progress=False)

    assert other.get_run(paused.run_id).status == "INTERRUPTED"
    assert requirement_of(other).status == "resolved"


def test_later_answers_of_the_first_store_are_imported(store, other, paused, clerk, refunds, tmp_path):
    """First the answer, then the end; an earlier bundle reverts nothing."""
    first = exported(store, tmp_path / "1.json")
    other.ingest(first, progress=False)
    store.resolve(requirement_of(store).requirement_id, approve=True, by="ann")
    second = exported(store, tmp_path / "2.json")
    other.ingest(second, progress=False)
    requirement = requirement_of(other)
    assert (requirement.status, requirement.resolved_by, other.get_run(paused.run_id).status) == (
        "resolved",
        "ann",
        "PAUSED",
    )
    other.ingest(first, progress=False)
    assert requirement_of(other) == requirement

    clerk(store).continue_run(paused.run_id)
    third = exported(store, tmp_path / "3.json")
    for bundle in (third, second, first):
        other.ingest(bundle, progress=False)
        run = other.get_run(paused.run_id)
        assert (run.status, run.output, len(run.messages)) == ("COMPLETED", "done", 4)
    assert refunds == [1]


def test_answers_in_both_stores_stay_separate(store, other, paused, clerk, tmp_path):
    """Answered in both stores, each keeps its own answer."""
    other.ingest(exported(store, tmp_path / "1.json"), progress=False)
    other.resolve(requirement_of(other).requirement_id, approve=False, note="no", by="bob")
    store.resolve(requirement_of(store).requirement_id, approve=True, by="ann")
    clerk(store).continue_run(paused.run_id)
    other.ingest(exported(store, tmp_path / "2.json"), progress=False)

    assert other.get_run(paused.run_id).status == "PAUSED"
    assert requirement_of(other).resolved_by == "bob"


def test_a_running_run_is_interrupted_in_the_other_store(store, other, paused, tmp_path):
    """Also if it was pending other before, so that it cannot be answered in both."""
    other.ingest(exported(store, tmp_path / "1.json"), progress=False)
    store.resolve(requirement_of(store).requirement_id, approve=True)
    store.claim_run(paused.run_id)
    other.ingest(exported(store, tmp_path / "2.json"), progress=False)
    run = other.get_run(paused.run_id)

    assert (run.status, [c.status for c in run.tool_calls]) == ("INTERRUPTED", ["unknown"])
    assert other.requirements() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("pending", "pending"), ("claimed", "pending"), ("resolved", "resolved"), ("expired", "expired")],
)
def test_requirement_statuses_are_imported(store, other, before, after, tmp_path):
    """A claim of the first store is dropped; an answer is stored."""
    fields = {"claimed_by": "ann"} if before == "claimed" else {}
    fields |= {"approved": True, "answer": {"a": 1}, "resolved_by": "ann"} if before == "resolved" else {}
    requirement = Requirement(requirement_id="ask", kind="confirmation", status=before, tool_name="t", **fields)
    handoff = Requirement(requirement_id="hand", kind="handoff", assignee="bob", note="look", prompt="look")
    store.append_run("p", Run(run_id="r", input="x", status="PAUSED", requirements=[requirement, handoff]))
    other.ingest(exported(store, tmp_path / "b.json"), progress=False)
    imported, imported_handoff = other.get_run("r").requirements

    assert (imported.status, imported.claimed_by, imported.answer) == (after, None, fields.get("answer"))
    assert (imported_handoff.status, imported_handoff.assignee, imported_handoff.note, imported_handoff.kind) == (
        "pending",
        "bob",
        "look",
        "handoff",
    )
    assert other.resolve("hand", value="seen", by="bob").status == "resolved"


def test_a_copied_inherited_pause_is_not_pending(store, other, tmp_path):
    """A branch exported without its parent has a copy of the run, which cannot be resumed."""
    requirement = Requirement(kind="confirmation", tool_name="t")
    store.append_run("p", Run(input="x", status="PAUSED", requirements=[requirement]))
    store.append_run("p", Run(input="y", output="z"))
    store.branch("p", new_session_id="b")
    other.ingest(exported(store, tmp_path / "b.json", "b"), progress=False)

    assert [run.status for run in other.get_session("b").runs] == ["INTERRUPTED", "COMPLETED"]
    assert other.requirements() == []


@pytest.mark.parametrize("kind", [Team, Workflow])
def test_the_pause_of_a_member_or_step_is_imported_with_its_leader(store, other, clerk, refunds, tmp_path, kind):
    """The leader's run has the member's requirement in the other store, too."""

    def leader(db, answers):
        member = clerk(None, answers)
        if kind is Workflow:
            return Workflow([member], id="flow", db=db, session_id="w")
        script = [call("delegate_task_to_member", member_id="clerk", task="go")] if answers else []
        return Team([member], ScriptedModel([*script, "all done"]), id="desk", db=db, session_id="w")

    run = leader(store, [call("refund", order=1)]).run("go")
    assert run.status == "PAUSED"
    other.ingest(exported(store, tmp_path / "b.json"), progress=False)
    assert [r.status for r in other.get_session("w").runs] == ["PAUSED", "PAUSED"]
    other.resolve(requirement_of(other).requirement_id, approve=True)
    resumed = leader(other, []).continue_run(run.run_id)

    assert (resumed.status, refunds) == ("COMPLETED", [1])
    assert [r.status for r in other.get_session("w").runs] == ["COMPLETED", "COMPLETED"]


def test_runs_that_share_a_requirement_id_are_imported(store, other, tmp_path):
    """Each run has its own, also in a store where another run has that id; a later answer replaces its own only."""
    ask = Requirement(requirement_id="call_1", kind="confirmation", tool_name="send")
    first, second = (store.append_run("p", Run(status="PAUSED", requirements=[ask])) for _ in range(2))
    other.append_run("q", Run(status="PAUSED", requirements=[ask]))
    other.ingest(exported(store, tmp_path / "b.json"), progress=False)
    assert [r.session_id for r in other.requirements()] == ["p", "p", "q"]
    store.resolve(second.requirements[0], approve=True)
    other.ingest(exported(store, tmp_path / "c.json"), progress=False)

    assert [r.status for r in other.requirements(status=None)] == ["pending", "resolved", "pending"]
    assert other.requirements(run_id=first.run_id)[0].key == (first.run_id, "call_1")
