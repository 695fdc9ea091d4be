"""The inbox in JupyterLab: by mouse and keyboard, refreshed automatically, used by two people at once."""

from __future__ import annotations

import re
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from chat_agents import CLERK, RUN_CELL
from harness import write_notebook
from playwright.sync_api import expect
from test_tour import FAINT, READABLE

if TYPE_CHECKING:
    from pathlib import Path

PAUSED = """
clerk.run("Two mugs are broken.", session_id="mugs")
clerk.run("Two plates are broken.", session_id="plates")
"""
ELSEWHERE = """
from kern_nb import SqliteDb
from kern_nb.records import Message, Requirement, ToolCall
store = SqliteDb(db_file={db!r})
run = store.start_run("elsewhere", input="<i>from another process</i>", agent_id="other")
call = ToolCall(tool_call_id="c", tool_name="book", args=dict(seats=2))
store.append_messages(run.run_id, [Message(role="assistant", tool_calls=[call])])
ask = Requirement(kind="user_input", tool_name="book", args=dict(seats=2), tool_call_id="c", extra=dict(fields=["city"]))
store.pause_run(run.run_id, [ask])
"""
ASKING = """
from pydantic_ai import Agent, CallDeferred, DeferredToolRequests

money = dict(question="How do you want it?", header="Money", options=["transfer", dict(label="voucher", description="plus 10 %")])
days = dict(question="Which days?", header="Days", options=["Mon", "Tue", "Wed"], multi_select=True)

async def think(messages, info):
    last = messages[-1].parts[-1]
    if last.part_kind == "tool-return":
        return ModelResponse(parts=[TextPart(f"{last.content['Money'][0]} on {' and '.join(last.content['Days'])}")])
    return ModelResponse(parts=[ToolCallPart("ask", dict(questions=[money, days]))])

guide = Agent(FunctionModel(think), name="guide", output_type=[str, DeferredToolRequests])

@guide.tool_plain
def ask(questions: list[dict]) -> str:
    raise CallDeferred(kind="question")

kern_nb.attach_agent(guide)
await guide.run("I would like my money back.", conversation_id="money")
"""
HOSTILE = """
from kern_nb.records import Message, Requirement, Run, ToolCall
bad = "**b** [x](javascript:window.hurt=1) ![p](http://127.0.0.1:9/spy.png) <img src=x onerror='window.hurt = 1'>\\u202e\\x00</textarea></script><script>window.hurt = 1</script>" + "x" * 700
clerk.name = bad
run = store.start_run(bad, input=bad, agent_id=bad)
call = ToolCall(tool_call_id="c", tool_name=bad, args={bad: bad, "n": [bad]})
store.append_messages(run.run_id, [Message(role="user", content=bad), Message(role="assistant", content=bad, tool_calls=[call])])
asked = dict(tool_name=bad, args=call.args, prompt=bad, note=bad, assignee=bad)
more = [Requirement(kind="user_input", extra=dict(fields=[bad]), **asked), Requirement(kind="handoff", **asked)]
store.pause_run(run.run_id, [Requirement(kind="confirmation", tool_call_id="c", **asked), *more])
store.append_run(bad, Run(status="ERROR", error=bad, messages=[Message(role=bad, content=bad)]))
chat(clerk, bad)
"""
UNHARMED = """() => {
  const widgets = [...document.querySelectorAll(".kern-w")];
  const wide = widgets.filter((one) => one.scrollWidth > one.clientWidth + 1 || one.clientWidth > one.parentElement.clientWidth + 1);
  return [window.hurt ?? 0, document.querySelectorAll(".kern-w img, .kern-w script").length, wide.length, widgets.length];
}"""
UNSEEN = """() => {
  Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Clicking:
    """A notebook with an inbox in its third cell."""

    def __init__(self, open_notebook, folder: Path, *, paused: str, by: str) -> None:
        self.db = str(folder / "inbox.db")
        self.gate = folder / "gate"
        code = CLERK.format(gate=str(self.gate), db=self.db)
        waiting = "import time\nwhile not gate.exists(): time.sleep(0.02)"
        cells = (code, paused, f"inbox_widget(by={by!r})", waiting)
        self.notebook = open_notebook(write_notebook(folder / f"{by}.ipynb", *cells))
        self.page = self.notebook.page
        for index in (0, 1, 2):
            self.page.evaluate(RUN_CELL, index)
        self.inbox = self.page.get_by_role("region", name="Inbox", exact=True)
        expect(self.inbox).to_contain_text("pending")

    def run(self, session: str):
        return self.inbox.get_by_role("region", name=f"Run {session}/0")

    def line(self, part: str):
        return self.inbox.locator(".kern-told code").filter(has_text=part)


@pytest.fixture
def clicking(open_notebook, tmp_path):
    """Open a notebook with an inbox over one store: `clicking(by="ann")`; the first one has two runs paused."""
    return lambda by, paused="": Clicking(open_notebook, tmp_path, paused=paused, by=by)


def test_requirements_are_resolved_by_click(clicking):
    """Approved with edits, rejected with a reason, handed off, filled in; each shows its command. Then the run resumes."""
    ann = clicking("ann", PAUSED)
    mugs, plates = ann.run("mugs"), ann.run("plates")
    expect(mugs).to_contain_text("“Two mugs are broken.”")
    for theme in ("light", "dark"):
        ann.notebook.use_theme(theme)
        assert ann.page.evaluate(FAINT, READABLE) == [], theme

    mugs.get_by_role("button", name="Edit…").press("Enter")
    amount = mugs.get_by_role("textbox", name="amount, JSON")
    expect(mugs.get_by_role("textbox", name="order_id, text")).to_be_focused()
    amount.fill("25,8")
    expect(mugs).to_contain_text("✗ Invalid JSON")
    mugs.get_by_role("button", name="Approve as edited").press("Enter")
    expect(amount).to_be_focused()
    amount.fill("20")
    mugs.get_by_role("button", name="Approve as edited").press("Enter")
    expect(mugs).to_contain_text("✓ approved by ann")
    expect(mugs.locator("del")).to_have_text("25.8")
    expect(mugs.locator("ins")).to_have_text("20")
    expect(ann.line("%kern approve")).to_contain_text("--args '{\"amount\": 20}' --by ann")
    mugs.get_by_role("button", name="Continue").press("Enter")
    expect(mugs).to_contain_text("Done: 20.00 euros paid back")

    # Another process pauses a run: it comes by itself, also while a cell runs.
    ann.page.evaluate(RUN_CELL, 3)
    subprocess.run([sys.executable, "-c", dedent(ELSEWHERE).format(db=ann.db)], check=True)
    elsewhere = ann.run("elsewhere")
    expect(elsewhere).to_contain_text("“<i>from another process</i>”")
    elsewhere.get_by_role("textbox", name="city").fill("Paris")
    elsewhere.get_by_role("button", name="Answer", exact=True).click()
    expect(elsewhere).to_contain_text("✓ answered by ann")
    expect(elsewhere).to_contain_text("%kern continue elsewhere/0")  # its agent is not here
    prompt = ann.page.locator(".jp-Notebook .jp-CodeCell").nth(3).locator(".jp-InputPrompt")
    expect(prompt).to_have_text("[*]:")
    ann.gate.touch()

    plates.get_by_role("button", name="Hand off…").click()
    plates.get_by_role("combobox", name="To").fill("bob")
    plates.get_by_role("textbox", name="Note").fill("These were a gift.")
    plates.get_by_role("button", name="Hand off", exact=True).click()
    expect(plates).to_contain_text("for bob")
    expect(plates).to_contain_text("Note: These were a gift.")
    expect(ann.line("%kern handoff")).to_contain_text("--to bob --note 'These were a gift.'")
    plates.get_by_role("button", name="Reject…").click()
    plates.get_by_role("textbox", name="Reason (sent to the model)").fill("Not without a picture.")
    plates.get_by_role("button", name="Reject", exact=True).click()
    expect(plates).to_contain_text("✗ rejected by ann")
    plates.get_by_role("button", name="Continue").click()
    expect(plates).to_contain_text("Done: Not without a picture.")

    ann.inbox.get_by_role("button", name="Clear resolved").click()
    expect(mugs).to_have_count(0)
    expect(prompt).to_have_text("[4]:")
    assert ann.notebook.problems() == []
    assert ann.notebook.foreign == []


def test_of_two_people_one_wins(clicking):
    """In two kernels: the second is told who was faster; other inboxes show it, too."""
    ann = clicking("ann", PAUSED)
    bob = clicking("bob")
    bob.page.evaluate(UNSEEN)
    bob.page.wait_for_timeout(3_000)  # a look may have been under way

    ann.run("mugs").get_by_role("button", name="Approve").click()
    expect(ann.run("mugs")).to_contain_text("✓ approved by ann")
    bob.run("mugs").get_by_role("button", name="Approve").click()
    expect(bob.run("mugs").get_by_role("alert")).to_contain_text("was approved by ann at")
    expect(bob.run("mugs")).to_contain_text("✓ approved by ann")

    bob.run("plates").get_by_role("button", name="Approve").click()
    expect(bob.run("plates")).to_contain_text("✓ approved by bob")
    expect(ann.run("plates")).to_contain_text("✓ approved by bob")
    assert ann.notebook.foreign == bob.notebook.foreign == []


def test_options_are_chosen_by_click_and_an_attached_agent_goes_on(clicking):
    """A question of an agent of pydantic-ai: a missing choice is named, the answer is text, and the run is resumed."""
    ann = clicking("ann", ASKING)
    money = ann.run("money")
    expect(money).to_contain_text("by guide")
    expect(money).to_contain_text("Days: Which days? (several can be chosen)")
    expect(money).not_to_contain_text("{")
    for theme in ("light", "dark"):
        ann.notebook.use_theme(theme)
        assert ann.page.evaluate(FAINT, READABLE) == [], theme

    answer = money.get_by_role("button", name="Answer", exact=True)
    money.get_by_role("radio", name="transfer").check()
    answer.click()
    expect(money).to_contain_text("No choice for “Days”")
    money.get_by_role("radio", name="voucher").check()
    expect(money.get_by_role("radio", name="transfer")).not_to_be_checked()
    for day in ("Mon", "Wed"):
        money.get_by_role("checkbox", name=day).press("Space")
    answer.click()
    expect(money).to_contain_text("✓ answered by ann")
    expect(money).to_contain_text("Money: voucher")
    expect(ann.line("%kern answer")).to_contain_text("""Money=voucher 'Days=["Mon", "Wed"]' --by ann""")
    money.get_by_role("button", name="Continue").click()
    expect(money).to_contain_text("voucher on Mon and Wed")
    assert ann.notebook.foreign == []


def test_hostile_texts_and_attaching_again(clicking, tmp_path):
    """In every field of inbox and chat no script runs, and nothing is wider than its cell."""
    ann = clicking("ann", HOSTILE)
    chat = ann.page.get_by_role("region", name="Chat", exact=True)
    expect(chat.get_by_role("log")).to_contain_text("<img src=x onerror='window.hurt = 1'>")
    ann.inbox.get_by_role("button", name="Edit…").click()
    ann.inbox.get_by_text("Messages").click()
    expect(ann.inbox.locator(".kern-rendered")).to_contain_text("<img src=x onerror")
    for name in ("Reject…", "Hand off…"):
        ann.inbox.get_by_role("button", name=name).last.click()
    assert ann.page.evaluate(UNHARMED) == [0, 0, 0, 2]
    for told in (chat.get_by_role("log"), ann.inbox.locator(".kern-rendered")):  # what the agent said, as Markdown
        expect(told.locator("strong", has_text=re.compile("^b$")).first).to_be_visible()
        expect(told).to_contain_text("x (javascript:window.hurt=1) image: p (http://127.0.0.1:9/spy.png)")
        expect(told.locator("a")).to_have_count(0)

    db, away = tmp_path / "inbox.db", tmp_path / "away"
    away.mkdir()
    for file in tmp_path.glob("inbox.db*"):
        file.rename(away / file.name)
    alert = ann.inbox.locator(":scope > .kern-alert")
    expect(alert).to_contain_text("was removed")
    for file in away.iterdir():
        file.rename(tmp_path / file.name)
    alert.get_by_role("button", name="Attach again").click()
    expect(alert).to_be_empty()
    expect(ann.inbox).to_contain_text("3 pending")
    assert db.exists()
    assert ann.notebook.foreign == []
