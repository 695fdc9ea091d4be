"""`compare`: turns aligned, the first place where conversations part, what each took; the first is the baseline."""

from __future__ import annotations

import random
import time

import pandas as pd
import pytest
from conversations import MESSAGES, make_run, save

from kern_nb import Agent, summarize
from kern_nb.analysis.compare import compare
from kern_nb.db import open_store
from kern_nb.errors import AmbiguousReference, BadUsage, RunNotFound, SessionNotFound
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Run, ToolCall, Usage


def by_metric(comparison) -> dict[str, tuple]:
    """The metrics by name: a, b, delta, better; None where one is missing."""
    rows = comparison.metrics.astype(object).where(comparison.metrics.notna(), None)
    return {row.metric: (row.a, row.b, row.delta, row.better) for row in rows.itertuples()}


def test_equal_conversations_have_no_divergence(store):
    """Its ids and times do not count: a copy in other words is the same only where the words are."""
    save(store, "a", *(make_run(n) for n in range(3)))
    save(store, "b", *(make_run(n) for n in range(3)))
    found = compare("a", "b", store=store)

    assert found.divergence is None
    assert set(found.turns.status) == {"matched"}
    assert not found.turns.shared.any()
    assert "are identical: 12 turns" in repr(found)
    assert {row[2] for row in by_metric(found).values()} == {0.0}


def test_divergence_of_branches_is_the_first_different_message(store):
    """Forked at 50 random messages: what they inherit is the same rows, and the next message is where they part."""
    save(store, "chat", *(make_run(n) for n in range(25)))
    chance = random.Random(20261125)
    places = [(chance.randrange(25), chance.randrange(MESSAGES)) for _ in range(50)]
    for number, (run, message) in enumerate(places):
        branch = store.branch("chat", after=(run, message), new_session_id=f"branch {number}")
        store.append_run(branch.session_id, Run(input="?", messages=[Message(role="user", content=f"else {number}")]))
        found = compare("chat", branch.session_id, store=store)
        inherited = run * MESSAGES + message + 1
        ended = (run, message) == (24, MESSAGES - 1)
        next_run, next_message = divmod(inherited, MESSAGES)

        assert found.turns.shared.sum() == inherited
        assert found.divergence.turn == inherited
        assert found.divergence.a == (None if ended else f"chat/{next_run}.{next_message}")
        assert found.divergence.b == f"{branch.session_id}/{run + 1}.0"
        assert found.divergence.b_text == f"else {number}"


def test_empty_branch_diverges_at_its_end(store):
    """An empty branch has inherited rows and none of its own."""
    save(store, "chat", make_run(0), make_run(1))
    store.branch("chat", after=0, new_session_id="empty")
    found = compare("chat", "empty", store=store).divergence

    assert (found.turn, found.a, found.b) == (4, "chat/1.0", None)


def test_branches_share_inherited_turns(store):
    """By identity: the words after their forks are the same, and not shared."""
    save(store, "chat", make_run(0), make_run(1))
    for name in ("left", "right"):
        store.branch("chat", after=0, new_session_id=name)
        store.append_run(name, make_run(7))
    turns = compare("left", "right", store=store).turns

    assert turns.shared.tolist() == [True] * 4 + [False] * 4
    assert set(turns.status) == {"matched"}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The price is 20 euros.", "The price is 25 euros."),
        ("yes", "yes "),
        ("x" * 100_000 + "a", "x" * 100_000 + "b"),
        ("naïve", "nai\u0308ve"),
        ("", "\u200b"),
        ("line\n", "line\r\n"),
        ("be\x00fore", "be\x01fore"),
    ],
)
def test_similar_texts_are_changed(store, a, b):
    """In the last of 10 runs, the rest being the same; the turn is changed, not lost on one side and new on the other."""
    save(store, "a", *(make_run(n) for n in range(9)), make_run(9, answer=a))
    save(store, "b", *(make_run(n) for n in range(9)), make_run(9, answer=b))
    found = compare("a", "b", store=store)
    if a == "":  # `make_run` makes an answer up where it has none
        return

    assert (found.divergence.a, found.divergence.b) == ("a/9.3", "b/9.3")
    assert (found.divergence.a_text, found.divergence.b_text) == (a, b)
    assert found.turns.status.tolist() == ["matched"] * 39 + ["changed"]


