"""Rollouts of the Codex CLI, of all generations: turns, usage, failures, rollbacks, compactions, forks, nested agents."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

PARENT, FORK = "01a10000-0000-7000-8000-000000000001", "01a10000-9000-7000-8000-000000000002"
TURN_1, TURN_2 = "01a10000-0001-7000-8000-00000000000a", "01a10000-0002-7000-8000-00000000000b"
TURN_3 = "01a10000-9001-7000-8000-00000000000c"


def line(kind, payload, second=0, **more):
    return {"timestamp": f"2026-01-02T03:04:{second:02d}.000Z", "type": kind, "payload": payload, **more}


def meta(thread=PARENT, **more):
    payload = {"id": thread, "timestamp": "2026-01-02T03:04:00Z", "cwd": "/w", "model_provider": "p", **more}
    return line("session_meta", payload)


def text(role, words):
    kind = "output_text" if role == "assistant" else "input_text"
    return line("response_item", {"type": "message", "role": role, "content": [{"type": kind, "text": words}]}, 1)


def call(name="shell", call_id="c1", arguments='{"x": 1}'):
    return line("response_item", {"type": "function_call", "name": name, "arguments": arguments, "call_id": call_id}, 2)


def output(value, call_id="c1"):
    return line("response_item", {"type": "function_call_output", "call_id": call_id, "output": value}, 3)


def event(kind, **more):
    return line("event_msg", {"type": kind, **more}, 4)


def tokens(total, last):
    counts = [
        {"input_tokens": n, "cached_input_tokens": 1, "output_tokens": 2, "total_tokens": n + 2} for n in (total, last)
    ]
    return event("token_count", info={"total_token_usage": counts[0], "last_token_usage": counts[1]})


def turn(turn_id, *records):
    return [
        event("task_started", turn_id=turn_id, started_at=1767323040),
        line("turn_context", {"turn_id": turn_id, "model": "m1"}),
        *records,
        event("task_complete", turn_id=turn_id, duration_ms=1500, time_to_first_token_ms=250),
    ]


def read(tmp_path, records, name="rollout-x.jsonl"):
    from kern_nb.ingest.importer import Draft
    from kern_nb.ingest.importers.codex import Codex
    from kern_nb.ingest.source import Source

    path = tmp_path / name
    data = records if isinstance(records, bytes) else "".join(json.dumps(r) + "\n" for r in records).encode()
    path.write_bytes(data)
    source = Source(path, name)
    importer = Codex()
    assert isinstance(importer.recognizes(source), bool)
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if not isinstance(i, Draft)]


def roles(draft):
    return [[message.role for message in run.messages] for run in draft.runs]


def inputs(draft):
    return [run.input for run in draft.runs]


def totals(draft):
    from kern_nb.records import Usage

    return Usage.total(message.usage for run in draft.runs for message in run.messages)


def test_a_turn_is_a_run_with_the_times_that_its_events_state(tmp_path):
    environment = text("user", "<environment_context>a</environment_context>")
    first = turn(TURN_1, environment, text("user", "one"), call(), tokens(10, 10), output("ok"), tokens(10, 10))
    first[-1:-1] = [text("assistant", "done"), tokens(30, 20)]
    [draft], problems = read(tmp_path, [meta(), *first, *turn(TURN_2, tokens(30, 20), text("user", "two"))])
    assert problems == []
    assert roles(draft) == [["user", "user", "assistant", "tool", "assistant"], ["user"]]
    assert inputs(draft) == ["one", "two"]
    assert (draft.runs[0].duration_s, draft.runs[0].time_to_first_token_s, draft.runs[0].model) == (1.5, 0.25, "m1")
    assert (totals(draft).input_tokens, totals(draft).output_tokens, totals(draft).cache_read_tokens) == (30, 4, 2)
    assert draft.session.session_id == PARENT
    assert draft.session.metadata["cwd"] == "/w"


def test_usage_that_precedes_its_answer_and_restarts_is_counted_once(tmp_path):
    records = [
        meta(), text("user", "one"), tokens(10, 10), call(), output("ok"), tokens(10, 10), tokens(30, 20),
        text("assistant", "a"), text("user", "two"), event("token_count", info=None), tokens(5, 5), text("assistant", "b"),
    ]  # fmt: skip
    [draft], _ = read(tmp_path, records)
    usages = [m.usage.input_tokens for run in draft.runs for m in run.messages if m.usage]
    assert usages == [10, 20, 5]
    assert inputs(draft) == ["one", "two"]


def test_a_usage_record_replaces_the_events(tmp_path):
    counts = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "cached_input_tokens": 1}
    usage = line("token_usage_record", {"response_id": "r", "usage": counts, "thread_token_usage": counts})
    [draft], _ = read(
        tmp_path, [meta(), *turn(TURN_1, text("user", "one"), text("assistant", "a"), usage, usage, tokens(7, 7))]
    )
    assert totals(draft).input_tokens == 7


@pytest.mark.parametrize(
    ("result", "is_error", "content"),
    [
        ("Wall time: 1\nProcess exited with code 2\nOutput:\nno", True, None),
        ("Exit code: 0\nWall time: 1\nOutput:\nExit code: 3", False, None),
        (json.dumps({"output": "no", "metadata": {"exit_code": 1, "duration_seconds": 0.5}}), True, "no"),
        ("plain", None, "plain"),
        ([{"type": "input_text", "text": "part"}], None, "part"),
        ({"content": "no", "success": False}, True, "no"),
    ],
)
def test_a_call_failed_if_its_exit_code_says_so(tmp_path, result, is_error, content):
    [draft], _ = read(tmp_path, [meta(), text("user", "one"), call(), output(result)])
    message = draft.runs[0].messages[-1]
    assert message.is_error is is_error
    assert message.content == (content or result)
    assert message.tool_name == "shell"


def test_events_state_the_outcome_of_calls(tmp_path):
    item = {"type": "CommandExecution", "id": "c1", "exit_code": 3, "duration": {"secs": 1, "nanos": 500_000_000}}
    records = [meta(), text("user", "one"), call(), call("patch", "c2", "not json"), output("x"), output("y", "c2")]
    records += [event("item_completed", item=item), event("patch_apply_end", call_id="c2", success=True)]
    [draft], _ = read(tmp_path, records)
    first, second = draft.runs[0].messages[1].tool_calls
    assert (first.status, first.duration_s, first.extra["exit_code"]) == ("failed", 1.5, 3)
    assert (second.status, second.args, second.extra["args_invalid"]) == ("completed", "not json", True)


def test_a_provider_call_has_no_output(tmp_path):
    search = {"type": "web_search_call", "id": "ws1", "status": "completed", "action": {"query": "q"}}
    [draft], _ = read(tmp_path, [meta(), text("user", "one"), line("response_item", search)])
    [search_call] = draft.runs[0].messages[-1].tool_calls
    assert (search_call.tool_name, search_call.status, search_call.args) == ("web_search", "completed", {"query": "q"})


def test_what_was_rolled_back_is_a_line_of_its_own(tmp_path):
    records = [meta(), *turn(TURN_1, text("user", "one"), text("assistant", "a"))]
    records += [*turn(TURN_2, text("user", "two")), event("thread_rolled_back", num_turns=1)]
    records += turn(TURN_3, text("user", "three"))
    drafts, _ = read(tmp_path, records)
    assert [inputs(draft) for draft in drafts] == [["one", "three"], ["one", "two"]]
    assert {draft.session_id for draft in drafts} == {PARENT}
    assert drafts[0].keys[0] == drafts[1].keys[0]
    assert drafts[0].keys[1] != drafts[1].keys[1]
    assert drafts[0].hashes[0] == drafts[1].hashes[0]


def test_a_compaction_is_no_run_and_its_usage_counts(tmp_path):
    summaries = [line("compacted", {"message": words}) for words in ("Prefix. We did A.", "")]
    records = [meta(), *turn(TURN_1, text("user", "one"), text("assistant", "a"), tokens(10, 10))]
    answers = ([], [text("assistant", "We did A.")])
    for answer, summary in ((answer, summary) for answer in answers for summary in summaries):
        [draft], _ = read(tmp_path, [*records, *turn(TURN_2, *answer, tokens(15, 5), summary)])
        assert inputs(draft) == ["one"]
        marked = [m for m in draft.runs[0].messages if m.extra.get("compaction")]
        assert len(marked) == 1
        assert marked[0].usage.input_tokens == 5


def test_a_fork_with_a_history_base_states_where_it_branches(tmp_path):
    base = {"thread_id": PARENT, "end_ordinal_exclusive": 12}
    records = [*[meta(FORK, history_base=base), *turn(TURN_3, text("user", "three"))]]
    [draft], _ = read(tmp_path, [record | {"ordinal": 12 + n} for n, record in enumerate(records)])
    assert draft.fork.session_id == PARENT
    [parent], _ = read(
        tmp_path, [r | {"ordinal": n} for n, r in enumerate([meta(), *turn(TURN_1, text("user", "one"))])]
    )
    assert all(key < draft.fork.before_key for keys in parent.keys for key in keys)
    assert all(key > draft.fork.before_key for keys in draft.keys for key in keys)


def test_a_fork_that_repeats_its_parent_has_the_keys_of_the_parent(tmp_path):
    shared = turn(TURN_1, text("user", "one"), call(), output("ok"), text("assistant", "a"), tokens(10, 10))
    undone = [*turn(TURN_2, text("user", "two")), event("thread_rolled_back", num_turns=1)]
    parents, _ = read(tmp_path, [meta(), *shared, *undone])
    forks, _ = read(tmp_path, [meta(FORK), meta(), *shared, *undone, *turn(TURN_3, text("user", "three"))])
    assert len(parents) == 2
    assert len(forks) == 1  # the line that was rolled back is the parent's
    assert forks[0].has_record_ids
    assert forks[0].keys[0] == parents[0].keys[0]
    assert forks[0].hashes[0] == parents[0].hashes[0]


def test_old_forks_without_turns_have_equal_keys_until_they_differ(tmp_path):
    shared = [text("user", "one"), text("assistant", "a")]
    [parent], _ = read(tmp_path, [meta(), *shared, text("user", "two"), text("assistant", "b")])
    [fork], _ = read(tmp_path, [meta(FORK), meta(), *shared, text("user", "three"), text("assistant", "b")])
    assert fork.keys[0] == parent.keys[0]
    assert not set(fork.keys[1]) & set(parent.keys[1])


def test_a_nested_agent_is_a_member_without_what_it_repeats(tmp_path):
    source = {"subagent": {"thread_spawn": {"parent_thread_id": PARENT, "agent_path": "/root/a"}}}
    shared = turn(TURN_1, text("user", "one"), text("assistant", "a"), tokens(10, 10))
    own = turn(TURN_3, text("user", "task"), text("assistant", "b"), tokens(15, 5))
    [draft], _ = read(tmp_path, [meta(FORK, source=source), meta(), *shared, *own])
    assert draft.membership.session_id == PARENT
    assert draft.fork is None
    assert inputs(draft) == ["task"]
    assert totals(draft).input_tokens == 5


def test_the_status_of_an_interrupted_turn(tmp_path):
    aborted = [*turn(TURN_1, text("user", "one"))[:-1], event("turn_aborted", turn_id=TURN_1, reason="interrupted")]
    failed = turn(TURN_2, text("user", "two"), event("error", message="limit"))
    open_turn = turn(TURN_3, text("user", "three"))[:-1]
    [draft], _ = read(tmp_path, [meta(), *aborted, *failed, *open_turn])
    assert [run.status for run in draft.runs] == ["CANCELLED", "ERROR", "INTERRUPTED"]
    assert [run.error for run in draft.runs] == ["interrupted", "limit", None]


def test_files_without_an_envelope(tmp_path):
    header = {"id": PARENT, "timestamp": "2025-05-06T07:08:09Z", "instructions": "Be brief."}
    items = [r["payload"] for r in (text("user", "one"), call(), output('{"output":"x","metadata":{"exit_code":0}}'))]
    [lines], problems = read(tmp_path, [header, {"record_type": "state"}, *items])
    document = json.dumps({"session": header, "items": items}, indent=2).encode()
    [whole], _ = read(tmp_path, document, "rollout-x.json")
    assert problems == []
    for draft in (lines, whole):
        assert roles(draft) == [["user", "assistant", "tool"]]
        assert draft.session_id == PARENT
        assert draft.session.created_at == 1746515289
        assert draft.runs[0].messages[-1].is_error is False


def test_neighbouring_layouts_are_not_recognized(tmp_path):
    from kern_nb.ingest.importers.codex import Codex
    from kern_nb.ingest.source import Source

    others = (
        {"type": "session", "id": "x", "timestamp": "2026-01-01T00:00:00Z", "cwd": "/"},
        {"type": "message", "role": "user", "content": "hi"},
        {"id": "a", "timestamp": "2026-01-01T00:00:00Z"},
        {"type": "user", "uuid": "u", "message": {"role": "user", "content": "hi"}},
        {"items": [{"type": "message", "role": "user", "content": "x"}]},
    )
    for number, record in enumerate(others):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(record) + "\n")
        assert not Codex().recognizes(Source(path, path.name)), record


def test_the_title_is_that_of_the_index(tmp_path):
    folder = tmp_path / "sessions" / "2026"
    folder.mkdir(parents=True)
    (tmp_path / "session_index.jsonl").write_text(json.dumps({"id": PARENT, "thread_name": "Lint"}) + "\n")
    [draft], _ = read(folder, [meta(), text("user", "one")])
    assert draft.session.session_name == "Lint"


def test_damaged_files_raise_nothing_and_keep_intact_records(tmp_path):
    source = {"subagent": {"thread_spawn": {"parent_thread_id": PARENT}}}
    records = [
        meta(FORK, source=source),
        meta(),
        *turn(TURN_1, text("user", "one"), call(), output("ok"), tokens(10, 10)),
    ]
    records += [line("compacted", {"message": "s"}), event("thread_rolled_back", num_turns=1)]
    records += turn(TURN_3, text("user", "two"), event("item_completed", item={"id": "c1", "exit_code": 1}))
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(tmp_path, damaged)
    for changed in mistyped(records, 80):
        read(tmp_path, "".join(json.dumps(record) + "\n" for record in changed).encode())
    [draft, *_], problems = read(tmp_path, [meta(), {"type": "event_msg", "payload": {}}, text("user", "one")])
    assert inputs(draft) == ["one"]
    assert [(problem.line, problem.reason) for problem in problems] == [
        (2, "The record is not imported: the event has no type.")
    ]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def stored(store):
    """The inputs of the runs of each session, inherited ones included, by the session's id."""
    names = store.sessions_df()["session_id"]
    runs = {name: [run for run in store.get_session(name).runs if run.parent_run_id is None] for name in names}
    return {name: [run.input for run in own] for name, own in runs.items()}


