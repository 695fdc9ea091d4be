"""Checkpoints of LangGraph: forks, removals, nested graphs and states are read, and nothing in them is constructed."""

from __future__ import annotations

import json
import random
import sqlite3

import pytest

from kern_nb.db import SqliteDb
from kern_nb.ingest.importer import Draft, Membership
from kern_nb.ingest.importers.langgraph import LangGraph
from kern_nb.ingest.importers.langgraph.msgpack import MalformedRecord, unpack
from kern_nb.ingest.source import Source
from tests.ingest.importers.msgpack_writer import Ext, message, pack
from tests.ingest.importers.mutations import truncated

USAGE = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "input_token_details": {"cache_read": 4}}
CALL = {"name": "weigh", "args": {"item": "crate"}, "id": "c1", "type": "tool_call"}


class Recorder:
    """A file of checkpoints, each a second after the one before."""

    def __init__(self, path):
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute(
            "CREATE TABLE checkpoints (thread_id TEXT, checkpoint_ns TEXT, checkpoint_id TEXT,"
            " parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB)"
        )
        self.connection.execute(
            "CREATE TABLE writes (thread_id TEXT, checkpoint_ns TEXT, checkpoint_id TEXT, task_id TEXT, task_path TEXT,"
            " idx INTEGER, channel TEXT, type TEXT, value BLOB)"
        )
        self.count = 0

    def add(
        self, source, step, messages=None, parent="last", thread="t", ns="", kind="msgpack", metadata=None, **state
    ):
        self.count += 1
        name = f"{self.count:04}"
        parent = (f"{self.count - 1:04}" if self.count > 1 else None) if parent == "last" else parent
        channels = state if messages is None else {"messages": messages, **state}
        checkpoint = {"v": 4, "ts": f"2026-03-01T10:00:{self.count:02}+00:00", "id": name, "channel_values": channels}
        checkpoint["versions_seen"] = {"node": {"messages": 1}}
        checkpoint["channel_versions"] = dict.fromkeys(channels, "1")
        data = json.dumps(checkpoint).encode() if kind == "json" else pack(checkpoint)
        stated = json.dumps({"source": source, "step": step, "parents": {}, **(metadata or {})})
        row = (thread, ns, name, parent, kind, data, stated.encode())
        self.connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return name

    def write(self, checkpoint, channel, value, task="task", thread="t", ns=""):
        row = (thread, ns, checkpoint, task, "", 0, channel, "msgpack", pack(value))
        self.connection.execute("INSERT INTO writes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def read(self):
        source = Source(self.path, self.path.name)
        assert LangGraph().recognizes(source)
        items = list(LangGraph().read(source))
        return [item for item in items if isinstance(item, Draft)], [
            i.reason for i in items if not isinstance(i, Draft)
        ]


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "checkpoints.sqlite")


HUMAN = message("human", "How heavy is the crate?", "h1")
ANSWER = message("ai", "", "a1", tool_calls=[CALL], usage_metadata=USAGE, response_metadata={"model_name": "m-1"})
RESULT = message("tool", "40 kg", "r1", tool_call_id="c1", name="weigh", status="success")
FINAL = message("ai", "It weighs 40 kg.", "a2")


def record_turn(recorder):
    recorder.add("input", -1, __start__={"messages": [message("human", "How heavy is the crate?")]}, parent=None)
    recorder.add("loop", 0, [HUMAN], **{"branch:to:model": None})
    recorder.add("loop", 1, [HUMAN, ANSWER])
    recorder.add("loop", 2, [HUMAN, ANSWER, RESULT])
    return recorder.add(
        "loop", 3, [HUMAN, ANSWER, RESULT, FINAL], topic="freight", seen=Ext(0, ["builtins", "set", [1]])
    )


def texts(draft):
    return [[m.content for m in run.messages] for run in draft.runs]


