"""Sessions of OpenCode, from its database, its export and its old folders: runs, usage, forks, reverts, nested agents."""

from __future__ import annotations

import json
import sqlite3

import pytest
from mutations import mistyped, torn, truncated

SESSION = "ses_a"


def user(number, *parts, **more):
    info = {
        "role": "user",
        "time": {"created": 1_767_000_000_000 + number},
        "id": f"msg_{number:03}",
        "summary": {"diffs": []},
    }
    return {"info": info | {"agent": "build"} | more, "parts": list(parts)}


def answer(number, parent, *parts, **more):
    created = 1_767_000_000_000 + number
    info = {
        "role": "assistant", "id": f"msg_{number:03}", "parentID": f"msg_{parent:03}", "modelID": "m1", "providerID": "p",
        "time": {"created": created, "completed": created + 500}, "cost": 0.25, "finish": "stop",
        "tokens": {"input": 10, "output": 3, "reasoning": 2, "cache": {"read": 100, "write": 7}},
    }  # fmt: skip
    return {"info": info | more, "parts": list(parts)}


def text(words, **more):
    return {"type": "text", "text": words, **more}


def tool(call_id, status="completed", **state):
    time = {"time": {"start": 1_767_000_000_000, "end": 1_767_000_001_500}} if status != "running" else {}
    return {
        "type": "tool",
        "tool": "bash",
        "callID": call_id,
        "state": {"status": status, "input": {"x": 1}, **time, **state},
    }


def export(*messages, session=SESSION, **info):
    time = {"created": 1_767_000_000_000, "updated": 1_767_000_900_000}
    base = {"id": session, "title": "Lint", "version": "1", "directory": "/w", "time": time}
    return {"info": base | info, "messages": list(messages)}


TALK = (
    user(1, text("one"), text("<file>", synthetic=True)),
    answer(
        2, 1, {"type": "step-start"}, {"type": "reasoning", "text": "hm"}, text("Let me see."), tool("c1", output="ok")
    ),
    answer(3, 1, text("Done."), {"type": "step-finish", "cost": 0.25, "tokens": {"input": 10, "output": 3}}),
    user(4, text("two")),
    answer(5, 4, text("Yes.")),
)


def read_path(path, name=None):
    from kern_nb.ingest.importer import Draft
    from kern_nb.ingest.importers.opencode import OpenCode
    from kern_nb.ingest.source import Source

    source = Source(path, name or path.name)
    importer = OpenCode()
    importer.recognizes(source)
    list(importer.companions(source))
    items = list(importer.read(source))
    return [i for i in items if isinstance(i, Draft)], [i for i in items if not isinstance(i, Draft)]


def read(tmp_path, value):
    path = tmp_path / "s.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value, indent=1).encode())
    return read_path(path)