def test_order_of_argument_keys_is_ignored(store):
    """JSON objects have no order; a value that differs is a change of the call and of its turn."""
    save(store, "a", make_run(0, args={"x": 1, "y": [1, 2]}))
    save(store, "b", make_run(0, args={"y": [1, 2], "x": 1}))
    save(store, "c", make_run(0, args={"y": [2, 1], "x": 1}))

    assert compare("a", "b", store=store).tool_calls.status.tolist() == ["matched"]
    assert compare("a", "c", store=store).tool_calls.status.tolist() == ["changed"]
    assert compare("a", "c", store=store).divergence.a == "a/0.1"


def test_turns_of_one_side_only(store):
    """After what was inserted or left out, the two are side by side again."""
    save(store, "a", make_run(0), make_run(1), make_run(2))
    save(store, "b", make_run(0), make_run(9), make_run(1), make_run(2))
    save(store, "c", make_run(0), make_run(2))

    status = compare("a", "b", store=store).turns.status
    assert status.tolist() == ["matched"] * 4 + ["only in b"] * 4 + ["matched"] * 8
    status = compare("a", "c", store=store).turns.status
    assert status.tolist() == ["matched"] * 4 + ["only in a"] * 4 + ["matched"] * 4


def test_alignment_has_every_turn_and_call_once(store):
    """Whatever the alignment: nothing is lost and nothing twice, in the order of each."""
    chance = random.Random(7)
    for trial in range(10):
        names = [f"a{trial}", f"b{trial}"]
        for name in names:
            save(
                store,
                name,
                *(make_run(chance.randrange(6), args=chance.randrange(3)) for _ in range(chance.randrange(8))),
            )
        found = compare(*names, store=store)
        for name, side in zip(names, "ab", strict=True):
            df = store.messages_df(name)
            places = [f"{name}/{run}.{n}" for run, n in zip(df.run_index, df.message_index, strict=True)]
            assert found.turns[side].dropna().tolist() == places
            assert len(found.tool_calls[side].dropna()) == len(store.tool_calls_df(name))


@pytest.mark.every_engine
def test_metrics_have_values_and_better_side(store):
    """Sums over the runs; fewer tokens, less cost and time are better, and more messages are neither."""
    save(store, "a", make_run(0), make_run(1))
    failed = Message(role="tool", tool_call_id="c1", content="boom", is_error=True)
    bad = make_run(2)
    bad.messages[2], bad.tool_calls = failed, []
    bad.messages[1].tool_calls = [ToolCall(tool_call_id="c1", tool_name="tool_2", args={})]
    save(store, "b", make_run(0), make_run(1), bad)
    store.add_score("a", "reward", 0.0)
    store.add_score("b", "reward", 1.0)
    found = by_metric(compare("a", "b", store=store))

    assert found["n_runs"] == (2, 3, 1, None)
    assert found["n_messages"] == (8, 12, 4, None)
    assert found["n_tool_errors"] == (0, 1, 1, "a")
    assert found["input_tokens"] == (60, 90, 30, "a")
    assert found["total_tokens"] == (72, 108, 36, "a")
    assert found["cost"] == (1.5, 2.25, 0.75, "a")
    assert found["duration_s"] == (3.0, 4.5, 1.5, "a")
    assert found["reward"] == (0.0, 1.0, 1.0, "b")
    percent = compare("a", "b", store=store).metrics.set_index("metric").delta_pct
    assert percent["cost"] == 50.0
    assert percent["reward"] is pd.NA  # there is no percentage of 0


