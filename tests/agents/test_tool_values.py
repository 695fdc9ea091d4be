"""Whatever a tool gives, the model is told it in a form that any service takes, and what is stored is what it was told."""

from __future__ import annotations

import enum
import json
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from openai_server import Answer, Call, in_turn
from pydantic import BaseModel
from recording_models import RecordingModel, calls_once, results

from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.db import SqliteDb
from kern_nb.models.openai import OpenAIChat, OpenAIResponses
from kern_nb.models.scripted import call
from kern_nb.records import Message


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A store, for all of these."""
    with SqliteDb(tmp_path_factory.mktemp("db") / "s.db") as store:
        yield store


def given(db, value):
    """What the model is told of a value that a tool gives, and what is stored of it."""
    model = calls_once("give")
    run = Agent(model, db=db, tools=[tool(lambda: value, name="give")]).run("x")
    assert run.status == "COMPLETED"
    assert [c.status for c in run.tool_calls] == ["completed"]
    stored = next(m.content for m in run.messages if m.role == "tool")
    assert repr(run.tool_calls[0].result) == repr(stored)  # NaN equals nothing
    return results(model)[0], stored


class Place(BaseModel):
    """A pydantic model, with values that JSON lacks."""

    name: str
    when: date
    tags: set[str] = set()


@dataclass
class Point:
    """A dataclass that holds another value of its kind."""

    x: int
    inner: list[Point] = field(default_factory=list)


class Color(enum.Enum):
    """An enum."""

    RED = "red"


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - users have these, too

VALUES = {
    "text": ("hello", "hello"),
    "empty text": ("", ""),
    "nothing": (None, None),
    "a number": (3, 3),
    "a fraction of one": (1.5, 1.5),
    "yes": (True, True),
    "a huge number": (10**30, 10**30),
    "a list": ([1, [2, {"a": None}]], [1, [2, {"a": None}]]),
    "a tuple": ((1, 2), [1, 2]),
    "a generator": ((n for n in (1, 2)), [1, 2]),
    "a dict of numbers": ({1: "one", (2, 3): "two"}, None),
    "a pydantic model": (Place(name="Rome", when=date(2026, 1, 2), tags={"a"}), {"name": "Rome", "when": "2026-01-02", "tags": ["a"]}),
    "pydantic models": ([Place(name="Rome", when=date(2026, 1, 2))], [{"name": "Rome", "when": "2026-01-02", "tags": []}]),
    "a dataclass": (Point(1, [Point(2)]), {"x": 1, "inner": [{"x": 2, "inner": []}]}),
    "a message of ours": (Message(role="user", content="hi"), None),
    "an enum": (Color.RED, "red"),
    "a named tuple": (Pair(1, 2), [1, 2]),
    "other collections": ([OrderedDict(a=1), deque([1]), Counter("a")], [{"a": 1}, [1], {"a": 1}]),
    "a decimal": (Decimal("1.10"), None),
    "a fraction": (Fraction(1, 3), None),
    "a moment": (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), None),
    "a time": ([time(3, 4), timedelta(hours=1)], None),
    "an id": ([UUID(int=1), PurePosixPath("a/b")], None),
    "numpy's numbers": ([np.int64(3), np.float32(1.5), np.bool_(True), np.str_("a")], [3, 1.5, True, "a"]),
    "an array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "a series": (pd.Series([1, 2]), [1, 2]),
    "a frame": (pd.DataFrame({"city": ["Rome"], "n": [3]}), [{"city": "Rome", "n": 3}]),
    "a frame with gaps": (pd.DataFrame({"n": pd.array([1, None], dtype="Int64")}), [{"n": 1}, {"n": None}]),
    "pandas' missing values": ([pd.NA, pd.NaT], [None, None]),
    "a timestamp": (pd.Timestamp("2026-01-02", tz="UTC"), None),
    "a class": (Point, None),
    "an object": (object(), None),
    "a function": (len, None),
    "an error": (ValueError("boom"), None),
    "bytes": (b"\xff\xfe", None),
    "a set": ({"a"}, ["a"]),
    "a complex number": (1 + 2j, None),
    "keys of any kind": ({None: 1, True: 2, 1.5: 3}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_any_value_as_result(db, name):
    """Told as it is stored; models, dataclasses and frames as objects, scalars of numpy and pandas as what they equal."""
    value, expected = VALUES[name]
    told, stored = given(db, value)

    if name != "bytes":  # stored as a file, told by its size
        assert told == stored
    if expected is not None or value is None:
        assert (told, type(told)) == (expected, type(expected))
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float64("nan"), "nan"),
        ({"a": np.nan, "b": [np.inf]}, "{'a': nan, 'b': [inf]}"),
    ],
)
def test_nan_and_infinity_results(db, value, expected):
    """NaN and infinity are what they are."""
    told, stored = given(db, value)

    assert (repr(told), repr(stored)) == (expected, expected)


def _circle():
    circle = [1]
    circle.append(circle)
    return circle


def _deep():
    deep = []
    for _ in range(5_000):
        deep = [deep]
    return deep


class _Broken:
    """What cannot even say what it is."""

    def __repr__(self):
        raise ValueError("boom")

    __str__ = __repr__


class _Odd:
    """What does not compare."""

    def __eq__(self, other):
        raise TypeError("no comparison")

    __hash__ = None


@pytest.mark.parametrize("make", [_circle, _deep, _Odd, _Broken])
def test_recursive_and_broken_values(db, make):
    """Something is told, the call has ended, and the run goes on."""
    given(db, make())


IN_JSON = [name for name in VALUES if name not in ("a generator", "bytes")]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (OpenAIResponses, IN_JSON),
        (OpenAIChat, IN_JSON),
        (OpenAIChat, ["bytes"]),
    ],
    ids=["responses", "chat", "bytes"],
)
def test_service_accepts_any_result(db, openai_server, model, names):
    """All of these at once, over HTTP, now and as history, in the same words."""
    asks = Answer(calls=[Call("give", {"name": name}) for name in names])
    openai_server.answer = in_turn(asks, "I have them.", "I remember them.")

    def give(name: str) -> object:
        return VALUES[name][0]

    agent = Agent(model(max_retries=0), db=db, tools=[give], add_history_to_context=True)
    run = agent.run("give me all")
    assert run.output == "I have them."
    assert [c.status for c in run.tool_calls] == ["completed"] * len(names)
    assert agent.run("and now?").output == "I remember them."
    first, then = (dict(_outputs(request.body)) for request in openai_server.requests[1:])
    assert len(first) == len(names)
    assert first == then


def _outputs(body):
    """What each call is said to have given, by its id."""
    for item in body.get("input") or body["messages"]:
        if item.get("type") == "function_call_output":
            yield item["call_id"], item["output"]
        elif item.get("role") == "tool":
            yield item["tool_call_id"], item["content"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [(pd.DataFrame({"city": ["Paris"], "n": [1]}), [{"city": "Paris", "n": 1}]), ([1, [2]], [1, [2]])],
)
def test_values_in_dataframes(store, value, seen):
    """A table's rows, numbers in a list, whatever holds no text: as JSON, wherever a person looks."""
    given(store, value)
    said = store.messages_df()
    assert json.loads(store.tool_calls_df().result[0]) == seen
    assert json.loads(said.content[said.role == "tool"].item()) == seen


def test_invalid_arguments_error_text(store):
    """The call failed, and its result is the reason in words: in the record, the frames and the transcript."""
    model = calls_once("send", to=5)

    def send(to: str) -> str:
        return to

    agent = Agent(model, db=store, session_id="chat", tools=[send])
    run = agent.run("x")
    assert run.tool_calls[0].status == "failed"
    assert "Input should be a valid string" in run.tool_calls[0].result
    assert results(model) == [run.tool_calls[0].result]
    assert "Input should be a valid string" in store.tool_calls_df().result.iloc[0]
    assert "Input should be a valid string" in run._repr_html_()


def test_result_mutated_after_return(db):
    """A list that the tool keeps and goes on filling was what it was when the call ended."""
    kept = []

    def add(n: int) -> list:
        kept.append(n)
        return kept

    model = RecordingModel([call("add", n=1), call("add", n=2), "done"])
    run = Agent(model, db=db, tools=[add]).run("x")

    assert [c.result for c in run.tool_calls] == [[1], [1, 2]]
    assert results(model) == [[1], [1, 2]]
