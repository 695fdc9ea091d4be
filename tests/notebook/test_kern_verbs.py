"""The verbs of `%kern` on every engine: each gives what one call of a script gives."""

from __future__ import annotations

import pandas as pd
import pytest

import kern_nb
from kern_nb.errors import BadUsage, RecordsNotFound, SessionExists
from kern_nb.magics.verb import FRAMES
from kern_nb.records import Message, Run, Session


def test_verbs_that_change_the_attached_stores_are_silent(notebook):
    """attach, use and detach give no value and print nothing."""
    for line in ("%kern attach a.duckdb", "%kern attach b.db --as other", "%kern use a", "%kern detach other"):
        assert notebook.run(line) is None
        assert notebook.printed(line.replace("detach other", "detach a")) == ""


def test_attach_takes_its_options(notebook):
    """`--as`, `--read-only` and `--table` reach the store."""
    notebook.run("%kern attach a.db --table workload")
    kern_nb.current_store().append_run("chat", Run(input="x"))
    notebook.run("%kern attach 'a.db' --as reader --read-only --table workload")

    reader = kern_nb.current_store()

    assert reader.read_only
    assert reader.tables.name == "workload"
    assert len(reader.list_sessions()) == 1


@pytest.mark.every_engine
def test_sessions_lists_and_filters(notebook, chats):
    """The table has one row a session with its totals; user, agent, title, status and number narrow it."""
    table = notebook.run("%kern sessions")

    assert set(table.df["session_id"]) == {"alpha", "alps"}
    assert table.df.set_index("session_id").loc["alpha", "total_tokens"] == 45
    chats.rename_session("alps", "Winter trip")
    for line, expected in (
        ("--user alice", ["alpha"]),
        ("--agent clerk --user bob", ["alps"]),
        ("--name wint", ["alps"]),
        ("--status completed --user bob", ["alps"]),
        ("--status ERROR", []),
    ):
        assert list(notebook.run(f"%kern sessions {line}").df["session_id"]) == expected
    assert len(notebook.run("%kern sessions --last 1")) == 1
    assert notebook.run("%kern sessions --last 1").more
    assert not notebook.run("%kern sessions --last 2").more


@pytest.mark.every_engine
def test_load_returns_a_dataframe(notebook, chats):
    """`df = %kern load ...` is the frame of the store, nothing else."""
    chats.add_score("alpha", "reward", 1.0)

    for frame in FRAMES:
        notebook.run(f"df = %kern load {frame}")

        df = notebook.shell.user_ns["df"]
        assert type(df) is pd.DataFrame
        pd.testing.assert_frame_equal(df, getattr(chats, f"{frame}_df")())


def test_load_takes_filters_and_prefixes(notebook, chats):
    """Filters are the store's; a session may be named by a unique prefix."""
    assert set(notebook.run("%kern load runs --session alph")["session_id"]) == {"alpha"}
    assert len(notebook.run("%kern load messages --user bob")) == 4
    assert len(notebook.run("%kern load runs --agent clerk --limit 2")) == 2
    assert len(notebook.run("%kern load runs --since 2026-01-01 --until 2026-01-05")) == 0
    assert len(notebook.run("%kern load runs --until 2026-01-01")) == 0


def test_load_lineage_adds_inherited_rows(notebook, chats):
    """With `--lineage` the inherited rows are there, and marked."""
    notebook.run("%kern branch alpha/1 --as what-if")

    df = notebook.run("%kern load runs --session what-if --lineage")

    assert list(df["run_index"]) == [0, 1]
    assert df["inherited"].all()
    assert len(notebook.run("%kern load runs --session what-if")) == 0


def test_a_semicolon_hides_the_value(notebook, chats):
    """At the end of the line, also after a date, which is no Python."""
    assert notebook.run("%kern sessions;") is None
    assert notebook.run("%kern load runs --since 2026-01-05 ; ") is None
    assert notebook.run("%kern sessions --name ';'") is not None


def test_branch_accepts_a_session_a_run_or_a_message(notebook, chats):
    """The end, after or before a run, after or before a message; nothing but one session is new."""
    rows = "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM messages) AS n"
    before = chats.sql(rows)["n"][0]

    for line, fork in (
        ("alpha", (2, None)),
        ("alpha/0", (0, None)),
        ("alpha/1.2", (1, 2)),
        ("alpha/1 --before", (0, None)),
        ("alpha/1.2 --before", (1, 1)),
        ("alpha/0 --before", (-1, None)),
    ):
        new = notebook.run(f"%kern branch {line}")

        assert type(new) is Session
        assert new.parent_session_id == "alpha"
        assert (new.fork_run_index, new.fork_message_index) == fork

    assert len(chats.list_sessions()) == 2 + 6
    assert chats.sql(rows)["n"][0] == before