def test_a_turn_has_messages_calls_usage_and_state(recorder):
    record_turn(recorder)
    [draft], problems = recorder.read()
    [run] = draft.runs

    assert not problems
    assert (draft.session_id, draft.session.agent_id) == ("t", "langgraph")
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert [m.created_at.second for m in run.messages] == [1, 3, 4, 5], "a prompt has the time of the input"
    [call] = run.messages[1].tool_calls
    assert (call.tool_name, call.args, call.status) == ("weigh", {"item": "crate"}, "completed")
    usage = run.messages[1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (9, 2, 4)
    assert (run.model, run.status, run.output) == ("m-1", "COMPLETED", "It weighs 40 kg.")
    assert draft.session.session_state == run.session_state == {"topic": "freight", "seen": [1]}


def test_a_fork_is_a_further_draft_of_the_thread(recorder):
    last = record_turn(recorder)
    before = [HUMAN, ANSWER, RESULT, FINAL]
    old, new = message("human", "And the box?", "h2"), message("human", "And the barrel?", "h3")
    side = recorder.add("input", 4, before, parent=last)
    recorder.add("loop", 5, [*before, old], parent=side)
    recorder.add("input", 4, before, parent=last)
    recorder.add("loop", 5, [*before, new])
    main, branch = recorder.read()[0]

    assert [main.session_id, branch.session_id] == ["t", "t"]
    assert [main.runs[1].input, branch.runs[1].input] == ["And the barrel?", "And the box?"]
    assert main.keys[0] == branch.keys[0]
    assert main.keys[1] != branch.keys[1]
    assert main.has_record_ids


def test_one_message_in_two_threads_belongs_to_both(recorder, tmp_path):
    """LangGraph sets the id on the program's own object, which it may pass again."""
    for thread, answer in (("t", "Yes"), ("u", "No")):
        recorder.add("input", -1, parent=None, thread=thread)
        recorder.add("loop", 0, [HUMAN], thread=thread)
        recorder.add("loop", 1, [HUMAN, message("ai", answer, f"a-{thread}")], thread=thread)
    store = SqliteDb(tmp_path / "s.db")
    report = store.ingest(recorder.path, progress=False)

    assert (report.sessions, report.messages) == (2, 4)
    assert store.sessions_df()["parent_session_id"].isna().all()


def test_removed_messages_stay_and_a_summary_is_no_run(recorder):
    record_turn(recorder)
    second = message("human", "Thanks", "h2")
    recorder.add("input", 4, [HUMAN, ANSWER, RESULT, FINAL])
    recorder.add("loop", 5, [HUMAN, ANSWER, RESULT, FINAL, second])
    summary = message("human", "Summary: a crate of 40 kg.", "s1")
    recorder.add("loop", 6, [summary, second])
    recorder.add("loop", 7, [summary, second, message("ai", "Welcome", "a3")])
    [draft], _ = recorder.read()

    assert [run.input for run in draft.runs] == ["How heavy is the crate?", "Thanks"]
    assert texts(draft)[1] == ["Thanks", "Summary: a crate of 40 kg.", "Welcome"]
    assert draft.runs[1].messages[1].extra["compaction"] is True


def test_an_edited_message_occurs_once(recorder):
    recorder.add("input", -1, parent=None)
    recorder.add("loop", 0, [message("human", "Hi", "h1")])
    recorder.add("loop", 1, [message("human", "Hi", "h1"), message("ai", "Draft", "a1")])
    recorder.add("update", 2, [message("human", "Hi", "h1"), message("ai", "Final", "a1")])
    [draft], _ = recorder.read()

    assert texts(draft) == [["Hi", "Final"]]
    assert draft.runs[0].messages[1].extra["replaced_content"] == ["Draft"]


def test_nested_graphs_are_members_with_their_own_messages_only(recorder):
    record_turn(recorder)
    recorder.write("0003", "messages", [RESULT], task="task-7")
    ns = "tools:task-7"
    recorder.add("input", -1, [HUMAN], parent=None, ns=ns)
    own = [HUMAN, message("human", "Weigh it", "n1"), message("ai", "40", "n2", usage_metadata=USAGE)]
    recorder.add("loop", 0, own[:2], ns=ns)
    recorder.add("loop", 1, own, ns=ns)
    recorder.add("loop", 1, [HUMAN, ANSWER], parent=None, ns="copy:task-8")
    main, nested = recorder.read()[0]

    assert main.membership is None
    assert nested.session_id == f"t/{ns}"
    assert nested.membership == Membership("t", "c1")
    assert texts(nested) == [["Weigh it", "40"]]


def test_status_follows_errors_and_interrupts(recorder):
    recorder.add("input", -1, parent=None)
    failed = recorder.add("loop", 0, [HUMAN])
    recorder.write(failed, "__error__", "ValueError('no scale')")
    recorder.write(failed, "messages", [message("ai", "Trying", None)], task="other")
    recorder.add("input", -1, parent=None, thread="u")
    paused = recorder.add("loop", 0, [HUMAN], thread="u")
    recorder.write(paused, "__interrupt__", [{"value": "Really?"}], thread="u")
    error, pause = recorder.read()[0]

    assert (error.runs[0].status, error.runs[0].error) == ("ERROR", "ValueError('no scale')")
    assert texts(error) == [["How heavy is the crate?"]]
    [pending] = error.runs[0].extra["pending_messages"]
    assert pending["content"] == "Trying", "a parallel task's result is kept"
    assert pause.runs[0].status == "INTERRUPTED"


def test_an_unfinished_step_that_goes_on_is_no_branch(recorder, tmp_path):
    """A parallel task's message has no id and another place before the step ends: the thread is imported meanwhile."""
    store = SqliteDb(tmp_path / "s.db")
    recorder.add("input", -1, parent=None)
    failed = recorder.add("loop", 0, [HUMAN])
    recorder.write(failed, "__error__", "ValueError('no scale')", task="slow")
    recorder.write(failed, "messages", [message("ai", "Fast", None)], task="fast")
    store.ingest(recorder.path)
    assert store.get_session("t").runs[0].status == "ERROR"
    both = [HUMAN, message("ai", "Slow", "m1"), message("ai", "Fast", "m2")]
    recorder.write(failed, "messages", [message("ai", "Slow", None)], task="slow")
    recorder.add("loop", 1, both)
    report = store.ingest(recorder.path)

    assert (report.sessions, report.errors) == (0, [])
    [session] = store.list_sessions()
    [run] = store.get_session(session.session_id).runs
    assert (run.status, run.error, run.extra) == ("COMPLETED", None, {})
    assert [m.content for m in run.messages] == ["How heavy is the crate?", "Slow", "Fast"]


def test_nested_graphs_are_in_the_order_of_time(recorder):
    """Two runs whose calls have one id: which of them started a nested graph follows from the time."""
    start = record_turn(recorder)
    again = [message("human", "And now?", "h2"), message("ai", "", "a3", tool_calls=[CALL])]
    recorder.write(start, "messages", [message("tool", "1", "r2", tool_call_id="c1")], task="z")
    recorder.add("loop", 0, [message("human", "First", "n1")], parent=None, ns="tools:z")
    recorder.add("input", 4, [HUMAN, ANSWER, RESULT, FINAL], parent=start)
    recorder.add("loop", 5, [HUMAN, ANSWER, RESULT, FINAL, *again])
    recorder.add("loop", 0, [message("human", "Second", "n2")], parent=None, ns="tools:a")
    drafts, _ = recorder.read()

    assert [draft.session_id for draft in drafts] == ["t", "t/tools:z", "t/tools:a"]
    assert [draft.membership for draft in drafts[1:]] == [Membership("t"), Membership("t")]


def test_what_an_entrypoint_saves_and_a_single_checkpoint(recorder):
    """The functional API keeps messages in the value it saves; the state after a whole run has no duration."""
    recorder.add("input", -1, parent=None, __start__=[message("human", "How heavy is the crate?")])
    recorder.add("loop", 0, __previous__=[HUMAN, FINAL], __end__=FINAL)
    recorder.add("loop", 3, [HUMAN, FINAL], parent=None, thread="u")
    saved, single = recorder.read()[0]

    assert texts(saved) == texts(single) == [["How heavy is the crate?", "It weighs 40 kg."]]
    assert (saved.runs[0].duration_s, single.runs[0].duration_s) == (1.0, None)


def test_an_input_that_no_step_took_up(recorder):
    recorder.add("input", -1, parent=None, __start__={"messages": [["user", "Hello?"]]})
    drafts, problems = recorder.read()

    assert [texts(draft) for draft in drafts] == [[["Hello?"]]]
    assert not problems


def test_messages_without_ids_and_json_states(recorder):
    """In another channel, as plain dicts, repeated: occurrences keep them apart."""
    same = [{"role": "user", "content": "Again"}, {"role": "assistant", "content": "Yes"}]
    recorder.add("input", -1, parent=None, kind="json")
    recorder.add("loop", 0, history=same, kind="json")
    recorder.add("input", 1, history=same, kind="json")
    recorder.add("loop", 2, history=same * 2, kind="json")
    constructor = {"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": "JS"}}
    recorder.add("loop", 0, [constructor], kind="json", thread="js", parent=None)
    js, plain = recorder.read()[0]

    assert texts(plain) == [["Again", "Yes"], ["Again", "Yes"]]
    assert len({key for keys in plain.keys for key in keys}) == 4
    assert texts(js) == [["JS"]]


