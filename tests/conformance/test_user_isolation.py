"""With a user_id, every method of a store reads and changes that user's sessions only; without one, all."""

from __future__ import annotations

import inspect

import pytest
from samples import all_rows

from kern_nb.db import SessionStore
from kern_nb.errors import (
    HasBranches,
    KernError,
    OwnerMismatch,
    RequirementNotFound,
    RunNotFound,
    SessionNotFound,
)
from kern_nb.records import Message, Requirement, Run

SECRET = "alice's swordfish"


def run(**fields):
    """A finished run with a secret."""
    messages = [Message(role="user", content=SECRET), Message(role="assistant", content="noted")]
    return Run(input=SECRET, output="noted", messages=messages, **fields)


@pytest.fixture
def shop(store):
    """Two sessions of Alice's, one a branch, with a paused run; one of Bob's; one without a user."""
    store.append_run("of alice", run(run_id="r0", session_state={"secret": SECRET}), user_id="alice")
    store.append_run("of alice", run(run_id="member", parent_run_id="r0"), user_id="alice")
    paused = store.start_run("of alice", input=SECRET, user_id="alice", run_id="r2")
    ask = Requirement(requirement_id="ask", kind="confirmation", tool_name="send", tool_call_id="call")
    store.pause_run(paused.run_id, [ask])
    store.branch("of alice", after=0, new_session_id="of alice too")
    store.append_run("of bob", run(run_id="b0"), user_id="bob")
    store.append_run("of nobody", run(run_id="n0"))
    return store


READS = {
    "get_run": (lambda s, u: s.get_run("r0", user_id=u), RunNotFound),
    "find_run": (lambda s, u: s.find_run("of alice/0", user_id=u), SessionNotFound),
    "find_requirement": (lambda s, u: s.find_requirement("r2", tool_call_id="call", user_id=u), RequirementNotFound),
    "member_runs": (lambda s, u: s.member_runs("r0", user_id=u), RunNotFound),
    "last_runs": (lambda s, u: s.last_runs("of alice", 9, user_id=u), SessionNotFound),
    "last_messages": (lambda s, u: s.last_messages("of alice", 9, user_id=u), SessionNotFound),
    "session_runs": (lambda s, u: s.session_runs("of alice", user_id=u), SessionNotFound),
    "history": (lambda s, u: s.history("of alice", user_id=u), SessionNotFound),
    "history_by_run": (lambda s, u: s.history_by_run("of alice", user_id=u), SessionNotFound),
    "chat_history": (lambda s, u: s.chat_history("of alice", user_id=u), SessionNotFound),
    "unfinished_runs": (lambda s, u: s.unfinished_runs("of alice", upto=9, user_id=u), SessionNotFound),
    "locate": (lambda s, u: s.locate("of alice/0", user_id=u), SessionNotFound),
    "session_family": (lambda s, u: s.session_family("of alice", user_id=u), SessionNotFound),
    "details": (lambda s, u: s.details("of alice", user_id=u), SessionNotFound),
    "branch": (lambda s, u: s.branch("of alice", user_id=u), SessionNotFound),
    "messages_df": (lambda s, u: s.messages_df("of alice", lineage=True, user_id=u), SessionNotFound),
}
"""Calls that read one session: another's is not there."""


def hand_off_and_reply(store, **options):
    """Write into a session, which is handed off for that."""
    store.handoff("of alice", to="someone", **options)
    store.reply("of alice", "hello", **options)


