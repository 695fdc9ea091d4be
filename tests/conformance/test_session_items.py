"""Lists and trees of sessions: items in the requested order, trees level by level."""

from __future__ import annotations

import pytest
from samples import a_small_run

from kern_nb.errors import SessionNotFound
from kern_nb.records import Run, Session

ODD = "\x00\ud800 'q' “é”"


def test_an_item_has_the_listed_fields(store):
    """The title, tags and owner; the number of runs; the first input, and the status of the latest own run."""
    store.save_session(
        Session(session_id="chat", agent_id="clerk", user_id="ann", metadata={"tags": ["a", "b"]}, created_at=7)
    )
    store.rename_session("chat", "A title")
    first = store.append_run("chat", a_small_run("what was asked"))
    store.append_run("chat", Run(input="then", status="ERROR"))
    store.append_run("chat", Run(input="a member", parent_run_id=first.run_id))

    (card,) = store.session_cards(["chat"])

    assert (card.session_id, card.title, card.tags, card.owner) == ("chat", "A title", ("a", "b"), "clerk")
    assert (card.user_id, card.created_at) == ("ann", 7)
    assert (card.n_runs, card.first_input, card.status) == (3, "what was asked", "ERROR")


def test_items_keep_the_requested_order(store):
    """Unknown sessions are skipped."""
    for name in "abc":
        store.append_run(name, a_small_run(name))

    assert [card.session_id for card in store.session_cards(["c", "gone", "a", "b"])] == ["c", "a", "b"]
    assert store.session_cards([]) == []


def test_a_session_without_runs_or_title_has_an_item(store):
    """Unknown fields are None."""
    store.save_session(Session(session_id="bare", workflow_id="nightly", session_type="workflow"))
    (card,) = store.session_cards(["bare"])

    assert (card.title, card.tags, card.first_input, card.status, card.n_runs) == (None, (), None, None, 0)
    assert card.owner == "nightly"


def test_items_can_have_any_unicode(store):
    """NUL and lone surrogates included; a long input is cut."""
    store.append_run(ODD, a_small_run(ODD + "x" * 5_000))
    store.rename_session(ODD, ODD)
    store.tag_session(ODD, [ODD])
    (card,) = store.session_cards([ODD])

    assert (card.session_id, card.title, card.tags) == (ODD, ODD, (ODD,))
    assert card.first_input.startswith(ODD)
    assert len(card.first_input) < 500


@pytest.mark.parametrize("tags", ["one", 3, None, {"a": 1}, [1, None, "kept"]])
def test_invalid_tags_are_ignored(store, tags):
    """A source may use the key for something else."""
    store.save_session(Session(session_id="chat", metadata={"tags": tags}))
    (card,) = store.session_cards(["chat"])

    assert card.tags == (("kept",) if isinstance(tags, list) else ())


def test_a_tree_has_the_ancestors_and_their_branches(store):
    """The root, then its branches level by level, for any session of the tree; unrelated sessions are left out."""
    for _ in range(3):
        store.append_run("root", a_small_run())
    store.append_run("stranger", a_small_run())
    store.branch("root", after=0, new_session_id="b")
    store.branch("root", after=1, new_session_id="a")
    store.branch("b", new_session_id="b-of-b")

    for name in ("root", "a", "b", "b-of-b"):
        family = store.session_family(name)
        assert sorted(card.session_id for card in family.items) == ["a", "b", "b-of-b", "root"]
        assert family.items[0].session_id == "root"
        assert family.complete
    assert [card.session_id for card in store.session_family("stranger").items] == ["stranger"]


def test_a_large_tree_is_truncated(store):
    """Ancestors are always included."""
    store.append_run("root", a_small_run())
    for n in range(8):
        store.branch("root", new_session_id=f"b{n}")
    store.branch("b7", new_session_id="last")

    family = store.session_family("last", most=4)

    assert len(family.items) == 4
    assert {"root", "b7", "last"} <= {card.session_id for card in family.items}
    assert not family.complete


def test_an_unknown_session_has_no_tree(store):
    """It is said."""
    store.append_run("chat", a_small_run())
    with pytest.raises(SessionNotFound):
        store.session_family("chta")
