"""`Tabular`: what a store gives as DataFrames. The work is in `frames` and `query`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.db.connected import Connected

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db.frames import When


class Tabular(Connected):
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
    ) -> pd.DataFrame:
        """One row a session, newest first; columns in `docs/columns.md`.

        Args:
            session_id: One session or several.
            user_id: The sessions of a user.
            agent_id: The sessions of an agent.
            since: Created then or later; naive times are UTC.
            until: Created before then.
            limit: The first so many rows.
        """
        return self._frame("sessions", session_id, user_id, agent_id, since, until, limit)

    def runs_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a run, ordered by session and run; arguments as for `messages_df`."""
        return self._frame("runs", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def messages_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
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
            lineage: Of one branch, the inherited rows too, told by the column ``inherited``.
        """
        return self._frame("messages", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def tool_calls_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        lineage: bool = False,
    ) -> pd.DataFrame:
        """One row a tool call, ordered by session, run and call; arguments as for `messages_df`."""
        return self._frame("tool_calls", session_id, user_id, agent_id, since, until, limit, lineage=lineage)

    def scores_df(
        self,
        session_id: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """One row a score; arguments as for `sessions_df`."""
        return self._frame("scores", session_id, user_id, agent_id, since, until, limit)

    def _frame(self, name: str, *filters: Any, lineage: bool = False) -> pd.DataFrame:
        from kern_nb.db.frames import Filters, frame

        return frame(self._source(), name, Filters(*filters), lineage=lineage)

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
        from kern_nb.db.query import run

        return run(self._source(), query, params or {})
