"""NUL, lone surrogates, a megabyte, markup: wherever a run holds text it is stored as it is, and told later as it was told."""

from __future__ import annotations

import re

import pytest
from openai_server import Answer, Call, in_turn
from recording_models import RecordingModel, results

from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.db import SqliteDb
from kern_nb.errors import RunFailed
from kern_nb.models.openai import OpenAIChat, OpenAIResponses
from kern_nb.models.scripted import call

TEXTS = {
    "NUL": "a\x00b\x00",
    "a lone surrogate": "half \ud83d of a smile, and \udc00",
    "our own escape": "\x10001f \x10",
    "control signs": "\x1b[31mred\x1b[0m \u202e \ufeff \u2028 \x7f\x85",
    "markup": "</script><img src=x onerror=alert(1)> {{x}} %s {0} $name",
    "SQL": "'; DROP TABLE agno_sessions; --",
    "JSON of ours": '{"$type": "dict", "$items": []}',
    "a megabyte": "0123456789abcdef" * 65_536,
}


@pytest.fixture(params=TEXTS)
def text(request):
    """Each kind of text in turn."""
    return TEXTS[request.param]


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A store, for what does not depend on the engine."""
    with SqliteDb(tmp_path_factory.mktemp("db") / "s.db") as store:
        yield store


def sendable(text):
    """A text as a service can be sent it: half a letter, which no encoding has, is a sign that one is missing."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


HALF = "a lone surrogate"


@pytest.fixture(params=[name for name in TEXTS if name != HALF])
def argument(request):
    """Each kind of text that JSON can hold, as an argument of a tool."""
    return TEXTS[request.param]


def echo(word, more: dict | None = None):
    """Give back what was given."""
    return {"echo": word, word[:50]: [more]}


@pytest.mark.every_engine
def test_hostile_text_is_stored_in_all_fields(store):
    """On every engine: input, instructions, arguments, results, output, state, title, user, tool's error."""

    def fail(word):
        raise ValueError(word)

    odd = "\n".join(text for name, text in TEXTS.items() if name != "a megabyte")
    for session_id, text in (("odd", odd), ("long", TEXTS["a megabyte"])):
        word = text.replace(TEXTS[HALF], "")
        model = RecordingModel([[text, call("echo", word=word, more={"key": word}), call("fail", word=word)], text])
        options = {"instructions": text, "session_state": {"word": text, text[:50]: [text]}, "user_id": text[:200]}
        agent = Agent(model, db=store, session_id=session_id, tools=[echo, fail], **options)
        run = agent.run(text)
        agent.set_session_name(text)
        session = store.get_session(session_id)
        (stored,) = session.runs

        assert (stored.input, stored.output, stored.user_id) == (text, text, text[:200])
        assert [m.content for m in stored.messages][:3] == [text, text, text]
        assert {c.tool_name: c.args for c in stored.tool_calls} == {
            "echo": {"word": word, "more": {"key": word}},
            "fail": {"word": word},
        }
        given = {c.tool_name: c.result for c in stored.tool_calls}
        assert given == {"echo": {"echo": word, word[:50]: [{"key": word}]}, "fail": f"ValueError: {word}"}
        assert stored.session_state == options["session_state"]
        assert (session.session_name, session.user_id) == (text, text[:200])
        assert run.model_dump(exclude={"usage", "tool_calls", "messages"}) == stored.model_dump(exclude={"usage", "tool_calls", "messages"})  # fmt: skip


def test_hostile_text_is_sent_unchanged(db, request, argument):
    """In the run, and as history."""
    model = RecordingModel([call("echo", word=argument, more={"key": argument}), argument, "again"])
    agent = Agent(model, db=db, session_id=request.node.name, tools=[echo], add_history_to_context=True)
    agent.run(argument)
    result = {"echo": argument, argument[:50]: [{"key": argument}]}
    assert results(model) == [result]
    agent.run("and?")

    assert [m.content for m in model.told[-1]] == [argument, None, result, argument, "and?"]
    assert model.told[-1][1].tool_calls[0].args == {"word": argument, "more": {"key": argument}}


def test_lone_surrogate_is_sent_as_replacement_character(db):
    """It is stored as it is; no service could be sent it."""
    half = TEXTS[HALF]
    model = RecordingModel([call("give"), half, "again"])
    agent = Agent(
        model,
        db=db,
        session_id="half",
        tools=[tool(lambda: {half: half}, name="give")],
        instructions=half,
        add_history_to_context=True,
    )
    agent.run(half)
    agent.run("and?")

    word = sendable(half)
    assert [m.content for m in model.told[-1]] == [word, word, None, {word: word}, word, "and?"]
    assert [m.content for m in db.get_session("half").runs[0].messages] == [half, half, None, {half: half}, half]


