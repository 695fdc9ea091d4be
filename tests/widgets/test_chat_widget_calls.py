"""The chat as its script asks for it: said, streamed, stopped, paused and gone on with; the session is what it shows."""

from __future__ import annotations

import json
import threading

import pytest
from paused import CONFIRM, key, pause, stored, typed, until

from kern_nb import attach
from kern_nb.agent import Agent, tool
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, OwnerMismatch, SessionNotFound
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run
from kern_nb.runtime import background
from kern_nb.team import Team
from kern_nb.widgets.chat.live_run import Talk
from kern_nb.widgets.chat.run_data import TURNS
from kern_nb.widgets.chat.widget import chat
from kern_nb.workflow import Workflow

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00\ud83d \"'"
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def echo(messages):
    """Say again what was said."""
    return f"You said {messages[-1].content}."


def mailer(sent):
    """A tool that sends mail once a person has approved."""

    def send(to: str, copies: int = 1) -> str:
        """Send a letter."""
        sent.append((to, copies))
        return f"sent {copies} to {to}"

    return tool(send, requires_confirmation=True)


def talking(store, script, session_id="chat", tools=(), **options):
    """A chat with an agent that follows a script; what it tells unasked is in ``.heard``."""
    opened = chat(Agent(ScriptedModel(script), db=store, id="clerk", tools=list(tools), **options), session_id)
    opened.heard = []
    opened.tell = opened.heard.append
    return opened


def ended(opened):
    """Wait until nothing is under way; what is shown then."""
    return until(lambda: (found := opened.look(""))["live"] is None and found)


def said(found):
    """Who said what, turn by turn."""
    return [[(one["role"], one["text"]) for one in turn["messages"] if one["text"]] for turn in found["turns"]]


def test_what_is_said_is_answered_and_stored(store):
    """In the session; whoever opens it again sees it."""
    opened = talking(store, echo)
    opened.say("Hello")
    found = ended(opened)

    assert said(found) == [[("user", "Hello"), ("assistant", "You said Hello.")]]
    assert (found["agent"], found["session"], found["earlier"]) == ("clerk", "chat", None)
    assert [(run.status, run.agent_id) for run in store.get_session("chat").runs] == [("COMPLETED", "clerk")]
    assert said(talking(store, echo).look("")) == said(found)


def test_runs_made_elsewhere_are_part_of_the_conversation(store):
    """Also those that are made while it is open: the next look finds them, and one that finds nothing says only so."""
    store.append_run("chat", Run(input="before", output="yes"))
    opened = talking(store, echo)
    mark = opened.look("")["mark"]

    assert opened.look(mark) == {"mark": mark}

    Agent(ScriptedModel("Elsewhere."), db=store).run("And?", session_id="chat")
    found = opened.look(mark)
    assert said(found)[1] == [("user", "And?"), ("assistant", "Elsewhere.")]
    mark = found["mark"]
    assert opened.look(mark) == {"mark": mark}
    waits = pause(store, CONFIRM)
    mark = opened.look(mark)["mark"]
    store.resolve(waits.requirements[0].requirement_id, approve=True, by="eve")
    assert opened.look(mark)["turns"][2]["cards"][0]["state"] == "✓ approved by eve"


def test_nobody_waits_while_it_answers(store):
    """The call is over before the answer is; meanwhile what was said is shown, and nothing else can be said."""
    gate = threading.Event()

    def wait() -> str:
        """Wait for the gate."""
        gate.wait(20)
        return "open"

    opened = talking(store, [[call("wait"), "Let me see."], "It is open.", "Yes."], tools=[wait])
    opened.say("Is it open?")
    under_way = until(lambda: (found := opened.look("")["live"])["parts"][1:] and found)

    assert under_way["asked"] == "Is it open?"
    assert {part["kind"] for part in under_way["parts"]} == {"text", "call"}
    assert opened.look("")["turns"] == []
    with pytest.raises(BadUsage, match="under way"):
        opened.say("Well?")
    mark = opened.look("")["mark"]
    assert opened.look(mark) == {"mark": mark}

    gate.set()
    (turn,) = ended(opened)["turns"]
    assert turn["messages"][-1]["text"] == "It is open."
    assert "✓ wait()" in turn["messages"][1]["calls"][0]["line"]
    assert opened.heard[-1] == {"event": "ended"}


