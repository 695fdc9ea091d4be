"""Requirements are claimed and handed off; a session without pending requirements is handed off as a whole."""

from __future__ import annotations

import pytest
from paused_runs import PAST, a_paused_run, a_requirement, ids, stored_requirement
from samples import a_session, a_small_run, all_rows, load_session, message_contents

from kern_nb.errors import (
    AlreadyClaimed,
    AlreadyResolved,
    AmbiguousReference,
    BadUsage,
    KernError,
    OwnerMismatch,
    RequirementNotFound,
    SessionHandedOff,
)
from kern_nb.records import Message, Session


def test_a_claimed_requirement_is_resolved_by_its_claimer(store):
    """Others get the claimer's name, whatever they call, and nothing is changed; claiming it again is allowed."""
    a_paused_run(store)
    claimed = store.claim("ask", by="alice")
    assert (claimed.status, claimed.claimed_by, claimed.assignee) == ("claimed", "alice", None)
    assert store.claim("ask", by="alice") == claimed == stored_requirement(store) == store.requirements()[0]
    before = all_rows(store)
    for late in (
        lambda: store.resolve("ask", approve=True),
        lambda: store.resolve("ask", approve=False, by="bob"),
        lambda: store.resolve("ask", approve=False, by=""),
        lambda: store.claim("ask", by="bob"),
        lambda: store.claim("ask", by="Alice"),
        lambda: store.handoff("ask", to="bob"),
        lambda: store.handoff("chat", to="bob", by="bob"),
    ):
        with pytest.raises(AlreadyClaimed, match="alice"):
            late()
    assert all_rows(store) == before

    done = store.resolve("ask", approve=True, by="alice")
    assert (done.status, done.resolved_by, done.claimed_by) == ("resolved", "alice", "alice")
    with pytest.raises(AlreadyResolved, match="alice"):
        store.claim("ask", by="alice")


def test_a_claim_does_not_resolve(store):
    """The requirement stays pending."""
    run = a_paused_run(store)
    store.claim("ask", by="alice")
    with pytest.raises(KernError, match="ask"):
        store.claim_run(run.run_id)

    assert store.get_run(run.run_id).status == "PAUSED"


def test_a_requirement_is_handed_off_to_a_person(store):
    """It is in their inbox with the note; the sender's claim is released; anyone can resolve it."""
    a_paused_run(store, "chat", a_requirement("ask", assignee="alice"), a_requirement("other"))
    store.claim("ask", by="alice")
    handed = store.handoff("ask", to="bob", note="you know better", by="alice")

    assert (handed.status, handed.assignee, handed.claimed_by) == ("pending", "bob", None)
    assert handed == stored_requirement(store) == store.requirements(assignee="bob")[0]
    assert handed.note == "you know better"
    assert store.requirements(assignee="alice") == []
    assert store.handoff("ask", to="carol").note == "you know better"
    assert store.resolve("ask", approve=True, by="bob").note == "you know better"
    assert load_session(store, "chat").runs[0].status == "PAUSED"
    with pytest.raises(AlreadyResolved, match="bob"):
        store.handoff("ask", to="dave")


def test_a_handoff_of_a_run_or_session_reassigns_all_pending(store):
    """In one transaction; resolved requirements are unchanged."""
    a_paused_run(store, "chat", a_requirement("a"), a_requirement("b"), a_requirement("c"))
    a_paused_run(store, "chat", a_requirement("d"))
    store.resolve("b", approve=False)
    assert store.handoff("chat/0", to="bob").requirement_id == "a"
    assert ids(store.requirements(assignee="bob", status=None)) == ["a", "c"]
    assert store.handoff("chat", to="carol").requirement_id == "a"
    assert ids(store.requirements(assignee="carol", status=None)) == ["a", "c", "d"]


def test_a_handoff_of_several_is_atomic(store):
    """If one is claimed by somebody else, the others are not changed."""
    a_paused_run(store, "chat", a_requirement("a"), a_requirement("b"), a_requirement("c"))
    store.claim("b", by="alice")
    before = all_rows(store)
    for by in (None, "bob"):
        with pytest.raises(AlreadyClaimed, match="alice"):
            store.handoff("chat/0", to="bob", by=by)

    assert all_rows(store) == before
    store.handoff("chat/0", to="bob", by="alice")
    assert ids(store.requirements(assignee="bob")) == ["a", "b", "c"]


