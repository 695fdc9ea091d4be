"""The form of user feedback: questions with options, in a widget, in its fallback, as text, and as a command."""

from __future__ import annotations

import json
from html import unescape

import pytest
from pending_requirements import FEEDBACK, key, load_requirement, pause, run_command

from kern_nb import attach
from kern_nb.db import InMemoryDb
from kern_nb.records import Requirement
from kern_nb.widgets.requirements.widget import inbox_widget

ASK = "0d000000-0000-4000-8000-000000000004"
ANSWER = {"Which city?": ['St. John\'s, "NL"'], "Which days?": ["2", "a=b"], "Anything else?": ["No, thanks"]}


@pytest.fixture
def store():
    with InMemoryDb() as opened:
        attach(opened, name="main")
        pause(opened, FEEDBACK | {"requirement_id": ASK})
        yield opened


def test_the_form_has_the_questions_with_their_options(store):
    (card,) = inbox_widget(store, by="bob").poll("", 20)["runs"][0]["cards"]
    city, days, more = card["questions"]

    assert (card["title"], card["args"], card["fields"], card["raw"]) == ("feedback required", [], [], None)
    assert (city["header"], city["text"], city["several"]) == ("City", "Which city?", False)
    assert city["options"][0] == {"label": "Rome", "description": "warm"}
    assert (days["header"], days["several"], [o["label"] for o in days["options"]]) == ("", True, ["Mon", "2", "a=b"])
    assert more["options"] == []
    json.dumps(card).encode()


def test_a_click_and_its_command_store_the_same_choices(store):
    said = inbox_widget(store, by="bob").answer(key(ASK), ["[1]", "[1, 2]", "No, thanks"], False)
    assert load_requirement(store, ASK).answer == ANSWER
    assert "Answered user_feedback" in said["said"]

    with InMemoryDb() as other:
        attach(other, name="other")
        pause(other, FEEDBACK | {"requirement_id": ASK})
        run_command(said["line"])
        assert load_requirement(other, ASK).answer == ANSWER


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["[]", "[0]", "x"], "No choice for 'City'"),
        (["[0, 1]", "[0]", "x"], "'City' takes one choice, got 2"),
        (["[0]", "[3]", "x"], "4 is not an option of 'Which days?'"),
        (["[-1]", "[0]", "x"], "0 is not an option of 'City'"),
        (["Rome", "[0]", "x"], "must be a list of positions"),
        (["[true]", "[0]", "x"], "must be a list of positions"),
        (["[0]", "[0]", ""], "No choice for 'More'"),
        (["[0]"], "No choice for 'Which days?', 'More'"),
    ],
)
def test_a_wrong_choice_is_refused_and_nothing_is_stored(store, texts, message):
    refused = inbox_widget(store, by="bob").answer(key(ASK), texts, False)["refused"]
    assert message in refused["message"]
    assert load_requirement(store, ASK).status == "pending"


def test_hostile_questions_are_escaped_and_odd_ones_are_left_out(store):
    hostile = "<img src=x onerror=alert(1)>\u202e"
    questions = [{"question": hostile, "options": [{"label": hostile, "description": hostile}, {"label": 7}, "x"]}]
    questions += ["odd", {"options": []}]
    pause(store, {"kind": "user_feedback", "args": {"n": 1}, "extra": {"questions": questions}}, session_id="hostile")
    widget = inbox_widget(store, by="bob")
    (card,) = widget.poll("", 20)["runs"][1]["cards"]
    assert [len(question["options"]) for question in card["questions"]] == [1]
    assert "\u202e" not in json.dumps(card, ensure_ascii=False)
    assert [argument["name"] for argument in card["args"]] == ["n"]
    html = widget.fallback_html() + store.get_session("hostile").runs[0]._repr_html_()
    assert "<img" not in html
    assert "<ol><li><strong>" in html

    odd = Requirement(kind="user_feedback", extra={"questions": 42})
    assert widget.form_data(odd, odd.requirement_id[:8])["questions"] == []


def test_the_fallback_and_the_text_state_the_options(store):
    run = store.get_session("chat").runs[0]
    html = run._repr_html_()
    assert "<ol><li><strong>Rome</strong> — warm</li>" in html
    assert "Several can be chosen." in html
    assert "%kern answer 0d000000 City=CHOICE 'Which days?'=CHOICE More=CHOICE" in unescape(html)
    assert "1 Rome, 2 St. John" in inbox_widget(store, by="bob").fallback_html()
