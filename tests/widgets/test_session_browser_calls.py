"""The calls of the session browser, on every engine: list, selection, transcripts, actions, fallback."""

from __future__ import annotations

import base64

import pytest
from widget_page import Page

from kern_nb import store_registry
from kern_nb.analysis.compare import Comparison
from kern_nb.errors import BadUsage
from kern_nb.magics import parser
from kern_nb.records import Message, Run, Session, ToolCall, Usage
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import decode_key, encode_key
from kern_nb.widgets.browser.widget import SessionBrowser, browse

ANY = {"text": "", "agent": "", "user": "", "status": "", "order": "created", "descending": True}
HOSTILE = "<script>alert(1)</script>\"'\u202e\x00\ud83d&amp;"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def a_run(question: str, answer: str = "fine", **fields) -> Run:
    """A question, a call with its result, an answer."""
    call = ToolCall(tool_call_id="c", tool_name="look", args={"for": question}, duration_s=0.5)
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_call_id="c", content="found"),
        Message(role="assistant", content=answer),
    ]
    usage = Usage(input_tokens=1_000, output_tokens=234, total_tokens=1_234, cost=0.5)
    return Run(**{"input": question, "output": answer, "messages": messages, "usage": usage} | fields)


@pytest.fixture
def shop(store):
    """Sessions that differ in all that a filter looks at, attached as ``shop``; `alpha` has two runs."""
    store.append_run("alpha", a_run("where is it?", agent_id="clerk"), user_id="ann")
    store.append_run("alpha", a_run("and now?", agent_id="clerk"), user_id="ann")
    store.append_run("beta", a_run("refund me", agent_id="boss", status="ERROR", error="no money"), user_id="bob")
    store.append_run("gamma", a_run("hello", team_id="desk", run_type="team"), user_id="ann")
    store.rename_session("beta", "A refund, 100% sure")
    store.tag_session("gamma", ["to check"])
    s = store.tables.sessions
    for n, name in enumerate(("alpha", "beta", "gamma")):
        store.write(
            lambda c, n=n, name=name: c.execute(s.update().where(s.c.session_id == name).values(created_at=100 + n))
        )
    store_registry.attach(store, name="shop")
    return store


@pytest.fixture
def page(shop):
    """A page that shows a browser of it."""
    return Page(browse())


def ids(answer):
    """The ids of the rows of an answer."""
    return [decode_key(row["key"]) for row in answer["rows"]]


# The list ------------------------------------------------------------------------------------------------------------


def test_list_starts_with_the_newest_and_has_a_total(page):
    """Each row has title or input, owner, user, tags, runs, status and time."""
    answer = page.ask("start")

    assert (answer["total"], ids(answer)) == (3, ["gamma", "beta", "alpha"])
    gamma, beta, alpha = answer["rows"]
    assert (gamma["tags"], gamma["owner"], gamma["title"]) == (["to check"], "desk", None)
    assert (beta["title"], beta["status"], beta["user"]) == ("A refund, 100% sure", "✗ ERROR", "bob")
    assert (alpha["asked"], alpha["runs"], alpha["created"]) == ("where is it?", "2 runs", "1970-01-01 00:01")


@pytest.mark.every_engine
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "REFUND"}, ["beta"]),
        ({"text": " alpha "}, ["alpha"]),
        ({"text": "100%"}, ["beta"]),
        ({"text": "#to check"}, ["gamma"]),
        ({"text": "#"}, ["gamma", "beta", "alpha"]),
        ({"text": "to check"}, []),
        ({"agent": "cler"}, ["alpha"]),
        ({"agent": "desk"}, ["gamma"]),
        ({"user": "ANN"}, ["gamma", "alpha"]),
        ({"status": "ERROR"}, ["beta"]),
        ({"status": "COMPLETED"}, ["gamma", "alpha"]),
        ({"user": "ann", "status": "ERROR"}, []),
        ({"order": "session"}, ["gamma", "beta", "alpha"]),
        ({"order": "title", "descending": False}, ["alpha", "gamma", "beta"]),
        ({"order": "user", "descending": False}, ["alpha", "gamma", "beta"]),
        ({"order": "messages"}, ["alpha", "gamma", "beta"]),
        ({"order": "tokens"}, ["alpha", "gamma", "beta"]),
        ({"order": "cost", "descending": False}, ["beta", "gamma", "alpha"]),
    ],
)
def test_filters_and_orders(page, fields, expected):
    """The list, its total, the data frame and the SQL agree."""
    answer = page.ask("find", **ANY | fields)
    browser = page.widget

    assert (sorted(ids(answer)), answer["total"]) == (sorted(expected), len(expected))
    assert ids(answer) == expected or "order" not in fields
    assert sorted(browser.df()["session_id"]) == sorted(expected)
    by_sql = browser.store.sql(browser.sql, browser.params)["session_id"].tolist()
    assert by_sql == ids(answer)


