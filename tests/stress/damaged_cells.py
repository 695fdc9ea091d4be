"""Damage one cell of a store at a time, use everything public, and count what goes wrong.

By hand: ``python tests/stress/damaged_cells.py sqlite duckdb postgres --every 1``. No test collects this file; the suite
takes a sample of it (`tests/conformance/test_damaged_rows.py`).
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb import Agent, compare
from kern_nb.db import DuckDb, PostgresDb, SqliteDb
from kern_nb.errors import KernError
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Requirement, Run, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kern_nb.db import SessionStore

TABLES = ("sessions", "runs", "messages", "tool_calls", "requirements", "scores", "blobs")

_JSON = (
    "{broken", "[1, 2]", '"text"', "7", "", "NaN", '{"a": Infinity}', '{"$type": "nope", "value": 1}',
    '{"a": {"$type": "decimal", "value": "x"}}', '{"a": {"$type": "datetime"}}', '{"a": {"$type": "set", "value": 3}}',
    '{"$type": "dict", "$items": [3]}', '{"$items": 1}', "[" * 3000 + "]" * 3000,
)  # fmt: skip
_NUMBERS = (-1, 2**62, -(2**62), 300_000 * 31_556_952)
_REALS = (float("inf"), float("-inf"), float("nan"))

BLOB = b"\x89PNG bytes"


def fill(store: SessionStore) -> None:
    """Two independent sessions, a branch of each, and one row of every other table."""
    sha256 = store.put_blob(BLOB, "image/png")
    for name in ("bad", "good"):
        call = ToolCall(tool_call_id="c1", tool_name="look", args={"q": name}, result={"n": 1}, duration_s=0.5)
        messages = [
            Message(role="user", content=f"question of {name}"),
            Message(role="assistant", content=None, tool_calls=[call], usage=Usage(input_tokens=3, cost=0.5)),
            Message(role="tool", content={"n": 1}, tool_call_id="c1", tool_name="look"),
            Message(role="assistant", content=[{"type": "text", "text": "answer"}], extra={"sha256": sha256}),
        ]
        for index in range(2):
            run = Run(
                run_id=f"{name}-{index}", input="question", output={"answer": 1}, messages=messages, agent_id="agent",
                session_state={"step": index}, extra={"k": 1}, usage=Usage(input_tokens=5, output_tokens=2, cost=0.1),
                duration_s=1.5, user_id="ann",
            )  # fmt: skip
            store.append_run(name, run)
        store.rename_session(name, f"title of {name}")
        store.tag_session(name, ["tag"])
        store.add_score(name, "reward", 1.0)
        store.branch(name, after=0, new_session_id=f"{name}-branch")
        asked = Requirement(
            kind="confirmation", tool_call_id="c2", tool_name="look", args={"q": 1}, requirement_id=name
        )
        paused = Run(run_id=f"{name}-paused", input="x", status="PAUSED", requirements=[asked])
        store.append_run(f"{name}-waits", paused)


def damages(store: SessionStore) -> Iterator[tuple[str, str, Any]]:
    """Values to put into each column, by table, that no writer of ours stores."""
    anything: list[Any] = []
    if store.engine.dialect.name == "sqlite":
        anything = [b"\xff\xfe\x00", "text", 1.5, 5, sa.text("CAST(X'ff41' AS TEXT)")]
    for table in TABLES:
        for column in getattr(store.tables, table).columns:
            missing = [None] if column.nullable else []
            for value in (*_BY_KIND[type(column.type).__name__], *anything, *missing):
                yield table, column.name, value


_BY_KIND: dict[str, tuple[Any, ...]] = {
    "Json": _JSON,
    "Integer": _NUMBERS,
    "Real": _REALS,
    "Text": ("no such word", "\x10zz", "\x1b[2J"),
    "LargeBinary": (b"other bytes", b""),
    "Boolean": (),
}


def damage(store: SessionStore, table: str, column: str, value: Any) -> bool:
    """Put a value into a column of one row, past every type; whether the engine accepted it."""
    owner = getattr(store.tables, table)
    target = {"sessions": "session_id = 'bad'", "blobs": "1 = 1", "requirements": "requirement_id = 'bad'"}.get(
        table, "session_id = 'bad'" + (" AND run_index = 0" if "run_index" in owner.c else "")
    )
    if table in ("messages", "tool_calls"):
        target += " AND message_index = 1"
    quoted = store.engine.dialect.identifier_preparer.quote(column)
    place = str(value) if isinstance(value, sa.sql.elements.TextClause) else ":value"
    bound = {} if place != ":value" else {"value": value}
    try:
        with store.engine.execution_options(kern_write=True).begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA ignore_check_constraints=ON")
            statement = f"UPDATE {owner.name} SET {quoted} = {place} WHERE {target}"
            done = connection.execute(sa.text(statement), bound)
            return done.rowcount != 0
    except Exception:  # noqa: BLE001 - the engine holds to its types
        return False


def reads(store: SessionStore, name: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """Everything public that reads one session, or all."""
    from kern_nb.db.session_search import SessionFilter
    from kern_nb.operations.export import export

    def run_agent() -> None:
        agent = Agent(model=ScriptedModel(["hello"]), db=store, session_id=name, add_history_to_context=True)
        agent.run("again")

    calls: dict[str, Callable[[], Any]] = {
        "get_session": lambda: repr(store.get_session(name)),
        "list_sessions": lambda: [repr(s) for s in store.list_sessions()],
        "list_by_status": lambda: store.list_sessions(status="COMPLETED"),
        "list_by_name": lambda: store.list_sessions(name="title"),
        "history": lambda: store.history(name),
        "history_last": lambda: store.history(name, last_messages=2),
        "branch_history": lambda: store.history(f"{name}-branch"),
        "sessions_df": lambda: repr(store.sessions_df()),
        "expanded_df": lambda: repr(store.sessions_df(expand=["metadata.tags", "state.step"])),
        "runs_df": lambda: repr(store.runs_df()),
        "messages_df": lambda: repr(store.messages_df()),
        "lineage_df": lambda: repr(store.messages_df(f"{name}-branch", lineage=True)),
        "tool_calls_df": lambda: repr(store.tool_calls_df(expand=["args.q", "state.step"])),
        "scores_df": lambda: repr(store.scores_df()),
        "filtered_df": lambda: store.messages_df([name], since="2020-01-01", until="2100-01-01", user_id="ann"),
        "by_agent_df": lambda: store.runs_df(agent_id="agent", limit=3),
        "find_sessions": lambda: store.find_sessions(SessionFilter(text="title", tag="tag"), order="tokens"),
        "find_by_title": lambda: store.find_sessions(order="title"),
        "find_by_messages": lambda: store.find_sessions(order="messages"),
        "cards": lambda: store.session_cards([name, f"{name}-branch"]),
        "family": lambda: store.session_family(name),
        "session_runs": lambda: store.session_runs(name),
        "details": lambda: store.details(name),
        "get_run": lambda: store.get_run(f"{name}-0"),
        "member_runs": lambda: store.member_runs(f"{name}-0"),
        "requirements": store.requirements,
        "locate": lambda: store.locate(f"{name}/0.1"),
        "compare": lambda: repr(compare(name, f"{name}-branch", store=store)),
        "digest": lambda: _digest(store, name),
        "export": lambda: export(name, path=folder / "out.json", overwrite=True, store=store, progress=False),
        "check": lambda: repr(store.check()),
        "get_blob": lambda: store.get_blob(_sha256()),
        "branch": lambda: store.branch(name, name="again"),
        "rename": lambda: store.rename_session(name, "another"),
        "append": lambda: store.append_run(name, Run(input="x", session_state={"step": 9})),
        "agent": run_agent,
        "repair": lambda: store.check(repair=True),
    }
    calls |= {
        f"sql {view}": lambda view=view: repr(store.sql(f"SELECT * FROM {view}"))
        for view in ("sessions", "runs", "messages", "tool_calls", "scores", "requirements")
    }
    return calls


def _sha256() -> str:
    import hashlib

    return hashlib.sha256(BLOB).hexdigest()


def _digest(store: SessionStore, name: str) -> str:
    from kern_nb.analysis.digest import digest

    return repr(digest(name, store=store))


OF_ONE = frozenset(
    (
        "get_session", "history", "history_last", "branch_history", "session_runs", "details", "get_run",
        "member_runs", "locate", "compare", "digest", "export", "branch", "rename", "append", "agent", "cards",
        "lineage_df", "family", "get_blob",
    )
)  # fmt: skip
"""Reads that may refuse a damaged session; the others are of the whole store, and go on."""


class Result:
    """The counts."""

    def __init__(self, *, loud: bool = False) -> None:
        self.loud = loud
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []

    def note(self, kind: str, text: str) -> None:
        """Count a failure."""
        self.counts[kind] += 1
        self.problems.append(f"{kind}: {text}")
        if self.loud:
            print(f"   {kind}: {text}", flush=True)


QUICK = frozenset(("get_session", "list_sessions", "sessions_df", "messages_df", "repair"))
"""A few reads that take some milliseconds together."""


def probe(
    store: SessionStore, what: str, table: str, folder: Path, result: Result, chosen: frozenset[str] | None = None
) -> None:
    """Read everything public of a damaged store, or a part of it; then repair it, and check again."""
    result.counts["stores"] += 1
    for name in ("bad", "good"):
        for read, call in reads(store, name, folder).items():
            of_both = name == "bad" or read in OF_ONE  # those of the whole store are made once
            if not of_both or (chosen is not None and read not in chosen):
                continue
            result.counts["reads"] += 1
            started = time.monotonic()
            try:
                call()
            except KernError as error:
                result.counts["ours"] += 1
                shared = name == "good" and table != "blobs"
                if read not in OF_ONE or shared:
                    result.note("refused", f"{what}: {read} of {name}: {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - what this counts
                result.note("raw", f"{what}: {read} of {name}: {type(error).__name__}: {str(error)[:200]}")
            if time.monotonic() - started > 60:
                result.note("hang", f"{what}: {read} of {name}")
            if read == "repair" and name == "bad":
                report = store.check()
                if [p for p in report.problems if p.kind == "damaged"]:
                    result.note("unrepaired", f"{what}: {report!r}"[:600])


def targets(engine: str, folder: Path, url: str | None) -> Iterator[SessionStore]:
    """A fresh, filled store for each iteration, closed before the next."""
    base = folder / "base"
    if engine != "postgres":
        made = SqliteDb(db_file=base) if engine == "sqlite" else DuckDb(db_file=base)
        fill(made)
        made.close()
    n = 0
    while True:
        n += 1
        if engine == "postgres":
            store: SessionStore = PostgresDb(db_url=url or "", session_table=f"t{n}")
            fill(store)
        else:
            path = folder / f"copy{n}"
            shutil.copyfile(base, path)
            store = SqliteDb(db_file=path) if engine == "sqlite" else DuckDb(db_file=path)
        try:
            yield store
        finally:
            store.close()
            if engine != "postgres":
                path.unlink(missing_ok=True)


def run(
    engine: str,
    folder: Path,
    *,
    every: int = 1,
    first: int = 0,
    url: str | None = None,
    only: str = "",
    loud: bool = False,
) -> Result:
    """Damage every n-th cell of all, each in a store of its own."""
    result = Result(loud=loud)
    stores = targets(engine, folder, url)
    store = next(stores)
    for number, (table, column, value) in enumerate(list(damages(store))):
        what = f"{engine} {table}.{column} = {str(value)[:30]!r}"
        if number % every != first or only not in what:
            continue
        if damage(store, table, column, value):
            probe(store, what, table, folder, result)
            store = next(stores)
    stores.close()
    return result


def main() -> None:
    """Run the given engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", choices=("sqlite", "duckdb", "postgres"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from postgres_server import postgres

    for engine in options.engines:
        some = {"every": options.every, "first": options.first, "only": options.only, "loud": True}
        with tempfile.TemporaryDirectory() as folder:
            if engine == "postgres":
                with postgres() as url:
                    result = run(engine, Path(folder), url=url, **some)
            else:
                result = run(engine, Path(folder), **some)
        print(engine, dict(result.counts))


if __name__ == "__main__":
    main()