WRITES = {
    "append_run": (lambda s, u: s.append_run("of alice", run(), user_id=u), OwnerMismatch),
    "put_run": (lambda s, u: s.put_run("of alice", run(run_id="r0"), user_id=u), OwnerMismatch),
    "start_run": (lambda s, u: s.start_run("of alice", input="x", user_id=u), OwnerMismatch),
    "update_session_state": (lambda s, u: s.update_session_state("of alice", {"a": 1}, user_id=u), OwnerMismatch),
    "rename_session": (lambda s, u: s.rename_session("of alice", "mine", user_id=u), OwnerMismatch),
    "tag_session": (lambda s, u: s.tag_session("of alice", ["mine"], user_id=u), OwnerMismatch),
    "save_summary": (lambda s, u: s.save_summary("of alice", {"summary": "x"}, user_id=u), OwnerMismatch),
    "add_score": (lambda s, u: s.add_score("of alice", "good", 1, user_id=u), OwnerMismatch),
    "claim": (lambda s, u: s.claim("ask", by="someone", user_id=u), RequirementNotFound),
    "reply": (lambda s, u: hand_off_and_reply(s, user_id=u, by="someone"), RequirementNotFound),
    "handoff": (lambda s, u: s.handoff("of alice", to="someone", by="someone", user_id=u), RequirementNotFound),
    "resolve": (lambda s, u: s.resolve("ask", approve=True, by="someone", user_id=u), RequirementNotFound),
    "claim_run": (lambda s, u: s.claim_run("r2", user_id=u), RunNotFound),
    "cancel_run": (lambda s, u: s.cancel_run("r2", user_id=u), RunNotFound),
    "pop_message": (lambda s, u: s.pop_message("of alice", user_id=u), OwnerMismatch),
    "delete_run": (lambda s, u: s.delete_run("member", detach_branches=True, user_id=u), RunNotFound),
    "delete_runs": (lambda s, u: s.delete_runs("of alice", after=0, user_id=u), OwnerMismatch),
    "rewind_session": (lambda s, u: s.rewind_session("of alice", before=0, user_id=u), OwnerMismatch),
    "clear_session": (lambda s, u: s.clear_session("of alice", detach_branches=True, user_id=u), OwnerMismatch),
    "delete_session": (
        lambda s, u: s.delete_session("of alice", detach_branches=True, user_id=u),
        OwnerMismatch,
    ),
}
"""Calls that change a session, in an order in which each is possible: of another's they change nothing."""

LISTS = {
    "get_session": lambda s, u: [x.session_id for x in (s.get_session("of alice", user_id=u),) if x],
    "list_sessions": lambda s, u: [x.session_id for x in s.list_sessions(user_id=u)],
    "get_sessions": lambda s, u: [x.session_id for x in s.get_sessions(user_id=u)],
    "find_sessions": lambda s, u: s.find_sessions(user_id=u),
    "session_cards": lambda s, u: [c.session_id for c in s.session_cards(["of alice", "of bob"], user_id=u)],
    "requirements": lambda s, u: [r.session_id for r in s.requirements(user_id=u)],
    "sessions_df": lambda s, u: s.sessions_df(user_id=u).session_id,
    "runs_df": lambda s, u: s.runs_df(user_id=u).session_id,
    "messages_df": lambda s, u: s.messages_df(user_id=u).session_id,
    "tool_calls_df": lambda s, u: s.tool_calls_df(user_id=u).session_id,
    "scores_df": lambda s, u: s.scores_df(user_id=u).session_id,
    "table": lambda s, u: s.table("runs", user_id=u)["session_id"].to_pylist(),
    "polars": lambda s, u: s.polars("runs", user_id=u)["session_id"].to_list(),
}
"""Calls that list: others' are left out."""

WITHOUT = {"save_session"}  # whose session says its user
"""Calls about sessions that take no user_id, because what they are given says whose it is."""

OF_A_RUN = {"append_messages", "finish_run", "pause_run", "forget_answers", "release_run"}
"""Calls of the one who started or claimed a run, by its id."""

OF_THE_STORE = {
    "refresh",
    "sql",
    "ingest",
    "check",
    "put_blob",
    "get_blob",
    "close",
    "reopen",
    "exists",
    "write",
    "read_connection",
}
OF_THE_STORE |= {
    "connect",
    "insert",
    "insert_rows",
    "arrow",
    "run_sql",
    "is_conflict",
    "is_there",
    "locked",
    "lock_imports",
}
OF_THE_STORE |= {
    "transaction",
    "require_committed",
    "nth_largest",
    "damaged_values",
    "has_tables",
    "require_harmless",
    "locate_tables",
    "translate_error",
    "after_fork",
}
"""Calls of whoever holds the store: what they read or write is not one user's."""


def test_every_public_method_is_isolated_or_listed():
    """A new method has to be classified."""
    public = {name for name, value in inspect.getmembers(SessionStore, callable) if not name.startswith("_")}

    assert public - OF_THE_STORE - OF_A_RUN - WITHOUT - {*READS, *WRITES, *LISTS} == set()
    for name in {*READS, *WRITES, *LISTS}:
        assert "user_id" in inspect.signature(getattr(SessionStore, name)).parameters


@pytest.mark.parametrize("other", ["bob", "", "Alice", "alice ", "%"])
def test_another_user_reads_nothing(shop, other):
    """The error is that of an unknown session, and neither names nor hints at it."""
    for name, (call, error) in READS.items():
        with pytest.raises(error) as refused:
            call(shop, other)
        said = f"{refused.value} {refused.value.hint}"
        assert SECRET not in said, name
        assert "of alice too" not in said, name
    for name, call in LISTS.items():
        assert not any("alice" in session_id for session_id in call(shop, other)), name