def test_unknown_values_are_missing_and_never_better(store):
    """A cost that only one states has no difference; what neither states is left out."""
    cheap = Run(input="x", usage=Usage(input_tokens=5, output_tokens=5, cost=0.0))
    store.append_run("a", cheap)
    store.append_run("b", Run(input="x", usage=Usage(input_tokens=5, output_tokens=5, cost=0.1)))
    found = by_metric(compare("a", "b", store=store))

    assert found["cost"] == (None, 0.1, None, None)
    assert found["total_tokens"] == (10, 10, 0, "neither")
    assert "reasoning_tokens" not in found


def test_branch_metrics_include_inherited_runs(store):
    """So that the difference is what the two did differently; of a run cut in two, the messages it has."""
    save(store, "chat", make_run(0), make_run(1))
    store.branch("chat", after=(1, 1), new_session_id="b")
    found = by_metric(compare("chat", "b", store=store))

    assert found["n_messages"] == (8, 6, -2, None)
    assert found["input_tokens"] == (60, 40, -20, None)
    assert found["cost"] == (1.5, 1.25, -0.25, None)
    assert found["n_tool_calls"] == (2, 2, 0, None)


def test_shorter_branch_is_neither_better_nor_worse(store):
    """Its totals are lower because it has fewer runs. With as many, they have a better side; so have scores always."""
    save(store, "chat", make_run(0), make_run(1), make_run(2))
    store.branch("chat", after=0, new_session_id="b")
    store.branch("chat", before=0, new_session_id="new")
    costly = make_run(3).model_copy(update={"usage": Usage(input_tokens=500, output_tokens=1, cost=9.0)})
    for name in ("b", "new"):
        store.append_run(name, costly.model_copy(deep=True, update={"run_id": f"of {name}"}))
        store.add_score(name, "reward", 1.0)
    store.add_score("chat", "reward", 0.0)
    member = Run(parent_run_id="of b", usage=Usage(input_tokens=5, output_tokens=5))
    store.append_run("b", member)

    for name in ("b", "new"):
        for comparison, side in ((compare("chat", name, store=store), "b"), (compare(name, "chat", store=store), "a")):
            better = {metric: row[3] for metric, row in by_metric(comparison).items()}
            assert better.pop("reward") == side
            assert set(better.values()) == {None}
            assert "no verdict" in repr(comparison)
    runs = compare("chat", "b", store=store).runs
    assert runs[["a", "b", "shared"]].to_numpy().tolist() == [
        ["chat/0", "b/0", True],
        ["chat/1", "b/1", False],
        ["chat/2", pd.NA, False],
    ]
    assert runs["b_total_tokens"].tolist()[:2] == [36.0, 511.0]
    assert runs["b_total_tokens"].isna().tolist() == [False, False, True]

    store.append_run("b", make_run(4))
    comparison = compare("chat", "b", store=store)
    assert by_metric(comparison)["total_tokens"][3] == "a"
    assert "no verdict" not in repr(comparison)


def test_compare_runs(store):
    """A reference to a run takes that run alone, with its own scores."""
    save(store, "chat", make_run(0), make_run(1), make_run(0, answer="another answer"))
    run = store.find_run("chat/2")
    store.add_score("chat", "liked", 1.0, run_id=run.run_id)
    store.add_score("chat", "liked", 0.0)
    found = compare("chat/0", run, store=store)

    assert [side.label for side in found.sides] == ["chat/0", "chat/2"]
    assert found.turns.status.tolist() == ["matched"] * 3 + ["changed"]
    assert found.divergence.b == "chat/2.3"
    assert by_metric(found)["liked"] == (None, 1.0, None, None)


def test_run_metrics_include_member_runs(store):
    """A team's run has the messages and tokens of its members' runs; their time is within its own."""
    leader = store.append_run("team", make_run(0))
    store.append_run("team", make_run(1, parent_run_id=leader.run_id))
    store.append_run("team", make_run(2))
    found = by_metric(compare("team/0", "team/2", store=store))

    assert found["n_runs"][:2] == (2, 1)
    assert found["input_tokens"][:2] == (60, 30)
    assert found["duration_s"][:2] == (1.5, 1.5)


