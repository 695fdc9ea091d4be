"""The calls of the chat: messages, streaming, stopping, requirements and resuming."""

from __future__ import annotations

import json
import threading

import pytest
from pending_requirements import CONFIRM, key, load_requirement, pause, run_command, wait_until

from kern_nb import attach
from kern_nb.agent import Agent, tool
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, OwnerMismatch, SessionNotFound
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run
from kern_nb.runtime import background
from kern_nb.team import Team
from kern_nb.widgets.chat.live_run import LiveRun
from kern_nb.widgets.chat.run_data import PAGE_RUNS
from kern_nb.widgets.chat.widget import chat
from kern_nb.workflow import Workflow

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00\ud83d \"'"
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def echo(messages):
    """Repeat the message."""
    return f"You said {messages[-1].content}."


def mailer(sent):
    """A tool that sends mail once a person has approved."""

    def send(to: str, copies: int = 1) -> str:
        """Send a letter."""
        sent.append((to, copies))
        return f"sent {copies} to {to}"

    return tool(send, requires_confirmation=True)


def open_chat(store, script, session_id="chat", tools=(), **options):
    """Open a chat with a scripted agent; its unrequested messages are in ``.heard``."""
    opened = chat(Agent(ScriptedModel(script), db=store, id="clerk", tools=list(tools), **options), session_id)
    opened.heard = []
    opened.tell = opened.heard.append
    return opened


def wait_for_end(opened):
    """Wait for the end of the response, and return the view."""
    return wait_until(lambda: (found := opened.poll(""))["live"] is None and found)


def messages_of(found):
    """Return role and text of each message, by run."""
    return [[(one["role"], one["text"]) for one in turn["messages"] if one["text"]] for turn in found["turns"]]


def test_message_is_answered_and_stored(store):
    """The session contains it for everyone who opens it."""
    opened = open_chat(store, echo)
    opened.say("Hello")
    found = wait_for_end(opened)

    assert messages_of(found) == [[("user", "Hello"), ("assistant", "You said Hello.")]]
    assert (found["agent"], found["session"], found["earlier"]) == ("clerk", "chat", None)
    assert [(run.status, run.agent_id) for run in store.get_session("chat").runs] == [("COMPLETED", "clerk")]
    assert messages_of(open_chat(store, echo).poll("")) == messages_of(found)


def test_runs_of_others_appear_in_the_conversation(store):
    """The next poll finds them; a poll without changes returns only the mark."""
    store.append_run("chat", Run(input="before", output="yes"))
    opened = open_chat(store, echo)
    mark = opened.poll("")["mark"]

    assert opened.poll(mark) == {"mark": mark}

    Agent(ScriptedModel("Elsewhere."), db=store).run("And?", session_id="chat")
    found = opened.poll(mark)
    assert messages_of(found)[1] == [("user", "And?"), ("assistant", "Elsewhere.")]
    mark = found["mark"]
    assert opened.poll(mark) == {"mark": mark}
    waits = pause(store, CONFIRM)
    mark = opened.poll(mark)["mark"]
    store.resolve(waits.requirements[0].requirement_id, approve=True, by="eve")
    assert opened.poll(mark)["turns"][2]["cards"][0]["state"] == "✓ approved by eve"


def test_response_does_not_block(store):
    """The call returns first; meanwhile the message is shown, and no other can be sent."""
    gate = threading.Event()

    def wait() -> str:
        """Wait for the gate."""
        gate.wait(20)
        return "open"

    opened = open_chat(store, [[call("wait"), "Let me see."], "It is open.", "Yes."], tools=[wait])
    opened.say("Is it open?")
    under_way = wait_until(lambda: (found := opened.poll("")["live"])["parts"][1:] and found)

    assert under_way["asked"] == "Is it open?"
    assert {part["kind"] for part in under_way["parts"]} == {"text", "call"}
    assert opened.poll("")["turns"] == []
    with pytest.raises(BadUsage, match="in progress"):
        opened.say("Well?")
    mark = opened.poll("")["mark"]
    assert opened.poll(mark) == {"mark": mark}

    gate.set()
    (turn,) = wait_for_end(opened)["turns"]
    assert turn["messages"][-1]["text"] == "It is open."
    assert "✓ wait()" in turn["messages"][1]["calls"][0]["line"]
    assert opened.heard[-1] == {"event": "ended"}


