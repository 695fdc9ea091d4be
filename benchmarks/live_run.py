"""A run with one tool call: written as it happens, over the same run appended at once; and 30 agents at once."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice

import sqlalchemy as sa

from benchmarks.measure import Result, Work, median, ms, seconds
from benchmarks.places import Make, engines
from benchmarks.samples import Turn, as_run, turns
from kern_nb import Agent
from kern_nb.db import SessionStore
from kern_nb.models.scripted import Answer, ScriptedModel, call
from kern_nb.records import Message

BAR = 3
BAR_AT_ONCE = 2
AGENTS = 30


def run(*, quick: bool) -> Iterator[Result]:
    """One run on each engine, in processor time; then many at once, in time and processor time."""
    with engines() as stores:
        for name, make in stores.items():
            yield from _one_run(name, make, 20 if quick else 200)
        yield from _at_once(stores, 2 if quick else 9)


def _one_run(name: str, make: Make, repeats: int) -> Iterator[Result]:
    store, story = make(), turns()
    agent = _agent(store, "agent")
    works: dict[str, Work] = {
        "append": lambda: store.append_run("append", as_run(next(story))),
        "steps": lambda: write_in_steps(store, next(story)),
        "agent": lambda: agent.run(next(story).question),
    }
    for work in works.values():
        work()
    said = {what: _said(store, work) for what, work in works.items()}
    taken = {what: median(times) for what, times in zip(works, _processor_times(repeats, *works.values()), strict=True)}
    statements, transactions = said["agent"]
    appended, _ = said["append"]
    note = f"{statements} over {appended}, in {transactions} transactions over 1"
    yield Result(f"a live run over an append, statements: {name}", statements / appended, "x", BAR, note=note)
    for what, title, bar in (("steps", "of its writes", BAR), ("agent", "of all of Agent.run", None)):
        note = f"{ms(taken[what])} over {ms(taken['append'])}"
        figure = taken[what] / taken["append"]
        yield Result(f"a live run over an append, processor time {title}: {name}", figure, "x", bar, note=note)


def write_in_steps(store: SessionStore, turn: Turn) -> None:
    """What an agent writes of a run, a transaction a step."""
    whole = as_run(turn)
    first, asked, result, last = whole.messages
    result.extra["duration_s"] = 0.1
    run = store.start_run("steps", input=whole.input, model=whole.model, agent_id="support", messages=[first])
    store.append_messages(run.run_id, [asked])
    store.append_messages(run.run_id, [result])
    store.finish_run(run.run_id, output=whole.output, duration_s=1.0, state_unchanged=True, messages=[last])


def _at_once(stores: dict[str, Make], rounds: int) -> Iterator[Result]:
    """A session each, a run each. The engines take turns."""
    both = {name: stores[name]() for name in ("DuckDB", "SQLite")}
    numbers = count()
    times: dict[str, list[float]] = {name: [] for name in both}
    processor: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(rounds + 1):
        for name, store in both.items():
            work = partial(_agents_at_once, store, next(numbers))
            start = time.process_time()
            times[name].append(seconds(work))
            processor[name].append(time.process_time() - start)
    for what, taken in (("time", times), ("processor time", processor)):
        duckdb, sqlite = (median(taken[name][1:]) for name in both)
        note = f"{ms(duckdb)} over {ms(sqlite)}"
        yield Result(
            f"{AGENTS} agents at once, {what}: DuckDB over SQLite", duckdb / sqlite, "x", BAR_AT_ONCE, note=note
        )


def _agents_at_once(store: SessionStore, number: int) -> None:
    agents = [_agent(store, f"{number} {n}") for n in range(AGENTS)]
    questions = [turn.question for turn in islice(turns(number), AGENTS)]

    async def work() -> None:
        runs = await asyncio.gather(*(a.arun(question) for a, question in zip(agents, questions, strict=True)))
        assert all(run.status == "COMPLETED" for run in runs)  # noqa: S101 - else nothing was measured

    asyncio.run(work())


def _agent(store: SessionStore, session_id: str) -> Agent:
    turn = next(turns())

    def get_reservation(reservation_id: str) -> str:
        """Look a reservation up."""
        return f"{reservation_id}: {turn.result}"

    def answer(messages: list[Message]) -> Answer:
        is_last = messages[-1].role == "tool"
        return turn.answer if is_last else call(turn.tool, reservation_id=turn.args["reservation_id"])

    return Agent(ScriptedModel(answer), db=store, tools=[get_reservation], session_id=session_id)


def _said(store: SessionStore, work: Work) -> tuple[int, int]:
    """The statements of some work, without those that begin a transaction; and the transactions committed."""
    statements: list[str] = []
    commits: list[object] = []

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    def commit(connection: object) -> None:
        commits.append(connection)

    listeners: dict[str, Callable[..., None]] = {"before_cursor_execute": hear, "commit": commit}
    for event, listener in listeners.items():
        sa.event.listen(store.engine, event, listener)
    try:
        work()
    finally:
        for event, listener in listeners.items():
            sa.event.remove(store.engine, event, listener)
    return len(statements), len(commits)


def _processor_times(repeats: int, *works: Work) -> list[list[float]]:
    """The processor time of each work, of all threads; taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    gc.collect()
    for _ in range(repeats):
        for taken, work in zip(times, works, strict=True):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
    return times