def test_forks_rollbacks_and_nested_agents_are_stored_once(tmp_path):
    from kern_nb.db import SqliteDb

    shared = turn(TURN_1, text("user", "one"), text("assistant", "a"), tokens(10, 10))
    undone = [*turn(TURN_2, text("user", "two"), tokens(15, 5)), event("thread_rolled_back", num_turns=1)]
    own = turn(TURN_3, text("user", "three"), tokens(30, 15))
    source = {"subagent": {"thread_spawn": {"parent_thread_id": PARENT}}}
    folder = tmp_path / "sessions"
    write(
        folder / "1.jsonl", [meta(), *shared, *undone, *turn("01a10000-0003-7000-8000-000000000001", text("user", "x"))]
    )
    write(folder / "2.jsonl", [meta(FORK), meta(), *shared, *undone, *own])
    nested = turn("01a10000-a001-7000-8000-00000000000d", text("user", "task"), text("assistant", "b"))
    write(folder / "3.jsonl", [meta("01a10000-a000-7000-8000-000000000003", source=source), *nested])
    store = SqliteDb(tmp_path / "s.db")
    first = store.ingest(folder, progress=False)
    assert first.errors == []
    inputs_by_session = stored(store)
    assert inputs_by_session.pop(PARENT) == ["one", "x"]
    assert inputs_by_session.pop(FORK) == ["one", "three"]
    assert list(inputs_by_session.values()) == [["one", "two"]]
    assert store.sessions_df()["input_tokens"].sum() == 30
    assert len(store.runs_df().query("parent_run_id.notna()")) == 1
    again = store.ingest(folder, progress=False)
    assert (again.sessions, again.runs, again.messages, again.errors) == (0, 0, 0, [])