def test_steps_are_numbered_without_a_gap_and_add_up_to_what_was_said(store):
    """So a script that missed one knows; in batches, not a message for each word."""
    text = "word " * 2_000 + "end\r\nof it"
    opened = talking(
        store, [[call("look", at="it"), "First."], text], tools=[tool(lambda at: f"seen {at}", name="look")]
    )
    opened.say("Tell me.")
    ended(opened)
    batches = [message for message in opened.heard if message["event"] == "said"]
    steps = [step for batch in batches for step in batch["steps"]]

    assert [batch["first"] for batch in batches] == [
        sum(len(b["steps"]) for b in batches[:n]) for n in range(len(batches))
    ]
    assert "".join(step["text"] for step in steps if step["kind"] == "text") == ("First." + text).replace("\r\n", "\n")
    assert [(step["kind"], step["line"][:1]) for step in steps if step["kind"] != "text"] == [
        ("call", "…"),
        ("ended", "✓"),
    ]
    assert len(opened.heard) < 200


def test_an_answer_is_stopped_and_the_next_message_works(store):
    """Its run is stored as CANCELLED, whenever it was stopped; it can be gone on with."""
    gate = threading.Event()

    def script(messages):
        if messages[-1].content == "slow":
            gate.wait(20)
        return echo(messages)

    opened = talking(store, script)
    opened.say("slow")
    until(lambda: opened.look("")["live"]["run"])
    opened.stop()
    found = ended(opened)
    gate.set()

    assert (found["turns"][0]["status"], found["turns"][0]["again"]) == ("CANCELLED", True)
    opened.say("quick")
    assert said(ended(opened))[1] == [("user", "quick"), ("assistant", "You said quick.")]
    assert [run.status for run in store.get_session("chat").runs] == ["CANCELLED", "COMPLETED"]
    opened.go_on(found["turns"][0]["key"])
    assert said(ended(opened))[0] == [("user", "slow"), ("assistant", "You said slow.")]
    opened.stop()  # nothing is under way


def test_what_is_stopped_before_it_began_ends_all_the_same():
    """However early: whoever watches is told of the end, and nothing was done."""
    told, done = [], threading.Event()

    async def work(_emit):
        raise AssertionError("it was stopped")

    def is_over(run, error):
        told.append((run, error))
        done.set()

    blocked = threading.Event()
    background.loop.begin(lambda: _blocking(blocked))  # the loop is busy: nothing can begin
    begun = background.Live(work, lambda _: None, is_over)
    begun.stop()
    blocked.set()

    assert done.wait(20)
    assert told == [(None, None)]
    begun.stop()


async def _blocking(event):
    event.wait(20)


def test_a_tool_is_approved_in_place_and_the_run_goes_on(store):
    """With the arguments as they were edited, once, by the click alone; what else is asked is waited for first."""
    sent = []
    opened = talking(store, [[call("send", to="bob"), call("send", to="eve", copies=2)], "Sent."], tools=[mailer(sent)])
    opened.say("Write to both.")
    (turn,) = ended(opened)["turns"]
    first, second = turn["cards"]
    assert [one["calls"] for one in turn["messages"]] == [[], []]  # they stand in the cards

    told = opened.approve(first["key"], {"0": "carl"})
    assert told["said"] == '✓ Approved send(to="bob").'
    assert told["line"].startswith("%kern approve ")
    assert "--args" in told["line"]
    assert ended(opened)["turns"][0]["status"] == "PAUSED"
    assert sent == []

    opened.reject(second["key"], "Not her.")
    (turn,) = until(lambda: (found := ended(opened)["turns"])[0]["status"] == "COMPLETED" and found)
    assert sent == [("carl", 1)]
    assert turn["cards"] == []
    assert turn["messages"][-1]["text"] == "Sent."
    assert [(c["result"] or {}).get("text") for c in turn["messages"][1]["calls"]] == ["sent 1 to carl", "Not her."]


def test_what_was_said_in_a_run_stands_while_it_goes_on(store):
    """The turn is shown as it was, with what comes; it is not told twice."""
    gate = threading.Event()

    def script(messages):
        if messages[-1].role == "tool":
            gate.wait(20)
            return "Sent."
        return [call("send", to="bob"), "I will write."]

    opened = talking(store, script, tools=[mailer([])])
    opened.say("Write.")
    (turn,) = ended(opened)["turns"]
    opened.approve(turn["cards"][0]["key"], {})
    found = until(lambda: (found := opened.look(""))["live"]["parts"] and found)

    assert found["live"]["on"] == turn["key"]
    assert [part["kind"] for part in found["live"]["parts"]] == ["call"]
    assert (said(found), found["turns"][0]["cards"]) == ([[("user", "Write."), ("assistant", "I will write.")]], [])
    gate.set()
    assert said(ended(opened))[0][-1] == ("assistant", "Sent.")


def test_who_answers_second_is_told_in_place(store):
    """Another person was faster; the run, which they have gone on with, is not gone on with again."""
    sent = []
    agent = Agent(ScriptedModel([call("send", to="bob"), "Sent."]), db=store, tools=[mailer(sent)])
    run = agent.run("Write.", session_id="chat")
    opened = chat(agent, "chat")
    (card,) = opened.look("")["turns"][0]["cards"]
    store.resolve(run.requirements[0].requirement_id, approve=True, by="eve")
    agent.continue_run(run.run_id)

    assert "was approved by eve" in opened.approve(card["key"], {})["refused"]["message"]
    assert ended(opened)["turns"][0]["cards"] == []
    assert sent == [("bob", 1)]


