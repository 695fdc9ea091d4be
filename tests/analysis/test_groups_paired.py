"""`compare_groups`: sessions in groups, paired by a key; nothing is lost silently, and unknown is never 0."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from trials import row, save_trial, save_trials, table

from kern_nb import store_registry
from kern_nb.analysis.groups import compare_groups
from kern_nb.errors import BadUsage, NoStore
from kern_nb.records import Run, Usage


def test_trials_are_averaged_before_groups_are_compared(store):
    """A key with many trials weighs as much as any other; on every engine."""
    save_trials(store, "a", {"1": [1, 0], "2": [0, 0, 0]}, tokens=100)
    save_trials(store, "b", {"1": [1], "2": [1, 1, 0]}, tokens=40)
    found = compare_groups(store)
    reward, tokens = row(found.metrics, metric="reward"), row(found.metrics, metric="tokens")

    assert table(found.groups[["group", "n_sessions", "n_keys", "n_scored"]]) == [("a", 5, 2, 5), ("b", 4, 2, 4)]
    assert table(found.pairs[found.pairs.metric == "reward"]) == [
        ("1", "reward", 0.5, 1.0, 0.5),
        ("2", "reward", 0.0, pytest.approx(2 / 3), pytest.approx(2 / 3)),
    ]
    assert (reward["n_pairs"], reward["a"], reward["b"]) == (2, 0.25, pytest.approx(5 / 6))
    assert (reward["delta"], reward["better"]) == (pytest.approx(7 / 12), "b")
    assert 0.5 <= reward["low"] <= reward["delta"] <= reward["high"] <= 2 / 3
    assert (tokens["delta"], tokens["low"], tokens["high"], tokens["better"]) == (-60, -60, -60, "b")
    assert row(found.metrics, metric="runs")["better"] is None
    assert table(found.groups[["tokens", "tokens_total", "time", "time_total"]]) == [(100, 500, 2, 10), (40, 160, 2, 8)]
    assert found.unmatched.empty
    assert found.ambiguous.empty


def test_group_frames_have_store_dtypes(db):
    """Text, Int64 and Float64, so that they join with the store's frames, even where nothing is known."""
    save_trials(db, "a", {"1": [1], "2": [1]}, cost=None)
    save_trials(db, "b", {"1": [1], "3": [None]}, cost=None)
    found = compare_groups(db)
    names = {
        "string": ["group", "key", "metric", "better", "reason", "session_id"],
        "Int64": ["k"],
        "boolean": ["success"],
    }
    expected = {name: dtype for dtype, columns in names.items() for name in columns}
    frames = ("groups", "pairs", "metrics", "pass_k", "better", "worse", "unmatched", "ambiguous", "sessions")

    for frame in (getattr(found, name) for name in frames):
        for name, dtype in frame.dtypes.items():
            counted = name.startswith("n_") or name.endswith("_known") or name == "tokens_total"
            assert dtype == expected.get(name, "Int64" if counted else "Float64"), name


def test_unknown_cost_is_missing_not_zero(db):
    """It is left out of means, sums and pairs, and of how many sessions they are is told."""
    save_trial(db, "a1", "a", "1", 1, cost=3.0)
    save_trial(db, "a2", "a", "1", 1, cost=None)
    save_trial(db, "a3", "a", "2", 1, cost=0)  # beside spent tokens
    save_trial(db, "b1", "b", "1", 1, cost=1.0)
    save_trial(db, "b2", "b", "2", 1, cost=5.0)
    found = compare_groups(db)
    a, cost = row(found.groups, group="a"), row(found.metrics, metric="cost")

    assert (a["cost"], a["cost_total"], a["cost_known"], a["n_sessions"]) == (3.0, 3.0, 1, 3)
    assert table(found.pairs[found.pairs.metric == "cost"]) == [("1", "cost", 3, 1, -2), ("2", "cost", None, 5, None)]
    assert (cost["n_pairs"], cost["a"], cost["b"], cost["delta"]) == (1, 3.0, 1.0, -2.0)
    assert (cost["low"], cost["high"], cost["better"]) == (None, None, None)
    assert "Cost of a: known for 1 of 3 sessions." in repr(found)


