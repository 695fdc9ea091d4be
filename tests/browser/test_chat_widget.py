"""The chat in JupyterLab: approval in place, branches, streaming while a cell runs, stopping and reopening."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chat_agents import CLERK, RUN_CELL
from harness import write_notebook
from playwright.sync_api import expect
from test_tour import FAINT, READABLE

if TYPE_CHECKING:
    from pathlib import Path

SLOWLY = """
import time
from kern_nb.widgets.chat import widget as module
begin = module.Chat._start
module.Chat._start = lambda *args: (time.sleep(2), begin(*args))[1]
"""
REFUSING = """
def refuse(*args): raise RuntimeError("no room")
module.Chat._start = refuse
"""
KEPT = """text => {
  const [, cell] = window.jupyterapp.shell.currentWidget.content.model.toJSON().cells;
  return [cell.outputs[0].data["text/html"]].flat().join("").includes(text);
}"""


class Talking:
    """A notebook with a chat in its second cell."""

    def __init__(self, open_notebook, folder: Path, *cells: str) -> None:
        self.gate = folder / "gate"
        code = CLERK.format(gate=str(self.gate), db=str(folder / "chat.db"))
        self.notebook = open_notebook(write_notebook(folder / "chat.ipynb", code, "chat(clerk, 'mugs')", *cells))
        self.page = self.notebook.page
        self.cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        self.widget = self.page.get_by_role("region", name="Chat", exact=True)
        self.log = self.widget.get_by_role("log")
        self.message = self.widget.get_by_role("textbox", name="Message to Clerk")
        for index in (0, 1):
            self.run(index)
        expect(self.widget).to_contain_text("Enter to send")

    def run(self, index: int) -> None:
        self.page.evaluate(RUN_CELL, index)

    def say(self, text: str) -> None:
        """Say something, once the last answer is whole: before that, Enter only keeps what is typed."""
        expect(self.widget.get_by_role("button", name="Send")).to_be_enabled()
        self.message.fill(text)
        self.message.press("Enter")

    def line(self, part: str):
        return self.widget.locator("code").filter(has_text=part)


@pytest.fixture
def talking(open_notebook, tmp_path):
    """Open a notebook with a chat, and these cells below it."""
    return lambda *cells: Talking(open_notebook, tmp_path, *cells)


def test_approve_in_place_and_branch(talking):
    """By keyboard only; the branch and a second chat show the same session."""
    chat = talking("chat('clerk', 'mugs')")
    chat.say("Two of my mugs are broken.")
    expect(chat.message).to_have_value("")
    card = chat.widget.get_by_role("article", name="refund, approval required")
    expect(card).to_contain_text("May it be paid back?")
    expect(chat.widget.get_by_role("status").filter(has_text="Clerk is waiting: refund")).to_have_count(1)
    for theme in ("light", "dark"):
        chat.notebook.use_theme(theme)
        assert chat.page.evaluate(FAINT, READABLE) == [], theme
    card.get_by_role("button", name="Edit…").press("Enter")
    amount = card.get_by_role("textbox", name="amount, JSON")
    expect(amount).to_have_value("25.8")
    amount.fill("20")
    card.get_by_role("button", name="Approve as edited").press("Enter")
    expect(chat.log).to_contain_text("Done: 20.00 euros paid back")
    expect(chat.message).to_be_focused()
    expect(chat.line("%kern approve")).to_contain_text("--args '{\"amount\": 20}'")

    # What a tool gave is folded, and text.
    found = chat.log.locator("details").filter(has_text="find_order")
    expect(found.get_by_text("<b onclick")).to_be_hidden()
    found.locator("summary").press("Enter")
    expect(found.get_by_text("<b onclick=alert(1)>sent</b>")).to_be_visible()

    chat.say("unlikely to be **inherited**\n- [docs](https://example.com/)")
    expect(chat.log).to_contain_text("You said: unlikely")

    # What the agent said is Markdown, what a person said is as it was written.
    expect(chat.log.locator("strong").get_by_text("inherited", exact=True)).to_have_count(1)
    expect(chat.log.locator(".kern-c-mine").last).to_contain_text("unlikely to be **inherited**")
    link = chat.log.get_by_role("link", name="docs")
    expect(link).to_have_attribute("href", "https://example.com/")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    chat.log.get_by_role("button", name="Branch from here, after run 0").click()
    expect(chat.line("%kern branch mugs/0")).to_be_visible()
    chat.log.get_by_role("button", name="Switch to branch").press("Enter")
    expect(chat.widget).to_contain_text("mugs, up to run 0")
    expect(chat.log).not_to_contain_text("You said: unlikely")
    chat.say("In the branch")
    expect(chat.log).to_contain_text("You said: In the branch")

    chat.run(2)
    again = chat.cells.nth(2).get_by_role("log")
    expect(again).to_contain_text("Done: 20.00 euros paid back")
    expect(again).to_contain_text("You said: unlikely")
    chat.page.wait_for_function(KEPT, arg="You said: In the branch")
    assert chat.notebook.problems() == []
    assert chat.notebook.foreign == []


def test_response_while_a_cell_runs_and_stop(talking):
    """Typed text is kept; Shift+Enter is a new line. A failed run is retried."""
    chat = talking("import time\nwhile not gate.exists(): time.sleep(0.02)", "' '.join(store.runs_df()['status'])")
    chat.run(2)
    prompt = chat.cells.nth(2).locator(".jp-InputPrompt")
    expect(prompt).to_have_text("[*]:")
    chat.say("Tell me when the gate opens.")
    expect(chat.log).to_contain_text("It is shut")
    chat.message.press_sequentially("One")
    chat.message.press("Shift+Enter")
    chat.message.press_sequentially("two")
    chat.message.press("Enter")
    expect(chat.message).to_have_value("One\ntwo")
    expect(chat.widget).to_contain_text("You can send this after the response.")
    expect(prompt).to_have_text("[*]:")
    chat.gate.touch()
    expect(chat.log).to_contain_text("It is shut and now it is open")
    expect(prompt).to_have_text("[3]:")
    chat.gate.unlink()
    expect(chat.widget.get_by_role("button", name="Send")).to_be_visible()
    chat.message.press("Enter")
    expect(chat.log).to_contain_text("You said: One\ntwo")

    chat.say("The gate again?")
    expect(chat.log.get_by_text("It is shut")).to_have_count(2)
    chat.widget.get_by_role("button", name="Stop").click()
    expect(chat.log).to_contain_text("Stopped.")
    chat.say("unlucky")
    expect(chat.log).to_contain_text("✗ RuntimeError: the line is dead")
    chat.log.get_by_role("button", name="Retry").press("Enter")
    expect(chat.log).to_contain_text("You said: unlucky")
    expect(chat.widget.get_by_role("button", name="Send")).to_be_visible()
    chat.run(3)
    expect(chat.cells.nth(3).locator(".jp-OutputArea")).to_contain_text("COMPLETED COMPLETED CANCELLED COMPLETED")
    assert chat.notebook.foreign == []


def test_reloaded_page_shows_the_response_in_progress(talking):
    """Both the earlier output and the new one are shown."""
    chat = talking()
    chat.say("And the gate?")
    expect(chat.log).to_contain_text("It is shut")
    chat.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    chat.page.reload(wait_until="domcontentloaded")
    expect(chat.log).to_contain_text("It is shut", timeout=60_000)
    expect(chat.widget.get_by_role("button", name="Stop")).to_be_visible()
    chat.gate.touch()
    expect(chat.log).to_contain_text("It is shut and now it is open")
    expect(chat.widget.get_by_role("button", name="Send")).to_be_visible()


def test_input_is_kept_while_a_message_is_sent(talking):
    """A sent message is shown at once, the next one waits, and a refused one is restored."""
    chat = talking(SLOWLY, REFUSING)
    chat.run(2)
    expect(chat.cells.nth(2).locator(".jp-InputPrompt")).to_have_text("[3]:")
    chat.say("first")
    expect(chat.log).to_contain_text("first")
    expect(chat.widget.get_by_role("button", name="Send")).to_be_disabled()
    chat.message.press_sequentially("second")
    chat.message.press("Enter")
    expect(chat.message).to_have_value("second")
    expect(chat.widget).to_contain_text("You can send this after the response.")
    expect(chat.log).to_contain_text("You said: first")
    expect(chat.log.get_by_text("first", exact=True)).to_have_count(1)
    expect(chat.widget).to_contain_text("Enter to send")
    chat.message.press("Enter")
    expect(chat.log).to_contain_text("You said: second")

    chat.run(3)
    expect(chat.cells.nth(3).locator(".jp-InputPrompt")).to_have_text("[4]:")
    chat.say("third")
    expect(chat.widget.get_by_role("alert").first).to_contain_text("no room")
    expect(chat.message).to_have_value("third")
    expect(chat.log).not_to_contain_text("third")
    assert chat.notebook.problems() == []