def test_an_error_is_told_in_its_turn_and_the_run_can_be_tried_again(store):
    """The same run: it goes on from what is stored of it."""
    opened = talking(store, [RuntimeError("no such host"), "Here I am."])
    opened.say("Hello?")
    found = ended(opened)
    (turn,) = found["turns"]

    assert (turn["status"], turn["again"], found["failed"]) == ("ERROR", True, None)
    assert "no such host" in turn["ends"][0]["text"]
    assert opened.last_error is not None
    assert opened.go_on(turn["key"])["line"].startswith("%kern continue chat/0")
    assert said(ended(opened)) == [[("user", "Hello?"), ("assistant", "Here I am.")]]


def test_what_fails_before_anything_is_stored_is_told_with_what_was_said(store):
    """Nothing is lost: it can be said again."""
    opened = talking(store, echo)
    model, opened.agent.model = opened.agent.model, "nobody:knows"
    opened.say("Hello")
    found = ended(opened)

    assert (found["turns"], found["failed"]["asked"], found["failed"]["run"]) == ([], "Hello", None)
    assert "nobody" in found["failed"]["error"]["message"]
    opened.agent.model = model
    opened.say("Hello")
    assert (ended(opened)["failed"], len(ended(opened)["turns"])) == (None, 1)


def test_a_branch_is_made_from_any_turn_and_gone_on_in(store):
    """It inherits up to there; the session that it came from goes on as it was. The line makes the same branch."""
    attach(store, name="main")
    opened = talking(store, echo)
    for text in ("one", "two"):
        opened.say(text)
        ended(opened)
    made = opened.branch(opened.look("")["turns"][0]["key"])

    assert opened.look("")["session"] == "chat"
    assert made["line"] == "%kern branch chat/0"
    assert typed(made["line"]).fork_run_index == store.get_session(made["name"]).fork_run_index == 0
    opened.move(made["key"])
    opened.say("else")
    found = ended(opened)
    assert [turn[0][1] for turn in said(found)] == ["one", "else"]
    assert (found["parent"]["name"], found["session"]) == ("chat", made["name"])
    assert "up to run 0" in found["fork"]
    opened.move(found["parent"]["key"])
    assert [turn[0][1] for turn in said(opened.look(""))] == ["one", "two"]
    with pytest.raises(SessionNotFound):
        opened.move(key("nowhere"))
    assert opened.session_id == "chat"


def test_inherited_turns_are_not_answered_in_a_branch(store):
    """What waits there waits in the session that it belongs to."""
    pause(store, CONFIRM)
    branch = store.branch("chat")
    (turn,) = talking(store, echo, branch.session_id).look("")["turns"]

    assert (turn["cards"], turn["again"], turn["ready"]) == ([], False, False)


def test_only_the_latest_turns_are_read_at_first(store):
    """And as many more as are asked for, in order; a long text comes whole when it is asked for."""
    for n in range(2 * TURNS + 3):
        store.append_run("chat", Run(messages=[Message(role="user", content=f"{n} " + "x" * 5_000)]))
    opened = talking(store, echo)
    found = opened.look("")
    before = opened.earlier(found["earlier"])
    first = opened.earlier(before["earlier"])

    shown = [turn["index"] for part in (first, before, found) for turn in part["turns"]]
    assert shown == list(range(2 * TURNS + 3))
    assert first["earlier"] is None
    message = found["turns"][-1]["messages"][0]
    assert message["left"] > 0
    whole = opened.text(found["turns"][-1]["index"], message["place"], "content", 0)
    assert whole["text"] == f"{2 * TURNS + 2} " + "x" * 5_000


def test_another_users_session_is_not_opened(store):
    """Nor moved to; a new session is the user's."""
    store.append_run("hers", Run(input="x"), user_id="ann")

    with pytest.raises(OwnerMismatch):
        talking(store, echo, "hers", user_id="bob")
    opened = talking(store, echo, "his", user_id="bob")
    opened.say("Hello")
    ended(opened)
    assert store.get_session("his").user_id == "bob"
    with pytest.raises(OwnerMismatch):
        opened.move(key("hers"))


def test_an_agent_that_writes_elsewhere_now_is_told_of(store):
    """The chat goes on showing what it showed, and says nothing into another store."""
    attach(store, name="main")
    opened = chat(Agent(ScriptedModel(echo)), "chat")
    attach(":memory:", name="other")

    with pytest.raises(BadUsage, match="now keeps its runs in"):
        opened.say("Hello")