def test_branch_as_sets_the_id_and_the_title(notebook, chats):
    """`--as what-if` is its id and its title, so that the next line can name it; a taken id is refused."""
    new = notebook.run("%kern branch alpha/0 --as what-if")

    assert (new.session_id, new.session_name) == ("what-if", "what-if")
    assert len(notebook.run("%kern show what-if").runs) == 1
    error, lines = notebook.fails("%kern branch alpha/0 --as what-if")
    assert type(error) is SessionExists
    assert len(lines) == 2


def test_rewind_moves_the_head_and_keeps_the_rest(notebook, chats):
    """After or before a run or a message, under the id that a person names; a session alone is refused."""
    session = notebook.run("%kern rewind alpha/1.2 --keep-as first-try")
    assert (session.session_id, session.parent_session_id) == ("alpha", "first-try")
    assert "What followed is kept in first-try." in session._repr_html_()
    assert [len(run.messages) for run in notebook.run("%kern show alpha").runs][1:] == [3]
    assert len(notebook.run("%kern show first-try").runs) == 3
    notebook.run("%kern rewind alpha/1 --before")
    assert len(notebook.run("%kern show alpha").runs) == 1
    error, lines = notebook.fails("%kern rewind alpha")
    assert type(error) is BadUsage
    assert lines[1].endswith("For example: %kern rewind alpha/0")


def test_show_returns_a_session_a_run_or_the_end_of_a_run(notebook, chats):
    """The transcript holds what the reference names, and its frames hold the same."""
    whole, run, part = (notebook.run(f"%kern show {ref}") for ref in ("alpha", "alpha/1", "alpha/1.2"))

    assert [r.run_index for r in whole.runs] == [0, 1, 2]
    assert [len(t.messages) for t in (whole, run, part)] == [12, 4, 2]
    assert [len(t.tool_calls) for t in (whole, run)] == [3, 1]
    assert "question 1" in repr(run)
    assert "question 0" not in repr(run)
    assert "question 1" not in repr(part)
    assert "answer 1" in part._repr_html_()


def test_show_of_a_run_includes_its_members(notebook, chats):
    """And theirs; from a message on, only the run itself."""
    owner = chats.append_run("alps", Run(input="find out", messages=[Message(role="user", content="find out")]))
    member = chats.append_run("alps", Run(input="look", output="seen", parent_run_id=owner.run_id))
    chats.append_run("alps", Run(input="look closer", output="seen", parent_run_id=member.run_id))

    transcript = notebook.run("%kern show alps/1")

    assert [run.run_index for run in transcript.runs] == [1, 2, 3]
    assert "member of run 1" in repr(transcript)
    assert "member of run 2" in transcript._repr_html_()
    assert [run.run_index for run in notebook.run("%kern show alps/1.0").runs] == [1]
    assert [run.run_index for run in notebook.run("%kern show alps/2").runs] == [2, 3]


def test_show_marks_inherited_rows(notebook, chats):
    """The parent's runs are marked, the branch's own are not."""
    notebook.run("%kern branch alpha/0 --as what-if")
    chats.append_run("what-if", Run(input="other", output="else"))

    transcript = notebook.run("%kern show what-if")

    assert repr(transcript).count("inherited from alpha") == 1
    assert transcript._repr_html_().count("inherited from alpha") == 1
    assert list(transcript.messages["inherited"]) == [True] * 4


def test_check_reports_and_repairs(notebook, chats):
    """It returns the report of the store; `--repair` repairs."""
    assert notebook.run("%kern check")
    run = chats.start_run("alpha", input="x")
    with chats.connect(write=True) as connection:
        runs = chats.tables.runs
        connection.execute(runs.update().where(runs.c.run_id == run.run_id).values(process="elsewhere:1:1"))

    report = notebook.run("%kern check")

    assert [problem.kind for problem in report.problems] == ["running elsewhere"]
    assert "running elsewhere" in report._repr_html_()
    notebook.run("%kern check --repair")


def test_check_interrupts_the_runs_of_hosts_that_no_longer_exist(notebook, chats):
    """`--hosts-gone` is repeatable, and other hosts' runs are left alone."""
    hosts = ("3f2a9c41d0be", "77aa01", "alive")
    runs = {host: chats.start_run("alpha", input=host).run_id for host in hosts}
    r = chats.tables.runs
    for host, run_id in runs.items():
        chats.write(
            lambda c, host=host, run_id=run_id: c.execute(
                r.update().where(r.c.run_id == run_id).values(process=f"{host}:1:1")
            )
        )

    report = notebook.run("%kern check --repair --hosts-gone 3f2a9c41d0be --hosts-gone 77aa01")

    kinds = {problem.run_id: (problem.kind, problem.repaired) for problem in report.problems}
    assert [kinds[runs[host]] for host in hosts] == [
        ("interrupted", True),
        ("interrupted", True),
        ("running elsewhere", False),
    ]
    assert [chats.get_run(runs[host]).status for host in hosts] == ["INTERRUPTED", "INTERRUPTED", "RUNNING"]


