"""Conversations that share records: forks, copies, trees of retries, nested agents. Each record is stored once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import sqlalchemy as sa

from kern_nb.db import SqliteDb
from kern_nb.ingest.importer import Draft, Fork, Membership, hash_record
from kern_nb.ingest.run_splitter import SourceMessage, build_runs, split_runs
from kern_nb.ingest.writer import write_drafts
from kern_nb.records import Message, Run, Session, ToolCall, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df")


def message(key, role="user", text=None, **fields):
    """A message with an id; an assistant's used 10 tokens."""
    usage = Usage(input_tokens=8, output_tokens=2) if role == "assistant" else None
    created = START + timedelta(minutes=int("".join(c for c in key if c.isdigit()) or 0))
    content = text or f"text {key}"
    record = Message(role=role, content=content, usage=usage, created_at=created, **fields)
    return SourceMessage(record, [key, content], key)


def turn(n, suffix=""):
    """A prompt and its answer."""
    return [message(f"p{n}{suffix}"), message(f"a{n}{suffix}", "assistant")]


def draft(session_id, messages, *, file="f.jsonl", ids=True, **options):
    """A draft of a format whose records have ids."""
    runs, hashes, keys = split_runs(session_id, messages)
    return Draft(
        file=file,
        line=lambda: 1,
        session=Session(session_id=session_id, agent_id="agent"),
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record("fields"),
        source="fake",
        has_record_ids=ids,
        path_hash=file,
        **options,
    )


def texts(store, session_id):
    """The messages of a session, inherited ones first."""
    return [m.content for run in store.get_session(session_id).runs for m in run.messages]


def expected(*turns):
    return [item.message.content for messages in turns for item in messages]


def frames_of(store):
    return {name: getattr(store, name)() for name in FRAMES}


def assert_unchanged_by(store, *drafts):
    """Writing drafts again adds nothing."""
    before = frames_of(store)
    report = write_drafts(store, drafts)
    assert (report.sessions, report.runs, report.errors) == (0, 0, [])
    for name, frame in frames_of(store).items():
        pd.testing.assert_frame_equal(frame, before[name])


@pytest.mark.every_engine
def test_a_copy_under_another_id_is_a_branch_and_counted_once(store):
    """A fork's file repeats the records of its parent: they are inherited."""
    parent = lambda: draft("parent", [*turn(1), *turn(2)])  # noqa: E731 - drafts are used once
    fork = lambda: draft("fork", [*turn(1), *turn(2), *turn(3)], file="g.jsonl")  # noqa: E731
    report = write_drafts(store, [parent(), fork()])

    assert (report.sessions, report.branches, report.runs) == (2, 1, 3)
    assert (report.tokens, report.repeated_tokens) == (30, 20)
    session = store.get_session("fork")
    assert (session.parent_session_id, session.fork_run_index, session.fork_message_index) == ("parent", 1, None)
    assert texts(store, "fork") == expected(turn(1), turn(2), turn(3))
    assert store.sessions_df().set_index("session_id")["total_tokens"].to_dict() == {"parent": 20, "fork": 10}
    assert_unchanged_by(store, parent(), fork())


def test_a_copy_that_comes_in_a_later_import_is_a_branch(store):
    write_drafts(store, [draft("parent", [*turn(1), *turn(2)])])
    report = write_drafts(store, [draft("fork", [*turn(1), *turn(3)], file="g.jsonl")])

    assert (report.branches, report.runs) == (1, 1)
    assert store.get_session("fork").fork_run_index == 0
    assert texts(store, "fork") == expected(turn(1), turn(3))


def test_a_copy_that_parts_within_a_run_inherits_its_first_messages(store):
    """A retry of an answer: the prompt is inherited, the second answer is the branch's."""
    first = [*turn(1), message("p2"), message("a2", "assistant"), message("b2", "assistant")]
    second = [*turn(1), message("p2"), message("a2", "assistant"), message("c2", "assistant"), *turn(3)]
    write_drafts(store, [draft("first", first), draft("second", second, file="g.jsonl")])
    session = store.get_session("second")

    assert (session.parent_session_id, session.fork_run_index, session.fork_message_index) == ("first", 1, 1)
    assert texts(store, "second") == [item.message.content for item in second]
    assert list(store.messages_df(session_id="second")["content"]) == expected([message("c2")], turn(3))
    assert_unchanged_by(store, draft("first", first), draft("second", second, file="g.jsonl"))
    longer = [*second, *turn(4)]
    assert write_drafts(store, [draft("second", longer, file="g.jsonl")]).runs == 1
    assert texts(store, "second") == [item.message.content for item in longer]


