"""Text trees in the widgets: of model messages only, truncated, and complete on request."""

from __future__ import annotations

import pytest
from widget_page import Page

from kern_nb import store_registry
from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Run
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import encode_key
from kern_nb.widgets.browser.widget import browse
from kern_nb.widgets.chat.widget import chat

SHORT = "**Two** of them:\n- a mug <b>\u202e\x00\n- [here](https://example.com)"
LONG = "\n\n".join(f"**{n}.** {'word ' * 60}" for n in range(40))
HUGE = "**bold** " * 20_000
ITEM = "a mug <b>⟨U+202E⟩␀"


@pytest.fixture
def store():
    """A session in which a user and a model say the same."""
    with InMemoryDb() as made:
        messages = [Message(role=role, content=text) for text in (SHORT, LONG, HUGE) for role in ("user", "assistant")]
        messages.append(Message(role="assistant", content="Nothing special,\n  said plainly."))
        made.append_run("chat", Run(input=SHORT, output=LONG, messages=messages))
        store_registry.attach(made)
        yield made


def test_session_browser_gets_trees_of_model_messages_only(store):
    """In addition to the text, as lists of name, children and attributes."""
    shown = Page(browse()).ask("show", key=encode_key("chat"))["transcript"]["runs"][0]["messages"]
    trees = [message.get("tree") for message in shown]

    assert [tree is not None for tree in trees] == [False, True, False, True, False, False, False]
    assert trees[1] == [
        ["p", [["strong", ["Two"], {}], " of them:"], {}],
        ["ul", [["li", [ITEM], {}], ["li", [["a", ["here"], {"href": "https://example.com"}]], {}]], {}],
    ]
    assert "**" not in str(trees[3])
    assert "**0.**" in shown[3]["text"]


def test_long_answer_is_a_preview_and_available_in_full(store):
    """The remaining characters are counted."""
    page = Page(browse())
    shown = page.ask("show", key=encode_key("chat"))["transcript"]["runs"][0]["messages"][3]
    whole = page.ask("text", key=encode_key("chat"), run_index=0, position=3, part="content", number=0)
    users = page.ask("text", key=encode_key("chat"), run_index=0, position=2, part="content", number=0)

    assert str(shown["tree"]).count("word") < transcript_data.PREVIEW_LENGTH / len("word")
    assert shown["left"] > 0
    assert str(whole["tree"]).count("word") == LONG.count("word")
    assert whole["left"] == 0
    assert "tree" not in users


def test_chat_gets_a_tree_of_a_finished_run(store):
    """Streamed text is plain."""
    opened = chat(Agent(ScriptedModel(["**Yes**"]), db=store, id="clerk"), "chat")
    found = opened.poll("")

    assert [m["role"] for m in found["turns"][0]["messages"] if "tree" in m] == ["assistant", "assistant"]
    assert found["turns"][0]["messages"][1]["tree"][0].children[0].name == "strong"