def test_run_without_messages_is_compared_by_input_and_output(store):
    """As its transcript shows it."""
    store.append_run("a", Run(input="hi", output="hello"))
    store.append_run("b", Run(input="hi", output="good day"))
    found = compare("a", "b", store=store)

    assert list(zip(found.turns.role, found.turns.status, strict=True)) == [
        ("user", "matched"),
        ("assistant", "changed"),
    ]


def test_contenders_are_stacked_beside_the_baseline(store):
    """The frames say which contender a row is about; the first of the divergences is the comparison's."""
    save(store, "a", make_run(0), make_run(1))
    save(store, "b", make_run(0), make_run(1, answer="late"))
    save(store, "c", make_run(5), make_run(1))
    found = compare("a", "b", "c", store=store)

    assert found.metrics.contender.unique().tolist() == ["b", "c"]
    assert found.turns.groupby("contender").size().to_dict() == {"b": 8, "c": 8}
    assert (found.divergence.contender, found.divergence.turn) == ("c", 0)
    assert [pair.divergence.turn for pair in found.pairs] == [7, 0]
    assert found.turns.columns[0] == "contender"


def test_compare_sessions_of_two_stores(store, store_factory):
    """Of one name, each is named with its store; the same run ids are not the same rows."""
    other = store_factory(name="other")
    runs = [make_run(n) for n in range(2)]
    save(store, "chat", *runs)
    save(other, "chat", *(run.model_copy(update={"output": "x"}) for run in runs))
    found = compare("chat", ("chat", other), store=store)

    assert len({side.label for side in found.sides}) == 2
    assert all(side.label.startswith("chat in ") for side in found.sides)  # both in memory: the second has a number
    assert not found.turns.shared.any()
    assert set(found.turns.status) == {"matched"}


def test_compare_empty_sessions(store):
    """Nothing on either side is the same nothing."""
    save(store, "a")
    save(store, "b", make_run(0))

    assert compare("a", "a", store=store).divergence is None
    assert compare("a", "b", store=store).divergence.b == "b/0.0"
    assert compare("a", "b", store=store).turns.status.tolist() == ["only in b"] * 4


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), BadUsage),
        (("a",), BadUsage),
        (("a", "nobody"), SessionNotFound),
        (("a", "a/7"), RunNotFound),
        (("a", "a/0.1"), BadUsage),
        (("a", "b"), AmbiguousReference),
    ],
)
def test_invalid_sides_raise_with_a_hint(store, names, error):
    """With the name, and what to do."""
    for name in ("a", "b1", "b2"):
        save(store, name, make_run(0))

    with pytest.raises(error) as caught:
        compare(*names, store=store)
    assert caught.value.hint


def test_run_that_is_not_stored_raises(store):
    """Its place is not known."""
    save(store, "a", make_run(0))
    with pytest.raises(BadUsage, match="is not stored"):
        compare("a", make_run(1), store=store)


def calling(args=None, result="sunny", text=None, *, of_message=True) -> Run:
    """A run whose only call has no message that says its result; the call itself may have no message either."""
    call = ToolCall(tool_call_id="c", tool_name="weather", args=args, result=result)
    messages = [
        Message(role="user", content="How is Rome?"),
        Message(role="assistant", content=text, tool_calls=[call] if of_message else []),
        Message(role="assistant", content="Done."),
    ]
    return Run(messages=messages if of_message else messages[::2], tool_calls=[] if of_message else [call])


