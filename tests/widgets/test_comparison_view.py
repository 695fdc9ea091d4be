"""The calls of the comparison widget: stretches, turns and full texts."""

from __future__ import annotations

import json

import pytest

from kern_nb.records import Message, Run, Session
from kern_nb.widgets.comparison import MAX_ROWS, view

HOSTILE = "<script>alert(1)</script>\u202e\x00\ud83d"


@pytest.fixture
def store(db):
    """Two sessions that begin alike, and a third that says something hostile."""
    for name, answers in (("a", "xyz"), ("b", "xqz"), ("c", ["x", HOSTILE, "z"])):
        runs = [Run(input=f"{n}", output=text) for n, text in enumerate(answers)]
        db.save_session(Session(session_id=name, runs=runs))
    return db


def test_identical_turns_are_folded(store):
    """Each stretch has its first turn, its length, and whether it is identical."""
    found = view("a", "b", store=store).stretches(0)

    assert found["stretches"] == [[0, 3, True, 0], [3, 1, False, 0], [4, 2, True, 0]]
    assert found["parts"] == 3
    assert "have 3 turns in common" in found["said"]


def test_words_of_one_side_are_marked(store):
    """Both sides of a turn have a reference."""
    store.save_session(Session(session_id="long", runs=[Run(input="the price is 20 euros")]))
    store.save_session(Session(session_id="other", runs=[Run(input="the price is 25 euros")]))
    (row,) = view("long", "other", store=store).rows(0, 0, 5)

    assert (row["status"], row["sign"], row["role"]) == ("changed", "≠", "user")
    assert row["a"]["text"] == [(False, "the price is "), (True, "20 "), (False, "euros")]
    assert row["b"]["text"] == [(False, "the price is "), (True, "25 "), (False, "euros")]
    assert row["a"]["place"] == "long/0"


def test_turns_are_limited_per_request(store):
    """There are none beyond the last."""
    store.save_session(Session(session_id="many", runs=[Run(input=f"{n}") for n in range(120)]))
    shown = view("a", "many", store=store)

    assert len(shown.rows(0, 0, 10_000)) == MAX_ROWS
    assert len(shown.rows(0, 100, 10_000)) == len(shown.comparison.turns) - 100
    assert shown.rows(0, 10_000, 10) == []


def test_long_text_is_truncated_and_available_in_full(store):
    """A preview states the number of missing characters; huge texts have a limit."""
    text = "word " * 5_000
    store.append_run("a", Run(messages=[Message(role="user", content=text)]))
    shown = view("a", "b", store=store)
    (last,) = [row for row in shown.rows(0, 0, 50) if row["status"] == "only in a"]

    assert last["a"]["cut"]
    assert last["a"]["text"][-1][1].endswith("more characters")
    assert shown.whole(0, last["turn"], "a") == text


def test_each_contender_is_compared_with_the_baseline(store):
    """By its number; the metrics are sent once."""
    shown = view("a", "b", "c", store=store)

    assert shown.start()["contenders"] == ["b", "c"]
    assert shown.start()["metrics"].count("<table") == 1
    assert [shown.stretches(n)["parts"] for n in (0, 1)] == [3, 3]


def test_hostile_texts_are_sent_as_text(store):
    """Every text is JSON with visible controls, and each command is one line."""
    shown = view("a", "c", store=store)
    sent = json.dumps([shown.start(), shown.stretches(0), shown.rows(0, 0, 50)]).encode()
    (row,) = [row for row in shown.rows(0, 0, 50) if row["status"] != "matched"]

    assert sent
    assert "".join(text for _, text in row["b"]["text"]) == "<script>alert(1)</script>⟨U+202E⟩␀\ufffd"
    assert "<script" not in shown.fallback_html()


@pytest.mark.parametrize("call", [("stretches", 7), ("stretches", -1), ("whole", 0, 99, "a"), ("whole", 0, 0, "z")])
def test_unknown_turn_is_refused(store, call):
    """A stale or forged request gets an error."""
    name, *args = call
    shown = view("a", "b", store=store)

    with pytest.raises(ValueError, match=r"^No (turn|contender) "):
        getattr(shown, name)(*args)


def test_fallback_is_the_comparison(store):
    """A saved notebook shows it without a kernel."""
    shown = view("a", "b", store=store)

    assert shown.fallback_html() == shown.comparison._repr_html_()
    assert repr(shown) == "<ComparisonView a | b>"
