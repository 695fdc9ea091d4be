"""The log of llm: threads of both generations, forks, fragments, attachments and tool results."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3

import pytest

from kern_nb.db import SqliteDb
from kern_nb.ingest.importer import Draft
from kern_nb.ingest.importers.llm import Llm
from kern_nb.ingest.source import Source
from tests.ingest.importers.mutations import truncated

OLD = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, options_json TEXT, response TEXT,
  conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT, input_tokens INTEGER, output_tokens INTEGER,
  token_details TEXT, reasoning TEXT);
CREATE TABLE tool_calls (id INTEGER PRIMARY KEY, response_id TEXT, name TEXT, arguments TEXT, tool_call_id TEXT);
CREATE TABLE tool_results (id INTEGER PRIMARY KEY, response_id TEXT, name TEXT, output TEXT, tool_call_id TEXT,
  exception TEXT);
CREATE TABLE fragments (id INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);
CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);
"""
NEW = """
CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT, tool_name TEXT, text TEXT,
  payload TEXT);
CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, forked_from TEXT, datetime_utc TEXT);
CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT, model TEXT,
  resolved_model TEXT, options_json TEXT, schema_id TEXT, input_tokens INTEGER, output_tokens INTEGER,
  token_details TEXT, duration_ms INTEGER, datetime_utc TEXT);
"""
DETAILS = '{"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}'


class Log:
    """A log of both generations."""

    def __init__(self, path, script=OLD + NEW):
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(script)

    def insert(self, table, **values):
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))

    def message(self, name, parent, role, *parts):
        self.insert("messages", hash=name, parent_hash=parent, role=role)
        for position, (kind, text, payload) in enumerate(parts):
            row = {"message_hash": name, "position": position, "type": kind, "text": text}
            self.insert("parts", **row, payload=json.dumps(payload) if payload else None)

    def turn(self, name, thread, parent, tip, second, **values):
        row = {"thread_id": thread, "parent_message_hash": parent, "tip_message_hash": tip, "model": "m"}
        row |= {"datetime_utc": f"2026-09-01T08:00:{second:02}+00:00", "duration_ms": 500} | values
        self.insert("turns", id=name, **row)

    def read(self):
        source = Source(self.path, self.path.name)
        assert Llm().recognizes(source)
        items = list(Llm().read(source))
        return [item for item in items if isinstance(item, Draft)], [
            i.reason for i in items if not isinstance(i, Draft)
        ]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "logs.db")


def record_thread(log):
    """A thread "A": a prompt with a fragment, a call with two results, an answer; a second prompt."""
    log.insert("fragments", id=7, content="the ledger")
    log.message("s", None, "system", ("text", "Be brief", None))
    refs = {"text_ref": [{"literal": "Read "}, {"fragment": 7}]}
    log.message("p1", "s", "user", ("text", None, refs))
    calls = [{"name": "sum", "arguments": {"of": n}, "tool_call_id": f"c{n}"} for n in (1, 2)]
    log.message("a1", "p1", "assistant", ("reasoning", "hm", None), *(("tool_call", None, call) for call in calls))
    results = [{"name": "sum", "output": "3", "tool_call_id": "c1"}]
    results += [{"name": "sum", "output": "bad", "tool_call_id": "c2", "exception": "ValueError: bad"}]
    log.message("r1", "a1", "tool", *(("tool_result", None, result) for result in results))
    log.message("a2", "r1", "assistant", ("text", "It is 3", None))
    log.message("p2", "a2", "user", ("text", "Thanks", None))
    log.message("a3", "p2", "assistant", ("text", "Welcome", None))
    log.insert("threads", id="A", name="Ledger", tip_message_hash="a3")
    log.turn("t1", "A", "p1", "a1", 1, input_tokens=10, output_tokens=3, token_details=DETAILS)
    log.turn("t2", "A", "r1", "a2", 2, input_tokens=20, output_tokens=1)
    log.turn("t3", "A", "p2", "a3", 9, input_tokens=30, output_tokens=1)


def texts(draft):
    return [[m.content if isinstance(m.content, str) else "..." for m in run.messages] for run in draft.runs]


