"""Chains of hundreds of branches: read as quickly as their messages, on every engine, and cut at their branch points."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from kern_nb.db import mapping
from kern_nb.db.lineage import load_lineage
from kern_nb.records import Message, Run, Session

LENGTH = 600


def link(store, length):
    """Write a chain of branches; every fifth cuts a run of two messages."""
    messages = [Message(role="user", content="question"), Message(role="assistant", content="answer")]
    made = {"sessions": [], "runs": [], "messages": []}
    for index in range(length):
        session_id = f"s{index}"
        inside = 0 if index % 5 == 0 else None
        fork = {"parent_session_id": f"s{index - 1}", "fork_run_index": index - 1, "fork_message_index": inside}
        session = Session(session_id=session_id, created_at=index, **(fork if index else {}))
        made["sessions"].append(mapping.session_row(session))
        run = mapping.run_rows(Run(messages=messages), session_id)
        for row in (run.run, *run.messages):
            row["run_index"] = index
        made["runs"].append(dict.fromkeys(store.tables.runs.c.keys()) | run.run)
        made["messages"] += run.messages

    def write(connection):
        for name, table_rows in made.items():
            store.insert_rows(connection, getattr(store.tables, name), table_rows)

    store.write(write)
    return f"s{length - 1}"


@pytest.fixture
def chain(store):
    """The last of a chain of branches."""
    return link(store, LENGTH)


def test_a_long_chain_is_readable(store, chain):
    """Everything that reads a branch with hundreds of ancestors; a cut run has one message."""
    cut = len([index for index in range(1, LENGTH) if index % 5 == 0])
    expected = 2 * LENGTH - cut

    session = store.get_session(chain)
    assert [run.run_index for run in session.runs] == list(range(LENGTH))
    assert sum(len(run.messages) for run in session.runs) == expected
    assert len(session.runs[4].messages) == 1
    assert len(store.history(chain)) == expected
    assert len(store.history(chain, last_messages=7)) == 7
    assert len(store.messages_df(chain, lineage=True)) == expected
    runs = store.runs_df(chain, lineage=True)
    assert runs.inherited.sum() == LENGTH - 1
    assert [run.run_index for run in store.session_runs(chain, start=300, limit=3)] == [300, 301, 302]
    assert store.locate(f"{chain}/17").run_index == 17
    assert store.branch(chain, after=250).fork_run_index == 250
    assert store.check().problems == []


def test_rows_after_a_branch_point_are_not_in_a_long_chain(store, chain):
    """Rows of an ancestor after the branch point are not inherited."""
    before = len(store.history(chain))
    store.append_run("s3", Run(messages=[Message(role="user", content="later")]))

    assert len(store.history(chain)) == before
    assert "later" not in set(store.messages_df(chain, lineage=True).content)
    assert store.history("s3")[-1].content == "later"


def test_a_chain_needs_few_statements(store, chain):
    """Resolving it needs no statement per branch."""
    statements = []

    @sa.event.listens_for(store.engine, "before_cursor_execute")
    def note(*event):
        statements.append(event[2])

    store.history(chain)

    assert len(statements) < 20


def test_conditions_of_a_long_chain_do_not_share_a_statement(store, chain):
    """All its runs and those that are cut are two statements, though their parameters are the same."""
    r, s = store.tables.runs, store.tables.sessions

    def count(part):
        with store.read_connection() as connection:
            row = connection.execute(sa.select(s).where(s.c.session_id == chain)).mappings().one()
            condition = getattr(load_lineage(connection, store.tables, row), part)(r)
            return connection.execute(sa.select(sa.func.count()).select_from(r).where(condition)).scalar()

    assert count("runs") == LENGTH
    assert count("is_cut") == len([index for index in range(1, LENGTH) if index % 5 == 0])