def test_a_whole_copy_is_an_empty_branch(store):
    """A checkpoint of a session under another id is reachable, and stores no message again."""
    write_drafts(store, [draft("long", [*turn(1), *turn(2)]), draft("short", turn(1), file="g.jsonl")])

    assert texts(store, "short") == expected(turn(1))
    assert len(store.messages_df()) == 4


def test_a_copy_of_a_part_of_a_run_is_an_empty_branch_that_may_grow(store):
    """A checkpoint in the middle of an answer, under another id."""
    whole = [*turn(1), message("p2"), message("a2", "assistant"), message("b2", "assistant")]
    write_drafts(store, [draft("long", whole), draft("short", whole[:4], file="g.jsonl")])
    assert texts(store, "short") == [item.message.content for item in whole[:4]]
    assert store.sessions_df().set_index("session_id")["n_runs"].to_dict() == {"long": 2, "short": 0}
    assert_unchanged_by(store, draft("short", whole[:4], file="g.jsonl"))

    longer = [*whole[:4], message("c2", "assistant"), *turn(3)]
    report = write_drafts(store, [draft("short", longer, file="g.jsonl")])
    assert (report.sessions, report.runs, report.messages) == (0, 2, 3)
    assert texts(store, "short") == [item.message.content for item in longer]
    assert store.check().problems == []


def test_lines_of_a_tree_are_branches_of_the_first_line(store):
    """Several drafts of one id: what they share is stored once, and a new main line changes no stored one."""
    lines = [[*turn(1), *turn(2)], [*turn(1), *turn(2, "x"), *turn(3)], [*turn(1), *turn(2, "x"), *turn(4)]]
    report = write_drafts(store, [draft("tree", line) for line in lines])

    assert (report.sessions, report.branches, len(store.messages_df())) == (3, 2, 10)
    sessions = store.sessions_df()
    assert texts(store, "tree") == expected(turn(1), turn(2))
    branches = [name for name in sessions["session_id"] if name != "tree"]
    assert {tuple(texts(store, name)) for name in branches} == {
        tuple(item.message.content for item in line) for line in lines[1:]
    }
    assert_unchanged_by(store, *(draft("tree", line) for line in lines))
    assert_unchanged_by(store, *(draft("tree", line) for line in reversed(lines)))
    report = write_drafts(store, [draft("tree", [*line, *turn(5)]) for line in reversed(lines)])
    assert (report.sessions, report.runs) == (0, 3)


def test_two_files_that_part_are_two_branches(store):
    """A conversation that was continued twice from the same turn, in files that carry its id."""
    one = draft("chat", [*turn(1), *turn(2)], ids=False)
    two = draft("chat", [*turn(1), *turn(2, "x"), *turn(3)], ids=False, file="g.jsonl")
    report = write_drafts(store, [one, two])

    assert (report.branches, report.errors) == (1, [])
    assert texts(store, "chat") == expected(turn(1), turn(2))
    [branch] = set(store.sessions_df()["session_id"]) - {"chat"}
    assert texts(store, branch) == expected(turn(1), turn(2, "x"), turn(3))


def test_other_conversations_of_the_same_id_are_refused(store):
    """Ids such as 1 and 2 are local to a file: a conversation with another first run is reported."""
    write_drafts(store, [draft("1", turn(1), ids=False)])
    report = write_drafts(store, [draft("1", turn(2), ids=False, file="g.jsonl")])

    assert (report.sessions, len(report.errors)) == (0, 1)
    assert texts(store, "1") == expected(turn(1))


def test_equal_texts_without_ids_are_not_one_conversation(store):
    """Sessions of a data set begin with the same prompt."""
    report = write_drafts(store, [draft(f"s{n}", turn(1), ids=False) for n in range(3)])

    assert (report.sessions, report.branches, len(store.messages_df())) == (3, 0, 6)