def test_a_session_is_handed_off_to_a_person(store):
    """A run of the session's agent and user, with the note as its input and the session's state, is paused for them."""
    store.append_run(
        "chat", a_small_run(agent_id="a", team_id="t", user_id="alice", run_type="team", session_state={"n": 1})
    )
    handed = store.handoff("chat", to="bob", note="please call her", by="carol")
    run = store.get_run(handed.run_id)

    assert (handed.kind, handed.status, handed.assignee, handed.prompt) == (
        "handoff",
        "pending",
        "bob",
        "please call her",
    )
    assert handed.extra == {"from": "carol"}
    assert run.requirements == [handed] == store.requirements(assignee="bob", user_id="alice")
    assert (run.session_id, run.run_index, run.status, run.input) == ("chat", 1, "PAUSED", "please call her")
    assert (run.agent_id, run.team_id, run.user_id, run.run_type) == ("a", "t", "alice", "team")
    assert message_contents(run.messages) == ["please call her"]
    assert run.session_state == {"n": 1}
    assert load_session(store, "chat").user_id == "alice"
    assert store.check().problems == []

    store.resolve("chat", value="I called her", by="bob")
    assert store.claim_run(run.run_id).requirements[0].answer == "I called her"
    store.append_messages(run.run_id, [Message(role="assistant", content="good")])
    store.finish_run(run.run_id, output="good", session_state={"n": 2})
    assert (load_session(store, "chat").runs[1].output, load_session(store, "chat").session_state) == ("good", {"n": 2})
    assert store.append_run("chat", a_small_run()).run_index == 2
    with pytest.raises(OwnerMismatch):
        store.append_run("chat", a_small_run(), user_id="bob")


def test_a_branch_is_handed_off_without_its_parent(store):
    """Its run index follows the branch point; the parent is unchanged."""
    a_session(store, "chat", runs=3)
    store.branch("chat", after=1, new_session_id="b")
    handed = store.handoff("b", to="bob")

    assert store.get_run(handed.run_id).run_index == 2
    assert handed.prompt
    assert len(load_session(store, "chat").runs) == 3
    assert store.requirements(session_id="chat") == []
    assert store.handoff("b/2", to="carol").requirement_id == handed.requirement_id


def test_a_second_session_handoff_adds_no_requirement(store):
    """The second handoff reassigns the requirement."""
    a_session(store, runs=1)
    first = store.handoff("chat", to="bob", note="a")
    second = store.handoff("chat", to="carol", note="b")

    assert second == first.model_copy(update={"assignee": "carol", "note": "b"})
    assert len(load_session(store, "chat").runs) == 2


def test_an_unknown_reference_cannot_be_handed_off(store):
    """Nor an ambiguous one; nothing is changed."""
    a_session(store, "chat 1", runs=1)
    a_session(store, "chat 2", runs=1)
    before = all_rows(store)
    for name in ("nowhere", "chat 1/7", "chat 1/0.99", "\x00", "\ud800", "%", "x" * 100_000):
        with pytest.raises(RequirementNotFound):
            store.handoff(name, to="bob")
    with pytest.raises(AmbiguousReference):
        store.handoff("chat", to="bob")

    assert all_rows(store) == before


def test_assignees_and_notes_can_be_any_text(store):
    """Similar names are different people."""
    texts = [
        "\x00",
        "a\x00b",
        "\ud800",
        "\udfff",
        "\x10d800",
        "e\u0301",
        "\u00e9",
        "%",
        "'; DROP TABLE agno_sessions; --",
        " ",
    ]
    for i, text in enumerate(texts):
        store.save_session(Session(session_id=f"s{i}"))
        handed = store.handoff(f"s{i}", to=text, note=text, by=text)
        assert store.requirements(assignee=text) == [handed]
        assert store.get_run(handed.run_id).input == text == handed.prompt
        store.claim(handed.requirement_id, by=text)
        with pytest.raises(AlreadyClaimed):
            store.resolve(handed.requirement_id, value=1, by=texts[i - 1])
        assert store.resolve(handed.requirement_id, value=1, by=text).resolved_by == text


@pytest.mark.parametrize("how", ["expired", "cancelled"])
def test_resolved_requirements_can_be_neither_claimed_nor_handed_off(store, how):
    """The new assignee could not resolve it."""
    run = a_paused_run(store, "chat", a_requirement("ask", expires_at=PAST if how == "expired" else None))
    if how == "cancelled":
        store.finish_run(run.run_id, status="CANCELLED")
    with pytest.raises(KernError):
        store.claim("ask", by="alice")
    with pytest.raises(KernError):
        store.handoff("ask", to="bob")