def test_steps_are_contiguous_and_complete(store):
    """They are sent in batches, and a script notices a missing one."""
    text = "word " * 2_000 + "end\r\nof it"
    opened = open_chat(
        store, [[call("look", at="it"), "First."], text], tools=[tool(lambda at: f"seen {at}", name="look")]
    )
    opened.say("Tell me.")
    wait_for_end(opened)
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


def test_stopped_response_allows_the_next_message(store):
    """The run is stored as CANCELLED and can be resumed."""
    gate = threading.Event()

    def script(messages):
        if messages[-1].content == "slow":
            gate.wait(20)
        return echo(messages)

    opened = open_chat(store, script)
    opened.say("slow")
    wait_until(lambda: opened.poll("")["live"]["run"])
    opened.stop()
    found = wait_for_end(opened)
    gate.set()

    assert (found["turns"][0]["status"], found["turns"][0]["again"]) == ("CANCELLED", True)
    opened.say("quick")
    assert messages_of(wait_for_end(opened))[1] == [("user", "quick"), ("assistant", "You said quick.")]
    assert [run.status for run in store.get_session("chat").runs] == ["CANCELLED", "COMPLETED"]
    opened.resume(found["turns"][0]["key"])
    assert messages_of(wait_for_end(opened))[0] == [("user", "slow"), ("assistant", "You said slow.")]
    opened.stop()  # nothing is under way


def test_stop_before_the_start_ends_the_run():
    """The script is told of the end, and nothing was run."""
    told, done = [], threading.Event()

    async def work(_emit):
        raise AssertionError("it was stopped")

    def is_over(run, error):
        told.append((run, error))
        done.set()

    blocked = threading.Event()
    background.event_loop.start_detached(lambda: _blocking(blocked))  # the loop is busy: nothing can begin
    begun = background.BackgroundRun(work, lambda _: None, is_over)
    begun.stop()
    blocked.set()

    assert done.wait(20)
    assert told == [(None, None)]
    begun.stop()


async def _blocking(event):
    event.wait(20)


def test_approval_in_place_resumes_the_run(store):
    """It runs once with the edited arguments, after all requirements are resolved."""
    sent = []
    opened = open_chat(
        store, [[call("send", to="bob"), call("send", to="eve", copies=2)], "Sent."], tools=[mailer(sent)]
    )
    opened.say("Write to both.")
    (turn,) = wait_for_end(opened)["turns"]
    first, second = turn["cards"]
    assert [one["calls"] for one in turn["messages"]] == [[], []]  # they stand in the cards

    told = opened.approve(first["key"], {"0": "carl"})
    assert told["said"] == '✓ Approved send(to="bob").'
    assert told["line"].startswith("%kern approve ")
    assert "--args" in told["line"]
    assert wait_for_end(opened)["turns"][0]["status"] == "PAUSED"
    assert sent == []

    opened.reject(second["key"], "Not her.")
    (turn,) = wait_until(lambda: (found := wait_for_end(opened)["turns"])[0]["status"] == "COMPLETED" and found)
    assert sent == [("carl", 1)]
    assert turn["cards"] == []
    assert turn["messages"][-1]["text"] == "Sent."
    assert [(c["result"] or {}).get("text") for c in turn["messages"][1]["calls"]] == ["sent 1 to carl", "Not her."]