def test_a_stated_fork_inherits_up_to_its_first_record(store):
    """The file of a fork has only its own records, and says after which record of its parent it begins."""
    parent = [message(f"t#{n:03d}", role) for n, role in enumerate(["user", "assistant"] * 3)]
    write_drafts(store, [draft("parent", parent)])
    write_drafts(store, [draft("fork", turn(7), fork=Fork("parent", "t#004"))])
    write_drafts(store, [draft("end", turn(8), fork=Fork("parent"))])
    write_drafts(store, [draft("fork", [*turn(7), *turn(9)], fork=Fork("parent", "t#004"))])

    assert store.get_session("fork").fork_run_index == 1
    assert texts(store, "fork") == [f"text t#{n:03d}" for n in range(4)] + expected(turn(7), turn(9))
    assert len(texts(store, "end")) == 8
    assert_unchanged_by(store, draft("fork", [*turn(7), *turn(9)], fork=Fork("parent", "t#004")))


def test_a_stated_fork_inside_a_run_keeps_its_own_messages(store):
    """Its file has only what is new, calls included; a longer version of it adds the rest."""
    parent = [message(f"t#{n:03d}", role) for n, role in enumerate(["user", "assistant", "assistant"])]
    write_drafts(store, [draft("parent", parent)])
    call = ToolCall(tool_call_id="c", tool_name="look", args={})
    own = [message("n1", "assistant", tool_calls=[call]), message("n2", "assistant")]
    fork = lambda *more: draft("fork", [*own, *more], fork=Fork("parent", "t#002"))  # noqa: E731 - used once
    write_drafts(store, [fork()])
    session = store.get_session("fork")

    assert (session.fork_run_index, session.fork_message_index) == (0, 1)
    assert texts(store, "fork") == ["text t#000", "text t#001", "text n1", "text n2"]
    assert list(store.tool_calls_df(session_id="fork")["message_index"]) == [0]
    assert_unchanged_by(store, fork())
    assert write_drafts(store, [fork(*turn(5))]).runs == 1
    assert texts(store, "fork")[-4:] == ["text n1", "text n2", *expected(turn(5))]


def test_a_fork_without_its_parent_is_reported(store):
    report = write_drafts(store, [draft("fork", turn(7), fork=Fork("parent", "t#004"))])

    assert report.sessions == 1
    assert "without its inherited runs: the store has no session 'parent'" in report.errors[0].reason

    again = write_drafts(store, [draft("fork", turn(7), fork=Fork("parent", "t#004"))])
    assert (again.sessions, again.runs) == (0, 0)


@pytest.mark.every_engine
@pytest.mark.parametrize("in_one_import", [True, False])
@pytest.mark.parametrize("before", ["t#000", "t#003", "t#004", None])
def test_a_fork_that_comes_before_its_parent_is_linked_when_that_comes(store, tmp_path, in_one_import, before):
    """What it inherits is counted once; its branches go on, and it is what it is in the other order."""
    roles = ["user", "assistant"] * 3
    parent = lambda: draft("parent", [message(f"t#{n:03d}", role) for n, role in enumerate(roles)])  # noqa: E731
    own = [message("n1", "assistant"), *turn(7)] if before == "t#003" else [*turn(7), *turn(8)]
    fork = lambda *more: draft("fork", [*own, *more], file="g.jsonl", fork=Fork("parent", before))  # noqa: E731
    if in_one_import:
        report = write_drafts(store, [fork(), parent()])
    else:
        assert write_drafts(store, [fork()]).errors
        store.branch("fork", after=0, new_session_id="what-if")
        store.append_run("what-if", Run(input="mine"))
        report = write_drafts(store, [parent()])
    assert report.errors == []
    n = {"t#000": 0, "t#003": 3, "t#004": 4, None: 6}[before]
    assert texts(store, "fork") == [f"text t#{i:03d}" for i in range(n)] + [item.message.content for item in own]
    session = store.get_session("fork")
    assert session.parent_session_id == "parent"
    with SqliteDb(tmp_path / "other.db") as other:
        write_drafts(other, [parent()])
        write_drafts(other, [fork()])
        expected_fork = other.get_session("fork")
        for name in ("fork_run_index", "fork_message_index", "session_data", "metadata"):
            assert getattr(session, name) == getattr(expected_fork, name)
        assert [run.run_index for run in session.runs] == [run.run_index for run in expected_fork.runs]
        assert store.sessions_df()["total_tokens"].sum() == other.sessions_df()["total_tokens"].sum()
    if not in_one_import:
        assert [run.input for run in store.get_session("what-if").runs][-1] == "mine"
        assert texts(store, "what-if")[:n] == texts(store, "fork")[:n]
    assert store.check().problems == []
    assert_unchanged_by(store, fork(), parent())
    assert write_drafts(store, [fork(*turn(9))]).runs == 1
    assert texts(store, "fork")[-2:] == expected(turn(9))


