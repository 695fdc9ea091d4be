"""A digest of one run or session: what was asked, how it ended, its tools, what it took, the longest steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from conversations import make_run, save

from kern_nb.analysis.compare import compare
from kern_nb.analysis.digest import digest
from kern_nb.errors import AmbiguousReference, BadUsage, RunNotFound, SessionNotFound
from kern_nb.records import Message, Run, Session, ToolCall, Usage

START = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)


def at(seconds):
    """A time so many seconds after the start."""
    return START + timedelta(seconds=seconds)


def rows(df, *names):
    """Rows of some columns, None where a value is missing."""
    df = df[list(names)] if names else df
    return [tuple(row) for row in df.astype(object).where(df.notna(), None).to_numpy().tolist()]


def metric(found, name):
    """The value of a metric; None where nobody knows it."""
    [value] = found.metrics.loc[found.metrics["metric"] == name, "value"]
    return None if pd.isna(value) else value


def test_session_digest_has_first_input_and_latest_status(store):
    """On every engine: what was asked first, how many inputs there are, and the status, output and error of the end."""
    failed = Run(input="question 2", status="ERROR", error="out of luck", created_at=at(20))
    save(store, "chat", make_run(0, created_at=at(0)), make_run(1, created_at=at(10)), failed)
    found = digest("chat", store=store)

    assert (found.asked, found.output, found.status, found.error) == ("question 0", "answer 1", "ERROR", "out of luck")
    assert rows(found.items, "item", "session_id", "run_index", "n_asked") == [("chat", "chat", None, 3)]
    assert found.items["created_at"].iloc[0] == at(0)
    assert found.df is found.items
    for text in ("question 0", "first of 3 inputs", "answer 1", "✗ ERROR", "out of luck"):
        assert text in repr(found)
        assert text in found._repr_html_()


def test_digest_of_a_run(store):
    """Its own input and output, tokens and calls, and not those of the session around it."""
    save(store, "chat", make_run(0), make_run(1), make_run(2))
    found = digest("chat/1", store=store)

    assert (found.asked, found.output) == ("question 1", "answer 1")
    assert (metric(found, "n_runs"), metric(found, "n_messages"), metric(found, "n_tool_calls")) == (1, 4, 1)
    assert metric(found, "total_tokens") == 36
    assert rows(found.tools, "tool_name", "calls") == [("tool_1", 1)]


def test_digest_metrics_match_a_comparison(store):
    """The same names and numbers, for a session, a run and a branch with what it inherits."""
    save(store, "chat", make_run(0), make_run(1), make_run(2))
    store.add_score("chat", "reward", 0.5)
    store.add_score("chat", "reward", 1.0, source="ann")
    store.branch("chat", after=(1, 1), new_session_id="what-if")
    store.append_run("what-if", make_run(7))
    for one in ("chat", "chat/1", "what-if"):
        compared = compare(one, "chat/0", store=store).metrics.set_index("metric")["a"]
        found = digest(one, store=store).metrics.set_index("metric")["value"].dropna()

        assert found.to_dict() == compared.dropna().to_dict()
    assert metric(digest("chat", store=store), "reward") == 0.75


def test_branch_digest_includes_inherited_runs(store):
    """And says how much that is; places are named as the branch has them."""
    save(store, "chat", make_run(0), make_run(1))
    store.branch("chat", after=0, new_session_id="what-if")
    store.append_run("what-if", make_run(5))
    found = digest("what-if", store=store)

    assert (found.asked, found.output, metric(found, "n_runs")) == ("question 0", "answer 5", 2)
    assert "1 run inherited" in repr(found)
    assert set(found.rows.runs["session_id"]) == {"what-if"}


def test_unknown_values_are_missing(db):
    """A cost that is not stated is not 0, neither in the frame nor on the screen."""
    save(db, "chat", Run(input="q", output="a", messages=[Message(role="user", content="q")]))
    found = digest("chat", store=db)

    assert metric(found, "cost") is None
    assert metric(found, "total_tokens") is None
    assert metric(found, "n_tool_calls") == 0
    [line] = [line for line in repr(found).splitlines() if line.startswith("cost")]
    assert line.split() == ["cost", "—"]


def test_tools_by_outcome(db):
    """Failed ones, and those that nobody knows to have ended; a simulated user's calls are not the agent's."""
    calls = [
        ToolCall(tool_call_id="1", tool_name="look", status="completed", result="x", duration_s=1.0),
        ToolCall(tool_call_id="2", tool_name="look", status="failed", result="no", duration_s=3.0),
        ToolCall(tool_call_id="3", tool_name="book", status="unknown"),
        ToolCall(tool_call_id="4", tool_name="tap", status="completed", result="x", caller="user", duration_s=60.0),
        ToolCall(tool_call_id="5", tool_name="look", status="completed", result="x"),
    ]
    save(db, "chat", Run(input="q", tool_calls=calls, messages=[Message(role="assistant", tool_calls=calls)]))
    found = digest("chat", store=db)

    names = ("tool_name", "calls", "failed", "unknown", "median_duration_s", "total_duration_s", "timed")
    assert rows(found.tools, *names) == [("look", 3, 1, 0, 2.0, 4.0, "stated"), ("book", 1, 0, 1, None, None, None)]
    assert found.tools["calls"].sum() == metric(found, "n_tool_calls")
    assert found.tools["failed"].sum() == metric(found, "n_tool_errors")
    assert rows(found.longest, "name") == [("look",), ("look",)]
    assert found.n_user_calls == 1
    assert "1 tool call of a simulated user not counted" in repr(found)


def test_longest_steps_are_stated_or_gaps(db):
    """A stated duration goes first; else the time between two messages, which is said; clocks that run backwards say nothing."""
    call = ToolCall(tool_call_id="1", tool_name="slow", args={})
    stated = ToolCall(tool_call_id="2", tool_name="stated", args={}, duration_s=0.5, status="failed", result="no")
    messages = [
        Message(role="user", content="q", created_at=at(0)),
        Message(role="assistant", model="m-1", tool_calls=[call, stated], created_at=at(2)),
        Message(role="tool", tool_call_id="1", content="x", created_at=at(32)),
        Message(role="tool", tool_call_id="2", content="no", created_at=at(33)),
        Message(role="assistant", model="m-1", content="hm", created_at=at(37)),
        Message(role="user", content="and?", created_at=at(500)),
        Message(role="assistant", model="m-1", content="back", created_at=at(490)),
    ]
    save(db, "chat", Run(input="q", messages=messages))
    found = digest("chat", store=db)

    assert rows(found.longest) == [
        ("chat/0.1", "tool call", "slow", 30.0, "gap", "completed"),
        ("chat/0.4", "answer", "m-1", 4.0, "gap", None),
        ("chat/0.1", "answer", "m-1", 2.0, "gap", None),
        ("chat/0.1", "tool call", "stated", 0.5, "stated", "failed"),
    ]
    assert rows(found.tools, "tool_name", "timed") == [("slow", "gap"), ("stated", "stated")]
    lines = [line for line in repr(found).splitlines() if line.startswith("chat/0")]
    assert ["between messages" in line for line in lines] == [True, True, True, False]
    assert "stated" in lines[3]


def test_tool_with_stated_and_gap_durations_is_timed_both(db):
    """The median is over both kinds, and the table says so."""
    calls = [ToolCall(tool_call_id="1", tool_name="t", duration_s=1), ToolCall(tool_call_id="2", tool_name="t")]
    messages = [
        Message(role="assistant", tool_calls=calls, created_at=at(0)),
        Message(role="tool", tool_call_id="1", content="x", created_at=at(9)),
        Message(role="tool", tool_call_id="2", content="x", created_at=at(5)),
    ]
    save(db, "chat", Run(input="q", messages=messages))

    assert rows(digest("chat", store=db).tools, "total_duration_s", "timed") == [(6.0, "both")]


def test_longest_has_ten_steps(db):
    """Of very many only these are kept, the slowest first."""
    calls = [ToolCall(tool_call_id=str(n), tool_name=f"t{n}", duration_s=n, result="x") for n in range(1, 40)]
    save(db, "chat", Run(input="q", messages=[Message(role="assistant", tool_calls=calls)]))

    assert digest("chat", store=db).longest["name"].tolist() == [f"t{n}" for n in range(39, 29, -1)]


def test_copies_of_earlier_messages_are_not_steps(db):
    """store_history_messages keeps copies: what passed between these passed in another run."""
    copies = [
        Message(role="user", content="old", created_at=at(0), extra={"from_history": True}),
        Message(role="assistant", content="old", created_at=at(900), extra={"from_history": True}),
    ]
    own = [
        Message(role="user", content="new", created_at=at(1000)),
        Message(role="assistant", content="new", created_at=at(1003)),
    ]
    save(db, "chat", Run(input="new", messages=[*copies, *own], created_at=at(1000)))

    assert rows(digest("chat", store=db).longest, "place", "duration_s") == [("chat/0.3", 3.0)]


def test_run_digest_includes_member_runs(store):
    """A team's run takes its members' runs along; its input is the leader's, and a step without messages is a step."""
    leader = store.append_run("team", Run(input="plan", output="done", usage=Usage(input_tokens=5), duration_s=9))
    member = {"parent_run_id": leader.run_id, "agent_id": "writer"}
    store.append_run("team", Run(input="write", output="w", usage=Usage(input_tokens=7), duration_s=4, **member))
    store.append_run("team", make_run(3))
    found = digest("team/0", store=store)

    assert (found.asked, found.output, found.items["n_asked"].iloc[0]) == ("plan", "done", 1)
    assert (metric(found, "n_runs"), metric(found, "input_tokens"), metric(found, "duration_s")) == (2, 12, 9)
    assert rows(found.longest, "place", "kind", "name", "duration_s") == [("team/1", "step", "writer", 4.0)]