def test_a_thread(log):
    record_thread(log)
    [draft], problems = log.read()
    first, second = draft.runs

    assert not problems
    assert (draft.session_id, draft.session.session_name, draft.session.agent_id) == ("A", "Ledger", "llm")
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert first.input == "Read the ledger"
    assert [call.status for call in first.messages[2].tool_calls] == ["completed", "failed"]
    assert first.messages[4].extra["exception"] == "ValueError: bad"
    usage = first.messages[2].usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.reasoning_tokens) == (10, 4, 2)
    assert [m.created_at.second for m in first.messages] == [1, 1, 1, 2, 2, 2]
    assert (first.duration_s, second.duration_s) == (1.5, 0.5)
    assert (second.model, second.output) == ("m", "Welcome")


def test_a_forked_thread_shares_keys_up_to_the_fork(log):
    record_thread(log)
    log.message("q2", "a2", "user", ("text", "Why?", None))
    log.message("b3", "q2", "assistant", ("text", "Because", None))
    log.insert("threads", id="B", tip_message_hash="b3", forked_from="A")
    log.turn("t4", "B", "q2", "b3", 20)
    main, fork = log.read()[0]

    assert main.keys[0] == fork.keys[0]
    assert main.hashes[0] == fork.hashes[0]
    assert not set(main.keys[1]) & set(fork.keys[1])
    assert fork.has_record_ids
    assert [m.usage for m in fork.runs[0].messages] == [m.usage for m in main.runs[0].messages]


def test_a_fork_that_repeats_a_prompt(log):
    """The prompt is the parent's if the fork is stated."""
    record_thread(log)
    log.message("b3", "p2", "assistant", ("text", "My pleasure", None))
    log.insert("threads", id="B", tip_message_hash="b3", forked_from="A")
    log.turn("t4", "B", "p2", "b3", 20)
    main, fork = log.read()[0]

    assert main.keys[1][0] == fork.keys[1][0]
    assert main.keys[1][1] != fork.keys[1][1]


def test_the_same_prompt_in_two_threads_is_no_fork(log):
    """Nor is the same system prompt, or the same answer: each thread has turns of its own."""
    record_thread(log)
    log.insert("threads", id="B", tip_message_hash="a1")
    log.turn("t4", "B", "p1", "a1", 20, input_tokens=99)
    main, other = log.read()[0]

    assert not {key for keys in main.keys for key in keys} & {key for keys in other.keys for key in keys}
    assert other.runs[0].messages[2].usage.input_tokens == 99


def test_a_turn_beside_the_line_is_a_branch(log):
    record_thread(log)
    log.message("x", "p2", "assistant", ("text", "Retried", None))
    log.turn("t4", "A", "p2", "x", 20)
    main, branch = log.read()[0]

    assert main.session_id == branch.session_id == "A"
    assert [texts(main)[1][-1], texts(branch)[1][-1]] == ["Welcome", "Retried"]


def record_conversation(log):
    log.insert("conversations", id="C", name="Old", model="m0")
    row = {"model": "m0", "conversation_id": "C", "system": "Be kind", "duration_ms": 900}
    log.insert("responses", id="r1", prompt="Look", response="", datetime_utc="2025-01-01T00:00:01", **row)
    log.insert("tool_calls", response_id="r1", name="see", arguments='{"x": 1}', tool_call_id="k")
    log.insert("tool_results", response_id="r2", name="see", output="a cat", tool_call_id="k")
    row |= {"input_tokens": 7, "output_tokens": 2, "token_details": '{"cache_read_input_tokens": 5}'}
    log.insert("responses", id="r2", prompt="", response="A cat", datetime_utc="2025-01-01T00:00:03", **row)
    log.insert("attachments", id="pic", type="image/png", content=b"\x89PNG")
    log.insert("prompt_attachments", response_id="r1", attachment_id="pic", order=0)
    log.insert("fragments", id=1, content="Long text")
    log.insert("prompt_fragments", response_id="r1", fragment_id=1, order=0)
    log.insert("responses", id="r3", prompt="Alone", response="Yes", model="m0", reasoning="hm")


def test_older_tables(log):
    record_conversation(log)
    conversation, alone = log.read()[0]
    [run] = conversation.runs

    assert [m.role for m in run.messages] == ["system", "user", "assistant", "tool", "assistant"]
    prompt = run.messages[1].content
    assert prompt[0] == {"type": "text", "text": "Long text\nLook"}
    assert (prompt[1]["type"], prompt[1]["mime_type"], prompt[1]["data"]) == ("image", "image/png", "iVBORw==")
    [call] = run.messages[2].tool_calls
    assert (call.args, call.status) == ({"x": 1}, "completed")
    usage = run.messages[4].usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (12, 5), "Anthropic counts cached tokens apart"
    assert (run.duration_s, conversation.session.session_name) == (2.9, "Old")
    assert (alone.session_id, alone.runs[0].messages[1].content[0]["type"]) == ("r3", "reasoning")
    assert alone.runs[0].messages[0].created_at is None