def test_forks_that_name_each_other_are_not_linked_to_a_cycle(store):
    write_drafts(store, [draft("a", turn(1), fork=Fork("b")), draft("b", turn(2), file="g.jsonl", fork=Fork("a"))])
    assert store.check().problems == []
    assert {name for name in "ab" if store.get_session(name).parent_session_id is None} != set()


@pytest.mark.every_engine
@pytest.mark.parametrize("in_one_import", [True, False])
def test_a_nested_agent_that_comes_before_its_parent_becomes_a_member_run(store, tmp_path, in_one_import):
    """So does an agent that it started, in whatever order they come; its scores stay with its run."""
    call = ToolCall(tool_call_id="t1", tool_name="Task", args={})
    inner = ToolCall(tool_call_id="t2", tool_name="Task", args={})
    main = lambda: draft("main", [message("p1"), message("a1", "assistant", tool_calls=[call]), *turn(3)])  # noqa: E731
    own = [message("p2"), message("a2", "assistant", tool_calls=[inner])]
    child = lambda: draft("child", own, file="child.jsonl", membership=Membership("main", "t1"))  # noqa: E731
    grandchild = lambda: draft("g", turn(4), file="g.jsonl", membership=Membership("child", "t2"))  # noqa: E731
    orders = [[grandchild, child, main], [grandchild, main, child], [child, main, grandchild]]
    with SqliteDb(tmp_path / "other.db") as other:
        write_drafts(other, [main(), child(), grandchild()])
        names = ["session_id", "parent_run_id", "agent_id", "input", "input_tokens", "total_tokens"]
        intended = other.runs_df().set_index("run_id")[names].sort_index()
        extras = {run.run_id: (run.extra, run.internal) for run in other.get_session("main").runs}
    for order in orders:
        drafts = [create() for create in order]
        if in_one_import:
            write_drafts(store, drafts)
        else:
            for item in drafts:
                write_drafts(store, [item])
                if item.session_id == "g" and store.get_session("g") is not None:
                    store.add_score("g", "good", 1)
        runs = store.runs_df().set_index("run_id")
        pd.testing.assert_frame_equal(runs[names].sort_index(), intended)
        assert {run.run_id: (run.extra, run.internal) for run in store.get_session("main").runs} == extras
        assert list(store.sessions_df()["session_id"]) == ["main"]
        assert set(store.scores_df()["run_id"].isna()) <= {False}
        assert store.check().problems == []
        assert_unchanged_by(store, grandchild(), child(), main())
        store.delete_session("main")


def test_a_nested_agent_that_a_user_has_continued_stays_a_session(store):
    """Nothing of the user's is moved."""
    write_drafts(
        store, [draft(name, turn(n), file=name, membership=Membership("main")) for n, name in enumerate("abcd")]
    )
    store.append_run("a", Run(input="mine"))
    store.branch("b", new_session_id="what-if")
    store.tag_session("c", ["mine"])
    report = write_drafts(store, [draft("main", turn(9))])
    assert report.errors == []
    assert set(store.sessions_df()["session_id"]) == {"a", "b", "c", "what-if", "main"}
    assert len(store.get_session("main").runs) == 2


