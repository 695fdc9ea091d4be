"""Sessions of Google's ADK: both schemas of its databases and its JSON exports; rewinds, states, failures."""

from __future__ import annotations

import json
import pickle
import random
import sqlite3

import pytest

from kern_nb.db import SqliteDb
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.importers.adk import Adk
from kern_nb.ingest.registry import detect_importer
from kern_nb.ingest.source import Source
from tests.ingest.importers.mutations import mistyped, truncated

SESSIONS = """
CREATE TABLE sessions (app_name TEXT, user_id TEXT, id TEXT, state TEXT, create_time, update_time);
CREATE TABLE app_states (app_name TEXT, state TEXT, update_time);
CREATE TABLE user_states (app_name TEXT, user_id TEXT, state TEXT, update_time);
"""
EVENTS = "CREATE TABLE events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data);"
OLD_EVENTS = """CREATE TABLE events (id, app_name, user_id, session_id, invocation_id, author, actions BLOB,
  long_running_tool_ids_json, branch, timestamp, content, grounding_metadata, custom_metadata, usage_metadata,
  error_code, error_message, interrupted);"""


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def event(name, invocation, author, *parts, role=None, **fields):
    record = {"id": name, "invocation_id": invocation, "author": author, "actions": {"state_delta": {}}}
    if parts:
        record["content"] = {"parts": list(parts), "role": role or ("user" if author == "user" else "model")}
    return record | {"timestamp": 1_772_000_000.0 + int(name[1:]), **fields}


USAGE = {"prompt_token_count": 10, "candidates_token_count": 2, "thoughts_token_count": 3, "total_token_count": 15}
USAGE |= {"cached_content_token_count": 4}
CALL = {"function_call": {"id": "f1", "name": "book", "args": {"seatRow": 3}}}
RESULT = {"function_response": {"id": "f1", "name": "book", "response": {"error": "full"}}}
IMAGE = {"inline_data": {"mime_type": "image/png", "data": "eHg="}}


def turn():
    thought = {"text": "hm", "thought": True}
    return [
        event("e1", "i1", "user", {"text": "Book a seat"}, IMAGE),
        event("e2", "i1", "clerk", thought, CALL, model_version="g-1", usage_metadata=USAGE),
        event("e3", "i1", "clerk", RESULT, role="user"),
        event("e4", "i1", "clerk", {"text": "It is full"}, actions={"state_delta": {"seatRow": 3}}),
    ]


def camel(value):
    if isinstance(value, list):
        return list(map(camel, value))
    if not isinstance(value, dict):
        return value
    names = {key: "".join(w.title() if i else w for i, w in enumerate(key.split("_"))) for key in value}
    keep = ("args", "response", "state_delta")
    return {name: value[key] if key in keep else camel(value[key]) for key, name in names.items()}


def export(events, **fields):
    return {"id": "s1", "appName": "desk", "userId": "u1", "state": {"a": 1}, "events": camel(events)} | fields


def database(path, events, session_id="s1", user="u1"):
    is_new = not path.exists()
    with sqlite3.connect(path) as connection:
        if is_new:
            connection.executescript(SESSIONS + EVENTS)
            connection.execute("INSERT INTO app_states VALUES ('desk', '{\"limit\": 9}', 0)")
            connection.execute("INSERT INTO user_states VALUES ('desk', 'u1', '{\"name\": \"A\"}', 0)")
        times = ("2026-02-25 06:13:20.5", "2026-02-25 06:14:00")
        connection.execute("INSERT INTO sessions VALUES ('desk', ?, ?, '{\"a\": 1}', ?, ?)", [user, session_id, *times])
        for record in events:
            row = [
                record["id"],
                "desk",
                user,
                session_id,
                record["invocation_id"],
                record["timestamp"],
                json.dumps(record),
            ]
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    return path


def read(path):
    source = Source(path, path.name)
    assert detect_importer(source).name == "adk"
    items = list(Adk().read(source))
    return [item for item in items if isinstance(item, Draft)], [i.reason for i in items if not isinstance(i, Draft)]