def test_a_delta_channel_is_replayed(recorder):
    """A state without the channel has its parent's messages and what was written since."""
    recorder.add("loop", 0, Ext(7, [HUMAN]), parent=None)
    recorder.write("0001", "messages", [message("ai", "40 kg", "a1")])
    checkpoint = {"ts": "2026-03-01T10:00:02+00:00", "channel_values": {}, "channel_versions": {"messages": "2"}}
    row = ("t", "", "0002", "0001", "msgpack", pack(checkpoint), b'{"source": "loop", "step": 1}')
    recorder.connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    assert [texts(draft) for draft in recorder.read()[0]] == [[["How heavy is the crate?", "40 kg"]]]


@pytest.mark.parametrize(("kind", "reason"), [("pickle", "pickle"), ("msgpack+aes", "encrypted"), ("new", "'new'")])
def test_states_that_are_not_read_are_reported_by_name(recorder, kind, reason):
    record_turn(recorder)
    recorder.add("loop", 4, [HUMAN], kind=kind)
    drafts, problems = recorder.read()

    assert len(drafts) == 1, "the states before are imported"
    assert len(problems) == 1
    assert reason in problems[0]
    assert "'t'" in problems[0]


def test_extensions_are_values():
    assert unpack(pack(Ext(3, ["datetime", "datetime", "2026-01-01", "fromisoformat"]))) == "2026-01-01"
    assert unpack(pack(Ext(1, ["os", "system", ["rm"]]))) == ["rm"], "nothing is called"
    assert unpack(pack(Ext(6, ["<f8", [2], "C", b"xx"]))) == {"numpy": ["<f8", [2]]}
    assert unpack(pack({"b": b"\x00", "n": -7, "f": 0.5, "l": list(range(20))}))["b"] == {"base64": "AA=="}
    with pytest.raises(MalformedRecord, match="nested"):
        unpack(b"\x91" * 5000 + b"\xc0")
    with pytest.raises(MalformedRecord, match="msgpack"):
        unpack(b"\xdb\x00\x00\x00\xffabc")


