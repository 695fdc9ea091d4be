"""A paused run has requirements: each answer is checked and stored once."""

from __future__ import annotations

import numpy as np
import pytest
from paused_runs import FUTURE, PAST, a_paused_run, a_requirement, ids, stored_requirement
from samples import a_run, all_rows, difference, load_session

from kern_nb.errors import (
    AlreadyResolved,
    BadUsage,
    RunClosed,
    RunNotFound,
    UnstorableValue,
)


def test_a_paused_run_has_pending_requirements(store):
    """It is PAUSED, its call stays open, and its requirement is in the run, the session, the inbox and SQL."""
    run = store.start_run("chat", input="x", user_id="alice")
    returned = store.pause_run(
        run.run_id,
        [a_requirement("ask", prompt="may I?", expires_at=FUTURE, extra={"fields": ["to"]})],
        output="waiting",
    )
    paused = store.get_run(run.run_id)

    assert (paused.status, paused.output, paused.finished_at) == ("PAUSED", "waiting", None)
    assert returned == paused.requirements == load_session(store, "chat").runs[0].requirements == store.requirements()
    ask = returned[0]
    assert (ask.session_id, ask.run_id, ask.status, ask.approved, ask.answer) == (
        "chat",
        run.run_id,
        "pending",
        None,
        None,
    )
    assert run.created_at <= ask.created_at < FUTURE == ask.expires_at
    assert (ask.prompt, ask.extra, ask.args) == ("may I?", {"fields": ["to"]}, {"to": "bob", "text": "hi"})
    assert store.sql("SELECT requirement_id, status FROM requirements").values.tolist() == [["ask", "pending"]]
    assert [call.status for call in a_paused_run(store, "other", a_requirement("b")).tool_calls] == ["started"]
    assert store.check().problems == []


ANSWERS = [
    ("confirmation", {"approve": True}, True, None),
    ("confirmation", {"approve": False}, False, None),
    ("confirmation", {"args": {"to": "eve"}}, True, {"to": "eve", "text": "hi"}),
    ("confirmation", {"approve": True, "args": {}}, True, {"to": "bob", "text": "hi"}),
    ("user_input", {"value": {"to": "eve"}}, True, {"to": "eve"}),
    ("user_input", {"args": {"to": "eve"}}, True, {"to": "eve"}),
    ("user_input", {"approve": False}, False, None),
    ("external_execution", {"value": 0}, True, 0),
    ("external_execution", {"value": ""}, True, ""),
    ("external_execution", {"value": False}, True, False),
    ("external_execution", {"approve": True}, True, None),
    ("handoff", {"value": ["done", {"n": 1}]}, True, ["done", {"n": 1}]),
]


def test_an_answer_is_stored_unchanged(store):
    """With who gave it, when, and their note; the other fields are unchanged."""
    run = a_paused_run(store, "chat", *(a_requirement(f"ask {i:02}", kind) for i, (kind, *_) in enumerate(ANSWERS)))
    answered = {"status", "approved", "answer", "note", "resolved_by", "resolved_at"}
    for before, (_, answer, approved, kept) in zip(run.requirements, ANSWERS, strict=True):
        given = store.resolve(before.requirement_id, **answer, note="because", by="alice")

        assert given == stored_requirement(store, before.requirement_id)
        assert (given.status, given.note, given.resolved_by) == ("resolved", "because", "alice")
        assert given.approved is approved
        assert difference(kept, given.answer) is None
        assert given.resolved_at >= before.created_at
        assert given.model_dump(exclude=answered) == before.model_dump(exclude=answered)
    assert store.requirements() == []


WRONG = [
    ("confirmation", {}),
    ("confirmation", {"note": "hm", "by": "alice"}),
    ("confirmation", {"value": 1}),
    ("confirmation", {"approve": True, "value": ""}),
    ("confirmation", {"approve": False, "args": {"to": "eve"}}),
    ("confirmation", {"approve": False, "value": 0}),
    ("user_input", {}),
    ("user_input", {"approve": False, "value": {"to": "eve"}}),
    ("external_execution", {"note": "hm"}),
    ("handoff", {}),
]
OF_THE_WRONG_KIND = [
    ("confirmation", {"approve": 0}),
    ("confirmation", {"approve": "no"}),
    ("confirmation", {"approve": []}),
    ("confirmation", {"args": ["to"]}),
    ("confirmation", {"args": "to"}),
    ("user_input", {"args": ["to"]}),
    ("user_input", {"args": {"to": "eve"}, "value": {"to": "adam"}}),
]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(WRONG, id="unfit"),
        pytest.param(OF_THE_WRONG_KIND, id="kind"),
    ],
)
def test_an_invalid_answer_is_refused(store, wrong):
    """The hint names a valid answer; nothing is changed, and a valid answer is stored afterwards."""
    a_paused_run(store, "chat", *(a_requirement(f"ask {i}", kind) for i, (kind, _) in enumerate(wrong)))
    before = all_rows(store)
    for i, (_, answer) in enumerate(wrong):
        with pytest.raises(BadUsage) as caught:
            store.resolve(f"ask {i}", **answer)
        assert caught.value.hint

    assert all_rows(store) == before
    assert all(store.resolve(f"ask {i}", approve=False).status == "resolved" for i in range(len(wrong)))


