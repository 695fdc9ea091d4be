"""The calls of the inbox: requirements by run, answers in place, and resuming."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from pending_requirements import (
    BOOK,
    CONFIRM,
    DELETE,
    EXTERNAL,
    FILL,
    RATE,
    key,
    load_requirement,
    pause,
    run_command,
    wait_until,
)

from kern_nb import attach
from kern_nb.agent import Agent, tool
from kern_nb.db import InMemoryDb
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Requirement
from kern_nb.widgets.requirements.widget import inbox_widget

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00\ud83d \"'"


@pytest.fixture
def inbox(store):
    """The inbox of a store in which `chat/0` waits for three things."""
    attach(store, name="main")
    ask = {"prompt": "May it?", "assignee": "ann"}
    pause(
        store,
        CONFIRM | ask | {"requirement_id": DELETE},
        FILL | {"requirement_id": BOOK},
        EXTERNAL | {"requirement_id": RATE},
    )
    return inbox_widget(store, by="bob")


@pytest.fixture
def variables(monkeypatch):
    """The variables of the notebook."""
    names = {}
    shell = SimpleNamespace(user_ns=names, kernel=None, execution_count=1)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    return names


def cards(found):
    """What is shown, by id."""
    return {json.loads(card["key"]): card for run in found["runs"] for card in run["cards"]}


@pytest.mark.every_engine
def test_requirements_are_grouped_by_run(inbox):
    """Each has its call, assignee and time; the run has its input."""
    found = inbox.poll("", 20)
    (run,) = found["runs"]
    one, fill, result = run["cards"]

    assert (run["place"], run["agent"], run["asked"], run["left"]) == ("chat/0", "clerk", "Do it.", 3)
    assert (one["tool"], one["kind"], one["prompt"]["text"], one["for"]) == (
        "delete_file",
        "confirmation",
        "May it?",
        "ann",
    )
    assert [(arg["name"], arg["text"], arg["is_text"]) for arg in one["args"]] == [
        ("path", "x.txt", True),
        ("times", "2", False),
    ]
    assert one["since"].endswith(" UTC")
    assert [field["name"] for field in fill["fields"]] == ["city", "date"]
    assert [arg["name"] for arg in fill["args"]] == ["seats"]
    assert (result["fields"], result["waiting"], result["state"]) == ([], True, "")
    assert (found["left"], found["people"], found["by"]) == (3, [{"key": key("ann"), "name": "ann"}], "bob")
    assert repr(inbox) == "<InboxWidget: 3 pending requirements>"
    json.dumps(found).encode()


def test_poll_without_changes_returns_the_mark(inbox, store):
    """A change is returned by the next poll."""
    mark = inbox.poll("", 20)["mark"]

    assert inbox.poll(mark, 20) == {"mark": mark}

    pause(store, CONFIRM, session_id="other")
    assert [run["place"] for run in inbox.poll(mark, 20)["runs"]] == ["chat/0", "other/0"]


CLICKS = {
    "approve": (DELETE, lambda w: w.approve(key(DELETE), {})),
    "edit": (DELETE, lambda w: w.approve(key(DELETE), {"0": 'it\'s "y".txt', "1": "3"})),
    "reject": (DELETE, lambda w: w.reject(key(DELETE), "Not -- today; it's Sunday.")),
    "reject, oddly": (DELETE, lambda w: w.reject(key(DELETE), "--by $me")),
    "fill in": (BOOK, lambda w: w.answer(key(BOOK), ["Paris", "next Monday"], False)),
    "fill in text": (BOOK, lambda w: w.answer(key(BOOK), ["75001", "a=b"], True)),
    "result": (RATE, lambda w: w.answer(key(RATE), ['{"stars": 5}'], False)),
    "result as text": (RATE, lambda w: w.answer(key(RATE), ["42"], True)),
    "result in lines": (RATE, lambda w: w.answer(key(RATE), ["a\n\tb"], False)),
    "hand off": (DELETE, lambda w: w.hand_off(key(DELETE), "carl", "You know the file.")),
}


@pytest.mark.parametrize("click", CLICKS)
def test_command_equals_its_click(click, attached_stores):
    """The command stores the same answer."""
    requirement_id, clicked = CLICKS[click]
    answers, lines = [], []
    for act in (lambda: lines.append(clicked(inbox_widget(by="bob"))["line"]), lambda: run_command(lines[0])):
        with InMemoryDb() as store:
            attached_stores.attach(store, name="main")
            for asked, name in ((CONFIRM, DELETE), (FILL, BOOK), (EXTERNAL, RATE)):
                pause(store, asked | {"requirement_id": name}, session_id=name)
            act()
            one = load_requirement(store, requirement_id)
            answers.append((one.status, one.approved, one.answer, one.note, one.resolved_by, one.assignee))
            attached_stores.detach("main")
    assert answers[0] == answers[1]
    assert answers[0][0] == ("pending" if click == "hand off" else "resolved")


def test_edited_arguments_keep_their_type(inbox, store):
    """Text stays text, even if it looks like a number; other arguments are parsed as JSON."""
    inbox.approve(key(DELETE), {"0": "42", "1": "42"})

    assert load_requirement(store, DELETE).answer == {"path": "42", "times": 42}
    shown = cards(inbox.poll("", 20))[DELETE]
    assert (shown["state"], [arg["now"] for arg in shown["args"]]) == ("✓ approved by bob", ["42", "42"])


def test_invalid_input_is_refused_at_the_requirement(inbox, store):
    """The error names the argument and what is valid; nothing is resolved."""
    told = inbox.approve(key(DELETE), {"1": "3,5"})["refused"]

    assert "times must be JSON" in told["message"]
    assert told["hint"].startswith("Enter a number")
    assert inbox.answer(key(RATE), [""], False)["refused"]["message"] == "The answer must not be empty."
    assert inbox.hand_off(key(RATE), " ", "")["refused"]["message"] == "The assignee must not be empty."
    assert [one.status for one in store.requirements(status=None)] == ["pending"] * 3


def test_required_field_must_not_be_empty(inbox, store):
    """The store names the missing field."""
    extra = {"fields": ["city", "date"], "required": ["city"]}
    pause(store, FILL | {"requirement_id": "need", "extra": extra}, session_id="needed")

    assert "needs city" in inbox.answer(key("need"), ["", "Monday"], False)["refused"]["message"]
    assert "said" in inbox.answer(key("need"), ["Paris", ""], False)
    assert load_requirement(store, "need").answer == {"city": "Paris"}


def test_of_two_clicks_one_wins(inbox, store):
    """The other is told by whom and when it was resolved."""
    other = inbox_widget(store, by="eve")
    other.poll("", 20)

    assert "said" in inbox.approve(key(DELETE), {})
    refused = other.reject(key(DELETE), "no")["refused"]

    assert refused["kind"] == "AlreadyResolved"
    assert "was approved by bob at" in refused["message"]
    assert load_requirement(store, DELETE).approved is True
    assert cards(other.poll("", 20))[DELETE]["state"] == "✓ approved by bob"


def test_claimed_requirement_is_refused(inbox, store):
    """The form shows who claimed it; only they may answer."""
    store.claim(RATE, by="carl")

    assert cards(inbox.poll("", 20))[RATE]["state"] == "claimed by carl"
    assert "is claimed by carl" in inbox.answer(key(RATE), ["5"], False)["refused"]["message"]
    inbox.answer_as("carl")
    assert "said" in inbox.answer(key(RATE), ["5"], False)
    assert load_requirement(store, RATE).resolved_by == "carl"


def test_filter_by_assignee(inbox):
    """Requirements of others are counted, not shown."""
    inbox.narrow(key("ann"))
    (run,) = inbox.poll("", 20)["runs"]

    assert [card["tool"] for card in run["cards"]] == ["delete_file"]
    assert (run["left"], run["elsewhere"]) == (3, 2)
    inbox.hand_off(key(DELETE), "carl", "")
    assert cards(inbox.poll("", 20))[DELETE]["for"] == "carl"  # it stays in view until the inbox is narrowed again
    inbox.narrow(key("ann"))
    assert inbox.poll("", 20)["runs"] == []


def test_resolved_run_can_be_resumed_with_its_agent(store, variables):
    """Without the agent the command is shown. The outcome stays until it is cleared."""
    attach(store, name="main")
    shredded = []

    def delete_file(path: str) -> str:
        """Delete a file."""
        shredded.append(path)
        return f"deleted {path}"

    agent = Agent(
        ScriptedModel([call("delete_file", path="x.txt"), "It is gone."]),
        id="shredder",
        tools=[tool(delete_file, requires_confirmation=True)],
    )
    waiting = agent.run("Away with it.", session_id="chat").requirements[0].requirement_id
    inbox = inbox_widget()
    (run,) = inbox.poll("", 20)["runs"]
    assert (run["ready"], run["here"]) == (False, "")

    inbox.approve(key(waiting), {"0": "y.txt"})
    (run,) = inbox.poll("", 20)["runs"]
    assert (run["ready"], run["here"], run["line"]) == (True, "", "%kern continue chat/0")

    variables["boss"] = agent
    (run,) = inbox.poll("", 20)["runs"]
    assert (run["ready"], run["here"], run["line"]) == (True, "boss", "%kern continue chat/0 --agent boss")
    assert inbox.resume(run["key"])["line"] == run["line"]
    going = wait_until(lambda: [one["going"] for one in inbox.poll("", 20)["runs"] if one["going"]["state"] == "ended"])

    assert going == [{"state": "ended", "status": "COMPLETED", "text": "It is gone.", "left": 0}]
    assert shredded == ["y.txt"]
    inbox.clear()
    assert inbox.poll("", 20)["runs"] == []


def test_failed_resume_shows_its_error_and_can_be_retried(store, variables):
    """The error has a hint."""
    attach(store, name="main")
    agent = Agent(
        ScriptedModel([call("ask"), RuntimeError("no such host"), "Well."]),
        id="asker",
        tools=[tool(lambda: "yes", name="ask", requires_confirmation=True)],
    )
    variables["asker"] = agent
    waiting = agent.run("?", session_id="chat").requirements[0].requirement_id
    inbox = inbox_widget()
    run = inbox.poll("", 20)["runs"][0]
    inbox.approve(key(waiting), {})
    inbox.resume(run["key"])
    ended = wait_until(lambda: [one for one in inbox.poll("", 20)["runs"] if one["going"]["state"] != "going"])

    assert ended[0]["going"]["state"] == "failed"
    assert "no such host" in ended[0]["going"]["error"]["message"]
    inbox.resume(run["key"])
    wait_until(lambda: store.get_run(json.loads(run["key"])).status == "COMPLETED")


def test_resolved_requirements_of_a_paused_run_are_shown(inbox, store):
    """Even if the inbox was opened after they were resolved."""
    for requirement_id in (DELETE, BOOK):
        store.resolve(requirement_id, approve=True)
    store.resolve(RATE, value=5, by="ann")
    (run,) = inbox_widget(store).poll("", 20)["runs"]

    assert run["ready"]
    assert [card["state"] for card in run["cards"]] == ["✓ approved", "✓ answered", "✓ answered by ann"]


def test_requirements_resolved_elsewhere_stay_on_screen(inbox, store):
    """The form shows who resolved it, and that the run was resumed."""
    inbox.poll("", 20)
    for requirement_id in (DELETE, BOOK, RATE):
        store.resolve(requirement_id, approve=False, by="eve")
    run_id = store.requirements(status=None)[0].run_id
    store.claim_run(run_id)
    store.finish_run(run_id)
    (run,) = inbox.poll("", 20)["runs"]

    assert {card["state"] for card in run["cards"]} == {"✗ rejected by eve"}
    assert (run["ready"], run["status"]) == (False, "COMPLETED")
    assert inbox_widget(store).poll("", 20)["runs"] == []


def test_expired_requirement_is_marked(store):
    """It can no longer be answered, and is not pending."""
    from datetime import UTC, datetime, timedelta

    attach(store, name="main")
    pause(store, CONFIRM | {"requirement_id": DELETE, "expires_at": datetime.now(UTC) - timedelta(days=1)})
    inbox = inbox_widget(store)
    found = inbox.poll("", 20)

    assert cards(found)[DELETE]["state"] == "✗ expired"
    assert found["left"] == 0
    assert "expired" in inbox.approve(key(DELETE), {})["refused"]["message"]


def test_member_requirement_belongs_to_the_team_run(store):
    """The team's run is resumed, and shows the member's requirement."""
    attach(store, name="main")
    leader = store.start_run("led", input="lead", session_type="team", team_id="crew")
    pause(store, CONFIRM | {"requirement_id": DELETE}, session_id="led", parent=leader.run_id, agent_id="member")
    store.pause_run(leader.run_id, [])
    (run,) = inbox_widget(store).poll("", 20)["runs"]

    assert (run["place"], run["agent"], run["left"]) == ("led/0", "crew", 1)


def test_runs_are_limited(store):
    """The others are counted."""
    attach(store, name="main")
    for n in range(5):
        pause(store, CONFIRM, session_id=f"s{n}")
    found = inbox_widget(store).poll("", 3)

    assert ([run["place"] for run in found["runs"]], found["more"], found["left"]) == (["s0/0", "s1/0", "s2/0"], 2, 5)


def test_hostile_texts_are_sent_as_text(store):
    """Every text is JSON with visible controls, and each command is one line."""
    attach(store, name="main")
    asked = {"tool_name": HOSTILE, "args": {HOSTILE: HOSTILE, "n": [HOSTILE]}, "prompt": HOSTILE, "note": HOSTILE}
    pause(
        store,
        CONFIRM | asked | {"assignee": HOSTILE, "requirement_id": "x"},
        FILL | {"extra": {"fields": [HOSTILE]}},
        session_id=HOSTILE,
        agent_id=HOSTILE,
        prompt=HOSTILE,
    )
    inbox = inbox_widget(store)
    found = inbox.poll("", 20)

    json.dumps(found).encode()
    assert not {"\x00", "\u202e", "\ud83d"} & set(json.dumps(found, ensure_ascii=False))
    assert "<img" not in inbox.conversation(found["runs"][0]["key"])
    done = inbox.hand_off(key("x"), "a\nb", HOSTILE)
    assert "\n" not in done["line"]
    assert "<img" not in inbox.fallback_html()


def test_fallback_is_the_inbox_table(inbox):
    """A saved notebook shows it without a kernel."""
    assert "3 pending requirements" in inbox.fallback_html()
    assert "delete_file" in inbox.fallback_html()


def test_read_only_store_is_refused_at_the_requirement(tmp_path):
    """It is not reported as a lost store."""
    from kern_nb.db import SqliteDb

    with SqliteDb(db_file=tmp_path / "s.db") as store:
        pause(store, CONFIRM | {"requirement_id": DELETE})
    with SqliteDb(db_file=tmp_path / "s.db", read_only=True) as store:
        assert inbox_widget(store).approve(key(DELETE), {})["refused"]["kind"] == "ReadOnlyStore"


def test_requirements_of_runs_with_a_status(store):
    """`run_status` is the status of the run, of which all requirements are returned."""
    first = pause(store, CONFIRM | {"requirement_id": DELETE}, session_id="a")
    pause(store, CONFIRM | {"requirement_id": BOOK}, session_id="b")
    store.resolve(DELETE, approve=True)
    store.resolve(BOOK, approve=True)
    store.claim_run(first.run_id)

    assert [one.requirement_id for one in store.requirements(status=None, run_status="PAUSED")] == [BOOK]
    assert isinstance(store.requirements(status=None, run_status="RUNNING")[0], Requirement)


def test_runs_that_share_an_id_are_answered_separately(store):
    """The card of the second run answers the second run, and the line of each names its run."""
    attach(store, name="main")
    first, second = (pause(store, CONFIRM | {"requirement_id": "call_1"}).run_id for _ in range(2))
    widget = inbox_widget(store, by="bob")
    shown = [card for run in widget.poll("", 20)["runs"] for card in run["cards"]]
    said = widget.approve(shown[1]["key"], {})

    assert f"{second}/call_1" in said["line"]
    assert [r.run_id for r in store.requirements()] == [first]
    assert [card["waiting"] for run in widget.poll("", 20)["runs"] for card in run["cards"]] == [True, False]
    assert "said" in widget.reject(key("call_1"), "no")
    assert store.requirements() == []
