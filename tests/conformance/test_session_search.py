"""Search of sessions: any part of the list, each filter, each order; tags; pages of runs."""

from __future__ import annotations

import pytest
from samples import a_small_run

from kern_nb.db.session_search import SESSION_ORDERS, SessionFilter
from kern_nb.errors import BadUsage, SessionNotFound
from kern_nb.records import Message, Requirement, Run, Session, Usage


@pytest.fixture
def shop(store):
    """Five sessions that differ in everything that can be searched."""
    facts = {
        "alpha": {"agent_id": "support", "user_id": "ann", "session_data": {"session_name": "Refund 50% \\ off"}},
        "beta": {"team_id": "desk", "session_type": "team", "user_id": "Bob", "session_data": {"session_name": "b"}},
        "Gamma_1": {"workflow_id": "nightly", "session_type": "workflow", "session_data": {"refund": "not a title"}},
        "gammax1": {"agent_id": "support", "user_id": "ann", "session_data": {"session_name": "Ärger \ud800\x00 “q”"}},
        "delta": {},
    }
    for n, (session_id, fields) in enumerate(facts.items()):
        store.save_session(Session(session_id=session_id, created_at=100 + n, updated_at=500 - n, **fields))
    return store


def found(store, narrowing=None, **options):
    """The ids, sorted."""
    return sorted(store.find_sessions(narrowing, **options))


@pytest.mark.parametrize(
    ("narrowing", "expected"),
    [
        (SessionFilter(text="REFUND"), ["alpha"]),
        (SessionFilter(text="50% \\"), ["alpha"]),
        (SessionFilter(text="gamma_"), ["Gamma_1"]),
        (SessionFilter(text="Ärger"), ["gammax1"]),
        (SessionFilter(text="“Q”"), ["gammax1"]),
        (SessionFilter(text="\ud800\x00"), ["gammax1"]),
        (SessionFilter(text="session_name"), []),
        (SessionFilter(text="not a title"), []),
        (SessionFilter(owner="SUPP"), ["alpha", "gammax1"]),
        (SessionFilter(owner="desk"), ["beta"]),
        (SessionFilter(owner="night"), ["Gamma_1"]),
        (SessionFilter(user="bO"), ["beta"]),
        (SessionFilter(user="ann", text="refund"), ["alpha"]),
        (SessionFilter(user="' OR 1=1 --"), []),
    ],
)
def test_each_filter_returns_matching_sessions(shop, narrowing, expected):
    """Parts of title, id, owner and user match ignoring case; LIKE and JSON syntax is literal; totals agree."""
    assert found(shop, narrowing) == expected
    assert shop.find_sessions(narrowing).total == len(expected)


@pytest.mark.parametrize("order", SESSION_ORDERS)
@pytest.mark.parametrize("descending", [True, False])
def test_pages_concatenate_to_the_list(shop, order, descending):
    """In every order, pages of any size have no gap and no duplicate, and the two directions mirror."""
    whole = shop.find_sessions(order=order, descending=descending, limit=None)
    parts = [shop.find_sessions(order=order, descending=descending, offset=n, limit=2) for n in range(0, 5, 2)]

    assert [one for part in parts for one in part] == whole
    assert {part.total for part in parts} == {whole.total} == {5}
    assert shop.find_sessions(order=order, descending=not descending, limit=None) == whole[::-1]


def test_orders_sort_by_their_column(shop):
    """Created and updated by time, session by id, title ignoring case; unknown values sort as the least."""
    by_time = ["alpha", "beta", "Gamma_1", "gammax1", "delta"]
    assert shop.find_sessions(order="created", descending=False) == by_time
    assert shop.find_sessions(order="updated", descending=True) == by_time
    assert shop.find_sessions(order="session", descending=False) == ["Gamma_1", "alpha", "beta", "delta", "gammax1"]
    assert shop.find_sessions(order="title", descending=False) == ["Gamma_1", "delta", "beta", "alpha", "gammax1"]
    assert shop.find_sessions(order="user", descending=False)[-2:] == ["alpha", "gammax1"]
    assert shop.find_sessions(order="owner", descending=False)[0] == "delta"


