"""`Tabular`: what a store gives as DataFrames, in pandas, Polars or Arrow. The work is in `frames` and `query`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.db.database import Database

if TYPE_CHECKING:
    import pandas as pd
    import polars
    import pyarrow as pa

    from kern_nb.db.frame_queries import When
    from kern_nb.db.json_columns import JsonPath


class Tabular(Database):
    """The five frames, and SQL."""

    def sessions_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
    ) -> pd.DataFrame:
        """One row a session, newest first; columns in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: The sessions of a user.
            agent_id: The sessions of an agent.
            since: Created then or later; naive times are UTC.
            until: Created before then.
            limit: The first so many rows.
            columns: Only these, in this order; nothing is computed for the others. All where None.
            expand: Values inside JSON columns, each as a text column: ``metadata.task_id``, ``state.step``.
                A tuple takes keys with dots: ``("metadata", "a.b")``.

        Raises:
            BadUsage: there is no such column or value, or a filter says nothing that could be meant.
        """
        return self._pandas("sessions", locals())

    def runs_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a run, ordered by session and run; arguments as for `messages_df`."""
        return self._pandas("runs", locals())

    def messages_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a message, ordered by session, run and message; columns in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: Those in sessions of a user.
            agent_id: Those in runs of an agent.
            since: Created then or later; naive times are UTC.
            until: Created before then.
            limit: The first so many rows.
            columns: Only these, in this order; nothing is computed for the others. All where None.
            expand: Values inside JSON columns, each as a text column: ``metadata.task_id`` and ``state.step`` of the
                session the row is in. A tuple takes keys with dots: ``("metadata", "a.b")``.
            lineage: Of one branch, the inherited rows too, told by the column ``inherited``.
        """
        return self._pandas("messages", locals())

    def tool_calls_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a tool call, ordered by session, run and call; arguments as for `messages_df`.

        ``expand`` finds the arguments of the call, too: ``args.city``.
        """
        return self._pandas("tool_calls", locals())

    def scores_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
    ) -> pd.DataFrame:
        """One row a score; arguments as for `sessions_df`."""
        return self._pandas("scores", locals())

    def table(
        self,
        name: str,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pa.Table:
        """The frame ``name`` as an Arrow table; the other arguments as for `messages_df`.

        The frames are sessions, runs, messages, tool_calls and scores. The columns are those of the DataFrame: string,
        int64, double, bool, and timestamps in microseconds, UTC.

        Raises:
            BadUsage: there is no such frame, column or value, or a filter says nothing that could be meant.
        """
        return self._arrow(name, locals())

    def polars(
        self,
        name: str,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> polars.DataFrame:
        """The frame ``name`` as a Polars DataFrame, with the columns, types and arguments of `table`.

        Raises:
            KernError: Polars is not installed.
        """
        from kern_nb.db.dtypes import polars_of

        return polars_of(self._arrow(name, locals()))

    def _pandas(self, name: str, given: Mapping[str, Any]) -> pd.DataFrame:
        from kern_nb.db.dtypes import pandas_of

        return pandas_of(self._arrow(name, given))

    def _arrow(self, name: str, given: Mapping[str, Any]) -> pa.Table:
        """A frame, from the arguments that a method was called with."""
        from kern_nb.db.frame_queries import Asked, table

        asked = Asked(**{key: value for key, value in given.items() if key in Asked.__dataclass_fields__})
        return table(self._source(), name, asked)

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The result of one reading SQL statement over the views.

        The views are ``sessions``, ``runs``, ``messages``, ``tool_calls``, ``scores`` and ``requirements``, with the
        columns of the frames. The dialect is the engine's own. A parameter is written ``$name`` on every engine.

        Args:
            query: One SELECT.
            params: The values of the parameters.

        Raises:
            QueryRefused: it is not a single SELECT.
            QueryFailed: the engine could not run it; the message is the engine's own.
        """
        from kern_nb.db.user_sql import run

        return run(self._source(), query, params or {})
