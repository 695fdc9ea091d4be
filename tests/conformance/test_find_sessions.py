"""Sessions are found by the exact values of their fields, and pages continue where the last one ended."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from samples import SPECIAL

from kern_nb.db.session_search import SESSION_ORDERS, SessionFilter
from kern_nb.errors import BadUsage, KernError
from kern_nb.records import Message, Run, Session, Usage


@pytest.fixture
def shop(store):
    """Sessions of several owners and users, a minute apart."""
    facts = {
        "alpha": {"agent_id": "support", "user_id": "ann", "metadata": {"task_id": 7, "set": "a"}},
        "beta": {"team_id": "support", "session_type": "team", "user_id": "Ann", "metadata": {"task_id": "7"}},
        "gamma": {"workflow_id": "nightly", "session_type": "workflow", "metadata": {"task_id": 7.0}},
        "delta": {"agent_id": "support desk", "user_id": "ann", "metadata": {"nested": {"task_id": 7}}},
        "epsilon": {"user_id": ""},
    }
    for n, (session_id, fields) in enumerate(facts.items()):
        store.save_session(Session(session_id=session_id, created_at=60 * n, **fields))
    return store


def both(store, **fields):
    """The ids by find_sessions and by list_sessions, which are the same."""
    ids = store.find_sessions(**fields)
    assert [session.session_id for session in store.list_sessions(**fields)] == ids
    assert ids.total == len(ids)
    return sorted(ids)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"owner": "support"}, ["alpha", "beta"]),
        ({"owner": "supp"}, []),
        ({"owner": "support", "session_type": "team"}, ["beta"]),
        ({"agent_id": "support"}, ["alpha"]),
        ({"team_id": "support"}, ["beta"]),
        ({"workflow_id": "nightly"}, ["gamma"]),
        ({"session_type": "agent"}, ["alpha", "delta", "epsilon"]),
        ({"user_id": "ann"}, ["alpha", "delta"]),
        ({"user_id": ""}, ["epsilon"]),
        ({"user_id": "ann", "owner": "support"}, ["alpha"]),
        ({"metadata": {"task_id": 7}}, ["alpha"]),
        ({"metadata": {"task_id": "7"}}, ["beta"]),
        ({"metadata": {"task_id": 7.0}}, ["gamma"]),
        ({"metadata": {"task_id": 7, "set": "a"}}, ["alpha"]),
        ({"metadata": {"task_id": 7, "set": "b"}}, []),
        ({"metadata": {"task_id": True}}, []),
        ({"metadata": {"nested": {"task_id": 7}}}, ["delta"]),
        ({"metadata": {}}, ["alpha", "beta", "delta", "epsilon", "gamma"]),
        ({"since": "1970-01-01T00:01:00", "until": "1970-01-01T00:03:00"}, ["beta", "gamma"]),
        ({"since": datetime.fromtimestamp(179.5, UTC)}, ["delta", "epsilon"]),
    ],
)
def test_each_field_is_compared_exactly(shop, fields, expected):
    """The owner is that of any kind; a metadata key is one at the top, and 7, 7.0 and "7" differ."""
    assert both(shop, **fields) == expected


def test_any_metadata_can_be_found(store):
    """Every key and value, by itself: texts of any kind, numbers of any size, lists, and types that JSON lacks."""
    values = [None, False, True, 0, 1, -1, 2**63, 10**40, 0.1, 1e300, Decimal("1.10"), [], [1, {"a": None}], {}, ""]
    values += [datetime(2026, 1, 1, tzinfo=UTC), *SPECIAL, *({"key": text} for text in SPECIAL)]
    for n, value in enumerate(values):
        store.save_session(Session(session_id=str(n), metadata={"key": value, "nested": {"other": [value]}}))
    for n, key in enumerate(SPECIAL):
        store.save_session(Session(session_id=f"key {n}", metadata={key: {"key": n}}))

    for value in values:
        same = [str(n) for n, other in enumerate(values) if type(other) is type(value) and other == value]
        assert both(store, metadata={"key": value}) == sorted(same), value
    for n, key in enumerate(SPECIAL):
        same = [f"key {n}" for n, other in enumerate(SPECIAL) if other == key]
        assert set(both(store, metadata={key: {"key": n}})) <= set(same)
        assert f"key {n}" in both(store, metadata={key: {"key": n}}), key


def test_exact_fields_narrow_a_search(shop):
    """Both conditions hold, and totals of tokens are sorted among the matching sessions only."""
    assert shop.find_sessions(SessionFilter(text="a"), owner="support", order="session") == ["beta", "alpha"]
    assert shop.find_sessions(owner="support", order="tokens", descending=False) == ["alpha", "beta"]


@pytest.mark.parametrize("order", SESSION_ORDERS)
@pytest.mark.parametrize("descending", [True, False])
def test_cursors_concatenate_to_the_list(shop, order, descending):
    """In every order, the next page follows the last one, though sessions are added and deleted meanwhile."""
    for n, session_id in enumerate(["alpha", "gamma", "delta", "alpha"]):
        usage = Usage(input_tokens=n, output_tokens=10**12, cost=n / 10)
        shop.append_run(session_id, Run(messages=[Message(role="assistant", content="a", usage=usage)]))
    shop.rename_session("beta", "Ärger \ud800\x00")
    options = {"order": order, "descending": descending}
    if order == "updated":  # a change of any session would move it
        for n, session_id in enumerate(["alpha", "beta", "gamma", "delta", "epsilon"]):
            shop.save_session(Session(session_id=session_id, updated_at=10 + n // 2))
    whole = shop.find_sessions(**options, limit=None)
    assert whole.cursor is None
    page = shop.find_sessions(**options, limit=2)
    ids = list(page)
    while page.cursor is not None:
        page = shop.find_sessions(**options, limit=2, cursor=page.cursor, total=page.total)
        ids += page

    assert ids == whole
    assert len(page) == 1


def test_a_page_follows_a_session_that_was_deleted(shop):
    """A cursor is a position, not a row; and a new session before it is not returned."""
    page = shop.find_sessions(limit=2)
    assert page == ["epsilon", "delta"]
    shop.delete_session("delta")
    shop.save_session(Session(session_id="new"))

    assert shop.find_sessions(cursor=page.cursor) == ["gamma", "beta", "alpha"]


@pytest.mark.parametrize(
    "options",
    [
        {"cursor": "x"},
        {"cursor": "W10="},
        {"since": 7},
        {"until": "tomorrow"},
        {"metadata": "task_id"},
        {"metadata": {1: 2}},
        {"metadata": {"x": object()}},
        {"owner": 7},
    ],
)
def test_invalid_conditions_are_refused(shop, options):
    """By name, before anything is read."""
    with pytest.raises(KernError):
        shop.find_sessions(**options)


def test_a_cursor_is_for_one_order(shop):
    """In another order it would skip sessions; an offset beside it would too."""
    cursor = shop.find_sessions(limit=2).cursor
    for options in ({"order": "title"}, {"descending": False}, {"offset": 1}):
        with pytest.raises(BadUsage, match="cursor"):
            shop.find_sessions(cursor=cursor, **options)


def test_a_session_without_a_user_is_found_when_asked_for(shop):
    """By get_session with include_unowned; another user's is still not there."""
    assert shop.get_session("gamma", user_id="ann") is None
    assert shop.get_session("gamma", user_id="ann", include_unowned=True).session_id == "gamma"
    assert shop.get_session("alpha", user_id="ann", include_unowned=True, runs=False).runs is None
    for session_id in ("beta", "epsilon"):
        assert shop.get_session(session_id, user_id="ann", include_unowned=True) is None
