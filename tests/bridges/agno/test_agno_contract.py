"""The contract of Agno's databases for sessions, told by us: on Agno's own SqliteDb, and on ours on every engine.

Agno ships no tests of it. Its runs are in `test_agno_run_contract`; what it returns of agents' sessions, field by field, is in
`test_agno_sessions`.
"""

from __future__ import annotations

import contextlib
from copy import deepcopy
from typing import Any

import pytest
import sqlalchemy as sa

pytest.importorskip("agno.agent", reason="needs agno")

from agno.db.base import SessionType
from agno.run.base import RunStatus
from agno.session import TeamSession, WorkflowSession
from agno_agents import agent, call
from contract_values import SESSIONS, fill, ids, run, run_ids, session

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import SqliteDb

pytestmark = [
    pytest.mark.filterwarnings("ignore::kern_nb.bridges.agno.SaveFailed"),  # Agno logs what is not saved
    pytest.mark.filterwarnings("ignore:Type object:sqlalchemy.exc.SADeprecationWarning"),  # of Agno's search by title
]


@contextlib.contextmanager
def statements():
    """Record the SQL that is sent."""
    sent: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    yield sent
    sa.event.remove(sa.Engine, "before_cursor_execute", record)


def test_a_page_of_sessions_costs_as_many_statements_as_one(tmp_path):
    """A page is read in the same number of statements, however many sessions, runs and pauses it has."""
    with SqliteDb(tmp_path / "kern.db") as store:
        writer = AgnoDb(store)
        counts = []
        for stop in (1, 20):
            for index in range(0 if stop == 1 else 1, stop):
                fill(writer, f"s{index + 10}", user_id="ann")
                agent(writer, [[call("delete_file", path="x")]], session_id=f"p{index}").run("Delete it")
            db = AgnoDb(store)  # which has no runs in its cache
            with statements() as sent:
                rows, _ = db.get_sessions(deserialize=False)
            assert sum(len(row["runs"]) for row in rows) == 4 * stop
            assert all(row["runs"] == db.get_session(row["session_id"], deserialize=False)["runs"] for row in rows)
            counts.append(len(sent))
        assert counts[0] == counts[1] <= 10, sent
        store.branch("s10", after=1, new_session_id="branch")
        db = AgnoDb(store)
        branch = next(row for row in db.get_sessions(deserialize=False)[0] if row["session_id"] == "branch")
        assert len(branch["runs"]) == 2
        assert branch["runs"] == db.get_session("branch", deserialize=False)["runs"]


# Sessions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SESSIONS, ids=lambda kind: kind.value)
def test_a_session_of_each_type_comes_back(database, kind):
    saved = deepcopy(SESSIONS[kind])
    saved.session_data, saved.metadata = {"session_state": {"a": [1, None]}}, {"é": "\u2028"}
    returned = database.upsert_session(saved)
    assert type(returned) is type(saved)
    for loaded in (
        returned,
        database.get_session("s1"),
        database.get_session("s1", kind),
        database.get_sessions(kind)[0],
    ):
        assert type(loaded) is type(saved)
        assert loaded.session_data == saved.session_data
        assert loaded.metadata == saved.metadata
        assert loaded.created_at == 100
    row = database.get_session("s1", deserialize=False)
    assert (row["session_type"], row[f"{kind.value}_id"]) == (kind.value, getattr(saved, f"{kind.value}_id"))
    assert row[f"{kind.value}_data"] == getattr(saved, f"{kind.value}_data")


def test_a_session_that_does_not_exist(database):
    assert database.get_session("s1") is None
    assert database.get_session("s1", deserialize=False) is None
    assert database.get_sessions() == []
    assert database.get_sessions(deserialize=False) == ([], 0)
    assert database.rename_session("s1", SessionType.AGENT, "x") is None
    assert database.delete_session("s1") is False
    assert database.delete_sessions(["s1"]) is None
    database.upsert_session(session())
    assert database.get_session("s2") is None
    assert database.delete_session("s2") is False


def test_a_second_upsert_replaces_the_fields(database):
    database.upsert_session(session(session_data={"a": 1, "b": 2}, metadata={"x": 1}))
    loaded = database.get_session("s1")
    loaded.session_data, loaded.metadata = {"b": 3}, None
    database.upsert_session(loaded)
    again = database.get_session("s1")
    assert (again.session_data, again.metadata, again.created_at) == ({"b": 3}, None, 100)
    assert len(database.get_sessions()) == 1


def test_an_upsert_keeps_created_at_and_sets_updated_at(database):
    first = database.upsert_session(session(), deserialize=False)
    assert (first["created_at"], first["updated_at"]) == (100, 100)
    second = database.upsert_session(session(created_at=500), deserialize=False)
    assert second["created_at"] == 100
    assert second["updated_at"] > 1_000_000