def test_every_session_is_compared_or_ambiguous(store):
    """Without a key, without a group, of runs that disagree, without a score: each with its reason; on every engine."""
    save_trials(store, "a", {"1": [1], "2": [0]})
    save_trials(store, "b", {"1": [0], "3": [1]})
    save_trial(store, "unscored", "b", "2", tokens=70)
    save_trial(store, "no key", "a", None, 1)
    save_trial(store, "torn", None, "1", 1, runs=[Run(model="b"), Run(model="a"), Run()])
    save_trial(store, "no runs", None, None, runs=[])
    found = compare_groups(store)
    told = {row[0]: row[1:] for row in table(found.ambiguous)}

    assert told == {
        "unscored": ("not scored: no reward", "b", "2"),
        "no key": ("no task_id", "a", None),
        "torn": ("its runs disagree on model: a, b", None, "1"),
        "no runs": ("no model; no task_id; not scored: no reward", None, None),
    }
    assert set(found.sessions.session_id) | set(told) == set(store.sessions_df().session_id)
    assert table(found.unmatched) == [("3", "a")]
    assert set(found.pairs.key) == {"1", "2"}
    # What is not scored counts for what it took, and is no failure.
    assert row(found.pairs, key="2", metric="reward")["delta"] is None
    assert row(found.pairs, key="2", metric="tokens")["delta"] == 60
    assert row(found.groups, group="b")["success_rate"] == 0.5
    text = repr(found)
    assert "3 sessions excluded, 1 session without a score" in text
    assert "Unmatched: 1 key in some groups only" in text


def test_model_of_a_session_is_that_of_its_own_runs(db):
    """Runs of a team's members say nothing about the group, nor do runs that name no model."""
    leader = Run(run_id="r1", model="a")
    member = Run(model="tiny", parent_run_id="r1")
    save_trial(db, "team", None, "1", 1, runs=[leader, member, Run()])
    save_trial(db, "b", "b", "1", 1)

    assert dict(table(compare_groups(db).sessions[["session_id", "group"]])) == {"team": "a", "b": "b"}


def test_two_contenders_are_stacked_beside_the_baseline(db):
    """A column says which contender is b; a key that one of them lacks is still compared with the other."""
    save_trials(db, "a", {"1": [0], "2": [1]}, created_at=100)
    save_trials(db, "c", {"1": [1], "2": [0]}, created_at=200)
    save_trials(db, "b", {"1": [1]}, created_at=300)
    found = compare_groups(db)

    assert (found.baseline, found.contenders) == ("a", ["c", "b"])
    assert list(found.metrics.columns[:2]) == list(found.pairs.columns[[0, 2]]) == ["group", "metric"]
    assert table(found.better) == [("c", "1", 0, 1, 1), ("b", "1", 0, 1, 1)]
    assert table(found.worse) == [("c", "2", 1, 0, -1)]
    assert table(found.unmatched) == [("2", "b")]
    assert row(found.metrics, group="c", metric="reward")["n_pairs"] == 2
    assert row(found.metrics, group="c", metric="reward")["delta"] == 0
    assert row(found.metrics, group="b", metric="reward")["n_pairs"] == 1
    assert "baseline" in found._repr_html_()


def test_baseline_is_the_group_with_the_oldest_session(db):
    """Or the one named first; by name where both began at once. What is not named is counted, not compared."""
    save_trials(db, "new", {"1": [1]}, created_at=300)
    save_trials(db, "old", {"1": [0]}, created_at=100)
    save_trials(db, "mid", {"1": [0], "2": [1]}, created_at=100)

    assert compare_groups(db).groups.group.tolist() == ["mid", "old", "new"]
    found = compare_groups(db, groups=["new", "old"])
    assert found.groups.group.tolist() == ["new", "old"]
    assert row(found.metrics, metric="reward")["delta"] == -1
    assert found.others == {"mid": 2}
    assert found.unmatched.empty
    assert "Not selected: 2 sessions of mid." in repr(found)


def test_groups_by_a_session_column(store):
    """A column of sessions_df comes before a metadata key of that name, which the prefix reaches."""
    for n, agent in enumerate(("fast", "slow")):
        save_trial(store, f"s{n}", "m", "1", n, agent_id=agent)
        store.save_session(
            store.get_session(f"s{n}").model_copy(update={"metadata": {"task_id": "1", "agent_id": str(n)}})
        )

    assert set(compare_groups(store, by="agent_id").groups.group) == {"fast", "slow"}
    assert set(compare_groups(store, by="metadata.agent_id").groups.group) == {"0", "1"}


