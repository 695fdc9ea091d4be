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
from benchmarks.samples import SampleRun, sample_runs, to_run
from benchmarks.stores import StoreFactory, engines
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


def _one_run(name: str, make: StoreFactory, repeats: int) -> Iterator[Result]:
    store, samples = make(), sample_runs()
    agent = _agent(store, "agent")
    works: dict[str, Work] = {
        "append": lambda: store.append_run("append", to_run(next(samples))),
        "steps": lambda: write_in_steps(store, next(samples)),
        "agent": lambda: agent.run(next(samples).question),
    }
    for work in works.values():
        work()
    counts = {name: _count_statements(store, work) for name, work in works.items()}
    times = zip(works, _processor_times(repeats, *works.values()), strict=True)
    medians = {name: median(values) for name, values in times}
    statements, transactions = counts["agent"]
    appended, _ = counts["append"]
    note = f"{statements} over {appended}, in {transactions} transactions over 1"
    yield Result(f"a live run over an append, statements: {name}", statements / appended, "x", BAR, note=note)
    for what, title, bar in (("steps", "of its writes", BAR), ("agent", "of all of Agent.run", None)):
        note = f"{ms(medians[what])} over {ms(medians['append'])}"
        figure = medians[what] / medians["append"]
        yield Result(f"a live run over an append, processor time {title}: {name}", figure, "x", bar, note=note)


def write_in_steps(store: SessionStore, sample: SampleRun) -> None:
    """Write a run as an agent does, with a transaction per step."""
    record = to_run(sample)
    first, tool_call, result, last = record.messages
    result.extra["duration_s"] = 0.1
    run = store.start_run("steps", input=record.input, model=record.model, agent_id="support", messages=[first])
    store.append_messages(run.run_id, [tool_call])
    store.append_messages(run.run_id, [result])
    store.finish_run(run.run_id, output=record.output, duration_s=1.0, state_unchanged=True, messages=[last])


def _at_once(stores: dict[str, StoreFactory], rounds: int) -> Iterator[Result]:
    """One session and one run per agent. The engines alternate."""
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
    for what, values in (("time", times), ("processor time", processor)):
        duckdb, sqlite = (median(values[name][1:]) for name in both)
        note = f"{ms(duckdb)} over {ms(sqlite)}"
        yield Result(
            f"{AGENTS} agents at once, {what}: DuckDB over SQLite", duckdb / sqlite, "x", BAR_AT_ONCE, note=note
        )


def _agents_at_once(store: SessionStore, number: int) -> None:
    agents = [_agent(store, f"{number} {n}") for n in range(AGENTS)]
    questions = [sample.question for sample in islice(sample_runs(number), AGENTS)]

    async def work() -> None:
        runs = await asyncio.gather(*(a.arun(question) for a, question in zip(agents, questions, strict=True)))
        assert all(run.status == "COMPLETED" for run in runs)  # noqa: S101 - else the measurement is meaningless

    asyncio.run(work())


def _agent(store: SessionStore, session_id: str) -> Agent:
    sample = next(sample_runs())

    def get_reservation(reservation_id: str) -> str:
        """Look up a reservation."""
        return f"{reservation_id}: {sample.result}"

    def answer(messages: list[Message]) -> Answer:
        is_last = messages[-1].role == "tool"
        return sample.answer if is_last else call(sample.tool, reservation_id=sample.args["reservation_id"])

    return Agent(ScriptedModel(answer), db=store, tools=[get_reservation], session_id=session_id)


def _count_statements(store: SessionStore, work: Work) -> tuple[int, int]:
    """Count the statements of some work, without those that begin a transaction, and the commits."""
    statements: list[str] = []
    commits: list[object] = []

    def record(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    def commit(connection: object) -> None:
        commits.append(connection)

    listeners: dict[str, Callable[..., None]] = {"before_cursor_execute": record, "commit": commit}
    for event, listener in listeners.items():
        sa.event.listen(store.engine, event, listener)
    try:
        work()
    finally:
        for event, listener in listeners.items():
            sa.event.remove(store.engine, event, listener)
    return len(statements), len(commits)


def _processor_times(repeats: int, *works: Work) -> list[list[float]]:
    """Measure the processor time of each work, of all threads, alternating between them."""
    times: list[list[float]] = [[] for _ in works]
    gc.collect()
    for _ in range(repeats):
        for durations, work in zip(times, works, strict=True):
            start = time.process_time()
            work()
            durations.append(time.process_time() - start)
    return times
