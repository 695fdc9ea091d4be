"""What the reading verbs give: objects with a plain and an HTML form, and their tables as DataFrames.

Each is made by one function, which is the verb as a script calls it.
"""

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


_PARENT = 24
"""A parent's id is cut to this: its own row has it whole."""


def sessions(
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    name: str | None = None,
    status: RunStatus | None = None,
    last: int = 50,
    store: str | SessionStore | None = None,
) -> SessionTable:
    """The newest sessions of a store, with their totals.

    Args:
        user_id: Those of one user.
        agent_id: Those of one agent.
        name: Those with this in their title, in any case.
        status: Those whose latest run has this status.
        last: The most sessions to give.
        store: A store or the name of one; the one in use where None.
    """
    found = store_registry.find(store)
    page = found.list_sessions(user_id=user_id, agent_id=agent_id, name=name, status=status, limit=last)
    narrowed = any(value is not None for value in (user_id, agent_id, name, status))
    return SessionTable(
        found.sessions_df([s.session_id for s in page]), more=page.cursor is not None, narrowed=narrowed
    )


def show(reference: str, *, store: str | SessionStore | None = None) -> Transcript:
    """The transcript of a session, a run, or a run from a message on.

    Args:
        reference: ``chat``, ``chat/2`` or ``chat/2.5``; a unique prefix of the session id will do.
        store: A store or the name of one; the one in use where None.

    Raises:
        SessionNotFound, RunNotFound, MessageNotFound, AmbiguousReference: it names nothing, or several things.
    """
    found = store_registry.find(store)
    place = found.locate(reference)
    session = found.get_session(place.session_id)
    if session is None:  # deleted in between
        raise SessionNotFound(f"There is no session {place.session_id!r}.", "List them with %kern sessions.")
    return Transcript(session, place, found)


@dataclass(frozen=True, repr=False)
class SessionTable:
    """Sessions, newest first.

    Attributes:
        df: One row a session, with the columns of ``store.sessions_df()``.
        more: Whether there are older ones.
        narrowed: Whether filters left some out.
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
        if not rows and self.narrowed:
            return Table("No session fits", [], [], "%kern sessions lists all of them.")
        if not rows:
            return Table("The store has no sessions yet", [], [], "Recorded ones come in with %kern import PATH.")
        titles = ("session", "title", "branch of", "owner", "user")
        numbers = ("runs", "messages", "tool calls", "tokens", "cost")
        columns = [*map(Column, titles), *(Column(title, number=True) for title in numbers)]
        columns += [Column("status"), Column("created (UTC)")]
        newest = "The newest " if self.more else ""
        note = f"There are older ones: %kern sessions --last {10 * len(rows)}" if self.more else ""
        return Table(newest + formatting.pluralize(len(rows), "session"), columns, rows, note).without_empty_columns()


def _session_row(row: dict[str, Any]) -> list[str]:
    calls = formatting.format_count(row["n_tool_calls"])
    failed = f", {formatting.BAD} {row['n_tool_errors']}" if row["n_tool_errors"] else ""
    return [
        row["session_id"],
        "" if row["session_name"] in (None, row["session_id"]) else row["session_name"],
        _fork_place(row),
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


def _fork_place(row: dict[str, Any]) -> str:
    """The branch point, as a person would name it."""
    if row["parent_session_id"] is None:
        return ""
    run, message = row["fork_run_index"], row["fork_message_index"]
    place = "" if run is None or run < 0 else f"/{run}" + ("" if message is None else f".{message}")
    return f"{formatting.BRANCH} {formatting.truncate(row['parent_session_id'], _PARENT)}{place}"


@dataclass(frozen=True, repr=False)
class Transcript:
    """A conversation, or a part of it.

    Attributes:
        session: The session.
        reference: What of it is shown.
        store: Where it comes from.
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
        """The runs that are shown."""
        index = self.reference.run_index
        return [run for run in self.session.runs or [] if index is None or run.run_index == index]

    @cached_property
    def messages(self) -> pd.DataFrame:
        """Every message that is shown, inherited ones too, as ``store.messages_df`` has them."""
        return self._part(self.store.messages_df(self.reference.session_id, lineage=True))

    @cached_property
    def tool_calls(self) -> pd.DataFrame:
        """Every tool call that is shown, inherited ones too, as ``store.tool_calls_df`` has them."""
        return self._part(self.store.tool_calls_df(self.reference.session_id, lineage=True))

    def _conversation(self) -> Conversation:
        return Conversation(self.session, self.runs, self.reference.message_index or 0)

    def _part(self, df: pd.DataFrame) -> pd.DataFrame:
        if self.reference.run_index is None:
            return df
        df = df[df["run_index"] == self.reference.run_index]
        return df[df["message_index"] >= (self.reference.message_index or 0)].reset_index(drop=True)


def load(name: str, reference: str | None, store: SessionStore, *, lineage: bool, **filters: Any) -> pd.DataFrame:
    """One of a store's frames by its name.

    Raises:
        BadUsage: the reference names less than a session, inherited rows are asked for where there are none, or there
            is no such column.
    """
    if reference is not None:
        place = store.locate(reference)
        if place.run_index is not None:
            raise BadUsage(
                f"{reference!r} is a run; a frame is of whole sessions.",
                f"Load {place.session_id} and keep df[df.run_index == {place.run_index}], or use %kern show.",
            )
        filters["session_id"] = place.session_id
    if lineage and name not in ("runs", "messages", "tool_calls"):
        raise BadUsage(f"A branch inherits no {name}.", "--lineage goes with runs, messages and tool_calls.")
    if lineage and reference is None:
        raise BadUsage("--lineage needs the branch to look at.", f"%kern load {name} --session REF --lineage")
    given = {"lineage": True} if lineage else {}
    frame: pd.DataFrame = getattr(store, f"{name}_df")(**filters, **given)
    return frame
