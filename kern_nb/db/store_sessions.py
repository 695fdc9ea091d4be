"""`SessionListMethods`: a list of sessions under Agno's name; ours are in `kern_nb.db.store`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kern_nb.db.database import Database
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.db.reads import SessionPage
    from kern_nb.records import Session, SessionType

_PAGE = 200


class SessionListMethods(Database):
    """Lists of sessions under Agno's names."""

    if TYPE_CHECKING:
        get_session: Callable[..., Session | None]
        list_sessions: Callable[..., SessionPage]

    def get_sessions(
        self,
        session_type: SessionType | None = None,
        user_id: str | None = None,
        component_id: str | None = None,
        session_name: str | None = None,
        limit: int | None = None,
        page: int | None = None,
        *,
        include_runs: bool = True,
    ) -> list[Session]:
        """Sessions with their runs, newest first, as Agno's databases return them.

        `list_sessions` is faster where there are many: it reads no runs.

        Args:
            session_type: agent, team or workflow.
            user_id: Only sessions of this user.
            component_id: Only sessions whose agent, team or workflow has this id.
            session_name: A part of the title, ignoring case.
            limit: The most sessions to return; None for all.
            page: The number of the page of ``limit`` sessions, from 1.
            include_runs: Whether to read the runs.

        Raises:
            BadUsage: ``limit`` or ``page`` is not a positive int.

        Example:
            >>> from kern_nb.db import InMemoryDb
            >>> from kern_nb.records import Run
            >>> store = InMemoryDb()
            >>> _ = store.append_run("chat", Run(input="Hello"), user_id="alice")
            >>> [(session.session_id, len(session.runs)) for session in store.get_sessions(user_id="alice")]
            [('chat', 1)]
        """
        for parameter, value in (("limit", limit), ("page", page)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise BadUsage(f"{parameter} must be a positive int, got {value!r}.", "For example: limit=20, page=1.")
        first = ((page or 1) - 1) * limit if limit is not None else 0
        fields = {"session_type": session_type, "user_id": user_id, "owner": component_id, "name": session_name}
        sessions: list[Session] = []
        cursor = None
        while limit is None or len(sessions) < first + limit:
            part = self.list_sessions(**fields, limit=_PAGE, cursor=cursor)
            sessions += part
            cursor = part.cursor
            if cursor is None:
                break
        sessions = sessions[first:] if limit is None else sessions[first : first + limit]
        if not include_runs:
            return sessions
        # One that is deleted meanwhile is left out.
        complete = (self.get_session(session.session_id, user_id=user_id) for session in sessions)
        return [session for session in complete if session is not None]