def make_database(path, *exports):
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE session (id, project_id, parent_id, directory, title, version, revert, model, time_created,
                time_updated, cost);
            CREATE TABLE message (id, session_id, time_created, data);
            CREATE TABLE part (id, message_id, session_id, data);
        """)
        for value in exports:
            info = value["info"]
            revert = json.dumps(info["revert"]) if "revert" in info else None
            row = (
                info["id"],
                "p",
                info.get("parentID"),
                "/w",
                info["title"],
                "1",
                revert,
                None,
                *info["time"].values(),
                0,
            )
            connection.execute(f"INSERT INTO session VALUES ({','.join('?' * 11)})", row)
            for message in value["messages"]:
                data = {k: v for k, v in message["info"].items() if k != "id"}
                message_id = f"{info['id']}/{message['info']['id']}"
                connection.execute(
                    "INSERT INTO message VALUES (?, ?, 0, ?)", (message_id, info["id"], json.dumps(data))
                )
                for index, part in enumerate(message["parts"]):
                    row = (f"{message_id}/{index}", message_id, info["id"], json.dumps(part))
                    connection.execute("INSERT INTO part VALUES (?, ?, ?, ?)", row)
    connection.close()
    return path


def roles(draft):
    return [[message.role for message in run.messages] for run in draft.runs]


def inputs(draft):
    return [run.input for run in draft.runs]


def totals(draft):
    from kern_nb.records import Usage

    return Usage.total(message.usage for run in draft.runs for message in run.messages)


def test_a_run_is_a_prompt_and_its_answers(tmp_path):
    [draft], problems = read(tmp_path, export(*TALK))
    assert problems == []
    assert roles(draft) == [["user", "assistant", "tool", "assistant"], ["user", "assistant"]]
    assert inputs(draft) == ["one", "two"]
    assert [run.output for run in draft.runs] == ["Done.", "Yes."]
    first = draft.runs[0]
    assert (first.duration_s, first.status, first.model, first.model_provider) == (0.502, "COMPLETED", "m1", "p")
    usage = first.messages[1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (117, 5, 2)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.cost) == (100, 7, 0.25)
    [call] = first.messages[1].tool_calls
    assert (call.tool_name, call.args, call.duration_s, call.status) == ("bash", {"x": 1}, 1.5, "completed")
    assert first.messages[0].extra["parts"] == [text("<file>", synthetic=True)]
    assert draft.session.session_name == "Lint"


def test_the_state_of_a_call(tmp_path):
    parts = [tool("c1", output="x", metadata={"exit": 1}), tool("c2", "error", error="no"), tool("c3", "running")]
    [draft], _ = read(tmp_path, export(user(1, text("one")), answer(2, 1, *parts)))
    calls = draft.runs[0].messages[1].tool_calls
    assert [call.status for call in calls] == ["completed", "failed", None]
    assert calls[0].extra["metadata"] == {"exit": 1}
    assert [(m.content, m.is_error) for m in draft.runs[0].messages[2:]] == [("x", False), ("no", True)]


def test_a_cost_of_0_and_tokens_of_0_are_unknown(tmp_path):
    zero = {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}
    messages = [user(1, text("one")), answer(2, 1, text("a"), cost=0), answer(3, 1, text("b"), cost=0, tokens=zero)]
    [draft], _ = read(tmp_path, export(*messages))
    first, second = draft.runs[0].messages[1:]
    assert (first.usage.cost, first.usage.input_tokens, second.usage) == (None, 117, None)


def test_the_status_of_a_run_is_that_of_its_last_answer(tmp_path):
    aborted = {"name": "MessageAbortedError", "data": {"message": "Aborted"}}
    failed = {"name": "APIError", "data": {"message": "limit"}}
    messages = [user(1, text("a")), answer(2, 1, error=aborted), user(3, text("b")), answer(4, 3, error=failed)]
    messages += [user(5, text("c")), answer(6, 5, text("x"), time={"created": 1_767_000_000_006})]
    [draft], _ = read(tmp_path, export(*messages))
    assert [(run.status, run.error) for run in draft.runs] == [
        ("CANCELLED", "Aborted"), ("ERROR", "limit"), ("INTERRUPTED", None),
    ]  # fmt: skip


def test_a_compaction_belongs_to_the_run_before(tmp_path):
    request, summary = user(6, {"type": "compaction", "auto": True}), answer(7, 6, text("We did A."), summary=True)
    more = user(8, text("Continue", synthetic=True)), answer(9, 8, text("Going on."))
    [draft], _ = read(tmp_path, export(*TALK, request, summary, *more))
    assert inputs(draft) == ["one", "two"]
    assert [bool(m.extra.get("compaction")) for m in draft.runs[1].messages] == [False, False, True, True, False, False]
    assert totals(draft).cost == 1.25


def test_a_revert_leaves_two_lines(tmp_path):
    drafts, _ = read(tmp_path, export(*TALK, revert={"messageID": "msg_004"}))
    assert [inputs(draft) for draft in drafts] == [["one"], ["one", "two"]]
    assert drafts[0].keys[0] == drafts[1].keys[0]
    assert drafts[0].session_id == drafts[1].session_id == SESSION


def test_a_fork_has_the_keys_of_its_parent(tmp_path):
    copies = [
        {"info": m["info"] | {"id": "x" + m["info"]["id"]}, "parts": [p | {"id": "n"} for p in m["parts"]]}
        for m in TALK
    ]
    for copy in copies:
        if "parentID" in copy["info"]:
            copy["info"]["parentID"] = "x" + copy["info"]["parentID"]
    fork = export(*copies, user(9, text("three")), answer(10, 9, text("c")), session="ses_b")
    [parent, child], _ = read_path(make_database(tmp_path / "opencode.db", export(*TALK), fork))
    assert child.has_record_ids
    assert child.keys[:2] == parent.keys
    assert child.hashes[:2] == parent.hashes
    assert inputs(child) == ["one", "two", "three"]


def test_a_nested_agent_is_a_member_of_the_call_that_started_it(tmp_path):
    task = tool("c9", output="done", metadata={"sessionId": "ses_child"})
    parent = export(user(1, text("one")), answer(2, 1, task))
    child = export(user(11, text("task")), answer(12, 11, text("ok")), session="ses_child", parentID=SESSION)
    [_, draft], _ = read_path(make_database(tmp_path / "opencode.db", parent, child))
    assert (draft.membership.session_id, draft.membership.tool_call_id) == (SESSION, "c9")


def test_the_store_has_forks_reverts_and_nested_agents_once(tmp_path):
    from kern_nb.db import SqliteDb

    task = tool("c9", output="done", metadata={"sessionId": "ses_child"})
    talk = [*TALK[:-1], answer(5, 4, task, text("Yes."))]
    parent = export(*talk, user(7, text("undone")), revert={"messageID": "msg_007"})
    child = export(user(11, text("task")), answer(12, 11, text("ok")), session="ses_child", parentID=SESSION)
    copies = [m | {"info": m["info"] | {"id": "x" + m["info"]["id"]}} for m in talk]
    for copy in copies:
        if "parentID" in copy["info"]:
            copy["info"]["parentID"] = "x" + copy["info"]["parentID"]
    fork = export(*copies, user(9, text("three")), session="ses_b")
    path = make_database(tmp_path / "opencode.db", parent, child, fork)
    store = SqliteDb(tmp_path / "s.db")
    report = store.ingest(path, progress=False)
    assert report.errors == []
    shown = {s.session_id: (s.parent_session_id, s.fork_run_index, s.fork_message_index) for s in store.list_sessions()}
    assert shown == {SESSION: (None, None, None), "ses_b": (SESSION, 1, None)}
    assert [run.input for run in store.get_session("ses_b").runs] == ["one", "two", "three"]
    members = [run for run in store.get_session(SESSION).runs if run.parent_run_id is not None]
    assert [run.input for run in members] == ["task"]
    assert store.sessions_df()["cost"].sum() == 1
    again = store.ingest(path, progress=False)
    assert (again.sessions, again.runs, again.messages, again.errors) == (0, 0, 0, [])


def make_storage(tmp_path, value):
    root, info = tmp_path / "storage", value["info"]
    files = {root / "session" / "p" / f"{info['id']}.json": info}
    for message in value["messages"]:
        name = message["info"]["id"]
        files[root / "message" / info["id"] / f"{name}.json"] = message["info"]
        for index, part in enumerate(message["parts"]):
            files[root / "part" / name / f"prt_{index}.json"] = {"id": f"prt_{index}", **part}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root / "session" / "p" / f"{info['id']}.json"


def test_the_old_folders_give_the_same_session(tmp_path):
    from kern_nb.ingest.importers.opencode import OpenCode
    from kern_nb.ingest.source import Source

    path = make_storage(tmp_path, export(*TALK))
    [draft], problems = read_path(path)
    [exported], _ = read(tmp_path, export(*TALK))
    assert problems == []
    assert (draft.hashes, draft.keys, draft.session_hash) == (exported.hashes, exported.keys, exported.session_hash)
    assert len(list(OpenCode().companions(Source(path, "x")))) == 5 + sum(len(m["parts"]) for m in TALK)
    (tmp_path / "storage" / "message" / SESSION / "msg_002.json").write_text("{")
    [draft], [problem] = read_path(path)
    assert roles(draft)[0] == ["user", "assistant"]
    assert "msg_002.json" in problem.reason


@pytest.mark.parametrize("name", ["../../x", "", "a/b"])
def test_a_session_id_is_no_path(tmp_path, name):
    value = export(session=f"ses{name}") | {"messages": []}
    path = tmp_path / "storage" / "session" / "p" / "ses_x.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value["info"]))
    [draft], _ = read_path(path)
    assert draft.runs == []


def test_neighbouring_layouts_are_not_recognized(tmp_path):
    from kern_nb.ingest.importers.opencode import OpenCode
    from kern_nb.ingest.source import Source

    others = (
        {"messages": [{"role": "user", "content": "x"}]},
        {"info": {}, "messages": []},
        {"id": "ses_x", "title": "t"},
    )
    for value in others:
        path = tmp_path / "x.json"
        path.write_text(json.dumps(value))
        assert not OpenCode().recognizes(Source(path, "x.json")), value
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE session (id, data)")
    connection.close()
    assert not OpenCode().recognizes(Source(tmp_path / "other.db", "other.db"))


def test_damaged_files_raise_nothing(tmp_path):
    value = export(*TALK, revert={"messageID": "msg_004", "partID": "x"})
    data = json.dumps(value, indent=1).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(tmp_path, damaged)
    for changed in mistyped(value, 100):
        read(tmp_path, changed)
    for number, changed in enumerate(mistyped(value, 50)):
        try:
            path = make_database(tmp_path / f"{number}.db", changed)
        except (sqlite3.Error, TypeError, AttributeError, KeyError, OverflowError, UnicodeError):
            continue  # not a database that can exist
        read_path(path)


def test_a_damaged_message_does_not_reject_the_others(tmp_path):
    with_error = [*TALK[:1], {"info": TALK[1]["info"], "parts": [tool("c1") | {"tool": 1}, {"type": []}]}, *TALK[2:], 7]
    [draft], problems = read(tmp_path, export(*with_error))
    assert inputs(draft) == ["one", "two"]
    assert [problem.reason for problem in problems] == [f"Session {SESSION!r}: message 5 has no role or no parts."]


def test_the_samples_have_the_expected_figures(shared_data, tmp_path):
    from kern_nb.db import SqliteDb

    expected = json.loads((shared_data / "EXPECTED_FORMATS.json").read_text())
    expected = expected.get("files", expected)
    folder = shared_data / "opencode"
    for file in (folder / "opencode.db", *sorted(folder.glob("*.json"))):
        figures = expected[f"opencode/{file.name}"]
        drafts, problems = read_path(file)
        assert problems == []
        assert [draft.session_id for draft in drafts] == figures["session_ids"]
        for index, draft in enumerate(drafts):
            own = figures["per_session"][draft.session_id]
            start = 2 if index else 0  # in the database, the second session is a fork of the first one
            messages = [message for run in draft.runs[start:] for message in run.messages]
            assert len(draft.runs) - start == own["user_prompts"]
            assert sum(m.role == "assistant" for m in messages) == own["assistant_messages"]
            assert sum(len(m.tool_calls) for m in messages) == own["tool_calls"]
            usages = [m.usage for m in messages if m.usage]
            cached = own["cache_read_tokens"] + own["cache_write_tokens"]
            assert sum(usage.input_tokens for usage in usages) == own["input_tokens"] + cached
            assert sum(usage.output_tokens for usage in usages) == own["output_tokens"] + own["reasoning_tokens"]
            assert sum(usage.cost for usage in usages) == pytest.approx(own["cost"])
            assert draft.session.session_name == own["title"]
        if len(drafts) == 2:
            assert drafts[1].keys[:2] == drafts[0].keys
            assert drafts[1].hashes[:2] == drafts[0].hashes
    store = SqliteDb(tmp_path / "s.db")
    first = store.ingest(folder / "opencode.db", progress=False)
    assert (first.errors, first.sessions) == ([], 2)
    figures = expected["opencode/opencode.db"]
    [branch] = figures["branches"]
    fork = store.get_session(branch["session"])
    assert (fork.parent_session_id, fork.fork_run_index) == (branch["parent"], branch["fork_run_index_0based"])
    costs = store.sessions_df().set_index("session_id")["cost"].to_dict()
    assert costs == pytest.approx({name: own["cost"] for name, own in figures["per_session"].items()})
    for path in (folder / "opencode.db", folder):
        again = store.ingest(path, progress=False)
        assert (again.sessions, again.runs, again.messages, again.errors) == (0, 0, 0, [])


def test_messages_without_times_are_not_those_of_copies(tmp_path):
    from kern_nb.db import SqliteDb

    for number, name in ((1, "ses_a"), (3, "ses_b")):
        messages = [user(number, text("same"), time={}), answer(number + 1, number, text(f"Of {name}."), time={})]
        (tmp_path / f"{name}.json").write_text(json.dumps(export(*messages, session=name)))
    with SqliteDb(tmp_path / "s.db") as store:
        report = store.ingest(tmp_path, progress=False)
        assert (report.branches, report.errors) == (0, [])
        assert sorted(store.messages_df().query("role == 'assistant'")["content"]) == ["Of ses_a.", "Of ses_b."]


def test_a_repeated_message_is_reported(tmp_path):
    [draft], problems = read(tmp_path, export(*TALK, TALK[2]))
    assert [problem.reason for problem in problems] == ["Message 'msg_003' is not imported: its id is repeated."]
    assert totals(draft).output_tokens == 15
