"""Formatting of metric values."""

from __future__ import annotations

import pytest

from kern_nb.text.metrics import format_delta, format_metric, format_percent


@pytest.mark.parametrize(
    ("metric", "number", "shown"),
    [
        ("tokens", 64719.45, "64,719"),
        ("tokens", 0.4, "0.4"),
        ("cost", 0.0391629, "0.0392"),
        ("cost", 12.5, "12.50"),
        ("cost", 0.00002, "2e-05"),
        ("cost", 0.0, "0.00"),
        ("time", 75.2, "1 min 15 s"),
        ("score", 0.65, "0.65"),
        ("score", 2 / 3, "0.667"),
        ("score", 1.0, "1"),
        ("score", 100.0, "100"),
        ("score", 0.0000012, "1.2e-06"),
        ("runs", 6.75, "6.75"),
        ("runs", 1500.4, "1,500"),
        ("score", None, "—"),
    ],
)
def test_metric_values(metric, number, shown):
    """Durations, money, counts and fractions are formatted by the name of the metric."""
    assert format_metric(metric, number) == shown


def test_deltas_have_a_sign():
    """The minus is as wide as the plus; a zero has neither."""
    assert [format_delta("runs", n) for n in (-1.5, 0.0, 2.0, None)] == ["\N{MINUS SIGN}1.5", "±0", "+2", "—"]


def test_small_deltas_are_not_rounded_to_zero():
    """Small differences of time and money keep significant digits."""
    minus = "\N{MINUS SIGN}"
    assert [format_delta("duration_s", n) for n in (0.0024, -0.0024, 0.006, 0.0)] == [
        "+2.4 ms",
        f"{minus}2.4 ms",
        "+0.01 s",
        "±0.00 s",
    ]
    assert [format_delta("cost", n) for n in (0.00002, -0.00002, 0.0002)] == ["+2e-05", f"{minus}2e-05", "+0.0002"]


def test_percentages_have_a_sign():
    """They have at most one decimal."""
    assert [format_percent(n) for n in (-33.333, 0.0, -0.01, 50.0, 1184.19, None)] == [
        "\N{MINUS SIGN}33.3%",
        "0%",
        "0%",
        "+50%",
        "+1,184.2%",
        "—",
    ]