@pytest.mark.parametrize("in_one_import", [True, False])
def test_a_nested_agent_is_a_member_run_of_the_run_that_called_it(store, in_one_import):
    """The member's usage counts in its session; the main line continues after it."""
    call = ToolCall(tool_call_id="t1", tool_name="Task", args={})
    main = [message("p1"), message("a1", "assistant", tool_calls=[call]), *turn(3)]
    child = lambda: draft("child", turn(2), file="child.jsonl", membership=Membership("main", "t1"))  # noqa: E731
    for drafts in ([draft("main", main), child()],) if in_one_import else ([draft("main", main)], [child()]):
        report = write_drafts(store, drafts)
    write_drafts(store, [draft("main", [*main, *turn(4)]), child()])
    runs = store.runs_df()

    assert report.errors == []
    assert list(store.sessions_df()["session_id"]) == ["main"]
    members = runs[runs["parent_run_id"].notna()]
    assert list(members["parent_run_id"]) == list(runs[runs["run_index"] == 0]["run_id"])
    assert [run.input for run in store.get_session("main").runs if run.parent_run_id is None] == [
        "text p1",
        "text p3",
        "text p4",
    ]
    assert store.sessions_df()["total_tokens"].iloc[0] == 40
    assert_unchanged_by(store, draft("main", [*main, *turn(4)]), child())


def test_a_nested_agent_without_its_parent_is_a_session(store):
    write_drafts(store, [draft("child", turn(2), membership=Membership("main", "t1"))])

    assert texts(store, "child") == expected(turn(2))


def test_a_run_that_grows_keeps_its_index_and_branches(store):
    """A file is imported while its program still writes it."""
    write_drafts(store, [draft("s", [*turn(1), message("p2")])])
    store.branch("s", after=1, new_session_id="what-if")
    report = write_drafts(store, [draft("s", [*turn(1), *turn(2), *turn(3)])])

    assert (report.sessions, report.runs) == (0, 2)
    assert texts(store, "s") == expected(turn(1), turn(2), turn(3))
    assert texts(store, "what-if") == expected(turn(1), turn(2))
    assert store.check().problems == []


def test_a_tail_that_was_taken_back_is_a_branch_at_the_end(store):
    """After a rollback the current line is shorter: what was rolled back does not become the current line."""
    lines = [turn(1), [*turn(1), *turn(2)]]
    write_drafts(store, [draft("s", line) for line in lines])
    assert texts(store, "s") == expected(turn(1))
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert texts(store, branch) == expected(turn(1), turn(2))
    assert_unchanged_by(store, *(draft("s", line) for line in lines))

    report = write_drafts(store, [draft("s", [*turn(1), *turn(3)]), draft("s", lines[1])])
    assert (report.sessions, report.runs) == (0, 1)
    assert texts(store, "s") == expected(turn(1), turn(3))


def test_a_line_without_common_records_is_a_branch_before_the_first_run(store):
    """A rewind to the start of a conversation."""
    lines = [turn(1), turn(2)]
    report = write_drafts(store, [draft("s", line) for line in lines])

    assert (report.sessions, report.branches, report.errors) == (2, 1, [])
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert (store.get_session(branch).parent_session_id, store.get_session(branch).fork_run_index) == ("s", -1)
    assert texts(store, branch) == expected(turn(2))
    assert_unchanged_by(store, *(draft("s", line) for line in lines))


def test_a_retry_within_the_last_run_that_was_taken_back_is_a_branch(store):
    """The current line ends in the middle of a run."""
    whole = [*turn(1), message("p2"), message("a2", "assistant"), message("b2", "assistant")]
    write_drafts(store, [draft("s", whole[:4]), draft("s", whole)])

    assert texts(store, "s") == [item.message.content for item in whole[:4]]
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert texts(store, branch) == [item.message.content for item in whole]
    assert_unchanged_by(store, draft("s", whole[:4]), draft("s", whole))


def traces(name, *groups):
    """The runs of a session that one file has, each with an id of its own."""
    runs, hashes, keys = build_runs("chat", groups)
    result = draft("chat", [], ids=False, file=name, has_run_ids=True)
    result.runs, result.hashes, result.keys = runs, hashes, keys
    for run in runs:
        run.run_id = f"run {run.messages[-1].content}"
    return result


