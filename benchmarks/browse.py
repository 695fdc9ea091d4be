"""The session browser over 100,000 sessions: the first rows and each later step, measured in the kernel."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Result, Work, median, ms, side_by_side
from benchmarks.samples import fill
from benchmarks.stores import folder
from kern_nb.db import DuckDb, SessionStore, SqliteDb

BAR_PAINT_MS = 1_000
BAR_STEP_MS = 150
BAR_ADDED_UP_MS = 300
ANY: dict[str, Any] = {"text": "", "agent": "", "user": "", "status": "", "order": "created", "descending": True}


def run(*, quick: bool) -> Iterator[Result]:
    """Sessions with one run of four messages. The steps are those of a user: scroll, filter, sort, open, select."""
    many, repeats = (5_000, 5) if quick else (100_000, 15)
    engines: dict[str, Callable[[Path], SessionStore]] = {
        "DuckDB": lambda path: DuckDb(path.with_suffix(".duckdb")),
        "SQLite": lambda path: SqliteDb(path.with_suffix(".db")),
    }
    with folder() as path:
        for name, make in engines.items():
            store = make(path / "sessions")
            fill(store, many, runs=1, messages=4)
            store.close()
            yield _first_paint(name, lambda make=make: make(path / "sessions"), many, repeats)
            yield from _steps(name, store, many, repeats)
            store.close()


def _first_paint(name: str, make: Callable[[], SessionStore], many: int, repeats: int) -> Result:
    """Measure what a cell does: open the store, create the widget and its fallback HTML, find the first rows."""
    from kern_nb.widgets.browser.widget import browse

    def paint() -> None:
        store = make()
        browser = browse(store)
        browser.fallback_html()
        browser.start()
        store.close()

    (times,) = side_by_side(repeats, paint)
    note = f"the slowest {ms(max(times))}"
    return Result(f"browse(), first rows of {many:,}: {name}", median(times) * 1_000, "ms", BAR_PAINT_MS, note=note)


def _steps(name: str, store: SessionStore, many: int, repeats: int) -> Iterator[Result]:
    """Measure each step separately."""
    from kern_nb.widgets.browser.widget import browse

    browser = browse(store)
    chance = random.Random(3)
    keys = [row["key"] for row in browser.start()["rows"][:20]]

    def find(**fields: Any) -> Work:
        def counted() -> object:
            browser._total = None  # noqa: SLF001 - as after any other filter
            return browser.find(**ANY | fields)

        return counted

    steps: dict[str, Work] = {
        "scroll": lambda: browser.rows(chance.randrange(many - 100), 100),
        "totals of 20 rows": lambda: browser.totals(keys),
        "open a session": lambda: browser.show(chance.choice(keys)),
    }
    lists: dict[str, Work] = {
        "by title": find(text="warehouse"),
        "by a text without matches": find(text="qqqq"),
        "by user": find(user="user-77"),
        "by agent": find(agent="agent-3"),
        "by tag": find(text="#refund"),
        "by a rare status": find(status="ERROR"),
        "by the usual status": find(status="COMPLETED"),
        "sorted by title": find(order="title"),
        "sorted by user": find(order="user"),
        "sorted by update": find(order="updated", descending=False),
    }
    # Orders that need totals; the browser shows that it is computing them.
    by_total: dict[str, Work] = {"messages": find(order="messages")}
    if isinstance(store, DuckDb):
        by_total |= {"tokens": find(order="tokens"), "cost": find(order="cost")}
    else:
        by_total |= {"tokens": find(order="tokens", user="user-77"), "cost": find(order="cost", user="user-77")}
    for order, work in by_total.items():
        (times,) = side_by_side(repeats, work)
        which = "" if isinstance(store, DuckDb) or order == "messages" else ", of those of some users"
        title = f"browse(), sorted by {order}, {many:,}: {name}"
        yield Result(title, median(times) * 1_000, "ms", BAR_ADDED_UP_MS, note=f"the slowest {ms(max(times))}{which}")
    for step, work in steps.items():
        browser.find(**ANY)
        (times,) = side_by_side(repeats, work)
        yield Result(f"browse(), {step}, {many:,}: {name}", median(times) * 1_000, "ms", BAR_STEP_MS)
    medians = {step: median(side_by_side(repeats, work)[0]) for step, work in lists.items()}
    slowest = max(medians, key=lambda step: medians[step])
    note = f"the slowest of {len(lists)}: {slowest}"
    title = f"browse(), filter or sort, {many:,}: {name}"
    yield Result(title, medians[slowest] * 1_000, "ms", BAR_STEP_MS, note=note)
