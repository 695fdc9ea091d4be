"""Totals are computed from rows, and are the agent's: what is unknown stays unknown, what is stated goes before sums."""

from __future__ import annotations

import pandas as pd
import pytest
from samples import WHEN, a_run, a_session, a_small_run

from kern_nb.records import Message, Run, Session, ToolCall, Usage


def row(frame: pd.DataFrame) -> dict[str, object]:
    """The only row, with missing values as None."""
    assert len(frame) == 1
    return {name: None if pd.isna(value) else value for name, value in frame.iloc[0].items()}


def usage(role: str, **fields: float) -> Message:
    """A message that spent something."""
    return Message(role=role, content="x", usage=Usage(**fields))


def test_usage_of_run_is_sum_of_messages_if_not_stated(store):
    """Tokens and cost of the agent's messages, added up."""
    messages = [
        Message(role="user", content="x"),
        usage("assistant", input_tokens=10, output_tokens=5, cache_read_tokens=3, cost=0.25),
        usage("assistant", input_tokens=20, output_tokens=7, reasoning_tokens=2, cost=0.5),
    ]
    store.append_run("s", Run(messages=messages))
    run, session = row(store.runs_df()), row(store.sessions_df())

    for found in (run, session):
        assert (found["input_tokens"], found["output_tokens"], found["total_tokens"]) == (30, 12, 42)
        assert found["cost"] == 0.75
    assert (run["cache_read_tokens"], run["cache_write_tokens"], run["reasoning_tokens"]) == (3, None, 2)


def test_stated_usage_takes_precedence_over_sums(store):
    """A run that states its usage is believed, as a whole: no column is filled from its messages' other count."""
    messages = [usage("assistant", input_tokens=100, output_tokens=50, total_tokens=150, cost=9.0)]
    store.append_run("s", Run(messages=messages, usage=Usage(input_tokens=10, output_tokens=5, cost=0.5)))
    for found in (row(store.runs_df()), row(store.sessions_df())):
        assert (found["input_tokens"], found["output_tokens"], found["total_tokens"], found["cost"]) == (10, 5, 15, 0.5)


def test_stated_total_takes_precedence_over_sum(store):
    """Some sources count more into the total than input and output."""
    store.append_run("s", Run(usage=Usage(input_tokens=10, output_tokens=5, total_tokens=40)))
    store.append_run("s", Run(usage=Usage(output_tokens=5)))
    store.append_run("s", Run(usage=Usage(total_tokens=7)))

    assert store.runs_df().total_tokens.tolist() == [40, 5, 7]
    assert row(store.sessions_df())["total_tokens"] == 52


