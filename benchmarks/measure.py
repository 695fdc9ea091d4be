"""What every benchmark shares: medians, both sides in one run, and the `Result` it ends in."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]


class Skipped(Exception):
    """A benchmark cannot be run here; the message says why."""


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        name: What was measured.
        figure: What came out.
        unit: ``x`` for a ratio, else ms, s or rows; or what else the figure counts.
        bar: The bar, None where the row is for information.
        at_least: Whether the figure should be above the bar instead of below it.
        note: The times behind it.
    """

    name: str
    figure: float
    unit: str
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.bar is None:
            return None
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    @property
    def verdict(self) -> str:
        """met, short of it, or nothing."""
        return {True: "met", False: "short of it", None: ""}[self.met]

    @property
    def shown(self) -> str:
        """The figure with its unit."""
        return _with_unit(self.figure, self.unit)

    @property
    def shown_bar(self) -> str:
        """The bar with its sign and unit."""
        if self.bar is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {_with_unit(self.bar, self.unit)}"


def _with_unit(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"
    return f"{digits}{unit}" if unit == "x" else f"{digits} {unit}"


def seconds(work: Work) -> float:
    """How long the work took, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(repeats: int, *works: Work, at_a_time: int = 1) -> list[list[float]]:
    """The times of each work, taken in turns: what slows the machine for a while slows all of them.

    Each is done once before, unmeasured. No garbage is collected meanwhile: it would fall on whoever allocates next.

    Args:
        repeats: How often each is measured.
        works: What is measured.
        at_a_time: How often one is done before it is the next one's turn.
    """
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    gc.collect()
    gc.disable()
    try:
        for _ in range(0, repeats, at_a_time):
            for taken, work in zip(times, works, strict=True):
                taken += [seconds(work) for _ in range(at_a_time)]
    finally:
        gc.enable()
    return times


def median(times: list[float]) -> float:
    """The median, in the unit of the times."""
    return statistics.median(times)


def quick_tenth(times: list[float]) -> str:
    """What the quickest tenth took at most: near what an idle machine would show."""
    return f"a tenth under {ms(sorted(times)[len(times) // 10])}"


def ms(value: float) -> str:
    """Seconds as milliseconds, in three figures."""
    return f"{value * 1000:,.0f} ms" if value >= 1 else f"{value * 1000:.3g} ms"
