"""Ids, roles, tools and texts that are hard to write: whatever a store holds is compared, summarized and drawn."""

from __future__ import annotations

import pytest

from kern_nb import compare, compare_groups, summarize
from kern_nb.analysis.plots import over_runs, plot
from kern_nb.errors import BadUsage
from kern_nb.records import Message, Run, ToolCall

ODD = [
    "a/b",
    "a/0",
    "a.b/c.2",
    "/",
    "--",
    "$x",
    " lead",
    "1",
    "we \"say\" 'so'",
    "new\nline",
    "nul\x00",
    "half \ud800 a pair",
    "\u202eturned",
    "e\u0301",
]


@pytest.fixture
def odd_sessions(store):
    """A session of each name, with two runs that say the same, and a call with the same id in both."""
    call = ToolCall(tool_call_id="one", tool_name="f\x00\ud800", args={"k\x00": "\ud800"}, result="r\x00")
    messages = [
        Message(role="user", content="q\x00\ud800"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_call_id="one", content="r"),
        Message(role="assistant", content=["a", {"b": None}]),
    ]
    for name in ODD:
        for _ in range(2):
            store.append_run(name, Run(model="m\x00", input="q\x00\ud800", messages=messages, output={"x": [1]}))
    return store


def test_odd_session_ids_are_compared(odd_sessions):
    """By its id, as a session and as a run, which are found where they are; the texts are what frames hold."""
    for one, other in zip(ODD, ODD[1:] + ODD[:1], strict=True):
        found = compare(one, other, store=odd_sessions)
        assert [side.reference.session_id for side in found.sides] == [one, other]
        assert found.divergence is None
        assert found.turns.a[7].endswith("/1.3")
        assert repr(found)
        assert found._repr_html_()
        session = odd_sessions.get_session(one)
        assert compare(session, *session.runs, store=odd_sessions).sides[2].reference.run_index == 1


def test_odd_session_ids_are_summarized_and_plotted(odd_sessions):
    """The items are told apart, and none is lost."""
    for one in ODD:
        made = summarize(one, store=odd_sessions)
        assert made.items.n_runs.tolist() == [2]
        assert made.longest is not None
        assert repr(made)
        for kind in ("runs", "tools", "tree"):
            assert plot(one, kind=kind, store=odd_sessions).spec is not None
    assert len(summarize(*ODD, store=odd_sessions).items) + 1 == len(ODD)


def test_odd_group_and_score_names_are_compared(odd_sessions):
    """By their names as they were given to the store."""
    for n, one in enumerate(ODD):
        odd_sessions.add_score(one, "half \ud800 nul \x00", n)
    found = compare_groups(
        odd_sessions,
        by="session_id",
        key="model",
        score="half \ud800 nul \x00",
        groups=["half \ud800 a pair", "nul\x00"],
    )

    assert found.groups.score.tolist() == [11, 10]
    assert repr(found)
    assert found._repr_html_()


@pytest.mark.parametrize("named", [3, None, ["a/b", "1"], {"a/b"}, ("a/b", "1", "/"), 1.5, object()])
def test_invalid_reference_types_raise(odd_sessions, named):
    """A list in place of several names, a number, a frame: with what to write instead."""
    several = isinstance(named, (list, set))
    calls = [lambda: compare(named, "1", store=odd_sessions), lambda: summarize(named, store=odd_sessions)]
    calls += [lambda: plot(named, store=odd_sessions)] if named is not None else []
    for call in calls:
        with pytest.raises(BadUsage, match="A reference must be a str, Session or Run") as refused:
            call()
        assert not several or "one argument per session" in refused.value.hint
    assert plot(odd_sessions.get_session("1"), store=odd_sessions).spec == plot("1", store=odd_sessions).spec


def test_invalid_frame_or_filter_raises(odd_sessions):
    """As above."""
    with pytest.raises(BadUsage, match="A plot takes a DataFrame, got list"):
        over_runs([1])
    with pytest.raises(BadUsage, match="where must be a mapping of names to values, got 'model=x'"):
        summarize(where="model=x", store=odd_sessions)
