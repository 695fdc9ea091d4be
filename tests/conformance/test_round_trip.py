"""Any value and any text is stored and returned unchanged, in every field, on every engine."""

from __future__ import annotations

import dataclasses
import enum
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import BaseModel
from samples import SPECIAL, WHEN, a_run, all_rows, assert_none, difference, load_session, texts, values

from kern_nb.db import SessionStore
from kern_nb.errors import UnstorableValue
from kern_nb.records import Message, Run, Session, ToolCall, Usage

# One store serves all examples of a test: each example has a session of its own.
examples = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


def through_every_place(store: SessionStore, value: Any) -> dict[str, Any]:
    """Return what each field returns for a value."""
    session_id = str(uuid4())
    boxed = {"kept": value}
    data = dict.fromkeys(("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary"), boxed)
    store.save_session(Session(session_id=session_id, **data))
    before = load_session(store, session_id)
    call = ToolCall(tool_call_id="c", tool_name="t", args=value, result=value, extra=boxed)
    message = Message(role="assistant", content=value, tool_calls=[call], extra=boxed)
    store.append_run(
        session_id,
        Run(input=value, output=value, messages=[message], extra=boxed, session_state=boxed),
    )
    session = load_session(store, session_id)
    run = session.runs[0]
    found = {name: getattr(before, name)["kept"] for name in data}
    found |= {
        "session_data after a run": session.session_data["kept"],
        "session_state of the session": session.session_state["kept"],
        "session_state of the run": run.session_state["kept"],
        "input": run.input,
        "output": run.output,
        "extra of the run": run.extra["kept"],
        "content": run.messages[0].content,
        "extra of the message": run.messages[0].extra["kept"],
        "args": run.tool_calls[0].args,
        "result": run.tool_calls[0].result,
        "extra of the call": run.tool_calls[0].extra["kept"],
        "args on the message": run.messages[0].tool_calls[0].args,
    }
    return found


def through_a_live_run(store: SessionStore, value: Any) -> dict[str, Any]:
    """Return what a live run returns for a value."""
    session_id = str(uuid4())
    run = store.start_run(session_id, input=value)
    call = ToolCall(tool_call_id="c", tool_name="t", args=value)
    store.append_messages(run.run_id, [Message(role="assistant", content=value, tool_calls=[call])])
    store.append_messages(run.run_id, [Message(role="tool", tool_call_id="c", content=value)])
    store.finish_run(run.run_id, output=value, session_state={"kept": value})
    session = load_session(store, session_id)
    run = session.runs[0]
    return {
        "input": run.input,
        "output": run.output,
        "content": run.messages[0].content,
        "args": run.tool_calls[0].args,
        "result": run.tool_calls[0].result,
        "session_state": session.session_state["kept"],
    }


def changed(expected: Any, found: dict[str, Any]) -> dict[str, str]:
    """Return the fields that returned another value."""
    return {place: text for place, value in found.items() if (text := difference(expected, value))}


@examples
@given(value=values)
def test_any_value_round_trips_in_every_field(store, value):
    """JSON of any type, any keys, and types beyond JSON: equal in type, sign, digits and order."""
    assert_none(changed(value, through_every_place(store, value)))


@settings(examples, max_examples=15)
@given(value=values)
def test_any_value_round_trips_in_live_run(store, value):
    """The write path of agents stores the same values as that of importers."""
    assert_none(changed(value, through_a_live_run(store, value)))


