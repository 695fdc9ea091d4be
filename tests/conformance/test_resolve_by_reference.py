"""A requirement is referenced by its id, a prefix, its run or its session; an ambiguous reference resolves nothing."""

from __future__ import annotations

import pytest
from paused_runs import a_paused_run, a_requirement, ids, stored_requirement
from samples import a_session, all_rows, load_session

from kern_nb.errors import AmbiguousReference, HasBranches, KernError, RequirementNotFound


def test_a_requirement_is_resolved_by_id_prefix_run_or_session(store):
    """The id, a prefix of it, the run by index, id or prefix, the session and a prefix of that: while it is the only one."""
    a_session(store, "chat 1", runs=1)
    a_paused_run(store, "other", a_requirement("another"), a_requirement("one more"))
    a_paused_run(store, "chat 1", a_requirement("ask-1"), run_id="second run")
    names = ["ask-1", "ask", "chat 1/1", "chat 1/second run", "chat 1/sec", "chat 1/1.1", "chat 1", "ch"]
    for name in names:
        assert store.claim(name, by=name).requirement_id == "ask-1"
        assert store.handoff(name, to="alice", by=name).status == "pending"
    assert store.resolve("chat 1/1", approve=True) == stored_requirement(store, "ask-1")


def test_an_exact_id_takes_precedence_over_a_prefix(store):
    """As with sessions; so each requirement of an inbox can be resolved."""
    a_paused_run(
        store,
        "chat",
        a_requirement("a"),
        a_requirement("ab"),
        a_requirement("A"),
        a_requirement("a%"),
        a_requirement("a\x00"),
    )

    assert store.resolve("a", approve=True).requirement_id == "a"
    assert store.resolve("A", approve=True).requirement_id == "A"
    assert ids(store.requirements()) == ["ab", "a%", "a\x00"]


def test_an_exact_id_takes_precedence_over_a_session_prefix_in_handoffs(store):
    """As in claims and answers."""
    a_paused_run(store, "chat", a_requirement("a"))
    a_session(store, "a1", runs=1)
    a_session(store, "a2", runs=1)

    assert store.claim("a", by="alice").requirement_id == "a"
    assert store.handoff("a", to="bob", by="alice").requirement_id == "a"
    assert store.resolve("a", approve=True).requirement_id == "a"


def test_several_pending_requirements_are_ambiguous(store):
    """A prefix of several ids, a run or a session with several pending: the error names each, and nothing is changed."""
    a_paused_run(store, "chat", a_requirement("ask 1"), a_requirement("ask 2"))
    a_paused_run(store, "more", a_requirement("more 1"))
    a_paused_run(store, "more", a_requirement("more 2"))
    before = all_rows(store)
    for name, several in {"ask": "ask", "chat/0": "ask", "chat": "ask", "more": "more"}.items():
        for call in (
            lambda name=name: store.resolve(name, approve=True),
            lambda name=name: store.claim(name, by="alice"),
        ):
            with pytest.raises(AmbiguousReference) as caught:
                call()
            assert f"{several} 1" in str(caught.value)
            assert f"{several} 2" in str(caught.value)

    assert all_rows(store) == before
    store.resolve("ask 1", approve=True)
    assert store.resolve("chat", approve=True).requirement_id == "ask 2"


def test_a_prefix_of_several_sessions_is_ambiguous(store):
    """Both are pending, so the error is not "none"."""
    a_paused_run(store, "chat 1", a_requirement("a"))
    a_paused_run(store, "chat 2", a_requirement("b"))
    with pytest.raises(AmbiguousReference, match="chat"):
        store.resolve("chat", approve=True)


def test_an_exact_session_takes_precedence_over_an_id_prefix(store):
    """Ids begin with any letter, so a session with a one-letter id would resolve another's requirement."""
    a_paused_run(store, "other", a_requirement("abc"))
    a_paused_run(store, "a", a_requirement("xyz"))
    a_session(store, "ab", runs=1)

    assert store.handoff("a", to="bob").requirement_id == "xyz"
    assert store.resolve("a", approve=True).requirement_id == "xyz"
    assert store.handoff("ab", to="bob").session_id == "ab"


