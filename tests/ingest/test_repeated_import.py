"""A repeated import writes new and corrected records only, and the user's changes stay."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from kern_nb.records import Message, Run

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")


def turn(n, answer="answer"):
    """A user's turn and its answer."""
    return [
        {"role": "user", "content": f"question {n}", "timestamp": f"2025-08-01T10:0{n}:00"},
        {"role": "assistant", "content": f"{answer} {n}", "timestamp": f"2025-08-01T10:0{n}:30"},
    ]


@pytest.fixture
def write(tmp_path):
    """Write a tau2 result file, over the one before: one simulation with so many turns, each with its answers."""

    def write(*turns, reward=1.0, **other):
        simulation = {
            "id": "sim",
            "task_id": "1",
            "messages": [message for one in turns for message in one],
            "reward_info": {"reward": reward},
        } | other
        path = tmp_path / "runs.json"
        path.write_text(json.dumps({"info": {"agent_info": {"llm": "m"}}, "simulations": [simulation]}))
        return path

    return write


def frames_of(store):
    return {name: getattr(store, name)() for name in FRAMES}


def inputs(store, session_id="sim"):
    return [run.input for run in store.get_session(session_id).runs]


def test_new_runs_of_a_file_are_added(store, write):
    """Rows of stored runs stay."""
    store.ingest(write(turn(0), turn(1)))
    before = store.runs_df()
    report = store.ingest(write(turn(0), turn(1), turn(2)))

    assert (report.sessions, report.runs, report.messages, report.skipped) == (0, 1, 2, 0)
    assert inputs(store) == ["question 0", "question 1", "question 2"]
    pd.testing.assert_frame_equal(store.runs_df()[:2], before)


def test_a_run_with_more_messages_is_replaced(store, write):
    """The last run of an incomplete file gets its later messages."""
    store.ingest(write(turn(0), turn(1)[:1]))
    run_id = store.runs_df()["run_id"].iloc[1]
    report = store.ingest(write(turn(0), turn(1), turn(2)))

    assert (report.runs, report.messages) == (2, 4)
    assert list(store.runs_df()["n_messages"]) == [2, 2, 2]
    assert store.runs_df()["run_id"].iloc[1] == run_id


def test_a_corrected_run_is_replaced(store, write):
    """Only the run whose record changed is written."""
    store.ingest(write(turn(0), turn(1), turn(2)))
    report = store.ingest(write(turn(0), turn(1, "better"), turn(2)))

    assert report.runs == 1
    assert list(store.runs_df()["output"]) == ["answer 0", "better 1", "answer 2"]
    assert len(store.messages_df()) == 6


def test_a_corrected_session_updates_its_row_and_scores(store, write):
    """A new reward replaces the old one; metadata is updated."""
    store.ingest(write(turn(0), reward=0.0, termination_reason="user_stop"))
    report = store.ingest(write(turn(0), reward=1.0, termination_reason="agent_stop"))
    scores = store.scores_df()

    assert (report.sessions, report.runs, report.skipped) == (0, 0, 0)
    assert list(scores["value"]) == [1.0]
    assert store.get_session("sim").metadata["termination_reason"] == "agent_stop"


def test_a_score_missing_from_the_source_is_deleted(store, write):
    """Scores are those of the latest version of the source."""
    store.ingest(write(turn(0), reward=1.0))
    store.ingest(write(turn(0), reward=None))

    assert store.scores_df().empty


def test_a_shorter_file_deletes_nothing(store, write):
    """An older copy of a file deletes no runs."""
    store.ingest(write(turn(0), turn(1)))
    report = store.ingest(write(turn(0)))

    assert report.runs == 0
    assert inputs(store) == ["question 0", "question 1"]


def test_changes_of_the_user_stay(store, write):
    """Titles, scores, metadata, branches and own runs survive the import of a corrected file."""
    store.ingest(write(turn(0), turn(1)))
    store.rename_session("sim", "The good one")
    store.add_score("sim", "helpful", 4, source="ann")
    run_id = store.runs_df()["run_id"].iloc[0]
    store.add_score("sim", "helpful", 5, run_id=run_id, source="ann")
    store.branch("sim", after=0, new_session_id="what-if")
    store.append_run("what-if", Run(input="else?", messages=[Message(role="user", content="else?")]))
    store.append_run("sim", Run(input="mine", messages=[Message(role="user", content="mine")]))
    session = store.get_session("sim")
    session.metadata["checked"] = True
    store.save_session(session)
    report = store.ingest(write(turn(0, "better"), turn(1), reward=0.5))
    session = store.get_session("sim")

    assert (report.runs, report.errors) == (1, [])
    assert session.session_name == "The good one"
    assert session.metadata["checked"] is True
    assert inputs(store) == ["question 0", "question 1", "mine"]
    assert inputs(store, "what-if") == ["question 0", "else?"]
    assert store.get_session("what-if").runs[0].output == "better 0"
    assert sorted(store.scores_df()["value"]) == [0.5, 4, 5]