@pytest.mark.parametrize(
    ("order", "column"), [("messages", "n_messages"), ("tokens", "total_tokens"), ("cost", "cost")]
)
def test_total_orders_match_the_frame(shop, order, column):
    """The agent's usage only, without copies of a branch or a history; unknown values sort as the least."""
    spent = {"alpha": [(3, 0.5), (4, 0.25)], "beta": [(9, None)], "Gamma_1": [(1, 2.0)], "gammax1": [(5, 0.0)]}
    for session_id, runs in spent.items():
        for tokens, cost in runs:
            usage = Usage(input_tokens=tokens, output_tokens=1, cost=cost)
            told = [Message(role="user", content="q", usage=Usage(input_tokens=100, cost=9.0))] * tokens
            again = Message(role="user", content="before", from_history=True)
            shop.append_run(
                session_id, Run(messages=[again, *told, Message(role="assistant", content="a", usage=usage)])
            )
    shop.append_run("beta", Run(usage=Usage(total_tokens=2)))
    shop.branch("alpha", new_session_id="branch")
    shop.append_run("branch", Run(messages=[Message(role="assistant", content="a")]))
    df = shop.sessions_df(columns=["session_id", column])
    df = df.assign(key=df[column].astype("Float64").fillna(-1)).sort_values(["key", "session_id"])

    assert df["key"].nunique() >= 3
    assert shop.find_sessions(order=order, descending=False) == df["session_id"].tolist()
    assert shop.find_sessions(order=order, offset=1, limit=2) == df["session_id"].tolist()[::-1][1:3]
    narrowed = shop.find_sessions(SessionFilter(text="a"), order=order, descending=False)
    assert narrowed == df[df["session_id"].str.contains("a")]["session_id"].tolist()


def test_too_many_sessions_for_a_total_order_are_refused(shop, monkeypatch):
    """By tokens and cost, with a hint; a column store has no limit."""
    limited = shop.most_added_up is not None
    assert limited == (shop.engine.dialect.name != "duckdb")
    monkeypatch.setattr(type(shop), "most_added_up", 3 if limited else None)
    assert len(shop.find_sessions(order="messages")) == 5
    assert len(shop.find_sessions(SessionFilter(user="ann"), order="cost")) == 2
    if not limited:
        assert len(shop.find_sessions(order="tokens")) == 5
    else:
        with pytest.raises(BadUsage, match=r"5 sessions are too many for .* to sort by tokens"):
            shop.find_sessions(order="tokens")


def test_a_given_total_is_not_counted_again(shop):
    """Scrolling need not count again."""
    assert shop.find_sessions(offset=4, total=5) == ["alpha"]
    assert shop.find_sessions(offset=4, total=7).total == 7


@pytest.mark.parametrize("options", [{"order": "price"}, {"offset": -1}, {"limit": -1}])
def test_invalid_pages_are_refused(shop, options):
    """The order is one of a fixed list, never SQL."""
    with pytest.raises(BadUsage):
        shop.find_sessions(**options)


def test_status_is_that_of_the_latest_own_run(store):
    """Earlier runs and members' runs do not count, for any status."""
    for session_id, statuses in {"good": ["ERROR", "COMPLETED"], "bad": ["COMPLETED", "ERROR"], "none": []}.items():
        store.save_session(Session(session_id=session_id))
        for status in statuses:
            store.append_run(session_id, Run(input="x", status=status))
    leader = store.append_run("good", Run(input="x"))
    store.append_run("good", Run(input="x", status="ERROR", parent_run_id=leader.run_id))

    assert found(store, SessionFilter(status="COMPLETED")) == ["good"]
    assert found(store, SessionFilter(status="ERROR")) == ["bad"]
    assert store.find_sessions(SessionFilter(status="ERROR")).total == 1
    assert found(store, SessionFilter(status="PAUSED")) == []


