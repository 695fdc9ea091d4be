"""Databases of the OpenAI Agents SDK, made without it: items, branches that share them, usage, other tables."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
from draft_reader import recognized_by
from mutations import mistyped, truncated

from kern_nb.db import InMemoryDb
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.importers.openai_agents import OpenAIAgents
from kern_nb.ingest.source import Source

TABLES = """
CREATE TABLE {sessions} (session_id TEXT PRIMARY KEY, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE {messages} (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, message_data TEXT NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (session_id) REFERENCES {sessions} (session_id) ON DELETE CASCADE);
"""
STRUCTURE = """
CREATE TABLE message_structure (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
  message_id INTEGER NOT NULL, branch_id TEXT NOT NULL DEFAULT 'main', message_type TEXT NOT NULL,
  sequence_number INTEGER NOT NULL, user_turn_number INTEGER, branch_turn_number INTEGER, tool_name TEXT,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (session_id) REFERENCES {sessions}(session_id), FOREIGN KEY (message_id) REFERENCES {messages}(id));
CREATE TABLE turn_usage (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
  branch_id TEXT NOT NULL DEFAULT 'main', user_turn_number INTEGER NOT NULL, requests INTEGER DEFAULT 0,
  input_tokens INTEGER DEFAULT 0, output_tokens INTEGER DEFAULT 0, total_tokens INTEGER DEFAULT 0,
  input_tokens_details JSON, output_tokens_details JSON, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (session_id) REFERENCES {sessions}(session_id), UNIQUE(session_id, branch_id, user_turn_number));
"""
ASK = {"role": "user", "content": "1+2?"}
CALL = {"type": "function_call", "call_id": "c1", "id": "f1", "name": "add", "arguments": '{"a": 1, "b": 2}',
        "provider_data": {"model": "gpt-5.2"}}  # fmt: skip
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "3"}


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": [part]}


class Database:
    """A database of items; with ``structure``, that of an AdvancedSQLiteSession."""

    def __init__(self, path, *, sessions="agent_sessions", messages="agent_messages", structure=False):
        self.path, self.sessions, self.messages = path, sessions, messages
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(TABLES.format(sessions=sessions, messages=messages))
        if structure:
            self.connection.executescript(STRUCTURE.format(sessions=sessions, messages=messages))
        self.structure = structure
        self.n_rows = 0

    def add(self, session_id, *items, branch="main", second=0):
        """Add items, and return the ids of their rows."""
        time = f"2026-12-01 10:00:{second:02}"
        sessions = f"INSERT OR IGNORE INTO {self.sessions} VALUES (?, ?, ?)"
        self.connection.execute(sessions, [session_id, "2026-12-01 10:00:00", time])
        rows = []
        for item in items:
            data = item if isinstance(item, str) else json.dumps(item)
            insert = f"INSERT INTO {self.messages} (session_id, message_data, created_at) VALUES (?, ?, ?)"
            rows.append(self.connection.execute(insert, [session_id, data, time]).lastrowid)
        if self.structure:
            self.link(session_id, branch, *zip(rows, items, strict=True))
        return rows

    def link(self, session_id, branch, *rows):
        """Add rows to a branch."""
        query = (
            "SELECT coalesce(max(user_turn_number), 0) FROM message_structure WHERE session_id = ? AND branch_id = ?"
        )
        turn = self.connection.execute(query, [session_id, branch]).fetchone()[0]
        for row, item in rows:
            self.n_rows += 1
            turn += isinstance(item, dict) and item.get("role") == "user"
            values = (session_id, row, branch, "x", self.n_rows, turn, turn)
            self.connection.execute(
                "INSERT INTO message_structure (session_id, message_id, branch_id, message_type, sequence_number, "
                "user_turn_number, branch_turn_number) VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def usage(self, session_id, branch, turn, n_input, n_output):
        details = '{"cached_tokens": 4, "cache_write_tokens": 0}', '{"reasoning_tokens": 1}'
        values = [session_id, branch, turn, n_input, n_output, n_input + n_output, *details]
        self.connection.execute(
            "INSERT INTO turn_usage (session_id, branch_id, user_turn_number, requests, input_tokens, output_tokens, "
            "total_tokens, input_tokens_details, output_tokens_details) VALUES (?, ?, ?, 2, ?, ?, ?, ?, ?)",
            values,
        )

    def read(self):
        """The drafts and the reasons of the problems."""
        source = Source(self.path, self.path.name)
        assert recognized_by(self.path) == "openai_agents"
        items = list(OpenAIAgents().read(source))
        drafts = [item for item in items if isinstance(item, Draft)]
        return drafts, [item.reason for item in items if not isinstance(item, Draft)]


def write_small(path):
    """A session with a call, and one with a branch."""
    database = Database(path, structure=True)
    database.add("plain", ASK, CALL, RESULT, answer("It is 3."), user("Thanks"), answer("Bye"))
    rows = database.add("talk", user("one"), answer("1"), user("two"), answer("2"))
    database.link("talk", "alt", (rows[0], user("one")), (rows[1], None))
    database.add("talk", user("two, again"), answer("2b"), branch="alt", second=30)
    database.usage("talk", "alt", 2, 10, 5)
    database.connection.close()


def texts(draft):
    return [[message.content for message in run.messages] for run in draft.runs]


def test_items_are_messages_and_prompts_begin_runs(tmp_path):
    database = Database(tmp_path / "a.db")
    database.add("s", ASK, CALL, RESULT)
    database.add("s", answer("It is 3."), user("Thanks"), answer("Bye"), second=7)
    [draft], problems = database.read()
    first, second = draft.runs

    assert not problems
    assert texts(draft) == [["1+2?", None, "3", "It is 3."], ["Thanks", "Bye"]]
    [call] = first.messages[1].tool_calls
    assert (call.tool_name, call.args, call.status) == ("add", {"a": 1, "b": 2}, "completed")
    assert (first.messages[1].model, first.input, first.output) == ("gpt-5.2", "1+2?", "It is 3.")
    assert (first.duration_s, second.duration_s, first.usage) == (7.0, None, None)
    assert [m.created_at.isoformat() for m in first.messages] == ["2026-12-01T10:00:00+00:00"] * 3 + [
        "2026-12-01T10:00:07+00:00"
    ]
    session = draft.session
    assert (session.session_id, session.agent_id, session.session_name) == ("s", "openai_agents", None)
    assert session.updated_at - session.created_at == 0


def test_a_session_without_items_and_items_without_a_session(tmp_path):
    database = Database(tmp_path / "a.db")
    database.add("empty")
    database.add("s", user("one"))
    database.connection.execute("DELETE FROM agent_sessions WHERE session_id = 's'")
    drafts, _ = database.read()
    assert [(draft.session_id, len(draft.runs)) for draft in drafts] == [("empty", 0), ("s", 1)]


def test_branches_share_items(tmp_path):
    database = Database(tmp_path / "a.db", structure=True)
    rows = database.add("s", user("one"), answer("1"), user("two"), answer("2"), user("three"), answer("3"))
    shared = [(rows[0], user("one")), (rows[1], None)]
    database.link("s", "alt", *shared)
    alt = database.add("s", user("two, again"), answer("2b"), branch="alt", second=30)
    database.link("s", "deeper", *shared, (alt[0], user("x")), (alt[1], None))
    database.add("s", user("deep"), answer("3b"), branch="deeper", second=40)
    database.link("s", "empty", *shared)
    for branch, turn, n in (("main", 1, 10), ("main", 2, 20), ("main", 3, 30), ("alt", 2, 40)):
        database.usage("s", branch, turn, n, 5)
    with InMemoryDb() as store:
        assert not store.ingest(database.path, progress=False).errors
        assert not store.check().problems
        lines = {name: texts(store.get_session(name)) for name in store.sessions_df().session_id}
        assert lines == {
            "s": [["one", "1"], ["two", "2"], ["three", "3"]],
            "s~alt": [["one", "1"], ["two, again", "2b"]],
            "s~deeper": [["one", "1"], ["two, again", "2b"], ["deep", "3b"]],
            "s~empty": [["one", "1"]],
        }
        sessions = store.sessions_df().set_index("session_id")
        assert dict(sessions.parent_session_id.dropna()) == {"s~alt": "s", "s~deeper": "s~alt", "s~empty": "s"}
        assert (sessions.session_name["s~alt"], sessions.n_messages.sum()) == ("alt", 6 + 2 + 2)
        runs = store.runs_df()
        assert (runs.input_tokens.sum(), runs.cache_read_tokens.sum(), runs.reasoning_tokens.sum()) == (100, 16, 4)
        assert store.ingest(database.path, progress=False).runs == 0
        database.add("s", user("four"), answer("4"))
        database.add("s", user("again"), answer("4b"), branch="empty", second=50)
        assert store.ingest(database.path, progress=False).runs == 2
        assert texts(store.get_session("s"))[-1] == ["four", "4"]
        assert texts(store.get_session("s~empty")) == [["one", "1"], ["again", "4b"]]
        assert not store.check().problems


def test_usage_of_0_is_unknown(tmp_path):
    database = Database(tmp_path / "a.db", structure=True)
    database.add("s", user("one"), answer("1"))
    database.usage("s", "main", 1, 0, 0)
    [draft], _ = database.read()
    assert (draft.runs[0].usage, draft.runs[0].extra["usage"]["requests"]) == (None, 2)


def test_two_prompts_of_one_run_are_two_turns(tmp_path):
    database = Database(tmp_path / "a.db", structure=True)
    database.add("s", user("one"), user("two"), answer("1"))
    database.usage("s", "main", 2, 10, 5)
    [draft], _ = database.read()
    assert (len(draft.runs), draft.runs[0].usage.input_tokens) == (1, 10)


def test_the_structure_is_that_of_the_table_it_refers_to(tmp_path):
    path = tmp_path / "a.db"
    Database(path, structure=True).add("s", user("one"), answer("1"))
    other = Database(path, sessions="other_sessions", messages="other_messages")
    other.add("s", user("else"), answer("2"))
    other.add("t", user("more"), answer("3"))
    drafts, problems = other.read()
    assert not problems
    assert [(draft.session_id, texts(draft)) for draft in drafts] == [
        ("s", [["one", "1"]]), ("s~other_messages", [["else", "2"]]), ("t", [["more", "3"]]),
    ]  # fmt: skip


def test_items_in_no_branch_are_reported(tmp_path):
    database = Database(tmp_path / "a.db", structure=True)
    database.add("s", user("one"), answer("1"))
    database.structure = False
    database.add("s", user("two"))
    [draft], problems = database.read()
    assert texts(draft) == [["one", "1"]]
    assert problems == ["Session 's': 1 items are in none of its branches, and are not imported."]


def test_unreadable_items_lose_only_themselves(tmp_path):
    database = Database(tmp_path / "a.db")
    envelope = {"__enc__": 1, "v": 1, "kid": "k", "payload": "gAAAA"}
    database.add("s", user("one"), "{not json", envelope, {"type": "message"}, "[1]", answer("1"))
    [draft], problems = database.read()
    assert texts(draft) == [["one", "1"]]
    assert [problem.split(": ", 1)[1].split(":")[0] for problem in problems] == [
        "item 2 is not valid JSON", "item 3 is not imported", "item 4 is not imported", "item 5 is not imported",
    ]  # fmt: skip
    assert "encrypted" in problems[1]


def test_other_tables_are_not_recognized(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE agent_messages (id, session_id, message_data, created_at)")
    connection.close()
    assert recognized_by(tmp_path / "x.db") is None


def test_a_live_file_is_read_with_its_log_and_not_changed(tmp_path):
    database = Database(tmp_path / "a.db")
    database.connection.execute("PRAGMA journal_mode=WAL")
    database.add("s", user("one"), answer("1"))
    files = [tmp_path / name for name in ("a.db", "a.db-wal")]
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    [draft], _ = database.read()
    assert len(draft.runs) == 1
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == before


def test_two_files_of_one_session_id_are_not_mixed(tmp_path):
    """The rows of each file are numbered from 1."""
    with InMemoryDb() as store:
        for name, text in (("a.db", "one"), ("b.db", "else")):
            database = Database(tmp_path / name)
            database.add("s", user(text), answer(text.upper()))
            store.ingest(database.path, progress=False)
        assert texts(store.get_session("s")) == [["one", "ONE"]]


@pytest.mark.parametrize("version", range(50))
def test_items_of_wrong_types(tmp_path, version):
    items = [ASK, CALL, RESULT, {"type": "reasoning", "id": "r", "summary": []}, answer("3"), user([answer("x")])]
    changed = list(mistyped(items, 50, seed=4))[version]
    database = Database(tmp_path / "a.db", structure=True)
    database.add("s", *(json.dumps(item) for item in changed if isinstance(changed, list)))
    with InMemoryDb() as store:
        store.ingest(database.path, progress=False)
        assert store.ingest(database.path, progress=False).runs == 0


def test_truncated_files(tmp_path):
    write_small(tmp_path / "a.db")
    for index, data in enumerate(truncated((tmp_path / "a.db").read_bytes(), 40, seed=3)):
        path = tmp_path / f"{index}.db"
        path.write_bytes(data)
        source = Source(path, path.name)
        if OpenAIAgents().recognizes(source):
            list(OpenAIAgents().read(source))