def test_groups_by_a_state_key(store):
    """A key of the session state, by its bare name or with its prefix; numbers and objects are written as JSON."""
    for n, plan in enumerate(({"depth": 1}, {"depth": 2})):
        state = {"plan": plan, "task": {"name": "x"}}
        save_trial(store, f"s{n}", "m", None, n, session_data={"session_state": state})
    found = compare_groups(store, by="state.plan.depth", key="state.task.name")

    assert found.groups.group.tolist() == ["1", "2"]
    assert found.pairs.key.unique().tolist() == ["x"]
    assert set(compare_groups(store, by="plan", key="task").groups.group) == {'{"depth": 1}', '{"depth": 2}'}


@pytest.mark.parametrize("kind", [int, np.int64, str])
def test_labels_of_values(db, kind):
    """A number as a number, of numpy too: as it stands in the metadata and comes out of a frame."""
    for n in range(3):
        save_trial(db, f"s{n}", "m", "1", n)
        made = db.get_session(f"s{n}")
        db.save_session(made.model_copy(update={"metadata": {"task_id": "1", "n": n, "odd": bool(n % 2)}}))
    found = compare_groups(db, by="n", groups=[kind(2), kind(0)], success=np.float32(2))

    assert found.groups.group.tolist() == ["2", "0"]
    assert found.groups.success_rate.tolist() == [1, 0]
    one = compare_groups(db, by=["n", "task_id"], where={"odd": np.bool_(False)})
    assert one.groups.group.tolist() == ["0 / 1", "2 / 1"]


def test_several_names_are_combined_into_one_key(db):
    """What one name does not tell apart, two do; a session that lacks one of them has no key."""
    for n, (model, domain, task) in enumerate([("a", "x", "1"), ("a", "y", "1"), ("b", "x", "1"), ("b", None, "1")]):
        metadata = {"task": task} | ({"domain": domain} if domain else {})
        save_trial(db, f"s{n}", model, None, n % 2)
        db.save_session(db.get_session(f"s{n}").model_copy(update={"metadata": metadata}))
    found = compare_groups(db, key=["domain", "task"])

    assert found.key == "domain / task"
    assert found.pairs.key.unique().tolist() == ["x / 1"]
    assert table(found.unmatched) == [("y / 1", "b")]
    assert table(found.ambiguous) == [("s3", "no domain", "b", None)]


def test_ambiguous_combined_keys_are_json(db):
    """A value may hold what stands between two values."""
    for n, (one, two) in enumerate([("x / y", "z"), ("x", "y / z")]):
        for model in "ab":
            save_trial(db, f"{model}{n}", model, None, n)
            made = db.get_session(f"{model}{n}")
            db.save_session(made.model_copy(update={"metadata": {"one": one, "two": two}}))

    assert set(compare_groups(db, key=["one", "two"]).pairs.key) == {'["x / y", "z"]', '["x", "y / z"]'}


def test_filters_limit_the_sessions(db):
    """Filters and conditions narrow sessions, and with them scores, runs and what is reported."""
    for n, domain in enumerate(("air", "sea")):
        for model in "ab":
            name = f"{domain}-{model}"
            save_trial(db, name, model, "1", n, created_at=100 * n, user_id=domain, tokens=1 + n)
            made = db.get_session(name)
            db.save_session(made.model_copy(update={"metadata": {"task_id": "1", "domain": domain, "n": n}}))
    save_trial(db, "other", "c", "9", user_id="nobody", created_at=500)
    ways = [{"where": {"domain": "sea"}}, {"where": {"metadata.n": 1}}, {"user_id": "sea"}]
    ways += [{"since": pd.Timestamp(100, unit="s"), "until": pd.Timestamp(200, unit="s")}]

    for way in ways:
        found = compare_groups(db, **way)
        assert found.sessions.session_id.tolist() == ["sea-a", "sea-b"], way
        assert found.groups.tokens.tolist() == [2, 2]
        assert found.groups.success_rate.tolist() == [1, 1]
        assert found.ambiguous.empty
        assert found.unmatched.empty
    assert "c" in set(compare_groups(db).groups.group)


def test_session_scores_take_precedence_over_run_scores(db):
    """The mean of several sources; where only runs are rated, the mean of theirs."""
    save_trial(db, "a", "a", "1", 0.5)
    db.add_score("a", "reward", 1.0, source="ann")
    db.add_score("a", "reward", 0.0, run_id=db.get_session("a").runs[0].run_id)
    save_trial(db, "b", "b", "1", runs=[Run(run_id="r1", model="b"), Run(run_id="r2", model="b")])
    db.add_score("b", "reward", 0.25, run_id="r1")
    db.add_score("b", "reward", 0.75, run_id="r2")

    assert compare_groups(db).sessions.score.tolist() == [0.75, 0.5]


