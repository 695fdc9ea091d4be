"""The session browser in JupyterLab, by mouse and keyboard, in both themes, and without its kernel."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import pytest
from harness import SHUT_DOWN, OpenNotebook, write_notebook
from playwright.sync_api import expect
from test_tour import FAINT, READABLE

from kern_nb.db import DuckDb
from kern_nb.records import Message, Run, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

BROWSE = """
import kern_nb
from kern_nb.widgets.browser.widget import browse
kern_nb.attach({path!r}, name="shop")
browser = browse()
browser
"""
RUN_CELL = "index => { const c = window.jupyterapp.shell.currentWidget.content; c.activeCellIndex = index; window.jupyterapp.commands.execute('notebook:run-cell'); }"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
COUNT_CELLS = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\"'\u202egnp\x00"


def a_run(question: str, answer: str, **fields: Any) -> Run:
    """A question, a call of a tool, an answer."""
    call = ToolCall(tool_call_id="c", tool_name="get_order", args={"order": question}, duration_s=0.25)
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_call_id="c", content="shipped on Tuesday"),
        Message(role="assistant", content=answer),
    ]
    usage = Usage(input_tokens=900, output_tokens=100, total_tokens=1_000, cost=0.01)
    return Run(
        **{"input": question, "output": answer, "messages": messages, "usage": usage, "agent_id": "clerk"} | fields
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A store of forty sessions; the newest three are `refund`, `lost` and `long`."""
    path = tmp_path / "shop.duckdb"
    with DuckDb(path) as store:
        for n in range(37):
            store.append_run(f"chat-{n:02}", a_run(f"question {n}", "answer"), user_id=f"user{n % 3}")
        store.append_run("long", a_run("tell me all", "word " * 1_000))
        store.append_run("lost", a_run("where is it?", "lost", status="ERROR", error="no such parcel"))
        for n in range(3):
            store.append_run("refund", a_run(f"refund me {n}", "certainly"), user_id="ann")
        s = store.tables.sessions
        for n, name in enumerate([*(f"chat-{n:02}" for n in range(37)), "long", "lost", "refund"]):
            store.write(
                lambda c, n=n, name=name: c.execute(
                    s.update().where(s.c.session_id == name).values(created_at=1_790_000_000 + 60 * n)
                )
            )
    return path


def opened(open_notebook: Callable[[Path], OpenNotebook], folder: Path, store: Path, *cells: str) -> OpenNotebook:
    """A notebook whose first cell shows the browser of a store."""
    notebook = open_notebook(write_notebook(folder / "browse.ipynb", BROWSE.format(path=str(store)), *cells))
    notebook.page.evaluate(RUN_CELL, 0)
    expect(notebook.page.locator(".kern-live")).to_be_visible()
    expect(rows(notebook.page).first).to_be_visible()
    return notebook


def rows(page: Page) -> Any:
    """The rows of the list that are in the page."""
    return page.get_by_role("listbox", name="Sessions").get_by_role("option")


def value_of(notebook: OpenNotebook, cell: int) -> str:
    """What a cell gives, which is run now."""
    output = notebook.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
    notebook.page.evaluate(RUN_CELL, cell)
    expect(output.last).to_be_visible()
    return output.last.inner_text().strip()


def ordered(page: Page, order: str, turned: str, first: str) -> None:
    """Sort, and turn the order around."""
    page.get_by_label("Sort by").select_option(order)
    page.get_by_role("button", name=turned).click()
    expect(rows(page).first).to_contain_text(first)


def press(page: Page, *keys: str) -> None:
    """Press keys, one after the other."""
    for key in keys:
        page.keyboard.press(key)