def through_every_field(store: SessionStore, text: str) -> dict[str, Any]:
    """Return what each text field returns for a text; ids get a unique suffix."""
    unique = f"{text}{uuid4().hex}"
    owners = dict.fromkeys(("agent_id", "team_id", "workflow_id", "user_id"), text)
    call = ToolCall(tool_call_id=unique, tool_name=text, args=text, result=text, caller=text)
    messages = [
        Message(role=text, content=text, model=text, message_id=text, tool_calls=[call]),
        Message(role="tool", tool_call_id=unique, tool_name=text, content=text),
    ]
    run = Run(
        run_id=unique,
        parent_run_id=text,
        model=text,
        model_provider=text,
        input=text,
        output=text,
        error=text,
        messages=messages,
        session_state={text: text},
        extra={text: [text]},
        **owners,
    )
    store.append_run(unique, run)
    store.rename_session(unique, text)
    store.add_score(unique, text, 1.0, run_id=unique, source=text)
    session = load_session(store, unique)
    got = session.runs[0]
    first, second = got.messages
    found = {name: getattr(got, name) for name in owners}
    found |= {f"{name} of the session": getattr(session, name) for name in owners}
    found |= {
        f"{name} of the run": getattr(got, name) for name in ("parent_run_id", "model", "model_provider", "error")
    }
    found |= {f"{name} of the message": getattr(first, name) for name in ("role", "content", "model", "message_id")}
    found |= {
        f"{name} of the call": getattr(got.tool_calls[0], name) for name in ("tool_name", "args", "result", "caller")
    }
    found |= {
        "session_name": session.session_name,
        "input": got.input,
        "output": got.output,
        "state": got.session_state[text],
        "extra": got.extra[text][0],
        "tool_name of the tool's message": second.tool_name,
    }
    ids = {
        "session_id": session.session_id,
        "run_id": got.run_id,
        "session_id of the run": got.session_id,
        "tool_call_id": got.tool_calls[0].tool_call_id,
        "tool_call_id of the tool's message": second.tool_call_id,
    }
    return changed(text, found) | changed(unique, ids)


@examples
@given(text=texts)
def test_any_text_round_trips_in_every_field(store, text):
    """NUL, lone surrogates, U+0010 and quotes in ids, names, roles, titles and errors."""
    assert_none(through_every_field(store, text))


def test_run_id_may_be_any_text(store):
    """An id with characters that a database cannot store selects its run, whole or by a prefix."""
    wrong = {}
    for text in SPECIAL:
        run_id = f"{text}run{text}"
        store.append_run(f"chat{text}", a_run(run_id=run_id))
        store.append_run(f"chat{text}", a_run())
        for written in (run_id, run_id[: len(text) + 2]):
            try:
                found = store.branch(f"chat{text}", after=written).fork_run_index
            except Exception as error:  # noqa: BLE001 - each text is to be tried
                found = repr(error)[:200]
            if found != 0:
                wrong[written] = found

    assert_none(wrong)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Model(BaseModel):
    name: str
    price: Decimal


@dataclasses.dataclass
class Point:
    x: int
    y: list[int]


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - the plain kind is what is tested

NS = 1_767_225_600_123_456_789

EXACT: dict[str, Any] = {
    "int of 4000 digits": 10**3999 + 7,
    "minus zero": -0.0,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "smallest float": 5e-324,
    "decimal with trailing zeros": Decimal("1.1000"),
    "decimal of 60 digits": Decimal("1." + "7" * 60),
    "decimal nan": Decimal("NaN"),
    "decimal signalling nan": Decimal("sNaN"),
    "decimal minus zero": Decimal("-0E+5"),
    "naive time": datetime(2026, 1, 1, 1, 1, 1, 1),  # noqa: DTZ001 - naive on purpose
    "first time": datetime.min.replace(tzinfo=UTC),
    "last time": datetime.max.replace(tzinfo=UTC),
    "time of half an hour off": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "time a second off": datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=-17))),
    "date": date(1, 1, 1),
    "longest timedelta": timedelta.max,
    "negative timedelta": timedelta(microseconds=-1),
    "uuid": UUID(int=0),
    "no bytes": b"",
    "all bytes": bytes(range(256)),
    "complex nan": complex(float("nan"), -0.0),
    "keys that look alike": {1: "a", "1": "b", 1.5: "c", "1.5": "d", None: "e", "None": "f", "null": "g"},
    "keys of other types": {date(2026, 1, 1): 1, b"k": 2, Decimal("1.5"): 3, (1, (2, "x")): 4, frozenset({1}): 5},
    "our own mark": {"$type": "decimal", "value": "1.10"},
    "our own mark, unknown": {"$type": "no such type", "value": [1]},
    "our own mark within": [{"$type": {"$type": "dict", "value": [["a", 1]]}}],
    "our own mark only": {"$type": None},
    "a set of tuples": {(1, 2), (3, 4)},
    "a frozenset of frozensets": frozenset({frozenset({1}), frozenset()}),
    "a set of one nan": {"x", None, 1.5},
    "nothing in a list": [None, [], {}, "", [[]], [{}]],
    "long list": list(range(5000)),
    "nested": {"a": [{"b": [{"c": [1, {"d": "\x00\ud800\x10"}]}]}]},
    "keys with NUL": {"\x00": 1, "\x100000": 2, "\ud800": 3, "\x10d800": 4},
    "order of keys": {"z": 1, "a": 2, "m": 3},
}