def test_files_with_different_runs_of_a_session_are_joined(store):
    """A collector writes the traces of a conversation to several files."""
    report = write_drafts(store, [traces("a", turn(1)), traces("b", turn(2))])
    again = write_drafts(store, [traces("b", turn(2)), traces("a", turn(1))])
    longer = write_drafts(store, [traces("b", [*turn(2), message("b2", "assistant")], turn(3))])

    assert (report.sessions, report.runs, report.errors) == (1, 2, [])
    assert (again.sessions, again.runs) == (0, 0)
    assert (longer.sessions, longer.runs) == (0, 2)
    assert texts(store, "chat")[:4] == expected(turn(1), turn(2))


def test_parts_of_a_run_without_a_common_record_are_both_stored(store):
    """Each folder of a collector has a part of a trace, and neither names the other."""

    def part(name, messages):
        result = traces(name, messages)
        result.runs[0].run_id = "trace"
        return result

    write_drafts(store, [part("a", turn(1)), part("b", turn(2))])
    again = write_drafts(store, [part("b", turn(2)), part("a", turn(1))])
    grown = write_drafts(store, [part("b", [*turn(2), message("b2", "assistant")])])

    assert (again.runs, grown.runs) == (0, 1)
    assert texts(store, "chat") == [*expected(turn(1), turn(2)), "text b2"]
    assert store.sessions_df()["total_tokens"].sum() == 30


def test_history_that_the_first_run_of_a_later_file_repeats_is_stored_once(store):
    write_drafts(store, [traces("a", turn(1))])
    write_drafts(store, [traces("b", [*turn(1), *turn(2)])])

    assert texts(store, "chat") == expected(turn(1), turn(2))
    assert len(store.messages_df()) == 4


def test_an_intact_version_of_a_damaged_file_completes_its_runs(store):
    """Records that the first version lacked are inserted, whether or not other runs follow."""
    for missing in (1, 2, 4):
        session_id = file = f"s{missing}"
        whole = [*turn(1, file), message(f"b1{file}", "assistant"), *turn(2), message("b2", "assistant"), *turn(3)]
        write_drafts(store, [draft(session_id, whole[:missing] + whole[missing + 1 :], file=file)])
        report = write_drafts(store, [draft(session_id, whole, file=file)])

        assert (report.sessions, report.errors, texts(store, session_id)) == (0, [], expected(whole))
        assert_unchanged_by(store, draft(session_id, whole, file=file))
    assert store.check().problems == []


def test_a_damaged_later_version_of_a_run_does_not_replace_it(store):
    """A message has lost its content, or a prompt is not recognized as one, which is a branch. A correction is stored."""
    whole = lambda: [*turn(1), *turn(2), *turn(3)]  # noqa: E731 - drafts are used once
    write_drafts(store, [draft("s", whole())])
    before = frames_of(store)
    empty, joined = whole(), whole()
    empty[3] = empty[3]._replace(message=empty[3].message.model_copy(update={"content": None}), record="x")
    joined[2] = joined[2]._replace(starts_run=False, record="x")
    report = write_drafts(store, [draft("s", empty)])
    assert "lacks something" in report.errors[0].reason
    for name, frame in frames_of(store).items():
        pd.testing.assert_frame_equal(frame, before[name])
    assert write_drafts(store, [draft("s", joined)]).branches == 1
    assert texts(store, "s") == expected(turn(1), turn(2), turn(3))
    corrected = whole()
    corrected[3] = message("a2", "assistant", "corrected")
    assert write_drafts(store, [draft("s", corrected)]).errors == []
    assert texts(store, "s")[3] == "corrected"


def test_a_run_is_not_completed_before_a_branch_point_in_it(store):
    """What the branch inherits stays; the complete version is another branch."""
    short = [message("p1"), message("b1", "assistant"), message("c1", "assistant")]
    other = [message("p1"), message("b1", "assistant"), message("d1", "assistant")]
    whole = [message("p1"), message("a1", "assistant"), *short[1:]]
    write_drafts(store, [draft("tree", short), draft("fork", other, file="g.jsonl")])
    write_drafts(store, [draft("tree", whole)])

    assert texts(store, "tree") == expected(short)
    assert texts(store, "fork") == expected(other)
    [branch] = set(store.sessions_df()["session_id"]) - {"tree", "fork"}
    assert texts(store, branch) == expected(whole)
    assert store.check().problems == []