def test_an_empty_store_has_no_sessions_to_find(store_factory):
    """Reading writes nothing."""
    store = store_factory("new")
    assert store.find_sessions() == []
    assert store.find_sessions(SessionFilter(text="x", status="COMPLETED")).total == 0


def test_tags_are_replaced_and_other_metadata_is_kept(store):
    """A session has its latest tags, each once; without tags its metadata is as before."""
    store.save_session(Session(session_id="chat", metadata={"task": 7}))
    tagged = store.tag_session("chat", ["to check", "a%", "to check"])

    assert tagged.metadata == {"task": 7, "tags": ["to check", "a%"]}
    assert store.get_session("chat").metadata == tagged.metadata
    assert found(store, SessionFilter(tag="a%")) == ["chat"]
    assert found(store, SessionFilter(tag="to")) == []
    store.tag_session("chat", [])
    assert store.get_session("chat").metadata == {"task": 7}
    assert found(store, SessionFilter(tag="a%")) == []


def test_other_metadata_does_not_match_as_a_tag(store):
    """Only the list of tags matches."""
    store.save_session(Session(session_id="chat", metadata={"mood": "odd", "tags": ["even"]}))

    assert found(store, SessionFilter(tag="odd")) == []
    assert found(store, SessionFilter(tag="even")) == ["chat"]


def test_tags_of_any_unicode_are_stored_and_matched(store):
    """Quotes, NUL and lone surrogates included; a branch inherits them."""
    tag = "“q\" ' \\ \x00 \ud800 <b>"
    store.append_run("chat", a_small_run())
    store.tag_session("chat", [tag])
    store.branch("chat", new_session_id="what-if")

    assert store.get_session("what-if").metadata == {"tags": [tag]}
    assert found(store, SessionFilter(tag=tag)) == ["chat", "what-if"]


@pytest.mark.parametrize("tags", ["one", [""], ["x", 3], [" "]])
def test_invalid_tags_are_refused(store, tags):
    """A string is not a list of letters; nothing is written."""
    store.save_session(Session(session_id="chat"))
    before = store.get_session("chat").metadata
    with pytest.raises(BadUsage):
        store.tag_session("chat", tags)
    assert store.get_session("chat").metadata == before


def test_an_unknown_session_cannot_be_tagged(store):
    """SessionNotFound, and no session is created."""
    store.save_session(Session(session_id="chat"))
    with pytest.raises(SessionNotFound):
        store.tag_session("chta", ["x"])
    assert found(store) == ["chat"]


def test_session_runs_pages_match_the_session(store):
    """Inherited runs first, cut at the branch point, with their requirements."""
    said = [Message(role="user", content="one"), Message(role="assistant", content="two")]
    for _ in range(3):
        store.append_run("chat", Run(input="x", messages=[m.model_copy() for m in said]))
    store.branch("chat", after=(1, 0), new_session_id="what-if")
    run = store.start_run("what-if", input="y")
    store.pause_run(run.run_id, [Requirement(kind="confirmation", tool_name="pay")])
    whole = store.get_session("what-if").runs

    parts = [run for start in (0, 1, 2) for run in store.session_runs("what-if", start=start, limit=1)]

    assert parts == whole
    assert [len(run.messages) for run in parts] == [2, 1, 0]
    assert parts[2].requirements[0].tool_name == "pay"
    assert store.session_runs("what-if", start=1) == whole[1:]
    assert store.session_runs("what-if", start=3) == []


def test_runs_of_an_unknown_session_are_refused(store):
    """A misspelt id is not a session without runs."""
    store.save_session(Session(session_id="chat"))
    assert store.session_runs("chat") == []
    with pytest.raises(SessionNotFound):
        store.session_runs("chta")