def test_an_upsert_returns_the_runs_it_was_passed(database):
    runs = [run("r0")]
    assert database.upsert_session(session(runs=runs)).runs == runs
    assert run_ids(database.upsert_session(session(runs=runs), deserialize=False)["runs"]) == ["r0"]
    assert not database.get_session("s1").runs  # they are saved by `upsert_run`


def test_a_summary_comes_back(database):
    from agno.session.summary import SessionSummary

    database.upsert_session(session(summary=SessionSummary(summary="short", topics=["x"])))
    assert database.get_session("s1").summary.summary == "short"
    assert database.get_session("s1", deserialize=False)["summary"]["topics"] == ["x"]


def test_several_sessions_at_once(database):
    team = TeamSession(session_id="s2", team_id="t1", created_at=100, updated_at=77)
    saved = database.upsert_sessions([session(updated_at=55), team])
    assert sorted(ids(saved)) == ["s1", "s2"]
    rows = database.upsert_sessions([session(updated_at=55), team], deserialize=False, preserve_updated_at=True)
    assert {row["session_id"]: row["updated_at"] for row in rows} == {"s1": 55, "s2": 77}
    assert database.upsert_sessions([]) == []
    assert sorted(ids(database.get_sessions())) == ["s1", "s2"]


@pytest.mark.parametrize("deserialize", [True, False])
def test_renaming(database, deserialize):
    fill(database, count=1, session_data={"session_state": {"a": 1}}, user_id="ann")
    renamed = database.rename_session("s1", SessionType.AGENT, "Title", deserialize=deserialize)
    data = renamed.session_data if deserialize else renamed["session_data"]
    assert data == {"session_state": {"a": 1}, "session_name": "Title"}
    assert run_ids(renamed.runs if deserialize else renamed["runs"]) == ["r0"]
    assert database.get_session("s1").session_data == data
    assert database.rename_session("s1", None, "Again", user_id="ann").session_data["session_name"] == "Again"


def test_deleting_takes_the_runs_along(database):
    fill(database)
    fill(database, "s2")
    assert database.delete_session("s1") is True
    assert database.get_session("s1") is None
    assert database.get_run("r0") is None
    assert database.get_runs(session_id="s1") == []
    assert run_ids(database.get_session("s2").runs) == ["s2-r0", "s2-r1", "s2-r2"]
    fill(database, count=1)
    assert run_ids(database.get_session("s1").runs) == ["r0"]
    database.delete_sessions(["s1", "s2", "s3"])
    assert database.get_sessions() == []
    assert database.get_runs() == []


# Users --------------------------------------------------------------------------------------------------------------


def test_a_session_is_its_users(database):
    fill(database, count=1, user_id="ann")
    assert database.get_session("s1", user_id="bob") is None
    assert database.get_session("s1", user_id="ann").user_id == "ann"
    assert database.get_session("s1") is not None
    assert ids(database.get_sessions(user_id="ann")) == ["s1"]
    assert database.get_sessions(user_id="bob") == []
    assert database.rename_session("s1", SessionType.AGENT, "x", user_id="bob") is None
    assert database.delete_session("s1", user_id="bob") is False
    database.delete_sessions(["s1"], user_id="bob")
    assert run_ids(database.get_session("s1", user_id="ann").runs) == ["r0"]
    assert database.delete_session("s1", user_id="ann") is True


@pytest.mark.parametrize("user_id", ["bob", None])
def test_an_upsert_for_another_user_changes_nothing(database, user_id):
    database.upsert_session(session(user_id="ann", session_data={"a": 1}))
    assert database.upsert_session(session(user_id=user_id, session_data={"a": 2})) is None
    assert database.upsert_session(session(user_id=user_id, session_data={"a": 2}), deserialize=False) is None
    assert database.upsert_sessions([session(user_id=user_id, session_data={"a": 2})]) == []
    loaded = database.get_session("s1")
    assert (loaded.user_id, loaded.session_data) == ("ann", {"a": 1})


def test_a_session_without_a_user_is_claimed(database):
    database.upsert_session(session())
    assert database.upsert_session(session(user_id="ann")).user_id == "ann"
    assert database.get_session("s1", user_id="ann") is not None
    assert database.upsert_session(session(user_id="bob")) is None


def test_changing_the_user(database):
    fill(database, count=1, user_id="ann")
    assert database.reassign_session_owner("s1", previous_user_id="bob", user_id="cy") is False
    assert database.reassign_session_owner("s2", previous_user_id="ann", user_id="cy") is False
    assert database.reassign_session_owner("s1", previous_user_id="ann", user_id="cy") is True
    assert database.get_session("s1", user_id="ann") is None
    assert run_ids(database.get_session("s1", user_id="cy").runs) == ["r0"]
    assert database.reassign_session_owner("s1", previous_user_id="cy", user_id=None) is True
    assert database.get_session("s1").user_id is None


