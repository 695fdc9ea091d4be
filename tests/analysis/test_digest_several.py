"""A digest of several: one row each, sums in which nothing counts twice, who is far from the rest; read in a few queries."""

from __future__ import annotations

from contextlib import contextmanager

import pandas as pd
import pytest
import sqlalchemy as sa
from conversations import make_run, save

from kern_nb.analysis.digest import digest
from kern_nb.db import SqliteDb
from kern_nb.errors import BadUsage, RunNotFound, SessionNotFound
from kern_nb.records import Message, Run, Usage


def values(found, column="value"):
    """A column of the metrics by name; None where nobody knows it."""
    df = found.metrics.set_index("metric")[column]
    return {name: None if pd.isna(value) else value for name, value in df.items()}


def items(found, *names):
    """Rows of some columns of the items, None where a value is missing."""
    df = found.items[list(names)]
    return [tuple(row) for row in df.astype(object).where(df.notna(), None).to_numpy().tolist()]


def spent(tokens, **more):
    """A run that spent so many tokens."""
    return Run(input="q", output="a", usage=Usage(input_tokens=tokens), **more)


def test_digest_has_a_row_per_session_and_sums(store):
    """On every engine: sums, medians, and of how many a value is known; the order is that of the names."""
    save(store, "b", make_run(0), make_run(1))
    save(store, "a", make_run(2))
    save(store, "c", Run(input="lost", status="ERROR", error="no", usage=Usage(input_tokens=5)))
    found = digest("b", "a", "c", store=store)

    told = items(found, "item", "status", "asked", "n_asked", "output", "error", "n_runs", "total_tokens", "cost")
    assert told == [
        ("b", "COMPLETED", "question 0", 2, "answer 1", None, 2, 72, 1.5),
        ("a", "COMPLETED", "question 2", 1, "answer 2", None, 1, 36, 0.75),
        ("c", "ERROR", "lost", 1, None, "no", 1, 5, None),
    ]
    assert (values(found)["total_tokens"], values(found, "median")["total_tokens"]) == (113, 36)
    assert (values(found)["cost"], values(found, "n_known")["cost"]) == (2.25, 2)
    assert found.by_status[["status", "n_items"]].to_numpy().tolist() == [["COMPLETED", 2], ["ERROR", 1]]
    assert (found.asked, found.status) == (None, None)
    assert "2 of 3" in repr(found)


def test_items_match_the_sessions_frame(store):
    """The totals of each session are what `sessions_df` says of it."""
    save(store, "a", make_run(0), make_run(1))
    save(store, "b", make_run(2), duration_s=99.5)
    store.branch("a", after=0, new_session_id="what-if")
    store.append_run("what-if", make_run(3))
    found = digest("a", "b", "what-if", store=store).items.set_index("item")
    frame = store.sessions_df().set_index("session_id").loc[found.index]
    for name in ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors", "input_tokens", "output_tokens"):
        assert found[name].tolist() == frame[name].tolist(), name
    for name in ("total_tokens", "cost", "duration_s"):
        assert found[name].tolist() == frame[name].tolist(), name


def test_shared_runs_are_counted_once(store):
    """Of several, a branch counts with its own rows: the sum is what was spent."""
    save(store, "chat", spent(10), spent(20))
    for name in ("one", "two"):
        store.branch("chat", after=1, new_session_id=name)
        store.append_run(name, spent(1))
    found = digest("chat", "one", "two", store=store)

    assert values(found)["input_tokens"] == 32
    assert values(found)["n_runs"] == 4
    assert values(digest("one", store=store))["input_tokens"] == 31


def test_detached_branch_counts_its_own_usage(db):
    """Its copies of its parent's runs were paid for by the parent."""
    usage = Usage(input_tokens=10, cache_read_tokens=7)
    save(db, "chat", Run(input="q", usage=usage))
    db.branch("chat", new_session_id="what-if")
    db.append_run("what-if", spent(1))
    save(db, "other", Run(input="q", usage=usage))
    db.delete_session("chat", detach_branches=True)
    found = digest("what-if", "other", store=db)

    assert items(found, "input_tokens", "cache_read_tokens") == [(1, None), (10, 7)]