def test_a_conversation_that_goes_on_in_the_new_tables_is_one_session(log):
    row = {"conversation_id": "C", "model": "m0", "input_tokens": 7, "datetime_utc": "2025-01-01T00:00:01"}
    log.insert("responses", id="r1", prompt="Hi", response="Hello", **row)
    log.message("p1", None, "user", ("text", "Hi", None))
    log.message("a1", "p1", "assistant", ("text", "Hello", None))
    log.message("p2", "a1", "user", ("text", "More", None))
    log.message("a2", "p2", "assistant", ("text", "Sure", None))
    log.insert("threads", id="C", tip_message_hash="a2")
    log.turn("t1", "C", "p2", "a2", 5)
    [draft], _ = log.read()

    assert texts(draft) == [["Hi", "Hello"], ["More", "Sure"]]
    assert draft.runs[0].messages[1].usage.input_tokens == 7


def test_an_empty_answer_is_a_message_with_its_usage(log):
    """A model that says nothing: the turn ends with its prompt, and the next prompt begins a run."""
    log.message("p1", None, "user", ("text", "Say nothing", None))
    log.message("p2", "p1", "user", ("text", "And now?", None))
    log.message("a2", "p2", "assistant", ("text", "Now I do", None))
    log.insert("threads", id="A", tip_message_hash="a2")
    log.turn("t1", "A", "p1", "p1", 1, input_tokens=10, output_tokens=0)
    log.turn("t2", "A", "p2", "a2", 5, input_tokens=20, output_tokens=3)
    [draft], problems = log.read()

    assert not problems
    assert [run.input for run in draft.runs] == ["Say nothing", "And now?"]
    prompt, answer = draft.runs[0].messages
    assert (answer.role, answer.content, answer.model, answer.usage.input_tokens) == ("assistant", None, "m", 10)
    assert (prompt.created_at.second, draft.runs[0].duration_s) == (1, 0.5)


def test_a_turn_of_several_messages(log):
    """Tools that the provider runs: all messages have the turn's model and time, the last one its usage."""
    log.message("p", None, "user", ("text", "Search", None))
    call = {"name": "web", "arguments": {"q": "x"}, "tool_call_id": "s1", "server_executed": True}
    log.message("a1", "p", "assistant", ("tool_call", None, call))
    log.message("r", "a1", "tool", ("tool_result", None, {"name": "web", "output": "hit", "tool_call_id": "s1"}))
    log.message("a2", "r", "assistant", ("text", "It is so", None))
    log.insert("threads", id="A", tip_message_hash="a2")
    log.turn("t1", "A", "p", "a2", 3, input_tokens=100, output_tokens=20)
    [draft], _ = log.read()
    messages = draft.runs[0].messages

    assert [m.created_at.second for m in messages] == [3, 3, 3, 3]
    assert [m.model for m in messages] == [None, "m", None, "m"]
    assert [m.usage and m.usage.input_tokens for m in messages] == [None, None, None, 100]


def test_a_fork_of_a_thread_without_turns(log):
    """Messages that a client stored itself: the fork shares them, the thread's own time is that of the session."""
    log.message("p1", None, "user", ("text", "Hello", None))
    log.message("a1", "p1", "assistant", ("text", "Hi", None))
    for name, text in (("p2", "One way"), ("q2", "Other way")):
        log.message(name, "a1", "user", ("text", text, None))
    log.insert("threads", id="A", tip_message_hash="p2", datetime_utc="2026-09-01T08:00:00+00:00")
    log.insert("threads", id="B", tip_message_hash="q2", forked_from="A")
    log.insert("threads", id="C", tip_message_hash="a1")
    main, fork, other = log.read()[0]

    assert main.keys[0] == fork.keys[0]
    assert set(main.keys[0]).isdisjoint(other.keys[0])
    assert (main.session.created_at, fork.session.created_at) == (1788249600, None)