def write(path, value):
    path.write_text(json.dumps(value, indent=1))
    return path


def test_a_turn(tmp_path):
    [draft], problems = read(database(tmp_path / "s.db", turn()))
    [run] = draft.runs

    assert not problems
    assert (draft.session_id, draft.session.agent_id, draft.session.user_id) == ("s1", "desk", "u1")
    assert draft.session.session_state == {"app:limit": 9, "user:name": "A", "a": 1}
    assert (draft.session.created_at, draft.session.updated_at) == (1_772_000_000, 1_772_000_040)
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant"]
    prompt, asks, _, answer = run.messages
    assert prompt.content[1] == {"type": "image", "mime_type": "image/png", "data": "eHg="}
    assert asks.content == [{"type": "thinking", "thinking": "hm"}]
    assert [(c.tool_name, c.args, c.status) for c in asks.tool_calls] == [("book", {"seatRow": 3}, "failed")]
    usage = asks.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (10, 5, 4)
    assert (usage.reasoning_tokens, usage.total_tokens) == (3, 15)
    assert (run.model, run.agent_id, run.output, run.duration_s) == ("g-1", "clerk", "It is full", 3.0)
    assert answer.extra["actions"] == {"state_delta": {"seatRow": 3}}


def test_an_export_equals_the_database(tmp_path):
    [stored], _ = read(database(tmp_path / "s.db", turn()))
    [exported], _ = read(write(tmp_path / "s.json", export(turn())))

    assert exported.hashes == stored.hashes
    assert exported.keys == stored.keys
    assert exported.session_id == "s1"


def test_a_rewind_leaves_a_line(tmp_path):
    annulled = [event("e5", "i2", "user", {"text": "Wait"}), event("e6", "i2", "clerk", {"text": "Waiting"})]
    rewind = event("e7", "i3", "user", actions={"rewind_before_invocation_id": "i2", "state_delta": {}})
    after = [event("e8", "i4", "user", {"text": "Cancel"}), event("e9", "i4", "clerk", {"text": "Done"})]
    main, left = read(write(tmp_path / "s.json", export([*turn(), *annulled, rewind, *after])))[0]

    assert main.session_id == left.session_id
    assert [run.input for run in main.runs][1:] == ["Cancel"]
    assert [run.input for run in left.runs][1:] == ["Wait"]
    assert (main.keys[0], main.hashes[0]) == (left.keys[0], left.hashes[0])
    assert len(main.session.agent_data["events_without_messages"]) == 1


def test_compaction_errors_and_speech(tmp_path):
    summary = {"start_timestamp": 1, "end_timestamp": 2, "compacted_content": {"parts": [{"text": "A seat."}]}}
    events = [
        *turn(),
        event("e5", "i2", "user", actions={"compaction": summary}),
        event("e6", "i3", "user", input_transcription={"text": "Hello", "finished": True}),
        event("e7", "i3", "clerk", error_code="429", error_message="Quota"),
        event("e8", "i4", "user", {"text": "Run it"}),
        event(
            "e9",
            "i4",
            "clerk",
            {"executable_code": {"code": "1+1", "language": "PYTHON"}},
            {"odd": 1},
            interrupted=True,
        ),
    ]
    [draft], _ = read(write(tmp_path / "s.json", export(events)))
    first, second, third = draft.runs

    assert first.messages[-1].extra["compaction"] is True
    assert first.output == "It is full"
    assert (second.input, second.status, second.error) == ("Hello", "ERROR", "Quota")
    assert (third.status, third.messages[1].content) == ("CANCELLED", "```python\n1+1\n```")
    assert third.messages[1].extra["other_parts"] == [{"odd": 1}]


