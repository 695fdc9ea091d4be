"""The tree of sessions and branches: who parts from whom, and where."""

from __future__ import annotations

import pandas as pd
import pytest
from plot_inputs import fill_store, parts, runs, sessions, values

from kern_nb.analysis import plots
from kern_nb.db import InMemoryDb


def links(plot: plots.Plot) -> dict[str, tuple[str, int, int]]:
    """Of each branch, the lane it parts from, the last run there, and its own first."""
    ends: dict[int, list[dict]] = {}
    for row in values(plot):
        if "k" in row:
            ends.setdefault(row["k"], []).append(row)
    return {to["y"]: (start["y"], start["x"], to["x"]) for start, to in ends.values()}


def dots(plot: plots.Plot, lane: str) -> dict[int, str]:
    """The dots of a lane, with what each says."""
    return {row["x"]: row["o"] for row in values(plot) if row.get("y") == lane and "o" in row}


@pytest.fixture
def tree() -> plots.Plot:
    """The tree of a store."""
    with InMemoryDb() as store:
        fill_store(store)
        return plots.branch_tree(store.sessions_df(), store.runs_df())


def test_link_starts_at_the_last_shared_run(tree):
    """Of a branch of a branch that parts before its parent did, from the run that both inherit, in the lane it is in."""
    assert links(tree) == {
        "nothing yet": ("chat", 4, 5),
        "what-if": ("chat", 2, 3),
        "earlier": ("chat", 1, 2),
    }


def test_branches_are_below_their_parents(tree):
    """Families stay together."""
    order = tree.df["session_id"].tolist()

    assert sorted(order) == ["branch", "chat", "empty", "other", "twig"]
    assert order.index("chat") < order.index("branch") < order.index("twig")
    assert order.index("chat") < order.index("empty")


def test_runs_that_did_not_complete_have_other_shapes(tree):
    """So has a branch that has no run yet, which is drawn where its first one would be."""
    assert dots(tree, "chat") == {0: "COMPLETED", 1: "COMPLETED", 2: "COMPLETED", 3: "COMPLETED", 4: "ERROR"}
    assert dots(tree, "earlier") == {2: "PAUSED"}
    assert dots(tree, "nothing yet") == {5: "no runs"}
    shapes = parts(tree, "shape")[0]["scale"]
    looks = {o: shapes["range"][shapes["domain"].index(o)] for o in ("COMPLETED", "ERROR", "PAUSED")}
    assert len(set(looks.values())) == 3


def test_tree_table(tree):
    """Where each branch parts, as one would write it, and its runs."""
    said = {row[0]: row[1:] for row in tree.table.rows}

    assert said["↳ what-if"] == ["chat/2", "3", "COMPLETED"]
    assert said["↳ earlier"] == ["branch/1", "2", "PAUSED"]
    assert said["↳ nothing yet"] == ["chat/4", "no runs", "—"]
    assert said["chat"] == ["", "0 to 4", "✗ ERROR"]


def test_tree_without_runs_has_the_last_status_only():
    """What the sessions say is drawn; what they do not say is marked as not known."""
    plot = plots.branch_tree(
        sessions(
            {"session_id": "chat", "n_runs": 3, "status": "ERROR"},
            {"session_id": "b", "parent_session_id": "chat", "fork_run_index": 0, "n_runs": 2},
        )
    )

    assert dots(plot, "chat") == {0: "unknown status", 1: "unknown status", 2: "ERROR"}
    assert dots(plot, "b") == {1: "unknown status", 2: "COMPLETED"}


def test_branch_without_inherited_runs_starts_before_the_first():
    """It inherits nothing, and is a branch all the same."""
    rows = [{"session_id": "chat"}, {"session_id": "b", "parent_session_id": "chat", "fork_run_index": -1}]

    assert links(plots.branch_tree(sessions(*rows))) == {"b": ("chat", -1, 0)}


def test_parent_outside_the_frame_leaves_a_stub():
    """The branch is drawn from where it parts."""
    row = {"session_id": "b", "parent_session_id": "elsewhere", "fork_run_index": 3}

    plot = plots.branch_tree(sessions(row))

    assert links(plot) == {"b": ("b", 3, 4)}
    assert plot.table.rows[0][1] == "elsewhere/3"


def test_cycle_of_parents_terminates():
    """A store that is broken is still drawn, each session once."""
    rows = [
        {"session_id": "a", "parent_session_id": "c", "fork_run_index": 0},
        {"session_id": "b", "parent_session_id": "a", "fork_run_index": 0},
        {"session_id": "c", "parent_session_id": "b", "fork_run_index": 0},
        {"session_id": "d", "parent_session_id": "d", "fork_run_index": 0},
    ]

    assert sorted(plots.branch_tree(sessions(*rows)).df["session_id"]) == ["a", "b", "c", "d"]


def test_tree_is_limited_with_a_note():
    """Forty lanes: of a chain that is longer, the nearest; of many, the first with what they branch from."""
    chain = [
        {"session_id": f"s{n}", "parent_session_id": f"s{n - 1}" if n else None, "fork_run_index": n - 1 if n else None}
        for n in reversed(range(1_500))
    ]

    plot = plots.branch_tree(sessions(*chain))

    assert set(plot.df["session_id"]) == {f"s{n}" for n in range(1_460, 1_500)}
    assert plot.notes == ("40 of 1,500 sessions: the first ones and their ancestors.",)


def test_notable_runs_are_kept_among_many():
    """Errors, ends and forks keep their dots, and no more than 2,000 marks are drawn."""
    of_each = 400
    named = [f"s{n}" for n in range(30)]
    frame = pd.concat(
        [
            runs(
                *[
                    {"session_id": name, "run_index": i, "status": "ERROR" if i == 217 else "COMPLETED"}
                    for i in range(of_each)
                ]
            )
            for name in named
        ]
    )
    rows = [{"session_id": name} for name in named]
    rows.append({"session_id": "b", "parent_session_id": "s0", "fork_run_index": 111, "n_runs": 0})

    plot = plots.branch_tree(sessions(*rows), frame)

    assert len(values(plot)) <= 2_000
    assert {0, 111, 217, 399} <= set(dots(plot, "s0"))
    assert dots(plot, "s0")[217] == "ERROR"
    assert plot.notes[0].startswith("Some runs have no dot")


def test_sessions_with_equal_names_have_distinct_labels():
    """Each has a lane of its own, and the frame has the names as they are."""
    rows = [{"session_id": f"s{n}", "session_name": "what-if " + "x" * 100} for n in range(3)]

    plot = plots.branch_tree(sessions(*rows))

    lanes = [row["y"] for row in values(plot) if "a" in row]
    assert len(set(lanes)) == 3
    assert max(map(len, lanes)) <= 36
    assert set(plot.df["session_name"]) == {"what-if " + "x" * 100}
