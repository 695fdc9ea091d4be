"""What each plot draws, and what it says of what it does not draw."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
from plot_inputs import START, calls, metrics, parts, runs, values

from kern_nb.analysis import plots
from kern_nb.db.columns import DTYPES, FRAMES
from kern_nb.errors import BadUsage


def test_one_line_per_session_with_gaps():
    """A value that nobody knows is null in the data: neither 0 nor left out, which would join its neighbours."""
    frame = runs(
        {"run_index": 0, "total_tokens": 10, "duration_s": 1.0},
        {"run_index": 1, "total_tokens": None, "duration_s": 2.0},
        {"run_index": 2, "total_tokens": 30, "duration_s": 3.0},
        {"session_id": "other", "run_index": 0, "total_tokens": 5, "duration_s": 4.0},
        {"session_id": "other", "run_index": 1, "total_tokens": 6, "duration_s": 5.0},
    )

    plot = plots.over_runs(frame)

    assert [row["tokens"] for row in values(plot) if row["s"] == "chat"] == [10, None, 30]
    assert {row["s"] for row in values(plot)} == {"chat", "other"}
    assert plot.df["total_tokens"].isna().sum() == 1


def test_unknown_metric_is_left_out_with_a_note():
    """There is no empty panel, and no line at 0."""
    plot = plots.over_runs(runs({"total_tokens": 10, "duration_s": 1.0}, {"run_index": 1, "total_tokens": 20}))

    assert plot.notes == ("Cost is unknown for all runs.",)
    assert len(plot.spec["vconcat"]) == 2
    assert "Cost is unknown for all runs." in repr(plot)


def test_only_the_newest_sessions_are_drawn():
    """Eight lines can be told apart; each of them has a colour and a shape of its own."""
    rows = [
        {"session_id": f"s{n}", "run_index": i, "total_tokens": 1, "created_at": START + timedelta(hours=n)}
        for n in range(10)
        for i in range(2)
    ]

    plot = plots.over_runs(runs(*rows))

    assert set(plot.df["session_id"]) == {f"s{n}" for n in range(2, 10)}
    assert plot.notes[0] == "The 8 newest of 10 sessions."
    for channel in ("color", "shape"):
        scale = parts(plot, channel)[-1]["scale"]
        assert len(scale["domain"]) == len(set(scale["range"])) == 8


def test_sessions_with_one_run_are_side_by_side():
    """Lines of one point each, all above one another, would show nothing: they stand in the order of their times."""
    rows = [{"session_id": f"s{n}", "cost": n / 10, "created_at": START - timedelta(hours=n)} for n in range(1, 6)]

    plot = plots.over_runs(runs(*rows))

    assert [(row["x"], row["s"]) for row in values(plot)] == [(n + 1, f"s{5 - n}") for n in range(5)]


@pytest.mark.parametrize("lengths", [[9_000], [3_000] * 8, [5_000] + [2] * 7, [1] * 5_000])
def test_number_of_points_is_limited(lengths):
    """Neighbouring runs are drawn as their mean, and sessions beyond the newest left out; each time it is said."""
    frame = pd.concat(
        [runs({"total_tokens": 4, "cost": 1.0, "duration_s": 1.0})] * sum(lengths), ignore_index=True
    ).assign(
        session_id=pd.array([f"s{n}" for n, length in enumerate(lengths) for _ in range(length)], dtype="string"),
        run_index=pd.array([i for length in lengths for i in range(length)], dtype="Int64"),
    )

    plot = plots.over_runs(frame)

    assert len(values(plot)) * len(plot.spec["vconcat"]) <= 2_000
    assert "mean of up to" in plot.notes[0] or "newest" in plot.notes[0]
    assert set(plot.df["total_tokens"]) == {4}


def test_tools_by_calls_with_failures():
    """Most called first; what failed is hollow and told in words; what is not known is neither success nor failure."""
    plot = plots.tool_use(calls(("b", False), ("a", True), ("a", False), ("a", None), ("b", False), ("c", None)))

    assert plot.df.to_dict("list") == {
        "tool_name": ["a", "b", "c"],
        "calls": [3, 2, 1],
        "succeeded": [1, 2, 0],
        "failed": [1, 0, 0],
        "not_known": [1, 0, 1],
    }
    assert [row["l"] for row in values(plot) if "l" in row] == ["3, 1 failed", "2", "1"]
    inside = parts(plot, "fill")[0]["scale"]
    assert inside["range"][inside["domain"].index("failed")] == "#ffffff"


def test_calls_of_a_simulated_user_are_left_out():
    """They are left out, as they are from every total, and their number is told."""
    plot = plots.tool_use(calls(("a", False), ("a", False, "user"), ("b", True, "user")))

    assert plot.df["calls"].tolist() == [1]
    assert plot.notes == ("2 calls by a simulated user not counted.",)


def test_rare_tools_are_merged():
    """Thirty tools and a bar for the rest; no call is lost, and the frame has all of them."""
    frame = calls(*[(f"tool-{n}", n % 2 == 0) for n in range(50) for _ in range(1 + n)])

    plot = plots.tool_use(frame)

    drawn = [row for row in values(plot) if "l" in row]
    assert [row["t"] for row in drawn][-1] == "20 other tools"
    assert sum(row["n"] for row in drawn) == len(frame)
    assert len(drawn) == 31
    assert len(plot.df) == 50


def test_verdicts_have_texts_and_shapes():
    """Cheaper is better, though its bar goes to the left; a metric without a direction has no verdict."""
    frame = metrics(
        {"metric": "cost", "a": 0.4, "b": 0.3, "better": "b"},
        {"metric": "duration_s", "a": 10, "b": 15, "better": "a"},
        {"metric": "reward", "a": 1, "b": 1, "better": "neither"},
        {"metric": "n_messages", "a": 4, "b": 6},
    )

    plot = plots.comparison(frame)

    assert [(row["m"], row["v"], round(row["d"])) for row in values(plot) if row] == [
        ("cost", "better", -25),
        ("duration_s", "worse", 50),
        ("reward", "equal", 0),
        ("n_messages", "", 50),
    ]
    shapes = parts(plot, "shape")[0]["scale"]
    assert len({shapes["range"][shapes["domain"].index(o)] for o in ("better", "worse", "equal")}) == 3
    assert [row[-1] for row in plot.table.rows] == ["better", "worse", "equal", ""]


def test_metrics_without_a_percentage_are_noted():
    """From nothing to something is no percentage, nor is what is known of one side only."""
    plot = plots.comparison(
        metrics(
            {"metric": "n_tool_errors", "a": 0, "b": 3, "better": "a"},
            {"metric": "cost", "a": None, "b": 0.5},
            {"metric": "total_tokens", "a": 100, "b": 900, "better": "a"},
        )
    )

    assert plot.df["metric"].tolist() == ["total_tokens"]
    assert plot.notes == (
        "No percentage with a baseline of 0: n_tool_errors 0 → 3.",
        "Known for one side only: cost.",
        "Bars with an arrow exceed 200 %.",
    )
    (bar,) = (row for row in values(plot) if row)
    assert (bar["d"], bar["p"]) == (200, "→ +800%")


def test_zero_to_zero_is_zero_percent():
    """0 of the baseline's 0 is no percentage, but it is no difference either, and no news below the title."""
    plot = plots.comparison(metrics({"metric": "n_tool_errors", "a": 0, "b": 0, "better": "neither"}))

    assert plot.notes == ()
    assert [(row["d"], row["p"], row["v"]) for row in values(plot) if "p" in row] == [(0, "0%", "equal")]


