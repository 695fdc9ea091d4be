"""Branches and runs exported without their parents are complete on their own."""

from __future__ import annotations

import pytest
from bundles import chat, exported, fill_store, frames_of, history_of, rows_of, runs_of

from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound
from kern_nb.records import Message, Requirement, Run, ToolCall


@pytest.fixture
def other(db):
    """The store that is imported into."""
    return db


def test_a_branch_without_its_parent_copies_inherited_runs(store, other, tmp_path):
    """Runs, history, state and files are equal; inherited usage is not counted twice, and copies name their origin."""
    fill_store(store)
    path = exported(store, tmp_path / "branch.json", "what-if")
    report = other.ingest(path)
    session, original = other.get_session("what-if"), store.get_session("what-if")

    assert report.errors == []
    assert report.sessions == 1
    assert repr(runs_of(other, "what-if")) == repr(runs_of(store, "what-if"))
    assert history_of(other, "what-if") == history_of(store, "what-if")
    assert session.session_state == original.session_state
    assert session.parent_session_id is None
    assert session.session_data["source"] == {
        "format": "bundle",
        "branch_of": "chat",
        "fork_run_index": 1,
        "fork_message_index": 2,
    }
    assert [run.run_id == old.run_id for run, old in zip(session.runs, original.runs, strict=True)] == [
        False,
        False,
        True,
    ]
    totals = ["total_tokens", "cost"]
    assert other.sessions_df().loc[0, totals].equals(store.sessions_df(["what-if"]).loc[0, totals])
    assert len(rows_of(other)["agno_sessions_blobs"]) == 1
    assert other.check().problems == []
    store.ingest(path)
    assert store.get_session("what-if") == original


def test_repeated_exports_of_a_branch_are_one_session(store, other, tmp_path):
    """Exported twice and imported twice, it is one session, with the runs added in between."""
    fill_store(store)
    other.ingest(exported(store, tmp_path / "branch.json", "what-if"))
    before = rows_of(other)

    assert other.ingest(exported(store, tmp_path / "again.json", "what-if")).skipped == 1
    assert rows_of(other) == before
    store.append_run("what-if", chat("later"))
    report = other.ingest(exported(store, tmp_path / "later.json", "what-if"))
    assert (report.sessions, report.runs, report.errors) == (0, 1, [])
    assert repr(runs_of(other, "what-if")) == repr(runs_of(store, "what-if"))


@pytest.mark.parametrize("names", [("deeper", "what-if"), ("deepest", "deeper"), ("deepest", "what-if", "deeper")])
def test_branches_of_an_exported_branch_stay_branches(store, other, tmp_path, names):
    """If their parent is exported with them, in any order."""
    fill_store(store)
    report = other.ingest(exported(store, tmp_path / "some.json", *names))

    assert report.errors == []
    linked = [name for name in names if store.get_session(name).parent_session_id in names]
    for name in names:
        parent = store.get_session(name).parent_session_id
        assert other.get_session(name).parent_session_id == (parent if name in linked else None)
        assert repr(runs_of(other, name)) == repr(runs_of(store, name))
        assert history_of(other, name) == history_of(store, name)
    assert len(linked) == len(names) - 1
    assert other.check().problems == []


def test_a_branch_point_between_call_and_result_is_preserved(store, other, tmp_path):
    """The copied call has no result, and its run no output."""
    store.append_run("chat", chat("one", status="ERROR", error="later", finished_at=None))
    store.branch("chat", after=(0, 1), new_session_id="cut")
    store.append_run("cut", chat("two"))
    other.ingest(exported(store, tmp_path / "cut.json", "cut"))
    run, original = other.get_session("cut").runs[0], store.get_session("cut").runs[0]

    assert (run.output, run.error, len(run.messages)) == (None, None, 2)
    assert run.tool_calls == original.tool_calls
    assert run.tool_calls[0].status == "unknown"
    assert history_of(other, "cut") == history_of(store, "cut")


def test_resolved_requirements_of_inherited_runs_are_copied(store, other, tmp_path):
    """The copy has the answered requirement, with its own id."""
    requirement = Requirement(kind="user_input", status="resolved", answer="yes", resolved_by="ann")
    store.append_run("chat", chat("one", requirements=[requirement]))
    store.branch("chat", new_session_id="copy")
    other.ingest(exported(store, tmp_path / "both.json", "copy"))
    [copy] = other.get_session("copy").runs[0].requirements

    assert (copy.answer, copy.resolved_by, copy.session_id) == ("yes", "ann", "copy")
    assert copy.requirement_id != requirement.requirement_id
    store.ingest(exported(other, tmp_path / "back.json"))
    assert len(rows_of(store)["agno_sessions_requirements"]) == 1