def test_comparison_without_scores(db):
    """With no score asked for, or none there, what sessions took is compared; a wrong name is refused."""
    save_trials(db, "a", {"1": [None]})
    save_trials(db, "b", {"1": [None]})
    plain, unscored = compare_groups(db, score=None), compare_groups(db)

    assert "tokens" in plain.metrics.metric.tolist()
    assert plain.score is None
    assert plain.ambiguous.empty
    assert "success" not in repr(plain)
    assert row(unscored.metrics, metric="reward")["n_pairs"] == 0
    assert len(unscored.ambiguous) == 2
    db.add_score("a-1-0", "rewrad", 1)
    with pytest.raises(BadUsage, match="No session has a score 'reward'") as refused:
        compare_groups(db)
    assert refused.value.hint == "Did you mean 'rewrad'?"


def test_score_may_have_the_name_of_a_metric(db):
    """It is told apart, and higher is better for it."""
    for name, value in (("a", 1), ("b", 2)):
        for task in "12":
            save_trial(db, name + task, name, task)
            db.add_score(name + task, "cost", value)
    found = compare_groups(db, score="cost")

    assert row(found.metrics, metric="score.cost")["better"] == "b"
    assert row(found.metrics, metric="cost")["better"] == "neither"


def test_single_pair_and_no_pair(db):
    """One pair has no interval, and speaks for nobody; groups that share no key have all of theirs unmatched."""
    save_trials(db, "a", {"1": [1]})
    save_trials(db, "b", {"1": [0], "2": [1]})
    save_trials(db, "c", {"3": [1]})
    one, none = compare_groups(db, groups=["a", "b"]), compare_groups(db, groups=["a", "c"])

    assert row(one.metrics, metric="reward") | {"a": 1, "b": 0} == row(one.metrics, metric="reward")
    assert row(one.metrics, metric="reward")["low"] is None
    assert row(one.metrics, metric="reward")["better"] is None
    assert "a single pair has no interval" in repr(one)
    assert none.metrics.n_pairs.tolist() == [0] * 8
    assert table(none.unmatched) == [("3", "a"), ("1", "c")]
    assert "No shared keys." in repr(none)


def test_group_without_keys_is_empty(db):
    """It is asked for, so it is shown, with nothing in it."""
    save_trials(db, "a", {"1": [1]})
    save_trial(db, "b", "b", None, 1)
    found = compare_groups(db)

    assert table(found.groups[["group", "n_sessions", "tokens", "pass_1"]]) == [("a", 1, 10, 1), ("b", 0, None, None)]
    assert table(found.unmatched) == [("1", "b")]
    assert "1 session excluded" in repr(found)


def test_rounding_differences_are_zero(db):
    """0.1 + 0.2 is as good as 0.3: no key moved, and no side is better."""
    for task in "12":
        save_trials(db, "a", {task: [0.1, 0.2]})
        save_trials(db, "b", {task: [0.15, 0.15000000000000002]})
    found = compare_groups(db)

    assert len(found.better) == len(found.worse) == 0
    assert row(found.metrics, metric="reward")["better"] == "neither"