def test_unstated_usage_is_missing_not_zero(store):
    """Without usage there is none: a session of unknown cost did not cost nothing."""
    store.append_run("s", a_small_run())
    store.save_session(Session(session_id="empty"))
    for found in (row(store.runs_df()), row(store.sessions_df("s")), row(store.sessions_df("empty"))):
        for name in ("input_tokens", "output_tokens", "total_tokens", "cost", "duration_s"):
            assert found[name] is None, name
    empty = row(store.sessions_df("empty"))
    assert [empty[n] for n in ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors")] == [0, 0, 0, 0]
    assert empty["status"] is None


def test_stated_zero_is_zero(store):
    """No tokens is known, where it is stated, and then costs nothing."""
    store.append_run("s", Run(usage=Usage(input_tokens=0, output_tokens=0, cost=0.0), duration_s=0.0))
    for found in (row(store.runs_df()), row(store.sessions_df())):
        assert [found[n] for n in ("input_tokens", "output_tokens", "total_tokens", "cost", "duration_s")] == [0] * 5


def test_zero_cost_with_tokens_is_unknown(store):
    """On messages, runs and sessions: a price that nobody knew."""
    store.append_run("s", Run(messages=[usage("assistant", input_tokens=3, output_tokens=4, cost=0.0)]))
    store.append_run("t", Run(usage=Usage(output_tokens=4, cost=0)))

    assert store.messages_df().cost.isna().all()
    assert store.runs_df().cost.isna().all()
    assert store.sessions_df().cost.isna().all()
    assert store.sql("SELECT cost FROM sessions").cost.isna().all()


def test_known_cost_is_counted_despite_unknown_cost(store):
    """The run whose cost is known keeps it, whatever the other says."""
    store.append_run("s", Run(usage=Usage(input_tokens=4, cost=0)))
    store.append_run("s", Run(usage=Usage(input_tokens=4, cost=0.5)))

    assert store.runs_df().cost.isna().tolist() == [True, False]
    assert store.runs_df().cost[1] == 0.5


def test_usage_of_simulated_user_is_not_in_totals(store):
    """Totals are the agent's: the tokens and the money of a simulated user are seen in messages_df only."""
    messages = [
        usage("user", input_tokens=1000, output_tokens=500, cost=1.0),
        usage("assistant", input_tokens=10, output_tokens=5, cost=0.25),
        usage("user", input_tokens=2000, output_tokens=600, cost=2.0),
    ]
    store.append_run("s", Run(messages=messages))
    for found in (row(store.runs_df()), row(store.sessions_df())):
        assert (found["input_tokens"], found["output_tokens"], found["total_tokens"], found["cost"]) == (
            10,
            5,
            15,
            0.25,
        )
        assert found["n_messages"] == 3
    assert store.messages_df().input_tokens.sum() == 3010
    assert store.messages_df().cost.sum() == 3.25


def test_run_with_usage_of_simulated_user_only_has_none(store):
    """Not 0: the agent's was not stated."""
    store.append_run("s", Run(messages=[usage("user", input_tokens=5, output_tokens=6, cost=0.5)]))
    for found in (row(store.runs_df()), row(store.sessions_df())):
        assert [found[n] for n in ("input_tokens", "output_tokens", "total_tokens", "cost")] == [None] * 4


def test_tool_calls_of_simulated_user_are_not_counted(store):
    """caller says whose they are; n_tool_calls and n_tool_errors count the agent's."""
    calls = [
        ToolCall(tool_call_id="1", tool_name="t", caller="user", status="failed"),
        ToolCall(tool_call_id="2", tool_name="t", caller="user", result="x"),
        ToolCall(tool_call_id="3", tool_name="t", status="failed", result="no"),
        ToolCall(tool_call_id="4", tool_name="t", result="x"),
        ToolCall(tool_call_id="5", tool_name="t"),
    ]
    store.append_run("s", Run(tool_calls=calls))

    assert store.tool_calls_df().caller.tolist() == ["user", "user", "assistant", "assistant", "assistant"]
    assert store.tool_calls_df().status.tolist() == ["failed", "completed", "failed", "completed", "unknown"]
    assert store.tool_calls_df().is_error.tolist() == [True, False, True, False, pd.NA]
    for found in (row(store.runs_df()), row(store.sessions_df())):
        assert (found["n_tool_calls"], found["n_tool_errors"]) == (3, 1)


def test_counts_match_rows(store):
    """Many messages beside many tool calls are not multiplied with each other."""
    for name, runs in {"a": 3, "b": 1}.items():
        a_session(store, name, runs=runs)
    sessions = store.sessions_df().set_index("session_id")

    assert sessions.n_runs.to_dict() == {"a": 3, "b": 1}
    assert sessions.n_messages.to_dict() == {"a": 12, "b": 4}
    assert sessions.n_tool_calls.to_dict() == {"a": 3, "b": 1}
    assert sessions.input_tokens.to_dict() == {"a": 90, "b": 30}
    assert store.runs_df().n_messages.tolist() == [4, 4, 4, 4]
    assert store.runs_df().n_tool_calls.tolist() == [1, 1, 1, 1]


def test_totals_are_independent_of_filter(store):
    """A session has the same totals in a frame of all, of one user, of one id and of the newest two."""
    for i in range(4):
        a_session(store, f"s{i}", runs=i + 1, user_id="u")
        store.save_session(Session(session_id=f"s{i}", created_at=i, updated_at=9))
    whole = store.sessions_df()
    for part in (
        store.sessions_df(user_id="u"),
        store.sessions_df(limit=4),
        store.sessions_df([f"s{i}" for i in range(4)]),
    ):
        pd.testing.assert_frame_equal(part, whole)
    pd.testing.assert_frame_equal(store.sessions_df("s2"), whole[whole.session_id == "s2"].reset_index(drop=True))
    runs = store.runs_df()
    pd.testing.assert_frame_equal(store.runs_df("s3"), runs[runs.session_id == "s3"].reset_index(drop=True))


def test_stated_wall_time_takes_precedence_over_sum(store):
    """Runs may overlap, and a session may last longer than they do."""
    store.append_run("s", a_small_run(duration_s=1.5))
    store.append_run("s", a_small_run(duration_s=2.0))

    team = store.append_run("s", a_small_run(duration_s=4.0))
    store.append_run("s", a_small_run(duration_s=3.0, parent_run_id=team.run_id))

    assert row(store.sessions_df())["duration_s"] == 7.5
    store.save_session(Session(session_id="s", duration_s=10.0))
    assert row(store.sessions_df())["duration_s"] == 10.0


def test_branch_counts_own_runs_only(store):
    """What it inherits was spent by the parent: sums over all sessions count each run once."""
    a_session(store)
    before = store.sessions_df()[["n_runs", "n_messages", "n_tool_calls", "input_tokens"]].sum().to_dict()
    store.branch("chat", after=1, new_session_id="branch")
    branch = row(store.sessions_df("branch"))

    assert [branch[n] for n in ("n_runs", "n_messages", "n_tool_calls", "n_tool_errors")] == [0, 0, 0, 0]
    assert [branch[n] for n in ("input_tokens", "total_tokens", "cost", "duration_s", "session_name")] == [None] * 5
    assert store.sessions_df()[list(before)].sum().to_dict() == before
    store.append_run("branch", a_run())
    assert (row(store.sessions_df("branch"))["n_runs"], row(store.sessions_df("branch"))["input_tokens"]) == (1, 30)


def test_score_is_replaced_by_same_source_only(store):
    """A second judgement of the same thing by the same judge is its new opinion; another judge's is another row."""
    run = store.append_run("s", a_small_run())
    store.add_score("s", "reward", 0.5, source="benchmark")
    store.add_score("s", "reward", 1, source="benchmark")
    store.add_score("s", "reward", 0.25)
    store.add_score("s", "reward", 0.75, run_id=run.run_id)
    store.add_score("s", "style", 0.0)
    found = store.scores_df()

    assert sorted(zip(found.name, found.value, found.run_id.isna(), strict=True)) == [
        ("reward", 0.25, True),
        ("reward", 0.75, False),
        ("reward", 1.0, True),
        ("style", 0.0, True),
    ]


def test_score_without_session_is_refused(store):
    """Neither an unknown session nor a run of another can be rated."""
    store.append_run("s", a_small_run())
    other = store.append_run("t", a_small_run())
    for session_id, run_id in (("no such", None), ("s", other.run_id), ("s", "no such")):
        with pytest.raises(KeyError):
            store.add_score(session_id, "reward", 1.0, run_id=run_id)
    assert len(store.scores_df()) == 0


def test_times_are_utc(store):
    """Shown in UTC to the microsecond, whatever the zone they were given in."""
    store.append_run("s", Run(created_at=WHEN, finished_at=WHEN, messages=[Message(role="user", created_at=WHEN)]))
    store.save_session(Session(session_id="s", created_at=5, updated_at=6))

    assert store.runs_df()[["created_at", "finished_at"]].iloc[0].tolist() == [WHEN, WHEN]
    assert store.messages_df().created_at[0] == WHEN
    assert store.sessions_df().created_at[0] == pd.Timestamp(5, unit="s", tz="UTC")
    assert store.sessions_df().updated_at[0] == pd.Timestamp(6, unit="s", tz="UTC")