def test_resumed_run_keeps_its_messages(store):
    """They are shown once, followed by the new output."""
    gate = threading.Event()

    def script(messages):
        if messages[-1].role == "tool":
            gate.wait(20)
            return "Sent."
        return [call("send", to="bob"), "I will write."]

    opened = open_chat(store, script, tools=[mailer([])])
    opened.say("Write.")
    (turn,) = wait_for_end(opened)["turns"]
    opened.approve(turn["cards"][0]["key"], {})
    found = wait_until(lambda: (found := opened.poll(""))["live"]["parts"] and found)

    assert found["live"]["on"] == turn["key"]
    assert [part["kind"] for part in found["live"]["parts"]] == ["call"]
    assert (messages_of(found), found["turns"][0]["cards"]) == (
        [[("user", "Write."), ("assistant", "I will write.")]],
        [],
    )
    gate.set()
    assert messages_of(wait_for_end(opened))[0][-1] == ("assistant", "Sent.")


def test_second_answer_is_refused_in_place(store):
    """The run that another person resumed is not resumed again."""
    sent = []
    agent = Agent(ScriptedModel([call("send", to="bob"), "Sent."]), db=store, tools=[mailer(sent)])
    run = agent.run("Write.", session_id="chat")
    opened = chat(agent, "chat")
    (card,) = opened.poll("")["turns"][0]["cards"]
    store.resolve(run.requirements[0].requirement_id, approve=True, by="eve")
    agent.continue_run(run.run_id)

    assert "was approved by eve" in opened.approve(card["key"], {})["refused"]["message"]
    assert wait_for_end(opened)["turns"][0]["cards"] == []
    assert sent == [("bob", 1)]


def test_failed_run_shows_its_error_and_can_be_retried(store):
    """The same run resumes from what is stored."""
    opened = open_chat(store, [RuntimeError("no such host"), "Here I am."])
    opened.say("Hello?")
    found = wait_for_end(opened)
    (turn,) = found["turns"]

    assert (turn["status"], turn["again"], found["failed"]) == ("ERROR", True, None)
    assert "no such host" in turn["ends"][0]["text"]
    assert opened.last_error is not None
    assert opened.resume(turn["key"])["line"].startswith("%kern continue chat/0")
    assert messages_of(wait_for_end(opened)) == [[("user", "Hello?"), ("assistant", "Here I am.")]]


def test_failure_before_the_run_is_stored_shows_the_prompt(store):
    """The message can be sent again."""
    opened = open_chat(store, echo)
    model, opened.agent.model = opened.agent.model, "nobody:knows"
    opened.say("Hello")
    found = wait_for_end(opened)

    assert (found["turns"], found["failed"]["asked"], found["failed"]["run"]) == ([], "Hello", None)
    assert "nobody" in found["failed"]["error"]["message"]
    opened.agent.model = model
    opened.say("Hello")
    assert (wait_for_end(opened)["failed"], len(wait_for_end(opened)["turns"])) == (None, 1)


def test_refused_message_is_kept_while_the_session_is_handed_back(store):
    """What was written while a person had the session can be sent after the person's answer."""
    opened = open_chat(store, echo)
    opened.say("Hello")
    wait_for_end(opened)
    requirement = store.handoff("chat", to="ann")
    opened.say("Are you there?")
    assert "handed off to ann" in wait_for_end(opened)["failed"]["error"]["message"]

    opened.answer(key(requirement.requirement_id), ["I called."], True)
    found = wait_for_end(opened)
    assert (found["turns"][-1]["status"], found["failed"]["asked"]) == ("COMPLETED", "Are you there?")
    opened.say(found["failed"]["asked"])
    found = wait_for_end(opened)
    assert (messages_of(found)[-1][0], found["failed"]) == (("user", "Are you there?"), None)