def test_rows_from_any_offset(store):
    """Parts are contiguous; there are none beyond the end, and their size is limited."""
    for n in range(230):
        store.save_session(Session(session_id=f"s{n:03}", created_at=n))
    page = Page(browse(store))
    first = page.ask("start")
    parts = [ids(page.ask("rows", offset=offset, limit=50)) for offset in range(0, 250, 50)]

    assert first["total"] == 230
    assert [one for part in parts for one in part] == [f"s{n:03}" for n in reversed(range(230))]
    assert page.ask("rows", offset=500, limit=50)["rows"] == []
    assert len(page.ask("rows", offset=0, limit=10_000_000)["rows"]) == 200
    assert ids(page.ask("rows", offset=-5, limit=-5)) == ["s229"]


def test_refresh_shows_new_and_deleted_sessions(page, shop):
    """A list that got shorter returns fewer rows, not an error."""
    page.ask("start")
    shop.delete_session("alpha")
    shop.append_run("delta", a_run("new"))
    assert len(page.ask("rows", offset=0, limit=10)["rows"]) == 3
    shop.delete_session("delta")

    answer = page.ask("refresh")
    assert (answer["total"], ids(answer)) == (2, ["gamma", "beta"])


def test_totals_are_formatted(page):
    """By key, for the rows on screen."""
    totals = page.ask("totals", keys=[encode_key("alpha"), encode_key("beta")])

    assert totals[encode_key("alpha")]["said"] == "8 messages · 2 tool calls · 2,468 tokens · cost 1.00"
    assert [totals[encode_key("alpha")][order] for order in ("messages", "tokens", "cost")] == [
        "8 messages", "2,468 tokens", "cost 1.00",
    ]  # fmt: skip
    assert set(totals) == {encode_key("alpha"), encode_key("beta")}


@pytest.mark.parametrize("fields", [{"status": "DONE"}, {"order": "price"}, {"text": 3}, {"descending": 1}])
def test_invalid_filter_is_refused_and_changes_nothing(page, fields):
    """The list stays as it was."""
    page.ask("find", **ANY | {"user": "ann"})
    assert page.refused("find", **ANY | fields)["kind"] == "BadUsage"
    assert page.widget.narrowing.user == "ann"


def test_browser_with_initial_filter(shop):
    """Its fields show the filter."""
    answer = Page(browse(text="#to check", user="ann", order="user", descending=False)).ask("start")

    assert answer["filter"] == {"text": "#to check", "agent": "", "user": "ann", "status": ""}
    assert (answer["order"], answer["descending"], ids(answer)) == ("user", False, ["gamma"])
    with pytest.raises(BadUsage):
        browse(status="DONE")
    with pytest.raises(BadUsage):
        browse(order="price")


def test_empty_store_has_an_empty_list(store):
    """Reading it creates nothing."""
    page = Page(browse(store))
    assert page.ask("start")["total"] == 0
    assert len(page.widget.df()) == 0
    assert "No matching sessions" in page.widget.fallback_html()


# What is selected ----------------------------------------------------------------------------------------------------