def test_digest_of_an_empty_session(store):
    """Nothing was asked, no tool called, and nobody knows what it took."""
    store.save_session(Session(session_id="new"))
    found = digest("new", store=store)

    assert (found.asked, found.status, found.output) == (None, None, None)
    assert (metric(found, "n_runs"), metric(found, "cost")) == (0, None)
    assert found.tools.empty
    assert found.longest.empty
    assert ": 0 runs, 0 messages" in repr(found)
    assert "No tool calls" in found._repr_html_()


def test_digest_frames_have_store_dtypes(db):
    """Also where they are empty, so that digests can be put together."""
    db.save_session(Session(session_id="new"))
    save(db, "chat", make_run(0))
    full, empty = digest("chat", store=db), digest("new", store=db)
    for name in ("metrics", "tools", "longest", "items", "scores", "by_status", "outliers"):
        assert getattr(full, name).dtypes.to_dict() == getattr(empty, name).dtypes.to_dict(), name
        assert not {str(kind) for kind in getattr(full, name).dtypes} & {"object", "float64", "int64"}, name


def test_records_are_references(db):
    """A session or a run as a store gave it."""
    save(db, "chat", make_run(0), make_run(1))
    session = db.get_session("chat")

    assert digest(session, store=db).items["item"].tolist() == ["chat"]
    assert digest(session.runs[1], store=db).items["item"].tolist() == ["chat/1"]


def test_plot_of_runs_or_tools(db):
    """Without a word, of the runs of one."""
    save(db, "chat", make_run(0), make_run(1))
    found = digest("chat", store=db)

    assert found.plot().title != found.plot("tools").title
    assert set(found.plot("tools").df["tool_name"]) == {"tool_0", "tool_1"}


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("nope", SessionNotFound, "nope"),
        ("chat/9", RunNotFound, "9"),
        ("cha", AmbiguousReference, "chatter"),
        ("chat/0.1", BadUsage, "is a message"),
    ],
)
def test_invalid_reference_raises(db, reference, error, says):
    """With the next action, alone and beside others."""
    save(db, "chat", make_run(0))
    save(db, "chatter", make_run(0))
    for others in ((), ("chat",)):
        with pytest.raises(error) as refused:
            digest(reference, *others, store=db)
        assert says in str(refused.value)
        assert refused.value.hint


def test_no_reference_raises_with_an_example(db):
    """Not everything there is: that may be much."""
    with pytest.raises(BadUsage, match="No session or run is named") as refused:
        digest(store=db)

    assert "%kern summarize" in refused.value.hint