def test_nested_items_are_counted_once(store):
    """A run of a session that is named too, a member's run beside its leader's, one run by two names."""
    leader = store.append_run("team", spent(100))
    store.append_run("team", spent(10, parent_run_id=leader.run_id))
    store.append_run("team", spent(1))
    store.branch("team", new_session_id="what-if")
    for names, tokens, counted in (
        (("team", "team/0"), 111, [True, False]),
        (("team/0", "team/1"), 110, [True, False]),
        (("team/1", "team/0", "team/2"), 111, [False, True, True]),
        (("team/2", "what-if/2"), 1, [True, False]),
        (("what-if/2", "team"), 111, [False, True]),
        (("team/1", "team/2"), 11, [True, True]),
    ):
        found = digest(*names, store=store)
        assert values(found)["input_tokens"] == tokens, names
        assert found.rows.counted.tolist() == counted, names
        assert len(found.items) == len(names)
        assert ("counted once" in repr(found)) == (False in counted)


def test_duplicate_reference_is_one_item(db):
    """By whichever name."""
    save(db, "chat", make_run(0))
    save(db, "other", make_run(0))

    assert digest("chat", "chat", "cha", "other", store=db).items["item"].tolist() == ["chat", "other"]


def test_digest_has_a_row_per_run(store):
    """Of one session and of several, inherited ones by the branch's name."""
    save(store, "a", make_run(0), make_run(1))
    save(store, "b", make_run(2))
    store.branch("a", after=0, new_session_id="what-if")
    run = store.get_session("a").runs[1]
    store.add_score("a", "good", 0.5, run_id=run.run_id)
    found = digest("a/1", "b/0", "what-if/0", store=store)

    told = items(found, "item", "session_id", "run_index", "asked", "total_tokens", "cost", "n_tool_calls")
    assert told == [
        ("a/1", "a", 1, "question 1", 36, 0.75, 1),
        ("b/0", "b", 0, "question 2", 36, 0.75, 1),
        ("what-if/0", "what-if", 0, "question 0", 36, 0.75, 1),
    ]
    assert found.tools["calls"].sum() == 3
    assert found.scores.to_numpy().tolist() == [["a/1", "good", 0.5]]
    assert "3 runs" in repr(found)


def test_totals_of_several_match_single_digests(store):
    """What one alone says, it says beside others."""
    save(store, "a", make_run(0), make_run(1))
    save(store, "b", make_run(2))
    store.add_score("a", "reward", 1)
    both = digest("a", "b/0", store=store)
    for n, name in enumerate(("a", "b/0")):
        alone = digest(name, store=store)
        pd.testing.assert_frame_equal(both.items.iloc[[n]].reset_index(drop=True), alone.items)
    assert both.scores.to_numpy().tolist() == [["a", "reward", 1.0]]


def test_scores_are_averaged(db):
    """Over the ratings of an item, then over the items that have any."""
    for name, ratings in {"a": (0, 1), "b": (1,), "c": ()}.items():
        save(db, name, make_run(0))
        for n, rating in enumerate(ratings):
            db.add_score(name, "reward", rating, source=str(n))
    found = digest("a", "b", "c", store=db)

    assert (values(found)["reward"], values(found, "n_known")["reward"]) == (0.75, 2)
    assert "reward (mean)" in repr(found)


def test_score_may_have_the_name_of_a_metric(db):
    """Names of scores are a store's: they take no other figure's place."""
    save(db, "a", make_run(0))
    save(db, "b", make_run(0))
    db.add_score("a", "cost", 7)
    db.add_score("a", "item", 8)
    found = digest("a", "b", store=db)

    assert (values(found)["cost"], values(found)["score.cost"]) == (1.5, 7.0)
    assert repr(found).count("score.cost") == 2  # among what they took, and of each
    assert found.items["item"].tolist() == ["a", "b"]


def test_outliers_by_status(db):
    """By Tukey's fences, worked by hand: of 1 to 9 the quartiles are 3 and 7, so what is beyond -3 and 13 is far."""
    for n in range(1, 10):
        save(db, f"s{n}", spent(n))
    save(db, "near", spent(13))
    save(db, "failed", spent(1_000, status="ERROR"))
    names = [f"s{n}" for n in range(1, 10)]
    assert digest(*names, "failed", store=db).outliers.empty

    save(db, "far", spent(40))
    found = digest(*names, "far", "failed", store=db).outliers
    assert found.to_numpy().tolist() == [["far", "COMPLETED", "total_tokens", 40.0, 5.5]]


def test_few_items_have_no_outliers(db):
    """Of seven that ended alike, quartiles say nothing."""
    for n in range(7):
        save(db, f"s{n}", spent(1 if n else 1_000))

    assert digest(*(f"s{n}" for n in range(7)), store=db).outliers.empty