def test_no_run_starts_in_a_session_that_is_handed_off(store):
    """The error names the person. Members' runs and other sessions are free, and so is this one once it is back."""
    a_session(store, runs=1)
    requirement = store.handoff("chat", to="carol")
    before = all_rows(store)
    with pytest.raises(SessionHandedOff, match="'chat' is handed off to carol"):
        store.start_run("chat", input="hello")
    assert all_rows(store) == before

    store.start_run("chat", input="a member's", parent_run_id=requirement.run_id)
    store.start_run("other", input="hello")
    store.branch("chat", after=0, new_session_id="what-if")
    store.start_run("what-if", input="hello")
    store.resolve("chat/1", value="done", by="carol")
    assert store.start_run("chat", input="hello").status == "RUNNING"


def test_a_pending_requirement_blocks_a_session_that_is_handed_off_as_a_whole(store):
    """Only then: assigning the requirement itself to a person leaves the session with its agent."""
    a_paused_run(store, "chat", a_requirement("ask"))
    store.handoff("ask", to="carol")
    store.start_run("chat", input="hello")
    store.handoff("chat", to="dan")
    with pytest.raises(SessionHandedOff, match="dan"):
        store.start_run("chat", input="hello")
    store.claim("ask", by="eve")
    with pytest.raises(SessionHandedOff, match="eve"):
        store.start_run("chat", input="hello")
    store.resolve("ask", approve=True, by="eve")
    store.start_run("chat", input="hello")


def test_an_expired_handoff_blocks_no_run(store):
    a_paused_run(store, "chat", a_requirement("ask", kind="handoff", expires_at=PAST))
    store.start_run("chat", input="hello")


def test_an_interrupted_run_is_not_resumed_in_a_session_that_is_handed_off(store):
    """It is resumed when the session is back."""
    run = store.start_run("chat", input="hello")
    store.finish_run(run.run_id, status="INTERRUPTED")
    store.handoff("chat", to="carol")
    with pytest.raises(SessionHandedOff, match="carol"):
        store.claim_run(run.run_id)
    store.resolve("chat/1", approve=True)
    assert store.claim_run(run.run_id).status == "RUNNING"


def test_the_person_writes_messages_and_files(store):
    """They are the paused run's; the file is in the session's state, beside those that it had."""
    a_session(store, runs=1)
    store.update_session_state(
        "chat", {"n": 1, "workspace": {"old.txt": {"sha256": store.put_blob(b"old"), "size": 3}}}
    )
    store.handoff("chat", to="carol", note="please look")
    store.reply("chat", "I am on it")
    (message,) = store.reply("chat/1", "See the file", files={"notes/a.txt": "text", "b.bin": b"\x00"}, by="dan")

    assert message.message_index == 2
    assert message_contents(load_session(store, "chat").runs[1].messages) == [
        "please look",
        "carol: I am on it",
        "dan: See the file",
    ]
    state = load_session(store, "chat").session_state
    assert (state["n"], sorted(state["workspace"])) == (1, ["b.bin", "notes/a.txt", "old.txt"])
    assert store.get_blob(state["workspace"]["notes/a.txt"]["sha256"]).content == b"text"


def test_a_reply_that_is_refused_writes_nothing(store):
    a_session(store, runs=1)
    a_paused_run(store, "asked", a_requirement("ask"))
    a_session(store, "alice", user_id="alice", runs=1)
    store.handoff("chat", to="carol")
    store.handoff("alice", to="carol")
    store.claim("chat/1", by="carol")
    before = all_rows(store)
    for error, reply in (
        (AlreadyClaimed, lambda: store.reply("chat", "x", by="dan")),
        (BadUsage, lambda: store.reply("chat", "x", files={"../x": b""}, by="carol")),
        (BadUsage, lambda: store.reply("ask", "x")),
        (RequirementNotFound, lambda: store.reply("nobody", "x")),
        (RequirementNotFound, lambda: store.reply("alice", "x", user_id="bob")),
    ):
        with pytest.raises(error):
            reply()
    assert all_rows(store) == before
    store.resolve("chat", value="done", by="carol")
    with pytest.raises((AlreadyResolved, RequirementNotFound)):
        store.reply("chat", "too late", by="carol")