def test_each_contender_has_a_block_of_bars():
    """They are named, and drawn to one scale."""
    row = {"metric": "cost", "a": 1.0}
    frame = metrics({**row, "b": 2.0, "contender": "what-if"}, {**row, "b": 0.5, "contender": "cheap"})

    plot = plots.comparison(frame)

    assert [block["title"]["text"] for block in plot.spec["vconcat"]] == ["what-if", "cheap"]
    assert {tuple(scale["domain"]) for scale in parts(plot, "scale") if scale.get("padding")} == {(-100, 100)}


def test_intervals_and_zero_line():
    """A point and its interval, in the metric's own unit; an interval that holds 0 is not clear, not equal."""
    frame = metrics(
        {"metric": "reward", "n_pairs": 50, "a": 0.5, "b": 0.7, "low": 0.1, "high": 0.3, "better": "b"},
        {"metric": "tokens", "n_pairs": 50, "a": 5000, "b": 5400, "low": -90, "high": 890, "better": "neither"},
        {"metric": "cost", "n_pairs": 1, "a": 0.5, "b": 0.7, "low": None, "high": None, "better": None},
        {"metric": "time", "n_pairs": 0, "a": None, "b": None, "low": None, "high": None},
    )

    plot = plots.groups(frame)

    drawn = [row for row in values(plot) if row]
    assert [(row["m"], row["v"], row["l"], row["h"], row["n"]) for row in drawn] == [
        ("reward", "better", 0.1, 0.3, "50 pairs"),
        ("tokens", "not clear", -90, 890, "50 pairs"),
        ("cost", "", None, None, "1 pair"),
    ]
    assert [row["t"] for row in drawn][:2] == ["+0.2 (0.1 to 0.3)", "+400 (\N{MINUS SIGN}90 to 890)"]
    assert plot.notes == ("No pair has a value for time.", "A point without a line has too few pairs for an interval.")
    assert len(plot.spec["vconcat"]) == 3
    assert all({"datum": 0} in [layer["encoding"].get("x") for layer in b["layer"]] for b in plot.spec["vconcat"])


