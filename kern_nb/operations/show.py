"""Read a store: the list of sessions, the transcript of a session or run, and frames by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kern_nb import store_registry
from kern_nb.errors import BadUsage, SessionNotFound
from kern_nb.text import formatting
from kern_nb.text.metrics import to_records
from kern_nb.text.tables import Column, Table
from kern_nb.views.transcript import Conversation, conversation_html, conversation_text

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.db.references import Reference
    from kern_nb.records import Run, RunStatus, Session

_MAX_PARENT = 24  # characters of a parent's id; its own row shows all of it


def sessions(
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    name: str | None = None,
    status: RunStatus | None = None,
    last: int = 50,
    store: str | SessionStore | None = None,
) -> SessionTable:
    """Return the newest sessions of a store, with their totals.

    Args:
        user_id: Only sessions of this user.
        agent_id: Only sessions of this agent.
        name: Only sessions whose title contains this, in any case.
        status: Only sessions whose latest run has this status.
        last: The maximum number of sessions.
        store: A store or its name; by default the one in use.

    Raises:
        NoStore: No store has that name, or none is in use.
        BadUsage: ``last`` is less than 1.

    Example:
        >>> from kern_nb import Run, sessions
        >>> from kern_nb.db import InMemoryDb
        >>> store = InMemoryDb()
        >>> run = store.append_run("chat", Run(input="Hi", output="Hello"))
        >>> list(sessions(store=store).df["session_id"])
        ['chat']
    """
    opened = store_registry.find(store)
    page = opened.list_sessions(user_id=user_id, agent_id=agent_id, name=name, status=status, limit=last)
    narrowed = any(value is not None for value in (user_id, agent_id, name, status))
    df = opened.sessions_df([session.session_id for session in page])
    return SessionTable(df, more=page.cursor is not None, narrowed=narrowed)


def show(reference: str, *, store: str | SessionStore | None = None) -> Transcript:
    """Return the transcript of a session, of a run, or of a run from a message on.

    Args:
        reference: ``chat``, ``chat/2`` (with the runs of its members) or ``chat/2.5``; a unique prefix of the session
            id is enough.
        store: A store or its name; by default the one in use.

    Raises:
        SessionNotFound: The reference names no session.
        RunNotFound: It names no run of the session.
        MessageNotFound: It names no message of the run.
        AmbiguousReference: It names several sessions or runs.

    Example:
        >>> from kern_nb import Run, show
        >>> from kern_nb.db import InMemoryDb
        >>> store = InMemoryDb()
        >>> run = store.append_run("chat", Run(input="Hi", output="Hello"))
        >>> [run.output for run in show("chat/0", store=store).runs]
        ['Hello']
    """
    opened = store_registry.find(store)
    location = opened.locate(reference)
    session = opened.get_session(location.session_id)
    if session is None:  # deleted in between
        message = f"Session {location.session_id!r} does not exist."
        raise SessionNotFound(message, "List the sessions with %kern sessions.")
    return Transcript(session, location, opened)


@dataclass(frozen=True, repr=False)
class SessionTable:
    """Sessions, newest first.

    Attributes:
        df: One row per session, with the columns of ``store.sessions_df()``.
        more: Whether there are older ones.
        narrowed: Whether filters were applied.
    """

    df: pd.DataFrame
    more: bool = False
    narrowed: bool = False

    def __repr__(self) -> str:
        return str(self._table())

    def __len__(self) -> int:
        return len(self.df)

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        rows = [_session_row(row) for row in to_records(self.df)]
        if not rows:
            if self.narrowed:
                return Table("No matching sessions", [], [], "List all of them with %kern sessions.")
            return Table("The store has no sessions", [], [], "Import recorded sessions with %kern import PATH.")
        titles = ("session", "title", "branch of", "owner", "user")
        numbers = ("runs", "messages", "tool calls", "tokens", "cost")
        columns = [*map(Column, titles), *(Column(title, number=True) for title in numbers)]
        columns += [Column("status"), Column("created (UTC)")]
        newest = "The newest " if self.more else ""
        note = f"Show older ones: %kern sessions --last {10 * len(rows)}" if self.more else ""
        return Table(newest + formatting.pluralize(len(rows), "session"), columns, rows, note).without_empty_columns()


def _session_row(row: dict[str, Any]) -> list[str]:
    calls = formatting.format_count(row["n_tool_calls"])
    failed = f", {formatting.BAD} {row['n_tool_errors']}" if row["n_tool_errors"] else ""
    return [
        row["session_id"],
        "" if row["session_name"] in (None, row["session_id"]) else row["session_name"],
        _branch_point(row),
        row["agent_id"] or row["team_id"] or row["workflow_id"] or "",
        row["user_id"] or "",
        formatting.format_count(row["n_runs"]),
        formatting.format_count(row["n_messages"]),
        calls + failed,
        formatting.format_count(row["total_tokens"]),
        formatting.format_money(row["cost"]),
        formatting.format_status(row["status"]),
        formatting.format_time(row["created_at"]),
    ]


def _branch_point(row: dict[str, Any]) -> str:
    if row["parent_session_id"] is None:
        return ""
    run, message = row["fork_run_index"], row["fork_message_index"]
    index = "" if run is None or run < 0 else f"/{run}" + ("" if message is None else f".{message}")
    return f"{formatting.BRANCH} {formatting.truncate(row['parent_session_id'], _MAX_PARENT)}{index}"


@dataclass(frozen=True, repr=False)
class Transcript:
    """A conversation, or a part of it.

    Attributes:
        session: The session.
        reference: The shown session, run or message.
        store: The store it was read from.
    """

    session: Session
    reference: Reference
    store: SessionStore = field(compare=False)

    def __repr__(self) -> str:
        return conversation_text(self._conversation())

    def _repr_html_(self) -> str:
        return conversation_html(self._conversation())

    @property
    def runs(self) -> list[Run]:
        """The shown runs; with a run also those of its members and nested agents."""
        every = self.session.runs or []
        if self.reference.run_index is None:
            return every
        result: list[Run] = []
        owners: set[str | None] = set()
        for run in every:
            is_member = run.parent_run_id in owners and self.reference.message_index is None
            if run.run_index == self.reference.run_index or is_member:
                result.append(run)
                owners.add(run.run_id)
        return result

    @cached_property
    def messages(self) -> pd.DataFrame:
        """Every shown message, inherited ones included, with the columns of ``store.messages_df``."""
        return self._filter(self.store.messages_df(self.reference.session_id, lineage=True))

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """Every shown tool call, inherited ones included, with the columns of ``store.tool_calls_df``."""
        return self._filter(self.store.tool_calls_df(self.reference.session_id, lineage=True))

    def _conversation(self) -> Conversation:
        return Conversation(self.session, self.runs, self.reference.message_index or 0)

    def _filter(self, df: pd.DataFrame) -> pd.DataFrame:
        if self.reference.run_index is None:
            return df
        df = df[df["run_index"].isin([run.run_index for run in self.runs])]
        return df[df["message_index"] >= (self.reference.message_index or 0)].reset_index(drop=True)


def load(name: str, reference: str | None, store: SessionStore, *, lineage: bool, **filters: Any) -> pd.DataFrame:
    """Return a store's frame (sessions, runs, messages, tool_calls or scores), of one session or with other filters.

    Raises:
        BadUsage: The reference names a run, the frame has no inherited rows, or a column is unknown.
    """
    if reference is not None:
        location = store.locate(reference)
        if location.run_index is not None:
            hint = f"Load {location.session_id} and filter by run_index == {location.run_index}, or use %kern show."
            raise BadUsage(f"--session must be a session, got run {reference!r}.", hint)
        filters["session_id"] = location.session_id
    if lineage:
        if name not in ("runs", "messages", "tool_calls"):
            raise BadUsage(f"A branch inherits no {name}.", "--lineage supports runs, messages and tool_calls.")
        if reference is None:
            raise BadUsage("--lineage needs a branch.", f"%kern load {name} --session REF --lineage")
        filters["lineage"] = True
    frame: pd.DataFrame = getattr(store, f"{name}_df")(**filters)
    return frame