def test_keyboard_navigation(tmp_path: Path, shop: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """Filter, move, select, open, unfold, branch, rename; no key reaches JupyterLab's shortcuts."""
    notebook = opened(
        open_notebook, tmp_path, shop, "browser.selected", "browser.store.get_session('what-if').fork_run_index"
    )
    page = notebook.page
    keys = page.keyboard
    cells = page.evaluate(COUNT_CELLS)
    expect(page.get_by_text("40 sessions", exact=True)).to_be_visible()

    page.get_by_label("User", exact=True).focus()
    keys.type("user1")
    expect(page.get_by_text("12 sessions", exact=True)).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_text("40 sessions", exact=True)).to_be_visible()
    keys.press("ArrowDown")
    expect(page.get_by_role("listbox", name="Sessions")).to_be_focused()
    press(page, "End", "Home", "PageDown", "Home", "ArrowDown", "d", "d", "b", "x", "Space", "ArrowDown", "Space")
    expect(page.get_by_text("40 sessions, 2 selected")).to_be_visible()
    ticked = page.get_by_role("listbox", name="Sessions").get_by_role("option", selected=True)
    expect(ticked).to_have_count(2)
    expect(ticked.first).to_contain_text("where is it?")

    press(page, "Home", "Enter")
    head = page.get_by_role("region", name="Session")
    expect(head.get_by_role("heading")).to_have_text("refund")
    expect(head.get_by_text("certainly").first).to_be_visible()
    page.get_by_role("button", name=re.compile("Run 1")).first.focus()
    keys.press("Enter")
    expect(head.get_by_text("refund me 1", exact=True)).to_be_hidden()
    keys.press("Space")
    expect(head.get_by_text("refund me 1", exact=True)).to_be_visible()
    page.get_by_role("button", name="Branch after run 1").focus()
    keys.press("Enter")
    keys.type("what-if")
    keys.press("Enter")
    expect(page.get_by_text("%kern branch refund/1 --as what-if", exact=True)).to_be_visible()
    expect(page.get_by_text("41 sessions, 2 selected")).to_be_visible()
    expect(page.get_by_role("button", name="Branch after run 1")).to_be_focused()

    page.get_by_role("button", name="Rename…").focus()
    keys.press("Enter")
    keys.type("The refund of May")
    keys.press("Enter")
    expect(page.get_by_text("%kern rename refund 'The refund of May'")).to_be_visible()
    expect(head.get_by_role("heading")).to_have_text("The refund of May")
    expect(rows(page).filter(has_text="The refund of May")).to_be_visible()

    expect(page.get_by_role("button", name="Rename…")).to_be_focused()
    keys.press("Escape")
    expect(page.get_by_role("listbox", name="Sessions")).to_be_focused()
    assert page.evaluate(COUNT_CELLS) == cells
    assert value_of(notebook, 1) == "['lost', 'long']"
    assert value_of(notebook, 2) == "1"
    page.get_by_role("listbox", name="Sessions").press("Escape")
    expect(page.get_by_text("41 sessions", exact=True)).to_be_visible()
    assert notebook.foreign == []


