"""`DataFrameMethods`: the methods of a store that return DataFrames, in pandas, Polars or Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.db.database import Database

if TYPE_CHECKING:
    import pandas as pd
    import polars
    import pyarrow as pa

    from kern_nb.db.frame_queries import TimeLike
    from kern_nb.db.json_columns import JsonPath


class DataFrameMethods(Database):
    """The methods of a store for the five frames and SQL."""

    def sessions_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
    ) -> pd.DataFrame:
        """Return one row per session, newest first; the columns are in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: Sessions of this user.
            agent_id: Sessions of this agent.
            since: Created at this time or later; naive times are UTC.
            until: Created before this time.
            limit: The maximum number of rows.
            columns: The columns to return, in this order; others are not computed. All if None.
            expand: Values inside JSON columns, each as a text column: ``metadata.task_id``, ``state.step``.
                A tuple takes keys with dots: ``("metadata", "a.b")``.

        Raises:
            BadUsage: a column or a value in JSON does not exist, or a filter is invalid.
        """
        return self._pandas("sessions", locals())

    def runs_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """Return one row per run, ordered by session and run; arguments as for `messages_df`."""
        return self._pandas("runs", locals())

    def messages_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """Return one row per message, ordered by session, run and message; the columns are in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: Messages in sessions of this user.
            agent_id: Messages in runs of this agent.
            since: Created at this time or later; naive times are UTC.
            until: Created before this time.
            limit: The maximum number of rows.
            columns: The columns to return, in this order; others are not computed. All if None.
            expand: Values inside JSON columns, each as a text column: ``metadata.task_id`` and ``state.step`` of the
                session the row is in. A tuple takes keys with dots: ``("metadata", "a.b")``.
            lineage: Include the rows that a branch inherits, marked in the column ``inherited``.

        Raises:
            BadUsage: a column or a value in JSON does not exist, or a filter is invalid.
        """
        return self._pandas("messages", locals())

    def tool_calls_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """Return one row per tool call, ordered by session, run and call; arguments as for `messages_df`.

        ``expand`` also selects arguments of the call: ``args.city``.
        """
        return self._pandas("tool_calls", locals())

    def scores_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
    ) -> pd.DataFrame:
        """Return one row per score; arguments as for `sessions_df`."""
        return self._pandas("scores", locals())

    def table(
        self,
        name: str,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> pa.Table:
        """Return the frame ``name`` as an Arrow table; the other arguments are those of `messages_df`.

        The frames are sessions, runs, messages, tool_calls and scores. The columns are those of the DataFrame: string,
        int64, double, bool, and timestamps in microseconds, UTC.

        Raises:
            BadUsage: the frame, a column or a value in JSON does not exist, or a filter is invalid.
        """
        return self._arrow(name, locals())

    def polars(
        self,
        name: str,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        expand: Iterable[JsonPath] | None = None,
        lineage: bool = False,
    ) -> polars.DataFrame:
        """Return the frame ``name`` as a Polars DataFrame, with the columns, types and arguments of `table`.

        Raises:
            KernError: Polars is not installed.
        """
        from kern_nb.db.dtypes import arrow_to_polars

        return arrow_to_polars(self._arrow(name, locals()))

    def _pandas(self, name: str, arguments: Mapping[str, Any]) -> pd.DataFrame:
        from kern_nb.db.dtypes import arrow_to_pandas

        return arrow_to_pandas(self._arrow(name, arguments))

    def _arrow(self, name: str, arguments: Mapping[str, Any]) -> pa.Table:
        from kern_nb.db.frame_queries import FrameRequest, read_frame

        fields = FrameRequest.__dataclass_fields__
        request = FrameRequest(**{key: value for key, value in arguments.items() if key in fields})
        return read_frame(self._source(), name, request)

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return the result of one SELECT over the views.

        The views are ``sessions``, ``runs``, ``messages``, ``tool_calls``, ``scores`` and ``requirements``, with the
        columns of the frames. The dialect is the engine's. A parameter is written ``$name`` on every engine.

        Args:
            query: One SELECT.
            params: The values of the parameters. A list, tuple, set, Series or array is written after IN:
                ``WHERE session_id IN $ids``; an empty one has no rows.

        Raises:
            QueryRefused: the query is not a single SELECT.
            QueryFailed: the engine failed to run it; the message is the engine's.
        """
        from kern_nb.db.user_sql import run_query

        return run_query(self._source(), query, params or {})