def test_a_rollback_of_the_first_turn_keeps_what_precedes_the_prompt(tmp_path):
    from kern_nb.db import SqliteDb

    undone = turn(TURN_1, text("developer", "rules"), text("user", "one"))
    records = [meta(), *undone, event("thread_rolled_back", num_turns=1), *turn(TURN_2, text("user", "two"))]
    drafts, _ = read(tmp_path, records)
    assert [(inputs(draft), roles(draft)) for draft in drafts] == [
        (["two"], [["developer", "user"]]),
        (["one"], [["developer", "user"]]),
    ]
    store = SqliteDb(tmp_path / "s.db")
    report = store.ingest(tmp_path / "rollout-x.jsonl", progress=False)
    assert (report.errors, report.sessions) == ([], 2)


def test_the_samples_have_the_expected_figures(shared_data, tmp_path):
    import pandas as pd

    from kern_nb.db import SqliteDb

    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    expected = expected.get("files", expected)
    for file in sorted((shared_data / "codex").glob("*.jsonl")):
        figures = expected[f"codex/{file.name}"]
        drafts, problems = read(tmp_path, file.read_bytes(), file.name)
        assert len(drafts) == 1
        assert problems == []
        [draft] = drafts
        assert [draft.session_id] == figures["session_ids"]
        assert inputs(draft) == figures["prompts"]
        messages = [message for run in draft.runs for message in run.messages]
        assert sum(m.role == "assistant" for m in messages) == figures["model_responses"]
        assert sum(m.role == "tool" for m in messages) == figures["tool_results"]
        assert sum(len(m.tool_calls) for m in messages) == figures["tool_calls"]
        assert sum(m.is_error is True for m in messages) == figures["failed_calls"]
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            assert getattr(totals(draft), name) == figures[name]
        assert {m.model for m in messages if m.model} == set(figures["models"])
        for branch in figures["branches"]:
            assert draft.fork.session_id == branch["parent"]
            assert int(draft.fork.before_key) == branch["end_ordinal_exclusive"]
        last = pd.Timestamp(figures["last_ts"])
        assert draft.session.updated_at == int(last.timestamp())
    store = SqliteDb(tmp_path / "s.db")
    first = store.ingest(shared_data / "codex", progress=False)
    assert first.errors == []
    assert first.sessions == 4
    forks = [session for session in store.list_sessions() if session.parent_session_id is not None]
    shown = [(session.session_id, session.parent_session_id, session.fork_run_index) for session in forks]
    assert shown == [
        (branch["session"], branch["parent"], branch["fork_run_index_0based"])
        for name, figures in expected.items()
        if name.startswith("codex/")
        for branch in figures["branches"]
    ]
    again = store.ingest(shared_data / "codex", progress=False)
    assert (again.sessions, again.runs, again.messages) == (0, 0, 0)