def test_damaged_values_are_reported_or_ignored(recorder):
    record_turn(recorder)
    rows = recorder.connection.execute("SELECT checkpoint_id, checkpoint FROM checkpoints").fetchall()
    rng = random.Random(1)
    for _ in range(60):
        name, blob = rng.choice(rows)
        damaged = bytearray(blob)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        for version in (bytes(damaged), *truncated(blob, 1, rng.randrange(10**6)), None, "text", 5):
            recorder.connection.execute(
                "UPDATE checkpoints SET checkpoint = ? WHERE checkpoint_id = ?", [version, name]
            )
            recorder.read()
        recorder.connection.execute("UPDATE checkpoints SET checkpoint = ? WHERE checkpoint_id = ?", [blob, name])


def test_a_damaged_file_is_a_problem(recorder, tmp_path):
    record_turn(recorder)
    recorder.connection.close()
    for data in truncated(recorder.path.read_bytes(), 50):
        (tmp_path / "torn.sqlite").write_bytes(data)
        source = Source(tmp_path / "torn.sqlite", "torn.sqlite")
        list(LangGraph().read(source))


def test_a_second_import_stores_nothing(recorder, tmp_path):
    record_turn(recorder)
    store = SqliteDb(tmp_path / "s.db")
    first, second = (store.ingest(recorder.path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages, first.tool_calls) == (1, 1, 4, 1)
    assert (second.sessions, second.runs, second.messages, second.skipped) == (0, 0, 0, 1)


def test_sample_in_a_store(shared_data, tmp_path):
    """The branch has its own messages; its prefix is stored and counted once."""
    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())["langgraph/checkpoints.sqlite"]
    store = SqliteDb(tmp_path / "s.db")
    reports = [store.ingest(shared_data / "langgraph" / "checkpoints.sqlite", progress=False) for _ in range(2)]
    sessions, messages = store.sessions_df(), store.messages_df()

    assert not reports[0].errors
    assert reports[1].messages == 0
    assert (reports[0].runs, len(messages)) == (expected["runs"], expected["messages"])
    assert sessions["input_tokens"].sum() == expected["input_tokens"]
    assert sessions["output_tokens"].sum() == expected["output_tokens"]
    assert sessions["parent_session_id"].dropna().tolist() == ["t1"]


def test_sample(shared_data):
    """The union of the drafts has the figures of the sample."""
    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())["langgraph/checkpoints.sqlite"]
    drafts = [
        item
        for item in LangGraph().read(Source(shared_data / "langgraph" / "checkpoints.sqlite", "checkpoints.sqlite"))
        if isinstance(item, Draft)
    ]
    pairs = [
        pair for d in drafts for r, ks in zip(d.runs, d.keys, strict=True) for pair in zip(ks, r.messages, strict=True)
    ]
    messages = dict(pairs).values()
    usages = [m.usage for m in messages if m.usage]

    assert len({d.session_id for d in drafts}) == expected["sessions"]
    assert len({keys[0] for d in drafts for keys in d.keys}) == expected["runs"]
    assert len(messages) == expected["messages"]
    assert len([m for d in drafts[:1] for r in d.runs for m in r.messages]) == 8
    assert sum(len(m.tool_calls) for m in messages) == expected["tool_calls"]
    assert sum(u.input_tokens for u in usages) == expected["input_tokens"]
    assert sum(u.output_tokens for u in usages) == expected["output_tokens"]
    assert min(m.created_at for m in messages).isoformat() == expected["first_ts"]
    assert max(m.created_at for m in messages).isoformat() == expected["last_ts"]
    assert {m.model for m in messages if m.role == "assistant"} == {"mock-model", None}