def test_the_owner_and_calls_without_a_user_read_all(shop):
    """A user_id takes nothing away from the owner."""
    for user in ("alice", None):
        for call, _ in READS.values():
            assert call(shop, user) is not None
        shop.add_score("of alice", "good", 1)
        for name, call in LISTS.items():
            if name != "tool_calls_df":
                assert any(session_id == "of alice" for session_id in call(shop, user)), name
        sessions = set(shop.sessions_df(user_id=user).session_id)
        assert ("of bob" in sessions) is (user is None)


def test_another_user_changes_nothing(shop):
    """In no way; every row is as before."""
    before = all_rows(shop)
    for name, (call, error) in WRITES.items():
        for other in ("bob", ""):
            with pytest.raises(error) as refused:
                call(shop, other)
            assert "'alice'" not in f"{refused.value} {refused.value.hint}", name

    assert all_rows(shop) == before


@pytest.mark.parametrize("user", ["alice", None])
def test_the_owner_and_calls_without_a_user_can_write(shop, user):
    """Each method does its work."""
    for call, _ in WRITES.values():
        call(shop, user)

    assert shop.get_session("of alice") is None
    assert shop.get_session("of alice too").user_id == "alice"


def test_a_hint_names_only_sessions_of_the_user(shop):
    """Neither a similar id nor a prefix reveals another's session."""
    shop.append_run("of bobby", run(), user_id="alice")
    for text in ("of alicf", "of al", "of bobb"):
        with pytest.raises(SessionNotFound) as refused:
            shop.locate(text, user_id="nobody known")
        assert "of " not in str(refused.value.hint).replace(text, "")
    assert shop.locate("of bo", user_id="bob").session_id == "of bob"
    assert shop.locate("of bo", user_id="alice").session_id == "of bobby"


def test_a_refused_delete_names_no_branch_of_another_user(store):
    """How a session comes to have branches of two users: it had no user when they were created."""
    store.append_run("trunk", run())
    store.branch("trunk", new_session_id="hers")
    store.branch("trunk", new_session_id="his")
    for session_id, user in (("hers", "alice"), ("his", "bob"), ("trunk", "alice")):
        store.append_run(session_id, run(), user_id=user)

    with pytest.raises(HasBranches) as refused:
        store.delete_session("trunk", user_id="alice")
    assert "'hers'" in str(refused.value)
    assert "his'" not in str(refused.value).replace("'hers'", "")
    assert [card.session_id for card in store.session_family("hers", user_id="alice").items] == ["trunk", "hers"]
    assert [card.session_id for card in store.session_family("his", user_id="bob").items] == ["his"]


def test_a_branch_shows_inherited_rows_after_the_parent_changed_hands(store):
    """Inherited rows only; nothing later of the parent's."""
    store.append_run("trunk", run())
    store.branch("trunk", new_session_id="hers")
    store.append_run("hers", run(), user_id="alice")
    store.append_run("trunk", Run(input="bob's own word", output="bob's own word"), user_id="bob")

    assert len(store.get_session("hers", user_id="alice").runs) == 2
    assert len(store.history("hers", user_id="alice")) == 4
    assert len(store.messages_df("hers", lineage=True, user_id="alice")) == 4
    assert "bob" not in str(store.get_session("hers", user_id="alice"))


def test_the_sessions_user_owns_a_run(store):
    """Whatever user the run's own row has, as after an import."""
    from kern_nb.records import Session

    store.save_session(Session(session_id="of alice", user_id="alice", runs=[run(run_id="odd", user_id="bob")]))

    assert store.get_run("odd", user_id="alice").run_id == "odd"
    with pytest.raises(RunNotFound):
        store.get_run("odd", user_id="bob")
    assert len(store.runs_df(user_id="bob")) == 0


def test_a_run_of_another_session_is_not_a_members_run(store):
    """A run that names another session's run as its parent is not its member's."""
    store.append_run("of alice", run(run_id="team"), user_id="alice")
    store.append_run("of alice", run(run_id="member", parent_run_id="team"), user_id="alice")
    store.append_run("of bob", run(run_id="intruder", parent_run_id="team"), user_id="bob")

    assert [one.run_id for one in store.member_runs("team")] == ["member"]


def test_an_export_of_a_user_has_only_their_sessions(shop, tmp_path):
    """By name another's is not found; of all, only theirs are written."""
    import kern_nb

    with pytest.raises(KernError):
        kern_nb.export("of alice", path=tmp_path / "x.json", store=shop, user_id="bob")
    assert not (tmp_path / "x.json").exists()
    kern_nb.export(path=tmp_path / "all.json", everything=True, store=shop, user_id="bob")
    text = (tmp_path / "all.json").read_text()

    assert "of bob" in text
    assert "alice" not in text.replace(SECRET, "")
