"""Moving the head of a session back: what follows is kept as a session, nothing is copied, branches keep what they have."""

from __future__ import annotations

import pytest
from samples import a_run, a_session, a_small_run, all_rows, inputs, load_session, parts_of, row_counts

from kern_nb.errors import (
    BadUsage,
    MessageNotFound,
    OwnerMismatch,
    RunExists,
    RunNotFound,
    RunOpen,
    SessionExists,
    SessionNotFound,
)
from kern_nb.records import Message, Requirement

POINTS = {
    "a run": {"after": 1},
    "an id": {"after": "chat-0"},
    "a message": {"after": (1, 1)},
    "before a run": {"before": 2},
    "before a message": {"before": (2, 1)},
    "the beginning": {"before": 0},
}


@pytest.fixture
def chat(store):
    """Four runs, each with a state; branches at its beginning, within a run and at its end."""
    for number in range(4):
        store.append_run("chat", a_run(f"{number}", run_id=f"chat-{number}", session_state={"n": number}))
    store.branch("chat", after=0, new_session_id="early")
    store.branch("chat", after=(2, 1), new_session_id="within")
    store.branch("chat", new_session_id="late")
    store.append_run("late", a_run("late"))
    store.branch("late", after=2, new_session_id="below")
    return store


OTHERS = ("early", "within", "late", "below")


@pytest.mark.parametrize("point", POINTS)
def test_the_head_is_at_the_point_and_what_follows_is_kept(chat, point):
    """The session is what a branch there is, and goes on from it; no row is copied, and no other session changes."""
    chat.branch("chat", **POINTS[point], new_session_id="expected")
    before = {name: parts_of(load_session(chat, name)) for name in ("chat", "expected", *OTHERS)}
    counts = row_counts(chat)
    session = chat.rewind_session("chat", **POINTS[point])

    after = {name: parts_of(load_session(chat, name)) for name in ("chat~1", "chat", *OTHERS)}
    assert after == {"chat~1": before["chat"], "chat": before["expected"]} | {name: before[name] for name in OTHERS}
    assert row_counts(chat) == counts | {"agno_sessions": counts["agno_sessions"] + 1}
    assert session.session_state == chat.get_session("expected").session_state
    assert chat.get_session("chat~1").session_state == {"n": 3}
    assert chat.append_run("chat", a_run("new", session_state={"new": 1})).run_index == 4
    assert inputs(load_session(chat, "chat"))[-1] == "new"
    assert chat.get_session("chat").session_state == (session.session_state or {}) | {"new": 1}
    assert {name: parts_of(load_session(chat, name)) for name in ("chat~1", *OTHERS)} == {
        name: after[name] for name in ("chat~1", *OTHERS)
    }
    assert chat.check()


def test_a_session_is_rewound_again_and_again(chat):
    """Each line that it leaves is kept under an id of its own; the latest run may be named again."""
    lines = []
    for number in range(3):
        lines.append(parts_of(load_session(chat, "chat")))
        chat.rewind_session("chat", after=0, keep_as="mine" if number == 1 else None)
        chat.append_run("chat", a_run(f"new {number}"))

    assert [parts_of(load_session(chat, name)) for name in ("chat~1", "mine", "chat~2")] == lines
    assert inputs(load_session(chat, "chat")) == ["0", "new 2"]
    assert [run.run_index for run in load_session(chat, "chat").runs] == [0, 6]
    assert chat.check()
    chat.delete_session("chat~1", detach_branches=True)
    assert inputs(load_session(chat, "chat")) == ["0", "new 2"]
    assert chat.check()


def test_a_branch_is_rewound_into_what_it_inherits(chat):
    """Its own runs are kept, and a branch without any needs no other session; its branches lose nothing."""
    lines = {name: parts_of(load_session(chat, name)) for name in ("chat", *OTHERS)}
    chat.branch("within", new_session_id="of within")
    chat.rewind_session("late", after=1)
    chat.rewind_session("within", after=0)

    assert chat.get_session("late").parent_session_id == "chat"
    assert chat.get_session("within~1") is None
    assert inputs(load_session(chat, "late")) == ["0", "1"]
    assert inputs(load_session(chat, "within")) == ["0"]
    assert parts_of(load_session(chat, "late~1")) == lines["late"]
    assert parts_of(load_session(chat, "below")) == lines["below"]
    assert parts_of(load_session(chat, "of within")) == lines["within"]
    assert parts_of(load_session(chat, "chat")) == lines["chat"]
    assert chat.append_run("late", a_small_run()).run_index == 5
    assert chat.check()


def test_requirements_scores_and_members_go_with_their_runs(store):
    """Title, tags and scores of the session stay; tokens are counted once."""
    for run_id, parent in (("team", None), ("member", "team"), ("next", None), ("of next", "next")):
        ask = Requirement(requirement_id=f"ask {run_id}", kind="confirmation", status="expired")
        store.append_run("chat", a_run(run_id, run_id=run_id, parent_run_id=parent, requirements=[ask]))
        store.add_score("chat", "good", 1, run_id=run_id)
    store.add_score("chat", "reward", 1)
    store.rename_session("chat", "title")
    store.tag_session("chat", ["tag"])
    tokens = store.runs_df()["input_tokens"].sum()
    store.rewind_session("chat", after="member", keep_as="rest")

    session = store.get_session("chat")
    assert (session.session_name, session.metadata) == ("title", {"tags": ["tag"]})
    assert [run.run_id for run in session.runs] == ["team", "member"]
    assert store.get_session("rest").session_name is None
    assert set(store.scores_df("rest")["run_id"]) == {"team", "member", "next", "of next"}
    assert store.scores_df("chat")["name"].tolist() == ["reward"]
    assert [run.requirements[0].session_id for run in load_session(store, "rest").runs] == ["rest"] * 4
    assert [run.run_id for run in store.member_runs("next")] == ["of next"]
    assert store.runs_df()["input_tokens"].sum() == tokens
    assert store.check()