def test_selection_is_available_in_python(page):
    """In order of selection; without one the open session, else all that match."""
    browser: SessionBrowser = page.widget
    assert (browser.selected, browser.place) == ([], None)
    assert len(browser.df()) == 3
    page.ask("show", key=encode_key("gamma"))
    assert (browser.selected, browser.place) == (["gamma"], "gamma")
    assert page.ask("choose", keys=[encode_key("beta"), encode_key("alpha"), encode_key("beta")]) == 2

    assert browser.selected == ["beta", "alpha"]
    assert sorted(browser.df()["session_id"]) == ["alpha", "beta"]
    assert sorted(browser.store.sql(browser.sql, browser.params)["session_id"]) == ["alpha", "beta"]
    assert page.ask("point", key=encode_key("alpha"), run_index=1, message_index=3) == "alpha/1.3"
    assert browser.place == "alpha/1.3"
    page.ask("choose", keys=[])
    assert browser.selected == ["gamma"]
    page.ask("hide")
    assert browser.selected == []


def test_selection_has_a_limit(page):
    """A faulty page cannot fill the kernel's memory."""
    assert page.refused("choose", keys=[encode_key(str(n)) for n in range(1_001)])["kind"] == "BadUsage"


# Transcripts ---------------------------------------------------------------------------------------------------------


def everything(page, key):
    """All runs of a transcript, part by part: (run index, place of a message) in order, and how many parts."""
    answer = page.ask("show", key=key)["transcript"]
    found, parts = [], 0
    while True:
        parts += 1
        assert sum(len(run["messages"]) for run in answer["runs"]) <= transcript_data.MAX_MESSAGES
        found += [(run["index"], message["position"]) for run in answer["runs"] for message in run["messages"]]
        if answer["next"] is None:
            return found, parts
        answer = page.ask("more", key=key, run_index=answer["next"][0], position=answer["next"][1])


def test_transcript_parts_are_contiguous(shop, page):
    """With many runs, with a run of many messages, and in a truncated branch."""
    for n in range(45):
        shop.append_run("long", a_run(f"q{n}"))
    many = [Message(role="user", content=f"m{n}") for n in range(300)]
    shop.append_run("long", Run(messages=many))
    shop.append_run("long", a_run("last"))
    shop.branch("long", after=(45, 100), new_session_id="cut")
    expected = [(n, place) for n in range(45) for place in range(4)] + [(45, place) for place in range(300)]

    whole, parts = everything(page, encode_key("long"))
    assert whole == [*expected, *((46, place) for place in range(4))]
    assert parts >= 4
    assert everything(page, encode_key("cut"))[0] == expected[: 45 * 4 + 101]


