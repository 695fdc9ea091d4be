"""`RunDatabase`: the methods for runs of a database of Agno's on a store."""

from __future__ import annotations

from typing import Any, cast

from agno.db.base import BaseDb
from agno.db.utils import deserialize_run, get_run_type, validate_pagination

from kern_nb.bridges.agno import run_rows
from kern_nb.bridges.agno.conditional_writes import cancel_run
from kern_nb.bridges.agno.runs import RunCache, SessionRuns
from kern_nb.bridges.agno.warnings import warning_of_failure
from kern_nb.bridges.agno.writes import delete_run, put_runs
from kern_nb.db import codec
from kern_nb.db.store import SessionStore
from kern_nb.interop.agno import continue_inherited, is_copy, json_value
from kern_nb.records import SessionType as SessionTypeName

JsonObject = dict[str, Any]


class RunDatabase(BaseDb):
    """Reads and writes Agno's runs as rows of a store; the base class of `AgnoDb`, which has the sessions."""

    def __init__(self, store: SessionStore, *, id: str | None = None) -> None:
        super().__init__(session_table=store.tables.name, runs_table=f"{store.tables.name}_runs", id=id)
        self.store = store
        self._cache = RunCache()
        self._forks: dict[str, list[JsonObject]] = {}  # by session: the runs that a new fork of Agno's inherits
        # By session: the state that was saved last and the one that is stored, if that has changes of others, too.
        self._merged: dict[str, tuple[JsonObject, JsonObject]] = {}

    def upsert_run(self, run: Any, session_id: str, user_id: str | None = None, run_index: int | None = None) -> None:
        """Save a run, or replace it. The store assigns its index: ``run_index`` is a position in Agno's memory.

        Args:
            run: A run of an agent, team or workflow, or its dict.
            session_id: The session.
            user_id: The user of the session.
            run_index: Not used.

        Raises:
            OwnerMismatch: The session belongs to another user.
        """
        with warning_of_failure(f"A run of session {session_id!r}"):
            data = json_value(run if isinstance(run, dict) else run.to_dict())
            if data.get("run_id") is None:
                raise ValueError("Run must have a run_id")  # as Agno's databases do
            if self._is_copy(data, session_id, run_index):
                return
            owner = user_id if user_id is not None else data.get("user_id")
            runs = run_rows.to_records(data, cast("SessionTypeName", get_run_type(run)), owner)
            inherited = self._cache.inherited.get(data["run_id"])
            if inherited is not None:
                continue_inherited(runs[0], self.store.get_run(inherited.run_id), data)
                runs = runs[:1]  # those inside are in ``data``
            own, state = self._merged.get(session_id, (None, None))  # Agno saves the session before its run
            is_last = own is not None and codec.dumps(own) == codec.dumps(runs[0].session_state)
            put_runs(self.store, session_id, runs, state_after=state if is_last else None)

    def _is_copy(self, data: JsonObject, session_id: str, index: int | None) -> bool:
        """Whether a run is one that a fork of Agno's copies, or an unchanged one that a branch inherits."""
        sources = self._forks.get(session_id)
        if sources and index is not None and 0 <= index < len(sources) and is_copy(data, sources[index]):
            return True
        if data["run_id"] not in self._cache.inherited:
            return False
        runs = self._runs(session_id).dicts()
        return any(run["run_id"] == data["run_id"] and is_copy(data, run) for run in runs)

    def get_run(self, run_id: str, deserialize: bool | None = True) -> Any:
        """A run of Agno's, or the row of its table as a dict; None if there is none."""
        inherited = self._cache.inherited.get(run_id)
        if inherited is None:
            row = run_rows.find_run(self.store, run_id)
        else:
            row = next((r for r in self._runs(inherited.session_id).rows() if r["run_id"] == run_id), None)
        if row is None or not deserialize:
            return row
        return deserialize_run(row["run_type"], row["run_data"])

    def get_runs(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        workflow_id: str | None = None,
        status: Any = None,
        limit: int | None = None,
        page: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        deserialize: bool | None = True,
    ) -> Any:
        """Matching runs: a list, or with ``deserialize=False`` rows as dicts and the number of all matches.

        Args:
            session_id: Only runs of this session, those that it inherits included.
            user_id: Only runs of this user.
            agent_id: Only runs of this agent.
            team_id: Only runs of this team.
            workflow_id: Only runs of this workflow.
            status: Only runs with this status.
            limit: The size of a page.
            page: The page, from 1.
            sort_by: A column; None for the index.
            sort_order: asc, or desc; with a column, the latter is the default.
            deserialize: Whether to return runs of Agno's.
        """
        validate_pagination(limit, page)
        fields = {"user_id": user_id, "agent_id": agent_id, "team_id": team_id, "workflow_id": workflow_id}
        fields["status"] = getattr(status, "value", status)
        filters = {name: value for name, value in fields.items() if value is not None}
        offset = 0 if limit is None or page is None else (page - 1) * limit
        if session_id is None:
            run_options: JsonObject = {
                "sort_by": sort_by,
                "ascending": sort_order == "asc",
                "limit": limit,
                "offset": offset,
            }
            rows, total = run_rows.find_runs(self.store, filters, **run_options)
        else:
            rows = [r for r in self._runs(session_id).rows() if all(r[name] == v for name, v in filters.items())]
            if rows and sort_by in rows[0] and sort_by != "run_data":
                rows.sort(key=lambda row: (row[sort_by] is not None, row[sort_by]), reverse=sort_order != "asc")
            total = len(rows)
            rows = rows[offset : None if limit is None else offset + limit]
        if not deserialize:
            return rows, total
        return [deserialize_run(row["run_type"], row["run_data"]) for row in rows]

    def cancel_pending_run(
        self, run_id: str, *, session_id: str, reason: str, user_id: str | None = None, expected_status: str = "PENDING"
    ) -> bool:
        """Cancel a run if it still has a status; returns whether it was cancelled.

        Args:
            run_id: The run.
            session_id: Its session.
            reason: Its output, if it has none.
            user_id: Its user; a run without one may be cancelled, too.
            expected_status: PENDING or RUNNING.

        Raises:
            ValueError: It is another status.
        """
        if expected_status not in {"PENDING", "RUNNING"}:
            raise ValueError("Only Pending or Running runs can be cancelled by recovery")  # as Agno's databases do
        names: JsonObject = {"session_id": session_id, "user_id": user_id}
        return cancel_run(self.store, run_id, reason=reason, expected_status=expected_status, **names)

    def delete_run(self, run_id: str) -> bool:
        """Delete a run; False if there is none.

        Raises:
            HasBranches: Branches inherit it.
        """
        return delete_run(self.store, run_id)

    def delete_runs(self, run_ids: list[str]) -> None:
        """Delete runs.

        Raises:
            HasBranches: Branches inherit one.
        """
        for run_id in run_ids:
            self.delete_run(run_id)

    def _runs(self, session_id: str) -> SessionRuns:
        return SessionRuns(self.store, session_id, self._cache)
