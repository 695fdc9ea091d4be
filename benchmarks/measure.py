"""Measuring: alternating runs of several works, medians, and the `Result` of a benchmark."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]


class Skipped(Exception):
    """A benchmark cannot run here; the message states the reason."""


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        name: The measurement.
        figure: The measured value.
        unit: ``x`` for a ratio, else ms, s, rows or another unit.
        bar: The target; None if the row is for information.
        at_least: Whether the figure should be above the target instead of below it.
        note: The times from which the figure is computed.
    """

    name: str
    figure: float
    unit: str
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.bar is None:
            return None
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    @property
    def verdict(self) -> str:
        """The word for the table: "met", "missed", or nothing."""
        return {True: "met", False: "missed", None: ""}[self.met]

    @property
    def formatted(self) -> str:
        """The figure with its unit."""
        return _with_unit(self.figure, self.unit)

    @property
    def formatted_bar(self) -> str:
        """The target with its sign and unit."""
        if self.bar is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {_with_unit(self.bar, self.unit)}"


def _with_unit(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"
    return f"{digits}{unit}" if unit == "x" else f"{digits} {unit}"


def seconds(work: Work) -> float:
    """Run the work once and return its duration."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(repeats: int, *works: Work, at_a_time: int = 1) -> list[list[float]]:
    """Measure several works, alternating between them, so that a slow moment of the machine affects all of them.

    Each runs once before without being measured. The garbage collector is off, because it would run in whichever work
    allocates next.

    Args:
        repeats: The number of measurements of each work.
        works: The functions to measure.
        at_a_time: The number of consecutive measurements of a work before the next one.

    Returns:
        The durations of each work.
    """
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    gc.collect()
    gc.disable()
    try:
        for _ in range(0, repeats, at_a_time):
            for durations, work in zip(times, works, strict=True):
                durations += [seconds(work) for _ in range(at_a_time)]
    finally:
        gc.enable()
    return times


def median(times: list[float]) -> float:
    """The median, in the unit of the times."""
    return statistics.median(times)


def fastest_tenth(times: list[float]) -> str:
    """Format the first decile, which is close to the result on an idle machine."""
    return f"a tenth under {ms(sorted(times)[len(times) // 10])}"


def ms(value: float) -> str:
    """Format seconds as milliseconds with three significant digits."""
    return f"{value * 1000:,.0f} ms" if value >= 1 else f"{value * 1000:.3g} ms"