def test_the_older_schema_without_its_pickles(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SESSIONS + OLD_EVENTS)
        connection.execute("INSERT INTO sessions VALUES ('desk', 'u1', 's1', '{}', NULL, NULL)")
        for record in turn():
            names = ("id", "invocation_id", "author", "content", "usage_metadata")
            row = {name: record.get(name) for name in names} | {"app_name": "desk", "user_id": "u1", "session_id": "s1"}
            row = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
            row |= {"actions": pickle.dumps(Bomb()), "timestamp": f"2026-01-01 00:00:0{record['id'][1:]}.000000"}
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    connection.close()
    [draft], problems = read(path)

    assert not problems
    assert [m.role for m in draft.runs[0].messages] == ["user", "assistant", "tool", "assistant"]
    assert draft.runs[0].messages[1].usage.output_tokens == 5
    assert draft.session.metadata == {"app_name": "desk", "pickled_actions": 4, "time_zone": "unknown"}
    assert draft.session.created_at == 1_767_225_601


def test_the_same_id_of_two_users(tmp_path):
    path = database(tmp_path / "s.db", turn())
    database(path, turn()[:1], user="u2")

    assert [draft.session_id for draft in read(path)[0]] == ["s1", "desk/u2/s1"]


def test_a_later_session_with_the_same_id(tmp_path):
    """The session that was imported before the other one came keeps its id."""
    path, store = database(tmp_path / "s.db", turn()), SqliteDb(tmp_path / "store.db")
    store.ingest(path)
    database(path, [event("e11", "i1", "user", {"text": "Hello"})], user="u2")

    assert store.ingest(path).sessions == 1
    assert sorted(session.session_id for session in store.list_sessions()) == ["desk/u2/s1", "s1"]


def test_events_without_their_session(tmp_path):
    """A session whose row is missing is that of its events."""
    path = database(tmp_path / "s.db", turn(), session_id="7")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sessions SET id = '8'")
    connection.close()
    database(path, turn()[:1], session_id="9")
    drafts, problems = read(path)

    assert not problems
    assert [(d.session_id, len(d.runs)) for d in drafts] == [("8", 0), ("9", 1), ("7", 1)]


def test_an_event_that_is_recorded_twice(tmp_path):
    events = turn()
    [draft], problems = read(write(tmp_path / "s.json", export([*events[:3], *events[1:]])))

    assert not problems
    assert [m.role for m in draft.runs[0].messages] == ["user", "assistant", "tool", "assistant"]


def test_other_layouts_are_not_recognized(tmp_path):
    foreign = {"id": "x", "app_name": "a", "user_id": "", "events": [{"name": "click"}]}
    values = ({"id": "x", "events": []}, {"appName": "a", "userId": "u", "id": "x"}, [1], {"sessions": [2]}, foreign)
    for value in values:
        assert not Adk().recognizes(Source(write(tmp_path / "x.json", value), "x.json"))


def test_damaged_files(tmp_path):
    """Nothing raises; one bad event does not lose the others."""
    for value in mistyped(export(turn()), 150):
        list(Adk().read(Source(write(tmp_path / "x.json", value), "x.json")))
    [draft], [problem] = read(write(tmp_path / "y.json", export([{**turn()[0], "content": 5}, *turn()[1:]])))
    assert len(draft.runs[0].messages) == 3
    assert "Event 0" in problem
    data = database(tmp_path / "s.db", turn()).read_bytes()
    rng = random.Random(2)
    for torn in truncated(data, 50):
        (tmp_path / "torn.db").write_bytes(torn)
        list(Adk().read(Source(tmp_path / "torn.db", "torn.db")))
        changed = bytearray(data)
        changed[rng.randrange(4096, len(data))] = rng.randrange(256)
        (tmp_path / "torn.db").write_bytes(changed)
        list(Adk().read(Source(tmp_path / "torn.db", "torn.db")))


def test_a_second_import_stores_nothing(tmp_path):
    path, store = database(tmp_path / "s.db", turn()), SqliteDb(tmp_path / "store.db")
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls, first.errors) == (1, 1, 4, 1, [])
    assert (second.sessions, second.runs, second.messages, second.skipped) == (0, 0, 0, 1)