def test_rollouts_joined_to_one_file_are_sessions(tmp_path):
    records = [meta("t1"), text("user", "one"), tokens(10, 10), text("assistant", "A"), meta("t1")]
    records += [meta("t2"), text("user", "two"), text("assistant", "B"), tokens(10, 10)]
    drafts, problems = read(tmp_path, records)
    assert problems == []
    assert [(d.session_id, [run.input for run in d.runs]) for d in drafts] == [("t1", ["one"]), ("t2", ["two"])]
    assert [d.runs[0].messages[-1].usage.input_tokens for d in drafts] == [10, 10]


def test_titles_in_the_database_of_threads(tmp_path):
    import sqlite3

    import pyarrow as pa

    from kern_nb.db import SqliteDb

    write(tmp_path / "home" / "sessions" / "rollout-1.jsonl", [meta(), text("user", "one")])
    rollout = tmp_path / "home" / "sessions" / "rollout-1.jsonl"
    rollout.with_suffix(".jsonl.zst").write_bytes(pa.compress(rollout.read_bytes(), codec="zstd", asbytes=True))
    rollout.unlink()
    state = sqlite3.connect(tmp_path / "home" / "state_5.sqlite")
    state.execute("CREATE TABLE threads (id, title, name)")
    state.execute("INSERT INTO threads VALUES (?, 'one', NULL)", [PARENT])
    state.commit()
    with SqliteDb(tmp_path / "s.db") as store:
        report = store.ingest(tmp_path / "home", progress=False)
        assert (report.errors, list(store.sessions_df()["session_name"])) == ([], ["one"])
        state.execute("UPDATE threads SET name = 'Lint'")
        state.commit()
        store.ingest(tmp_path / "home", progress=False)
        assert list(store.sessions_df()["session_name"]) == ["Lint"]
    state.close()


def test_the_context_of_a_turn_is_kept(tmp_path):
    context = {"turn_id": TURN_1, "model": "m1", "effort": "high", "sandbox_policy": {"type": "read-only"}}
    records = [meta(), event("task_started", turn_id=TURN_1), line("turn_context", context), text("user", "one")]
    [draft], _ = read(tmp_path, records)
    assert draft.runs[0].extra["turn_context"] == {"effort": "high", "sandbox_policy": {"type": "read-only"}}


@pytest.mark.parametrize("result", ["aborted", "aborted by user after 2.3s", "Wall time: 2.3 seconds\naborted by user"])
def test_a_call_of_an_aborted_turn_failed(tmp_path, result):
    records = [meta(), text("user", "one"), call(), output(result), event("turn_aborted", reason="interrupted")]
    [draft], _ = read(tmp_path, records)
    assert (draft.runs[0].status, draft.runs[0].messages[1].tool_calls[0].status) == ("CANCELLED", "failed")
    [draft], _ = read(tmp_path, records[:-1])
    assert draft.runs[0].messages[1].tool_calls[0].status == "completed"