def test_a_version_without_the_first_records_is_stored_beside_the_stored_one(store):
    """The file was damaged where it begins, or begins anew: neither version is lost."""
    one, two = [*turn(1, "x"), *turn(2)], [*turn(1), *turn(3)]
    write_drafts(store, [draft("s", one)])
    report = write_drafts(store, [draft("s", two)])

    assert (report.sessions, report.errors) == (1, [])
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert (texts(store, "s"), texts(store, branch)) == (expected(one), expected(two))
    assert store.check().problems == []
    assert_unchanged_by(store, draft("s", two))


def test_a_record_may_begin_two_branches(store):
    """A record that was damaged in an older version of the file is before it in one branch, and not in the other."""
    damaged = message("x1", "assistant")
    older = [[message("p1"), damaged, *turn(2)], [message("p1"), damaged, message("a1", "assistant"), *turn(3)]]
    intact = [message("p1"), message("a1", "assistant"), *turn(3)]
    write_drafts(store, [draft("s", line) for line in older])
    report = write_drafts(store, [draft("s", intact)])

    assert (report.sessions, report.errors) == (1, [])
    assert expected(intact) in [texts(store, name) for name in store.sessions_df()["session_id"]]
    assert_unchanged_by(store, draft("s", intact))


def test_a_corrected_record_before_a_branch_point_is_stored(store):
    """A version of a file corrects a record, and its conversation goes on differently: both are stored."""
    write_drafts(store, [draft("s", [message("p1"), message("a1", "assistant", "unfinish"), *turn(2)])])
    report = write_drafts(store, [draft("s", [*turn(1), *turn(3)])])

    assert (report.sessions, report.runs) == (1, 2)
    assert texts(store, "s") == expected(turn(1), turn(2))
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert texts(store, branch) == expected(turn(1), turn(3))


def test_a_copy_in_another_file_that_lacks_the_end_of_a_run_is_a_branch(store):
    """A conversation without ids for its records, whose runs are told apart by what they say."""
    write_drafts(store, [draft("s", [*turn(1), *turn(2), message("b2", "assistant")], ids=False)])
    write_drafts(store, [draft("s", [*turn(1), *turn(2), *turn(3)], ids=False, file="g.jsonl")])

    assert texts(store, "s") == expected(turn(1), turn(2), [message("b2")])
    [branch] = set(store.sessions_df()["session_id"]) - {"s"}
    assert texts(store, branch) == expected(turn(1), turn(2), turn(3))


def test_a_damaged_version_that_was_read_in_another_format_keeps_nothing_out(store):
    """A file without its end may look like one of a more general format, which has no ids for its records."""
    other = draft("s", turn(1, "x"), ids=False)  # its keys are no ids
    other.source = "general"
    write_drafts(store, [other])
    report = write_drafts(store, [draft("s", [*turn(1), *turn(2)])])
    elsewhere = write_drafts(store, [draft("s", [*turn(3), *turn(4)], file="g.jsonl")])

    assert (report.sessions, report.errors) == (1, [])
    assert expected(turn(1), turn(2)) in [texts(store, name) for name in store.sessions_df()["session_id"]]
    assert len(elsewhere.errors) == 1


def test_a_copy_whose_record_lacks_something_changes_nothing_of_its_parent(store):
    """A copy was made before the run's duration was stated: importing both again stores nothing."""

    def family():
        copy = draft("copy", [*turn(1), *turn(2)], file="g.jsonl")
        copy.hashes[1] = hash_record(copy.hashes[1], "unfinished")
        return [copy, draft("long", [*turn(1), *turn(2), *turn(3)])]

    write_drafts(store, family()[::-1])
    assert_unchanged_by(store, *family())
    assert_unchanged_by(store, *family()[::-1])


