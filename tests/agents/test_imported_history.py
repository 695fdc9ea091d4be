"""Sessions that another program recorded are gone on with: told in a form that a model's service takes, nothing invented."""

from __future__ import annotations

import pytest
from recording_models import RecordingModel

from kern_nb import Agent
from kern_nb.models.openai import OpenAIChat, OpenAIResponses
from kern_nb.records import Message, Run, ToolCall

GO_ON = ("user", "go on")


def tell(db, *messages, model=None):
    """Import a run of these messages, and go on with it; what the model was told of it."""
    db.append_run("chat", Run(messages=list(messages)))
    model = model or RecordingModel()
    run = Agent(model, db=db, session_id="chat", add_history_to_context=True).run("go on")
    assert run.status == "COMPLETED"
    told = model.told[-1]
    assert (told[-1].role, told[-1].content) == GO_ON
    return told[:-1]


def user(content="hi"):
    """A user's message."""
    return Message(role="user", content=content)


def asks(*ids, content=None, role="assistant", args=None):
    """A message that calls tools."""
    calls = [ToolCall(tool_call_id=i, tool_name="t", args=args) for i in ids]
    return Message(role=role, content=content, tool_calls=calls)


def gives(tool_call_id, content="result", role="tool"):
    """A tool's message."""
    return Message(role=role, tool_call_id=tool_call_id, tool_name="t", content=content)


def test_imported_instructions_are_not_sent(db):
    """System and developer messages are another agent's; the one that goes on has its own."""
    told = tell(db, Message(role="system", content="Be rude."), Message(role="developer", content="Ruder."), user())

    assert [(m.role, m.content) for m in told] == [("user", "hi")]


def test_function_role_is_a_tool_result(db):
    """The older role of results."""
    told = tell(db, user(), asks("c"), gives("c", role="function"))

    assert [m.role for m in told] == ["user", "assistant", "tool"]
    assert (told[2].content, told[2].tool_call_id) == ("result", told[1].tool_calls[0].tool_call_id)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "output_text", "text": "one", "annotations": []}], "one"),
        (["one", "two"], "one\ntwo"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "one"}], "one"),
    ],
    ids=["chat", "responses", "strings", "thinking"],
)
def test_assistant_parts_become_text(db, content, told):
    """In the shapes of the chat, responses and content-block formats."""
    assert tell(db, user(), Message(role="assistant", content=content))[1].content == told


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        [{"type": "input_text", "text": "one"}, "two"],
        [{"text": "one"}, {"text": "two"}],
    ],
)
def test_user_parts_are_sent_unchanged(db, content):
    """Each part by itself."""
    told = tell(db, user(content))[0].content

    assert [part["text"] for part in told] == ["one", "two"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "url": "https://x.test/y.png"},
        {"type": "image_url", "image_url": {"url": "https://x.test/y.png"}},
        {"type": "input_image", "image_url": "https://x.test/y.png"},
    ],
    ids=["ours", "chat", "responses"],
)
def test_image_url_is_sent(db, part):
    """Whichever format wrote it."""
    told = tell(db, user([{"type": "text", "text": "look"}, part]))[0].content

    assert told[1] == {"type": "image", "url": "https://x.test/y.png"}


def test_missing_file_is_described(db):
    """The model learns that there was one."""
    told = tell(db, user([{"type": "text", "text": "look"}, {"type": "image", "size": 7, "media_type": "image/png"}]))

    assert "7 bytes" in told[0].content[1]["text"]


@pytest.mark.parametrize(("content", "told"), [({"question": "why?"}, "why?"), (5, "5"), (1.5, "1.5"), (["a"], "a")])
def test_user_value_is_sent_as_json(db, content, told):
    """Some sources send objects and numbers."""
    assert told in str(tell(db, user(content))[0].content)


def test_unmatched_calls_and_results_are_dropped(db):
    """What a model would be refused for is not sent; what was said beside them is."""
    first = [user(), asks("lost", content="Let me see."), gives("other")]
    told = tell(db, *first, user("well?"), asks("kept", "lost2"), gives("kept"))

    assert [(m.role, m.content, [c.tool_call_id for c in m.tool_calls]) for m in told] == [
        *[("user", "hi", []), ("assistant", "Let me see.", []), ("user", "well?", [])],
        *[("assistant", None, ["kept"]), ("tool", "result", [])],
    ]


def test_non_json_arguments_are_sent_as_text(db):
    """As the source's model wrote them."""
    told = tell(db, user(), asks("c", args="{not json"), gives("c"))

    assert told[1].tool_calls[0].args == "{not json"


