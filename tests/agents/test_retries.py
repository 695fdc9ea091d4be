"""`retries`: invalid calls of a model, and requests that its provider did not answer."""

from __future__ import annotations

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from recording_models import RecordingModel

from kern_nb import Agent
from kern_nb.errors import RunFailed

BUSY = ModelHTTPError(429, "m")
DOWN = ModelHTTPError(503, "m")
REFUSED = ModelHTTPError(401, "m")


def look(city: str) -> str:
    """Look."""
    return city


def careless_model(n_invalid: int) -> FunctionModel:
    """A model whose first calls are not JSON."""
    texts = iter(['{"city": "Par'] * n_invalid)

    def answer(messages, info):
        text = next(texts, None)
        return ModelResponse(parts=[TextPart("done") if text is None else ToolCallPart("look", text, "c")])

    return FunctionModel(answer)


@pytest.mark.parametrize(
    ("retries", "n_invalid", "status"),
    [(None, 3, "COMPLETED"), (None, 4, "ERROR"), (5, 5, "COMPLETED"), (0, 1, "ERROR")],
)
def test_model_may_repeat_invalid_calls(db, retries, n_invalid, status):
    """Each is stored as failed, also the last one, at which the run ends."""
    agent = Agent(careless_model(n_invalid), db=db, session_id="chat", tools=[look], retries=retries)
    if status == "ERROR":
        with pytest.raises(RunFailed, match="'look' exceeded max retries"):
            agent.run("go")
    else:
        agent.run("go")

    assert db.get_session("chat").runs[0].status == status
    assert db.tool_calls_df("chat")["status"].tolist() == ["failed"] * n_invalid


def test_valid_call_beside_an_invalid_one_is_not_left_open(db):
    both = [ToolCallPart("look", '{"city": "Oslo"}', "a"), ToolCallPart("look", "{", "b")]
    model = FunctionModel(lambda messages, info: ModelResponse(parts=both))
    with pytest.raises(RunFailed):
        Agent(model, db=db, session_id="chat", tools=[look], retries=0).run("go")

    assert set(db.tool_calls_df("chat")["status"]) <= {"completed", "failed"}


@pytest.mark.parametrize(
    ("errors", "retries", "is_answered"),
    [
        ([BUSY, DOWN], 2, True),
        ([BUSY, DOWN], 1, False),
        ([REFUSED], 9, False),
        ([BUSY], None, False),
        ([ValueError("x")], 9, False),
    ],
)
def test_request_is_sent_again_if_its_provider_fails(db, errors, retries, is_answered):
    """Not if the failure is permanent. Only the answer is stored."""
    model = RecordingModel([*errors, "Hello."])
    agent = Agent(model, db=db, session_id="chat", retries=retries, delay_between_retries=0, exponential_backoff=True)
    if is_answered:
        assert agent.run("Hi").output == "Hello."
    else:
        with pytest.raises(RunFailed):
            agent.run("Hi")

    assert len(model.told) == (len(errors) + 1 if is_answered else (retries + 1 if retries == 1 else 1))
    assert len(db.messages_df("chat")) == 1 + is_answered
