"""What the pictures of the widgets show: for each a notebook, and what is done in it before the picture is taken.

The sessions are those of the recorded benchmark where it is at hand, else the sample's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import REPO
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Locator

RECORDED = REPO.parent / "shared" / "data" / "tau2"

START = "%load_ext kern_nb\n%kern attach sessions.duckdb"

SUPPORT = '''
import os
os.environ["LOGNAME"] = "ann"  # who answers
from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.models.scripted import ScriptedModel, call

def find_order(order_id: str) -> dict:
    """Look an order up."""
    return {"order_id": order_id, "customer": "Tim Okafor", "status": "delivered", "items": {"mug set": 24.0}}

def refund(order_id: str, amount: float, reason: str) -> str:
    """Pay an amount back."""
    return f"Refunded {amount:.2f}."

def ask_colleague(question: str, team: str) -> str:
    """Ask a person."""
    return "asked"

def support(session_id, *script):
    tools = [find_order, tool(refund, requires_confirmation=True), tool(ask_colleague, external_execution=True)]
    return Agent(ScriptedModel(script), name="Support", session_id=session_id, tools=tools, add_history_to_context=True)

clerk = support(
    "mugs",
    "I am sorry to hear that. To look it up I need\\n\\n1. the **number** of your order,\\n2. the name it was placed under.",
    call("find_order", order_id="1045"),
    call("refund", order_id="1045", amount=24.0, reason="two of six mugs were broken"),
    "I have refunded 24.00. There is no need to send the pieces back.",
)
'''

PAUSED = """
clerk.run("Two of my six mugs came broken.")
clerk.run("It is number 1045, on the name of Tim Okafor.")
other = support("tent", call("ask_colleague", question="Can the tent be sent by express?", team="warehouse"))
other.run("We leave on Friday morning. Will my tent be here?");
"""


@dataclass(frozen=True)
class Picture:
    """A widget, as it is pictured.

    Attributes:
        cells: The cells of its notebook; the last one shows it.
        arrange: What is done in it before.
    """

    cells: tuple[str, ...]
    arrange: Callable[[Locator], None]


def _browse(widget: Locator) -> None:
    widget.get_by_role("listbox", name="Sessions").get_by_role("option").nth(2).click()
    widget.get_by_text("Run 1").first.click()


def _compare(widget: Locator) -> None:
    widget.get_by_role("button", name="First difference").click()


def _inbox(widget: Locator) -> None:
    widget.get_by_text("refund").first.wait_for()


def _chat(widget: Locator) -> None:
    for said, answer in (
        ("Two of my six mugs came broken.", "To look it up"),
        ("It is number 1045, on the name of Tim Okafor.", "refund"),
    ):
        expect(widget.get_by_role("button", name="Send")).to_be_enabled()
        widget.get_by_role("textbox").first.fill(said)
        widget.get_by_role("textbox").first.press("Enter")
        widget.get_by_text(answer).last.wait_for()


PAIR = """
import kern_nb
store = kern_nb.current_store()
names = ["metadata.domain", "metadata.task_id", "metadata.model"]
rated = store.sessions_df(columns=["session_id"], expand=names).merge(store.scores_df().query("name == 'reward'"))
rated = rated[rated["metadata.domain"].isin(["airline", "shop"])].sort_values(["metadata.task_id", "metadata.model"])
pairs = rated.groupby("metadata.task_id").filter(lambda tasks: tasks["value"].nunique() > 1)
a, b = pairs.drop_duplicates(["metadata.task_id", "metadata.model"]).head(2)["session_id"]
"""

PICTURES = {
    "browse": Picture((START, "%kern browse"), _browse),
    "compare": Picture((START, PAIR, "%kern compare $a $b --widget"), _compare),
    "inbox": Picture((START.replace("sessions.duckdb", ":memory:"), SUPPORT, PAUSED, "%kern inbox --widget"), _inbox),
    "chat": Picture((START.replace("sessions.duckdb", ":memory:"), SUPPORT, "%kern chat clerk --session mugs"), _chat),
}


def make_store(folder: Path) -> None:
    """The store that the first two look at."""
    from kern_nb.db import open_store

    with open_store(folder / "sessions.duckdb") as store:
        recorded = RECORDED if RECORDED.is_dir() else REPO / "notebooks" / "sample"
        store.ingest(recorded, progress=False)