def test_a_dataframe_cell_can_be_an_answer(store):
    """numpy's False rejects as Python's does, and its True approves."""
    a_paused_run(store, "chat", a_requirement("a"), a_requirement("b"))

    assert store.resolve("a", approve=np.True_).approved is True
    assert store.resolve("b", approve=np.False_).approved is False


def test_arguments_that_are_not_an_object_can_be_replaced(store):
    """The model's arguments are not JSON, and a person replaces them."""
    a_paused_run(store, "chat", a_requirement("ask", args='{"to": bob'))

    assert store.resolve("ask", args={"to": "bob"}).answer == {"to": "bob"}


def test_an_unstorable_answer_is_refused(store):
    """The requirement stays pending."""
    a_paused_run(store, "chat", a_requirement("ask", "user_input"))
    before = all_rows(store)
    for name in ("value", "args"):
        with pytest.raises(UnstorableValue):
            store.resolve("ask", **{name: {"x": object()}})

    assert all_rows(store) == before


def test_required_arguments_are_required(store):
    """The model's arguments count; an empty text is a value; a rejection needs none."""
    needed = {"args": {"to": "bob"}, "extra": {"required": ["to", "text"]}}
    a_paused_run(store, "chat", a_requirement("a", "user_input", **needed), a_requirement("b", "user_input", **needed))
    before = all_rows(store)
    for answer in ({"value": {"to": "eve"}}, {"args": {"text": None}}, {"value": {}}, {"approve": True}):
        with pytest.raises(BadUsage, match="text"):
            store.resolve("a", **answer)

    assert all_rows(store) == before
    assert store.resolve("a", value={"text": ""}).answer == {"text": ""}
    assert store.resolve("b", approve=False).approved is False


def test_the_first_answer_is_stored(store):
    """Later answers get AlreadyResolved with the first; neither their answer nor their note is stored."""
    a_paused_run(store)
    first = store.resolve("ask", approve=False, note="no", by="alice")
    before = all_rows(store)
    for again in (
        {"approve": True, "by": "bob"},
        {"approve": False, "by": "alice"},
        {"args": {"to": "eve"}},
        {"approve": True, "note": "late"},
    ):
        with pytest.raises(AlreadyResolved, match="rejected by alice"):
            store.resolve("ask", **again)

    assert all_rows(store) == before
    assert stored_requirement(store) == first


def test_an_expired_requirement_cannot_be_resolved(store):
    """Nor by a second attempt; its expiry is stored, and a requirement that has not expired can be resolved."""
    a_paused_run(store, "chat", a_requirement("late", expires_at=PAST), a_requirement("early", expires_at=FUTURE))
    for _ in range(2):
        with pytest.raises(AlreadyResolved, match="expired"):
            store.resolve("late", approve=True, by="alice")

        late = stored_requirement(store, "late")
        assert (late.status, late.approved, late.resolved_by, late.resolved_at) == ("expired", None, None, None)
    assert store.resolve("early", approve=True).approved


def test_requirements_of_an_ended_run_cannot_be_resolved(store):
    """They are expired."""
    for status in ("COMPLETED", "CANCELLED", "ERROR", "REGENERATED"):
        run = a_paused_run(store, "chat", a_requirement(status))
        store.finish_run(run.run_id, status=status)
        before = all_rows(store)
        with pytest.raises(AlreadyResolved, match=status):
            store.resolve(status, approve=True)
        with pytest.raises(RunClosed, match=status):
            store.pause_run(run.run_id, [a_requirement("more")])

        assert all_rows(store) == before


def test_the_inbox_lists_only_resolvable_requirements(store):
    """Requirements that resolve would refuse are not listed as pending."""
    a_paused_run(store, "chat", a_requirement("expired", expires_at=PAST))
    run = a_paused_run(store, "chat", a_requirement("cancelled"))
    store.finish_run(run.run_id, status="CANCELLED")

    assert ids(store.requirements()) == []


def test_an_unknown_or_ended_run_cannot_pause(store):
    """Nothing is stored for it."""
    run = store.append_run("chat", a_run())
    before = all_rows(store)
    with pytest.raises(RunNotFound):
        store.pause_run("nowhere", [a_requirement("ask")])
    with pytest.raises(RunClosed):
        store.pause_run(run.run_id, [a_requirement("ask")])

    assert all_rows(store) == before