def test_types_beyond_json_round_trip_exactly(store):
    """Each value below is returned equal from every field."""
    wrong = {}
    for name, value in EXACT.items():
        try:
            found = changed(value, through_every_place(store, value))
        except Exception as error:  # noqa: BLE001 - each value is to be tried
            found = {"raised": repr(error)[:200]}
        if found:
            wrong[name] = found

    assert_none(wrong)


PLAIN: dict[str, tuple[Any, Any]] = {
    "numpy int64": (np.int64(2**62), 2**62),
    "numpy uint64": (np.uint64(2**64 - 1), 2**64 - 1),
    "numpy int8": (np.int8(-128), -128),
    "numpy float64": (np.float64(0.1), 0.1),
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy float16": (np.float16(0.5), 0.5),
    "numpy nan": (np.float64("nan"), float("nan")),
    "numpy longdouble": (np.longdouble(0.5), 0.5),
    "numpy complex128": (np.complex128(1 - 2j), 1 - 2j),
    "numpy complex64": (np.complex64(1 - 2j), 1 - 2j),
    "numpy bool": (np.bool_(True), True),
    "numpy str": (np.str_("a\x00b"), "a\x00b"),
    "numpy bytes": (np.bytes_(b"\xff"), b"\xff"),
    "numpy datetime64 in days": (np.datetime64("2026-01-01"), date(2026, 1, 1)),
    "numpy datetime64 in microseconds": (
        np.datetime64("2026-01-01T00:00:00.000001"),
        datetime(2026, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001 - numpy's are naive
    ),
    "numpy datetime64 in nanoseconds": (np.datetime64(NS, "ns"), pd.Timestamp(NS)),
    "numpy NaT": (np.datetime64("NaT"), None),
    "numpy timedelta64 in seconds": (np.timedelta64(90, "s"), timedelta(seconds=90)),
    "numpy array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "numpy array of objects": (np.array([Decimal("1.0"), None], dtype=object), [Decimal("1.0"), None]),
    "numpy empty array": (np.array([]), []),
    "numpy array of no dimension": (np.array(5), 5),
    "pandas NA": (pd.NA, None),
    "pandas NaT": (pd.NaT, None),
    "pandas Timestamp": (pd.Timestamp("2026-01-01T00:00:00.000001Z"), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
    "pandas Timestamp in nanoseconds": (pd.Timestamp(NS), pd.Timestamp(NS)),
    "pandas Timestamp in nanoseconds of a zone": (pd.Timestamp(NS, tz="UTC"), pd.Timestamp(NS, tz="UTC")),
    "pandas Timedelta": (pd.Timedelta("1 day 1us"), timedelta(days=1, microseconds=1)),
    "time of a named zone": (
        datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2))),
    ),
    "enum": (Colour.RED, "red"),
    "int enum": (Level.HIGH, 3),
    "pydantic model": (Model(name="x", price=Decimal("1.10")), {"name": "x", "price": Decimal("1.10")}),
    "dataclass": (Point(1, [2]), {"x": 1, "y": [2]}),
    "path": (PurePosixPath("a/b"), "a/b"),
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "named tuple": (Pair(1, 2), [1, 2]),
    "ordered dict": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "keys of numpy": ({np.int64(5): np.float32(1.5)}, {5: 1.5}),
}