def test_attachments_of_results_are_no_prompt(log):
    """llm sends what a tool attaches in a user message after the results."""
    log.insert("attachments", id="i1", type="image/png", content=b"PNG")
    image = ("attachment", None, {"attachment": {"id": "i1"}})
    log.message("p", None, "user", ("text", "Draw", None))
    log.message("a1", "p", "assistant", ("tool_call", None, {"name": "draw", "arguments": {}, "tool_call_id": "c"}))
    log.message("r", "a1", "tool", ("tool_result", None, {"name": "draw", "output": "ok", "tool_call_id": "c"}))
    log.message("u", "r", "user", image)
    log.message("a2", "u", "assistant", ("text", "Seen", None))
    log.message("p2", "a2", "user", image)
    log.insert("threads", id="A", tip_message_hash="p2")
    [draft], _ = log.read()

    assert [[m.role for m in run.messages] for run in draft.runs] == [
        ["user", "assistant", "tool", "user", "assistant"],
        ["user"],
    ]


def test_attachments_of_older_results(log):
    script = "CREATE TABLE tool_results_attachments (tool_result_id INTEGER, attachment_id TEXT, 'order' INTEGER)"
    log.connection.executescript(script)
    log.insert("responses", id="r1", prompt="Draw", response="Done", conversation_id="c1")
    log.insert("tool_results", id=5, response_id="r1", name="draw", output="drawn", tool_call_id="x")
    log.insert("attachments", id="i1", type="image/png", content=b"PNG")
    log.insert("tool_results_attachments", tool_result_id=5, attachment_id="i1", order=0)
    log.insert("responses", id="r2", prompt="", response="Seen", conversation_id="c1")
    log.insert("tool_results", id=6, response_id="r2", name="draw", output="drawn", tool_call_id="y")
    log.insert("prompt_attachments", response_id="r2", attachment_id="i1", order=0)
    [draft], _ = log.read()

    assert [len(run.messages) for run in draft.runs] == [6], "attachments of results are no prompt"
    result = draft.runs[0].messages[0]
    assert result.extra["attachments"] == [{"type": "image", "id": "i1", "mime_type": "image/png", "data": "UE5H"}]


def test_wrong_values_and_torn_files(log, tmp_path):
    """Reading never fails; what is intact is imported."""
    record_thread(log)
    record_conversation(log)
    log.connection.close()
    intact, rng, counts = log.path.read_bytes(), random.Random(3), []
    for _ in range(60):
        log.path.write_bytes(intact)
        log.connection = sqlite3.connect(log.path, isolation_level=None)
        table = rng.choice(["messages", "parts", "threads", "turns", "responses", "tool_calls", "tool_results"])
        column = rng.choice([row[1] for row in log.connection.execute(f"PRAGMA table_info({table})")])
        value = rng.choice([None, 5, -1.5, "", "x", b"\xff", '{"x": [', "[1]", '{"arguments": 1, "output": [1]}', "a3"])
        with contextlib.suppress(sqlite3.IntegrityError):
            log.connection.execute(f'UPDATE OR IGNORE {table} SET "{column}" = ?', [value])
        counts.append(len(log.read()[0]))
        log.connection.close()
    assert min(counts) >= 1
    for data in truncated(intact, 50):
        (tmp_path / "torn.db").write_bytes(data)
        list(Llm().read(Source(tmp_path / "torn.db", "torn.db")))


def test_a_second_import_stores_nothing(log, tmp_path):
    record_thread(log)
    record_conversation(log)
    store = SqliteDb(tmp_path / "s.db")
    first, second = (store.ingest(log.path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.tool_calls, len(first.errors)) == (3, 4, 3, 0)
    assert (second.sessions, second.runs, second.messages, second.skipped) == (0, 0, 0, 3)


def test_sample(shared_data, tmp_path):
    """The frames have the figures of the sample."""
    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())["llm/logs.db"]
    store = SqliteDb(tmp_path / "s.db")
    report = store.ingest(shared_data / "llm" / "logs.db", progress=False)
    sessions, messages, calls = store.sessions_df(), store.messages_df(), store.tool_calls_df()

    assert not report.errors
    assert sorted(sessions["session_id"]) == sorted(expected["session_ids"])
    assert report.runs == expected["runs"]
    assert messages["role"].value_counts().to_dict() == expected["messages_by_role"]
    assert len(calls) == expected["tool_calls"]
    runs = [run for session_id in sessions["session_id"] for run in store.get_session(session_id).runs]
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"):
        usages = [m.usage for run in runs for m in run.messages if m.usage]
        assert sum(getattr(usage, name) for usage in usages) == expected[name]
    assert messages["created_at"].min().isoformat() == expected["first_ts"]
    assert messages["created_at"].max().isoformat() == expected["last_ts"]
    assert messages["model"].value_counts().to_dict() == expected["models"]