def test_each_group_has_a_point():
    """One block a metric, one row a group in it."""
    row = {"metric": "reward", "n_pairs": 5, "a": 0.5, "low": 0.0, "high": 0.5}

    plot = plots.groups(metrics({**row, "b": 0.6, "group": "x"}, {**row, "b": 0.7, "group": "y"}))

    (block,) = plot.spec["vconcat"]
    assert block["title"]["text"] == "reward"
    assert [row["g"] for row in block["data"]["values"]] == ["x", "y"]


FRAMES_OF = {
    "over_runs": (plots.over_runs, "runs"),
    "tool_use": (plots.tool_use, "tool_calls"),
    "branch_tree": (plots.branch_tree, "sessions"),
}


def empty(name: str) -> pd.DataFrame:
    """A frame without rows, as a store gives it."""
    return pd.DataFrame({column.name: pd.array([], dtype=DTYPES[column.kind]) for column in FRAMES[name]})


EMPTY = {
    **{name: (draw, empty(frame)) for name, (draw, frame) in FRAMES_OF.items()},
    "comparison": (plots.comparison, metrics({"metric": "cost", "a": 1, "b": 2}).iloc[:0]),
    "groups": (plots.groups, metrics({"metric": "c", "n_pairs": 1, "a": 1, "b": 2, "low": 0, "high": 2}).iloc[:0]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_plot_is_a_sentence(name, tmp_path):
    """There is no error and no empty picture; and what is saved anyway can be opened."""
    draw, frame = EMPTY[name]

    plot = draw(frame)

    data, _ = plot._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"].startswith("No ")
    assert data["text/plain"].split(".")[0] in data["text/html"]
    assert len(plot.df) == 0
    assert plot.save(tmp_path / "nothing.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", EMPTY)
def test_frame_without_columns_raises(name):
    """The message names the columns, the hint the frame that has them."""
    draw, _ = EMPTY[name]

    with pytest.raises(BadUsage, match="has no column '") as refused:
        draw(pd.DataFrame({"x": [1]}))

    assert refused.value.hint.startswith("Pass ")


def test_non_finite_values_are_gaps():
    """An infinite cost, or one that is no number, is drawn as a gap; the specification stays JSON."""
    frame = runs({"cost": 1.0}, {"run_index": 1}, {"run_index": 2, "cost": 2.0})
    frame["cost"] = [1.0, float("inf"), float("nan")]

    plot = plots.over_runs(frame)

    assert [row["cost"] for row in values(plot)] == [1.0, None, None]