def test_simulated_user_calls_are_dropped(db):
    """In tau2 users have tools of their own: the agent's model saw neither call nor result, and is told of neither."""
    calls = [ToolCall(tool_call_id="u", tool_name="restart_phone", caller="user")]
    told = tell(db, user(), Message(role="user", tool_calls=calls), gives("u"), Message(role="assistant", content="ok"))

    assert [(m.role, m.content) for m in told] == [("user", "hi"), ("assistant", "ok")]


@pytest.mark.parametrize("role", ["ai", "model", "bot"])
def test_assistant_role_aliases(db, role):
    """LangChain says ai, Gemini says model."""
    told = tell(db, user(), Message(role=role, content="hello"), asks("c", role=role), gives("c"))

    assert [m.role for m in told] == ["user", "assistant", "tool"]  # two answers in a row are told as one
    assert "hello" in str(told[1].content)
    assert [call.tool_call_id for call in told[1].tool_calls] == ["c"]


def test_object_answer_is_sent_as_json(db):
    """Structured output is an answer."""
    assert "Paris" in tell(db, user(), Message(role="assistant", content={"city": "Paris"}))[1].content


def test_call_id_repeated_in_two_runs(db):
    """Providers number calls anew in each run."""
    db.append_run("chat", Run(messages=[user("first"), asks("call_0"), gives("call_0", "one")]))
    told = tell(db, user("second"), asks("call_0"), gives("call_0", "two"))

    assert [m.content for m in told if m.role == "tool"] == ["one", "two"]


def test_empty_tool_result_is_sent(db):
    """Nothing is a result."""
    result = tell(db, user(), asks("c"), gives("c", None))[2]

    assert result.content in (None, "null", "")
    assert not result.is_error


HISTORIES = {
    "a call without its result": [user(), asks("a"), user("hello?")],
    "a result without its call": [user(), gives("a"), Message(role="assistant", content="ok")],
    "an id twice in one run": [user(), asks("a"), gives("a", "1"), asks("a"), gives("a", "2")],
    "half of the results": [user(), asks("a", "b"), gives("b")],
    "results first": [gives("a"), user(), asks("a")],
    "an assistant first": [Message(role="assistant", content="Welcome."), user()],
    "nothing but a call": [asks("a"), gives("a")],
    "a function": [user(), asks("a"), gives("a", role="function")],
    "a user's call": [user(), asks("u", role="user"), gives("u"), Message(role="assistant", content="ok")],
    "another role's call": [user(), asks("a", role="ai"), gives("a")],
    "no content": [user(None), Message(role="assistant", content=None), Message(role="assistant", content="")],
    "a strange role": [Message(role="critic", content="bad"), Message(role="", content="worse")],
    "a tool that gave nothing": [user(), asks("a"), gives("a", None), Message(role="assistant", content="ok")],
    "a user's id used again": [user(), asks("a", role="user"), gives("a"), user("?"), asks("a"), gives("a")],
    "values": [user({"a": 1}), asks("a", args=[1, 2]), gives("a", {"rows": [1, None]})],
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("model", [OpenAIResponses, OpenAIChat])
def test_service_accepts_any_imported_history(db, openai_server, model, name):
    """The server refuses what the real one does: results of unknown calls, calls without results, ids twice."""
    db.append_run("chat", Run(messages=HISTORIES[name]))
    agent = Agent(model(max_retries=0), db=db, session_id="chat", add_history_to_context=True)
    run = agent.run("What is the capital of France?")

    assert run.output == "Paris is the capital of France."
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize("model", [OpenAIResponses, OpenAIChat])
def test_service_accepts_branch_at_any_message(db, openai_server, model):
    """Between calls and results, in the middle of several: what is left is sent, and the service does not refuse it."""
    pair = [asks("a", "b"), gives("a"), gives("b"), asks("c", content="One more."), gives("c")]
    db.append_run("chat", Run(messages=[user(), *pair, Message(role="assistant", content="done")]))
    agent = Agent(model(max_retries=0), db=db, add_history_to_context=True)
    for at in range(7):
        branch = db.branch("chat", after=(0, at)).session_id
        assert agent.run("What is the capital of France?", session_id=branch).output.startswith("Paris")
        sent = openai_server.requests[-1].conversation
        assert len([role for role, _ in sent if role == "tool"]) == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2}.get(at, 3)


def test_continue_tau2_sessions(db, shared_data, openai_server):
    """Every conversation of the sample, with its users' own tool calls, is taken by the service."""
    db.ingest(shared_data / "tau2", progress=False)
    sessions = db.list_sessions(limit=12)
    assert sessions
    agent = Agent(OpenAIChat(max_retries=0), db=db, add_history_to_context=True, num_history_runs=100)
    for session in sessions:
        run = agent.run("What is the capital of France?", session_id=session.session_id)
        assert run.output == "Paris is the capital of France."
