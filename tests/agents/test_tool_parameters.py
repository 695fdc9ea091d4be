"""Any Python function is a tool: whatever its parameters are like, it is called as its signature says."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field
from pydantic_ai import RunContext as PydanticContext
from recording_models import RecordingModel, calls_once, results
from typing_extensions import TypedDict

from kern_nb import Agent
from kern_nb.agent import RunContext, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage
from kern_nb.models.scripted import call


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A store, for all of these."""
    with SqliteDb(tmp_path_factory.mktemp("db") / "s.db") as store:
        yield store


def called(db, function, /, **args):
    """What a tool gives that the model calls with these arguments."""
    made = tool(function, name="it")
    model = calls_once("it", **args)
    run = Agent(model, db=db, tools=[made]).run("x")
    assert [c.status for c in run.tool_calls] == ["completed"], run.tool_calls[0].result
    return results(model)[0]


class Place(BaseModel):
    """A place."""

    name: str
    zip: int | None = None


class Color(enum.Enum):
    """A color."""

    RED = "red"


@dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


class Movie(TypedDict):
    """A film."""

    title: str


def plain(a: int, b: str) -> object:
    return [a, b]


def defaults(a: int, b: str = "b", c: list[int] | None = None) -> object:
    return [a, b, c]


def keyword_only(a: int, *, b: int = 2, c: int) -> object:
    return [a, b, c]


def positional_only(a: int, b: int = 2, /) -> object:
    return [a, b]


def several(*numbers: int) -> object:
    return list(numbers)


def leading(a: int, *rest: str, last: bool = False) -> object:
    return [a, list(rest), last]


def keywords(**things: int) -> object:
    return things


def everything(a, /, b, *c, d, e=5, **f):
    return [a, b, list(c), d, e, f]


def unhinted(a, b=2):
    return [a, b]


def literal(unit: Literal["C", "F"] = "C") -> object:
    return unit


def optional(a: Optional[int] = None, b: int | str | None = None) -> object:  # noqa: UP045 - many still write it
    return [a, b]


def model(place: Place, others: list[Place]) -> object:
    return [type(place).__name__, place.name, [one.zip for one in others]]


def others(color: Color, point: Point, movie: Movie, day: date) -> object:
    return [color.name, point.x + point.y, movie["title"], day.year]


def annotated(n: Annotated[int, Field(ge=1, description="How many.")] = 1) -> object:
    return n


def anything(value: Any) -> object:
    return value


def nested(table: dict[str, list[tuple[int, float]]]) -> object:
    return [type(cell).__name__ for cells in table.values() for cell in cells]


async def later(a: int = 1) -> object:
    return a


CALLS = [
    (plain, {"a": 1, "b": "x"}, [1, "x"]),
    (defaults, {"a": 1}, [1, "b", None]),
    (defaults, {"a": 1, "c": [2]}, [1, "b", [2]]),
    (keyword_only, {"a": 1, "c": 3}, [1, 2, 3]),
    (positional_only, {"a": 1}, [1, 2]),
    (several, {"numbers": [1, 2]}, [1, 2]),
    (several, {"numbers": []}, []),
    (leading, {"a": 1, "rest": ["x", "y"], "last": True}, [1, ["x", "y"], True]),
    (leading, {"a": 1, "rest": []}, [1, [], False]),
    (keywords, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
    (keywords, {}, {}),
    (everything, {"a": 1, "b": 2, "c": [3], "d": 4, "g": 7}, [1, 2, [3], 4, 5, {"g": 7}]),
    (unhinted, {"a": {"any": [1]}}, [{"any": [1]}, 2]),
    (literal, {"unit": "F"}, "F"),
    (optional, {}, [None, None]),
    (optional, {"a": 1, "b": "x"}, [1, "x"]),
    (model, {"place": {"name": "Rome"}, "others": [{"name": "Oslo", "zip": 5}]}, ["Place", "Rome", [5]]),
    (others, {"color": "red", "point": {"x": 1, "y": 2}, "movie": {"title": "M"}, "day": "2026-01-02"}, ["RED", 3, "M", 2026]),
    (annotated, {"n": 2}, 2),
    (anything, {"value": [None, {"a": 1.5}]}, [None, {"a": 1.5}]),
    (nested, {"table": {"a": [[1, 2.5]]}}, ["tuple"]),
    (later, {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("function", "args", "expected"), CALLS, ids=lambda v: getattr(v, "__name__", None))
def test_parameters_of_every_kind(db, function, args, expected):
    """Defaults, keyword-only, positional-only, *args, **kwargs, hints of every kind and none."""
    assert called(db, function, **args) == expected


class Weather:
    """A class with tools."""

    def __init__(self, unit):
        self.unit = unit

    def look(self, city: str) -> str:
        """Look."""
        return f"{city} {self.unit}"

    async def wait(self, city: str) -> str:
        return f"{city} {self.unit}"

    @classmethod
    def of_class(cls, city: str) -> str:
        return f"{city} {cls.__name__}"

    @staticmethod
    def static(city: str) -> str:
        return city

    def __call__(self, city: str) -> str:
        return f"called {city}"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Weather("C").look, "Rome C"),
        (Weather("C").wait, "Rome C"),
        (Weather.of_class, "Rome Weather"),
        (Weather.static, "Rome"),
        (Weather("C"), "called Rome"),
        (functools.partial(Weather.look, Weather("F")), "Rome F"),
        (lambda city: city, "Rome"),
        (functools.lru_cache(Weather.static), "Rome"),
    ],
)
def test_callables_are_tools(db, function, expected):
    """Methods, callable objects, partial functions, lambdas, decorated functions."""
    assert called(db, function, city="Rome") == expected