def test_comparison_is_deterministic(db):
    """The bootstrap too."""
    save_trials(db, "a", {str(n): [n % 3] for n in range(30)}, tokens=20)
    save_trials(db, "b", {str(n): [n % 4] for n in range(30)}, tokens=20)
    first, again = compare_groups(db), compare_groups(db)

    pd.testing.assert_frame_equal(first.metrics, again.metrics)
    assert repr(first) == repr(again)
    assert first.pairs.key.unique().tolist() == [str(n) for n in range(30)]


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"key": "tsk_id"}, "No session has a value for 'tsk_id'", "Did you mean 'task_id'?"),
        ({"by": "metadata.modle"}, "No session has a value for 'metadata.modle'", "Did you mean 'model'?"),
        ({"by": "zzz"}, "No session has a value for 'zzz'", "The metadata has task_id. Columns are model, "),
        ({"by": "task_id"}, "by task_id there is only '1'", "Choose something else in by."),
        ({"groups": ["a", "bb"]}, "No session is in the group 'bb'", "Did you mean 'b'?"),
        ({"groups": ["a", "zz"]}, "No session is in the group 'zz'", "The groups by model are: a, b."),
        ({"groups": ["a"]}, "compare_groups takes two or more groups, got only 'a'", "The groups by model are: a, b."),
        ({"groups": "a"}, "compare_groups takes two or more groups, got only 'a'", "The groups by model are: a, b."),
        ({"groups": ["a", "b", "a"]}, "groups must be distinct, got a, b, a", "The groups by model are: a, b."),
        ({"where": {"task_id": "7"}}, "No session has task_id '7'", "Known values: 1."),
        ({"user_id": "nobody"}, "No session matches", "Choose other filters."),
        ({"confidence": 95}, "confidence must be a number between 0 and 1, got 95", "For example: confidence=0.95"),
        ({"key": []}, "A name to group or pair sessions by is required", 'For example: key="task_id"'),
        ({"key": None}, "must be a non-empty str, got None", 'For example: "task_id"'),
        ({"by": 3}, "must be a non-empty str, got 3", 'For example: "task_id"'),
        ({"by": ["model", ""]}, "must be a non-empty str, got ''", 'For example: "task_id"'),
        ({"by": "created_at"}, "'created_at' is a time", "Filter by time with since and until."),
        ({"by": "team_id"}, "No session has a value for 'team_id'", "Choose another name. The metadata has task_id."),
        (
            {"confidence": "95%"},
            "confidence must be a number between 0 and 1, got '95%'",
            "For example: confidence=0.95",
        ),
        ({"success": "high"}, "success must be a number, got 'high'", "For example: success=1.0"),
        ({"score": 3}, "score must be the name of a score, got 3", 'For example: score="reward"'),
        (
            {"where": "task_id=1"},
            "where must be a mapping of names to values, got 'task_id=1'",
            'For example: where={"domain": "airline"}',
        ),
    ],
)
def test_invalid_arguments_raise_with_a_hint(db, asked, message, hint):
    """With what there is in its place."""
    save_trials(db, "a", {"1": [1]})
    save_trials(db, "b", {"1": [1]})

    with pytest.raises(BadUsage, match=message.replace(".", r"\.")) as refused:
        compare_groups(db, **asked)
    assert refused.value.hint.startswith(hint)


def test_sessions_whose_runs_disagree_have_no_group(db):
    """Why there is no group is told."""
    for name in ("s1", "s2"):
        save_trial(db, name, None, "1", 1, runs=[Run(model="b"), Run(model="a")])

    with pytest.raises(BadUsage, match="by model there is none") as refused:
        compare_groups(db)
    assert "2 sessions have no group; of the first, its runs disagree on model: a, b." in refused.value.hint


def test_too_many_groups_raise(db):
    """Groups by an id are refused before anything is computed."""
    for n in range(51):
        save_trial(db, f"s{n}", "m", str(n), 1)

    with pytest.raises(BadUsage, match="By session_id there are 51 groups"):
        compare_groups(db, by="session_id")


def test_empty_store_raises(store):
    """On every engine."""
    with pytest.raises(BadUsage, match="There are no sessions"):
        compare_groups(store)


def test_current_store_is_the_default(db):
    """None is the attached store, a text its name."""
    save_trials(db, "a", {"1": [1]})
    save_trials(db, "b", {"1": [1]})
    with pytest.raises(NoStore):
        compare_groups("trials of models")
    store_registry.attach(db, name="trials of models")
    try:
        assert compare_groups().contenders == compare_groups("trials of models").contenders == ["b"]
    finally:
        store_registry.detach("trials of models")


def test_usage_includes_team_members(db):
    """What a session took is what sessions_df says, members' runs included."""
    member = Run(model="tiny", parent_run_id="r1", usage=Usage(input_tokens=5, output_tokens=1))
    leader = Run(run_id="r1", model="a", usage=Usage(input_tokens=10, output_tokens=4))
    save_trial(db, "team", None, "1", 1, runs=[leader, member])
    save_trial(db, "b", "b", "1", 1)

    assert row(compare_groups(db).groups, group="a")["tokens_total"] == db.sessions_df("team").total_tokens[0] == 20


def test_group_comparison_plots(db):
    """The plot draws the metrics that are known, with their intervals."""
    save_trials(db, "a", {"1": [1], "2": [0]}, cost=None)
    save_trials(db, "b", {"1": [1], "2": [1]})
    found = compare_groups(db)

    assert set(found.plot().df.metric) == set(found.metrics.metric) - {"cost"}
    assert found.df is found.metrics