def test_runs_have_totals_and_status(page):
    """Facts above the messages, the call next to its result, the error at the end."""
    (run,) = page.ask("show", key=encode_key("beta"))["transcript"]["runs"]

    assert (run["name"], run["asked"]) == ("Run 0", "refund me")
    assert run["facts"][0] == "✗ ERROR"
    assert [message["role"] for message in run["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert run["messages"][1]["calls"][0]["line"] == '✓ look(for="refund me") · 0.50 s'
    assert run["messages"][2]["text"] == "↳ look: found"
    assert run["ends"] == [{"kind": "error", "text": "no money", "left": 0}]


def test_long_text_is_truncated_and_available_in_full(shop, page):
    """A preview states the number of missing characters; huge texts have a limit."""
    long = "word " * 2_000
    call = ToolCall(tool_call_id="c", tool_name="t", args={"x": long}, result=long)
    said = [Message(role="user", content=long), Message(role="assistant", tool_calls=[call])]
    shop.append_run("long", Run(messages=said, error=long, status="ERROR"))
    shop.append_run("long", Run(messages=[Message(role="user", content="x" * 1_500_000)]))
    key = encode_key("long")
    first, second = page.ask("show", key=key)["transcript"]["runs"]
    at = {"key": key, "run_index": 0}

    assert first["messages"][0]["left"] == len(long) - len(first["messages"][0]["text"])
    assert page.ask("text", **at, position=0, part="content", number=0) == {"text": long, "left": 0}
    assert long in page.ask("text", **at, position=1, part="args", number=0)["text"]
    assert page.ask("text", **at, position=1, part="result", number=0)["text"] == long
    assert page.ask("text", **at, position=0, part="error", number=0)["text"] == long
    whole = page.ask("text", key=key, run_index=1, position=0, part="content", number=0)
    assert (len(whole["text"]), whole["left"]) == (1_000_000, 500_000)
    assert len(second["messages"][0]["text"]) <= 1_500
    for wrong in ({"position": 9}, {"position": 1, "part": "args", "number": 4}, {"position": 0, "part": "secret"}):
        assert page.refused("text", **{**at, "part": "content", "number": 0, **wrong})["message"]


def test_run_without_messages_shows_input_and_output(shop, page):
    """Some sources record only these."""
    shop.append_run("bare", Run(input="in", output="out", tool_calls=[ToolCall(tool_call_id="c", tool_name="t")]))
    (run,) = page.ask("show", key=encode_key("bare"))["transcript"]["runs"]

    assert [message["text"] for message in run["messages"]] == ["in", "out"]
    assert [message["index"] for message in run["messages"]] == [None, None]
    assert run["ends"][0]["calls"][0]["line"] == "? outcome unknown: t()"


def test_only_raster_images_are_sent(shop, page):
    """Stored bytes and data URLs, by their signature. Documents, wrong types and other addresses are refused."""
    sha = shop.put_blob(PNG, "image/svg+xml")
    evil = shop.put_blob(b"<svg onload='alert(1)'/>", "image/png")
    data = f"data:image/svg+xml;base64,{base64.b64encode(PNG).decode()}"
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image", "media_type": "image/png", "size": len(PNG), "sha256": sha},
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image", "media_type": "image/png", "sha256": evil},
        {"type": "image", "url": "http://127.0.0.1:9/x.png"},
        {"type": "image", "media_type": "image/png", "sha256": "0" * 64},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}},
    ]
    call = ToolCall(tool_call_id="c", tool_name="draw", args={}, result=parts[1])
    said = [Message(role="user", content=parts), Message(role="assistant", tool_calls=[call])]
    shop.append_run("seen", Run(messages=said))
    (run,) = page.ask("show", key=encode_key("seen"))["transcript"]["runs"]
    at = {"key": encode_key("seen"), "run_index": 0}

    assert run["messages"][0]["pictures"][0] == f"image/png, {len(PNG)} bytes"
    assert run["messages"][0]["pictures"][3] == "image at http://127.0.0.1:9/x.png"
    for number in (0, 1):
        given = page.ask("picture", **at, position=0, number=number, tool_call=None)
        assert given["source"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert page.ask("picture", **at, position=1, number=0, tool_call=0)["source"].startswith("data:image/png")
    for number, reason in (
        (2, "not a PNG"),
        (3, "not in the store"),
        (4, "not in the store"),
        (5, "not in the store"),
        (6, "no file 6"),
    ):
        assert reason in page.refused("picture", **at, position=0, number=number, tool_call=None)["message"]


def test_large_image_is_not_sent(shop, page, monkeypatch):
    """It would freeze the page; the error states its size."""
    monkeypatch.setattr(media, "MAX_BYTES", 10)
    sha = shop.put_blob(PNG, "image/png")
    shop.append_run("seen", Run(messages=[Message(role="user", content=[{"type": "image", "sha256": sha}])]))
    at = {"key": encode_key("seen"), "run_index": 0, "position": 0, "number": 0, "tool_call": None}

    assert "too large" in page.refused("picture", **at)["message"]


def test_branch_tree_is_nested_in_branch_order(shop, page):
    """From the root down, with the branch points; the open session is marked."""
    shop.branch("alpha", after=1, new_session_id="late")
    shop.branch("alpha", after=(0, 1), new_session_id="early")
    shop.branch("alpha", before=0, new_session_id="none")
    shop.branch("early", new_session_id="deep")
    family = page.ask("show", key=encode_key("early"))["family"]
    (root,) = family["roots"]

    assert (family["count"], family["complete"], root["id"], root["here"]) == (5, True, "alpha", False)
    points = [(one["id"], one["at"]) for one in root["children"]]
    assert points == [("none", "before the first run"), ("early", "after message 0.1"), ("late", "after run 1")]
    assert root["children"][1]["here"]
    assert [one["id"] for one in root["children"][1]["children"]] == ["deep"]


# Actions -------------------------------------------------------------------------------------------------------------


def run_line(line):
    """What a magic's line gives."""
    name, *words = parser.split(line.removeprefix("%kern "), {})
    verb = parser.find_verb(name)
    return verb.call(parser.parse(verb, words))


@pytest.mark.parametrize(
    ("run_index", "message_index", "fork"), [(None, None, (1, None)), (0, None, (0, None)), (0, 1, (0, 1))]
)
def test_branch_equals_its_command(page, shop, run_index, message_index, fork):
    """At the end, after a run, after a message, with a name as id and title."""
    answer = page.ask(
        "branch", key=encode_key("alpha"), run_index=run_index, message_index=message_index, name="what if"
    )
    made = shop.get_session("what if")
    again = run_line(answer["line"].replace("what if", "again"))

    assert (made.fork_run_index, made.fork_message_index) == fork
    assert (again.fork_run_index, again.fork_message_index) == fork
    assert (made.session_name, decode_key(answer["key"])) == ("what if", "what if")
    assert page.widget.result.session_id == "what if"


def test_branch_without_a_name_gets_an_id(page, shop):
    """Its command has no name."""
    answer = page.ask("branch", key=encode_key("alpha"), run_index=0, message_index=None, name="  ")

    assert shop.get_session(decode_key(answer["key"])).parent_session_id == "alpha"
    assert answer["line"] == "%kern branch alpha/0"


def test_branch_name_in_use_is_refused(page, shop):
    """Nothing is created."""
    assert (
        page.refused("branch", key=encode_key("alpha"), run_index=0, message_index=None, name="beta")["kind"]
        == "SessionExists"
    )
    assert shop.find_sessions().total == 3


def test_rename_and_tag(page, shop):
    """Each returns its command; an empty title is refused, an empty list removes the tags."""
    renamed = page.ask("rename", key=encode_key("alpha"), name=" It's “here” ")
    tagged = page.ask("tag", key=encode_key("alpha"), tags="#one, two words ,,one")

    assert shop.get_session("alpha").session_name == "It's “here”"
    assert shop.get_session("alpha").metadata == {"tags": ["one", "two words"]}
    assert renamed["line"].startswith("%kern rename alpha ")
    assert tagged["line"] == "%kern tag alpha one 'two words' one"
    assert page.refused("rename", key=encode_key("alpha"), name="  ")["kind"] == "BadUsage"
    assert page.ask("tag", key=encode_key("alpha"), tags=" , ")["line"] == "%kern tag alpha"
    assert shop.get_session("alpha").metadata is None


@pytest.mark.parametrize("action", ["rename", "tag"])
def test_rename_and_tag_equal_their_commands(page, shop, action):
    """The commands have the same effect."""
    args = {"rename": {"name": "It's “here”"}, "tag": {"tags": "one, two words"}}[action]
    line = page.ask(action, key=encode_key("alpha"), **args)["line"]
    clicked = shop.get_session("alpha")
    undo = {"rename": lambda: shop.rename_session("alpha", "x"), "tag": lambda: shop.tag_session("alpha", ["x"])}
    undo[action]()

    run_line(line)
    after = shop.get_session("alpha")
    assert (after.session_name, after.metadata) == (clicked.session_name, clicked.metadata)


def test_export(page, tmp_path, monkeypatch):
    """Each export writes a new file next to the notebook; the command writes the same."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    one, two = encode_key("alpha"), encode_key("beta")
    lines = [
        page.ask("export", keys=keys, kind=kind)["line"] for keys in ([one], [one, two]) for kind in ("bundle", "page")
    ]
    again = page.ask("export", keys=[one], kind="bundle")

    assert lines[:2] == ["%kern export alpha alpha.json", "%kern export alpha alpha.html"]
    assert lines[2:] == ["%kern export alpha beta sessions.json", "%kern export alpha beta sessions.html"]
    assert again["line"] == "%kern export alpha alpha-2.json"
    assert again["said"].startswith("Wrote 1 session")
    assert sorted(path.name for path in folder.iterdir()) == [
        "alpha-2.json",
        "alpha.html",
        "alpha.json",
        "sessions.html",
        "sessions.json",
    ]
    assert page.refused("export", keys=[], kind="bundle")["message"] == "No session is selected."
    assert page.refused("export", keys=[one], kind="../x")["kind"] == "BadUsage"


def test_compare_and_summarize(page):
    """The result is available in Python, its HTML is sent, and the command names the sessions in order."""
    keys = [encode_key("alpha"), encode_key("beta")]
    compared = page.ask("compare", keys=keys)

    assert isinstance(page.widget.result, Comparison)
    assert [side.label for side in page.widget.result.sides] == ["alpha", "beta"]
    assert compared["rendered"] == page.widget.result._repr_html_()
    assert compared["line"] == "%kern compare alpha beta"
    again = run_line(compared["line"])
    assert again.metrics.equals(page.widget.result.metrics)
    summarized = page.ask("summarize", keys=keys)
    assert summarized["line"] == "%kern summarize alpha beta"
    assert run_line(summarized["line"]).df.equals(page.widget.result.df)
    assert page.refused("compare", keys=keys[:1])["kind"] == "BadUsage"
    assert page.refused("summarize", keys=[])["message"] == "No session is selected."


def test_metrics_and_plots_of_the_selection(page):
    """The table has a row a session and a total; an image has an alternative text."""
    keys = [encode_key("alpha"), encode_key("beta")]
    rendered = page.ask("metrics", keys=keys)["rendered"]

    assert all(word in rendered for word in ("alpha", "beta", "all 2", "3,702", "1.50"))
    for kind in ("runs", "tools"):
        drawn = page.ask("plot", keys=keys, kind=kind)
        assert drawn["source"].startswith("data:image/png;base64,")
        assert drawn["alt"]
        assert drawn["line"] is None
    one = page.ask("plot", keys=keys[:1], kind="tools")
    assert one["line"] == "%kern plot alpha --kind tools"
    assert run_line(one["line"]).title
    assert page.refused("plot", keys=keys, kind="secret")["kind"] == "BadUsage"


def test_plot_without_renderer_is_a_table(page, monkeypatch):
    """It states what to install."""
    from kern_nb.analysis.plots import vega

    monkeypatch.setattr(vega, "can_draw", lambda: False)
    drawn = page.ask("plot", keys=[encode_key("alpha")], kind="runs")

    assert "<table" in drawn["rendered"]


def test_cell_text_loads_the_selection(page, shop):
    """One session with the magic, several with a method call."""
    one = page.ask("cell", keys=[encode_key("alpha")], frame="messages")["line"]
    two = page.ask("cell", keys=[encode_key("alpha"), encode_key("beta")], frame="runs")["line"]

    assert one == "df = %kern load messages --session alpha"
    assert len(run_line(one.removeprefix("df = "))) == 8
    names = {}
    exec(two, names)  # as a cell does
    assert len(names["df"]) == 3
    assert page.refused("cell", keys=[encode_key("alpha")], frame="secrets")["kind"] == "BadUsage"


def test_commands_name_a_store_that_is_not_current(page, shop, store_factory):
    """Cell texts do, too."""
    other = store_factory("other")
    other.append_run("x", a_run("q"))
    store_registry.attach(other, name="other")

    assert page.ask("branch", key=encode_key("alpha"), run_index=0, message_index=None, name="b")["line"].endswith(
        " --store shop"
    )
    two = page.ask("cell", keys=[encode_key("alpha"), encode_key("beta")], frame="runs")["line"]
    names = {}
    exec(two, names)
    assert len(names["df"]) == 3


def test_read_only_store_refuses_changes(store_factory, engine_name):
    """Nothing is changed, and the list still works."""
    if engine_name == "memory":
        pytest.skip("a store in memory is never opened to be read")
    written = store_factory("r")
    written.append_run("alpha", a_run("q"))
    written.close()
    page = Page(browse(store_factory("r", read_only=True)))
    page.ask("start")

    for call, args in (
        ("rename", {"name": "x"}),
        ("tag", {"tags": "x"}),
        ("branch", {"run_index": None, "message_index": None, "name": "x"}),
    ):
        told = page.refused(call, key=encode_key("alpha"), **args)
        assert (told["kind"], told["gone"]) == ("ReadOnlyStore", False)
    assert page.ask("refresh")["total"] == 1


@pytest.mark.parametrize("call", ["show", "more", "text", "branch", "rename", "tag"])
def test_deleted_session_is_reported(page, shop, call):
    """By each action."""
    args = {
        "show": {},
        "more": {"run_index": 0, "position": 0},
        "text": {"run_index": 0, "position": 0, "part": "content", "number": 0},
        "branch": {"run_index": None, "message_index": None, "name": ""},
        "rename": {"name": "x"},
        "tag": {"tags": "x"},
    }[call]
    shop.delete_session("beta")

    assert page.refused(call, key=encode_key("beta"), **args)["kind"] == "SessionNotFound"


# Hostile texts, and what is left -------------------------------------------------------------------------------------


def fill_with(store, text):
    """One session with a text in every field, and a branch of it."""
    call = ToolCall(tool_call_id=text, tool_name=text, args={text: text}, result=[text], status="failed")
    said = [
        Message(role=text, content=text),
        Message(role="assistant", content={text: text}, tool_calls=[call]),
        Message(role="user", content=[{"type": "image", "media_type": text, "url": text}]),
    ]
    store.append_run(text, Run(input=text, messages=said, agent_id=text, model=text, error=text), user_id=text)
    store.rename_session(text, text + "A" * 1_000_000)
    store.tag_session(text, [text, "B" * 100_000])
    store.branch(text, new_session_id=text + "branch")


@pytest.fixture
def hostile(store):
    """Something hostile in every field of a session."""
    fill_with(store, HOSTILE)
    return store


def test_hostile_texts_are_plain_and_truncated(hostile):
    """Controls are escaped, long names truncated, and keys lead to the original ids."""
    page = Page(browse(hostile))
    start = page.ask("start")
    row = next(row for row in start["rows"] if decode_key(row["key"]) == HOSTILE)

    assert len(str(start)) < 10_000
    assert not {"\x00", "\u202e", "\ud83d"} & set(str(start))
    assert row["title"].startswith("<script>alert(1)</script>\"'⟨U+202E⟩␀⟨U+D83D⟩&amp;")
    shown = page.ask("show", key=row["key"])
    assert not {"\x00", "\u202e", "\ud83d"} & set(str({k: v for k, v in shown.items() if k != "transcript"}))
    assert len(str(shown)) < 50_000
    for call, args in (("branch", {"run_index": 0, "message_index": 1, "name": HOSTILE[:20]}), ("tag", {"tags": "x"})):
        assert "\x00" not in page.ask(call, key=row["key"], **args)["line"]


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE.replace("\ud83d", "")], ids=["with half a pair", "without"])
def test_rendered_markup_and_fallback_are_escaped(store, text):
    """Comparisons, digests, metrics and the fallback contain no element of a store."""
    fill_with(store, text)
    page = Page(browse(store))
    page.ask("start")
    keys = [encode_key(text), encode_key(text + "branch")]
    page.ask("show", key=keys[0])
    page.ask("choose", keys=keys)
    calls = ("metrics",) if "\ud83d" in text else ("metrics", "compare", "summarize")
    rendered = [page.ask(call, keys=keys)["rendered"] for call in calls]

    for html in (*rendered, page.widget.fallback_html()):
        assert "<script" not in html
        assert "\x00" not in html
        html.encode()
        assert len(html) < 500_000
    assert "alert(1)" in page.widget.fallback_html()


def test_fallback_shows_the_last_view(page):
    """The visible rows, the selection, the open transcript and the last result."""
    page.ask("start")
    assert "where is it?" in page.widget.fallback_html()
    assert "and now?" not in page.widget.fallback_html()
    page.ask("show", key=encode_key("alpha"))
    page.ask("choose", keys=[encode_key("alpha"), encode_key("beta")])
    page.ask("compare", keys=[encode_key("alpha"), encode_key("beta")])
    still = page.widget.fallback_html()

    assert "and now?" in still
    assert still.count("✓</td>") >= 2 or still.count("✓") >= 2
    assert "Totals" in still
    assert "Sessions 1 to 3 of 3" in still
    assert repr(page.widget).endswith("3 sessions, 2 selected>")
    page.ask("set_offset", offset=2)
    assert "Sessions 3 to 3 of 3" in page.widget.fallback_html()


def test_fallback_shows_matching_sessions(page):
    """A new filter starts at the first row."""
    page.ask("set_offset", offset=2)
    page.ask("find", **ANY | {"user": "bob"})

    assert "Sessions 1 to 1 of 1" in page.widget.fallback_html()