def test_tool_names(db):
    """Also a partial, and an object that can be called."""
    agent = Agent(
        RecordingModel(),
        db=db,
        tools=[Weather("C").look, functools.partial(plain, 1), Weather("C"), tool(later, name="soon")],
    )

    assert list(agent._model_loop()[1]) == ["look", "plain", "Weather", "soon"]


@pytest.mark.parametrize(
    ("function", "args", "wrong"),
    [
        (literal, {"unit": "K"}, "unit"),
        (annotated, {"n": 0}, "n"),
        (plain, {"a": "one", "b": "x"}, "a"),
        (plain, {"a": 1}, "b"),
        (plain, {"a": 1, "b": "x", "extra": 2}, "extra"),
    ],
)
def test_invalid_arguments_are_reported_to_model(db, function, args, wrong):
    """Which one, so that it may try again; the function is not called."""
    model = RecordingModel([call("it", **args), "I give up"])
    run = Agent(model, db=db, tools=[tool(function, name="it")]).run("x")

    assert (run.status, run.output) == ("COMPLETED", "I give up")
    assert [c.status for c in run.tool_calls] == ["failed"]
    assert f"'{wrong}'" in str(results(model)[0]).replace('"', "'")


def test_injected_parameters_are_hidden(db):
    """run_context, session_state and agent, wherever they stand, with hints or without."""

    def it(run_context: RunContext, a: int, session_state, *, agent=None, b: int = 2) -> object:
        session_state["seen"] = True
        return [a, b, run_context.tool_call_id is not None, agent is run_context.agent]

    agent = Agent(calls_once("it", a=1), db=db, tools=[it])
    assert agent._model_loop()[1]["it"].parameters == ["a", "b"]
    agent.run("x")

    assert agent.get_session().runs[0].tool_calls[0].result == [1, 2, True, True]
    assert agent.get_session_state() == {"seen": True}


def test_model_cannot_set_injected_parameters(db):
    """A call that names them gets what the run has."""

    def it(session_state, a: int = 1) -> object:
        return session_state

    model = RecordingModel([call("it", session_state={"forged": True}), call("it"), "done"])
    Agent(model, db=db, tools=[it], session_state={"real": 1}).run("x")

    assert {"forged": True} not in results(model)


def hinted_by_name(a: int, b: Unknown = None) -> Nowhere:  # noqa: F821 - that is the point
    return [a, b]


def test_unresolvable_type_hint(db):
    """As of names that are imported for type checkers alone."""
    assert called(db, hinted_by_name, a=1) == [1, None]


def test_run_context_is_injected_by_type(db):
    """Whatever the parameter is called; the model does not see it."""

    def it(ctx: RunContext, a: int) -> object:
        return [a, ctx.session_id]

    asked = Agent(calls_once("it", a=1), db=db, session_id="by type", tools=[it]).run("x")
    assert asked.tool_calls[0].result == [1, "by type"]
    assert tool(it).parameters == ["a"]


def test_pydantic_ai_context_is_rejected(db):
    """Its context is another one: refused before anything is stored, with the way out."""

    def it(ctx: PydanticContext[None], a: int) -> int:
        return a

    with pytest.raises(BadUsage, match="'ctx' has the RunContext of pydantic-ai") as refused:
        Agent(calls_once("it", a=1), db=db, session_id="refused", tools=[it]).run("x")
    assert db.get_session("refused") is None
    assert "from kern_nb.agent import RunContext" in refused.value.hint


def test_ctx_is_an_ordinary_parameter(db):
    """No name but the three is ours."""

    def it(ctx: str, self: int = 1, args: int = 2, kwargs: int = 3, tool: str = "t") -> object:
        return [ctx, self, args, kwargs, tool]

    assert called(db, it, ctx="c", kwargs=4) == ["c", 1, 2, 4, "t"]


def test_non_json_default(db):
    """The function gets it; the model is not shown it."""

    def it(a: object = Weather, b: Any = float("nan")) -> object:
        return [a is Weather, b != b]  # noqa: PLR0124 - NaN

    assert called(db, it) == [True, True]


@pytest.mark.parametrize(
    ("function", "args", "expected"), [(len, {"obj": [1, 2]}, 2), (abs, {"x": -1}, 1), (str.upper, {"self": "a"}, "A")]
)
def test_builtins_are_tools(db, function, args, expected):
    """Those whose parameters Python knows."""
    assert called(db, function, **args) == expected
