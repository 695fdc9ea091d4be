"""Requirements are listed, stored with their run, deleted with their session, and not changed by a read-only store."""

from __future__ import annotations

import pytest
from paused_runs import FUTURE, PAST, a_paused_run, a_requirement, ids, stored_requirement
from samples import SPECIAL, a_session, all_rows, load_session, rows_naming

from kern_nb.errors import (
    AlreadyResolved,
    KernError,
    RequirementNotFound,
    RunNotFound,
)
from kern_nb.records import Message, Run


@pytest.mark.parametrize("id_", ["x" * 1001, "good"])
def test_a_requirement_with_an_unstorable_id_is_refused(store, id_):
    """The run stays open."""
    run = store.start_run("chat", input="x")
    before = all_rows(store)
    with pytest.raises(KernError):
        store.pause_run(run.run_id, [a_requirement("good"), a_requirement(id_)], session_state={"half": True})

    assert all_rows(store) == before


def test_requirements_and_answers_can_be_any_text(store):
    """NUL, lone surrogates, our own escapes, SQL: in ids, arguments, prompts, names, notes and answers, and as references."""
    texts = [text for text in SPECIAL if text.strip()]
    fields = [{"args": {t: [t]}, "prompt": t, "assignee": t, "tool_name": t, "note": t} for t in texts]
    run = a_paused_run(
        store, "chat", *(a_requirement(t, "user_input", **f) for t, f in zip(texts, fields, strict=True))
    )
    for text in texts:
        # Its own id is exact, though it may be a prefix of another's.
        store.resolve(text, value={text: text}, note=f"{text}!", by=text)
        assert ids(store.requirements(assignee=text, status="resolved")) == [text]
    answered = {r.requirement_id: r for r in store.get_run(run.run_id).requirements}

    for text in texts:
        found = answered[text]
        assert (found.answer, found.note, found.resolved_by) == ({text: text}, f"{text}!", text)
        assert (found.prompt, found.args, found.tool_name) == (text, {text: [text]}, text)


def test_requirements_and_answers_can_be_long(store):
    """A megabyte in the arguments, the prompt, the note and the answer."""
    long = "x\x00\ud800" + "ü" * 1_000_000
    a_paused_run(store, "chat", a_requirement("ask", "external_execution", args={"x": long}, prompt=long))
    answered = store.resolve("ask", value=long, note=long)

    assert answered == stored_requirement(store)
    assert (answered.args, answered.prompt, answered.note, answered.answer) == ({"x": long}, long, long, long)


def test_requirements_are_filtered(store):
    """By session, run, user of the session, assignee and status; oldest first, and by default unresolved ones."""
    first = a_paused_run(store, "of alice", a_requirement("a1", assignee="carol"), a_requirement("a2"), user_id="alice")
    second = a_paused_run(store, "of alice", a_requirement("a3", assignee="Carol"), user_id="alice")
    a_paused_run(store, "of bob", a_requirement("b1", assignee="carol"), user_id="bob")
    a_paused_run(store, "of nobody", a_requirement("n1", expires_at=PAST))
    store.resolve("a1", approve=True)
    store.claim("a2", by="carol")
    with pytest.raises(AlreadyResolved):
        store.resolve("n1", approve=True)

    assert ids(store.requirements()) == ["a2", "a3", "b1"]
    assert ids(store.requirements(status=None)) == ["a1", "a2", "a3", "b1", "n1"]
    assert ids(store.requirements(status="resolved")) == ["a1"]
    assert ids(store.requirements(status=("resolved", "expired"))) == ["a1", "n1"]
    assert ids(store.requirements(status=[])) == []
    assert ids(store.requirements(user_id="alice")) == ["a2", "a3"]
    assert ids(store.requirements(user_id="")) == ids(store.requirements(session_id="of nobody")) == []
    assert ids(store.requirements(session_id="of alice", status=None)) == ["a1", "a2", "a3"]
    assert ids(store.requirements(run_id=first.run_id, status=None)) == ["a1", "a2"]
    assert ids(store.requirements(run_id=second.run_id, assignee="carol")) == []
    assert ids(store.requirements(assignee="carol", status=None)) == ["a1", "b1"]
    assert ids(store.requirements(assignee="Carol")) == ["a3"]
    assert store.requirements(run_id="nowhere") == []


