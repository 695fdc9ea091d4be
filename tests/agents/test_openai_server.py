"""The test server speaks OpenAI's APIs well enough for the real clients, or the tests on it prove nothing."""

from __future__ import annotations

import json
import threading

import openai
import pytest
from openai_server import Answer, Call, in_turn
from openai_server import openai_server as run_openai_server

ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
TWO_CALLS = Answer("Let me see.", calls=[Call("add", {"a": 1}, id="call_1"), Call("add", {"a": 2}, id="call_2")])


@pytest.fixture
def client(openai_server):
    """The real client, told where to go by the environment; it tries nothing twice."""
    with openai.OpenAI(max_retries=0) as client:
        yield client


def responses(client, said, *, stream=False):
    """The whole response, whether it was streamed or not."""
    if not stream:
        return client.responses.create(model="gpt-5.2", input=said)
    with client.responses.stream(model="gpt-5.2", input=said) as events:
        return events.get_final_response()


def chat(client, said, *, stream=False):
    """The whole completion, whether it was streamed or not."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    if not stream:
        return client.chat.completions.create(model="gpt-5.2", messages=messages)
    options = {"include_usage": True}
    with client.chat.completions.stream(model="gpt-5.2", messages=messages, stream_options=options) as events:
        return events.get_final_completion()


@pytest.mark.parametrize("stream", [False, True])
def test_response_has_text_and_tokens(client, stream):
    """A word is a token: six were sent, six came back."""
    given = responses(client, "What is the capital of France?", stream=stream)

    assert given.output_text == "Paris is the capital of France."
    assert (given.status, given.model, given.output[0].role) == ("completed", "gpt-5.2", "assistant")
    assert (given.usage.input_tokens, given.usage.output_tokens, given.usage.total_tokens) == (6, 6, 12)
    assert given.id.startswith("resp_")
    assert given.output[0].id.startswith("msg_")


@pytest.mark.parametrize("stream", [False, True])
def test_completion_has_text_and_tokens(client, stream):
    """The same answer by the older API."""
    given = chat(client, "What is the capital of France?", stream=stream)

    assert given.choices[0].message.content == "Paris is the capital of France."
    assert given.choices[0].finish_reason == "stop"
    assert (given.usage.prompt_tokens, given.usage.completion_tokens, given.usage.total_tokens) == (6, 6, 12)
    assert given.id.startswith("chatcmpl_")


def test_response_is_streamed(client):
    """In the order and with the numbers of the real service, so that a client may rely on them."""
    with client.responses.create(model="gpt-5.2", input="one two", stream=True) as stream:
        events = list(stream)

    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 4,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type.endswith("delta")) == "You said: one two"


def test_streamed_usage_is_optional(client):
    """As the real service: without stream_options there is no usage."""
    with client.chat.completions.create(model="gpt-5.2", messages=[], stream=True) as stream:
        chunks = list(stream)

    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_several_calls_in_one_answer(client, openai_server, stream):
    """Text first, then the calls in their order, with the ids that the script gave them."""
    openai_server.answer = lambda _: TWO_CALLS

    message, *calls = responses(client, "1 and 2", stream=stream).output
    older = chat(client, "1 and 2", stream=stream).choices[0]

    assert message.content[0].text == older.message.content == "Let me see."
    asked = [("call_1", "add", {"a": 1}), ("call_2", "add", {"a": 2})]
    assert [(call.call_id, call.name, json.loads(call.arguments)) for call in calls] == asked
    functions = [(call.id, call.function) for call in older.message.tool_calls]
    assert [(number, called.name, json.loads(called.arguments)) for number, called in functions] == asked
    assert older.finish_reason == "tool_calls"


def test_cached_and_reasoning_token_fields(client, openai_server):
    """Cached ones are among the input, reasoning ones among the output."""
    openai_server.answer = lambda _: Answer("Yes", cached_tokens=2, reasoning_tokens=7)

    usage, older = responses(client, "Is it so?").usage, chat(client, "Is it so?").usage

    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (3, 2)
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens) == (8, 7)
    assert (older.prompt_tokens_details.cached_tokens, older.completion_tokens_details.reasoning_tokens) == (2, 7)


@pytest.mark.parametrize("ask", [responses, chat])
def test_server_is_stateless(client, ask):
    """A name from an earlier request is unknown, one in the conversation is known."""
    past = [{"role": "user", "content": "My name is Alice"}, {"role": "assistant", "content": "Hello Alice"}]
    question = {"role": "user", "content": "What's my name?"}

    ask(client, past)
    alone, together = ask(client, [question]), ask(client, [*past, question])

    assert "Alice" not in alone.model_dump_json()
    assert "Your name is Alice." in together.model_dump_json()


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, openai.AuthenticationError, "invalid_api_key"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
    ],
)
@pytest.mark.parametrize("ask", [responses, chat])
@pytest.mark.parametrize("stream", [False, True])
def test_error_format(client, openai_server, status, error, code, ask, stream):
    """Its class, its code and its message, streamed or not."""
    openai_server.answer = lambda _: Answer(status=status, message="No, and that is final.")

    with pytest.raises(error, match="that is final") as caught:
        ask(client, "Hello", stream=stream)
    assert caught.value.code == code


def test_retry_gets_next_answer(openai_server):
    """A rate limit is over at the second attempt."""
    openai_server.answer = in_turn(Answer(status=429), "Hello")

    with openai.OpenAI(max_retries=1) as client:
        assert responses(client, "Hello").output_text == "Hello"
    assert len(openai_server.requests) == 2


@pytest.mark.parametrize("ask", [responses, chat])
@pytest.mark.parametrize("stream", [False, True])
def test_dropped_connection_raises_connection_error(client, openai_server, ask, stream):
    """No status, no body."""
    openai_server.answer = lambda _: Answer(drop=True)

    with pytest.raises(openai.APIConnectionError):
        ask(client, "Hello", stream=stream)


@pytest.mark.parametrize("ask", [responses, chat])
def test_stream_cut_in_the_middle(client, openai_server, ask):
    """What had come is no answer."""
    openai_server.answer = lambda _: Answer("one two three", drop=True, after=3)

    with pytest.raises(openai.APIConnectionError):
        ask(client, "Hello", stream=True)


def test_stream_ends_with_error(client, openai_server):
    """A response is then marked as failed, a completion breaks off with the error."""
    openai_server.answer = lambda _: Answer("one two three", status=500, message="Out of order", after=3)

    with client.responses.create(model="gpt-5.2", input="Hello", stream=True) as stream:
        *_, last = stream
    assert (last.type, last.sequence_number) == ("response.failed", 3)
    assert (last.response.status, last.response.error.message) == ("failed", "Out of order")
    with pytest.raises(openai.APIError, match="Out of order"):
        chat(client, "Hello", stream=True)


def test_gated_answer(client, openai_server):
    """Three chunks arrive, and nothing more until the test says so."""
    gate = threading.Event()
    openai_server.answer = lambda _: Answer("one two three four", gate=gate, after=3)

    with client.chat.completions.create(model="gpt-5.2", messages=[], stream=True) as stream:
        first = [next(stream).choices[0].delta.content for _ in range(3)]
        gate.set()
        rest = [chunk.choices[0].delta.content or "" for chunk in stream]

    assert (first, "".join(rest)) == (["", "one", " two"], " three four")


def test_delayed_answer_exceeds_client_timeout(openai_server):
    """The server itself does not wait for the delay when it stops."""
    openai_server.answer = lambda _: Answer("late", delay=3600)

    with openai.OpenAI(max_retries=0, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        responses(client, "Hello")


def test_invalid_requests_are_rejected(client):
    """Calls and results that were parted, an item sent twice, a past that was not sent: marks of a badly kept history."""
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    older = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {**ADD}}]}
    user = {"role": "user", "content": "Hello"}
    twice = {**user, "id": "msg_1"}

    for refused in ([call, user], [result, user], [twice, twice]):
        with pytest.raises(openai.BadRequestError):
            responses(client, refused)
    for refused in ([older, user], [{"role": "tool", "tool_call_id": "c1", "content": "3"}, user]):
        with pytest.raises(openai.BadRequestError):
            chat(client, refused)
    with pytest.raises(openai.BadRequestError, match="resp_1"):
        client.responses.create(model="gpt-5.2", input="Hello", previous_response_id="resp_1")
    assert responses(client, [call, result, user]).output_text == "You said: Hello"


def test_requests_are_recorded(client, openai_server):
    """Path, headers and the decoded body."""
    responses(client, "Grüße 🙂")
    chat(client, "Hello")

    first, second = openai_server.requests
    assert (first.path, second.path) == ("/v1/responses", "/v1/chat/completions")
    assert first.headers["authorization"] == "Bearer sk-test"
    assert first.body == {"model": "gpt-5.2", "input": "Grüße 🙂"}
    assert first.conversation == [("user", "Grüße 🙂")]


def test_exhausted_script_fails_test():
    """The client sees an error of the server, and the test sees why."""

    def ask_once_more():
        with run_openai_server() as server, openai.OpenAI(base_url=server.url, api_key="sk", max_retries=0) as client:
            server.answer = in_turn()
            with pytest.raises(openai.InternalServerError):
                responses(client, "Hello")

    with pytest.raises(AssertionError, match="one more request"):
        ask_once_more()
