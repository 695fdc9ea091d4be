"""`AsyncSqliteDb` and `AsyncPostgresDb`: the same stores for asynchronous programs. Each call runs in a thread.

Every public method of `SessionStore` that reads or writes has its coroutine here; `transaction` has none, as it belongs
to a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from kern_nb.db.postgres import PostgresDb
from kern_nb.db.sqlite import SqliteDb
from kern_nb.db.store import SessionStore

if TYPE_CHECKING:
    import sqlalchemy as sa

P = ParamSpec("P")
T = TypeVar("T")


def _forward(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AsyncStore, P], Coroutine[Any, Any, T]]:
    """Return the coroutine function that calls a method of the store in a thread."""
    name = method.__name__

    @wraps(method)
    async def call(face: AsyncStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        from anyio import to_thread

        bound: Callable[..., T] = getattr(face.store, name)
        return await to_thread.run_sync(partial(bound, *args, **kwargs))

    call.__doc__ = f"Await `SessionStore.{name}`: the same arguments, value and errors."
    return call


class AsyncStore:
    """The asynchronous methods of a store. Agents, teams and workflows take it as their ``db``.

    Attributes:
        store: The store itself.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.store.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    add_score = _forward(SessionStore.add_score)
    append_messages = _forward(SessionStore.append_messages)
    append_run = _forward(SessionStore.append_run)
    branch = _forward(SessionStore.branch)
    cancel_run = _forward(SessionStore.cancel_run)
    chat_history = _forward(SessionStore.chat_history)
    check = _forward(SessionStore.check)
    claim = _forward(SessionStore.claim)
    claim_run = _forward(SessionStore.claim_run)
    clear_session = _forward(SessionStore.clear_session)
    damaged_values = _forward(SessionStore.damaged_values)
    delete_run = _forward(SessionStore.delete_run)
    delete_runs = _forward(SessionStore.delete_runs)
    delete_session = _forward(SessionStore.delete_session)
    details = _forward(SessionStore.details)
    find_requirement = _forward(SessionStore.find_requirement)
    find_run = _forward(SessionStore.find_run)
    find_sessions = _forward(SessionStore.find_sessions)
    finish_run = _forward(SessionStore.finish_run)
    forget_answers = _forward(SessionStore.forget_answers)
    get_blob = _forward(SessionStore.get_blob)
    get_run = _forward(SessionStore.get_run)
    get_session = _forward(SessionStore.get_session)
    get_sessions = _forward(SessionStore.get_sessions)
    handoff = _forward(SessionStore.handoff)
    history = _forward(SessionStore.history)
    history_by_run = _forward(SessionStore.history_by_run)
    ingest = _forward(SessionStore.ingest)
    last_messages = _forward(SessionStore.last_messages)
    last_runs = _forward(SessionStore.last_runs)
    list_sessions = _forward(SessionStore.list_sessions)
    locate = _forward(SessionStore.locate)
    member_runs = _forward(SessionStore.member_runs)
    messages_df = _forward(SessionStore.messages_df)
    pause_run = _forward(SessionStore.pause_run)
    polars = _forward(SessionStore.polars)
    pop_message = _forward(SessionStore.pop_message)
    put_blob = _forward(SessionStore.put_blob)
    put_run = _forward(SessionStore.put_run)
    release_run = _forward(SessionStore.release_run)
    rename_session = _forward(SessionStore.rename_session)
    reply = _forward(SessionStore.reply)
    rewind_session = _forward(SessionStore.rewind_session)
    requirements = _forward(SessionStore.requirements)
    resolve = _forward(SessionStore.resolve)
    runs_df = _forward(SessionStore.runs_df)
    save_session = _forward(SessionStore.save_session)
    save_summary = _forward(SessionStore.save_summary)
    scores_df = _forward(SessionStore.scores_df)
    session_cards = _forward(SessionStore.session_cards)
    session_family = _forward(SessionStore.session_family)
    session_runs = _forward(SessionStore.session_runs)
    sessions_df = _forward(SessionStore.sessions_df)
    sql = _forward(SessionStore.sql)
    start_run = _forward(SessionStore.start_run)
    table = _forward(SessionStore.table)
    tag_session = _forward(SessionStore.tag_session)
    tool_calls_df = _forward(SessionStore.tool_calls_df)
    unfinished_runs = _forward(SessionStore.unfinished_runs)
    update_session_state = _forward(SessionStore.update_session_state)
    refresh = _forward(SessionStore.refresh)
    close = _forward(SessionStore.close)
    exists = _forward(SessionStore.exists)


class AsyncSqliteDb(AsyncStore):
    """A store in one SQLite file, with asynchronous methods; arguments as for `SqliteDb`.

    Example:
        >>> import asyncio, tempfile
        >>> from kern_nb.records import Run
        >>> async def main(folder: str) -> object:
        ...     async with AsyncSqliteDb(f"{folder}/agent.db") as store:
        ...         await store.append_run("chat", Run(input="Hi", output="Hello!"))
        ...         return (await store.get_session("chat")).runs[0].output
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        'Hello!'
    """

    def __init__(
        self,
        db_file: str | Path = "agent.db",
        *,
        db_engine: Any = None,
        db_url: str | sa.URL | None = None,
        **options: Any,
    ) -> None:
        super().__init__(SqliteDb(db_file, db_engine=db_engine, db_url=db_url, **options))


class AsyncPostgresDb(AsyncStore):
    """A store in a PostgreSQL database, with asynchronous methods; arguments as for `PostgresDb`.

    Example:
        >>> AsyncPostgresDb("postgresql://ada:secret@db.example.org/agents")
        <AsyncPostgresDb postgresql://ada:***@db.example.org/agents>
    """

    def __init__(self, db_url: str | sa.URL | None = None, *, db_engine: Any = None, **options: Any) -> None:
        super().__init__(PostgresDb(db_url, db_engine=db_engine, **options))
