"""Concurrent deletes in one tree: no branch without a parent, no row without a session."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from samples import a_run, a_session, inputs, load_session

from kern_nb.db import open_store


@pytest.mark.parametrize("branch_after", [0, None], ids=["of the parent's runs", "of its own"])
@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute"])
def test_concurrent_deletes_of_a_parent_and_its_branch(persistent_target, branch_after, moment):
    """A branch of a branch that is deleted together with its parent keeps its inherited rows."""
    with open_store(persistent_target) as store, open_store(persistent_target) as other:
        a_session(store)
        store.branch("chat", after=1, new_session_id="middle")
        store.append_run("middle", a_run("own"))
        store.branch("middle", after=branch_after, new_session_id="last")
        before = inputs(load_session(store, "last"))
        refused: list[Exception] = []

        def delete_the_branch() -> None:
            try:
                other.delete_session("middle", detach_branches=True)
            except Exception as error:  # noqa: BLE001 - looked at below
                refused.append(error)

        deleting = threading.Thread(target=delete_the_branch)

        @sa.event.listens_for(store.engine, moment)
        def meanwhile(connection, cursor, statement, *rest):
            """The parent's row is locked, and its branches are selected."""
            if "parent_session_id = " in statement and "SELECT" in statement and not deleting.ident:
                deleting.start()
                deleting.join(timeout=1.0)

        store.delete_session("chat", detach_branches=True)
        assert deleting.ident
        deleting.join()

        assert not refused
        assert [session.session_id for session in store.list_sessions()] == ["last"]
        assert inputs(load_session(store, "last")) == before
        assert not store.check().problems