def test_unknown_references_are_refused(store):
    """Unknown ids, sessions, runs and messages, a run without requirements, hostile texts: refused, and nothing is changed."""
    a_paused_run(store)
    a_session(store, "quiet", runs=1)
    before = all_rows(store)
    hostile = [
        "\x00",
        "\ud800",
        "%",
        "_____",
        "'; DROP TABLE agno_sessions; --",
        "x" * 1_000_000,
        "/",
        "//",
        "/0",
        ".",
        "ASK",
    ]
    absent = ["nowhere", "asks", "chat/7", "chat/nothing", "chat/0.99", "chat/-1", "chat/", "quiet", "quiet/0", "chatt"]
    for name in (*absent, *hostile):
        for call in (
            lambda name=name: store.resolve(name, approve=True),
            lambda name=name: store.claim(name, by="alice"),
        ):
            with pytest.raises(RequirementNotFound) as caught:
                call()
            assert caught.value.hint
            assert repr(name)[:50] in str(caught.value)

    assert all_rows(store) == before


def test_a_run_index_out_of_range_is_refused(store):
    """The error is not a driver's."""
    a_paused_run(store)
    for name in ("chat/" + "9" * 20, "chat/0." + "9" * 20, "chat/" + "9" * 5000):
        with pytest.raises(KernError):
            store.resolve(name, approve=True)


def test_an_empty_reference_is_refused(store):
    """An unset variable does not approve the only pending requirement."""
    a_paused_run(store)
    before = all_rows(store)
    for call in (lambda: store.resolve("", approve=True), lambda: store.handoff("", to="bob")):
        with pytest.raises(RequirementNotFound):
            call()

    assert all_rows(store) == before


def test_a_run_reference_resolves_while_it_is_paused(store):
    """When all are resolved, its reference matches none; the id raises AlreadyResolved."""
    a_paused_run(store)
    store.resolve("chat/0", approve=True)
    for name in ("chat/0", "chat"):
        with pytest.raises(RequirementNotFound):
            store.resolve(name, approve=True)


def test_a_branch_does_not_resolve_its_parents_requirements(store):
    """It has the inherited run's requirement; only in its own session it can be resolved, and deletes work."""
    a_paused_run(store)
    store.branch("chat", new_session_id="b")
    before = all_rows(store)
    for name in ("b", "b/0"):
        with pytest.raises(RequirementNotFound):
            store.resolve(name, approve=True)
    assert all_rows(store) == before
    with pytest.raises(HasBranches):
        store.delete_session("chat")
    store.delete_session("b")

    assert store.resolve("chat/0", approve=True).requirement_id == "ask"


def test_a_detached_branch_has_no_pending_requirements(store):
    """The copy of a paused run is interrupted, and its inherited call without a result is unknown."""
    a_paused_run(store)
    store.branch("chat", new_session_id="b")
    store.delete_session("chat", detach_branches=True)
    copy = load_session(store, "b").runs[0]

    assert (copy.status, copy.requirements) == ("INTERRUPTED", [])
    assert [call.status for call in copy.tool_calls] == ["unknown"]
    assert store.requirements(status=None) == store.check().problems == []


def test_a_team_run_reference_includes_members_requirements(store):
    """Its reference includes requirements of its members' runs, at every depth, but not those of other runs."""
    team = store.start_run("chat", input="x", session_type="team")
    member = a_paused_run(store, "chat", a_requirement("of member"), parent_run_id=team.run_id)
    deeper = a_paused_run(store, "chat", a_requirement("deeper"), parent_run_id=member.run_id)
    a_paused_run(store, "chat", a_requirement("apart"))
    store.pause_run(team.run_id, [])

    assert ids(store.requirements(run_id=team.run_id)) == ["of member", "deeper"]
    assert store.resolve(f"chat/{deeper.run_index}", approve=True).requirement_id == "deeper"
    assert store.resolve("chat/0", approve=True).requirement_id == "of member"
    assert ids(store.requirements()) == ["apart"]