def test_a_repeated_import_of_nested_agents_needs_no_query_for_each(store):
    """Their runs are looked up together."""
    counts = []
    for n in (3, 30):
        call = [ToolCall(tool_call_id=f"t{i}", tool_name="Task", args={}) for i in range(n)]
        main = [message(f"p{n}"), message(f"a{n}", "assistant", tool_calls=call)]
        drafts = lambda n=n, main=main: [  # noqa: E731 - drafts are used once
            draft(f"main{n}", main),
            *(draft(f"{n}-{i}", [message(f"p{n}-{i}")], membership=Membership(f"main{n}", f"t{i}")) for i in range(n)),
        ]
        assert write_drafts(store, drafts()).runs == n + 1
        statements = []
        listener = lambda *args, statements=statements: statements.append(args[2])  # noqa: E731 - removed below
        sa.event.listen(store.engine, "before_cursor_execute", listener)
        assert write_drafts(store, drafts()).runs == 0
        sa.event.remove(store.engine, "before_cursor_execute", listener)
        counts.append(len(statements))

    assert counts[0] == counts[1]


def calling(key, call_id):
    """An answer that calls a tool."""
    return message(key, "assistant", tool_calls=[ToolCall(tool_call_id=call_id, tool_name="task")])


def nested_agents(*, levels=3):
    """A session whose second run starts an agent, whose second run starts another one, and so on."""
    drafts = []
    for level in range(levels):
        names = f"{level}1", f"{level}2", f"{level}3"
        lines = [message(f"p{names[0]}"), message(f"a{names[0]}", "assistant")]
        lines += [message(f"p{names[1]}"), calling(f"a{names[1]}", f"call{level}")]
        lines += [message(f"p{names[2]}"), message(f"a{names[2]}", "assistant")]
        member = {} if level == 0 else {"membership": Membership(f"agent{level - 1}", f"call{level - 1}")}
        drafts.append(draft(f"agent{level}", lines, file=f"{level}.jsonl", **member))
    return drafts


def assert_owned_by_their_calls(store):
    frame = store.runs_df().set_index("run_id")
    inputs = frame["input"]
    for run_id, parent in frame["parent_run_id"].dropna().items():
        level = int(inputs[run_id].split()[1][1])
        assert inputs[parent] == f"text p{level - 1}2"


@pytest.mark.parametrize("together", [True, False])
def test_an_agent_started_by_a_nested_agent_belongs_to_the_run_that_called_it(store, together):
    drafts = nested_agents()
    for batch in [drafts] if together else [[item] for item in drafts]:
        assert not write_drafts(store, batch).errors
    assert len(store.sessions_df()) == 1
    assert_owned_by_their_calls(store)
    assert_unchanged_by(store, *nested_agents())


@pytest.mark.parametrize("together", [True, False])
def test_an_agent_that_names_the_session_of_a_call_in_a_nested_run_belongs_to_that_run(store, together):
    drafts = nested_agents()
    drafts[2].membership = Membership("agent0", "call1")  # the call is in a run of agent1, stored with the session
    for batch in [drafts] if together else [[item] for item in drafts]:
        assert not write_drafts(store, batch).errors
    assert_owned_by_their_calls(store)


def test_a_nested_agent_that_lacked_a_record_is_completed(store):
    parent, child, _ = nested_agents()
    lines = [message("p11"), message("a11", "assistant")]
    damaged = draft("agent1", [lines[1]], file="1.jsonl", membership=child.membership)
    write_drafts(store, [parent, damaged])
    assert not write_drafts(store, [child]).errors
    assert_owned_by_their_calls(store)
    assert len(store.messages_df()) == len(parent.runs) * 2 + len(child.runs) * 2


def test_new_messages_move_the_time_of_their_session(store):
    first, grown = draft("s", turn(1)), draft("s", [*turn(1), *turn(2)])
    first.session.updated_at, grown.session.updated_at = 1_767_225_660, 1_767_225_720
    write_drafts(store, [first])
    write_drafts(store, [grown])
    assert store.get_session("s").updated_at == 1_767_225_720
    write_drafts(store, [first])
    assert store.get_session("s").updated_at == 1_767_225_720


def test_a_compaction_is_not_the_output_of_its_run():
    lines = [*turn(1), message("c1", "assistant", "A summary", extra={"compaction": True})]
    runs, _, _ = split_runs("s", lines)
    assert runs[0].output == "text a1"
