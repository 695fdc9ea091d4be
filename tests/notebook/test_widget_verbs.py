"""The verbs that show a widget: each gives what one call of a script gives."""

from __future__ import annotations

import pytest
from scripted_agents import parrot

from kern_nb.errors import BadUsage


def test_browse_returns_the_session_browser(notebook, chats):
    """Narrowed as the line says, over the store that it names."""
    notebook.run("b = %kern browse --text alp --user bob")
    browser = notebook.shell.user_ns["b"]

    assert type(browser).__name__ == "SessionBrowser"
    assert browser.store is chats
    assert browser.df()["session_id"].tolist() == ["alps"]
    assert browser.selected == []


def test_chat_returns_a_chat_with_an_agent(notebook, chats):
    """By the variable of the agent, in a session that may be there."""
    agent = parrot(notebook)
    chat = notebook.run("%kern chat parrot --session alpha")

    assert type(chat).__name__ == "Chat"
    assert (chat.agent, chat.session_id) == (agent, "alpha")


def test_inbox_and_compare_have_a_widget(notebook, chats):
    """`--widget` shows the same, to click at."""
    shown = notebook.run("%kern compare alpha alps --widget")

    assert [side.label for side in shown.comparison.sides] == ["alpha", "alps"]
    assert notebook.run("%kern inbox --widget --for ann").assignee == "ann"


@pytest.mark.parametrize(
    "line",
    ["browse --status DONE", "chat nobody", "inbox --widget --all", "compare --by model --widget", "browse alpha"],
)
def test_options_that_a_widget_does_not_support_are_refused(notebook, chats, line):
    """In two lines."""
    error, lines = notebook.fails(f"%kern {line}")

    assert isinstance(error, BadUsage)
    assert len(lines) == 2
