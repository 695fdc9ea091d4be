"""Values that no engine holds, or that refuse to be looked at: an error of ours before anything is written, or stored."""

from __future__ import annotations

import enum
import math
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import numpy as np
import pytest

from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage, KernError, UnstorableValue
from kern_nb.records import Message, Requirement, Run, Session, ToolCall, Usage

LATE = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=5)))


class Zone(tzinfo):
    """A zone that has no answer."""

    def utcoffset(self, moment):
        raise RuntimeError("no offset")


class Hostile:
    """A value that refuses to be compared, hashed, shown or read."""

    def __eq__(self, other):
        raise RuntimeError("eq")

    def __hash__(self):
        raise RuntimeError("hash")

    def __repr__(self):
        raise RuntimeError("repr")

    def __iter__(self):
        raise RuntimeError("iter")


class HostileDict(dict):
    """A dict that cannot be read."""

    def keys(self):
        raise RuntimeError("keys")

    __iter__ = items = keys


def nested(depth):
    value = "core"
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = {}
    value["self"] = value
    return value


def changed(record, **values):
    """A record whose fields were set after it was validated."""
    for name, value in values.items():
        setattr(record, name, value)
    return record


def call(**values):
    return ToolCall(tool_call_id="c1", tool_name="look", **values)


WRITES = {
    "a time in microseconds where seconds belong": lambda s: s.save_session(Session(session_id="x", created_at=10**15)),
    "such a time set later": lambda s: s.save_session(changed(Session(session_id="x"), created_at=10**15)),
    "text as a time": lambda s: s.save_session(changed(Session(session_id="x"), created_at="now")),
    "a run in the year 33658": lambda s: s.append_run("x", Run(created_at=10**15)),
    "a message after the year 9999": lambda s: s.append_run("x", Run(messages=[Message(role="user", created_at=LATE)])),
    "a zone without an answer": lambda s: s.append_run("x", Run(created_at=datetime(2026, 1, 1, tzinfo=Zone()))),
    "such a zone set later": lambda s: s.append_run(
        "x", changed(Run(), created_at=datetime(2026, 1, 1, tzinfo=Zone()))
    ),
    "text as a run's time": lambda s: s.append_run("x", changed(Run(), created_at="now")),
    "an expiry after the year 9999": lambda s: s.append_run(
        "x", Run(status="PAUSED", requirements=[Requirement(kind="handoff", expires_at=LATE)])
    ),
    "a fork beyond 64 bits": lambda s: s.save_session(Session(session_id="x", fork_run_index=2**70)),
    "an index beyond 64 bits": lambda s: s.append_run("x", Run(tool_calls=[call(message_index=2**70)])),
    "an endless cost": lambda s: s.append_run("x", Run(usage=Usage(cost=math.inf))),
    "an endless duration": lambda s: s.append_run("x", Run(duration_s=-math.inf)),
    "tokens that no sum holds": lambda s: s.append_run("x", Run(usage=Usage(input_tokens=2**62))),
    "tokens of 5000 digits": lambda s: s.append_run("x", Run(usage=Usage(input_tokens=10**5000))),
    "an integer of 5000 digits": lambda s: s.append_run("x", Run(tool_calls=[call(result=10**5000)])),
    "a result that refuses to be compared": lambda s: s.append_run("x", Run(tool_calls=[call(result=Hostile())])),
    "an input that refuses to be shown": lambda s: s.start_run("x", input=Hostile()),
    "a dict that cannot be read": lambda s: s.update_session_state("x", {"a": HostileDict(b=1)}),
    "a dict that holds itself": lambda s: s.update_session_state("x", endless()),
    "a key that is a class": lambda s: s.update_session_state("x", {"a": {("b", Hostile): 1}}),
    "lists 965 levels deep": lambda s: s.update_session_state("x", {"n": nested(965)}),
    "metadata 500 levels deep": lambda s: s.save_session(Session(session_id="x", metadata={"n": nested(500)})),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_refused_write_changes_nothing(write):
    """The error is one of ours, and neither the session nor a run of it is there."""
    store = InMemoryDb()
    store.append_run("good", Run(input="q"))

    with pytest.raises(KernError):
        write(store)

    assert store.get_session("x") is None
    assert store.sessions_df().session_id.tolist() == ["good"]
    assert store.check().problems == []


def test_invalid_time_error_names_field_and_value(store):
    """What a person needs to see that milliseconds were given."""
    with pytest.raises(
        UnstorableValue, match="created_at must be a time in unix seconds, got 1000000000000000"
    ) as raised:
        Session(created_at=10**15)
    assert "milliseconds" in raised.value.hint
    assert Session(created_at=253_402_300_799).created_at == 253_402_300_799
    store.append_run("s", Run(created_at=datetime(9999, 12, 31, tzinfo=UTC)))
    store.append_run("s", Run(created_at=datetime(1, 1, 1, tzinfo=UTC)))
    assert [run.created_at.year for run in store.get_session("s").runs] == [9999, 1]
    assert repr(store.runs_df())


ARGUMENTS = {
    "limit=-1": lambda s: s.list_sessions(limit=-1),
    "limit='x'": lambda s: s.list_sessions(limit="x"),
    "limit=True": lambda s: s.list_sessions(limit=True),
    "limit=1.5": lambda s: s.list_sessions(limit=1.5),
    "last_runs=-1": lambda s: s.history("s", last_runs=-1),
    "last_messages=1.5": lambda s: s.history("s", last_messages=1.5),
    "runs: limit=-1": lambda s: s.session_runs("s", limit=-1),
    "runs: start='x'": lambda s: s.session_runs("s", start="x"),
    "offset=-1": lambda s: s.find_sessions(offset=-1),
    "total='x'": lambda s: s.find_sessions(total="x"),
    "most=-1": lambda s: s.session_family("s", most=-1),
    "since in a list": lambda s: s.sessions_df(since=[1]),
    "since a hostile value": lambda s: s.sessions_df(since=Hostile()),
    "since in a zone without an answer": lambda s: s.sessions_df(since=datetime(2026, 1, 1, tzinfo=Zone())),
    "a score of text": lambda s: s.add_score("s", "r", "x"),
    "a score of None": lambda s: s.add_score("s", "r", None),
    "an endless score": lambda s: s.add_score("s", "r", math.inf),
    "a score of 400 digits": lambda s: s.add_score("s", "r", 10**400),
    "a branch after 10**30": lambda s: s.branch("s", after=10**30),
    "a surrogate in SQL": lambda s: s.sql("SELECT '\ud800'"),
    "SQL that is not a str": lambda s: s.sql(5),
    "parameters that are no dict": lambda s: s.sql("SELECT $x AS a", 5),
    "a signaling NaN": lambda s: s.sql("SELECT $x AS a", {"x": Decimal("sNaN")}),
    "a time after the year 9999": lambda s: s.sql("SELECT $x AS a", {"x": LATE}),
    "a name that is not a str": lambda s: s.list_sessions(name=5),
    "a cursor that is not a str": lambda s: s.list_sessions(cursor=5),
    "cards of None": lambda s: s.session_cards(None),
    "a blob of text": lambda s: s.put_blob("x"),
}


@pytest.mark.parametrize("use", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_invalid_argument_is_named_in_error(kind, use, tmp_path):
    """Not a driver's complaint, and nothing changed."""
    store = InMemoryDb() if kind == "memory" else SqliteDb(db_file=tmp_path / "s.db")
    store.append_run("s", Run(input="q", messages=[Message(role="user", content="q")]))

    with pytest.raises(KernError):
        use(store)

    assert store.sessions_df().session_id.tolist() == ["s"]
    assert store.scores_df().empty
    store.close()


def test_huge_and_numpy_limits_are_accepted(store):
    """All there is, where more is asked for than any store has."""
    store.append_run("s", Run(input="q", messages=[Message(role="user", content="q")]))

    assert len(store.list_sessions(limit=10**30)) == 1
    assert len(store.list_sessions(limit=np.int64(3))) == 1
    assert len(store.history("s", last_runs=10**30, last_messages=10**30)) == 1
    assert len(store.session_runs("s", limit=10**30)) == 1
    assert store.session_runs("s", start=10**30) == []
    assert list(store.find_sessions(limit=10**30)) == ["s"]
    assert list(store.find_sessions(offset=10**30)) == []
    assert len(store.messages_df(limit=10**30)) == 1
    assert store.messages_df(since="2999-01-01").empty
    assert len(store.sessions_df(until="2999-01-01", since="0001-01-01")) == 1
    store.add_score("s", "r", np.float32(0.5))
    assert store.scores_df().value.tolist() == [0.5]


def test_unusual_values_round_trip(store):
    """What is only unusual is stored: arrays on a call and its message, an enum as an id, 300 levels, NUL in an id."""

    class Name(enum.StrEnum):
        RED = "red"

    array = np.array([1, 2])
    run = Run(
        messages=[Message(role="assistant", tool_calls=[call()])], tool_calls=[call(result=array, args={"a": array})]
    )
    assert repr(run.tool_calls[0])
    store.append_run(Name.RED, run)
    store.append_run("a\x00b\ud800", Run(session_state={"deep": nested(300)}))

    stored = store.get_session("red").runs[0].tool_calls[0]
    assert (stored.result, stored.args) == ([1, 2], {"a": [1, 2]})
    assert store.get_session("a\x00b\ud800").session_state == {"deep": nested(300)}
    assert store.check().problems == []


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_no_escape_sequence_reaches_terminal():
    """Ids, titles, outputs and errors with controls in them: seen, in every text that a person's prompt prints."""
    store = InMemoryDb()
    run = store.append_run(ESCAPES, Run(run_id=ESCAPES, input=ESCAPES, output=ESCAPES, agent_id=ESCAPES, error=ESCAPES))
    store.rename_session(ESCAPES, ESCAPES)
    store.branch(ESCAPES, new_session_id=f"{ESCAPES}2")
    m = store.tables.messages
    row = {"run_id": ESCAPES, "message_index": 1, "session_id": ESCAPES, "run_index": 0, "role": "user"}
    store.write(lambda connection: connection.execute(m.insert().values(**row)))
    texts = [repr(run), str(run), repr(store.get_session(ESCAPES)), repr(store.list_sessions()), repr(store.check())]
    for use in (store.locate, store.history, store.get_run, store.find_run, store.delete_session):
        with pytest.raises(KernError) as raised:
            use(f"{ESCAPES}/9" if use != store.delete_session else ESCAPES)
        texts += [str(raised.value), raised.value.hint, *raised.value._render_traceback_()]
    with pytest.raises(BadUsage) as raised:
        store.find_sessions(order=ESCAPES)
    texts.append(str(raised.value))

    assert [text for text in texts if _ACTING.search(text)] == []