def test_branch_from_any_run_can_be_continued(store):
    """It inherits up to that run; the parent is unchanged, and the command makes the same branch."""
    attach(store, name="main")
    opened = open_chat(store, echo)
    for text in ("one", "two"):
        opened.say(text)
        wait_for_end(opened)
    made = opened.branch(opened.poll("")["turns"][0]["key"])

    assert opened.poll("")["session"] == "chat"
    assert made["line"] == "%kern branch chat/0"
    assert run_command(made["line"]).fork_run_index == store.get_session(made["name"]).fork_run_index == 0
    opened.move(made["key"])
    opened.say("else")
    found = wait_for_end(opened)
    assert [turn[0][1] for turn in messages_of(found)] == ["one", "else"]
    assert (found["parent"]["name"], found["session"]) == ("chat", made["name"])
    assert "up to run 0" in found["fork"]
    opened.move(found["parent"]["key"])
    assert [turn[0][1] for turn in messages_of(opened.poll(""))] == ["one", "two"]
    with pytest.raises(SessionNotFound):
        opened.move(key("nowhere"))
    assert opened.session_id == "chat"


def test_inherited_runs_have_no_forms(store):
    """Their requirements belong to the parent session."""
    pause(store, CONFIRM)
    branch = store.branch("chat")
    (turn,) = open_chat(store, echo, branch.session_id).poll("")["turns"]

    assert (turn["cards"], turn["again"], turn["ready"]) == ([], False, False)


def test_only_the_latest_runs_are_loaded_at_first(store):
    """Earlier ones are loaded on request, in order; long texts likewise."""
    for n in range(2 * PAGE_RUNS + 3):
        store.append_run("chat", Run(messages=[Message(role="user", content=f"{n} " + "x" * 5_000)]))
    opened = open_chat(store, echo)
    found = opened.poll("")
    before = opened.earlier(found["earlier"])
    first = opened.earlier(before["earlier"])

    shown = [turn["index"] for part in (first, before, found) for turn in part["turns"]]
    assert shown == list(range(2 * PAGE_RUNS + 3))
    assert first["earlier"] is None
    message = found["turns"][-1]["messages"][0]
    assert message["left"] > 0
    whole = opened.text(found["turns"][-1]["index"], message["position"], "content", 0)
    assert whole["text"] == f"{2 * PAGE_RUNS + 2} " + "x" * 5_000


def test_session_of_another_user_is_refused(store):
    """The chat cannot switch to it; a new session belongs to the user."""
    store.append_run("hers", Run(input="x"), user_id="ann")

    with pytest.raises(OwnerMismatch):
        open_chat(store, echo, "hers", user_id="bob")
    opened = open_chat(store, echo, "his", user_id="bob")
    opened.say("Hello")
    wait_for_end(opened)
    assert store.get_session("his").user_id == "bob"
    with pytest.raises(OwnerMismatch):
        opened.move(key("hers"))


def test_agent_with_another_store_is_refused(store):
    """The chat keeps its view, and sends nothing to another store."""
    attach(store, name="main")
    opened = chat(Agent(ScriptedModel(echo)), "chat")
    attach(":memory:", name="other")

    with pytest.raises(BadUsage, match="now stores its runs in"):
        opened.say("Hello")


def test_agent_without_a_session_gets_one():
    """The agent's history contains the messages of the chat."""
    with InMemoryDb() as store:
        agent = Agent(ScriptedModel(echo), db=store)
        opened = chat(agent)

        assert opened.session_id == agent.session_id
        assert repr(opened) == f"<Chat with agent in session {agent.session_id}>"
        assert chat(agent).session_id == opened.session_id


def test_chat_needs_an_agent():
    """Anything else is refused at once."""
    with pytest.raises(BadUsage, match="agent must be an agent"):
        chat(object())
    with pytest.raises(BadUsage, match="Unknown agent 'clark'"):
        chat("clark")


def test_empty_and_long_messages_are_refused():
    """Before anything is stored."""
    with InMemoryDb() as store:
        opened = open_chat(store, echo)
        for text in ("", " \n", "x" * 1_000_001):
            with pytest.raises(BadUsage):
                opened.say(text)
        assert len(store.runs_df()) == 0