def test_a_summary_of_what_stays_is_kept(store):
    """One of later runs stays with these."""
    a_session(store, "chat", runs=4)
    store.save_summary("chat", {"summary": "x", "last_run_index": 1})
    store.rewind_session("chat", after=2)
    assert store.get_session("chat").summary == {"summary": "x", "last_run_index": 1}
    store.rewind_session("chat", after=(1, 0))
    assert store.get_session("chat").summary is None
    assert store.get_session("chat~1").summary == {"summary": "x", "last_run_index": 1}


@pytest.mark.parametrize("point", [{"after": 3}, {"after": (3, 3)}])
def test_at_its_end_a_session_does_not_change(chat, point):
    """Also if the point is its last message."""
    assert len(load_session(chat, "chat").runs[3].messages) == 4
    before = all_rows(chat)
    assert chat.rewind_session("chat", **point).session_id == "chat"
    assert all_rows(chat) == before


def test_a_moved_run_is_not_stored_in_its_session_again(chat):
    """The error says so; a run of the line that was left is found by its reference there."""
    chat.rewind_session("chat", after=0)
    with pytest.raises(RunExists):
        chat.put_run("chat", a_run(run_id="chat-3"))
    with pytest.raises(RunNotFound):
        chat.locate("chat/3")
    assert chat.find_run("chat~1/3").run_id == "chat-3"


def test_what_cannot_be_rewound_is_refused(chat):
    """Nothing changes then."""
    chat.start_run("running", input="x", run_id="running")
    chat.pause_run(chat.start_run("paused", input="x").run_id, [Requirement(requirement_id="r", kind="user_input")])
    chat.claim("r", by="ann")
    chat.append_run("of ann", a_run(), user_id="ann")
    before = all_rows(chat)
    for error, session_id, options in (
        (RunOpen, "running", {"before": 0}),
        (RunOpen, "paused", {"before": 0}),
        (OwnerMismatch, "of ann", {"before": 0, "user_id": "bob"}),
        (SessionNotFound, "unknown", {"after": 0}),
        (RunNotFound, "chat", {"after": 7}),
        (MessageNotFound, "chat", {"after": (0, 99)}),
        (SessionExists, "chat", {"after": 0, "keep_as": "late"}),
        (BadUsage, "chat", {}),
        (BadUsage, "chat", {"after": 0, "before": 1}),
    ):
        with pytest.raises(error) as refused:
            chat.rewind_session(session_id, **options)
        assert refused.value.hint
        assert all_rows(chat) == before
    chat.finish_run("running", status="CANCELLED")
    chat.rewind_session("running", before=0)
    chat.rewind_session("of ann", before=0, user_id="ann")
    assert chat.get_session("of ann~1").user_id == "ann"


def test_an_import_goes_on_in_the_line_that_was_left(store, tmp_path):
    """A rewound session is the user's: importing its file again, or a longer one, neither fails nor changes it."""

    def write(n):
        turns = [{"role": role, "content": f"{role} {i}"} for i in range(n) for role in ("user", "assistant")]
        (tmp_path / "chat.json").write_text(f'{{"id": "chat", "messages": {turns}}}'.replace("'", '"'))

    write(3)
    store.ingest(tmp_path / "chat.json", progress=False)
    store.rewind_session("chat", after=0)
    store.append_run("chat", a_run("mine"))
    before = all_rows(store)
    report = store.ingest(tmp_path / "chat.json", progress=False)
    assert (report.errors, report.runs, all_rows(store)) == ([], 0, before)
    write(4)
    report = store.ingest(tmp_path / "chat.json", progress=False)
    assert (report.errors, report.runs) == ([], 1)
    assert inputs(load_session(store, "chat~1")) == [f"user {i}" for i in range(4)]
    assert inputs(load_session(store, "chat")) == ["user 0", "mine"]
    assert store.check()


def test_a_fork_of_a_chain_of_entries_shares_its_prefix(store):
    """However long the chain is, and wherever it is forked: a fork is one row, and what it adds are its own."""
    for number in range(5):
        message = Message(role="user", content=f"{number}", message_id=f"entry-{number}")
        store.append_run("chain", a_small_run(messages=[message]))
    counts = row_counts(store)
    for at in range(5):
        store.branch("chain", after=at, new_session_id=f"fork {at}")
    store.branch("fork 2", new_session_id="fork of a fork")
    assert row_counts(store) == counts | {"agno_sessions": counts["agno_sessions"] + 6}
    store.append_run("fork 2", a_small_run(messages=[Message(role="user", content="x", message_id="entry-x")]))

    def entries(session_id):
        return [message.message_id for run in load_session(store, session_id).runs for message in run.messages]

    assert entries("fork 2") == ["entry-0", "entry-1", "entry-2", "entry-x"]
    assert entries("fork of a fork") == ["entry-0", "entry-1", "entry-2"]
    assert row_counts(store)["agno_sessions_messages"] == 6