def test_a_source_run_after_a_run_of_the_user_is_stored_in_a_branch(store, write):
    """The session continued here and in its source: both are kept, and share what they have in common."""
    store.ingest(write(turn(0)))
    store.append_run("sim", Run(input="mine", messages=[Message(role="user", content="mine")]))
    report = store.ingest(write(turn(0), turn(1)))
    again = store.ingest(write(turn(0), turn(1)))

    assert (report.sessions, report.branches, report.runs, report.errors) == (1, 1, 1, [])
    assert (again.sessions, again.runs, again.errors) == (0, 0, [])
    assert inputs(store) == ["question 0", "mine"]
    [branch] = [name for name in store.sessions_df()["session_id"] if name != "sim"]
    assert inputs(store, branch) == ["question 0", "question 1"]


def test_a_branch_of_the_same_id_is_not_overwritten(store, write):
    """An id used by a branch is reported."""
    store.append_run("mine", Run(input="x", messages=[Message(role="user", content="x")]))
    store.branch("mine", new_session_id="sim")
    report = store.ingest(write(turn(0)))

    assert len(report.errors) == 1
    assert inputs(store) == ["x"]


def chats(path, *answers, **other):
    """One conversation a line; each with an id that means nothing outside its file."""
    path.parent.mkdir(exist_ok=True)
    lines = [
        {"id": n, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": a}], **other}
        for n, a in enumerate(answers)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_equal_ids_in_two_files_are_not_mixed(store, tmp_path):
    """Ids like 0 and 1 are local to a file: those of another file are reported and replace nothing."""
    store.ingest(chats(tmp_path / "one" / "c.jsonl", "a", "b"))
    report = store.ingest(chats(tmp_path / "two" / "c.jsonl", "a", "other"))

    assert report.skipped == 1, "the same record is the same session, wherever its file is"
    assert [problem.line for problem in report.errors] == [2]
    assert store.get_session("1").runs[0].output == "b"


def test_a_corrected_chat_file_replaces_the_run(store, tmp_path):
    """The same file with another answer."""
    store.ingest(chats(tmp_path / "c.jsonl", "a", "b"))
    report = store.ingest(chats(tmp_path / "c.jsonl", "a", "better", "new"))

    assert (report.sessions, report.runs, report.skipped, report.errors) == (1, 2, 1, [])
    assert store.get_session("1").runs[0].output == "better"


def test_a_new_line_in_a_file_of_messages_is_added(store, tmp_path):
    """A file with one message per line grows message by message."""
    path = tmp_path / "log.jsonl"
    lines = [json.dumps(message) for message in (*turn(0), *turn(1))]
    for n in range(1, 5):
        path.write_text("\n".join(lines[:n]))
        assert not store.ingest(path).errors
    path.write_text("\n".join(lines))

    assert store.ingest(path).skipped == 1
    assert inputs(store, "log") == ["question 0", "question 1"]
    assert len(store.messages_df()) == 4


def test_a_late_result_updates_the_run_of_its_call(store, tmp_path):
    """A result in a later run belongs to its call, so the run of the call is written again."""
    call = {"id": "c", "function": {"name": "look", "arguments": "{}"}}
    first = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]
    later = [{"role": "user", "content": "well?"}, {"role": "tool", "tool_call_id": "c", "content": "found"}]
    path = tmp_path / "late.jsonl"
    for messages in (first, first + later):
        path.write_text(json.dumps(messages))
        store.ingest(path)

    assert list(store.tool_calls_df()["result"]) == ["found"]
    assert store.ingest(path).skipped == 1


def test_two_processes_importing_the_same_file_store_it_once(persistent_target, write):
    """Each session is stored by one process and skipped by the other; neither fails."""
    import subprocess
    import sys

    from kern_nb.db import open_store

    path = write(*(turn(n) for n in range(5)))
    code = "import sys; from kern_nb.db import open_store; print(open_store(sys.argv[1]).ingest(sys.argv[2]))"
    command = [sys.executable, "-W", "error", "-c", code, persistent_target, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(text.startswith("Stored 1 session, 5 runs") for text in outputs) == 1
    assert sum("skipped 1 session already stored" in text for text in outputs) == 2
    with open_store(persistent_target) as store:
        assert len(store.messages_df()) == 10
        assert len(store.scores_df()) == 1