def test_requirements_keep_their_order(store):
    """In the order of the model's calls, whatever their ids."""
    run = a_paused_run(store, "chat", a_requirement("z"), a_requirement("m"), a_requirement("a"))

    assert ids(run.requirements) == ids(store.requirements()) == ["z", "m", "a"]


def test_a_loaded_run_has_its_requirements(store):
    """Resolved and pending ones are read back unchanged, and the pending ones can be resolved."""
    answered = a_requirement(
        "old", status="resolved", approved=False, resolved_by="alice", resolved_at=PAST, created_at=PAST
    )
    run = Run(status="PAUSED", requirements=[answered, a_requirement("new", created_at=FUTURE)])
    returned = store.append_run("chat", run)

    assert (
        returned.requirements
        == store.get_run(run.run_id).requirements
        == load_session(store, "chat").runs[0].requirements
    )
    expected = {"session_id": "chat", "run_id": run.run_id}
    assert returned.requirements == [r.model_copy(update=expected) for r in run.requirements]
    assert ids(store.requirements()) == ["new"]
    store.resolve("chat/0", approve=True)
    with pytest.raises(AlreadyResolved, match="alice"):
        store.resolve("old", approve=True)


def test_a_stored_requirement_has_a_time(store):
    """So that the oldest is first on every engine."""
    store.append_run("chat", Run(status="PAUSED", requirements=[a_requirement("ask")]))

    assert stored_requirement(store).created_at is not None


def test_a_deleted_session_has_no_requirements(store):
    """Its requirements are deleted with it; those of other sessions are kept."""
    a_paused_run(store, "other", a_requirement("kept"))
    kept = all_rows(store)
    a_paused_run(store)
    store.delete_session("chat")

    assert all_rows(store) == kept
    assert rows_naming(store, "chat") == {}
    assert ids(store.requirements()) == ["kept"]
    with pytest.raises(RequirementNotFound):
        store.resolve("ask", approve=True)


def test_a_read_only_store_cannot_resolve(store, store_factory, engine_name):
    """Requirements can be read, but not resolved, claimed, handed off or resumed."""
    run = a_paused_run(store)
    before = all_rows(store)
    if engine_name == "memory":
        store.read_only = True
    else:
        store.close()
    reader = store if engine_name == "memory" else store_factory(read_only=True)

    assert ids(reader.requirements()) == ["ask"]
    for write in (
        lambda: reader.resolve("ask", approve=True),
        lambda: reader.claim("ask", by="alice"),
        lambda: reader.handoff("ask", to="bob"),
        lambda: reader.handoff("chat", to="bob"),
        lambda: reader.claim_run(run.run_id),
        lambda: reader.pause_run(run.run_id, [a_requirement("more")]),
        lambda: reader.append_messages(run.run_id, [Message(role="user")], session_state={"x": 1}),
        lambda: reader.update_session_state("chat", {"x": 1}),
        lambda: reader.save_summary("chat", None),
        lambda: reader.put_blob(b"x"),
    ):
        with pytest.raises(PermissionError, match="read-only"):
            write()
    assert all_rows(reader) == before


def test_an_empty_store_has_no_requirements(store):
    """The error is not a driver's."""
    assert store.requirements() == []
    for call in (
        lambda: store.resolve("ask", approve=True),
        lambda: store.claim("ask", by="x"),
        lambda: store.handoff("ask", to="x"),
    ):
        with pytest.raises(RequirementNotFound, match="ask"):
            call()
    with pytest.raises(RunNotFound):
        store.claim_run("ask")
    a_session(store)
    assert store.requirements(status=None) == []
