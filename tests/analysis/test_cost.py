"""`cost`: stated costs stay, estimates come from list prices, and nothing unknown becomes 0."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from kern_nb import cost
from kern_nb.errors import BadUsage
from kern_nb.records import Message, Run, Session, Usage

TIME = datetime(2026, 3, 2, 12, tzinfo=UTC)


def response(model, *, at=TIME, **usage):
    """An answer of a model."""
    return Message(role="assistant", content="a", model=model, created_at=at, usage=Usage(**usage) if usage else None)


def append(store, session_id, *messages, **fields):
    store.append_run(session_id, Run(messages=[Message(role="user", content="q"), *messages], **fields))


def by(store, *names, **options):
    """The rows of the result, by the values of the names."""
    return cost(store, by=names, **options).df.set_index(list(names))


def test_estimate_is_the_list_price_of_each_kind_of_token(store):
    """Cached reads and writes are parts of the input and have prices of their own."""
    usage = {"input_tokens": 10_000, "output_tokens": 500, "cache_read_tokens": 6_000, "cache_write_tokens": 1_000}
    append(store, "s", response("claude-opus-4-5", **usage))
    expected = calc_price(PricedUsage(**usage), "claude-opus-4-5", genai_request_timestamp=TIME).total_price

    row = by(store, "model").loc["claude-opus-4-5"]
    assert row["estimated"] == pytest.approx(float(expected))
    assert (row["stated"], row["cost"], row["unknown_tokens"]) == (0, row["estimated"], 0)


def test_stated_costs_stay_and_are_not_estimated_again(store):
    append(store, "s", response("gpt-4.1", input_tokens=1_000_000, output_tokens=0, cost=0.5))

    row = by(store, "model").loc["gpt-4.1"]
    assert (row["stated"], row["estimated"], row["cost"]) == (0.5, 0, 0.5)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 1_000, "output_tokens": 10},
        {"input_tokens": 1_000, "output_tokens": 10, "cost": 0.0},
    ],
)
def test_a_model_without_a_price_has_an_unknown_cost(store, usage):
    """Never an invented 0."""
    append(store, "s", response("a-model-of-our-own", **usage))

    row = by(store, "model").loc["a-model-of-our-own"]
    assert row["unknown_tokens"] == 1_010
    assert pd.isna(row["cost"])


def test_unknown_tokens_have_no_estimate(store):
    append(store, "s", response("gpt-4.1", output_tokens=10), response("gpt-4.1"))

    assert by(store, "model")["estimated"].tolist() == [0]


@pytest.mark.parametrize("model", ["openai/gpt-4.1", "gpt-4.1-2025-04-14"])
def test_names_of_routers_and_versions_have_the_price_of_the_model(store, model):
    append(store, "s", response(model, input_tokens=1_000_000, output_tokens=0))

    assert by(store, "model").loc[model, "estimated"] == pytest.approx(2.0)


def test_groups_by_time_and_metadata(store):
    store.save_session(Session(session_id="s", metadata={"project": "kern"}))
    other_day = datetime(2026, 3, 3, 1, tzinfo=UTC)
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    append(store, "s", response("gpt-4.1", **usage), response("gpt-4.1", at=other_day, **usage))

    assert by(store, "day")["estimated"].to_dict() == {"2026-03-02": 2.0, "2026-03-03": 2.0}
    assert by(store, "month").index.tolist() == ["2026-03-01"]
    assert by(store, "project").loc["kern", "n_responses"] == 2
    with pytest.raises(BadUsage, match="projekt"):
        cost(store, by="projekt")


def test_usage_of_a_run_counts_once(store):
    """A source may state the usage of a whole run: its messages' usage is a part of it."""
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    append(store, "s", response("gpt-4.1", input_tokens=999, output_tokens=0), model="gpt-4.1", usage=usage)

    assert by(store, "model")["input_tokens"].tolist() == [1_000_000]


def test_inherited_messages_count_in_their_own_session(store):
    append(store, "s", response("gpt-4.1", input_tokens=1_000_000, output_tokens=0))
    store.branch("s", new_session_id="b")
    append(store, "b", response("gpt-4.1", input_tokens=500_000, output_tokens=0))

    assert by(store, "session_id")["estimated"].to_dict() == {"s": 2.0, "b": 1.0}


def test_simulated_users_are_not_counted(store):
    message = Message(role="user", content="q", model="gpt-4.1", usage=Usage(input_tokens=1_000, output_tokens=5))
    store.append_run("s", Run(messages=[message, response("gpt-4.1", input_tokens=7, output_tokens=0)]))

    assert by(store, "model")["input_tokens"].tolist() == [7]


@pytest.mark.every_engine
def test_saved_estimates_are_in_the_frames_with_their_source(store):
    """Stated costs do not change; a second save changes nothing."""
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    append(store, "stated", response("gpt-4.1", cost=9.0, **usage))
    append(store, "estimated", response("gpt-4.1", **usage))
    append(store, "unknown", response("a-model-of-our-own", **usage))
    append(store, "silent", response(None))
    append(store, "whole", model="gpt-4.1", usage=Usage(**usage))

    assert cost(store, save=True).n_saved == 2
    assert cost(store, save=True).n_saved == 0
    expected = {
        "stated": (9.0, "stated"),
        "estimated": (2.0, "estimated"),
        "unknown": (None, "unknown"),
        "silent": (None, None),
        "whole": (2.0, "estimated"),
    }
    for frame in (store.sessions_df(), store.runs_df()):
        rows = zip(frame["session_id"], frame["cost"], frame["cost_source"], strict=True)
        assert {name: tuple(None if pd.isna(v) else v for v in values) for name, *values in rows} == expected
    sources = store.messages_df("estimated")["cost_source"].tolist()
    assert sources == [pd.NA, "estimated"]
    by_sql = store.sql("SELECT cost_source FROM sessions WHERE session_id = 'whole'")
    assert by_sql["cost_source"].tolist() == ["estimated"]


def test_display_names_what_is_estimated_and_unknown(store):
    append(store, "s", response("gpt-4.1", input_tokens=1_000_000, output_tokens=0))
    append(store, "t", response("<b>own</b>", input_tokens=1_000, output_tokens=0))
    costs = cost(store, by=["model", "day"])

    assert "2.00" in repr(costs)
    assert "list prices" in repr(costs)
    assert "&lt;b&gt;own" in costs._repr_html_()
    assert "<b>own" not in costs._repr_html_()


def test_plot_leaves_out_unknown_costs(store):
    append(store, "s", response("gpt-4.1", input_tokens=1_000_000, output_tokens=0))
    append(store, "t", response("a-model-of-our-own", input_tokens=1_000, output_tokens=0))
    plot = cost(store).plot()

    assert plot.notes == ("1 group of unknown cost left out.",)
    assert plot.df["cost"].notna().tolist() == [True, False]
