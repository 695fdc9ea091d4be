"""Comparisons of groups with hostile texts in every rendered field."""

from __future__ import annotations

from functools import cache

from hostile import HOSTILE, MEGABYTE

from kern_nb.analysis.groups import GroupComparison, compare_groups
from kern_nb.db import InMemoryDb
from kern_nb.records import Run, Session, Usage

BAD = HOSTILE["script"]
KEY = f"task {HOSTILE['quotes']}"


def _save(store: InMemoryDb, n: int, model: str, key: str | None, score: float | None, *, cost: float | None) -> None:
    session_id = f"{n:03} {BAD}"
    runs = [Run(run_id=f"r{n}", model=model, usage=Usage(input_tokens=1000 * n, cost=cost), duration_s=n)]
    metadata = {} if key is None else {KEY: key}
    store.save_session(Session(session_id=session_id, metadata=metadata, runs=runs, created_at=1_795_000_000 + n))
    if score is not None:
        store.add_score(session_id, HOSTILE["override"], score)


@cache
def hostile_groups(*, contenders: int = 1) -> GroupComparison:
    """Groups, keys, the score and sessions with hostile names."""
    models = [BAD, MEGABYTE] if contenders == 1 else [BAD, HOSTILE["override"], HOSTILE["nul"]]
    keys = [*HOSTILE.values(), MEGABYTE]
    with InMemoryDb() as store:
        n = 0
        for m, model in enumerate(models):
            for k, key in enumerate(keys[: 4 if contenders > 1 else None]):
                if (k, m) != (1, 1):
                    _save(store, n := n + 1, model, key, (k + m) % 3 / 2, cost=0.01 if m else None)
        _save(store, n := n + 1, models[0], keys[0], 1, cost=0.5)
        _save(store, n := n + 1, models[0], None, None, cost=0.5)
        _save(store, n := n + 1, models[1], keys[2], None, cost=0.5)
        torn = [Run(run_id=f"torn{i}", model=model) for i, model in enumerate((BAD, HOSTILE["quotes"]))]
        store.save_session(Session(session_id="torn", metadata={KEY: "x"}, runs=torn, created_at=1_795_000_500))
        return compare_groups(store, key=f"metadata.{KEY}", score=HOSTILE["override"], groups=models)


@cache
def many() -> GroupComparison:
    """More keys than are shown, and a group that was not asked for."""
    with InMemoryDb() as store:
        for n in range(80):
            store.save_session(
                Session(
                    session_id=f"s{n:03}",
                    agent_id=("before", "after", "else")[n % 3 if n < 75 else 2],
                    metadata={"task": str(n // 3)},
                    runs=[Run(run_id=f"r{n}", usage=Usage(input_tokens=n), duration_s=1)],
                    created_at=1_795_000_000 + n,
                )
            )
            store.add_score(f"s{n:03}", "reward", n % 3)
        for k in range(7):  # many trials of one key
            metadata, runs = {"task": "0"}, [Run(run_id=f"more{k}")]
            store.save_session(
                Session(
                    session_id=f"more{k}", agent_id="before", metadata=metadata, runs=runs, created_at=1_796_000_000
                )
            )
            store.add_score(f"more{k}", "reward", k % 2)
        return compare_groups(store, by="agent_id", key="task", groups=["before", "after"])


CASES = {
    "groups": lambda: hostile_groups()._repr_html_(),
    "groups-many": lambda: many()._repr_html_(),
    "groups-of-three": lambda: hostile_groups(contenders=2)._repr_html_(),
}