def test_filters_select_sessions(store):
    """A column of theirs, what their runs agree on, their metadata or state; all that is said must fit."""
    for n, (domain, model) in enumerate([("air", "x"), ("air", "y"), ("shop", "x"), ("air", "x")]):
        runs = [Run(input="q", model=model, usage=Usage(input_tokens=10**n), created_at=f"2026-11-2{n}T00:00:00Z")]
        state = {"session_state": {"step": n % 2}}
        fields = {"metadata": {"domain": domain}, "agent_id": f"agent {n}", "session_data": state}
        save(store, f"s{n}", *runs, created_at=1_700_000_000 + n, **fields)
    for where, expected in (
        ({"metadata.domain": "air"}, ["s0", "s1", "s3"]),
        ({"domain": "air", "model": "x"}, ["s0", "s3"]),
        ({"agent_id": "agent 2"}, ["s2"]),
        ({"state.step": 1}, ["s1", "s3"]),
        ({}, ["s0", "s1", "s2", "s3"]),
    ):
        assert digest(where=where, store=store).items["item"].tolist() == expected, where
    found = digest(where={"domain": "air"}, store=store)
    assert values(found)["input_tokens"] == 1011
    assert "3 sessions (domain air)" in repr(found)
    assert digest(agent_id="agent 1", store=store).items["item"].tolist() == ["s1"]
    assert digest(where={}, since="2023-11-14T22:13:22Z", store=store).items["item"].tolist() == ["s2", "s3"]


def test_filters_without_a_match_raise(db):
    """With the values there are."""
    save(db, "a", make_run(0), metadata={"domain": "air"})
    with pytest.raises(BadUsage, match="sea") as refused:
        digest(where={"domain": "sea"}, store=db)
    assert "air" in refused.value.hint
    with pytest.raises(BadUsage, match="No session matches"):
        digest(agent_id="nobody", store=db)
    with pytest.raises(BadUsage, match="References exclude filters"):
        digest("a", where={"domain": "air"}, store=db)


def test_digest_is_limited_to_the_user(store):
    """Another's are not there, by name or among all."""
    save(store, "of ann", make_run(0), user_id="ann")
    save(store, "of bob", make_run(0), user_id="bob")

    assert digest(user_id="ann", store=store).items["item"].tolist() == ["of ann"]
    assert digest("of ann", store=store, user_id="ann").asked == "question 0"
    assert digest(where={}, store=store, user_id="bob").items["item"].tolist() == ["of bob"]
    for names in (("of bob",), ("of ann", "of bob"), ("of bob/0",)):
        with pytest.raises(SessionNotFound, match="of bob"):
            digest(*names, store=store, user_id="ann")


def test_unknown_run_raises_with_its_name(store):
    """Among many that are."""
    save(store, "a", make_run(0))
    for names in (("a/0", "a/7"), ("a", "a/7")):
        with pytest.raises(RunNotFound, match="7"):
            digest(*names, store=store)


def test_session_id_with_a_slash_takes_precedence(db):
    """An id may hold a slash."""
    save(db, "a", make_run(0), make_run(1))
    save(db, "a/1", make_run(5))
    found = digest("a/1", "a/0", store=db)

    assert items(found, "asked", "run_index") == [("question 5", None), ("question 0", 0)]


@contextmanager
def counted(store):
    """How many statements the store sends, in a list of one."""
    sent = [0]

    def count(*_):
        sent[0] += 1

    sa.event.listen(store.engine, "before_cursor_execute", count)
    yield sent
    sa.event.remove(store.engine, "before_cursor_execute", count)


def test_number_of_queries_is_constant(tmp_path):
    """As many statements for 200 sessions, or 200 runs, as for 20, and the figures are there."""
    with SqliteDb(db_file=tmp_path / "s.db") as db:
        for n in range(200):
            save(db, f"s{n}", make_run(n))
        save(db, "long", *(make_run(n) for n in range(200)))
        for names in ([f"s{n}" for n in range(200)], [f"long/{n}" for n in range(200)]):
            sent = []
            for many in (20, 200):
                with counted(db) as count:
                    found = digest(*names[:many], store=db)
                    assert values(found)["total_tokens"] == 36 * many
                    assert found.tools["calls"].sum() == many
                    repr(found)
                sent.append(count[0])
            assert sent[0] == sent[1] < 30


def test_longest_steps_refer_to_their_own_session(db):
    """Of several, the longest steps say which session they are of."""
    for name, wait in (("a", 5), ("b", 9)):
        messages = [
            Message(role="user", content="q", created_at="2026-11-20T00:00:00Z"),
            Message(role="assistant", content="a", created_at=f"2026-11-20T00:00:0{wait}Z"),
        ]
        save(db, name, Run(input="q", messages=messages))

    assert digest("a", "b", store=db).longest["place"].tolist() == ["b/0.1", "a/0.1"]