def test_chat_with_a_team_and_a_workflow(store):
    """A member's requirement is resolved in the leader's run, and the team resumes."""
    sent = []
    ann = Agent(ScriptedModel([call("send", to="bob"), "Ann has sent it."]), id="ann", tools=[mailer(sent)])
    crew = Team(
        [ann], ScriptedModel([call("delegate_task_to_member", member_id="ann", task="send"), "All done."]), db=store
    )
    opened = chat(crew, "led")
    opened.tell = lambda _: None
    opened.say("Send it.")
    (turn,) = wait_for_end(opened)["turns"]
    (card,) = turn["cards"]
    assert (turn["status"], card["tool"]) == ("PAUSED", "send")
    opened.approve(card["key"], {})
    (turn,) = wait_until(lambda: (found := wait_for_end(opened)["turns"])[0]["status"] == "COMPLETED" and found)
    assert turn["messages"][-1]["text"] == "All done."
    assert sent == [("bob", 1)]

    line = Workflow(steps=[lambda step: f"{step.input}!"], db=store)
    opened = chat(line, "line")
    opened.tell = lambda _: None
    opened.say("Hello")
    assert messages_of(wait_for_end(opened)) == [[("user", "Hello"), ("assistant", "Hello!")]]


def test_only_images_are_sent():
    """Of a message and of a tool's result; a wrong media type is not trusted."""
    with InMemoryDb() as store:
        parts = [
            {"type": "image", "media_type": "image/png", "sha256": store.put_blob(content, "image/png")}
            for content in (PIXEL, b"<svg onload='alert(1)'/>")
        ]
        store.append_run(
            "chat", Run(messages=[Message(role="user", content=[{"type": "text", "text": "Look"}, *parts])])
        )
        opened = open_chat(store, echo)
        (message,) = opened.poll("")["turns"][0]["messages"]

        assert len(message["pictures"]) == 2
        assert opened.picture(0, message["position"], 0, None)["source"].startswith("data:image/png;base64,")
        with pytest.raises(BadUsage):
            opened.picture(0, message["position"], 1, None)


def test_hostile_texts_are_sent_as_text(store):
    """Every text is JSON with visible controls, and each command is one line."""
    sent = []
    opened = open_chat(
        store, [[call("send", to=HOSTILE), HOSTILE], HOSTILE], HOSTILE, tools=[mailer(sent)], name=HOSTILE
    )
    opened.say(HOSTILE)
    found = wait_for_end(opened)
    branch = opened.branch(found["turns"][0]["key"])
    opened.approve(found["turns"][0]["cards"][0]["key"], {})
    after = wait_until(lambda: (found := wait_for_end(opened))["turns"][0]["status"] == "COMPLETED" and found)

    for told in (found, branch, after, opened.heard):
        text = json.dumps(told, ensure_ascii=False)
        text.encode()
        assert not {"\x00", "\u202e", "\n"} & set(text)
    assert "<img" not in opened.fallback_html()
    assert load_requirement(store, json.loads(found["turns"][0]["cards"][0]["key"])).approved


def test_fallback_is_the_transcript():
    """A saved notebook shows it without a kernel."""
    with InMemoryDb() as store:
        opened = open_chat(store, echo)
        assert "chat" in opened.fallback_html()
        opened.say("Hello")
        wait_for_end(opened)
        assert "You said Hello." in opened.fallback_html()


def test_steps_after_a_view_are_not_repeated():
    """A view states the number of the next step."""
    heard = []
    talk = LiveRun(heard.append, "Hello")
    from kern_nb.run.agent import RunContentEvent

    for n in range(3):
        talk.emit(RunContentEvent(content=f"{n} "))

    assert talk.view()["next"] == 3
    assert talk.view()["parts"] == [{"kind": "text", "text": "0 1 2 "}]
    assert [batch["first"] for batch in heard] == [0, 1, 2]