def test_array_scalars_and_objects_decode_to_equal_values(store):
    """numpy and pandas scalars, enums, models and tuples decode to the Python value, missing ones to None."""
    wrong = {}
    for name, (value, expected) in PLAIN.items():
        for place in (through_every_place, through_a_live_run):
            try:
                found = changed(expected, place(store, value))
            except Exception as error:  # noqa: BLE001 - each value is to be tried
                found = {"raised": repr(error)[:200]}
            if found:
                wrong[name, place.__name__] = found

    assert_none(wrong)


def test_megabyte_of_text_round_trips(store):
    """Long texts, with escaped characters, are neither truncated nor refused."""
    for text in ("x" * 1_000_000, "é\U0001f600" * 500_000 + "\x00\ud800"):
        call = ToolCall(tool_call_id="c", args={"text": text}, result=text)
        message = Message(role="user", content=text, tool_calls=[call])
        store.append_run("s", Run(input=text, output=[text], messages=[message]))
        run = load_session(store, "s").runs[-1]

        assert run.input == run.output[0] == run.messages[0].content == text
        assert run.tool_calls[0].args["text"] == run.tool_calls[0].result == text
        assert store.messages_df().content.str.len().tolist()[-1] == len(text)


def test_deeply_nested_values_round_trip(store):
    """Three hundred nested lists are stored, and the tables of such a session stay readable."""
    value: Any = "core"
    for _ in range(150):
        value = [{"deeper": value}]

    assert_none(changed(value, through_every_place(store, value)))
    assert len(store.sessions_df()) == 1
    assert len(store.list_sessions(name="no such")) == 0


def test_empty_is_not_missing(store):
    """Empty text, list or dict is not None, nor the reverse."""
    for value in ("", [], {}, 0, False, None, [None], {"": None}):
        assert_none(changed(value, through_every_place(store, value)))
        assert_none(changed(value, through_a_live_run(store, value)))


def test_empty_fields_are_not_missing(store):
    """Empty dicts of a session stay empty dicts, and missing ones missing."""
    store.save_session(Session(session_id="s", session_data={}, metadata={}, summary=None, agent_data={}))
    store.append_run("s", Run(session_state={}, messages=[Message(role="user", content="", message_id="", model="")]))
    session = load_session(store, "s")
    run = session.runs[0]

    assert (session.session_data or {}).get("session_state", {}) == {}
    assert (session.metadata, session.summary, session.agent_data, session.team_data) == ({}, None, {}, None)
    assert run.session_state == {}
    assert (run.messages[0].content, run.messages[0].message_id, run.messages[0].model) == ("", "", "")
    assert (run.input, run.output, run.error, run.model, run.usage) == (None, None, None, None, None)


def test_every_field_of_run_round_trips(store):
    """All fields of a run, its messages and its tool calls."""
    usage = Usage(
        input_tokens=0,
        output_tokens=2**40,
        cache_read_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        total_tokens=6,
        cost=0.1 + 0.2,
    )
    call = ToolCall(
        tool_call_id="c1",
        tool_name="t",
        args={"a": 1},
        result={"b": 2},
        status="failed",
        caller="user",
        message_index=0,
        duration_s=0.25,
        created_at=WHEN,
        extra={"e": 1},
    )
    message = Message(
        role="user",
        content=[{"type": "text", "text": "hi"}, {"type": "image", "data": b"\x00"}],
        tool_calls=[call],
        tool_call_id="c0",
        tool_name="t0",
        model="m",
        usage=usage,
        message_id="m1",
        message_index=0,
        created_at=WHEN,
        extra={"e": 2},
    )
    run = Run(
        run_id="r1",
        session_id="s",
        run_index=0,
        parent_run_id="p",
        run_type="team",
        agent_id="a",
        team_id="t",
        workflow_id="w",
        user_id="u",
        status="ERROR",
        model="m",
        model_provider="p",
        input={"i": 1},
        output=["o"],
        messages=[message],
        tool_calls=[call],
        usage=usage,
        duration_s=1.5,
        time_to_first_token_s=0.125,
        error="broken",
        session_state={"s": 1},
        created_at=WHEN,
        finished_at=WHEN.replace(year=2027),
        extra={"x": 3},
    )

    given_back = store.append_run("s", run)
    stored = load_session(store, "s").runs[0]

    assert stored.model_dump() == run.model_dump()
    assert given_back.model_dump() == run.model_dump()