@pytest.mark.parametrize("of_message", [True, False])
def test_result_without_a_message_is_compared(store, of_message):
    """Two sessions whose tools returned different things are not the same, whatever a source kept of it."""
    save(store, "a", calling(of_message=of_message))
    save(store, "b", calling(result="rainy", of_message=of_message))
    found = compare("a", "b", store=store)

    place = "{}/0.1" if of_message else "{}/0"
    assert (found.divergence.a, found.divergence.b) == (place.format("a"), place.format("b"))
    assert found.turns.status.tolist() == ["matched", "changed", "matched"]
    assert found.turns.a_calls[1] == "weather() → sunny"
    assert "→ rainy" in repr(found.divergence)
    assert "[-sunny-]{+rainy+}" in repr(found)
    assert compare("a", "a", store=store).divergence is None


def test_result_with_a_message_appears_once(store):
    """There it is a turn of its own."""
    save(store, "a", make_run(0))
    save(store, "b", make_run(0))

    assert compare("a", "b", store=store).turns.a_calls[1] == 'tool_0({"n":0})'


@pytest.mark.parametrize(("x", "y"), [(1, 1.0), (1, "1"), (1, True), (0, None), ("", None)])
def test_argument_types_are_compared(store, x, y):
    """And the difference is in the text, beside words that are the same."""
    save(store, "a", calling(args={"x": x}, text="One moment."))
    save(store, "b", calling(args={"x": y}, text="One moment."))
    found = compare("a", "b", store=store)

    assert found.divergence.turn == 1
    assert found.divergence.a_calls != found.divergence.b_calls
    assert "{+" in repr(found)
    first, second = repr(found.divergence).splitlines()[1:]
    assert first.split("0.1")[1] != second.split("0.1")[1]


def test_non_numeric_score_is_unknown(store):
    """It is better than nothing, and worse than nothing."""
    for name in "ab":
        save(store, name, make_run(0))
    store.add_score("a", "reward", float("nan"))
    store.add_score("b", "reward", 1.0)

    for names, row in ((("a", "b"), (None, 1.0, None, None)), (("b", "a"), (1.0, None, None, None))):
        found = compare(*names, store=store)
        assert by_metric(found)["reward"] == row
        assert "reward" in repr(found)
    assert "reward" not in by_metric(compare("a", "a", store=store))


def test_score_with_the_name_of_a_total_is_prefixed(store):
    """Both are there, the score under another name; and it is a score: higher is better."""
    for name, value in (("a", 3), ("b", 4)):
        save(store, name, make_run(0))
        store.add_score(name, "cost", value)
        store.add_score(name, "total_tokens", value)
    found = by_metric(compare("a", "b", store=store))

    assert found["cost"] == (0.75, 0.75, 0, "neither")
    assert found["score.cost"] == (3, 4, 1, "b")
    assert found["total_tokens"][0] == 36
    assert found["score.total_tokens"] == (3, 4, 1, "b")


def test_session_tables_of_one_database_share_no_rows(persistent_target):
    """The same records under another table's name are equal, and not the same rows."""
    with open_store(persistent_target) as one, open_store(persistent_target, session_table="other") as other:
        run = make_run(0)
        for store in (one, other):
            store.append_run("chat", run)
        turns = compare(("chat", one), ("chat", other)).turns

    assert set(turns.status) == {"matched"}
    assert not turns.shared.any()


def test_display_is_limited_to_the_first_contenders(store):
    """As with turns: what is shown is bounded, and says what it leaves out; the frames have all."""
    for n in range(31):
        save(store, f"chat-{n:02}", make_run(n), make_run(n + 1))
    found = compare(*(f"chat-{n:02}" for n in range(31)), store=store)

    assert len(found._repr_html_()) < 100_000
    assert len(repr(found).splitlines()) < 120
    for text in (repr(found), found._repr_html_()):
        assert "chat-08" in text
        assert "chat-09" not in text
        assert "… 22 more contenders; see .metrics and .turns." in text
    assert found.turns.contender.nunique() == 30