def test_branch_tree_metrics_plots_and_comparison(
    tmp_path: Path, shop: Path, open_notebook: Callable[[Path], OpenNotebook]
) -> None:
    """Each in its tab, for the selection; all text is readable in both themes."""
    with DuckDb(shop) as store:
        store.branch("refund", after=0, new_session_id="early")
        store.branch("early", new_session_id="deep")
    notebook = opened(open_notebook, tmp_path, shop, "type(browser.result).__name__")
    page = notebook.page

    page.get_by_label("Find").fill("refund")
    expect(page.get_by_text("1 session", exact=True)).to_be_visible()
    rows(page).filter(has_text="refund").last.click()
    page.get_by_role("tab", name="Branches").click()
    tree = page.get_by_role("tree", name="Branches")
    expect(tree.get_by_role("treeitem")).to_have_count(3)
    tree.get_by_role("treeitem").first.focus()
    press(page, "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight", "Enter")
    expect(page.get_by_role("region", name="Session").get_by_role("heading")).to_have_text("deep")
    expect(tree.locator("[aria-current=true]")).to_contain_text("deep")

    page.get_by_label("Find").fill("")
    expect(page.get_by_text("42 sessions")).to_be_visible()
    ordered(page, "messages", "Descending", "deep")  # turned around: what has none of its own comes first
    ordered(page, "tokens", "Ascending", "refund me 0")
    expect(rows(page).first.locator(".kern-b-ends")).to_contain_text("3,000 tokens")
    page.get_by_label("Sort by").select_option("created")
    expect(rows(page).first).to_contain_text("0 runs")
    for name in ("where is it?", "tell me all"):
        rows(page).filter(has_text=name).locator("[data-tick]").click()
    page.get_by_role("tab", name="Metrics").click()
    expect(page.locator(".kern-b-panel").get_by_role("row")).to_have_count(4)
    page.get_by_role("tab", name="Plots").click()
    page.get_by_text("Tokens, cost and time over runs of 2 selected sessions").click()
    picture = page.locator(".kern-b-panel").get_by_role("img", name=re.compile("Tokens"))
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".kern-b-panel").get_by_text("Totals")).to_be_visible()
    expect(page.get_by_text("%kern compare lost long", exact=True)).to_be_visible()
    assert value_of(notebook, 1) == "'Comparison'"

    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        for tab in ("Result", "Metrics", "Transcript", "Branches"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(300)
            assert page.evaluate(FAINT, READABLE) == [], (theme, tab)
    assert notebook.foreign == []


def test_long_list_and_long_text_are_loaded_on_demand(
    tmp_path: Path, open_notebook: Callable[[Path], OpenNotebook]
) -> None:
    """Few rows are in the page, the last of thousands is one key away, and a text is complete on request."""
    path = tmp_path / "many.duckdb"
    with DuckDb(path) as store:
        sha = store.put_blob(PNG, "image/png")
        run = a_run("q", "word " * 1_000)
        run.messages[0].content = [{"type": "text", "text": "q"}, {"type": "image", "sha256": sha}]
        store.append_run("seed", run)
        ids = [{"session_id": f"s{n:04}", "session_type": "agent", "created_at": n} for n in range(3_000)]
        store.write(lambda c: store.insert_rows(c, store.tables.sessions, ids))
    notebook = opened(open_notebook, tmp_path, path, "browser.place")
    page = notebook.page
    expect(page.get_by_text("3,001 sessions", exact=True)).to_be_visible()
    rows(page).first.click()
    picture = page.get_by_role("img", name="file", exact=True)
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_role("button", name="Show less")).to_be_visible()
    assert page.locator(".kern-text").last.inner_text().count("word") == 1_000

    page.get_by_role("listbox", name="Sessions").focus()
    page.keyboard.press("End")
    expect(rows(page).last).to_contain_text("s0000")
    expect(rows(page).last).to_have_attribute("aria-posinset", "3001")
    assert rows(page).count() < 40
    page.keyboard.press("Home")
    expect(rows(page).first).to_contain_text("“q”")
    assert value_of(notebook, 1) == "'seed/0.3'"