def test_import_takes_files_folders_and_patterns(notebook, tmp_path):
    """Several paths, quoted ones, patterns and ~, in one report; again changes nothing."""
    folder = tmp_path / "work" / "some chats"
    folder.mkdir()
    for i in range(3):
        line = f'{{"messages": [{{"role": "user", "content": "q{i}"}}, {{"role": "assistant", "content": "a{i}"}}]}}'
        (folder / f"c{i}.jsonl").write_text(line + "\n", encoding="utf-8")
    notebook.run("%kern attach a.duckdb")

    report = notebook.run("%kern import 'some chats/c0.jsonl' \"some chats/c[12]*\" --format chat")

    assert (report.sessions, report.messages, report.errors) == (3, 6, [])
    assert notebook.run("%kern import 'some chats'").skipped == 3
    assert len(notebook.run("%kern sessions")) == 3
    assert "already stored" in report._repr_html_()


def test_import_resolves_every_path_first(notebook, tmp_path):
    """Where one path is wrong, none is read."""
    (tmp_path / "work" / "c.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}]}\n', encoding="utf-8")
    notebook.run("%kern attach a.duckdb")

    error, lines = notebook.fails("%kern import c.jsonl nope.jsonl")

    assert type(error) is RecordsNotFound
    assert len(lines) == 2
    assert not (tmp_path / "work" / "a.duckdb").exists()


def test_a_variable_is_replaced_by_its_value(notebook, chats):
    """`$name`, and `$name/2` for a run of it: as it is, spaces and quotes included; a session stands for its id."""
    odd = 'it\'s "odd" $x; --user'
    chats.append_run(odd, Run(input="x", output="y"))
    notebook.shell.user_ns.update(odd=odd, chat="alpha", n=1)
    notebook.run("branch = %kern branch $chat/1 --as what-if")

    assert notebook.run("%kern show $odd").session.session_id == odd
    assert [run.run_index for run in notebook.run("%kern show $chat/1").runs] == [1]
    assert notebook.run("%kern show $branch").session.session_id == "what-if"
    assert len(notebook.run("%kern sessions --last $n")) == 1
    for line in ("%kern show $nothing", "%kern show $_missing/2"):
        error, lines = notebook.fails(line)
        assert type(error) is BadUsage
        assert len(lines) == 2
    notebook.shell.user_ns["df"] = pd.DataFrame()
    error, _ = notebook.fails("%kern show $df")
    assert "got DataFrame" in str(error)


def test_the_store_option_selects_another_store(notebook, chats):
    """Every reading and writing verb takes `--store`; the store in use stays in use."""
    notebook.run("%kern attach :memory: --as empty")

    assert len(notebook.run("%kern sessions")) == 0
    assert len(notebook.run("%kern sessions --store chats")) == 2
    assert len(notebook.run("%kern load runs --store chats")) == 4
    assert notebook.run("%kern show alpha --store chats").session.session_id == "alpha"
    assert notebook.run("%kern branch alpha --store chats").parent_session_id == "alpha"
    assert notebook.run("%kern check --store chats")
    assert notebook.run("%kern_sql --store chats SELECT count(*) AS n FROM sessions")["n"][0] == 3
    assert kern_nb.current_store().url.endswith(":memory:")


def test_a_script_does_the_same_in_one_call(notebook, chats):
    """What the magics give, `kern_nb.sessions` and `kern_nb.show` give."""
    assert kern_nb.sessions(user_id="alice").df["session_id"][0] == "alpha"
    assert repr(kern_nb.show("alpha/1")) == repr(notebook.run("%kern show alpha/1"))
    assert kern_nb.show("alps", store=chats).session == kern_nb.show("alps", store="chats").session


def test_rename_and_tag_change_a_session(notebook, chats):
    """By a unique prefix; the value is the session. A run has neither title nor tags."""
    assert notebook.run('%kern rename alph "Broken mugs"').session_name == "Broken mugs"
    assert notebook.run('%kern tag alpha refund "to do"').metadata == {"tags": ["refund", "to do"]}
    assert chats.get_session("alpha").session_name == "Broken mugs"
    notebook.run("%kern tag alpha")
    assert chats.get_session("alpha").metadata is None
    error, lines = notebook.fails("%kern rename alpha/0 x")
    assert isinstance(error, BadUsage)
    assert len(lines) == 2