def test_display_of_ten_thousand_changed_turns_is_fast():
    """Only what is shown is compared word by word."""
    with open_store(":memory:") as store:
        for name in "ab":
            said = [Message(role="assistant", content=f"{name}{n} " + "foo " * 100) for n in range(10_000)]
            store.append_run(name, Run(messages=said))
        found = compare("a", "b", store=store)
        len(found.pairs[0].rows)
        begun = time.thread_time()
        texts = repr(found), found._repr_html_()
        took = time.thread_time() - begun

    assert took < 2
    assert all("9,976 more turns" in texts[0] or "9,940 more differing turns" in text for text in texts)


def test_unknown_cost_is_not_zero(store):
    """A greeting without a model cost nothing; the run beside it spent tokens at a price that nobody stated."""
    greeting = Run(messages=[Message(role="assistant", content="Hello!", usage=Usage(cost=0))])
    spent = Usage(input_tokens=10, output_tokens=1, cost=0)
    answer = Run(messages=[Message(role="assistant", content="Yes.", usage=spent)])
    save(store, "a", greeting, answer)
    save(store, "b", make_run(0))
    found = by_metric(compare("a", "b", store=store))

    assert store.sessions_df("a")["cost"].isna().all()
    assert found["cost"] == (None, 0.75, None, None)
    assert summarize("a", store=store).items["cost"].isna().all()


def test_comparison_is_symmetric(store):
    """Whichever is the baseline: the same turns and calls are side by side, and what is better changes sides."""
    chance = random.Random(11)
    sides = {"only in a": "only in b", "only in b": "only in a", "a": "b", "b": "a"}
    for trial in range(12):
        names = [f"a{trial}", f"b{trial}"]
        for name in names:
            save(store, name, *(make_run(chance.randrange(5), args=chance.randrange(4)) for _ in range(6)))
        found, turned = compare(*names, store=store), compare(*names[::-1], store=store)

        for frame in ("turns", "tool_calls"):
            rows = getattr(found, frame)[["a", "b", "status"]].astype(object).fillna("").to_numpy().tolist()
            others = getattr(turned, frame)[["b", "a", "status"]].astype(object).fillna("").to_numpy().tolist()
            assert sorted(rows) == sorted([x, y, sides.get(status, status)] for x, y, status in others)
        one, other = by_metric(found), by_metric(turned)
        assert {
            name: (b, a, delta and -delta, sides.get(better, better)) for name, (a, b, delta, better) in one.items()
        } == other


def test_detached_branch_has_the_same_metrics(store):
    """Its copies of what it inherited count with it, as the rows did: tokens, cost and time alike.

    Only the better side of totals is stated of detached sessions, which have no runs in common any more.
    """
    save(store, "chat", make_run(0), make_run(1))
    store.branch("chat", after=0, new_session_id="branch")
    store.branch("chat", after=0, new_session_id="empty")
    store.append_run("branch", make_run(2))
    before = {name: row[:3] for name, row in by_metric(compare("branch", "empty", store=store)).items()}
    store.delete_session("chat", detach_branches=True)
    after = {name: row[:3] for name, row in by_metric(compare("branch", "empty", store=store)).items()}

    assert after == before
    assert after["duration_s"][:2] == (3.0, 1.5)


def test_copies_of_earlier_messages_are_not_turns(store):
    """An agent that keeps the history with each run says the same as one that does not."""
    for name, keeps in (("keeps", True), ("does not", False)):
        agent = Agent(
            ScriptedModel(["one", "two", "three"]),
            db=store,
            session_id=name,
            add_history_to_context=True,
            store_history_messages=keeps,
        )
        for question in ("a?", "b?", "c?"):
            agent.run(question)
    assert len(store.messages_df("keeps")) > len(store.messages_df("does not"))
    found = compare("keeps", "does not", store=store)

    assert found.divergence is None
    assert by_metric(found)["n_messages"] == (6, 6, 0, None)
    assert summarize("keeps", store=store).items["n_messages"].tolist() == [6]
    assert compare("keeps/2", "does not/2", store=store).divergence is None