def test_every_field_of_session_round_trips(store):
    """All fifteen documented fields and the lineage; save_session and get_session return the same."""
    session = Session(
        session_id="s",
        session_type="workflow",
        agent_id="a",
        team_id="t",
        workflow_id="w",
        user_id="u",
        session_data={"session_name": "title", "session_state": {"n": 1}, "other": [1]},
        agent_data={"a": 1},
        team_data={"t": 1},
        workflow_data={"w": 1},
        metadata={"m": 1},
        runs=[a_run(created_at=WHEN, run_id="r")],
        summary={"summary": "s", "topics": []},
        created_at=12,
        updated_at=34,
        duration_s=5.5,
    )

    given_back = store.save_session(session)
    stored = load_session(store, "s")

    assert stored.model_dump(exclude={"runs"}) == session.model_dump(exclude={"runs"})
    assert given_back.model_dump(exclude={"runs"}) == session.model_dump(exclude={"runs"})
    assert stored.runs[0].input == "hello"
    assert len(stored.runs[0].messages) == 4


def test_saving_session_again_keeps_unset_fields(store):
    """A session saved without created_at keeps it, and the result has it."""
    store.save_session(Session(session_id="s", created_at=0, metadata={"a": 1}, duration_s=2.0))
    given_back = store.save_session(Session(session_id="s", metadata={"a": 2}))
    stored = load_session(store, "s")

    assert (stored.created_at, stored.metadata, stored.duration_s) == (0, {"a": 2}, 2.0)
    assert given_back.model_dump(exclude={"runs"}) == stored.model_dump(exclude={"runs"})


def test_times_are_stored_to_the_microsecond(store):
    """Before 1970, in other zones, from pandas: the same instant in UTC; a missing one is None."""
    times = {
        datetime(1, 1, 1, tzinfo=UTC): datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC): datetime(
            1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC
        ),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC): datetime(
            9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC
        ),
        datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))): datetime(2026, 1, 1, tzinfo=UTC),
        pd.Timestamp("2026-01-01T00:00:00.000001Z"): datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    }
    for given_time, expected in times.items():
        store.append_run("s", Run(created_at=given_time, messages=[Message(role="user", created_at=given_time)]))
        run = load_session(store, "s").runs[-1]

        assert difference(expected, run.created_at) is None
        assert difference(expected, run.messages[0].created_at) is None
    found = store.messages_df().created_at.dt.to_pydatetime()
    assert list(found) == list(times.values())


def test_nat_is_a_missing_time(store):
    """NaT as the time of a message is None."""
    store.append_run("s", Run(messages=[Message(role="user", content="x", created_at=pd.NaT)]))

    assert load_session(store, "s").runs[0].messages[0].created_at is None
    assert store.messages_df().created_at.isna().all()


def test_frames_return_original_texts(store):
    """NUL and U+0010 are unchanged; Arrow cannot store lone surrogates: each is U+FFFD."""
    displayed = {
        "a\x00b": "a\x00b",
        "\x10": "\x10",
        "\x100000": "\x100000",
        "a\ud800b": "a\ufffdb",
        "\\u0010": "\\u0010",
    }
    for text in displayed:
        store.append_run("s", Run(input=text, output=text, error=text, messages=[Message(role="user", content=text)]))
    runs = store.runs_df()

    assert store.messages_df().content.tolist() == list(displayed.values())
    assert runs.input.tolist() == runs.output.tolist() == runs.error.tolist() == list(displayed.values())


