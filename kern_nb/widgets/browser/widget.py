"""`browse`: list, read, branch and compare the sessions of a store by mouse or keyboard.

The script requests the list in parts as it scrolls: rows first, which need no messages, then totals. The actions are in
`session_actions`. Nothing here contains SQL or markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kern_nb.db.references import Reference
from kern_nb.db.session_search import SESSION_ORDERS, SessionFilter, SessionOrder
from kern_nb.errors import BadUsage, KernError, RunNotFound, SessionNotFound
from kern_nb.records import Run, RunStatus, Session
from kern_nb.text import formatting
from kern_nb.views import session_list
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import decode_key, encode_key
from kern_nb.widgets.browser import session_rows
from kern_nb.widgets.browser.session_actions import SessionActions
from kern_nb.widgets.rpc import call

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

MAX_ROWS = 200  # the most rows of the list in one answer
MAX_SELECTED = 1_000


def browse(
    store: str | SessionStore | None = None,
    *,
    text: str | None = None,
    agent: str | None = None,
    user: str | None = None,
    status: RunStatus | None = None,
    order: SessionOrder = "created",
    descending: bool = True,
) -> SessionBrowser:
    """Browse the sessions of a store: filter, sort, read, branch, compare, summarize, rename and tag them.

    Args:
        store: A store or its name; None for the current store.
        text: Only sessions whose title or id contains this, ignoring case; ``#refund`` filters by the tag "refund".
        agent: Only sessions whose agent, team or workflow id contains this.
        user: Only sessions whose user id contains this.
        status: Only sessions whose latest run has this status.
        order: created, updated, title, session (the id), owner, user, messages, tokens or cost.
        descending: Whether to sort in descending order.

    Returns:
        A widget. Its selection is available as ``.selected``, ``.df()`` and ``.sql``.

    Raises:
        BadUsage: unknown status or order.
        NoStore: no store is named or attached.

    Example:
        >>> from kern_nb import browse
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.records import Session
        >>> db = InMemoryDb()
        >>> session = db.save_session(Session(session_id="chat", user_id="ann"))
        >>> list(browse(db, user="ann").df()["session_id"])
        ['chat']
    """
    narrowing = session_rows.parse_filter(text, agent, user, status)
    return SessionBrowser(store, narrowing, order=order, descending=descending)


def _check_order(order: str) -> None:
    if order not in SESSION_ORDERS:
        raise BadUsage(f"Unknown order {order!r}.", f"Orders: {', '.join(SESSION_ORDERS)}.")


class SessionBrowser(SessionActions, script="browser", parts=("texts", "sessions", "transcript", "branches")):
    """A browser for the sessions of a store.

    Attributes:
        narrowing: The current filter.
        order: The current sort order.
        descending: Whether the list is sorted in descending order.
        place: The reference that was clicked last, as ``chat`` or ``chat/2.5``; None before that.
        result: The result of the last action: a `Session`, a `Comparison`, a `Digest`, an `Export`.
    """

    def __init__(
        self,
        store: str | SessionStore | None = None,
        narrowing: SessionFilter | None = None,
        *,
        order: SessionOrder = "created",
        descending: bool = True,
    ) -> None:
        _check_order(order)
        self.narrowing = narrowing or SessionFilter()
        self.order: SessionOrder = order
        self.descending = descending
        self.place: str | None = None
        self.result: Any = None
        self._selection: list[str] = []
        self._session_id: str | None = None
        self._total: int | None = None
        self._offset = 0
        super().__init__(store)

    # For Python -------------------------------------------------------------------------------------------------------

    @property
    def selected(self) -> list[str]:
        """The ids of the selected sessions; without a selection that of the open session."""
        return list(self._selection) or ([] if self._session_id is None else [self._session_id])

    def df(self) -> pd.DataFrame:
        """Return the selected sessions, else all that match the filter, as ``store.sessions_df``."""
        if not self.selected and not self.narrowing:
            return self.store.sessions_df()
        return self.store.sessions_df(self.selected or self._matching_ids())

    @property
    def sql(self) -> str:
        """The same as a query: ``store.sql(browser.sql, browser.params)``."""
        return self._query()[0]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of `sql`."""
        return self._query()[1]

    def _query(self) -> tuple[str, dict[str, Any]]:
        ids = self.selected or (self._matching_ids() if self.narrowing.tag is not None else None)
        return session_rows.build_query(self.narrowing, ids, self.order, descending=self.descending)

    def _matching_ids(self) -> list[str]:
        return self.store.find_sessions(self.narrowing, limit=None)

    def __repr__(self) -> str:
        total = "" if self._total is None else f", {formatting.pluralize(self._total, 'session')}"
        selected = f", {len(self._selection):,} selected" if self._selection else ""
        return formatting.escape_controls(f"<SessionBrowser of {self.store.url}{total}{selected}>")

    def fallback_html(self) -> str:
        """Render the visible part of the list, the open session, and the last result."""
        ids = self._find(self._offset, session_list.FALLBACK_ROWS)
        session = None if self._session_id is None else self.store.get_session(self._session_id, runs=False)
        limit = transcript_data.MAX_RUNS
        runs = [] if session is None else self.store.session_runs(session.session_id, limit=limit)
        rows = [session_rows.fallback_row(item) for item in self.store.session_cards(ids)]
        position = (self._offset, self._total or 0)
        return session_list.fallback_html(rows, position, session, runs, self.result, self._selection)

    # The list ---------------------------------------------------------------------------------------------------------

    @call
    def start(self) -> dict[str, Any]:
        """Return the initial state for the script."""
        self._total = None
        return {
            "store": formatting.truncate(self.store.url, 200),
            "read_only": self.store.read_only,
            "statuses": list(session_rows.STATUSES),
            "orders": list(SESSION_ORDERS),
            "filter": session_rows.filter_fields(self.narrowing),
            "descending": self.descending,
            "chosen": list(map(encode_key, self._selection)),
            "shown": None if self._session_id is None else encode_key(self._session_id),
            **self.rows(self._offset, MAX_ROWS // 2),
        }

    @call
    def find(self, text: str, agent: str, user: str, status: str, order: str, descending: bool) -> dict[str, Any]:  # noqa: FBT001 - a call's arguments come by name
        """Set the filter and order, and return the first rows."""
        narrowing = session_rows.parse_filter(text, agent, user, status)
        _check_order(order)
        before = self.narrowing, self.order, self.descending, self._total, self._offset
        self._total = self._total if narrowing == self.narrowing else None
        self.narrowing, self.order, self.descending = narrowing, order, descending  # type: ignore[assignment]
        self._offset = 0
        try:
            return self.rows(0, MAX_ROWS // 2)
        except KernError:  # keep the state that is on screen
            self.narrowing, self.order, self.descending, self._total, self._offset = before
            raise

    @call
    def refresh(self) -> dict[str, Any]:
        """Read the list again."""
        self.store.refresh()
        self._total = None
        return self.rows(self._offset, MAX_ROWS // 2)

    @call
    def rows(self, offset: int, limit: int) -> dict[str, Any]:
        """Return rows of the list."""
        ids = self._find(max(0, offset), max(1, min(limit, MAX_ROWS)))
        rows = [session_rows.list_row(item) for item in self.store.session_cards(ids)]
        return {"offset": max(0, offset), "total": self._total, "order": self.order, "rows": rows}

    def _find(self, offset: int, limit: int) -> list[str]:
        ids = self.store.find_sessions(
            self.narrowing, order=self.order, descending=self.descending, offset=offset, limit=limit, total=self._total
        )
        self._total = ids.total
        return ids

    @call
    def set_offset(self, offset: int) -> None:
        """Store the scroll position, where the fallback starts."""
        self._offset = max(0, offset)

    @call(slow=True)
    def totals(self, keys: list[str]) -> dict[str, dict[str, str]]:
        """Return the totals of sessions by key; see `session_rows.totals`."""
        ids = [decode_key(key) for key in keys[:MAX_ROWS]]
        return {encode_key(name): texts for name, texts in session_rows.totals(self.store, ids).items()}

    @call
    def choose(self, keys: list[str]) -> int:
        """Set the selection."""
        if len(keys) > MAX_SELECTED:
            hint = "Filter the list and use browser.df()."
            raise BadUsage(f"At most {MAX_SELECTED:,} sessions can be selected, got {len(keys):,}.", hint)
        self._selection = list(dict.fromkeys(decode_key(key) for key in keys))
        return len(self._selection)

    # The open session -------------------------------------------------------------------------------------------------

    @call
    def show(self, key: str) -> dict[str, Any]:
        """Open a session: its header, its branch tree, and the beginning of its transcript."""
        session = self._load_session(key)
        self._session_id = self.place = session.session_id
        tree = self.store.session_family(session.session_id)
        return {
            "key": encode_key(session.session_id),
            **session_rows.session_header(session),
            "line": self.line("show", session.session_id),
            "family": session_rows.build_tree(tree, session.session_id),
            "transcript": self._part(session, transcript_data.Start()),
        }

    @call
    def hide(self) -> None:
        """Close the session."""
        self._session_id = self.place = None

    @call
    def more(self, key: str, run_index: int, position: int) -> dict[str, Any]:
        """Return the next part of a transcript."""
        return self._part(self._load_session(key), transcript_data.Start(run_index, position))

    def _part(self, session: Session, start: transcript_data.Start) -> dict[str, Any]:
        runs = self.store.session_runs(session.session_id, start=start.run_index, limit=transcript_data.MAX_RUNS)
        return transcript_data.transcript_part(session, runs, start)

    @call
    def text(self, key: str, run_index: int, position: int, part: transcript_data.Part, number: int) -> dict[str, Any]:
        """Return a text of the transcript in full."""
        session, run = self._load_run(key, run_index)
        return transcript_data.full_text(session, run, position, part, number)

    @call
    def picture(self, key: str, run_index: int, position: int, number: int, tool_call: int | None) -> dict[str, str]:
        """Return an image of a message, or of the result of one of its tool calls."""
        session, run = self._load_run(key, run_index)
        return media.load_picture(transcript_data.stored_content(session, run, position, tool_call), number, self.store)

    @call
    def point(self, key: str, run_index: int | None, message_index: int | None) -> str:
        """Store the reference that was clicked, and return it."""
        self.place = str(Reference(decode_key(key), run_index, message_index))
        return formatting.escape_controls(self.place)

    def _load_session(self, key: str) -> Session:
        session_id = decode_key(key)
        session = self.store.get_session(session_id, runs=False)
        if session is None:
            raise SessionNotFound(f"Session {session_id!r} no longer exists.", "Refresh the list.")
        return session

    def _load_run(self, key: str, run_index: int) -> tuple[Session, Run]:
        session = self._load_session(key)
        runs = self.store.session_runs(session.session_id, start=run_index, limit=1)
        if not runs:
            raise RunNotFound(f"Session {session.session_id!r} no longer has run {run_index}.", "Refresh the list.")
        return session, runs[0]