def test_an_agent_without_a_session_gets_one_that_it_keeps():
    """What is said in the chat is what the agent remembers."""
    with InMemoryDb() as store:
        agent = Agent(ScriptedModel(echo), db=store)
        opened = chat(agent)

        assert opened.session_id == agent.session_id
        assert repr(opened) == f"<Chat with agent in session {agent.session_id}>"
        assert chat(agent).session_id == opened.session_id


def test_what_is_no_agent_is_refused():
    """At once, not at the first message."""
    with pytest.raises(BadUsage, match="is no agent"):
        chat(object())
    with pytest.raises(BadUsage, match="Unknown agent 'clark'"):
        chat("clark")


def test_empty_and_endless_messages_are_refused():
    """Before anything is stored."""
    with InMemoryDb() as store:
        opened = talking(store, echo)
        for text in ("", " \n", "x" * 1_000_001):
            with pytest.raises(BadUsage):
                opened.say(text)
        assert len(store.runs_df()) == 0


def test_a_team_and_a_workflow_are_talked_to_alike(store):
    """A member's pause is answered in the leader's turn, and the team goes on."""
    sent = []
    ann = Agent(ScriptedModel([call("send", to="bob"), "Ann has sent it."]), id="ann", tools=[mailer(sent)])
    crew = Team(
        [ann], ScriptedModel([call("delegate_task_to_member", member_id="ann", task="send"), "All done."]), db=store
    )
    opened = chat(crew, "led")
    opened.tell = lambda _: None
    opened.say("Send it.")
    (turn,) = ended(opened)["turns"]
    (card,) = turn["cards"]
    assert (turn["status"], card["tool"]) == ("PAUSED", "send")
    opened.approve(card["key"], {})
    (turn,) = until(lambda: (found := ended(opened)["turns"])[0]["status"] == "COMPLETED" and found)
    assert turn["messages"][-1]["text"] == "All done."
    assert sent == [("bob", 1)]

    line = Workflow(steps=[lambda step: f"{step.input}!"], db=store)
    opened = chat(line, "line")
    opened.tell = lambda _: None
    opened.say("Hello")
    assert said(ended(opened)) == [[("user", "Hello"), ("assistant", "Hello!")]]


def test_pictures_are_given_where_they_are_pictures():
    """Those of a message and of a tool's result; what only says that it is one is not shown."""
    with InMemoryDb() as store:
        parts = [
            {"type": "image", "media_type": "image/png", "sha256": store.put_blob(content, "image/png")}
            for content in (PIXEL, b"<svg onload='alert(1)'/>")
        ]
        store.append_run(
            "chat", Run(messages=[Message(role="user", content=[{"type": "text", "text": "Look"}, *parts])])
        )
        opened = talking(store, echo)
        (message,) = opened.look("")["turns"][0]["messages"]

        assert len(message["pictures"]) == 2
        assert opened.picture(0, message["place"], 0, None)["source"].startswith("data:image/png;base64,")
        with pytest.raises(BadUsage):
            opened.picture(0, message["place"], 1, None)


def test_hostile_texts_cross_as_text(store):
    """In what is said, streamed and stored, and in every name."""
    sent = []
    opened = talking(store, [[call("send", to=HOSTILE), HOSTILE], HOSTILE], HOSTILE, tools=[mailer(sent)], name=HOSTILE)
    opened.say(HOSTILE)
    found = ended(opened)
    branch = opened.branch(found["turns"][0]["key"])
    opened.approve(found["turns"][0]["cards"][0]["key"], {})
    after = until(lambda: (found := ended(opened))["turns"][0]["status"] == "COMPLETED" and found)

    for told in (found, branch, after, opened.heard):
        text = json.dumps(told, ensure_ascii=False)
        text.encode()
        assert not {"\x00", "\u202e", "\n"} & set(text)
    assert "<img" not in opened.still()
    assert stored(store, json.loads(found["turns"][0]["cards"][0]["key"])).approved


def test_the_still_is_the_transcript():
    """What a saved notebook shows without its kernel."""
    with InMemoryDb() as store:
        opened = talking(store, echo)
        assert "chat" in opened.still()
        opened.say("Hello")
        ended(opened)
        assert "You said Hello." in opened.still()


def test_a_script_that_has_all_gets_no_step_twice():
    """What a view holds is numbered with it: the steps that are still on their way are known."""
    heard = []
    talk = Talk(heard.append, "Hello")
    from kern_nb.runtime.events import Text

    for n in range(3):
        talk.emit(Text(f"{n} "))

    assert talk.view()["next"] == 3
    assert talk.view()["parts"] == [{"kind": "text", "text": "0 1 2 "}]
    assert [batch["first"] for batch in heard] == [0, 1, 2]