@pytest.mark.parametrize("status", [RunStatus.pending, RunStatus.running, RunStatus.paused], ids=lambda s: s.value)
def test_the_user_of_an_active_session_is_not_changed(database, status):
    fill(database, count=1, user_id="ann")
    database.upsert_run(run("r1", status=status), "s1", run_index=1)
    assert database.reassign_session_owner("s1", previous_user_id="ann", user_id="cy") is False
    assert database.get_session("s1", user_id="ann") is not None


# Lists of sessions --------------------------------------------------------------------------------------------------


def several(database: Any) -> None:
    for index, (user_id, title) in enumerate([("ann", "Paris"), ("bob", "Rome"), ("ann", "Paris, again"), (None, "x")]):
        data = {"session_name": title}
        database.upsert_session(
            session(f"s{index}", agent_id=f"a{index}", user_id=user_id, session_data=data, created_at=100 + index)
        )
    database.upsert_session(
        TeamSession(session_id="t", team_id="a0", session_data={"session_name": "Team"}, created_at=104)
    )
    database.upsert_session(WorkflowSession(session_id="w", workflow_id="w1", created_at=105))


FILTERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all": ({}, ["s0", "s1", "s2", "s3", "t", "w"]),
    "agents": ({"session_type": SessionType.AGENT}, ["s0", "s1", "s2", "s3"]),
    "teams": ({"session_type": SessionType.TEAM}, ["t"]),
    "workflows": ({"session_type": SessionType.WORKFLOW}, ["w"]),
    "user": ({"user_id": "ann"}, ["s0", "s2"]),
    "component": ({"component_id": "a0"}, ["s0", "t"]),
    "component of a type": ({"component_id": "a0", "session_type": SessionType.TEAM}, ["t"]),
    "workflow": ({"component_id": "w1", "session_type": SessionType.WORKFLOW}, ["w"]),
    "title": ({"session_name": "paris"}, ["s0", "s2"]),
    "part of a title": ({"session_name": "ari"}, ["s0", "s2"]),
    "no such title": ({"session_name": "Berlin"}, []),
    "from": ({"start_timestamp": 103}, ["s3", "t", "w"]),
    "until": ({"end_timestamp": 101}, ["s0", "s1"]),
    "from and until": ({"start_timestamp": 101, "end_timestamp": 102}, ["s1", "s2"]),
    "several": ({"user_id": "ann", "component_id": "a2", "session_name": "again"}, ["s2"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(database, name):
    several(database)
    filters, expected = FILTERS[name]
    assert sorted(ids(database.get_sessions(**filters))) == expected
    rows, total = database.get_sessions(**filters, deserialize=False)
    assert (sorted(ids(rows)), total) == (expected, len(expected))


@pytest.mark.parametrize("column", ["created_at", "updated_at", "session_id", "agent_id"])
def test_sorting(database, column):
    several(database)
    agents = {"session_type": SessionType.AGENT, "sort_by": column}
    assert ids(database.get_sessions(**agents, sort_order="asc")) == ["s0", "s1", "s2", "s3"]
    assert ids(database.get_sessions(**agents, sort_order="desc")) == ["s3", "s2", "s1", "s0"]
    assert ids(database.get_sessions(**agents)) == ["s3", "s2", "s1", "s0"]


def test_pages(database):
    several(database)
    options: dict[str, Any] = {"sort_by": "created_at", "sort_order": "asc", "deserialize": False}
    pages = [database.get_sessions(limit=4, page=page, **options) for page in (1, 2, 3)]
    assert [ids(rows) for rows, _ in pages] == [["s0", "s1", "s2", "s3"], ["t", "w"], []]
    assert {total for _, total in pages} == {6}
    assert ids(database.get_sessions(limit=2, sort_by="created_at", sort_order="asc")) == ["s0", "s1"]
    assert ids(database.get_sessions(sort_by="nothing like it")) != []


@pytest.mark.parametrize("page", [{"page": 1}, {"limit": 2, "page": 0}, {"limit": 2, "page": -1}], ids=str)
def test_pages_that_are_refused(database, page):
    for method in (database.get_sessions, database.get_runs):
        with pytest.raises(ValueError):  # noqa: PT011 - each database has its own words
            method(**page)


def test_lists_with_and_without_runs(database):
    fill(database)
    fill(database, "s2", count=1)
    by_id = {s.session_id: run_ids(s.runs) for s in database.get_sessions()}
    assert by_id == {"s1": ["r0", "r1", "r2"], "s2": ["s2-r0"]}
    assert all(not s.runs for s in database.get_sessions(include_runs=False))
    assert all(row["runs"] is None for row in database.get_sessions(include_runs=False, deserialize=False)[0])
    assert len(database.get_session("s1").runs) == 3
