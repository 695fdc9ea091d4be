"""Lists of sessions: newest first, page by page, each filter alone and all together."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from samples import a_session, a_small_run, statements

from kern_nb.db import SessionStore
from kern_nb.errors import BadUsage
from kern_nb.records import Session


def pages(
    store: SessionStore, limit: int, between: Callable[[], Any] = lambda: None, **filters: Any
) -> list[list[str]]:
    """The ids of all pages."""
    found = []
    cursor = None
    while True:
        page = store.list_sessions(limit=limit, cursor=cursor, **filters)
        found.append([session.session_id for session in page])
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(found) < 1000, "the pages have no end"
        between()


def ids(store: SessionStore, **filters: Any) -> list[str]:
    """The ids of one page."""
    return [session.session_id for session in store.list_sessions(**filters)]


def forget_time(store: SessionStore, session_id: str) -> None:
    """Set a session's time to unknown, as importers of undated records do."""
    s = store.tables.sessions
    store.write(lambda c: c.execute(s.update().where(s.c.session_id == session_id).values(created_at=None)))


@pytest.fixture
def crowd(store):
    """Sessions with equal, unknown and hostile times and ids, shuffled, with their expected order."""
    times = {f"s{i:02}": 100 + i // 5 for i in range(30)}
    times |= {"": 102, "\x00": 102, "\ud800": 102, "\U0001f600": 102, "é": 102, "Z": 102, "a%": 102, "'": 102}
    unknown = ["u1", "u2", "u3"]
    shuffled = [*times, *unknown]
    random.Random(7).shuffle(shuffled)
    for session_id in shuffled:
        store.save_session(Session(session_id=session_id, created_at=times.get(session_id, 5)))
    for session_id in unknown:
        forget_time(store, session_id)
    return store, times, unknown


def test_pages_show_each_session_once(crowd):
    """No duplicate and none missing, for any page size, though many have the same time."""
    store, times, unknown = crowd
    for limit in (1, 4, 10, 41, 50):
        found = pages(store, limit)

        assert all(len(page) == limit for page in found[:-1])
        assert found[-1]
        flat = [session_id for page in found for session_id in page]
        assert sorted(flat) == sorted([*times, *unknown])


def test_sessions_are_sorted_newest_first_and_unknown_times_last(crowd):
    """The same order in pages, in one page and in the frame."""
    store, times, unknown = crowd
    found = [session_id for page in pages(store, 7) for session_id in page]
    dated = [times[session_id] for session_id in found if session_id in times]

    assert dated == sorted(dated, reverse=True)
    assert sorted(found[-3:]) == unknown
    assert found == ids(store, limit=100)
    assert [name.replace("\ud800", "\ufffd") for name in found] == store.sessions_df().session_id.tolist()


def test_sessions_before_1970_sort_before_unknown_times(store):
    """A time before 1970 is a time."""
    for session_id, created_at in {"old": -86_400, "older": -(10**9), "new": 10, "unknown": 0, "epoch": -1}.items():
        store.save_session(Session(session_id=session_id, created_at=created_at))
    forget_time(store, "unknown")

    assert ids(store) == ["new", "epoch", "old", "older", "unknown"]
    assert [name for page in pages(store, 1) for name in page] == ["new", "epoch", "old", "older", "unknown"]
    assert store.sessions_df().session_id.tolist() == ["new", "epoch", "old", "older", "unknown"]


def test_pages_are_stable_under_concurrent_changes(store):
    """Rows stored or deleted between two pages make no other session appear twice or be missed."""
    for i in range(12):
        store.save_session(Session(session_id=f"s{i:02}", created_at=1000 + i))
    made = iter(range(100))

    def between() -> None:
        store.save_session(Session(session_id=f"new{next(made)}", created_at=5000))
        if store.get_session("s11"):
            store.delete_session("s11")

    found = [session_id for page in pages(store, 3, between) for session_id in page]

    assert found == [f"s{i:02}" for i in reversed(range(12))]


def test_each_list_filter_returns_matching_sessions(store):
    """session_type, agent_id, team_id, workflow_id, user_id: each alone, and together, and page by page."""
    fields = {
        "session_type": ("agent", "team"),
        "agent_id": ("a", "b"),
        "team_id": ("a", "b"),
        "workflow_id": ("a", "b"),
        "user_id": ("a", "b"),
    }
    for i in range(32):
        chosen = {name: options[i >> place & 1] for place, (name, options) in enumerate(fields.items())}
        store.save_session(Session(session_id=f"s{i:02}", created_at=i, **chosen))
    for place, (name, options) in enumerate(fields.items()):
        expected = [f"s{i:02}" for i in reversed(range(32)) if i >> place & 1]

        assert ids(store, **{name: options[1]}) == expected
        assert [found for page in pages(store, 3, **{name: options[1]}) for found in page] == expected
    every = {name: options[1] for name, options in fields.items()}
    assert ids(store, **every) == ["s31"]
    assert ids(store, user_id="c") == []
    assert ids(store, user_id="a'; --") == []


def test_a_title_matches_by_a_part_ignoring_case(store):
    """Letters of any language; %, _ and \\ are only themselves."""
    titles = {"1": "Großer ÄRGER", "2": "100 %_sure\\", "3": "it's \x00 odd", "4": "плановый Отчёт", "5": None}
    for session_id, title in titles.items():
        data = {"session_name": title, "other": "needle"} if title else {"other": "needle"}
        store.save_session(Session(session_id=session_id, session_data=data))

    for part in ("Großer ÄRGER", "ärger", "Ärger", "gro"):
        assert ids(store, name=part) == ["1"], part
    for part in ("%", "_", "%_", "\\", "100 %", "SURE"):
        assert ids(store, name=part) == ["2"], part
    for part in ("'", "it's", "\x00", "ODD"):
        assert ids(store, name=part) == ["3"], part
    for part in ("отчёт", "ОТЧЁТ", "Плановый"):
        assert ids(store, name=part) == ["4"], part
    assert ids(store, name="needle") == []


def test_sessions_are_filtered_by_the_status_of_their_latest_run(store):
    """The latest run counts, members' runs do not; a session without runs has no status."""
    for session_id, statuses in {
        "done": ["ERROR", "COMPLETED"],
        "failed": ["COMPLETED", "ERROR"],
        "empty": [],
        "paused": ["PAUSED"],
    }.items():
        store.save_session(Session(session_id=session_id))
        for status in statuses:
            store.append_run(session_id, a_small_run(status=status))
    store.append_run("done", a_small_run(status="ERROR", parent_run_id="team run"))

    assert ids(store, status="COMPLETED") == ["done"]
    assert ids(store, status="ERROR") == ["failed"]
    assert ids(store, status="PAUSED") == ["paused"]
    assert ids(store, status="RUNNING") == []
    statuses = store.sessions_df().set_index("session_id").status
    assert statuses["done"] == "COMPLETED"
    assert statuses.isna()["empty"]


def test_a_listed_session_has_its_fields_and_no_runs(store):
    """Runs are None, not an empty list; all other fields are there."""
    a_session(store)
    store.save_session(
        Session(session_id="chat", session_data={"session_name": "t"}, metadata={"a": 1}, created_at=3, updated_at=4)
    )
    store.branch("chat", after=1, new_session_id="branch")
    chat = next(session for session in store.list_sessions() if session.session_id == "chat")
    branch = next(session for session in store.list_sessions() if session.session_id == "branch")

    assert chat.runs is None
    assert (chat.session_name, chat.metadata, chat.created_at, chat.updated_at) == ("t", {"a": 1}, 3, 4)
    assert (branch.parent_session_id, branch.fork_run_index) == ("chat", 1)


def test_empty_branches_are_listed(store):
    """A branch without own runs is listed like any other, even one that inherits nothing."""
    a_session(store)
    store.branch("chat", before=0, new_session_id="nothing")
    store.branch("chat", new_session_id="all")

    assert set(ids(store)) == {"chat", "nothing", "all"}
    assert set(store.sessions_df().session_id) == {"chat", "nothing", "all"}


def test_listing_never_reads_messages(store):
    """Neither their table nor that of tool calls is queried, nor more rows fetched than listed."""
    for i in range(5):
        a_session(store, f"s{i}", runs=2)
    store.list_sessions()
    filters = {"name": "x"}, {"status": "COMPLETED"}, {"user_id": "u"}, {"limit": 2}, {}
    for options in filters:
        with statements(store) as heard:
            found = store.list_sessions(**options)

        assert heard.about("_messages") == []
        assert heard.about("_tool_calls") == []
        assert heard.rows <= len(found) + 2


def test_a_store_without_tables_lists_no_sessions(store):
    """Before the first write there are none, and no error."""
    page = store.list_sessions(user_id="u", status="COMPLETED", name="x")

    assert (list(page), page.cursor) == ([], None)
    assert store.get_session("s") is None


def test_a_limit_of_0_is_refused(store):
    """A limit below 1 would page forever."""
    for limit in (0, -1):
        with pytest.raises(BadUsage, match=str(limit)):
            store.list_sessions(limit=limit)


def test_an_invalid_cursor_is_refused(store):
    """It is neither the first page nor a Python error."""
    store.save_session(Session(session_id="s"))
    coded = [
        base64.urlsafe_b64encode(text).decode() for text in (b"null", b"[]", b'[null, "a"]', b'{"a": 1}', b"[{}, 1]")
    ]
    for cursor in ("", "x", "äö", "....", *coded):
        with pytest.raises(BadUsage, match="cursor"):
            store.list_sessions(cursor=cursor)


def test_a_full_last_page_has_no_cursor(store):
    """Four sessions in pages of two are two pages, not three."""
    for i in range(4):
        store.save_session(Session(session_id=f"s{i}"))
    pairs = pages(store, 2)

    assert [len(page) for page in pairs] == [2, 2]
    assert all(set(a).isdisjoint(b) for a, b in pairwise(pairs))


def test_sessions_with_runs_as_agno_lists_them(store):
    """By user, type, component and a part of the title, page by page; on request without their runs."""
    for n in range(5):
        run = a_small_run().model_copy(update={"agent_id": "greeter"})
        store.append_run(f"s{n}", run, user_id="alice" if n else "bob")
        store.rename_session(f"s{n}", f"Trip {n}")
    newest_first = [session.session_id for session in store.list_sessions(user_id="alice")]

    every = store.get_sessions("agent", "alice", "greeter", "trip")
    assert [session.session_id for session in every] == newest_first
    assert [len(session.runs or ()) for session in every] == [1] * 4
    parts = [store.get_sessions(user_id="alice", limit=3, page=page, include_runs=False) for page in (1, 2, 3)]
    assert [[session.session_id for session in part] for part in parts] == [newest_first[:3], newest_first[3:], []]
    assert parts[0][0].runs is None
    assert (
        store.get_sessions("team")
        == store.get_sessions(component_id="other")
        == store.get_sessions(user_id="eve")
        == []
    )
    for options in ({"limit": 0}, {"limit": 2, "page": 0}):
        with pytest.raises(BadUsage, match="must be a positive int"):
            store.get_sessions(**options)