def test_a_single_exported_run_becomes_a_session(store, other, tmp_path):
    """With its score, state and files, beside the session it is from; its usage counts."""
    fill_store(store)
    path = exported(store, tmp_path / "run.json", "chat/1")
    report = other.ingest(path)
    session = other.get_session("chat-run-1")
    [run] = session.runs
    original = store.get_session("chat").runs[1]
    ids = {"run_id", "session_id", "run_index", "requirements"}

    assert report.errors == []
    assert repr(run.model_dump(exclude=ids)) == repr(original.model_dump(exclude=ids))
    assert (run.run_index, run.requirements[0].answer) == (0, original.requirements[0].answer)
    assert session.session_data["source"] == {
        "format": "bundle",
        "run_of": "chat",
        "run_index": 1,
        "run_id": original.run_id,
    }
    assert (session.user_id, session.parent_session_id) == ("alice", None)
    assert list(other.scores_df()["name"]) == ["tone"]
    assert other.sessions_df()["total_tokens"][0] == 4
    assert len(rows_of(other)["agno_sessions_blobs"]) == 1
    assert store.ingest(path).errors == []
    assert len(store.get_session("chat-run-1").runs) == 1
    assert store.ingest(path).skipped == 1


def test_an_exported_run_includes_its_members_runs(store, other, tmp_path):
    """Runs of members are part of it; other runs of the session are not."""
    store.append_run("team", chat("before"))
    top = store.append_run("team", chat("top", run_type="team", team_id="desk"))
    store.append_run("team", chat("beside"))
    store.append_run("team", chat("member", parent_run_id=top.run_id))
    other.ingest(exported(store, tmp_path / "run.json", "team/1"))
    session = other.get_session("team-run-1")

    assert [run.input for run in session.runs] == ["top", "member"]
    assert session.runs[1].parent_run_id == session.runs[0].run_id
    assert (session.session_type, session.team_id) == ("team", "desk")
    assert history_of(other, "team-run-1")[0][1] == "top"


def test_a_members_run_and_an_inherited_run_can_be_exported(store, other, tmp_path):
    """As the session sees them: a run cut by the branch point ends there."""
    top = store.append_run("team", chat("top"))
    store.append_run("team", chat("member", parent_run_id=top.run_id))
    store.branch("team", after=(0, 0), new_session_id="cut")
    other.ingest(exported(store, tmp_path / "run.json", "team/1", "cut/0"))

    assert history_of(other, "team-run-1")[0][1] == "member"
    assert history_of(other, "cut-run-0") == [("user", "top", [])]


def test_branches_of_a_damaged_parent_are_stored_and_reported(store, other, tmp_path):
    """They lack inherited runs only; importing the intact bundle repairs them."""
    fill_store(store)
    path = exported(store, tmp_path / "all.json")
    bundle_text = path.read_text()
    lines = bundle_text.split("\n")
    parent = next(n for n, line in enumerate(lines) if line.startswith('{"session": {"session_id": "chat"'))
    broken = tmp_path / "broken.json"
    broken.write_text("\n".join([*lines[:parent], lines[parent][:-100], *lines[parent + 1 :]]))
    report = other.ingest(broken)

    assert report.sessions == 6
    assert report.errors[0].line == parent + 1
    named = {problem.reason.split("'")[1] for problem in report.errors[1:]}
    assert named == {"what-if", "deeper"}
    assert [run.input for run in other.get_session("what-if").runs] == ["other"]
    assert other.ingest(path).errors == []
    for name, frame in frames_of(store).items():
        assert frames_of(other)[name].equals(frame), name
    assert history_of(other, "deeper") == history_of(store, "deeper")


def test_a_branch_of_a_different_parent_is_refused(store, other, tmp_path):
    """If the stored session of the parent's id is a different one, the branch is not imported either."""
    store.append_run("chat", chat("one"))
    store.branch("chat", new_session_id="branch")
    other.append_run("chat", chat("another"))
    report = other.ingest(exported(store, tmp_path / "both.json"))

    assert [problem.line for problem in report.errors] == [2, 3]
    assert "'chat'" in report.errors[1].reason
    assert list(other.sessions_df()["session_id"]) == ["chat"]


def test_unknown_references_are_refused(store, tmp_path):
    """By name, before anything is written; a message is not a session."""
    store.append_run("chat", Run(messages=[Message(role="user", content="x", tool_calls=[ToolCall(tool_name="t")])]))
    for error, reference in ((SessionNotFound, "nobody"), (RunNotFound, "chat/7"), (BadUsage, "chat/0.0")):
        with pytest.raises(error):
            exported(store, tmp_path / "x.json", "chat", reference)
    assert list(tmp_path.glob("*.json")) == []