def test_click_survives_a_redraw(tmp_path: Path, shop: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """Rows redrawn while the mouse button is down still open or select their session."""
    page = opened(open_notebook, tmp_path, shop).page
    row = rows(page).filter(has_text="refund me 0")
    expect(row).to_contain_text("tokens")
    page.get_by_role("listbox", name="Sessions").focus()
    row.hover()
    page.mouse.down()
    press(page, "Space")
    expect(page.get_by_text("40 sessions, 1 selected")).to_be_visible()
    page.mouse.up()
    expect(page.get_by_role("region", name="Session").get_by_text("refund me 0", exact=True)).to_be_visible()
    row.locator("[data-tick]").hover()
    page.mouse.down()
    press(page, "ArrowDown")
    page.mouse.up()
    expect(page.get_by_text("40 sessions", exact=True)).to_be_visible()


def test_hostile_texts_are_inert(tmp_path: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """No script of a store runs, no name widens the page, and overrides affect only their text."""
    path = tmp_path / "hostile.duckdb"
    wide = "W" * 1_000_000
    with DuckDb(path) as store:
        call = ToolCall(tool_call_id=HOSTILE, tool_name=HOSTILE, args={HOSTILE: wide}, result=HOSTILE, status="failed")
        said = [
            Message(role=HOSTILE, content=HOSTILE),
            Message(role="user", content=wide),
            Message(
                role="assistant",
                content=f"# {HOSTILE}\n- [x](javascript:window.hacked=1)\n\n| a |\n|-|\n| {wide[:50_000]} |",
            ),
            Message(role="assistant", content=f"**{HOSTILE}** ![p](http://127.0.0.1:9/spy.png) `{'c' * 5_000}`"),
            Message(
                role="assistant", content=[{"type": "image", "url": "http://127.0.0.1:9/spy.png"}], tool_calls=[call]
            ),
        ]
        run = Run(input=HOSTILE, messages=said, agent_id=HOSTILE, model=wide, error=HOSTILE, status="ERROR")
        store.append_run(HOSTILE, run, user_id=HOSTILE)
        store.rename_session(HOSTILE, wide)
        store.tag_session(HOSTILE, [HOSTILE, wide])
        store.branch(HOSTILE, new_session_id=f"{HOSTILE}2", name=HOSTILE)
    notebook = opened(open_notebook, tmp_path, path)
    page = notebook.page

    rows(page).last.click()
    page.get_by_role("button", name="Expand all").click()
    for summary in page.locator(".kern-w details > summary").all():
        summary.click()
    for button in page.get_by_role("button", name="Show all").all()[:2]:
        button.click()
    for tick in page.locator("[data-tick]").all():
        tick.click()
    for name in ("Branches", "Metrics", "Transcript"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(200)
    answers = page.locator(".kern-w .kern-md")
    expect(answers).to_have_count(2)
    expect(answers.last).to_contain_text("image: p (http://127.0.0.1:9/spy.png)")
    expect(answers.locator("a")).to_have_count(0)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".kern-b-panel").get_by_text("Totals")).to_be_visible()
    page.get_by_role("button", name="Tag…").click()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Tagged.")).to_be_visible()

    assert page.evaluate("window.hacked") is None
    assert page.locator(".kern-w :is(script, iframe, object, [onerror], [onload])").count() == 0
    widget, output = page.locator(".kern-w").bounding_box(), page.locator(".jp-OutputArea").first.bounding_box()
    assert widget["width"] <= output["width"]
    assert (
        page.evaluate("() => { const w = document.querySelector('.kern-w'); return w.scrollWidth - w.clientWidth; }")
        <= 1
    )
    assert page.evaluate(
        "() => [...document.querySelectorAll('.kern-b-row')].every(r => r.getBoundingClientRect().height === 48)"
    )
    assert notebook.foreign == []


def test_errors_and_attaching_again(tmp_path: Path, shop: Path, open_notebook: Callable[[Path], OpenNotebook]) -> None:
    """Errors have two lines and are announced; once the file is back, one button continues."""
    notebook = opened(open_notebook, tmp_path, shop, "browser.store.close()")
    page = notebook.page
    rows(page).first.click()
    page.get_by_role("button", name="Branch…").click()
    page.keyboard.type("lost")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Session 'lost' exists.")
    expect(alert.get_by_role("button", name="Attach again")).to_have_count(0)
    alert.get_by_role("button", name="Dismiss the message").click()
    expect(alert).to_be_empty()

    expect(page.locator(".kern-still")).to_contain_text("certainly")  # the last it reads
    page.wait_for_timeout(1_000)
    page.evaluate(RUN_CELL, 1)
    expect(page.locator(".jp-InputPrompt").nth(1)).to_have_text("[2]:")
    away = shop.rename(tmp_path / "away.duckdb")
    page.get_by_role("button", name="Refresh", exact=True).click()
    expect(alert).to_contain_text("was removed")
    expect(alert).to_contain_text("Attach it again")
    alert.get_by_role("button", name="Attach again").click()
    expect(alert).to_contain_text("does not exist")
    away.rename(shop)
    alert.get_by_role("button", name="Attach again").click()
    expect(alert).to_be_empty()
    expect(page.get_by_text("%kern use shop", exact=True)).to_be_visible()
    expect(page.get_by_text("40 sessions", exact=True)).to_be_visible()


def test_saved_notebook_shows_the_fallback(
    tmp_path: Path, shop: Path, open_notebook: Callable[[Path], OpenNotebook]
) -> None:
    """As plain HTML without an error; with a kernel only the widget is visible."""
    notebook = opened(open_notebook, tmp_path, shop)
    page = notebook.page
    still = page.locator(".kern-still")
    page.get_by_label("Find").fill("lost")
    expect(page.get_by_text("1 session", exact=True)).to_be_visible()
    rows(page).first.click()
    expect(page.get_by_text("no such parcel")).to_be_visible()
    expect(still).to_be_hidden()
    expect(still).to_contain_text("no such parcel")
    page.evaluate(SAVE)
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)

    page.evaluate(SHUT_DOWN)
    page.reload()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()

    expect(still).to_be_visible()
    expect(still).to_contain_text("Sessions 1 to 1 of 1")
    expect(still).to_contain_text("no such parcel")
    page.wait_for_timeout(4_000)  # after which a lost widget's error would stand there
    expect(page.get_by_text("Error displaying widget")).to_be_hidden()
    expect(page.locator(".kern-w")).to_have_count(0)