def test_frames_return_hostile_json_as_json(store):
    """The JSON columns of frames are JSON with the stored texts."""
    metadata = {"\x00": "a\x00\x10b", "back\\slash": "\\u0010", "quote": '"', "n": [1.5, None, True]}
    store.save_session(Session(session_id="s", metadata=metadata))
    store.append_run("s", Run(tool_calls=[ToolCall(tool_call_id="c", tool_name="t", args=metadata)]))

    import json

    assert json.loads(store.sessions_df().metadata[0]) == metadata
    assert json.loads(store.tool_calls_df().args[0]) == metadata


def test_frames_return_title_beside_any_session_data(store):
    """The title is in the frame and can be searched, even if other keys of session_data are not strings."""
    for session_id, data in {
        "plain": {"session_name": "title\x00"},
        "keys": {"session_name": "title\x00", 1: 2},
        "mark": {"$type": "x", "session_name": "title\x00"},
    }.items():
        store.save_session(Session(session_id=session_id, session_data=data))

        assert load_session(store, session_id).session_name == "title\x00"
        assert store.sessions_df(session_id).session_name.tolist() == ["title\x00"]
        assert session_id in [session.session_id for session in store.list_sessions(name="title")]


def endless() -> list[Any]:
    """A list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


def bottomless() -> Any:
    """Nested lists, deeper than any stack."""
    found: Any = 1
    for _ in range(100_000):
        found = [found]
    return found


UNSTORABLE: dict[str, Any] = {
    "object": object(),
    "class": Run,
    "function": print,
    "generator": (i for i in ()),
    "frame": pd.DataFrame({"a": [1, 2]}),
    "frame with a telling column": pd.DataFrame({"nanosecond": [1, 2]}),
    "series": pd.Series([1, 2]),
    "index of times": pd.DatetimeIndex(["2026-01-01", "2026-01-02"]),
    "period": pd.Period("2026-01"),
    "exception": ValueError("x"),
    "endless": endless(),
    "bottomless": bottomless(),
    "within a dict": {"a": [{"b": object()}]},
    "as a key": {("a", 1, object()): 1},
    "enums as keys beside their values": {Colour.RED: 1, "red": 2},
    "missing values as keys": {pd.NaT: 1, None: 2},
}

MAYBE: dict[str, Any] = {
    "int of 5000 digits": 10**5000,
    "timedelta in nanoseconds": pd.Timedelta(1, "ns"),
    "numpy timedelta in nanoseconds": np.timedelta64(5, "ns"),
    "numpy timedelta in months": np.timedelta64(5, "M"),
    "numpy array in nanoseconds": np.array([NS], "datetime64[ns]"),
    "numpy time beyond Python's": np.datetime64("20000-01-01"),
    "pandas time beyond Python's": pd.Timestamp(np.datetime64("20000-01-01", "s")),
    "numpy longdouble beyond a float": np.longdouble("1e4000"),
    "dataclass as a key": {dataclasses.make_dataclass("Key", ["a"], frozen=True)(1): 2},
    "time of day in a zone": datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")).timetz(),
    "interval": pd.Interval(0, 1),
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "range": range(3),
}


def places(value: Any) -> dict[str, Any]:
    """Return a write for each field that accepts the value."""
    boxed = {"kept": value}

    def in_run(**fields: Any) -> Any:
        return lambda store: store.append_run("fresh", Run(**fields))

    def live(store: SessionStore) -> None:
        store.start_run("fresh", input=value)

    return {
        "metadata": lambda store: store.save_session(Session(session_id="fresh", metadata=boxed)),
        "session_data": lambda store: store.save_session(Session(session_id="fresh", session_data=boxed)),
        "saved run": lambda store: store.save_session(Session(session_id="fresh", runs=[Run(extra=boxed)])),
        "input": in_run(input=value),
        "output": in_run(messages=[Message(role="user", content="x")], output=value),
        "state": in_run(session_state=boxed),
        "extra": in_run(extra=boxed),
        "content": in_run(messages=[Message(role="user", content="x"), Message(role="user", content=value)]),
        "args": in_run(messages=[Message(role="user", tool_calls=[ToolCall(tool_call_id="c", args=value)])]),
        "result": in_run(tool_calls=[ToolCall(tool_call_id="c", result=value)]),
        "started": live,
    }


def refusal(store: SessionStore, write: Any) -> str | None:
    """Return how a write was not refused as promised, None if it was."""
    try:
        write(store)
        found = "it was stored"
    except UnstorableValue:
        found = None
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        found = repr(error)[:200]
    if store.get_session("fresh") is not None:
        store.delete_session("fresh")
        found = found or "it was refused, and left a session"
    return found


def test_unstorable_value_is_refused_and_writes_nothing(store):
    """UnstorableValue in every field, and no session, run or message is written."""
    store.append_run("there", a_run())
    before = all_rows(store)
    tried = {(name, place): write for name, value in UNSTORABLE.items() for place, write in places(value).items()}
    wrong = {name: found for name, write in tried.items() if (found := refusal(store, write))}

    assert_none(wrong)
    assert all_rows(store) == before


def test_unstorable_value_is_refused_in_live_run(store):
    """A refused message or end leaves the run unchanged, and it continues."""
    run = store.start_run("s", input="x")
    for write in (
        lambda: store.append_messages(
            run.run_id, [Message(role="user", content="a"), Message(role="tool", content=object())]
        ),
        lambda: store.finish_run(run.run_id, output=object()),
        lambda: store.finish_run(run.run_id, session_state={"a": object()}),
    ):
        with pytest.raises(UnstorableValue):
            write()
    store.append_messages(run.run_id, [Message(role="user", content="b")])
    store.finish_run(run.run_id, output="done")
    stored = load_session(store, "s").runs[0]

    assert [m.content for m in stored.messages] == ["b"]
    assert (stored.status, stored.output, stored.messages[0].message_index) == ("COMPLETED", "done", 0)


def test_boundary_value_is_exact_or_refused(store):
    """Finer times, wider numbers and rare types are returned equal, or UnstorableValue is raised."""
    wrong = {}
    for name, value in MAYBE.items():
        try:
            found = through_every_place(store, value)
        except UnstorableValue:
            continue
        except Exception as error:  # noqa: BLE001 - each value is to be tried
            wrong[name] = repr(error)[:200]
            continue
        places_wrong = {place: got for place, got in found.items() if not equal_in_kind(value, got)}
        if places_wrong:
            wrong[name] = f"became {places_wrong!r}"

    assert_none(wrong)


def equal_in_kind(value: Any, got: Any) -> bool:
    """Return whether a value of another type is the same quantity."""
    if isinstance(value, bytearray | memoryview):
        return got == bytes(value)
    if isinstance(value, range):
        return got == list(value)
    if isinstance(value, np.ndarray) and isinstance(got, list):
        return [pd.Timestamp(v) for v in value] == got
    if isinstance(value, np.datetime64 | np.timedelta64 | pd.Timedelta) and isinstance(got, int | float):
        return False
    try:
        return bool(got == value)
    except (TypeError, ValueError):
        return False


def test_too_large_number_is_refused(store):
    """Token counts and durations beyond a column's range are refused, and nothing is written."""
    store.append_run("there", a_run())
    for run in (
        Run(usage=Usage(input_tokens=2**63)),
        Run(messages=[Message(role="user", usage=Usage(output_tokens=2**70))]),
    ):
        with pytest.raises(UnstorableValue):
            store.append_run("fresh", run)

    assert store.sessions_df().session_id.tolist() == ["there"]


def test_nan_is_unknown(store):
    """A cost or duration of NaN is missing on every engine."""
    store.append_run("s", Run(usage=Usage(input_tokens=1, cost=float("nan")), duration_s=float("nan")))
    runs = store.runs_df()

    assert runs.cost.isna().all()
    assert runs.duration_s.isna().all()
    assert not np.isnan(runs.cost.sum())