@pytest.mark.parametrize("streamed", [False, True])
def test_lone_surrogate_in_argument(db, request, streamed):
    """Models do cut an emoji in two: what a script says of it is what a service could send."""
    model = RecordingModel([call("echo", word=TEXTS[HALF]), "done"])
    agent = Agent(model, db=db, session_id=request.node.name, tools=[echo])
    agent.print_response("x") if streamed else agent.run("x")

    (run,) = agent.get_session().runs
    assert (run.status, run.output) == ("COMPLETED", "done")
    assert run.tool_calls[0].args == {"word": sendable(TEXTS[HALF])}


@pytest.mark.parametrize("model", [OpenAIResponses, OpenAIChat])
def test_lone_surrogate_from_service(db, request, openai_server, model):
    """It comes as an escape, which is no JSON that pydantic reads: the model is told so, now and as history."""
    asks = Answer(calls=[Call("echo", '{"word": "half \\ud83d"}')])
    openai_server.answer = in_turn(asks, "I see.", "Still here.")
    agent = Agent(model(max_retries=0), db=db, session_id=request.node.name, tools=[echo], add_history_to_context=True)

    assert agent.run("x").output == "I see."
    assert agent.run("y").output == "Still here."


def test_hostile_text_in_typed_argument(db, request, argument):
    """As to one without a hint."""

    def hinted(word: str) -> str:
        return word

    model = RecordingModel([call("hinted", word=argument), "done"])
    run = Agent(model, db=db, session_id=request.node.name, tools=[hinted]).run("x")

    assert run.output == "done"
    assert run.tool_calls[0].args == {"word": argument}
    assert results(model) == [argument]


def test_hostile_text_is_streamed(db, request, argument, capsys):
    """print_response shows it without what would drive the terminal, and stores it as it is."""
    model = RecordingModel([call("echo", word=argument), argument])
    agent = Agent(model, db=db, session_id=request.node.name, tools=[echo])
    agent.print_response(argument)

    (run,) = agent.get_session().runs
    assert (run.input, run.output, run.status) == (argument, argument, "COMPLETED")
    assert run.tool_calls[0].args == {"word": argument}
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x00", "\x10"} & set(shown)


def test_hostile_text_survives_pause(db, request, argument):
    """Arguments that a person approves, and what they say."""
    model = RecordingModel([call("echo", word=argument), "done"])
    guarded = tool(echo, requires_confirmation=True, prompt=argument)
    agent = Agent(model, db=db, session_id=request.node.name, tools=[guarded])
    (asked,) = agent.run(argument).requirements
    assert (asked.args, asked.prompt) == ({"word": argument}, argument)
    db.resolve(asked.requirement_id, args={"word": f"{argument}!"}, note=argument, by=argument[:100])
    run = agent.continue_run(asked.run_id)

    assert run.status == "COMPLETED"
    assert results(model)[0]["echo"] == f"{argument}!"


def test_hostile_text_in_model_error(db, request, text):
    """The run is stored with the error as it is; the message is one that can be printed."""
    agent = Agent(RecordingModel([ValueError(text)]), db=db, session_id=request.node.name)
    with pytest.raises(RunFailed) as failed:
        agent.run(text)

    assert text in db.get_session(request.node.name).runs[0].error
    assert str(failed.value)


@pytest.mark.parametrize("what", ["names", "ids"])
def test_hostile_text_in_ids_and_names(db, request, text, what):
    """As long as an id may be."""
    odd = text[:300]
    if what == "names":
        agent = Agent(RecordingModel(), db=db, session_id=request.node.name, name=odd)
    else:
        agent = Agent(RecordingModel(), db=db, session_id=f"{odd} {request.node.name}", id=odd)
    run = agent.run("x")

    assert agent.get_session().runs[0].run_id == run.run_id
    assert run.session_id in {s.session_id for s in db.list_sessions(agent_id=agent.id)}


@pytest.mark.parametrize("given", ["", " ", "\n"])
def test_empty_input_is_valid(db, request, given):
    """A text without letters is a text."""
    agent = Agent(RecordingModel(), db=db, session_id=request.node.name)
    run = agent.run(given)

    assert (run.input, run.status, run.messages[0].content) == (given, "COMPLETED", given)
